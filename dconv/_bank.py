"""The plan of a feature bank, and its execution on a block: pyramid, bands, features last.

Everything that a fitted bank needs to know is in a :class:`Bank`; :meth:`Bank.fill` only computes. It works in three
steps, each on what fits in a faster cache than the one before:

1. the block with its halo is read and mixed into planes (intensity, colours), each smoothed into its levels;
2. bands of the block, a few rows each, get their feature planes from the levels, group by group;
3. the planes of a band are interleaved into the result, so that it is written once and in order.

The image is extended beyond its border once, in step 1. From there on all is arithmetic on neighbourhoods that lie
inside; a pixel's features therefore do not depend on the block that it is computed in, to the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dconv import shapes
from dconv._blocks import read_block
from dconv._feature_groups import GROUPS, SMOOTHING_RADIUS, Level, Place, Planes, stencils
from dconv._kernels import _cascade
from dconv.filters import FilterBank
from dconv.functional import conv

# A band should be many rows high, since the derivatives of its coarse levels reach far beyond it and are computed
# anew for the next band, and small, since its planes wait in cache to be interleaved.
_BAND_PIXELS = 1 << 15
_BAND_ROWS = 16
_SCRATCH_ROWS = 8  # what the hungriest kernel, structure_tensor in 3-D, needs

Margin = tuple[tuple[int, int], ...]  # pixels left and right of a block, per spatial axis


class PlanePlan(NamedTuple):
    """One plane that is made from an image: its name, the weight of each channel, and the groups computed on it."""

    name: str
    mixing: tuple[float, ...]
    groups: tuple[str, ...]


class Bank(NamedTuple):
    """A feature bank, checked; everything else follows from these fields."""

    ndim: int
    n_levels: int
    planes: tuple[PlanePlan, ...]
    filters: FilterBank | None
    padding_mode: str

    def feature_names(self) -> list[str]:
        """Return the name of every feature, in order."""
        names = []
        for plane in self.planes:
            for index in range(self.n_levels):
                for group in plane.groups:
                    names += [f"{plane.name}_{part}_d{2**index}" for part in self._parts(group)]
            if self._ends_with_level(plane):
                names.append(f"{plane.name}_level_d{2**self.n_levels}")
        if self.filters is not None:
            first = self.planes[0].name
            names += [f"{first}_{name}_d{2**i}" for i in range(self.n_levels) for name in self.filters.names]
        return names

    def halo(self) -> Margin:
        """Return the pixels that features see left and right of their own, per spatial axis."""
        margins = [self._level_margins(index)[0] for index in range(len(self.planes))]
        return _widest(margins)

    def fill(
        self, image: np.ndarray, block: Sequence[slice], out: np.ndarray, cpu_level: str | None = None
    ) -> None:
        """Write the features of `block` of `image` (*spatial, channels) to `out` (*block, n_features)."""
        start, stop = self._region(block, ((0, 0),) * self.ndim)
        levels = self._levels(image, block, cpu_level)
        out = out[(np.newaxis,) * (3 - self.ndim)]
        n_planes = out.shape[-1] - (0 if self.filters is None else self.n_levels * len(self.filters.names))
        longest = max(planes.data.shape[-1] for cascade in levels for planes in cascade.values())
        scratch = np.empty((_SCRATCH_ROWS, longest + 64), np.float32)
        memory = None
        for low, high in self._bands(start, stop):
            inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
            features = Planes(n_planes, low, high, memory)
            memory = features.memory  # the first band is the largest
            self._fill_planes(levels, features, scratch, cpu_level)
            _cascade.interleave(features.data, out[(*inside, slice(0, n_planes))], cpu_level)
            if self.filters is not None:
                self._filter(levels[0], low, high, out[(*inside, slice(n_planes, None))])

    def _parts(self, group: str) -> tuple[str, ...]:
        return GROUPS[group].parts[self.ndim - 1]

    def _ends_with_level(self, plane: PlanePlan) -> bool:
        return "level" in plane.groups

    def _region(self, block: Sequence[slice], margin: Margin) -> tuple[Place, Place]:
        """Return start and stop of a block and its margin, in three axes."""
        start = [part.start - left for part, (left, _) in zip(block, margin, strict=True)]
        stop = [part.stop + right for part, (_, right) in zip(block, margin, strict=True)]
        missing = 3 - self.ndim
        return (*(0,) * missing, *start), (*(1,) * missing, *stop)

    def _filter_halo(self, dilation: int) -> Margin:
        return shapes.halo([shapes.Layer(self.filters.kernel_size, dilation=(dilation,) * self.ndim)])

    def _level_margins(self, plane_index: int) -> list[Margin]:
        """Return how far beyond a block each level of a plane is needed, up to the last level that is."""
        plane = self.planes[plane_index]
        groups = [GROUPS[name] for name in plane.groups]
        has_next = self._ends_with_level(plane) or any(group.smoother for group in groups)
        margins = [((0, 0),) * self.ndim] if has_next else []
        for index in reversed(range(self.n_levels)):
            reach = max((group.total_reach for group in groups), default=0) * 2**index
            wanted = [((reach, reach),) * self.ndim]
            if margins:
                radius = SMOOTHING_RADIUS * 2**index
                wanted.append(tuple((left + radius, right + radius) for left, right in margins[0]))
            if self.filters is not None and plane_index == 0:
                wanted.append(self._filter_halo(2**index))
            margins.insert(0, _widest(wanted))
        return margins

    def _levels(self, image: np.ndarray, block: Sequence[slice], cpu_level: str | None) -> list[dict[int, Planes]]:
        """Return the levels of every plane, each over the block and the margin it is needed with."""
        start, stop = self._region(block, self.halo())
        axes = slice(3 - self.ndim, 3)
        source = np.asarray(read_block(image, start[axes], stop[axes], self.padding_mode), np.float32)
        smoothing = stencils(self.ndim).smoothing
        cascades = []
        for index, plane in enumerate(self.planes):
            levels = {0: Planes(1, start, stop)}
            _mix(source, plane.mixing, levels[0].data[(0,) * (4 - self.ndim)])
            scratch = np.empty((1, levels[0].data.shape[-1] + 64), np.float32)
            for step, margin in enumerate(self._level_margins(index)[1:]):
                low, high = self._region(block, margin)
                levels[step + 1] = Planes(1, low, high)
                _cascade.separable(
                    levels[step].at(low), smoothing, 2**step, levels[step + 1].data, scratch, cpu_level
                )
            cascades.append(levels)
        return cascades

    def _bands(self, start: Place, stop: Place) -> Iterator[tuple[Place, Place]]:
        """Return the bands of a block: cut along the first axis only, across rows in 2-D and 3-D."""
        axis = 3 - self.ndim
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        rows = max(_BAND_ROWS, _BAND_PIXELS // max(1, math.prod(shape[axis + 1 :])))
        for low in range(start[axis], stop[axis], rows):
            high = min(low + rows, stop[axis])
            yield (*start[:axis], low, *start[axis + 1 :]), (*stop[:axis], high, *stop[axis + 1 :])

    def _fill_planes(
        self, levels: list[dict[int, Planes]], features: Planes, scratch: np.ndarray, cpu_level: str | None
    ) -> None:
        """Write the features of the groups of all planes and levels, one plane of `features` each."""
        first = 0
        for plane, cascade in zip(self.planes, levels, strict=True):
            groups = [(GROUPS[name], len(self._parts(name))) for name in plane.groups]
            gradient, hessian = _derivative_margins(plane.groups)
            for index in range(self.n_levels):
                level = Level(
                    cascade[index], cascade.get(index + 1), 2**index, features.start, features.stop, self.ndim,
                    gradient, hessian, scratch, cpu_level,
                )  # fmt: skip
                for group, n_parts in groups:
                    group.compute(level, features.data[first : first + n_parts])
                    first += n_parts
            if self._ends_with_level(plane):
                last = cascade[self.n_levels].at(features.start)
                _, n0, n1, n2 = features.data.shape
                features.data[first] = last[0, :n0, :n1, :n2]
                first += 1

    def _filter(self, levels: dict[int, Planes], start: Place, stop: Place, out: np.ndarray) -> None:
        """Write the responses of the user's filters to `out` (*band, levels * filters)."""
        n_filters = len(self.filters.names)
        for index in range(self.n_levels):
            halo = ((0, 0),) * (3 - self.ndim) + self._filter_halo(2**index)
            low = tuple(a - left for a, (left, _) in zip(start, halo, strict=True))
            shape = [b + right - a for a, b, (_, right) in zip(low, stop, halo, strict=True)]
            source = levels[index].at(low)[0, : shape[0], : shape[1], : shape[2]]
            x = source[(*(0,) * (3 - self.ndim), np.newaxis, ..., np.newaxis)]
            response = conv(x, self.filters.weight, dilation=2**index, n_threads=1)[0]
            out[..., index * n_filters : (index + 1) * n_filters] = response.reshape(*out.shape[:-1], n_filters)


def _mix(source: np.ndarray, mixing: Sequence[float], out: np.ndarray) -> None:
    """Write the weighted sum of the channels of `source` (..., channels)."""
    # Channel after channel and not a matrix product, whose order of summing may depend on the number of pixels.
    used = [(channel, weight) for channel, weight in enumerate(mixing) if weight != 0]
    for position, (channel, weight) in enumerate(used):
        if position == 0:
            np.multiply(source[..., channel], np.float32(weight), out=out)
        else:
            out += source[..., channel] * np.float32(weight)


def _widest(margins: Sequence[Margin]) -> Margin:
    return tuple(
        (max(left for left, _ in pairs), max(right for _, right in pairs)) for pairs in zip(*margins, strict=True)
    )


@functools.cache
def _derivative_margins(groups: tuple[str, ...]) -> tuple[int, int]:
    """Return how far beyond a band some groups need the gradient and the Hessian, in dilations."""
    lines = [GROUPS[name] for name in groups]
    return max((g.gradient or 0 for g in lines), default=0), max((g.hessian or 0 for g in lines), default=0)
