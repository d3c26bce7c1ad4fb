"""Images with pixels that hold nothing: clouds, missing swaths, what lies outside of a scan.

Such a pixel gets a value from the valid ones around it, by normalized convolution, before any feature is computed: so
the features of its neighbours hardly see it, and nothing behind has to know. It is filled when it is read, block by
block, from pixels at a bounded distance, so that an image of any size can have some, and is the same in every block.

Reference: H. Knutsson and C.-F. Westin, "Normalized and differential convolution", CVPR 1993,
doi:10.1109/CVPR.1993.341081.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from dconv._axes import as_int
from dconv._validation import Images, as_masks

_N_SCALES = 5  # of dilations 1, 2, 4, ...: the first at which a valid pixel is seen fills
_B3 = np.array([1, 4, 6, 4, 1]) / 16
_REACH = 2 * (2**_N_SCALES - 1)  # pixels; farther from all valid ones it is the mean of the image
_CHUNK = 1 << 20  # samples looked at together


class Infilled:
    """An image (*spatial, channels) to read blocks from as from an array, with values in the place of invalid pixels.

    Parameters
    ----------
    image : ndarray of shape (*spatial, channels)
        Maybe a memory map.
    valid : ndarray of bool of shape spatial
        Which pixels count.
    """

    def __init__(self, image: np.ndarray, valid: np.ndarray) -> None:
        self._image, self.valid = image, valid
        self.shape, self.ndim, self.size = image.shape, image.ndim, image.size
        self.dtype = np.dtype(np.float64 if image.dtype == np.float64 else np.float32)
        self.nbytes = self.size * self.dtype.itemsize
        self._mean = self._mean_of_valid()

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._filled([slice(0, size) for size in self.shape[:-1]]), dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        box: list[slice] = []
        inner: list[Any] = []
        for axis, size in enumerate(self.shape[:-1]):
            part = key[axis] if axis < len(key) else slice(None)
            if isinstance(part, slice) and (part.step is None or part.step > 0):
                start, stop, step = part.indices(size)
                box.append(slice(start, max(start, stop)))
                inner.append(slice(None, None, step))
            elif isinstance(part, int | np.integer) and -size <= part < size:
                box.append(slice(part % size, part % size + 1))
                inner.append(0)
            else:  # what is not read block by block
                return np.asarray(self)[key]
        return self._filled(box)[(*inner, *key[len(box) :])]

    def _filled(self, box: Sequence[slice]) -> np.ndarray:
        """Return the pixels of a box, those that are invalid filled."""
        valid = self.valid[tuple(box)]
        values = np.asarray(self._image[tuple(box)], self.dtype)
        if valid.all():
            return values
        pairs = zip(box, self.valid.shape, strict=True)
        around = [slice(max(0, part.start - _REACH), min(size, part.stop + _REACH)) for part, size in pairs]
        inside = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True))
        known = self.valid[tuple(around)]
        source = np.asarray(self._image[tuple(around)], np.float64)
        weight = known.astype(np.float64)
        planes = [np.where(known, source[..., channel], 0.0) for channel in range(self.shape[-1])]
        filled, missing = values.copy(), ~valid
        for scale in range(_N_SCALES):
            weight = _smoothed(weight, 2**scale)
            planes = [_smoothed(plane, 2**scale) for plane in planes]
            seen = missing & (weight[inside] > 0)
            for channel, plane in enumerate(planes):
                filled[seen, channel] = plane[inside][seen] / weight[inside][seen]
            missing &= ~seen
        filled[missing] = self._mean
        return filled

    def _mean_of_valid(self) -> np.ndarray:
        """Return the mean of every channel over the valid pixels, summed in the order of the image."""
        n_rows = max(1, _CHUNK // max(1, math.prod(self.shape[1:])))
        sums = [
            np.asarray(self._image[i : i + n_rows], np.float64)[self.valid[i : i + n_rows]].sum(axis=0)
            for i in range(0, len(self), n_rows)
        ]
        return np.sum(sums, axis=0) / max(1, np.count_nonzero(self.valid))


def _smoothed(plane: np.ndarray, dilation: int) -> np.ndarray:
    """Return one step of the a trous pyramid, beyond the border of zeros."""
    taps = np.zeros(4 * dilation + 1)
    taps[::dilation] = _B3
    for axis in range(plane.ndim):
        plane = ndimage.correlate1d(plane, taps, axis=axis, mode="constant")
    return plane


def as_nodata(nodata: Any) -> int | None:
    """Return `nodata`, which must be None or an int."""
    return None if nodata is None else as_int(nodata, "nodata", rule="None or an int")


def fill_nodata(images: Images, mask: Any, nodata: int | None) -> Images:
    """Return images in which pixels that are NaN, in any channel, or outside of `mask` are filled when they are read.

    Without `nodata` there are no such pixels: a mask is refused, and a NaN will be where values are checked.
    """
    if nodata is None:
        if mask is not None:
            raise ValueError(
                "mask tells which pixels hold data, but nodata=None; give the label of those that do not, as nodata=-1"
            )
        return images
    masks = [None] * len(images.arrays) if mask is None else as_masks(mask, images)
    arrays = [_infilled(image, of_image) for image, of_image in zip(images.arrays, masks, strict=True)]
    return images._replace(arrays=arrays)


def _infilled(image: np.ndarray, mask: np.ndarray | None) -> Any:
    valid = np.ones(image.shape[:-1], bool) if mask is None else mask.copy()
    if image.dtype.kind == "f":
        n_rows = max(1, _CHUNK // max(1, math.prod(image.shape[1:])))
        for start in range(0, len(image), n_rows):
            valid[start : start + n_rows] &= ~np.isnan(image[start : start + n_rows]).any(axis=-1)
    return image if valid.all() else Infilled(image, valid)


def valid_pixels(image: Any) -> np.ndarray | None:
    """Return which pixels of an image hold data, None if all do."""
    return getattr(image, "valid", None)


def as_given(images: Images, channel_axis: int | None) -> list[np.ndarray]:
    """Return filled images as whole arrays, their axes as the user has them."""
    arrays = [np.asarray(image) for image in images.arrays]
    return [image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis) for image in arrays]
