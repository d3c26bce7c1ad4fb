"""Which pixels of labelled images are learnt from, and which blocks hold them.

A mask is anything of which a box can be asked for: an array, one that is made when it is sliced
(:class:`dconv._lazy_arrays.Derived`), or a :class:`PixelSet`, which holds the places of its pixels alone, so that what
is held of images on a disk grows with their labelled pixels and not with their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.random import sample_without_replacement

from dconv._axes import as_int
from dconv._blocks import choose_block_shape, split
from dconv._lazy_arrays import map_rows

Block = tuple[slice, ...]

SAMPLES = ("balanced", "stratified")
BLOCK_PIXELS = 1 << 18  # beyond this the halo is a small part of the work and a larger block gains nothing
_LEAST_ROWS = 128  # of a piece of a block: the halo of a smaller one is most of the work
BLOCK_BYTES = 1 << 27  # what the features of one block may take, per thread
_CHUNK = 1 << 20  # pixels that are looked at together


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


class PixelSet:
    """Pixels of an image of `shape`, by their places in row-major order, ascending."""

    def __init__(self, shape: tuple[int, ...], places: np.ndarray) -> None:
        self.shape, self.ndim, self.places = shape, len(shape), places

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def n_pixels(self) -> int:
        return len(self.places)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return the mask of a box."""
        key = key if isinstance(key, tuple) else (key,)
        whole = (slice(None),) * (self.ndim - len(key))
        parts = zip((*key, *whole), self.shape, strict=True)
        box = tuple(slice(*part.indices(size)[:2]) for part, size in parts)
        mask = np.zeros([part.stop - part.start for part in box], bool)
        mask.flat[self._inside(box)[1]] = True
        return mask

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)

    def rows(self, rows: slice) -> PixelSet:
        """Return the pixels of some rows, as an image of its own."""
        return self.crop((rows, *(slice(0, size) for size in self.shape[1:])))

    def crop(self, box: Block) -> PixelSet:
        """Return the pixels of a box, as an image of its own."""
        return PixelSet(tuple(part.stop - part.start for part in box), self._inside(box)[1])

    def within(self, box: Block) -> PixelSet:
        """Return the pixels of a box alone."""
        return PixelSet(self.shape, self.places[self.ranks(box)])

    def ranks(self, box: Block) -> np.ndarray:
        """Return where the pixels of a box stand among all, in the row-major order of the box."""
        return self._inside(box)[0]

    def coordinates(self) -> tuple[np.ndarray, ...]:
        """Return the place of every pixel along each axis."""
        return np.unravel_index(self.places, self.shape)

    def _inside(self, box: Block) -> tuple[np.ndarray, np.ndarray]:
        """Return where the pixels of a box stand among all, and their places in the box."""
        width = box[-1].stop - box[-1].start
        lines = np.zeros(1, np.int64)  # the first pixel of every line of the box, as a place in the image
        for axis, (part, size) in enumerate(zip(box, self.shape, strict=True), 1):
            along = np.arange(part.start, part.stop if axis < self.ndim else part.start + 1)
            lines = (lines[:, np.newaxis] * size + along).ravel()
        first, last = np.searchsorted(self.places, lines), np.searchsorted(self.places, lines + width)
        counts = last - first
        ranks = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        places = self.places[ranks] + np.repeat(np.arange(len(lines)) * width - lines, counts)
        return ranks, places


def pixel_set(mask: np.ndarray) -> PixelSet:
    """Return the pixels of a mask."""
    return PixelSet(mask.shape, np.flatnonzero(mask))


