"""PerceptronClassifier: scikit-learn's network, with a penalty for all rows together."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.utils.estimator_checks import check_estimator

from dconv import PerceptronClassifier
from dconv.predictors import compile_predictor

X = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_it_is_an_estimator():
    check_estimator(PerceptronClassifier(random_state=0))


@pytest.mark.parametrize(("n_rows", "batch", "n_epochs"), [(60, 60, 30), (500, 200, 10), (1900, 200, 3)])
def test_it_is_the_network_of_scikit_learn(n_rows, batch, n_epochs):
    """Few rows are gone through more often, as ten batches are an epoch; from 1000 on the prior becomes weaker."""
    x, y = np.resize(X, (n_rows, 5)), np.resize(Y, n_rows)
    ours = PerceptronClassifier((7,), weight_decay=0.02, alpha=0, doubt=0, max_iter=3, random_state=3).fit(x, y)
    alpha = 0.02 * 5 * batch * min(1, (1000 / n_rows) ** 2)
    theirs = MLPClassifier((7,), alpha=alpha, batch_size=batch, max_iter=n_epochs, random_state=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(x, y)
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_the_prior_is_that_of_features_and_weights():
    """Half of the features have half of it, and what weights are all multiplied by is no matter."""
    penalties = [
        PerceptronClassifier(weight_decay=0.1, alpha=0, max_iter=1).fit(x, Y, weights).network_.alpha
        for x, weights in ((X[:, :2], None), (X[:, :4], None), (X[:, :4], np.full(len(X), 3.0)))
    ]
    np.testing.assert_allclose(penalties, [40.0, 80.0, 240.0])


def test_a_strong_prior_makes_small_weights():
    sizes = [
        np.abs(PerceptronClassifier(weight_decay=decay, alpha=0, random_state=0).fit(X, Y).network_.coefs_[0]).sum()
        for decay in (0, 0.1, 10)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_least_penalty_is_that_of_a_batch():
    many = PerceptronClassifier(weight_decay=0.0001, alpha=0.7, max_iter=1).fit(X, Y).network_
    assert many.alpha == 0.7


@pytest.mark.parametrize("n_classes", [2, 3])
def test_few_rows_make_it_less_sure(n_classes):
    """The logits are shrunk by the rows of a class, also where training goes on, which starts from those learnt."""
    y = np.minimum(Y, n_classes - 1)

    def logits(doubt, goes_on):
        network = PerceptronClassifier((7,), doubt=doubt, max_iter=4, random_state=3).fit(X[:300], y[:300])
        p = (network.partial_fit(X, y) if goes_on else network).predict_proba(X).astype(np.float64)
        return np.log(p[:, 1:] / p[:, :1])

    for goes_on, n_rows in ((False, 300), (True, 700)):
        n = n_rows / n_classes
        np.testing.assert_allclose(logits(100.0, goes_on), logits(0, goes_on) * n / (n + 100), rtol=1e-3, atol=1e-4)


def test_weights_of_rows_count():
    weights = np.where(Y == 0, 1.0, 0.0)
    assert (PerceptronClassifier(random_state=0, max_iter=100).fit(X, Y, weights).predict(X) == 0).mean() > 0.99


def test_it_is_compiled():
    classifier = PerceptronClassifier(random_state=0).fit(X, Y)
    out = np.empty((len(X), 3), np.float32)
    compile_predictor(classifier).predict_proba(X, out)
    np.testing.assert_allclose(out, classifier.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("decay", [-1, np.nan, np.inf, "much", True])
def test_bad_weight_decay(decay):
    with pytest.raises(ValueError, match="weight_decay must be a finite number"):
        PerceptronClassifier(weight_decay=decay).fit(X, Y)
    with pytest.raises(ValueError, match="alpha must be a finite number"):
        PerceptronClassifier(alpha=decay).fit(X, Y)


def test_one_class_and_no_epoch():
    with pytest.raises(ValueError, match=r"y holds one class, 0\.0"):
        PerceptronClassifier().fit(X, np.zeros(700))
    for sizes in (0, (64, 0), ["a"], True, (2.5,)):
        with pytest.raises((TypeError, ValueError), match="hidden_layer_sizes must be"):
            PerceptronClassifier(sizes).fit(np.eye(4), [0, 0, 1, 1])
    with pytest.raises(ValueError, match="max_iter"):
        PerceptronClassifier(max_iter=0).fit(X, Y)


def test_going_on_is_that_of_the_network_of_scikit_learn():
    ours = PerceptronClassifier((7,), weight_decay=0.02, doubt=0, max_iter=2, random_state=3).fit(X, Y)
    theirs = MLPClassifier((7,), alpha=0.1 * 200, batch_size=200, max_iter=5, random_state=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(X, Y)
    assert ours.partial_fit(X, Y) is ours
    theirs.partial_fit(X, Y)
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    weights = np.linspace(0.1, 2, 50)
    ours.partial_fit(X[:50], Y[:50], weights)
    theirs.set_params(batch_size=50, alpha=0.1 * weights.sum()).partial_fit(X[:50], Y[:50], weights)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6)
    assert ours.n_iter_ == 1


def test_going_on_from_the_start():
    ours = PerceptronClassifier((7,), random_state=3)
    with pytest.raises(ValueError, match="the first partial_fit needs classes"):
        ours.partial_fit(X, Y)
    ours.partial_fit(X[Y == 1], Y[Y == 1], classes=[0, 1, 2])
    before = ours.predict_proba(X)
    ours.partial_fit(X, Y)
    assert ours.classes_.tolist() == [0, 1, 2]
    after = ours.predict_proba(X)
    assert not np.array_equal(after, before)
    with pytest.raises(ValueError, match="classes not in"):
        ours.partial_fit(X, Y + 1)
    np.testing.assert_allclose(ours.predict_proba(X), after, rtol=1e-5)  # a refused call changes nothing
    with pytest.raises(ValueError, match="expecting 5 features"):
        ours.partial_fit(X[:, :3], Y)
    with pytest.raises(ValueError, match=r"classes are \[0, 1, 2, 3\], but \[0, 1, 2\] at the first call"):
        ours.partial_fit(X, Y, classes=[0, 1, 2, 3])
    with pytest.raises(ValueError, match="classes hold one class"):
        PerceptronClassifier().partial_fit(X, Y, classes=[1])
    again = ours.fit(X, Y).predict_proba(X)  # starts anew
    np.testing.assert_array_equal(again, PerceptronClassifier((7,), random_state=3).fit(X, Y).predict_proba(X))
