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
from dconv._lazy_arrays import Derived, box_of, engine_of, map_rows
from dconv._pixels import Block, masked_boxes
from dconv._validation import Images, as_masks

_N_SCALES = 5  # of dilations 1, 2, 4, ...: the first at which a valid pixel is seen fills; then the mean does
_B3 = np.array([1, 4, 6, 4, 1]) / 16
REACH = 2 * (2**_N_SCALES - 1)  # pixels around a box that the values of its invalid ones may come from
_CHUNK = 1 << 20  # samples looked at together


class Infilled:
    """An image (*spatial, channels) to read blocks from as from an array, with values in the place of invalid pixels.

    Parameters
    ----------
    source : array of shape (*spatial, channels)
        An ndarray, or what is read when it is sliced.
    valid : array of bool of shape spatial
        Which pixels count; likewise.
    n_valid : int
        How many these are.
    mean : ndarray of shape (channels,)
        Theirs.
    """

    def __init__(self, source: Any, valid: Any, n_valid: int, mean: np.ndarray) -> None:
        self.source, self.valid, self.n_valid, self.mean = source, valid, n_valid, mean
        self.given_dtype = source.dtype
        self.shape, self.ndim, self.size = source.shape, source.ndim, source.size
        self.dtype = np.dtype(np.float64 if source.dtype == np.float64 else np.float32)
        self.nbytes = self.size * self.dtype.itemsize
        self.known: dict[str, Any] = {}  # as a LazyArray has it

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._filled(tuple(slice(0, size) for size in self.shape[:-1])), dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        found = box_of(key, self.shape)
        if found is None:  # what is not read block by block
            return np.asarray(self)[key]
        (*box, channels), (*inner, within_channels) = found
        return self._filled(tuple(box))[..., channels][(*inner, within_channels)]

    def over(self, source: Any, mask: Any) -> Infilled:
        """Return the same image, read from another source, and another mask or None."""
        return Infilled(source, valid_of(source, mask), self.n_valid, self.mean)

    def _filled(self, box: Block) -> np.ndarray:
        """Return the pixels of a box, those that are invalid filled."""
        valid = self.valid[box]
        values = np.asarray(self.source[box], self.dtype)
        if valid.all():
            return values
        filled, missing = values.copy(), ~valid
        for n_scales in range(1, _N_SCALES + 1):
            # Again from the first scale, but only around what is still missing, which is less and less: most swaths
            # are narrow.
            (place,) = masked_boxes(missing, [tuple(slice(0, size) for size in missing.shape)])
            seen, found = self._normalized_convolution(moved(place, box), n_scales)
            seen &= missing[place]
            filled[place][seen] = found[seen]
            missing[place] &= ~seen
            if not missing.any():
                return filled
        filled[missing] = self.mean
        return filled

    def _normalized_convolution(self, box: Block, n_scales: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which pixels of a box see a valid one through `n_scales` steps of the pyramid, and what they see."""
        reach = 2 * (2**n_scales - 1)
        around = grown(box, ((reach, reach),) * len(box), 1, self.shape[:-1])
        inside = within(box, around)
        known = self.valid[around]
        source = np.where(known[..., np.newaxis], np.asarray(self.source[around], np.float64), 0.0)
        planes = [known.astype(np.float64), *np.moveaxis(source, -1, 0)]
        for scale in range(n_scales):
            planes = [_smoothed(plane, 2**scale) for plane in planes]
        weight, *sums = (plane[inside] for plane in planes)
        seen = weight > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            return seen, np.stack([plane / weight for plane in sums], axis=-1)


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
    arrays = [infilled(image, of_image) for image, of_image in zip(images.arrays, masks, strict=True)]
    return images._replace(arrays=arrays)


def infilled(image: Any, mask: Any) -> Any:
    """Return an image with its pixels filled that are NaN, in any channel, or not in `mask`; itself if there are none.

    Both are looked at once, from the first row to the last.
    """
    valid = valid_of(image, mask)
    if not valid.sources:
        return image
    sums = list(map_rows(sums_of_valid, rows_summed(image.shape), image, valid))
    n_valid, mean = joined(sums)
    return image if n_valid == math.prod(image.shape[:-1]) else Infilled(image, valid, n_valid, mean)


def valid_of(image: Any, mask: Any) -> Derived:
    """Return which pixels of an image hold data; without sources if all must."""
    sources = (image if image.dtype.kind == "f" else None, mask)
    return Derived(_valid, image.shape[:-1], *(sources if any(each is not None for each in sources) else ()))


def _valid(pixels: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
    if pixels is None:
        return np.asarray(mask)
    known = ~np.isnan(pixels).any(axis=-1)
    return known if mask is None else known & mask


def rows_summed(shape: Sequence[int]) -> int:
    """Return how many rows of an image of `shape` (*spatial, channels) are summed together."""
    return max(1, _CHUNK // max(1, math.prod(shape[1:])))


def sums_of_valid(start: int, rows: np.ndarray, valid: np.ndarray) -> tuple[int, np.ndarray]:
    """Return how many pixels of some rows are valid, and their sum."""
    return int(np.count_nonzero(valid)), np.asarray(rows, np.float64)[valid].sum(axis=0)


def joined(sums: Sequence[tuple[int, np.ndarray]]) -> tuple[int, np.ndarray]:
    """Return how many pixels of an image are valid, and their mean, from the sums of all rows in their order."""
    n_valid = sum(n for n, _ in sums)
    return n_valid, np.sum([each for _, each in sums], axis=0) / max(1, n_valid)


def valid_pixels(image: Any) -> Any:
    """Return which pixels of an image hold data, None if all do."""
    return getattr(image, "valid", None)


def blank(answers: np.ndarray, valid: Any, value: Any) -> None:
    """Write `value` where pixels are not valid."""

    def write(start: int, of_rows: np.ndarray) -> None:
        answers[start : start + len(of_rows)][~of_rows] = value

    for _ in map_rows(write, rows_summed(valid.shape), valid):
        pass


def whole(image: Any) -> np.ndarray:
    """Return an image as an array of the user's own dtype, filled where it has no data.

    Raises
    ------
    ValueError
        If it lies elsewhere.
    """
    if engine_of(image) is not None:
        raise ValueError(
            "features that are computed of whole images, or learnt from them, would bring them all here: use "
            "AtrousFeatures or DilatedConv, and CustomFeatures of a function with a halo"
        )
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
