"""Context: features of class probabilities, which tell a stage of a cascade what the one before it saw around a pixel.

Of two classes the second one's probability is a grey image, described as :class:`dconv.AtrousFeatures` does, with the
neighbours of every level besides, and those of two levels more if it is to see far: what lies 32 and 64 pixels away. Of
more classes there would be too many features: every class has its probability, three smooth levels of it, and the
neighbours at two distances, or three.

Nothing is learnt and nothing is refused: an image smaller than the largest dilation is continued as often as it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from dconv import _memory
from dconv._bank import Bank, PlanePlan, widest
from dconv._boxes import sizes
from dconv._feature_groups import Planes, available_groups
from dconv._kernels import _cascade
from dconv._pixels import Block
from dconv._receptive import Margin
from dconv._stencils import Place, stencils

_GROUPS = ("level", "gradient", "hessian", "curvature", "std", "extrema", "lines")  # those that the rank has

_Numbers = dict[int, tuple[int, ...]]  # of levels, by number of axes; level `s` has been smoothed `s` times

# By number of axes: in 3-D a block with a halo of 100 pixels takes a hundred times the work of the block.
_N_LEVELS = {1: 5, 2: 5, 3: 3}


def _neighbours(ndim: int) -> np.ndarray:
    """Return the steps to the neighbours of a pixel, (n, 3); in 3-D to those that share a face: 26 are too many."""
    steps = stencils(ndim).neighbours
    return steps if ndim < 3 else steps[np.abs(steps).sum(axis=1) == 1]


class _PairBank(Bank):
    """The bank for two classes, whose one plane has the neighbours at each level behind its features.

    They are copied: as filters of one tap they would take several times as long as all other features.
    """

    __slots__ = ()

    def feature_table(self) -> list[tuple[str, str, str, str]]:
        names = [f"neighbour_{index}" for index in range(len(_neighbours(self.ndim)))]
        scales = [f"{self._scale_letter}{2**index}" for index in range(self.n_levels)]
        more = [(self.planes[0].name, "neighbours", scale, name) for scale in scales for name in names]
        return super().feature_table() + more

    def _looked_at(self, plane_index: int, index: int) -> list[Margin]:
        beside = [tuple((step, step) for step in self._filter_dilation(index))] if index < self.n_levels else []
        return super()._looked_at(plane_index, index) + beside

    def _add_features(
        self,
        pyramids: list[list[Planes]],
        program: _cascade.Program,
        start: Place,
        stop: Place,
        cpu_level: str | None,
    ) -> None:
        super()._add_features(pyramids, program, start, stop, cpu_level)
        steps = _neighbours(self.ndim)
        done = self.n_features - self.n_levels * len(steps)
        for index in range(self.n_levels):
            apart = np.ones(3, int)
            apart[3 - self.ndim :] = self._filter_dilation(index)  # at least 1: a pixel is no neighbour of itself
            for step in (steps * apart).tolist():
                window = pyramids[0][index].at(tuple(a + b for a, b in zip(start, step, strict=True)))
                program.copy(window, 1, done)
                done += 1


class _ClassBank(Bank):
    """The bank for more than two classes. A plane is the probability of one of them."""

    __slots__ = ()

    taken: ClassVar[_Numbers] = {1: (0, 2, 4, 6), 2: (0, 2, 4, 6), 3: (0, 1, 2, 3)}  # as they are
    looked_around: ClassVar[_Numbers] = {1: (3, 5), 2: (3, 5), 3: (2, 3)}  # neighbours at the level's dilation

    def feature_names(self) -> list[str]:
        parts = [f"level_{level}" for level in self.taken[self.ndim]]
        neighbours = range(len(_neighbours(self.ndim)))
        parts += [f"level_{level}_neighbour_{index}" for level in self.looked_around[self.ndim] for index in neighbours]
        return [f"{plane.name}_{part}" for plane in self.planes for part in parts]

    def _looked_at(self, plane_index: int, index: int) -> list[Margin]:
        reach = 1 if index in self.looked_around[self.ndim] else 0
        return [tuple((reach * step, reach * step) for step in self.steps(index))]

    def _add_features(
        self,
        pyramids: list[list[Planes]],
        program: _cascade.Program,
        start: Place,
        stop: Place,
        cpu_level: str | None,
    ) -> None:
        for index, window in enumerate(self._windows(pyramids, start)):
            program.copy(window, 1, index)

    def _windows(self, pyramids: list[list[Planes]], start: Place) -> Iterator[_cascade.Window]:
        """Yield the planes of all features over a strip."""
        for levels in pyramids:
            for level in self.taken[self.ndim]:
                yield levels[level].at(start)
            for level in self.looked_around[self.ndim]:
                for step in (_neighbours(self.ndim) * self._scale(level).array).tolist():
                    yield levels[level].at(tuple(a + b for a, b in zip(start, step, strict=True)))


class _WideClassBank(_ClassBank):
    """The same, seeing farther."""

    __slots__ = ()

    looked_around: ClassVar[_Numbers] = {1: (3, 5, 6), 2: (3, 5, 6), 3: (2, 3)}


class _FarBank(_ClassBank):
    """What lies far away, of two classes. The plane is the probability of the second."""

    __slots__ = ()

    taken: ClassVar[_Numbers] = {1: (6,), 2: (6,)}
    looked_around: ClassVar[_Numbers] = {1: (5, 6), 2: (5, 6)}


class ContextFeatures:
    """A fitted block transformer, as :mod:`dconv._block_features` describes it, of images of class probabilities.

    `spacing` is that of pixels in units of the finest, None if they are alike along all axes. Without `far` a block
    sees half as much around it, which counts where features are computed for all of that.
    """

    def __init__(
        self, ndim: int, n_classes: int, spacing: tuple[float, ...] | None = None, *, far: bool = True
    ) -> None:
        self.n_classes = n_classes
        self._banks: tuple[Bank, ...]
        if n_classes == 2:
            groups = tuple(name for name in _GROUPS if name in available_groups(ndim))
            plane = PlanePlan("probability", (0.0, 1.0), groups)
            self._banks = (_PairBank(ndim, _N_LEVELS[ndim], (plane,), None, "reflect", spacing=spacing),)
            if far and ndim in _FarBank.taken:
                plane = plane._replace(groups=())
                n_levels = _FarBank.taken[ndim][-1]
                self._banks += (_FarBank(ndim, n_levels, (plane,), None, "reflect", spacing=spacing),)
        else:
            one_hot = np.eye(n_classes).tolist()
            planes = tuple(PlanePlan(f"class_{index}", tuple(row), ()) for index, row in enumerate(one_hot))
            kind = _WideClassBank if far else _ClassBank
            self._banks = (kind(ndim, kind.taken[ndim][-1], planes, None, "reflect", spacing=spacing),)
        self.halo_ = widest([bank.halo() for bank in self._banks])
        self.n_features_out_ = sum(bank.n_features for bank in self._banks)

    def feature_names(self) -> list[str]:
        """Return the name of every feature."""
        return [name for bank in self._banks for name in bank.feature_names()]

    def fill(self, probabilities: np.ndarray, block: Block, out: np.ndarray) -> None:
        """Write the context of the pixels of `block` to `out` (*block, n_features_out_)."""
        done = 0
        for bank in self._banks:
            bank.fill(probabilities, block, out[..., done : done + bank.n_features])
            done += bank.n_features

    def bands(self, probabilities: np.ndarray, block: Block) -> Iterator[tuple[Block, np.ndarray]]:
        """Yield parts of `block` in order along the first axis, each with its context, or the block as a whole; the
        next may overwrite one.
        """
        if len(self._banks) > 1 or len(block) == 3:  # in 3-D they are cut along two axes
            yield block, self._transform_block(probabilities, block)
        else:
            yield from self._banks[0].bands(probabilities, block)

    def _transform_block(self, probabilities: np.ndarray, block: Block) -> np.ndarray:
        out = _memory.empty((*sizes(block), self.n_features_out_), np.dtype(np.float32))
        self.fill(probabilities, block, out)
        return out
