"""The same bank on a pyramid: strided convolution down, features of the small levels, transposed convolution back up.

The alternative to dilation, for those who want to compare. Level `s` has a sample on every pixel whose coordinates are
multiples of its stride ``2**s``, counted from the first pixel of the image and beyond its borders. There it equals the
level of dilation ``2**s``, and features are computed from neighbouring samples; between the samples they are
interpolated, which is where fine boundaries are lost.

As in :mod:`dconv._bank` the image is extended once, and everything else is computed from neighbourhoods within what was
read; since strides count from the image's first pixel, features do not depend on the block that a pixel lies in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from dconv._bank import Bank, PlanePlan, derivative_margins, filter_halo, widest
from dconv._blocks import read_block
from dconv._feature_groups import GROUPS, Level, Planes, slab_axis, smooth
from dconv._kernels import _cascade
from dconv._receptive import Margin
from dconv._stencils import SMOOTHING_RADIUS, Place, scale_of
from dconv.functional import conv
from dconv.upsampling import upsample

Box: TypeAlias = tuple[Place, Place]  # start and stop on three axes, in samples of some level


class PyramidBank(Bank):
    """A bank whose levels are sampled more coarsely the smoother they are."""

    __slots__ = ()

    @property
    def _scale_letter(self) -> str:
        return "s"  # strides

    def halo(self) -> Margin:
        """Return the pixels that features see left and right of their own, per spatial axis, wherever they lie."""
        halos = []
        for index in range(self.n_levels):
            stride = 2**index
            # To the sample beside the pixel, as far as features look from there, and through the smoothing below.
            way = stride - 1 + SMOOTHING_RADIUS * (stride - 1)
            halos.append(tuple((way + stride * left, way + stride * right) for left, right in self._reach(index)))
        return widest(halos)

    def bands(
        self, image: np.ndarray, block: Sequence[slice], out: np.ndarray | None = None, cpu_level: str | None = None
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yield `block` of `image` as one band, with its features, which are written to `out` if it is given."""
        block = tuple(block)
        if out is None:
            out = np.empty((*(part.stop - part.start for part in block), self.n_features), np.float32)
        self._fill(image, block, out, cpu_level)
        yield block, out

    def _fill(self, image: np.ndarray, block: Sequence[slice], out: np.ndarray, cpu_level: str | None) -> None:
        needed = self._needed(block)
        start, stop = (place[3 - self.ndim :] for place in needed[0])
        source = np.asarray(read_block(image, start, stop, self.padding_mode), np.float32)
        done, own = 0, self._n_plane_features
        for plane in self.planes:
            x = Planes(1, *needed[0])
            self._mix(source, plane, x.data[(0,) * (4 - self.ndim)])
            for index in range(self.n_levels):
                box = self._samples(block, index)
                wanted = [self._smoother_box(plane, box, index), *map(_every_second, needed[index + 1 : index + 2])]
                smoother = self._smoother(x, wanted, cpu_level)
                features = self._features(plane, x, smoother, index, box, cpu_level)
                self._spread(features, block, index, out[..., done : done + features.shape[-1]])
                done += features.shape[-1]
                if plane is self.planes[0] and self.filters is not None:
                    n_filters = len(self.filters.names)
                    self._spread(self._responses(x, box), block, index, out[..., own : own + n_filters])
                    own += n_filters
                if index + 1 < self.n_levels:
                    x = self._subsampled(smoother, needed[index + 1])

    def _reach(self, index: int) -> Margin:
        """Return how far features look at their own level, in its samples, per spatial axis."""
        groups = [GROUPS[group] for plane in self.planes for group in plane.groups]
        reach = max((group.total_reach(self._coarser(index)) for group in groups), default=0)
        if any(plane.ends_with_level for plane in self.planes):
            reach = max(reach, SMOOTHING_RADIUS)
        margins: list[Margin] = [((reach, reach),) * self.ndim]
        if self.filters is not None:
            margins.append(filter_halo(self.filters, 1))
        return widest(margins)

    def _in_three(self, start: Sequence[int], stop: Sequence[int]) -> Box:
        missing = 3 - self.ndim
        return (*(0,) * missing, *start), (*(1,) * missing, *stop)

    def _samples(self, block: Sequence[slice], index: int) -> Box:
        """Return the samples of a level between which the pixels of `block` lie."""
        stride = 2**index
        return self._in_three(
            [part.start // stride for part in block], [-(-(part.stop - 1) // stride) + 1 for part in block]
        )

    def _needed(self, block: Sequence[slice]) -> list[Box]:
        """Return the samples of every level that the features of `block` are made from."""
        radius = (0,) * (3 - self.ndim) + (SMOOTHING_RADIUS,) * self.ndim
        boxes: list[Box] = []
        for index in reversed(range(self.n_levels)):
            start, stop = self._samples(block, index)
            reach = ((0, 0),) * (3 - self.ndim) + self._reach(index)
            start = tuple(a - left for a, (left, _) in zip(start, reach, strict=True))
            stop = tuple(b + right for b, (_, right) in zip(stop, reach, strict=True))
            if boxes:
                below = _every_second(boxes[0])
                start = tuple(min(a, other - r) for a, other, r in zip(start, below[0], radius, strict=True))
                stop = tuple(max(b, other + r) for b, other, r in zip(stop, below[1], radius, strict=True))
            boxes.insert(0, (start, stop))
        return boxes

    def _smoother_box(self, plane: PlanePlan, box: Box, index: int) -> Box:
        """Return the samples of the next level that the features of `box` are made from."""
        coarser = self._coarser(index)
        margin = max([0, *(GROUPS[group].smoother_reach(coarser) or 0 for group in plane.groups)])
        around = (0,) * (3 - self.ndim) + (margin,) * self.ndim
        start, stop = box
        return (
            tuple(a - m for a, m in zip(start, around, strict=True)),
            tuple(b + m for b, m in zip(stop, around, strict=True)),
        )

    def _smoother(self, x: Planes, boxes: list[Box], cpu_level: str | None) -> Planes:
        """Return the next level at the samples of this one: those in any of `boxes`."""
        start = tuple(min(places) for places in zip(*(each[0] for each in boxes), strict=True))
        stop = tuple(max(places) for places in zip(*(each[1] for each in boxes), strict=True))
        return smooth(x, self.ndim, scale_of(1), start, stop, cpu_level)

    def _subsampled(self, smoother: Planes, box: Box) -> Planes:
        """Return every second sample of the next level: with the smoothing, a convolution with stride 2."""
        x = Planes(1, *box)
        steps = tuple(slice(None, None, step) for step in (1, *(1,) * (3 - self.ndim), *(2,) * self.ndim))
        x.data[...] = smoother.over(*_every_second(box))[steps]
        return x

    def _features(
        self, plane: PlanePlan, x: Planes, smoother: Planes, index: int, box: Box, cpu_level: str | None
    ) -> np.ndarray:
        """Return the features of level `index`, which is `x` (*samples, n_features)."""
        with_next = index + 1 == self.n_levels and plane.ends_with_level
        n_features = sum(len(self._parts(group)) for group in plane.groups) + with_next
        shape, slabs = tuple(b - a for a, b in zip(*box, strict=True)), slab_axis(self.ndim)
        program = _cascade.Program(shape, slabs, n_features, cpu_level)
        place = scale_of(1), self._coarser(index), self.causal, *box, self.ndim
        level = Level(x, smoother, *place, derivative_margins(plane.groups), program, cpu_level)
        done = 0
        for group in plane.groups:
            GROUPS[group].compute(level, done)
            done += len(self._parts(group))
        if with_next:
            program.copy(level.next, 1, done)
        features = np.empty((*shape, n_features), np.float32)
        program.run(0, shape[slabs], features)
        return features[(0,) * (3 - self.ndim)]

    def _responses(self, x: Planes, box: Box) -> np.ndarray:
        """Return the responses of the user's filters (*samples, n_filters)."""
        assert self.filters is not None
        halo = ((0, 0),) * (3 - self.ndim) + filter_halo(self.filters, 1)
        start = tuple(a - left for a, (left, _) in zip(box[0], halo, strict=True))
        stop = tuple(b + right for b, (_, right) in zip(box[1], halo, strict=True))
        window = x.over(start, stop)[(0,) * (4 - self.ndim)][np.newaxis, ..., np.newaxis]
        return conv(window, self.filters.weight, n_threads=1)[0]

    def _spread(self, features: np.ndarray, block: Sequence[slice], index: int, out: np.ndarray) -> None:
        """Write features at the samples of a level to every pixel of a block, linearly interpolated."""
        if not features.shape[-1]:
            return
        stride = 2**index
        full = upsample(features[np.newaxis], stride, align="first", n_threads=1)[0] if index else features
        first = [part.start // stride * stride for part in block]
        out[...] = full[tuple(slice(part.start - a, part.stop - a) for part, a in zip(block, first, strict=True))]


def _every_second(box: Box) -> Box:
    """Return the box that holds, at the level below, the samples of `box`."""
    start, stop = box
    # An axis that the image does not have is not strided: it has one sample, 0.
    return tuple(2 * a for a in start), tuple(2 * (b - 1) + 1 for b in stop)
