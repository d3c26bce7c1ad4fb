"""Connected components of an image that is read block by block, and their parts: the same, whatever the blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from dconv._boxes import grown, moved, sizes
from dconv._pixels import Block, masked_boxes

Split = Callable[[np.ndarray], np.ndarray]  # regions -> parts, both numbered from 1


def label_blocks(
    read_classes: Callable[[Block], np.ndarray], blocks: Sequence[Block], connectivity: int, labels: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Write the components of each block, of pixels of one class, to `labels`, and return which are joined.

    Returns
    -------
    component, class_of : ndarray of int, of shape (n + 1,)
        For each number in `labels` that of its component in the whole image, from 1, and its class; 0 for 0.
    """
    n = 0
    classes = [np.zeros(1, int)]
    for block in blocks:
        of_pixel = read_classes(block)
        found = label(of_pixel, background=0, connectivity=connectivity)
        numbers, first = np.unique(found, return_index=True)
        classes.append(of_pixel.flat[first[numbers > 0]])
        labels[block] = np.where(found > 0, found + n, 0)
        n += len(classes[-1])
    pairs = [_touching(labels, block, connectivity) for block in blocks]
    low, high = np.concatenate([np.empty((0, 2), int), *pairs]).T
    class_of = np.concatenate(classes)
    same = class_of[low] == class_of[high]
    graph = coo_array((np.ones(same.sum(), bool), (low[same], high[same])), shape=(n + 1, n + 1))
    return connected_components(graph, directed=False)[1], class_of  # 0 is joined to nothing and met first


def _touching(labels: Any, block: Block, connectivity: int) -> np.ndarray:
    """Return pairs of numbers that touch, one in the block and one before it along some axis."""
    pairs = []
    for axis, part in enumerate(block):
        if part.start == 0:
            continue
        # The last plane before the block and its first one, a pixel wider: diagonals may leave it sideways.
        box = list(_with_rim(block, labels.shape))
        box[axis] = slice(part.start - 1, part.start + 1)
        before, after = np.moveaxis(np.asarray(labels[tuple(box)]), axis, 0)
        for shift in itertools.product((-1, 0, 1), repeat=before.ndim):
            if np.count_nonzero(shift) >= connectivity:
                continue
            here = tuple(slice(max(0, -s), size - max(0, s)) for s, size in zip(shift, before.shape, strict=True))
            there = tuple(slice(max(0, s), size - max(0, -s)) for s, size in zip(shift, before.shape, strict=True))
            one, other = before[here].ravel(), after[there].ravel()
            both = (one > 0) & (other > 0)
            pairs.append(np.unique(np.stack([one[both], other[both]], axis=1), axis=0))
    return np.concatenate([np.empty((0, 2), int), *pairs])


def split_components(
    component: np.ndarray, class_of: np.ndarray, blocks: Sequence[Block], labels: Any, split: Split | None
) -> int:
    """Replace the numbers in `labels` by those of components, or by those of their parts; return the largest.

    What lies in one block is split with all else there; what crosses borders of blocks by itself, in its box.
    """
    crossing = np.bincount(component)[component] > 1
    crossing[0] = False
    wide, number = np.unique(component[crossing], return_inverse=True)
    wide_number = np.zeros(len(component), int)
    wide_number[crossing] = 1 + number
    n = len(wide)
    boxes: dict[int, Block] = {}  # of those that cross borders
    for block in blocks:
        found = np.asarray(labels[block])
        of_wide = wide_number[found]
        parts = np.where(of_wide > 0, 0, found)
        if split is not None:
            parts = _split_block(parts, block, class_of, labels.shape, split)
        numbers, dense = np.unique(parts, return_inverse=True)
        dense = dense.reshape(parts.shape) + int(numbers[0] > 0)
        labels[block] = np.where(dense > 0, dense + n, of_wide)
        n += int(dense.max())
        for each in np.unique(of_wide[of_wide > 0]):
            (box,) = masked_boxes(of_wide == each, [tuple(slice(0, size) for size in of_wide.shape)])
            boxes[each] = _joined(boxes.get(each), moved(box, block))
    return n if split is None else _split_wide(boxes, n, labels, split)


def _split_wide(boxes: dict[int, Block], n: int, labels: Any, split: Split) -> int:
    """Split each of some components of `labels` in its box; return the largest number, which was `n`."""
    for number, box in boxes.items():
        box = _with_rim(box, labels.shape)
        found = np.asarray(labels[box])
        parts = split((found == number).astype(np.int32))
        labels[box] = np.where(parts > 1, parts - 1 + n, found)  # the first part keeps the number
        n += int(parts.max()) - 1
    return n


def _split_block(
    regions: np.ndarray, block: Block, class_of: np.ndarray, shape: Sequence[int], split: Split
) -> np.ndarray:
    """Return the parts of the regions that lie in a block; of each class by itself, as different ones may touch."""
    # None of them goes on beyond the block, where there is something else or the image ends.
    rim = [(int(part.start > 0), int(part.stop < size)) for part, size in zip(block, shape, strict=True)]
    regions = np.pad(regions, rim)
    classes = class_of[regions]
    parts = np.zeros(regions.shape, int)
    for each in np.unique(classes[classes > 0]):
        of_class = split(np.where(classes == each, regions, 0))
        parts[of_class > 0] = of_class[of_class > 0] + parts.max()
    inner = zip(rim, sizes(block), strict=True)
    return parts[tuple(slice(left, left + size) for (left, _), size in inner)]


def _with_rim(box: Block, shape: Sequence[int]) -> Block:
    """Return a box with one more pixel on every side, as far as the image goes."""
    return grown(box, [(1, 1)] * len(box), 1, shape)


def _joined(box: Block | None, other: Block) -> Block:
    """Return the box around two boxes, of which one may be missing yet."""
    if box is None:
        return other
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(box, other, strict=True))
