"""PixelClassifier.partial_fit against the classifier's own on the rows of pixels."""

import importlib.util

import numpy as np
import pytest
from images import BANK, TREES, Untouchable, make_images
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dconv import PerceptronClassifier, SoftClipScaler, load, save
from dconv.segmentation import PixelClassifier


def rows_of(image, labels):
    """Return the features of the labelled pixels, and their labels."""
    return BANK.fit(image).transform(image)[labels != 0], labels[labels != 0]


@pytest.mark.parametrize("classifier", [GaussianNB(), SGDClassifier(random_state=0)], ids=lambda c: type(c).__name__)
def test_equals_the_classifiers_own(classifier):
    X, y = make_images()
    weights = [np.random.default_rng(i).random(labels.shape) for i, labels in enumerate(y)]
    segmenter = PixelClassifier(BANK, classifier)
    own = type(classifier)(**classifier.get_params())
    for index, (image, labels, weight) in enumerate(zip(X, y, weights, strict=True)):
        assert segmenter.partial_fit(image, labels, weight) is segmenter
        first = {"classes": [1, 2]} if index == 0 else {}
        own.partial_fit(*rows_of(image, labels), sample_weight=weight[labels != 0], **first)
    features = BANK.transform(X[0])
    np.testing.assert_array_equal(segmenter.predict(X[0]).ravel(), own.predict(features.reshape(-1, 2)))
    assert segmenter.classes_.tolist() == [1, 2]


def test_goes_on_from_fit():
    X, y = make_images()
    segmenter = PixelClassifier(BANK, GaussianNB()).fit(X[:2], y[:2]).partial_fit(X[2:], y[2:])
    together = PixelClassifier(BANK, GaussianNB()).fit(X, y)
    np.testing.assert_allclose(segmenter.predict_proba(X[0]), together.predict_proba(X[0]), rtol=1e-5, atol=1e-6)


def test_the_last_step_of_a_pipeline_goes_on():
    X, y = make_images()
    weights = [np.random.default_rng(i).random(labels.shape) for i, labels in enumerate(y)]
    steps = "passthrough", StandardScaler(), SGDClassifier(random_state=0)
    segmenter = PixelClassifier(BANK, make_pipeline(*steps))
    scaler, own = StandardScaler(), SGDClassifier(random_state=0)
    scaler.fit(rows_of(X[0], y[0])[0])
    for index, (image, labels, weight) in enumerate(zip(X, y, weights, strict=True)):
        segmenter.partial_fit(image, labels, weight)
        rows, targets = rows_of(image, labels)
        more = {"classes": [1, 2]} if index == 0 else {}
        own.partial_fit(scaler.transform(rows), targets, sample_weight=weight[labels != 0], **more)
    features = BANK.transform(X[0]).reshape(-1, 2)
    np.testing.assert_array_equal(segmenter.predict(X[0]).ravel(), own.predict(scaler.transform(features)))
    fitted = PixelClassifier(BANK, make_pipeline(*steps)).fit(X[0], y[0])
    mean = fitted.classifier_[1].mean_
    np.testing.assert_array_equal(fitted.partial_fit(X[1], y[1]).classifier_[1].mean_, mean)


def test_scribbles_added_to_a_perceptron(tmp_path):
    (image,), (labels,) = (part[:1] for part in make_images())
    pipeline = make_pipeline(SoftClipScaler(), StandardScaler(), PerceptronClassifier((8,), random_state=0))
    fewer = labels.copy()
    fewer[:, 25:] = 0
    segmenter = PixelClassifier(BANK, pipeline).fit(image, fewer)
    before = segmenter.predict_proba(image)
    if importlib.util.find_spec("skops"):
        save(segmenter, tmp_path / "model.dconv")
        loaded = load(tmp_path / "model.dconv").partial_fit(image, labels)
    segmenter.partial_fit(image, labels)
    assert not np.array_equal(segmenter.predict_proba(image), before)
    if importlib.util.find_spec("skops"):
        np.testing.assert_array_equal(loaded.predict_proba(image), segmenter.predict_proba(image))


