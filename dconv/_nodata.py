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
from dconv._boxes import grown, moved, within
from dconv._pixels import Block, masked_boxes
from dconv._validation import Images, as_masks

_N_SCALES = 5  # of dilations 1, 2, 4, ...: the first at which a valid pixel is seen fills; then the mean does
_B3 = np.array([1, 4, 6, 4, 1]) / 16
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
        self._image, self.valid, self.given_dtype = image, valid, image.dtype
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
        filled, missing = values.copy(), ~valid
        for n_scales in range(1, _N_SCALES + 1):
            # Again from the first scale, but only around what is still missing, which is less and less: most swaths
            # are narrow.
            (place,) = masked_boxes(missing, [tuple(slice(0, size) for size in missing.shape)])
            seen, found = self._normalized_convolution(moved(place, tuple(box)), n_scales)
            seen &= missing[place]
            filled[place][seen] = found[seen]
            missing[place] &= ~seen
            if not missing.any():
                return filled
        filled[missing] = self._mean
        return filled

    def _normalized_convolution(self, box: Block, n_scales: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which pixels of a box see a valid one through `n_scales` steps of the pyramid, and what they see."""
        reach = 2 * (2**n_scales - 1)
        around = grown(box, ((reach, reach),) * len(box), 1, self.valid.shape)
        inside = within(box, around)
        known = self.valid[around]
        source = np.where(known[..., np.newaxis], np.asarray(self._image[around], np.float64), 0.0)
        planes = [known.astype(np.float64), *np.moveaxis(source, -1, 0)]
        for scale in range(n_scales):
            planes = [_smoothed(plane, 2**scale) for plane in planes]
        weight, *sums = (plane[inside] for plane in planes)
        seen = weight > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            return seen, np.stack([plane / weight for plane in sums], axis=-1)

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


def whole(image: Any) -> np.ndarray:
    """Return an image as an array of the user's own dtype, filled where it has no data."""
    if not isinstance(image, Infilled):
        return np.asarray(image)
    filled, dtype = np.asarray(image), image.given_dtype
    return np.rint(filled).astype(dtype) if dtype.kind in "bui" else filled.astype(dtype, copy=False)


def as_given(images: Images, channel_axis: int | None) -> Any:
    """Return filled images as the user gave them: one, a batch or a list, with their axes."""
    arrays = [whole(image) for image in images.arrays]
    arrays = [image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis) for image in arrays]
    if images.kind == "list":
        return arrays
    return arrays[0] if images.kind == "image" else np.stack(arrays)
