"""RegularizedDiscriminantAnalysis: classes as normal distributions whose covariances few rows cannot lead astray."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from dconv._row_classifier import RowClassifier
from dconv._threads import scikit_learn_alone


class RegularizedDiscriminantAnalysis(RowClassifier):
    """Quadratic discriminant analysis with covariances shrunk to that of independent features of variance 1.

    Every class is a normal distribution. What is unlike all labelled rows goes to the class that varies most, which
    mostly is the background; a perceptron's answer there is chance. So a few strokes say more of what lies far from
    all of them, as most of a volume does whose strokes lie in a few sections.

    Parameters
    ----------
    shrinkage : float, default=0.3
        Share of the identity in the covariance of each class, above 0 and at most 1. Features should have variances of
        about 1, as :class:`sklearn.preprocessing.StandardScaler` gives.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels seen at fit.
    means_ : ndarray of shape (n_classes, n_features_in_)
        The mean of each class.
    axes_ : ndarray of shape (n_classes, n_features_in_, n_features_in_)
        Of each class the directions, one in a row, along which its distribution about the mean, the covariance shrunk,
        has variance 1, each independent of the others.
    intercept_ : ndarray of shape (n_classes,)
        The logarithms of the density at the mean, up to a number that all classes share, and of the share of the class
        among the rows.
    n_features_in_ : int
        Number of features seen at fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if `X` had any.

    See Also
    --------
    sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis : Needs more rows than features of every class with its
        default solver, and takes no weights.
    dconv.default_classifier : Where it is used.

    Notes
    -----
    This is one of the two ways in which [1]_ shrinks covariances, but towards the identity itself: features are scaled.

    References
    ----------
    .. [1] J. H. Friedman, "Regularized discriminant analysis", Journal of the American Statistical Association 84(405),
       1989. doi:10.1080/01621459.1989.10478752

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import RegularizedDiscriminantAnalysis
    >>> x = np.random.default_rng(0).normal(size=(40, 50))
    >>> x[20:] *= 2
    >>> classifier = RegularizedDiscriminantAnalysis().fit(x, np.repeat(["narrow", "wide"], 20))
    >>> classifier.predict(np.full((1, 50), 3.0))
    array(['wide'], dtype='<U6')
    """

    def __init__(self, shrinkage: float = 0.3) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Find the mean and the covariance of each class.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features.
        y : array_like of shape (n_samples,)
            Labels.
        sample_weight : array_like of shape (n_samples,), default=None
            Weights of rows, 0 or more. A row of weight 2 is two; a class whose rows have none is never answered.

        Returns
        -------
        self : RegularizedDiscriminantAnalysis

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter cannot be used.
        """
        value = self.shrinkage
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"shrinkage must be a number, got {value!r}")
        if not 0 < value <= 1:
            raise ValueError(f"shrinkage must be above 0 and at most 1, got {value!r}")
        with scikit_learn_alone():
            rows, labels = validate_data(self, X, y, dtype=np.float64)
            check_classification_targets(labels)
            weights = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("sample_weight is 0 for every row; give those that count a weight")
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(f"y holds one class, {classes[0]}, but a classifier needs two")
        with scikit_learn_alone(), threadpool_limits(1, "blas"):  # products of so few rows are faster so
            found = [_normal(rows[labels == label], weights[labels == label], float(value)) for label in classes]
        means, axes, log_densities = zip(*found, strict=True)
        shares = np.array([weights[labels == label].sum() for label in classes]) / weights.sum()
        self.classes_ = classes
        self.means_: np.ndarray = np.stack(means)
        self.axes_: np.ndarray = np.stack(axes)
        with np.errstate(divide="ignore"):  # of a class without weight
            self.intercept_: np.ndarray = np.array(log_densities) + np.log(shares)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probabilities of classes.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ValueError
            If the rows are no finite numbers, or have other features than at fit.
        """
        check_is_fitted(self)
        with scikit_learn_alone():
            rows = validate_data(self, X, dtype=np.float64, reset=False)
        scores = [
            intercept - np.square((rows - mean) @ axes.T).sum(axis=1) / 2
            for mean, axes, intercept in zip(self.means_, self.axes_, self.intercept_, strict=True)
        ]
        return softmax(np.stack(scores, axis=1), axis=1)


def _normal(rows: np.ndarray, weights: np.ndarray, shrinkage: float) -> tuple[Any, Any, Any]:
    """Return the mean of rows, the axes of their shrunk covariance, and the logarithm of the density at the mean."""
    shares = weights / weights.sum() if weights.any() else np.full(len(rows), 1 / len(rows))
    mean = shares @ rows
    apart = rows - mean
    covariance = (1 - shrinkage) * (apart.T * shares) @ apart + shrinkage * np.eye(len(mean))
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, shrinkage)  # which they are, but for rounding
    return mean, (directions / np.sqrt(variances)).T, -np.log(variances).sum() / 2
