"""Filters that differentiate. Public as part of :mod:`dconv.filters`."""

import itertools

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int, as_ndim
from dconv._filter_bank import FilterBank, as_finite, filter_bank, outer_product, single_channel

SMOOTH = np.array([1, 2, 1]) / 4
SLOPE = np.array([-1, 0, 1]) / 2
CURVATURE = np.array([1.0, -2.0, 1.0])
CENTRE = np.array([0.0, 1.0, 0.0])


def derivatives(order: int, *, ndim: int = 2) -> FilterBank:
    """Return all first or all second partial derivatives as filters of three taps per axis.

    First: ``[-1, 0, 1] / 2`` on the axis. Second: ``[1, -2, 1]`` on the axis, or ``[-1, 0, 1] / 2`` on both axes of a
    mixed one. ``[1, 2, 1] / 4`` on the other axes (the Sobel filter at unit gain). First derivatives are exact on
    polynomials of degree 2, second ones on degree 3.

    Parameters
    ----------
    order : {1, 2}
        Order of the derivatives, per pixel or per pixel squared.
    ndim : int, default=2
        Spatial axes, 1 to 3.

    Returns
    -------
    bank : FilterBank
        Named "d0", "d1", ... or "d00", "d01", "d11", ... by the axes of differentiation.

    Raises
    ------
    TypeError, ValueError
        If `order` is not 1 or 2, or `ndim` not 1, 2 or 3.

    See Also
    --------
    directional : derivatives along any direction.

    References
    ----------
    H. Farid and E. P. Simoncelli, "Differentiation of discrete multidimensional signals", IEEE Transactions on Image
    Processing 13, 2004 (why the other axes are smoothed). doi:10.1109/TIP.2004.823819

    Examples
    --------
    >>> bank = derivatives(1)
    >>> bank.names
    ('d0', 'd1')
    >>> bank.weight[1, ..., 0] * 8
    array([[-1.,  0.,  1.],
           [-2.,  0.,  2.],
           [-1.,  0.,  1.]], dtype=float32)
    """
    order, ndim = as_int(order, "order", 1), as_ndim(ndim)
    if order > 2:
        raise ValueError(f"order must be 1 or 2, but got {order}")
    kernels, names = [], []
    for axes in itertools.combinations_with_replacement(range(ndim), order):
        kernels.append(outer_product([(SMOOTH, SLOPE, CURVATURE)[axes.count(axis)] for axis in range(ndim)]))
        names.append("d" + "".join(map(str, axes)))
    return single_channel(kernels, names)


def directional(directions: ArrayLike, order: int) -> FilterBank:
    """Return first or second derivatives along given directions, steered from :func:`derivatives`.

    With a unit vector `u`: first ``sum_a u_a * d_a``, second ``sum_ab u_a * u_b * d_ab``.

    Parameters
    ----------
    directions : array_like of shape (n_directions,) or (n_directions, ndim)
        Angles in radians for two spatial axes, from the last axis towards the first (0 is along a row of pixels, pi / 2
        down a column), or one vector per direction in the order of the spatial axes, whose length does not matter.
    order : {1, 2}
        Order of the derivatives, per pixel or per pixel squared.

    Returns
    -------
    bank : FilterBank
        Named "du_45deg" or "duu_45deg" by the angle in degrees, "du_0" or "duu_0" by the index of the vector.

    Raises
    ------
    TypeError, ValueError
        If `directions` has another shape, is not finite, repeats an angle or holds a zero vector, or `order` is not
        1 or 2.

    References
    ----------
    W. T. Freeman and E. H. Adelson, "The design and use of steerable filters", IEEE Transactions on Pattern Analysis
    and Machine Intelligence 13, 1991. doi:10.1109/34.93808

    Examples
    --------
    >>> import numpy as np
    >>> bank = directional([np.pi / 4, np.pi / 2], order=1)
    >>> bank.names
    ('du_45deg', 'du_90deg')
    >>> np.allclose(bank.weight[1], derivatives(1).weight[0])
    True
    """
    vectors = as_finite(directions, "directions")
    if vectors.ndim not in (1, 2) or (vectors.ndim == 2 and vectors.shape[1] > 3):
        raise ValueError(
            "directions must have shape (n_directions,) for angles or (n_directions, ndim) for vectors of 1 to 3 axes, "
            f"but got {vectors.shape}"
        )
    if vectors.ndim == 1:
        labels = [f"{angle:g}deg" for angle in np.degrees(vectors)]
        vectors = np.stack([np.sin(vectors), np.cos(vectors)], axis=1)
    else:
        labels = [str(index) for index in range(len(vectors))]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"directions must not hold a zero vector, but number {lengths.argmin()} is one")
    unit = vectors / lengths
    basis = derivatives(order, ndim=unit.shape[1])
    # A mixed derivative stands in the basis once but in the sum once per order of its axes.
    gains = [
        len(set(itertools.permutations(axes))) * unit[:, axes].prod(axis=1)
        for axes in itertools.combinations_with_replacement(range(unit.shape[1]), order)
    ]
    weight = np.tensordot(np.stack(gains, axis=1), basis.weight, axes=1)
    return filter_bank(weight, [f"d{'u' * order}_{label}" for label in labels])


def laplacian(*, ndim: int = 2) -> FilterBank:
    """Return the Laplacian: the sum of ``[1, -2, 1]`` over the axes, as in :func:`scipy.ndimage.laplace`.

    Parameters
    ----------
    ndim : int, default=2
        Spatial axes, 1 to 3.

    Returns
    -------
    bank : FilterBank
        Named "laplacian"; per pixel squared.

    Raises
    ------
    TypeError, ValueError
        If `ndim` is not 1, 2 or 3.

    References
    ----------
    D. Marr and E. Hildreth, "Theory of edge detection", Proceedings of the Royal Society B 207, 1980.
    doi:10.1098/rspb.1980.0020

    Examples
    --------
    >>> laplacian().weight[0, ..., 0]
    array([[ 0.,  1.,  0.],
           [ 1., -4.,  1.],
           [ 0.,  1.,  0.]], dtype=float32)
    """
    axes = range(as_ndim(ndim))
    terms = [outer_product([CURVATURE if other == axis else CENTRE for other in axes]) for axis in axes]
    return single_channel([np.sum(terms, axis=0)], ["laplacian"])
