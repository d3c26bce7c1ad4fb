"""What a stack of layers sees: receptive field, jump and halo. Public as part of :mod:`dconv.shapes`."""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from dconv._axes import Ints, as_int, as_tuple, check_bool, common_rank, items_of, span

Pair: TypeAlias = tuple[int, int]
Margin: TypeAlias = tuple[Pair, ...]  # samples left and right, per axis


class Layer(NamedTuple):
    """The sizes of one convolution or pooling layer.

    Parameters
    ----------
    kernel_size : int or sequence of int
        Taps, for all axes or per axis.
    stride : int or sequence of int, default=1
        Distance in samples between neighbouring outputs.
    dilation : int or sequence of int, default=1
        Distance in samples between neighbouring taps.

    Examples
    --------
    >>> Layer(3, dilation=2)
    Layer(kernel_size=3, stride=1, dilation=2)
    """

    kernel_size: Ints
    stride: Ints = 1
    dilation: Ints = 1


def receptive_field(layers: Iterable[Layer | tuple[Ints, ...]]) -> int | tuple[int, ...]:
    """Return the input samples, first to last, that one output of a stack of layers sees.

    ``r = 1 + sum_l (kernel_size_l - 1) * dilation_l * prod_{i < l} stride_i``

    Parameters
    ----------
    layers : iterable of Layer or tuple
        Input to output; a tuple is read as ``(kernel_size, stride=1, dilation=1)``.

    Returns
    -------
    size : int or tuple of int
        One per axis if any size in `layers` is a sequence.

    Raises
    ------
    TypeError, ValueError
        If `layers` holds anything else, or sizes that are no integers, below 1, or of different
        numbers of axes.

    References
    ----------
    A. Araujo, W. Norris and J. Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019.
    doi:10.23915/distill.00021

    Examples
    --------
    >>> receptive_field([Layer(3, dilation=1), Layer(3, dilation=2), Layer(3, dilation=4)])
    15
    """
    pairs, _, per_axis = _trace(layers)
    sizes = tuple(left + 1 + right for left, right in pairs)
    return sizes if per_axis else sizes[0]


def jump(layers: Iterable[Layer | tuple[Ints, ...]]) -> int | tuple[int, ...]:
    """Return the distance in input samples between neighbouring outputs of a stack of layers.

    ``jump = prod_l stride_l``

    Parameters
    ----------
    layers : iterable of Layer or tuple
        As for :func:`receptive_field`.

    Returns
    -------
    distance : int or tuple of int
        One per axis if any size in `layers` is a sequence.

    Raises
    ------
    TypeError, ValueError
        As :func:`receptive_field` does.

    Examples
    --------
    >>> jump([Layer(3, stride=2), Layer((3, 5), stride=(1, 2))])
    (2, 4)
    """
    _, jumps, per_axis = _trace(layers)
    return jumps if per_axis else jumps[0]


def halo(layers: Iterable[Layer | tuple[Ints, ...]]) -> Pair | Margin:
    """Return the extra input samples, left and right, that a tile needs for a stack of centred layers.

    ``left = sum_l (span_l - 1) // 2 * prod_{i < l} stride_i``, and right the same with the rest of ``span_l - 1``:
    an even kernel sees one step further to the right, as with "same" padding. Hence
    ``receptive_field = left + 1 + right``.

    Parameters
    ----------
    layers : iterable of Layer or tuple
        As for :func:`receptive_field`.

    Returns
    -------
    pairs : (int, int) or tuple of (int, int)
        One pair per axis if any size in `layers` is a sequence.

    Raises
    ------
    TypeError, ValueError
        As :func:`receptive_field` does.

    Examples
    --------
    >>> halo([Layer(3, dilation=4), Layer(2)])
    (4, 5)
    >>> halo([Layer((3, 5))])
    ((1, 1), (2, 2))
    """
    pairs, _, per_axis = _trace(layers)
    return pairs if per_axis else pairs[0]


def axis_halos(layers: Iterable[Layer | tuple[Ints, ...]]) -> Margin:
    """Return :func:`halo` as one pair per axis, even where all sizes are single ints."""
    return _trace(layers)[0]


def cascade_halo(n_levels: int, reach: int, smoothing_radius: int = 2, *, last_level: bool = False) -> int:
    """Return the extra input samples on each side that an a trous bank of `n_levels` levels needs.

    Step `i` of the cascade smooths with dilation ``2**i``, so level `s` has seen ``smoothing_radius * (2**s - 1)``
    samples before a feature of dilation ``2**s`` looks at it::

        halo = max_{s < n_levels} smoothing_radius * (2**s - 1) + reach * 2**s

    Parameters
    ----------
    n_levels : int
        Number of levels, at least 1.
    reach : int
        Samples from the centre to the outermost tap of any feature, at dilation 1.
    smoothing_radius : int, default=2
        Samples from the centre to the outermost tap of the smoothing step, at dilation 1; 2 for the B3 spline.
    last_level : bool, default=False
        Whether level `n_levels`, past the last with features, is used too: at least
        ``smoothing_radius * (2**n_levels - 1)``.

    Returns
    -------
    halo : int

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is below its minimum.

    Examples
    --------
    >>> cascade_halo(5, reach=3)
    78
    """
    n_levels, reach = as_int(n_levels, "n_levels", 1), as_int(reach, "reach", 0)
    radius = as_int(smoothing_radius, "smoothing_radius", 0)
    check_bool(last_level, "last_level")
    # The sum grows with the level, so the last level decides.
    deepest = radius * (2 ** (n_levels - 1) - 1) + reach * 2 ** (n_levels - 1)
    return max(deepest, radius * (2**n_levels - 1)) if last_level else deepest


def _trace(layers: Iterable) -> tuple[Margin, tuple[int, ...], bool]:
    """Return the samples seen left and right of the centre and the jump, per axis, and whether sizes were per axis."""
    stack = []
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers must be a sequence of Layer, but got {layers!r}; one layer is [{layers!r}]")
    for index, layer in enumerate(layers):
        try:
            stack.append(Layer(*layer))
        except TypeError:
            raise TypeError(
                f"layers[{index}] must be a Layer or a tuple (kernel_size, stride, dilation), but got {layer!r}"
            ) from None
    fields = [field for layer in stack for field in layer]
    ndim = common_rank(*fields)
    lefts, rights, jumps = [0] * ndim, [0] * ndim, [1] * ndim
    for index, layer in enumerate(stack):
        kernels, strides, dilations = (
            as_tuple(field, ndim, f"layers[{index}].{name}", 1)
            for name, field in zip(Layer._fields, layer, strict=True)
        )
        for axis, (width, stride) in enumerate(zip(span(kernels, dilations), strides, strict=True)):
            left = (width - 1) // 2
            lefts[axis] += left * jumps[axis]
            rights[axis] += (width - 1 - left) * jumps[axis]
            jumps[axis] *= stride
    per_axis = any(items_of(field) is not None for field in fields)
    return tuple(zip(lefts, rights, strict=True)), tuple(jumps), per_axis
