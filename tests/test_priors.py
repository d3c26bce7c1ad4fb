"""Class priors, against Bayes' rule and against a classifier that has learnt from all pixels."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from dconv import ContextClassifier, DenseCRF, DilatedConv, PixelClassifier
from dconv.filters import gaussian

rng = np.random.default_rng(0)
LABELS = np.where(rng.random((120, 130)) < 0.1, 7, 3)
LABELS[:20] = 0
X = (rng.normal(size=LABELS.shape) + 1.5 * (LABELS == 7))[..., np.newaxis].astype(np.float32)


TREE = DecisionTreeClassifier(random_state=0)  # sure of every pixel


def model(**parameters):
    return PixelClassifier("passthrough", GaussianNB(), random_state=0, **parameters)


def test_balanced_sample_with_prior_of_the_data_is_as_all_pixels():
    """Naive Bayes knows the frequencies of classes apart from their shapes."""
    whole = model().fit(X, LABELS).predict_proba(X)
    few = model(max_samples=1000).fit(X, LABELS)
    corrected = model(max_samples=1000, class_prior="data").fit(X, LABELS)
    shift = np.abs(few.predict_proba(X) - whole).mean()
    assert shift > 0.1
    assert np.abs(corrected.predict_proba(X) - whole).mean() < 0.1 * shift
    np.testing.assert_allclose(corrected.prior_factors_, [0.9 / 0.5, 0.1 / 0.5], rtol=0.05)


@pytest.mark.parametrize(
    ("class_prior", "prior"), [("balanced", [0.5, 0.5]), ([0.2, 0.8], [0.2, 0.8]), ((3, 1), [0.75, 0.25])], ids=str
)
def test_rule_of_bayes(class_prior, prior):
    plain = model().fit(X, LABELS)
    corrected = model(class_prior=class_prior).fit(X, LABELS)
    learnt = [(label == LABELS).sum() / (LABELS > 0).sum() for label in (3, 7)]
    expected = plain.predict_proba(X).astype(float) * np.divide(prior, learnt)
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(corrected.predict_proba(X), expected, atol=1e-5)
    sure = np.abs(expected[..., 0] - 0.5) > 1e-4
    np.testing.assert_array_equal(corrected.predict(X)[sure], np.take([3, 7], expected.argmax(axis=-1))[sure])
    entropy = -(expected * np.log2(np.maximum(expected, 1e-30))).sum(axis=-1)
    np.testing.assert_allclose(corrected.predict_entropy(X), entropy, atol=1e-4)
    assert corrected.score(X, LABELS) == (corrected.predict(X) == LABELS)[LABELS > 0].mean()
    assert plain.prior_factors_ is None


def test_weights_of_pixels_are_their_frequency():
    weights = np.where(LABELS == 7, 9.0, 1.0)
    corrected = model(class_prior="balanced").fit(X, LABELS, weights)
    np.testing.assert_allclose(corrected.prior_factors_, [0.5 / 0.5, 0.5 / 0.5], rtol=0.1)
    even = model(class_prior="data", max_samples=50).fit(X, LABELS, weights)
    np.testing.assert_allclose(even.prior_factors_, [0.5 / 0.1, 0.5 / 0.9], rtol=0.1)


def test_a_class_that_cannot_be():
    for prior, label in (([1, 0], 3), ([0, 1], 7)):
        never = PixelClassifier("passthrough", TREE, class_prior=prior).fit(X, LABELS)
        assert (never.predict(X) == label).all()
        np.testing.assert_array_equal(never.predict_proba(X), np.broadcast_to(np.float32(prior), (*LABELS.shape, 2)))


def test_a_class_that_nothing_was_learnt_of():
    weights = np.where(LABELS == 7, 0.0, 1.0)
    for prior in ("balanced", [0.5, 0.5]):
        with pytest.raises(ValueError, match=r"classes number \[1\] have no weight"):
            model(class_prior=prior).fit(X, LABELS, weights)
    assert PixelClassifier("passthrough", TREE, class_prior="data").fit(X, LABELS, weights).prior_factors_[1] == 0


def test_decision_function_stays_the_classifiers():
    plain, corrected = (
        PixelClassifier("passthrough", LogisticRegression(), class_prior=prior).fit(X, LABELS)
        for prior in (None, "balanced")
    )
    np.testing.assert_array_equal(plain.decision_function(X), corrected.decision_function(X))
    assert (plain.predict(X) != corrected.predict(X)).any()


def test_student_cascade_and_crf_are_corrected_once():
    bank, grey = DilatedConv(gaussian(1.0)), X[..., 0]
    for options in ({"distill": True}, {"refine": DenseCRF(n_iter=0)}):
        plain, corrected = (
            PixelClassifier(bank, GaussianNB(), class_prior=prior, random_state=0, **options).fit(grey, LABELS)
            for prior in (None, "balanced")
        )
        odds = plain.predict_proba(grey).astype(float) * corrected.prior_factors_
        np.testing.assert_allclose(
            corrected.predict_proba(grey), odds / odds.sum(axis=-1, keepdims=True), atol=2e-3, rtol=1e-2
        )
    plain, corrected = (
        ContextClassifier(bank, GaussianNB(), class_prior=prior, random_state=0).fit(grey, LABELS)
        for prior in (None, "balanced")
    )
    odds = plain.predict_proba(grey).astype(float) * corrected.prior_factors_
    np.testing.assert_allclose(corrected.predict_proba(grey), odds / odds.sum(axis=-1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("prior", ["even", [0.5], [0.5, -0.5], [0, 0], [np.nan, 1], ["a", "b"], 3], ids=str)
def test_refused(prior):
    with pytest.raises(ValueError, match="class_prior must be None, 'balanced', 'data' or"):
        model(class_prior=prior).fit(X, LABELS)


def test_needs_probabilities_and_all_labels():
    with pytest.raises(ValueError, match="class_prior needs a classifier with probabilities"):
        PixelClassifier("passthrough", RidgeClassifier(), class_prior="data").fit(X, LABELS)
    with pytest.raises(ValueError, match="class_prior needs to know how many"):
        model(class_prior="data").partial_fit(X, LABELS)
