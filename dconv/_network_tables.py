"""The tables by which the kernel runs a network: rounded, packed for the vectors of a CPU level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dconv import _memory
from dconv._affine import Affine, bias_about
from dconv._conv_run import FEW_FILTERS, pack_dense
from dconv._kernels import _dispatch
from dconv._kernels._network import IDENTITY, RUN_UNIT, SOFTMAX, SQUARE
from dconv._network import Layer, Network
from dconv._predictor import NotCompilable

# Where rounding to float32 would change a sum by more, it is computed in float64.
_COARSE = 1e-5
_NOTHING = 1e-30
# Up to so many filters of a pixel, vectors of channels beat vectors of filters: the loop takes FEW_FILTERS at once, and
# with two passes it gains up to a tenth in float32 and a quarter in float64; with 8 filters nothing.
_SUMMED = 6


class Tables(NamedTuple):
    """The tables of a network, as dconv/_kernels/_network.pyx reads them."""

    centre: np.ndarray | None
    scale: np.ndarray | None
    layers: np.ndarray
    weights: np.ndarray
    biases: np.ndarray
    offsets: np.ndarray


def tables_of(network: Network, level: str | None) -> Tables:
    """Return the tables of a network for a CPU level; raise NotCompilable if float32 would be too coarse for it."""
    layers = _with_differences(network)
    dtype = _dtype_for(network, layers)
    first, *others = (layer.affine for layer in layers)
    # Subtracting the centre first takes up to 5 % of a perceptron's time, and none where the tile comes from memory.
    centre, scale, weight, bias = _first_step(network, first, dtype)
    weights = [_rounded(weight, dtype, first.spread), *(_rounded(affine.weight, dtype) for affine in others)]
    biases = [_rounded(each, dtype) for each in (bias, *(bias_about(affine, None) for affine in others))]
    if centre is None and dtype == np.float64:
        centre = np.zeros(network.n_features, dtype)  # a copy it must be
    centre, scale = (None if each is None else _runs(each) for each in (centre, scale))
    return Tables(centre, scale, *_pack(weights, biases, [layer.activation for layer in layers], dtype, level))


def _with_differences(network: Network) -> tuple[Layer, ...]:
    """Return the layers, of which a softmax takes the differences of scores from the first."""
    *before, last = network.merged()
    if last.activation != SOFTMAX:
        return *before, last
    weight, bias = (each[1:] - each[:1] for each in (last.affine.weight, last.affine.bias))
    return *before, Layer(last.affine._replace(weight=weight, bias=bias), SOFTMAX)


def _first_step(
    network: Network, first: Affine, dtype: np.dtype
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray, np.ndarray]:
    """Return the centre and scale of the features, and weight and bias of the first layer behind them."""
    if network.clip is not None:  # what is clipped is small: its own centre may go into the bias
        clip = network.clip
        scale = (1 / (clip.scale * clip.limit)).astype(dtype)
        return clip.centre.astype(dtype), scale, clip.limit * first.weight, bias_about(first, None)
    centre = None if first.centre is None else first.centre.astype(dtype)
    # In float64 the centre is not rounded; and of squares it could not be moved.
    return centre, None, first.weight, first.bias if dtype == np.float64 else bias_about(first, centre)


def _runs(values: np.ndarray) -> np.ndarray:
    """Return the numbers of a pixel's channels for as many pixels as are whole vectors together."""
    return np.tile(values, RUN_UNIT // math.gcd(values.size, RUN_UNIT))


def _dtype_for(network: Network, layers: Sequence[Layer]) -> np.dtype:
    first = layers[0].affine
    unknown = network.clip is None and first.centre is None and first.spread is None
    squares = network.squares or any(layer.activation == SQUARE for layer in layers)
    if not (network.double or squares or (network.wide and unknown) or _rounding(first) > _COARSE):
        return np.dtype(np.float32)
    if not {layer.activation for layer in layers[:-1]} <= {IDENTITY, SQUARE}:
        raise NotCompilable("its first layer needs more digits than float32 has, and hidden layers have no float64")
    return np.dtype(np.float64)


def _rounding(affine: Affine) -> float:
    """Return about how much float32 rounds the sums of a map, as far as the spread of the features is known."""
    if affine.spread is None:
        return 0.0
    return float(np.finfo(np.float32).epsneg * np.linalg.norm(affine.weight * affine.spread, axis=1).max())


def _rounded(values: np.ndarray, dtype: np.dtype, spread: np.ndarray | None = None) -> np.ndarray:
    """Return weights or biases in `dtype`, in float32 without those that are next to nothing beside the others, as a
    strong penalty leaves them: what they make is too small for a normal number, with which most CPUs compute a hundred
    times as long. Weights may also be small because features are large; `spread` says how large, if that is known.
    """
    if dtype == np.float32:
        size = np.abs(values) * (1.0 if spread is None else np.maximum(spread, 1))
        values = np.where(size < _NOTHING * min(1.0, size.max()), 0, values)
    return values.astype(dtype)


def _pack(
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    activations: Sequence[int],
    dtype: np.dtype,
    level: str | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the table of layers, their weights and biases one after another, and the offsets of their taps."""
    _, width = _dispatch.block_sizes(level, dtype.itemsize)
    rows: list[tuple[int, ...]] = []
    packed_weights, packed_biases, taps = [], [], []
    at_weight, at_bias = 0, 0
    for weight, bias, activation in zip(weights, biases, activations, strict=True):
        n_filters, n_channels = weight.shape
        of_taps, at_once = np.arange(n_channels), n_filters
        by_vectors = n_filters <= _SUMMED and n_channels >= width
        if by_vectors:
            if dtype == np.float64 and not rows:  # its h is a copy, which may as well have rows of whole vectors
                n_channels = -(-n_channels // width) * width
            weight, of_taps = _by_vectors(weight, width, n_channels)
            at_once = FEW_FILTERS
        rows.append((n_filters, len(of_taps), n_channels, by_vectors, at_weight, at_bias, activation))
        taps.append(of_taps)
        for first in range(0, n_filters, at_once):
            packed, packed_bias, _ = pack_dense(weight[first : first + at_once], bias[first : first + at_once], level)
            packed_weights.append(packed)
            packed_biases.append(packed_bias)
            at_weight, at_bias = at_weight + packed.size, at_bias + packed_bias.size
    offsets = np.zeros((len(taps), max(map(len, taps))), np.intp)
    for row, of_taps in zip(offsets, taps, strict=True):
        row[: len(of_taps)] = of_taps
    together = _memory.empty((at_weight,), dtype)  # begins a cache line, so that no vector lies on two of them
    together[:] = np.concatenate(packed_weights)
    return np.array(rows, np.intp), together, np.concatenate(packed_biases), offsets


def _by_vectors(weight: np.ndarray, width: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights for vectors of channels, and where these vectors begin: the last one ends with the row of a pixel,
    and has zeros for channels that the one before has had.
    """
    n_filters, n_channels = weight.shape
    taps = np.minimum(np.arange(0, row, width), row - width)
    spread = np.zeros((n_filters, len(taps) * width), weight.dtype)
    n_whole = min(n_channels, row - row % width)
    spread[:, :n_whole] = weight[:, :n_whole]
    if n_whole < n_channels:
        spread[:, n_whole - n_channels :] = weight[:, n_whole:]
    return spread, taps
