"""The mean field on a lattice: unaries in the form of the kernels, and one iteration after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from dconv._crf_lattice import Lattice
from dconv._crf_memory import check_memory
from dconv._kernels import _lattice, _mean_field
from dconv._memory import empty

FLOOR = 1e-5  # of probabilities: what pydensecrf takes, too
TOLERANCE = 1e-3  # of the sum of probabilities

Report: TypeAlias = Callable[[int, float, np.ndarray], bool]


def mean_field(
    lattice: Lattice,
    values: np.ndarray,
    *,
    are_probabilities: bool,
    matrices: Sequence[np.ndarray | None],
    n_iter: int,
    report: Report | None,
    n_threads: int,
    name: str,
) -> np.ndarray:
    """Return the distribution over classes of every pixel after `n_iter` iterations.

    Parameters
    ----------
    lattice : Lattice
        Of the image.
    values : ndarray of shape (n_pixels, n_classes)
        Contiguous float32: probabilities, or energies.
    are_probabilities : bool
        Which of the two.
    matrices : sequence of (ndarray of shape (n_classes, n_classes) or None)
        The compatibility of every kernel of the lattice, None for Potts.
    n_iter : int
        Number of iterations.
    report : callable or None
        Called after every iteration with its number, the largest change of a probability, and the probabilities;
        says whether to stop.
    n_threads : int
        Number of threads.
    name : str
        What messages call `values`.

    Returns
    -------
    q : ndarray of shape (n_pixels, n_classes)
    """
    n_pixels, n_classes = values.shape
    level = lattice.level
    # Potts takes the same from all classes but one's own; so only differences between classes count.
    relative = n_classes <= 5 and all(matrix is None for matrix in matrices)
    row = _mean_field.row_width(n_classes, relative, level)
    n_rows, n_vertices = len(lattice.rows), lattice.first_vertices[-1]
    n_copies = 1 + relative + (report is not None)
    check_memory(4 * (n_copies * n_pixels * n_classes + (n_rows + n_vertices) * row), f"refining {n_classes} classes")
    q = _rows(n_pixels, n_classes)
    unary = _rows(n_pixels, row if relative else n_classes) if relative or report is not None else q
    _fill_unary(unary, values, are_probabilities, relative, n_threads, name, level)
    sums, vertices = empty((n_rows, row), q.dtype), empty((n_vertices, row), q.dtype)
    local = np.empty((n_threads, lattice.n_most_rows * row), np.float32)
    scratch = np.empty((n_threads, _mean_field.STAGE * row + _lattice.GROUP * lattice.n_entries), np.float32)
    mixing = [_mixing(matrix, row) for matrix in matrices]

    def run(messages: np.ndarray | None, splat: bool, out: np.ndarray | None, changes: np.ndarray | None) -> None:
        _mean_field.pass_tiles(
            np.array(lattice.sizes, np.intp), lattice.boxes, lattice.ids, lattice.weights, lattice.first_groups,
            lattice.first_rows, lattice.vertex_of_row, unary, messages, sums if splat else None, out, changes,
            n_classes, row, relative, local, scratch, n_threads, level,
        )  # fmt: skip

    run(None, n_iter > 0, q if report is not None or n_iter == 0 else None, None)
    for iteration in range(1, n_iter + 1):
        lattice.gather(sums, vertices, n_threads)
        lattice.blur(vertices, n_threads)
        for matrix, start, stop in zip(mixing, lattice.first_vertices, lattice.first_vertices[1:], strict=False):
            if matrix is not None:
                _mean_field.mix_rows(matrix, vertices[start:stop], local, n_threads, level)
        last = iteration == n_iter
        changes = None if report is None else np.zeros(len(lattice.boxes), np.float32)
        run(vertices, not last, q if last or report is not None else None, changes)
        if report is not None and changes is not None and report(iteration, float(changes.max()), q):
            break
    return q


def _rows(n: int, width: int) -> np.ndarray:
    """Return memory for rows that kernels may read in whole vectors, beyond the last."""
    size = n * width
    return empty((size + _mean_field.OVERREAD,), np.dtype(np.float32))[:size].reshape(n, width)


def _mixing(matrix: np.ndarray | None, row: int) -> np.ndarray | None:
    """Return what multiplies a row of messages: minus the costs, padded."""
    if matrix is None:
        return None
    padded = np.zeros((len(matrix), row), np.float32)
    padded[:, : len(matrix)] = -matrix.T
    return padded


def _fill_unary(
    unary: np.ndarray,
    values: np.ndarray,
    are_probabilities: bool,
    relative: bool,
    n_threads: int,
    name: str,
    level: str | None,
) -> None:
    """Convert probabilities or energies, and check them on the way."""
    bad = np.empty(-(-len(values) // _mean_field.CHUNK), np.int64)
    scratch = np.empty((n_threads, _mean_field.CHUNK * values.shape[1] if relative else 1), np.float32)
    _mean_field.unary_rows(
        values, are_probabilities, FLOOR, TOLERANCE, relative, unary, bad, scratch, n_threads, level
    )  # fmt: skip
    chunks = np.flatnonzero(bad >= 0)
    if len(chunks) == 0:
        return
    pixel = int(chunks[0]) * _mean_field.CHUNK + int(bad[chunks[0]])
    raise ValueError(describe_bad(values[pixel], are_probabilities, name, pixel))


def describe_bad(row: np.ndarray, are_probabilities: bool, name: str, pixel: int) -> str:
    """Return what is wrong with the values of one pixel."""
    where = f"{name} at pixel {pixel} (counted row by row) "
    listed = np.array2string(row[:8], precision=4, threshold=8) + ("..." if len(row) > 8 else "")
    if not np.isfinite(row).all():
        remedy = "a large one for a class that cannot be" if not are_probabilities else "as by numpy.nan_to_num"
        return f"{where}are {listed}, but must be finite; give numbers, {remedy}"
    if not are_probabilities:
        return f"{where}are {listed}, beyond 1e18; scale them down"
    if row.min() < 0:
        return f"{where}are {listed}, but must not be negative; pass energies or scores to refine_unary"
    return (
        f"{where}are {listed} and add up to {math.fsum(row):.6g}, but must to 1 within {TOLERANCE:g}; divide them by "
        "their sum, or pass energies to refine_unary"
    )
