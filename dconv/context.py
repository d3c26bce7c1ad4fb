"""A cascade of pixel classifiers, each of which sees what the one before it says around every pixel."""

from __future__ import annotations

from time import perf_counter
from typing import Any, NoReturn

import numpy as np

from dconv._axes import as_int
from dconv._block_features import Reader, learns_from_labels, spacing_of
from dconv._caller_warnings import warn_caller
from dconv._cascade_answers import Cascade
from dconv._context_bank import ContextFeatures
from dconv._folds import new_folds
from dconv._held_out import HeldOut
from dconv._held_out_features import HeldOutFeatures
from dconv._lesson import Lesson
from dconv._parts import check_may_look_ahead, check_probabilities
from dconv._pixels import Block
from dconv._prediction import Answerers, BoxAnswers, everywhere
from dconv._refinement import Write
from dconv._stages import Course, Stage
from dconv._threads import effective_n_jobs
from dconv._validation import Images
from dconv.segmentation import PixelClassifier

_MAX_STAGES = 4  # that "auto" goes to


class ContextClassifier(PixelClassifier):
    """Segment images by a cascade: a pixel classifier, and others that see its probabilities around every pixel.

    A pixel's own surroundings say little where an image is ambiguous; what has been made of them says more: a road
    goes on behind a tree, and a membrane closes. The first stage is a :class:`~dconv.PixelClassifier`. The second has
    the same features, and besides what an atrous bank sees in the probabilities of the first, and so on.

    Parameters
    ----------
    features : None, "passthrough" or transformer, default=None
        As for :class:`~dconv.PixelClassifier`; every stage sees these features.
    classifier : classifier or None, default=None
        Likewise, with `predict_proba`; every stage has a copy.
    n_stages : int or "auto", default=2
        Number of stages; 1 is a :class:`~dconv.PixelClassifier`. With "auto" stages are added, up to 4, as long as
        this makes the log loss smaller on labelled pixels that were held out (see Notes).
    cv : int, default=3
        Number of folds that labelled pixels are dealt to. A stage must not learn from what the one before says of
        pixels that this knows already, as it would trust it too much; so it is told what models learnt from the other
        folds say, and of features that learn from labels, such as :class:`dconv.AtrousContext`, sees those that learnt
        from the other folds. Folds are of whole images; if there is one, or a class is in one alone, of cells of a
        grid.
    ignore_label, max_samples, sample, class_prior, nodata, ndim, channel_axis, distill, refine, n_jobs
        As for :class:`~dconv.PixelClassifier`. With `distill` every stage has a student; `refine` and `class_prior`
        follow the last.
    random_state, verbose
        As for :class:`~dconv.PixelClassifier`.

    Attributes
    ----------
    stages_ : list of (classifier, student, agreement)
        The fitted classifier of each stage, fitted on all labelled pixels; its student, if there is one, and how far
        that agrees with it, given the same context.
    n_stages_ : int
        Number of stages.
    classifier_, student_ : classifier, Pipeline or None
        Those of the last stage. Its rows are a pixel's features and then its context.
    distillation_agreement_ : Agreement or None
        That of the stage whose student agrees least.
    n_context_features_ : int
        Features per pixel that stages after the first have besides `n_features_`.
    classes_, features_, refine_, n_features_, n_channels_in_, ndim_, channel_axis_, ignore_label_, nodata_
        As for :class:`~dconv.PixelClassifier`.
    n_pixels_per_class_ : ndarray of int of shape (n_classes,)
        As for :class:`~dconv.PixelClassifier`.
    prior_factors_ : ndarray of shape (n_classes,) or None
        As for :class:`~dconv.PixelClassifier`.

    See Also
    --------
    dconv.PixelClassifier : One stage: several times as fast, and mostly less accurate.

    Notes
    -----
    This is autocontext [1]_ with features for context. For two classes these are the levels of the probability of the
    second class and, at each of five levels, its neighbours at the level's dilation, gradient, Hessian, standard
    deviation, extrema and lines, as :class:`~dconv.AtrousFeatures` has them, and of two levels more the neighbours at
    distances of 32 and 64 pixels; for more classes, of each its probability, three smooth levels of it and the
    neighbours of three at distances of 8, 32 and 64 pixels. Images may be smaller. In 3-D there are three levels and
    none more, and distances of 4 and 8 pixels.

    `fit` takes the time of predicting all labelled images and of fitting `cv` + 1 classifiers per stage, and where
    features learn from labels, of `cv` + 2 times the features of labelled pixels, of twice `cv` + 1 times where folds
    are of cells; `predict` takes about `n_stages` times as long as one stage does. Memory stays bounded: probabilities
    between stages are those of 4 million pixels and what lies around them, for each thread.

    What is held out from a stage after the first had a small part in it: the stage learnt from context, and from
    features if they learn from labels, that models made which did know it. So "auto", which also has to judge by models
    that know fewer images, may stop earlier than it should for other images. Whole cascades are judged by
    ``GridSearchCV(ContextClassifier(), {"n_stages": [1, 2]}, cv=KFold(3))``.

    Where the features have a `spacing`, as :class:`~dconv.AtrousFeatures` may, the context has it too.

    There is no `partial_fit`: a stage can only learn when the one before it has learnt all.

    References
    ----------
    .. [1] Z. Tu and X. Bai, "Auto-context and its application to high-level vision tasks and 3D brain image
       segmentation", IEEE Transactions on Pattern Analysis and Machine Intelligence 32(10), 2010.
       doi:10.1109/TPAMI.2009.186

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import AtrousFeatures, ContextClassifier
    >>> noise = np.random.default_rng(0).normal(size=(64, 64))
    >>> image = noise + (np.arange(64) >= 32)
    >>> scribbles = np.zeros((64, 64), int)
    >>> scribbles[4:60:4, 2:30], scribbles[4:60:4, 34:62] = 1, 2
    >>> segmenter = ContextClassifier(AtrousFeatures(3), random_state=0).fit(image, scribbles)
    >>> segmenter.predict(image)[32, [0, 20, 40, 63]]
    array([1, 1, 2, 2])
    >>> segmenter.n_stages_, segmenter.n_features_, segmenter.n_context_features_
    (2, 40, 108)
    """

    def __init__(
        self,
        features: Any = None,
        classifier: Any = None,
        *,
        n_stages: int | str = 2,
        cv: int = 3,
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
        super().__init__(
            features,
            classifier,
            ignore_label=ignore_label,
            max_samples=max_samples,
            sample=sample,
            class_prior=class_prior,
            nodata=nodata,
            ndim=ndim,
            channel_axis=channel_axis,
            distill=distill,
            refine=refine,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.n_stages = n_stages
        self.cv = cv

    @property
    def partial_fit(self) -> NoReturn:  # type: ignore[override]
        """Not there."""
        raise AttributeError(
            f"{type(self).__name__} has no partial_fit, as a stage can only learn when the one before it has learnt "
            "all; call fit with all images"
        )

    def _check_parts(self, features: Any, classifier: Any) -> None:
        if self._most_stages() > 1:
            check_may_look_ahead(features, "the second stage of a cascade")
            as_int(self.cv, "cv", 2)
            check_probabilities(classifier, "the stages of a cascade need a classifier with probabilities")

    def _most_stages(self) -> int:
        """Return how many stages there may be."""
        if isinstance(self.n_stages, str):
            if self.n_stages == "auto":
                return _MAX_STAGES
            raise ValueError(f'n_stages must be "auto" or an int, got {self.n_stages!r}')
        return as_int(self.n_stages, "n_stages", 1, rule='"auto" or an int')

    def _fit_stages(self, course: Course) -> list[Stage]:
        """Return stages, each fitted on all labelled pixels, in the context of models that do not know them."""
        lesson, practice = course.lesson, course.practice
        automatic, most = self.n_stages == "auto", self._most_stages()
        if most == 1:
            return super()._fit_stages(course)
        weights = next(iter(lesson.weighting.values()), None)
        folds = new_folds(lesson.masks, lesson.targets, weights, as_int(self.cv, "cv"))
        if folds is None:
            self._warn_of_no_folds(automatic)
            if automatic:
                return super()._fit_stages(course)
        n_classes = len(np.unique(lesson.targets))
        context = ContextFeatures(lesson.images.n_axes, n_classes, spacing_of(course.features))
        held_features, own_rows = None, course.rows
        if folds is not None and learns_from_labels(course.features):
            start = perf_counter()
            held_features = HeldOutFeatures(course, folds)
            own_rows = held_features.rows()
            self._say(f"features held out in {folds.n_folds} folds: {perf_counter() - start:.2f} s")
        features = course.features if held_features is None else held_features
        rows, practice_rows = own_rows, None if practice is None else practice.rows
        stages: list[Stage] = []
        before: list[Answerers] = []  # each stage as the next one is to see it
        least = np.inf
        for number in range(1, most + 1):
            first = number == 1
            held_out = None
            if folds is not None and (automatic or number < most):
                held_out = HeldOut(course, rows, folds, held_features if first else None)
            if automatic and held_out is not None:
                loss = held_out.log_loss(rows, lesson.targets, weights)
                self._say(f"stage {number}: log loss {loss:.4f} on what was held out")
                if loss >= least:
                    break
                least = loss
            # The first stage is better on other images with features that know its labels: it is surer of them. Those
            # after it see them as those of other images will be.
            taught = self._taught(course, course.rows if first else rows)
            stages.append(self._new_stage(course, taught, practice_rows))
            if number == most:
                break
            start = perf_counter()
            before.append(_answerers(stages[-1], exact=True) if held_out is None else held_out.answer)
            cascade = Cascade(features, lesson.images, course.channel_axis, before, context, course.n_jobs)
            rows = np.hstack([own_rows, cascade.gather_context(lesson.masks)])
            self._say(f"{context.n_features_out_} features of context: {perf_counter() - start:.2f} s")
            if practice is not None:
                students = [_answerers(stage, exact=False) for stage in stages]
                parts = [
                    cascade._replace(features=course.features, images=images, stages=students).gather_context(masks)
                    for images, masks in zip(practice.groups, practice.masks, strict=True)
                ]
                practice_rows = np.hstack([practice.rows, np.concatenate(parts)])
        return stages if len(stages) > 1 else [self._only_stage(course, stages[0].classifier)]

    def _warn_of_no_folds(self, automatic: bool) -> None:
        doing = "there is one stage" if automatic else "stages learn from what others say of pixels that they know"
        warn_caller(
            "labelled pixels cannot be dealt to folds such that every class is in two of them, so "
            f"{doing}; label more pixels of each class, in more places or images, or use PixelClassifier"
        )

    def _keep(self, features: Any, stages: list[Stage], refine: Any, lesson: Lesson, *others: Any) -> None:
        super()._keep(features, stages, refine, lesson, *others)
        self.stages_, self.n_stages_ = stages, len(stages)
        self._context = ContextFeatures(lesson.images.n_axes, len(self.classes_), spacing_of(features))
        self.n_context_features_ = self._context.n_features_out_
        agreements = [stage.agreement for stage in stages if stage.agreement is not None]
        self.distillation_agreement_ = min(agreements, default=None)

    @property
    def _needs_surroundings(self) -> bool:
        return self.n_stages_ > 1 or super()._needs_surroundings

    @property
    def _n_columns(self) -> int:
        return self.n_features_ + (self.n_context_features_ if self.n_stages_ > 1 else 0)

    def _writer(self, method: str, exact: bool) -> Write:
        if self.n_stages_ == 1:
            return super()._writer(method, exact)
        stages = self._answering_stages(method, exact)

        def write(images: Images, outputs: list[np.ndarray]) -> None:
            n_jobs = effective_n_jobs(self.n_jobs)
            cascade = Cascade(self.features_, images, self.channel_axis_, stages, self._context, n_jobs)
            cascade.write(outputs, self._progress(method))

        return write

    def _plain_box_answers(self, method: str) -> BoxAnswers:
        alone = super()._plain_box_answers(method)
        if self.n_stages_ == 1:
            return alone
        stages = self._answering_stages(method, exact=False)

        def write(reader: Reader, image: Any, box: Block, out: np.ndarray, n_jobs: int) -> None:
            images = Images([image], "image")
            cascade = Cascade(self.features_, images, self.channel_axis_, stages, self._context, n_jobs)
            cascade.answer(reader, 0, box, out, n_jobs, lambda: None)

        further = len(stages) - 1
        pairs = zip(alone.margin, self._context.halo_, strict=True)
        return BoxAnswers(tuple((a + further * c, b + further * d) for (a, b), (c, d) in pairs), write)

    def _answering_stages(self, method: str, exact: bool) -> list[Answerers]:
        """Return the stages that answer one after another, the last of them with `method`."""
        stages = [_answerers(stage, exact) for stage in self.stages_[:-1]]
        return [*stages, everywhere(self._responder(method, exact))]


def _answerers(stage: Stage, exact: bool) -> Answerers:
    """Return who says the probabilities of a stage that the next one sees."""
    return everywhere(stage.responder("predict_proba", exact))
