"""Pixel classification: features of images, a classifier, and label images in and out."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if

from dconv._base import ImageInput
from dconv._block_features import check_images, fit_features
from dconv._distillation import as_distill, distill, draw_practice, trusted, unlabeled_images, warn_of_disagreement
from dconv._feature_cache import FeatureCache
from dconv._lesson import Lesson, check_nodata, check_two_classes, new_lesson
from dconv._nodata import as_nodata
from dconv._parts import check_probabilities, new_classifier, new_features
from dconv._pixel_answers import PixelAnswers, classifier_has
from dconv._pixels import Rules, as_ignore_label, as_max_samples, as_sample
from dconv._priors import check_class_prior
from dconv._random_state import as_random_state
from dconv._refinement import fitted_refine, new_refine
from dconv._stages import Course, Stage
from dconv._threads import effective_n_jobs
from dconv._validation import check_n_channels
from dconv.context_features import AtrousContext
from dconv.voting import are_many, parameters_for


class PixelClassifier(PixelAnswers, ImageInput, ClassifierMixin, BaseEstimator):
    """Segment images: a classifier that learns from labelled pixels and labels every pixel.

    Features are computed block by block, with what lies around each block, and never for a whole image: at fit
    only where there are labels, at predict on `n_jobs` threads straight into the result.

    Parameters
    ----------
    features : None, "passthrough" or transformer, default=None
        Turns images into feature images (*spatial, n_features). None is ``AtrousFeatures(normalize="auto")``, and of
        10,000 labelled pixels or more, but of series, without weights, :class:`~dconv.AtrousContext` of that: also
        what a small perceptron says around every pixel; where `partial_fit` comes first, the bank alone.
        "passthrough" means that `X` are feature images already, as in the last step of a Pipeline whose
        transformers return them. A transformer from outside dconv is applied to one whole image at a time.
    classifier : classifier or None, default=None
        Any scikit-learn classifier, or Pipeline that ends in one, on rows of pixels. None is
        :func:`~dconv.default_classifier`: the mean of extra trees and a perceptron, of volumes with few labels and a
        discriminant too, or of 10,000 labelled pixels or more one of them alone, if it is better on images, or of a
        single one regions, that it has not learnt from. A classifier whose `fit` takes `groups` is told them.
    ignore_label : int or None, default=0
        The value in `y` that means "not labelled"; None if every pixel is.
    max_samples : int or None, default=None
        At most so many pixels of each class of each image are learnt from, drawn at random; None takes all.
    sample : {"balanced", "stratified"}, default="balanced"
        How `max_samples` are drawn. "balanced": of every class as many, as far as there are. "stratified": each class
        in proportion to its labelled pixels in the image, and all together `max_samples` times the number of classes.
    class_prior : None, "balanced", "data" or array_like of shape (n_classes,), default=None
        How frequent classes are where labels are predicted. Labelled pixels say otherwise where few were chosen of
        each class, and probabilities are as if it were so; they are corrected by Bayes' rule. "balanced": all alike;
        "data": as in all pixels labelled, before `max_samples`; an array: so. None corrects nothing.
        `decision_function` stays the classifier's.
    nodata : int or None, default=None
        The label that pixels without data get. With it images may hold pixels that are NaN, in any channel, or that
        `mask` leaves out: nothing is learnt there, `predict` gives `nodata` and other answers are NaN. Features beside
        them see what normalized convolution fills in. None: every pixel holds data, and NaN is an error.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images. With "passthrough" None means -1.
        `ndim` and `channel_axis` may be given here or in `features`: what is not at its default there or here
        holds for both.
    n_jobs : int or None, default=None
        Number of threads. None and -1 are as many as there are physical cores for this process, or what
        ``OMP_NUM_THREADS`` says, as in joblib's worker processes; 1 in joblib's threads. Also for `features` if it
        does not say.
    distill : bool or "auto", default=False
        Whether `fit` also trains a small network, the student, to answer as the classifier does, on pixels of the
        images whether labelled or not, and predictions are the student's: much faster, and on most images as good.
        Of AtrousFeatures in 2-D it does without those that cost most, if it can: see `student_features_`. It takes some
        seconds more in `fit`. With "auto" predictions stay the classifier's if the student agrees with
        it on less than 95 % of the pixels that it did not learn from; with True there is a warning.
    refine : DenseCRF or None, default=None
        A fully connected CRF that pulls probabilities, and with them labels and entropies, to the edges of each image
        as a whole. `ndim` and `channel_axis` are set in its copy, and `n_jobs` and `color_sigma`, from the images of
        `fit`, if it does not say.
        `decision_function` stays the classifier's.
    random_state : int, RandomState instance or None, default=None
        Draws the pixels of `max_samples` and `distill`, and seeds the default classifier and the student; a given
        `classifier` keeps its own.
    verbose : int or bool, default=0
        1 prints what `fit` learns from and how long it takes, and shows a progress bar for predictions of more than two
        seconds, that of tqdm if it is installed.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels seen at fit.
    n_pixels_per_class_ : ndarray of int of shape (n_classes,)
        How many pixels of each class were learnt from, by all calls of `partial_fit` together.
    classifier_ : classifier
        The fitted classifier.
    student_ : Pipeline or None
        The network that predicts in place of the classifier, if there is one.
    student_features_ : transformer or "passthrough"
        The transformer whose features it sees: of AtrousFeatures in 2-D all but structure tensor and lines, which take
        most of their time, unless that makes it agree with the classifier on less than 95 % of pixels and clearly less
        than with all; else `features_`.
    distillation_agreement_ : Agreement or None
        The share of `labels` that student and classifier agree on, and the mean absolute difference of their
        `probabilities`, on pixels that the student did not learn from; None without `distill`.
    refine_ : DenseCRF or None
        The CRF in use.
    features_ : transformer or "passthrough"
        The fitted transformer.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_ : int
        Features per pixel.
    prior_factors_ : ndarray of shape (n_classes,) or None
        What `class_prior` multiplies probabilities with, before they are made to sum to 1.
    ndim_, channel_axis_, ignore_label_, nodata_ : int, int or None, int or None, int or None
        These parameters as in force at fit; changes take effect at the next `fit`.

    See Also
    --------
    dconv.AtrousFeatures, dconv.AtrousContext : The default features, of few labels and of many.
    dconv.DenseCRF : What `refine` takes.
    dconv.metrics.mean_iou_score : A score for segmentations.

    Notes
    -----
    Wherever the blocks are cut and however many threads run, every pixel has the same features to the last bit, and
    so the same result, as far as the classifier itself does not depend on how many rows it is given at once: forests
    and other trees do not; those that multiply matrices with BLAS do up to rounding.

    Images may be larger than memory, and many: of those that are read when they are sliced, or that callables return,
    `fit` holds no more than the features of some blocks and of the labelled pixels, and their labels. So it does of
    their label images, masks and weights. They are read several times: from top to bottom for what is to be known of
    them as a whole, labels likewise, and then around the labels. A callable, such as ``lambda: imread(path)``, must
    return the same image whenever it is called; what it returns is held while it is worked on, with one more. To
    `predict` such images fills arrays in memory; :func:`dconv.predict_blocks` writes elsewhere. The exceptions that are
    given whole images are `refine`, and transformers from outside dconv, which are fitted to all of them together.

    The features of labelled pixels, up to 64 MiB, are kept from one `fit` to the next of the same object: fitting again
    with a few more scribbles on the same images computes those of the new pixels only, if they are in memory, and if
    features do not learn from labels, as those of :class:`dconv.AtrousContext` do.

    XGBoost's classifier takes no labels but 0, 1, ...: give it such, and pass ``ignore_label=-1``.

    To search over ``features__n_levels`` or ``classifier__max_leaf_nodes`` give these parts: None has no parameters.
    Cross-validation splits a batch or list into images. Give it a splitter such as ``KFold(3)`` or ``GroupKFold(3)``:
    with ``cv=3`` scikit-learn looks for classes in `y` first, and NumPy then fails on a list of label images of one
    height and several widths.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import PixelClassifier
    >>> image = np.random.default_rng(0).normal(size=(64, 64))
    >>> image[:, 32:] += 5
    >>> scribbles = np.zeros((64, 64), int)
    >>> scribbles[10:50, 10], scribbles[10:50, 50] = 1, 2
    >>> segmenter = PixelClassifier(random_state=0).fit(image, scribbles)
    >>> segmenter.predict(image)[32, [0, 20, 40, 63]]
    array([1, 1, 2, 2])
    """

    def __init__(
        self,
        features: Any = None,
        classifier: Any = None,
        *,
        ignore_label: int | None = 0,
        max_samples: int | None = None,
        sample: str = "balanced",
        class_prior: Any = None,
        nodata: int | None = None,
        ndim: int = 2,
        channel_axis: int | None = None,
        distill: bool | str = False,
        refine: Any = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.features = features
        self.classifier = classifier
        self.ignore_label = ignore_label
        self.max_samples = max_samples
        self.sample = sample
        self.class_prior = class_prior
        self.nodata = nodata
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.distill = distill
        self.refine = refine
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        X_unlabeled: ArrayLike | None = None,
    ) -> Self:
        """Learn from the labelled pixels of one or several images.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers. An image that slices but is no NumPy array, as
            of Zarr, HDF5 or dask, and one that a callable without arguments returns, is read piece by piece.
        y : array_like of int or list of array_like
            A label image of the spatial shape of each image, in the same form as `X`; likewise.
        sample_weight : array_like or list of array_like, default=None
            A weight per pixel, in the form of `y`, passed on to the classifier.
        mask : array_like of bool or list of array_like, default=None
            True where a pixel holds data, in the form of `y`; with `nodata` only.
        X_unlabeled : array_like or list of array_like, default=None
            More images, without labels, for the student of `distill` to learn from: best such as will be predicted.
            Of pixels without data only those that are NaN are known.

        Returns
        -------
        self : PixelClassifier

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        n_jobs = effective_n_jobs(self.n_jobs)
        random_state = as_random_state(self.random_state)
        rules = self._rules()
        self._check_verbose()
        features, ndim, channel_axis = new_features(self.features, self.ndim, self.channel_axis, self.n_jobs)
        classifier = new_classifier(self.classifier, ndim, random_state, n_jobs)
        if rules.class_prior is not None:
            check_probabilities(classifier, "class_prior needs a classifier with probabilities")
        lesson = new_lesson(X, y, sample_weight, mask, features, classifier, ndim, channel_axis, rules, random_state)
        check_two_classes(lesson.targets, rules.ignore_label)
        if self.classifier is None:
            classifier.set_params(**parameters_for(len(lesson.targets), ndim))
        features = self._suited(features, lesson, random_state)
        images = lesson.images
        with_student = as_distill(self.distill, classifier)
        self._check_parts(features, classifier)
        refine = new_refine(self.refine, features, classifier, ndim, self.n_jobs)
        unlabeled = unlabeled_images(self.distill, features, X_unlabeled, images, ndim, channel_axis, rules.nodata)
        self._say(str(lesson))

        start = perf_counter()
        fit_features(features, X, images, channel_axis, lesson.masks, lesson.targets)
        if unlabeled is not None:
            check_images(features, unlabeled)
        rows = self._cache().gather(features, images, channel_axis, lesson.masks, n_jobs)
        self._say(f"{rows.shape[1]} features of {rows.shape[0]} pixels: {perf_counter() - start:.2f} s")
        practice = None
        if with_student:
            sources = [images] if unlabeled is None else [images, unlabeled]
            practice = draw_practice(features, sources, channel_axis, random_state, n_jobs)
        course = Course(lesson, features, rows, channel_axis, classifier, practice, random_state, n_jobs)
        stages = self._fit_stages(course)
        warn_of_disagreement(self.distill, [stage.agreement for stage in stages if stage.agreement is not None])
        self._keep(features, stages, fitted_refine(refine, images), lesson, ndim, channel_axis, rules, rows.shape[1])
        return self

    @available_if(classifier_has("partial_fit"))
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Go on learning, from the labelled pixels of more images or more labels of the same.

        The first call, where there was no `fit`, begins. A student of `distill` is dropped, as its teacher moves on.
        Of a Pipeline the last step goes on; the scalers in front stay as the first call, or `fit`, has fitted them.

        So scribbles are added to an image while someone waits: `fit` once, then call this with all scribbles of the
        image, old and new. The default classifier keeps its choice, fits all anew but its perceptron, which learns
        for an epoch (:meth:`dconv.AdaptiveVote.partial_fit`). Faster still is a pipeline of
        :class:`dconv.SoftClipScaler`, scikit-learn's StandardScaler and :class:`dconv.PerceptronClassifier`.

        Parameters
        ----------
        X, y, sample_weight, mask
            As for :meth:`fit`. Images of one class will do.
        classes : array_like of int, default=None
            All labels that will ever be learnt; only the first call looks at them, and None is those in its `y`.

        Returns
        -------
        self : PixelClassifier

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used, before any feature is computed.
        """
        random_state = as_random_state(self.random_state)
        rules = self._rules()
        self._check_verbose()
        if rules.class_prior is not None:
            raise ValueError(
                "class_prior needs to know how many pixels of each class have been learnt from, which partial_fit does "
                "not; pass class_prior=None and multiply probabilities yourself, or call fit with all images"
            )
        n_jobs = effective_n_jobs(self.n_jobs)
        goes_on = hasattr(self, "classifier_")
        if goes_on:
            classifier, features, ndim, channel_axis = self.classifier_, self.features_, self.ndim_, self.channel_axis_
            rules = rules._replace(ignore_label=self.ignore_label_, nodata=self.nodata_)
        else:
            features, ndim, channel_axis = new_features(self.features, self.ndim, self.channel_axis, self.n_jobs)
            classifier = new_classifier(self.classifier, ndim, random_state, n_jobs)
        lesson = new_lesson(X, y, sample_weight, mask, features, classifier, ndim, channel_axis, rules, random_state)
        images = lesson.images
        refine = new_refine(self.refine, features, classifier, ndim, self.n_jobs)
        labels = self.classes_ if goes_on else np.unique(lesson.targets if classes is None else classes)
        check_nodata(rules.nodata, np.asarray(labels))
        strangers = np.setdiff1d(lesson.targets, labels)
        if len(strangers):
            raise ValueError(f"y has labels {strangers.tolist()}, which are not among the classes {labels.tolist()}")
        if goes_on:
            check_n_channels(images, self.n_channels_in_, self)
            check_images(features, images)
        else:
            check_two_classes(labels, rules.ignore_label)
            fit_features(features, X, images, channel_axis, lesson.masks, lesson.targets)
        rows = self._cache().gather(features, images, channel_axis, lesson.masks, n_jobs)
        lesson.teach_more(classifier, rows, None if goes_on else np.asarray(labels))
        stages = [Stage(classifier)]
        before = getattr(self, "n_pixels_per_class_", 0) if goes_on else 0
        refine = fitted_refine(refine, images, self.refine_ if goes_on else None)
        self._keep(features, stages, refine, lesson, ndim, channel_axis, rules, rows.shape[1])
        self.n_pixels_per_class_ = self.n_pixels_per_class_ + before
        return self

    def _fit_stages(self, course: Course) -> list[Stage]:
        """Return what has been learnt; the last stage is what answers."""
        return [self._only_stage(course, self._taught(course, course.rows))]

    def _only_stage(self, course: Course, classifier: Any) -> Stage:
        """Return the stage of a fitted classifier that answers alone: its student may do without costly features."""
        cheaper = course.features._cheaper() if hasattr(course.features, "_cheaper") else None
        return self._new_stage(course, classifier, None if course.practice is None else course.practice.rows, cheaper)

    def _taught(self, course: Course, rows: np.ndarray) -> Any:
        """Return a classifier that has learnt from `rows`."""
        classifier = clone(course.classifier)
        start = perf_counter()
        course.lesson.teach(classifier, rows)
        self._say(f"{type(classifier).__name__} fitted: {perf_counter() - start:.2f} s")
        return classifier

    def _new_stage(
        self,
        course: Course,
        classifier: Any,
        practice_rows: np.ndarray | None,
        cheaper: tuple[Any, np.ndarray] | None = None,
    ) -> Stage:
        """Return the stage of a fitted classifier. Its student, if there is to be one, learns from `practice_rows`, or
        from those of their columns that a `cheaper` transformer gives.
        """
        if practice_rows is None:
            return Stage(classifier)
        start = perf_counter()
        features, columns = (None, None) if cheaper is None else cheaper
        student, agreement, frugal = distill(classifier, practice_rows, course.random_state, columns)
        self._say(f"student agrees on {agreement.labels:.1%} of pixels: {perf_counter() - start:.2f} s")
        student = trusted(self.distill, student, agreement)
        return Stage(classifier, student, agreement, features if frugal and student is not None else None)

    def _rules(self) -> Rules:
        """Return the checked parameters that say which pixels are learnt from."""
        check_class_prior(self.class_prior)
        return Rules(
            as_ignore_label(self.ignore_label),
            as_max_samples(self.max_samples),
            as_sample(self.sample),
            self.class_prior,
            as_nodata(self.nodata),
        )

    def _suited(self, features: Any, lesson: Lesson, random_state: np.random.RandomState) -> Any:
        """Return the transformer to fit: of the default one, what suits the labelled pixels."""
        # A first classifier has to learn from them too, which few do not teach it; it would not know their weights.
        # On series it has not been tried.
        if self.features is not None or features.ndim == 1 or not are_many(len(lesson.targets)) or lesson.weighting:
            return features
        seed = int(random_state.randint(np.iinfo(np.int32).max))
        where = {"ndim": features.ndim, "channel_axis": features.channel_axis}
        return AtrousContext(features, random_state=seed, **where, n_jobs=self.n_jobs)

    def _check_parts(self, features: Any, classifier: Any) -> None:
        """Check, before any work, that features and a classifier can be what a stage needs."""

    def _keep(
        self,
        features: Any,
        stages: list[Stage],
        refine: Any,
        lesson: Lesson,
        ndim: int,
        channel_axis: int | None,
        rules: Rules,
        n_features: int,
    ) -> None:
        """Set the fitted attributes, all at once: what fails before leaves those of the last fit."""
        self.classifier_, self.student_, self.distillation_agreement_, student_features = stages[-1]
        self.features_, self.classes_, self.refine_ = features, self.classifier_.classes_, refine
        self.student_features_ = features if student_features is None else student_features
        self.ndim_, self.channel_axis_ = ndim, channel_axis
        self.ignore_label_, self.nodata_ = rules.ignore_label, rules.nodata
        self.prior_factors_ = lesson.prior_factors
        self.n_pixels_per_class_ = np.array([np.count_nonzero(lesson.targets == label) for label in self.classes_])
        self.n_channels_in_, self.n_features_ = lesson.images.n_channels, n_features

    def _cache(self) -> FeatureCache:
        """Return the features kept from the last fit. They are neither cloned nor pickled."""
        return self.__dict__.setdefault("_feature_cache", FeatureCache())

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_feature_cache"}

    def _say(self, text: str) -> None:
        if self.verbose:
            print(f"[{type(self).__name__}] {text}")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.one_d_labels = False
        tags.target_tags.two_d_labels = True
        return tags
