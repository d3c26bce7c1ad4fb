"""The tables by which the kernel walks a planned convolution: what lies where, from shapes and strides alone."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dconv._blocks import border_index
from dconv._conv_plan import Axis, ConvPlan, Phase

# A piece of an output row reads rows of x that should stay in the L2 cache while all filters pass over them.
_PIECE_BYTES = 1 << 19
_TILE = 24  # pixels: a multiple of the micro-kernel's tiles, 6 and 8, by which a row is best cut


class Tap(NamedTuple):
    """What one entry in the table of offsets stands for."""

    per_position: int  # entries for one kernel position of a group
    n_channels: int  # that one entry covers
    in_runs: bool  # whether entries of neighbouring positions along the last axis follow each other, not those of one


class Rows(NamedTuple):
    """The output rows of one phase of each of two axes, which the kernel walks along the third; see _conv.pyx."""

    out: tuple[slice, slice, slice]  # where the rows lie, axes in their own order
    kernels: tuple[tuple[slice, ...], ...]  # the part of the kernel that each phase of a row has
    axes: np.ndarray
    borders: tuple[np.ndarray | None, ...]
    phases: np.ndarray
    offsets: np.ndarray
    out_step: int
    apart: int  # output pixels from an entry to the next, where those of a row follow each other; 0 where they do not
    piece: int
    scratch_row: int
    scratch_size: int


def row_order(plan: ConvPlan) -> tuple[int, int, int]:
    """Return the axes with the one last along which rows run: the last axis unless it is too short for tiles.

    Taps keep their order whatever the axes have, so results do not depend on it.
    """
    sizes = [axis.out_size for axis in plan.axes]
    longest = max((2, 1, 0), key=lambda axis: sizes[axis])
    if sizes[2] >= _TILE or longest == 2:
        return 0, 1, 2
    return (2, 1, 0) if longest == 0 else (0, 2, 1)


@functools.lru_cache(maxsize=256)
def rows_of(plan: ConvPlan, n_channels: int, tap: Tap, x_steps: tuple[int, ...], itemsize: int) -> tuple[Rows, ...]:
    """Return the tables of every combination of phases of the two axes that rows do not run along.

    `x_steps` are the strides of the spatial axes and of the channels, in elements.
    """
    order = row_order(plan)
    outer_phases = (plan.axes[axis].phases for axis in order[:2])
    return tuple(
        _rows(plan, order, outer, n_channels, tap, x_steps, itemsize) for outer in itertools.product(*outer_phases)
    )


def _rows(
    plan: ConvPlan,
    order: tuple[int, int, int],
    outer: tuple[Phase, ...],
    n_channels: int,
    tap: Tap,
    x_steps: tuple[int, ...],
    itemsize: int,
) -> Rows:
    axes = [plan.axes[axis] for axis in order]
    row = axes[2]
    phases = [_in_place((*outer, phase), order) for phase in row.phases]  # of every axis, in the axes' own order
    n_outer = math.prod(len(phase.taps) for phase in outer)
    read = n_outer * row.in_step * n_channels
    written = row.out_step * plan.out_shape[-1] if row.out_step > 1 else 0  # whole only once all phases had their turn
    piece = _piece(max(phase.n_outputs for phase in row.phases), max(read, 2 * written) * itemsize)
    scratch_row = (piece - 1) * row.in_step + max(map(row.span, row.phases))
    beyond = [axis.beyond() for axis in axes]
    # In the scratch the rows of x that one output row reads lie one after another, whatever their distance in x.
    scratch_steps = (len(outer[1].taps) * scratch_row * n_channels, scratch_row * n_channels, n_channels)
    spaces = [
        ([axis.spacing for axis in plan.axes], x_steps),
        (_in_place((1, 1, row.spacing), order), (*_in_place(scratch_steps, order), 1)),
    ]
    return Rows(
        out=_in_place(
            (
                *(slice(phase.first, None, axis.out_step) for phase, axis in zip(outer, axes[:2], strict=True)),
                slice(None),
            ),
            order,
        ),
        kernels=tuple(tuple(_as_slice(phase.taps) for phase in each) for each in phases),
        axes=_axes_table(axes, (*outer, row.phases[0]), [before for before, _ in beyond]),
        borders=tuple(_border(axis, pads, plan.padding_mode) for axis, pads in zip(axes, beyond, strict=True)),
        phases=_phases_table(row, [math.prod(len(phase.taps) for phase in each) for each in phases]),
        offsets=np.stack([np.concatenate([_tap_offsets(each, *space, tap) for each in phases]) for space in spaces]),
        out_step=row.out_step,
        apart=row.apart if order[2] == 2 and (tap.in_runs or tap.per_position == 1) else 0,
        piece=piece,
        scratch_row=scratch_row,
        scratch_size=n_outer * scratch_row * n_channels if any(map(any, beyond)) else 0,
    )


def _axes_table(axes: Sequence[Axis], phases: Sequence[Phase], n_before: Sequence[int]) -> np.ndarray:
    """Return the fields of the kernel's `Axis`, a row for each."""
    return np.array(
        [
            (axis.size, axis.in_step, phase.low, len(phase.taps), axis.spacing, *axis.inside(phase), before)
            for axis, phase, before in zip(axes, phases, n_before, strict=True)
        ],
        np.intp,
    )


