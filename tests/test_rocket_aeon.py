"""MiniRocket's features are those of aeon, given its dilations and biases, and tell series apart as well."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dconv import MiniRocket

rocket = pytest.importorskip(
    "aeon.transformations.collection.convolution_based", reason='needs aeon: pip install "dconv[peers]"'
)
datasets = pytest.importorskip("aeon.datasets", reason='needs aeon: pip install "dconv[peers]"')


def channels_last(X):
    return np.ascontiguousarray(np.moveaxis(X, 1, -1))


@pytest.mark.parametrize(
    ("shape", "n_features", "most"),
    [
        ((40, 1, 512), 10_000, 32),
        ((13, 1, 9), 84, 32),
        ((9, 1, 1000), 3000, 5),
        ((20, 3, 97), 10_000, 32),
        ((20, 12, 64), 2000, 32),
    ],
)
def test_features_equal_aeon(shape, n_features, most):
    X = np.random.default_rng(0).normal(size=shape).cumsum(axis=-1).astype(np.float32)
    own = MiniRocket(n_features, max_dilations_per_kernel=most, random_state=0).fit(channels_last(X))
    peer = rocket.MiniRocket(n_features, most, random_state=0).fit(X)
    _, _, dilations, n_features_per_dilation, biases = peer.parameters
    np.testing.assert_array_equal(own.dilations_, dilations)
    np.testing.assert_array_equal(own.n_features_per_dilation_, n_features_per_dilation)
    assert own.biases_.shape == biases.shape
    ours = own.n_channels_per_combination_, own.channel_indices_, own.dilations_, own.n_features_per_dilation_
    peer.parameters = (*(part.astype(np.int32) for part in ours), own.biases_)
    expected, actual = peer.transform(X), own.transform(channels_last(X))
    differ = np.abs(actual - expected) > 1e-6
    assert differ.mean() <= 1e-4
    # Where they do, a few responses lie on a bias, but for rounding: one or two positions of those counted.
    assert np.abs(actual - expected).max() <= 2 / min(shape[2] - 8 * own.dilations_.max(), 30)
    assert 0.05 < actual.mean() < 0.95


@pytest.mark.parametrize("name", ["arrow_head", "gunpoint", "italy_power_demand", "basic_motions"])
def test_accuracy_is_that_of_aeon(name):
    load = getattr(datasets, f"load_{name}")
    (X, y), (X_test, y_test) = load(split="train"), load(split="test")
    scores = {"own": [], "aeon": []}
    for seed in range(3):
        own = make_pipeline(MiniRocket(random_state=seed), StandardScaler(with_mean=False), RidgeClassifierCV())
        scores["own"].append(own.fit(channels_last(X), y).score(channels_last(X_test), y_test))
        peer = make_pipeline(rocket.MiniRocket(random_state=seed), StandardScaler(with_mean=False), RidgeClassifierCV())
        scores["aeon"].append(peer.fit(X, y).score(X_test, y_test))
    assert np.mean(scores["own"]) >= np.mean(scores["aeon"]) - 0.02
