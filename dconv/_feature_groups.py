"""The features of one level of the bank: a table of groups, and what a group is computed from.

A new group is a function that writes its planes, and one line in `GROUPS`. Distances in the table are in dilations
of the level, so that the same line describes every level. Coordinates have three axes here, as in the kernels: 1-D and
2-D images have leading axes of size 1.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from dconv import _memory
from dconv._kernels import _cascade

Place: TypeAlias = tuple[int, int, int]

SMOOTHING_RADIUS = 2  # of the B3 spline, in dilations
LINE_RADIUS = 3  # a line is followed over this many dilations to both sides
N_ORIENTATIONS = 8  # of lines in 2-D

_LINE = 16  # floats
_ROW_UNIT = 32  # floats; the kernels write rows in whole vectors (feature_rows.h)

_ONE = (0, 0, 1, 0, 0)
_B3 = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_SMOOTH = (0, 1 / 4, 2 / 4, 1 / 4, 0)
_FIRST = (0, -1 / 2, 0, 1 / 2, 0)
_SECOND = (0, 1, -2, 1, 0)


class Stencils(NamedTuple):
    """The linear filters of the bank in `ndim` dimensions. Kernels are (n, 3 axes, 5 taps), steps are in dilations."""

    smoothing: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray  # the diagonal, then the upper triangle row by row
    neighbours: np.ndarray  # (n, 3), the centre left out
    directions: np.ndarray  # (n, 3) unit vectors along the lines
    line_weight: np.ndarray  # (n directions, parts of the Hessian): the second derivative across the line


def _separable(ndim: int, special: dict[int, Sequence[float]], other: Sequence[float]) -> np.ndarray:
    """Return the kernel with `special` along some axes and `other` along the rest of the last `ndim` axes."""
    axes = [_ONE] * (3 - ndim) + [special.get(axis, other) for axis in range(ndim)]
    return np.array(axes, np.float32)


def _line_directions(ndim: int) -> np.ndarray:
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
    hessian = [
        _separable(ndim, {a: _SECOND} if a == b else {a: _FIRST, b: _FIRST}, _SMOOTH) for a, b in pairs
    ]
    neighbours = [step for step in itertools.product((-1, 0, 1), repeat=ndim) if any(step)]
    u = _line_directions(ndim)
    # trace(H) - u' H u, over the mean of all taps
    weight = np.stack([1.0 - u[:, a] ** 2 if a == b else -2 * u[:, a] * u[:, b] for a, b in pairs], axis=1)
    weight[np.abs(weight) < 1e-12] = 0  # cos(pi / 2) is not quite 0, and the kernel skips parts of weight 0
    lead = ((0, 0), (3 - ndim, 0))
    return Stencils(
        smoothing=_separable(ndim, {}, _B3)[np.newaxis],
        gradient=np.stack([_separable(ndim, {axis: _FIRST}, _SMOOTH) for axis in range(ndim)]),
        hessian=np.stack(hessian),
        neighbours=np.pad(np.array(neighbours, np.intp), lead),
        directions=np.pad(u, lead),
        line_weight=(weight / (2 * LINE_RADIUS + 1)).astype(np.float32),
    )


def _odd_lines(n: int) -> int:
    """Return `n` floats as an odd number of cache lines: neighbours a power of two apart would share few cache sets."""
    return n if n // _LINE % 2 else n + _LINE


class Planes:
    """`n` float32 planes over the pixels from `start` to `stop`, in coordinates of the image.

    ``data`` is (n, *shape). Its rows are padded, and the array has room behind it, for the kernels' whole vectors.
    """

    def __init__(self, n: int, start: Place, stop: Place, memory: np.ndarray | None = None) -> None:
        self.start, self.stop = start, stop
        n0, n1, n2 = (b - a for a, b in zip(start, stop, strict=True))
        pitch = _odd_lines(-(-n2 // _ROW_UNIT) * _ROW_UNIT)
        plane = _odd_lines(n0 * n1 * pitch)
        if memory is None:
            memory = _memory.empty((n * plane + 2 * _ROW_UNIT,), np.dtype(np.float32))
        self.memory = memory
        self.data = np.ndarray((n, n0, n1, n2), np.float32, memory, 0, (4 * plane, 4 * n1 * pitch, 4 * pitch, 4))

    def at(self, place: Place) -> np.ndarray:
        """Return the view of ``data`` whose first pixel is `place`; the kernels' taps reach out of it."""
        i, j, k = (a - b for a, b in zip(place, self.start, strict=True))
        return self.data[:, i:, j:, k:]

    def offsets(self, steps: np.ndarray) -> np.ndarray:
        """Return the distances in memory, in floats, of `steps` (..., 3) in pixels."""
        return steps @ (np.array(self.data.strides[1:], np.intp) // 4)


class Level:
    """One level of one plane of an image, over a band of pixels: what groups are computed from.

    Parameters
    ----------
    planes, smoother : Planes
        This level and the next one. They reach as far beyond the band as the groups do.
    dilation : int
        Distance between taps, in pixels.
    start, stop : (int, int, int)
        The band.
    gradient_margin, hessian_margin : int
        How far beyond the band derivatives are needed, in dilations.
    scratch : float32 array of shape (8, longest row)
    """

    def __init__(
        self,
        planes: Planes,
        smoother: Planes | None,
        dilation: int,
        start: Place,
        stop: Place,
        ndim: int,
        gradient_margin: int,
        hessian_margin: int,
        scratch: np.ndarray,
        cpu_level: str | None,
    ) -> None:
        self.planes, self.smoother, self.dilation = planes, smoother, dilation
        self.start, self.stop, self.ndim = start, stop, ndim
        self.stencils = stencils(ndim)
        self.scratch, self.cpu_level = scratch, cpu_level
        self._gradient_margin, self._hessian_margin = gradient_margin, hessian_margin

    @property
    def x(self) -> np.ndarray:
        """The level itself, from the first pixel of the band on."""
        return self.planes.at(self.start)

    @functools.cached_property
    def gradient(self) -> Planes:
        """First derivatives along every axis."""
        return self._derivatives(self.stencils.gradient, self._gradient_margin)

    @functools.cached_property
    def hessian(self) -> Planes:
        """Second derivatives: the diagonal, then the upper triangle row by row."""
        return self._derivatives(self.stencils.hessian, self._hessian_margin)

    def _derivatives(self, kernels: np.ndarray, margin: int) -> Planes:
        start, stop = grow(self.start, self.stop, margin * self.dilation, self.ndim)
        planes = Planes(len(kernels), start, stop)
        _cascade.separable(
            self.planes.at(start), kernels, self.dilation, planes.data, self.scratch, self.cpu_level
        )
        return planes


def grow(start: Place, stop: Place, margin: int, ndim: int) -> tuple[Place, Place]:
    """Return the region that reaches `margin` pixels further along the last `ndim` axes."""
    margins = (0,) * (3 - ndim) + (margin,) * ndim
    return (
        tuple(a - m for a, m in zip(start, margins, strict=True)),
        tuple(b + m for b, m in zip(stop, margins, strict=True)),
    )


def _level(level: Level, out: np.ndarray) -> None:
    _, n0, n1, n2 = out.shape
    out[...] = level.x[:, :n0, :n1, :n2]


def _wavelet(level: Level, out: np.ndarray) -> None:
    _, n0, n1, n2 = out.shape
    np.subtract(level.x[:, :n0, :n1, :n2], level.smoother.at(level.start)[:, :n0, :n1, :n2], out=out)


def _gradient(level: Level, out: np.ndarray) -> None:
    _cascade.magnitude(level.gradient.at(level.start), out, level.cpu_level)


def _hessian(level: Level, out: np.ndarray) -> None:
    _cascade.eigenvalues(level.hessian.at(level.start), out, level.cpu_level)


def _structure_tensor(level: Level, out: np.ndarray) -> None:
    gradient, smoothing = level.gradient.at(level.start), level.stencils.smoothing[0]
    _cascade.structure_tensor(gradient, smoothing, level.dilation, out, level.scratch, level.cpu_level)


def _std(level: Level, out: np.ndarray) -> None:
    _cascade.deviation(level.x, level.stencils.smoothing[0], level.dilation, out, level.scratch, level.cpu_level)


def _extrema(level: Level, out: np.ndarray) -> None:
    offsets = level.planes.offsets(level.stencils.neighbours * level.dilation)
    _cascade.extrema(level.x, offsets, out, level.cpu_level)


def _lines(level: Level, out: np.ndarray) -> None:
    along = np.arange(-LINE_RADIUS, LINE_RADIUS + 1)[:, np.newaxis] * level.dilation
    steps = np.rint(along * level.stencils.directions[:, np.newaxis]).astype(np.intp)
    hessian = level.hessian
    _cascade.lines(
        hessian.at(level.start), hessian.offsets(steps), level.stencils.line_weight, out, level.cpu_level
    )


class FeatureGroup(NamedTuple):
    """A line of the table of features.

    Attributes
    ----------
    compute : callable
        ``compute(level, out)`` writes the parts to `out` (parts, *band).
    parts : tuple of tuple of str
        Names of its features in 1-D, 2-D and 3-D.
    reach : int, default=0
        How far it looks at the level itself, in dilations.
    gradient, hessian : int or None, default=None
        How far beyond a pixel it looks at first and second derivatives, in dilations; None if it does not.
    smoother : bool, default=False
        Whether it looks at the next level.
    """

    compute: Callable[[Level, np.ndarray], None]
    parts: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    reach: int = 0
    gradient: int | None = None
    hessian: int | None = None
    smoother: bool = False

    @property
    def total_reach(self) -> int:
        """Distance in dilations to the farthest pixel of the level that has a part in a feature."""
        derivatives = [margin + 1 for margin in (self.gradient, self.hessian) if margin is not None]
        return max(self.reach, *derivatives, SMOOTHING_RADIUS if self.smoother else 0, 0)


def _in_any_rank(*parts: str) -> tuple[tuple[str, ...], ...]:
    return (parts,) * 3


def _sorted(name: str) -> tuple[tuple[str, ...], ...]:
    return (name,), (f"{name}_max", f"{name}_min"), (f"{name}_max", f"{name}_middle", f"{name}_min")


_LINE_PARTS = ("line_max", "line_min", "line_mean")

GROUPS: dict[str, FeatureGroup] = {
    "level": FeatureGroup(_level, _in_any_rank("level")),
    "wavelet": FeatureGroup(_wavelet, _in_any_rank("wavelet"), smoother=True),
    "gradient": FeatureGroup(_gradient, _in_any_rank("gradient"), gradient=0),
    "hessian": FeatureGroup(_hessian, _sorted("hessian"), hessian=0),
    "structure_tensor": FeatureGroup(_structure_tensor, _sorted("structure_tensor"), gradient=SMOOTHING_RADIUS),
    "std": FeatureGroup(_std, _in_any_rank("std"), reach=SMOOTHING_RADIUS),
    "extrema": FeatureGroup(_extrema, _in_any_rank("max", "min"), reach=1),
    "lines": FeatureGroup(_lines, ((), _LINE_PARTS, _LINE_PARTS), hessian=LINE_RADIUS),
}
