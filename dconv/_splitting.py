"""Objects that touch, taken apart: where a connected region has a neck, it becomes the basins on either side of it.

What a region is made of is said by a *height* that is larger in the middle of each body than in the necks: by default
the distance to what does not belong to the region. Each body has a marker, its summit; two summits whose pass is
nearly as high as the lower of them are of one body. The watershed from the markers gives every pixel of the region to
one of them.

Every region is split by itself: nothing of another one has a part in it. So many regions may be given, or one in its
box, and each comes out the same.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed


def split_regions(
    regions: np.ndarray, neck: float, min_size: int, connectivity: int, height: np.ndarray | None = None
) -> np.ndarray:
    """Return the parts of connected regions, numbered from 1; 0 is no region.

    Parameters
    ----------
    regions : ndarray of int, of shape (*spatial)
        The number of the region of each pixel, 0 where there is none. Each is connected, and different ones do not
        touch. Boxes of an image must hold the pixels around the regions, as far as the image goes.
    neck : float
        Between 0 and 1: two bodies are parted where the pass between them is at most this share of the lower summit.
    min_size : int
        Parts of fewer pixels are not made: what would be one is shared by those beside it.
    connectivity : int
        As in :func:`skimage.measure.label`, and what the regions are connected by.
    height : ndarray of float, default=None
        Positive inside of regions. None is the distance to the nearest pixel outside.
    """
    inside = regions > 0
    if height is None:
        if inside.all():
            return inside.astype(np.int32)  # all the image is one region, which no pixel has a distance to leave
        height = ndimage.distance_transform_edt(inside)
    markers = _summits(height, inside, neck, connectivity)
    parts = _renumbered(regions)
    n = int(parts.max())
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        region = parts[box] == number
        own = np.where(region, markers[box], 0)
        if len(np.unique(own[own > 0])) < 2:
            continue
        # Each by itself, not only for speed: among summits of one height the watershed's order is that of its heap.
        split = _flood(height[box], own, region, min_size, connectivity)
        parts[box] = np.where(split > 1, split - 1 + n, parts[box])
        n += int(split.max()) - 1
    return parts


def _flood(height: np.ndarray, markers: np.ndarray, region: np.ndarray, min_size: int, connectivity: int) -> np.ndarray:
    """Return the basins of the markers in one region, numbered from 1, none of them smaller than `min_size`."""
    markers = _renumbered(markers)
    parts = watershed(-height, markers, connectivity=connectivity, mask=region)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = sizes >= min_size
    large[sizes.argmax()] = True
    large[0] = True
    if large.all():
        return parts
    # Sizes only grow where markers go, so that once is enough.
    left = _renumbered(np.where(large[markers], markers, 0))
    return watershed(-height, left, connectivity=connectivity, mask=region)


def _summits(height: np.ndarray, inside: np.ndarray, neck: float, connectivity: int) -> np.ndarray:
    """Return one marker, a connected set of pixels, for every summit that stands out from those beside it."""
    # Ratios of heights are differences of their logarithms. Outside lies below all, so that nothing leads through it.
    level = np.log(height, where=inside, out=np.zeros(height.shape))
    floor = level.min(where=inside, initial=0) + math.log(neck) - 1
    seed = np.where(inside, level + math.log(neck), floor)
    footprint = ndimage.generate_binary_structure(height.ndim, connectivity)
    filled = reconstruction(seed, np.where(inside, level, floor), footprint=footprint)
    return label(local_maxima(filled, footprint=footprint) & inside, connectivity=connectivity)


def _renumbered(labels: np.ndarray) -> np.ndarray:
    """Return labels numbered from 1 without gaps, in their order; 0 stays."""
    numbers, dense = np.unique(labels, return_inverse=True)
    return dense.reshape(labels.shape) + int(numbers[0] > 0)
