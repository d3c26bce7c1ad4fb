"""Context: features of class probabilities, which tell a stage of a cascade what the one before it saw around a pixel.

Of two classes the second one's probability is a grey image, described as :class:`dconv.AtrousFeatures` does, with the
neighbours of every level besides. Of more there would be too many features: every class has its probability, three
smooth levels of it, and the neighbours at two distances.

Nothing is learnt and nothing is refused: an image smaller than the largest dilation is continued as often as it takes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dconv import _memory
from dconv._bank import Bank, PlanePlan, widest
from dconv._feature_groups import SMOOTHING_RADIUS, Place, Planes, available_groups, stencils
from dconv._pixels import Block
from dconv._receptive import Margin
from dconv.filters import FilterBank, filter_bank

_GROUPS = ("level", "gradient", "hessian", "std", "extrema", "lines")
_N_LEVELS = 5
_LEVELS = (0, 2, 4, 6)  # of more than two classes: level `s` has been smoothed `s` times
_NEIGHBOUR_LEVELS = (3, 5)  # the neighbours are taken from, at the distance of the level's dilation


def _neighbours(ndim: int) -> np.ndarray:
    """Return the steps to the neighbours of a pixel, (n, 3); in 3-D to those that share a face: 26 are too many."""
    steps = stencils(ndim).neighbours
    return steps if ndim < 3 else steps[np.abs(steps).sum(axis=1) == 1]


def _neighbour_filters(ndim: int) -> FilterBank:
    """Return filters of one tap, the neighbours at the dilation that filters are applied at."""
    steps = _neighbours(ndim)[:, 3 - ndim :]
    weight = np.zeros((len(steps), *(3,) * ndim, 1), np.float32)
    for index, step in enumerate(steps):
        weight[(index, *(step + 1), 0)] = 1
    return filter_bank(weight, [f"neighbour_{index}" for index in range(len(steps))])


class _ClassBank(Bank):
    """The bank for more than two classes. A plane is the probability of one of them."""

    __slots__ = ()

    def feature_names(self) -> list[str]:
        parts = [f"level_{level}" for level in _LEVELS]
        parts += [f"level_{level}_neighbour_{i}" for level in _NEIGHBOUR_LEVELS for i in range(len(self._steps))]
        return [f"{plane.name}_{part}" for plane in self.planes for part in parts]

    @property
    def _steps(self) -> np.ndarray:
        return _neighbours(self.ndim)

    def _level_margins(self, plane_index: int) -> list[Margin]:
        margins: list[Margin] = [((0, 0),) * self.ndim]  # of the last level, then of those it is made from
        for level in reversed(range(self.n_levels)):
            radius = SMOOTHING_RADIUS * 2**level
            wanted = [tuple((left + radius, right + radius) for left, right in margins[0])]
            if level in _NEIGHBOUR_LEVELS:
                wanted.append(((2**level, 2**level),) * self.ndim)
            margins.insert(0, widest(wanted))
        return margins

    def _fill_planes(
        self, pyramids: list[list[Planes]], features: Planes, scratch: np.ndarray, cpu_level: str | None
    ) -> None:
        for plane, written in zip(self._views(pyramids, features.start, features.stop), features.data, strict=True):
            written[...] = plane

    def _views(self, pyramids: list[list[Planes]], start: Place, stop: Place) -> Iterator[np.ndarray]:
        """Yield the planes of all features over a band."""
        for levels in pyramids:
            for level in _LEVELS:
                yield levels[level].over(start, stop)[0]
            for level in _NEIGHBOUR_LEVELS:
                for step in self._steps * 2**level:
                    low, high = (tuple(int(a + b) for a, b in zip(place, step, strict=True)) for place in (start, stop))
                    yield levels[level].over(low, high)[0]


class ContextFeatures:
    """A fitted block transformer, as :mod:`dconv._block_features` describes it, of images of class probabilities."""

    def __init__(self, ndim: int, n_classes: int) -> None:
        self.n_classes = n_classes
        if n_classes == 2:
            groups = tuple(name for name in _GROUPS if name in available_groups(ndim))
            plane = PlanePlan("probability", (0.0, 1.0), groups)
            self._bank = Bank(ndim, _N_LEVELS, (plane,), _neighbour_filters(ndim), "reflect")
        else:
            one_hot = np.eye(n_classes).tolist()
            planes = tuple(PlanePlan(f"class_{index}", tuple(row), ()) for index, row in enumerate(one_hot))
            self._bank = _ClassBank(ndim, max(_LEVELS), planes, None, "reflect")
        self.halo_ = self._bank.halo()
        self.n_features_out_ = self._bank.n_features

    def fill(self, probabilities: np.ndarray, block: Block, out: np.ndarray) -> None:
        """Write the context of the pixels of `block` to `out` (*block, n_features_out_)."""
        self._bank.fill(probabilities, block, out)

    def _transform_block(self, probabilities: np.ndarray, block: Block) -> np.ndarray:
        shape = tuple(part.stop - part.start for part in block)
        out = _memory.empty((*shape, self.n_features_out_), np.dtype(np.float32))
        self.fill(probabilities, block, out)
        return out
