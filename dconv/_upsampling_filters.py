"""Filters that upsample: B-splines for a transposed convolution. Public as part of :mod:`dconv.filters`."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dconv._axes import Ints, as_ndim, as_tuple
from dconv._filter_bank import MAX_TAPS, FilterBank, outer_product, single_channel

DEGREES = {"bilinear": 1, "b3_spline": 3}  # of the spline, per method


class Spread(NamedTuple):
    """How one sample of an axis is spread over outputs: it adds ``weights[k]`` to output ``i * factor - left + k``."""

    weights: NDArray[np.float64]
    left: int


def bilinear_upsampling(factor: Ints, *, ndim: int = 2, align: str = "center") -> FilterBank:
    """Return the filter with which a transposed convolution upsamples linearly along each axis.

    ``w(t) = prod_a max(0, 1 - |t_a / factor_a|)``, for :func:`dconv.conv_transpose` with ``stride=factor``.

    Parameters
    ----------
    factor : int or sequence of int
        Outputs per sample, on all axes or per axis; at least 1. It is the stride of the transposed convolution.
    ndim : int, default=2
        Spatial axes, 1 to 3.
    align : {"center", "first"}, default="center"
        Where samples lie among the outputs. "center": a sample lies in the middle of the `factor` outputs that take
        its place, so both images cover the same area; the filter has ``2 * factor - factor % 2`` taps and goes with
        ``padding="same"``. "first": sample i lies on output ``i * factor``, where a strided convolution takes it from;
        the filter has ``2 * factor - 1`` taps and goes with ``padding=factor - 1``, which gives
        ``(size - 1) * factor + 1`` outputs.

    Returns
    -------
    bank : FilterBank
        Named "bilinear_upsampling_<factor>". The taps that one output sees sum to 1.

    Raises
    ------
    TypeError, ValueError
        If `factor` is not a positive int or `ndim` of them, `align` or `ndim` is another, or the filter would have more
        than 2**20 taps.

    See Also
    --------
    dconv.upsample : the whole operation, which continues the image beyond its border.
    b3_spline_upsampling : smoother.

    References
    ----------
    J. Long, E. Shelhamer and T. Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015: these
    weights start its upsampling layers. doi:10.1109/CVPR.2015.7298965

    Examples
    --------
    >>> bilinear_upsampling(2, ndim=1).weight.ravel()
    array([0.25, 0.75, 0.75, 0.25], dtype=float32)
    >>> bilinear_upsampling(2, ndim=1, align="first").weight.ravel()
    array([0.5, 1. , 0.5], dtype=float32)
    """
    return _upsampling("bilinear", factor, ndim, align)


def b3_spline_upsampling(factor: Ints, *, ndim: int = 2, align: str = "center") -> FilterBank:
    """Return the filter with which a transposed convolution upsamples by a cubic B-spline along each axis.

    ``w(t) = prod_a beta(t_a / factor_a)``, for :func:`dconv.conv_transpose` with ``stride=factor``, where ``beta(u)``
    is ``2/3 - u**2 + |u|**3 / 2`` for ``|u| < 1`` and ``(2 - |u|)**3 / 6`` for ``1 <= |u| < 2``.

    It smooths: the samples are the *coefficients* of the spline, which does not pass through them. The coefficients of
    a spline that does are those of :func:`scipy.ndimage.spline_filter` with ``mode="mirror"``, "reflect" here.

    Parameters
    ----------
    factor : int or sequence of int
        Outputs per sample, on all axes or per axis; at least 1. It is the stride of the transposed convolution. 1
        smooths, by ``[1, 4, 1] / 6`` on each axis.
    ndim : int, default=2
        Spatial axes, 1 to 3.
    align : {"center", "first"}, default="center"
        As for :func:`bilinear_upsampling`. "center" has ``4 * factor - factor % 2`` taps; "first" has
        ``4 * factor - 1`` and goes with ``padding=2 * factor - 1``.

    Returns
    -------
    bank : FilterBank
        Named "b3_spline_upsampling_<factor>". The taps that one output sees sum to 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`bilinear_upsampling`.

    See Also
    --------
    dconv.upsample : the whole operation, which continues the image beyond its border.
    b3_spline : the smoothing filter of the a trous wavelet transform.

    References
    ----------
    M. Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine 16, 1999.
    doi:10.1109/79.799930

    Examples
    --------
    >>> b3_spline_upsampling(2, ndim=1, align="first").weight.ravel() * 48
    array([ 1.,  8., 23., 32., 23.,  8.,  1.], dtype=float32)
    """
    return _upsampling("b3_spline", factor, ndim, align)


def spreads(method: str, factors: tuple[int, ...], align: str) -> list[Spread]:
    """Return how the samples of each axis are spread, by the B-spline of `method`.

    The weights are the spline at ``(t - offset) / factor``, for every whole t at which it is not zero.
    """
    if not isinstance(align, str) or align not in ("center", "first"):
        raise ValueError(f"align must be 'center' or 'first', but got {align!r}")
    # In half pixels, in which the offset and where the spline ends are whole numbers.
    offsets = [factor - 1 if align == "center" else 0 for factor in factors]
    return spreads_at(method, factors, offsets)


def spreads_at(method: str, factors: Sequence[int], offsets: Sequence[int]) -> list[Spread]:
    """Return the same where the first sample of each axis lies `offsets` half pixels behind the first output."""
    degree = DEGREES[method]
    reaches = [(degree + 1) * factor for factor in factors]
    places = [
        range((offset - reach) // 2 + 1, -(-(offset + reach) // 2))
        for offset, reach in zip(offsets, reaches, strict=True)
    ]
    if math.prod(map(len, places)) > MAX_TAPS:
        raise ValueError(
            f"factor={tuple(factors)} gives a filter of more than {MAX_TAPS} taps; upsample in several steps"
        )
    return [
        Spread(_spline(degree, (2 * np.array(place) - offset) / (2 * factor)), -place.start)
        for place, offset, factor in zip(places, offsets, factors, strict=True)
    ]


def _spline(degree: int, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centred B-spline of degree 1 or 3 at places where it is not zero."""
    u = np.abs(u)
    if degree == 1:
        return 1 - u
    return np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, (2 - u) ** 3 / 6)


def _upsampling(method: str, factor: Ints, ndim: int, align: str) -> FilterBank:
    factors = as_tuple(factor, as_ndim(ndim), "factor", 1)
    kernel = outer_product([spread.weights for spread in spreads(method, factors, align)])
    scale = "x".join(map(str, factors if len(set(factors)) > 1 else factors[:1]))
    return single_channel([kernel], [f"{method}_upsampling_{scale}"])
