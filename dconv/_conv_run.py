"""How a planned convolution is computed: the loop that suits its channels, over all rows of the output.

A vector holds 4 to 16 numbers. What lies side by side in its lanes decides the speed, so there are four loops over
the same table of offsets: lanes of filters (the rule), lanes of channels summed at the end (few filters), lanes of
channels each with its own filter (depthwise), and filters of several pixels or groups that share a vector (few filters
of few channels). Which one is taken depends on channels, filters and strides alone, never on sizes, so all parts of an
image take the same and a tile equals the whole; but for the last, which has the bits of the first.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from dconv import _memory
from dconv._conv_layout import Tap, order_taps, row_order, rows_of
from dconv._conv_plan import ConvPlan
from dconv._kernels import _conv, _dispatch

# Below this many multiply-adds a second thread costs more than it does (starting a team takes microseconds).
_MULTIPLY_ADDS_PER_THREAD = 1 << 19
# Up to so many filters, vectors of channels beat vectors of filters that are mostly empty.
FEW_FILTERS = 4
# So many pixels or groups must share a vector: picking what they read out of one of x costs as much as they save at 2.
_SHARES = 4
# Results from so many bytes on are written past the caches, where the kernel can. Smaller ones often lie in the cache
# already, in memory used before, and are read from there: up to 16 MB streaming was slower as often as faster, and of
# depthwise by a fifth; from 32 MB on it took half to two thirds of the time.
_STREAMED_BYTES = 3 << 23

# One weight and its bias as the loops have read them before, so that they need not be packed again.
Packings: TypeAlias = dict[tuple, tuple[np.ndarray, np.ndarray | None]]


def run_plan(
    plan: ConvPlan,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    n_threads: int,
    level: str | None = None,
    *,
    packings: Packings | None = None,
    relu: bool = False,
) -> None:
    """Write the convolution that `plan` describes to `out`; arrays of one dtype, as :func:`dconv.conv` prepares them.

    `level` is a CPU level of :func:`dconv._kernels._dispatch.supported_levels`; None is the active one. `packings` is
    for those who run a convolution, not a transposed one, with the same weight and bias again: it starts empty. With
    `relu` what is negative becomes 0, likewise of a convolution.
    """
    # Vectors need numbers beside each other: the channels of a pixel or, of one channel, the pixels of a row.
    axis = -1 if x.shape[-1] > 1 else -2
    if x.strides[axis] != x.itemsize and (axis == -1 or plan.axes[-1].in_step == 1):
        x = np.ascontiguousarray(x)
    x, weight, out = _as_3d(x), _as_3d(weight), _as_3d(out)
    lanes = _choose_lanes(plan, weight, level)
    tap = _tap(plan.groups, lanes, weight, level)
    loop, n_beside = lanes, 0
    if lanes == _conv.PIXELS:
        n_beside = _samples_in_a_step(plan, x, level)
    elif lanes == _conv.FILTERS and (n_shares := _shares(plan, weight, x, level)):
        loop, n_beside = _conv.SHARED, n_shares
    layout = (plan.groups, loop, n_beside, tap, level)
    x_steps = tuple(step // x.itemsize for step in x.strides[1:])
    order = (0, *(1 + axis for axis in row_order(plan)), 4)
    for rows in rows_of(plan, x.shape[-1], tap, x_steps, x.itemsize):
        target = out[(slice(None), *rows.out)]
        kernels = [weight[(slice(None), *taps)] for taps in rows.kernels]
        n_taps = sum(math.prod(kernel.shape[1:]) for kernel in kernels)  # of all phases, which share the pixels
        if not n_taps:
            target[...] = 0 if bias is None else bias
            continue
        if packings is None or (layout, weight.shape) not in packings:
            packed, biases = _pack(plan.groups, kernels, bias, loop, n_beside, tap, level)
            if packings is not None:
                packings[layout, weight.shape] = packed, biases
        else:
            packed, biases = packings[layout, weight.shape]
        threads = max(1, min(n_threads, target.size * n_taps // rows.out_step // _MULTIPLY_ADDS_PER_THREAD))
        _conv.conv_rows(
            x.transpose(order), packed, biases, target.transpose(order), rows.axes, rows.borders, rows.phases,
            rows.offsets, np.empty((threads, max(rows.scratch_size, 1)), x.dtype), rows.scratch_row,
            tap.per_position, rows.out_step, rows.apart, plan.groups, loop, n_beside, rows.piece, threads, level, relu,
            out.nbytes >= _STREAMED_BYTES,
        )  # fmt: skip


def _as_3d(array: np.ndarray) -> np.ndarray:
    """Return `array` with axes of size 1 after its first, so that three spatial axes follow it and one of channels."""
    return array.reshape(array.shape[0], *(1,) * (5 - array.ndim), *array.shape[1:])


def _choose_lanes(plan: ConvPlan, weight: np.ndarray, level: str | None) -> int:
    _, lanes = _dispatch.block_sizes(level, weight.itemsize)
    n_filters, n_channels = weight.shape[0] // plan.groups, weight.shape[-1]
    last = plan.axes[-1]
    if n_filters == n_channels == 1 and (last.in_step == last.out_step == 1 or plan.groups >= lanes):
        return _conv.PIXELS
    return _dense_lanes(n_filters, n_channels, lanes)


def _dense_lanes(n_filters: int, n_channels: int, lanes: int) -> int:
    return _conv.CHANNELS if n_filters <= FEW_FILTERS and n_channels % lanes == 0 else _conv.FILTERS


def pack_dense(weight: np.ndarray, bias: np.ndarray, level: str | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the weights (filters, channels) and the bias of a 1 x 1 convolution, packed, and whether its taps are
    vectors of channels, for the loop that sums lanes, or single channels.
    """
    _, width = _dispatch.block_sizes(level, weight.itemsize)
    lanes = _dense_lanes(weight.shape[0], weight.shape[1], width)
    packed, biases = _pack(1, [_as_3d(weight)], bias, lanes, 0, _dense_tap(weight, lanes, width), level)
    assert biases is not None
    return packed.ravel(), biases.ravel(), lanes == _conv.CHANNELS


