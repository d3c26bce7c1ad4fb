"""Layers of a net by Winograd's minimal filtering: 3 x 3 kernels with 16 multiplications for four outputs, not 36.

Outputs are computed in tiles of 2 x 2 at multiples of 2 samples of the whole map, or with a dilation of so many times
that, whatever part of the map is wanted. What an output is made of does not depend on the part, and neither do its
bits. They are others than those of :func:`dconv.conv`, which adds taps in one order wherever an image is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dconv import _memory
from dconv._conv_run import pack_dense
from dconv._hole_algorithm import Part, Step
from dconv._kernels import _winograd as kernel
from dconv._net_layers import Convolution

# Tiles in a block: with 512 channels they are transformed to 1.6 MB. From 36 to 96 no difference was seen, 24 were 5 to
# 10 % slower, as weights pass by more often; filters 64 at a time as fast as all, 32 slower.
_BLOCK = 48
_CHUNK = 64
# The transforms are the less the more products each number of them takes part in. Of the time of direct convolution
# 16 channels and filters took 1.00, 32 took 0.75, from 64 on it was 0.5 to 0.6 (AVX-512; AVX2 1.06, 0.64, 0.4 to 0.57).
_LEAST = 32

_FACTORS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def suits(step: Step, size: Sequence[int]) -> bool:
    """Tell whether a step is computed in tiles, in all parts of an image in which its output has this size.

    A layer that was trained to stride is not, even where it is made dense: so that it keeps the bits of the strided
    one. With taps so far apart that a map has one sample between them, tiles would be half empty, or more.
    """
    layer = step.layer
    return (
        isinstance(layer, Convolution)
        and step.kernel == (3, 3)
        and layer.stride == (1, 1)
        and layer.groups == 1
        and all(n >= _LEAST and n % kernel.UNIT == 0 for n in (layer.in_channels, layer.out_channels))
        and all(n > apart for n, apart in zip(size, step.dilation, strict=True))
    )


def scratch_bytes(step: Step, n_threads: int) -> int:
    """Return the memory that threads take for their tiles."""
    assert isinstance(step.layer, Convolution)
    return 4 * n_threads * kernel.scratch_size(step.layer.in_channels, _BLOCK, _CHUNK)


def pack_weights(weight: np.ndarray, level: str | None = None) -> np.ndarray:
    """Return the weights of a layer as the tiles need them: for each of 16 factors packed as a 1 x 1 kernel's."""
    rows = np.einsum("ai,fijc->afjc", _FACTORS, weight.astype(np.float64))
    factors = np.einsum("bj,afjc->abfc", _FACTORS, rows).reshape(16, weight.shape[0], weight.shape[-1])
    no_bias = np.zeros(weight.shape[0], np.float32)
    return np.stack([pack_dense(each, no_bias, level)[0] for each in factors.astype(np.float32)])


def run_tiles(
    step: Step, part: Part, x: np.ndarray, weights: np.ndarray, relu: bool, n_threads: int, level: str | None = None
) -> np.ndarray:
    """Return the part of a step's output, and what is negative as 0 with `relu`.

    `x` is the part of the input, `weights` are those of :func:`pack_weights`. `level` is a CPU level of
    :func:`dconv._kernels._dispatch.supported_levels`; None is the active one.
    """
    assert isinstance(step.layer, Convolution)
    if x.strides[-1] != x.itemsize:
        x = np.ascontiguousarray(x)
    n_channels, n_filters = x.shape[-1], step.n_channels
    rows, columns = (_first_outputs(*each) for each in zip(part.output, step.dilation, strict=True))
    n_tiles = len(rows) * len(columns)
    n_threads = max(1, min(n_threads, n_tiles // 2))
    turns = -(-n_tiles // (_BLOCK * n_threads))  # blocks of each thread, which all have as many
    block = -(-n_tiles // (turns * n_threads))
    out = _memory.empty((*(high - low for low, high in part.output), n_filters), np.dtype(np.float32))
    scratch = _memory.empty((n_threads, kernel.scratch_size(n_channels, block, _CHUNK)), out.dtype)
    kernel.winograd_tiles(
        x, weights, step.layer.bias, out, rows, columns, tuple(-before for before, _ in part.pads), step.dilation,
        np.arange(n_channels, dtype=np.intp), np.zeros(n_channels, np.float32), scratch, block, _CHUNK, n_threads,
        level, relu,
    )  # fmt: skip
    return out


def _first_outputs(wanted: tuple[int, int], dilation: int) -> np.ndarray:
    """Return the first place of each tile, counted from the first that is wanted, that has a wanted output.

    Of `dilation` neighbours each belongs to other tiles: to those that begin at it and at every second one that far on.
    """
    low, high = wanted
    first = np.arange(low // (2 * dilation) * 2 * dilation, high, dtype=np.intp)
    first = first[first % (2 * dilation) < dilation]
    second = first + dilation
    return first[(first >= low) | ((second >= low) & (second < high))] - low
