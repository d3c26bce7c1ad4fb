"""What a fitted pixel classifier answers: labels, probabilities, scores of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from dconv._axes import as_int, check_bool
from dconv._block_features import Reader, check_images, halo_of, images_for
from dconv._going_on import last_step
from dconv._lesson import no_label_message, with_label
from dconv._nodata import blank, fill_nodata, valid_pixels
from dconv._pixels import Block, any_pixel, check_weights
from dconv._prediction import (
    BoxAnswers,
    answer_box,
    everywhere,
    respond_everywhere,
    weigh_right_labels,
    weigh_right_pixels,
)
from dconv._progress import progress_bar
from dconv._refinement import Write, refined_boxes, write_refined
from dconv._responses import Respond, response_of, with_prior
from dconv._suggestions import spread_peaks
from dconv._threads import effective_n_jobs
from dconv._validation import Images, as_labels, as_weights, check_n_channels
from dconv.voting import AdaptiveVote


def classifier_has(method: str) -> Callable[[Any], bool]:
    """Return a check for `available_if`: the fitted classifier, or else the one to be fitted, has `method`.

    Pipelines have no `partial_fit`, but their last step may have it.
    """

    def check(self: Any) -> bool:
        classifier = getattr(self, "classifier_", self.classifier)
        owner = AdaptiveVote if classifier is None else classifier
        getattr(last_step(owner) if method == "partial_fit" else owner, method)  # raises, naming what is missing
        return True

    return check


class PixelAnswers:
    """Mixin with the methods of a fitted :class:`dconv.PixelClassifier`, which sets the attributes they read."""

    classifier: Any
    n_jobs: int | None
    verbose: int
    features_: Any
    classifier_: Any
    student_: Any
    student_features_: Any
    refine_: Any
    classes_: np.ndarray
    ndim_: int
    channel_axis_: int | None
    ignore_label_: int | None
    nodata_: int | None
    prior_factors_: np.ndarray | None
    n_channels_in_: int
    n_features_: int
    n_pixels_per_class_: np.ndarray

    def predict(
        self, X: ArrayLike, *, mask: ArrayLike | None = None, exact: bool = False
    ) -> np.ndarray | list[np.ndarray]:
        """Return the label of every pixel.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.
        mask : array_like of bool or list of array_like, default=None
            True where a pixel holds data, for each image; if the classifier was fitted with `nodata`.
        exact : bool, default=False
            Whether to ask the classifier itself where a student of `distill` would answer.

        Returns
        -------
        labels : ndarray of shape (*spatial) or (n_images, *spatial), or list of ndarray
            In the form of `X` and the dtype of `classes_`.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        return self._respond(X, mask, "predict", exact)

    @available_if(classifier_has("predict_proba"))
    def predict_proba(
        self, X: ArrayLike, *, mask: ArrayLike | None = None, exact: bool = False
    ) -> np.ndarray | list[np.ndarray]:
        """Return the probability of every class at every pixel.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.
        mask : array_like of bool or list of array_like, default=None
            True where a pixel holds data, for each image; if the classifier was fitted with `nodata`.
        exact : bool, default=False
            As for :meth:`predict`.

        Returns
        -------
        probabilities : ndarray of shape (*spatial, n_classes), with (n_images,) in front for a batch, or list
            float32, in the form of `X` and the order of `classes_`.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        return self._respond(X, mask, "predict_proba", exact)

    @available_if(classifier_has("predict_proba"))
    def predict_entropy(
        self, X: ArrayLike, *, mask: ArrayLike | None = None, exact: bool = False
    ) -> np.ndarray | list[np.ndarray]:
        """Return how unsure every pixel is: where the next label would tell most.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.
        mask : array_like of bool or list of array_like, default=None
            True where a pixel holds data, for each image; if the classifier was fitted with `nodata`.
        exact : bool, default=False
            As for :meth:`predict`.

        Returns
        -------
        entropy : ndarray of shape (*spatial) or (n_images, *spatial), or list of ndarray
            ``-sum(p * log2(p))`` over the classes, in bits: 0 where one class is sure, ``log2(n_classes)`` where all
            are alike; float32, in the form of `X`.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.

        References
        ----------
        .. [1] B. Settles, "Active learning literature survey", University of Wisconsin-Madison, 2009.
        """
        return self._respond(X, mask, "predict_entropy", exact)

    @available_if(classifier_has("predict_proba"))
    def suggest_pixels(
        self, X: ArrayLike, n: int = 10, *, mask: ArrayLike | None = None, exact: bool = False
    ) -> np.ndarray | list[np.ndarray]:
        """Return pixels to label next: where the classifier is least sure, spread over the image.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.
        n : int, default=10
            Number of pixels of each image.
        mask : array_like of bool or list of array_like, default=None
            True where a pixel holds data, for each image; if the classifier was fitted with `nodata`.
        exact : bool, default=False
            As for :meth:`predict`.

        Returns
        -------
        pixels : ndarray of int of shape (n, ndim), or list of ndarray for a batch or a list
            Peaks of :meth:`predict_entropy`, a little smoothed so that a pixel stands for its surroundings, the least
            sure first. Fewer than `n` where an image has no more of them, none where the classifier is sure of all.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        n = as_int(n, "n", 1)
        entropies = self.predict_entropy(X, mask=mask, exact=exact)
        if isinstance(entropies, np.ndarray) and entropies.ndim == self.ndim_:
            return spread_peaks(entropies, n)
        return [spread_peaks(entropy, n) for entropy in entropies]

    @available_if(classifier_has("decision_function"))
    def decision_function(self, X: ArrayLike, *, mask: ArrayLike | None = None) -> np.ndarray | list[np.ndarray]:
        """Return what the classifier's `decision_function` gives at every pixel, also with `distill`.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.
        mask : array_like of bool or list of array_like, default=None
            True where a pixel holds data, for each image; if the classifier was fitted with `nodata`.

        Returns
        -------
        scores : ndarray of shape (*spatial, n_classes), with (n_images,) in front for a batch, or list
            float32, in the form of `X`; of shape (*spatial) for two classes.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        return self._respond(X, mask, "decision_function", exact=True)

    def score(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, mask: ArrayLike | None = None
    ) -> float:
        """Return the share of labelled pixels that are predicted right.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images.
        y : array_like of int or list of array_like
            Label images in the form of `X`. Labels not seen at fit count as wrong, `ignore_label_` does not count.
        sample_weight : array_like or list of array_like, default=None
            A weight per pixel, in the form of `y`.
        mask : array_like of bool or list of array_like, default=None
            True where a pixel holds data, for each image; if the classifier was fitted with `nodata`.

        Returns
        -------
        accuracy : float

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        images = self._known_images(X, mask)
        labels = as_labels(y, images)
        weights = as_weights(sample_weight, images)
        masks = [with_label(*pair, self.ignore_label_) for pair in zip(images.arrays, labels, strict=True)]
        if not any(any_pixel(mask) for mask in masks):
            raise ValueError(no_label_message(self.ignore_label_))
        if weights is not None:
            check_weights(weights, masks)
        right, total = self._weigh_right(images, labels, masks, weights)
        return right / total

    def _weigh_right(
        self,
        images: Images,
        labels: list[Any],
        masks: list[Any],
        weights: list[Any] | None,
    ) -> tuple[float, float]:
        """Return the weight of the masked pixels that get their label, and the weight of all of them."""
        if self._needs_surroundings:
            predicted = [np.empty(shape, self.classes_.dtype) for shape in images.spatial_shapes]
            self._write("predict", images, False, predicted)
            return weigh_right_labels(predicted, labels, masks, weights)
        return weigh_right_pixels(
            self._features_seen(exact=False),
            images,
            self.channel_axis_,
            self._responder("predict", exact=False),
            labels,
            masks,
            weights,
            effective_n_jobs(self.n_jobs),
        )

    @property
    def _needs_surroundings(self) -> bool:
        """Whether a pixel's answer comes from what is answered around it, and not from its features alone."""
        return self.refine_ is not None

    @property
    def _n_columns(self) -> int:
        """Columns of the rows that the classifier answers for."""
        return self.n_features_

    def _features_seen(self, exact: bool) -> Any:
        """Return what computes the features from which answers are given."""
        return self.features_ if exact or self.student_ is None else self.student_features_

    def _responder(self, method: str, exact: bool) -> Respond:
        """Return what answers for rows of pixels: the classifier, or its student."""
        classifier = self.classifier_ if exact or self.student_ is None else self.student_
        if self.prior_factors_ is None or method == "decision_function":
            return response_of(classifier, method)
        return with_prior(response_of(classifier, "predict_proba"), self.prior_factors_, method, self.classes_)

    def _respond(self, X: ArrayLike, mask: Any, method: str, exact: bool) -> np.ndarray | list[np.ndarray]:
        """Return what `method` gives at every pixel."""
        check_bool(exact, "exact")
        images = self._known_images(X, mask)
        answer_shape = self._answer_shape(method, exact)
        dtype = self.classes_.dtype if method == "predict" else np.float32
        result, outputs = images.allocate([shape + answer_shape for shape in images.spatial_shapes], dtype)
        self._write(method, images, exact, outputs)
        for image, output in zip(images.arrays, outputs, strict=True):
            valid = valid_pixels(image)
            if valid is not None:
                blank(output, valid, self.nodata_ if method == "predict" else np.nan)
        return result

    def _answer_shape(self, method: str, exact: bool) -> tuple[int, ...]:
        """Return the shape of what `method` gives at one pixel."""
        if method == "decision_function":  # may have an axis of classes, of pairs, or none: one row tells
            return self._responder(method, exact)(np.zeros((1, self._n_columns), np.float32)).shape[1:]
        return (len(self.classes_),) if method == "predict_proba" else ()

    def _write(self, method: str, images: Images, exact: bool, outputs: list[np.ndarray]) -> None:
        """Write what `method` gives at every pixel to `outputs`, refined where it can be."""
        if self.refine_ is None or method == "decision_function":
            self._writer(method, exact)(images, outputs)
        else:
            write_refined(self.refine_, images, self.classes_, method, self._writer("predict_proba", exact), outputs)

    def _writer(self, method: str, exact: bool) -> Write:
        """Return what writes the classifier's answers for every pixel, for which it is compiled once."""
        features, respond = self._features_seen(exact), self._responder(method, exact)

        def write(images: Images, outputs: list[np.ndarray]) -> None:
            n_jobs, progress = effective_n_jobs(self.n_jobs), self._progress(method)
            respond_everywhere(features, images, self.channel_axis_, respond, outputs, n_jobs, progress)

        return write

    def _box_answers(self, method: str) -> BoxAnswers:
        """Return how labels or probabilities are given for boxes of one image."""
        if self.refine_ is None:
            return self._plain_box_answers(method)
        return refined_boxes(self.refine_, self._plain_box_answers("predict_proba"), self.classes_, method)

    def _plain_box_answers(self, method: str) -> BoxAnswers:
        """Return how they are given before they are refined."""
        answerers = everywhere(self._responder(method, exact=False))

        def write(reader: Reader, image: Any, box: Block, out: np.ndarray, n_jobs: int) -> None:
            answer_box(reader, 0, box, answerers, out, n_jobs)

        return BoxAnswers(halo_of(self._features_seen(exact=False), self.ndim_), write)

    def _progress(self, method: str) -> Callable[[int], Callable[[], None]]:
        """Return what makes a progress bar of a number of blocks."""
        return lambda n_blocks: progress_bar(f"[{type(self).__name__}] {method}", n_blocks, self.verbose)

    def _known_images(self, X: ArrayLike, mask: Any = None) -> Images:
        """Return images of the kind seen at fit."""
        check_is_fitted(self)
        self._check_verbose()
        images = fill_nodata(images_for(self.features_, X, self.ndim_, self.channel_axis_), mask, self.nodata_)
        check_n_channels(images, self.n_channels_in_, self)
        check_images(self.features_, images)
        return images

    def _check_verbose(self) -> None:
        if not isinstance(self.verbose, bool):
            as_int(self.verbose, "verbose", 0)
