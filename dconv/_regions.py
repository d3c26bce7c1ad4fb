"""Regions of images: what is read at once where an image is read when it is sliced, and worked on block by block.

An image in memory is one region. Another is cut into regions, each of which is read once, with what is seen around it,
by one thread, while blocks of the regions before it are worked on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from dconv._blocks import choose_block_shape, split
from dconv._boxes import grown, moved, sizes
from dconv._lazy_arrays import LazyArray
from dconv._lazy_images import Window
from dconv._nodata import REACH, Infilled
from dconv._pipeline import run_pipeline
from dconv._pixels import Block, blocks_of, masked_boxes
from dconv._receptive import Margin
from dconv._threads import run_tasks

_REGION_PIXELS = 1 << 21  # as many blocks as keep several threads busy, and the halo is a small part of it in 2-D
_REGION_BYTES = 1 << 27  # that are read for one region
_SIDE_BY_SIDE = 2  # regions that are worked on together, so that the end of one leaves no thread idle


class Region(NamedTuple):
    """A part of an image, and the blocks that are worked on in it."""

    number: int  # of the image
    box: Block
    blocks: list[Block]


def is_lazy(image: Any) -> bool:
    """Tell whether an image is read when it is sliced."""
    return isinstance(image.source if isinstance(image, Infilled) else image, LazyArray)


def margin_of(image: Any, halo: Margin) -> Margin:
    """Return the pixels around a box that are read for features with this halo: more where some are filled."""
    if not isinstance(image, Infilled):
        return halo
    return tuple((left + REACH, right + REACH) for left, right in halo)


def read_around(image: Any, box: Block, halo: Margin) -> Any:
    """Return an image of which the pixels of `box`, and what is seen around them, have been read."""
    around = grown(box, margin_of(image, halo), 1, image.shape[:-1])
    if not isinstance(image, Infilled):
        return Window(image.shape, around, image[around], image)
    return image.over(*(_window(source, around) for source in (image.source, image.valid.sources[1])))


def _window(source: Any, box: Block) -> Any:
    return None if source is None else Window(source.shape, box, source[box], source)


def regions_of(image: Any, halo: Margin) -> Iterator[Block]:
    """Yield the boxes of an image that are read at once."""
    shape = image.shape[:-1]
    source = image.source if isinstance(image, Infilled) else image
    if not isinstance(source, LazyArray):
        yield tuple(slice(0, size) for size in shape)
        return
    if source.engine is not None and source.chunks is not None:
        yield from split(shape, source.chunks[:-1])
        return
    n_pixels, n_bytes, margin = _REGION_PIXELS, image.dtype.itemsize * image.shape[-1], margin_of(image, halo)
    while True:
        block = choose_block_shape(shape, n_pixels)
        read = math.prod(side + left + right for side, (left, right) in zip(block, margin, strict=True)) * n_bytes
        if read <= _REGION_BYTES or n_pixels <= 1 << 17:  # smaller ones would be all halo
            break
        n_pixels //= 2
    yield from split(shape, block)


def plan_regions(
    images: Sequence[Any],
    numbers: Iterable[int],
    halo: Margin,
    n_features: int,
    masks: Sequence[Any] | None = None,
    n_jobs: int = 1,
) -> list[Region]:
    """Return the regions of the images of these numbers, with all blocks, or those that hold pixels of `masks`.

    The blocks of an image in memory are as many as `n_jobs` threads end together with.
    """
    regions = []
    for index in numbers:
        image, mask = images[index], None if masks is None else masks[index]
        boxes: Iterable[Block] = regions_of(image, halo)
        if mask is not None and is_lazy(image):
            boxes = masked_boxes(mask, boxes)  # no more is read than labels need
        for box in boxes:
            of_box = blocks_of(sizes(box), n_features, 1 if is_lazy(image) else n_jobs)
            blocks: Iterable[Block] = (moved(block, box) for block in of_box)
            if mask is not None:
                blocks = masked_boxes(mask, blocks)
            regions.append(Region(index, box, list(blocks)))
    return [region for region in regions if region.blocks]


def run_regions(
    reader: Any, images: Sequence[Any], regions: Sequence[Region], work: Callable[[Any, int, Block], None], n_jobs: int
) -> None:
    """Call ``work(reader, index, block)`` for all blocks, with the reader of their region, on `n_jobs` threads."""
    if not any(is_lazy(images[region.number]) for region in regions):
        tasks = [(region.number, block) for region in regions for block in region.blocks]
        run_tasks(lambda task: work(reader, *task), tasks, n_jobs)
        return
    together = min(n_jobs, _SIDE_BY_SIDE)

    def compute(region: Region, near: Any) -> None:
        run_tasks(lambda block: work(near, region.number, block), region.blocks, math.ceil(n_jobs / together))

    run_pipeline(regions, lambda region: reader.over(region.number, region.box), compute, lambda *done: None, together)
