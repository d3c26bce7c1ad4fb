"""XGBoost's classifiers compiled, from the JSON of `Booster.save_raw`, whose schema XGBoost documents.

Everything is float32 there, and ``x < threshold`` goes left. The classifier's answers add up in float32, in another
order, so they agree to some 1e-7.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.special import logit

from dconv._booster_predictors import booster_predictor, missing_kind, read_dump
from dconv._fitted import attribute, classes, expect, n_features
from dconv._fitted_trees import FittedTrees, Tree
from dconv._tree_predictors import Link, TreePredictor, one_logistic, softmax_rows


def xgboost_trees(classifier: Any) -> tuple[FittedTrees, Link]:
    """Return the trees of a XGBClassifier, which add up raw scores, and what makes probabilities of these."""
    missing = classifier.missing
    expect(missing is None or bool(np.isnan(missing)), classifier, f"to it {missing!r} is missing")
    booster = attribute(classifier, "get_booster")()
    best = getattr(classifier, "best_iteration", None)  # an attribute only after early stopping
    booster = booster if best is None else booster[: best + 1]
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    n_classes = len(classes(classifier))
    n_scores = 1 if n_classes == 2 else n_classes
    objective = learner["objective"]["name"]
    wanted = ("binary:logistic",) if n_scores == 1 else ("multi:softprob", "multi:softmax")
    expect(objective in wanted, classifier, f"its objective is {objective!r}")
    base = np.atleast_1d(json.loads(learner["learner_model_param"]["base_score"])).astype(np.float64)
    expect(len(base) in (1, n_scores), classifier, f"it starts from {len(base)} scores")
    grown, weights = learner["gradient_booster"], None
    if grown["name"] == "dart":
        grown, weights = grown["gbtree"], np.array(grown["weight_drop"])
    expect(grown.get("name", "gbtree") == "gbtree", classifier, "it is no ensemble of trees")
    found, columns = grown["model"]["trees"], grown["model"]["tree_info"]
    weights = np.ones(len(found)) if weights is None else weights
    trees = [_read_tree(classifier, *each) for each in zip(found, columns, weights, strict=True)]
    baseline = np.broadcast_to(logit(base) if n_scores == 1 else base, (n_scores,))
    link: Link = partial(one_logistic, 1.0) if n_scores == 1 else softmax_rows
    return FittedTrees(trees, n_features(classifier), baseline), link


def _read_tree(classifier: Any, dumped: dict[str, Any], column: int, weight: float) -> Tree:
    width = dumped["tree_param"]["size_leaf_vector"]
    expect(width in ("0", "1"), classifier, "its leaves have a value for each class")
    expect(not any(dumped["split_type"]), classifier, "it splits by categories")
    left = np.array(dumped["left_children"])
    condition = np.array(dumped["split_conditions"], np.float32)  # of a leaf: its value
    return Tree(
        left=left,
        right=np.array(dumped["right_children"]),
        feature=np.array(dumped["split_indices"]),
        threshold=np.nextafter(condition, np.float32(-np.inf)).astype(np.float64),
        kind=missing_kind(np.array(dumped["default_left"], bool)),
        count=np.array(dumped["sum_hessian"]),
        values=weight * condition.astype(np.float64)[:, np.newaxis],
        column=column,
    )


def _predictor(classifier: Any) -> TreePredictor:
    return booster_predictor(classifier, *read_dump(classifier, xgboost_trees))


COMPILERS: dict[str, Callable[[Any], TreePredictor]] = {
    "xgboost.sklearn.XGBClassifier": _predictor,
    "xgboost.sklearn.XGBRFClassifier": _predictor,
}
