"""Scores of answers, and their paired comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
from scipy.stats import wilcoxon
from sklearn.metrics import average_precision_score


def average_precision(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the exact average precision of all pixels, NaN where there is no positive one."""
    return float(average_precision_score(truth, probability)) if truth.any() else float("nan")


def binary_iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the intersection over union of the positive class, NaN where it is nowhere."""
    union = np.count_nonzero(truth | predicted)
    return np.count_nonzero(truth & predicted) / union if union else float("nan")


def best_threshold(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold `t` of the largest IoU of ``probability >= t``: halfway between two of the values."""
    order = np.argsort(-probability, kind="stable")
    values, truth = probability[order], truth[order]
    hits, chosen = np.cumsum(truth), np.arange(1, len(truth) + 1)
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # equal values fall on one side together
    iou = hits[ends] / (hits[-1] + chosen[ends] - hits[ends])
    best = ends[np.argmax(iou)]
    below = values[best + 1] if best + 1 < len(values) else values[best]
    return float((float(values[best]) + float(below)) / 2)


def calibration_error(sure: np.ndarray, right: np.ndarray, n_bins: int = 15) -> float:
    """Return the expected calibration error: how far the share of right answers is from the probability, on average.

    Pixels are cut into bins of equal width by the probability of the answer.

    Reference: M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015.
    """
    bins = np.minimum((sure * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, right, n_bins) - np.bincount(bins, sure, n_bins)
    return float(np.abs(gaps).sum() / len(sure))


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: list[int]) -> np.ndarray:
    """Return the number of pixels by true class (row) and predicted class (column)."""
    row, column = np.searchsorted(classes, truth), np.searchsorted(classes, predicted)
    n = len(classes)
    return np.bincount(row * n + column, minlength=n * n).reshape(n, n)


def class_scores(confusion: np.ndarray) -> dict[str, float]:
    """Return mean IoU and class average accuracy, over the classes that the truth has, and global accuracy."""
    right, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    present = true > 0
    return {
        "mean IoU": float(np.mean((right / np.maximum(true + predicted - right, 1))[present])),
        "class accuracy": float(np.mean(right[present] / true[present])),
        "accuracy": float(right.sum() / true.sum()),
    }


class Comparison(NamedTuple):
    """Scores of the same images, one side against the other."""

    difference: float  # the mean, positive where "ours" are higher
    wins: int
    n: int
    p: float  # of Wilcoxon's signed-rank test

    def __str__(self) -> str:
        return f"{self.difference:+.3f} ({self.wins}/{self.n}, p {self.p:.2g})"


def compare(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Comparison | None:
    """Return the comparison over images that both have a score of, None if there are none."""
    common = [name for name in ours if name in theirs and np.isfinite(ours[name]) and np.isfinite(theirs[name])]
    if not common:
        return None
    differences = np.array([ours[name] - theirs[name] for name in common])
    p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return Comparison(float(differences.mean()), int((differences > 0).sum()), len(common), p)
