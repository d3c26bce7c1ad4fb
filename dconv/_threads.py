"""How many threads a call may use, running tasks on them, what must run alone, and what this build can do.

OpenMP's runtime from GCC waits for ever in a forked child whose parent has used it, because the
threads of its pool do not exist there. A forked child therefore computes on one thread. Worker
processes that start afresh (loky, spawn, forkserver) are not affected.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
from joblib.parallel import get_active_backend

from dconv._axes import as_int
from dconv._kernels import _dispatch

_forked = False
_scikit_learn = threading.RLock()


def _mark_forked() -> None:
    global _forked, _scikit_learn
    _forked = True
    _scikit_learn = threading.RLock()  # the thread that held the parent's does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


@functools.cache
def _physical_cores() -> int:
    return joblib.cpu_count(only_physical_cores=True)  # respects affinity and cgroup limits


def _environment_threads() -> int | None:
    """Return the first number in ``OMP_NUM_THREADS`` (the others are for nested teams), None if there is none.

    Read here and not only by OpenMP, which reads it once when it is loaded, and which not every build has.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def default_n_threads() -> int:
    """Return how many threads a call uses when it is not told: 1 in a forked child, ``OMP_NUM_THREADS`` where
    it is set (as joblib sets it in its worker processes), 1 in a thread of joblib's, whose siblings have the other
    cores, else the physical cores allowed to the process; never more than a limit set through threadpoolctl.
    """
    if _forked:
        return 1
    wanted = _environment_threads() or (1 if get_active_backend()[0].nesting_level else _physical_cores())
    return min(wanted, _dispatch.max_threads()) if _dispatch.HAS_OPENMP else wanted


def effective_n_threads(n_threads: int | None = None) -> int:
    """Return the number of OpenMP threads for a kernel; None means :func:`default_n_threads`."""
    count = default_n_threads() if n_threads is None else as_int(n_threads, "n_threads", rule="None or an int")
    if count < 1:
        raise ValueError(f"n_threads must be at least 1, got {count}; None uses the physical cores")
    return 1 if _forked or not _dispatch.HAS_OPENMP else count


def effective_n_jobs(n_jobs: int | None = None) -> int:
    """Return the number of threads for the tasks of an estimator: None and -1 mean :func:`default_n_threads`, -2 all
    of these but one, and so on.
    """
    count = -1 if n_jobs is None else as_int(n_jobs, "n_jobs", rule="None or an int")
    if count == 0:
        raise ValueError("n_jobs must not be 0; None or -1 uses the physical cores")
    return count if count > 0 else max(1, default_n_threads() + 1 + count)


@contextlib.contextmanager
def scikit_learn_alone() -> Iterator[None]:
    """Let one thread at a time into what scikit-learn does under `warnings.catch_warnings`: fitting, checking input.

    Before Python 3.14 that changes the warning filters of the whole process: from several threads at once it raises
    warnings of its own ("delayed should be used with Parallel") and can leave the user's filters changed.
    """
    with _scikit_learn:
        yield


def run_tasks(function: Callable[[Any], None], tasks: Iterable[Any], n_jobs: int) -> None:
    """Call `function` on every task, on `n_jobs` threads; the first error cancels what has not started.

    Each thread takes the next task when it is free: tasks handed one by one to a pool took 20 microseconds each.
    """
    waiting = deque(tasks)
    n_jobs = min(n_jobs, len(waiting))

    def work() -> None:
        try:
            while True:
                try:
                    task = waiting.popleft()
                except IndexError:  # another thread has taken the last
                    return
                function(task)
        except BaseException:
            waiting.clear()
            raise

    if n_jobs < 2:
        work()
        return
    with ThreadPoolExecutor(n_jobs) as pool:
        try:
            for worker in [pool.submit(work) for _ in range(n_jobs)]:
                worker.result()
        except BaseException:  # of a thread, or an interrupt of this one
            waiting.clear()
            raise


def show_config() -> None:
    """Print the version, the CPU levels of this build, the active one, OpenMP and the default number of threads.

    Examples
    --------
    >>> import dconv
    >>> dconv.show_config()  # doctest: +ELLIPSIS
    dconv ...
    """
    from dconv import __version__

    supported = _dispatch.supported_levels()
    print(f"dconv {__version__}")
    print(f"CPU levels built:     {', '.join(_dispatch.built_levels())}")
    print(f"CPU levels supported: {', '.join(supported)}")
    print(f"active level:         {_dispatch.active_level()} (force one with DCONV_CPU)")
    print(f"OpenMP:               {'yes' if _dispatch.HAS_OPENMP else 'no, kernels run on one thread'}")
    print(f"default threads:      {default_n_threads()}")
