"""The transformer and the classifier that a PixelClassifier is made of."""

import re

import numpy as np
import pytest
from images import BANK, TREES, Untouchable, make_image, make_images, scribble
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.ensemble import ExtraTreesClassifier, IsolationForest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from dconv.features import AtrousFeatures
from dconv.filters import derivatives, gaussian
from dconv.persistence import load, save
from dconv.segmentation import PixelClassifier
from dconv.transformers import DilatedConv
from dconv.voting import AdaptiveVote


def test_default_parts():
    image, labels = make_image((100, 90))
    segmenter = PixelClassifier(random_state=3).fit(image, scribble(labels))
    assert isinstance(segmenter.features_, AtrousFeatures)
    assert type(segmenter.classifier_) is AdaptiveVote
    assert (segmenter.classifier_.forest.n_estimators, segmenter.classifier_.forest.max_leaf_nodes) == (100, 64)
    many = PixelClassifier(AtrousFeatures(2, groups=["level"]), ignore_label=None).fit(*make_image((100, 100)))
    forest = many.classifier_.forest
    assert (forest.n_estimators, forest.max_leaf_nodes, forest.min_samples_leaf) == (50, 1024, 4)
    again, other_seed = (PixelClassifier(random_state=seed).fit(image, scribble(labels)) for seed in (3, 4))
    np.testing.assert_array_equal(again.predict_proba(image), segmenter.predict_proba(image))
    assert (other_seed.predict_proba(image) != segmenter.predict_proba(image)).any()
    assert (segmenter.predict(image) == labels).mean() > 0.9


def test_on_volumes_with_few_labels_a_discriminant_votes_too(tmp_path):
    volume = np.random.default_rng(0).normal(size=(22, 22, 22))
    labels = 1 + (volume > 0)
    scribbles = np.where(np.arange(22) < 5, labels, 0)
    bank = AtrousFeatures(1, groups=["level"], ndim=3)
    members = {"forest", "perceptron", "discriminant"}
    few = PixelClassifier(bank, random_state=0).fit(volume, scribbles)
    assert set(few.classifier_.members_) == members
    rows = few.features_.transform([volume])[0].reshape(-1, few.n_features_)
    expected = few.classifier_.predict_proba(rows).reshape(22, 22, 22, 2)
    np.testing.assert_allclose(few.predict_proba(volume), expected, atol=1e-5)
    begun = PixelClassifier(bank, random_state=0).partial_fit(volume, scribbles)
    assert set(begun.classifier_.members_) == members
    begun.partial_fit(volume, scribbles)
    save(few, tmp_path / "few.dconv")
    np.testing.assert_array_equal(load(tmp_path / "few.dconv").predict(volume), few.predict(volume))
    many = PixelClassifier(bank, random_state=0).fit(volume, labels)
    assert many.classifier_.discriminant is None


def test_given_parts_are_left_as_they_are():
    bank, trees = clone(BANK), clone(TREES).set_params(random_state=None)
    image, labels = make_image()
    segmenter = PixelClassifier(bank, trees, random_state=0).fit(image, labels)
    assert not hasattr(bank, "bank_")
    assert not hasattr(trees, "classes_")
    assert segmenter.classifier_.random_state is None