def labelled(ignore_label: int | None, labels: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Return the mask of the pixels whose label counts, and which hold data."""
    mask = np.ones(labels.shape, bool) if ignore_label is None else np.asarray(labels != ignore_label)
    return mask if valid is None else mask & valid


def rows_at_once(shape: Sequence[int]) -> int:
    """Return how many rows of maps of `shape` are looked at together."""
    return max(1, _CHUNK // max(1, math.prod(shape[1:])))


def any_pixel(mask: Any) -> bool:
    """Tell whether a mask has a pixel."""
    return any(map_rows(_any, rows_at_once(mask.shape), mask))


def _any(start: int, mask: np.ndarray) -> bool:
    return bool(mask.any())


def choose_pixels(
    labels: Sequence[Any],
    masks: Sequence[Any],
    max_samples: int | None,
    sample: str,
    random_state: np.random.RandomState,
) -> list[PixelSet]:
    """Return, for each label image, those of its masked pixels that are learnt from.

    They are drawn uniformly without replacement: at most `max_samples` of each class of each image ("balanced"), or
    of an image as many in all, each class in proportion ("stratified") and with one pixel at least.
    """
    chosen = []
    for image, mask in zip(labels, masks, strict=True):
        n_rows = rows_at_once(image.shape)
        kept: dict[int, dict[Any, np.ndarray]] | None = None
        if max_samples is not None:
            counts = list(map_rows(_count_labels, n_rows, image, mask))
            kept = _draw(counts, n_rows, max_samples, sample, random_state)
        parts = list(map_rows(partial(_places, kept), n_rows, image if kept else None, mask))
        chosen.append(PixelSet(tuple(image.shape), np.concatenate(parts)))
    return chosen


def _count_labels(start: int, labels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(labels[mask], return_counts=True)


def _draw(
    counts: list[tuple[np.ndarray, np.ndarray]],
    n_rows: int,
    max_samples: int,
    sample: str,
    random_state: np.random.RandomState,
) -> dict[int, dict[Any, np.ndarray]]:
    """Return for each part, by its first row, which pixels of the classes that have too many are kept.

    `counts` are the labels of each part and how often they occur.
    """
    totals: dict[Any, int] = {}
    for classes, of_class in counts:
        for label, count in zip(classes.tolist(), of_class.tolist(), strict=True):
            totals[label] = totals.get(label, 0) + count
    share = min(1.0, max_samples * len(totals) / max(1, sum(totals.values())))
    kept: dict[int, dict[Any, np.ndarray]] = {}
    for label in sorted(totals):
        count = totals[label]
        wanted = max_samples if sample == "balanced" else max(1, round(share * count))
        if count <= wanted:
            continue
        ranks = np.sort(sample_without_replacement(count, wanted, random_state=random_state))
        before = 0
        for part, (classes, of_class) in enumerate(counts):
            of_part = int(of_class[classes == label].sum())
            low, high = np.searchsorted(ranks, (before, before + of_part))
            kept.setdefault(part * n_rows, {})[label] = ranks[low:high] - before
            before += of_part
    return kept


def _places(
    kept: dict[int, dict[Any, np.ndarray]] | None, start: int, labels: np.ndarray | None, mask: np.ndarray
) -> np.ndarray:
    """Return the places of the pixels of a part that are learnt from, in the image."""
    if labels is not None and kept:
        mask = mask.copy()
        for label, ranks in kept.get(start, {}).items():
            candidates = np.flatnonzero(mask & (labels == label))
            mask.flat[candidates] = False
            mask.flat[candidates[ranks]] = True
    return np.flatnonzero(mask) + start * math.prod(mask.shape[1:])


def blocks_of(shape: Sequence[int], n_features: int, n_jobs: int = 1) -> Iterator[Block]:
    """Return the blocks an image of `shape` is worked on in, so that the features of one stay within bounds.

    Those left when `n_jobs` threads have worked on as many as each other are cut in pieces, so that no thread waits
    while another works on a whole one.
    """
    n_pixels = min(BLOCK_PIXELS, BLOCK_BYTES // (4 * n_features))
    blocks = list(split(shape, choose_block_shape(shape, max(1, n_pixels))))
    n_whole = len(blocks) - len(blocks) % n_jobs
    yield from blocks[:n_whole]
    for rows, *others in blocks[n_whole:]:
        n_rows = rows.stop - rows.start
        step = math.ceil(n_rows / max(1, min(n_jobs, n_rows // _LEAST_ROWS)))
        for low in range(rows.start, rows.stop, step):
            yield (slice(low, min(low + step, rows.stop)), *others)


def masked_boxes(mask: Any, blocks: Iterable[Block]) -> Iterator[Block]:
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


def take(maps: Sequence[Any], masks: Sequence[Any]) -> np.ndarray:
    """Return the values at the masked pixels, image after image and in row-major order."""
    values = np.concatenate([part for pair in zip(maps, masks, strict=True) for part in _parts_taken(*pair)])
    # NumPy joins uint64 and int64 into float64, but labels of either kind must stay integers.
    integers = all(image.dtype.kind in "ui" for image in maps)
    return values.astype(np.int64) if integers and values.dtype.kind == "f" else values


def _parts_taken(image: Any, mask: Any) -> Iterator[np.ndarray]:
    return map_rows(_take, rows_at_once(mask.shape), image, mask)


def _take(start: int, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return values[mask]


def take_weights(weights: Sequence[Any], masks: Sequence[Any]) -> np.ndarray:
    """Return the weights of the masked pixels, which must not all be zero."""
    check_weights(weights, masks)
    return take(weights, masks)


def check_weights(weights: Sequence[Any], masks: Sequence[Any]) -> None:
    """Check that the weights of masked pixels are not all zero."""
    if not any(part.any() for pair in zip(weights, masks, strict=True) for part in _parts_taken(*pair)):
        raise ValueError("sample_weight is 0 at every labelled pixel; give some of them a positive weight")


def cells_along(shape: Sequence[int], n_cells: int) -> tuple[np.ndarray, ...]:
    """Return along each axis the number of the cell of every place, where each axis is cut into `n_cells`."""
    return tuple(np.arange(size) * n_cells // size for size in shape)


def cells_of_pixels(mask: PixelSet, n_cells: int) -> tuple[np.ndarray, ...]:
    """Return the number of the cell of each masked pixel, along each axis."""
    cells = cells_along(mask.shape, n_cells)
    return tuple(number[place] for number, place in zip(cells, mask.coordinates(), strict=True))
