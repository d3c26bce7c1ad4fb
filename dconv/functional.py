"""Convolution on arrays, and its transpose: validate, plan, allocate, run. Sizes come from :mod:`dconv.shapes`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dconv import _memory
from dconv._axes import Ints, as_hashable, as_int
from dconv._blocks import check_padding_mode, fold_border
from dconv._conv_plan import conv_plan
from dconv._conv_run import run_plan
from dconv._threads import effective_n_threads
from dconv._transpose_plan import transpose_plan
from dconv._validation import as_real


def _check_bias(bias: np.ndarray | None, n_channels: int, of: str) -> None:
    if bias is not None and bias.shape != (n_channels,):
        raise ValueError(f"bias must have shape {(n_channels,)}, one value per {of}, got {bias.shape}")


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
        Where to write the result: C-contiguous, of the dtype computed in, overlapping no input. An earlier result does
        best: it begins a cache line, so that a large one can be written past the caches.
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
    (x, weight), bias = as_real(x=x, weight=weight, bias=bias)
    check_padding_mode(padding_mode)
    plan = conv_plan(
        x.shape,
        weight.shape,
        as_hashable(stride, "stride"),
        as_hashable(padding, "padding"),
        as_hashable(dilation, "dilation"),
        as_int(groups, "groups"),
        padding_mode,
    )
    _check_bias(bias, plan.out_shape[-1], "filter of weight")
    threads = effective_n_threads(n_threads)
    out = _memory.result(plan.out_shape, x.dtype, out, x=x, weight=weight, bias=bias)
    if x.size:
        run_plan(plan, x, weight, bias, out, threads)
    return out


def conv_transpose(
    y: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: Ints = 1,
    padding: Any = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    output_size: Ints | None = None,
    padding_mode: str = "zeros",
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> np.ndarray:
    """Return the transposed convolution: the adjoint of :func:`conv` with the same `weight` and arguments.

    It restores the *shape* that the convolution started from, not its values: as a matrix it is the transpose, not
    the inverse (``examples/plot_transposed_convolution.py`` draws what comes back).

    Parameters
    ----------
    y : array_like of shape (batch, *spatial, out_channels)
        What :func:`conv` with this `weight` returns, or anything of that shape. Dtypes and layouts as for its `x`.
    weight : array_like of shape (out_channels, *kernel, in_channels // groups)
        The filters of the convolution that is transposed, as they are: nothing is to be swapped or flipped.
    bias : array_like of shape (in_channels,), optional
        Added to every pixel of a channel of the result.
    stride : int or tuple of int, one per spatial axis, default=1
        Distance in pixels between the outputs that neighbouring pixels of `y` are spread around.
    padding : int, tuple, "same" or "valid", default=0
        Of the convolution, per axis or side as there: so many pixels are *cut off* the result. "same" gives
        ``size * stride`` pixels, or `output_size`.
    output_padding : int or tuple of int, one per spatial axis, default=0
        Pixels by which the result is longer at its end, less than ``max(stride, dilation)``. With a stride, several
        sizes of `x` give the same size of `y`: this chooses among them.
    dilation : int or tuple of int, one per spatial axis, default=1
        Distance in pixels between neighbouring taps of the kernel; any dilation goes with any stride.
    groups : int, default=1
        As for :func:`conv`.
    output_size : int or tuple of int, one per spatial axis, optional
        The sizes wanted, in place of `output_padding`.
    padding_mode : {"zeros", "reflect", "symmetric", "edge", "circular"}, default="zeros"
        That of the convolution. What falls beyond the border is cut off with "zeros"; with the others it is added to
        the pixels that the convolution would have read there.
    out : ndarray of shape (batch, *output, in_channels), optional
        Where to write the result: C-contiguous, of the dtype computed in, overlapping no input.
    n_threads : int, optional
        As for :func:`conv`.

    Returns
    -------
    out : ndarray of shape (batch, *output, in_channels)
        float64 if `y` is, else float32. Sizes as given by :func:`dconv.shapes.conv_transpose_shape`.

    Raises
    ------
    TypeError
        If an array is not real, or an argument is no integer.
    ValueError
        If ranks, channels, groups or sizes do not fit together; if `output_size` or `output_padding` cannot be had
        (the message says what can); if `out` cannot hold the result.

    See Also
    --------
    dconv.conv_matrix : The convolution as a sparse matrix C; this is ``C.T @ y``.
    dconv.fold : The same from products with windows, added up where they overlap.
    dconv.upsample : Enlarge images by interpolation.
    dconv.shapes.output_padding_for : The `output_padding` that gives a size.

    Notes
    -----
    With ``left`` pixels of padding in front, and y zero where there is no pixel::

        out[n, o, g * C + c] = bias[g * C + c]
            + sum over k, f of weight[g * F + f, k, c] * y[n, (o + left - k * dilation) / stride, g * F + f]

    over the taps k for which the division leaves no rest. The outputs that share their taps, every `stride`-th, are
    computed as one convolution: no zeros are inserted, and every output is written once. The result does not depend,
    by a bit, on the number of threads; :func:`conv` and this function are each other's adjoint,
    ``(conv(x) * y).sum() == (x * conv_transpose(y)).sum()``, to rounding.

    References
    ----------
    .. [1] V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, 2016.
    .. [2] M. D. Zeiler, D. Krishnan, G. W. Taylor, R. Fergus, "Deconvolutional networks", CVPR 2010,
       doi:10.1109/CVPR.2010.5539957.

    Examples
    --------
    Back to the size that a convolution with stride 2 halved:

    >>> import numpy as np
    >>> import dconv
    >>> x, weight = np.ones((1, 12, 12, 3)), np.ones((5, 3, 3, 3))
    >>> y = dconv.conv(x, weight, stride=2)
    >>> y.shape
    (1, 5, 5, 5)
    >>> dconv.conv_transpose(y, weight, stride=2).shape
    (1, 11, 11, 3)
    >>> dconv.conv_transpose(y, weight, stride=2, output_size=(12, 12)).shape
    (1, 12, 12, 3)
    """
    (y, weight), bias = as_real(y=y, weight=weight, bias=bias)
    check_padding_mode(padding_mode)
    plan, out_shape, pads = transpose_plan(
        y.shape,
        weight.shape,
        as_hashable(stride, "stride"),
        as_hashable(padding, "padding"),
        as_hashable(output_padding, "output_padding"),
        as_hashable(dilation, "dilation"),
        as_int(groups, "groups"),
        None if output_size is None else as_hashable(output_size, "output_size"),
        padding_mode,
    )
    _check_bias(bias, out_shape[-1], "channel of the result")
    threads = effective_n_threads(n_threads)
    out = _memory.result(out_shape, y.dtype, out, y=y, weight=weight, bias=bias)
    if not y.size:
        return out
    # As filters of y: the channels of x, each a kernel over the filters of its group.
    grouped = weight.reshape(plan.groups, weight.shape[0] // plan.groups, *weight.shape[1:])
    turned = grouped.swapaxes(1, -1).reshape(out_shape[-1], *weight.shape[1:-1], grouped.shape[1])
    if pads is None:
        run_plan(plan, y, turned, bias, out, threads)
    else:
        extended = _memory.empty(plan.out_shape, y.dtype)
        run_plan(plan, y, turned, None, extended, threads)
        folded = fold_border(extended, pads, padding_mode, first_axis=1)
        np.add(folded, 0 if bias is None else bias, out=out)
    return out
