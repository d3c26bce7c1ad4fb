"""Classifiers of normal distributions compiled: their scores are quadratic in the features.

All are computed in float64: distances in units of small variances square the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB

from dconv._affine import Affine
from dconv._fitted import attribute, classes, finite, n_features, numbers, refuse
from dconv._kernels._network import SOFTMAX, SQUARE
from dconv._linear_predictors import softmax
from dconv._network import Layer, Network
from dconv._network_run import NetworkPredictor, NetworkScorer
from dconv.discriminant import RegularizedDiscriminantAnalysis

_Discriminant: TypeAlias = QuadraticDiscriminantAnalysis | RegularizedDiscriminantAnalysis

# What rounding may be multiplied by where distances from both classes are computed together: 1e-8 is left.
_DIGITS = 4e7


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
    return NetworkPredictor(found, Network((Layer(scores, SOFTMAX),), normalise=True, squares=True, double=True))


class _Quadratic(NamedTuple):
    """What a quadratic discriminant was fitted to."""

    means: np.ndarray  # (classes, features)
    axes: list[np.ndarray]  # of each class (rank, features): about its mean they give coordinates of variance 1
    bias: np.ndarray  # (classes,): the score at the mean


def _read(classifier: _Discriminant) -> _Quadratic:
    n, n_classes = n_features(classifier), len(classes(classifier))
    means = numbers(classifier, "means_", (n_classes, n))
    if isinstance(classifier, RegularizedDiscriminantAnalysis):
        own_axes = numbers(classifier, "axes_", (n_classes, n, n))
        return _Quadratic(means, list(own_axes), numbers(classifier, "intercept_", (n_classes,)))
    rotations, scalings = attribute(classifier, "rotations_"), attribute(classifier, "scalings_")
    if len(rotations) != n_classes or len(scalings) != n_classes:
        raise refuse(classifier, "it has not one rotation for each class")
    scales = [finite(classifier, "scalings_", each) for each in scalings]
    axes = [
        finite(classifier, "rotations_", rotation, (n, len(scale))).T / np.sqrt(scale)[:, np.newaxis]
        for rotation, scale in zip(rotations, scales, strict=True)
    ]
    bias = _log_priors(classifier, "priors_") - np.array([np.log(scale).sum() for scale in scales]) / 2
    return _Quadratic(means, axes, bias)


def _quadratic_scores(classifier: _Discriminant) -> tuple[Affine, Affine]:
    """Return the map to coordinates, and that from their squares to a score for each class, or of two classes to that
    of the second less that of the first.
    """
    fitted = _read(classifier)
    if len(fitted.means) == 2 and (together := _common_axes(fitted)):
        return together
    centre = fitted.means.mean(axis=0)
    offsets = [axes @ (centre - mean) for axes, mean in zip(fitted.axes, fitted.means, strict=True)]
    owner = np.repeat(np.arange(len(fitted.means)), [len(axes) for axes in fitted.axes])
    to_scores = Affine(-0.5 * (owner == np.arange(len(fitted.means))[:, np.newaxis]), fitted.bias)
    if len(fitted.means) == 2:
        to_scores = Affine(np.diff(to_scores.weight, axis=0), np.diff(to_scores.bias))
    return Affine(np.concatenate(fitted.axes), np.concatenate(offsets), centre), to_scores


def _common_axes(fitted: _Quadratic) -> tuple[Affine, Affine] | None:
    """Return the same with axes that both of two classes have, half as many, if that loses no digits.

    Of coordinates y in which the first class has mean 0 and variance 1 in any direction, those are taken along which
    the second one varies independently: in its units they are y * ratio + apart, and its squared distance is the sum of
    their squares. What is linear in y is made of two squares: ((a + 1)^2 - (a - 1)^2) / 4 = a.
    """
    first, second = fitted.axes
    if not len(first) == len(second) == first.shape[1]:
        return None
    variances = 1 / np.square(first).sum(axis=1)
    back = first.T * variances  # its inverse, as its rows are at right angles
    turned, ratio, axes = np.linalg.svd(second @ back)
    apart = turned.T @ (second @ (fitted.means[0] - fitted.means[1]))
    condition = np.sqrt(variances.max() / variances.min())
    if (1 + ratio.max() ** 2) * (1 + apart @ apart) * condition > _DIGITS:
        return None
    weight, linear = axes @ first, -ratio * apart
    size = max(float(np.linalg.norm(linear)), 1.0)
    both = np.outer([1, 1], linear @ weight / size)
    inner = Affine(np.vstack([weight, both]), np.append(np.zeros(len(weight)), [1, -1]), fitted.means[0])
    outer = np.concatenate([(1 - ratio**2) / 2, [size / 4, -size / 4]])
    return inner, Affine(outer[np.newaxis], np.diff(fitted.bias) - apart @ apart / 2)


def _log_priors(classifier: Any, name: str) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logarithms = np.log(numbers(classifier, name, (len(classes(classifier)),)))
    return finite(classifier, f"the logarithm of {name}", logarithms)


def _quadratic(classifier: _Discriminant) -> NetworkPredictor:
    inner, outer = _quadratic_scores(classifier)
    layers = (Layer(inner, SQUARE), softmax(outer))
    return NetworkPredictor(classes(classifier), Network(layers, normalise=True, double=True))


def _quadratic_scorer(classifier: _Discriminant) -> NetworkScorer:
    inner, outer = _quadratic_scores(classifier)
    return NetworkScorer(classes(classifier), Network((Layer(inner, SQUARE), Layer(outer)), double=True))


COMPILERS: dict[type, Callable[[Any], NetworkPredictor]] = {
    GaussianNB: _naive_bayes,
    QuadraticDiscriminantAnalysis: _quadratic,
    RegularizedDiscriminantAnalysis: _quadratic,
}
SCORERS: dict[type, Callable[[Any], NetworkScorer]] = {QuadraticDiscriminantAnalysis: _quadratic_scorer}
