"""Boosted trees of other libraries compiled, from the dumps that these document: what the libraries have in common.

Nothing is imported from them: a classifier that is theirs brings along what it is asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dconv._fitted import classes, expect, refuse
from dconv._fitted_trees import FittedTrees, SymmetricTree
from dconv._kernels import _trees
from dconv._packed_trees import pack, round_down
from dconv._threads import scikit_learn_alone
from dconv._tree_predictors import Link, TreePredictor, TreeScorer

_N_PROBES = 64
_TOLERANCE = 1e-5
_LARGEST = np.finfo(np.float32).max


def read_dump(classifier: Any, read: Callable[[Any], tuple[FittedTrees, Link]]) -> tuple[FittedTrees, Link]:
    """Return what `read` makes of the dump of a fitted classifier; refuse one that is not as expected."""
    try:
        return read(classifier)
    except (AttributeError, LookupError, ValueError) as error:
        raise refuse(classifier, f"its dump is not as it is read here ({error!r})") from None


def in_preorder(
    root: Any, children: Callable[[Any], tuple[Any, Any] | None]
) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Return the nodes of a nested tree, each followed by its left child, and the places of left and right children.

    `children` is asked for the two below a node, None of a leaf; the places of a leaf's are -1.
    """
    nodes: list[Any] = []
    left: list[int] = []
    right: list[int] = []
    pending = [(root, -1)]  # a node, and whose right child it is
    while pending:
        node, parent = pending.pop()
        place, below = len(nodes), children(node)
        if parent >= 0:
            right[parent] = place
        nodes.append(node)
        left.append(-1 if below is None else place + 1)
        right.append(-1)
        if below is not None:
            pending += [(below[1], place), (below[0], -1)]
    return nodes, np.array(left), np.array(right)


def missing_kind(goes_left: np.ndarray) -> np.ndarray:
    """Return the kinds of nodes from where missing values go."""
    return np.where(goes_left, _trees.MISSING_LEFT, _trees.MISSING_RIGHT)


def booster_predictor(classifier: Any, fitted: FittedTrees, link: Link) -> TreePredictor:
    """Return what answers as the `predict_proba` of a classifier with these trees."""
    compiled = TreePredictor(classes(classifier), pack(fitted), fitted.n_features, fitted.baseline, link)
    _check_answers(classifier, "predict_proba", fitted, compiled.predict_proba, len(compiled.classes_))
    return compiled


def booster_scorer(classifier: Any, fitted: FittedTrees) -> TreeScorer:
    """Return what answers as the `decision_function` of a classifier with these trees."""
    compiled = TreeScorer(classes(classifier), pack(fitted), fitted.n_features, fitted.baseline)
    _check_answers(classifier, "decision_function", fitted, compiled.decision_function, compiled.n_scores)
    return compiled


def _check_answers(
    classifier: Any, method: str, fitted: FittedTrees, respond: Callable[..., None], n_outputs: int
) -> None:
    """Refuse a classifier that answers otherwise than its dump, as it is read here.

    What a dump means changes from release to release, and parameters change what is made of it; so the classifier is
    asked about a few rows.
    """
    rows = probes(fitted)
    with scikit_learn_alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that rows have no names
        own = np.asarray(getattr(classifier, method)(rows), np.float64)
    expect(own.size == len(rows) * n_outputs, classifier, f"its {method} has shape {own.shape}")
    got = np.empty((len(rows), n_outputs), np.float32)
    respond(rows, got)
    difference = np.abs(got - own.reshape(got.shape)).max()
    largest = max(1.0, np.abs(own).max())
    expect(
        difference < _TOLERANCE * largest, classifier, f"its answers differ by {difference:.1g} from those of its dump"
    )


def probes(fitted: FittedTrees) -> np.ndarray:
    """Return float32 rows of values that are at thresholds of the trees, or next to them."""
    tests = np.concatenate([np.zeros((0, 2)), *(_tests(tree) for tree in fitted.trees)])
    random_state = np.random.RandomState(0)
    rows = np.zeros((_N_PROBES, fitted.n_features), np.float32)
    for feature in np.unique(tests[:, 0]):
        below = round_down(tests[tests[:, 0] == feature, 1])
        with np.errstate(over="ignore"):
            above = np.minimum(np.nextafter(below, np.float32(np.inf)), _LARGEST)
        rows[:, int(feature)] = random_state.choice(np.concatenate([below, above]), len(rows))
    return rows


def _tests(tree: Any) -> np.ndarray:
    """Return the feature and the threshold of each test of a tree."""
    inner = ... if isinstance(tree, SymmetricTree) else ~tree.is_leaf
    return np.stack([tree.feature[inner], tree.threshold[inner]], axis=1)
