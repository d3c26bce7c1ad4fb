"""The default classifier: a forest, a perceptron and on volumes a discriminant that vote, as far as each helps."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_consistent_length, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from dconv._axes import as_int, as_ndim
from dconv._going_on import last_step, learn_more
from dconv._random_state import as_random_state
from dconv._row_classifier import RowClassifier
from dconv._sample_weight import weight_parameter
from dconv._threads import scikit_learn_alone
from dconv.discriminant import RegularizedDiscriminantAnalysis
from dconv.perceptron import PerceptronClassifier
from dconv.scaling import SoftClipScaler

_CLEARLY = 0.9  # of the mean's loss: what one member must do better than, as the mean does better on other images
# Few rows are of one image, or of a few, and what is held out of them is too like the rest to tell who is better on
# other images. Small trees are as good on them, and several times as fast: up to 64 leaves are bit vectors. A hundred
# large ones would take twice the time, which is most of predict's, for less than 0.001 of AP beside the perceptron.
_FEW_ROWS = {"n_folds": None, "forest__n_estimators": 100, "forest__max_leaf_nodes": 64, "forest__min_samples_leaf": 1}
_MANY_ROWS = {"n_folds": 2, "forest__n_estimators": 50, "forest__max_leaf_nodes": 1024, "forest__min_samples_leaf": 4}
_LEAST_MANY = 10_000
_MAX_TRIED = 20_000  # rows that the choice is made on: more make it no surer, as neighbouring pixels are alike


class AdaptiveVote(RowClassifier):
    """Classify by one of several members or by the mean of all, whichever is best on what it has not learnt from.

    With few labels a forest is the best classifier of features, with many a perceptron, and in between the mean of
    their probabilities. Which it is depends on the images too; so it is tried, on held-out groups. A member votes alone
    if its log-loss there is less than nine tenths of that of the mean.

    Parameters
    ----------
    forest, perceptron : classifier
        The members, any classifiers with `predict_proba`.
    discriminant : classifier or None, default=None
        A third member, or none.
    n_folds : int or None, default=2
        Number of folds, 2 or more. None tries nothing: all vote, fitted once, in a third of the time.
    random_state : int, RandomState instance or None, default=None
        Draws folds and the rows that the choice is made on; the members keep their own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels seen at fit.
    members_ : dict of str to classifier
        Those that vote, fitted: ``"forest"``, ``"perceptron"`` and, if there is one, ``"discriminant"``; or one alone.
    log_loss_ : dict of str to float, or None
        The log-loss of each member and of the ``"mean"`` on held-out rows. None if nothing was tried, also because no
        folds could be made that all know every class, as with one row of a class; then all vote.
    n_features_in_ : int
        Number of features seen at fit.

    See Also
    --------
    dconv.default_classifier : The members that images are best classified by.
    sklearn.ensemble.VotingClassifier : A vote without a choice.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from dconv import AdaptiveVote
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> vote = AdaptiveVote(DecisionTreeClassifier(min_samples_leaf=20), LogisticRegression(), random_state=0)
    >>> list(vote.fit(x, x.sum(axis=1) > 0).members_)  # a sum is hard for a tree
    ['perceptron']
    """

    def __init__(
        self,
        forest: Any,
        perceptron: Any,
        *,
        discriminant: Any = None,
        n_folds: int | None = 2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.forest = forest
        self.perceptron = perceptron
        self.discriminant = discriminant
        self.n_folds = n_folds
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, groups: ArrayLike | None = None
    ) -> Self:
        """Choose who votes, and fit them on all rows.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features.
        y : array_like of shape (n_samples,)
            Labels.
        sample_weight : array_like of shape (n_samples,), default=None
            Weights of rows.
        groups : array_like of shape (n_samples,), default=None
            Rows of one group are held out together: rows that are alike, such as those of one image.

        Returns
        -------
        self : AdaptiveVote

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter cannot be used.
        """
        n_folds = None if self.n_folds is None else as_int(self.n_folds, "n_folds", 2)
        random_state = as_random_state(self.random_state)
        members = self._checked_members()
        with scikit_learn_alone():
            rows, labels = validate_data(self, X, y)
            check_consistent_length(rows, groups)
            check_classification_targets(labels)
            classes = np.unique(labels)
            if len(classes) < 2:
                raise ValueError(f"y holds one class, {classes[0]}, but a classifier needs two")
            weights = None if sample_weight is None else _check_sample_weight(sample_weight, rows)
            losses = None
            if n_folds is not None:
                losses = _held_out_losses(members, rows, labels, weights, groups, n_folds, random_state)
            best = "mean" if losses is None else _best(losses)
            chosen = members if best == "mean" else {best: members[best]}
            self.members_ = {name: _fitted(member, rows, labels, weights) for name, member in chosen.items()}
        self.classes_, self.log_loss_ = classes, losses
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"discriminant": None, **state})  # of a file from before there was one

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, classes: ArrayLike | None = None
    ) -> Self:
        """Go on learning with the members that `fit` has chosen, which takes a fraction of its time.

        A member that has `partial_fit` goes on with it, a perceptron for an epoch; one that has not, as a forest, is
        fitted anew. So the rows should be all that there are, old and new. The first call is `fit`.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features.
        y : array_like of shape (n_samples,)
            Labels, each class at least once.
        sample_weight : array_like of shape (n_samples,), default=None
            Weights of rows.
        classes : array_like of shape (n_classes,), default=None
            All labels, which cannot change, if given.

        Returns
        -------
        self : AdaptiveVote

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter cannot be used.
        """
        first = not hasattr(self, "members_")
        wanted = np.unique(np.asarray(y) if classes is None else np.asarray(classes)) if first else self.classes_
        missing = np.setdiff1d(wanted if classes is None else np.union1d(wanted, np.asarray(classes)), np.asarray(y))
        if len(missing):
            raise ValueError(
                f"y has no row of {missing.tolist()}, but a forest is fitted anew and forgets classes that it is not "
                "given: pass all rows, old and new"
            )
        if first:
            return self.fit(X, y, sample_weight)
        members = self._checked_members()
        with scikit_learn_alone():
            rows, labels = validate_data(self, X, y, reset=False)
            strangers = np.setdiff1d(labels, self.classes_)
            if len(strangers):
                raise ValueError(f"y has labels {strangers.tolist()}, but {self.classes_.tolist()} at the first call")
            weights = None if sample_weight is None else _check_sample_weight(sample_weight, rows)
            self.members_ = {
                name: _gone_on(fitted, members.get(name, fitted), rows, labels, weights)
                for name, fitted in self.members_.items()
            }
        return self

    def _checked_members(self) -> dict[str, Any]:
        """Return who may vote, not fitted."""
        members = {"forest": self.forest, "perceptron": self.perceptron}
        if self.discriminant is not None:
            members["discriminant"] = self.discriminant
        for name, member in members.items():
            if inspect.isclass(member) or not all(hasattr(member, each) for each in ("get_params", "predict_proba")):
                raise TypeError(f"{name} must be a classifier with predict_proba, got {member!r:.60}")
        return members

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probabilities of classes.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            The mean of those of the members.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ValueError
            If the rows are no finite numbers, or have other features than at fit.
        """
        check_is_fitted(self)
        with scikit_learn_alone():
            rows = validate_data(self, X, reset=False)
            return np.mean([member.predict_proba(rows) for member in self.members_.values()], axis=0)


