"""Images that are read where they lie: one as an array (*spatial, channels), and the parts of one that were read.

A :class:`Window` serves an image from a part that has been read already, so that what is worked on block by block is
read in larger pieces, each once.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from dconv._boxes import within
from dconv._lazy_arrays import LazyArray, RowBands, from_array
from dconv._pixels import Block
from dconv._validation import Images, as_masks, real_dtype


class Window:
    """An image of which the pixels of `box` are there, the others are read from `image`, if there is one."""

    def __init__(self, shape: tuple[int, ...], box: Block, pixels: np.ndarray, image: Any) -> None:
        self.shape, self.dtype, self.ndim, self.size = shape, pixels.dtype, len(shape), math.prod(shape)
        self._box, self._pixels, self._image = box, pixels, image

    def __getitem__(self, key: Any) -> np.ndarray:
        n_axes = len(self._box)
        if isinstance(key, tuple) and len(key) == n_axes and all(isinstance(part, slice) for part in key):
            wanted = tuple(slice(*part.indices(size)[:2]) for part, size in zip(key, self.shape, strict=False))
            inside = zip(wanted, self._box, strict=True)
            if all(a.start >= b.start and a.stop <= b.stop for a, b in inside):
                return self._pixels[within(wanted, self._box)]
        if self._image is None:
            raise ValueError(f"pixels {key} lie outside of those that were read, {self._box}")
        return self._image[key]


def digest_of_array(image: LazyArray) -> str:
    """Return a hash of the shape, dtype and values of an array, which does not depend on how it is stored."""
    found = hashlib.blake2b(f"{image.shape} {image.dtype.str}".encode(), digest_size=16)
    for band in RowBands(image).bands():
        found.update(np.ascontiguousarray(band).data.cast("B"))
    return found.hexdigest()


def as_lazy_image(source: Any, ndim: int, channel_axis: int | None) -> LazyArray:
    """Return one image of `ndim` spatial axes that is read when it is sliced.

    Raises
    ------
    TypeError
        If `source` has no shape and dtype, masked pixels, or a dtype that is not real.
    ValueError
        If it has another number of axes, or no pixels.
    """
    if not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
        raise TypeError(
            f"source must be an array that slices (NumPy, memory map, Zarr, HDF5), got {type(source).__name__}"
        )
    if np.ma.is_masked(source):
        raise TypeError("source holds masked pixels, and the mask would be ignored: pass source.filled(value)")
    real_dtype(source, "source")
    n_axes = ndim + (channel_axis is not None)
    if len(source.shape) != n_axes:
        raise ValueError(
            f"source has {len(source.shape)} axes {tuple(source.shape)}, but the estimator was fitted with ndim={ndim} "
            f"and channel_axis={channel_axis}, by which one image has {n_axes} axes; pass the images of a batch one "
            "after another"
        )
    if 0 in source.shape:
        raise ValueError(f"source has shape {tuple(source.shape)}: an axis of size 0 holds no pixels")
    return from_array(source, "source").channels_last(channel_axis)


def as_lazy_mask(mask: Any, image: LazyArray) -> LazyArray:
    """Return the mask of an image, which is read when it is sliced."""
    (found,) = as_masks(mask, Images([image], "image"))
    return found if isinstance(found, LazyArray) else from_array(found, "mask")
