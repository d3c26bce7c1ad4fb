"""What is said of held-out pixels: for each fold a model that was fitted on the others answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.base import clone

from dconv._folds import Folds
from dconv._held_out_features import HeldOutFeatures
from dconv._pixels import Block
from dconv._responses import Respond, Responder
from dconv._stages import Course

_LEAST = 1e-6  # probability: one pixel for which a model is sure and wrong must not outweigh all others


class HeldOut:
    """Copies of the classifier of `course`, each fitted on the `rows` of all folds but its own, or if there are
    `features`, on what their copy of its fold makes of these pixels.
    """

    def __init__(self, course: Course, rows: np.ndarray, folds: Folds, features: HeldOutFeatures | None = None) -> None:
        lesson = course.lesson
        self._folds = folds
        self._responds: list[Respond] = []
        for fold in range(folds.n_folds):
            learnt = folds.of_pixel != fold
            model = clone(course.classifier)
            lesson.teach(model, rows if features is None else features.rows_of(fold), learnt)
            self._responds.append(Responder(model, "predict_proba"))

    def answer(self, index: int, block: Block) -> Iterable[tuple[Any, Respond]]:
        """Return who answers for the pixels of a block of an image, as in :mod:`dconv._cascade_answers`."""
        fold = self._folds.of_block(index, block)
        present = np.unique(fold)
        if len(present) == 1:
            return [(..., self._responds[present[0]])]
        return [(fold == each, self._responds[each]) for each in present]

    def log_loss(self, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> float:
        """Return the mean negative logarithm of the probability of the right class, in nats, as models see `rows`."""
        classes = np.unique(targets, return_inverse=True)[1]
        losses = np.empty(len(rows))
        for fold, respond in enumerate(self._responds):
            known = np.flatnonzero(self._folds.of_pixel == fold)
            right = respond(rows[known])[np.arange(len(known)), classes[known]]
            losses[known] = -np.log(np.maximum(right, _LEAST))
        return float(np.average(losses, weights=weights))
