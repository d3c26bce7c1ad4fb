"""CatBoost's classifier compiled, from the JSON that its `save_model` writes.

Features are float32 there, and ``x > border`` goes right. Most of its trees are symmetric: they ask the same at all
nodes of a level.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dconv._booster_predictors import booster_predictor, in_preorder, missing_kind, read_dump
from dconv._fitted import classes, expect, n_features
from dconv._fitted_trees import FittedTrees, SymmetricTree, Tree
from dconv._tree_predictors import Link, TreePredictor, each_logistic, one_logistic, softmax_rows

_DEEPEST = 8  # of symmetric trees: the tests of deeper ones are so many that CatBoost itself is faster


def catboost_trees(classifier: Any) -> tuple[FittedTrees, Link]:
    """Return the trees of a CatBoostClassifier, which add up raw scores, and what makes probabilities of these."""
    dump = _dump(classifier)
    n_classes = len(classes(classifier))
    n_scores = 1 if n_classes == 2 else n_classes
    scale, bias = dump["scale_and_bias"]
    expect(len(bias) == n_scores, classifier, "it has not one score for each class")
    link = _link(classifier, dump["model_info"], n_scores)
    features = dump["features_info"]
    expect(set(features) == {"float_features"}, classifier, "it has features that are no numbers")
    columns = np.array([each["flat_feature_index"] for each in features["float_features"]])
    # Only AsTrue sends a missing value where a number above all borders goes.
    missing_left = np.array([each["nan_value_treatment"] != "AsTrue" for each in features["float_features"]])
    read = _Reader(classifier, columns, missing_left, float(scale))
    trees: list[Tree | SymmetricTree] = [*map(read.symmetric, dump.get("oblivious_trees", ()))]
    trees += map(read.tree, dump.get("trees", ()))
    return FittedTrees(trees, n_features(classifier), np.array(bias, np.float64)), link


def _dump(classifier: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        classifier.save_model(str(path), format="json")
        return json.loads(path.read_text("utf-8"))


def _link(classifier: Any, model_info: dict[str, Any], n_scores: int) -> Link:
    loss = model_info["params"]["loss_function"]["type"]
    if loss in ("Logloss", "CrossEntropy") and n_scores == 1:
        return partial(one_logistic, 1.0)
    if loss == "MultiClassOneVsAll" and n_scores > 1:
        return partial(each_logistic, 1.0)
    expect(loss == "MultiClass" and n_scores > 1, classifier, f"its loss function is {loss!r}")
    return softmax_rows


class _Reader:
    """What trees are read with."""

    def __init__(self, classifier: Any, columns: np.ndarray, missing_left: np.ndarray, scale: float) -> None:
        self.classifier, self.columns, self.missing_left, self.scale = classifier, columns, missing_left, scale

    def tests(self, splits: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the features, thresholds and kinds of splits."""
        of_numbers = all(split["split_type"] == "FloatFeature" for split in splits)
        expect(of_numbers, self.classifier, "it splits by categories")
        index = np.array([split["float_feature_index"] for split in splits], np.intp)
        border = np.array([split["border"] for split in splits], np.float32)  # as CatBoost holds it
        return self.columns[index], border.astype(np.float64), missing_kind(self.missing_left[index])

    def symmetric(self, dumped: dict[str, Any]) -> SymmetricTree:
        splits = dumped["splits"] or []
        expect(len(splits) <= _DEEPEST, self.classifier, f"its trees are {len(splits)} levels deep")
        values = self.scale * np.array(dumped["leaf_values"], np.float64).reshape(1 << len(splits), -1)
        return SymmetricTree(*self.tests(splits), values)

    def tree(self, dumped: dict[str, Any]) -> Tree:
        nodes, left, right = in_preorder(dumped, _children)
        leaf = left < 0
        feature, threshold = np.zeros(len(nodes), np.intp), np.zeros(len(nodes))
        kind, count = missing_kind(leaf), np.array([node.get("weight", 0.0) for node in nodes])
        feature[~leaf], threshold[~leaf], kind[~leaf] = self.tests([node["split"] for node in nodes if "split" in node])
        for node in np.flatnonzero(~leaf)[::-1]:  # children come later
            count[node] = count[left[node]] + count[right[node]]
        width = max(np.size(node.get("value", 0.0)) for node in nodes)
        values = [np.broadcast_to(node.get("value", 0.0), width) for node in nodes]
        return Tree(left, right, feature, threshold, kind, count, self.scale * np.array(values, np.float64))


def _children(node: dict[str, Any]) -> tuple[Any, Any] | None:
    return (node["left"], node["right"]) if "split" in node else None


def _predictor(classifier: Any) -> TreePredictor:
    return booster_predictor(classifier, *read_dump(classifier, catboost_trees))


COMPILERS: dict[str, Callable[[Any], TreePredictor]] = {"catboost.core.CatBoostClassifier": _predictor}
