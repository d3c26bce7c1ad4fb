"""MiniRocket's features of a collection of images, and the thresholds they are counted above, with their scratch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import RandomState

from dconv import _memory
from dconv._kernels import _dispatch, _rocket
from dconv._rocket_plan import N_KERNELS, Channels, Taps, quantile_levels
from dconv._series import Collection

_RESPONSES = 1 << 22  # floats that are sorted together
_SHARED = 1 << 19  # responses that are work for several threads
_INTERLEAVED = 1 << 22  # floats of scratch in all that images may be interleaved in


class Plan(NamedTuple):
    """All that features depend on but for the thresholds; see :mod:`dconv._rocket_plan`.

    Attributes
    ----------
    taps : Taps
        The 84 kernels.
    dilations, counts : ndarray of shape (n_dilations,)
        Ascending, and the features of every kernel at each.
    channels : Channels
        What each kernel sees at each dilation.
    """

    taps: Taps
    dilations: np.ndarray
    counts: np.ndarray
    channels: Channels

    @property
    def first_feature(self) -> np.ndarray:
        """Where the features of each dilation begin, and their number last; of shape (n_dilations + 1,)."""
        return np.concatenate([[0], np.cumsum(N_KERNELS * self.counts)]).astype(np.intp)


def draw_thresholds(
    plan: Plan, images: Collection, missing: str, random_state: RandomState, n_threads: int
) -> np.ndarray:
    """Return quantiles of the responses of each kernel at each dilation to an image drawn for it, one a feature.

    float32 of shape (n_features,), ordered by dilation, then kernel.
    """
    thresholds = []
    levels = quantile_levels(int(plan.first_feature[-1]))
    drawn = random_state.randint(len(images.arrays), size=(len(plan.dilations), N_KERNELS))
    sizes = np.maximum(images.sizes, plan.taps.least).prod(axis=1)  # of images as they are counted
    for index, begin in enumerate(plan.first_feature[:-1]):
        own_levels = levels[begin : plan.first_feature[index + 1]].reshape(N_KERNELS, -1)
        width = sizes[drawn[index]].max() * max(1, images.n_channels)
        step = max(1, _RESPONSES // int(width))
        for first in range(0, N_KERNELS, step):
            part = slice(first, first + step)
            responses = _responses(plan, index, part, images, drawn[index, part], missing, n_threads)
            thresholds.append(_quantiles(responses, sizes[drawn[index, part]], own_levels[part]).ravel())
    return np.concatenate(thresholds).astype(np.float32)


def _responses(
    plan: Plan, index: int, part: slice, images: Collection, drawn: np.ndarray, missing: str, n_threads: int
) -> np.ndarray:
    """Return the responses of some kernels at one dilation, each to its image, infinity behind the last one."""
    block = images.take(drawn, missing)
    kernels, dilation = plan.taps.kernels[part], int(plan.dilations[index])
    first = plan.channels.first[N_KERNELS * index + part.start :][: len(kernels) + 1]
    largest = np.maximum(block.places[:, 1:3], plan.taps.least).prod(axis=1).max()
    out = np.full((len(kernels), largest), np.inf, np.float32)
    n_threads = n_threads if out.size > _SHARED else 1
    planes, rows = _scratch(plan, block.places, dilation, 1, int(np.diff(first).max()), n_threads)
    _rocket.write_responses(
        block.samples, block.places, plan.taps.least, plan.taps.places, kernels, dilation, plan.channels.numbers, first,
        out, planes, rows, n_threads,
    )  # fmt: skip
    return out


def _quantiles(responses: np.ndarray, sizes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return quantiles of the first `sizes[k]` numbers of each row, with straight lines between neighbours."""
    ordered = np.sort(responses, axis=1)
    place = levels * (sizes[:, np.newaxis] - 1)
    lower = place.astype(np.intp)
    upper = np.minimum(lower + 1, sizes[:, np.newaxis] - 1)
    below, above = (np.take_along_axis(ordered, at, axis=1).astype(float) for at in (lower, upper))
    return below + (above - below) * (place - lower)


def share_features(
    plan: Plan, thresholds: np.ndarray, images: Collection, missing: str, n_threads: int, level: str | None = None
) -> np.ndarray:
    """Return the shares of responses above thresholds, float32 of shape (n_images, n_features)."""
    out = _memory.empty((len(images.arrays), len(thresholds)), np.dtype(np.float32))
    _, lanes = _dispatch.block_sizes(level, 4)
    counts = np.empty((n_threads, N_KERNELS * int(plan.counts.max()) * lanes), np.int32)
    dilation = int(plan.dilations.max())
    for block in images.blocks(missing):
        planes, rows = _scratch(plan, block.places, dilation, lanes, images.n_channels, n_threads)
        if planes.size <= _INTERLEAVED:
            places, groups = group_images(block.places, lanes)
        else:
            planes, rows = _scratch(plan, block.places, dilation, 1, images.n_channels, n_threads)
            places, groups = group_images(block.places, 1)
        _rocket.share_responses(
            block.samples, places, groups, plan.taps.least, plan.taps.places, plan.taps.kernels, plan.dilations,
            plan.first_feature, plan.channels.numbers, plan.channels.first, thresholds,
            out[block.first : block.first + len(places)], planes, rows, counts, n_threads, level,
        )  # fmt: skip
    return out


def group_images(places: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images sorted by size, and their groups: first, number and width, as the kernel reads them.

    Images of one size are interleaved as many as there are lanes. What is left of them makes a group as well if it
    fills three quarters of the lanes; else each is a group of its own.
    """
    order = np.lexsort((places[:, 2], places[:, 1]))
    places = places[order]
    ends = np.flatnonzero(np.append((places[1:, 1:3] != places[:-1, 1:3]).any(axis=1), True)) + 1
    groups = []
    for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        whole = end - (end - begin) % lanes
        groups += [(first, lanes, lanes) for first in range(begin, whole, lanes)]
        if 4 * (end - whole) >= 3 * lanes:
            groups.append((whole, end - whole, lanes))
        else:
            groups += [(first, 1, 1) for first in range(whole, end)]
    return places, np.array(groups, np.int64)


def _scratch(
    plan: Plan, places: np.ndarray, dilation: int, width: int, n_channels: int, n_threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the planes and rows of each thread, for images of these places, at dilations up to this one."""
    rows, columns = (int(n) for n in places[:, 1:3].max(axis=0))
    size = _rocket.plane_floats(rows, columns, plan.taps.least, plan.taps.places, dilation, width)
    planes = np.empty((n_threads, 2 * n_channels * size), np.float32)
    return planes, np.empty((n_threads, (1 + n_channels) * _rocket.TILE), np.float32)
