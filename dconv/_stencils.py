"""The linear filters of one level of the bank, in 1-D to 3-D, and the distances that they have there.

Places have three coordinates here, as in the kernels: 1-D and 2-D images have leading axes of size 1.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from dconv._kernels import _cascade

Place: TypeAlias = tuple[int, ...]  # three of them

SMOOTHING_RADIUS = 2  # of the B3 spline, in dilations
LINE_RADIUS = _cascade.LINE_TAPS // 2  # a line is followed over so many dilations to both sides
N_ORIENTATIONS = 8  # of lines in 2-D

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
def line_steps(ndim: int, scale: Scale) -> np.ndarray:
    """Return the taps of every line, in pixels, of shape (directions, taps, 3)."""
    along = np.arange(-LINE_RADIUS, LINE_RADIUS + 1)[:, np.newaxis] * scale.array
    return np.rint(along * stencils(ndim).line_directions[:, np.newaxis]).astype(np.intp)
