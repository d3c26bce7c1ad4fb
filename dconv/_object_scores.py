"""Objects of two label images, matched by how far they overlap."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array


def overlaps(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return the intersection over union of all pairs that overlap, and how many objects there are on either side.

    Objects are the values other than 0.
    """
    (n_true, true), (n_predicted, predicted) = map(_numbered, (true, predicted))
    both = (true > 0) & (predicted > 0)
    ones = np.ones(np.count_nonzero(both), np.int64)
    shape = (n_true + 1, n_predicted + 1)
    pairs = coo_array((ones, (true[both], predicted[both])), shape=shape).tocsr().tocoo()
    areas = np.bincount(true, minlength=shape[0]), np.bincount(predicted, minlength=shape[1])
    row, column = pairs.coords
    return pairs.data / (areas[0][row] + areas[1][column] - pairs.data), n_true, n_predicted


def _numbered(labels: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of objects, and labels, flat, that count them from 1."""
    objects = labels.ravel() != 0
    numbers, found = np.unique(labels.ravel()[objects], return_inverse=True)
    dense = np.zeros(labels.size, np.int64)
    dense[objects] = found + 1
    return len(numbers), dense
