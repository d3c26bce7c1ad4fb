"""Several transformers side by side: their features of a pixel, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.metaestimators import _BaseComposition, available_if

from dconv._bank import widest
from dconv._base import FeatureImageTransformer
from dconv._block_features import fit_to_images, labelled_pixels, learns_from_labels, relearnt, spacing_of
from dconv._nodata import as_given
from dconv._parts import new_features
from dconv._pixels import PixelSet
from dconv._threads import effective_n_jobs
from dconv._validation import FLOAT64_MAX, Images, as_images, check_finite


def _by_blocks(self: FeatureImageUnion) -> bool:
    """Tell whether all parts compute the features of a block by itself."""
    return all(hasattr(part, "_transform_block") for part in self.parts_)


def _by_bands(self: FeatureImageUnion) -> bool:
    """Tell whether one part alone works in bands: the others follow it; two would each begin anew for every band."""
    return _by_blocks(self) and sum(hasattr(part, "_transform_bands") for part in self.parts_) == 1


class FeatureImageUnion(FeatureImageTransformer, _BaseComposition):
    """Turn images into the features of several transformers, one after another.

    The twin of scikit-learn's FeatureUnion for images; :func:`make_features` builds it without names.

    Parameters
    ----------
    transformers : list of (str, transformer)
        Names and transformers of images. None in the place of one is ``AtrousFeatures(normalize="auto")``, as in
        :class:`dconv.PixelClassifier`.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes, of all transformers: it may be said here or in any of them.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images. Likewise.
    n_jobs : int or None, default=None
        Number of threads, for those transformers that do not say.

    Attributes
    ----------
    parts_ : list of transformer
        The fitted transformers.
    ndim_, channel_axis_ : int, int or None
        `ndim` and `channel_axis` in force.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Number of features of a pixel, named ``<transformer>__<feature>``. Not there if a transformer does not tell its
        own.
    halo_ : tuple of (int, int)
        Pixels that the features see left and right of their own, per spatial axis. Likewise.

    See Also
    --------
    dconv.make_features : Builds it.

    Notes
    -----
    If all transformers work block by block, as dconv's do, so does this; else all are given whole images.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import AtrousFeatures, FeatureImageUnion, PixelPosition
    >>> union = FeatureImageUnion([("bank", AtrousFeatures(2)), ("place", PixelPosition())])
    >>> union.set_params(bank__groups=["level"]).fit_transform(np.zeros((8, 8))).shape
    (8, 8, 5)
    >>> union.get_feature_names_out()[2:].tolist()
    ['bank__intensity_level_d4', 'place__position_axis0', 'place__position_axis1']
    """

    def __init__(
        self,
        transformers: list[tuple[str, Any]],
        *,
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.transformers = transformers
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, and those of the transformers as ``<name>__<parameter>``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return those of the transformers too.

        Returns
        -------
        parameters : dict
        """
        return self._get_params("transformers", deep=deep)

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters, transformers by their name, or parameters of theirs.

        Parameters
        ----------
        **parameters : Any
            As :meth:`get_params` names them.

        Returns
        -------
        self : FeatureImageUnion

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        self._set_params("transformers", **parameters)
        return self

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit copies of all transformers.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.
        y : array_like or list of array_like, default=None
            Label images, 0 means "not labelled", for transformers that learn from labels:
            :class:`~dconv.AtrousContext`, and :class:`~dconv.AtrousPyramid` with ``projection="lda"``. Not used
            otherwise.

        Returns
        -------
        self : FeatureImageUnion

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the labels cannot be used, or transformers differ about `ndim` or
            `channel_axis`.
        """
        _, ndim, channel_axis = self._new_parts()
        images = as_images(X, ndim, channel_axis)
        if y is None or not self._learns_from_labels:
            return self._fit_labelled(images, None, None)
        return self._fit_labelled(images, *labelled_pixels(y, images))

    @property
    def _learns_from_labels(self) -> bool:
        """Whether labels make a difference, as described in :mod:`dconv._block_features`."""
        return any(learns_from_labels(transformer) for _, transformer in self.transformers)

    def _fit_labelled(self, images: Images, masks: Sequence[PixelSet] | None, targets: np.ndarray | None) -> Self:
        """Fit to images and labelled pixels, as :mod:`dconv._block_features` describes."""
        effective_n_jobs(self.n_jobs)
        parts, ndim, channel_axis = self._new_parts()
        for part in parts:
            fit_to_images(part, None, images, channel_axis, masks, targets)
        self.__dict__.pop("n_features_out_", None)  # of a fit to other transformers
        self.__dict__.pop("halo_", None)
        self.parts_, self.ndim_, self.channel_axis_ = parts, ndim, channel_axis
        self.n_channels_in_ = images.n_channels
        self._count()
        if _by_blocks(self):
            self.halo_ = widest([part.halo_ for part in parts])
        return self

    def _relearnt(self, images: Images, masks: Sequence[PixelSet], targets: np.ndarray) -> Self:
        """Return a copy that has learnt from other labels, as :mod:`dconv._block_features` describes."""
        other = copy(self)
        other.parts_ = [relearnt(part, images, masks, targets) for part in self.parts_]
        other._count()
        return other

    def _count(self) -> None:
        """Count the features, if all transformers say how many they have."""
        if all(hasattr(part, "n_features_out_") for part in self.parts_):
            self.n_features_out_ = sum(part.n_features_out_ for part in self.parts_)

    def _transformed(self, images: Images, sizes: list[tuple[int, ...]]) -> np.ndarray | list[np.ndarray]:
        """Return the features of images, those of the first transformer first: not all say beforehand how many."""
        given = as_given(images, self.channel_axis_)
        each = [given] if images.kind == "image" else list(given)
        joined = [self._joined([part.transform(image) for part in self.parts_]) for image in each]
        if images.kind == "list":
            return joined
        return joined[0] if images.kind == "image" else np.stack(joined)

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        pairs = zip(self.transformers, self.parts_, strict=True)
        return [f"{name}__{feature}" for (name, _), part in pairs for feature in part.get_feature_names_out()]

    def _feature_keys(self) -> list[tuple[str, str, str]]:
        """Return plane, group and scale of every feature; those of transformers that have none are one group."""
        keys = []
        banks = sum(hasattr(part, "_feature_keys") for part in self.parts_)
        for (name, _), part in zip(self.transformers, self.parts_, strict=True):
            if hasattr(part, "_feature_keys"):
                prefix = f"{name}__" if banks > 1 else ""
                keys += [(f"{name}__{plane}", prefix + group, scale) for plane, group, scale in part._feature_keys()]
            else:
                keys += [(name, name, name)] * self._n_features_of(part)
        return keys

    def _n_features_of(self, part: Any) -> int:
        """Return how many features a fitted transformer has, which one of another library may not say."""
        if hasattr(part, "n_features_out_"):
            return int(part.n_features_out_)
        if hasattr(part, "get_feature_names_out"):
            return len(part.get_feature_names_out())
        raise ValueError(f"{type(part).__name__} does not tell how many features it has; wrap it in CustomFeatures")

    @property
    def spacing_(self) -> tuple[float, ...] | None:
        """The spacing of pixels in units of the finest, as the first transformer says that has one."""
        return next((found for part in self.parts_ if (found := spacing_of(part)) is not None), None)

    @property
    def _cacheable(self) -> bool:
        """Whether all features stay the same while parameters do, as described in :mod:`dconv._block_features`."""
        return all(getattr(part, "_cacheable", True) for part in self.parts_)

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the spatial shapes of their features, as :mod:`dconv._block_features` describes."""
        shapes = images.spatial_shapes
        for part in self.parts_:
            if not hasattr(part, "_check_images"):
                check_finite(images, FLOAT64_MAX)  # what the transformer makes of large values is its own affair
                continue
            found = part._check_images(images)
            shapes = found if found != images.spatial_shapes else shapes  # which the caller refuses
        return shapes

    def _for_image(self, image: np.ndarray) -> Self:
        """Return the transformer for the blocks of one image, as described in :mod:`dconv._block_features`."""
        union = copy(self)
        union.parts_ = [part._for_image(image) if hasattr(part, "_for_image") else part for part in self.parts_]
        return union

    @available_if(_by_blocks)
    def _transform_block(self, image: np.ndarray, block: tuple[slice, ...]) -> np.ndarray:
        """Return the features of one block, as described in :mod:`dconv._block_features`."""
        return np.concatenate([part._transform_block(image, block) for part in self.parts_], axis=-1)

    @available_if(_by_bands)
    def _transform_bands(
        self, image: np.ndarray, block: tuple[slice, ...]
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yield the features of one block band by band, as described in :mod:`dconv._block_features`."""
        leader = next(part for part in self.parts_ if hasattr(part, "_transform_bands"))
        for band, features in leader._transform_bands(image, block):
            yield (
                band,
                np.concatenate(
                    [features if part is leader else part._transform_block(image, band) for part in self.parts_],
                    axis=-1,
                ),
            )

    def _new_parts(self) -> tuple[list[Any], int, int | None]:
        """Return copies of the transformers that agree about axes, and these."""
        transformers = self._checked_transformers()
        ndim, channel_axis = self.ndim, self.channel_axis
        for name, transformer in transformers:  # once to learn what any of them says ...
            _, ndim, channel_axis = new_features(transformer, ndim, channel_axis, self.n_jobs, f"transformer {name!r}")
        parts = [new_features(transformer, ndim, channel_axis, self.n_jobs)[0] for _, transformer in transformers]
        return parts, ndim, channel_axis  # ... and once to tell all

    def _checked_transformers(self) -> list[tuple[str, Any]]:
        transformers = self.transformers
        if not isinstance(transformers, list | tuple) or not transformers:
            raise ValueError(f"transformers must be a list of (name, transformer), got {transformers!r:.60}")
        for item in transformers:
            if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[0], str):
                raise TypeError(f"transformers must hold pairs of a name and a transformer, got {item!r:.60}")
            if isinstance(item[1], str):
                raise ValueError(f"transformers must be transformers of images or None, got {item[1]!r} as {item[0]!r}")
        self._validate_names([name for name, _ in transformers])
        return list(transformers)

    def _joined(self, by_part: Sequence[np.ndarray]) -> np.ndarray:
        """Return the feature images of all transformers side by side."""
        arrays = [np.asarray(features, np.float32) for features in by_part]
        sizes = [array.shape[:-1] for array in arrays]
        if len(set(sizes)) > 1:
            names = [name for name, _ in self.transformers]
            raise ValueError(
                f"transformers must return feature images of one size, but {dict(zip(names, sizes, strict=True))}; a "
                "bank of filters needs stride=1 and padding='same'"
            )
        return np.concatenate(arrays, axis=-1)


def make_features(
    *transformers: Any, ndim: int = 2, channel_axis: int | None = None, n_jobs: int | None = None
) -> FeatureImageUnion:
    """Return a transformer of images with the features of all `transformers`, named as by scikit-learn's make_union.

    Parameters
    ----------
    *transformers : transformer or None
        Transformers of images, of dconv or others; None is ``AtrousFeatures(normalize="auto")``.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images.
    n_jobs : int or None, default=None
        Number of threads.

    Returns
    -------
    features : FeatureImageUnion
        Not fitted.

    Raises
    ------
    ValueError
        If there is no transformer.

    Examples
    --------
    >>> from dconv import PixelClassifier, PixelPosition, make_features
    >>> features = make_features(None, PixelPosition())  # the default bank, and where a pixel lies
    >>> [name for name, _ in features.transformers]
    ['atrousfeatures', 'pixelposition']
    >>> classifier = PixelClassifier(features, channel_axis=-1)
    """
    if not transformers:
        raise ValueError("make_features needs one transformer at least")
    names = ["atrousfeatures" if each is None else type(each).__name__.lower() for each in transformers]
    numbered = [
        f"{name}-{names[: index + 1].count(name)}" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]
    pairs = list(zip(numbered, transformers, strict=True))
    return FeatureImageUnion(pairs, ndim=ndim, channel_axis=channel_axis, n_jobs=n_jobs)
