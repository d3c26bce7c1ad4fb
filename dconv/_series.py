"""Collections of series or images at the door of an estimator that takes many: checks, missing values, blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dconv._validation import LARGEST, as_array, real_dtype

_BLOCK = 1 << 21  # samples that are looked at, converted and worked on together; bounds memory


class Block(NamedTuple):
    """Some images of a collection, one after another.

    Attributes
    ----------
    first : int
        Where they begin in the collection.
    samples : ndarray of shape (n_samples, n_channels)
        float32.
    places : ndarray of shape (n_images, 4)
        int64: the first sample of each image, its rows and its columns (a series has one row), and its number.
    """

    first: int
    samples: np.ndarray
    places: np.ndarray


class Collection(NamedTuple):
    """What a user passed as `X`: many series (`ndim` 1) or images (2), with channels last.

    Attributes
    ----------
    arrays : ndarray of shape (n, *spatial, channels), or list of ndarray of shape (*spatial, channels)
        Views of the user's data, in its own dtype.
    ndim : int
        Spatial axes.
    """

    arrays: np.ndarray | list[np.ndarray]
    ndim: int

    @property
    def n_channels(self) -> int:
        """Channels of every image (all have the same number)."""
        return self.arrays[0].shape[-1]

    @property
    def sizes(self) -> np.ndarray:
        """Rows and columns of every image, int64 of shape (n, 2)."""
        of_same_size = isinstance(self.arrays, np.ndarray)
        shapes = [array.shape[:-1] for array in (self.arrays[:1] if of_same_size else self.arrays)]
        sizes = np.pad(np.array(shapes, np.int64), ((0, 0), (2 - self.ndim, 0)), constant_values=1)
        return np.broadcast_to(sizes, (len(self.arrays), 2))

    def check(self, missing: str) -> None:
        """Check that values are finite and at most `LARGEST`, but for NaN where `missing` is "interpolate"."""
        for first, stop in self._parts():
            for index, array in zip(range(first, stop), self._doubtful(first, stop), strict=False):
                _check_values(array, index, missing)

    def blocks(self, missing: str) -> Iterator[Block]:
        """Yield all images, in blocks."""
        for first, stop in self._parts():
            yield self._block(first, self.arrays[first:stop], self.sizes[first:stop], missing)

    def take(self, indices: np.ndarray, missing: str) -> Block:
        """Return the images with these numbers, each once, and as many places as numbers."""
        unique, which = np.unique(indices, return_inverse=True)
        arrays = self.arrays[unique] if isinstance(self.arrays, np.ndarray) else [self.arrays[i] for i in unique]
        block = self._block(0, arrays, self.sizes[unique], missing)
        return block._replace(places=block.places[which])

    def _block(self, first: int, arrays: np.ndarray | list[np.ndarray], sizes: np.ndarray, missing: str) -> Block:
        if missing == "interpolate" and not (isinstance(arrays, np.ndarray) and _usable(arrays)):
            arrays = [_interpolated(array) for array in arrays]
        flat = [arrays] if isinstance(arrays, np.ndarray) else arrays
        flat = [np.asarray(array, np.float32).reshape(-1, self.n_channels) for array in flat]
        ends = np.cumsum(sizes.prod(axis=1))
        places = np.empty((len(sizes), 4), np.int64)
        places[:, 0], places[:, 1:3], places[:, 3] = ends - sizes.prod(axis=1), sizes, np.arange(len(sizes))
        return Block(first, np.ascontiguousarray(flat[0] if len(flat) == 1 else np.concatenate(flat)), places)

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Yield (first, stop) of images that hold about `_BLOCK` samples together, at least one image."""
        ends = np.cumsum(self.sizes.prod(axis=1) * self.n_channels)
        first = 0
        while first < len(ends):
            before = ends[first - 1] if first else 0
            stop = max(first + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
            yield first, stop
            first = stop

    def _doubtful(self, first: int, stop: int) -> Iterable[np.ndarray]:
        """Return the images to look at: none if one look at all of them finds every value usable."""
        arrays = self.arrays[first:stop]
        return () if isinstance(arrays, np.ndarray) and _usable(arrays) else arrays


def as_collection(X: Any, ndim: int) -> Collection:
    """Return `X`, an array or a list of series or images, with or without channels last, as a :class:`Collection`.

    Raises
    ------
    TypeError
        If values are no real numbers, or masked.
    ValueError
        If the rank is wrong, an axis is empty, or the number of channels differs.
    """
    one = "series" if ndim == 1 else "image"
    axes = "(length[, channels])" if ndim == 1 else "(height, width[, channels])"
    if isinstance(X, list | tuple):
        if not X:
            raise ValueError(f"X is an empty list; pass at least one {one}")
        arrays = [as_array(each, f"X[{index}]") for index, each in enumerate(X)]
        for index, array in enumerate(arrays):
            real_dtype(array, f"X[{index}]")
            if array.ndim not in (ndim, ndim + 1):
                raise ValueError(
                    f"X[{index}] has shape {array.shape}, but with ndim={ndim} each {one} of a list has the axes {axes}"
                )
            _check_not_empty(array, f"X[{index}]")
        ranks, channels = [a.ndim for a in arrays], [a.shape[ndim:] for a in arrays]
        if len(set(channels)) > 1:
            odd = next(index for index, each in enumerate(channels) if each != channels[0])
            raise ValueError(
                f"all of X must have the same number of channels, but X[0] has shape {arrays[0].shape} and X[{odd}] "
                f"has {arrays[odd].shape}; the axes are {axes}"
            )
        return Collection([a[..., np.newaxis] for a in arrays] if ranks[0] == ndim else arrays, ndim)
    array = as_array(X, "X")
    real_dtype(array, "X")
    if array.ndim not in (ndim + 1, ndim + 2):
        remedy = f"; for a single {one} pass [X]" if array.ndim == ndim else ""
        raise ValueError(
            f"X has shape {array.shape}, but with ndim={ndim} an array has the axes (n, {axes[1:]}{remedy}"
        )
    _check_not_empty(array, "X")
    return Collection(array[..., np.newaxis] if array.ndim == ndim + 1 else array, ndim)


def _check_not_empty(array: np.ndarray, name: str) -> None:
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: an axis of size 0 holds no values")


def _usable(array: np.ndarray) -> bool:
    """Whether all values are finite and at most `LARGEST`: NaN is the minimum and the maximum."""
    if array.dtype.kind != "f" and array.dtype.itemsize < 8:
        return True
    return bool(float(array.min()) >= -LARGEST and float(array.max()) <= LARGEST)


def _check_values(array: np.ndarray, index: int, missing: str) -> None:
    """Check one image."""
    if _usable(array):
        return
    with np.errstate(over="ignore"):
        size = np.abs(array.astype(np.float64))
    holes = np.isnan(size)
    bad = ~(size <= LARGEST) & ~(holes & (missing == "interpolate"))
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        value = array[place]
        remedy = f"features are float32 and need values up to {LARGEST:g}: rescale them"
        if np.isnan(value):
            remedy = 'pass missing="interpolate", or fill such values'
        elif np.isinf(value):
            remedy = "features need finite numbers: replace such values"
        name = "NaN" if np.isnan(value) else value
        raise ValueError(f"X[{index}] holds {name} at (*position, channel) {place}; {remedy}")
    lost = holes.all(axis=tuple(range(array.ndim - 1)))
    if lost.any():
        raise ValueError(
            f"X[{index}] holds nothing but NaN in channel {int(lost.argmax())}: there is nothing to interpolate between"
        )


def _interpolated(array: np.ndarray) -> np.ndarray:
    """Return an image without NaN, which is filled along the last spatial axis, then along the first where that cannot.

    Between two numbers of a line the straight line is taken, before the first and behind the last the nearest number.
    """
    if _usable(array):
        return array
    array = np.array(array)
    for axis in reversed(range(array.ndim - 1)):
        lines = np.moveaxis(array, axis, -1)
        for line in np.ndindex(lines.shape[:-1]):
            holes = np.isnan(lines[line])
            if holes.any() and not holes.all():
                places = np.arange(holes.size)
                lines[line][holes] = np.interp(places[holes], places[~holes], lines[line][~holes])
    return array
