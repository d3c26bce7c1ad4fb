"""Filters learnt from patches of images, without labels. Public as part of :mod:`dconv.filters`."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA

from dconv._axes import Ints, as_int, as_tuple, items_of
from dconv._filter_bank import FilterBank, filter_bank
from dconv._random_state import as_random_state
from dconv._threads import scikit_learn_alone
from dconv._validation import as_array, real_dtype
from dconv.shapes import conv_shape, span

# Coates & Ng (2012) add 10 to the patch variance of images in 0..255. We measured variances of 66 to 448 (mean 231) in
# 3 x 3 and 5 x 5 patches of five photographs of skimage.data; as a share of the mean variance the rule holds for images
# of any range. Whitening then sees variances near 1, to which they add 0.1.
CONTRAST_FLOOR = 0.04
WHITENING_FLOOR = 0.1
N_ITERATIONS = 10


def pca_patches(
    images: Iterable[ArrayLike],
    n_filters: int,
    kernel_size: Ints,
    *,
    dilation: Ints = 1,
    n_patches: int = 10_000,
    random_state: int | RandomState | None = None,
) -> FilterBank:
    """Return the leading principal components of image patches as filters.

    Parameters
    ----------
    images : sequence of array_like of shape (*spatial, channels)
        Real and finite, with as many spatial axes as `kernel_size` has items; sizes may differ. Wrap one image in a
        list.
    n_filters : int
        At most ``(taps - 1) * channels``, as the mean of each channel is removed.
    kernel_size : int or sequence of int
        Taps per spatial axis; an int means one axis. At least two taps in all.
    dilation : int or sequence of int, default=1
        Distance in pixels between neighbouring taps.
    n_patches : int, default=10_000
        Patches drawn without replacement, at positions uniform over all images; all of them if there are fewer.
    random_state : int, RandomState instance or None, default=None
        Draws the positions.

    Returns
    -------
    bank : FilterBank
        Named "pca_0", "pca_1", ... by falling variance. Filters have unit norm, are orthogonal, and sum to zero on each
        channel, so they ignore brightness.

    Raises
    ------
    TypeError
        If an image is not real, or a size is not an integer.
    ValueError
        If images have other shapes, are too small or not finite, or vary in fewer than `n_filters` directions.

    See Also
    --------
    kmeans_patches : more filters than taps, each nearer to one kind of patch.

    Notes
    -----
    The filters are the eigenvectors, with the largest eigenvalues, of the covariance of the patches after the mean of
    each patch and channel is removed: a one-layer PCANet [1]_.

    References
    ----------
    .. [1] T.-H. Chan et al., "PCANet: a simple deep learning baseline for image classification?", IEEE Transactions on
       Image Processing 24, 2015. doi:10.1109/TIP.2015.2475625

    Examples
    --------
    >>> import numpy as np
    >>> stripes = np.sin(np.arange(400.0)).reshape(400, 1)
    >>> bank = pca_patches([stripes], 2, 5, random_state=0)
    >>> bank.weight.shape, bank.names
    ((2, 5, 1), ('pca_0', 'pca_1'))
    """
    n_filters = as_int(n_filters, "n_filters", 1)
    kernel = as_tuple(kernel_size, None, "kernel_size", 1)
    patches = _sample_patches(images, kernel, dilation, n_patches, as_random_state(random_state))
    n, taps, channels = patches.shape
    pca = _fitted_pca(patches.reshape(n, taps * channels))
    # Removing means leaves eigenvalues that are zero up to rounding, whose vectors are arbitrary and no filters.
    variances = pca.explained_variance_
    _check_enough(n_filters, np.count_nonzero(variances > 1e-10 * variances[0]), "directions in which patches vary")
    weight = pca.components_[:n_filters].reshape(n_filters, *kernel, channels)
    return filter_bank(weight, [f"pca_{index}" for index in range(n_filters)])


def kmeans_patches(
    images: Iterable[ArrayLike],
    n_filters: int,
    kernel_size: Ints,
    *,
    dilation: Ints = 1,
    n_patches: int = 10_000,
    random_state: int | RandomState | None = None,
) -> FilterBank:
    """Return the centroids of whitened image patches as filters, with the whitening folded in.

    Parameters
    ----------
    images : sequence of array_like of shape (*spatial, channels)
        As for :func:`pca_patches`.
    n_filters : int
        At most `n_patches`; may exceed the number of taps.
    kernel_size : int or sequence of int
        As for :func:`pca_patches`.
    dilation : int or sequence of int, default=1
        As for :func:`pca_patches`.
    n_patches : int, default=10_000
        As for :func:`pca_patches`.
    random_state : int, RandomState instance or None, default=None
        Draws the positions and the first centroids.

    Returns
    -------
    bank : FilterBank
        Named "kmeans_0", "kmeans_1", ... Filters have unit norm and sum to zero on each channel.

    Raises
    ------
    TypeError
        If an image is not real, or a size is not an integer.
    ValueError
        If images have other shapes, are too small or not finite, or hold too few different patches.

    Notes
    -----
    With `x` the patches, less their mean on each channel, over ``sqrt(variance + 0.04 * mean variance)``, and the
    whitening ``W = (cov(x) + 0.1)**(-1/2)``, spherical k-means repeats [1]_::

        s_ij = <d_j, W x_i> for the j with the largest |<d_j, W x_i>|, else 0
        d_j  = normalised (d_j + sum_i s_ij W x_i)

    A filter is ``W d_j``, so its response to a patch is the inner product of centroid and whitened patch. Unlike plain
    k-means this counts a patch and its negative as one kind, so filters are not spent on both signs of a pattern.

    References
    ----------
    .. [1] A. Coates and A. Y. Ng, "Learning feature representations with k-means", Neural Networks: Tricks of the
       Trade, 2012. doi:10.1007/978-3-642-35289-8_30

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).normal(size=(64, 64, 3))
    >>> kmeans_patches([noise], 8, (3, 3), random_state=0).weight.shape
    (8, 3, 3, 3)
    """
    n_filters = as_int(n_filters, "n_filters", 1)
    kernel = as_tuple(kernel_size, None, "kernel_size", 1)
    rng = as_random_state(random_state)
    patches = _sample_patches(images, kernel, dilation, n_patches, rng)
    n, taps, channels = patches.shape
    variances = np.square(patches).mean(axis=(1, 2), keepdims=True)
    x = (patches / np.sqrt(variances + CONTRAST_FLOOR * variances.mean())).reshape(n, taps * channels)
    pca = _fitted_pca(x)
    whitening = (pca.components_.T / np.sqrt(pca.explained_variance_ + WHITENING_FLOOR)) @ pca.components_
    whitened = x @ whitening
    _check_enough(n_filters, np.count_nonzero(whitened.any(axis=1)), "patches that are not flat")
    filters = _spherical_kmeans(whitened, n_filters, rng) @ whitening

    filters = filters.reshape(n_filters, taps, channels)
    filters -= filters.mean(axis=1, keepdims=True)
    filters /= np.linalg.norm(filters, axis=(1, 2), keepdims=True)
    weight = filters.reshape(n_filters, *kernel, channels)
    return filter_bank(weight, [f"kmeans_{index}" for index in range(n_filters)])


def _fitted_pca(x: NDArray[np.float64]) -> PCA:
    with scikit_learn_alone():
        return PCA(svd_solver="covariance_eigh").fit(x)


def _spherical_kmeans(x: NDArray[np.float64], n_centroids: int, rng: RandomState) -> NDArray[np.float64]:
    """Return `n_centroids` unit vectors; `x` has shape (n_samples, n_features)."""
    # Starting from patches, not from noise, leaves no centroid without a patch; strong patches first, as in the sums.
    power = np.square(x).sum(axis=1)
    centroids = _unit_rows(x[rng.choice(len(x), n_centroids, replace=False, p=power / power.sum())])
    samples = np.arange(len(x))
    for _ in range(N_ITERATIONS):
        similarity = x @ centroids.T
        nearest = np.abs(similarity).argmax(axis=1)
        code = np.zeros_like(similarity)
        code[samples, nearest] = similarity[samples, nearest]
        centroids = _unit_rows(centroids + code.T @ x)
    return centroids


def _unit_rows(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _check_enough(n_filters: int, available: int | np.integer, what: str) -> None:
    if n_filters > available:
        raise ValueError(
            f"n_filters must be at most the number of {what}, but got {n_filters} and {available}; "
            "lower n_filters, raise n_patches, enlarge kernel_size, or give larger or more varied images"
        )


def _sample_patches(
    images: Iterable[ArrayLike], kernel: tuple[int, ...], dilation: Ints, n_patches: int, rng: RandomState
) -> NDArray[np.float64]:
    """Return patches of shape (n_patches, taps, channels) with zero mean over the taps of each channel."""
    dilations = as_tuple(dilation, len(kernel), "dilation", 1)
    n_patches = as_int(n_patches, "n_patches", 2)
    if math.prod(kernel) < 2:
        raise ValueError(f"kernel_size must have at least 2 taps, as the patch mean is removed, but got {kernel}")
    several = items_of(images)
    if several is None:
        raise TypeError(f"images must be a sequence of images, but got {images!r:.60}; wrap one image in a list")
    arrays = [as_array(image, f"images[{index}]") for index, image in enumerate(several)]
    grids = _check_images(arrays, kernel, dilations)

    ends = np.cumsum([math.prod(grid) for grid in grids])
    n = min(n_patches, int(ends[-1]))
    # The legacy RandomState draws without replacement by permuting all positions, which costs 8 bytes a pixel.
    generator = np.random.default_rng(rng.randint(np.iinfo(np.int32).max))
    chosen = np.sort(generator.choice(int(ends[-1]), n, replace=False, shuffle=False))

    patches = np.empty((n, math.prod(kernel), arrays[0].shape[-1]))
    cuts = np.searchsorted(chosen, ends)
    for image, grid, end, first, last in zip(arrays, grids, ends, [0, *cuts[:-1]], cuts, strict=True):
        corners = np.unravel_index(chosen[first:last] - (end - math.prod(grid)), grid)
        for index, tap in enumerate(np.ndindex(kernel)):
            pixels = tuple(corner + k * d for corner, k, d in zip(corners, tap, dilations, strict=True))
            patches[first:last, index] = image[pixels]
    if not np.isfinite(patches).all():
        raise ValueError("images must be finite, but hold NaN or infinity; fill such pixels first, as by np.nan_to_num")
    # Taking off the first tap before the mean makes flat patches exactly zero, where rounding would leave structure.
    patches -= patches[:, :1]
    patches -= patches.mean(axis=1, keepdims=True)
    if np.ptp(patches, axis=0).max() <= 1e-9 * np.abs(patches).max():
        raise ValueError("images must vary, but all patches are equal up to their mean; give images with structure")
    return patches


def _check_images(arrays: list[NDArray], kernel: tuple[int, ...], dilations: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the number of patch positions on each axis of each image."""
    if not arrays:
        raise ValueError("images must hold at least one image, but got none")
    grids = []
    for index, array in enumerate(arrays):
        real_dtype(array, f"images[{index}]")
        if array.ndim != len(kernel) + 1:
            raise ValueError(
                f"images[{index}] must have shape (*spatial, channels) with {len(kernel)} spatial axes, as "
                f"kernel_size={kernel} has, but got {array.shape}; wrap one image in a list, and give grey images "
                "a last axis of size 1"
            )
        if array.shape[-1] != arrays[0].shape[-1] or array.shape[-1] == 0:
            raise ValueError(
                f"images must have the same number of channels, at least 1, but images[0] has {arrays[0].shape[-1]} "
                f"and images[{index}] has {array.shape[-1]}"
            )
        try:
            grids.append(conv_shape(array.shape[:-1], kernel, dilation=dilations))
        except ValueError:
            raise ValueError(
                f"images[{index}] has shape {array.shape}, but a patch of kernel_size={kernel} at dilation={dilations} "
                f"spans {span(kernel, dilations)} samples; lower them, or leave out such images"
            ) from None
    if sum(map(math.prod, grids)) < 2:
        raise ValueError(f"images must hold at least 2 patches of kernel_size={kernel}, but hold 1; give larger images")
    return grids
