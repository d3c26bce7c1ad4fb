"""What a convolution computes, from shapes alone: every check is done once its plan exists.

A plan has one :class:`Axis` per spatial axis. Along an axis, outputs that read the same taps at the same distances
form a :class:`Phase`, which is a plain dilated convolution: a convolution has one phase, and a transposed convolution
with stride s has s of them, whose outputs take turns.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from dconv import shapes
from dconv._axes import as_tuple


class Phase(NamedTuple):
    """Some outputs of an axis: the first, how many, and the taps that each of them reads."""

    first: int
    n_outputs: int
    taps: range  # positions in the kernel, in the order of the samples that they read
    low: int  # the sample that the first output reads with the first tap; negative before the border


class Axis(NamedTuple):
    """One spatial axis of a convolution; its phases cover its outputs, each once."""

    size: int  # samples of x
    out_size: int
    in_step: int  # samples between what neighbouring outputs of a phase read
    out_step: int  # outputs from one of a phase to the next
    spacing: int  # samples between neighbouring taps of a phase
    phases: tuple[Phase, ...]

    @property
    def apart(self) -> int:
        """Return how far apart two outputs of a phase are that read one sample by neighbouring taps; 0: none do."""
        return 0 if self.spacing % self.in_step else self.spacing // self.in_step

    def span(self, phase: Phase) -> int:
        """Return the samples from the first to the last that an output reads."""
        return (len(phase.taps) - 1) * self.spacing + 1 if phase.taps else 0

    def inside(self, phase: Phase) -> tuple[int, int]:
        """Return the first output of `phase` that reads only samples that exist, and the one after the last."""
        if not phase.taps:
            return 0, phase.n_outputs
        first = min(-(min(phase.low, 0) // self.in_step), phase.n_outputs)
        last = (self.size - self.span(phase) - phase.low) // self.in_step
        return first, max(min(last + 1, phase.n_outputs), first)

    def beyond(self) -> tuple[int, int]:
        """Return how many samples before the first, and after the last, outputs read."""
        reads = [
            (phase.low, phase.low + (phase.n_outputs - 1) * self.in_step + self.span(phase))
            for phase in self.phases
            if phase.taps and phase.n_outputs
        ]
        low = min((first for first, _ in reads), default=0)
        stop = max((last for _, last in reads), default=0)
        return max(0, -low), max(0, stop - self.size)


class ConvPlan(NamedTuple):
    """A convolution that has passed all checks. There are three axes: the first of fewer have size 1."""

    out_shape: tuple[int, ...]
    axes: tuple[Axis, Axis, Axis]
    groups: int
    padding_mode: str


NO_AXIS = Axis(1, 1, 1, 1, 1, (Phase(0, 1, range(1), 0),))


def three_axes(axes: Sequence[Axis]) -> tuple[Axis, Axis, Axis]:
    """Return `axes` with trivial ones before them, so that there are three."""
    return (*[NO_AXIS] * (3 - len(axes)), *axes)  # type: ignore[return-value]


def check_weight(weight_shape: tuple[int, ...], groups: int) -> None:
    """Check what the weights of a convolution and of a transposed convolution have in common."""
    if len(weight_shape) - 2 not in (1, 2, 3):
        raise ValueError(
            "weight must have shape (out_channels, *kernel, in_channels // groups) with 1 to 3 kernel axes, "
            f"got {weight_shape}"
        )
    if 0 in weight_shape:
        raise ValueError(f"weight has shape {weight_shape}: no axis may be empty")
    if weight_shape[0] % groups:
        raise ValueError(f"groups={groups} must divide the {weight_shape[0]} filters of weight (its first axis)")


def check_image(name: str, shape: tuple[int, ...], weight_shape: tuple[int, ...], channels: str) -> None:
    """Check the rank and the sizes of the batch of images that goes with a weight."""
    ndim = len(weight_shape) - 2
    if len(shape) != ndim + 2:
        raise ValueError(
            f"{name} must have shape (batch, *spatial, {channels}) with {ndim} spatial axes, as weight {weight_shape} "
            f"has, got {shape}; add what is missing, as in {name}[None, ..., None]"
        )
    if 0 in shape[1:]:
        raise ValueError(f"{name} has shape {shape}: only the batch axis may be empty")


@functools.lru_cache(maxsize=256)
def conv_plan(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
) -> ConvPlan:
    """Check a convolution and return its plan; arguments as in :func:`dconv.conv`, hashable, of a mode that exists."""
    (groups,) = as_tuple(groups, 1, "groups", 1)
    check_weight(weight_shape, groups)
    check_image("x", x_shape, weight_shape, "channels")
    if x_shape[-1] != weight_shape[-1] * groups:
        raise ValueError(
            f"weight takes {weight_shape[-1]} channel(s) per group and groups={groups}, so x must have "
            f"{weight_shape[-1] * groups} channels on its last axis, but it has {x_shape[-1]}"
        )
    size, kernel_size = x_shape[1:-1], weight_shape[1:-1]
    strides, dilations = as_tuple(stride, len(size), "stride", 1), as_tuple(dilation, len(size), "dilation", 1)
    out_size = shapes.conv_shape(size, kernel_size, stride=strides, padding=padding, dilation=dilations)
    pads = shapes.normalize_padding(padding, kernel_size, dilations, strides, size)
    axes = [
        Axis(n, out, step, 1, spacing, (Phase(0, out, range(k), -left),))
        for n, out, k, step, spacing, (left, _) in zip(
            size, out_size, kernel_size, strides, dilations, pads, strict=True
        )
    ]
    return ConvPlan((x_shape[0], *out_size, weight_shape[0]), three_axes(axes), groups, padding_mode)
