"""The kernel of networks at every CPU level, its activations, and what is folded."""

import itertools

import numpy as np
import pytest
from dconv._kernels._dispatch import supported_levels
from dconv._kernels._network import IDENTITY, LOGISTIC, RAMP, RELU, SOFTMAX, SQUARE, TANH
from scipy.special import expit, softmax

from dconv._affine import Affine, SoftClip, bias_about, then
from dconv._network import Layer, Network
from dconv._network_run import compile_network
from dconv._network_tables import tables_of
from dconv._predictor import NotCompilable

rng = np.random.default_rng(0)
WIDE = np.concatenate([np.linspace(-120, 120, 1001), np.linspace(-1e-3, 1e-3, 101), [0, 1e30, -1e30]])


def affine(n_outputs, n_inputs, **more):
    return Affine(rng.normal(size=(n_outputs, n_inputs)), rng.normal(size=n_outputs), **more)


def run(network, x, level=None):
    out = np.full((len(x), network.n_outputs), np.nan, np.float32)
    compile_network(network, level)(np.ascontiguousarray(x, np.float32), out)
    return out


def define(network, x):
    """Return what a network gives, by its definition in float64."""
    h = x.astype(np.float64)
    for index, layer in enumerate(network.layers):
        weight, bias, centre, _ = layer.affine
        h = h - (0 if centre is None else centre)
        if network.squares and index == 0:
            h = np.hstack([h, h**2])
        h = h @ weight.T + bias
        h = {
            IDENTITY: lambda h: h,
            RELU: lambda h: np.maximum(h, 0),
            LOGISTIC: expit,
            TANH: np.tanh,
            SQUARE: np.square,
            SOFTMAX: lambda h: np.exp(h - h.max(axis=1, keepdims=True)),
            RAMP: lambda h: (np.clip(h, -1, 1) + 1) / 2,
        }[layer.activation](h)
    return h / h.sum(axis=1, keepdims=True) if network.normalise else h


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize(
    ("activation", "function", "tolerance"),
    [
        (LOGISTIC, expit, 2e-7),
        (TANH, np.tanh, 2e-7),
        (RELU, lambda x: np.maximum(x, 0), 0),
        (RAMP, lambda x: (np.clip(x, -1, 1) + 1) / 2, 1e-7),
    ],
)
def test_activations(level, activation, function, tolerance):
    x = WIDE.astype(np.float32)[:, np.newaxis]
    network = Network((Layer(Affine(np.eye(1), np.zeros(1)), activation),))
    expected = function(x.astype(np.float64))
    np.testing.assert_allclose(run(network, x, level), expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("level", supported_levels())
def test_softmax_keeps_small_probabilities(level):
    x = np.stack([WIDE[:1001], np.zeros(1001)], axis=1).astype(np.float32)[np.abs(WIDE[:1001]) < 87]
    network = Network((Layer(Affine(np.eye(2), np.zeros(2)), SOFTMAX),), normalise=True)
    np.testing.assert_allclose(run(network, x, level), softmax(x.astype(np.float64), axis=1), rtol=1e-6)


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3, 5, 6, 8, 17])
def test_softmax_of_classes_far_from_each_other(n_classes, double, level):
    """Scores are computed less that of the first class, which may be the most likely one or have no chance at all."""
    network = Network((Layer(affine(n_classes, 20), SOFTMAX),), normalise=True, double=double)
    x = rng.normal(size=(401, 20)).astype(np.float32) * np.float32(10)
    expected = define(network, x)
    assert expected[:, 0].min() < 1e-10 < 0.9 < expected[:, 0].max()
    for n in (1, 16, 17, 401):
        np.testing.assert_allclose(run(network, x[:n], level), expected[:n], rtol=0, atol=2e-7 if double else 1e-5)


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(
    "sizes", [(1, 1), (1, 3), (3, 1), (5, 2), (16, 4), (98, 1), (98, 2), (98, 5), (13, 40, 2), (8, 33, 9, 3)]
)
def test_networks_at_every_level(sizes, centred, level):
    centre = 5 * rng.normal(size=sizes[0]) if centred else None
    maps = [affine(n_outputs, n_inputs) for n_inputs, n_outputs in itertools.pairwise(sizes)]
    maps[0] = maps[0]._replace(centre=centre)
    x = rng.normal(size=(401, sizes[0])) + (0 if centre is None else centre)
    for hidden in (RELU, TANH, LOGISTIC):
        network = Network((*(Layer(each, hidden) for each in maps[:-1]), Layer(maps[-1])))
        expected = define(network, x.astype(np.float32))
        np.testing.assert_allclose(run(network, x, level), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("n_features", [1, 3, 16, 17, 66])
@pytest.mark.parametrize("n_outputs", [1, 6])  # few outputs read rows that end with zeros
def test_clipped_rows_at_every_level(n_features, n_outputs, level):
    clip = SoftClip(rng.normal(size=n_features), rng.uniform(0.5, 2, n_features), 5.0)
    network = Network((Layer(affine(n_outputs, n_features)),), clip=clip)
    x = np.concatenate(
        [
            rng.normal(scale=10, size=(200, n_features)),
            np.full((2, n_features), 1e30),
            WIDE[:5, None] + np.zeros(n_features),
        ]
    )
    z = (x.astype(np.float32) - clip.centre) / clip.scale
    expected = define(Network(network.layers), z / np.sqrt(1 + (z / clip.limit) ** 2))
    np.testing.assert_allclose(run(network, x, level), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_weights_next_to_nothing_are_none():
    weight = np.array([[1.0, 1e-42, -1e-39], [1e-31, 2.0, -1e-20]])
    tables = tables_of(Network((Layer(Affine(weight, np.array([1e-44, 1.0]))),)), None)
    for array in (tables.weights, tables.biases):
        assert not (np.abs(array[array != 0]) < 1e-30).any()
    assert {1.0, 2.0, np.float32(-1e-20)} <= set(tables.weights.tolist())


@pytest.mark.parametrize(("unit", "known"), [((1, 1e34, 1e35), True), ((1e33, 1e34, 1e35), False)])
def test_weights_of_large_features_are_not_next_to_nothing(unit, known):
    unit = np.array(unit)
    x = (rng.normal(size=(50, 3)) * unit).astype(np.float32)
    network = Network((Layer(Affine(rng.normal(size=(2, 3)) / unit, np.ones(2), None, unit if known else None)),))
    np.testing.assert_allclose(run(network, x), define(network, x), rtol=1e-5, atol=1e-5)


def test_float64_keeps_all_weights():
    network = Network((Layer(Affine(np.array([[1.0, 1e-34]]), np.zeros(1))),), double=True)
    x = np.array([[0, 1e34], [1, 2e34]], np.float32)
    np.testing.assert_allclose(run(network, x), [[1], [3]], rtol=1e-6)


@pytest.mark.parametrize("level", supported_levels())
def test_float64_at_every_level(level):
    x = rng.normal(size=(401, 13)).astype(np.float32) + 100
    squares = Network((Layer(affine(3, 26, centre=np.full(13, 100.0))),), squares=True, double=True)
    quadratic = Network((Layer(affine(30, 13), SQUARE), Layer(affine(3, 30))), double=True)
    linear = Network((Layer(affine(2, 13)),), double=True)
    for network in (squares, quadratic, linear):
        np.testing.assert_allclose(run(network, x, level), define(network, x), rtol=1e-6, atol=1e-6)


def test_maps_are_composed_about_their_centres():
    scaler = Affine(np.diag([2.0, 0.5]), np.zeros(2), np.array([1e8, -1e8]))
    after = affine(3, 2)
    both = then(scaler, after)
    x = np.array([1e8 + 1, -1e8 + 2])
    np.testing.assert_allclose(both.weight @ (x - both.centre) + both.bias, after.weight @ [2, 1] + after.bias)
    selection = Affine(np.eye(4)[[3, 0]], np.zeros(2))
    both = then(selection, scaler._replace(spread=np.array([3.0, 4.0])))
    np.testing.assert_allclose(both.centre, [-1e8, 0, 0, 1e8])
    np.testing.assert_allclose(both.spread, [4, 0, 0, 3])
    np.testing.assert_allclose(both.bias, 0, atol=1e-7)
    np.testing.assert_allclose(bias_about(scaler, None), [-2e8, 0.5e8])


def test_layers_are_merged_where_that_is_less_work():
    tall, wide = affine(64, 10), affine(10, 98)
    assert len(Network((Layer(wide), Layer(tall, RELU))).merged()) == 2
    assert len(Network((Layer(affine(98, 98)), Layer(affine(64, 98), RELU))).merged()) == 1
    assert len(Network((Layer(affine(9, 98), RELU), Layer(affine(2, 9)))).merged()) == 2


def test_projections_before_wide_layers_keep_their_own_sums():
    network = Network(
        (
            Layer(affine(3, 50, centre=np.full(50, 7.0))),
            Layer(affine(64, 3, centre=np.ones(3)), RELU),
            Layer(affine(2, 64)),
        )
    )
    assert len(network.merged()) == 3
    x = rng.normal(size=(50, 50)).astype(np.float32)
    expected = define(network, x)
    np.testing.assert_allclose(run(network, x), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_precision_follows_from_the_spread():
    fine = Network((Layer(affine(20, 9, spread=np.ones(9)), RELU), Layer(affine(2, 20))))
    run(fine, np.ones((3, 9)))
    coarse = Network((Layer(affine(20, 9, spread=np.full(9, 1e4)), RELU), Layer(affine(2, 20))))
    with pytest.raises(NotCompilable, match="more digits than float32 has"):
        compile_network(coarse)
