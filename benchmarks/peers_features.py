"""Features that others use for pixel classification, of one image (*spatial, [channels]): the baselines' side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.feature import hessian_matrix_eigvals, multiscale_basic_features

from dconv._threads import default_n_threads

ILASTIK_SIGMAS = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)


def skimage_features(image: np.ndarray, channel_axis: int | None) -> np.ndarray:
    """Return scikit-image's features: intensity, edges and texture at sigma 1, 2, 4, 8, 16."""
    return multiscale_basic_features(
        image, sigma_min=1, sigma_max=16, channel_axis=channel_axis, workers=default_n_threads()
    )


def ilastik_like_features(image: np.ndarray, channel_axis: int | None) -> np.ndarray:
    """Return ilastik's features at its default scales, of each channel, computed with scipy.ndimage."""
    channels = [image] if channel_axis is None else np.moveaxis(image, channel_axis, 0)
    return np.stack([plane for channel in channels for plane in _planes(np.asarray(channel, np.float32))], axis=-1)


def _planes(x: np.ndarray) -> Iterator[np.ndarray]:
    axes = np.eye(x.ndim, dtype=int)
    pairs = list(itertools.combinations_with_replacement(range(x.ndim), 2))  # xx, xy, yy as skimage orders them
    for sigma in ILASTIK_SIGMAS:
        smooth = gaussian_filter(x, sigma)
        yield smooth
        if sigma == ILASTIK_SIGMAS[0]:
            continue  # ilastik offers smoothing only at its finest scale
        gradient = [gaussian_filter(x, sigma, order=order) for order in axes]
        hessian = [gaussian_filter(x, sigma, order=axes[i] + axes[j]) for i, j in pairs]
        # ilastik's own ratios: the second Gaussian of DoG, and the window of the structure tensor
        tensor = [gaussian_filter(gradient[i] * gradient[j], 0.5 * sigma) for i, j in pairs]
        yield sum(plane for plane, (i, j) in zip(hessian, pairs, strict=True) if i == j)  # Laplacian of Gaussian
        yield np.sqrt(sum(plane**2 for plane in gradient))
        yield smooth - gaussian_filter(x, 0.66 * sigma)
        yield from hessian_matrix_eigvals(tensor)
        yield from hessian_matrix_eigvals(hessian)
