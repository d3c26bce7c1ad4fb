"""Memory of results is kept and used again, but never by two results at once."""

import gc
import math
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

import dconv
from dconv import _memory

LARGE = (1 << 20,)  # float32: 4 MiB
FLOAT = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Start with nothing kept; return the list of what is kept."""
    kept = []
    monkeypatch.setattr(_memory, "_kept", kept)
    return kept


def owner(array):
    """Return the array that holds the memory of `array`."""
    while not isinstance(array, _memory._Lease):
        array = array.base
    return array.memory


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 0, 3), (5, 3), (1000, 3), LARGE, (3, 700, 901), (1 << 18, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_aligned_contiguous_and_writeable(shape, dtype):
    for _ in range(3):
        array = _memory.empty(shape, np.dtype(dtype))
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.ctypes.data % 64 == 0 or array.size == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[...] = 1


def test_live_results_never_share_memory():
    rng = np.random.default_rng(0)
    live = []
    for step in range(200):
        if live and rng.random() < 0.45:
            live.pop(rng.integers(len(live)))
        array = _memory.empty((int(rng.integers(250_000, 600_000)),), FLOAT)
        array[...] = step
        live.append((array, step))
        assert all(array[0] == array[-1] == value and np.all(array[::999] == value) for array, value in live)
    spans = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array, _ in live)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))


def test_memory_is_used_again_after_deletion(kept):
    array = _memory.empty(LARGE, FLOAT)
    memory = owner(array)
    assert kept == []
    del array
    assert len(kept) == 1
    assert kept[0] is memory
    again = _memory.empty((1 << 19, 2), FLOAT)
    assert owner(again) is memory
    assert kept == []


def test_the_latest_is_used_first(kept):
    arrays = [_memory.empty(LARGE, FLOAT) for _ in range(3)]
    memories = [owner(array) for array in arrays]
    while arrays:
        del arrays[0]
    again = _memory.empty(LARGE, FLOAT)
    assert owner(again) is memories[-1]


@pytest.mark.parametrize(("share", "used"), [(0.5, False), (0.79, False), (0.81, True), (1.0, True), (1.01, False)])
def test_kept_memory_must_fit_without_wasting_a_quarter(kept, share, used):
    array = _memory.empty(LARGE, FLOAT)
    memory = owner(array)
    del array
    other = _memory.empty((math.ceil(share * LARGE[0]),), FLOAT)
    assert (owner(other) is memory) == used


def test_small_results_are_left_to_the_c_library(kept):
    array = _memory.empty((1000,), FLOAT)
    del array
    assert kept == []


def test_views_keep_the_memory(kept):
    array = _memory.empty(LARGE, FLOAT)
    array[...] = 7
    views = [array[::2], array.reshape(2, -1)[1], array[5:6].T, memoryview(array[-10:])]
    del array
    while views:
        assert kept == []
        other = _memory.empty(LARGE, FLOAT)
        other[...] = 8
        assert np.all(np.asarray(views[0]) == 7)
        kept.clear()
        del other
        kept.clear()
        del views[0]
    assert len(kept) == 1


def test_limit_is_respected(kept, monkeypatch):
    monkeypatch.setattr(_memory, "_LIMIT", 3 * (4 << 20) + 3 * 64)
    arrays = [_memory.empty(LARGE, FLOAT) for _ in range(5)]
    memories = [owner(array) for array in arrays]
    while arrays:
        del arrays[0]
        assert sum(memory.nbytes for memory in kept) <= _memory._LIMIT
    assert [id(memory) for memory in kept] == [id(memory) for memory in memories[2:]]  # the oldest went
    huge = _memory.empty((4 * LARGE[0],), FLOAT)
    del huge
    assert len(kept) == 3  # what is larger than the limit is never kept, and drives nothing out


def test_limit_is_256_mib(kept):
    """As `conv` documents; the memory is never written to, so the system gives none."""
    largest = _memory.empty((64 << 20,), FLOAT)
    memory = owner(largest)
    del largest
    larger = _memory.empty(((64 << 20) + 1024,), FLOAT)
    del larger
    assert [id(each) for each in kept] == [id(memory)]
    kept.clear()
    arrays = [_memory.empty((8 << 20,), FLOAT) for _ in range(9)]
    arrays.clear()
    assert 7 * (32 << 20) <= sum(each.nbytes for each in kept) <= (256 << 20) + 64


def test_a_lease_that_ends_while_the_lock_is_held_does_not_wait(kept):
    """As when a garbage collection runs in the thread that holds it; with a blocking lock, this would hang."""
    array = _memory.empty(LARGE, FLOAT)
    with _memory._lock:
        del array
        other = _memory.empty(LARGE, FLOAT)
        other[...] = 1
    assert kept == []


def test_results_in_cycles_are_kept_when_collected(kept):
    array = _memory.empty(LARGE, FLOAT)
    cycle = [array]
    cycle.append(cycle)
    del array, cycle
    gc.collect()
    assert len(kept) == 1


def test_results_copy_and_pickle_like_any_array():
    array = _memory.empty(LARGE, FLOAT)
    array[...] = np.arange(LARGE[0])
    for other in (array.copy(), pickle.loads(pickle.dumps(array))):
        assert not np.shares_memory(other, array)
        np.testing.assert_array_equal(other, array)


def test_threads_never_share_memory():
    """Every thread writes its own number, waits for the others, and finds it unchanged."""
    n_threads = 4
    barrier = threading.Barrier(n_threads, timeout=60)

    def work(number):
        for step in range(30):
            array = _memory.empty(LARGE, FLOAT)
            array[...] = number + step
            barrier.wait()
            assert array[0] == array[-1] == number + step
            assert np.all(array[::1009] == number + step)
            barrier.wait()
            del array

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, range(0, 1000 * n_threads, 1000)))
    assert sum(memory.nbytes for memory in _memory._kept) <= _memory._LIMIT


def test_conv_returns_kept_memory_and_never_that_of_a_live_result():
    x, weight = np.ones((1, 600, 600, 1), np.float32), np.ones((2, 1, 1, 1), np.float32)
    first = dconv.conv(x, weight)
    second = dconv.conv(2 * x, weight)
    assert not np.shares_memory(first, second)
    place = first.ctypes.data
    del first
    third = dconv.conv(3 * x, weight)
    assert third.ctypes.data == place
    assert np.all(second == 2)
    assert np.all(third == 3)


def test_no_complaint_at_exit():
    """A lease that outlives this module must not fail when the interpreter ends."""
    program = "import numpy as np; from dconv import _memory; a = _memory.empty((1 << 20,), np.dtype('f4')); np.a = a"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
