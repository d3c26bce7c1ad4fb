"""RegularizedDiscriminantAnalysis: normal distributions, as SciPy and scikit-learn have them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.utils.estimator_checks import check_estimator

from dconv import RegularizedDiscriminantAnalysis

rng = np.random.default_rng(0)
Y = rng.choice(["a", "b", "c"], size=300, p=[0.5, 0.3, 0.2])
X = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + (Y == "b")[:, np.newaxis]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_it_is_an_estimator():
    check_estimator(RegularizedDiscriminantAnalysis())


@pytest.mark.parametrize("shrinkage", [0.01, 0.3, 1])
def test_with_more_rows_than_features_it_is_that_of_scikit_learn(shrinkage):
    ours = RegularizedDiscriminantAnalysis(shrinkage).fit(X, Y)
    theirs = QuadraticDiscriminantAnalysis(reg_param=shrinkage).fit(X, Y)
    assert_allclose(ours.predict_proba(2 * X), theirs.predict_proba(2 * X), rtol=1e-7, atol=1e-9)
    assert_array_equal(ours.predict(2 * X), theirs.predict(2 * X))


def test_with_fewer_rows_than_features_directions_that_no_row_takes_count_too():
    x, y, others = rng.normal(size=(9, 20)), np.arange(9) < 5, rng.normal(size=(50, 20))
    scores = []
    for rows, share in ((x[~y], 4 / 9), (x[y], 5 / 9)):
        covariance = 0.6 * np.cov(rows.T, bias=True) + 0.4 * np.eye(20)
        scores.append(np.log(share) + multivariate_normal(rows.mean(axis=0), covariance).logpdf(others))
    expected = 1 / (1 + np.exp(scores[0] - scores[1]))
    ours = RegularizedDiscriminantAnalysis(0.4).fit(x, y)
    assert_allclose(ours.predict_proba(others)[:, 1], expected, rtol=1e-7, atol=1e-12)


def test_a_row_of_weight_two_is_two():
    weights = rng.integers(0, 3, 300)
    weighted = RegularizedDiscriminantAnalysis().fit(X, Y, weights)
    repeated = RegularizedDiscriminantAnalysis().fit(np.repeat(X, weights, axis=0), np.repeat(Y, weights))
    assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-9, atol=1e-12)


def test_a_class_without_weight_is_never_answered():
    classifier = RegularizedDiscriminantAnalysis().fit(X, Y, Y != "b")
    others = RegularizedDiscriminantAnalysis().fit(X[Y != "b"], Y[Y != "b"])
    assert_array_equal(classifier.classes_, ["a", "b", "c"])
    assert_array_equal(classifier.predict_proba(X)[:, 1], np.zeros(300))
    assert_allclose(classifier.predict_proba(X)[:, ::2], others.predict_proba(X), rtol=1e-9, atol=1e-12)


def test_what_lies_far_from_all_goes_to_the_class_that_varies_most():
    x = np.concatenate([rng.normal(size=(50, 5)), rng.normal(scale=3, size=(50, 5))])
    classifier = RegularizedDiscriminantAnalysis().fit(x, np.repeat([1, 2], 50))
    far = 20 * rng.choice([-1, 1], (100, 5))
    assert_array_equal(classifier.predict(far), np.full(100, 2))


def test_bad_input_is_refused():
    for shrinkage in (0, -0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="shrinkage must be above 0 and at most 1"):
            RegularizedDiscriminantAnalysis(shrinkage).fit(X, Y)
    for shrinkage in ("auto", None, True):
        with pytest.raises(TypeError, match="shrinkage must be a number"):
            RegularizedDiscriminantAnalysis(shrinkage).fit(X, Y)
    with pytest.raises(ValueError, match="y holds one class, a"):
        RegularizedDiscriminantAnalysis().fit(X, np.full(300, "a"))
    with pytest.raises(ValueError, match="Negative values"):
        RegularizedDiscriminantAnalysis().fit(X, Y, -np.ones(300))
