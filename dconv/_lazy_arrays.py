"""Arrays that are read where they lie, part by part: memory maps, Zarr, HDF5, whatever slices, or a callable returns.

A :class:`LazyArray` shows any of them to code that asks for boxes of it. A :class:`Derived` is made from others, pixel
by pixel, when it is asked for: the mask of the labelled pixels of a label image on a disk. :func:`map_rows` goes
through arrays from their first row to their last and reads each chunk of a file once; what is to be known of whole
images is asked by it, so that there is one place that decides where the rows are read: here, or on other machines
(:mod:`dconv.distributed`), which is what `engine` is for.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse

Box = tuple[slice, ...]

_BAND_BYTES = 1 << 26
_KEPT = 2  # arrays that callables have returned: two images are read in turn where one ends and the next begins


def box_of(key: Any, shape: Sequence[int]) -> tuple[Box, tuple[Any, ...]] | None:
    """Return the box that a key of ints and slices picks from, and the key within it; None for any other key."""
    key = key if isinstance(key, tuple) else (key,)
    key = key + (slice(None),) * (len(shape) - len(key))
    box: list[slice] = []
    inner: list[Any] = []
    for part, size in zip(key, shape, strict=False):
        if isinstance(part, slice) and (part.step is None or part.step > 0):
            start, stop, step = part.indices(size)
            box.append(slice(start, max(start, stop)))
            inner.append(slice(None, None, step))
        elif isinstance(part, int | np.integer) and not isinstance(part, bool) and -size <= part < size:
            box.append(slice(int(part) % size, int(part) % size + 1))
            inner.append(0)
        else:
            return None
    return (tuple(box), tuple(inner)) if len(key) == len(shape) else None


class LazyArray:
    """An array of which `read` returns boxes; one thread at a time reads.

    Parameters
    ----------
    read : callable
        Given a box, as many slices with start and stop as there are axes.
    shape, dtype : tuple of int, dtype
        Of the whole.
    chunks : tuple of int or None
        Samples along each axis that are stored together.
    name : str
        What messages call it.
    n_places : int
        Leading axes that say in messages where a box lies.
    """

    engine: Any = None  # what works on the parts of the array where they are; None is here

    def __init__(
        self,
        read: Callable[[Box], np.ndarray],
        shape: tuple[int, ...],
        dtype: Any,
        chunks: tuple[int, ...] | None,
        name: str,
        n_places: int,
    ) -> None:
        self.shape, self.dtype, self.chunks, self.name = shape, np.dtype(dtype), chunks, name
        self.ndim, self.size = len(shape), math.prod(shape)
        self.nbytes = self.size * self.dtype.itemsize
        self._from, self._n_places = read, n_places
        self._reading = threading.Lock()
        self.known: dict[str, Any] = {}  # what has been found out by reading all of it, and need not be again

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._read(tuple(slice(0, size) for size in self.shape)), dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        found = box_of(key, self.shape)
        if found is None:  # what is not read block by block
            return np.asarray(self)[key]
        box, inner = found
        return self._read(box)[inner]

    def _read(self, box: Box) -> np.ndarray:
        sizes = tuple(part.stop - part.start for part in box)
        try:
            with self._reading:
                part = np.asarray(self._from(box))
            if part.shape != sizes:
                raise TypeError(f"slicing it by {sizes} returned an array of shape {part.shape}")
            if (part.dtype.kind, part.dtype.itemsize) != (self.dtype.kind, self.dtype.itemsize):
                raise TypeError(f"it says that its dtype is {self.dtype}, but slicing it returned {part.dtype}")
        except Exception as error:
            place = ", ".join(f"{part.start}:{part.stop}" for part in box[: self._n_places])
            raise OSError(f"block [{place}] of {self.name} cannot be read: {type(error).__name__}: {error}") from error
        return part

    def item(self, index: int) -> LazyArray:
        """Return one item along the first axis."""
        where = slice(index, index + 1)
        return self._view(lambda box: self._from((where, *box))[0], range(1, self.ndim), f"{self.name}[{index}]")

    def channels_last(self, channel_axis: int | None) -> LazyArray:
        """Return an image (*spatial, channels), of which blocks are read with all channels."""
        if channel_axis is None:
            shape, chunks = (*self.shape, 1), None if self.chunks is None else (*self.chunks, 1)
            return self._new(lambda box: self._from(box[:-1])[..., np.newaxis][..., box[-1]], shape, chunks)
        axis = channel_axis % self.ndim
        order = [*(a for a in range(self.ndim) if a != axis), axis]

        def read(box: Box) -> np.ndarray:
            part = self._from((*box[:axis], slice(0, self.shape[axis]), *box[axis:-1]))
            return np.moveaxis(part, axis, -1)[..., box[-1]]

        return self._view(read, order, self.name, self.ndim - 1)

    def transposed(self, order: Sequence[int]) -> LazyArray:
        """Return the same with axis ``order[i]`` in place `i`, of which blocks are read alone."""

        def read(box: Box) -> np.ndarray:
            source = tuple(part for _, part in sorted(zip(order, box, strict=True)))
            return self._from(source).transpose(order)

        return self._view(read, order, self.name)

    def _view(self, read: Any, axes: Any, name: str, n_places: int | None = None) -> LazyArray:
        axes = list(axes)
        shape = tuple(self.shape[axis] for axis in axes)
        chunks = None if self.chunks is None else tuple(self.chunks[axis] for axis in axes)
        return self._new(read, shape, chunks, name, n_places)

    def _new(self, read: Any, shape: Any, chunks: Any, name: str | None = None, n_places: int | None = None) -> Any:
        name = self.name if name is None else name
        view = LazyArray(
            read, shape, self.dtype, chunks, name, min(self.ndim, len(shape)) if n_places is None else n_places
        )
        view._reading = self._reading
        return view


class LastUsed:
    """What callables return, kept as long as no more than a few others were called since."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int, function: Callable[[], Any]) -> Any:
        with self._lock:
            if number not in self._kept:
                while len(self._kept) >= _KEPT:
                    self._kept.popitem(last=False)
                self._kept[number] = function()
            self._kept.move_to_end(number)
            return self._kept[number]


