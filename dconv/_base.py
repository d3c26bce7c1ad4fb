"""What estimators on images, and the transformers among them, have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from dconv._validation import Images, as_images, check_n_channels


class ImageInput:
    """Mixin that tells scikit-learn that `X` holds images, not rows of samples."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array = False  # a 2-D array is one image here
        tags.input_tags.three_d_array = True
        return tags


class FeatureImageTransformer(ImageInput, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Base of transformers that turn images into feature images of shape (*spatial, n_features).

    A subclass says at fit what images it takes and how many features it has, in the four attributes below, and defines
    `_check_images`, which :mod:`dconv._block_features` describes, `_write` and `_feature_names`.

    A feature image has more than two axes, so no data frame can hold it: ``set_output`` refuses, and the global
    ``sklearn.set_config(transform_output="pandas")`` leaves these transformers returning arrays.
    """

    ndim_: int
    channel_axis_: int | None
    n_channels_in_: int
    n_features_out_: int

    def __init_subclass__(cls, auto_wrap_output_keys: tuple[str, ...] | None = None, **kwargs: Any) -> None:
        # scikit-learn asks every subclass anew, and its own default would wrap their output in data frames.
        super().__init_subclass__(auto_wrap_output_keys=auto_wrap_output_keys, **kwargs)  # type: ignore[call-arg]

    def set_output(self, *, transform: str | None = None) -> Self:
        """Accept the default container, an array, and refuse data frames.

        Parameters
        ----------
        transform : {"default", None}, default=None
            The container.

        Returns
        -------
        self : estimator instance

        Raises
        ------
        ValueError
            If `transform` is anything else.
        """
        if transform not in (None, "default"):
            raise ValueError(
                f"{type(self).__name__} cannot return transform={transform!r}: a feature image of shape "
                "(*spatial, n_features) does not fit a data frame; for a table with one row per pixel build it from "
                "the array: DataFrame(features.reshape(-1, features.shape[-1]), columns=get_feature_names_out())"
            )
        return self

    def transform(self, X: ArrayLike) -> np.ndarray | list[np.ndarray]:
        """Return the features of every pixel.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, with the channels seen at fit.

        Returns
        -------
        features : ndarray of shape (*spatial, n_features_out_), with (n_images,) in front for a batch, or list
            float32, in the form of `X`. `spatial` is that of the image, unless a stride or padding changes it.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If the images cannot be used, as in :meth:`fit`.
        """
        images = self._images_as_fitted(X)
        return self._transformed(images, self._check_images(images))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the name of every feature.

        Parameters
        ----------
        input_features : Any, default=None
            Not used; pixels have no names.

        Returns
        -------
        names : ndarray of str objects of shape (n_features_out_,)

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self)
        return np.array(self._feature_names(), dtype=object)

    def _images_as_fitted(self, X: ArrayLike) -> Images:
        """Return images of the axes and channels seen at fit."""
        check_is_fitted(self)
        images = as_images(X, self.ndim_, self.channel_axis_)
        check_n_channels(images, self.n_channels_in_, self)
        return images

    def _transformed(self, images: Images, sizes: list[tuple[int, ...]]) -> np.ndarray | list[np.ndarray]:
        """Return the features of images that are checked, of these spatial shapes."""
        result, outputs = images.allocate([(*size, self.n_features_out_) for size in sizes], np.float32)
        self._write(images.arrays, outputs)
        return result

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the spatial shapes of their features, as :mod:`dconv._block_features` describes."""
        raise NotImplementedError

    def _write(self, images: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Write the features of images (*spatial, channels), which are checked, to `outputs` (*spatial, features)."""
        raise NotImplementedError

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        raise NotImplementedError
