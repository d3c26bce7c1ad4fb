"""SoftClipScaler: features of about one size and without far outliers, for classifiers that multiply them."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.preprocessing import RobustScaler
from sklearn.utils import Tags
from sklearn.utils.validation import FLOAT_DTYPES, check_is_fitted, validate_data

from dconv._threads import scikit_learn_alone

_ALL = 1e9  # what is so far out is at the limit to the last bit; its square must stay finite


class SoftClipScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Scale features by median and interquartile range, and bend what is far out towards a limit.

    Features of images have long tails: an edge a hundred times as strong as most. A perceptron would hardly see the
    others beside it. Here most values keep their distances, and the strongest edge has a value below `limit`.

    Parameters
    ----------
    limit : float, default=5
        What values approach but do not reach, in robust standard deviations (interquartile range / 1.349, which is the
        standard deviation of a normal distribution).

    Attributes
    ----------
    center_ : ndarray of shape (n_features_in_,)
        Medians.
    scale_ : ndarray of shape (n_features_in_,)
        Robust standard deviations; 1 for a feature of which half the values are equal.
    n_features_in_ : int
        Number of features seen at fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if `X` had any.

    See Also
    --------
    sklearn.preprocessing.RobustScaler : The same without a limit.
    dconv.default_classifier : Where it is used.

    Notes
    -----
    With ``z = (x - center_) / scale_`` the result is ``z / sqrt(1 + (z / limit)**2)``, the inverse square root unit
    [1]_: about z where \\|z\\| is small, and strictly increasing, so that nothing is lost but distances. NaN stays NaN.

    References
    ----------
    .. [1] B. Carlile et al., "Improving deep learning by inverse square root linear units (ISRLUs)",
       arXiv:1710.09967, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import SoftClipScaler
    >>> x = np.append(np.linspace(-1, 1, 101), 1000).reshape(-1, 1)
    >>> scaled = SoftClipScaler().fit_transform(x)
    >>> scaled[[50, 100, 101], 0].round(2)
    array([-0.01,  1.28,  5.  ])
    """

    def __init__(self, limit: float = 5.0) -> None:
        self.limit = limit

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Find the median and the spread of each feature.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Real numbers, which may be missing (NaN).
        y : Any, default=None
            Not used.

        Returns
        -------
        self : SoftClipScaler

        Raises
        ------
        ValueError
            If `limit` is not above 0, or `X` is no such array.
        """
        if not isinstance(self.limit, Real) or isinstance(self.limit, bool):
            raise TypeError(f"limit must be a number, got {self.limit!r}")
        if not 0 < self.limit < np.inf:
            raise ValueError(f"limit must be above 0 and finite, got {self.limit!r}")
        with scikit_learn_alone():
            x = validate_data(self, X, dtype=FLOAT_DTYPES, ensure_all_finite="allow-nan")
            robust = RobustScaler(unit_variance=True).fit(x)
        self.center_: np.ndarray = robust.center_
        self.scale_: np.ndarray = robust.scale_
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Return scaled features.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Real numbers, which may be missing (NaN).

        Returns
        -------
        scaled : ndarray of shape (n_samples, n_features)
            float32 if `X` is, else float64.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ValueError
            If `X` is not an array with the features seen at fit.
        """
        check_is_fitted(self)
        with scikit_learn_alone():
            x = validate_data(self, X, dtype=FLOAT_DTYPES, ensure_all_finite="allow-nan", reset=False)
        center, scale = (each.astype(x.dtype) for each in (self.center_, self.limit * self.scale_))
        with np.errstate(over="ignore"):
            far = np.clip((x - center) / scale, -_ALL, _ALL)
        return np.asarray(self.limit * far / np.sqrt(1 + far * far), x.dtype)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
