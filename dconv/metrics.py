"""Scores of segmentations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int, items_of
from dconv._pixels import as_ignore_label
from dconv._validation import as_array, check_integers

__all__ = ["mean_iou_score"]


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
    if average not in ("macro", None):
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
