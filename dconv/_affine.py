"""Affine maps, and the transformers that are one: scalers, projections, selections of features; and one that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn import feature_selection
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from dconv._fitted import attribute, n_features, numbers, refuse
from dconv.scaling import SoftClipScaler


class Affine(NamedTuple):
    """The map x -> weight @ (x - centre) + bias, in float64.

    The centre, about which x lies, is kept out of the bias: where x is 30000 +- 10, float32 would round the two large
    sums weight @ x and weight @ centre, and their difference would have three digits less.
    """

    weight: np.ndarray  # (outputs, inputs)
    bias: np.ndarray  # (outputs,)
    centre: np.ndarray | None = None  # (inputs,); None is zero, or not known
    spread: np.ndarray | None = None  # (inputs,): about how far from the centre x lies, if known


class SoftClip(NamedTuple):
    """The map x -> z / sqrt(1 + (z / limit)^2), z being (x - centre) / scale."""

    centre: np.ndarray  # (inputs,)
    scale: np.ndarray  # (inputs,)
    limit: float


def then(first: Affine, second: Affine) -> Affine:
    """Return the map that applies `first`, then `second`."""
    if first.centre is None and second.centre is not None:
        first = _centred(first, second.centre, second.spread)
    reached = first.bias if second.centre is None else first.bias - second.centre
    return Affine(second.weight @ first.weight, second.weight @ reached + second.bias, first.centre, first.spread)


def bias_about(affine: Affine, point: np.ndarray | None) -> np.ndarray:
    """Return the bias with which the same map is written about another centre; None is zero."""
    moved = (0 if point is None else point) - (0 if affine.centre is None else affine.centre)
    return affine.bias + affine.weight @ np.broadcast_to(moved, affine.weight.shape[1:])


def _centred(affine: Affine, target: np.ndarray, spread: np.ndarray | None) -> Affine:
    """Return the same map about the point that it takes to `target`, of several such points the nearest to 0."""
    size = np.linalg.norm(affine.weight, axis=1)
    size[size == 0] = 1
    back = np.linalg.pinv(affine.weight / size[:, np.newaxis])
    centre = back @ ((target - affine.bias) / size)
    around = None if spread is None else np.sqrt(back**2 @ (spread / size) ** 2)
    return Affine(affine.weight, bias_about(affine, centre), centre, around)


def map_of(transformer: Any) -> Affine | SoftClip:
    """Return the map that a fitted transformer is."""
    try:
        read = _MAPS[type(transformer)]
    except KeyError:
        raise refuse(transformer, "it is not known to be a map that can be compiled") from None
    return read(transformer)


def _standard(scaler: StandardScaler) -> Affine:
    n = n_features(scaler)
    scale = numbers(scaler, "scale_", (n,)) if scaler.with_std else None
    mean = None if scaler.mean_ is None else numbers(scaler, "mean_", (n,))
    weight = np.eye(n) if scale is None else np.diag(1 / scale)
    bias = np.zeros(n) if scaler.with_mean or mean is None else weight @ mean
    return Affine(weight, bias, mean, scale)


def _robust(scaler: RobustScaler) -> Affine:
    n = n_features(scaler)
    scale = numbers(scaler, "scale_", (n,)) if scaler.with_scaling else None
    centre = numbers(scaler, "center_", (n,)) if scaler.with_centering else None
    return Affine(np.eye(n) if scale is None else np.diag(1 / scale), np.zeros(n), centre, scale)


def _min_max(scaler: MinMaxScaler) -> Affine:
    _check_no_clip(scaler)
    n = n_features(scaler)
    scale = numbers(scaler, "scale_", (n,))
    low, high = numbers(scaler, "data_min_", (n,)), numbers(scaler, "data_max_", (n,))
    centre = (low + high) / 2
    return Affine(np.diag(scale), centre * scale + numbers(scaler, "min_", (n,)), centre, (high - low) / 2)


def _max_abs(scaler: MaxAbsScaler) -> Affine:
    _check_no_clip(scaler)
    n = n_features(scaler)
    return Affine(np.diag(1 / numbers(scaler, "scale_", (n,))), np.zeros(n))


def _check_no_clip(scaler: Any) -> None:
    if getattr(scaler, "clip", False):
        raise refuse(scaler, "with clip=True it is not affine")


def _pca(pca: PCA) -> Affine:
    n = n_features(pca)
    weight = numbers(pca, "components_", (int(pca.n_components_), n))
    variance = numbers(pca, "explained_variance_", weight.shape[:1])
    spread = np.sqrt(variance @ weight**2)
    if pca.whiten:
        scale = np.sqrt(variance)
        weight = weight / np.maximum(scale, np.finfo(pca.explained_variance_.dtype).eps)[:, np.newaxis]
    return Affine(weight, np.zeros(len(weight)), numbers(pca, "mean_", (n,)), spread)


def _truncated_svd(svd: TruncatedSVD) -> Affine:
    weight = numbers(svd, "components_", (len(svd.components_), n_features(svd)))
    return Affine(weight, np.zeros(len(weight)))


def _selection(selector: Any) -> Affine:
    weight = np.eye(n_features(selector))[attribute(selector, "get_support")()]
    return Affine(weight, np.zeros(len(weight)))


def _soft_clip(scaler: SoftClipScaler) -> SoftClip:
    n = n_features(scaler)
    return SoftClip(numbers(scaler, "center_", (n,)), numbers(scaler, "scale_", (n,)), float(scaler.limit))


_MAPS: dict[type, Callable[[Any], Affine | SoftClip]] = {
    SoftClipScaler: _soft_clip,
    StandardScaler: _standard,
    RobustScaler: _robust,
    MinMaxScaler: _min_max,
    MaxAbsScaler: _max_abs,
    PCA: _pca,
    IncrementalPCA: _pca,
    TruncatedSVD: _truncated_svd,
    **dict.fromkeys(
        (
            feature_selection.GenericUnivariateSelect,
            feature_selection.RFE,
            feature_selection.RFECV,
            feature_selection.SelectFdr,
            feature_selection.SelectFpr,
            feature_selection.SelectFromModel,
            feature_selection.SelectFwe,
            feature_selection.SelectKBest,
            feature_selection.SelectPercentile,
            feature_selection.SequentialFeatureSelector,
            feature_selection.VarianceThreshold,
        ),
        _selection,
    ),
}
