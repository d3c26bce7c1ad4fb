"""Classifiers of normal distributions compiled: their scores are quadratic in the features.

Both are computed in float64: distances in units of small variances square the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB

from dconv._affine import Affine
from dconv._fitted import attribute, classes, finite, n_features, numbers, refuse
from dconv._kernels._network import EXPONENTIAL, SQUARE
from dconv._network import Layer, Network
from dconv._network_run import NetworkPredictor, NetworkScorer


def _naive_bayes(classifier: GaussianNB) -> NetworkPredictor:
    """Return the scores log(prior) - sum((x - mean)^2 / variance + log(2 pi variance)) / 2, as a polynomial of x about
    the middle of the means.
    """
    found = classes(classifier)
    shape = (len(found), n_features(classifier))
    mean, variance = numbers(classifier, "theta_", shape), numbers(classifier, "var_", shape)
    if not (variance > 0).all():
        raise refuse(classifier, "a variance is zero")
    centre = mean.mean(axis=0)
    apart = mean - centre
    bias = _log_priors(classifier, "class_prior_")
    bias -= (apart**2 / variance + np.log(2 * np.pi * variance)).sum(axis=1) / 2
    scores = Affine(np.hstack([apart / variance, -0.5 / variance]), bias, centre)
    return NetworkPredictor(found, Network((Layer(scores, EXPONENTIAL),), normalise=True, squares=True, double=True))


def _quadratic_scores(classifier: QuadraticDiscriminantAnalysis) -> tuple[Affine, Affine]:
    """Return the map to all coordinates in which some class has variance 1, and that from their squares to scores."""
    n, n_classes = n_features(classifier), len(classes(classifier))
    means = numbers(classifier, "means_", (n_classes, n))
    rotations, scalings = attribute(classifier, "rotations_"), attribute(classifier, "scalings_")
    if len(rotations) != n_classes or len(scalings) != n_classes:
        raise refuse(classifier, "it has not one rotation for each class")
    scales = [finite(classifier, "scalings_", each) for each in scalings]
    axes = [
        finite(classifier, "rotations_", rotation, (n, len(scale))).T / np.sqrt(scale)[:, np.newaxis]
        for rotation, scale in zip(rotations, scales, strict=True)
    ]
    centre = means.mean(axis=0)
    offsets = [axis @ (centre - mean) for axis, mean in zip(axes, means, strict=True)]
    owner = np.repeat(np.arange(n_classes), [len(scale) for scale in scales])
    bias = _log_priors(classifier, "priors_") - np.array([np.log(scale).sum() for scale in scales]) / 2
    to_scores = Affine(-0.5 * (owner == np.arange(n_classes)[:, np.newaxis]), bias)
    return Affine(np.concatenate(axes), np.concatenate(offsets), centre), to_scores


def _log_priors(classifier: Any, name: str) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logarithms = np.log(numbers(classifier, name, (len(classes(classifier)),)))
    return finite(classifier, f"the logarithm of {name}", logarithms)


def _quadratic(classifier: QuadraticDiscriminantAnalysis) -> NetworkPredictor:
    inner, outer = _quadratic_scores(classifier)
    layers = (Layer(inner, SQUARE), Layer(outer, EXPONENTIAL))
    return NetworkPredictor(classes(classifier), Network(layers, normalise=True, double=True))


def _quadratic_scorer(classifier: QuadraticDiscriminantAnalysis) -> NetworkScorer:
    inner, outer = _quadratic_scores(classifier)
    if len(outer.bias) == 2:
        outer = Affine(outer.weight[1:] - outer.weight[:1], outer.bias[1:] - outer.bias[:1])
    return NetworkScorer(classes(classifier), Network((Layer(inner, SQUARE), Layer(outer)), double=True))


COMPILERS: dict[type, Callable[[Any], NetworkPredictor]] = {
    GaussianNB: _naive_bayes,
    QuadraticDiscriminantAnalysis: _quadratic,
}
SCORERS: dict[type, Callable[[Any], NetworkScorer]] = {QuadraticDiscriminantAnalysis: _quadratic_scorer}
