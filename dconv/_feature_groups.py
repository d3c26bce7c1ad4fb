"""The features of one level of the bank: a table of groups, and what a group is computed from.

A new group is a function that says how its features are computed, and one line in `GROUPS`. Distances in the table are
in dilations, so that one line describes every level.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dconv import _memory
from dconv._kernels import _cascade
from dconv._stencils import LINE_RADIUS, SMOOTHING_RADIUS, Place, Scale, line_steps, stencils, stencils_at

# Of a series what happens around a sample is counted or averaged over a narrow and a wide window. They are the same at
# all levels, so that fine detail is known over several swings of what is coarse, and none reaches far beyond it.
WINDOW_RADII = 1, 4  # in dilations of the last level, ascending; powers of 2, as `_window_means` wants them

_PAIR = np.array([[(0, 0, 1, 0, 0), (0, 0, 1, 0, 0), (0, 0, 1, 1, 0)]], np.float32)  # a sample and the one behind it

# Second derivatives across lines are made for each of the 8 directions of 2-D up to so many pixels from tap to tap:
# that takes two fifths of the loads that sums of the Hessian's parts take, 4.6 and not 7.9 ns for a pixel. Beyond it
# the rows that are seen from one, 6 times as many as these pixels, leave the L2 cache, and its 3 parts are faster.
_LARGEST_TURNED = 4

_LINE = 16  # floats in a cache line


def _odd_lines(n: int) -> int:
    """Return `n` floats rounded up to an odd number of cache lines.

    Rows and planes a power of two apart would compete for a few sets of the cache.
    """
    lines = -(-n // _LINE)
    return _LINE * (lines + 1 - lines % 2)


class Planes:
    """`n` float32 planes over the pixels from `start` to `stop`, in coordinates of the image.

    ``data`` is (n, *shape). Its rows have room behind them for the kernels' whole vectors.

    Parameters
    ----------
    memory : float32 array or None, default=None
        Where to put them: the ``memory`` of planes that are done with and were not smaller.
    """

    def __init__(self, n: int, start: Place, stop: Place, memory: np.ndarray | None = None) -> None:
        self.start, self.stop = start, stop
        n0, n1, n2 = (b - a for a, b in zip(start, stop, strict=True))
        pitch = _odd_lines(-(-n2 // _cascade.ROW_UNIT) * _cascade.ROW_UNIT)
        plane = _odd_lines(n0 * n1 * pitch)
        if memory is None:
            memory = _memory.empty((n * plane + _cascade.ROW_UNIT,), np.dtype(np.float32))
        self.memory = memory
        self.data = np.ndarray((n, n0, n1, n2), np.float32, memory, 0, (4 * plane, 4 * n1 * pitch, 4 * pitch, 4))

    def at(self, place: Place) -> _cascade.Window:
        """Return the window on a block that begins at `place`."""
        return _cascade.Window(self.data, tuple(a - b for a, b in zip(place, self.start, strict=True)))

    def over(self, start: Place, stop: Place) -> np.ndarray:
        """Return the view of ``data`` from `start` to `stop`."""
        low, high = ([a - b for a, b in zip(place, self.start, strict=True)] for place in (start, stop))
        return self.data[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]


def slab_axis(ndim: int) -> int:
    """Return along which of three axes a block of an image is worked on slab by slab."""
    return 0 if ndim == 3 else 1


def smooth(x: Planes, ndim: int, scale: Scale, start: Place, stop: Place, cpu_level: str | None) -> Planes:
    """Return the next level of `x` from `start` to `stop`."""
    return _correlated(x, ndim, stencils_at(ndim, scale).smoothing, scale.array, start, stop, cpu_level)


def _correlated(
    x: Planes, ndim: int, kernels: np.ndarray, steps: np.ndarray, start: Place, stop: Place, cpu_level: str | None
) -> Planes:
    """Return the correlations of `x` with kernels, from `start` to `stop`."""
    made = Planes(len(kernels), start, stop)
    program = _cascade.Program(made.data.shape[1:], slab_axis(ndim), 0, cpu_level)
    window = made.at(start)
    program.separable(x.at(start), kernels, steps, [window.plane(index) for index in range(len(kernels))])
    program.run(0, made.data.shape[1 + slab_axis(ndim)], None)
    return made


@dataclass
class Level:
    """One level of a plane of an image over a block of pixels: what groups are computed from.

    Attributes
    ----------
    planes : Planes
        The level itself, with as much around the block as the groups need.
    smoother : Planes or None
        The next level, if some group needs it, with as much around the block as the groups need.
    scale : Scale
        Distances between taps.
    coarser : int
        Levels that follow this one.
    causal : bool
        Whether windows end together, and do not have the same middle.
    start, stop : (int, int, int)
        The block.
    ndim : int
        Spatial axes of the image.
    margins : (int or None, int or None, int or None)
        How far beyond the block first derivatives, second ones, and those along lines are needed, in dilations; None
        where they are not.
    program : Program
        To which groups add what is computed of the rows of the block.
    cpu_level : str or None
        For the kernels.
    """

    planes: Planes
    smoother: Planes | None
    scale: Scale
    coarser: int
    causal: bool
    start: Place
    stop: Place
    ndim: int
    margins: tuple[int | None, int | None, int | None]
    program: _cascade.Program
    cpu_level: str | None

    @property
    def x(self) -> _cascade.Window:
        """The level."""
        return self.planes.at(self.start)

    @property
    def next(self) -> _cascade.Window:
        """The next level."""
        assert self.smoother is not None  # the table says which groups need it
        return self.smoother.at(self.start)

    @property
    def windows(self) -> list[tuple[int, int]]:
        """How far windows reach to both sides, ascending, and where their middle is, both in samples."""
        radii = [radius * self.scale.steps[2] << self.coarser for radius in WINDOW_RADII]
        return [(radius, radii[-1] - radius if self.causal else 0) for radius in radii]

    @property
    def smoothing(self) -> np.ndarray:
        """The kernels of the step to the next level, (3 axes, 5 taps)."""
        return stencils_at(self.ndim, self.scale).smoothing[0]

    @property
    def gradient(self) -> _cascade.Window:
        """First derivatives along every axis."""
        return self._derivatives[0]

    @property
    def hessian(self) -> _cascade.Window:
        """Second derivatives: the diagonal, then the upper triangle row by row."""
        return self._derivatives[1]

    @property
    def turned(self) -> list[_cascade.Window]:
        """Second derivatives across lines, of each direction; or where these would be too much memory, what they are
        made from.
        """
        return self._derivatives[2]

    @functools.cached_property
    def _derivatives(self) -> tuple[Any, Any, list[_cascade.Window]]:
        """Gradient, Hessian, and second derivatives across lines, those that are looked at; of each as many slabs are
        held as are seen at once.

        All are made as early as the one that is seen from farthest ahead: they are made together.
        """
        of_level, axes = stencils_at(self.ndim, self.scale), range(3 - self.ndim, 3)
        gradient, hessian, lines = self.margins
        turns = lines is not None and self.ndim == 2 and max(self.scale.steps[1:]) <= _LARGEST_TURNED
        if lines is not None:  # the Hessian is made, whether it is looked at or not
            hessian = max(hessian or 0, 0 if turns else lines)
        pairs = [(a, a) for a in axes] + list(itertools.combinations(axes, 2))
        ahead = max(margin for margin in self.margins if margin is not None)
        kernels, made = [], []
        windows: list[Any] = []
        for margin, along, some in (
            (gradient, [(a,) for a in axes], of_level.gradient),
            (hessian, pairs, of_level.hessian),
        ):
            if margin is None:
                windows.append(None)
                continue
            flat = [any(self.scale.steps[axis] == 0 for axis in of_one) for of_one in along]  # taps that fall together
            kernels.append(np.where(np.array(flat)[:, np.newaxis, np.newaxis], np.float32(0), some))  # do not differ
            window = self._ring(len(some), margin * self.scale.steps[slab_axis(self.ndim)], ahead)
            windows.append(window)
            made += [window.plane(index) for index in range(len(some))]
        around = self._around(ahead)
        self.program.separable(self.planes.at(self.start), np.concatenate(kernels), self.scale.array, made, around)
        if not turns:
            return windows[0], windows[1], windows[1:]
        reaches = np.abs(line_steps(self.ndim, self.scale)[..., slab_axis(self.ndim)]).max(axis=1).tolist()
        turned = [self._ring(1, reach, ahead) for reach in reaches]
        self.program.turned(windows[1], of_level.line_weight, turned, around)
        return windows[0], windows[1], turned

    def _around(self, margin: int) -> tuple[int, ...]:
        """Return so many dilations in pixels, per axis."""
        return tuple(margin * step if axis >= 3 - self.ndim else 0 for axis, step in enumerate(self.scale.steps))

    def _ring(self, n: int, behind: int, ahead: int) -> _cascade.Window:
        """Return the window on the block of `n` planes that are made `ahead` dilations before they are looked at, and
        looked at until they lie so many slabs `behind`.
        """
        around, slabs = self._around(ahead), slab_axis(self.ndim)
        start = tuple(a - m for a, m in zip(self.start, around, strict=True))
        stop = [b + m for b, m in zip(self.stop, around, strict=True)]
        stop[slabs] = min(stop[slabs], start[slabs] + behind + around[slabs] + 1)
        return Planes(n, start, tuple(stop)).at(self.start)


def _level(level: Level, first: int) -> None:
    level.program.copy(level.x, 1, first)


def _wavelet(level: Level, first: int) -> None:
    level.program.difference(level.x, level.next, first)


def _gradient(level: Level, first: int) -> None:
    level.program.magnitude(level.gradient, level.ndim, first)


def _hessian(level: Level, first: int) -> None:
    level.program.eigenvalues(level.hessian, len(stencils(level.ndim).hessian), first)


def _structure_tensor(level: Level, first: int) -> None:
    level.program.structure_tensor(level.gradient, level.ndim, level.smoothing, level.scale.array, first)


def _std(level: Level, first: int) -> None:
    level.program.deviation(level.x, level.smoothing, level.scale.array, first)


def _extrema(level: Level, first: int) -> None:
    level.program.extrema(level.x, stencils(level.ndim).neighbours * level.scale.array, first)


def _lines(level: Level, first: int) -> None:
    places, weight = line_steps(level.ndim, level.scale), stencils(level.ndim).line_weight
    level.program.lines(level.turned, places, weight, first)


def _slope(level: Level, first: int) -> None:
    level.program.copy(level.gradient, level.ndim, first)


def _zero_crossings(level: Level, first: int) -> None:
    step = level.scale.steps[2]
    _shares(level, True, [step / (2 * radius) for radius, _ in level.windows], first)  # changes for each dilation


def _ppv(level: Level, first: int) -> None:
    _shares(level, False, [1 / (2 * radius + 1) for radius, _ in level.windows], first)


def _shares(level: Level, of_changes: bool, weight: Sequence[float], first: int) -> None:
    """Add how often wavelet plane and slope are positive, or change sign, in each window around a sample."""
    assert level.smoother is not None  # the table says that these groups need it
    step = level.scale.steps[2]
    for (radius, middle), of_one in zip(level.windows, weight, strict=True):
        here, before, behind = (moved(level.start, middle + way) for way in (0, -step, step))
        differences = (
            (level.planes.at(here), level.smoother.at(here)),
            (level.planes.at(behind), level.planes.at(before)),
        )
        for a, b in differences:
            level.program.shares(a, b, radius, of_changes, of_one, first)
            first += 1


def _activity(level: Level, first: int) -> None:
    assert level.smoother is not None  # the table says that this group needs it
    widest = level.windows[-1][0]
    values = Planes(1, moved(level.start, -widest), moved(level.stop, widest))
    ends = values.start, values.stop
    np.subtract(level.planes.over(*ends), level.smoother.over(*ends), out=values.data)
    np.abs(values.data, out=values.data)
    means = Planes(len(level.windows), level.start, level.stop)
    _window_means(level, values, means.data)
    level.program.copy(means.at(level.start), len(level.windows), first)


def _window_means(level: Level, values: Planes, out: np.ndarray) -> None:
    """Write the mean of `values` in each window.

    Sums over 2 samples are added to sums over 4, these to sums over 8, so that no bit depends on where a row begins, as
    it would if one sum ran along it.
    """
    sums, width = values, 1
    for plane, (radius, middle) in zip(out, level.windows, strict=True):
        while width < 2 * radius:
            steps, ends = np.array([0, 0, width], np.intp), (sums.start, moved(sums.stop, -width))
            sums, width = _correlated(sums, level.ndim, _PAIR, steps, *ends, level.cpu_level), 2 * width
        first, last = ([moved(end, middle + way) for end in (level.start, level.stop)] for way in (-radius, radius))
        np.add(sums.over(*first)[0], values.over(*last)[0], out=plane)
        plane *= np.float32(1 / (2 * radius + 1))


def moved(place: Place, by: int) -> Place:
    """Return the place `by` pixels behind one, along its last axis."""
    return (*place[:-1], place[-1] + by)


class FeatureGroup(NamedTuple):
    """A line of the table of features.

    Attributes
    ----------
    compute : callable
        ``compute(level, first)`` adds to the program of `level` what computes its features, of which the first has
        this number.
    parts : tuple of tuple of str
        Names of its features in 1-D, in 2-D and in 3-D; none if it has no meaning there.
    reach : int, default=0
        How far it looks at the level itself, in dilations.
    gradient, hessian, lines : int or None, default=None
        How far it looks at first and second derivatives, and at second ones along lines, in dilations; None if it does
        not use them.
    smoother : int or None, default=None
        How far it looks at the next level, in dilations; None if it does not use it.
    window : int, default=0
        How far beyond that it looks at both since it counts or averages there, in dilations of the last level.
    cost : float, default=0.0
        What it takes in 2-D, or 1-D where it is for series only, about: nanoseconds for a pixel and level, measured on
        one core with AVX2.
    """

    compute: Callable[[Level, int], None]
    parts: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    reach: int = 0
    gradient: int | None = None
    hessian: int | None = None
    lines: int | None = None
    smoother: int | None = None
    window: int = 0
    cost: float = 0.0

    def total_reach(self, coarser: int) -> int:
        """Return the distance in dilations to the farthest pixel of a level that has a part in its features, where
        `coarser` levels follow.
        """
        derivatives = [margin + 1 for margin in (self.gradient, self.hessian, self.lines) if margin is not None]
        smoothed = 0 if self.smoother is None else self.smoother + SMOOTHING_RADIUS
        return max(self.reach, *derivatives, smoothed) + (self.window << coarser)

    def smoother_reach(self, coarser: int) -> int | None:
        """Return how far it looks at the next level, in dilations of its own level, likewise."""
        return None if self.smoother is None else self.smoother + (self.window << coarser)


def _in_any_rank(*parts: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return parts, parts, parts


def _in_series(*parts: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return parts, (), ()


def _descending(name: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the names of one value per axis."""
    return (name,), (f"{name}_max", f"{name}_min"), (f"{name}_max", f"{name}_middle", f"{name}_min")