def as_lazy(value: Any, name: str, number: int, last_used: LastUsed, check: Callable[[Any, str], Any]) -> Any:
    """Return a :class:`LazyArray` for what slices but is no NumPy array, or is called; None for all else.

    `number` is that of a callable among those that share `last_used`; `check` makes an array of what it returns,
    if that does not slice either.

    Raises
    ------
    OSError
        If a callable fails.
    ValueError
        If sizes are not known.
    """
    if isinstance(value, LazyArray):
        return value
    if slices(value):
        return from_array(value, name)
    if not callable(value) or isinstance(value, type) or hasattr(value, "__array__"):
        return None

    def load() -> Any:
        try:
            found = value()
        except Exception as error:
            raise OSError(f"{name} cannot be read: calling it raised {type(error).__name__}: {error}") from error
        return found if slices(found) else check(found, name)

    first = last_used.get(number, load)
    source = from_array(first, name)
    shape, dtype = source.shape, source.dtype
    del first

    def read(box: Box) -> np.ndarray:
        found = last_used.get(number, load)
        if tuple(found.shape) != shape or found.dtype != dtype:
            raise ValueError(
                f"calling it returned an array of shape {shape} and {dtype} first, and then one of "
                f"{tuple(found.shape)} and {found.dtype}; it must return the same whenever it is called"
            )
        return _slice(found, box)

    return LazyArray(read, shape, dtype, source.chunks, name, len(shape))


def slices(value: Any) -> bool:
    """Tell whether `value` is no NumPy array, but has their shape and dtype and gives parts when it is sliced."""
    return (
        not isinstance(value, np.ndarray | np.generic)
        and isinstance(getattr(value, "dtype", None), np.dtype)
        and isinstance(getattr(value, "shape", None), tuple)
        and hasattr(value, "__getitem__")
        and not hasattr(value, "iloc")  # of pandas, sliced by labels
        and not scipy.sparse.issparse(value)
    )


