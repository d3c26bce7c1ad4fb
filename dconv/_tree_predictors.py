"""Compilers of trees and of ensembles of trees: forests, gradient boosting, histogram gradient boosting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from dconv._fitted_trees import FittedTrees, forest_trees, gradient_boosting_trees, histogram_boosting_trees
from dconv._kernels import _trees
from dconv._packed_trees import pack
from dconv._predictor import NotCompilable, Predictor

# Groups of pixels that all trees pass over before the next ones: their keys and a tail stay in the L2 cache. From 2 to
# 16 groups of 66 features hardly differ; with more, keys leave the cache, with fewer, large trees are fetched more often.
_BLOCK_GROUPS = 32

Link = Callable[[np.ndarray, np.ndarray], None]  # float64 sums (n_pixels, n_sums), float32 probabilities: written


class TreePredictor:
    """The sums of the leaf values of trees, and the link that makes them probabilities.

    Every value of a pixel is allowed: infinities are compared, and missing ones go where the trees send them, also where
    the classifier would refuse them because it was fitted without any.
    """

    def __init__(self, classes: np.ndarray, fitted: FittedTrees, link: Link) -> None:
        self.classes_ = classes
        self.n_features_in_ = fitted.n_features
        self._packed = pack(fitted)
        self._baseline = np.zeros(self._packed.n_sums)
        self._baseline[: len(fitted.baseline)] = fitted.baseline
        self._link = link

    def predict_proba(self, tile: np.ndarray, out: np.ndarray) -> None:
        """Write the probabilities of the rows of `tile` to `out`, both float32."""
        sums = np.tile(self._baseline, (len(tile), 1))
        groups = min(_BLOCK_GROUPS, -(-len(tile) // _trees.GROUP))
        keys = np.empty((groups, (self.n_features_in_ + 1) * _trees.GROUP), np.int32)
        self._packed.add(tile, sums, keys)
        self._link(sums, out)


def _mean(n_trees: int, sums: np.ndarray, out: np.ndarray) -> None:
    if sums.shape[1] == 1 < out.shape[1]:
        _two_classes(sums[:, 0] / n_trees, out)
    else:
        np.divide(sums[:, : out.shape[1]], n_trees, out=out, casting="same_kind")


def _logistic(scale: float, sums: np.ndarray, out: np.ndarray) -> None:
    _two_classes(expit(scale * sums[:, 0]), out)


def _softmax(sums: np.ndarray, out: np.ndarray) -> None:
    out[...] = softmax(sums, axis=1)


def _two_classes(second: np.ndarray, out: np.ndarray) -> None:
    out[:, 0] = 1 - second
    out[:, 1] = second


def _compile_forest(classifier: Any) -> Predictor:
    fitted = forest_trees(classifier)
    return TreePredictor(classifier.classes_, fitted, partial(_mean, len(fitted.trees)))


def _compile_boosting(classifier: Any, read: Callable[[Any], FittedTrees]) -> Predictor:
    if classifier.loss not in ("log_loss", "exponential"):
        raise NotCompilable(f"the link of loss={classifier.loss!r} is not known")
    fitted = read(classifier)
    if len(fitted.baseline) > 1:
        return TreePredictor(classifier.classes_, fitted, _softmax)
    scale = 2 if classifier.loss == "exponential" else 1  # that loss takes scores for half of the log odds
    return TreePredictor(classifier.classes_, fitted, partial(_logistic, scale))


COMPILERS: dict[type, Callable[[Any], Predictor]] = {
    RandomForestClassifier: _compile_forest,
    ExtraTreesClassifier: _compile_forest,
    DecisionTreeClassifier: _compile_forest,
    ExtraTreeClassifier: _compile_forest,
    GradientBoostingClassifier: partial(_compile_boosting, read=gradient_boosting_trees),
    HistGradientBoostingClassifier: partial(_compile_boosting, read=histogram_boosting_trees),
}
