"""The kernels of dilated branches over feature maps: fixed, or learnt from what they see of some pixels.

A kernel has three taps along each axis, and so sees a *window* of ``3**ndim`` places of all maps, which it projects on
a direction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from dconv._block_features import prepared_for, reader_of_one
from dconv._blocks import read_block
from dconv._filter_bank import outer_product
from dconv._pixels import Block, PixelSet, blocks_of, masked_boxes
from dconv._threads import run_tasks, scikit_learn_alone
from dconv._validation import Images

_TAPS = 3  # along each axis
_MANY_TAPS = 1000  # of a window, of all maps


class Branch(NamedTuple):
    """One dilated convolution of the feature maps."""

    dilation: int
    weight: np.ndarray  # as `conv` takes it
    bias: np.ndarray | None
    groups: int


def smoothing_branches(dilations: Sequence[int], n_maps: int, ndim: int) -> tuple[Branch, ...]:
    """Return branches that smooth every map by itself."""
    weights = outer_product([np.array([1, 2, 1]) / 4] * ndim)[np.newaxis, ..., np.newaxis]
    weights = np.repeat(weights, n_maps, axis=0).astype(np.float32)
    return tuple(Branch(dilation, weights, None, n_maps) for dilation in dilations)


def learnt_branch(
    dilation: int,
    windows: np.ndarray,
    labels: np.ndarray | None,
    ndim: int,
    projection: str,
    n_components: int,
    random_state: np.random.RandomState,
) -> Branch:
    """Return the branch that projects windows, of which (n_pixels, taps * maps) are learnt from, as is wanted."""
    n_taps = _TAPS**ndim
    n_maps = windows.shape[1] // n_taps
    by_map = windows.reshape(-1, n_maps).astype(np.float64)
    center, spread = by_map.mean(axis=0), by_map.std(axis=0)
    spread[spread <= 1e-6 * np.abs(center).max(initial=1e-30)] = 1.0
    scaled = (windows.astype(np.float64) - np.tile(center, n_taps)) / np.tile(spread, n_taps)
    directions, middle = _directions(scaled, labels, projection, n_components, random_state)
    weight = directions / np.tile(spread, n_taps)
    bias = -directions @ (np.tile(center / spread, n_taps) + middle)
    shaped = weight.reshape(len(weight), *(_TAPS,) * ndim, n_maps).astype(np.float32)
    return Branch(dilation, shaped, bias.astype(np.float32), 1)


def turned(branch: Branch, like: Branch, windows: np.ndarray) -> Branch:
    """Return a branch that says the same in the terms of another, as far as may be, of windows (n_pixels, taps * maps).

    What tells classes apart has no sign, and where two directions do it alike, no order either: each time that they
    are learnt these come out by chance. Who compares what two branches say would compare that.
    """
    if len(branch.weight) != len(like.weight):
        raise ValueError(
            f"projection='lda' finds {len(like.weight)} direction(s) in all labelled pixels, but {len(branch.weight)} "
            "where some are held out, as it did not look at pixels of every class; let it look at more (n_samples)"
        )
    flat = branch.weight.reshape(len(branch.weight), -1).astype(np.float64)
    centered = windows - windows.mean(axis=0, dtype=np.float64)
    left, _, right = np.linalg.svd((centered @ like.weight.reshape(flat.shape).T).T @ (centered @ flat.T))
    turn = left @ right  # the rotation, maybe with a reflection, after which they differ least
    weight = (turn @ flat).reshape(branch.weight.shape).astype(np.float32)
    return branch._replace(weight=weight, bias=(turn @ branch.bias).astype(np.float32))


def _directions(
    rows: np.ndarray,
    labels: np.ndarray | None,
    projection: str,
    n_components: int,
    random_state: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what windows are projected on, (n_components, taps), and what is subtracted from them before."""
    n = min(n_components, rows.shape[1])
    if projection == "random":
        directions = random_state.normal(size=(n, rows.shape[1]))
        return directions / np.linalg.norm(directions, axis=1, keepdims=True), np.zeros(rows.shape[1])
    if projection == "pca":
        # Windows of 512 maps have 4608 taps, whose directions take minutes all together; of so many "auto" looks for
        # the first alone.
        exact = rows.shape[1] <= min(len(rows), _MANY_TAPS)
        solver = "covariance_eigh" if exact else "auto"
        with scikit_learn_alone(), np.errstate(invalid="ignore"):  # shares of a variance of 0
            found = PCA(min(n, len(rows)), svd_solver=solver, random_state=random_state).fit(rows)
        return found.components_, found.mean_
    assert labels is not None
    n_classes = len(np.unique(labels))
    if not 1 < n_classes < len(rows):
        raise ValueError(
            f"projection='lda' learns from {len(rows)} pixel(s) of {n_classes} class(es), but needs two classes, and "
            "more pixels than classes; label more, or raise n_samples"
        )
    try:
        with scikit_learn_alone():
            analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(rows, labels)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "projection='lda' needs maps that vary within a class, but what the labelled pixels of each see is the "
            "same; use projection='pca'"
        ) from error
    return analysis.scalings_[:, : min(n, len(analysis.classes_) - 1)].T, rows.mean(axis=0)


