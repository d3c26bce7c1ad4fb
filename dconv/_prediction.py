"""What a fitted classifier says of every pixel: features of blocks in, answers out, on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dconv._block_features import Reader, block_readers
from dconv._boxes import moved, sizes, within
from dconv._lazy_arrays import map_rows
from dconv._pixels import Block, blocks_of, rows_at_once
from dconv._receptive import Margin
from dconv._regions import plan_regions, run_regions
from dconv._responses import Respond
from dconv._threads import run_tasks
from dconv._validation import Images

# Who answers for the pixels of a block of an image: pairs of an index, which picks some of them, and their answers.
Answerers = Callable[[int, Block], Iterable[tuple[Any, Respond]]]


class BoxAnswers(NamedTuple):
    """How a fitted model answers for boxes of one image, each from what lies around it and not from the whole."""

    margin: Margin  # pixels that are seen left and right of a box, per spatial axis
    write: Callable[[Reader, Any, Block, np.ndarray, int], None]  # reader, image, box, out (*box, ...), n_jobs
    n_bytes: int = 0  # to count for a pixel of a box and its margin, if more than a pixel of the source has


def everywhere(respond: Respond) -> Answerers:
    """Return who answers for all pixels: `respond`."""
    return partial(_everywhere, respond)


def _everywhere(respond: Respond, index: int, block: Block) -> Iterable[tuple[Any, Respond]]:
    return [(..., respond)]


def answer_box(
    reader: Reader,
    index: int,
    box: Block,
    answerers: Answerers,
    out: np.ndarray,
    n_jobs: int,
    step: Callable[[], None] = lambda: None,
) -> None:
    """Write what is answered in `box` of an image to `out` (*box, ...); `step` is called when a block is done."""

    def work(block: Block) -> None:
        for band, rows in reader.bands(index, block):
            answers = out[within(band, box)]
            for pixels, respond in answerers(index, band):
                chosen = rows[pixels]
                given = respond(chosen.reshape(-1, chosen.shape[-1]))
                answers[pixels] = given.reshape(chosen.shape[:-1] + given.shape[1:])
        step()

    run_tasks(work, [moved(block, box) for block in blocks_of(sizes(box), reader.n_features)], n_jobs)


def respond_everywhere(
    features: Any,
    images: Images,
    channel_axis: int | None,
    respond: Respond,
    outputs: Sequence[np.ndarray],
    n_jobs: int,
    progress: Callable[[int], Callable[[], None]],
) -> None:
    """Write what `respond` answers for each pixel to `outputs`.

    `progress` is given a number of blocks, and returns a function to call when one is done.
    """
    for reader in block_readers(features, images, channel_axis):
        regions = plan_regions(images.arrays, reader.numbers, reader.halo, reader.n_features, n_jobs=n_jobs)
        step = progress(sum(len(region.blocks) for region in regions))

        def work(near: Reader, index: int, block: Block, step: Callable[[], None] = step) -> None:
            for band, rows in near.bands(index, block):
                answers = respond(rows.reshape(-1, rows.shape[-1]))
                outputs[index][band] = answers.reshape(rows.shape[:-1] + answers.shape[1:])
            step()

        run_regions(reader, images.arrays, regions, work, n_jobs)


def weigh_right_pixels(
    features: Any,
    images: Images,
    channel_axis: int | None,
    respond: Respond,
    labels: Sequence[Any],
    masks: Sequence[Any],
    weights: Sequence[Any] | None,
    n_jobs: int,
) -> tuple[float, float]:
    """Return the weight of the masked pixels for which `respond` answers the label, and the weight of all of them."""
    sums: dict[tuple[int, tuple[int, ...]], tuple[float, float]] = {}
    for reader in block_readers(features, images, channel_axis):
        regions = plan_regions(images.arrays, reader.numbers, reader.halo, reader.n_features, masks)

        def work(near: Reader, index: int, block: Block) -> None:
            inside = masks[index][block]
            right = respond(near.read(index, block)[inside]) == labels[index][block][inside]
            weight = np.ones(len(right)) if weights is None else weights[index][block][inside].astype(float)
            place = index, tuple(part.start for part in block)
            sums[place] = float(weight[right].sum()), float(weight.sum())

        run_regions(reader, images.arrays, regions, work, n_jobs)
    right, total = np.sum([sums[place] for place in sorted(sums)], axis=0)
    return float(right), float(total)


def weigh_right_labels(
    predicted: Sequence[np.ndarray], labels: Sequence[Any], masks: Sequence[Any], weights: Sequence[Any] | None
) -> tuple[float, float]:
    """Return the same of labels that are there already."""
    right = total = 0.0
    for i, mask in enumerate(masks):
        n_rows = rows_at_once(mask.shape)
        for part in map_rows(
            _weigh_part, n_rows, predicted[i], labels[i], mask, None if weights is None else weights[i]
        ):
            right, total = right + part[0], total + part[1]
    return right, total


def _weigh_part(
    start: int, predicted: np.ndarray, labels: np.ndarray, mask: np.ndarray, weights: np.ndarray | None
) -> tuple[float, float]:
    weight = np.ones(np.count_nonzero(mask)) if weights is None else weights[mask].astype(float)
    return float(weight[predicted[mask] == labels[mask]].sum()), float(weight.sum())
