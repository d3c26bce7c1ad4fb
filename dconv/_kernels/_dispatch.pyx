"""The CPU level: which micro-kernels this build holds, which this CPU runs, and the one chosen once at import.

The best supported level is chosen, or the one that the environment variable DCONV_CPU names. Every kernel also
takes a `level`, so that tests can compare levels in one process without touching the choice.
"""

import os

cdef extern from "cpu.h" nogil:
    int dconv_list_levels(const dconv_microkernel **table, int *n_built)
    int dconv_max_threads()
    bint DCONV_HAS_OPENMP

cdef const dconv_microkernel *table[4]
cdef int n_built
cdef int n_supported = dconv_list_levels(table, &n_built)

HAS_OPENMP = bool(DCONV_HAS_OPENMP)

_NAMES = tuple((<bytes>table[i].name).decode() for i in range(n_built))


def built_levels():
    """Return the names of the levels of this build, slowest first; "plain" exists for compilers without vectors."""
    return _NAMES


def supported_levels():
    """Return the names of the levels that this CPU can run."""
    return _NAMES[:n_supported]


def active_level():
    """Return the name of the level that is used when a kernel is not told one."""
    return _ACTIVE


def max_threads():
    """Return OpenMP's own limit for the calling thread (OMP_NUM_THREADS, threadpoolctl), 1 without OpenMP."""
    return dconv_max_threads()


def block_sizes(level, itemsize):
    """Return (filters in a packed block, filters in a vector) of `level` for reals of 4 or 8 bytes."""
    cdef const dconv_microkernel *kernel = get_level(level)
    if itemsize == 4:
        return kernel.block_f32, kernel.lanes_f32
    return kernel.block_f64, kernel.lanes_f64


def can_share(level, itemsize):
    """Return whether several pixels or groups of few filters may share a vector at `level`, and be faster for it."""
    cdef const dconv_microkernel *kernel = get_level(level)
    return bool(kernel.shares_f32 if itemsize == 4 else kernel.shares_f64)


def choose_level(wanted):
    """Return the level that DCONV_CPU=`wanted` asks for; None or "" is the best one.

    Raises
    ------
    ValueError
        If there is no such level, or this CPU does not run it.
    """
    supported = supported_levels()
    if not wanted:
        return supported[len(supported) - 1]  # wraparound is off in the kernels
    if wanted not in supported:
        reason = "which this CPU does not run" if wanted in _NAMES else "which is no CPU level of this build"
        choices = ", ".join(name for name in supported if name != "plain")
        raise ValueError(f"DCONV_CPU={wanted!r} asks for a level {reason}; choose one of: {choices}")
    return wanted


cdef const dconv_microkernel *get_level(str level) except NULL:
    """Return the loops of `level`; None is the active one. The caller holds a supported name."""
    return table[_NAMES.index(_ACTIVE if level is None else level)]


_ACTIVE = choose_level(os.environ.get("DCONV_CPU"))
