"""Which features a pixel classifier needs: the importance of groups of them, and a smaller bank that does as well."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from dconv._axes import as_int, check_bool
from dconv._bank import Bank
from dconv._block_features import fit_features, gather_rows
from dconv._feature_groups import FEATURE_COST, GROUPS
from dconv._lesson import check_two_classes, groups_of, new_lesson
from dconv._parts import check_probabilities, new_classifier, new_features
from dconv._pixels import as_max_samples
from dconv._random_state import as_random_state
from dconv._responses import response_of
from dconv._threads import effective_n_jobs, scikit_learn_alone
from dconv.features import AtrousFeatures
from dconv.segmentation import PixelClassifier

KEYS = ("plane", "group", "scale")


class GroupImportance(NamedTuple):
    """How much worse predictions are without what groups of features tell, the most important first.

    Attributes
    ----------
    names : list of str
        Names of groups.
    mean, std : ndarray of shape (n_groups,)
        By how much the log loss grows, over repetitions.
    """

    names: list[str]
    mean: np.ndarray
    std: np.ndarray


def group_importance(
    estimator: PixelClassifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    by: str | Sequence[str] = "group",
    n_repeats: int = 5,
    max_samples: int | None = 1000,
    random_state: int | np.random.RandomState | None = None,
) -> GroupImportance:
    """Return how much a fitted pixel classifier needs each group of its features.

    All features of a group are shuffled together among labelled pixels, so that they tell nothing and yet fit each
    other [1]_. Shuffled one by one, as :func:`sklearn.inspection.permutation_importance` does, none of the features of
    a bank would matter, as each has neighbours that tell nearly the same.

    Parameters
    ----------
    estimator : PixelClassifier
        Fitted, with `predict_proba` and without `refine`. If it has a student, features are those that this sees.
    X, y : array_like or list of array_like
        Images and label images, best such as `estimator` has not learnt from.
    mask : array_like of bool or list of array_like, default=None
        True where a pixel holds data, for each image; if `estimator` has `nodata`.
    by : {"group", "scale", "plane"} or sequence of them, default="group"
        What features have in common that are shuffled together: the group of :class:`dconv.AtrousFeatures`, their
        dilation, or the plane that they are computed on; or several of these. Features of other transformers are
        groups of their own.
    n_repeats : int, default=5
        How often each group is shuffled.
    max_samples : int or None, default=1000
        At most so many pixels of each class of each image are looked at; None is all.
    random_state : int, RandomState instance or None, default=None
        Draws pixels, and shuffles.

    Returns
    -------
    importance : GroupImportance
        The most important group first.

    Raises
    ------
    NotFittedError
        If `estimator` is not fitted.
    TypeError, ValueError
        If an argument cannot be used.

    References
    ----------
    .. [1] L. Breiman, "Random forests", Machine Learning 45(1), 2001. doi:10.1023/A:1010933404324

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import AtrousFeatures, PixelClassifier, group_importance
    >>> image = np.random.default_rng(0).normal(size=(64, 64))
    >>> labels = np.where(image > 0, 2, 1)  # what matters is the pixel itself
    >>> model = PixelClassifier(AtrousFeatures(2), random_state=0).fit(image[:32], labels[:32])
    >>> group_importance(model, image[32:], labels[32:], by="scale", random_state=0).names[0]
    'd1'
    """
    _check_estimator(estimator)
    check_is_fitted(estimator)
    wanted = [by] if isinstance(by, str) or not isinstance(by, Sequence) else list(by)
    unknown = [name for name in wanted if not isinstance(name, str) or name not in KEYS]
    if unknown or not wanted:
        raise ValueError(f"by must be one or several of {', '.join(map(repr, KEYS))}, got {by!r}")
    n_repeats, rng = as_int(n_repeats, "n_repeats", 1), as_random_state(random_state)
    images = estimator._known_images(X, mask)
    rules = estimator._rules()._replace(
        ignore_label=estimator.ignore_label_,
        max_samples=as_max_samples(max_samples),
        sample="balanced",
        class_prior=None,
    )
    lesson = new_lesson(
        X, y, None, mask, estimator.features_, estimator.classifier_, estimator.ndim_, estimator.channel_axis_, rules,
        rng,
    )  # fmt: skip
    strangers = np.setdiff1d(lesson.targets, estimator.classes_)
    if len(strangers):
        raise ValueError(f"y has labels {strangers.tolist()}, which the classifier does not know")
    n_jobs = effective_n_jobs(estimator.n_jobs)
    features = estimator._features_seen(exact=False)
    rows = gather_rows(features, images, estimator.channel_axis_, lesson.masks, n_jobs)
    # Without `class_prior`: pixels are drawn from all classes alike.
    respond = response_of(estimator.student_ or estimator.classifier_, "predict_proba")

    def loss(rows: np.ndarray) -> float:
        return _log_loss(lesson.targets, respond(rows), estimator.classes_)

    columns: dict[str, list[int]] = {}
    for index, key in enumerate(_keys(features, rows.shape[1])):
        columns.setdefault("_".join(key[KEYS.index(name)] for name in wanted), []).append(index)
    plain, increases = loss(rows), {}
    for name, of_group in columns.items():
        shuffled = rows.copy()
        found = []
        for _ in range(n_repeats):
            shuffled[:, of_group] = rows[rng.permutation(len(rows))][:, of_group]
            found.append(loss(shuffled) - plain)
        increases[name] = np.array(found)
    order = sorted(increases, key=lambda name: -increases[name].mean())
    mean, std = (np.array([function(increases[name]) for name in order]) for function in (np.mean, np.std))
    return GroupImportance(order, mean, std)


class FeatureSelection(NamedTuple):
    """A smaller bank, and how it was found.

    Attributes
    ----------
    estimator : PixelClassifier
        Like the one given, with the smaller bank; not fitted. Where that had no features of its own, and labels are so
        many that it takes :class:`dconv.AtrousContext` of its bank, it has that of the smaller one.
    dropped : list of str
        What was left out, one after another.
    log_loss : list of float
        The log loss on held-out pixels, of the whole bank and after each that was left out.
    cost : list of float
        What the features and their classification take then, relative to the whole bank.
    """

    estimator: PixelClassifier
    dropped: list[str]
    log_loss: list[float]
    cost: list[float]


def select_features(
    estimator: PixelClassifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    cost_aware: bool = True,
    tolerance: float = 0.02,
    cv: int = 3,
    random_state: int | np.random.RandomState | None = None,
) -> FeatureSelection:
    """Return a pixel classifier with those groups and levels of its bank that pay.

    Groups, groups of colours and the coarsest level are left out one at a time, as long as the log loss on held-out
    images, or regions of a single one, stays within `tolerance` of the least so far, be it less than the whole bank's.

    Parameters
    ----------
    estimator : PixelClassifier
        Its features are an :class:`dconv.AtrousFeatures`, or None, and not several transformers together; its
        classifier has `predict_proba`.
    X, y : array_like or list of array_like
        Images and label images to learn from.
    mask : array_like of bool or list of array_like, default=None
        True where a pixel holds data, for each image; if `estimator` has `nodata`.
    cost_aware : bool, default=True
        Whether to leave out first what saves most time for what is lost, else what loses least.
    tolerance : float, default=0.02
        By which share the log loss may be above the least.
    cv : int, default=3
        Number of folds.
    random_state : int, RandomState instance or None, default=None
        Draws pixels and folds, and seeds the default classifier.

    Returns
    -------
    selection : FeatureSelection

    Raises
    ------
    TypeError, ValueError
        If an argument cannot be used, or labelled pixels cannot be dealt to folds.

    Notes
    -----
    Features are computed once: those of a smaller bank are some of those of the whole. A classifier is fitted `cv`
    times for each choice, some dozens of times in all: minutes, unless `max_samples` bounds the labelled pixels. The
    default classifier is always that for few pixels here, which is faster, and log losses are those without context.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from dconv import AtrousFeatures, PixelClassifier, select_features
    >>> image = np.random.default_rng(0).normal(size=(64, 64))
    >>> labels = np.where(image > 0, 2, 1)
    >>> model = PixelClassifier(AtrousFeatures(3), GaussianNB())
    >>> selection = select_features(model, image, labels, random_state=0)
    >>> selection.estimator.features.n_levels, "lines" in selection.dropped
    (1, True)
    """
    _check_estimator(estimator)
    check_bool(cost_aware, "cost_aware")
    if not isinstance(tolerance, int | float | np.number) or not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance must be a finite number, 0 or more, got {tolerance!r}")
    cv, rng = as_int(cv, "cv", 2), as_random_state(random_state)
    n_jobs = effective_n_jobs(estimator.n_jobs)
    features, ndim, channel_axis = new_features(
        estimator.features, estimator.ndim, estimator.channel_axis, estimator.n_jobs
    )
    classifier = new_classifier(estimator.classifier, ndim, rng, n_jobs)
    check_probabilities(classifier, "select_features needs a classifier with probabilities")
    if type(features) is not AtrousFeatures:
        raise TypeError(
            f"select_features chooses from the bank of AtrousFeatures, but features is {type(features).__name__}"
        )
    rules = estimator._rules()._replace(class_prior=None)
    lesson = new_lesson(X, y, None, mask, features, classifier, ndim, channel_axis, rules, rng)
    check_two_classes(lesson.targets, rules.ignore_label)
    fit_features(features, X, lesson.images, channel_axis)
    rows = gather_rows(features, lesson.images, channel_axis, lesson.masks, n_jobs)
    names = features.get_feature_names_out().tolist()
    judge = _Judge(classifier, rows, lesson.targets, groups_of(lesson.masks), cv, rng)

    def columns_of(bank: AtrousFeatures) -> list[int]:
        return [names.index(name) for name in _part_of(features._bank, bank).feature_names()]

    kept = _explicit(features)
    n_colors = sum(plane.name != "intensity" for plane in features._bank.planes)
    columns = columns_of(kept)
    losses, costs, dropped = [judge.loss(columns)], [_cost(kept, n_colors, len(columns))], []
    while True:
        choices = []
        for name, smaller in _smaller(kept):
            columns = columns_of(smaller)
            choices.append(_Choice(name, smaller, judge.loss(columns), _cost(smaller, n_colors, len(columns))))
        within = [choice for choice in choices if choice.loss <= min(losses) * (1 + tolerance)]
        if not within:
            break
        best = min(within, key=partial(_price, losses[-1], costs[-1], cost_aware))
        kept = best.bank
        losses.append(best.loss)
        costs.append(best.cost)
        dropped.append(best.dropped)
    smaller = clone(estimator).set_params(features=estimator._suited(kept, lesson, rng))
    return FeatureSelection(smaller, dropped, losses, [cost / costs[0] for cost in costs])


class _Choice(NamedTuple):
    """A bank with one thing less."""

    dropped: str
    bank: Any
    loss: float
    cost: float


def _price(loss: float, cost: float, cost_aware: bool, choice: _Choice) -> float:
    """Return what is lost from `loss` by a choice, for each unit that is saved from `cost`."""
    lost, saved = choice.loss - loss, cost - choice.cost
    if not cost_aware:
        return lost
    return lost / saved if lost > 0 else lost * saved


class _Judge:
    """The log loss of a classifier on held-out rows, of some columns."""

    def __init__(
        self, classifier: Any, rows: np.ndarray, targets: np.ndarray, groups: np.ndarray, cv: int, random_state: Any
    ) -> None:
        self.classifier, self.rows, self.targets, self.groups = classifier, rows, targets, groups
        self.classes = np.unique(targets)
        n_folds = min(cv, len(np.unique(groups)))
        seed = int(random_state.randint(np.iinfo(np.int32).max))
        self.folds = []
        if n_folds > 1:
            splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
            with scikit_learn_alone(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that a class has few rows, which is looked for
                self.folds = list(splitter.split(rows, targets, groups))
        if not self.folds or any(len(np.unique(targets[learnt])) < len(self.classes) for learnt, _ in self.folds):
            raise ValueError(
                "labelled pixels cannot be dealt to folds such that all others have every class: label each class in "
                "more places or images, or pass fewer folds as cv"
            )

    def loss(self, columns: list[int]) -> float:
        probabilities = np.empty((len(self.targets), len(self.classes)))
        with scikit_learn_alone():
            for learnt, held_out in self.folds:
                grouping = {"groups": self.groups[learnt]} if has_fit_parameter(self.classifier, "groups") else {}
                rows = self.rows[:, columns]
                fitted = clone(self.classifier).fit(rows[learnt], self.targets[learnt], **grouping)
                probabilities[held_out] = fitted.predict_proba(rows[held_out])
        return _log_loss(self.targets, probabilities, self.classes)


def _log_loss(targets: np.ndarray, probabilities: np.ndarray, classes: np.ndarray) -> float:
    probabilities = np.clip(probabilities.astype(np.float64), 1e-6, None)  # float32 rounds, and forests say 0
    with scikit_learn_alone():
        return float(log_loss(targets, probabilities / probabilities.sum(axis=1, keepdims=True), labels=classes))


def _explicit(features: Any) -> Any:
    """Return a fitted bank as one, not fitted, that names its groups."""
    planes = {plane.name: plane.groups for plane in features._bank.planes}
    colors = [groups for name, groups in planes.items() if name != "intensity"]
    return clone(features).set_params(
        groups=list(planes.get("intensity", ())), color_groups=list(colors[0]) if colors else []
    )


def _part_of(whole: Bank, wanted: Any) -> Bank:
    """Return what is left of a bank with the groups and levels of `wanted`."""
    planes = [
        plane._replace(
            groups=tuple(wanted.groups)
            if plane.name == "intensity"
            else tuple(group for group in wanted.color_groups if group in plane.groups)  # brightness has not all
        )
        for plane in whole.planes
    ]
    kept = tuple(plane for plane in planes if plane.groups or (plane.name == "intensity" and whole.filters is not None))
    return whole._replace(n_levels=wanted.n_levels, planes=kept)


def _smaller(bank: Any) -> list[tuple[str, Any]]:
    """Return banks with one thing less than `bank`, and what that is; a group of the intensity is always left."""
    found = []
    for group in bank.groups if len(bank.groups) > 1 else []:
        found.append((group, clone(bank).set_params(groups=[other for other in bank.groups if other != group])))
    last = not bank.groups and bank.filters is None and len(bank.color_groups) == 1  # something has to be left
    for group in [] if last else bank.color_groups:
        rest = [other for other in bank.color_groups if other != group]
        found.append((f"color {group}", clone(bank).set_params(color_groups=rest)))
    if bank.n_levels > 1:
        found.append((f"level {bank.n_levels - 1}", clone(bank).set_params(n_levels=bank.n_levels - 1)))
    return found


def _cost(bank: Any, n_colors: int, n_features: int) -> float:
    """Return about what a pixel takes, in the unit of `GROUPS`: features and their classification."""
    of_intensity = sum(GROUPS[name].cost for name in bank.groups)
    of_color = sum(GROUPS[name].cost for name in bank.color_groups)
    return bank.n_levels * (of_intensity + n_colors * of_color) + FEATURE_COST * n_features


def _keys(features: Any, n_features: int) -> list[tuple[str, str, str]]:
    """Return plane, group and scale of every feature; those of other transformers have their name alone."""
    if hasattr(features, "_feature_keys"):
        return features._feature_keys()
    if hasattr(features, "get_feature_names_out"):
        return [(name, name, name) for name in features.get_feature_names_out()]
    return [(f"feature_{index}",) * 3 for index in range(n_features)]


def _check_estimator(estimator: Any) -> None:
    if not isinstance(estimator, PixelClassifier) or getattr(estimator, "n_stages", 1) != 1:
        raise TypeError(f"estimator must be a PixelClassifier of one stage, got {estimator!r:.60}")
    if estimator.refine is not None:
        raise ValueError("estimator refines by a CRF, which sees more than features; pass refine=None")
