"""The permutohedral lattices of one image, built once and used by every filtering of a mean field.

Spatial axes are seen as three, with leading axes of size 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from dconv._crf_embedding import Embedding, Features, Scratch
from dconv._crf_memory import check_memory, warn_if_too_fine
from dconv._kernels import _lattice, _mean_field
from dconv._memory import empty

# Pixels of a tile along the three axes, by rank, largest first: as many as can never have more corners than an id of 16
# bits counts. 64 x 64 was the fastest on photographs.
_TILES = {
    1: ((1, 1, 4096), (1, 1, 1024), (1, 1, 256), (1, 1, 64)),
    2: ((1, 64, 64), (1, 32, 32), (1, 16, 16), (1, 8, 8)),
    3: ((16, 16, 16), (8, 8, 16), (4, 4, 16), (2, 4, 8)),
}
_MOST_ROWS = 1 << 16
_TILES_TOGETHER = 64  # embedded before they are merged: enough for many threads, and it bounds the memory for keys
_PIECES = 16  # of the chains of one axis, for threads
_LOG2_E = math.log2(math.e)


class _Vertices:
    """The vertices of one lattice, by key."""

    def __init__(self) -> None:
        self.keys = np.empty(1 << 12, np.uint64)
        self.slots = np.full(1 << 13, -1, np.int32)
        self.n = 0

    def merge(
        self, scratch: Scratch, counts: np.ndarray, first_rows: np.ndarray, vertices: np.ndarray, sums: np.ndarray
    ) -> None:
        """Number the corners of tiles, from `first_rows` on in `vertices`; new ones get the next numbers."""
        most = self.n + int(counts.sum())
        if most > len(self.keys):
            size = max(most, 2 * self.n)
            self.keys = np.concatenate([self.keys[: self.n], np.empty(size - self.n, np.uint64)])
            self.slots = np.full(1 << (2 * size - 1).bit_length(), -1, np.int32)
            _lattice.fill_slots(self.slots, self.keys, self.n)
        self.n = _lattice.merge_tiles(
            scratch.keys, scratch.ones, counts, first_rows, vertices, sums, self.slots, self.keys, self.n
        )

    def chains(self, strides: np.ndarray, n_threads: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the chains of vertices along every axis of the lattice, and where to cut them into pieces."""
        remainders = (self.keys[: self.n] % np.uint64(_lattice.REMAINDERS)).astype(np.uint8)
        chains = np.empty((len(strides), self.n), np.int32)
        lengths, cuts = np.empty(len(strides), np.int64), np.empty((len(strides), _PIECES + 1), np.int64)
        after, has_before = np.empty((n_threads, self.n), np.int32), np.empty((n_threads, self.n), np.uint8)
        _lattice.find_chains(
            self.keys[: self.n], self.slots, remainders, strides, chains, lengths, cuts, after, has_before, n_threads
        )
        return [(each[:length], cut) for each, length, cut in zip(chains, lengths, cuts, strict=True)]


