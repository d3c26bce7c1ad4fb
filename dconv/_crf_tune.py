"""A search for the parameters of a CRF on labelled images, which counts using none among the choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid

from dconv._crf_input import COLOR_SIGMA, as_pairs, color_sigma_of
from dconv._pixels import as_ignore_label
from dconv._validation import Images, as_array, as_axes, as_labels
from dconv.metrics import mean_iou_score

GRID = {
    "spatial_weight": [1, 3],
    "appearance_weight": [3, 10],
    "appearance_sigma": [20, 80],
    "color_sigma": [5, 13, 30],  # of images of 8 bits
}


class Tuning(NamedTuple):
    """What :meth:`dconv.DenseCRF.tune` found.

    Attributes
    ----------
    crf : DenseCRF
        The best one. Its weights are 0, so that it leaves probabilities as they are, if no CRF at all was best.
    score : float
        Its mean intersection over union.
    score_without : float
        That of the probabilities as they came.
    results : list of (dict, float)
        All parameters tried, with their scores, best first.
    """

    crf: Any
    score: float
    score_without: float
    results: list[tuple[dict[str, Any], float]]


def tune(
    crf: BaseEstimator,
    images: Any,
    probabilities: Any,
    labels: Any,
    classes: Any,
    ignore_label: Any,
    param_grid: Mapping[str, Sequence] | Sequence[Mapping[str, Sequence]] | None,
) -> Tuning:
    """Return the best of a grid, and of no CRF; arguments as in :meth:`dconv.DenseCRF.tune`."""
    ignored = as_ignore_label(ignore_label)
    kind, pairs = as_pairs(images, probabilities, *as_axes(crf.ndim, crf.channel_axis), "probabilities")
    arrays = [pair.values for pair in pairs]
    maps = as_labels(labels, Images(arrays, kind), "labels")
    names = _classes(classes, maps, ignored, arrays[0].shape[-1])

    def score(refined: Any) -> float:
        several = [refined] if kind == "image" else refined
        predicted = [names[each.argmax(axis=-1)] for each in several]
        return float(mean_iou_score(maps, predicted, ignore_label=ignored))

    without = score(arrays[0] if kind == "image" else arrays)
    results = []
    if param_grid is None:
        unit = color_sigma_of([pair.image for pair in pairs]) / COLOR_SIGMA
        param_grid = {**GRID, "color_sigma": [unit * width for width in GRID["color_sigma"]]}
    grid = ParameterGrid(param_grid)
    if not len(grid):
        raise ValueError(f"param_grid must hold parameters to try, got {param_grid!r:.60}; None tries 24")
    for parameters in grid:
        candidate = clone(crf).set_params(**parameters)
        results.append((dict(parameters), score(candidate.refine(images, probabilities))))
    results.sort(key=lambda result: -result[1])
    best, best_score = results[0]
    if best_score <= without:
        return Tuning(clone(crf).set_params(spatial_weight=0, appearance_weight=0), without, without, results)
    return Tuning(clone(crf).set_params(**best), best_score, without, results)


def _classes(classes: Any, maps: list[np.ndarray], ignored: int | None, n_classes: int) -> np.ndarray:
    """Return the label of each column of probabilities."""
    if classes is None:
        found = np.unique(np.concatenate([np.unique(each) for each in maps]))
        names = found[found != ignored] if ignored is not None else found
        where = f"labels holds the classes {names.tolist()}"
    else:
        names = as_array(classes, "classes")
        where = f"classes is {names.tolist()}"
    if names.shape != (n_classes,):
        raise ValueError(
            f"{where}, but probabilities has {n_classes} columns; pass classes, one label for each of them"
        )
    if len(np.unique(names)) < n_classes:
        raise ValueError(f"{where}, but every column of probabilities must have a label of its own")
    return names
