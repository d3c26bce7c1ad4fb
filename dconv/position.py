"""PixelPosition: where in its image a pixel lies, as features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int
from dconv._base import FeatureImageTransformer
from dconv._validation import FLOAT64_MAX, Images, as_axes, as_images, check_finite


class PixelPosition(FeatureImageTransformer):
    """Turn images into the coordinates of their pixels, from 0 at the first edge of an axis to 1 at the last.

    Where images are taken alike, what a pixel shows depends on where it is: the sky is above the road. Beside other
    features, by :func:`dconv.make_features`. Images that may be turned or cut anyhow are better off without.

    Parameters
    ----------
    axes : None or sequence of int, default=None
        The spatial axes along which positions are features, in this order; None is all. Street scenes may look the same
        left and right, and a place that says nothing misleads who learns from few scenes: of these take ``(0,)``, how
        high a pixel lies.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images.

    Attributes
    ----------
    ndim_, channel_axis_ : int, int or None
        `ndim` and `channel_axis` as they were at fit.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Number of features of a pixel: one for each of `axes`, named ``position_axis<axis>``.
    halo_ : tuple of (int, int)
        Pixels that the features see around their own, per spatial axis: none.

    See Also
    --------
    dconv.make_features : Several transformers side by side.

    Notes
    -----
    The pixel ``i`` of ``n`` along an axis is at ``(i + 1/2) / n``.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import PixelPosition
    >>> position = PixelPosition()
    >>> position.fit_transform(np.zeros((2, 4)))[1]
    array([[0.75 , 0.125],
           [0.75 , 0.375],
           [0.75 , 0.625],
           [0.75 , 0.875]], dtype=float32)
    >>> position.get_feature_names_out()
    array(['position_axis0', 'position_axis1'], dtype=object)
    """

    def __init__(self, *, axes: Sequence[int] | None = None, ndim: int = 2, channel_axis: int | None = None) -> None:
        self.axes = axes
        self.ndim = ndim
        self.channel_axis = channel_axis

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state that a file or a pickle holds; in older ones are positions along all axes."""
        before: dict[str, Any] = {"axes": None}
        if "ndim_" in state:
            before["_taken"] = _as_taken(None, state["ndim_"])
        super().__setstate__({**before, **state})

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the parameters against images; nothing is learnt from them.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : Any, default=None
            Not used.

        Returns
        -------
        self : PixelPosition

        Raises
        ------
        TypeError, ValueError
            If a parameter or the images cannot be used.
        """
        return self._fit_images(as_images(X, *as_axes(self.ndim, self.channel_axis)))

    def _fit_images(self, images: Images) -> Self:
        """Fit to images, as :mod:`dconv._block_features` describes."""
        ndim, channel_axis = as_axes(self.ndim, self.channel_axis)
        taken = _as_taken(self.axes, ndim)
        self._check_images(images)
        self._taken = taken
        self.ndim_, self.channel_axis_ = ndim, channel_axis
        self.n_channels_in_, self.n_features_out_ = images.n_channels, len(self._taken)
        self.halo_ = ((0, 0),) * ndim
        return self

    def _write(self, images: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Write the features of images, as :class:`~dconv._base.FeatureImageTransformer` describes."""
        for image, out in zip(images, outputs, strict=True):
            out[...] = self._transform_block(image, tuple(slice(0, size) for size in image.shape[:-1]))

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        return [f"position_axis{axis}" for axis in self._taken]

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the spatial shapes of their features, as :mod:`dconv._block_features` describes."""
        check_finite(images, FLOAT64_MAX)  # values do not matter, but NaN is a pixel without data to all estimators
        return images.spatial_shapes

    def _transform_block(self, image: np.ndarray, block: tuple[slice, ...]) -> np.ndarray:
        """Return the features of one block, as described in :mod:`dconv._block_features`."""
        along = [
            ((np.arange(part.start, part.stop) + 0.5) / size).astype(np.float32)
            for part, size in zip(block, image.shape[:-1], strict=True)
        ]
        by_axis = np.meshgrid(*along, indexing="ij")
        return np.stack([by_axis[axis] for axis in self._taken], axis=-1)


def _as_taken(axes: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes to take positions along, checked."""
    if axes is None:
        return tuple(range(ndim))
    rule = f"axes must be None or different spatial axes from 0 to {ndim - 1}, one at least, got {axes!r:.60}"
    try:
        taken = tuple(as_int(axis, "axes") for axis in axes)
    except TypeError:
        raise TypeError(rule) from None
    if not taken or len(set(taken)) < len(taken) or not set(taken) <= set(range(ndim)):
        raise ValueError(rule)
    return taken
