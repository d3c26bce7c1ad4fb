"""What a convolution computes, from shapes alone: every check is done once its plan exists."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from dconv import shapes
from dconv._axes import as_tuple

# Inputs this small are padded whole: cutting the border off costs more in Python than it saves in copying.
_FRAME_BYTES = 1 << 18


class Region(NamedTuple):
    """A box of output pixels, and the box of the extended input that it reads; both per spatial axis."""

    out: tuple[slice, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]


class ConvPlan(NamedTuple):
    """A convolution that has passed all checks; `regions` cover its output, each pixel once."""

    out_shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    regions: tuple[Region, ...]


class _Axis(NamedTuple):
    """One spatial axis of a convolution, in samples."""

    size: int
    out_size: int
    stride: int
    span: int
    left: int  # padding before the first sample

    def inside(self) -> tuple[int, int]:
        """Return the first output that reads only samples that exist, and the one after the last."""
        first = min(-(-self.left // self.stride), self.out_size)
        last = (self.size + self.left - self.span) // self.stride
        return first, max(min(last + 1, self.out_size), first)

    def reads(self, first: int, stop: int) -> tuple[int, int]:
        """Return the samples that outputs `first` to `stop` read, counted from the first that exists."""
        return first * self.stride - self.left, (stop - 1) * self.stride - self.left + self.span


def _region(axes: list[_Axis], box: list[tuple[int, int]]) -> Region:
    reads = [axis.reads(*pair) for axis, pair in zip(axes, box, strict=True)]
    return Region(tuple(slice(*pair) for pair in box), *(tuple(ends) for ends in zip(*reads, strict=True)))


def _frame(axes: list[_Axis]) -> Iterator[Region]:
    """Cut the output into slabs that read the extension, and last the interior, which reads only real samples.

    So only the input of the slabs is copied, where padding the whole input would copy all of it. There must be an
    interior.
    """
    box = [(0, axis.out_size) for axis in axes]
    for number, axis in enumerate(axes):
        first, stop = axis.inside()
        for slab in ((0, first), (stop, axis.out_size)):
            if slab[0] < slab[1]:
                yield _region(axes, [*box[:number], slab, *box[number + 1 :]])
        box[number] = (first, stop)
    yield _region(axes, box)


def _cut(axes: list[_Axis], n_bytes: int) -> tuple[Region, ...]:
    """Return the regions in which the output is computed."""
    whole = _region(axes, [(0, axis.out_size) for axis in axes])
    interior = math.prod(stop - first for first, stop in map(_Axis.inside, axes))
    if n_bytes < _FRAME_BYTES or interior < math.prod(axis.out_size for axis in axes) / 2:
        return (whole,)
    return tuple(_frame(axes))


def _check_shapes(x_shape: tuple[int, ...], weight_shape: tuple[int, ...], groups: int) -> None:
    """Check that the shapes of a convolution fit together."""
    ndim = len(weight_shape) - 2
    if ndim not in (1, 2, 3):
        raise ValueError(
            "weight must have shape (out_channels, *kernel, in_channels // groups) with 1 to 3 kernel axes, "
            f"got {weight_shape}"
        )
    if len(x_shape) != ndim + 2:
        raise ValueError(
            f"x must have shape (batch, *spatial, channels) with {ndim} spatial axes, as weight {weight_shape} has, "
            f"got {x_shape}; add what is missing, as in x[None, ..., None]"
        )
    if 0 in weight_shape:
        raise ValueError(f"weight has shape {weight_shape}: no axis may be empty")
    if 0 in x_shape[1:]:
        raise ValueError(f"x has shape {x_shape}: only the batch axis may be empty")
    if x_shape[-1] != weight_shape[-1] * groups:
        raise ValueError(
            f"weight takes {weight_shape[-1]} channel(s) per group and groups={groups}, so x must have "
            f"{weight_shape[-1] * groups} channels on its last axis, but it has {x_shape[-1]}"
        )
    if weight_shape[0] % groups:
        raise ValueError(f"groups={groups} must divide the {weight_shape[0]} filters of weight (its first axis)")


@functools.lru_cache(maxsize=256)
def conv_plan(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    itemsize: int,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
) -> ConvPlan:
    """Check a convolution and return its plan; arguments as in :func:`dconv.conv`, hashable, of a mode that exists."""
    (groups,) = as_tuple(groups, 1, "groups", 1)
    _check_shapes(x_shape, weight_shape, groups)
    size, kernel_size = x_shape[1:-1], weight_shape[1:-1]
    strides, dilations = as_tuple(stride, len(size), "stride", 1), as_tuple(dilation, len(size), "dilation", 1)
    out_size = shapes.conv_shape(size, kernel_size, stride=strides, padding=padding, dilation=dilations)
    pads = shapes.normalize_padding(padding, kernel_size, dilations, strides, size)
    spans = shapes.span(kernel_size, dilations)
    axes = [_Axis(*values, left) for *values, (left, _) in zip(size, out_size, strides, spans, pads, strict=True)]
    regions = _cut(axes, math.prod(x_shape) * itemsize)
    return ConvPlan(
        (x_shape[0], *out_size, weight_shape[0]), kernel_size, strides, dilations, groups, padding_mode, regions
    )
