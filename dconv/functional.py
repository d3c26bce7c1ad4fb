"""Convolution on arrays: validate, plan, allocate, run the kernel. Sizes come from :mod:`dconv.shapes`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dconv import _memory
from dconv._axes import Ints, as_int, items_of
from dconv._blocks import check_padding_mode
from dconv._conv_plan import conv_plan
from dconv._conv_run import run_plan
from dconv._threads import effective_n_threads
from dconv._validation import as_real


def _hashable(value: Any, name: str) -> Any:
    """Return ints, and nested sequences of them as tuples, so that plans can be cached by their arguments.

    Only ints: 1.0 and True equal 1, so a cache would take them for it once it has seen 1. Words stay as they are.
    """
    items = items_of(value)
    if items is not None:
        return tuple(_hashable(item, name) for item in items)
    return value if isinstance(value, str) else as_int(value, name)


def _allocate(shape: tuple[int, ...], dtype: np.dtype, out: Any, inputs: list) -> np.ndarray:
    """Return `out` if it can hold the result and overlaps no input, or a new array where it is None."""
    if out is None:
        return _memory.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out must have shape {shape} and dtype {dtype}, got {out.shape} and {out.dtype}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise ValueError("out must be C-contiguous, aligned and writeable; pass numpy.empty(shape, dtype)")
    if any(np.may_share_memory(out, array) for array in inputs if array is not None):
        raise ValueError("out must not overlap x, weight or bias in memory, because they are read while it is written")
    return out


def conv(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> np.ndarray:
    """Return the cross-correlation of `x` with a dilated `weight`, over 1, 2 or 3 spatial axes.

    Parameters
    ----------
    x : array_like of shape (batch, *spatial, in_channels)
        Real. float64 is computed in float64; every other real dtype becomes float32, without rescaling. Any memory
        layout will do: Fortran order, negative strides, read-only memory maps. Where the channels of a pixel lie
        beside each other the image is read in place; otherwise loops over vectors of channels take a copy.
    weight : array_like of shape (out_channels, *kernel, in_channels // groups)
        The filters; the number of kernel axes, 1 to 3, says how many spatial axes there are. Converted to the dtype
        that `x` is computed in. As in every deep-learning library the kernel is not flipped.
    bias : array_like of shape (out_channels,), optional
        Added to every pixel of a filter's output.
    stride : int or tuple of int, one per spatial axis, default=1
        Distance in pixels between neighbouring outputs.
    padding : int, tuple, "same" or "valid", default=0
        Pixels by which `x` is extended: an int for all sides, or per spatial axis an int or a pair (before, after).
        "same" gives ``ceil(size / stride)`` outputs, the odd pixel being added after; "valid" adds nothing.
    dilation : int or tuple of int, one per spatial axis, default=1
        Distance in pixels between neighbouring taps of the kernel; 1 is a dense kernel.
    groups : int, default=1
        Channels and filters are split into so many groups, and each group of filters sees its group of channels.
        ``groups=in_channels`` is depthwise convolution, which has a fast path of its own.
    padding_mode : {"zeros", "reflect", "symmetric", "edge", "circular"}, default="zeros"
        What lies beyond the border. These are NumPy's words; other libraries have others:

        ============ =============== ============= ==============
        here         beyond a b c d  PyTorch       scipy.ndimage
        ============ =============== ============= ==============
        "zeros"      0 0 | a b c d   "zeros"       "constant"
        "reflect"    c b | a b c d   "reflect"     "mirror"
        "symmetric"  b a | a b c d   (none)        "reflect"
        "edge"       a a | a b c d   "replicate"   "nearest"
        "circular"   c d | a b c d   "circular"    "wrap"
        ============ =============== ============= ==============

        A padding larger than the image goes on by the same rule.
    out : ndarray of shape (batch, *output, out_channels), optional
        Where to write the result: C-contiguous, of the dtype computed in, overlapping no input.
    n_threads : int, optional
        Threads to use at most; small convolutions use fewer. By default the physical cores allowed to the process,
        or ``OMP_NUM_THREADS`` where it is set. A forked child computes on one thread.

    Returns
    -------
    out : ndarray of shape (batch, *output, out_channels)
        float64 if `x` is, else float32. Sizes as given by :func:`dconv.shapes.conv_shape`.

    Raises
    ------
    TypeError
        If an array is not real, or an argument is no integer.
    ValueError
        If ranks, channels, groups or sizes do not fit together; if the dilated kernel spans more than the padded
        input; if `out` cannot hold the result.

    See Also
    --------
    dconv.shapes.conv_shape : The sizes of the output.
    dconv.DilatedConv : The same as a scikit-learn transformer.

    Notes
    -----
    With ``x`` extended by the padding, output pixel ``o`` of filter ``f`` in group ``g`` is::

        out[n, o, f] = bias[f] + sum over k, c of weight[f, k, c] * x[n, o * stride + k * dilation, g * C + c]

    which takes ``out.size * weight[0].size`` multiply-adds. NaN and infinity spread as in this formula. Each output
    adds its taps in one fixed order: the result does not depend, by a bit, on the number of threads or on how an image
    is cut into tiles. It does depend on the CPU level (:func:`dconv.show_config`), by rounding.

    Up to 256 MiB of the memory of large results is kept, once they are deleted, for the results of later calls.

    References
    ----------
    .. [1] F. Yu, V. Koltun, "Multi-scale context aggregation by dilated convolutions", ICLR 2016, arXiv:1511.07122.
    .. [2] L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. L. Yuille, "Semantic image segmentation with deep
       convolutional nets and fully connected CRFs", ICLR 2015, arXiv:1412.7062.

    Examples
    --------
    A 3 x 3 mean filter whose taps are 2 pixels apart sees 5 x 5 pixels:

    >>> import numpy as np
    >>> import dconv
    >>> image = np.arange(49.0).reshape(7, 7)
    >>> weight = np.full((1, 3, 3, 1), 1 / 9)
    >>> dconv.conv(image[None, ..., None], weight, dilation=2).shape
    (1, 3, 3, 1)
    >>> same = dconv.conv(image[None, ..., None], weight, dilation=2, padding="same", padding_mode="reflect")
    >>> same.shape, round(float(same[0, 3, 3, 0]), 6)
    ((1, 7, 7, 1), 24.0)
    """
    x, weight, bias = as_real(x=x, weight=weight, bias=bias)
    check_padding_mode(padding_mode)
    plan = conv_plan(
        x.shape,
        weight.shape,
        _hashable(stride, "stride"),
        _hashable(padding, "padding"),
        _hashable(dilation, "dilation"),
        as_int(groups, "groups"),
        padding_mode,
    )
    if bias is not None and bias.shape != plan.out_shape[-1:]:
        raise ValueError(
            f"bias must have shape {plan.out_shape[-1:]}, one value per filter of weight, got {bias.shape}"
        )
    threads = effective_n_threads(n_threads)
    out = _allocate(plan.out_shape, x.dtype, out, [x, weight, bias])
    if x.size:
        run_plan(plan, x, weight, bias, out, threads)
    return out
