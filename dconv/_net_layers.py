"""The layers of a trained net as plain data. Public as part of :mod:`dconv.layers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from dconv import shapes
from dconv._axes import Ints, as_int, as_tuple, common_rank, items_of, span
from dconv._conv_plan import check_weight
from dconv._receptive import Margin
from dconv._validation import as_array, real_dtype


class NetLayer:
    """Base of the layers: they never change, so that copies of an estimator share their weights."""

    name: str | None
    kind = "layer"  # what a layer without a name is called, with its place

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict) -> Self:
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Convolution(NetLayer):
    """A convolution of a trained net, depthwise or in groups too, with its bias.

    Parameters
    ----------
    weight : array_like of shape (out_channels, *kernel, in_channels // groups)
        As in :func:`dconv.conv`; kept as float32.
    bias : array_like of shape (out_channels,) or None, default=None
        Added to every pixel of a filter's output.
    stride : int or sequence of int, one per spatial axis, default=1
        Distance between neighbouring outputs, in samples of the layer's input.
    padding : int, sequence or "same", default=0
        Zeros around the layer's input: an int for all sides, or per spatial axis an int or a pair (before, after).
        "same" keeps the size, for layers without stride.
    dilation : int or sequence of int, one per spatial axis, default=1
        Distance between neighbouring taps.
    groups : int, default=1
        Groups of channels; as many as channels is a depthwise convolution.
    name : str or None, default=None
        What the layer is called in `taps` and in names of features.

    Raises
    ------
    TypeError, ValueError
        If the weight is not real and finite or has a wrong shape, an argument does not fit it, or there is as much
        padding as the kernel spans.

    See Also
    --------
    dconv.AtrousBackbone : Runs layers densely.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import layers
    >>> layers.Convolution(np.ones((64, 3, 3, 3)), padding="same", name="conv1_1")
    Convolution('conv1_1', 3 -> 64 channels, kernel 3x3)
    """

    weight: Any
    bias: Any = None
    stride: Ints = 1
    padding: Any = 0
    dilation: Ints = 1
    groups: int = 1
    name: str | None = None
    kind = "conv"

    def __post_init__(self) -> None:
        groups = as_int(self.groups, "groups", 1)
        weight = as_weights(self.weight, "weight")
        check_weight(weight.shape, groups)
        ndim = weight.ndim - 2
        bias = None if self.bias is None else as_weights(self.bias, "bias")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"bias must have shape {weight.shape[:1]}, one value per filter, got {bias.shape}")
        stride = as_tuple(self.stride, ndim, "stride")
        dilation = as_tuple(self.dilation, ndim, "dilation")
        padding = _as_pads(self.padding, weight.shape[1:-1], stride, dilation)
        _set(self, weight=weight, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
        _check_name(self.name)

    def __repr__(self) -> str:
        return _described(self, f"{self.in_channels} -> {self.out_channels} channels", self.weight.shape[1:-1])

    @property
    def in_channels(self) -> int:
        """Channels of its input."""
        return self.weight.shape[-1] * self.groups

    @property
    def out_channels(self) -> int:
        """Channels of its output."""
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False, repr=False)
class ReLU(NetLayer):
    """What is negative becomes 0.

    Parameters
    ----------
    name : str or None, default=None
        What the layer is called in `taps` and in names of features.

    Examples
    --------
    >>> from dconv import layers
    >>> layers.ReLU("relu1_1")
    ReLU('relu1_1')
    """

    name: str | None = None
    kind = "relu"

    def __post_init__(self) -> None:
        _check_name(self.name)

    def __repr__(self) -> str:
        return f"ReLU({'' if self.name is None else repr(self.name)})"


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(NetLayer):
    """The largest value of every window, channel by channel.

    Parameters
    ----------
    kernel_size : int or sequence of int, one per spatial axis
        Samples of a window.
    stride : int, sequence of int or None, default=None
        Distance between neighbouring windows; None is `kernel_size`.
    padding : int or sequence, default=0
        As for :class:`Convolution`, but of samples that are smaller than all others. With ``(0, stride - 1)`` on every
        axis the last window may reach beyond the input ("ceil mode", Keras' "same" for windows as wide as the stride).
    dilation : int or sequence of int, default=1
        Distance between neighbouring samples of a window.
    name : str or None, default=None
        What the layer is called in `taps` and in names of features.

    Raises
    ------
    TypeError, ValueError
        If sizes are no positive ints, or there is as much padding as a window spans.

    Examples
    --------
    >>> from dconv import layers
    >>> layers.MaxPool(2, name="pool1")
    MaxPool('pool1', kernel 2, stride 2)
    """

    kernel_size: Ints
    stride: Any = None
    padding: Any = 0
    dilation: Ints = 1
    name: str | None = None
    kind = "max_pool"

    def __post_init__(self) -> None:
        _check_pool(self, self.dilation)

    def __repr__(self) -> str:
        return _described(self, "", as_tuple(self.kernel_size, self.rank, "kernel_size"))

    @property
    def rank(self) -> int | None:
        """Spatial axes, if any size tells their number."""
        return _pool_rank(self, self.dilation)


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool(NetLayer):
    """The mean of every window, channel by channel.

    Parameters
    ----------
    kernel_size : int or sequence of int, one per spatial axis
        Samples of a window.
    stride : int, sequence of int or None, default=None
        Distance between neighbouring windows; None is `kernel_size`.
    padding : int or sequence, default=0
        As for :class:`Convolution`.
    count_padding : bool, default=True
        Whether the zeros of the padding count in the mean.
    name : str or None, default=None
        What the layer is called in `taps` and in names of features.

    Raises
    ------
    TypeError, ValueError
        If sizes are no positive ints, or there is as much padding as a window spans.

    Examples
    --------
    >>> from dconv import layers
    >>> layers.AveragePool(3, stride=2, padding=1)
    AveragePool(kernel 3, stride 2)
    """

    kernel_size: Ints
    stride: Any = None
    padding: Any = 0
    count_padding: bool = True
    name: str | None = None
    kind = "average_pool"

    def __post_init__(self) -> None:
        if not isinstance(self.count_padding, bool):
            raise TypeError(f"count_padding must be a bool, got {self.count_padding!r}")
        _check_pool(self, 1)

    def __repr__(self) -> str:
        return _described(self, "", as_tuple(self.kernel_size, self.rank, "kernel_size"))

    @property
    def rank(self) -> int | None:
        """Spatial axes, if any size tells their number."""
        return _pool_rank(self, 1)


def _set(layer: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(layer, name, value)


def as_weights(values: Any, name: str) -> np.ndarray:
    """Return a read-only float32 copy of finite weights."""
    array = as_array(values, name)
    real_dtype(array, name)
    with np.errstate(over="ignore"):
        array = np.array(array, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are NaN, infinite or beyond float32; give finite weights")
    array.flags.writeable = False
    return array


def _as_pads(padding: Any, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Margin:
    """Return the padding before and after on each axis, which must be less than the kernel spans."""
    if isinstance(padding, str) and padding == "same" and set(stride) != {1}:
        raise ValueError(
            f'padding="same" with stride={stride} depends on the size of the image; give the padding in samples, in '
            "Keras' case ((0, 1), ...) for even sizes and a 3 x 3 kernel with stride 2"
        )
    spans = span(kernel, dilation)
    pads = shapes.normalize_padding(padding, kernel, dilation, stride, spans)
    for axis, (pair, size) in enumerate(zip(pads, spans, strict=True)):
        if max(pair) >= size:
            raise ValueError(f"padding={pair} on axis {axis} must be less than the {size} samples that a window spans")
    return tuple((int(before), int(after)) for before, after in pads)


def _pool_rank(layer: Any, dilation: Ints) -> int | None:
    stride = layer.kernel_size if layer.stride is None else layer.stride
    padding = () if isinstance(layer.padding, str) else items_of(layer.padding)
    sizes = [each for each in (layer.kernel_size, stride, dilation) if items_of(each) is not None]
    if sizes:
        return common_rank(*sizes)
    return len(padding) if padding else None


def _check_pool(layer: Any, dilation: Ints) -> None:
    """Check a pooling layer, and make lists of sizes tuples."""
    stride = layer.kernel_size if layer.stride is None else layer.stride
    rank = _pool_rank(layer, dilation)
    pool_sizes(layer, rank or 1)
    frozen = {"kernel_size": layer.kernel_size, "stride": stride, "padding": layer.padding}
    frozen |= {"dilation": dilation} if hasattr(layer, "dilation") else {}
    _set(layer, **{name: _frozen(value) for name, value in frozen.items()})
    _check_name(layer.name)


def pool_sizes(layer: Any, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Margin]:
    """Return kernel size, stride, dilation and padding of a pooling layer on each of `ndim` axes."""
    stride = layer.kernel_size if layer.stride is None else layer.stride
    kernel = as_tuple(layer.kernel_size, ndim, "kernel_size")
    strides, dilations = as_tuple(stride, ndim, "stride"), as_tuple(getattr(layer, "dilation", 1), ndim, "dilation")
    return kernel, strides, dilations, _as_pads(layer.padding, kernel, strides, dilations)


def _frozen(value: Any) -> Any:
    items = None if isinstance(value, str) else items_of(value)
    return value if items is None else tuple(_frozen(item) for item in items)


def _check_name(name: Any) -> None:
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"name must be None or a str that is not empty, got {name!r}")


def _described(layer: Any, channels: str, kernel: tuple[int, ...]) -> str:
    def short(sizes: Any) -> str:
        return "x".join(map(str, as_tuple(sizes, len(kernel), "size")))

    parts = [repr(layer.name)] if layer.name is not None else []
    parts += [channels] if channels else []
    parts.append(f"kernel {short(kernel)}")
    parts += [f"stride {short(layer.stride)}"] if set(as_tuple(layer.stride, len(kernel), "stride")) != {1} else []
    dilation = getattr(layer, "dilation", 1)
    parts += [f"dilation {short(dilation)}"] if set(as_tuple(dilation, len(kernel), "dilation")) != {1} else []
    parts += [f"{layer.groups} groups"] if getattr(layer, "groups", 1) > 1 else []
    return f"{type(layer).__name__}({', '.join(parts)})"
