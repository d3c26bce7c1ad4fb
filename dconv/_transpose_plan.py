"""What a transposed convolution computes, from shapes alone.

The convolution reads sample ``i * stride - left + k * dilation`` with tap k. Turned round, output o receives tap k
from sample ``i = (o + left - k * dilation) / stride`` wherever that is whole: so outputs take turns in `stride`
phases, each with the taps of its own, and a phase is a plain convolution over neighbouring samples. Nothing is
multiplied by an inserted zero, and every output is written once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from dconv import shapes
from dconv._axes import as_tuple
from dconv._conv_plan import Axis, ConvPlan, Phase, check_image, check_weight, three_axes


class TransposePlan(NamedTuple):
    """A transposed convolution that has passed all checks.

    Where the border is not zeros, `plan` gives the image together with its border, `pads` wide, which is then to be
    added to the samples that it was copied from.
    """

    plan: ConvPlan
    out_shape: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None


@functools.lru_cache(maxsize=256)
def transpose_plan(
    y_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: int,
    output_size: Any,
    padding_mode: str,
) -> TransposePlan:
    """Check a transposed convolution and return its plan; arguments as in :func:`dconv.conv_transpose`, hashable."""
    (groups,) = as_tuple(groups, 1, "groups", 1)
    check_weight(weight_shape, groups)
    check_image("y", y_shape, weight_shape, "out_channels")
    if y_shape[-1] != weight_shape[0]:
        raise ValueError(
            f"y must have one channel for each of the {weight_shape[0]} filters of weight {weight_shape}, but it has "
            f"{y_shape[-1]} on its last axis; weight is that of the convolution that is transposed"
        )
    size, kernel_size = y_shape[1:-1], weight_shape[1:-1]
    strides, dilations = as_tuple(stride, len(size), "stride", 1), as_tuple(dilation, len(size), "dilation", 1)
    out_size = _out_size(size, kernel_size, strides, padding, output_padding, dilations, output_size)
    pads = shapes.normalize_padding(padding, kernel_size, dilations, strides, out_size)
    extended = out_size
    lefts = tuple(left for left, _ in pads)
    if padding_mode != "zeros":
        extended, lefts = (
            tuple(n + left + right for n, (left, right) in zip(out_size, pads, strict=True)),
            (0,) * len(pads),
        )
    axes = [_axis(*each) for each in zip(size, extended, kernel_size, strides, dilations, lefts, strict=True)]
    n_channels = weight_shape[-1] * groups
    return TransposePlan(
        ConvPlan((y_shape[0], *extended, n_channels), three_axes(axes), groups, "zeros"),
        (y_shape[0], *out_size, n_channels),
        pads if padding_mode != "zeros" and any(map(any, pads)) else None,
    )


def _out_size(
    size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    strides: tuple[int, ...],
    padding: Any,
    output_padding: Any,
    dilations: tuple[int, ...],
    output_size: Any,
) -> tuple[int, ...]:
    options = {"stride": strides, "padding": padding, "dilation": dilations}
    if output_size is None:
        return shapes.conv_transpose_shape(size, kernel_size, output_padding=output_padding, **options)
    if any(as_tuple(output_padding, len(size), "output_padding", 0)):
        raise ValueError(
            f"give output_size or output_padding, not both, but got {output_size} and {output_padding}; "
            "output_size alone says everything"
        )
    out_size = as_tuple(output_size, len(size), "output_size", 1)
    if padding == "same":
        for axis, (out, sizes) in enumerate(
            zip(out_size, shapes.conv_input_sizes(size, kernel_size, **options), strict=True)
        ):
            if out not in sizes:
                raise ValueError(
                    f"output_size must be from {sizes[0]} to {sizes[-1]} on axis {axis}, the sizes that a convolution "
                    f"with stride={strides[axis]} and padding='same' makes {size[axis]}, but got {out}"
                )
    else:
        shapes.output_padding_for(size, out_size, kernel_size, **options)
    return out_size


def _axis(size: int, out_size: int, kernel_size: int, stride: int, dilation: int, left: int) -> Axis:
    return Axis(
        size,
        out_size,
        1,
        stride,
        dilation // math.gcd(stride, dilation),
        tuple(_phases(out_size, kernel_size, stride, dilation, left)),
    )


def _phases(out_size: int, kernel_size: int, stride: int, dilation: int, left: int) -> Iterator[Phase]:
    # Taps of one phase are `period` apart: that many dilations are a whole number of strides.
    period = stride // math.gcd(stride, dilation)
    for first in range(min(stride, out_size)):
        count = -(-(out_size - first) // stride)
        whole = [k for k in range(min(period, kernel_size)) if (first + left - k * dilation) % stride == 0]
        if whole:  # the last tap reads the first sample, so taps go backwards
            last = whole[0] + (kernel_size - 1 - whole[0]) // period * period
            yield Phase(first, count, range(last, whole[0] - 1, -period), (first + left - last * dilation) // stride)
        else:
            yield Phase(first, count, range(0), 0)
