"""Which types a file may hold, and whether what it holds of them can be used.

A file without pickle can build objects of the types named here, and set their attributes; it runs no code of its own.
But attributes that compiled code follows without looking, as the children of the nodes of a tree, must be looked at.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import BaseEnsemble
from sklearn.gaussian_process.kernels import Kernel
from sklearn.model_selection import BaseCrossValidator

_OWN = frozenset(
    {
        "dconv._bank.Bank",
        "dconv._bank.PlanePlan",
        "dconv._branches.Branch",
        "dconv._context_bank.ContextFeatures",
        "dconv._context_bank._ClassBank",
        "dconv._context_bank._FarBank",
        "dconv._context_bank._PairBank",
        "dconv._context_bank._WideClassBank",
        "dconv._distillation.Agreement",
        "dconv._filter_bank.FilterBank",
        "dconv._hole_algorithm.DenseNet",
        "dconv._hole_algorithm.Step",
        "dconv._hole_algorithm.Tap",
        "dconv._intensity.Intensity",
        "dconv._map_tiles.Preparation",
        "dconv._net_layers.AveragePool",
        "dconv._net_layers.Convolution",
        "dconv._net_layers.MaxPool",
        "dconv._net_layers.ReLU",
        "dconv._pyramid_bank.PyramidBank",
        "dconv._stages.Stage",
        "dconv.backbone.AtrousBackbone",
        "dconv.combined.FeatureImageUnion",
        "dconv.context.ContextClassifier",
        "dconv.context_features.AtrousContext",
        "dconv.crf.DenseCRF",
        "dconv.detection.ObjectDetector",
        "dconv.discriminant.RegularizedDiscriminantAnalysis",
        "dconv.features.AtrousFeatures",
        "dconv.perceptron.PerceptronClassifier",
        "dconv.position.PixelPosition",
        "dconv.pyramid.AtrousPyramid",
        "dconv.scaling.SoftClipScaler",
        "dconv.segmentation.PixelClassifier",
        "dconv.transformers.DilatedConv",
        "dconv.transposed.TransposedConv",
        "dconv.voting.AdaptiveVote",
    }
)

# Parts of fitted estimators of scikit-learn that are no estimators. Search trees of neighbours (KDTree, BallTree) are
# left out: their state is indices that cannot be checked from here.
_PARTS = frozenset(
    {
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
    }
)
_BASES = (BaseEstimator, Kernel, BaseCrossValidator)


def is_trusted(name: str) -> bool:
    """Tell whether a file may hold objects of the type of this full name: dconv's own and scikit-learn's estimators."""
    if name in _OWN or name in _PARTS:
        return True
    module, _, cls = name.rpartition(".")
    parts = module.split(".")
    if parts[0] != "sklearn" or {"tests", "conftest", "externals"} & set(parts):
        return False
    try:
        found = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError):
        return False
    return isinstance(found, type) and issubclass(found, _BASES) and found.__module__ == module


def check_trees(thing: Any) -> None:
    """Check all trees of scikit-learn in a model, which its compiled code follows without looking.

    Raises
    ------
    ValueError
        If a node has children or features that are not there, or an ensemble has other trees than it has classes.
    """
    for estimator in _estimators_in(thing, set()):
        attributes = vars(estimator)
        n_features = attributes.get("n_features_in_")
        if "tree_" in attributes:
            tree = attributes["tree_"]
            inner = tree.children_left != -1
            _check_nodes(inner, tree.children_left, tree.children_right, tree.feature, n_features)
        if "_predictors" in attributes:
            for predictor in (each for iteration in attributes["_predictors"] for each in iteration):
                nodes = predictor.nodes
                inner = nodes["is_leaf"] == 0
                _check_nodes(inner, nodes["left"], nodes["right"], nodes["feature_idx"], n_features)
                sets = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
                _check(len(sets) == 0 or int(sets.max()) < len(predictor.raw_left_cat_bitsets))
            _check_widths(estimator, [len(iteration) for iteration in attributes["_predictors"]])
        if isinstance(attributes.get("estimators_"), np.ndarray) and isinstance(estimator, BaseEnsemble):
            grid = attributes["estimators_"]  # of gradient boosting: iterations x classes
            _check(grid.ndim == 2)
            _check_widths(estimator, [grid.shape[1]])


def _check_nodes(inner: np.ndarray, left: Any, right: Any, feature: Any, n_features: Any) -> None:
    """Check that inner nodes have later nodes as children, which ends every walk, and split by a feature there is."""
    number, n_nodes = np.flatnonzero(inner), len(inner)
    _check(n_nodes > 0)
    for child in (np.asarray(left, np.int64)[inner], np.asarray(right, np.int64)[inner]):
        _check(bool(np.all((child > number) & (child < n_nodes))))
    split_by = np.asarray(feature, np.int64)[inner]
    _check(isinstance(n_features, int) and bool(np.all((split_by >= 0) & (split_by < n_features))))


def _check_widths(estimator: Any, widths: list[int]) -> None:
    """Check that every iteration of a gradient boosting has as many trees as there are columns of scores."""
    n_classes = len(getattr(estimator, "classes_", (0, 1)))
    _check(set(widths) <= {1 if n_classes <= 2 else n_classes})


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError("it holds a tree whose nodes point to where there is nothing")


def _estimators_in(thing: Any, seen: set[int]) -> Iterator[Any]:
    """Yield all estimators in an object, however deep."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    inner: Any = ()
    if isinstance(thing, dict):
        inner = thing.values()
    elif isinstance(thing, list | tuple | set) or (isinstance(thing, np.ndarray) and thing.dtype == object):
        inner = list(thing.flat) if isinstance(thing, np.ndarray) else thing
    elif hasattr(thing, "__dict__") and not isinstance(thing, type):
        if isinstance(thing, BaseEstimator):
            yield thing
        inner = vars(thing).values()
    for each in inner:
        yield from _estimators_in(each, seen)
