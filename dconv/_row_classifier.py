"""What classifiers of rows of features share that say probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin


class RowClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that answers with the most probable class."""

    classes_: np.ndarray

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probabilities of classes, or say that it is not fitted."""
        raise NotImplementedError

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return labels.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        labels : ndarray of shape (n_samples,)

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ValueError
            If the rows are no finite numbers, or have other features than at fit.
        """
        probabilities = self.predict_proba(X)  # which tells that it is not fitted
        return self.classes_.take(probabilities.argmax(axis=1))
