"""The trees of fitted classifiers of scikit-learn, read into one form and guarded as in `_fitted.py`.

Undocumented are what is read of a ``tree_``, of histogram gradient boosting, and of where gradient boosting starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier

from dconv._fitted import attribute, classes, expect, n_features
from dconv._kernels import _trees

_LEAF = -1
_N_CODES = _trees.NO_CATEGORY  # codes of known categories are smaller


@dataclass(frozen=True)
class Tree:
    """One binary tree: arrays over its nodes; node 0 is the root."""

    left: np.ndarray  # -1: a leaf
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray  # float64: x <= threshold goes left
    kind: np.ndarray  # what else goes left: see tree_rows.h
    count: np.ndarray  # training samples that came through
    values: np.ndarray  # float64 (n_nodes, width): of leaves, what they add to ...
    column: int = 0  # ... the sums from this one on
    right_sets: dict[int, np.ndarray] = field(default_factory=dict)  # of categorical nodes: the bits of what goes right

    @property
    def is_leaf(self) -> np.ndarray:
        return self.left == _LEAF


@dataclass(frozen=True)
class SymmetricTree:
    """One binary tree that asks the same at all nodes of a level: bit i of a leaf's number is set where the answer to
    test i sends right.
    """

    feature: np.ndarray  # of each test
    threshold: np.ndarray  # float64: x <= threshold goes left
    kind: np.ndarray  # where missing values go
    values: np.ndarray  # float64 (2 ** n_tests, width), otherwise as of a Tree
    column: int = 0


@dataclass(frozen=True)
class FittedTrees:
    """The trees of a classifier and how their sums begin."""

    trees: Sequence[Tree | SymmetricTree]
    n_features: int
    baseline: np.ndarray  # float64 (n_sums,)
    categories: dict[int, np.ndarray] = field(default_factory=dict)  # ascending values of features that are categorical


def forest_trees(classifier: Any) -> FittedTrees:
    """Return the trees of a forest or of a single tree; they add up the probability of every class, or of the second of
    two.
    """
    n_outputs = attribute(classifier, "n_outputs_")
    expect(n_outputs == 1, classifier, f"it has {n_outputs} outputs")
    n_classes = len(classes(classifier))
    outputs, n_sums = (slice(1, 2), 1) if n_classes == 2 else (slice(None), n_classes)
    estimators = getattr(classifier, "estimators_", [classifier])
    trees = [_read_tree(attribute(estimator, "tree_"), outputs) for estimator in estimators]
    _check_width(classifier, trees, n_sums)
    return FittedTrees(trees, n_features(classifier), np.zeros(n_sums))


def gradient_boosting_trees(classifier: Any) -> FittedTrees:
    """Return the trees of a GradientBoostingClassifier; they add up raw scores."""
    start, stages = attribute(classifier, "init_"), attribute(classifier, "estimators_")
    constant = type(start) is DummyClassifier and start.strategy in ("prior", "most_frequent", "constant")
    expect(constant or start == "zero", classifier, f"it starts from {start!r}")
    baseline = np.asarray(attribute(classifier, "_raw_predict_init")(np.zeros((1, n_features(classifier)), np.float32)))
    expect(baseline.shape == (1, stages.shape[1]), classifier, "it does not start from a score for each of its trees")
    trees = [
        _read_tree(attribute(estimator, "tree_"), slice(None), scale=classifier.learning_rate, column=column)
        for stage in stages
        for column, estimator in enumerate(stage)
    ]
    _check_width(classifier, trees, 1)
    return FittedTrees(trees, n_features(classifier), baseline[0])


def _check_width(classifier: Any, trees: list[Tree], width: int) -> None:
    expect(all(tree.values.shape[1] == width for tree in trees), classifier, "its leaves have too few or many values")


def _read_tree(tree: Any, outputs: slice, scale: float = 1, column: int = 0) -> Tree:
    """Return a `sklearn.tree._tree.Tree`."""
    left, right, threshold, value = (
        attribute(tree, name) for name in ("children_left", "children_right", "threshold", "value")
    )
    expect(threshold.dtype == value.dtype == np.float64, tree, "its numbers are not float64")
    expect(value.ndim == 3 and value.shape[1] == 1, tree, f"its values have shape {value.shape}")
    missing_left = np.asarray(attribute(tree, "missing_go_to_left")).astype(bool)
    return Tree(
        left=left,
        right=right,
        feature=attribute(tree, "feature"),
        threshold=threshold,
        kind=np.where(missing_left, _trees.MISSING_LEFT, _trees.MISSING_RIGHT),
        count=attribute(tree, "n_node_samples"),
        values=scale * value[:, 0, outputs],
        column=column,
    )


def histogram_boosting_trees(classifier: Any) -> FittedTrees:
    """Return the trees of a HistGradientBoostingClassifier; they add up raw scores."""
    n_columns = n_features(classifier)
    baseline = np.asarray(attribute(classifier, "_baseline_prediction"), np.float64).reshape(-1)
    stages = attribute(classifier, "_predictors")
    n_scores = 1 if len(classes(classifier)) == 2 else len(classes(classifier))
    expect(
        len(baseline) == n_scores and all(len(stage) == n_scores for stage in stages),
        classifier,
        "its trees are not one for each score",
    )
    is_categorical = attribute(classifier, "is_categorical_")
    columns, categories = np.arange(n_columns), {}  # columns: of the features that the trees see, in the input
    known, place = np.zeros((0, _trees.SET_WORDS), np.uint32), np.zeros(n_columns, int)
    if is_categorical is not None:
        columns = np.concatenate([np.flatnonzero(is_categorical), np.flatnonzero(~is_categorical)])
        categories = _read_categories(classifier, columns)
        known, place = attribute(attribute(classifier, "_bin_mapper"), "make_known_categories_bitsets")()
    trees = [
        _read_histogram_tree(predictor, column, columns, known, place)
        for stage in stages
        for column, predictor in enumerate(stage)
    ]
    return FittedTrees(trees, n_columns, baseline, categories)


def _read_categories(classifier: Any, columns: np.ndarray) -> dict[int, np.ndarray]:
    """Return the known values of every categorical feature, whose codes are their places."""
    encoders = attribute(attribute(classifier, "_preprocessor"), "named_transformers_")
    found = {}
    for column, values in zip(columns, attribute(encoders["encoder"], "categories_"), strict=False):
        expect(values.dtype.kind in "fiub", classifier, f"the categories of feature {column} are no numbers")
        values = values[~np.isnan(values)] if values.dtype.kind == "f" else values
        in_order = bool(np.all(np.diff(values.astype(np.float64)) > 0))
        expect(len(values) <= _N_CODES and in_order, classifier, f"the categories of feature {column} are not in order")
        found[int(column)] = values
    return found


def _read_histogram_tree(
    predictor: Any, column: int, columns: np.ndarray, known: np.ndarray, place: np.ndarray
) -> Tree:
    """Return a `TreePredictor`; `place` are the rows of `known` for the features as the trees see them."""
    nodes = attribute(predictor, "nodes")
    names = {"value", "count", "feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf"}
    names |= {"is_categorical", "bitset_idx"}
    expect(names <= set(nodes.dtype.names or ()), predictor, "its nodes lack a field")
    expect(nodes["num_threshold"].dtype == np.float64, predictor, "its thresholds are not float64")
    leaf, missing_left = nodes["is_leaf"].astype(bool), nodes["missing_go_to_left"].astype(bool)
    categorical = nodes["is_categorical"].astype(bool) & ~leaf
    right_sets = {}
    for node in np.flatnonzero(categorical):
        goes_left = attribute(predictor, "raw_left_cat_bitsets")[nodes["bitset_idx"][node]]
        is_known = known[place[nodes["feature_idx"][node]]]
        # Unknown categories go where missing values go.
        right_sets[int(node)] = ~goes_left & (is_known if missing_left[node] else np.uint32(0xFFFFFFFF))
        expect(right_sets[int(node)].shape == (_trees.SET_WORDS,), predictor, "its sets do not hold 256 categories")
    kind = np.where(missing_left, _trees.MISSING_LEFT, _trees.MISSING_RIGHT)
    return Tree(
        left=np.where(leaf, _LEAF, nodes["left"].astype(np.intp)),
        right=np.where(leaf, _LEAF, nodes["right"].astype(np.intp)),
        feature=columns[np.where(leaf, 0, nodes["feature_idx"])],
        threshold=nodes["num_threshold"],
        kind=np.where(categorical, _trees.CATEGORICAL, kind),
        count=nodes["count"],
        values=nodes["value"][:, np.newaxis],
        column=column,
        right_sets=right_sets,
    )