def test_classes_that_come_later():
    X, y = make_images()
    only_first = np.where(y[0] == 1, 1, 0)
    segmenter = PixelClassifier(BANK, SGDClassifier(random_state=0)).partial_fit(X[0], only_first, classes=[1, 2, 5])
    segmenter.partial_fit(X[1], np.where(y[1] == 2, 2, 0))
    assert segmenter.classes_.tolist() == [1, 2, 5]
    assert set(np.unique(segmenter.predict(X[2]))) <= {1, 2}


def test_drops_the_student():
    X, y = make_images()
    segmenter = PixelClassifier(BANK, GaussianNB(), distill="auto", random_state=0).fit(X, y)
    assert segmenter.distillation_agreement_ is not None
    segmenter.partial_fit(X[0], y[0])
    assert segmenter.student_ is None
    assert segmenter.distillation_agreement_ is None


def test_is_there_only_where_the_classifier_has_it():
    assert hasattr(PixelClassifier(BANK, GaussianNB()), "partial_fit")
    assert hasattr(PixelClassifier(BANK, make_pipeline(StandardScaler(), GaussianNB())), "partial_fit")
    assert not hasattr(PixelClassifier(BANK, TREES), "partial_fit")
    assert not hasattr(PixelClassifier(BANK, make_pipeline(StandardScaler(), TREES)), "partial_fit")
    assert hasattr(PixelClassifier(BANK), "partial_fit")


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.ones((40, 50), int), {}, "only label 1 is in y"),
        (np.zeros((40, 50), int), {"classes": [1, 2]}, "no labelled pixel"),
        (np.full((40, 50), 3), {"classes": [1, 2]}, r"y has labels \[3\], which are not among the classes \[1, 2\]"),
        (np.ones((40, 50), int), {"classes": [1]}, "only label 1"),
    ],
)
def test_refused_before_any_work(labels, options, message):
    segmenter = PixelClassifier(Untouchable(), GaussianNB())
    with pytest.raises(ValueError, match=message):
        segmenter.partial_fit(np.zeros((40, 50)), labels, **options)


def test_refused_when_going_on():
    X, y = make_images()
    segmenter = PixelClassifier(BANK, GaussianNB()).fit(X, y)
    before = segmenter.predict(X[0])
    with pytest.raises(ValueError, match=r"y has labels \[7\]"):
        segmenter.partial_fit(X[0], np.full(X[0].shape, 7))
    with pytest.raises(ValueError, match="finite"):
        segmenter.partial_fit(np.full(X[0].shape, np.nan), y[0])
    np.testing.assert_array_equal(segmenter.predict(X[0]), before)


def test_pixels_of_all_calls_are_counted():
    images, labels = make_images()
    model = PixelClassifier(BANK, GaussianNB()).partial_fit(images[0], labels[0], classes=[1, 2, 5])
    model.partial_fit(images[1], np.where(labels[1] == 2, 0, labels[1]))
    counts = [int((labels[0] == label).sum()) for label in (1, 2, 5)]
    counts[0] += int((labels[1] == 1).sum())
    assert model.n_pixels_per_class_.tolist() == counts
    model.fit(images, labels)
    assert model.n_pixels_per_class_.tolist() == [sum(int((y == label).sum()) for y in labels) for label in (1, 2)]
    few = PixelClassifier(BANK, GaussianNB(), max_samples=20).fit(images, labels)
    assert few.n_pixels_per_class_.tolist() == [80, 80]


def test_the_default_classifier_keeps_its_choice_and_learns_all_scribbles():
    X, y = make_images()
    segmenter = PixelClassifier(BANK, random_state=0).fit(X[0], y[0])
    before = segmenter.predict_proba(X[0])
    members = {name: type(member) for name, member in segmenter.classifier_.members_.items()}
    losses = segmenter.classifier_.log_loss_
    more = np.where(y[0] == 0, (X[0] > np.median(X[0])) + 1, y[0])
    segmenter.partial_fit(X[0], more)
    assert {name: type(member) for name, member in segmenter.classifier_.members_.items()} == members
    assert segmenter.classifier_.log_loss_ is losses
    assert np.abs(segmenter.predict_proba(X[0]) - before).max() > 0.01
    with pytest.raises(ValueError, match=r"y has no row of \[2\]"):
        segmenter.partial_fit(X[0], np.where(y[0] == 2, 0, y[0]))
