"""Boxes of pixels, which are tuples of slices with start and stop: their sizes, and one in the place of another."""

from __future__ import annotations

from collections.abc import Sequence

from dconv._pixels import Block


def sizes(box: Block) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in box)


def within(box: Block, outer: Block) -> Block:
    """Return where `box` lies in an array that holds the pixels of `outer`."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True))


def moved(box: Block, outer: Block) -> Block:
    """Return `box`, which counts from the start of `outer`, as it counts from the start of the image."""
    return tuple(slice(a.start + b.start, a.stop + b.start) for a, b in zip(box, outer, strict=True))


def overlap(box: Block, other: Block) -> Block | None:
    """Return the pixels that two boxes have in common, None if there are none."""
    parts = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, other, strict=True))
    return parts if all(part.start < part.stop for part in parts) else None


def grown(box: Block, halo: Sequence[tuple[int, int]], times: int, shape: Sequence[int]) -> Block:
    """Return `box` with so many halos around it, as far as the image goes."""
    return tuple(
        slice(max(part.start - times * left, 0), min(part.stop + times * right, size))
        for part, (left, right), size in zip(box, halo, shape, strict=True)
    )
