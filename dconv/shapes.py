"""Sizes of dilated convolutions: pure integer functions for one to three spatial axes.

Whatever convolves asks this module and derives no size itself; only the margins of the feature bank, which follow from
its table of groups, are traced there (:func:`cascade_halo` is their formula). With `n` samples on an axis::

    span       = dilation * (kernel_size - 1) + 1
    out        = (n + left + right - span) // stride + 1
    transposed = (n - 1) * stride - left - right + span + output_padding

`kernel_size`, `stride`, `dilation` and `output_padding` are one int for all axes or a sequence of one int per axis;
`padding` is an int, a sequence of one int or one `(left, right)` pair per axis, "same" or "valid". The number of axes
is read from `input_size` or `output_size`, where an int means one axis. All sizes are in samples (pixels).
"""

import math
from collections.abc import Sequence
from typing import SupportsIndex, TypeAlias

from dconv._axes import Ints, as_int, as_tuple, check_bool, items_of, span
from dconv._receptive import Layer, Pair, cascade_halo, halo, jump, receptive_field

Padding: TypeAlias = str | SupportsIndex | Sequence[SupportsIndex | Sequence[SupportsIndex]]

__all__ = [
    "Layer",
    "cascade_halo",
    "conv_input_sizes",
    "conv_shape",
    "conv_transpose_shape",
    "halo",
    "jump",
    "n_parameters",
    "normalize_padding",
    "output_padding_for",
    "receptive_field",
    "span",
]


