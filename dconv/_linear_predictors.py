"""Linear classifiers compiled: their scores are one affine map, their probabilities an activation of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.svm import LinearSVC

from dconv._affine import Affine
from dconv._fitted import check_one_label, classes, finite, n_features, numbers, refuse
from dconv._kernels._network import LOGISTIC, RAMP, SOFTMAX
from dconv._network import Layer, Network
from dconv._network_run import NetworkPredictor, NetworkScorer


def softmax(scores: Affine) -> Layer:
    """Return the layer of probabilities, to be normalised, whose logarithms differ as the scores do; a single score is
    that of the second of two classes, and the first has zero.
    """
    return Layer(_pair(scores, 0) if len(scores.bias) == 1 else scores, SOFTMAX)


def _pair(scores: Affine, factor: float) -> Affine:
    """Return two scores for one: `factor` times it, and itself."""
    factors = np.array([factor, 1.0])
    return scores._replace(weight=np.outer(factors, scores.weight), bias=factors * scores.bias)


def _scores(classifier: Any) -> Affine:
    n_classes = len(classes(classifier))
    n_scores = 1 if n_classes == 2 else n_classes
    weight = numbers(classifier, "coef_")
    if weight.ndim == 1:
        weight = weight[np.newaxis]  # as some have it for two classes
    weight = finite(classifier, "coef_", weight, (n_scores, n_features(classifier)))
    return Affine(weight, numbers(classifier, "intercept_", (n_scores,)))


def _network(classifier: Any, layer: Layer, **options: Any) -> Network:
    """Return the network of one layer, computed in float64 where the classifier does so and there is need."""
    # What follows from the inverse of a covariance has no bound on its coefficients.
    double = isinstance(classifier, LinearDiscriminantAnalysis)
    return Network((layer,), double=double, wide=classifier.coef_.dtype == np.float64, **options)


def _softmax(classifier: Any, scores: Affine) -> NetworkPredictor:
    return NetworkPredictor(classes(classifier), _network(classifier, softmax(scores), normalise=True))


def _one_vs_rest(classifier: Any, scores: Affine) -> NetworkPredictor:
    """Return the predictor of logistic probabilities of each class against the others, which are then normalised."""
    if len(scores.bias) == 1:
        return _softmax(classifier, scores)
    # Scores below this give a probability of 0, and where all are 0 scikit-learn makes them equal.
    floor = np.log(np.finfo(np.result_type(classifier.coef_.dtype, np.float32)).smallest_subnormal)
    network = _network(classifier, Layer(scores, LOGISTIC), normalise=True, floor=float(floor))
    return NetworkPredictor(classes(classifier), network)


def _logistic_regression(classifier: Any) -> NetworkPredictor:
    scores = _scores(classifier)
    # Before scikit-learn 1.8 liblinear fitted several classes one by one, and `multi_class` could ask for it.
    kind = getattr(classifier, "multi_class", "auto")
    if kind == "ovr" or (kind != "multinomial" and classifier.solver == "liblinear"):
        return _one_vs_rest(classifier, scores)
    if kind == "multinomial" and len(scores.bias) == 1:
        scores = _pair(scores, -1)
    return _softmax(classifier, scores)


def _stochastic_gradient(classifier: SGDClassifier) -> NetworkPredictor:
    scores = _scores(classifier)
    if classifier.loss == "log_loss":
        return _one_vs_rest(classifier, scores)
    if classifier.loss == "modified_huber":
        ramps = _pair(scores, -1) if len(scores.bias) == 1 else scores
        network = _network(classifier, Layer(ramps, RAMP), normalise=True)
        return NetworkPredictor(classes(classifier), network)
    raise refuse(classifier, f"it has no predict_proba with loss={classifier.loss!r}")


def _discriminant(classifier: LinearDiscriminantAnalysis) -> NetworkPredictor:
    return _softmax(classifier, _scores(classifier))


def _scorer(classifier: Any) -> NetworkScorer:
    return NetworkScorer(classes(classifier), _network(classifier, Layer(_scores(classifier))))


def _ridge(classifier: Any) -> NetworkScorer:
    check_one_label(classifier)
    return _scorer(classifier)


COMPILERS: dict[type, Callable[[Any], NetworkPredictor]] = {
    LogisticRegression: _logistic_regression,
    LogisticRegressionCV: _logistic_regression,
    SGDClassifier: _stochastic_gradient,
    LinearDiscriminantAnalysis: _discriminant,
}
SCORERS: dict[type, Callable[[Any], NetworkScorer]] = {
    **dict.fromkeys((*COMPILERS, LinearSVC, Perceptron), _scorer),
    RidgeClassifier: _ridge,
    RidgeClassifierCV: _ridge,
}
