"""Maps of an image computed tile by tile, and the features of its pixels interpolated between their samples.

A net sees far beyond a block of pixels, so that small blocks would compute most of it many times. Maps are therefore
computed in tiles as large as a given memory allows, of which the last are kept for the blocks that come next.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dconv._blocks import choose_block_shape, read_block, split
from dconv._hole_algorithm import DenseNet, Region, Tap, samples_for
from dconv._net_run import peak_bytes, run_net
from dconv._pixels import Block
from dconv._upsampling_filters import spreads_at
from dconv.upsampling import interpolated


class Preparation(NamedTuple):
    """How the channels of an image become those of a net's input."""

    channels: tuple[int, ...]  # of the image, one for each of the input
    mean: np.ndarray  # float32, one for each of the input
    factor: np.ndarray  # likewise: 1 / std

    def read(self, image: Any, region: Region) -> np.ndarray:
        """Return a part of the input of the net for an image (*spatial, channels)."""
        part = np.asarray(image[tuple(slice(low, high) for low, high in region)])
        part = np.take(part, self.channels, axis=-1).astype(np.float32)
        part -= self.mean
        part *= self.factor
        return part


class Maps(NamedTuple):
    """The parts of the maps of all taps that the pixels of a tile need."""

    tile: Block
    parts: tuple[tuple[np.ndarray, Region], ...]  # of every tap: (*region, channels), and where it lies in its map

    @property
    def n_bytes(self) -> int:
        """Memory taken."""
        return sum(array.nbytes for array, _ in self.parts)


def compute_maps(net: DenseNet, prepare: Preparation, image: Any, tile: Block, n_threads: int) -> Maps:
    """Return the maps for the pixels of `tile` of an image."""
    size = image.shape[:-1]
    wanted = wanted_of(net, tile, size)
    source = prepare.read(image, net.parts(wanted, size)[0].input)
    found = run_net(net, source, size, wanted, n_threads)
    return Maps(tile, tuple((found[tap.step], wanted[tap.step]) for tap in net.taps))


def wanted_of(net: DenseNet, tile: Block, size: Sequence[int]) -> dict[int, Region]:
    """Return the parts of the maps of all taps that the pixels of a tile need."""
    sizes = net.sizes(size)
    return {tap.step: samples_for(tap, tile, sizes[tap.step + 1]) for tap in net.taps}


def write_features(net: DenseNet, maps: Maps, box: Block, out: np.ndarray) -> None:
    """Write the features of the pixels of `box`, which lies in the tile of `maps`, to `out` (*box, n_features)."""
    done = 0
    for tap, (samples, region) in zip(net.taps, maps.parts, strict=True):
        out[..., done : done + tap.n_channels] = _interpolate(tap, samples, region, box)
        done += tap.n_channels


def _interpolate(tap: Tap, samples: np.ndarray, region: Region, box: Block) -> np.ndarray:
    """Return a map between its samples, and beyond the first and last what these are."""
    # In pixels from the first sample that is there, so that it stands at 0.
    first = [part.start - low * step for part, (low, _), step in zip(box, region, tap.stride, strict=True)]
    stop = [part.stop - low * step for part, (low, _), step in zip(box, region, tap.stride, strict=True)]
    if set(tap.stride) == {1} and not any(center % 2 for center in tap.centers):
        moved = [center // 2 for center in tap.centers]
        low = [a - by for a, by in zip(first, moved, strict=True)]
        high = [b - by for b, by in zip(stop, moved, strict=True)]
        return read_block(samples, low, high, "edge")
    axes = spreads_at("bilinear", tap.stride, tap.centers)
    return interpolated(samples[np.newaxis], axes, tap.stride, first, stop, "edge", n_threads=1)[0]


def tile_bytes(net: DenseNet, tile: Block, size: Sequence[int], n_threads: int) -> int:
    """Return the memory that the maps of a tile take while they are computed, at most."""
    return peak_bytes(net, size, wanted_of(net, tile, size), n_threads)


def choose_tile_shape(net: DenseNet, size: Sequence[int], n_bytes: int, n_threads: int) -> tuple[int, ...]:
    """Return the shape of tiles that take `n_bytes` at most, as far as tiles as wide as what is seen around them do.

    They begin at multiples of all strides, so that none computes more samples than another for its size.
    """
    steps = [math.lcm(*(tap.stride[axis] for tap in net.taps)) for axis in range(net.ndim)]
    seen = [max(sum(tap.reach[axis]) for tap in net.taps) for axis in range(net.ndim)]
    least = math.prod(max(step, n) for step, n in zip(steps, seen, strict=True))
    n_pixels = math.prod(size)
    while True:
        shape = choose_block_shape(size, n_pixels)
        shape = tuple(min(-(-n // step) * step, whole) for n, step, whole in zip(shape, steps, size, strict=True))
        # The tile that sees most lies in the middle.
        starts = [(whole // n // 2) * n if n < whole else 0 for n, whole in zip(shape, size, strict=True)]
        tile = tuple(slice(a, min(a + n, whole)) for a, n, whole in zip(starts, shape, size, strict=True))
        if n_pixels <= least or tile_bytes(net, tile, size, n_threads) <= n_bytes:
            return shape
        n_pixels = max(n_pixels // 2, least)


class TiledMaps:
    """The maps of one image: tiles are computed when they are asked for, and the last ones kept."""

    def __init__(self, net: DenseNet, prepare: Preparation, size: Sequence[int], n_bytes: int, n_threads: int) -> None:
        self._net, self._prepare, self._n_bytes, self._n_threads = net, prepare, n_bytes, n_threads
        self.tiles = list(split(size, choose_tile_shape(net, size, n_bytes, n_threads)))
        self._kept: OrderedDict[int, Maps] = OrderedDict()
        self._lock = threading.Lock()

    def write(self, image: Any, block: Block, out: np.ndarray) -> None:
        """Write the features of the pixels of `block` to `out` (*block, n_features)."""
        for number, tile in enumerate(self.tiles):
            box = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(block, tile, strict=True))
            if all(part.start < part.stop for part in box):
                inside = tuple(
                    slice(part.start - whole.start, part.stop - whole.start)
                    for part, whole in zip(box, block, strict=True)
                )
                write_features(self._net, self._maps(image, number), box, out[inside])

    def _maps(self, image: Any, number: int) -> Maps:
        # One thread computes, on all the threads there are for it, while those that need the same tile wait.
        with self._lock:
            maps = self._kept.pop(number, None)
            if maps is None:
                maps = compute_maps(self._net, self._prepare, image, self.tiles[number], self._n_threads)
            self._kept[number] = maps
            while len(self._kept) > 1 and sum(each.n_bytes for each in self._kept.values()) > self._n_bytes:
                self._kept.popitem(last=False)
            return maps