def _in_windows(*parts: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return _in_series(*(f"{part}_{window}" for window in ("narrow", "wide") for part in parts))


_LINE_PARTS = ("line_max", "line_min", "line_mean")

FEATURE_COST = 1.0  # of a feature more for the default classifier, in the unit of `FeatureGroup.cost`

GROUPS: dict[str, FeatureGroup] = {
    "level": FeatureGroup(_level, _in_any_rank("level"), cost=2.7),
    "wavelet": FeatureGroup(_wavelet, _in_any_rank("wavelet"), smoother=0, cost=1.1),
    "gradient": FeatureGroup(_gradient, _in_any_rank("gradient"), gradient=0, cost=2.3),
    "slope": FeatureGroup(_slope, _in_series("slope"), gradient=0, cost=3.4),
    "hessian": FeatureGroup(_hessian, ((), *_descending("hessian")[1:]), hessian=0, cost=3.6),
    "curvature": FeatureGroup(_hessian, _in_series("curvature"), hessian=0, cost=3.3),  # the Hessian of a series
    "structure_tensor": FeatureGroup(
        _structure_tensor, _descending("structure_tensor"), gradient=SMOOTHING_RADIUS, cost=6.4
    ),
    "std": FeatureGroup(_std, _in_any_rank("std"), reach=SMOOTHING_RADIUS, cost=1.9),
    "extrema": FeatureGroup(_extrema, _in_any_rank("max", "min"), reach=1, cost=1.8),
    "lines": FeatureGroup(_lines, ((), _LINE_PARTS, _LINE_PARTS), lines=LINE_RADIUS, cost=12.7),
    "zero_crossings": FeatureGroup(
        _zero_crossings,
        _in_windows("crossings_wavelet", "crossings_slope"),
        reach=1,
        smoother=0,
        window=WINDOW_RADII[-1],
        cost=7.1,
    ),
    "ppv": FeatureGroup(
        _ppv, _in_windows("ppv_wavelet", "ppv_slope"), reach=1, smoother=0, window=WINDOW_RADII[-1], cost=6.8
    ),
    "activity": FeatureGroup(_activity, _in_windows("activity"), smoother=0, window=WINDOW_RADII[-1], cost=5.7),
}


def available_groups(ndim: int) -> tuple[str, ...]:
    """Return the names of the groups that have features in images with `ndim` spatial axes."""
    return tuple(name for name, group in GROUPS.items() if group.parts[ndim - 1])
