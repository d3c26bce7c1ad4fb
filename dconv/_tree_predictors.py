"""Trees and ensembles of trees compiled: forests, gradient boosting, histogram gradient boosting."""

from __future__ import annotations

import operator
import threading
import weakref
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

from dconv import _memory
from dconv._fitted import attribute, classes, refuse
from dconv._fitted_trees import FittedTrees, forest_trees, gradient_boosting_trees, histogram_boosting_trees
from dconv._kernels import _trees
from dconv._packed_trees import pack
from dconv._predictor import check_tile

# Groups of 64 pixels that all trees pass over before the next ones. The keys of 66 features of 2 groups, 34 KB, stay in
# the L1 cache, and those of 8 in the L2 cache: trees of 64 leaves take 5.6 ns for a pixel and a tree behind a bank with
# 2 groups and 6.9 with 8 (AVX-512), and 10 with 64 (AVX2, where 2 to 8 are alike). Tails are read again for each block:
# trees of 12,000 nodes take 45 ns with 64 groups and 90 or more with 8.
_GROUPS, _GROUPS_WITH_TAILS = 2, 64

# What makes probabilities (n_pixels, n_classes), float32 and written, of float64 sums (n_pixels, n_sums or more).
Link = Callable[[np.ndarray, np.ndarray], None]


class _Compiled:
    """The sums of the leaf values of trees, with the classes that they are for.

    Every value of a pixel is allowed: infinities are compared, and missing ones go where the trees send them, also
    where the classifier would refuse them because it was fitted without any.
    """

    def __init__(self, classes: np.ndarray, packed: _trees.Trees, n_features: int, baseline: np.ndarray) -> None:
        self.classes_, self.n_features_in_ = classes, n_features
        self._packed, self._baseline = packed, baseline

    def _sums(self, tile: np.ndarray, out: np.ndarray, n_outputs: int) -> np.ndarray:
        check_tile(tile, self.n_features_in_, out, n_outputs)
        sums = np.zeros((len(tile), self._packed.n_sums))
        sums[:, : len(self._baseline)] = self._baseline
        add_trees(self._packed, tile, sums)
        return sums


class TreePredictor(_Compiled):
    """Trees that give probabilities: a :class:`dconv._predictor.Predictor`."""

    def __init__(
        self, classes: np.ndarray, packed: _trees.Trees, n_features: int, baseline: np.ndarray, link: Link
    ) -> None:
        super().__init__(classes, packed, n_features, baseline)
        self._link = link

    def predict_proba(self, tile: np.ndarray, out: np.ndarray) -> None:
        self._link(self._sums(tile, out, len(self.classes_)), out)


class TreeScorer(_Compiled):
    """Trees that give scores: a :class:`dconv._predictor.Scorer`."""

    def __init__(self, classes: np.ndarray, packed: _trees.Trees, n_features: int, baseline: np.ndarray) -> None:
        super().__init__(classes, packed, n_features, baseline)
        self.n_scores = len(baseline)

    def decision_function(self, tile: np.ndarray, out: np.ndarray) -> None:
        out[...] = self._sums(tile, out, self.n_scores)


def add_trees(packed: _trees.Trees, tile: np.ndarray, sums: np.ndarray, level: str | None = None) -> None:
    """Add the values of every row's leaves to `sums`. `level` is a CPU level; None is the active one."""
    groups = min(_GROUPS_WITH_TAILS if packed.n_nodes else _GROUPS, -(-len(tile) // _trees.GROUP))
    # At the beginning of a cache line: vectors across two take a quarter longer.
    keys = _memory.empty((groups, (tile.shape[1] + 1) * _trees.GROUP), np.dtype(np.int32))
    packed.add(tile, sums, keys, level)


def _mean(n_trees: int, sums: np.ndarray, out: np.ndarray) -> None:
    if out.shape[1] == 2:
        _two_classes(sums[:, 0] / n_trees, out)
    else:
        np.divide(sums[:, : out.shape[1]], n_trees, out=out, casting="same_kind")


def one_logistic(scale: float, sums: np.ndarray, out: np.ndarray) -> None:
    _two_classes(expit(scale * sums[:, 0]), out)


def each_logistic(scale: float, sums: np.ndarray, out: np.ndarray) -> None:
    out[...] = expit(scale * sums[:, : out.shape[1]])


def softmax_rows(sums: np.ndarray, out: np.ndarray) -> None:
    out[...] = softmax(sums[:, : out.shape[1]], axis=1)


def _two_classes(second: np.ndarray, out: np.ndarray) -> None:
    out[:, 0] = 1 - second
    out[:, 1] = second


# Forests compiled before, each with what it was made of then, as long as it lives: who predicts frame after frame would
# wait for this as long as for a sixth of a megapixel.
_forests: weakref.WeakKeyDictionary[Any, tuple[list[Any], TreePredictor]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _forest(classifier: Any) -> TreePredictor:
    # A fit makes new trees, which are not changed any more.
    estimators = getattr(classifier, "estimators_", [classifier])
    made_of = [attribute(classifier, "classes_"), *(attribute(each, "tree_") for each in estimators)]
    with _lock:
        before, compiled = _forests.get(classifier, ([], None))
    if compiled is None or len(made_of) != len(before) or any(map(operator.is_not, made_of, before)):
        fitted = forest_trees(classifier)
        mean = partial(_mean, len(fitted.trees))
        compiled = TreePredictor(classes(classifier), pack(fitted), fitted.n_features, fitted.baseline, mean)
        with _lock:
            _forests[classifier] = made_of, compiled
    return compiled


def _boosting(classifier: Any, read: Callable[[Any], FittedTrees]) -> TreePredictor:
    fitted = read(classifier)
    if len(fitted.baseline) > 1:
        link: Link = softmax_rows
    elif classifier.loss in ("log_loss", "exponential"):
        link = partial(one_logistic, 2 if classifier.loss == "exponential" else 1)  # that loss halves the log odds
    else:
        raise refuse(classifier, f"its loss is {classifier.loss!r}")
    return TreePredictor(classes(classifier), pack(fitted), fitted.n_features, fitted.baseline, link)


def _boosting_scorer(classifier: Any, read: Callable[[Any], FittedTrees]) -> TreeScorer:
    fitted = read(classifier)
    return TreeScorer(classes(classifier), pack(fitted), fitted.n_features, fitted.baseline)


_BOOSTING: dict[type, Callable[[Any], FittedTrees]] = {
    GradientBoostingClassifier: gradient_boosting_trees,
    HistGradientBoostingClassifier: histogram_boosting_trees,
}
COMPILERS: dict[type, Callable[[Any], TreePredictor]] = {
    RandomForestClassifier: _forest,
    ExtraTreesClassifier: _forest,
    DecisionTreeClassifier: _forest,
    ExtraTreeClassifier: _forest,
    **{kind: partial(_boosting, read=read) for kind, read in _BOOSTING.items()},
}
SCORERS: dict[type, Callable[[Any], TreeScorer]] = {
    kind: partial(_boosting_scorer, read=read) for kind, read in _BOOSTING.items()
}
