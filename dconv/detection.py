"""ObjectDetector: objects of images, learnt from masks of instances or from boxes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from skimage.measure import label
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from dconv._axes import as_int
from dconv._base import ImageInput
from dconv._object_lesson import BACKGROUND, BORDER, INSIDE, UNKNOWN, as_examples, labels_of
from dconv._object_maps import as_maps
from dconv._object_table import as_table, check_as_frame
from dconv._splitting import split_regions
from dconv._validation import Images, as_images, as_labels, check_n_channels
from dconv.features import AtrousFeatures
from dconv.metrics import object_f1_score
from dconv.objects import Objects, as_connectivity, as_share, check_split, measure_objects
from dconv.segmentation import PixelClassifier

_MAX_SAMPLES = 1000  # pixels of each class and image that the default segmenter learns from
_SMOOTHING = 1.0  # pixels: the probability of the inside has small summits of its own
_LEAST_HEIGHT = 0.05  # of pixels that are surely not inside


class ObjectDetector(ImageInput, BaseEstimator):
    """Find objects in images, having learnt from images in which each has a mask or a box.

    A pixel classifier learns three classes: background, inside of an object, and its border. Pixels that are probably
    of an object and connected are one, unless a line of border parts them.

    Parameters
    ----------
    segmenter : PixelClassifier or None, default=None
        What learns the classes, also a :class:`~dconv.ContextClassifier`, with `predict_proba`. Its `ignore_label` is
        set. None is a PixelClassifier on ``AtrousFeatures(normalize="image")`` with at most 1000 pixels of each class
        and image.
    border_width : float, default=1.5
        Pixels of an object are its border if something else is at most so many pixels away.
    threshold : float, default=0.4
        A pixel is of an object if inside and border together have at least this probability.
    min_size : int or None, default=None
        Objects of fewer pixels are left out, and none are split into such. None: half the area that all but 1 % of the
        objects seen at fit have.
    split : {"watershed", "none"}, default="watershed"
        Whether connected objects are taken apart.
    neck : float, default=0.8
        For "watershed": two bodies are two objects if the probability of the inside falls, between them, to at most
        this share of what it is in both.
    connectivity : int, default=1
        As for :func:`~dconv.find_objects`.
    as_frame : bool or "auto", default="auto"
        Likewise.
    ndim, channel_axis, n_jobs, random_state, verbose
        As for :class:`~dconv.PixelClassifier`. They are given here or in `segmenter`: what is not at its default there
        or here holds.

    Attributes
    ----------
    segmenter_ : PixelClassifier
        The fitted classifier of pixels: label 1 is background, 2 inside, 3 border.
    class_weight_ : ndarray of shape (3,)
        By how much its probabilities are multiplied, before they are made to add up to 1: `max_samples` lets it see
        less of frequent classes than there is. 1 where a `class_prior` of the segmenter corrects that.
    min_size_ : int
        The least size of an object: `min_size`, or what was learnt in its place.

    See Also
    --------
    dconv.find_objects : Objects from any probabilities, by their shapes.
    dconv.metrics.object_f1_score : What :meth:`score` returns.

    Notes
    -----
    From a box an object is taken to be the ellipse that fills it; what is in the corners is not learnt from. In masks
    negative values are pixels of which nothing is known.

    With a segmenter that has a `nodata` pixels may be NaN: nothing is learnt there, and no object is found.

    `threshold`, `min_size`, `split`, `neck`, `connectivity` and `as_frame` may be changed after `fit`.

    Of a segmenter with balanced class weights of its own the probabilities are not what `class_weight_` supposes.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import ObjectDetector
    >>> rng = np.random.default_rng(0)
    >>> row, column = np.indices((64, 96))
    >>> masks = sum(i * ((row - 20 * i) ** 2 + (column - 25 * i) ** 2 < 80) for i in (1, 2, 3))
    >>> image = (masks > 0) + rng.normal(scale=0.2, size=masks.shape)
    >>> detector = ObjectDetector(random_state=0, as_frame=False).fit(image, masks)
    >>> other = np.roll(image, 9, axis=1)
    >>> table = detector.predict(other)
    >>> table["label"], table["centroid-1"].round()
    (array([1, 2, 3]), array([34., 59., 84.]))
    """

    def __init__(
        self,
        segmenter: Any = None,
        *,
        border_width: float = 1.5,
        threshold: float = 0.4,
        min_size: int | None = None,
        split: str = "watershed",
        neck: float = 0.8,
        connectivity: int = 1,
        as_frame: bool | str = "auto",
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.segmenter = segmenter
        self.border_width = border_width
        self.threshold = threshold
        self.min_size = min_size
        self.split = split
        self.neck = neck
        self.connectivity = connectivity
        self.as_frame = as_frame
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn from the objects of one or several images.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : array_like or list of array_like
            For each image a label image of its spatial shape, int, in which every object has a number of its own and 0
            is background; or boxes, of shape (n_boxes, 2 * ndim): first index along each axis, and then the one after
            the last along each axis. An image may have none.

        Returns
        -------
        self : ObjectDetector

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        segmenter = self._new_segmenter()
        images = as_images(X, segmenter.ndim, segmenter.channel_axis)
        self._check_parameters(images.n_axes)
        examples = as_examples(y, images)
        labels = [labels_of(example, float(self.border_width)) for example in examples]
        if segmenter.nodata is not None:
            for image, each in zip(images.arrays, labels, strict=True):
                each[np.isnan(np.asarray(image[...])).any(axis=-1)] = UNKNOWN
        if not any((each == INSIDE).any() for each in labels):
            raise ValueError(
                f"border_width={self.border_width} leaves no inside of any object: all are thinner than twice that; "
                "choose a smaller one"
            )
        if not any((each == BORDER).any() for each in labels):
            raise ValueError(f"border_width={self.border_width} gives no object a border; choose at least 1")
        classes = [BACKGROUND, INSIDE, BORDER]
        counts = np.array([[np.count_nonzero(each == c) for c in classes] for each in labels])
        segmenter.fit(X, labels[0] if images.kind == "image" else labels)
        weights = counts.sum(axis=0) / segmenter.n_pixels_per_class_
        if segmenter.class_prior is not None:  # what corrects its probabilities already
            weights = np.ones(len(classes))
        areas = np.concatenate([example.areas for example in examples])
        # All at once: what fails before leaves what was learnt last.
        least = max(1, int(np.quantile(areas[areas > 0], 0.01) / 2))
        self.min_size_ = least if self.min_size is None else as_int(self.min_size, "min_size", 1)
        self.segmenter_, self.class_weight_ = segmenter, weights
        return self

    def predict(self, X: ArrayLike) -> Any:
        """Return the table of objects of each image.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.

        Returns
        -------
        table : DataFrame or dict of str to ndarray, or list of them for a batch or list
            One row for each object, none where there is none, with the columns of :func:`~dconv.find_objects`;
            probabilities are those of inside and border together.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        found = self.predict_objects(X)
        return found.table if isinstance(found, Objects) else [each.table for each in found]

    def predict_objects(self, X: ArrayLike) -> Objects | list[Objects]:
        """Return the table of objects of each image and its label image.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.

        Returns
        -------
        objects : Objects or list of Objects
            As :func:`~dconv.find_objects` returns them.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        images = self._known_images(X)
        probabilities = self.segmenter_.predict_proba(X)
        if images.kind == "image":
            return self._objects(probabilities)
        return [self._objects(each) for each in probabilities]

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Return the F1 score of objects, matched at an intersection over union above 0.5.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.
        y : array_like of int or list of array_like
            Label images of instances; boxes will not do.

        Returns
        -------
        f1 : float
            Of the objects of all images together.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        true = as_labels(y, self._known_images(X))
        found = self.predict_objects(X)
        return float(
            object_f1_score(true, [each.labels for each in ([found] if isinstance(found, Objects) else found)])
        )

    def _objects(self, probabilities: np.ndarray) -> Objects:
        """Return the objects of one image, from the probabilities of the classes of its pixels."""
        weighted = probabilities * self.class_weight_.astype(np.float32)
        weighted[np.isnan(weighted).any(axis=-1)] = 1, 0, 0  # where the segmenter's `nodata` is, no object is seen
        weighted /= weighted.sum(axis=-1, keepdims=True)
        inside = weighted[..., 1]
        foreground = np.clip(inside + weighted[..., 2], 0, 1)  # rounding may take a sum beyond 1
        ndim, threshold = foreground.ndim, as_share(self.threshold, "threshold")
        min_size = self.min_size_ if self.min_size is None else self.min_size
        connectivity = as_connectivity(self.connectivity, ndim)
        labels = label(foreground >= threshold, connectivity=connectivity).astype(np.int32)
        if self.split == "watershed":
            height = ndimage.gaussian_filter(inside, _SMOOTHING).astype(np.float64) + _LEAST_HEIGHT
            height[labels == 0] = 0
            neck = as_share(self.neck, "neck")
            labels = split_regions(labels, neck, min_size, connectivity, height).astype(np.int32)
        maps = as_maps(foreground, ndim, None, None)
        everything = tuple(slice(0, size) for size in foreground.shape)
        n = int(labels.max())
        columns = measure_objects(maps, threshold, [everything], labels, n, min_size)
        return Objects(as_table(columns, self.as_frame), labels)

    def _new_segmenter(self) -> Any:
        """Return the segmenter to fit, with the parameters that are said here."""
        if self.segmenter is None:
            segmenter = PixelClassifier(AtrousFeatures(normalize="image"), max_samples=_MAX_SAMPLES)
        elif isinstance(self.segmenter, PixelClassifier):
            segmenter = clone(self.segmenter)
        else:
            raise TypeError(f"segmenter must be None or a PixelClassifier, got {self.segmenter!r:.60}")
        if not hasattr(segmenter, "predict_proba"):
            raise TypeError("segmenter needs a classifier with predict_proba; wrap it in CalibratedClassifierCV")
        defaults: dict[str, Any] = {
            "ndim": 2, "channel_axis": None, "n_jobs": None, "random_state": None, "verbose": 0
        }  # fmt: skip
        for name, default in defaults.items():
            own, other = getattr(self, name), getattr(segmenter, name)
            if _is_same(own, default):
                continue
            if not _is_same(other, default) and not _is_same(other, own):
                raise ValueError(
                    f"{name}={own!r} was given, but segmenter has {name}={other!r}; say it in one of them and leave "
                    "the other at its default"
                )
            segmenter.set_params(**{name: own})
        return segmenter.set_params(ignore_label=UNKNOWN)

    def _check_parameters(self, ndim: int) -> None:
        width = self.border_width
        if isinstance(width, bool) or not isinstance(width, int | float | np.integer | np.floating):
            raise TypeError(f"border_width must be a number, got {width!r}")
        if not 1 <= width < np.inf:
            raise ValueError(f"border_width must be at least 1 pixel, and finite, but got {width}")
        as_share(self.threshold, "threshold")
        as_share(self.neck, "neck")
        check_split(self.split)
        as_connectivity(self.connectivity, ndim)
        check_as_frame(self.as_frame)
        if self.min_size is not None:
            as_int(self.min_size, "min_size", 1, rule="None or an int")

    def _known_images(self, X: ArrayLike) -> Images:
        """Return images of the kind seen at fit."""
        check_is_fitted(self)
        images = as_images(X, self.segmenter_.ndim_, self.segmenter_.channel_axis_)
        check_n_channels(images, self.segmenter_.n_channels_in_, self)
        self._check_parameters(images.n_axes)
        return images


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether two parameters are alike; arrays, which `==` compares item by item, only if they are one."""
    return one is other or (np.isscalar(one) and np.isscalar(other) and bool(one == other))