def test_passthrough_ends_a_pipeline():
    X, y = make_images()
    plain = Pipeline([("bank", clone(BANK)), ("pixels", PixelClassifier("passthrough", TREES))]).fit(X, y)
    nested = PixelClassifier(BANK, TREES).fit(X, y)
    for method in ("predict", "predict_proba"):
        for actual, expected in zip(getattr(plain, method)(X), getattr(nested, method)(X), strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert plain.score(X, y) == nested.score(X, y)
    assert plain.classes_.tolist() == [1, 2]
    first = PixelClassifier("passthrough", TREES, channel_axis=0).fit(
        [np.moveaxis(clone(BANK).fit_transform(image), -1, 0) for image in X], y
    )
    assert first.n_features_ == nested.n_features_ == 2


def stack_shifts(image):
    """Return a feature image by plain NumPy, as a user would write it."""
    grey = image if image.ndim == 2 else image.mean(axis=0)
    return np.stack([grey, np.roll(grey, 1, axis=0), np.roll(grey, 1, axis=1)], axis=-1)


@pytest.mark.parametrize("channel_axis", [None, 0])
def test_any_transformer_of_images_will_do(channel_axis):
    X, y = make_images()
    if channel_axis == 0:
        X = [np.stack([image, 2 * image]) for image in X]
    segmenter = PixelClassifier(FunctionTransformer(stack_shifts), TREES, channel_axis=channel_axis).fit(X, y)
    expected = PixelClassifier("passthrough", TREES).fit([stack_shifts(image) for image in X], y)
    for image in X:
        np.testing.assert_array_equal(segmenter.predict_proba(image), expected.predict_proba(stack_shifts(image)))
    batch = np.stack([X[0], X[0]])
    np.testing.assert_array_equal(segmenter.predict(batch), np.stack([segmenter.predict(X[0])] * 2))


def test_ndim_and_channel_axis_are_said_once():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 12, 13, 14))
    y = rng.integers(1, 3, size=(12, 13, 14))
    bank = DilatedConv(gaussian(0.5, ndim=3), ndim=3, channel_axis=0)
    here = DilatedConv(gaussian(0.5, ndim=3))
    expected = PixelClassifier(bank, TREES).fit(X, y).predict(X)
    np.testing.assert_array_equal(PixelClassifier(here, TREES, ndim=3, channel_axis=0).fit(X, y).predict(X), expected)
    both = PixelClassifier(bank, TREES, ndim=3, channel_axis=0).fit(X, y)
    np.testing.assert_array_equal(both.predict(X), expected)
    assert (both.ndim_, both.channel_axis_) == (3, 0)
    with pytest.raises(ValueError, match=r"channel_axis=1 was given, but features has channel_axis=0 \(DilatedConv\)"):
        PixelClassifier(bank, TREES, channel_axis=1).fit(X, y)
    same_axis = PixelClassifier(clone(bank).set_params(channel_axis=-4), TREES, channel_axis=0).fit(X, y)
    np.testing.assert_array_equal(same_axis.predict(X), expected)
    with pytest.raises(ValueError, match="ndim=1 was given, but features has ndim=3"):
        PixelClassifier(bank, TREES, ndim=1).fit(X, y)


def test_n_jobs_is_passed_on_unless_features_say():
    image, labels = make_image()
    assert PixelClassifier(BANK, TREES, n_jobs=2).fit(image, labels).features_.n_jobs == 2
    own = clone(BANK).set_params(n_jobs=1)
    assert PixelClassifier(own, TREES, n_jobs=2).fit(image, labels).features_.n_jobs == 1
    default = PixelClassifier(None, TREES, n_jobs=2).fit(*make_image((200, 200))).features_
    assert default.n_jobs == default.inner_.n_jobs == 2


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_default_classifier_has_the_n_jobs(n_jobs):
    assert PixelClassifier(BANK, n_jobs=n_jobs).fit(*make_image()).classifier_.forest.n_jobs == n_jobs


def test_representation_shows_the_parts():
    html = PixelClassifier(DilatedConv(derivatives(1)), make_pipeline(StandardScaler(), LinearSVC()))._repr_html_()
    for name in ("PixelClassifier", "DilatedConv", "StandardScaler", "LinearSVC"):
        assert name in html


