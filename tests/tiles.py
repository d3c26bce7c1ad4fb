"""Pixels with classes, and what a compiled classifier and its classifier say of them."""

import warnings

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from dconv import predictors

NAMES = np.array(["bark", "crown", "dead", "floor", "leaf", "soil", "water"])
METHODS = "predict_proba", "decision_function"


def make_tile(n_classes, n_features=13, n=400, mean=0, scale=1, seed=0, labels=NAMES):
    """Return float32 rows and their labels; the classes overlap."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    x = 0.7 * rng.normal(size=(n_classes, n_features))[y] + rng.normal(size=(n, n_features))
    return (mean + scale * x).astype(np.float32), labels[y]


def fitted(classifier, x, y):
    """Return a fitted copy; a few iterations are enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")  # of parameters that will go
        return clone(classifier).fit(x, y)


def compile_method(classifier, method):
    return (predictors.compile_predictor if method == "predict_proba" else predictors.compile_scorer)(classifier)


def answer(compiled, x):
    """Return the probabilities or the scores of some rows."""
    method = "decision_function" if isinstance(compiled, predictors.Scorer) else "predict_proba"
    n = compiled.n_scores if isinstance(compiled, predictors.Scorer) else len(compiled.classes_)
    out = np.full((len(x), n), np.nan, np.float32)
    getattr(compiled, method)(x, out)
    return out


def own_answer(classifier, method, x):
    """Return what a classifier itself says, in two dimensions."""
    return np.asarray(getattr(classifier, method)(x)).reshape(len(x), -1)


def assert_same_labels(compiled, classifier, x, ties=0.05):
    """Check labels, but for rows that are almost tied: at most `ties` of all."""
    scores = answer(compiled, x)
    scores = np.hstack([-scores, scores]) if scores.shape[1] == 1 else scores
    first, second = np.sort(scores, axis=1).T[[-1, -2]]
    apart = first - second > 2e-5 * np.maximum(1, np.abs(first))
    assert apart.mean() > 1 - ties
    labels = predictors.predict(compiled, x)
    assert labels.dtype == classifier.classes_.dtype
    own = classifier.predict(x.astype(np.float64)).reshape(len(x))  # CatBoost's are in a column
    np.testing.assert_array_equal(labels[apart], own[apart])


def check_parity(classifier, x, methods=METHODS, tolerance=1e-5, ties=0.05):
    """Check all that a fitted classifier answers, against its own answers for the same numbers in float64.

    Scores may differ by `tolerance` of the largest one.
    """
    exact = x.astype(np.float64)
    checked = [method for method in methods if hasattr(classifier, method)]
    assert checked
    for method in checked:
        compiled = compile_method(classifier, method)
        np.testing.assert_array_equal(compiled.classes_, classifier.classes_)
        assert compiled.n_features_in_ == x.shape[1]
        expected = own_answer(classifier, method, exact)
        largest = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(answer(compiled, x), expected, rtol=0, atol=tolerance * largest)
    # The labels of a classifier that has scores are those of its scores.
    assert_same_labels(compile_method(classifier, checked[-1]), classifier, x, ties)
