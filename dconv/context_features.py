"""AtrousContext: features, and what a simple classifier of them says around every pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from dconv._axes import as_int
from dconv._block_features import (
    gather_rows,
    halo_of,
    labelled_pixels,
    prepared_for,
    reader_of_one,
    relearnt,
    spacing_of,
)
from dconv._boxes import grown, moved, overlap, sizes, within
from dconv._branches import choose_pixels
from dconv._context_bank import ContextFeatures
from dconv._inner_maps import InnerMapsTransformer, fit_inner
from dconv._parts import check_may_look_ahead, check_probabilities, clone_of, new_features
from dconv._pixels import Block, PixelSet
from dconv._random_state import as_random_state
from dconv._responses import Responder
from dconv._threads import effective_n_jobs, scikit_learn_alone
from dconv._validation import Images, as_images
from dconv.perceptron import PerceptronClassifier
from dconv.scaling import SoftClipScaler

# Of the first classifier: few units and a strong penalty, as it must not know labelled pixels better than others.
_UNITS, _ALPHA = 16, 10.0


class AtrousContext(InnerMapsTransformer):
    """Turn images into features, and what a simple classifier of these says around every pixel.

    A pixel's own features say little where an image is ambiguous; what its surroundings are taken for says more. So a
    simple classifier learns from the labelled pixels first, and an atrous bank describes its probabilities: how they
    are at several distances in all directions, their edges, their lines. This is the cascade of
    :class:`dconv.ContextClassifier` as features, for any classifier to learn from, with a first stage that costs hardly
    anything, and that is too simple to know labelled pixels by heart, so that it need not be held out from them.

    Parameters
    ----------
    inner : transformer, "passthrough" or None, default=None
        What makes the features: a transformer of images that works block by block, such as
        :class:`dconv.AtrousFeatures`; None is ``AtrousFeatures(normalize="auto")``, and "passthrough" takes the
        channels of images as features.
    classifier : classifier or None, default=None
        With `predict_proba`. None is a perceptron of 16 units with a strong penalty, on softly clipped features
        (:class:`dconv.SoftClipScaler`). A classifier that fits its labelled pixels closely is surer of them than of
        others, which misleads who learns from its probabilities there.
    n_samples : int, default=20_000
        Labelled pixels that it learns from at most, drawn in equal shares from all images.
    random_state : int, RandomState instance or None, default=None
        Draws them, and seeds the default classifier.
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
        What makes the features, fitted.
    classifier_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        The labels seen at fit.
    ndim_, channel_axis_ : int, int or None
        `ndim` and `channel_axis` as they were at fit; changes of parameters take effect at the next `fit`.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Number of features of a pixel: those of `inner_`, then ``context_<feature of probabilities>``.
    halo_ : tuple of (int, int)
        Pixels that the features see left and right of their own, per spatial axis.

    See Also
    --------
    dconv.PixelClassifier : Uses it by default where labels are many.
    dconv.ContextClassifier : A cascade of classifiers that have more to say, each held out from what the next learns.

    Notes
    -----
    The context is that of :class:`dconv.ContextClassifier` but for what lies farthest: of two classes what an atrous
    bank of five levels makes of the probability of the second, 91 features; of more, 20 features for each class.

    A block is computed with all that its context sees around it, so that a pixel has the same features, to the last
    bit, wherever blocks are cut, as far as the classifier can be compiled (:mod:`dconv.predictors`).

    Where a class depends on where in an image a pixel lies, let the first classifier know it too:
    ``AtrousContext(make_features(None, PixelPosition()))`` did better on street scenes than positions beside it.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import AtrousFeatures, AtrousContext
    >>> image = np.random.default_rng(0).normal(size=(64, 64))
    >>> image[:, 32:] += 1
    >>> labels = np.zeros((64, 64), int)
    >>> labels[4:60:4, 2:30], labels[4:60:4, 34:62] = 1, 2
    >>> context = AtrousContext(AtrousFeatures(3), random_state=0)
    >>> context.fit(image, labels).transform(image).shape
    (64, 64, 131)
    >>> context.get_feature_names_out()[[0, 40, 130]].tolist()
    ['intensity_level_d1', 'context_probability_level_d1', 'context_probability_neighbour_7_d16']
    """

    def __init__(
        self,
        inner: Any = None,
        *,
        classifier: Any = None,
        n_samples: int = 20_000,
        random_state: int | np.random.RandomState | None = None,
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.inner = inner
        self.classifier = classifier
        self.n_samples = n_samples
        self.random_state = random_state
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit what makes the features, and let the classifier learn from the labelled pixels.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : array_like or list of array_like
            Label images: 0 means "not labelled".

        Returns
        -------
        self : AtrousContext

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the labels cannot be used; if `inner` does not work block by block or looks
            at no sample ahead; if there are no labels, or those of one class only.
        """
        _, ndim, channel_axis = new_features(self.inner, self.ndim, self.channel_axis, self.n_jobs, "inner")
        images = as_images(X, ndim, channel_axis)
        return self._fit_labelled(images, *((None, None) if y is None else labelled_pixels(y, images)))

    _learns_from_labels = True  # as described in :mod:`dconv._block_features`

    def _fit_labelled(self, images: Images, masks: Sequence[PixelSet] | None, targets: np.ndarray | None) -> Self:
        """Fit to images and labelled pixels, as :mod:`dconv._block_features` describes."""
        effective_n_jobs(self.n_jobs)
        as_int(self.n_samples, "n_samples", 2)
        random_state = as_random_state(self.random_state)
        if targets is None or len(np.unique(targets)) < 2:
            raise ValueError(
                "AtrousContext needs labelled pixels of two classes at least: fit it with label images, as "
                "PixelClassifier.fit does"
            )
        first = self._first(random_state)
        inner, ndim, channel_axis = new_features(self.inner, self.ndim, self.channel_axis, self.n_jobs, "inner")
        check_may_look_ahead(inner, "the context of AtrousContext")
        fit_inner(inner, images, channel_axis, masks, targets)
        # Tried on a copy: what fails leaves the attributes of the last fit.
        trial = copy(self)
        trial.inner_, trial.ndim_, trial.channel_axis_ = inner, ndim, channel_axis
        trial.n_channels_in_ = images.n_channels
        trial._teach(first, images, masks, targets, random_state)
        pairs = zip(halo_of(inner, ndim), trial._context().halo_, strict=True)
        trial.halo_ = tuple((a + c, b + d) for (a, b), (c, d) in pairs)
        self.__dict__.update({name: value for name, value in vars(trial).items() if name not in self.get_params()})
        return self

    def _relearnt(self, images: Images, masks: Sequence[PixelSet], targets: np.ndarray) -> Self:
        """Return a copy that has learnt from other labels, as :mod:`dconv._block_features` describes."""
        other, random_state = copy(self), as_random_state(self.random_state)
        first = self._first(random_state)
        other.inner_ = relearnt(self.inner_, images, masks, targets)
        other._teach(first, images, masks, targets, random_state)
        if not np.array_equal(other.classes_, self.classes_):
            raise ValueError(
                f"AtrousContext looked at pixels of classes {self.classes_.tolist()} of all that are labelled, but of "
                f"{other.classes_.tolist()} where some are held out; let it look at more (n_samples)"
            )
        return other

    def _first(self, random_state: np.random.RandomState) -> Any:
        """Return the classifier that speaks first, not fitted."""
        first = _simple(random_state) if self.classifier is None else clone_of(self.classifier)
        check_probabilities(first, "AtrousContext needs a classifier with probabilities")
        return first

    def _teach(
        self,
        first: Any,
        images: Images,
        masks: Sequence[PixelSet] | None,
        targets: np.ndarray,
        random_state: np.random.RandomState,
    ) -> None:
        """Let the first classifier learn what `inner_` makes of some of the labelled pixels."""
        chosen, labels = choose_pixels(images.spatial_shapes, self.n_samples, masks, targets, random_state)
        rows = gather_rows(self.inner_, images, self.channel_axis_, chosen, effective_n_jobs(self.n_jobs))
        with scikit_learn_alone(), threadpool_limits(1, "blas"):
            first.fit(rows, labels)
        self.classifier_, self.classes_, self._n_maps = first, first.classes_, rows.shape[1]
        self.n_features_out_ = self._n_maps + self._context().n_features_out_

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        return [*self._map_names(), *(f"context_{name}" for name in self._context().feature_names())]

    def _feature_keys(self) -> list[tuple[str, str, str]]:
        """Return plane, group and scale of every feature; the context is one group."""
        return self._map_keys() + [("context", "context", "context")] * (self.n_features_out_ - self._n_maps)

    @property
    def spacing_(self) -> tuple[float, ...] | None:
        """The spacing of pixels in units of the finest, as `inner_` says."""
        return spacing_of(self.inner_)

    @property
    def _cacheable(self) -> bool:
        """Whether features stay the same while parameters do, as described in :mod:`dconv._block_features`."""
        return getattr(self.inner_, "_cacheable", True)

    def _context(self) -> ContextFeatures:
        return ContextFeatures(self.ndim_, len(self.classes_), self.spacing_, far=False)

    def _for_image(self, image: Any) -> Self:
        """Return the transformer for the blocks of one image, as described in :mod:`dconv._block_features`."""
        transformer = copy(self)
        transformer._prepared = prepared_for(self.inner_, image)
        transformer._respond = Responder(self.classifier_, "predict_proba")
        transformer._of_probabilities = self._context()
        return transformer

    def _fill(self, image: Any, block: Block, out: np.ndarray) -> None:
        """Write the features of a block to `out` (*block, n_features_out_)."""
        for band, rows in self._transform_bands(image, block):
            out[within(band, block)] = rows

    def _transform_bands(self, image: Any, block: Block) -> Iterator[tuple[Block, np.ndarray]]:
        """Yield the features of one block band by band, as described in :mod:`dconv._block_features`.

        What makes the features does so twice for the block itself: kept, they would take most of the memory.
        """
        prepared = self if hasattr(self, "_prepared") else self._for_image(image)
        context, reader = prepared._of_probabilities, reader_of_one(prepared._prepared, image)
        seen = grown(block, context.halo_, 1, image.shape[:-1])
        probabilities = np.empty((*sizes(seen), context.n_classes), np.float32)
        for band, rows in reader.bands(0, seen):
            answers = prepared._respond(rows.reshape(-1, self._n_maps))
            probabilities[within(band, seen)] = answers.reshape(*sizes(band), context.n_classes)
        own = reader.bands(0, block)
        maps_of, maps = next(own)
        for near, around in context.bands(probabilities, within(block, seen)):
            band = moved(near, seen)
            features = np.empty((*sizes(band), self.n_features_out_), np.float32)
            features[..., self._n_maps :] = around
            n_missing = math.prod(sizes(band))
            while True:
                common = overlap(maps_of, band)
                if common is not None:
                    features[within(common, band)][..., : self._n_maps] = maps[within(common, maps_of)]
                    n_missing -= math.prod(sizes(common))
                if not n_missing:
                    break
                maps_of, maps = next(own)
            yield band, features


def _simple(random_state: np.random.RandomState) -> Any:
    """Return the classifier that is used if none is given."""
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    return make_pipeline(
        SoftClipScaler(), StandardScaler(), PerceptronClassifier((_UNITS,), alpha=_ALPHA, random_state=seed)
    )
