"""LightGBM's classifier compiled, from what `Booster.dump_model` gives.

A dump holds the trees of the best iteration and those before, as `predict_proba` uses them. Numbers are compared as
float64, ``x <= threshold``; but values no further from 0 than 1e-35 are read as 0, and so are missing ones by nodes
that have seen none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dconv._booster_predictors import booster_predictor, booster_scorer, in_preorder, missing_kind, read_dump
from dconv._fitted import attribute, classes, expect, n_features
from dconv._fitted_trees import FittedTrees, Tree
from dconv._tree_predictors import Link, TreePredictor, TreeScorer, each_logistic, one_logistic, softmax_rows

_ZERO = float(np.float32(1e-35))  # what is no further from 0 is 0


def lightgbm_trees(classifier: Any, of_scores: bool = False) -> tuple[FittedTrees, Link]:
    """Return the trees of a LGBMClassifier, which add up raw scores, and what makes probabilities of these.

    Those of random forests are divided by their number, but not in what the classifier itself gives as scores.
    """
    dump = attribute(classifier, "booster_").dump_model()
    n_scores = dump["num_tree_per_iteration"]
    n_classes = len(classes(classifier))
    expect(n_scores == (1 if n_classes == 2 else n_classes), classifier, "it has not one score for each class")
    link = _link(classifier, dump.get("objective", "").split(), n_scores)
    found = dump["tree_info"]
    scale = n_scores / len(found) if dump["average_output"] and not of_scores else 1.0
    trees = [_read_tree(classifier, each, number % n_scores, scale) for number, each in enumerate(found)]
    return FittedTrees(trees, n_features(classifier), np.zeros(n_scores)), link


def _link(classifier: Any, objective: list[str], n_scores: int) -> Link:
    """Return what makes probabilities of scores, from the words that describe the objective."""
    name, *options = objective or ["custom"]
    sigmoid = [float(option.partition(":")[2]) for option in options if option.startswith("sigmoid:")]
    if name == "binary" and n_scores == 1 and len(sigmoid) == 1:
        return partial(one_logistic, sigmoid[0])
    if name == "multiclassova" and n_scores > 1 and len(sigmoid) == 1:
        return partial(each_logistic, sigmoid[0])
    expect(name == "multiclass" and n_scores > 1, classifier, f"its objective is {name!r}")
    return softmax_rows


def _read_tree(classifier: Any, dumped: dict[str, Any], column: int, scale: float) -> Tree:
    """Return a tree from its nested nodes."""
    nodes, left, right = in_preorder(dumped["tree_structure"], _children)
    leaf = left < 0
    inner = [node for node in nodes if "split_feature" in node]
    expect(all(node["decision_type"] == "<=" for node in inner), classifier, "it splits by categories")
    expect(all(node["missing_type"] in ("None", "NaN") for node in inner), classifier, "to it zeros are missing")
    expect(not any("leaf_coeff" in node for node in nodes), classifier, "its leaves are linear models")
    feature, threshold, missing_left = np.zeros(len(nodes), np.intp), np.zeros(len(nodes)), np.zeros(len(nodes), bool)
    feature[~leaf] = [node["split_feature"] for node in inner]
    threshold[~leaf] = [node["threshold"] for node in inner]
    as_zero = np.array([node["missing_type"] == "None" for node in inner], bool)
    missing_left[~leaf] = np.where(as_zero, threshold[~leaf] >= 0, [node["default_left"] for node in inner])
    near_zero = np.abs(threshold) <= _ZERO
    threshold[near_zero] = np.where(threshold >= 0, _ZERO, np.nextafter(-_ZERO, -1))[near_zero]
    return Tree(
        left=left,
        right=right,
        feature=feature,
        threshold=threshold,
        kind=missing_kind(missing_left),
        count=np.array([node.get("internal_count", node.get("leaf_count", 0)) for node in nodes]),
        values=scale * np.array([node.get("leaf_value", 0.0) for node in nodes])[:, np.newaxis],
        column=column,
    )


def _children(node: dict[str, Any]) -> tuple[Any, Any] | None:
    return (node["left_child"], node["right_child"]) if "split_feature" in node else None


def _predictor(classifier: Any) -> TreePredictor:
    return booster_predictor(classifier, *read_dump(classifier, lightgbm_trees))


def _scorer(classifier: Any) -> TreeScorer:
    attribute(classifier, "decision_function")  # which older versions do not have
    return booster_scorer(classifier, read_dump(classifier, partial(lightgbm_trees, of_scores=True))[0])


COMPILERS: dict[str, Callable[[Any], TreePredictor]] = {"lightgbm.sklearn.LGBMClassifier": _predictor}
SCORERS: dict[str, Callable[[Any], TreeScorer]] = {"lightgbm.sklearn.LGBMClassifier": _scorer}
