"""Which pixels to ask a person about: peaks of a map, far from each other."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max

_SCATTER = 1e-3  # relative to a value
_SIGMA = 2.0  # pixels: a person labels a spot, and a single odd pixel tells little


def spread_peaks(values: np.ndarray, n: int) -> np.ndarray:
    """Return up to `n` places of peaks of `values`, the highest first; NaN is no place.

    Peaks are looked for so far apart that `n` would fill the image, and closer as long as there are fewer.
    """
    known = np.isfinite(values)
    smooth = ndimage.gaussian_filter(np.where(known, values, 0).astype(np.float32), _SIGMA)
    # Plateaus have no peaks of their own: what is too little to matter makes some, scattered over them.
    smooth *= 1 + _SCATTER * np.random.default_rng(0).random(values.shape, np.float32)
    smooth[~known] = 0
    distance = max(1, int((values.size / n) ** (1 / values.ndim) / 1.5))
    while True:
        # Strictly above 0: of an image that is sure everywhere there is nothing to ask.
        peaks = peak_local_max(smooth, min_distance=distance, threshold_abs=1e-6, exclude_border=False, labels=known)
        if len(peaks) >= n or distance == 1:
            return _spread(peaks, smooth[tuple(peaks.T)], n)
        distance //= 2


def _spread(peaks: np.ndarray, heights: np.ndarray, n: int) -> np.ndarray:
    """Return up to `n` peaks, the highest first; of such as are alike those far from what was chosen already."""
    chosen: list[np.ndarray] = []
    left = np.ones(len(peaks), bool)
    while left.any() and len(chosen) < n:
        alike = np.flatnonzero(left & (heights >= heights[left].max() * (1 - 2 * _SCATTER)))
        gaps = [min((float(np.linalg.norm(peaks[i] - other)) for other in chosen), default=0.0) for i in alike]
        best = alike[int(np.argmax(gaps))]
        chosen.append(peaks[best])
        left[best] = False
    return np.array(chosen, np.intp).reshape(-1, peaks.shape[1])
