"""How frequent classes are: among the pixels learnt from, and where they are looked for.

A classifier that has learnt from 1000 pixels of every class takes all for equally frequent. By Bayes' rule its
probabilities become those for other frequencies, the prior, when each is multiplied with the ratio of the two.

Reference: M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the outputs of a classifier to new a priori
probabilities: a simple procedure", Neural Computation 14(1), 2002. doi:10.1162/089976602753284446
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from dconv._lazy_arrays import map_rows
from dconv._pixels import rows_at_once

PRIORS = ("balanced", "data")


def check_class_prior(class_prior: Any) -> None:
    """Check what can be checked before the classes are known."""
    if isinstance(class_prior, str) and class_prior not in PRIORS:
        raise ValueError(f"class_prior must be None, 'balanced', 'data' or an array, got {class_prior!r}")


def class_weights(
    labels: Sequence[Any], masks: Sequence[Any], weights: Sequence[Any] | None, classes: np.ndarray
) -> np.ndarray:
    """Return the weight of the masked pixels of each class together."""
    total = np.zeros(len(classes))
    for index, (image, mask) in enumerate(zip(labels, masks, strict=True)):
        of_image = None if weights is None else weights[index]
        for part in map_rows(partial(_weights_of_part, classes), rows_at_once(image.shape), image, mask, of_image):
            total += part
    return total


def _weights_of_part(
    classes: np.ndarray, start: int, labels: np.ndarray, mask: np.ndarray, weights: np.ndarray | None
) -> np.ndarray:
    places = np.searchsorted(classes, labels[mask])
    return np.bincount(places, None if weights is None else weights[mask], len(classes))


def prior_factors(class_prior: Any, learnt: np.ndarray, labelled: np.ndarray) -> np.ndarray | None:
    """Return what the probability of each class is to be multiplied with, None if with nothing.

    Parameters
    ----------
    class_prior : None, "balanced", "data" or array_like of shape (n_classes,)
        As the user gave it.
    learnt, labelled : ndarray of shape (n_classes,)
        The weight of each class among the pixels learnt from, and among all that are labelled.
    """
    if class_prior is None:
        return None
    if isinstance(class_prior, str):
        prior = np.ones(len(learnt)) if class_prior == "balanced" else labelled
    else:
        try:
            prior = np.asarray(class_prior, float)
        except (TypeError, ValueError):
            prior = np.empty(0)
        if prior.shape != learnt.shape or not np.isfinite(prior).all() or prior.min() < 0 or prior.max() <= 0:
            raise ValueError(
                f"class_prior must be None, 'balanced', 'data' or one number for each of the {len(learnt)} classes, "
                f"not negative and not all 0, got {class_prior!r:.60}"
            )
    missing = (learnt == 0) & (prior > 0)
    if missing.any():
        raise ValueError(
            f"class_prior={class_prior!r:.60} cannot be had: classes number {np.flatnonzero(missing).tolist()} have no "
            "weight among the pixels learnt from; give their pixels a sample_weight"
        )
    frequency = np.where(learnt > 0, learnt, 1) / learnt.sum()
    return (prior / prior.sum() / frequency).astype(np.float32)
