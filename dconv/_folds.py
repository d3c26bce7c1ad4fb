"""Folds of labelled pixels: which are held out together, so that what is said of them was not learnt from them.

Neighbouring pixels are alike, and so are those of one image. What is dealt to folds is therefore not pixels but images,
or, where there is one image or a class is in one alone, the cells of a grid over each image. Each goes to the fold that
has least of the classes that it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from dconv._pixels import Block, PixelSet, cells_along, cells_of_pixels

_FIRST_CELLS = 16  # of an image that is cut, and from there on twice as many along every axis, ...
_REFINEMENTS = 5  # ... so often


class Folds:
    """Images cut into the cells of grids, each cell in one fold.

    Attributes
    ----------
    of_pixel : ndarray of shape (n_labelled_pixels,)
        The fold of each, image after image in row-major order.
    n_folds : int
    """

    def __init__(self, masks: Sequence[PixelSet], n_cells: int, of_cell: Sequence[np.ndarray]) -> None:
        self._n_cells, self._of_cell = n_cells, of_cell
        self.n_folds = 1 + max(int(folds.max()) for folds in of_cell)
        self._shapes = [mask.shape for mask in masks]
        places = [cells_of_pixels(mask, n_cells) for mask in masks]
        self.of_pixel = np.concatenate([folds[place] for folds, place in zip(of_cell, places, strict=True)])

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the spatial shape of an image."""
        return self._shapes[index]

    def of_image(self, index: int) -> np.ndarray:
        """Return all folds that an image has cells in, and do not look at its pixels, which may be too many."""
        return np.unique(self._of_cell[index])

    def of_block(self, index: int, block: Block) -> np.ndarray:
        """Return the fold of each pixel of a block of an image."""
        cells = cells_along(self._shapes[index], self._n_cells)
        return self._of_cell[index][np.ix_(*(number[part] for number, part in zip(cells, block, strict=True)))]


def new_folds(masks: Sequence[PixelSet], targets: np.ndarray, weights: np.ndarray | None, n_folds: int) -> Folds | None:
    """Return at most `n_folds` folds, each of which leaves every class to be learnt from the others, or None.

    `targets` and `weights` are those of the masked pixels, image after image in row-major order.
    """
    classes = np.unique(targets, return_inverse=True)[1]
    heavy = np.ones(len(classes), bool) if weights is None else weights > 0
    for n_cells in _grids(masks[0].ndim):
        counts = _count(masks, classes, heavy, n_cells)
        flat = np.concatenate([each.reshape(-1, each.shape[-1]) for each in counts])
        used = flat.any(axis=1)
        for n in range(min(n_folds, int(used.sum())), 1, -1):
            # A cell without labels may be in any fold.
            of_cell = np.arange(len(flat)) % n
            of_cell[used] = _deal(flat[used], n)
            held = np.stack([flat[of_cell == fold].sum(axis=0) for fold in range(n)])
            if (np.count_nonzero(held, axis=0) > 1).all():
                ends = np.cumsum([math.prod(each.shape[:-1]) for each in counts])
                parts = np.split(of_cell, ends[:-1])
                of_images = [part.reshape(each.shape[:-1]) for part, each in zip(parts, counts, strict=True)]
                return Folds(masks, n_cells, of_images)
    return None


def _grids(ndim: int) -> Iterator[int]:
    """Yield numbers of cells along every axis: first whole images, then finer and finer cells."""
    yield 1
    first = math.ceil(_FIRST_CELLS ** (1 / ndim))
    yield from (first * 2**times for times in range(_REFINEMENTS))


def _count(masks: Sequence[PixelSet], classes: np.ndarray, heavy: np.ndarray, n_cells: int) -> list[np.ndarray]:
    """Return how many heavy pixels of each class are in each cell of each image, (*cells, n_classes)."""
    counts, done = [], 0
    for mask in masks:
        cells = cells_of_pixels(mask, n_cells)
        part = slice(done, done + len(cells[0]))
        done = part.stop
        of_image = np.zeros((*(n_cells,) * mask.ndim, int(classes.max()) + 1))
        np.add.at(of_image, (*cells, classes[part]), heavy[part])
        counts.append(of_image)
    return counts


def _deal(counts: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of each cell, from how many pixels of each class it holds."""
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    loads = np.zeros((n_folds, counts.shape[1]))
    folds = np.empty(len(counts), int)
    for cell in np.argsort(-shares.max(axis=1), kind="stable"):  # the large first, while there is choice
        # What adds least to the sum of squares of all loads; an empty fold comes first.
        fold = np.argmin(loads @ shares[cell] + 1e-9 * loads.sum(axis=1))
        folds[cell] = fold
        loads[fold] += shares[cell]
    return folds
