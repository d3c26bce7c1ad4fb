"""Which samples the windows of a convolution read along an axis: what its matrix and its columns are made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dconv._blocks import border_index
from dconv._conv_plan import Axis


def samples_read(axis: Axis, padding_mode: str, windows: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Return which sample each window reads at each of its positions, of shape (windows, positions); -1 is a zero.

    `axis` is one of a convolution, not of a transposed one; `windows` are some of its outputs, None is all of them.
    """
    (phase,) = axis.phases
    windows = np.arange(axis.out_size) if windows is None else windows
    place = phase.low + axis.in_step * windows[:, np.newaxis] + axis.spacing * np.arange(len(phase.taps))
    return border_index(axis.size, place, padding_mode)