def _tap(groups: int, lanes: int, weight: np.ndarray, level: str | None) -> Tap:
    _, width = _dispatch.block_sizes(level, weight.itemsize)
    # Filters of one vector gain 10 to 15 % by runs, more lose up to 7 %: they read x from further places. Whatever the
    # stride, lest a net made dense differ from itself by rounding.
    in_runs = lanes == _conv.FILTERS and weight.shape[0] // groups <= width
    return _dense_tap(weight, lanes, width)._replace(in_runs=in_runs)


def _dense_tap(weight: np.ndarray, lanes: int, width: int) -> Tap:
    n_channels = width if lanes == _conv.CHANNELS else 1
    return Tap(weight.shape[-1] // n_channels, n_channels, False)


def _samples_in_a_step(plan: ConvPlan, x: np.ndarray, level: str | None) -> int:
    """Return how many samples of a row are one step of the depthwise loop.

    Where a row is one run of samples and pixels have less than a vector, as many side by side as fill the widest tile,
    else one pixel.
    """
    _, width = _dispatch.block_sizes(level, x.itemsize)
    one_run = plan.axes[2].in_step == 1 and _rows_are_runs(plan, x)
    return math.lcm(plan.groups, 2 * width) if one_run and plan.groups < width else plan.groups


def _rows_are_runs(plan: ConvPlan, x: np.ndarray) -> bool:
    """Tell whether neighbours in a row of the output lie beside each other, and those of x likewise."""
    return row_order(plan)[2] == 2 and plan.axes[2].out_step == 1 and x.strides[3] == x.shape[4] * x.itemsize


def _shares(plan: ConvPlan, weight: np.ndarray, x: np.ndarray, level: str | None) -> int:
    """Return how many groups or, of one group, pixels share a vector; 0 if none do."""
    _, width = _dispatch.block_sizes(level, x.itemsize)
    if not _dispatch.can_share(level, x.itemsize) or (plan.groups == 1 and not _rows_are_runs(plan, x)):
        return 0
    apart = weight.shape[-1] * (plan.axes[2].in_step if plan.groups == 1 else 1)  # what they read, in samples
    n_shares = min(width // (weight.shape[0] // plan.groups), (width - 1) // max(apart, 1) + 1)
    n_shares = n_shares if plan.groups == 1 else min(n_shares, plan.groups)
    return n_shares if n_shares >= _SHARES else 0


def _pack(
    groups: int,
    kernels: list[np.ndarray],
    bias: np.ndarray | None,
    lanes: int,
    n_beside: int,
    tap: Tap,
    level: str | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return weights and bias as the loop reads them: the kernels of all phases, one after another."""
    block, width = _dispatch.block_sizes(level, kernels[0].itemsize)
    kernels = [
        order_taps(kernel.reshape(*kernel.shape[:4], tap.per_position, tap.n_channels), tap) for kernel in kernels
    ]
    if lanes == _conv.PIXELS:
        repeats = n_beside // groups
        parts = [np.tile(kernel.reshape(groups, -1).T, repeats).reshape(1, -1) for kernel in kernels]
        biases = None if bias is None else np.tile(bias, repeats)[np.newaxis]
    else:
        grouped = [kernel.reshape(groups, kernel.shape[0] // groups, -1) for kernel in kernels]
        biases = None if bias is None else np.ascontiguousarray(bias.reshape(groups, -1))
        if lanes == _conv.CHANNELS:
            parts = [each.reshape(groups, -1) for each in grouped]
        else:
            if lanes == _conv.SHARED:
                grouped = [_beside(each, n_beside) for each in grouped]
                biases = None if biases is None else _beside(biases, n_beside)
            parts = [_pack_filters(each, block, width) for each in grouped]
            biases = None if biases is None else _pad_filters(biases, width)
    return _in_lines(np.concatenate(parts, axis=1), width), None if biases is None else _in_lines(biases, width)


def _beside(array: np.ndarray, n_shares: int) -> np.ndarray:
    """Return (groups, filters, ...) as (blocks, n_shares * filters, ...): the filters of that many groups beside each
    other, where the last block ends with the groups, or those of the one group so many times.
    """
    groups = len(array)
    first = np.minimum(np.arange(0, groups, n_shares), max(groups - n_shares, 0))
    members = np.minimum(first[:, np.newaxis] + np.arange(n_shares), groups - 1)
    return array[members].reshape(len(first), n_shares * array.shape[1], *array.shape[2:])


def _in_lines(array: np.ndarray, width: int) -> np.ndarray:
    """Return a copy that begins a cache line, so that no vector lies on two of them (up to 8 % faster), with memory for
    one more vector behind it.
    """
    memory = _memory.empty((array.size + width,), array.dtype)
    memory[: array.size] = array.ravel()
    memory[array.size :] = 0
    return memory[: array.size].reshape(array.shape)


def _pack_filters(taps: np.ndarray, block: int, lanes: int) -> np.ndarray:
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
