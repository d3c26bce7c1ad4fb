"""Images that lie on the workers of dask: what is asked of their rows or boxes is worked out there.

A :class:`DaskArray` is a lazy array with an `engine`. Whoever goes through it by
:func:`dconv._lazy_arrays.map_rows`, or gathers rows of features, hands the work to the engine, which makes one task of
every band of rows or box and brings back what they return: sums, places of labels, features of labelled pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dconv._boxes import grown
from dconv._lazy_arrays import Box, Derived, LazyArray, part_of
from dconv._lazy_images import Window
from dconv._nodata import Infilled, valid_of
from dconv._receptive import Margin
from dconv._regions import margin_of

_BAND_BYTES = 1 << 26  # of rows that are looked at together on one worker


class DaskArray(LazyArray):
    """A dask array that is worked on where its chunks are. What is sliced of it is brought here."""

    def __init__(self, x: Any, name: str, n_places: int | None = None) -> None:
        self.x = x
        chunks = tuple(max(along) for along in x.chunks)
        n_places = x.ndim if n_places is None else n_places
        super().__init__(lambda box: np.asarray(x[box]), x.shape, x.dtype, chunks, name, n_places)

    @property
    def engine(self) -> Any:
        return DaskEngine()

    def item(self, index: int) -> DaskArray:
        return DaskArray(self.x[index], f"{self.name}[{index}]")

    def channels_last(self, channel_axis: int | None) -> DaskArray:
        import dask.array as da

        if channel_axis is None:
            return DaskArray(self.x[..., np.newaxis], self.name, self.ndim)
        return DaskArray(da.moveaxis(self.x, channel_axis, -1), self.name, self.ndim - 1)


class _Part(NamedTuple):
    """Stands for an array of which parts are passed, by its number; with its dtype, if these must be told as it is."""

    number: int
    dtype: np.dtype | None
    name: str


class DaskEngine:
    """Calls functions on parts of dask arrays where these lie, and returns what they return, in order."""

    def map_rows(self, function: Callable[..., Any], n_rows: int, arrays: Sequence[Any]) -> Iterator[Any]:
        """Do what :func:`dconv._lazy_arrays.map_rows` does."""
        import dask

        leaves: list[Any] = []
        trees = [_tree(array, leaves) for array in arrays]
        length = len(leaves[0])
        row_bytes = sum(math.prod(leaf.shape[1:]) * _itemsize(leaf) for leaf in leaves)
        band = max(1, _BAND_BYTES // max(1, n_rows * row_bytes)) * n_rows
        bands = [slice(start, min(start + band, length)) for start in range(0, length, band)]
        parts = [_in_bands(leaf, bands) for leaf in leaves]
        work = dask.delayed(_map_band)
        tasks = [
            work(function, rows.start, n_rows, trees, *of_band) for rows, *of_band in zip(bands, *parts, strict=True)
        ]
        for of_band in dask.compute(*tasks):
            yield from of_band

    def map_boxes(
        self,
        function: Callable[..., Any],
        common: Any,
        shared: Callable[[int], Any],
        tasks: Sequence[tuple[int, Any, Box, Margin, tuple[Any, ...]]],
    ) -> Iterator[Any]:
        """Yield ``function(image, common, shared(number), *more)`` for tasks (number, image, box, halo, more).

        The image that `function` is given has been read in the box and what is seen around it. What is common to all
        tasks, or shared by those of a number, is sent to each worker once.
        """
        import dask

        all_of_them = dask.delayed(common, traverse=False)
        once = {number: dask.delayed(shared(number), traverse=False) for number in sorted({task[0] for task in tasks})}
        work = dask.delayed(_call_on_box)
        made = []
        for number, image, box, halo, more in tasks:
            around = grown(box, margin_of(image, halo), 1, image.shape[:-1])
            filled = isinstance(image, Infilled)
            source, mask = (image.source, image.valid.sources[1]) if filled else (image, None)
            made.append(
                work(
                    function,
                    image.shape,
                    (source.dtype, getattr(source, "name", "X")),
                    around,
                    source.x[around] if isinstance(source, DaskArray) else source[around],
                    None if mask is None else mask.x[around] if isinstance(mask, DaskArray) else mask[around],
                    (image.n_valid, image.mean) if filled else None,
                    all_of_them,
                    once[number],
                    dask.delayed(more, traverse=False),
                )
            )
        yield from dask.compute(*made)


def _tree(array: Any, leaves: list[Any]) -> Any:
    """Return an array with every array that it is made of replaced by its place among `leaves`."""
    if array is None:
        return None
    if isinstance(array, Derived):
        return Derived(array.function, array.shape, *(_tree(source, leaves) for source in array.sources))
    leaves.append(array)
    there = isinstance(array, DaskArray)
    return _Part(len(leaves) - 1, array.dtype if there else None, array.name if there else "")


def _itemsize(leaf: Any) -> int:
    return leaf.dtype.itemsize if hasattr(leaf, "dtype") else 1


def _in_bands(leaf: Any, bands: Sequence[slice]) -> list[Any]:
    """Return the rows of an array in bands: delayed values if it lies elsewhere, else what is sent there."""
    import dask

    if isinstance(leaf, DaskArray):
        sizes = tuple(rows.stop - rows.start for rows in bands)
        joined = leaf.x.rechunk({0: sizes, **dict.fromkeys(range(1, leaf.ndim), -1)})
        return list(joined.to_delayed().ravel())
    return [dask.delayed(part_of(leaf, rows), traverse=False) for rows in bands]


def _map_band(function: Callable[..., Any], first: int, n_rows: int, trees: Sequence[Any], *parts: Any) -> list[Any]:
    """Return what `function` returns for each `n_rows` rows of a band that begins at row `first`."""
    results = []
    for start in range(0, len(parts[0]), n_rows):
        rows = slice(start, min(start + n_rows, len(parts[0])))
        of_rows = [part_of(part, rows) for part in parts]
        results.append(function(first + start, *(_value(tree, of_rows) for tree in trees)))
    return results


def check_dtype(pixels: np.ndarray, told: np.dtype, name: str) -> None:
    """Check that what was computed has the dtype that the dask array says: by that it is worked on."""
    if (pixels.dtype.kind, pixels.dtype.itemsize) != (told.kind, told.itemsize):
        raise TypeError(
            f"{name} says that its dtype is {told}, but a chunk of it has {pixels.dtype}; tell dask the right one "
            "where the array is made, as by map_blocks(..., dtype=...)"
        )


def _value(tree: Any, parts: Sequence[Any]) -> Any:
    if tree is None:
        return None
    if isinstance(tree, Derived):
        return tree.function(*(_value(source, parts) for source in tree.sources))
    part = np.asarray(parts[tree.number])
    if tree.dtype is not None:
        check_dtype(part, tree.dtype, tree.name)
    return part


def _call_on_box(
    function: Callable[..., Any],
    shape: tuple[int, ...],
    told: tuple[np.dtype, str],
    around: Box,
    pixels: np.ndarray,
    mask: np.ndarray | None,
    filling: tuple[int, np.ndarray] | None,
    common: Any,
    shared: Any,
    more: tuple[Any, ...],
) -> Any:
    check_dtype(pixels, *told)
    return function(image_of_box(shape, around, pixels, mask, filling), common, shared, *more)


def image_of_box(
    shape: tuple[int, ...],
    box: Box,
    pixels: np.ndarray,
    mask: np.ndarray | None,
    filling: tuple[int, np.ndarray] | None,
) -> Any:
    """Return an image of which the pixels of a box are there, filled if how many are valid and their mean is told."""
    window = Window(shape, box, pixels, None)
    if filling is None:
        return window
    of_mask = None if mask is None else Window(shape[:-1], box, mask, None)
    return Infilled(window, valid_of(window, of_mask), *filling)
