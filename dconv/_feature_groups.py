"""The features of one level of the bank: a table of groups, and what a group is computed from.

A new group is a function that says how its features are computed, and one line in `GROUPS`. Distances in the table are
in dilations, so that one line describes every level. Places have three coordinates here, as in the kernels: 1-D and 2-D
images have leading axes of size 1.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from dconv import _memory
from dconv._kernels import _cascade

Place: TypeAlias = tuple[int, ...]  # three of them

SMOOTHING_RADIUS = 2  # of the B3 spline, in dilations
LINE_RADIUS = _cascade.LINE_TAPS // 2  # a line is followed over so many dilations to both sides
N_ORIENTATIONS = 8  # of lines in 2-D
SHARE_RADIUS = 16  # in dilations: shares are counted over so many to both sides, several swings of a wavelet plane

_LINE = 16  # floats in a cache line

_ONE = (0, 0, 1, 0, 0)
_B3 = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_SMOOTH = (0, 1 / 4, 2 / 4, 1 / 4, 0)
_FIRST = (0, -1 / 2, 0, 1 / 2, 0)
_SECOND = (0, 1, -2, 1, 0)


class Stencils(NamedTuple):
    """The linear filters of the bank in some rank. Kernels are (n, 3 axes, 5 taps), steps are in dilations."""

    smoothing: np.ndarray  # (1, 3, 5)
    gradient: np.ndarray
    hessian: np.ndarray  # the diagonal, then the upper triangle row by row
    neighbours: np.ndarray  # (n, 3), without the centre
    line_directions: np.ndarray  # (n, 3) unit vectors
    line_weight: np.ndarray  # (n, parts of the Hessian): the second derivative across the line, by the number of taps


def _separable(ndim: int, special: dict[int, Sequence[float]], other: Sequence[float]) -> np.ndarray:
    """Return the kernels of `special` axes and `other` along the rest of `ndim` axes."""
    return np.array([_ONE] * (3 - ndim) + [special.get(axis, other) for axis in range(ndim)], np.float32)


def _line_directions(ndim: int) -> np.ndarray:
    """Return unit vectors (n, ndim), one of each two that are opposite."""
    if ndim == 1:
        return np.zeros((0, 1))
    if ndim == 2:
        angles = np.pi * np.arange(N_ORIENTATIONS) / N_ORIENTATIONS
        return np.stack([np.sin(angles), np.cos(angles)], axis=1)
    steps = np.array([step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)])
    return steps / np.linalg.norm(steps, axis=1, keepdims=True)


@functools.cache
def stencils(ndim: int) -> Stencils:
    """Return the filters for images with `ndim` spatial axes."""
    pairs = [(a, a) for a in range(ndim)] + list(itertools.combinations(range(ndim), 2))
    second: list[dict[int, Sequence[float]]] = [{a: _SECOND} if a == b else {a: _FIRST, b: _FIRST} for a, b in pairs]
    neighbours = [step for step in itertools.product((-1, 0, 1), repeat=ndim) if any(step)]
    u = _line_directions(ndim)
    across = np.stack([1 - u[:, a] ** 2 if a == b else -2 * u[:, a] * u[:, b] for a, b in pairs], axis=1)
    across[np.abs(across) < 1e-12] = 0  # cos(pi / 2) is not quite 0, and the kernel skips parts of weight 0
    lead = ((0, 0), (3 - ndim, 0))
    return Stencils(
        smoothing=_separable(ndim, {}, _B3)[np.newaxis],
        gradient=np.stack([_separable(ndim, {axis: _FIRST}, _SMOOTH) for axis in range(ndim)]),
        hessian=np.stack([_separable(ndim, special, _SMOOTH) for special in second]),
        neighbours=np.pad(np.array(neighbours, np.intp), lead),
        line_directions=np.pad(u, lead),
        line_weight=(across / _cascade.LINE_TAPS).astype(np.float32),
    )


class Scale(NamedTuple):
    """Distances at one level, along three axes; those of 1-D and 2-D images that are missing do not matter."""

    steps: Place  # pixels from tap to tap; 0 along an axis whose pixels are two dilations apart or more
    slopes: tuple[float, ...]  # dilations from tap to tap, inverted: what a difference becomes a slope by; 0 likewise

    @property
    def array(self) -> np.ndarray:
        """The steps for the kernels."""
        return np.array(self.steps, np.intp)


@functools.cache
def scale_of(dilation: int, spacing: tuple[float, ...] | None = None) -> Scale:
    """Return the distances at `dilation`, where pixels are `spacing` apart along each axis, 1 along the finest."""
    if spacing is None:
        return Scale((dilation,) * 3, (1.0,) * 3)
    ideal = (dilation,) * (3 - len(spacing)) + tuple(dilation / distance for distance in spacing)
    steps = tuple(math.ceil(step - 0.5) for step in ideal)
    return Scale(steps, tuple(wanted / step if step else 0.0 for wanted, step in zip(ideal, steps, strict=True)))


@functools.cache
def stencils_at(ndim: int, scale: Scale) -> Stencils:
    """Return the filters of a level: differences made slopes, and nothing smoothed where taps fall together."""
    plain = stencils(ndim)
    if set(scale.slopes) == {1.0}:
        return plain
    flat = [axis for axis in range(3 - ndim, 3) if scale.steps[axis] == 0]

    def adapted(kernels: np.ndarray) -> np.ndarray:
        kernels = kernels.copy()
        for kernel in kernels:
            for axis in range(3 - ndim, 3):
                order = {float(_FIRST[1]): 1, float(_SECOND[1]): 2}.get(float(kernel[axis, 1]), 0)
                kernel[axis] *= scale.slopes[axis] ** order if scale.slopes[axis] else 1.0
        kernels[:, flat] = _ONE  # a derivative along such an axis is 0, which is written when it is known
        return kernels

    return plain._replace(
        smoothing=adapted(plain.smoothing), gradient=adapted(plain.gradient), hessian=adapted(plain.hessian)
    )


@functools.lru_cache(maxsize=64)
def _line_steps(ndim: int, scale: Scale) -> np.ndarray:
    """Return the taps of every line, in pixels, of shape (directions, taps, 3)."""
    along = np.arange(-LINE_RADIUS, LINE_RADIUS + 1)[:, np.newaxis] * scale.array
    return np.rint(along * stencils(ndim).line_directions[:, np.newaxis]).astype(np.intp)


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
    smoother = Planes(1, start, stop)
    program = _cascade.Program(smoother.data.shape[1:], slab_axis(ndim), 0, cpu_level)
    program.separable(x.at(start), stencils_at(ndim, scale).smoothing, scale.array, smoother.at(start))
    program.run(0, smoother.data.shape[1 + slab_axis(ndim)], None)
    return smoother


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
    start, stop : (int, int, int)
        The block.
    ndim : int
        Spatial axes of the image.
    margins : (int, int)
        How far beyond the block first and second derivatives are needed, in dilations.
    program : Program
        To which groups add what is computed of the rows of the block.
    """

    planes: Planes
    smoother: Planes | None
    scale: Scale
    start: Place
    stop: Place
    ndim: int
    margins: tuple[int, int]
    program: _cascade.Program

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
    def smoothing(self) -> np.ndarray:
        """The kernels of the step to the next level, (3 axes, 5 taps)."""
        return stencils_at(self.ndim, self.scale).smoothing[0]

    @functools.cached_property
    def gradient(self) -> _cascade.Window:
        """First derivatives along every axis."""
        axes = [(axis,) for axis in range(3 - self.ndim, 3)]
        return self._derivatives(stencils_at(self.ndim, self.scale).gradient, axes, self.margins[0])

    @functools.cached_property
    def hessian(self) -> _cascade.Window:
        """Second derivatives: the diagonal, then the upper triangle row by row."""
        axes = range(3 - self.ndim, 3)
        pairs = [(a, a) for a in axes] + list(itertools.combinations(axes, 2))
        return self._derivatives(stencils_at(self.ndim, self.scale).hessian, pairs, self.margins[1])

    def _derivatives(self, kernels: np.ndarray, axes: Sequence[tuple[int, ...]], margin: int) -> _cascade.Window:
        """Return derivatives, each along `axes` of its own, of which as many slabs are held as are seen at once."""
        around = tuple(margin * step if axis >= 3 - self.ndim else 0 for axis, step in enumerate(self.scale.steps))
        start = tuple(a - m for a, m in zip(self.start, around, strict=True))
        stop = [b + m for b, m in zip(self.stop, around, strict=True)]
        slabs = slab_axis(self.ndim)
        stop[slabs] = min(stop[slabs], start[slabs] + 2 * around[slabs] + 1)
        made = Planes(len(kernels), start, tuple(stop)).at(self.start)
        flat = [any(self.scale.steps[axis] == 0 for axis in along) for along in axes]  # taps that fall together do
        kernels = np.where(np.array(flat)[:, np.newaxis, np.newaxis], np.float32(0), kernels)  # not differ
        self.program.separable(self.planes.at(self.start), kernels, self.scale.array, made, around)
        return made


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
    places, weight = _line_steps(level.ndim, level.scale), stencils(level.ndim).line_weight
    level.program.lines(level.hessian, places, weight, first)