def default_classifier(
    *,
    n_rows: int | None = None,
    ndim: int = 2,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
) -> AdaptiveVote:
    """Return the classifier that :class:`dconv.PixelClassifier` uses if it is given none.

    Extra trees, and a perceptron of one layer of 64 units on softly clipped features, in a vote; of volumes with few
    labels a regularized discriminant besides.

    Parameters
    ----------
    n_rows : int or None, default=None
        Number of rows that it is to learn from, None if that is not known. With 10,000 rows or more there are 50 trees
        of at most 1024 leaves of 4 rows at least, and it is tried who votes. With less there are 100 of at most 64
        leaves, which is faster, and all vote.
    ndim : int, default=2
        Number of spatial axes of the images. With 3, and less than 10,000 rows, a
        :class:`~dconv.RegularizedDiscriminantAnalysis` votes too.
    random_state : int, RandomState instance or None, default=None
        Seeds trees, perceptron and folds.
    n_jobs : int or None, default=None
        Threads that trees are fitted on.

    Returns
    -------
    classifier : AdaptiveVote
        Not fitted.

    Raises
    ------
    TypeError, ValueError
        If an argument cannot be used.

    Examples
    --------
    >>> from dconv import default_classifier
    >>> default_classifier(random_state=0).forest.max_leaf_nodes
    64
    >>> default_classifier(n_rows=20_000, random_state=0).forest.max_leaf_nodes
    1024
    """
    n_rows = None if n_rows is None else as_int(n_rows, "n_rows", 1)
    ndim = as_ndim(ndim)
    seeds = as_random_state(random_state).randint(np.iinfo(np.int32).max, size=3)
    perceptron = PerceptronClassifier((64,), random_state=int(seeds[1]))
    vote = AdaptiveVote(
        ExtraTreesClassifier(100, n_jobs=n_jobs, random_state=int(seeds[0])),
        make_pipeline(SoftClipScaler(), StandardScaler(), perceptron),
        random_state=int(seeds[2]),
    )
    return vote.set_params(**parameters_for(n_rows, ndim))


