"""Labelled pixels as a person would give them: simulated strokes, or pixels drawn at random from full labels."""

from __future__ import annotations

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
from scipy import ndimage
from segmentation_sets import VOID

N_STROKES, LENGTH = 3, 40  # per class; pixels
TRIES = 8  # a stroke that gets stuck in a corner is begun anew
TURNS = np.deg2rad([0, 15, -15, 30, -30, 45, -45, 60, -60])  # what a hand can turn from one pixel to the next
REACH = LENGTH + 5  # farther than a stroke gets from its start, with room to measure distances
SAFE = 2.0  # pixels from the border of a region, where a hand need not steer


def draw_pixels(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return VOID everywhere but at `n` pixels of each class (all, if they are fewer), which keep their labels."""
    drawn = np.full_like(labels, VOID)
    for label in np.unique(labels[labels != VOID]):
        candidates = np.flatnonzero(labels == label)
        chosen = rng.choice(candidates, min(n, len(candidates)), replace=False)
        drawn.flat[chosen] = label
    return drawn


def draw_strokes(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two label images: VOID but for N_STROKES strokes of each class; and of each of their pixels the number of
    the stroke within its class, elsewhere -1. In a volume every stroke lies in the section of a voxel drawn at random.
    """
    drawn = np.full_like(labels, VOID)
    number = np.full(labels.shape, -1)
    for label in np.unique(labels[labels != VOID]):
        for stroke in range(N_STROKES):
            free = (labels == label) & (number < 0)
            if not free.any():
                break  # a tiny region is all painted
            section = () if labels.ndim == 2 else (rng.choice(np.argwhere(free))[0],)
            brush = _stroke(free[section], rng)
            drawn[section][brush] = label
            number[section][brush] = stroke
    return drawn, number


def _stroke(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the mask of one stroke within `region`, two pixels wide: the first long enough, or the longest."""
    starts, longest = np.flatnonzero(region), np.empty((0, 2))
    for _ in range(TRIES):
        start, heading = np.unravel_index(rng.choice(starts), region.shape), rng.uniform(0, 2 * np.pi)
        window = tuple(slice(max(at - REACH, 0), at + REACH) for at in start)  # of large images all else is no matter
        corner = np.array([part.start for part in window])
        # Outside the image is not outside the region: a hand may paint along the border of an image.
        depth = np.minimum(ndimage.distance_transform_edt(region[window]), SAFE)
        at = (start - corner).astype(float)
        ahead = _walk(depth, at, heading, LENGTH // 2, rng)
        behind = _walk(depth, at, heading + np.pi, LENGTH - 1 - len(ahead), rng)
        points = corner + np.concatenate([behind[::-1], [at], ahead])
        longest = max(longest, points, key=len)
        if len(longest) >= LENGTH:
            break
    mask = np.zeros(region.shape, bool)
    corners = np.floor(longest[:, None] + [[0, 0], [0, 1], [1, 0], [1, 1]]).astype(int).reshape(-1, 2)
    inside = np.all((corners >= 0) & (corners < region.shape), axis=1)
    mask[tuple(corners[inside].T)] = True
    return mask & region


def _walk(depth: np.ndarray, start: np.ndarray, heading: float, n_steps: int, rng: np.random.Generator) -> np.ndarray:
    """Return up to `n_steps` points, one pixel apart, of a curve that bends at random and keeps off the border."""
    points, at, bend = [], start, 0.0
    for _ in range(n_steps):
        bend = 0.9 * bend + rng.normal(scale=0.05)
        headings = heading + bend + TURNS
        nexts = at + np.stack([np.sin(headings), np.cos(headings)], axis=1)
        rows, columns = np.rint(nexts).astype(int).T
        within = (rows >= 0) & (rows < depth.shape[0]) & (columns >= 0) & (columns < depth.shape[1])
        reached = np.where(within, depth[rows * within, columns * within], 0)
        if not reached.any():
            break
        best = np.argmax(np.where(reached > 0, reached - 0.5 * np.abs(TURNS), -np.inf))
        heading, at = headings[best], nexts[best]
        points.append(at)
    return np.array(points).reshape(-1, 2)