def _slope(level: Level, first: int) -> None:
    level.program.copy(level.gradient, level.ndim, first)


def _zero_crossings(level: Level, first: int) -> None:
    _shares(level, True, 1 / (2 * SHARE_RADIUS), first)  # changes for each dilation


def _ppv(level: Level, first: int) -> None:
    _shares(level, False, 1 / (2 * SHARE_RADIUS * level.scale.steps[2] + 1), first)


def _shares(level: Level, of_changes: bool, weight: float, first: int) -> None:
    """Add how often, around each sample of a series, the wavelet plane and the slope are positive, or change sign."""
    step = level.scale.steps[2]
    before, behind = ((*level.start[:2], level.start[2] + way) for way in (-step, step))
    differences = (level.x, level.next), (level.planes.at(behind), level.planes.at(before))
    for index, (a, b) in enumerate(differences):
        level.program.shares(a, b, SHARE_RADIUS * step, of_changes, weight, first + index)


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
    gradient, hessian : int or None, default=None
        How far it looks at first and second derivatives, in dilations; None if it does not use them.
    smoother : int or None, default=None
        How far it looks at the next level, in dilations; None if it does not use it.
    cost : float, default=0.0
        What it takes in 2-D, or 1-D where it is for series only, about: nanoseconds for a pixel and level, measured on
        one core with AVX2.
    """

    compute: Callable[[Level, int], None]
    parts: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    reach: int = 0
    gradient: int | None = None
    hessian: int | None = None
    smoother: int | None = None
    cost: float = 0.0

    @property
    def total_reach(self) -> int:
        """Distance in dilations to the farthest pixel of the level that has a part in its features."""
        derivatives = [margin + 1 for margin in (self.gradient, self.hessian) if margin is not None]
        smoothed = 0 if self.smoother is None else self.smoother + SMOOTHING_RADIUS
        return max(self.reach, *derivatives, smoothed)


def _in_any_rank(*parts: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return parts, parts, parts


def _in_series(*parts: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return parts, (), ()


def _descending(name: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the names of one value per axis."""
    return (name,), (f"{name}_max", f"{name}_min"), (f"{name}_max", f"{name}_middle", f"{name}_min")


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
    "lines": FeatureGroup(_lines, ((), _LINE_PARTS, _LINE_PARTS), hessian=LINE_RADIUS, cost=12.7),
    "zero_crossings": FeatureGroup(
        _zero_crossings,
        _in_series("crossings_wavelet", "crossings_slope"),
        reach=SHARE_RADIUS + 1,
        smoother=SHARE_RADIUS,
        cost=5.9,
    ),
    "ppv": FeatureGroup(
        _ppv, _in_series("ppv_wavelet", "ppv_slope"), reach=SHARE_RADIUS + 1, smoother=SHARE_RADIUS, cost=5.1
    ),
}


def available_groups(ndim: int) -> tuple[str, ...]:
    """Return the names of the groups that have features in images with `ndim` spatial axes."""
    return tuple(name for name, group in GROUPS.items() if group.parts[ndim - 1])
