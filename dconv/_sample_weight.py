"""The name under which a classifier takes the weights of samples."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn import get_config
from sklearn.pipeline import Pipeline


def weight_parameter(classifier: Any) -> str:
    """Return the name under which the `fit` of `classifier` takes the weights of samples.

    Raises
    ------
    ValueError
        If it takes none.
    """
    if isinstance(classifier, Pipeline) and not get_config()["enable_metadata_routing"]:
        step, last = classifier.steps[-1]
        return f"{step}__{weight_parameter(last)}"
    parameters = inspect.signature(classifier.fit).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "sample_weight" not in parameters and not takes_any:
        raise ValueError(
            f"sample_weight was given, but {type(classifier).__name__}.fit does not take it; leave it out or choose a "
            "classifier that does"
        )
    return "sample_weight"