def from_array(array: Any, name: str) -> LazyArray:
    """Return a :class:`LazyArray` that slices `array`."""
    if any(size != size for size in array.shape):
        raise ValueError(f"{name} has shape {array.shape}, some of it unknown; call {name}.compute_chunk_sizes() first")
    shape = tuple(int(size) for size in array.shape)
    chunks = getattr(array, "chunks", None)
    if isinstance(chunks, tuple) and all(isinstance(each, tuple) for each in chunks):  # dask
        chunks = tuple(max(each) for each in chunks)
    known = isinstance(chunks, tuple) and len(chunks) == len(shape) and all(isinstance(n, int) for n in chunks)
    return LazyArray(lambda box: _slice(array, box), shape, array.dtype, chunks if known else None, name, len(shape))


def _slice(array: Any, box: Box) -> np.ndarray:
    return np.asarray(array[box if len(box) != 1 else box[0]])


class Derived:
    """An array (*spatial) whose values are `function` of those of `sources` at the same pixels; of None it is None.

    It is computed when it is sliced. `function` is called with parts of the sources, and works pixel by pixel.
    """

    def __init__(self, function: Callable[..., np.ndarray], shape: tuple[int, ...], *sources: Any) -> None:
        self.function, self.shape, self.sources = function, shape, sources
        self.ndim = len(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, box: Any) -> np.ndarray:
        return self.function(*(None if source is None else source[box] for source in self.sources))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[tuple(slice(0, size) for size in self.shape)], dtype)


class RowBands:
    """The same array for one reader that goes from its first row to its last: bands of rows are kept, one at a time."""

    def __init__(self, array: LazyArray) -> None:
        self._array = array
        self.shape, self.dtype, self.ndim, self.size = array.shape, array.dtype, array.ndim, array.size
        rows = max(1, _BAND_BYTES // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
        chunk = 1 if array.chunks is None else array.chunks[0]
        self._n_rows = rows // chunk * chunk if rows >= chunk else rows
        self._start, self._band = 0, np.empty(0)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        if start < self._start or stop > self._start + len(self._band):
            whole = (start // self._n_rows + 1) * self._n_rows
            self._start, self._band = start, self._array[start : max(stop, whole)]
        return self._band[start - self._start : stop - self._start]

    def bands(self) -> Iterator[np.ndarray]:
        """Yield all rows, in order."""
        for start in range(0, len(self), self._n_rows):
            yield self[start : start + self._n_rows]


def map_rows(function: Callable[..., Any], n_rows: int, *arrays: Any) -> Iterator[Any]:
    """Yield ``function(start, *parts)`` for `n_rows` rows of all arrays after another, from the first on.

    Parts are NumPy arrays, or None of what is None. If the rows lie elsewhere `function` is called there.
    """
    engine = engine_of(*arrays)
    if engine is not None:
        yield from engine.map_rows(function, n_rows, arrays)
        return
    readers = [_in_order(array) for array in arrays]
    length = len(next(array for array in arrays if array is not None))
    for start in range(0, length, n_rows):
        rows = slice(start, min(start + n_rows, length))
        yield function(start, *(None if each is None else np.asarray(part_of(each, rows)) for each in readers))


def engine_of(*arrays: Any) -> Any:
    """Return what works on parts of the first array that does not lie here, None if all do."""
    for array in arrays:
        # A filled image has a source and the mask of its valid pixels.
        sources = array.sources if isinstance(array, Derived) else (getattr(array, "source", None),)
        found = getattr(array, "engine", None) or (engine_of(*sources) if any(s is not None for s in sources) else None)
        if found is not None:
            return found
    return None


def part_of(array: Any, rows: slice) -> Any:
    """Return rows of an array; some know how to do that without being looked at (`rows`)."""
    return array.rows(rows) if hasattr(array, "rows") else array[rows]


def _in_order(array: Any) -> Any:
    if isinstance(array, Derived):
        return Derived(array.function, array.shape, *map(_in_order, array.sources))
    return RowBands(array) if isinstance(array, LazyArray) else array
