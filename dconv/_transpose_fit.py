"""The weights with which a transposed convolution turns images into others, by ridge regression.

An output is linear in the weights of the few taps that reach it. Outputs of the same taps, on each axis a
:class:`Group`, are worked on together: a phase is one, and near a border that is not zeros there are more, as outputs
there also get what was meant for places beyond it. The normal equations are added up image by image and block by block,
so memory does not grow with the number of images. Where no output ties phases to each other they are solved one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from dconv import shapes
from dconv._blocks import border_index, choose_block_shape, split

MAX_WEIGHTS = 1 << 14  # for one channel of the result; their normal equations take 2 GiB
_BLOCK = 1 << 21  # numbers in the rows that are worked on at once


class Layout(NamedTuple):
    """A transposed convolution without its weights, in the words of :func:`dconv.shapes.conv_transpose_shape`."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of the result for an image of `size`."""
        return shapes.conv_transpose_shape(size, **self._asdict())

    def largest_output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size that the largest `output_padding` gives."""
        if isinstance(self.padding, str) and self.padding == "same":
            return self.output_size(size)
        spare = tuple(max(pair) - 1 for pair in zip(self.stride, self.dilation, strict=True))
        return self._replace(output_padding=spare).output_size(size)


class Group(NamedTuple):
    """Outputs of one axis that get something from the same taps."""

    outputs: NDArray[np.intp]  # (outputs,)
    taps: NDArray[np.intp]  # (taps,)
    samples: NDArray[np.intp]  # (outputs, places, taps): tap k gives an output the sum of these samples; `size` is none


class NormalEquations:
    """What is added up over images: the products of what the weights are multiplied with, and those with outputs."""

    def __init__(self, layout: Layout, padding_mode: str, n_channels: int, n_outputs: int) -> None:
        self._layout, self._mode = layout, padding_mode
        self._n_weights = (*layout.kernel_size, n_channels)
        total = math.prod(self._n_weights)
        self._gram = np.zeros((total, total))
        self._moments = np.zeros((total, n_outputs))

    def add(self, x: NDArray, y: NDArray) -> None:
        """Add one image `x` (*spatial, channels), that is to become `y` (*outputs, channels)."""
        # A sample after the last of each axis is the zero that taps read beyond the border.
        extended = np.pad(x.astype(np.float64), [(0, 1)] * (x.ndim - 1) + [(0, 0)])
        kernel, stride, padding, _, dilation = self._layout
        pads = shapes.normalize_padding(padding, kernel, dilation, stride, y.shape[:-1])
        axes = [
            list(_groups(n, n_outputs, k, step, d, pair, self._mode))
            for n, n_outputs, k, step, d, pair in zip(
                x.shape[:-1], y.shape[:-1], kernel, stride, dilation, pads, strict=True
            )
        ]
        places = np.arange(len(self._gram)).reshape(self._n_weights)
        for groups in itertools.product(*axes):
            weights = places[np.ix_(*[group.taps for group in groups])].ravel()
            sizes = [len(group.outputs) for group in groups]
            n_places = math.prod(group.samples.shape[1] for group in groups)
            for block in split(sizes, choose_block_shape(sizes, max(1, _BLOCK // (len(weights) * n_places)))):
                rows = _rows(extended, [group.samples[part] for group, part in zip(groups, block, strict=True)])
                targets = y[np.ix_(*[group.outputs[part] for group, part in zip(groups, block, strict=True)])]
                self._gram[np.ix_(weights, weights)] += rows.T @ rows
                self._moments[weights] += rows.T @ targets.reshape(len(rows), -1)

    def solve(self, alpha: float) -> NDArray[np.float64]:
        """Return the weights, (n_channels, *kernel, n_outputs), with the least ``error**2 + alpha * weights**2``.

        Of the weights that images say nothing about, which without `alpha` are undetermined, the smallest are taken.
        """
        weights = np.zeros_like(self._moments)
        n_parts, parts = connected_components(self._gram != 0, directed=False)
        for part in range(n_parts):
            mine = np.flatnonzero(parts == part)
            values, vectors = np.linalg.eigh(self._gram[np.ix_(mine, mine)])
            # Below this an eigenvalue is the rounding of what was added up.
            certain = values > len(mine) * np.finfo(np.float64).eps * values[-1]
            vectors = vectors[:, certain]
            weights[mine] = vectors @ ((vectors.T @ self._moments[mine]) / (values[certain] + alpha)[:, np.newaxis])
        return np.moveaxis(weights.reshape(*self._n_weights, -1), -2, 0)


def _groups(
    size: int, n_outputs: int, kernel_size: int, stride: int, dilation: int, pads: tuple[int, int], mode: str
) -> Iterator[Group]:
    """Yield the groups of one axis; every output that gets anything is in one of them.

    An output gets what the transposed convolution adds at its own place, and at those places beyond the border that
    `mode` copies it to. At place p, tap k gives sample ``(p + left - k * dilation) / stride`` where that is whole.
    """
    left, right = pads
    places = np.arange(-left, n_outputs + right)
    owners = border_index(n_outputs, places, mode)
    places, owners = places[owners >= 0], owners[owners >= 0]
    places = places[np.argsort(owners, kind="stable")]
    counts = np.bincount(owners, minlength=n_outputs)
    firsts = np.cumsum(counts) - counts
    for count in np.unique(counts):
        outputs = np.flatnonzero(counts == count)
        own = places[firsts[outputs, np.newaxis] + np.arange(count)]
        distances = own[..., np.newaxis] + left - np.arange(kernel_size) * dilation
        whole = distances % stride == 0
        samples = distances // stride
        samples = np.where(whole & (samples >= 0) & (samples < size), samples, size)
        patterns, numbers = np.unique(whole.any(axis=1), axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            mine = np.flatnonzero(numbers.ravel() == number)
            taps = np.flatnonzero(pattern)
            if taps.size:
                yield Group(outputs[mine], taps, samples[np.ix_(mine, np.arange(count), taps)])


def _rows(extended: NDArray[np.float64], samples: Sequence[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Return what the weights of some outputs are multiplied with: (outputs, taps * channels), both over all axes."""
    ndim = len(samples)
    read = extended[np.ix_(*[each.ravel() for each in samples])]
    read = read.reshape(*itertools.chain.from_iterable(each.shape for each in samples), -1)
    summed = read.sum(axis=tuple(range(1, 3 * ndim, 3)))  # over places: (outputs, taps) of each axis, channels
    turned = summed.transpose(*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2), 2 * ndim)
    return turned.reshape(math.prod(len(each) for each in samples), -1)
