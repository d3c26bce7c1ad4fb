"""Which pixels of labelled images are learnt from, and which blocks hold them.

A choice of pixels is a mask: one byte a pixel, where a list of positions would take eight for each chosen one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.random import sample_without_replacement

from dconv._axes import as_int
from dconv._blocks import choose_block_shape, split

Block = tuple[slice, ...]

SAMPLES = ("balanced", "stratified")
BLOCK_PIXELS = 1 << 17  # beyond this the halo is a small part of the work and a larger block gains nothing
BLOCK_BYTES = 1 << 26  # what the features of one block may take, per thread


class Rules(NamedTuple):
    """Which pixels are learnt from, checked: parameters of :class:`dconv.PixelClassifier`."""

    ignore_label: int | None
    max_samples: int | None
    sample: str
    class_prior: Any  # as far as it can be checked before the classes are known
    nodata: int | None


def as_sample(sample: Any) -> str:
    """Return `sample`, which must be one of `SAMPLES`."""
    if not isinstance(sample, str) or sample not in SAMPLES:
        raise ValueError(f"sample must be one of {', '.join(map(repr, SAMPLES))}, got {sample!r}")
    return sample


def as_max_samples(max_samples: Any) -> int | None:
    """Return `max_samples`, which must be None or a positive int."""
    if max_samples is None:
        return None
    count = as_int(max_samples, "max_samples", rule="None or an int")
    if count < 1:
        raise ValueError(f"max_samples must be at least 1 pixel per class and image, got {count}; None takes all")
    return count


def as_ignore_label(ignore_label: Any) -> int | None:
    """Return `ignore_label`, which must be None or an int."""
    return None if ignore_label is None else as_int(ignore_label, "ignore_label", rule="None or an int")


def labelled(labels: np.ndarray, ignore_label: int | None) -> np.ndarray:
    """Return the mask of the pixels whose label counts."""
    return np.ones(labels.shape, bool) if ignore_label is None else np.asarray(labels != ignore_label)


def choose_pixels(
    labels: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    max_samples: int | None,
    sample: str,
    random_state: np.random.RandomState,
) -> list[np.ndarray]:
    """Return, for each label image, the mask of those of its masked pixels that are learnt from.

    They are drawn uniformly without replacement: at most `max_samples` of each class of each image ("balanced"), or
    of an image as many in all, each class in proportion ("stratified") and with one pixel at least.
    """
    if max_samples is None:
        return list(masks)
    chosen = [mask.copy() for mask in masks]
    for image, mask in zip(labels, chosen, strict=True):
        classes, counts = np.unique(image[mask], return_counts=True)
        share = min(1.0, max_samples * len(classes) / max(1, counts.sum()))
        for label, count in zip(classes, counts, strict=True):
            wanted = max_samples if sample == "balanced" else max(1, round(share * count))
            if count > wanted:
                candidates = np.flatnonzero(mask & (image == label))
                kept = sample_without_replacement(len(candidates), wanted, random_state=random_state)
                mask.flat[candidates] = False
                mask.flat[candidates[kept]] = True
    return chosen


def blocks_of(shape: Sequence[int], n_features: int) -> Iterator[Block]:
    """Return the blocks an image of `shape` is worked on in, so that the features of one stay within bounds."""
    n_pixels = min(BLOCK_PIXELS, BLOCK_BYTES // (4 * n_features))
    return split(shape, choose_block_shape(shape, max(1, n_pixels)))


def masked_blocks(mask: np.ndarray, n_features: int) -> Iterator[Block]:
    """Return the blocks that hold pixels of `mask`, each cut down to the box around its pixels."""
    return masked_boxes(mask, blocks_of(mask.shape, n_features))


def masked_boxes(mask: np.ndarray, blocks: Iterable[Block]) -> Iterator[Block]:
    """Return those of `blocks` that hold pixels of `mask`, each cut down to the box around its pixels."""
    for block in blocks:
        inside = mask[block]
        if not inside.any():
            continue
        box = []
        for axis, whole in enumerate(block):
            hit = np.flatnonzero(inside.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
            box.append(slice(whole.start + int(hit[0]), whole.start + int(hit[-1]) + 1))
        yield tuple(box)


def rows_in_block(positions: np.ndarray, mask: np.ndarray, block: Block) -> np.ndarray:
    """Return where the pixels of `mask` in `block` stand among all of them, `positions`, in row-major order."""
    places = [axis + part.start for axis, part in zip(np.nonzero(mask[block]), block, strict=True)]
    return np.searchsorted(positions, np.ravel_multi_index(places, mask.shape))


def take(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the values at the masked pixels, image after image and in row-major order."""
    values = np.concatenate([image[mask] for image, mask in zip(maps, masks, strict=True)])
    # NumPy joins uint64 and int64 into float64, but labels of either kind must stay integers.
    integers = all(image.dtype.kind in "ui" for image in maps)
    return values.astype(np.int64) if integers and values.dtype.kind == "f" else values


def take_weights(weights: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the weights of the masked pixels, which must not all be zero."""
    taken = take(weights, masks)
    if not taken.any():
        raise ValueError("sample_weight is 0 at every labelled pixel; give some of them a positive weight")
    return taken


def cells_along(shape: Sequence[int], n_cells: int) -> tuple[np.ndarray, ...]:
    """Return along each axis the number of the cell of every place, where each axis is cut into `n_cells`."""
    return tuple(np.arange(size) * n_cells // size for size in shape)


def cells_of_pixels(mask: np.ndarray, n_cells: int) -> tuple[np.ndarray, ...]:
    """Return the number of the cell of each masked pixel, along each axis."""
    cells = cells_along(mask.shape, n_cells)
    return tuple(number[place] for number, place in zip(cells, np.nonzero(mask), strict=True))
