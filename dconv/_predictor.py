"""What a compiled classifier is: functions of tiles of pixels, float32 in and out, without the GIL."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np


class NotCompilable(TypeError):
    """There is no compiled form of a classifier; the message says why. Its own methods still answer.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from dconv.predictors import NotCompilable, compile_predictor
    >>> try:
    ...     compile_predictor(KNeighborsClassifier().fit([[0.0], [1.0]], [0, 1]))
    ... except NotCompilable as error:
    ...     print(error)
    predict_proba of KNeighborsClassifier cannot be compiled: there is no compiler for this class
    """


@runtime_checkable
class Predictor(Protocol):
    """A fitted classifier's `predict_proba` as a function of tiles.

    It works on the calling thread alone and releases the GIL in its loops; several threads may call it at once. The
    result of a row does not depend, by a bit, on the other rows of its tile.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classifier's.
    n_features_in_ : int
        Features of a row.

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from dconv import predictors
    >>> compiled = predictors.compile_predictor(GaussianNB().fit([[0.0], [1.0], [4.0], [5.0]], [0, 0, 1, 1]))
    >>> isinstance(compiled, predictors.Predictor)
    True
    """

    classes_: np.ndarray
    n_features_in_: int

    def predict_proba(self, tile: np.ndarray, out: np.ndarray) -> None:
        """Write the probabilities of the rows of `tile` to `out`.

        Parameters
        ----------
        tile : ndarray of float32 of shape (n_pixels, n_features), C-contiguous
        out : ndarray of float32 of shape (n_pixels, n_classes), C-contiguous
        """
        ...


@runtime_checkable
class Scorer(Protocol):
    """A fitted classifier's `decision_function` as a function of tiles, otherwise as :class:`Predictor`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classifier's.
    n_features_in_ : int
        Features of a row.
    n_scores : int
        1 for two classes, where a positive score is for the second; else a score for each class.

    Examples
    --------
    >>> from sklearn.svm import LinearSVC
    >>> from dconv import predictors
    >>> compiled = predictors.compile_scorer(LinearSVC().fit([[0.0], [1.0], [4.0], [5.0]], [0, 0, 1, 1]))
    >>> isinstance(compiled, predictors.Scorer), compiled.n_scores
    (True, 1)
    """

    classes_: np.ndarray
    n_features_in_: int
    n_scores: int

    def decision_function(self, tile: np.ndarray, out: np.ndarray) -> None:
        """Write the scores of the rows of `tile` to `out`.

        Parameters
        ----------
        tile : ndarray of float32 of shape (n_pixels, n_features), C-contiguous
        out : ndarray of float32 of shape (n_pixels, n_scores), C-contiguous
        """
        ...


def check_tile(tile: np.ndarray, n_features: int, out: np.ndarray, n_outputs: int) -> None:
    """Check what compiled loops take for granted."""
    for name, array, wanted in (("tile", tile, (len(tile), n_features)), ("out", out, (len(tile), n_outputs))):
        if array.dtype != np.float32 or array.shape != wanted or not array.flags.c_contiguous:
            raise ValueError(
                f"{name} must be C-contiguous float32 of shape {wanted}, got {array.dtype} of shape {array.shape}"
            )