GREY, FULL = make_image((8, 9))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"features": "raw"}, ValueError, 'features must be None, "passthrough" or a transformer'),
        ({"features": 3}, TypeError, 'features must be None, "passthrough" or a transformer'),
        ({"features": DilatedConv}, TypeError, "features must be None"),
        ({"features": DilatedConv(derivatives(1), ndim=(1, 2))}, TypeError, "ndim must be an int, got (1, 2)"),
        ({"channel_axis": np.ones(2)}, TypeError, "channel_axis must be None or an int, got array"),
        ({"classifier": "forest"}, ValueError, "classifier must be None or a scikit-learn classifier"),
        ({"classifier": ExtraTreesClassifier}, TypeError, "classifier must be None or a scikit-learn classifier"),
        ({"classifier": StandardScaler()}, TypeError, "classifier must be None or a scikit-learn classifier"),
        ({"classifier": Ridge()}, TypeError, "which sklearn.base.is_classifier says it is not: got Ridge()"),
        (
            {"classifier": make_pipeline(StandardScaler(), KMeans(2))},
            TypeError,
            "is_classifier says it is not",
        ),
        ({"classifier": IsolationForest()}, TypeError, "is_classifier says it is not: got IsolationForest()"),
        (
            {"classifier": PixelClassifier()},
            TypeError,
            "classifier must classify rows of features, but Pixel",
        ),
        ({"features": gaussian(1)}, TypeError, "got a FilterBank; wrap it in DilatedConv(bank)"),
        ({"features": gaussian(1).weight}, TypeError, "features must be None"),
        ({"verbose": "x"}, TypeError, "verbose must be an int"),
        ({"ndim": 2.0}, TypeError, "ndim must be an int (no bool, no float), got 2.0"),
        ({"ignore_label": "void"}, TypeError, "ignore_label must be None or an int, got 'void'"),
        ({"ignore_label": True}, TypeError, "ignore_label must be None or an int, got True"),
        ({"max_samples": 0}, ValueError, "max_samples must be at least 1"),
        ({"max_samples": 0.5}, TypeError, "max_samples must be None or an int, got 0.5"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({"n_jobs": "all"}, TypeError, "n_jobs must be None or an int"),
        ({"ndim": 4}, ValueError, "ndim must be 1, 2 or 3"),
        ({"channel_axis": 5}, ValueError, "channel_axis=5 is not an axis"),
        ({"random_state": "x"}, TypeError, "random_state must be None, an int from 0 to 2**32 - 1"),
    ],
)
def test_bad_parameters_are_refused(parameters, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PixelClassifier(**{"features": Untouchable(), "classifier": TREES, **parameters}).fit(GREY, FULL)


@pytest.mark.parametrize(
    ("classifier", "weights", "message"),
    [
        (KNeighborsClassifier(), np.ones(GREY.shape), "KNeighborsClassifier.fit does not take it"),
        (
            make_pipeline(StandardScaler(), KNeighborsClassifier()),
            np.ones(GREY.shape),
            "KNeighborsClassifier.fit does not",
        ),
        (
            make_pipeline(StandardScaler(), make_pipeline(KNeighborsClassifier())),
            np.ones(GREY.shape),
            "KNeighborsClassifier.fit does not",
        ),
        (TREES, np.zeros(GREY.shape), "sample_weight is 0 at every labelled pixel"),
        (TREES, np.ones(3), "sample_weight has shape (3,)"),
        (TREES, -np.ones(GREY.shape), "sample_weight must be finite and not negative"),
    ],
)
def test_bad_weights_are_refused(classifier, weights, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PixelClassifier(Untouchable(), classifier).fit(GREY, FULL, sample_weight=weights)


def test_features_of_another_size_are_refused(monkeypatch):
    image, labels = make_image()
    halved = FunctionTransformer(lambda image: image[::2, :, np.newaxis])
    with pytest.raises(ValueError, match=r"transform gives features of spatial shape \(20, 50\) for X of \(40, 50\)"):
        PixelClassifier(halved, TREES).fit(image, labels)
    with pytest.raises(ValueError, match=r"transform returned shape \(40, 50\) for X, .* \(40, 50, 'n_features'\)"):
        PixelClassifier(FunctionTransformer(), TREES).fit(image, labels)
    monkeypatch.setattr(DilatedConv, "transform", lambda self, X: pytest.fail("transformed before it was refused"))
    for bank in (DilatedConv(gaussian(0.8), stride=2), DilatedConv(gaussian(0.8), padding="valid")):
        with pytest.raises(ValueError, match=r"DilatedConv.transform gives .* needs stride=1 and padding='same'"):
            PixelClassifier(bank, TREES).fit(image, labels)
