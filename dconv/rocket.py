"""MiniRocket: features of whole series or images, for classifiers of those."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from dconv._axes import as_int, as_ndim
from dconv._random_state import as_random_state
from dconv._rocket_plan import N_KERNELS, Channels, draw_channels, make_taps, spread_dilations
from dconv._rocket_run import Plan, draw_thresholds, share_features
from dconv._series import Collection, as_collection
from dconv._threads import effective_n_jobs, effective_n_threads, scikit_learn_alone
from dconv._validation import as_array, holds_arrays, real_dtype

_MISSING = ("error", "interpolate")


class MiniRocket(TransformerMixin, BaseEstimator):
    """Turn whole series or images into features that a linear classifier tells apart well.

    A series is convolved with 84 fixed kernels at many dilations. A feature is the share of all positions at which the
    response of a kernel lies above a bias. Nothing but the biases is learnt: quantiles of the responses to the series
    seen at fit. The labels are not used.

    Parameters
    ----------
    n_features : int, default=10_000
        Number of features, at least 84. It is rounded down to a multiple of 84.
    max_dilations_per_kernel : int, default=32
        Most dilations of a kernel. Fewer, and more features at each of them, are taken where series are short.
    ndim : {1, 2}, default=1
        1 for series, whose kernels are a line of nine taps; 2 for images, whose kernels are a square of 3 x 3.
    missing : {"error", "interpolate"}, default="error"
        What becomes of NaN. "interpolate" puts the straight line between the nearest numbers before and after in its
        place, or the nearest number at an end. In an image that is done along rows, then along columns for rows that
        hold nothing but NaN.
    n_jobs : int or None, default=None
        Number of threads; None and -1 use the physical cores. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws the series from which biases are taken, and the channels that kernels see.

    Attributes
    ----------
    dilations_ : ndarray of shape (n_dilations,)
        Dilations of every kernel, ascending.
    n_features_per_dilation_ : ndarray of shape (n_dilations,)
        Features of every kernel at each dilation.
    biases_ : ndarray of shape (n_features_out_,)
        float32, one for each feature, in the order of features.
    n_channels_per_combination_ : ndarray of shape (n_dilations * 84,)
        Number of channels that a kernel sees at a dilation, ordered by dilation, then kernel.
    channel_indices_ : ndarray
        The channels, those of one combination after those of another.
    ndim_ : int
        `ndim` as it was at fit.
    n_channels_in_ : int
        Channels of the series seen at fit.
    n_features_out_ : int
        Number of features.
    n_features_in_ : int
        Length of the series seen at fit, if they came as a 2-D array.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of their positions, if they came as a data frame.

    See Also
    --------
    dconv.filters.two_valued : The 84 kernels.
    dconv.AtrousFeatures : Features of every pixel.

    Notes
    -----
    The method is that of [1]_. A kernel has nine taps, of which three weigh 2 and six weigh -1. At dilation d its
    response at position p is the sum of ``weight[k] * x[p + d * k]`` for k from -4 to 4, where positions outside of a
    series hold 0. Half of the kernels look at all positions, the others only at those where no tap lies outside. Sums
    over all nine taps are computed once for a dilation, so that a kernel takes three additions and no multiplication.
    For m features and series of n positions that makes about ``m * n`` comparisons a series.

    Dilations are spread over powers of 2 up to the largest at which a kernel fits into the longest series seen at fit.

    A series of fewer than nine positions, or an image of fewer than three rows or columns, is continued by zeros at its
    end. In a series that is too short for a dilation, all kernels look at all positions.

    With several channels a kernel sees the sum of up to nine of them, drawn anew for every kernel and dilation.

    Series may be of different lengths, as a list. A 2-D array is a table to scikit-learn, so its series must have the
    length of a table seen at fit; pass ``list(X)`` if they do not.

    References
    ----------
    .. [1] A. Dempster, D. F. Schmidt and G. I. Webb, "MiniRocket: a very fast (almost) deterministic transform for time
       series classification", KDD 2021. doi:10.1145/3447548.3467231

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import RidgeClassifierCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from dconv import MiniRocket
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 40)
    >>> period = np.where(y, 12, 14)[:, np.newaxis]
    >>> X = np.sin((np.arange(100) + rng.uniform(0, 14, (80, 1))) * 2 * np.pi / period) + rng.normal(size=(80, 100))
    >>> model = make_pipeline(MiniRocket(random_state=0), StandardScaler(with_mean=False), RidgeClassifierCV())
    >>> bool(model.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.9)
    True
    """

    def __init__(
        self,
        n_features: int = 10_000,
        max_dilations_per_kernel: int = 32,
        *,
        ndim: int = 1,
        missing: str = "error",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_features = n_features
        self.max_dilations_per_kernel = max_dilations_per_kernel
        self.ndim = ndim
        self.missing = missing
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Choose dilations, and biases from the responses to series drawn at random.

        Parameters
        ----------
        X : array_like of shape (n_series, length) or (n_series, length, n_channels), or list of array_like
            Series; with ``ndim=2`` images of shape (n_images, height, width) or (n_images, height, width, n_channels).
            A list holds arrays of the last one or two (with ``ndim=2``, two or three) of these axes, of any size.
        y : Any, default=None
            Not used.

        Returns
        -------
        self : MiniRocket

        Raises
        ------
        TypeError
            If a parameter has the wrong type, or `X` does not hold real numbers.
        ValueError
            If a parameter is out of range, or `X` has the wrong rank, holds nothing, infinity, a value beyond 1e18, or
            NaN without ``missing="interpolate"``.
        """
        n_features = as_int(self.n_features, "n_features")
        if n_features < N_KERNELS:
            raise ValueError(f"n_features must be at least 84, one for each kernel, but got {n_features}")
        most = as_int(self.max_dilations_per_kernel, "max_dilations_per_kernel", 1)
        ndim, n_threads = self._check_parameters()
        random_state = as_random_state(self.random_state)
        series = self._as_collection(X, ndim, reset=True)
        taps = make_taps(ndim)
        dilations, counts = spread_dilations(series.sizes, taps.least, n_features // N_KERNELS, most)
        channels = draw_channels(series.n_channels, N_KERNELS * len(dilations), random_state)
        plan = Plan(taps, dilations, counts, channels)
        self.biases_: np.ndarray = draw_thresholds(plan, series, self.missing, random_state, n_threads)
        self.dilations_, self.n_features_per_dilation_ = dilations, counts
        self.n_channels_per_combination_, self.channel_indices_ = np.diff(channels.first), channels.numbers
        self.n_channels_in_, self.n_features_out_ = series.n_channels, len(self.biases_)
        self.ndim_ = ndim
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Return the features of series.

        Parameters
        ----------
        X : array_like of shape (n_series, length) or (n_series, length, n_channels), or list of array_like
            Series or images of the channels seen at fit, as in :meth:`fit`.

        Returns
        -------
        features : ndarray of shape (n_series, n_features_out_)
            float32, between 0 and 1. Ordered by dilation, then kernel, then bias.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If the series cannot be used, as in :meth:`fit`, or have other channels, or are a 2-D array of another
            length.
        """
        check_is_fitted(self)
        _, n_threads = self._check_parameters()
        series = self._as_collection(X, self.ndim_, reset=False)
        if series.n_channels != self.n_channels_in_:
            raise ValueError(
                f"X has {series.n_channels} channel(s), but MiniRocket was fitted with {self.n_channels_in_}; pass "
                "series of the kind seen at fit"
            )
        return share_features(self._plan, self.biases_, series, self.missing, n_threads)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the name of every feature: ``<kernel>_d<dilation>_<number>``.

        Parameters
        ----------
        input_features : Any, default=None
            Not used; every feature depends on all positions.

        Returns
        -------
        names : ndarray of str objects of shape (n_features_out_,)

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self)
        names = [
            f"{kernel}_d{dilation}_{number}"
            for dilation, count in zip(self.dilations_, self.n_features_per_dilation_, strict=True)
            for kernel in make_taps(self.ndim_).names
            for number in range(count)
        ]
        return np.array(names, dtype=object)

    @property
    def _plan(self) -> Plan:
        first = np.concatenate([[0], np.cumsum(self.n_channels_per_combination_)]).astype(np.intp)
        channels = Channels(self.channel_indices_, first)
        return Plan(make_taps(self.ndim_), self.dilations_, self.n_features_per_dilation_, channels)

    def _check_parameters(self) -> tuple[int, int]:
        """Return `ndim` and the number of threads."""
        ndim = as_ndim(self.ndim)
        if ndim == 3:
            raise ValueError("ndim must be 1 or 2, as nine taps fill a line or a square, but got 3")
        if not (isinstance(self.missing, str) and self.missing in _MISSING):
            raise ValueError(f"missing must be one of {', '.join(map(repr, _MISSING))}, got {self.missing!r}")
        return ndim, effective_n_threads(effective_n_jobs(self.n_jobs))

    def _as_collection(self, X: Any, ndim: int, reset: bool) -> Collection:
        """Return checked series; a table of them goes through scikit-learn's door."""
        if ndim == 1 and not isinstance(X, list | tuple) and getattr(X, "ndim", 2) < 3:
            array = as_array(X, "X")  # scikit-learn would ignore a mask ...
            if holds_arrays(array):
                real_dtype(array, "X")  # ... and not say what is wrong with an array of arrays
            with scikit_learn_alone():
                X = validate_data(self, X, dtype="numeric", ensure_all_finite=False, reset=reset)
        elif reset:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        series = as_collection(X, ndim)
        series.check(self.missing)
        return series

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.ndim == 1
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing == "interpolate"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
