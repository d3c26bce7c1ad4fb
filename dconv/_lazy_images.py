"""Images that are read where they lie, piece by piece: NumPy arrays, memory maps, Zarr, HDF5, whatever slices.

The engine works on images as arrays (*spatial, channels) of which it reads boxes. A :class:`LazyImage` shows any array
in this way, a :class:`Window` serves the same image from a part that has been read already, and :class:`RowBands`
serves it to whoever goes through it row by row, without reading the chunks of a file once for every row.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dconv._boxes import within
from dconv._pixels import Block
from dconv._validation import real_dtype

_BAND_BYTES = 1 << 26


class LazyImage:
    """An image (*spatial, channels) whose pixels are read when it is sliced."""

    def __init__(self, array: Any, channel_axis: int | None) -> None:
        self._array = array
        sizes = [int(size) for size in array.shape]
        self._channel_axis = None if channel_axis is None else channel_axis % len(sizes)
        n_channels = 1 if self._channel_axis is None else sizes.pop(self._channel_axis)
        self.shape = (*sizes, n_channels)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return what an index of ints and slices of step 1 picks, as NumPy does."""
        key = key if isinstance(key, tuple) else (key,)
        key = key + (slice(None),) * (self.ndim - len(key))
        box = [
            slice(*part.indices(size)[:2]) if isinstance(part, slice) else slice(int(part) % size, int(part) % size + 1)
            for part, size in zip(key, self.shape, strict=True)
        ]
        picked = self._read(tuple(box[:-1]))
        spatial = (slice(None) if isinstance(part, slice) else 0 for part in key[:-1])
        return picked[(*spatial, key[-1])]

    @property
    def chunk_rows(self) -> int:
        """Rows along the first spatial axis that the source stores together."""
        chunks = getattr(self._array, "chunks", None)
        if not isinstance(chunks, tuple) or len(chunks) != len(self._array.shape) or not isinstance(chunks[0], int):
            return 1
        return int(chunks[1 if self._channel_axis == 0 else 0])

    def _read(self, box: Block) -> np.ndarray:
        """Return the pixels of a box of pixels (*box, channels)."""
        where = box
        if self._channel_axis is not None:
            where = (*box[: self._channel_axis], slice(None), *box[self._channel_axis :])
        try:
            part = np.asarray(self._array[where])
        except Exception as error:
            place = ", ".join(f"{each.start}:{each.stop}" for each in box)
            raise OSError(f"block [{place}] of source cannot be read: {type(error).__name__}: {error}") from error
        return part[..., np.newaxis] if self._channel_axis is None else np.moveaxis(part, self._channel_axis, -1)


class Window:
    """An image of which the pixels of `box` are there, the others are read from `image`, if there is one."""

    def __init__(self, shape: tuple[int, ...], box: Block, pixels: np.ndarray, image: LazyImage | None) -> None:
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


class RowBands:
    """The same image for one reader that goes from its first row to its last: bands of rows are kept, one at a time."""

    def __init__(self, image: LazyImage) -> None:
        self._image = image
        self.shape, self.dtype, self.ndim, self.size = image.shape, image.dtype, image.ndim, image.size
        rows = max(1, _BAND_BYTES // (math.prod(image.shape[1:]) * image.dtype.itemsize))
        chunk = image.chunk_rows
        self._n_rows = rows // chunk * chunk if rows >= chunk else rows
        self._start, self._band = 0, np.empty(0)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if not isinstance(key, slice):
            return self._image[key]
        start, stop, _ = key.indices(len(self))
        if start < self._start or stop > self._start + len(self._band):
            whole = (start // self._n_rows + 1) * self._n_rows
            self._start, self._band = start, self._image[start : max(stop, whole)]
        return self._band[start - self._start : stop - self._start]

    def bands(self) -> Iterator[np.ndarray]:
        """Yield all rows, in order."""
        for start in range(0, len(self), self._n_rows):
            yield self[start : start + self._n_rows]


def digest_of_image(image: RowBands) -> str:
    """Return a hash of the shape, dtype and pixels of an image, which does not depend on how it is stored."""
    found = hashlib.blake2b(f"{image.shape} {image.dtype.str}".encode(), digest_size=16)
    for band in image.bands():
        found.update(np.ascontiguousarray(band).data.cast("B"))
    return found.hexdigest()


def as_lazy_image(source: Any, ndim: int, channel_axis: int | None) -> LazyImage:
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
    return LazyImage(source, channel_axis)
