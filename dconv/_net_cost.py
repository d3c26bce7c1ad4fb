"""What a dense net takes on an image, said before it is run. Public as part of :class:`dconv.AtrousBackbone`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dconv._blocks import split
from dconv._hole_algorithm import DenseNet, multiplications, strides_of
from dconv._map_tiles import choose_tile_shape, tile_bytes, wanted_of


class LayerCost(NamedTuple):
    """What one layer takes on a whole image."""

    name: str
    shape: tuple[int, ...]  # of its output, with the channels
    stride: tuple[int, ...]  # pixels of the image between its samples
    dilation: tuple[int, ...]  # samples of its input between its taps
    multiplications: int
    n_bytes: int  # of its output


class BackboneCost(NamedTuple):
    """What a backbone takes on an image; printed it is a table.

    Attributes
    ----------
    shape : tuple of int
        Pixels of the image along each axis.
    multiplications : int
        Of all tiles, with what tiles compute twice because it lies around several: those of the layers as they are
        defined, of which Winograd's minimal filtering does 16 for 36.
    memory : int
        Bytes that the maps of one tile take at most while they are computed, with what all threads work in.
    kept : int
        Bytes of the maps of one tile that features are interpolated from.
    features : int
        Bytes of the features of all pixels, as `transform` returns them.
    n_tiles : int
        Number of tiles.
    layers : tuple of LayerCost
        One for each layer, in one piece.
    """

    shape: tuple[int, ...]
    multiplications: int
    memory: int
    kept: int
    features: int
    n_tiles: int
    layers: tuple[LayerCost, ...]

    def __str__(self) -> str:
        rows = [("layer", "output", "stride", "dilation", "multiplications (million)", "MB")]
        rows += [
            (
                layer.name,
                _by(layer.shape),
                _by(layer.stride),
                _by(layer.dilation),
                f"{layer.multiplications / 1e6:.1f}",
                f"{layer.n_bytes / 1e6:.1f}",
            )
            for layer in self.layers
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join(
                cell.ljust(width) if index == 0 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        pixels = math.prod(self.shape)
        total = (
            f"{_by(self.shape)} pixels in {self.n_tiles} tile(s): {self.multiplications / 1e6:.1f} million "
            f"multiplications ({self.multiplications / pixels:.0f} a pixel), {self.memory / 1e6:.1f} MB while a tile "
            f"is computed, {self.kept / 1e6:.1f} MB of its maps kept, {self.features / 1e6:.1f} MB of features"
        )
        return "\n".join([*table, total])


def cost_of(net: DenseNet, shape: Sequence[int], tile_memory: int, n_threads: int) -> BackboneCost:
    """Return what a net takes on an image of `shape`, whose tiles may take `tile_memory` bytes, on so many threads."""
    sizes, strides = net.sizes(shape)[1:], strides_of(net)
    layers = tuple(
        LayerCost(
            step.name,
            (*size, step.n_channels),
            stride,
            step.dilation,
            multiplications(step, size),
            4 * math.prod(size) * step.n_channels,
        )
        for step, size, stride in zip(net.steps, sizes, strides, strict=True)
    )
    tiles = list(split(shape, choose_tile_shape(net, shape, tile_memory, n_threads)))
    total = memory = kept = 0
    for tile in tiles:
        wanted = wanted_of(net, tile, shape)
        for step, part in zip(net.steps, net.parts(wanted, shape), strict=True):
            total += multiplications(step, [high - low for low, high in part.output])
        memory = max(memory, tile_bytes(net, tile, shape, n_threads))
        of_tile = (4 * tap.n_channels * math.prod(high - low for low, high in wanted[tap.step]) for tap in net.taps)
        kept = max(kept, sum(of_tile))
    features = 4 * math.prod(shape) * sum(tap.n_channels for tap in net.taps)
    return BackboneCost(tuple(shape), total, memory, kept, features, len(tiles), layers)


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
