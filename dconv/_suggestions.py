"""Which pixels to ask a person about: peaks of a map, far from each other."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max

_SIGMA = 2.0  # pixels: a person labels a spot, and a single odd pixel tells little


def spread_peaks(values: np.ndarray, n: int) -> np.ndarray:
    """Return up to `n` places of peaks of `values`, the highest first; NaN is no place.

    Peaks are looked for so far apart that `n` would fill the image, and closer as long as there are fewer.
    """
    known = np.isfinite(values)
    smooth = ndimage.gaussian_filter(np.where(known, values, 0).astype(np.float32), _SIGMA)
    smooth[~known] = 0
    distance = max(1, int((values.size / n) ** (1 / values.ndim) / 1.5))
    while True:
        # Strictly above 0: of an image that is sure everywhere there is nothing to ask.
        peaks = peak_local_max(
            smooth, min_distance=distance, threshold_abs=1e-6, num_peaks=n, exclude_border=False, labels=known
        )
        if len(peaks) >= n or distance == 1:
            return peaks
        distance //= 2
