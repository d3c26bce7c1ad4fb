"""Scores of segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["mean_iou_score"]


def mean_iou_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    ignore_label: int | None = 0,
    labels: Sequence[int] | None = None,
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
        The classes to report, in this order. None reports those in `y_true` or `y_pred`, sorted.
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
        If the images do not match, or no pixel counts.

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
    pairs = [_counted(true, predicted, ignore_label) for true, predicted in _matched_images(y_true, y_pred)]
    if not any(len(true) for true, _ in pairs):
        raise ValueError(f"no pixel counts: every value of y_true is ignore_label={ignore_label}")
    classes = np.unique(np.concatenate([np.unique(values) for pair in pairs for values in pair]))
    n_both, n_true, n_predicted = np.sum([_class_counts(*pair, classes) for pair in pairs], axis=0)
    ratios = dict(zip(classes.tolist(), (n_both / (n_true + n_predicted - n_both)).tolist(), strict=True))
    if labels is None:
        ratios.pop(ignore_label, None)
        reported = list(ratios)
    else:
        reported = [int(label) for label in labels]
    scores = np.array([ratios.get(label, np.nan) for label in reported])
    if average is None:
        return scores
    if np.isnan(scores).all():
        raise ValueError(f"none of labels={reported} is in y_true or y_pred; choose from {list(ratios)}")
    return float(np.nanmean(scores))


def _matched_images(y_true: Any, y_pred: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of integer label images of equal shapes."""
    if isinstance(y_true, list | tuple) or isinstance(y_pred, list | tuple):
        true, predicted = list(y_true), list(y_pred)  # a batch on one side goes with a list on the other
    else:
        true, predicted = [y_true], [y_pred]
    if len(true) != len(predicted):
        raise ValueError(f"y_true has {len(true)} image(s), but y_pred has {len(predicted)}")
    pairs: list[Any] = []
    for index, images in enumerate(zip(true, predicted, strict=True)):
        pair = tuple(np.asarray(image) for image in images)
        for name, image in zip(("y_true", "y_pred"), pair, strict=True):
            if image.dtype.kind not in "bui":
                raise TypeError(f"{name} must hold integer labels, got dtype {image.dtype} in image {index}")
        if pair[0].shape != pair[1].shape:
            raise ValueError(f"y_true has shape {pair[0].shape}, but y_pred has {pair[1].shape} in image {index}")
        pairs.append(pair)
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
