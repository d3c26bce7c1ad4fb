"""What classifiers answer when several threads ask, and which methods a PixelClassifier has."""

import re
import warnings

import numpy as np
import pytest
import sklearn
from images import BANK, make_image, scribble
from sklearn.base import clone
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from dconv import _pixels
from dconv.segmentation import PixelClassifier


@pytest.mark.parametrize(
    "classifier",
    [
        ExtraTreesClassifier(20, max_leaf_nodes=16, n_jobs=2, random_state=0),
        make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)),
        BaggingClassifier(n_estimators=5, random_state=0),
        HistGradientBoostingClassifier(max_iter=5, random_state=0),
        KNeighborsClassifier(3, algorithm="kd_tree"),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
def test_classifiers_answer_the_same_from_threads(monkeypatch, classifier):
    # scikit-learn, called from several threads at once, changes the warning filters of the process.
    monkeypatch.setattr(_pixels, "BLOCK_PIXELS", 500)
    image, labels = make_image((60, 70))
    segmenter = PixelClassifier(BANK, classifier, n_jobs=4).fit(image, scribble(labels))
    rows = clone(BANK).fit_transform(image).reshape(-1, 2)
    alone = clone(classifier).fit(rows[scribble(labels).ravel() > 0], scribble(labels)[scribble(labels) > 0])
    labels, probabilities = alone.predict(rows), alone.predict_proba(rows)
    filters = list(warnings.filters)
    np.testing.assert_array_equal(segmenter.predict(image), labels.reshape(image.shape))
    expected = probabilities.reshape(*image.shape, 2)
    np.testing.assert_allclose(segmenter.predict_proba(image), expected, rtol=0, atol=1e-7)
    assert warnings.filters == filters


def test_fit_leaves_warning_filters_alone():
    image, labels = make_image()
    filters = list(warnings.filters)
    for seed in range(5):
        PixelClassifier(BANK, n_jobs=4, random_state=seed).fit(image, labels)
        assert warnings.filters == filters


def test_forests_of_a_subclass_are_asked_themselves():
    class Inverted(ExtraTreesClassifier):
        def predict_proba(self, X):
            return super().predict_proba(X)[:, ::-1]

    image, labels = make_image()
    plain, inverted = (
        PixelClassifier(BANK, kind(5, random_state=0)).fit(image, labels) for kind in (ExtraTreesClassifier, Inverted)
    )
    expected = plain.predict_proba(image)[..., ::-1]
    np.testing.assert_allclose(inverted.predict_proba(image), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_forests_treat_what_is_not_finite_as_they_do_themselves(value):
    image, labels = make_image()
    spoilt = np.where(image > np.quantile(image, 0.9), value, image)
    features = FunctionTransformer(lambda x: np.where(x == 1e9, value, x)[..., np.newaxis])  # finite images, but
    forest = ExtraTreesClassifier(5, max_leaf_nodes=16, random_state=0)
    segmenter = PixelClassifier(features, forest).fit(image, labels)
    alone = clone(forest).fit(image.reshape(-1, 1), labels.ravel())
    try:
        expected = alone.predict(spoilt.reshape(-1, 1)).reshape(image.shape)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error).splitlines()[0])):
            segmenter.predict(np.where(np.isfinite(spoilt), spoilt, 1e9))
    else:
        np.testing.assert_array_equal(segmenter.predict(np.where(np.isfinite(spoilt), spoilt, 1e9)), expected)


def test_configuration_of_the_caller_holds_in_threads(monkeypatch):
    monkeypatch.setattr(_pixels, "BLOCK_PIXELS", 60)
    image, labels = make_image()
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    expected = PixelClassifier(BANK, classifier).fit(image, labels).predict(image)
    with sklearn.config_context(transform_output="pandas"):  # without it in a thread, feature names would be missed
        segmenter = PixelClassifier(BANK, classifier, n_jobs=2).fit(image, labels)
        np.testing.assert_array_equal(segmenter.predict(image), expected)


@pytest.mark.parametrize(
    ("classifier", "n_classes", "trailing"),
    [
        (LinearSVC(), 2, ()),
        (LinearSVC(), 3, (3,)),
        (SVC(decision_function_shape="ovo"), 4, (6,)),
        (LogisticRegression(), 2, ()),
    ],
)
def test_decision_function(classifier, n_classes, trailing):
    image, _ = make_image((20, 30))
    y = np.arange(image.size).reshape(image.shape) % n_classes + 1
    classifier = make_pipeline(StandardScaler(), classifier)
    segmenter = PixelClassifier(BANK, classifier).fit(image, y)
    rows = clone(BANK).fit_transform(image).reshape(-1, 2)
    expected = clone(classifier).fit(rows, y.ravel()).decision_function(rows).reshape(image.shape + trailing)
    scores = segmenter.decision_function(image)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_methods_are_those_of_the_classifier():
    image, labels = make_image()
    for segmenter in (PixelClassifier(BANK, LinearSVC()), PixelClassifier(BANK, LinearSVC()).fit(image, labels)):
        assert hasattr(segmenter, "decision_function")
        assert not hasattr(segmenter, "predict_proba")
        with pytest.raises(AttributeError, match="has no attribute 'predict_proba'"):
            segmenter.predict_proba(image)
    assert hasattr(PixelClassifier(), "predict_proba")
    assert not hasattr(PixelClassifier(), "decision_function")
