"""What compilers read from fitted estimators of scikit-learn, guarded: what is not as expected is not compilable.

Only here, and of trees in `_fitted_trees.py`, are attributes read that scikit-learn does not document.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dconv._predictor import NotCompilable


def refuse(estimator: Any, why: str) -> NotCompilable:
    """Return the error that says why an estimator cannot be compiled."""
    return NotCompilable(f"{type(estimator).__name__} cannot be compiled: {why}")


def expect(condition: bool, estimator: Any, otherwise: str) -> None:
    """Refuse an estimator that is not as it is read here."""
    if not condition:
        raise refuse(estimator, otherwise)


def attribute(estimator: Any, name: str) -> Any:
    """Return an attribute that a fitted estimator should have."""
    try:
        return getattr(estimator, name)
    except AttributeError:
        raise refuse(estimator, f"it has no {name}") from None


def numbers(estimator: Any, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return an attribute as finite float64; one number may stand for an array that has it everywhere."""
    return finite(estimator, name, attribute(estimator, name), shape)


def finite(estimator: Any, name: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return `value`, which is called `name`, as finite float64 of a shape."""
    try:
        array = np.asarray(value, np.float64)
        if shape is not None and array.ndim == 0:
            array = np.broadcast_to(array, shape)
    except (TypeError, ValueError):  # sparse, ragged, or of another library
        raise refuse(estimator, f"{name} is no array of numbers") from None
    if shape is not None and array.shape != shape:
        raise refuse(estimator, f"{name} has shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise refuse(estimator, f"{name} is not finite")
    return array


def n_features(estimator: Any) -> int:
    return int(attribute(estimator, "n_features_in_"))


def classes(estimator: Any) -> np.ndarray:
    """Return the labels, of which there are two or more."""
    found = np.asarray(attribute(estimator, "classes_"))
    if found.ndim != 1 or len(found) < 2:
        raise refuse(estimator, "it tells no two classes apart")
    return found


def check_one_label(estimator: Any) -> None:
    """Refuse a classifier that was fitted on several labels at once, which looks like one of many classes."""
    kind = attribute(attribute(estimator, "_label_binarizer"), "y_type_")
    if kind not in ("binary", "multiclass"):
        raise refuse(estimator, f"its target is {kind}")


def calibrations(classifier: Any) -> list[tuple[Any, list[tuple[float, float]]]]:
    """Return the parts of a CalibratedClassifierCV: fitted classifiers and the (slope, intercept) of their sigmoids."""
    parts = []
    for part in attribute(classifier, "calibrated_classifiers_"):
        method = attribute(part, "method")
        if method != "sigmoid":
            # The steps of isotonic calibration magnify the rounding of a score without bound.
            raise refuse(classifier, f"its method is {method!r}")
        sigmoids = [(float(attribute(each, "a_")), float(attribute(each, "b_"))) for each in part.calibrators]
        parts.append((attribute(part, "estimator"), sigmoids))
    return parts
