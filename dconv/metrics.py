"""Scores of segmentations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int, items_of
from dconv._object_scores import overlaps
from dconv._pixels import as_ignore_label
from dconv._validation import as_array, check_integers

__all__ = ["mean_iou_score", "object_f1_score"]


def mean_iou_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    ignore_label: int | None = 0,
    labels: Iterable[SupportsIndex] | None = None,
    average: str | None = "macro",
) -> float | np.ndarray:
    """Return the intersection over union of labelled and predicted pixels, averaged over classes.

    Pixels are counted over all images together before any ratio is taken, as benchmarks of this field do.

    Parameters
    ----------
    y_true : array_like of int or list of array_like
        A label image, a batch or a list of label images.
    y_pred : array_like of int or list of array_like
        Predicted labels, of the same shapes.
    ignore_label : int or None, default=0
        Pixels with this value in `y_true` do not count. Where it is predicted at a pixel that counts, the true class
        misses that pixel, but the value is no class itself.
    labels : sequence of int, default=None
        The classes to report, in this order, without `ignore_label`. None reports those in `y_true` or `y_pred`,
        sorted.
    average : {"macro", None}, default="macro"
        "macro" returns the mean over classes, None one value per class.

    Returns
    -------
    score : float or ndarray of shape (n_classes,)
        Between 0 and 1. A class that is neither labelled nor predicted anywhere has no ratio: it is left out of the
        mean and is NaN in the array.

    Raises
    ------
    TypeError
        If labels are not integers.
    ValueError
        If the images do not match, no pixel counts, or `labels` holds `ignore_label`.

    See Also
    --------
    sklearn.metrics.jaccard_score : The same ratio of flat label vectors.

    Notes
    -----
    ``IoU = n_both / (n_true + n_pred - n_both)`` per class, where `n_both` pixels of the class are predicted right.

    References
    ----------
    M. Everingham et al., "The PASCAL visual object classes challenge: a retrospective", IJCV 111, 2015.
    doi:10.1007/s11263-014-0733-5

    Examples
    --------
    >>> from dconv.metrics import mean_iou_score
    >>> mean_iou_score([[1, 1, 2, 0]], [[1, 2, 2, 2]])
    0.5
    >>> mean_iou_score([[1, 1, 2, 0]], [[1, 2, 2, 2]], labels=[1, 2, 3], average=None)
    array([0.5, 0.5, nan])
    """
    if not (average is None or isinstance(average, str)) or average not in ("macro", None):
        raise ValueError(f"average must be 'macro' or None, got {average!r}")
    ignore_label = as_ignore_label(ignore_label)
    reported = None if labels is None else _as_classes(labels, ignore_label)
    pairs = [_counted(true, predicted, ignore_label) for true, predicted in _matched_images(y_true, y_pred)]
    if not any(len(true) for true, _ in pairs):
        raise ValueError(f"no pixel counts: every value of y_true is ignore_label={ignore_label}")
    classes = np.unique(np.concatenate([np.unique(values) for pair in pairs for values in pair]))
    n_both, n_true, n_predicted = np.sum([_class_counts(*pair, classes) for pair in pairs], axis=0)
    ratios = dict(zip(classes.tolist(), (n_both / (n_true + n_predicted - n_both)).tolist(), strict=True))
    ratios.pop(ignore_label, None)
    reported = list(ratios) if reported is None else reported
    scores = np.array([ratios.get(label, np.nan) for label in reported])
    if average is None:
        return scores
    if np.isnan(scores).all():
        raise ValueError(f"none of labels={reported} is in y_true or y_pred; choose from {list(ratios)}")
    return float(np.nanmean(scores))


def object_f1_score(
    y_true: ArrayLike, y_pred: ArrayLike, *, iou_threshold: float | Sequence[float] = 0.5
) -> float | np.ndarray:
    """Return how many objects are found, as the F1 score of objects that are matched by their overlap.

    Parameters
    ----------
    y_true : array_like of int or list of array_like
        An image, a batch or a list of images of any rank, in which each object has a number of its own and 0 is none.
    y_pred : array_like of int or list of array_like
        Objects that were found, likewise, of the same shapes.
    iou_threshold : float or sequence of float, default=0.5
        An object is found if one in `y_pred` has more than this intersection over union with it; at least 0.5, so that
        there is one at most.

    Returns
    -------
    score : float or ndarray of shape (n_thresholds,)
        ``2 * n_found / (n_true + n_pred)``, of the objects of all images together, for each threshold; 1 if there is no
        object on either side.

    Raises
    ------
    TypeError
        If numbers of objects are not integers.
    ValueError
        If the images do not match, or a threshold is below 0.5 or not below 1.

    See Also
    --------
    dconv.find_objects : Objects from probabilities.

    Notes
    -----
    The mean over the thresholds ``numpy.arange(0.5, 1, 0.05)`` is that of the 2018 Data Science Bowl, with F1 in the
    place of the share of all objects that are matched [1]_.

    References
    ----------
    .. [1] J. C. Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature
       Methods 16, 2019. doi:10.1038/s41592-019-0612-7

    Examples
    --------
    >>> from dconv.metrics import object_f1_score
    >>> y_true, y_pred = [[1, 1, 1, 0, 2, 2]], [[4, 4, 4, 4, 0, 2]]
    >>> object_f1_score(y_true, y_pred)
    0.5
    >>> object_f1_score(y_true, y_pred, iou_threshold=[0.5, 0.8])
    array([0.5, 0. ])
    """
    items = items_of(iou_threshold)
    thresholds = np.array((iou_threshold,) if items is None else items)
    if thresholds.dtype.kind not in "iuf" or thresholds.ndim != 1 or not len(thresholds):
        raise TypeError(f"iou_threshold must be a number or a sequence of numbers, got {iou_threshold!r}")
    if not ((thresholds >= 0.5) & (thresholds < 1)).all():
        raise ValueError(
            f"iou_threshold must be at least 0.5, where an object has one match at most, and below 1, but got "
            f"{iou_threshold!r}"
        )
    n_objects, n_found = 0, np.zeros(len(thresholds), int)
    for true, predicted in _matched_images(y_true, y_pred):
        ious, n_true, n_predicted = overlaps(true, predicted)
        n_objects += n_true + n_predicted
        n_found += np.count_nonzero(ious[:, np.newaxis] > thresholds, axis=0)
    scores = 2 * n_found / n_objects if n_objects else np.ones(len(thresholds))
    return float(scores[0]) if items is None else scores


def _as_classes(labels: Any, ignore_label: int | None) -> list[int]:
    """Return the classes to report."""
    items = items_of(labels)
    if items is None:
        raise TypeError(f"labels must be None or a sequence of ints, got {labels!r}")
    classes = [as_int(label, "labels", rule="None or a sequence of ints") for label in items]
    if ignore_label is not None and ignore_label in classes:
        raise ValueError(
            f"labels={classes} holds ignore_label={ignore_label}, which is no class; leave it out, or pass "
            f"ignore_label=None if {ignore_label} is a class"
        )
    return classes


def _matched_images(y_true: Any, y_pred: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of integer label images of equal shapes."""
    several = isinstance(y_true, list | tuple) or isinstance(y_pred, list | tuple)
    if several:
        true, predicted = list(y_true), list(y_pred)  # a batch on one side goes with a list on the other
    else:
        true, predicted = [y_true], [y_pred]
    if len(true) != len(predicted):
        raise ValueError(f"y_true has {len(true)} image(s), but y_pred has {len(predicted)}")
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for index, images in enumerate(zip(true, predicted, strict=True)):
        names = [f"{name}[{index}]" if several else name for name in ("y_true", "y_pred")]
        pair = [as_array(image, name, "ignore_label") for name, image in zip(names, images, strict=True)]
        for name, image in zip(names, pair, strict=True):
            check_integers(image, name)
        if pair[0].shape != pair[1].shape:
            raise ValueError(f"{names[0]} has shape {pair[0].shape}, but {names[1]} has {pair[1].shape}")
        pairs.append((pair[0], pair[1]))
    return pairs


def _counted(true: np.ndarray, predicted: np.ndarray, ignore_label: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels that count, flat."""
    if ignore_label is None:
        return true.ravel(), predicted.ravel()
    counts = true != ignore_label
    return true[counts], predicted[counts]


def _class_counts(true: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return, per class, the pixels that are predicted right, those of the true class and those predicted so."""
    true, predicted = np.searchsorted(classes, true), np.searchsorted(classes, predicted)
    return np.stack([np.bincount(part, minlength=len(classes)) for part in (true[true == predicted], true, predicted)])
