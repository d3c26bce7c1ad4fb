"""Pixels to label next: unsure, and spread."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.naive_bayes import GaussianNB

from dconv import PixelClassifier
from dconv._suggestions import spread_peaks


def bumps(shape, places, heights):
    values = np.zeros(shape, np.float32)
    for place, height in zip(places, heights, strict=True):
        squares = sum((axis - at) ** 2 for axis, at in zip(np.indices(shape), place, strict=True))
        values += height * np.exp(-squares / 50)
    return values


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_peaks_are_found_the_highest_first(ndim):
    places = np.array([[30, 20, 30], [60, 60, 12], [15, 70, 60]])[:, :ndim]
    values = bumps((80,) * ndim, places, [0.6, 0.9, 0.3])
    np.testing.assert_allclose(spread_peaks(values, 3), places[[1, 0, 2]], atol=1)
    assert len(spread_peaks(values, 1)) == 1


def test_places_are_spread():
    values = np.random.default_rng(0).random((100, 100)).astype(np.float32)
    values[:20, :20] += 1  # most are here
    places = spread_peaks(values, 10)
    assert len(places) == 10
    assert pdist(places).min() > 15


def test_places_of_a_plateau_are_spread():
    values = np.ones((100, 100), np.float32)
    for plateau in (values, np.where(np.indices(values.shape).sum(axis=0) < 5, np.nan, values)):
        places = spread_peaks(plateau, 10)
        assert len(places) == 10
        assert pdist(places).min() > 15
        assert (np.ptp(places, axis=0) > 60).all()


def test_nothing_to_ask():
    assert spread_peaks(np.zeros((20, 30), np.float32), 5).shape == (0, 2)


def test_pixels_without_data_are_no_place():
    values = bumps((60, 60), [(20, 20), (40, 40)], [1, 0.5])
    values[:30, :30] = np.nan
    np.testing.assert_allclose(spread_peaks(values, 1), [[40, 40]], atol=3)


def test_suggested_pixels_are_where_classes_meet():
    ramp = np.linspace(-1, 1, 80)[np.newaxis] * np.ones((60, 1))
    image = (ramp + np.random.default_rng(0).normal(0, 0.1, ramp.shape))[..., np.newaxis]
    labels = np.where(ramp < -0.6, 1, np.where(ramp > 0.6, 2, 0))
    model = PixelClassifier("passthrough", GaussianNB()).fit(image, labels)
    pixels = model.suggest_pixels(image, 4)
    assert pixels.shape == (4, 2)
    assert np.abs(pixels[:, 1] - 40).max() < 12
    assert [len(each) for each in model.suggest_pixels([image, image[:30]], n=2)] == [2, 2]
    with pytest.raises(ValueError, match="n must be"):
        model.suggest_pixels(image, 0)
