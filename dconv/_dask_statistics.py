"""What is to be known of whole dask images, as delayed values that workers compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from dconv._dask_engine import image_of_box
from dconv._intensity import Intensity, intensity_from, rows_summed, sums_of_rows
from dconv._lazy_arrays import map_rows
from dconv._nodata import REACH, Infilled, joined, sums_of_valid, valid_of, valid_pixels
from dconv._nodata import rows_summed as rows_summed_for_filling
from dconv._validation import Images, check_finite

_BAND_BYTES = 1 << 26  # of rows that are summed together on one worker

Filling = tuple[int, np.ndarray]  # how many pixels of an image hold data, and their mean


def _bands(x: Any, mask: Any, n_rows: int) -> list[tuple[Any, Any]]:
    """Return bands of rows of an image and its mask as delayed values; all but the last have a multiple of `n_rows`."""
    rows = _rows_of_band(x, n_rows)

    def cut(array: Any) -> list[Any]:
        joined = array.rechunk({0: rows, **dict.fromkeys(range(1, array.ndim), -1)})
        return list(joined.to_delayed().ravel())

    parts = cut(x)
    return list(zip(parts, [None] * len(parts) if mask is None else cut(mask), strict=True))


def _rows_of_band(x: Any, n_rows: int) -> int:
    row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
    return min(max(1, _BAND_BYTES // (n_rows * row_bytes)) * n_rows, len(x))


def filling_of(x: Any, mask: Any) -> Any:
    """Return how many pixels of an image hold data, and their mean, as a delayed value, to the last bit."""
    import dask

    n_rows = rows_summed_for_filling(x.shape)
    sums = [dask.delayed(_valid_sums)(*band, n_rows) for band in _bands(x, mask, n_rows)]
    return dask.delayed(_joined_filling)(sums)


def _valid_sums(rows: np.ndarray, mask: np.ndarray | None, n_rows: int) -> list[Any]:
    return list(map_rows(sums_of_valid, n_rows, rows, valid_of(rows, mask)))


def _joined_filling(sums: Sequence[Any]) -> Filling:
    return joined([each for of_band in sums for each in of_band])


def intensity_of(x: Any, mask: Any, filling: Any) -> Any:
    """Return the intensity of an image as a delayed value, the same to the last bit as of the image in memory."""
    import dask

    n_rows = rows_summed(x.shape)
    corner = tuple(slice(0, min(REACH + 1, size)) for size in x.shape[:-1])
    first = dask.delayed(_first_pixel)(x[corner], None if mask is None else mask[corner], x.shape, corner, filling)
    n_pixels = math.prod(x.shape[:-1])
    sums = [
        dask.delayed(_sums)(number * _rows_of_band(x, n_rows), *band, first, n_rows, n_pixels, filling)
        for number, band in enumerate(_bands(x, mask, n_rows))
    ]
    return dask.delayed(_joined)(sums, first, n_pixels, filling)


def _first_pixel(
    pixels: np.ndarray, mask: np.ndarray | None, shape: tuple[int, ...], box: Any, filling: Filling | None
) -> np.ndarray:
    missing = filling is not None and filling[0] < math.prod(shape[:-1])
    image = image_of_box(shape, box, pixels, mask, filling if missing else None)
    first = image[(slice(0, 1),) * (len(shape) - 1)]
    _check_rows(0, first)
    return np.asarray(first, np.float64).reshape(-1)


def _sums(
    start: int,
    rows: np.ndarray,
    mask: np.ndarray | None,
    first: np.ndarray,
    n_rows: int,
    n_pixels: int,
    filling: Filling | None,
) -> list[list[float]]:
    """Return the sums of some rows of an image of `n_pixels`, from row `start` on."""
    image: Any = rows
    if filling is not None and filling[0] < n_pixels:
        image = Infilled(rows, valid_of(rows, mask), *filling)
    _check_rows(start, image)
    return list(map_rows(partial(sums_of_rows, first, image.dtype), n_rows, rows, valid_pixels(image)))


def _check_rows(start: int, image: Any) -> None:
    """Check the values of rows: by sums that are not finite, blocks that hold none of them would be scaled too."""
    try:
        check_finite(Images([image], "image"))
    except ValueError as error:
        raise ValueError(f"rows of x from row {start} on, which is row 0 here: {error}") from error


def _joined(sums: Sequence[list[list[float]]], first: np.ndarray, n_pixels: int, filling: Filling | None) -> Intensity:
    return intensity_from([each for part in sums for each in part], first, n_pixels if filling is None else filling[0])
