"""What a cascade says of every pixel, where each stage sees the features of the image and what the stage before says.

An image is worked on in outer blocks, so that the probabilities between two stages, of an outer block and what lies
around it, stay within bounds; an image of ordinary size is one such block. They are continued by reflection where the
image ends and nowhere else, so that a pixel has the same answer, to the last bit, wherever blocks are cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dconv import _memory
from dconv._block_features import Bands, Reader, block_readers, gather_rows, readers_of
from dconv._blocks import choose_block_shape, split
from dconv._boxes import grown, sizes, within
from dconv._context_bank import ContextFeatures
from dconv._lazy_arrays import engine_of
from dconv._pixels import Block, PixelSet, blocks_of, masked_boxes, pixel_set
from dconv._prediction import Answerers, answer_box
from dconv._threads import run_tasks
from dconv._validation import Images

_OUTER_PIXELS = 1 << 22  # of which a stage before the last answers for two fifths more in 2-D, twice as many in 3-D


class Cascade(NamedTuple):
    """Stages that answer for images one after another; all but the last say probabilities."""

    features: Any
    images: Images
    channel_axis: int | None
    stages: Sequence[Answerers]
    context: ContextFeatures
    n_jobs: int

    def write(self, outputs: Sequence[np.ndarray], progress: Callable[[int], Callable[[], None]]) -> None:
        """Write what the last stage answers for each pixel to `outputs`.

        `progress` is given a number of blocks, and returns a function to call when one is done.
        """
        for reader in block_readers(self.features, self.images, self.channel_axis):
            tasks = [(i, box) for i in reader.numbers for box in self._outer_blocks(i)]
            step = progress(sum(self._n_blocks(reader, i, box) for i, box in tasks))

            def work(index: int, box: Block, n_jobs: int, reader: Reader = reader, step: Any = step) -> None:
                self.answer(reader, index, box, outputs[index][box], n_jobs, step)

            self._share(work, tasks)

    def gather_context(self, masks: Sequence[PixelSet]) -> np.ndarray:
        """Return what a further stage would see of the last one at the masked pixels, float32 rows in the order of
        :func:`dconv._block_features.gather_rows`.
        """
        bounds = np.cumsum([0, *(mask.n_pixels for mask in masks)])
        rows = np.empty((bounds[-1], self.context.n_features_out_), np.float32)
        for reader in block_readers(self.features, self.images, self.channel_axis):
            tasks = [(i, box) for i in reader.numbers for box in masked_boxes(masks[i], self._outer_blocks(i))]
            engine = engine_of(*self.images.arrays)
            if engine is not None:
                there = [task for task in tasks if engine_of(self.images.arrays[task[0]]) is not None]
                tasks = [task for task in tasks if engine_of(self.images.arrays[task[0]]) is None]
                for (i, box), found in zip(there, self._elsewhere(engine, reader, there, masks), strict=True):
                    rows[bounds[i] + masks[i].ranks(box)] = found

            def work(index: int, box: Block, n_jobs: int, reader: Reader = reader) -> None:
                rows[bounds[index] + masks[index].ranks(box)] = self.context_rows(
                    reader, index, box, masks[index].crop(box), n_jobs
                )

            self._share(work, tasks)
        return rows

    def _elsewhere(
        self, engine: Any, reader: Reader, tasks: Sequence[tuple[int, Block]], masks: Sequence[PixelSet]
    ) -> Iterator[np.ndarray]:
        """Yield what :meth:`context_rows` returns for boxes of images that do not lie here."""
        outlines = Images([Outline(array.shape) for array in self.images.arrays], "list")
        sent = self._replace(images=outlines, features=None, n_jobs=1)
        each = []
        for i, box in tasks:
            first, *_ = self._windows(i, grown(box, self.context.halo_, 1, self.images.spatial_shapes[i]))
            each.append((i, self.images.arrays[i], first, reader.halo, (i, box, masks[i].crop(box))))
        return engine.map_boxes(_context_rows_of_box, sent, reader.prepared, each)

    def context_rows(self, reader: Reader, index: int, box: Block, mask: PixelSet, n_jobs: int) -> np.ndarray:
        """Return what a further stage would see at the masked pixels of a box."""
        seen = grown(box, self.context.halo_, 1, self.images.spatial_shapes[index])
        probabilities = np.empty((*sizes(seen), self.context.n_classes), np.float32)
        self.answer(reader, index, seen, probabilities, n_jobs, lambda: None)
        whole = np.zeros(sizes(seen), bool)
        whole[within(box, seen)] = np.asarray(mask)
        return gather_rows(self.context, Images([probabilities], "image"), -1, [pixel_set(whole)], n_jobs)

    def _outer_blocks(self, index: int) -> Iterator[Block]:
        shape = self.images.spatial_shapes[index]
        return split(shape, choose_block_shape(shape, _OUTER_PIXELS))

    def _share(self, work: Callable[[int, Block, int], None], tasks: Sequence[tuple[int, Block]]) -> None:
        """Call `work` on every task, many small ones side by side, and a large one with all threads within."""
        together = max(1, min(self.n_jobs, len(tasks)))
        n_jobs = math.ceil(self.n_jobs / together)
        run_tasks(lambda task: work(task[0], task[1], n_jobs), tasks, together)

    def _windows(self, index: int, box: Block) -> list[Block]:
        """Return where each stage must answer, so that the last can in `box`."""
        shape = self.images.spatial_shapes[index]
        return [grown(box, self.context.halo_, times, shape) for times in reversed(range(len(self.stages)))]

    def _n_blocks(self, reader: Reader, index: int, box: Block) -> int:
        """Return how many blocks :meth:`answer` works on."""
        widths = [reader.n_features] + [reader.n_features + self.context.n_features_out_] * (len(self.stages) - 1)
        windows = zip(self._windows(index, box), widths, strict=True)
        return sum(len(list(blocks_of(sizes(window), n_features))) for window, n_features in windows)

    def answer(
        self, reader: Reader, index: int, box: Block, out: np.ndarray, n_jobs: int, step: Callable[[], None]
    ) -> None:
        """Write what the last stage answers in `box` of an image to `out` (*box, ...)."""
        *windows, _ = self._windows(index, box)
        reader = reader.over(index, windows[0] if windows else box)
        seen = reader
        for stage, window in zip(self.stages[:-1], windows, strict=True):
            probabilities = np.empty((*sizes(window), self.context.n_classes), np.float32)
            answer_box(seen, index, window, stage, probabilities, n_jobs, step)
            seen = _with_context(reader, self.context, probabilities, window)
        answer_box(seen, index, box, self.stages[-1], out, n_jobs, step)


class Outline(NamedTuple):
    """An image without its pixels."""

    shape: tuple[int, ...]


def _context_rows_of_box(
    image: Any, cascade: Cascade, prepared: Any, index: int, box: Block, mask: PixelSet
) -> np.ndarray:
    return cascade.context_rows(readers_of({index: (prepared, image)}), index, box, mask, 1)


def _with_context(reader: Reader, context: ContextFeatures, probabilities: np.ndarray, window: Block) -> Reader:
    """Return a reader of the features of images and, behind them, the context of `probabilities` in `window`."""
    n_features = reader.n_features

    def read(index: int, block: Block) -> np.ndarray:
        rows = _memory.empty((*sizes(block), n_features + context.n_features_out_), np.dtype(np.float32))
        for band, part in reader.bands(index, block):
            rows[within(band, block)][..., :n_features] = part
        context.fill(probabilities, within(block, window), rows[..., n_features:])
        return rows

    def bands(index: int, block: Block) -> Bands:
        return iter([(block, read(index, block))])

    return reader._replace(n_features=n_features + context.n_features_out_, read=read, bands=bands)
