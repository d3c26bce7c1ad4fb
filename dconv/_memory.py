"""Memory for large results: aligned to cache lines, and kept for the next result once nobody uses it.

A fresh page costs more than writing it: the system must clear it first. Measured on 64 MB, the 16 filters of a 3 x 3
convolution take 3 ms into pages used before and 7 ms into fresh ones. So the memory of a large result is not returned
to the system when its last array dies, but kept for the next one of about its size, up to `_LIMIT` bytes in all.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

_CACHE_LINE = 64
_SMALL = 1 << 20  # below this the C library itself recycles memory
_LIMIT = (1 << 28) + _CACHE_LINE  # bytes kept at most: results of 256 MiB

_kept: list[np.ndarray] = []  # oldest first
_lock = threading.Lock()


class _Lease:
    """Memory in use: the base of every array on it, so that it lives as long as the last of them."""

    __slots__ = ("memory",)

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    @property
    def __array_interface__(self) -> dict:
        return self.memory.__array_interface__

    def __del__(self) -> None:
        _keep(self.memory)


# Neither function may wait for the lock: a garbage collection can end a lease, and so call `_keep`, while this very
# thread holds it. Whoever does not get it goes on with the system's memory.


def _keep(memory: np.ndarray) -> None:
    if memory.nbytes <= _LIMIT and _lock.acquire(blocking=False):
        try:
            _kept.append(memory)
            while sum(each.nbytes for each in _kept) > _LIMIT:
                del _kept[0]
        finally:
            _lock.release()


def _take(size: int) -> np.ndarray:
    """Return at least `size` bytes, kept ones if some fit without wasting a quarter."""
    if _lock.acquire(blocking=False):
        try:
            for index in reversed(range(len(_kept))):  # the latest are the likeliest to be in a cache
                if size <= _kept[index].nbytes <= 1.25 * size:
                    return _kept.pop(index)
        finally:
            _lock.release()
    return np.empty(size, np.uint8)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return a new array, not initialised, whose first element begins a cache line."""
    size = math.prod(shape) * dtype.itemsize
    wanted = size + _CACHE_LINE
    memory = np.empty(wanted, np.uint8) if size < _SMALL else np.asarray(_Lease(_take(wanted)))
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def result(shape: tuple[int, ...], dtype: np.dtype, out: Any, **inputs: np.ndarray | None) -> np.ndarray:
    """Return `out` if it can hold the result and overlaps no input, or a new array where it is None."""
    if out is None:
        return empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out must have shape {shape} and dtype {dtype}, got {out.shape} and {out.dtype}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise ValueError("out must be C-contiguous, aligned and writeable; pass numpy.empty(shape, dtype)")
    for name, array in inputs.items():
        if array is not None and np.may_share_memory(out, array):
            raise ValueError(f"out must not overlap {name} in memory, because {name} is read while out is written")
    return out
