"""Features kept between fits: the same to the last bit, and computed only where pixels are new."""

import pickle

import numpy as np
import pytest
from images import BANK, TREES, make_image, make_images, scribble
from sklearn.base import clone

from dconv import _feature_cache
from dconv.features import AtrousFeatures
from dconv.segmentation import PixelClassifier


@pytest.fixture
def computed(monkeypatch):
    """Record how many pixels' features are computed."""
    counts = []
    gather = _feature_cache.gather_rows

    def record(features, images, channel_axis, masks, n_jobs):
        counts.append(sum(mask.n_pixels for mask in masks))
        return gather(features, images, channel_axis, masks, n_jobs)

    monkeypatch.setattr(_feature_cache, "gather_rows", record)
    return counts


def assert_equal_fits(one, other, X):
    for image in X:
        np.testing.assert_array_equal(one.predict_proba(image), other.predict_proba(image))


def test_only_new_pixels_are_computed(computed):
    X, y = make_images()
    segmenter = PixelClassifier(BANK, TREES).fit(X, y)
    first = computed.pop()
    assert first == sum(np.count_nonzero(labels) for labels in y)
    more = [labels.copy() for labels in y]
    more[1][:3] = 1
    more[2][more[2] == 2] = 0  # strokes that were taken back
    segmenter.fit(X, more)
    assert computed.pop() == np.count_nonzero((more[1] != 0) & (y[1] == 0))
    assert_equal_fits(segmenter, PixelClassifier(BANK, TREES).fit(X, more), X)
    computed.clear()
    segmenter.fit(X[::-1], more[::-1])  # images are known by what they hold
    assert computed.pop() == 0
    assert_equal_fits(segmenter, PixelClassifier(BANK, TREES).fit(X[::-1], more[::-1]), X)


def test_changed_images_and_parameters_are_computed_again(computed):
    image, labels = make_image()
    labels = scribble(labels)
    n_labels = np.count_nonzero(labels)
    segmenter = PixelClassifier(AtrousFeatures(2), TREES).fit(image, labels)
    image[0, 0] += 1
    segmenter.fit(image, labels)
    segmenter.set_params(features__padding_mode="edge").fit(image, labels)
    assert computed == [n_labels] * 3
    segmenter.set_params(features__n_jobs=2, n_jobs=2).fit(image, labels)
    segmenter.fit(image.astype(np.float64), labels)  # another type may hold other numbers
    assert computed[3:] == [0, n_labels]
    assert_equal_fits(segmenter, clone(segmenter).fit(image, labels), [image])


def test_large_images_and_many_features_are_not_kept(computed, monkeypatch):
    image, labels = make_image()
    segmenter = PixelClassifier(BANK, TREES)
    for name in ("_MAX_IMAGE_BYTES", "_MAX_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(_feature_cache, name, 100)
            segmenter.fit(image, labels).fit(image, labels)
        assert computed == [labels.size] * 2
        computed.clear()


def test_is_neither_pickled_nor_cloned():
    image, labels = make_image()
    segmenter = PixelClassifier(BANK, TREES).fit(image, labels)
    assert "_feature_cache" not in vars(clone(segmenter))
    again = pickle.loads(pickle.dumps(segmenter))
    assert "_feature_cache" not in vars(again)
    np.testing.assert_array_equal(again.predict(image), segmenter.predict(image))