def choose_pixels(
    shapes: Sequence[tuple[int, ...]],
    n_samples: int,
    masks: Sequence[PixelSet] | None,
    targets: np.ndarray | None,
    random_state: np.random.RandomState,
) -> tuple[list[PixelSet], np.ndarray | None]:
    """Return which pixels of every image are learnt from, of the labelled ones if these are given, and their labels.

    Of every class that an image has there is one at least, if an image's share has room for them.
    """
    share = max(1, math.ceil(n_samples / len(shapes)))
    chosen, labels, done = [], [], 0
    for index, shape in enumerate(shapes):
        places = np.arange(math.prod(shape)) if masks is None else masks[index].places
        order = random_state.permutation(len(places))
        if targets is not None and share < len(places):
            _, first = np.unique(targets[done : done + len(places)][order], return_index=True)
            first.sort()  # by chance, not by label: where there is room for a few, these are of any class
            order = np.concatenate([order[first], np.delete(order, first)])
        kept = np.sort(order[:share])
        chosen.append(PixelSet(shape, places[kept]))
        if targets is not None:
            labels.append(targets[done : done + len(places)][kept])
            done += len(places)
    return chosen, np.concatenate(labels) if labels else None


def gather_windows(
    inner: Any, images: Images, dilations: Sequence[int], masks: Sequence[PixelSet], n_maps: int, n_jobs: int
) -> list[np.ndarray]:
    """Return what the kernel of each branch sees of the masked pixels, (n_pixels, taps * maps); `inner` makes maps."""
    n_pixels, ndim, reach = [mask.n_pixels for mask in masks], images.n_axes, max(dilations)
    found = [np.empty((sum(n_pixels), _TAPS**ndim, n_maps), np.float32) for _ in dilations]
    starts = np.cumsum([0, *n_pixels])
    for index, (image, mask) in enumerate(zip(images.arrays, masks, strict=True)):
        prepared = prepared_for(inner, image)

        def work(block: Block, index: int = index, image: Any = image, prepared: Any = prepared,
                 mask: PixelSet = mask) -> None:  # fmt: skip
            maps = maps_around(prepared, image, block, reach)
            rows = starts[index] + mask.ranks(block)
            places = np.nonzero(mask[block])
            for dilation, windows in zip(dilations, found, strict=True):
                steps = itertools.product((-dilation, 0, dilation), repeat=ndim)
                for tap, step in enumerate(steps):
                    at = tuple(place + reach + by for place, by in zip(places, step, strict=True))
                    windows[rows, tap] = maps[at]

        run_tasks(work, list(masked_boxes(mask, blocks_of(mask.shape, n_maps))), n_jobs)
    return [windows.reshape(len(windows), -1) for windows in found]


def maps_around(prepared: Any, image: Any, block: Block, reach: int) -> np.ndarray:
    """Return the maps of a block and `reach` pixels around it, as the border's pixels beyond the border."""
    box = tuple(
        slice(max(part.start - reach, 0), min(part.stop + reach, n))
        for part, n in zip(block, image.shape[:-1], strict=True)
    )
    maps = reader_of_one(prepared, image).read(0, box)
    low = [part.start - reach - whole.start for part, whole in zip(block, box, strict=True)]
    high = [part.stop + reach - whole.start for part, whole in zip(block, box, strict=True)]
    return read_block(maps, low, high, "edge")
