"""The plan of a feature bank, and its execution on a block: pyramid, bands, features last.

Everything that a fitted bank needs to know is in a :class:`Bank`; :meth:`Bank.fill` only computes. It works in three
steps, each on what fits in a faster cache than the one before:

1. the block with its halo is read and mixed into planes (intensity, colours), and each is smoothed into its levels;
2. bands of the block, a few rows each, get their feature planes from the levels, group by group;
3. the planes of a band are interleaved into the result, which is so written once and in order.

The image is extended beyond its border once, in step 1. From there on everything is computed from neighbourhoods that
lie inside of what was read. Therefore the features of a pixel are those of the image extended without end, and do not
depend, to the last bit, on the block that it lies in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dconv._blocks import read_block
from dconv._feature_groups import (
    GROUPS,
    SMOOTHING_RADIUS,
    Level,
    Place,
    Planes,
    Scale,
    scale_of,
    scratch_rows,
    stencils_at,
)
from dconv._intensity import Intensity
from dconv._kernels import _cascade
from dconv._receptive import Layer, Margin, axis_halos
from dconv.filters import FilterBank
from dconv.functional import conv

# A band is high, since the derivatives of coarse levels reach far beyond it and are computed again for the next band,
# but its planes must wait in the cache for each other. In 2-D this size was the best or close to it from 2^13 to 2^16.
_BAND_PIXELS = 1 << 15
_BAND_ROWS = 16  # at least


class PlanePlan(NamedTuple):
    """One plane that is made from an image: its name, the weight of each channel, and the groups computed on it."""

    name: str
    mixing: tuple[float, ...]
    groups: tuple[str, ...]

    @property
    def ends_with_level(self) -> bool:
        """Whether the level after the last is a feature too."""
        return "level" in self.groups

    @property
    def derivative_margins(self) -> tuple[int, int]:
        """How far beyond a band first and second derivatives are needed, in dilations."""
        groups = [GROUPS[name] for name in self.groups]
        return max([0, *(g.gradient or 0 for g in groups)]), max([0, *(g.hessian or 0 for g in groups)])


class Bank(NamedTuple):
    """A feature bank whose arguments have been checked; own filters apply to the first plane."""

    ndim: int
    n_levels: int
    planes: tuple[PlanePlan, ...]
    filters: FilterBank | None
    padding_mode: str
    scaling: Intensity | None = None  # what becomes 0 and 1, if images are normalized
    spacing: tuple[float, ...] | None = None  # of pixels along each axis, 1 along the finest; None if all are alike

    def feature_names(self) -> list[str]:
        """Return the name of every feature, in order."""
        return [f"{plane}_{part}_{scale}" for plane, _, scale, part in self.feature_table()]

    def feature_table(self) -> list[tuple[str, str, str, str]]:
        """Return plane, group, scale and name of every feature, in order."""
        table: list[tuple[str, str, str, str]] = []
        scales = [f"{self._scale_letter}{2**index}" for index in range(self.n_levels + 1)]
        for plane in self.planes:
            for scale in scales[:-1]:
                table += [(plane.name, group, scale, part) for group in plane.groups for part in self._parts(group)]
            if plane.ends_with_level:
                table.append((plane.name, "level", scales[-1], "level"))
        if self.filters is not None:
            plane = self.planes[0]
            table += [(plane.name, "filters", scale, name) for scale in scales[:-1] for name in self.filters.names]
        return table

    def halo(self) -> Margin:
        """Return the pixels that features see left and right of their own, per spatial axis."""
        return widest([self._level_margins(index)[0] for index in range(len(self.planes))])

    def fill(self, image: np.ndarray, block: Sequence[slice], out: np.ndarray, cpu_level: str | None = None) -> None:
        """Write the features of `block` of `image` (*spatial, channels) to `out` (*block, n_features)."""
        for _ in self.bands(image, block, out, cpu_level):
            pass

    def bands(
        self, image: np.ndarray, block: Sequence[slice], out: np.ndarray | None = None, cpu_level: str | None = None
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yield the bands of `block` of `image`, each with its features, (*band, n_features) and C-contiguous.

        They are written to `out` (*block, n_features), or if it is None to memory that the next band takes again.
        """
        start, stop = self._region(block, ((0, 0),) * self.ndim)
        pyramids = self._pyramids(image, block, cpu_level)
        scratch = scratch_rows(max(level.data.shape[-1] for levels in pyramids for level in levels))
        n_features, n_planes = self.n_features, self._n_plane_features
        memory = written = None
        for low, high in self._bands(start, stop):
            shape = tuple(b - a for a, b in zip(low, high, strict=True))
            if out is None:
                written = np.empty((*shape, n_features), np.float32) if written is None else written
                band = written[tuple(slice(n) for n in shape)]  # no band is larger than the first
            else:
                band = out[(np.newaxis,) * (3 - self.ndim)][
                    tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
                ]
            features = Planes(n_planes, low, high, memory)
            memory = features.memory
            self._fill_planes(pyramids, features, scratch, cpu_level)
            _cascade.interleave(features.data, band[..., :n_planes], cpu_level)
            if self.filters is not None:
                self._apply_filters(self.filters, pyramids[0], low, high, band[..., n_planes:])
            axes = slice(3 - self.ndim, 3)
            part = tuple(slice(a, b) for a, b in zip(low[axes], high[axes], strict=True))
            yield part, band[(0,) * (3 - self.ndim)]

    def steps(self, index: int) -> tuple[int, ...]:
        """Return the pixels from tap to tap at a level, per spatial axis."""
        return self._scale(index).steps[3 - self.ndim :]

    def _scale(self, index: int) -> Scale:
        return scale_of(2**index, self.spacing)

    def _filter_dilation(self, index: int) -> tuple[int, ...]:
        """Return the dilation of the user's filters at a level: their taps never fall together."""
        return tuple(max(1, step) for step in self.steps(index))

    @property
    def n_features(self) -> int:
        """Number of features of a pixel."""
        return len(self.feature_names())

    @property
    def _n_plane_features(self) -> int:
        """Number of features that are not responses of the user's filters."""
        return self.n_features - (0 if self.filters is None else self.n_levels * len(self.filters.names))

    @property
    def _scale_letter(self) -> str:
        """What stands before the scale in a name: here scales are dilations."""
        return "d"

    def _parts(self, group: str) -> tuple[str, ...]:
        return GROUPS[group].parts[self.ndim - 1]

    def _region(self, block: Sequence[slice], margin: Margin) -> tuple[Place, Place]:
        """Return start and stop of a block with a margin, in three axes."""
        start = [part.start - left for part, (left, _) in zip(block, margin, strict=True)]
        stop = [part.stop + right for part, (_, right) in zip(block, margin, strict=True)]
        missing = 3 - self.ndim
        return (*(0,) * missing, *start), (*(1,) * missing, *stop)

    def _level_margins(self, plane_index: int) -> list[Margin]:
        """Return how far beyond a block each level of a plane is needed, as many levels as are."""
        plane = self.planes[plane_index]
        groups = [GROUPS[name] for name in plane.groups]
        margins = []
        if plane.ends_with_level or any(group.smoother for group in groups):
            margins.append(((0, 0),) * self.ndim)
        for index in reversed(range(self.n_levels)):
            reach, steps = max([group.total_reach for group in groups], default=0), self.steps(index)
            wanted = [tuple((reach * step, reach * step) for step in steps)]
            if margins:
                pairs = zip(margins[0], (SMOOTHING_RADIUS * step for step in steps), strict=True)
                wanted.append(tuple((left + radius, right + radius) for (left, right), radius in pairs))
            if self.filters is not None and plane_index == 0:
                wanted.append(filter_halo(self.filters, self._filter_dilation(index)))
            margins.insert(0, widest(wanted))
        return margins

    def _pyramids(self, image: np.ndarray, block: Sequence[slice], cpu_level: str | None) -> list[list[Planes]]:
        """Return the levels of every plane, each over the block and the margin it is needed with."""
        start, stop = self._region(block, self.halo())
        axes = slice(3 - self.ndim, 3)
        source = np.asarray(read_block(image, start[axes], stop[axes], self.padding_mode), np.float32)
        scratch = scratch_rows(stop[2] - start[2])
        pyramids = []
        for plane_index, plane in enumerate(self.planes):
            levels = [Planes(1, start, stop)]
            self._mix(source, plane, levels[0].data[(0,) * (4 - self.ndim)])
            for index, margin in enumerate(self._level_margins(plane_index)[1:]):
                smoother = Planes(1, *self._region(block, margin))
                x = levels[index].at(smoother.start)
                scale = self._scale(index)
                smoothing = stencils_at(self.ndim, scale).smoothing
                _cascade.separable(x, smoothing, scale.array, smoother.data, scratch, cpu_level)
                levels.append(smoother)
            pyramids.append(levels)
        return pyramids

    def _mix(self, source: np.ndarray, plane: PlanePlan, out: np.ndarray) -> None:
        """Write a plane of `source` (*block, channels), normalized if images are, to `out` (*block)."""
        mix(source, plane.mixing, out)
        if self.scaling is not None:
            out -= np.float32(self.scaling.mean * sum(plane.mixing))
            out *= np.float32(1 / self.scaling.std)

    def _bands(self, start: Place, stop: Place) -> Iterator[tuple[Place, Place]]:
        """Return the bands of a block, which is cut along its first axis only."""
        axis = 3 - self.ndim
        row_pixels = math.prod(b - a for a, b in zip(start[axis + 1 :], stop[axis + 1 :], strict=True))
        n_rows = max(_BAND_ROWS, _BAND_PIXELS // row_pixels)
        for low in range(start[axis], stop[axis], n_rows):
            high = min(low + n_rows, stop[axis])
            yield (*start[:axis], low, *start[axis + 1 :]), (*stop[:axis], high, *stop[axis + 1 :])

    def _fill_planes(
        self, pyramids: list[list[Planes]], features: Planes, scratch: np.ndarray, cpu_level: str | None
    ) -> None:
        """Write the features of all groups, levels and planes, each to one plane of `features`."""
        start, stop = features.start, features.stop
        done = 0
        for plane, levels in zip(self.planes, pyramids, strict=True):
            margins = plane.derivative_margins
            for index in range(self.n_levels):
                smoother = levels[index + 1] if index + 1 < len(levels) else None
                level = Level(
                    levels[index], smoother, self._scale(index), start, stop, self.ndim, margins, scratch, cpu_level
                )
                for group in plane.groups:
                    n_parts = len(self._parts(group))
                    GROUPS[group].compute(level, features.data[done : done + n_parts])
                    done += n_parts
            if plane.ends_with_level:
                features.data[done] = levels[-1].over(start, stop)[0]
                done += 1

    def _apply_filters(
        self, filters: FilterBank, levels: list[Planes], start: Place, stop: Place, out: np.ndarray
    ) -> None:
        """Write the responses of the user's filters to `out` (*band, levels * filters)."""
        axes = slice(3 - self.ndim, 3)
        band = [slice(a, b) for a, b in zip(start[axes], stop[axes], strict=True)]
        n_filters = len(filters.names)
        for index in range(self.n_levels):
            dilation = self._filter_dilation(index)
            x = levels[index].over(*self._region(band, filter_halo(filters, dilation)))
            x = x[(0,) * (4 - self.ndim)][np.newaxis, ..., np.newaxis]
            response = conv(x, filters.weight, dilation=dilation, n_threads=1)
            out[..., index * n_filters : (index + 1) * n_filters] = response[0]


def filter_halo(filters: FilterBank, dilation: int | tuple[int, ...]) -> Margin:
    return axis_halos([Layer(filters.kernel_size, dilation=dilation)])


def mix(source: np.ndarray, mixing: Sequence[float], out: np.ndarray) -> None:
    """Write the weighted sum of the channels of `source` (*block, channels) to `out` (*block)."""
    # Channel after channel, and not by a matrix product, whose order of summing may depend on the number of pixels.
    first, *others = [(channel, np.float32(weight)) for channel, weight in enumerate(mixing) if weight != 0]
    np.multiply(source[..., first[0]], first[1], out=out)
    for channel, weight in others:
        out += source[..., channel] * weight


def widest(margins: Sequence[Margin]) -> Margin:
    """Return the margin that contains all of `margins`."""
    return tuple(
        (max(left for left, _ in pairs), max(right for _, right in pairs)) for pairs in zip(*margins, strict=True)
    )
