"""What a pixel classifier is fitted from, once its images have been checked, and what comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dconv._distillation import Agreement, Practice
from dconv._lesson import Lesson
from dconv._responses import Respond, Responder


class Course(NamedTuple):
    """All that the classifier of a stage is fitted from."""

    lesson: Lesson
    features: Any  # fitted
    rows: np.ndarray  # its features of the pixels of the lesson
    channel_axis: int | None
    classifier: Any  # not fitted
    practice: Practice | None  # of students, if they are wanted
    random_state: np.random.RandomState
    n_jobs: int


class Stage(NamedTuple):
    """A fitted classifier, the student that answers in its place or None, how far that agrees with it, and what
    computes the features that the student sees, if these are not the classifier's.
    """

    classifier: Any
    student: Any = None
    agreement: Agreement | None = None
    features: Any = None

    def responder(self, method: str, exact: bool) -> Respond:
        """Return what answers for rows of pixels: the classifier, or its student."""
        return Responder(self.classifier if exact or self.student is None else self.student, method)