class Lattice:
    """The lattices of the kernels of one image, with normalised weights.

    Attributes
    ----------
    sizes : tuple of int
        Pixels along three axes.
    boxes : ndarray of shape (n_tiles, 6)
        Start and stop of every tile along the three axes.
    ids, weights : ndarray of shape (n_groups, n_entries, GROUP)
        Corners of every pixel, as rows of its tile.
    first_groups, first_rows : ndarray of shape (n_tiles + 1,)
        Where every tile begins.
    vertex_of_row : ndarray of shape (n_rows,)
        The vertex that a tile row stands for; vertices of all kernels are counted on.
    rows, first : ndarray of shape (n_rows,), (n_vertices + 1,)
        The rows of vertex v are ``rows[first[v]:first[v + 1]]``, the last of them as ~row.
    first_vertices : list of int
        Where the vertices of every kernel begin, and last their number.
    chains, pieces, stages : ndarray
        Vertices along all axes, their pieces, and which of these are blurred together; see
        :mod:`dconv._kernels._mean_field`.
    """

    def __init__(
        self, kernels: Sequence[Features], sizes: tuple[int, ...], ndim: int, n_threads: int, level: str | None = None
    ) -> None:
        self.sizes, self.level = sizes, level
        self.n_entries = sum(kernel.n_features + 1 for kernel in kernels)
        tile = next((tile for tile in _TILES[ndim] if math.prod(tile) * self.n_entries < _MOST_ROWS), None)
        if tile is None:
            raise ValueError(f"all kernels together have {self.n_entries} corners of a pixel; use fewer features")
        self.boxes = _boxes(sizes, tile)
        lengths = self.boxes[:, 1::2] - self.boxes[:, ::2]
        self.first_groups = _starts(lengths[:, 0] * lengths[:, 1] * -(-lengths[:, 2] // _lattice.GROUP))
        shape = (int(self.first_groups[-1]), self.n_entries, _lattice.GROUP)
        check_memory(6 * math.prod(shape), "the lattice of an image of this size")
        self.ids, self.weights = empty(shape, np.dtype(np.uint16)), empty(shape, np.dtype(np.float32))
        embeddings = [Embedding(kernel, sizes, self.boxes) for kernel in kernels]
        tables = [_Vertices() for _ in kernels]
        sums = self._embed(kernels, embeddings, tables, tile, n_threads)
        self.rows = np.empty(len(self.vertex_of_row), np.int32)
        self.first = np.zeros(self.first_vertices[-1] + 1, np.int64)
        _lattice.list_rows(self.vertex_of_row, self.first, self.rows)
        self._find_chains(embeddings, tables, n_threads)
        self.n_most_rows = int(np.diff(self.first_rows).max())
        self._normalize(kernels, sums, n_threads)

    def blur(self, values: np.ndarray, n_threads: int) -> None:
        """Blur the rows of vertices along all axes of their lattices, in place."""
        _mean_field.blur_rows(self.chains, self.pieces, self.stages, values, n_threads, self.level)

    def gather(self, sums: np.ndarray, values: np.ndarray, n_threads: int) -> None:
        """Add up the tile rows of every vertex."""
        _mean_field.gather_rows(sums, self.rows, self.first, values, n_threads, self.level)

    def _embed(
        self,
        kernels: Sequence[Features],
        embeddings: list[Embedding],
        tables: list[_Vertices],
        tile: tuple[int, ...],
        n_threads: int,
    ) -> np.ndarray:
        """Find the corners of all pixels and number the vertices; return the sum of the weights of every tile row."""
        slabs = list(_slabs(self.boxes))
        most_tiles = max(slab.stop - slab.start for slab in slabs)
        scratch = [Scratch(kernel.n_features, tile, most_tiles, n_threads) for kernel in kernels]
        counts = np.zeros((len(self.boxes), len(kernels)), np.int64)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        entries = self.ids, self.weights
        for slab in slabs:
            first_entry = 0
            for index, (kernel, embedding) in enumerate(zip(kernels, embeddings, strict=True)):
                of_others = counts[slab].sum(axis=1)
                counts[slab, index] = embedding.embed(
                    kernel, slab, self.boxes, self.first_groups, of_others, first_entry, entries, scratch[index],
                    n_threads, self.level,
                )  # fmt: skip
                first_entry += kernel.n_features + 1
            of_slab = counts[slab]
            starts = _starts(of_slab.ravel())  # tile after tile, and in each kernel after kernel
            vertices, sums = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
            starts = starts[:-1].reshape(of_slab.shape)

            for index, table in enumerate(tables):
                table.merge(scratch[index], of_slab[:, index].copy(), starts[:, index].copy(), vertices, sums)
            found.append((vertices, sums))
            self._check_rows(kernels, counts[: slab.stop], tables)
        self.first_rows = _starts(counts.sum(axis=1))
        self.first_vertices = [0, *np.cumsum([table.n for table in tables]).tolist()]
        self.vertex_of_row = np.concatenate([vertices for vertices, _ in found])
        self.vertex_of_row += np.repeat(
            np.tile(np.array(self.first_vertices[:-1], np.int32), len(self.boxes)), counts.ravel()
        )
        return np.concatenate([sums for _, sums in found])

    def _check_rows(self, kernels: Sequence[Features], counts: np.ndarray, tables: list[_Vertices]) -> None:
        """Estimate from the tiles done what all will take; `counts` are those of their corners."""
        share = self.first_groups[len(counts)] / self.first_groups[-1]
        n_rows, n_vertices = counts.sum() / share, sum(table.n for table in tables) / share
        remedy = "; ".join(dict.fromkeys(kernel.remedy for kernel in kernels))
        # Ids, vertices and sums of rows; keys, slots, and along every axis chains of vertices.
        corners = 1 + max(kernel.n_features for kernel in kernels)
        check_memory(int(12 * n_rows + (32 + 8 * corners) * n_vertices), "a lattice with so many vertices", remedy)
        if n_rows >= 1 << 31:
            raise MemoryError(f"the lattices have {n_rows:.2g} corners in all tiles, more than 2^31; {remedy}")
        if len(counts) == len(self.boxes):
            for index, kernel in enumerate(kernels):
                warn_if_too_fine(kernel, tables[index].n, math.prod(self.sizes))

    def _find_chains(self, embeddings: list[Embedding], tables: list[_Vertices], n_threads: int) -> None:
        every = [table.chains(each.strides, n_threads) for each, table in zip(embeddings, tables, strict=True)]
        self.chains = np.concatenate([chains for of_kernel in every for chains, _ in of_kernel])
        # Axes of different kernels with the same number can be blurred together. Pieces come in the order of the image.
        stages: list[list[tuple[float, int, int, int]]] = [[] for _ in range(max(map(len, every)))]
        start = 0
        for vertex, of_kernel in zip(self.first_vertices, every, strict=False):
            for stage, (chains, cuts) in zip(stages, of_kernel, strict=False):
                stage += [
                    (begin / len(chains), start + begin, start + end, vertex)
                    for begin, end in pairwise(cuts.tolist())
                    if begin < end
                ]
                start += len(chains)
        self.pieces = np.array([piece[1:] for stage in stages for piece in sorted(stage)], np.int64).reshape(-1, 3)
        self.stages = _starts(np.array([len(stage) for stage in stages]))

    def _normalize(self, kernels: Sequence[Features], sums: np.ndarray, n_threads: int) -> None:
        """Scale the weights of all entries so that splat, blur and slice give the normalised message in base 2."""
        values = np.empty((self.first_vertices[-1], 1), np.float32)
        self.gather(sums[:, np.newaxis], values, n_threads)
        self.blur(values, n_threads)
        local = np.empty((n_threads, self.n_most_rows), np.float32)
        entry = 0
        for kernel in kernels:
            slice_factor = 1 / (1 + 2.0**-kernel.n_features)
            factor = math.sqrt(slice_factor * kernel.weight * _LOG2_E)
            stop = entry + kernel.n_features + 1
            _lattice.normalize(
                self.weights, self.ids, self.first_groups, self.first_rows, self.vertex_of_row, values[:, 0], entry,
                stop, slice_factor, factor, local, n_threads, self.level,
            )  # fmt: skip
            entry = stop


def _starts(counts: np.ndarray) -> np.ndarray:
    """Return where each of several runs begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _boxes(sizes: tuple[int, ...], tile: tuple[int, ...]) -> np.ndarray:
    """Return start and stop of every tile along the three axes."""
    starts = np.stack(
        np.meshgrid(*(np.arange(0, n, size) for n, size in zip(sizes, tile, strict=True)), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    stops = np.minimum(starts + tile, sizes)
    return np.stack([starts, stops], axis=-1).reshape(-1, 6).astype(np.intp)


def _slabs(boxes: np.ndarray) -> Iterator[slice]:
    """Yield runs of tiles that together are whole slabs of the image."""
    axis = 0 if boxes[-1, 1] > 1 else 2
    begins = np.flatnonzero(np.diff(boxes[:, axis], prepend=-1))
    start = 0
    for stop in [*begins[1:], len(boxes)]:
        if stop - start >= _TILES_TOGETHER or stop == len(boxes):
            yield slice(start, int(stop))
            start = int(stop)
