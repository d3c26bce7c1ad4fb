"""AtrousPyramid: parallel dilated branches over feature maps, and what the whole image has in the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int, as_tuple, items_of
from dconv._block_features import (
    halo_of,
    labelled_pixels,
    learns_from_labels,
    prepared_for,
    reader_of_one,
    relearnt,
)
from dconv._branches import (
    Branch,
    choose_pixels,
    gather_windows,
    learnt_branch,
    maps_around,
    smoothing_branches,
    turned,
)
from dconv._inner_maps import InnerMapsTransformer, fit_inner
from dconv._parts import new_features
from dconv._pixels import Block, PixelSet, blocks_of
from dconv._random_state import as_random_state
from dconv._threads import effective_n_jobs, run_tasks
from dconv._validation import Images, as_images
from dconv.functional import conv

_PROJECTIONS = ("gaussian", "random", "pca", "lda")


class AtrousPyramid(InnerMapsTransformer):
    """Turn images into feature maps, the same maps seen through kernels of several dilations, and their means.

    The atrous spatial pyramid pooling of DeepLab [1]_: kernels of 3 taps along each axis look at the same maps, each at
    a dilation of its own, and one branch sees the mean of every map over the image. There the weights are trained by
    back-propagation; here they are fixed, or learnt from pixels by linear algebra.

    Parameters
    ----------
    inner : transformer, "passthrough" or None, default=None
        What makes the maps: a transformer of images that works block by block, such as :class:`dconv.AtrousFeatures` or
        :class:`dconv.AtrousBackbone`; None is ``AtrousFeatures(normalize="auto")``, and "passthrough" takes the
        channels of images as maps, as of probabilities.
    dilations : sequence of int, default=(6, 12, 18, 24)
        Distance in pixels between the taps of each branch.
    pool : bool, default=True
        Whether the mean of every map over the image is a feature of all its pixels. Then the maps of an image are
        computed twice. Means of a few images tell these apart rather than their classes: pass False unless there are
        many.
    projection : {"pca", "gaussian", "random", "lda"}, default="pca"
        What the kernels are. "gaussian": every map is smoothed by itself, by ``[1, 2, 1] / 4`` along each axis.
        "random": directions of equal distribution. "pca": those in which the windows of pixels differ most. "lda":
        those that tell classes apart, at most one less than there are classes; only with labels, which
        :class:`dconv.PixelClassifier` gives. All but "gaussian" see maps divided by their standard deviation.
    n_components : int, default=16
        Features of each branch, for all but "gaussian".
    n_samples : int, default=10_000
        Pixels that are learnt from at most, drawn in equal shares from all images.
    random_state : int, RandomState instance or None, default=None
        Draws pixels, and directions.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images.
    n_jobs : int or None, default=None
        Number of threads. None and -1 are as many as there are physical cores for this process, or what
        ``OMP_NUM_THREADS`` says, as in joblib's worker processes; 1 in joblib's threads.

    Attributes
    ----------
    inner_ : transformer or "passthrough"
        What makes the maps, fitted.
    ndim_, channel_axis_ : int, int or None
        `ndim` and `channel_axis` as they were at fit; changes of parameters take effect at the next `fit`.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Number of features of a pixel: the maps, the branches, named ``<projection>_<number>_d<dilation>``, and, with
        `pool`, the means of the maps, ``mean_<map>``.
    halo_ : tuple of (int, int)
        Pixels that the maps and the branches see left and right of their own, per spatial axis. The means see all.

    See Also
    --------
    dconv.AtrousBackbone : Maps of a trained net.

    Notes
    -----
    Features are ordered maps, branches by dilation, means. Beyond the border a map goes on as its last pixel. What
    pixels are drawn does not depend on the number of threads, nor do the features, by a bit.

    References
    ----------
    .. [1] L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy and A. L. Yuille, "DeepLab: semantic image segmentation
       with deep convolutional nets, atrous convolution, and fully connected CRFs", IEEE Transactions on Pattern
       Analysis and Machine Intelligence 40(4), 2018, doi:10.1109/TPAMI.2017.2699184.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import AtrousFeatures, AtrousPyramid
    >>> image = np.random.default_rng(0).normal(size=(64, 64))
    >>> pyramid = AtrousPyramid(AtrousFeatures(3), dilations=(4, 8), n_components=5, random_state=0)
    >>> pyramid.fit_transform(image).shape
    (64, 64, 90)
    >>> pyramid.get_feature_names_out()[[0, 40, 89]].tolist()
    ['intensity_level_d1', 'pca_0_d4', 'mean_intensity_level_d8']
    """

    def __init__(
        self,
        inner: Any = None,
        *,
        dilations: Sequence[int] = (6, 12, 18, 24),
        pool: bool = True,
        projection: str = "pca",
        n_components: int = 16,
        n_samples: int = 10_000,
        random_state: int | np.random.RandomState | None = None,
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.inner = inner
        self.dilations = dilations
        self.pool = pool
        self.projection = projection
        self.n_components = n_components
        self.n_samples = n_samples
        self.random_state = random_state
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit what makes the maps, and learn the kernels of the branches.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : array_like or list of array_like, default=None
            Label images, for "lda": 0 means "not labelled". Not used otherwise.

        Returns
        -------
        self : AtrousPyramid

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the labels cannot be used; if `inner` does not work block by block; if "lda"
            has no labels, or those of one class only.
        """
        _, ndim, channel_axis = new_features(self.inner, self.ndim, self.channel_axis, self.n_jobs, "inner")
        images = as_images(X, ndim, channel_axis)
        if y is None or not self._learns_from_labels:
            return self._fit_labelled(images, None, None)
        return self._fit_labelled(images, *labelled_pixels(y, images))

    @property
    def _learns_from_labels(self) -> bool:
        """Whether labels make a difference, as described in :mod:`dconv._block_features`."""
        return self.projection == "lda" or learns_from_labels(self.inner)

    def _fit_labelled(self, images: Images, masks: Sequence[PixelSet] | None, targets: np.ndarray | None) -> Self:
        """Fit to images and labelled pixels, as :mod:`dconv._block_features` describes."""
        effective_n_jobs(self.n_jobs)
        dilations, random_state = self._checked(), as_random_state(self.random_state)
        if self.projection == "lda" and (targets is None or len(np.unique(targets)) < 2):
            raise ValueError(
                "projection='lda' needs pixels of two classes at least: fit it with label images, as "
                "PixelClassifier.fit does, or use projection='pca'"
            )
        inner, ndim, channel_axis = new_features(self.inner, self.ndim, self.channel_axis, self.n_jobs, "inner")
        fit_inner(inner, images, channel_axis, masks, targets)
        # Tried on a copy: what fails leaves the attributes of the last fit.
        trial = copy(self)
        trial.inner_, trial.ndim_, trial.channel_axis_ = inner, ndim, channel_axis
        trial.n_channels_in_ = images.n_channels
        trial._reach, trial._pool = max(dilations), self.pool
        trial._count_maps()
        trial._branches = trial._new_branches(images, dilations, masks, targets, random_state)
        trial._count()
        trial.halo_ = tuple((left + max(dilations), right + max(dilations)) for left, right in halo_of(inner, ndim))
        self.__dict__.update({name: value for name, value in vars(trial).items() if name not in self.get_params()})
        return self

    def _relearnt(self, images: Images, masks: Sequence[PixelSet], targets: np.ndarray) -> Self:
        """Return a copy that has learnt from other labels, as :mod:`dconv._block_features` describes."""
        other = copy(self)
        other.inner_ = relearnt(self.inner_, images, masks, targets)
        other._count_maps()
        if self.projection == "lda":  # other kernels do not look at labels; of random ones others mean other features
            random_state = as_random_state(self.random_state)
            other._branches = other._new_branches(images, self._checked(), masks, targets, random_state, self._branches)
        other._count()
        return other

    def _count_maps(self) -> None:
        """Count the maps that the kernels see."""
        self._n_maps = self.n_channels_in_ if isinstance(self.inner_, str) else self.inner_.n_features_out_

    def _count(self) -> None:
        """Count the features."""
        self.n_features_out_ = self._n_maps * (1 + self._pool) + sum(len(branch.weight) for branch in self._branches)

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        maps = self._map_names()
        names = list(maps)
        for branch in self._branches:
            names += [f"{self._kind}_{index}_d{branch.dilation}" for index in range(len(branch.weight))]
        return [*names, *(f"mean_{name}" for name in maps if self._pool)]

    def _feature_keys(self) -> list[tuple[str, str, str]]:
        """Return plane, group and scale of every feature."""
        keys = self._map_keys()
        for branch in self._branches:
            keys += [("pyramid", "branches", f"d{branch.dilation}")] * len(branch.weight)
        return keys + [("pyramid", "means", "image")] * (self._n_maps * self._pool)

    def _checked(self) -> tuple[int, ...]:
        """Check the parameters, and return the dilations."""
        if not isinstance(self.projection, str) or self.projection not in _PROJECTIONS:
            raise ValueError(f"projection must be one of {', '.join(map(repr, _PROJECTIONS))}, got {self.projection!r}")
        if not isinstance(self.pool, bool):
            raise TypeError(f"pool must be a bool, got {self.pool!r}")
        as_int(self.n_components, "n_components", 1)
        as_int(self.n_samples, "n_samples", 2)
        dilations = items_of(self.dilations)
        if not dilations:
            raise TypeError(f"dilations must be a sequence of ints, not empty, got {self.dilations!r}")
        checked = as_tuple(dilations, len(dilations), "dilations", 1)
        if len(set(checked)) < len(checked):
            raise ValueError(f"dilations={self.dilations!r} repeats a dilation; give each once")
        return checked

    def _new_branches(
        self,
        images: Images,
        dilations: tuple[int, ...],
        masks: Sequence[PixelSet] | None,
        targets: np.ndarray | None,
        random_state: np.random.RandomState,
        like: Sequence[Branch] | None = None,
    ) -> tuple[Branch, ...]:
        """Return the kernels of all branches, turned to be like others that have learnt from other labels."""
        self._kind = self.projection
        if self.projection == "gaussian":
            return smoothing_branches(dilations, self._n_maps, self.ndim_)
        if self.projection != "lda":
            masks, targets = None, None
        chosen, labels = choose_pixels(images.spatial_shapes, self.n_samples, masks, targets, random_state)
        n_jobs = effective_n_jobs(self.n_jobs)
        windows = gather_windows(self.inner_, images, dilations, chosen, self._n_maps, n_jobs)
        branches = [
            learnt_branch(dilation, rows, labels, self.ndim_, self.projection, self.n_components, random_state)
            for dilation, rows in zip(dilations, windows, strict=True)
        ]
        return tuple(branches if like is None else map(turned, branches, like, windows))

    def _for_image(self, image: Any) -> Self:
        """Return the transformer for the blocks of one image, as described in :mod:`dconv._block_features`."""
        transformer = copy(self)
        transformer._prepared = prepared_for(self.inner_, image)
        transformer._means = self._means_of(transformer._prepared, image) if self._pool else None
        return transformer

    def _means_of(self, prepared: Any, image: Any) -> np.ndarray:
        """Return the mean of every map over an image."""
        reader, blocks = reader_of_one(prepared, image), list(blocks_of(image.shape[:-1], self._n_maps))
        sums = np.zeros((len(blocks), self._n_maps))

        def work(number: int) -> None:
            sums[number] = reader.read(0, blocks[number]).reshape(-1, self._n_maps).sum(axis=0, dtype=np.float64)

        run_tasks(work, range(len(blocks)), effective_n_jobs(self.n_jobs))
        return (sums.sum(axis=0) / math.prod(image.shape[:-1])).astype(np.float32)

    def _fill(self, image: Any, block: Block, out: np.ndarray) -> None:
        """Write the features of a block to `out` (*block, n_features_out_)."""
        prepared = self if hasattr(self, "_prepared") else self._for_image(image)
        maps = maps_around(prepared._prepared, image, block, self._reach)
        out[..., : self._n_maps] = maps[(slice(self._reach, -self._reach),) * self.ndim_]
        done = self._n_maps
        for branch in self._branches:
            cut = self._reach - branch.dilation
            seen = maps[tuple(slice(cut, n - cut) for n in maps.shape[:-1])][np.newaxis]
            more = len(branch.weight)
            response = conv(
                seen, branch.weight, branch.bias, dilation=branch.dilation, groups=branch.groups, n_threads=1
            )
            out[..., done : done + more] = response[0]
            done += more
        if self._pool:
            out[..., done:] = prepared._means
