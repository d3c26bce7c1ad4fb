"""The training of a small network on probabilities."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

from dconv import _student


def problem(n_rows, n_classes):
    """Return rows, and probabilities that are a smooth function of them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n_rows, 3)).astype(np.float32)
    scores = np.exp(rows @ rng.normal(size=(3, n_classes)))
    return rows, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def cross_entropy(rows, wanted, layers):
    """As it is defined, in float64."""
    for weight, bias in layers[:-1]:
        rows = np.maximum(rows @ weight + bias, 0)
    logits = rows @ layers[-1][0] + layers[-1][1]
    if wanted.shape[1] == 1:
        logits, wanted = np.hstack([0 * logits, logits]), np.hstack([1 - wanted, wanted])
    return -np.mean(np.sum(wanted * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))), axis=1))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_gradient_is_that_of_differences(n_classes):
    rows, wanted = problem(20, n_classes)
    wanted = wanted[:, 1:] if n_classes == 2 else wanted
    sizes = [3, 4, 5, wanted.shape[1]]
    flat = np.random.default_rng(1).normal(size=sum((a + 1) * b for a, b in pairwise(sizes)))
    gradient = np.zeros_like(flat)
    _student._differentiate(
        rows.astype(float), wanted.astype(float), _student._layers(flat, sizes), _student._layers(gradient, sizes)
    )
    for number in range(len(flat)):
        around = []
        for step in (-1e-6, 1e-6):
            moved = flat.copy()
            moved[number] += step
            around.append(cross_entropy(rows.astype(float), wanted, _student._layers(moved, sizes)))
        assert gradient[number] == pytest.approx((around[1] - around[0]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_learns_probabilities(n_classes):
    rows, wanted = problem(6000, n_classes)
    classes = np.arange(10, 10 + n_classes)
    network = _student.train(rows[:5000], wanted[:5000], classes, (16, 8), np.random.RandomState(0))
    assert isinstance(network, MLPClassifier)
    answers = network.predict_proba(rows[5000:])
    assert np.abs(answers - wanted[5000:]).mean() < 0.04  # the noise makes them a little smoother
    assert np.mean(network.predict(rows[5000:]) == classes[wanted[5000:].argmax(axis=1)]) > 0.93
    assert np.abs(wanted[:5000].mean(axis=0) - wanted[5000:]).mean() > 0.1  # what one number for all would be off by


def test_is_the_same_again():
    rows, wanted = problem(300, 2)
    one, other, third = (
        _student.train(rows, wanted, np.arange(2), (4,), np.random.RandomState(seed)) for seed in (0, 0, 1)
    )
    for a, b, c in zip(one.coefs_, other.coefs_, third.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.float32
        assert not np.array_equal(a, c)


@pytest.mark.parametrize("n_rows", [1, 2])
def test_few_rows(n_rows):
    rows, wanted = problem(n_rows, 3)
    network = _student.train(rows, wanted, np.arange(3), (4, 4), np.random.RandomState(0))
    assert np.isfinite(network.predict_proba(rows)).all()