def parameters_for(n_rows: int | None, ndim: int) -> dict[str, Any]:
    """Return the parameters of the default classifier that depend on the number of rows, None if that is not known, and
    on the rank of images.
    """
    many = are_many(n_rows)
    third = None
    if ndim == 3 and not many:
        third = make_pipeline(SoftClipScaler(), StandardScaler(), RegularizedDiscriminantAnalysis())
    return (_MANY_ROWS if many else _FEW_ROWS) | {"discriminant": third}


def are_many(n_rows: int | None) -> bool:
    """Tell whether so many rows, None if that is not known, teach what fewer cannot."""
    return n_rows is not None and n_rows >= _LEAST_MANY


def _best(losses: dict[str, float]) -> str:
    """Return who votes: the best member, if it clearly does better than the mean."""
    best = min((name for name in losses if name != "mean"), key=losses.__getitem__)
    return best if losses[best] < _CLEARLY * losses["mean"] else "mean"


def _fitted(member: Any, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> Any:
    """Return a fitted clone of a member."""
    member = clone(member)
    weighting = {} if weights is None else {weight_parameter(member): weights}
    # A layer of 64 units is too small for two threads of BLAS, which wait for each other.
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is a choice
        return member.fit(X, y, **weighting)


def _gone_on(fitted: Any, member: Any, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> Any:
    """Return a fitted member that has learnt more, or a clone of `member` fitted anew if it cannot."""
    if not hasattr(last_step(fitted), "partial_fit"):
        return _fitted(member, X, y, weights)
    with threadpool_limits(1, "blas"):
        learn_more(fitted, X, y, False, **({} if weights is None else {"sample_weight": weights}))
    return fitted


def _held_out_losses(
    members: dict[str, Any],
    X: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray | None,
    groups: Any,
    n_folds: int,
    random_state: np.random.RandomState,
) -> dict[str, float] | None:
    """Return the log-loss of each member and of the mean on held-out rows, or None where there are no folds."""
    rows = random_state.permutation(len(y))[:_MAX_TRIED]
    X, y, weights = X[rows], y[rows], None if weights is None else weights[rows]
    folds = list(_folds(X, y, None if groups is None else np.asarray(groups)[rows], n_folds, random_state))
    n_classes = len(np.unique(y))
    if not folds or any(len(np.unique(y[learnt])) < n_classes for learnt, _ in folds):
        return None
    found: dict[str, np.ndarray] = {name: np.empty((len(y), n_classes)) for name in members}
    for learnt, held_out in folds:
        for name, member in members.items():
            fitted = _fitted(member, X[learnt], y[learnt], None if weights is None else weights[learnt])
            probabilities = fitted.predict_proba(X[held_out]).astype(np.float64)
            found[name][held_out] = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32 does so roughly
    found["mean"] = np.mean(list(found.values()), axis=0)
    return {name: float(log_loss(y, each, sample_weight=weights)) for name, each in found.items()}


def _folds(
    X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, n_folds: int, random_state: np.random.RandomState
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows to learn from and rows held out; none if there are fewer groups, or rows of a class, than two."""
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    if groups is not None and (n_groups := len(np.unique(groups))) > 1:
        splitter: Any = StratifiedGroupKFold(min(n_folds, n_groups), shuffle=True, random_state=seed)
    else:
        n_rows = int(np.unique(y, return_counts=True)[1].min())
        if n_rows < 2:
            return
        splitter = StratifiedKFold(min(n_folds, n_rows), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class has fewer rows than folds, which is looked for
        yield from splitter.split(X, y, groups)
