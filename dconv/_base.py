"""What estimators on images, and the transformers among them, have in common."""

from __future__ import annotations

from typing import Any, Self

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags


class ImageInput:
    """Mixin that tells scikit-learn that `X` holds images, not rows of samples."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array = False  # a 2-D array is one image here
        tags.input_tags.three_d_array = True
        return tags


class FeatureImageTransformer(ImageInput, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Base of transformers that turn images into feature images of shape (*spatial, n_features).

    A feature image has more than two axes, so no data frame can hold it: ``set_output`` refuses, and the global
    ``sklearn.set_config(transform_output="pandas")`` leaves these transformers returning arrays.
    """

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
