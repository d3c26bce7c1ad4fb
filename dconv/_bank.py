"""The plan of a feature bank, and its execution on a block: pyramid, bands, features last.

Everything that a fitted bank needs to know is in a :class:`Bank`; :meth:`Bank.fill` only computes. It works in three
steps, each on what fits in a faster cache than the one before:

1. the block with its halo is read and mixed into planes (intensity, colours);
2. strips of the block get their features row by row, all groups of all levels of a row together: images are smoothed
   into their levels just before these rows are looked at, so that of a level no more is held than is seen at once;
   series and volumes, and levels that the user's filters look at, are smoothed in step 1;
3. the features of a row are interleaved into the result, which is so written once and in order.

The image is extended beyond its border once, in step 1. From there on everything is computed from neighbourhoods that
lie inside of what was read. Therefore the features of a pixel are those of the image extended without end, and do not
depend, to the last bit, on the block that it lies in.

A causal bank, of series, computes the same features late: each as many samples as it looks ahead. That is what it comes
to if all taps of a convolution lie at and before the sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dconv._blocks import read_block
from dconv._feature_groups import GROUPS, Level, Planes, moved, slab_axis, smooth
from dconv._intensity import Intensity
from dconv._kernels import _cascade
from dconv._receptive import Layer, Margin, axis_halos, cascade_halo
from dconv._stencils import SMOOTHING_RADIUS, Place, Scale, scale_of, stencils_at
from dconv.filters import FilterBank
from dconv.functional import conv

# What is computed beside a strip, up to 94 columns, counts much in a narrow one, and of a wide one the rows that are
# looked at leave the L2 cache: strips of 256, 342, 512 and 1024 columns took 131, 126, 120 and 137 ns for a pixel.
_STRIP = 512  # columns, in 2-D
_PIECE = 1 << 13  # samples of a series
_BAND_PIXELS = 1 << 12  # of which the features are handed out together, or one slab


class PlanePlan(NamedTuple):
    """One plane that is made from an image: its name, the weight of each channel, the groups computed on it, and
    whether it is normalized where images are.
    """

    name: str
    mixing: tuple[float, ...]
    groups: tuple[str, ...]
    normalized: bool = True

    @property
    def ends_with_level(self) -> bool:
        """Whether the level after the last is a feature too."""
        return "level" in self.groups


class Bank(NamedTuple):
    """A feature bank whose arguments have been checked; own filters apply to the first plane."""

    ndim: int
    n_levels: int
    planes: tuple[PlanePlan, ...]
    filters: FilterBank | None
    padding_mode: str
    scaling: Intensity | None = None  # what becomes 0 and 1, if images are normalized
    spacing: tuple[float, ...] | None = None  # of pixels along each axis, 1 along the finest; None if all are alike
    causal: bool = False  # whether features see no sample ahead of their own; for series

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

        They are written to `out` (*block, n_features), which is contiguous only as a whole, or if it is None to memory
        that the next band takes again.
        """
        start, stop = self._region(block, ((0, 0),) * self.ndim)
        pyramids = self._pyramids(image, block, cpu_level)
        streams = self._streams
        n_features, n_planes, slabs, axes = (
            self.n_features, self._n_plane_features, slab_axis(self.ndim), slice(3 - self.ndim, 3)
        )  # fmt: skip
        memory: np.ndarray | None = None
        for low, high in self._strips(start, stop):
            shape = [b - a for a, b in zip(low, high, strict=True)]
            program = _cascade.Program(tuple(shape), slabs, n_planes, cpu_level)
            levels = [
                self._streamed(index, of_plane[0], program, low, high) if streams else of_plane
                for index, of_plane in enumerate(pyramids)
            ]
            self._add_features(levels, program, low, high, cpu_level)
            n_slabs = shape[slabs]
            shape[slabs] = max(1, min(n_slabs, _BAND_PIXELS * n_slabs // math.prod(shape)))
            for first in range(0, n_slabs, shape[slabs]):
                last = min(first + shape[slabs], n_slabs)
                begin, end = list(low), list(high)
                begin[slabs], end[slabs] = low[slabs] + first, low[slabs] + last
                if out is None:
                    size = math.prod(shape) * n_features
                    memory = np.empty(size, np.float32) if memory is None or memory.size < size else memory
                    band_shape = [b - a for a, b in zip(begin, end, strict=True)]
                    band = memory[: math.prod(band_shape) * n_features].reshape(*band_shape, n_features)
                else:
                    band = out[(np.newaxis,) * (3 - self.ndim)][
                        tuple(slice(a - s, b - s) for a, b, s in zip(begin, end, start, strict=True))
                    ]
                program.run(first, last, band[..., :n_planes])
                if self.filters is not None:
                    self._apply_filters(self.filters, pyramids[0], tuple(begin), tuple(end), band[..., n_planes:])
                part = tuple(slice(a, b) for a, b in zip(begin[axes], end[axes], strict=True))
                yield part, band[(0,) * (3 - self.ndim)]

    def steps(self, index: int) -> tuple[int, ...]:
        """Return the pixels from tap to tap at a level, per spatial axis."""
        return self._scale(index).steps[3 - self.ndim :]

    def _coarser(self, index: int) -> int:
        """Return how many levels follow a level."""
        return self.n_levels - 1 - index

    def _scale(self, index: int) -> Scale:
        return scale_of(2**index, self.spacing)

    def _lag(self, index: int, reach: int) -> int:
        """Return how many samples late features come that look `reach` dilations ahead at a level."""
        return cascade_halo(index + 1, reach, SMOOTHING_RADIUS) if self.causal else 0

    def _filter_margin(self, filters: FilterBank, index: int) -> Margin:
        """Return how far beyond a block the user's filters look at a level."""
        halo = filter_halo(filters, self._filter_dilation(index))
        lag = self._lag(index, 0) + halo[-1][1] if self.causal else 0
        return _behind(halo, lag)

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
        margins: list[Margin] = []
        for index in reversed(range(self.n_levels + 1)):
            wanted = self._looked_at(plane_index, index)
            if margins:
                pairs = zip(margins[0], (SMOOTHING_RADIUS * step for step in self.steps(index)), strict=True)
                wanted.append(tuple((left + radius, right + radius) for (left, right), radius in pairs))
            if wanted:
                margins.insert(0, widest(wanted))
        return margins

    def _looked_at(self, plane_index: int, index: int) -> list[Margin]:
        """Return how far beyond a block features look at a level of a plane: those of that level and the one before."""
        plane = self.planes[plane_index]
        groups = [GROUPS[name] for name in plane.groups]
        looks: list[Margin] = []
        if index < self.n_levels:
            steps = self.steps(index)
            for reach in {group.total_reach(self._coarser(index)) for group in groups}:
                margin = tuple((reach * step, reach * step) for step in steps)
                looks.append(_behind(margin, self._lag(index, reach)))
            if self.filters is not None and plane_index == 0:
                looks.append(self._filter_margin(self.filters, index))
        elif plane.ends_with_level:
            looks.append(_behind(((0, 0),) * self.ndim, self._lag(index, 0)))
        for group in groups if index > 0 else ():
            coarser = self._coarser(index - 1)
            smoother_reach = group.smoother_reach(coarser)
            if smoother_reach is not None:
                margin = tuple((smoother_reach * step, smoother_reach * step) for step in self.steps(index - 1))
                looks.append(_behind(margin, self._lag(index - 1, group.total_reach(coarser))))
        return looks

    def _pyramids(self, image: np.ndarray, block: Sequence[slice], cpu_level: str | None) -> list[list[Planes]]:
        """Return the levels of every plane, or the first ones where the others are streamed, each over the block and
        the margin it is needed with.
        """
        start, stop = self._region(block, self.halo())
        axes = slice(3 - self.ndim, 3)
        source = np.asarray(read_block(image, start[axes], stop[axes], self.padding_mode), np.float32)
        pyramids = []
        for plane_index, plane in enumerate(self.planes):
            levels = [Planes(1, start, stop)]
            self._mix(source, plane, levels[0].data[(0,) * (4 - self.ndim)])
            margins = [] if self._streams else self._level_margins(plane_index)[1:]
            for index, margin in enumerate(margins):
                region = self._region(block, margin)
                levels.append(smooth(levels[index], self.ndim, self._scale(index), *region, cpu_level))
            pyramids.append(levels)
        return pyramids

    @property
    def _streams(self) -> bool:
        """Whether levels are made row by row before the features that look at them, so that what is seen of them stays
        in a near cache: not where the user's filters look at blocks of them, nor in 3-D, where most of a block is seen.
        """
        return self.ndim == 2 and self.filters is None

    def _streamed(
        self, plane_index: int, first: Planes, program: _cascade.Program, start: Place, stop: Place
    ) -> list[Planes]:
        """Return the levels of a plane over a strip, which its program makes from the first one; of the others as many
        rows are held as are seen at once.
        """
        levels, margins = [first], self._level_margins(plane_index)
        for index in range(1, len(margins)):
            (_, ahead), (_, beside) = margins[index]
            seen = [margin[0][0] for margin in self._looked_at(plane_index, index)]
            if index + 1 < len(margins):  # the next level is made some rows ahead itself
                seen.append(SMOOTHING_RADIUS * self.steps(index)[0] - margins[index + 1][0][1])
            begin, end = (start[0], start[1] - ahead, start[2] - beside), (stop[0], stop[1] + ahead, stop[2] + beside)
            rows = min(end[1] - begin[1], ahead + max(0, *seen) + 1)
            made, scale = Planes(1, begin, (end[0], begin[1] + rows, end[2])), self._scale(index - 1)
            kernels = stencils_at(self.ndim, scale).smoothing
            program.separable(levels[-1].at(start), kernels, scale.array, [made.at(start)], (0, ahead, beside))
            levels.append(made)
        return levels

    def _mix(self, source: np.ndarray, plane: PlanePlan, out: np.ndarray) -> None:
        """Write a plane of `source` (*block, channels), normalized if it is to be, to `out` (*block)."""
        mix(source, plane.mixing, out)
        if self.scaling is not None and plane.normalized:
            out -= np.float32(self.scaling.mean * sum(plane.mixing))
            out *= np.float32(1 / self.scaling.std)

    def _strips(self, start: Place, stop: Place) -> Iterator[tuple[Place, Place]]:
        """Return the strips of a block, which is cut along its last axis only."""
        n = stop[2] - start[2]
        most = {1: _PIECE, 2: _STRIP, 3: n}[self.ndim]
        width = math.ceil(n / math.ceil(n / most))
        for low in range(start[2], stop[2], width):
            yield (*start[:2], low), (*stop[:2], min(low + width, stop[2]))

    def _add_features(
        self,
        pyramids: list[list[Planes]],
        program: _cascade.Program,
        start: Place,
        stop: Place,
        cpu_level: str | None,
    ) -> None:
        """Add the features of all groups, levels and planes over a strip to its program."""
        done = 0
        for plane, levels in zip(self.planes, pyramids, strict=True):
            for index in range(self.n_levels):
                smoother = levels[index + 1] if index + 1 < len(levels) else None
                coarser, scale = self._coarser(index), self._scale(index)
                lags = [self._lag(index, GROUPS[group].total_reach(coarser)) for group in plane.groups]
                views = {}  # one for all groups that come equally late, which share derivatives
                for lag in dict.fromkeys(lags):
                    margins = derivative_margins([g for g, of_g in zip(plane.groups, lags, strict=True) if of_g == lag])
                    ends = moved(start, -lag), moved(stop, -lag)
                    place = scale, coarser, self.causal, *ends, self.ndim
                    views[lag] = Level(levels[index], smoother, *place, margins, program, cpu_level)
                for group, lag in zip(plane.groups, lags, strict=True):
                    GROUPS[group].compute(views[lag], done)
                    done += len(self._parts(group))
            if plane.ends_with_level:
                program.copy(levels[-1].at(moved(start, -self._lag(self.n_levels, 0))), 1, done)
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
            x = levels[index].over(*self._region(band, self._filter_margin(filters, index)))
            x = x[(0,) * (4 - self.ndim)][np.newaxis, ..., np.newaxis]
            response = conv(x, filters.weight, dilation=dilation, n_threads=1)
            out[..., index * n_filters : (index + 1) * n_filters] = response[0]


def derivative_margins(groups: Sequence[str]) -> tuple[int | None, int | None, int | None]:
    """Return how far beyond a band these groups need first and second derivatives, and second ones along lines, in
    dilations; None where none does.
    """
    of_groups = [GROUPS[name] for name in groups]

    def farthest(margins: Iterable[int | None]) -> int | None:
        return max((margin for margin in margins if margin is not None), default=None)

    return (
        farthest(group.gradient for group in of_groups),
        farthest(group.hessian for group in of_groups),
        farthest(group.lines for group in of_groups),
    )


def _behind(margin: Margin, lag: int) -> Margin:
    """Return the margin of a block whose last axis is looked at `lag` pixels earlier."""
    *others, (left, right) = margin
    return (*others, (left + lag, right - lag))


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
