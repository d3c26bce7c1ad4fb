"""How a planned convolution is computed: the loop that suits its channels, and its regions one after another.

A vector holds 4 to 16 numbers. What lies side by side in its lanes decides the speed, so there are three loops over
the same table of offsets: lanes of filters (the rule), lanes of channels summed at the end (few filters), lanes of
channels each with its own filter (depthwise). Which one is taken depends on channels, filters and strides alone, never
on sizes, so all parts of an image take the same and a tile equals the whole.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dconv._blocks import read_block
from dconv._conv_plan import ConvPlan
from dconv._kernels import _conv, _dispatch

# A piece of an output row reads rows of x that should stay in the L2 cache while all filters pass over them.
_PIECE_BYTES = 1 << 19
# Below this many multiply-adds a second thread costs more than it does (starting a team takes microseconds).
_MULTIPLY_ADDS_PER_THREAD = 1 << 19
# Up to so many filters, vectors of channels beat vectors of filters that are mostly empty.
_FEW_FILTERS = 4
_TILE = 24  # pixels: a multiple of the micro-kernel's tiles, 6 and 8, by which a row is best cut


class _Loop(NamedTuple):
    """A loop with its weights laid out: ``run(x, offsets, stride, out, piece, n_threads)`` on 5-D views."""

    run: Callable[[np.ndarray, np.ndarray, tuple[int, ...], np.ndarray, int, int], None]
    taps_per_position: int  # entries in the table of offsets for one kernel position


def run_plan(
    plan: ConvPlan,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    n_threads: int,
    level: str | None = None,
) -> None:
    """Write the convolution that `plan` describes to `out`; arrays of one dtype, as :func:`dconv.conv` prepares them.

    `level` is a CPU level of :func:`dconv._kernels._dispatch.supported_levels`; None is the active one.
    """
    loop = _choose_loop(plan, weight, bias, level)
    for region in plan.regions:
        source = read_block(x, region.start, region.stop, plan.padding_mode, first_axis=1)
        # Vectors need numbers beside each other: the channels of a pixel or, of one channel, the pixels of a row.
        axis = -1 if source.shape[-1] > 1 else -2
        if source.strides[axis] != source.itemsize and (axis == -1 or plan.stride[-1] == 1):
            source = np.ascontiguousarray(source)
        target = out[(slice(None), *region.out)]
        steps = tuple(step // source.itemsize for step in source.strides[1:])  # in elements
        offsets = _tap_offsets(plan.kernel_size, plan.dilation, loop.taps_per_position, steps)
        source, target, stride = _along_long_rows(_as_3d(source), _as_3d(target), plan.stride)
        piece = _piece(
            target.shape[3], stride[2] * source.shape[4] * source.itemsize * math.prod(plan.kernel_size[:-1])
        )
        multiply_adds = target.size * math.prod(weight.shape[1:])
        loop.run(
            source, offsets, stride, target, piece, max(1, min(n_threads, multiply_adds // _MULTIPLY_ADDS_PER_THREAD))
        )


def _choose_loop(plan: ConvPlan, weight: np.ndarray, bias: np.ndarray | None, level: str | None) -> _Loop:
    block, lanes = _dispatch.block_sizes(level, weight.itemsize)
    n_filters, n_channels = weight.shape[0] // plan.groups, weight.shape[-1]
    if n_filters == n_channels == 1 and (plan.stride[-1] == 1 or plan.groups >= lanes):
        return _depthwise(weight, bias, lanes, level)
    if n_filters <= _FEW_FILTERS and n_channels % lanes == 0:
        return _lanes_of_channels(plan, weight, bias, level)
    return _lanes_of_filters(plan, weight, bias, block, lanes, level)


def _lanes_of_filters(
    plan: ConvPlan, weight: np.ndarray, bias: np.ndarray | None, block: int, lanes: int, level: str | None
) -> _Loop:
    packed = _pack(weight.reshape(plan.groups, weight.shape[0] // plan.groups, -1), block, lanes)
    padded = None if bias is None else _pad_filters(bias.reshape(plan.groups, -1), lanes)

    def run(x, offsets, stride, out, piece, n_threads):
        _conv.conv_rows(x, offsets, 0, packed, padded, stride, out, piece, n_threads, level)

    return _Loop(run, weight.shape[-1])


def _lanes_of_channels(plan: ConvPlan, weight: np.ndarray, bias: np.ndarray | None, level: str | None) -> _Loop:
    packed = np.ascontiguousarray(weight.reshape(plan.groups, -1))
    biases = None if bias is None else np.ascontiguousarray(bias.reshape(plan.groups, -1))

    def run(x, offsets, stride, out, piece, n_threads):
        _conv.conv_rows(x, offsets, weight.shape[-1], packed, biases, stride, out, piece, n_threads, level)

    return _Loop(run, 1)


def _depthwise(weight: np.ndarray, bias: np.ndarray | None, lanes: int, level: str | None) -> _Loop:
    n_channels = weight.shape[0]
    taps = weight.reshape(n_channels, -1).T

    def run(x, offsets, stride, out, piece, n_threads):
        pixel = n_channels * x.itemsize
        one_run = stride[2] == 1 and x.strides[3] == pixel and out.strides[3] == pixel
        # Where a row is one run of samples, as many pixels side by side as fill the widest tile are one step.
        repeats = math.lcm(n_channels, 4 * lanes) // n_channels if one_run else 1
        weights = np.ascontiguousarray(np.tile(taps, repeats))
        biases = None if bias is None else np.tile(bias, repeats)
        _conv.depthwise_rows(x, offsets, weights, biases, stride, out, piece, n_threads, level)

    return _Loop(run, 1)


def _pack(taps: np.ndarray, block: int, lanes: int) -> np.ndarray:
    """Return (groups, filters, taps) as (groups, packed): blocks of filters, each (taps, filters in the block).

    Where the filters left over fit in one vector their block is a vector wide, else as wide as the others; what a
    block has too many is zero.
    """
    padded = np.ascontiguousarray(_pad_filters(taps.transpose(0, 2, 1), lanes))
    blocks = [padded[..., f : f + block].reshape(len(taps), -1) for f in range(0, taps.shape[1], block)]
    return np.concatenate(blocks, axis=1) if len(blocks) > 1 else blocks[0]


def _pad_filters(array: np.ndarray, lanes: int) -> np.ndarray:
    """Return `array` with zeros after its last axis, up to whole vectors."""
    n_filters = array.shape[-1]
    padded = np.zeros((*array.shape[:-1], -(-n_filters // lanes) * lanes), array.dtype)
    padded[..., :n_filters] = array
    return padded


def _as_3d(array: np.ndarray) -> np.ndarray:
    """Return `(batch, *spatial, channels)` with leading spatial axes of size 1, so that there are three."""
    return array.reshape(array.shape[0], *(1,) * (5 - array.ndim), *array.shape[1:])


def _along_long_rows(
    x: np.ndarray, out: np.ndarray, stride: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Return 5-D views and three strides whose last spatial axis is long enough for tiles.

    Slabs at the left and right border are a few pixels wide and many rows long: walked along the rows, they would
    be computed pixel by pixel. The offsets of taps, and so the order of sums, do not change with the axes.
    """
    stride = (1,) * (3 - len(stride)) + stride
    longest = max((3, 2, 1), key=lambda axis: out.shape[axis])
    if out.shape[3] >= _TILE or longest == 3:
        return x, out, stride
    order = list(range(3))
    order[2], order[longest - 1] = order[longest - 1], order[2]
    return x.swapaxes(3, longest), out.swapaxes(3, longest), tuple(stride[axis] for axis in order)


@functools.lru_cache(maxsize=256)
def _tap_offsets(
    kernel_size: tuple[int, ...], dilation: tuple[int, ...], n_channels: int, steps: tuple[int, ...]
) -> np.ndarray:
    """Return where each (kernel position, channel) of a group lies from the first, where neighbours along the spatial
    axes and channels are `steps` apart.
    """
    offsets = np.zeros((), np.intp)
    for n, spacing, step in zip((*kernel_size, n_channels), (*dilation, 1), steps, strict=True):
        offsets = offsets[..., np.newaxis] + np.arange(n, dtype=np.intp) * (spacing * step)
    return offsets.ravel()


def _piece(n_pixels: int, bytes_per_pixel: int) -> int:
    """Return how many pixels of an output row are computed together: equal pieces within `_PIECE_BYTES`."""
    longest = min(max(2 * _TILE, _PIECE_BYTES // bytes_per_pixel), 2048)
    equal = math.ceil(n_pixels / math.ceil(n_pixels / longest))
    return -(-equal // _TILE) * _TILE