def _phases_table(axis: Axis, n_positions: Sequence[int]) -> np.ndarray:
    """Return the fields of the kernel's `Phase`, a row for each; `n_positions` are those of their kernels."""
    starts = list(itertools.accumulate(n_positions, initial=0))[:-1]
    return np.array(
        [
            (phase.first, phase.n_outputs, phase.low, len(phase.taps), *axis.inside(phase), start)
            for phase, start in zip(axis.phases, starts, strict=True)
        ],
        np.intp,
    )


def _in_place(values: Sequence, order: tuple[int, int, int]) -> tuple:
    """Return `values`, which are in the order of rows, in the axes' own order."""
    return tuple(values[order.index(axis)] for axis in range(3))


def _as_slice(taps: range) -> slice:
    return slice(taps.start, None if taps.stop < 0 else taps.stop, taps.step)


def _border(axis: Axis, pads: tuple[int, int], mode: str) -> np.ndarray | None:
    """Return which sample stands at each place just before and just after the axis; None if all are zeros."""
    if mode == "zeros" or not any(pads):
        return None
    places = np.concatenate([np.arange(-pads[0], 0), np.arange(axis.size, axis.size + pads[1])])
    return border_index(axis.size, places, mode).astype(np.intp)


def _tap_offsets(phases: Sequence[Phase], spacings: Sequence[int], steps: Sequence[int], tap: Tap) -> np.ndarray:
    """Return where each (kernel position, tap) of a group lies from the first, in the order of :func:`order_taps`.

    Positions along an axis are `spacings` samples apart, neighbours along the spatial axes and channels `steps`
    elements.
    """
    offsets = np.zeros((), np.intp)
    counts = (*(len(phase.taps) for phase in phases), tap.per_position)
    for n, spacing, step in zip(counts, (*spacings, tap.n_channels), steps, strict=True):
        offsets = offsets[..., np.newaxis] + np.arange(n, dtype=np.intp) * (spacing * step)
    return order_taps(offsets[..., np.newaxis], tap).ravel()


def order_taps(taps: np.ndarray, tap: Tap) -> np.ndarray:
    """Return (..., positions along the last axis, entries at each, numbers of an entry) in the order that outputs add
    them.
    """
    return taps.swapaxes(-2, -3) if tap.in_runs else taps


def _piece(n_pixels: int, bytes_per_pixel: int) -> int:
    """Return how many pixels of an output row are computed together: equal pieces within `_PIECE_BYTES`."""
    longest = min(max(2 * _TILE, _PIECE_BYTES // max(bytes_per_pixel, 1)), 2048)
    equal = math.ceil(n_pixels / math.ceil(n_pixels / longest))
    return -(-equal // _TILE) * _TILE
