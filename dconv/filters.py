"""Families of filters: weights with names, ready for dilated convolution.

Every family returns a :class:`FilterBank`. Weights are for cross-correlation, as in :func:`dconv.conv`: they are laid
over the image unflipped, and kernel axes are in the order of the image's spatial axes. Unless they take `in_channels`
or learn from images, families look at one channel. With a dilation of `d` a filter works at a scale `d` times larger:
its frequency falls to ``1 / d``, and a derivative of order `n` comes out ``d**n`` times larger.
"""

import itertools
import math
from collections.abc import Iterable

import numpy as np
from numpy.random import RandomState

from dconv._axes import Ints, as_int, as_ndim, as_tuple, check_bool
from dconv._derivative_filters import derivatives, directional, laplacian
from dconv._filter_bank import (
    FilterBank,
    Reals,
    as_finite,
    as_positive,
    as_positive_float,
    check_taps,
    concatenate,
    filter_bank,
    outer_product,
    single_channel,
)
from dconv._patch_filters import kmeans_patches, pca_patches
from dconv._random_state import as_random_state
from dconv._upsampling_filters import b3_spline_upsampling, bilinear_upsampling

__all__ = [
    "FilterBank",
    "b3_spline",
    "b3_spline_upsampling",
    "bilinear_upsampling",
    "concatenate",
    "derivatives",
    "directional",
    "filter_bank",
    "gabor",
    "gaussian",
    "kmeans_patches",
    "laplacian",
    "pca_patches",
    "random_normal",
    "two_valued",
]


def gaussian(sigma: Reals, *, ndim: int = 2, truncate: float = 3.0) -> FilterBank:
    """Return one Gaussian smoothing filter of unit sum.

    ``w(t) ~ prod_a exp(-t_a**2 / (2 * sigma_a**2))`` for ``|t_a| <= int(truncate * sigma_a + 0.5)``, the radius rule of
    :func:`scipy.ndimage.gaussian_filter`.

    Parameters
    ----------
    sigma : float or sequence of float
        Standard deviation in pixels, for all axes or per axis; positive.
    ndim : int, default=2
        Spatial axes, 1 to 3.
    truncate : float, default=3.0
        Radius in standard deviations; positive.

    Returns
    -------
    bank : FilterBank
        Named "gaussian_<sigma>".

    Raises
    ------
    TypeError, ValueError
        If `sigma` or `truncate` is not positive, `sigma` is neither one number nor `ndim` numbers, or the filter would
        have more than 2**20 taps.

    References
    ----------
    J. J. Koenderink, "The structure of images", Biological Cybernetics 50, 1984. doi:10.1007/BF00336961

    Examples
    --------
    >>> bank = gaussian(1.5)
    >>> bank.names, bank.kernel_size
    (('gaussian_1.5',), (11, 11))
    """
    ndim, sigmas = as_ndim(ndim), as_positive(sigma, "sigma")
    if sigmas.size not in (1, ndim):
        raise ValueError(f"sigma must be one number or one for each of the {ndim} spatial axes, but got {sigma}")
    truncate = as_positive_float(truncate, "truncate")
    widths = np.broadcast_to(sigmas, ndim).tolist()
    radii = [truncate * width + 0.5 for width in widths]
    check_taps(radii, f"sigma={sigma} with truncate={truncate:g}")
    factors = []
    for width, radius in zip(widths, map(int, radii), strict=True):
        factor = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
        factors.append(factor / factor.sum())
    return single_channel([outer_product(factors)], ["gaussian_" + "x".join(f"{width:g}" for width in sigmas)])


def b3_spline(*, ndim: int = 2) -> FilterBank:
    """Return the B3-spline smoothing filter of the a trous wavelet transform.

    ``w = [1, 4, 6, 4, 1] / 16`` on each axis, as an outer product; the variance is 1 pixel squared on each axis.

    Parameters
    ----------
    ndim : int, default=2
        Spatial axes, 1 to 3.

    Returns
    -------
    bank : FilterBank
        Named "b3_spline".

    Raises
    ------
    TypeError, ValueError
        If `ndim` is not 1, 2 or 3.

    References
    ----------
    J.-L. Starck, J. Fadili and F. Murtagh, "The undecimated wavelet decomposition and its reconstruction", IEEE
    Transactions on Image Processing 16, 2007. doi:10.1109/TIP.2006.887733

    Examples
    --------
    >>> b3_spline(ndim=1).weight.ravel() * 16
    array([1., 4., 6., 4., 1.], dtype=float32)
    """
    return single_channel([outer_product([np.array([1, 4, 6, 4, 1]) / 16] * as_ndim(ndim))], ["b3_spline"])


