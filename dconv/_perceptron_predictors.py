"""Multi-layer perceptrons compiled: a network of their layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from sklearn.neural_network import MLPClassifier

from dconv._affine import Affine
from dconv._fitted import attribute, check_one_label, classes, finite, n_features, refuse
from dconv._kernels._network import IDENTITY, LOGISTIC, RELU, TANH
from dconv._linear_predictors import softmax
from dconv._network import Layer, Network
from dconv._network_run import NetworkPredictor

_ACTIVATIONS = {"identity": IDENTITY, "logistic": LOGISTIC, "relu": RELU, "tanh": TANH}


def _perceptron(classifier: MLPClassifier) -> NetworkPredictor:
    check_one_label(classifier)
    found = classes(classifier)
    n_outputs = 1 if len(found) == 2 else len(found)
    if classifier.activation not in _ACTIVATIONS:
        raise refuse(classifier, f"its activation is {classifier.activation!r}")
    if attribute(classifier, "out_activation_") != ("logistic" if n_outputs == 1 else "softmax"):
        raise refuse(classifier, f"the activation of its last layer is {classifier.out_activation_!r}")
    weights, biases = attribute(classifier, "coefs_"), attribute(classifier, "intercepts_")
    sizes = [n_features(classifier), *(len(bias) for bias in biases)]
    if len(weights) != len(biases) or sizes[-1] != n_outputs:
        raise refuse(classifier, "its layers do not fit together")
    maps = [
        Affine(finite(classifier, "coefs_", weight, shape).T, finite(classifier, "intercepts_", bias, shape[1:]))
        for weight, bias, shape in zip(weights, biases, pairwise(sizes), strict=True)
    ]
    hidden = [Layer(affine, _ACTIVATIONS[classifier.activation]) for affine in maps[:-1]]
    return NetworkPredictor(found, Network((*hidden, softmax(maps[-1])), normalise=True))


COMPILERS: dict[type, Callable[[Any], NetworkPredictor]] = {MLPClassifier: _perceptron}