def normalize_padding(
    padding: Padding, kernel_size: Ints, dilation: Ints, stride: Ints, input_size: Ints
) -> tuple[Pair, ...]:
    """Return `padding` as one `(left, right)` pair of samples per axis.

    Parameters
    ----------
    padding : int, sequence of int, sequence of (left, right), "same" or "valid"
        An int pads both sides. "valid" pads nothing. "same" gives an output of ``ceil(n / stride)`` samples with
        ``total = max((ceil(n / stride) - 1) * stride + span - n, 0)``, ``left = total // 2`` and the rest on the
        right: the rule of TensorFlow and Keras, and at stride 1 that of PyTorch.
    kernel_size, dilation, stride : int or sequence of int
        At least 1; the pads of "same" alone depend on them.
    input_size : int or sequence of int
        Size of each spatial axis; sets the number of axes.

    Returns
    -------
    pairs : tuple of (int, int)

    Raises
    ------
    TypeError, ValueError
        If `padding` has another form or is negative, or a size is no integer or below its minimum.

    Examples
    --------
    >>> normalize_padding("same", kernel_size=4, dilation=1, stride=1, input_size=(10, 10))
    ((1, 2), (1, 2))
    >>> normalize_padding((1, (0, 2)), kernel_size=3, dilation=1, stride=1, input_size=(10, 10))
    ((1, 1), (0, 2))
    """
    sizes = as_tuple(input_size, None, "input_size", 1)
    ndim = len(sizes)
    strides, spans = as_tuple(stride, ndim, "stride", 1), _spans(kernel_size, dilation, ndim)
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * ndim
        if padding != "same":
            raise ValueError(f"padding must be 'same', 'valid' or given in samples, but got {padding!r}")
        totals = [max((-(-n // s) - 1) * s + width - n, 0) for n, s, width in zip(sizes, strides, spans, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    items = items_of(padding)
    if items is None:
        items = (padding,) * ndim
    elif len(items) != ndim:
        raise ValueError(
            f"padding must have one int or one (left, right) pair for each of the {ndim} spatial axes, "
            f"but got {padding!r} with {len(items)}; write one pair for one axis as ((left, right),)"
        )
    return tuple(_pad_pair(item, f"padding on axis {axis}") for axis, item in enumerate(items))


def conv_shape(
    input_size: Ints, kernel_size: Ints, *, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1
) -> tuple[int, ...]:
    """Return the output sizes of a dilated convolution.

    ``out = (n + left + right - span) // stride + 1``, with the pads of :func:`normalize_padding`.

    Parameters
    ----------
    input_size : int or sequence of int
        Size of each spatial axis (1 to 3; no batch or channels), at least 1; an int means one axis.
    kernel_size : int or sequence of int
        At least 1.
    stride, dilation : int or sequence of int, default=1
        At least 1.
    padding : int, sequence of int, sequence of (left, right), "same" or "valid", default=0
        As for :func:`normalize_padding`.

    Returns
    -------
    sizes : tuple of int
        One per spatial axis.

    Raises
    ------
    TypeError, ValueError
        If the kernel spans more than the padded input, or a size is no integer or below its minimum.

    See Also
    --------
    conv_input_sizes : the inverse question.

    Examples
    --------
    >>> conv_shape((512, 512), 3, dilation=4)
    (504, 504)
    >>> conv_shape((512, 511), 3, stride=2, dilation=4, padding="same")
    (256, 256)
    """
    sizes = as_tuple(input_size, None, "input_size", 1)
    ndim = len(sizes)
    spans, strides = _spans(kernel_size, dilation, ndim), as_tuple(stride, ndim, "stride", 1)
    pads = normalize_padding(padding, kernel_size, dilation, stride, sizes)
    padded = [n + left + right for n, (left, right) in zip(sizes, pads, strict=True)]
    for axis, (n, total, width) in enumerate(zip(sizes, padded, spans, strict=True)):
        if width > total:
            d, k = as_tuple(dilation, ndim, "dilation")[axis], as_tuple(kernel_size, ndim, "kernel_size")[axis]
            raise ValueError(
                f"dilation={d} with kernel_size={k} spans {width} samples, but axis {axis} has {n}"
                f"{f' ({total} with padding)' if total > n else ''}; "
                f"lower {'dilation' if d > 1 else 'kernel_size'} or use padding='same'"
            )
    return tuple((total - width) // s + 1 for total, width, s in zip(padded, spans, strides, strict=True))


def conv_input_sizes(
    output_size: Ints, kernel_size: Ints, *, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1
) -> tuple[range, ...]:
    """Return, per axis, the input sizes for which :func:`conv_shape` is `output_size`.

    ``n = (out - 1) * stride + span - left - right + r`` with ``0 <= r < stride`` and ``n >= 1``; for "same",
    ``(out - 1) * stride < n <= out * stride``. A range is empty where no input gives that output.

    Parameters
    ----------
    output_size : int or sequence of int
        Size of each spatial axis, at least 1; an int means one axis.
    kernel_size : int or sequence of int
        As for :func:`conv_shape`.
    stride, dilation : int or sequence of int, default=1
        As for :func:`conv_shape`.
    padding : int, sequence of int, sequence of (left, right), "same" or "valid", default=0
        As for :func:`conv_shape`.

    Returns
    -------
    sizes : tuple of range

    Raises
    ------
    TypeError, ValueError
        As :func:`normalize_padding`.

    Examples
    --------
    >>> conv_input_sizes((4, 8), 3, stride=(1, 2))
    (range(6, 7), range(17, 19))
    """
    outputs = as_tuple(output_size, None, "output_size", 1)
    ndim = len(outputs)
    strides, spans = as_tuple(stride, ndim, "stride", 1), _spans(kernel_size, dilation, ndim)
    if isinstance(padding, str) and padding == "same":
        return tuple(range((out - 1) * s + 1, out * s + 1) for out, s in zip(outputs, strides, strict=True))
    pads = normalize_padding(padding, kernel_size, dilation, stride, outputs)
    smallest = [
        (out - 1) * s + width - left - right
        for out, s, width, (left, right) in zip(outputs, strides, spans, pads, strict=True)
    ]
    return tuple(range(max(n, 1), max(n + s, 1)) for n, s in zip(smallest, strides, strict=True))


def conv_transpose_shape(
    input_size: Ints,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> tuple[int, ...]:
    """Return the output sizes of a transposed dilated convolution.

    ``out = (n - 1) * stride - left - right + span + output_padding``; for "same", ``out = n * stride``.

    Parameters
    ----------
    input_size : int or sequence of int
        Size of each spatial axis (1 to 3; no batch or channels), at least 1; an int means one axis.
    kernel_size : int or sequence of int
        That of the convolution that is transposed.
    stride, dilation : int or sequence of int, default=1
        Likewise.
    padding : int, sequence of int, sequence of (left, right), "same" or "valid", default=0
        Likewise. Its "same" pads are those of :func:`normalize_padding` for an input of ``n * stride``.
    output_padding : int or sequence of int, default=0
        Samples added on the right; less than ``max(stride, dilation)``, PyTorch's rule, and 0 for "same".

    Returns
    -------
    sizes : tuple of int

    Raises
    ------
    TypeError, ValueError
        If `output_padding` is too large, a size falls below 1, or is no integer or below its minimum.

    See Also
    --------
    output_padding_for : the `output_padding` that restores a given size.

    Examples
    --------
    >>> conv_transpose_shape((256, 256), 4, stride=2, padding=1)
    (512, 512)
    """
    ranges = _transposed_ranges(input_size, kernel_size, stride, padding, dilation)
    extras = as_tuple(output_padding, len(ranges), "output_padding", 0)
    for axis, (sizes, extra) in enumerate(zip(ranges, extras, strict=True)):
        if extra >= len(sizes):
            raise ValueError(
                f"output_padding must be less than max(stride, dilation), and 0 with padding='same': "
                f"on axis {axis} at most {len(sizes) - 1}, but got {extra}"
            )
        if sizes[extra] < 1:
            raise ValueError(_too_much_padding(padding, sizes[extra], axis))
    return tuple(sizes[extra] for sizes, extra in zip(ranges, extras, strict=True))


def output_padding_for(
    input_size: Ints,
    output_size: Ints,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
) -> tuple[int, ...]:
    """Return the `output_padding` with which a transposed convolution turns `input_size` into `output_size`.

    ``output_padding = output_size - ((n - 1) * stride - left - right + span)``

    Parameters
    ----------
    input_size, output_size : int or sequence of int
        Sizes before and after the transposed convolution; an int means one axis.
    kernel_size : int or sequence of int
        As for :func:`conv_transpose_shape`.
    stride, dilation : int or sequence of int, default=1
        As for :func:`conv_transpose_shape`.
    padding : int, sequence of int, sequence of (left, right), "same" or "valid", default=0
        As for :func:`conv_transpose_shape`.

    Returns
    -------
    output_padding : tuple of int

    Raises
    ------
    TypeError, ValueError
        If no `output_padding` gives `output_size` (the message says which sizes can be had).

    Examples
    --------
    >>> conv_shape(12, 3, stride=2)
    (5,)
    >>> output_padding_for(5, 12, 3, stride=2)
    (1,)
    """
    ranges = _transposed_ranges(input_size, kernel_size, stride, padding, dilation)
    outputs = as_tuple(output_size, len(ranges), "output_size", 1)
    for axis, (sizes, out) in enumerate(zip(ranges, outputs, strict=True)):
        if out not in sizes:
            if sizes[-1] < 1:
                raise ValueError(_too_much_padding(padding, sizes[-1], axis))
            raise ValueError(
                f"output_size must be from {max(sizes[0], 1)} to {sizes[-1]} on axis {axis} for a transposed "
                f"convolution of {input_size} samples with these arguments, but got {out}; choose such a size or "
                "change stride or padding"
            )
    return tuple(out - sizes.start for sizes, out in zip(ranges, outputs, strict=True))


def n_parameters(in_channels: int, out_channels: int, kernel_size: Ints, *, groups: int = 1, bias: bool = False) -> int:
    """Return the number of weights, and biases, of a convolution.

    ``out_channels * (in_channels // groups) * prod(kernel_size) + bias * out_channels``; dilation costs nothing.

    Parameters
    ----------
    in_channels, out_channels : int
        Both divisible by `groups`.
    kernel_size : int or sequence of int
        Taps per axis; an int means one axis.
    groups : int, default=1
        Blocks of channels that see only their own block.
    bias : bool, default=False
        Whether there is one bias per output channel.

    Returns
    -------
    n : int

    Raises
    ------
    TypeError, ValueError
        If a channel count does not divide into `groups`, or a size is no integer or below 1.

    Examples
    --------
    >>> n_parameters(3, 16, (3, 3), bias=True)
    448
    """
    groups = as_int(groups, "groups", 1)
    check_bool(bias, "bias")
    inputs, outputs = as_int(in_channels, "in_channels", 1), as_int(out_channels, "out_channels", 1)
    for name, count in (("in_channels", inputs), ("out_channels", outputs)):
        if count % groups:
            raise ValueError(f"{name} must be divisible by groups, but got {name}={count} and groups={groups}")
    weights = outputs * (inputs // groups) * math.prod(as_tuple(kernel_size, None, "kernel_size", 1))
    return weights + (outputs if bias else 0)


def _pad_pair(value: object, name: str) -> Pair:
    """Return the samples added left and right of an axis."""
    sides = items_of(value)
    sides = (value, value) if sides is None else sides
    rule = "an int or a (left, right) pair of ints, or padding as a whole 'same' or 'valid'"
    if len(sides) != 2:
        raise ValueError(f"{name} must be {rule}, but got {value!r} with {len(sides)} items")
    left, right = (as_int(side, name, rule=rule) for side in sides)
    if min(left, right) < 0:
        raise ValueError(f"{name} must be at least 0, but got {(left, right)}")
    return left, right


def _spans(kernel_size: Ints, dilation: Ints, ndim: int) -> tuple[int, ...]:
    return span(as_tuple(kernel_size, ndim, "kernel_size", 1), as_tuple(dilation, ndim, "dilation", 1))


def _transposed_ranges(
    input_size: Ints, kernel_size: Ints, stride: Ints, padding: Padding, dilation: Ints
) -> list[range]:
    """Return, per axis, the sizes that `output_padding` = 0, 1, ... gives; sizes below 1 are for callers to refuse."""
    sizes = as_tuple(input_size, None, "input_size", 1)
    ndim = len(sizes)
    strides, spans = as_tuple(stride, ndim, "stride", 1), _spans(kernel_size, dilation, ndim)
    pads = normalize_padding(padding, kernel_size, dilation, stride, sizes)
    if isinstance(padding, str) and padding == "same":
        return [range(n * s, n * s + 1) for n, s in zip(sizes, strides, strict=True)]
    smallest = [
        (n - 1) * s - left - right + width
        for n, s, width, (left, right) in zip(sizes, strides, spans, pads, strict=True)
    ]
    dilations = as_tuple(dilation, ndim, "dilation", 1)
    return [range(n, n + max(s, d)) for n, s, d in zip(smallest, strides, dilations, strict=True)]


def _too_much_padding(padding: Padding, n_left: int, axis: int) -> str:
    return f"padding={padding!r} leaves {n_left} samples on axis {axis} of the transposed convolution; lower padding"