def gabor(
    frequencies: Reals,
    orientations: Reals = 4,
    *,
    bandwidth: float = 1.0,
    truncate: float = 3.0,
) -> FilterBank:
    """Return two-dimensional Gabor filters: an even and an odd one per frequency and orientation.

    Parameters
    ----------
    frequencies : float or sequence of float
        Cycles per pixel, above 0 and below 0.5.
    orientations : int or sequence of float, default=4
        A number of angles evenly spread over half a turn, or the angles in radians in which the wave runs, from the
        last axis towards the first (0 is along a row of pixels).
    bandwidth : float, default=1.0
        Width of the passband at half its peak, in octaves; positive.
    truncate : float, default=3.0
        Radius in standard deviations of the widest envelope; positive.

    Returns
    -------
    bank : FilterBank
        Named "gabor_even_0.25_45deg", "gabor_odd_0.25_45deg", ... by frequency and angle in degrees.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, a filter is asked for twice, or it would have more than 2**20 taps.

    See Also
    --------
    skimage.filters.gabor_kernel : one complex filter, without zero mean.

    Notes
    -----
    With ``g`` a round Gaussian of unit sum and ``p = 2 * pi * frequency * (t_1 * cos(angle) + t_0 * sin(angle))``::

        sigma = sqrt(log(2) / 2) / pi * (2**bandwidth + 1) / (2**bandwidth - 1) / frequency
        even  = 2 * g * (cos(p) - sum(g * cos(p)))      odd = 2 * g * sin(p)

    The even filter is blind to brightness. To a wave of its own orientation and frequency, up to about 0.3 cycles per
    pixel, and amplitude `a`, the pair responds with ``even**2 + odd**2`` close to ``a**2`` at any phase.

    References
    ----------
    J. G. Daugman, "Uncertainty relation for resolution in space, spatial frequency, and orientation optimized by
    two-dimensional visual cortical filters", Journal of the Optical Society of America A 2, 1985.
    doi:10.1364/JOSAA.2.001160

    Examples
    --------
    >>> bank = gabor(0.25, orientations=2)
    >>> bank.names
    ('gabor_even_0.25_0deg', 'gabor_odd_0.25_0deg', 'gabor_even_0.25_90deg', 'gabor_odd_0.25_90deg')
    """
    waves = as_positive(frequencies, "frequencies")
    if waves.max() >= 0.5:
        raise ValueError(f"frequencies must be below 0.5 cycles per pixel, but got {frequencies}")
    if isinstance(orientations, Iterable):
        angles = as_finite(orientations, "orientations").ravel()
    else:
        n_angles = as_int(orientations, "orientations", 1, rule="an int or a sequence of angles")
        angles = np.arange(n_angles) * np.pi / n_angles
    octaves, truncate = as_positive_float(bandwidth, "bandwidth"), as_positive_float(truncate, "truncate")
    ratio = 1 / math.tanh(octaves * math.log(2) / 2)  # (2**octaves + 1) / (2**octaves - 1), which would overflow
    sigmas = math.sqrt(math.log(2) / 2) / math.pi * ratio / waves
    reach = truncate * sigmas.max()
    check_taps([reach, reach], f"frequencies={frequencies} with bandwidth={octaves:g} and truncate={truncate:g}")
    radius = math.ceil(reach)
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    kernels, names = [], []
    for (frequency, sigma), angle in itertools.product(zip(waves, sigmas, strict=True), angles):
        envelope = np.exp(-0.5 * (rows**2 + columns**2) / sigma**2)
        envelope /= envelope.sum()
        phase = 2 * np.pi * frequency * (columns * np.cos(angle) + rows * np.sin(angle))
        kernels.append(2 * envelope * (np.cos(phase) - (envelope * np.cos(phase)).sum()))
        kernels.append(2 * envelope * np.sin(phase))
        names += [f"gabor_{parity}_{frequency:g}_{np.degrees(angle):g}deg" for parity in ("even", "odd")]
    return single_channel(kernels, names)


