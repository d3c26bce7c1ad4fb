"""How bright images are, how much that varies, and how much of it is colour: what features are scaled by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dconv._lazy_arrays import map_rows
from dconv._nodata import valid_pixels

_CHUNK = 1 << 18  # samples that are looked at together, so that no image is copied whole
_PIECE = 1 << 14  # pixels that are summed together, in a near cache
_NEGLIGIBLE = 0.01  # variance of colour, relative to that of the intensity
# More is faint if it is small both so and beside the mean square of the intensity. In photographs of road surfaces
# these are 0.05 and 0.0004, and colour tells nothing; of streets and from the air 0.03 and 0.008, and it does.
_FAINT = (0.1, 0.001)
# Images that differ by more than so much, in the logarithm of their contrast, a standard deviation, or in brightness
# beside it, are of several kinds, and how bright they are tells which: of nuclei in bright and in dark fields these are
# 0.6 and 4, of a metal 0.1 and 2, of asphalt 0.3 and 0.4, of tissue 0.1 and 0.3. It takes several images to learn that.
_KINDS = (0.4, 1.0)
_MIN_KINDS = 8

BY_ITSELF = ("image", "both")  # ways to normalize each image by itself


class Intensity(NamedTuple):
    """The mean over channels, in numbers over the pixels of one image or several."""

    mean: float
    variance: float
    n_pixels: int
    color: float = 0.0  # the variance of the planes beside the intensity, all together

    @property
    def std(self) -> float:
        """The standard deviation, or 1 if all pixels are alike, so that it can be divided by."""
        return math.sqrt(self.variance) or 1.0

    @property
    def share_of_color(self) -> float:
        """The variance of colour relative to that of the intensity."""
        return self.color / self.variance if self.variance > 0 else math.inf if self.color > 0 else 0.0


def intensity_of(image: Any) -> Intensity:
    """Return the intensity of an image (*spatial, channels), which may be a memory map: it is read once, in order.

    Pixels without data do not count.

    The chunks that are summed depend on the shape alone, so the result does not depend on threads or blocks.
    """
    known = getattr(image, "known", {})
    if "intensity" not in known:
        known["intensity"] = _summed(image)
    return known["intensity"]


def _summed(image: Any) -> Intensity:
    first = np.asarray(image[(0,) * (image.ndim - 1)], np.float64)  # variances are taken about it, to keep digits
    valid = valid_pixels(image)
    source = image if valid is None else image.source
    sums = map_rows(partial(sums_of_rows, first, image.dtype), rows_summed(image.shape), source, valid)
    return intensity_from(list(sums), first, math.prod(image.shape[:-1]) if valid is None else image.n_valid)


def rows_summed(shape: Sequence[int]) -> int:
    """Return how many rows of an image of `shape` (*spatial, channels) are summed together."""
    return max(1, _CHUNK // max(1, math.prod(shape[1:])))


def sums_of_rows(
    first: np.ndarray, dtype: np.dtype, start: int, rows: np.ndarray, valid: np.ndarray | None
) -> list[float]:
    """Return what :func:`intensity_from` needs of some rows of an image, whose values are rounded to `dtype`.

    `valid` are the pixels that count, None is all.
    """
    values = np.asarray(rows, dtype).reshape(-1, len(first))
    if valid is not None:
        values = values[valid.ravel()]
    pieces = [_sums(values[at : at + _PIECE], first) for at in range(0, max(1, len(values)), _PIECE)]
    return [math.fsum(column) for column in zip(*pieces, strict=True)]


def _sums(values: np.ndarray, first: np.ndarray) -> list[float]:
    """Return the same of some pixels (n_pixels, channels)."""
    # Channel after channel: along an axis of a few of them NumPy takes seven times as long. Not by BLAS, whose sums
    # depend on its threads, which then wait for more work on the cores that the next ones need.
    grey, of_channels, squares = np.zeros(len(values)), [], 0.0
    for channel, origin in enumerate(first):
        plane = values[:, channel].astype(np.float64)
        plane -= origin
        grey += plane
        of_channels.append(plane.sum())
        squares += np.square(plane, out=plane).sum()
    grey /= len(first)
    return [grey.sum(), np.square(grey, out=grey).sum(), *of_channels, squares]


def intensity_from(sums: Sequence[Sequence[float]], first: np.ndarray, n_pixels: int) -> Intensity:
    """Return the intensity from the sums of all rows, taken about the pixel `first`."""
    if not n_pixels:
        return Intensity(0.0, 0.0, 0)
    n_channels = len(first)
    mean, square, *of_channels, squares = (math.fsum(column) / n_pixels for column in zip(*sums, strict=True))
    variance = max(square - mean**2, 0.0)
    # The variances of all channels are that of the intensity, in each, and those of the colours beside it.
    color = max(squares - sum(each**2 for each in of_channels) - n_channels * variance, 0.0)
    return Intensity(float(first.mean()) + mean, variance, n_pixels, color)


def pooled(intensities: Sequence[Intensity]) -> Intensity:
    """Return the intensity of the pixels of several images together; its colour is not told."""
    n_pixels = max(1, sum(each.n_pixels for each in intensities))
    mean = math.fsum(each.n_pixels * each.mean for each in intensities) / n_pixels
    variance = math.fsum(each.n_pixels * (each.variance + (each.mean - mean) ** 2) for each in intensities) / n_pixels
    return Intensity(mean, variance, n_pixels)


def colorless(intensities: Sequence[Intensity]) -> bool:
    """Tell whether colour is negligible in every image, or faint in all together."""
    if max(each.share_of_color for each in intensities) < _NEGLIGIBLE:
        return True
    within = math.fsum(each.n_pixels * each.variance for each in intensities)
    square = math.fsum(each.n_pixels * (each.variance + each.mean**2) for each in intensities)
    color = math.fsum(each.n_pixels * each.color for each in intensities)
    return color < _FAINT[0] * within and color < _FAINT[1] * square


def mostly_grey(intensities: Sequence[Intensity]) -> bool:
    """Tell whether colour is negligible in most images, or in all together."""
    return float(np.median([each.share_of_color for each in intensities])) < _NEGLIGIBLE or colorless(intensities)


def of_several_kinds(intensities: Sequence[Intensity]) -> bool:
    """Tell whether images differ so much in contrast or brightness that this tells what they show, and are enough to
    learn that from.
    """
    seen = [each for each in intensities if each.variance > 0]
    if len(seen) < _MIN_KINDS:
        return False
    contrasts = np.array([each.std for each in seen])
    brightness = np.array([each.mean for each in seen])
    return bool(np.std(np.log(contrasts)) > _KINDS[0] or np.std(brightness) > _KINDS[1] * np.median(contrasts))
