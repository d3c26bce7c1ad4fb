"""The parts that a pixel classifier is made of: checked copies of its transformer and its classifier."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier

from dconv._axes import as_int, as_ndim
from dconv._base import ImageInput
from dconv._filter_bank import FilterBank
from dconv._going_on import last_step
from dconv.features import AtrousFeatures
from dconv.voting import default_classifier


def new_classifier(classifier: Any, ndim: int, random_state: np.random.RandomState, n_jobs: int) -> Any:
    """Return the classifier to fit: a clone of the user's, or the default one for images of this rank."""
    # Drawn for every classifier, so that the pixels drawn next do not depend on which it is.
    seed = random_state.randint(np.iinfo(np.int32).max)
    if classifier is None:
        return default_classifier(ndim=ndim, n_jobs=n_jobs, random_state=seed)
    return clone_of(classifier)


def clone_of(classifier: Any) -> Any:
    """Return a clone of the user's classifier, checked."""
    _check_estimator(classifier, "classifier", "None or a scikit-learn classifier", ("fit", "predict", "get_params"))
    if not is_classifier(classifier):
        raise TypeError(
            f"classifier must be a classifier, which sklearn.base.is_classifier says it is not: got {classifier!r:.60}"
        )
    if isinstance(last_step(classifier), ImageInput):
        raise TypeError(
            f"classifier must classify rows of features, but {type(last_step(classifier)).__name__} takes images; "
            "pass the classifier within"
        )
    return clone(classifier)


def new_features(
    features: Any, ndim: int, channel_axis: int | None, n_jobs: int | None, name: str = "features"
) -> tuple[Any, int, int | None]:
    """Return the transformer to fit, or "passthrough", and the `ndim` and `channel_axis` in force.

    Both are said once, in the owner or in the transformer: what is left at its default gives way.
    """
    ndim = as_ndim(ndim)
    if channel_axis is not None:
        channel_axis = as_int(channel_axis, "channel_axis", rule="None or an int")
    if isinstance(features, str) and features == "passthrough":
        return features, ndim, -1 if channel_axis is None else channel_axis
    if isinstance(features, FilterBank):
        raise TypeError(f"{name} must be a transformer of images, got a FilterBank; wrap it in DilatedConv(bank)")
    if features is None:
        return AtrousFeatures(normalize="auto", ndim=ndim, channel_axis=channel_axis, n_jobs=n_jobs), ndim, channel_axis
    rule = 'None, "passthrough" or a transformer of images'
    _check_estimator(features, name, rule, ("fit", "transform", "get_params"))
    features = clone(features)
    theirs = features.get_params(deep=False)
    ours: dict[str, Any] = {"ndim": ndim, "channel_axis": channel_axis}
    for key, default in (("ndim", 2), ("channel_axis", None)):
        own, other = ours[key], theirs.get(key, default)
        if other is not None:
            other = as_int(other, key, rule="an int" if key == "ndim" else "None or an int")
        if own == default:
            ours[key] = other
        elif other not in (default, own) and not (key == "channel_axis" and _same_axis(own, other, ours["ndim"])):
            raise ValueError(
                f"{key}={own!r} was given, but {name} has {key}={other!r} ({type(features).__name__}); say it in "
                "one of them and leave the other at its default"
            )
    agreed = dict(ours)
    if theirs.get("n_jobs", n_jobs) is None:
        agreed["n_jobs"] = n_jobs
    features.set_params(**{key: value for key, value in agreed.items() if key in theirs})
    return features, ours["ndim"], ours["channel_axis"]


def _same_axis(one: Any, other: Any, ndim: Any) -> bool:
    """Tell whether two numbers mean the same axis of an image with channels."""
    n_axes = as_ndim(ndim) + 1
    return (as_int(one, "channel_axis") - as_int(other, "channel_axis")) % n_axes == 0


def check_probabilities(classifier: Any, need: str) -> None:
    """Check that `classifier`, not fitted yet, will have probabilities; `need` says what for."""
    if not hasattr(classifier, "predict_proba"):
        raise ValueError(
            f"{need}, but {type(classifier).__name__} has no predict_proba; choose another one or wrap it in "
            "CalibratedClassifierCV"
        )


def check_may_look_ahead(features: Any, what: str) -> None:
    """Check that features are not causal, since `what`, an argument or estimator, sees what lies ahead of a sample."""
    parameters = features.get_params() if hasattr(features, "get_params") else {}  # of what is joined in a union too
    if any(bool(value) for name, value in parameters.items() if name.rpartition("__")[2] == "causal"):
        raise ValueError(
            f"{what} looks at what lies ahead of a sample, which features with causal=True do not; leave it out, or "
            "pass AtrousFeatures(causal=False)"
        )


def _check_estimator(value: Any, name: str, rule: str, methods: Sequence[str]) -> None:
    if inspect.isclass(value) or not all(hasattr(value, method) for method in methods):
        error = ValueError if isinstance(value, str) else TypeError
        raise error(f"{name} must be {rule} (an object with {', '.join(methods)}), got {value!r:.60}")
