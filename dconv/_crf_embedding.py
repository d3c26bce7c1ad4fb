"""How the features of a pairwise kernel become coordinates and keys of its lattice, tile by tile."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dconv._kernels import _lattice
from dconv._memory import empty

_MOST_KEYS = 1 << 64
_MOST_CELLS = 1 << 22  # of a lattice along one axis: what float32 holds beside the place in a cell


@dataclass(frozen=True)
class Features:
    """What makes two pixels alike: one pairwise kernel is a Gaussian of the difference of these features.

    Attributes
    ----------
    name : str
        What messages call the kernel.
    widths : tuple of float
        Standard deviation in pixels along every spatial axis; empty if positions do not count.
    channels : ndarray of shape (i0, i1, i2, n_channels)
        Real, in any dtype; maybe no channels.
    scales : tuple of float
        Standard deviation of every channel.
    weight : float
        Of the kernel, above 0.
    remedy : str
        What to change where the lattice grows too large.
    start : tuple of int
        The place of the first pixel, for a part of an image: its lattice is then part of that of the whole.
    """

    name: str
    widths: tuple[float, ...]
    channels: np.ndarray
    scales: tuple[float, ...]
    weight: float
    remedy: str
    start: tuple[int, ...] = (0, 0, 0)

    @property
    def n_features(self) -> int:
        """Number of features, d."""
        return len(self.widths) + len(self.scales)


class Embedding:
    """Factors of features, and of every tile what its pixels' coordinates and keys are relative to.

    Features are in the order of pydensecrf, on which a lattice depends a little: the last spatial axis first, then the
    channels. Coordinates are computed in float32 from the start of a tile, whose own are computed here in float64; so
    a large image is as exact as a small one.

    Attributes
    ----------
    reference : ndarray of shape (n_channels,)
        What to subtract from channels.
    factors : ndarray of shape (d,)
        What to multiply features with.
    origins : ndarray of shape (n_tiles, d + 1)
        Coordinates to add, less whole cells.
    bases : ndarray of shape (n_tiles,)
        These cells, as a key.
    strides : ndarray of shape (d + 1,)
        Of the digits of keys; 0 for the last coordinate, which is given by the others.
    """

    def __init__(self, features: Features, sizes: tuple[int, ...], boxes: np.ndarray) -> None:
        d, n_axes = features.n_features, len(features.widths)
        # The blur of a lattice, seen from its features, is a Gaussian of variance 1 at this scale.
        scale = math.sqrt(2 / 3) * (d + 1) / np.sqrt(np.arange(1, d + 1) * np.arange(2, d + 2))
        factors = scale / np.array([*features.widths[::-1], *features.scales])
        self.reference, highest = _channel_range(features.channels)
        corner = np.array(features.start[::-1][:n_axes], np.float64)
        low = np.concatenate([corner, self.reference]) * factors
        high = np.concatenate([corner + sizes[::-1][:n_axes] - 1.0, highest]) * factors
        # Coordinate j is the sum of features from j on, minus j times the one before.
        elevate = np.triu(np.ones((d + 1, d)))
        elevate[np.arange(1, d + 1), np.arange(d)] = -np.arange(1, d + 1)
        ends = np.stack([elevate * low, elevate * high])
        least, most = ends.min(axis=0).sum(axis=1) / (d + 1), ends.max(axis=0).sum(axis=1) / (d + 1)
        if not np.all(most - least < _MOST_CELLS):
            raise ValueError(f"{features.name} spans {max(most - least):.2g} cells of its lattice; {features.remedy}")
        first = [math.floor(bound) - 3 for bound in least[:d]]  # rounding, the last corner, and its neighbours
        numbers = [math.ceil(bound) + 3 - start for bound, start in zip(most[:d], first, strict=True)]
        strides = [math.prod(numbers[:axis]) for axis in range(d)]
        if math.prod(numbers) * _lattice.REMAINDERS >= _MOST_KEYS:
            # Digits are hashed; see dconv._kernels._lattice.
            strides = np.random.default_rng(0).integers(1 << 63, size=d, dtype=np.uint64).tolist()
        self.factors = factors.astype(np.float32)
        self.strides = np.array([*strides, 0], np.uint64)
        starts = np.concatenate(
            [boxes[:, 4::-2][:, :n_axes] + corner, np.tile(self.reference, (len(boxes), 1))], axis=1
        )
        elevated = starts * factors @ elevate.T
        cells = np.rint(elevated / (d + 1))
        cells[:, d] = -cells[:, :d].sum(axis=1)  # a point of the lattice, like all that are counted from it
        self.origins = (elevated - (d + 1) * cells).astype(np.float32)
        digits = (cells[:, :d] - np.array(first)).astype(np.uint64)
        self.bases = (digits * self.strides[:d]).sum(axis=1, dtype=np.uint64)

    def embed(
        self,
        features: Features,
        tiles: slice,
        boxes: np.ndarray,
        first_groups: np.ndarray,
        first_rows: np.ndarray,
        first_entry: int,
        entries: tuple[np.ndarray, np.ndarray],
        scratch: Scratch,
        n_threads: int,
        level: str | None,
    ) -> np.ndarray:
        """Write ids and weights (`entries`) of some tiles, and return how many corners each has."""
        boxes = boxes[tiles].copy()
        low, high = boxes[:, ::2].min(axis=0), boxes[:, 1::2].max(axis=0)
        boxes -= np.repeat(low, 2)
        part = features.channels[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        counts = np.empty(len(boxes), np.int64)
        _lattice.embed_tiles(
            _minus(part, self.reference),
            boxes,
            len(features.widths),
            self.factors,
            self.origins[tiles],
            self.bases[tiles],
            self.strides,
            first_groups[tiles],
            first_rows,
            first_entry,
            *entries,
            scratch.keys,
            scratch.ones,
            counts,
            scratch.slots,
            scratch.planes,
            n_threads,
            level,
        )
        return counts


class Scratch:
    """Memory of the embedding of one kernel: what a number of tiles yields, and what each thread works with."""

    def __init__(self, n_features: int, tile: tuple[int, ...], n_tiles: int, n_threads: int) -> None:
        corners = math.prod(tile) * (n_features + 1)  # at most; the system gives no memory for what is not touched
        width = -(-tile[2] // _lattice.GROUP) * _lattice.GROUP
        slots = 1 << (16 * corners + 4096).bit_length()  # a table grows fourfold before a quarter of it is full
        self.keys = np.empty((n_tiles, 1 + corners), np.uint64)
        self.ones = np.empty((n_tiles, 1 + corners), np.float32)
        self.slots = np.empty((n_threads, slots), np.uint16)
        self.planes = np.empty((n_threads, n_features * width), np.float32)


def _channel_range(channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest value of every channel, or what bounds them at no cost."""
    n = channels.shape[-1]
    if channels.dtype.kind == "b" or channels.dtype == np.uint8:
        return np.zeros(n), np.full(n, 255.0)
    return channels.min(axis=(0, 1, 2)).astype(np.float64), channels.max(axis=(0, 1, 2)).astype(np.float64)


def _minus(channels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return channels minus `reference`, contiguous float32."""
    wide = channels.dtype.itemsize >= 4 and channels.dtype != np.float32  # would lose digits in float32
    if wide:
        return (channels - reference).astype(np.float32, order="C")
    out = empty(channels.shape, np.dtype(np.float32))
    out[...] = channels
    if reference.any():
        out -= reference.astype(np.float32)
    return out
