"""Fitted classifiers compiled to functions of tiles, for prediction at the speed of the arithmetic.

A compiled classifier answers in float32 what the classifier itself does, to about 1e-6, for C-contiguous float32 rows.
Linear models, perceptrons and classifiers of normal distributions run on the micro-kernel of the convolutions, each
layer as a 1 x 1 convolution; scalers, projections and selections of features in front of them in a Pipeline are folded
into their first layer. Trees and ensembles of trees are walked by many pixels side by side. Calibrated, voting and
one-vs-rest classifiers and searches are compiled with their parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dconv import (
    _catboost_predictors,
    _composed_predictors,
    _gaussian_predictors,
    _lightgbm_predictors,
    _linear_predictors,
    _perceptron_predictors,
    _tree_predictors,
    _xgboost_predictors,
)
from dconv._predictor import NotCompilable, Predictor, Scorer

__all__ = ["NotCompilable", "Predictor", "Scorer", "compile_predictor", "compile_scorer", "predict"]

# What compiles a classifier of exactly this class: a subclass may have changed how it answers.
COMPILERS: dict[type, Callable[[Any], Predictor]] = {
    **_linear_predictors.COMPILERS,
    **_gaussian_predictors.COMPILERS,
    **_perceptron_predictors.COMPILERS,
    **_tree_predictors.COMPILERS,
}
SCORERS: dict[type, Callable[[Any], Scorer]] = {
    **_linear_predictors.SCORERS,
    **_gaussian_predictors.SCORERS,
    **_tree_predictors.SCORERS,
}
# The same for classes of libraries that are not imported here, by their full names.
COMPILERS_BY_NAME: dict[str, Callable[[Any], Predictor]] = {
    **_lightgbm_predictors.COMPILERS,
    **_xgboost_predictors.COMPILERS,
    **_catboost_predictors.COMPILERS,
}
SCORERS_BY_NAME: dict[str, Callable[[Any], Scorer]] = {**_lightgbm_predictors.SCORERS}


def compile_predictor(classifier: Any) -> Predictor:
    """Return the `predict_proba` of a fitted classifier as a function of tiles.

    Parameters
    ----------
    classifier : classifier
        Fitted, of scikit-learn or one of the libraries below. Later changes to it do not reach what is returned.

    Returns
    -------
    predictor : Predictor
        Has ``classes_``, ``n_features_in_`` and ``predict_proba(tile, out)``.

    Raises
    ------
    NotCompilable
        If there is no compiler for this class, which must be one of those below and not a subclass, or for what
        it was fitted to.
    NotFittedError
        If it is not fitted.

    See Also
    --------
    predict : Labels from what is compiled.
    compile_scorer : The same for `decision_function`.

    Notes
    -----
    Compiled are LogisticRegression and LogisticRegressionCV, SGDClassifier (with ``loss="log_loss"`` or
    ``"modified_huber"``), LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis, GaussianNB and MLPClassifier; a
    Pipeline of scalers (standard, robust, and without clipping min-max and max-abs), PCA, TruncatedSVD and selections
    of features that ends in one of these (in GaussianNB: without projections); DecisionTreeClassifier,
    ExtraTreeClassifier, RandomForestClassifier, ExtraTreesClassifier, GradientBoostingClassifier and
    HistGradientBoostingClassifier; LGBMClassifier, XGBClassifier, XGBRFClassifier and CatBoostClassifier;
    CalibratedClassifierCV with sigmoids, VotingClassifier with ``voting="soft"``, OneVsRestClassifier, GridSearchCV and
    RandomizedSearchCV of these.

    float32 has 7 digits: features are centred before they are multiplied, where a step of the Pipeline knows their
    means, and classifiers whose coefficients have no bound are computed in float64. What is not finite in a row stays
    in that row; nothing is checked.

    A row comes to the very leaves to which the classifier's own trees send it, also with missing values (NaN) and
    unknown categories. A Pipeline with a step that changes features in front of trees is not compiled, because a
    rounding could send a row elsewhere; :class:`dconv.PixelClassifier` asks the step itself and the compiled trees.

    LightGBM, XGBoost and CatBoost, which the extra ``dconv[boosters]`` installs, are read from the dumps that they
    document, and asked about 64 rows: who answers otherwise than the dump is not compiled. Neither are splits by
    categories, linear leaves, objectives of one's own, zeros that are missing, symmetric trees of more than 8 levels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from dconv.predictors import compile_predictor
    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]], np.float32)
    >>> classifier = LogisticRegression().fit(x, ["low", "low", "high", "high"])
    >>> predictor = compile_predictor(classifier)
    >>> probabilities = np.empty((4, 2), np.float32)
    >>> predictor.predict_proba(x, probabilities)
    >>> bool(np.abs(probabilities - classifier.predict_proba(x)).max() < 1e-6)
    True
    """
    check_is_fitted(classifier)
    return _compile(classifier, "predict_proba")


def compile_scorer(classifier: Any) -> Scorer:
    """Return the `decision_function` of a fitted classifier as a function of tiles.

    Parameters
    ----------
    classifier : classifier
        Fitted, of scikit-learn or one of the libraries below. Later changes to it do not reach what is returned.

    Returns
    -------
    scorer : Scorer
        Has ``classes_``, ``n_features_in_``, ``n_scores`` and ``decision_function(tile, out)``.

    Raises
    ------
    NotCompilable
        If there is no compiler for this class, which must be one of those below and not a subclass, or for what
        it was fitted to.
    NotFittedError
        If it is not fitted.

    See Also
    --------
    predict : Labels from what is compiled.
    compile_predictor : The same for `predict_proba`.

    Notes
    -----
    Compiled are the linear classifiers of :func:`compile_predictor` and those without probabilities: LinearSVC,
    RidgeClassifier and RidgeClassifierCV, Perceptron and SGDClassifier with any loss; QuadraticDiscriminantAnalysis;
    GradientBoostingClassifier and HistGradientBoostingClassifier; LGBMClassifier, of a version that has this method;
    OneVsRestClassifier, searches and a Pipeline of
    these.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from dconv.predictors import compile_scorer
    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]], np.float32)
    >>> scorer = compile_scorer(RidgeClassifier(alpha=0).fit(x, [0, 0, 1, 1]))
    >>> scores = np.empty((4, scorer.n_scores), np.float32)
    >>> scorer.decision_function(x, scores)
    >>> scores.ravel().round(2)
    array([-1.18, -0.71,  0.71,  1.18], dtype=float32)
    """
    check_is_fitted(classifier)
    return _compile(classifier, "decision_function")


def predict(compiled: Predictor | Scorer, tile: np.ndarray) -> np.ndarray:
    """Return the label of each row of a tile.

    Parameters
    ----------
    compiled : Predictor or Scorer
        What :func:`compile_predictor` or :func:`compile_scorer` gave.
    tile : ndarray of float32 of shape (n_pixels, n_features)
        C-contiguous.

    Returns
    -------
    labels : ndarray of shape (n_pixels,)
        In the dtype of ``compiled.classes_``.

    Raises
    ------
    TypeError
        If `compiled` is no such thing, or `tile` no array.
    ValueError
        If `tile` has another dtype, shape or layout.

    Notes
    -----
    The labels of a classifier that has a `decision_function` are those of its largest score: where several classes have
    a probability of almost 1 before they are normalised, as with one-vs-rest, the probabilities no longer tell.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.svm import LinearSVC
    >>> from dconv.predictors import compile_scorer, predict
    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]], np.float32)
    >>> classifier = LinearSVC().fit(x, ["low", "low", "high", "high"])
    >>> predict(compile_scorer(classifier), x)
    array(['low', 'low', 'high', 'high'], dtype='<U4')
    """
    if not hasattr(compiled, "classes_"):
        raise TypeError(f"compiled must be what compile_predictor or compile_scorer gave, got {compiled!r:.60}")
    if not isinstance(tile, np.ndarray) or tile.ndim != 2:
        raise TypeError(f"tile must be an array of shape (n_pixels, n_features), got {tile!r:.60}")
    return labels_of(compiled, answer_of(compiled, tile))


def labels_of(compiled: Predictor | Scorer, answer: np.ndarray) -> np.ndarray:
    """Return the labels that scores or probabilities stand for."""
    if answer.shape[1] == 1:
        largest = answer[:, 0] > 0
    elif answer.shape[1] == 2 and not np.isnan(answer).any():
        largest = answer[:, 1] > answer[:, 0]  # a tenth of the time of argmax, which is the answer for any numbers
    else:
        largest = answer.argmax(axis=1)
    return compiled.classes_.take(largest)


def answer_of(compiled: Predictor | Scorer, tile: np.ndarray) -> np.ndarray:
    """Return the scores of the rows of a tile, or the probabilities of what gives no scores."""
    # Asking isinstance of a protocol takes as long as a thousand rows.
    if hasattr(compiled, "decision_function"):
        scorer = cast(Scorer, compiled)
        answer = np.empty((len(tile), scorer.n_scores), np.float32)
        scorer.decision_function(tile, answer)
    else:
        answer = np.empty((len(tile), len(compiled.classes_)), np.float32)
        cast(Predictor, compiled).predict_proba(tile, answer)
    return answer


def compiled_or_none(classifier: Any, method: str) -> Predictor | Scorer | None:
    """Return what answers `method` of a fitted classifier ("predict" through :func:`predict`), None if nothing does."""
    methods = {"predict": ("decision_function", "predict_proba")}.get(method, (method,))
    for wanted in methods:
        if hasattr(classifier, wanted):
            try:
                return _compile(classifier, wanted)
            except NotCompilable:
                continue
    return None


def _compile(classifier: Any, method: str) -> Any:
    kind = type(classifier)
    if kind in _composed_predictors.COMPILERS:
        return _composed_predictors.COMPILERS[kind](classifier, method, _compile)
    with_probabilities = method == "predict_proba"
    compilers: dict[type, Callable[[Any], Any]] = COMPILERS if with_probabilities else SCORERS
    by_name: dict[str, Callable[[Any], Any]] = COMPILERS_BY_NAME if with_probabilities else SCORERS_BY_NAME
    compiler = compilers.get(kind) or by_name.get(f"{kind.__module__}.{kind.__qualname__}")
    if compiler is None:
        raise NotCompilable(f"{method} of {kind.__name__} cannot be compiled: there is no compiler for this class")
    return compiler(classifier)
