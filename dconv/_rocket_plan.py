"""What MiniRocket computes, from sizes and a random state alone: kernels, dilations, channels, quantiles."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState

from dconv._kernels import _rocket
from dconv.filters import two_valued

N_KERNELS = 84
_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


class Taps(NamedTuple):
    """Where the nine taps lie, and which three of them are 2, as the kernels of `_rocket` read it.

    Attributes
    ----------
    least : ndarray of shape (2,)
        int64: rows and columns of a kernel.
    places : ndarray of shape (9, 2)
        Row and column of each tap, from the middle one.
    kernels : ndarray of shape (84, 3)
        Numbers of the taps that are 2.
    names : tuple of str
        Of the kernels.
    """

    least: np.ndarray
    places: np.ndarray
    kernels: np.ndarray
    names: tuple[str, ...]


class Channels(NamedTuple):
    """Which channels each kernel sees at each dilation.

    Attributes
    ----------
    numbers : ndarray of shape (total,)
        Channels, those of one kernel after those of another.
    first : ndarray of shape (n_dilations * 84 + 1,)
        Where those of each begin; ordered by dilation, then kernel.
    """

    numbers: np.ndarray
    first: np.ndarray


@functools.cache
def make_taps(ndim: int) -> Taps:
    """Return the taps of series (`ndim` 1), in a line, or of images (2), in a square."""
    bank = two_valued(ndim=ndim)
    size = (1,) * (2 - ndim) + bank.kernel_size
    places = np.stack([axis.ravel() - n // 2 for axis, n in zip(np.indices(size), size, strict=True)], axis=1)
    kernels = np.nonzero(bank.weight.reshape(N_KERNELS, -1) > 0)[1].reshape(N_KERNELS, -1)
    # Taps are added up in their order, here with the middle one first: so others round, too.
    order = np.array([4, 0, 1, 2, 3, 5, 6, 7, 8])
    places, kernels = places[order], np.argsort(order)[kernels]
    places, kernels = (array.astype(np.intp, order="C") for array in (places, kernels))
    taps = Taps(np.array(size, np.int64), places, kernels, bank.names)
    for array in taps[:3]:
        array.flags.writeable = False
    return taps


def spread_dilations(
    sizes: np.ndarray, least: np.ndarray, features_per_kernel: int, max_dilations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return dilations, and how many features every kernel has at each of them.

    Dilations are spread evenly over exponents, from 1 to the largest at which a kernel fits into the largest of images
    with these `sizes` (n, 2). Those that round to the same number share its features, and what does not divide goes to
    the smallest dilations.
    """
    taps = least - 1  # an axis of one pixel, that of the rows of series, sets no limit
    along = taps > 0
    largest = max(1.0, float(((np.maximum(sizes, least)[:, along] - 1) / taps[along]).min(axis=1).max()))
    n_exponents = min(features_per_kernel, max_dilations)
    exponents = np.linspace(0, math.log2(largest), n_exponents)
    dilations, counts = np.unique((2**exponents).astype(np.intp), return_counts=True)
    counts = counts * features_per_kernel // n_exponents
    rounds, rest = divmod(features_per_kernel - int(counts.sum()), len(counts))
    counts += rounds + (np.arange(len(counts)) < rest)
    return dilations, counts


def quantile_levels(n: int) -> np.ndarray:
    """Return `n` numbers between 0 and 1, of which any in a row are spread evenly: multiples of the golden ratio."""
    return np.arange(1, n + 1) * _GOLDEN_RATIO % 1


def draw_channels(n_channels: int, n_combinations: int, random_state: RandomState) -> Channels:
    """Draw the channels of each kernel at each dilation; the logarithm of their number plus 1 is distributed evenly."""
    most = min(n_channels, _rocket.MOST_CHANNELS)
    if most == 1:
        return Channels(np.zeros(n_combinations, np.intp), np.arange(n_combinations + 1))
    numbers = (2 ** random_state.uniform(0, math.log2(most + 1), n_combinations)).astype(int)
    chosen = [random_state.choice(n_channels, number, replace=False) for number in numbers]
    return Channels(np.concatenate(chosen).astype(np.intp), np.concatenate([[0], np.cumsum(numbers)]).astype(np.intp))
