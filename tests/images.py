"""Images with scribbles, and parts that the tests of PixelClassifier share."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.ensemble import ExtraTreesClassifier

from dconv.filters import gaussian
from dconv.transformers import DilatedConv

BANK = DilatedConv(gaussian(0.8), dilation=(1, 2))
TREES = ExtraTreesClassifier(8, max_leaf_nodes=16, random_state=0)


class Recorder(ClassifierMixin, BaseEstimator):
    """Remembers what it was fitted on; predicts the first class."""

    def fit(self, X, y, sample_weight=None):
        self.seen_ = X, y, sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def make_image(shape=(40, 50), seed=0):
    """Return an image in which class 2 is bright, and its full label image (1 and 2)."""
    rng = np.random.default_rng(seed)
    labels = 1 + (np.indices(shape).sum(axis=0) // 12) % 2
    return (labels * 60 + rng.normal(scale=40, size=shape)).astype(np.float32), labels


def scribble(labels, share=0.1, seed=0):
    """Return labels with most pixels set to 0."""
    return np.where(np.random.default_rng(seed).random(labels.shape) < share, labels, 0)


def make_images(shapes=((40, 50), (30, 44), (36, 44), (30, 50)), share=0.2):
    """Return a list of images and one of label images."""
    pairs = [make_image(shape, seed) for seed, shape in enumerate(shapes)]
    return [image for image, _ in pairs], [scribble(labels, share, seed) for seed, (_, labels) in enumerate(pairs)]


class Untouchable(TransformerMixin, BaseEstimator):
    """Fails the test as soon as it is asked to do any work."""

    def __init__(self, ndim=2, channel_axis=None):
        self.ndim = ndim
        self.channel_axis = channel_axis

    def fit(self, X, y=None):
        pytest.fail("features were fitted before bad input was refused")

    def transform(self, X):
        pytest.fail("features were computed before bad input was refused")
