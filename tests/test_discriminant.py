"""RegularizedDiscriminantAnalysis: normal distributions, as SciPy has them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from scipy.stats import multivariate_normal
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_info, threadpool_limits

from dconv import RegularizedDiscriminantAnalysis

rng = np.random.default_rng(0)
Y = rng.choice(["a", "b", "c"], size=300, p=[0.5, 0.3, 0.2])
X = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + (Y == "b")[:, np.newaxis]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_it_is_an_estimator():
    check_estimator(RegularizedDiscriminantAnalysis())


def expected_probabilities(x, y, rows, shrinkage):
    """Return those of SciPy's normal distributions."""
    scores = []
    for label in np.unique(y):
        own = x[y == label]
        covariance = (1 - shrinkage) * np.cov(own.T, bias=True) + shrinkage * np.eye(x.shape[1])
        densities = multivariate_normal(own.mean(axis=0), covariance).logpdf(rows)
        scores.append(np.log(len(own) / len(x)) + densities)
    return softmax(scores, axis=0).T


@pytest.mark.parametrize("shrinkage", [0.01, 0.3, 1])
@pytest.mark.parametrize("n_rows", [30, 300])
def test_it_is_that_of_normal_distributions(shrinkage, n_rows):
    """Also along directions that none of fewer rows than features takes."""
    x, y = np.hstack([X, X**2])[:n_rows], Y[:n_rows]
    ours = RegularizedDiscriminantAnalysis(shrinkage).fit(x, y)
    expected = expected_probabilities(x, y, 2 * x, shrinkage)
    assert_allclose(ours.predict_proba(2 * x), expected, rtol=1e-7, atol=1e-9)
    assert_array_equal(ours.predict(2 * x), np.array(["a", "b", "c"])[expected.argmax(axis=1)])


def test_float32_rows_far_from_zero_are_as_float64():
    x = (X + 1e4).astype(np.float32)
    weights = np.ones(300, np.float32)
    one, other = (RegularizedDiscriminantAnalysis().fit(each, Y, weights) for each in (x, x.astype(float)))
    assert_allclose(one.means_, [x[label == Y].astype(float).mean(axis=0) for label in "abc"], rtol=1e-12)
    assert_allclose(one.predict_proba(x), other.predict_proba(x.astype(float)), rtol=1e-12)


def test_equal_columns_have_axes():
    classifier = RegularizedDiscriminantAnalysis(1e-17).fit(np.hstack([X, X, X]), Y)
    assert np.isfinite(classifier.axes_).all()


@pytest.mark.skipif(not threadpool_info(), reason="no BLAS whose threads can be counted")
def test_fits_on_threads_leave_blas_as_it_was():
    with threadpool_limits(2, "blas"):
        before = [(each["filepath"], each["num_threads"]) for each in threadpool_info()]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: RegularizedDiscriminantAnalysis().fit(X, Y), range(40)))
        assert [(each["filepath"], each["num_threads"]) for each in threadpool_info()] == before


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
    for shrinkage in ("auto", None, True, np.complex128(0.3)):
        with pytest.raises(TypeError, match="shrinkage must be a number"):
            RegularizedDiscriminantAnalysis(shrinkage).fit(X, Y)
    with pytest.raises(ValueError, match="y holds one class, a"):
        RegularizedDiscriminantAnalysis().fit(X, np.full(300, "a"))
    with pytest.raises(ValueError, match="weight"):
        RegularizedDiscriminantAnalysis().fit(X, Y, np.zeros(300))
    with pytest.raises(ValueError, match="Negative values"):
        RegularizedDiscriminantAnalysis().fit(X, Y, -np.ones(300))
