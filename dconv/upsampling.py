"""Upsampling of images by a whole factor: an image continued beyond its border, and its transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import Ints, as_tuple
from dconv._blocks import check_padding_mode, read_block
from dconv._filter_bank import outer_product
from dconv._upsampling_filters import DEGREES, Spread, spreads
from dconv._validation import as_array, real_dtype
from dconv.functional import conv_transpose


def upsample(
    x: ArrayLike,
    factor: Ints,
    *,
    method: str = "bilinear",
    align: str = "center",
    output_size: Ints | None = None,
    padding_mode: str = "edge",
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> np.ndarray:
    """Return images enlarged by a whole `factor`, over 1, 2 or 3 spatial axes.

    Parameters
    ----------
    x : array_like of shape (batch, *spatial, channels)
        Real. float64 is computed in float64; every other real dtype becomes float32, without rescaling.
    factor : int or sequence of int, one per spatial axis
        Outputs per pixel; at least 1.
    method : {"bilinear", "b3_spline"}, default="bilinear"
        "bilinear" is linear along each axis (trilinear in volumes). "b3_spline" is the smooth sum of cubic B-splines
        with the pixels as coefficients: it does not pass through the pixels, but smooths even with ``factor=1``. For a
        cubic interpolation give it the coefficients of :func:`scipy.ndimage.spline_filter` with ``mode="mirror"``, and
        ``padding_mode="reflect"``.
    align : {"center", "first"}, default="center"
        Where pixels lie among the outputs. "center": images cover the same area, as in
        ``torch.nn.functional.interpolate(align_corners=False)`` and :func:`skimage.transform.resize`. "first": pixel i
        lies on output ``i * factor``, where a convolution with ``stride=factor`` takes it from.
    output_size : int or sequence of int, one per spatial axis, optional
        Outputs wanted, ``(size - 1) * factor + 1`` to ``size * factor``: the sizes that a strided "same" convolution
        turns into `size`. What is too much is cut off at the end. By default ``size * factor``.
    padding_mode : {"edge", "reflect", "symmetric", "circular", "zeros"}, default="edge"
        What the image continues with beyond its border, as in :func:`dconv.conv`. "zeros" darkens the border.
    out : ndarray of shape (batch, *output, channels), optional
        Where to write the result: C-contiguous, of the dtype computed in, overlapping not `x`.
    n_threads : int, optional
        As for :func:`dconv.conv`.

    Returns
    -------
    out : ndarray of shape (batch, *output, channels)
        float64 if `x` is, else float32.

    Raises
    ------
    TypeError
        If `x` is not real, or an argument is no integer.
    ValueError
        If `x` has another rank or no pixels, an argument is out of range (the message says what `output_size` can be),
        or `out` cannot hold the result.

    See Also
    --------
    dconv.filters.bilinear_upsampling, dconv.filters.b3_spline_upsampling : the weights.
    dconv.TransposedConv : upsampling with other weights, or learned ones, as a scikit-learn transformer.

    Notes
    -----
    With ``offset = (factor - 1) / 2`` for "center", 0 for "first", and the B-spline `beta` of degree 1 or 3 [2]_::

        out[o] = sum over i of x[i] * beta((o - offset) / factor - i)        along each axis

    where i runs beyond the border, as far as beta reaches. It is a depthwise :func:`dconv.conv_transpose` [1]_, which
    takes 2 or 4 multiply-adds per axis, multiplied over the axes, for one output of one channel, whatever the factor.

    References
    ----------
    .. [1] J. Long, E. Shelhamer, T. Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015,
       doi:10.1109/CVPR.2015.7298965.
    .. [2] M. Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine 16, 1999,
       doi:10.1109/79.799930.

    Examples
    --------
    >>> import numpy as np
    >>> import dconv
    >>> series = np.array([0.0, 4.0, 8.0]).reshape(1, 3, 1)
    >>> dconv.upsample(series, 2).ravel()
    array([0., 1., 3., 5., 7., 8.])
    >>> dconv.upsample(series, 2, align="first", output_size=5).ravel()
    array([0., 2., 4., 6., 8.])
    """
    array = as_array(x, "x")
    real_dtype(array, "x")  # conv_transpose converts what is needed of it
    if array.ndim not in (3, 4, 5):
        raise ValueError(
            f"x must have shape (batch, *spatial, channels) with 1 to 3 spatial axes, got {array.shape}; add what is "
            "missing, as in x[None, ..., None]"
        )
    if 0 in array.shape[1:]:
        raise ValueError(f"x has shape {array.shape}: only the batch axis may be empty")
    if not isinstance(method, str) or method not in DEGREES:
        raise ValueError(f"method must be one of {', '.join(map(repr, DEGREES))}, got {method!r}")
    check_padding_mode(padding_mode)
    size = array.shape[1:-1]
    factors = as_tuple(factor, len(size), "factor", 1)
    axes = spreads(method, factors, align)
    out_size = _out_size(size, factors, output_size)
    if isinstance(out, np.ndarray) and np.may_share_memory(out, array):
        raise ValueError("out must not overlap x in memory, because x is read while out is written")
    return interpolated(array, axes, factors, (0,) * len(size), out_size, padding_mode, out=out, n_threads=n_threads)


def interpolated(
    x: np.ndarray,
    axes: Sequence[Spread],
    factors: Sequence[int],
    first: Sequence[int],
    stop: Sequence[int],
    padding_mode: str,
    *,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> np.ndarray:
    """Return the outputs from `first` to `stop` of images (batch, *spatial, channels) whose samples are spread.

    Sample i adds ``axes[a].weights[k]`` to output ``i * factors[a] - axes[a].left + k`` along each axis `a`.
    """
    # Output o takes tap k from sample i = (o + left - k) / factor.
    low = [(o + axis.left - len(axis.weights)) // f + 1 for axis, f, o in zip(axes, factors, first, strict=True)]
    high = [(o - 1 + axis.left) // f + 1 for axis, f, o in zip(axes, factors, stop, strict=True)]
    extended = read_block(x, low, high, padding_mode, first_axis=1)
    cut_left = [axis.left + o - sample * f for axis, sample, f, o in zip(axes, low, factors, first, strict=True)]
    cut_right = [
        (n - 1) * f + len(axis.weights) - cut - (end - begin)
        for axis, n, f, cut, begin, end in zip(axes, extended.shape[1:-1], factors, cut_left, first, stop, strict=True)
    ]
    kernel = outer_product([axis.weights for axis in axes])
    n_channels = x.shape[-1]
    return conv_transpose(
        extended,
        np.broadcast_to(kernel[..., np.newaxis], (n_channels, *kernel.shape, 1)),
        stride=tuple(factors),
        padding=tuple(zip(cut_left, cut_right, strict=True)),
        groups=n_channels,
        out=out,
        n_threads=n_threads,
    )


def _out_size(size: tuple[int, ...], factors: tuple[int, ...], output_size: Ints | None) -> tuple[int, ...]:
    """Return how many outputs there are to be on each axis."""
    largest = tuple(n * f for n, f in zip(size, factors, strict=True))
    if output_size is None:
        return largest
    wanted = as_tuple(output_size, len(size), "output_size", 1)
    for axis, (n, most, f) in enumerate(zip(wanted, largest, factors, strict=True)):
        if not most - f < n <= most:
            raise ValueError(
                f"output_size must be from {most - f + 1} to {most} on axis {axis}, {f} times its {size[axis]} "
                f"pixels, but got {n}; crop or pad the result for another size"
            )
    return wanted
