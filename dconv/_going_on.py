"""Classifiers that go on learning: of a Pipeline its last step."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline


def last_step(estimator: Any) -> Any:
    """Return what a Pipeline, or one within one, ends in."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator


def learn_more(classifier: Any, rows: np.ndarray, targets: np.ndarray, first: bool, **more: Any) -> None:
    """Call the `partial_fit` of a classifier or of the last step of a Pipeline.

    The steps in front stay as the `first` time has fitted them.
    """
    while isinstance(classifier, Pipeline):
        for _, step in classifier.steps[:-1]:
            if step not in (None, "passthrough"):
                rows = step.fit_transform(rows, targets) if first else step.transform(rows)
        classifier = classifier.steps[-1][1]
    classifier.partial_fit(rows, targets, **more)
