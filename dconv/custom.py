"""CustomFeatures: features that the user computes, by a function or a transformer of images."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if

from dconv._axes import as_tuple
from dconv._base import FeatureImageTransformer
from dconv._blocks import check_padding_mode, read_block
from dconv._nodata import as_given
from dconv._pixels import blocks_of
from dconv._threads import effective_n_jobs, run_tasks
from dconv._validation import FLOAT64_MAX, Images, as_array, as_axes, as_images, check_finite, real_dtype

_TRIED = 8  # pixels along an axis of the block that the declared halo is tried on


def _has_halo(self: CustomFeatures) -> bool:
    """Tell whether a block of features can be computed from a block of the image."""
    return self.halo_ is not None


class CustomFeatures(FeatureImageTransformer):
    """Turn images into features that a function, or a transformer of images, computes.

    Parameters
    ----------
    function : callable or transformer
        Called with one image, float32 (float64 if it is so), its channels on `channel_axis`, it returns an array of the
        image's spatial shape, or of shape (*spatial, n_features). A transformer is cloned, its `fit` is called with the
        images as they are, and its `transform` with one image.
    halo : int, sequence of int or None, default=None
        How many pixels around its own a feature depends on at most, per spatial axis. Then images are worked on block
        by block, and `function` sees a block and as many pixels around it. None says that a feature may depend on the
        whole image, of which it is then given all.
    names : sequence of str or None, default=None
        Names of the features; None makes them of the name of `function`.
    padding_mode : {"reflect", "symmetric", "edge", "circular", "zeros"}, default="reflect"
        What an image continues with beyond its border, if there is a halo.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images.
    n_jobs : int or None, default=None
        Number of threads that call `function` with blocks, if there is a halo. None and -1 are as many as there are
        physical cores for this process, or what ``OMP_NUM_THREADS`` says, as in joblib's worker processes; 1 in
        joblib's threads.

    Attributes
    ----------
    function_ : callable
        What is called with images.
    ndim_, channel_axis_ : int, int or None
        `ndim` and `channel_axis` as they were at fit.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Number of features of a pixel, named by `names`.
    halo_ : tuple of (int, int) or None
        Pixels that the features see left and right of their own, per spatial axis, as declared.

    See Also
    --------
    dconv.make_features : Several transformers side by side.
    dconv.DilatedConv : Filters given by their weights.

    Notes
    -----
    With a halo `function` is called from several threads at once. `fit` tries the halo on a small block of the first
    image: features that change when the function sees more than they are said to depend on raise an error.

    Examples
    --------
    >>> import numpy as np
    >>> from skimage.filters import sobel
    >>> from dconv import AtrousFeatures, CustomFeatures, make_features
    >>> edges = CustomFeatures(sobel, halo=1)
    >>> features = make_features(AtrousFeatures(3), edges)
    >>> features.fit_transform(np.eye(32)).shape
    (32, 32, 41)
    >>> edges.fit(np.eye(32)).get_feature_names_out()
    array(['sobel'], dtype=object)
    """

    _cacheable = False  # what a function does may change though its name does not

    def __init__(
        self,
        function: Any,
        *,
        halo: int | Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        padding_mode: str = "reflect",
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.function = function
        self.halo = halo
        self.names = names
        self.padding_mode = padding_mode
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit the transformer, if it is one, and try the function on the first image.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : Any, default=None
            Not used.

        Returns
        -------
        self : CustomFeatures

        Raises
        ------
        TypeError, ValueError
            If a parameter or the images cannot be used, or the function returns no feature for every pixel, or depends
            on pixels beyond the halo.
        """
        return self._fit_images(as_images(X, *as_axes(self.ndim, self.channel_axis)))

    def _fit_images(self, images: Images) -> Self:
        """Fit to images, as :mod:`dconv._block_features` describes."""
        effective_n_jobs(self.n_jobs)
        ndim, channel_axis = as_axes(self.ndim, self.channel_axis)
        check_padding_mode(self.padding_mode)
        halo = None if self.halo is None else tuple((n, n) for n in as_tuple(self.halo, ndim, "halo", 0))
        is_transformer = hasattr(self.function, "fit") and hasattr(self.function, "transform")
        if not (is_transformer or callable(self.function)) or (is_transformer and inspect.isclass(self.function)):
            raise TypeError(f"function must be a callable or a transformer of images, got {self.function!r:.60}")
        check_finite(images, FLOAT64_MAX)
        # Tried on a copy: what fails leaves the attributes of the last fit.
        trial = clone(self)
        given = as_given(images, channel_axis) if is_transformer else None
        trial.function_ = clone(self.function).fit(given).transform if is_transformer else self.function
        trial.ndim_, trial.channel_axis_, trial.padding_mode_ = ndim, channel_axis, self.padding_mode
        trial.n_channels_in_, trial.halo_ = images.n_channels, halo
        tried = trial._call(images.arrays[0]) if halo is None else trial._try_halo(images)
        trial.n_features_out_ = tried.shape[-1]
        trial._names = trial._checked_names()
        self.__dict__.update({name: value for name, value in vars(trial).items() if name not in self.get_params()})
        return self

    def _write(self, images: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Write the features of images, as :class:`~dconv._base.FeatureImageTransformer` describes."""
        if self.halo_ is None:
            for image, out in zip(images, outputs, strict=True):
                out[...] = self._call(image)
            return

        def work(task: tuple[int, tuple[slice, ...]]) -> None:
            index, block = task
            outputs[index][block] = self._transform_block(images[index], block)

        tasks = [
            (index, block)
            for index, image in enumerate(images)
            for block in blocks_of(image.shape[:-1], self.n_features_out_)
        ]
        run_tasks(work, tasks, effective_n_jobs(self.n_jobs))

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        return self._names

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the spatial shapes of their features, as :mod:`dconv._block_features` describes."""
        check_finite(images, FLOAT64_MAX)
        return images.spatial_shapes

    @available_if(_has_halo)
    def _transform_block(self, image: np.ndarray, block: tuple[slice, ...]) -> np.ndarray:
        """Return the features of one block, as described in :mod:`dconv._block_features`."""
        assert self.halo_ is not None  # else it is not available
        return self._around(image, block, self.halo_)

    def _around(self, image: np.ndarray, block: tuple[slice, ...], halo: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the features of a block, of which the function sees `halo` more."""
        start = [part.start - left for part, (left, _) in zip(block, halo, strict=True)]
        stop = [part.stop + right for part, (_, right) in zip(block, halo, strict=True)]
        features = self._call(read_block(image, start, stop, self.padding_mode_))
        inner = tuple(slice(left, left + part.stop - part.start) for part, (left, _) in zip(block, halo, strict=True))
        return np.ascontiguousarray(features[inner])

    def _call(self, image: np.ndarray) -> np.ndarray:
        """Return what the function makes of an image (*spatial, channels): float32 (*spatial, n_features)."""
        spatial = image.shape[:-1]
        given = np.array(image, np.float64 if image.dtype == np.float64 else np.float32)  # its own, to do what it likes
        given = given[..., 0] if self.channel_axis_ is None else np.moveaxis(given, -1, self.channel_axis_)
        returned = f"what function {self._function_name} returns"
        features = as_array(self.function_(given), returned)
        real_dtype(features, returned)
        features = features.astype(np.float32, copy=False)
        if features.shape == spatial:
            features = features[..., np.newaxis]
        n_features = features.shape[-1] if features.ndim else 0
        if features.shape[:-1] != spatial or n_features != getattr(self, "n_features_out_", max(n_features, 1)):
            expected = f"{spatial} or {(*spatial, getattr(self, 'n_features_out_', 'n_features'))}"
            raise ValueError(
                f"function {self._function_name} returned an array of shape {features.shape} for an image of spatial "
                f"shape {spatial}, but one value or row of features for every pixel is needed: shape {expected}"
            )
        return features

    def _try_halo(self, images: Images) -> np.ndarray:
        """Return the features of a block in the middle of the first image, which must not depend on more than halo."""
        assert self.halo_ is not None
        image = images.arrays[0]
        middles = [max(0, (size - _TRIED) // 2) for size in image.shape[:-1]]
        block = tuple(slice(a, min(a + _TRIED, n)) for a, n in zip(middles, image.shape[:-1], strict=True))
        features = self._around(image, block, self.halo_)
        farther = self._around(image, block, [(left + _TRIED, right + _TRIED) for left, right in self.halo_])
        finite = np.isfinite(features) & np.isfinite(farther)
        scale = float(np.abs(farther[finite]).max(initial=0)) or 1.0
        if not np.allclose(features, farther, rtol=1e-3, atol=1e-4 * scale, equal_nan=True):
            worst = float(np.abs(features[finite] - farther[finite]).max(initial=0)) or np.nan
            raise ValueError(
                f"halo={self.halo!r} is too small: features of function {self._function_name} differ by up to "
                f"{worst:g} if it sees {_TRIED} pixels more; give the distance of the farthest pixel that a feature "
                "depends on, or halo=None if that is the whole image"
            )
        return features

    @property
    def _function_name(self) -> str:
        function = getattr(self.function, "func", self.function)  # of a functools.partial
        return getattr(function, "__name__", type(function).__name__).strip("<>")

    def _checked_names(self) -> list[str]:
        n = self.n_features_out_
        if self.names is None:
            return [self._function_name] if n == 1 else [f"{self._function_name}_{index}" for index in range(n)]
        if isinstance(self.names, str):
            raise TypeError(f"names must be a sequence of str, got {self.names!r}; one name is [{self.names!r}]")
        names = list(self.names) if isinstance(self.names, Iterable) else [None]
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"names must be a sequence of str, got {self.names!r:.60}")
        if len(names) != n or len(set(names)) != n:
            raise ValueError(f"names must name {n} features, each by another name, got {len(names)}: {names}")
        return names