def two_valued(*, ndim: int = 2) -> FilterBank:
    """Return the 84 kernels of MiniRocket: nine taps, of which three are 2 and six are -1.

    All ``C(9, 3) = 84`` choices of three taps, in lexicographic order; each kernel sums to zero.

    Parameters
    ----------
    ndim : {1, 2}, default=2
        1 lays the taps out in a line of 9 as in the paper, 2 in a square of 3 x 3, row by row.

    Returns
    -------
    bank : FilterBank
        Named "two_valued_012" to "two_valued_678" by the taps that are 2.

    Raises
    ------
    TypeError, ValueError
        If `ndim` is not 1 or 2.

    References
    ----------
    A. Dempster, D. F. Schmidt and G. I. Webb, "MiniRocket: a very fast (almost) deterministic transform for time series
    classification", KDD 2021. doi:10.1145/3447548.3467231

    Examples
    --------
    >>> bank = two_valued()
    >>> bank.names[0], bank.weight.shape
    ('two_valued_012', (84, 3, 3, 1))
    >>> bank.weight[0, ..., 0]
    array([[ 2.,  2.,  2.],
           [-1., -1., -1.],
           [-1., -1., -1.]], dtype=float32)
    """
    if as_ndim(ndim) == 3:
        raise ValueError("ndim must be 1 or 2, as nine taps fill a line or a square, but got 3")
    choices = list(itertools.combinations(range(9), 3))
    weight = np.full((len(choices), 9), -1.0)
    np.put_along_axis(weight, np.array(choices), 2.0, axis=1)
    names = ["two_valued_" + "".join(map(str, choice)) for choice in choices]
    return single_channel(weight.reshape(len(choices), *((9,) if ndim == 1 else (3, 3))), names)


def random_normal(
    n_filters: int,
    kernel_size: Ints,
    *,
    in_channels: int = 1,
    random_state: int | RandomState | None = None,
    zero_mean: bool = True,
    unit_norm: bool = True,
) -> FilterBank:
    """Return filters with independent standard normal weights.

    Parameters
    ----------
    n_filters : int
        Number of filters.
    kernel_size : int or sequence of int
        Taps per spatial axis; an int means one axis.
    in_channels : int, default=1
        Channels that each filter looks at.
    random_state : int, RandomState instance or None, default=None
        Draws the weights.
    zero_mean : bool, default=True
        Whether each filter sums to zero on each channel, so that it ignores brightness. Needs at least two taps.
    unit_norm : bool, default=True
        Whether each filter is scaled to a sum of squares of 1.

    Returns
    -------
    bank : FilterBank
        Named "random_0", "random_1", ...

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer, or `zero_mean` is asked of a single tap.

    References
    ----------
    A. Dempster, F. Petitjean and G. I. Webb, "ROCKET: exceptionally fast and accurate time series classification using
    random convolutional kernels", Data Mining and Knowledge Discovery 34, 2020. doi:10.1007/s10618-020-00701-z

    Examples
    --------
    >>> random_normal(16, (3, 3), in_channels=3, random_state=0).weight.shape
    (16, 3, 3, 3)
    """
    n_filters, in_channels = as_int(n_filters, "n_filters", 1), as_int(in_channels, "in_channels", 1)
    kernel = as_tuple(kernel_size, None, "kernel_size", 1)
    check_bool(zero_mean, "zero_mean")
    check_bool(unit_norm, "unit_norm")
    if zero_mean and math.prod(kernel) == 1:
        raise ValueError(f"zero_mean needs at least 2 taps, but got kernel_size={kernel}; pass zero_mean=False")
    weight = as_random_state(random_state).normal(size=(n_filters, math.prod(kernel), in_channels))
    if zero_mean:
        weight -= weight.mean(axis=1, keepdims=True)
    if unit_norm:
        weight /= np.linalg.norm(weight, axis=(1, 2), keepdims=True)
    names = [f"random_{index}" for index in range(n_filters)]
    return filter_bank(weight.reshape(n_filters, *kernel, in_channels), names)
