"""Layers in tiles by Winograd's minimal filtering: against direct convolution, and that tiles change no bit."""

import gc
import weakref

import numpy as np
import pytest
import reference
from dconv._kernels._dispatch import supported_levels
from tolerance import assert_close, term_scale

from dconv import AtrousBackbone, _net_run, _winograd, conv, layers
from dconv._hole_algorithm import dense_net

LEVELS = supported_levels()


def one_layer(n_channels=16, n_filters=32, dilation=(1, 1), padding=None, bias=True, seed=0):
    """Return a layer that is computed in tiles, and the only step of the net that it is."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(n_filters, 3, 3, n_channels)) / np.sqrt(9 * n_channels)
    padding = tuple((apart, apart) for apart in dilation) if padding is None else padding
    layer = layers.Convolution(weight, rng.normal(size=n_filters) if bias else None, 1, padding, dilation)
    net = dense_net([layer], 1, None, 2)
    return net, net.steps[0]


def run(net, image, region=None, relu=False, n_threads=1, level=None):
    """Return a part of the output of a net of one layer, the whole one by default."""
    (step,), size = net.steps, image.shape[:2]
    out_size = step.out_size(size)
    region = tuple((0, n) for n in out_size) if region is None else region
    (part,) = net.parts({0: region}, size)
    x = image[tuple(slice(*pair) for pair in part.input)]
    weights = _winograd.pack_weights(step.layer.weight, level)
    return _winograd.run_tiles(step, part, x, weights, relu, n_threads, level)


def make_map(sizes, n_channels, seed=1):
    return np.random.default_rng(seed).normal(size=(*sizes, n_channels)).astype(np.float32)


def exact_outputs(image, layer):
    """Return what direct convolution gives in float64."""
    weight, bias = (None if each is None else each.astype(np.float64) for each in (layer.weight, layer.bias))
    options = {"padding": layer.padding, "dilation": layer.dilation}
    return conv(image[np.newaxis].astype(np.float64), weight, bias, **options)[0]


def small_net():
    """Return a net in which all layers but the first and the last are computed in tiles; strides come between."""
    rng = np.random.default_rng(2)

    def layer(n_channels, n_filters, dilation=1, kernel=3):
        weight = rng.normal(size=(n_filters, kernel, kernel, n_channels)) * np.sqrt(2 / (kernel**2 * n_channels))
        bias = rng.normal(size=n_filters, scale=0.1)
        return layers.Convolution(weight, bias, padding="same", dilation=dilation)

    return [
        *(layer(3, 32), layers.ReLU(), layer(32, 48), layers.ReLU(), layers.MaxPool(2)),
        *(layer(48, 32), layers.ReLU(), layers.AveragePool(3, 2, 1), layer(32, 64, 2), layers.ReLU("tiled")),
        layer(64, 8, kernel=1),
    ]


# --- what is computed ---


def check_layer(net, image, expected, level=None):
    """Check the outputs of a net of one layer, and that what is negative becomes 0 where that is asked for."""
    layer, n_channels = net.steps[0].layer, image.shape[-1]
    # The 4 x 4 factors of samples and weights are at most 16 times as large as the terms; of each, channels are added.
    scale = 16 * term_scale(image, layer.weight, layer.bias)
    assert_close(run(net, image, level=level), expected, n_channels + 16, scale)
    clipped = run(net, image, relu=True, level=level)
    assert_close(clipped, np.maximum(expected, 0), n_channels + 16, scale)
    assert clipped.min() == 0


@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_outputs_are_those_of_the_definition(dilation):
    net, step = one_layer(16, 16, dilation)
    image, layer = make_map((5, 6), 16), step.layer
    options = {"stride": (1, 1), "padding": layer.padding, "dilation": dilation, "groups": 1}
    check_layer(net, image, reference.conv(image[np.newaxis], layer.weight, layer.bias, **options)[0])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("n_channels", "n_filters", "sizes", "dilation"),
    [
        (16, 16, (12, 14), (1, 1)),
        (48, 80, (9, 11), (1, 1)),
        (32, 208, (17, 6), (2, 2)),
        (16, 112, (17, 10), (3, 1)),
        (64, 64, (21, 23), (4, 5)),
        (16, 16, (2, 2), (1, 1)),
        (16, 16, (1, 9), (1, 1)),
    ],
)
def test_every_level_computes_what_direct_convolution_does(level, n_channels, n_filters, sizes, dilation):
    net, step = one_layer(n_channels, n_filters, dilation)
    image, layer = make_map(sizes, n_channels), step.layer
    check_layer(net, image, exact_outputs(image, layer), level)


@pytest.mark.parametrize("n_channels", [32, 512])
def test_errors_are_those_of_direct_convolution(n_channels):
    """A sum has one term for each channel, not nine: that makes up for what the transforms round."""
    net, step = one_layer(n_channels, 64)
    image, layer = make_map((24, 26), n_channels), step.layer
    exact = exact_outputs(image, layer)
    size = np.sqrt(np.mean(exact**2))
    direct = conv(image[np.newaxis], layer.weight, layer.bias, padding=1)[0]
    error, of_direct = (np.sqrt(np.mean((each - exact) ** 2)) / size for each in (run(net, image), direct))
    assert error < 1e-6
    assert error < 1.5 * of_direct


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((2, 0), (0, 1)), ((1, 2), (2, 2))])
def test_any_padding(padding, bias):
    net, step = one_layer(padding=padding, bias=bias)
    image = make_map((8, 13), 16)
    check_layer(net, image, exact_outputs(image, step.layer))


def test_inputs_of_any_strides():
    net, _ = one_layer()
    image = make_map((10, 12), 16)
    expected = run(net, image)
    for other in (np.asfortranarray(image), image[::-1, ::-1].copy()[::-1, ::-1], np.repeat(image, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(run(net, other), expected)


# --- what an output depends on ---


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3), (5, 1)])
def test_parts_have_the_bits_of_the_whole(level, dilation):
    net, _ = one_layer(16, 80, dilation)
    image = make_map((25, 30), 16)
    whole = run(net, image, level=level)
    rng = np.random.default_rng(0)
    for _ in range(40):
        starts = [int(rng.integers(0, n)) for n in whole.shape[:2]]
        region = tuple((a, int(rng.integers(a + 1, n + 1))) for a, n in zip(starts, whole.shape[:2], strict=True))
        part = run(net, image, region, level=level)
        np.testing.assert_array_equal(part, whole[tuple(slice(*pair) for pair in region)])


@pytest.mark.parametrize("n_threads", [2, 3, 7, 500])
def test_threads_change_no_bit(n_threads):
    net, _ = one_layer(16, 32)
    for sizes in ((31, 40), (3, 2)):
        image = make_map(sizes, 16)
        np.testing.assert_array_equal(run(net, image, n_threads=n_threads), run(net, image))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 2), (1, 3)])
def test_outputs_see_what_their_kernel_covers_and_nothing_else(dilation, value):
    net, _ = one_layer(dilation=dilation)
    image = make_map((13, 14), 16)
    before = run(net, image)
    for place in [(0, 0), (5, 6), (6, 7), (6, 13), (12, 5)]:
        changed = image.copy()
        changed[(*place, 3)] = value
        after = run(net, changed)
        seen = np.zeros(image.shape[:2], bool)
        for row in (-1, 0, 1):
            for column in (-1, 0, 1):
                at = place[0] + row * dilation[0], place[1] + column * dilation[1]
                if 0 <= at[0] < 13 and 0 <= at[1] < 14:
                    seen[at] = True
        np.testing.assert_array_equal(after[~seen], before[~seen])
        assert (after[seen] != before[seen]).all()
        assert np.isfinite(value) or not np.isfinite(after[seen]).any()


@pytest.mark.parametrize("output_stride", [1, 2, 4])
def test_net_in_tiles_has_the_bits_of_the_whole(output_stride):
    image = make_map((47, 52), 3)
    model = AtrousBackbone(small_net(), output_stride=output_stride, taps=[3, "tiled", -1], channel_axis=-1).fit(image)
    assert in_tiles(model, image) == [2, 5, 8]
    whole = model.transform(image)
    rng = np.random.default_rng(0)
    for _ in range(15):
        starts = [int(rng.integers(0, n - 3)) for n in image.shape[:2]]
        block = tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(starts, image.shape[:2], strict=True))
        np.testing.assert_array_equal(model._transform_block(image, block), whole[block])
    model.set_params(tile_memory=1, n_jobs=2).fit(image)
    assert len(model._tiled_maps(image).tiles) > 1
    np.testing.assert_array_equal(model.transform(image), whole)


def test_dense_net_has_the_bits_of_the_strided_one():
    image = make_map((45, 50), 3)
    samples = {
        stride: AtrousBackbone(small_net(), output_stride=stride, channel_axis=-1).fit(image).maps(image)["conv10"]
        for stride in (1, 2, 4)
    }
    np.testing.assert_array_equal(samples[1][::4, ::4], samples[4])
    np.testing.assert_array_equal(samples[2][::2, ::2], samples[4])


def test_layers_that_were_trained_to_stride_keep_their_bits_where_they_are_dense():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(32, 3, 3, n)) / 10 for n in (3, 32, 32)]
    net = [layers.Convolution(weight, padding=1, stride=2) for weight in weights]
    image = make_map((40, 42), 3)
    models = [AtrousBackbone(net, output_stride=stride, channel_axis=-1).fit(image) for stride in (1, 8)]
    dense, strided = (model.maps(image)["conv2"] for model in models)
    assert in_tiles(models[0], image) == []
    np.testing.assert_array_equal(dense[::8, ::8], strided)


def test_moved_image_has_moved_maps():
    image = make_map((60, 66), 3)
    model = AtrousBackbone(small_net(), output_stride=1, channel_axis=-1).fit(image)
    features, moved = model.transform(image), model.transform(np.roll(image, (1, -1), (0, 1)))
    (top, bottom), (left, right) = model.halo_
    inner = features[top : -bottom - 1, left + 1 : -right]
    there = moved[top + 1 : -bottom, left : -right - 1]
    assert inner.size > 1000
    np.testing.assert_allclose(inner, there, rtol=0, atol=2e-6 * np.abs(inner).max())


# --- which layers ---


def in_tiles(model, image):
    """Return the places of the layers of a backbone that are computed in tiles for an image."""
    steps = zip(model._net.steps, model._net.sizes(image.shape[:2])[1:], strict=True)
    return [place for place, (step, size) in enumerate(steps) if _winograd.suits(step, size)]


@pytest.mark.parametrize(
    "layer",
    [
        layers.Convolution(np.ones((32, 3, 3, 3)), padding=1),
        layers.Convolution(np.ones((32, 3, 3, 16)), padding=1),
        layers.Convolution(np.ones((16, 3, 3, 32)), padding=1),
        layers.Convolution(np.ones((32, 3, 3, 40)), padding=1),
        layers.Convolution(np.ones((40, 3, 3, 32)), padding=1),
        layers.Convolution(np.ones((64, 3, 3, 32)), padding=1, groups=2),
        layers.Convolution(np.ones((32, 3, 3, 32)), padding=1, stride=(1, 2)),
        layers.Convolution(np.ones((32, 5, 3, 32)), padding=1),
        layers.Convolution(np.ones((32, 1, 1, 32))),
        layers.Convolution(np.ones((32, 3, 3, 32)), padding=(9, 20), dilation=(9, 20)),
    ],
)
def test_other_layers_are_computed_directly(layer):
    net = dense_net([layer], 1, None, 2)
    assert not _winograd.suits(net.steps[0], (20, 20))
    image = make_map((20, 20), layer.in_channels)
    ours = AtrousBackbone([layer], channel_axis=-1).fit(image).maps(image)["conv0"]
    direct = conv(
        image[np.newaxis], layer.weight, padding=layer.padding, stride=layer.stride, dilation=layer.dilation,
        groups=layer.groups,
    )  # fmt: skip
    np.testing.assert_array_equal(ours, direct[0])


def test_which_layers_are_computed_in_tiles():
    for n_channels, n_filters, dilation, size in [(32, 32, 1, (2, 2)), (48, 512, (9, 19), (10, 20))]:
        layer = layers.Convolution(np.ones((n_filters, 3, 3, n_channels)), padding="same", dilation=dilation)
        assert _winograd.suits(dense_net([layer], 1, None, 2).steps[0], size)


def test_transformed_weights_are_kept_as_long_as_their_layer():
    net, image = small_net(), make_map((20, 22), 3)
    model = AtrousBackbone(net, channel_axis=-1).fit(image)
    model.maps(image)
    kept = _net_run._transformed[net[2]]
    model.maps(image)
    assert _net_run._transformed[net[2]] is kept
    layer, weights = weakref.ref(net[2]), weakref.ref(kept)
    del net, model, kept
    gc.collect()
    assert layer() is None
    assert weights() is None


def test_cost_tells_what_threads_work_in():
    model = AtrousBackbone(small_net(), channel_axis=-1)
    one, four = (model.set_params(n_jobs=n_jobs).cost((64, 64)).memory for n_jobs in (1, 4))
    assert four - one == 3 * _winograd.scratch_bytes(dense_net(small_net(), 8, None, 2).steps[2], 1)
