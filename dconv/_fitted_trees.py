"""The trees of fitted scikit-learn classifiers, read into one form.

The only place that reads attributes which scikit-learn does not document (of ``tree_``, of histogram gradient
boosting, of the start of gradient boosting). Each is asked for by name: where one is missing or has another type than
expected, :class:`~dconv._predictor.NotCompilable` is raised and the classifier's own ``predict_proba`` remains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dconv._kernels import _trees
from dconv._predictor import NotCompilable

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
class FittedTrees:
    """The trees of a classifier and how their sums begin."""

    trees: list[Tree]
    n_features: int
    baseline: np.ndarray  # float64 (n_sums,)
    categories: dict[int, np.ndarray] = field(default_factory=dict)  # ascending values of features that are categorical


def _get(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        raise NotCompilable(f"{type(owner).__name__} has no attribute {name!r} in this version of scikit-learn") from None


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise NotCompilable(f"{what}, which this version of dconv does not know")


def forest_trees(classifier: Any) -> FittedTrees:
    """Return the trees of a forest or of a single tree; they add up the probability of every class, or of the second of
    two.
    """
    if classifier.n_outputs_ != 1:
        raise NotCompilable(f"{type(classifier).__name__} has {classifier.n_outputs_} outputs; only 1 is compiled")
    n_classes = len(classifier.classes_)
    estimators = getattr(classifier, "estimators_", [classifier])
    trees = [_read_tree(_get(estimator, "tree_"), slice(1, 2) if n_classes == 2 else slice(None)) for estimator in estimators]
    _expect(all(tree.values.shape[1] in (1, n_classes) for tree in trees), "leaves have values of unexpected shape")
    return FittedTrees(trees, classifier.n_features_in_, np.zeros(1 if n_classes == 2 else n_classes))


def gradient_boosting_trees(classifier: Any) -> FittedTrees:
    """Return the trees of a GradientBoostingClassifier; they add up raw scores."""
    from sklearn.dummy import DummyClassifier

    start = _get(classifier, "init_")
    constant = isinstance(start, DummyClassifier) and start.strategy in ("prior", "most_frequent", "constant")
    if not (isinstance(start, str) and start == "zero") and not constant:
        raise NotCompilable(f"GradientBoostingClassifier(init={start!r}) starts from a classifier of its own")
    n_features = classifier.n_features_in_
    baseline = np.asarray(_get(classifier, "_raw_predict_init")(np.zeros((1, n_features), np.float32)))[0]
    trees = [
        _read_tree(_get(estimator, "tree_"), slice(None), scale=classifier.learning_rate, column=column)
        for stage in classifier.estimators_
        for column, estimator in enumerate(stage)
    ]
    _expect(all(tree.values.shape[1] == 1 for tree in trees), "leaves have values of unexpected shape")
    return FittedTrees(trees, n_features, baseline)


def _read_tree(tree: Any, outputs: slice, scale: float = 1, column: int = 0) -> Tree:
    """Return a `sklearn.tree._tree.Tree`."""
    left, right, threshold, value = (
        _get(tree, name) for name in ("children_left", "children_right", "threshold", "value")
    )
    _expect(threshold.dtype == np.float64 and value.dtype == np.float64, "a tree has numbers of unexpected type")
    _expect(value.ndim == 3 and value.shape[1] == 1, "a tree has values of unexpected shape")
    missing_left = np.asarray(_get(tree, "missing_go_to_left")).astype(bool)
    return Tree(
        left=left,
        right=right,
        feature=_get(tree, "feature"),
        threshold=threshold,
        kind=np.where(missing_left, _trees.MISSING_LEFT, _trees.MISSING_RIGHT),
        count=_get(tree, "n_node_samples"),
        values=scale * value[:, 0, outputs],
        column=column,
    )


def histogram_boosting_trees(classifier: Any) -> FittedTrees:
    """Return the trees of a HistGradientBoostingClassifier; they add up raw scores."""
    n_features = classifier.n_features_in_
    baseline = np.asarray(_get(classifier, "_baseline_prediction"), np.float64).reshape(-1)
    predictors = _get(classifier, "_predictors")
    _expect(all(len(stage) == len(baseline) for stage in predictors), "a stage has an unexpected number of trees")
    is_categorical = classifier.is_categorical_
    columns, categories = np.arange(n_features), {}  # columns: of the features that the trees see, in the input
    known, place = None, np.zeros(n_features, int)
    if is_categorical is not None:
        columns = np.concatenate([np.flatnonzero(is_categorical), np.flatnonzero(~is_categorical)])
        categories = _read_categories(classifier, columns)
        known, place = _get(_get(classifier, "_bin_mapper"), "make_known_categories_bitsets")()
    trees = [
        _read_histogram_tree(predictor, column, columns, known, place)
        for stage in predictors
        for column, predictor in enumerate(stage)
    ]
    return FittedTrees(trees, n_features, baseline, categories)


def _read_categories(classifier: Any, columns: np.ndarray) -> dict[int, np.ndarray]:
    """Return the known values of every categorical feature, whose codes are their places."""
    encoders = _get(_get(classifier, "_preprocessor"), "named_transformers_")
    found = {}
    for column, values in zip(columns, _get(encoders["encoder"], "categories_"), strict=False):
        if values.dtype.kind not in "fiub":
            raise NotCompilable(f"feature {column} has categories that are no numbers")
        values = values[~np.isnan(values)] if values.dtype.kind == "f" else values
        _expect(len(values) <= _N_CODES and np.all(np.diff(values.astype(np.float64)) > 0), "categories are not in order")
        found[int(column)] = values
    return found


def _read_histogram_tree(
    predictor: Any, column: int, columns: np.ndarray, known: np.ndarray | None, place: np.ndarray
) -> Tree:
    """Return a `TreePredictor`; `place` are the rows of `known` for the features as the trees see them."""
    nodes = _get(predictor, "nodes")
    names = {"value", "count", "feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf"}
    _expect(names | {"is_categorical", "bitset_idx"} <= set(nodes.dtype.names or ()), "nodes have unexpected fields")
    _expect(nodes["num_threshold"].dtype == np.float64, "a tree has numbers of unexpected type")
    leaf, missing_left = nodes["is_leaf"].astype(bool), nodes["missing_go_to_left"].astype(bool)
    categorical = nodes["is_categorical"].astype(bool) & ~leaf
    right_sets = {}
    for node in np.flatnonzero(categorical):
        _expect(known is not None, "a split is categorical and no feature is")
        assert known is not None
        goes_left = _get(predictor, "raw_left_cat_bitsets")[nodes["bitset_idx"][node]]
        is_known = known[place[nodes["feature_idx"][node]]]
        # Unknown categories go where missing values go.
        right_sets[int(node)] = ~goes_left & (is_known if missing_left[node] else np.uint32(0xFFFFFFFF))
        _expect(right_sets[int(node)].shape == (_trees.SET_WORDS,), "a set of categories has an unexpected size")
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
