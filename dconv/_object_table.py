"""What is said of each object, one row a object: numbers that are gathered block by block and do not depend on them."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dconv._pixels import Block

_UNIT = 1 << 30  # probabilities are added as whole numbers of 1 / _UNIT, so that the order does not matter


class Rows:
    """Sums over the pixels of each object, numbered from 1."""

    def __init__(self, n: int, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.area = np.zeros(n + 1, np.int64)
        self.first = np.full(n + 1, math.prod(shape), np.int64)  # pixel in row order
        self.of_class = np.zeros(n + 1, np.int64)  # counted from 1
        self.total = np.zeros(n + 1, np.int64)  # probability, in units
        self.largest = np.zeros(n + 1)
        self.places = np.zeros((len(shape), n + 1), np.int64)  # sums of coordinates
        self.start = np.full((len(shape), n + 1), np.iinfo(np.int64).max)
        self.stop = np.zeros((len(shape), n + 1), np.int64)

    def add(self, block: Block, labels: np.ndarray, classes: np.ndarray, probability: np.ndarray) -> None:
        """Add the pixels of a block; arrays of its shape."""
        place = np.nonzero(labels)
        if not len(place[0]):
            return
        numbers, first, row = np.unique(labels[place], return_index=True, return_inverse=True)
        place = tuple(axis + part.start for axis, part in zip(place, block, strict=True))
        self.area[numbers] += np.bincount(row)
        self.first[numbers] = np.minimum(self.first[numbers], np.ravel_multi_index(place, self.shape)[first])
        self.of_class[numbers] = classes[labels > 0][first]
        values = probability[labels > 0].astype(np.float64)
        units = np.zeros(len(numbers), np.int64)
        np.add.at(units, row, np.rint(values * _UNIT).astype(np.int64))
        self.total[numbers] += units
        largest = np.zeros(len(numbers))
        np.maximum.at(largest, row, values)
        self.largest[numbers] = np.maximum(self.largest[numbers], largest)
        for axis, coordinate in enumerate(place):
            sums, low, high = np.zeros((3, len(numbers)), np.int64)
            np.add.at(sums, row, coordinate)
            low[:] = self.shape[axis]
            np.minimum.at(low, row, coordinate)
            np.maximum.at(high, row, coordinate + 1)
            self.places[axis, numbers] += sums
            self.start[axis, numbers] = np.minimum(self.start[axis, numbers], low)
            self.stop[axis, numbers] = np.maximum(self.stop[axis, numbers], high)

    def kept(self, min_size: int) -> np.ndarray:
        """Return the numbers of objects of at least `min_size` pixels, in the order of their first pixels."""
        large = np.flatnonzero(self.area >= max(min_size, 1))
        return large[np.argsort(self.first[large])]

    def table(self, numbers: np.ndarray, names: list[str] | None) -> dict[str, np.ndarray]:
        """Return the columns of the table of these objects."""
        area = self.area[numbers]
        columns: dict[str, np.ndarray] = {
            "label": np.arange(1, len(numbers) + 1),
            "class": self.of_class[numbers] - 1,
        }
        if names is not None:
            columns["class_name"] = np.array(names, np.str_)[columns["class"]]
        columns["mean_probability"] = self.total[numbers] / _UNIT / area
        columns["max_probability"] = self.largest[numbers]
        columns["area"] = area
        columns |= {f"centroid-{axis}": sums[numbers] / area for axis, sums in enumerate(self.places)}
        bounds = [*self.start, *self.stop]
        columns |= {f"bbox-{axis}": bound[numbers] for axis, bound in enumerate(bounds)}
        return columns


def check_as_frame(as_frame: object) -> None:
    """Check that `as_frame` can be done."""
    if not isinstance(as_frame, bool) and not (isinstance(as_frame, str) and as_frame == "auto"):
        raise ValueError(f'as_frame must be True, False or "auto", got {as_frame!r}')
    if as_frame is True and importlib.util.find_spec("pandas") is None:
        raise ImportError("as_frame=True needs pandas: pip install pandas, or pass as_frame=False")


def as_table(columns: dict[str, np.ndarray], as_frame: bool | str) -> Any:
    """Return columns as a pandas DataFrame, or as they are; "auto" is a frame where pandas is installed."""
    if as_frame is False or importlib.util.find_spec("pandas") is None:
        return columns
    from pandas import DataFrame

    return DataFrame(columns)
