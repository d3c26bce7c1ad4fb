"""Blocks of images: how a plane is split, and how a block is read together with what lies around it.

An image is thought of as extended without end beyond its border, by one of the padding modes. Whoever reads a
block says where it starts and stops in the image's own coordinates, which may lie outside; so a convolution, a
feature bank and a tile all see the same samples at the same place, and a tiled result equals the whole one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

PADDING_MODES = ("zeros", "reflect", "symmetric", "edge", "circular")


def check_padding_mode(mode: object) -> None:
    """Check that `mode` is one of `PADDING_MODES`."""
    if not isinstance(mode, str) or mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(map(repr, PADDING_MODES))}, got {mode!r}")


def border_index(size: int, place: np.ndarray, mode: str) -> np.ndarray:
    """Return which sample of an axis of `size` samples stands at each place; -1 is a zero.

    ::

        zeros       0 0 0 | a b c d | 0 0 0
        reflect     d c b | a b c d | c b a
        symmetric   c b a | a b c d | d c b
        edge        a a a | a b c d | d d d
        circular    b c d | a b c d | a b c
    """
    if mode == "zeros":
        return np.where((place >= 0) & (place < size), place, -1)
    if mode == "edge":
        return np.clip(place, 0, size - 1)
    if mode == "circular":
        return place % size
    if mode == "symmetric":
        place = place % (2 * size)
        return np.minimum(place, 2 * size - 1 - place)
    period = max(2 * (size - 1), 1)  # reflect: the border sample itself is not repeated
    place = place % period
    return np.minimum(place, period - place) if size > 1 else np.zeros_like(place)


def read_block(
    x: np.ndarray, start: Sequence[int], stop: Sequence[int], mode: str, *, first_axis: int = 0
) -> np.ndarray:
    """Return ``x[start:stop]`` along the spatial axes, extended by `mode` where it lies outside `x`.

    Parameters
    ----------
    x : ndarray
        Its spatial axes begin at `first_axis`. They may be empty only if `mode` is "zeros".
    start, stop : sequence of int
        First place and place after the last on each spatial axis, in pixels of `x`; negative means before the
        first pixel.
    mode : str
        One of `PADDING_MODES`.

    Returns
    -------
    block : ndarray
        A view of `x` where the block lies inside, else a new array. Only the pixels needed are read.
    """
    axes = range(first_axis, first_axis + len(start))
    sizes = [x.shape[axis] for axis in axes]
    lead = (slice(None),) * first_axis
    inner = [slice(min(max(a, 0), n), max(min(b, n), 0)) for a, b, n in zip(start, stop, sizes, strict=True)]
    if all(a >= 0 and b <= n for a, b, n in zip(start, stop, sizes, strict=True)):
        return x[(*lead, *inner)]
    shape = list(x.shape)
    for axis, a, b in zip(axes, start, stop, strict=True):
        shape[axis] = max(b - a, 0)
    if 0 in shape:
        return np.zeros(shape, x.dtype)
    if mode == "zeros":
        block = np.zeros(shape, x.dtype)
        target = tuple(slice(s.start - a, max(s.stop, s.start) - a) for s, a in zip(inner, start, strict=True))
        block[(*lead, *target)] = x[(*lead, *inner)]
        return block
    if mode == "circular":
        return _read_around(x, start, stop, first_axis)
    index = [border_index(n, np.arange(a, b), mode) for a, b, n in zip(start, stop, sizes, strict=True)]
    box = [slice(int(i.min()), int(i.max()) + 1) for i in index]
    block = x[(*lead, *box)]
    for axis, places, crop, a, middle in zip(axes, index, box, start, inner, strict=True):
        places = places - crop.start
        low, high = max(middle.start - a, 0), max(middle.stop - a, 0)
        if low > 0 or high < len(places):
            # Only the margins go through an index: the middle, where there is one, is copied in long runs.
            inside = (slice(None),) * axis + (slice(middle.start - crop.start, middle.stop - crop.start),)
            margins = np.take(block, places[:low], axis=axis), np.take(block, places[high:], axis=axis)
            block = np.concatenate((margins[0], block[inside], margins[1]), axis=axis)
    return block


def _read_around(x: np.ndarray, start: Sequence[int], stop: Sequence[int], first_axis: int) -> np.ndarray:
    """Return a block of an image that repeats without end, from pieces of it, as its ends lie far from each other."""
    for number, (a, b) in enumerate(zip(start, stop, strict=True)):
        size = x.shape[first_axis + number]
        if a >= 0 and b <= size:
            continue
        pieces = []
        for turn in range(a // size, -(-b // size)):
            low, high = list(start), list(stop)
            low[number], high[number] = max(a - turn * size, 0), min(b - turn * size, size)
            pieces.append(read_block(x, low, high, "circular", first_axis=first_axis))
        return np.concatenate(pieces, axis=first_axis + number)
    return read_block(x, start, stop, "circular", first_axis=first_axis)


def fold_border(block: np.ndarray, pads: Sequence[tuple[int, int]], mode: str, *, first_axis: int = 0) -> np.ndarray:
    """Add the border of `block`, `pads` wide, to the pixels that `mode` copies it from: the adjoint of extending.

    Parameters
    ----------
    block : ndarray
        Written to.
    pads : sequence of (left, right)
        Pixels of border on each spatial axis; these begin at `first_axis`.
    mode : str
        One of `PADDING_MODES` other than "zeros".

    Returns
    -------
    folded : ndarray
        The part of `block` between the borders, which now holds their sums.
    """
    for axis, (left, right) in enumerate(pads, first_axis):
        lead = (slice(None),) * axis
        size = block.shape[axis] - left - right
        inner = block[(*lead, slice(left, left + size))]
        margins = np.concatenate([np.arange(-left, 0), np.arange(size, size + right)])
        added_to, added = inner.swapaxes(0, axis), block.swapaxes(0, axis)
        for place, source in zip(margins, border_index(size, margins, mode), strict=True):
            added_to[source] += added[place + left]
        block = inner
    return block


def split(shape: Sequence[int], block_shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Return the blocks of at most `block_shape` pixels that cover `shape`, in row order."""
    steps = [
        [slice(i, min(i + step, size)) for i in range(0, size, step)]
        for size, step in zip(shape, block_shape, strict=True)
    ]
    return itertools.product(*steps)


def choose_block_shape(shape: Sequence[int], n_pixels: int) -> tuple[int, ...]:
    """Return the shape of blocks of about `n_pixels` pixels: near-cubic, but never longer than the image.

    A block as square as the image allows has the least halo for its size.
    """
    block = [0] * len(shape)
    left = n_pixels
    order = sorted(range(len(shape)), key=lambda axis: shape[axis])  # what short axes leave goes to the long ones
    for done, axis in enumerate(order):
        side = max(1, round(left ** (1 / (len(shape) - done))))
        # Equal pieces rather than full ones and a sliver: every piece pays for its halo.
        block[axis] = math.ceil(shape[axis] / max(1, math.ceil(shape[axis] / side)))
        left = max(1, left // block[axis])
    return tuple(block)
