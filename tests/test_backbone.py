"""AtrousBackbone: the hole algorithm against nets run by their definition, parts, what is seen, bad input."""

import functools
import pickle
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import reference_net
from nets import make_image, make_net
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import dconv
from dconv import AtrousBackbone, _net_run, layers

N_LAYERS = 11
TAPS = [0, 3, 5, N_LAYERS - 1]


def backbone(ndim=2, n_channels=3, **parameters):
    """Return a backbone of the net with every kind of layer, fitted to `make_image`."""
    _, net = make_net(ndim, n_channels)
    parameters = {"taps": TAPS, "ndim": ndim, "channel_axis": -1, **parameters}
    return AtrousBackbone(net, **parameters).fit(make_image(ndim, n_channels))


@functools.cache
def expected_outputs(ndim):
    """Return what every layer of the strided net gives for `make_image`."""
    return reference_net.run(make_net(ndim)[0], make_image(ndim))


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * max(1, np.abs(expected).max()))


# --- the hole algorithm ---


@pytest.mark.parametrize("output_stride", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_dense_net_has_the_values_of_the_strided_one_at_all_its_positions(ndim, output_stride):
    image, expected = make_image(ndim), expected_outputs(ndim)
    dense = backbone(ndim, output_stride=output_stride)
    strided = backbone(ndim, output_stride=64)
    for tap, (name, samples) in zip(TAPS, dense.maps(image).items(), strict=True):
        number = dense.taps_.index(name)
        holes = [a // b for a, b in zip(strided.strides_[number], dense.strides_[number], strict=True)]
        assert all(step <= max(output_stride, 1) for step in dense.strides_[number])
        there = samples[tuple(slice(None, None, hole) for hole in holes)]
        assert there.shape == expected[tap].shape
        assert_close(there, expected[tap])
        np.testing.assert_array_equal(there, strided.maps(image)[name])  # the same bits


@pytest.mark.parametrize("sizes", [(10, 12), (16, 16), (17, 31), (24, 33)])
def test_sizes_whatever_the_rest(sizes):
    plain, net = make_net()
    image = make_image(sizes=sizes)
    for output_stride in (1, 4):
        model = AtrousBackbone(net, output_stride=output_stride, channel_axis=-1)
        samples = model.fit(image).maps(image)[model.taps_[0]]
        holes = [whole // step for whole, step in zip((8, 16), model.strides_[0], strict=True)]
        assert_close(samples[:: holes[0], :: holes[1]], reference_net.run(plain, image)[-1])


def test_moved_image_has_moved_features():
    model = backbone(output_stride=1)
    image = make_image(sizes=(130, 150))
    features, moved = model.transform(image), model.transform(np.roll(image, (1, -2), (0, 1)))
    (top, bottom), (left, right) = model.halo_
    inner = features[top:-bottom, left:-right]
    height, width = inner.shape[:2]
    np.testing.assert_array_equal(inner[: height - 1, 2:], moved[top + 1 : -bottom, left : left + width - 2])
    assert inner[: height - 1, 2:].size > 1000


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_features_lie_between_samples(ndim):
    image = make_image(ndim)
    for output_stride in (1, 4):
        model = backbone(ndim, output_stride=output_stride)
        features, done = model.transform(image), 0
        for tap, samples in zip(model._net.taps, model.maps(image).values(), strict=True):
            centers = [center / 2 for center in tap.centers]
            expected = reference_net.enlarge(samples.astype(np.float64), centers, tap.stride, image.shape[:-1])
            assert_close(features[..., done : done + tap.n_channels], expected)
            done += tap.n_channels
        assert done == model.n_features_out_ == features.shape[-1]


def test_centers_are_those_of_what_samples_see():
    for tap in backbone(output_stride=2)._net.taps:
        for center, (left, right) in zip(tap.centers, tap.reach, strict=True):
            assert center == right - left


def test_output_stride_differs_between_axes():
    model = backbone(output_stride=(2, 16))
    assert model.strides_[-1] == (2, 16)
    samples, strided = (each.maps(make_image()) for each in (model, backbone(output_stride=16)))
    np.testing.assert_array_equal(samples[model.taps_[-1]][::4], strided[model.taps_[-1]])


def test_large_output_stride_is_the_net_as_trained():
    net = [layers.Convolution(np.ones((1, 3, 3, 1)), stride=3), layers.MaxPool(2), layers.AveragePool(5)]
    for output_stride, strides in [(1000, (30, 30)), (31, (30, 30)), ((30, 6), (30, 6)), ((3, 64), (3, 30))]:
        assert AtrousBackbone(net, output_stride=output_stride).fit(np.ones((90, 90))).strides_ == (strides,)
    fails(net, "output_stride=4 cannot be had on axis 1: layer 'conv0' has stride 3", output_stride=(6, 4))
    assert AtrousBackbone(net, output_stride=4, taps=[0]).fit(np.ones((90, 90))).strides_ == ((3, 3),)


# --- parts and wholes ---


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_tiles_and_blocks_change_no_bit(ndim):
    image = make_image(ndim)
    whole = backbone(ndim, output_stride=4)
    expected = whole.transform(image)
    with mock.patch("dconv._map_tiles.choose_tile_shape", return_value=(12,) * ndim):
        np.testing.assert_array_equal(whole.transform(image), expected)
        prepared = whole._for_image(image)
    assert len(prepared._tiles.tiles) >= 2**ndim
    rng = np.random.default_rng(0)
    for _ in range(20):
        starts = [int(rng.integers(0, n - 3)) for n in image.shape[:-1]]
        block = tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(starts, image.shape[:-1], strict=True))
        np.testing.assert_array_equal(whole._transform_block(image, block), expected[block])
        np.testing.assert_array_equal(prepared._transform_block(image, block), expected[block])


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_short_rows_computed_as_one_change_no_bit(monkeypatch, ndim, n_jobs):
    image, net = make_image(ndim), backbone(ndim, output_stride=2, n_jobs=n_jobs)
    with mock.patch.object(_net_run, "_as_one_row", wraps=_net_run._as_one_row) as as_one_row:
        together = net.maps(image)
    assert as_one_row.call_count >= 3
    monkeypatch.setattr(_net_run, "_SHORT_ROW", 0)
    for name, one_by_one in net.maps(image).items():
        np.testing.assert_array_equal(together[name], one_by_one)


def test_threads_share_tiles():
    image = make_image(sizes=(140, 120))
    model = backbone(output_stride=4, tile_memory=1)
    expected = model.transform(image)
    prepared = model._for_image(image)
    with mock.patch("dconv._map_tiles.compute_maps", wraps=dconv._map_tiles.compute_maps) as computed:
        blocks = [
            (slice(row, row + 7), slice(column, column + 6)) for row in range(0, 140, 7) for column in range(0, 120, 6)
        ]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda block: prepared._transform_block(image, block), blocks))
    for block, features in zip(blocks, found, strict=True):
        np.testing.assert_array_equal(features, expected[block])
    assert 1 < computed.call_count < len(blocks) / 2  # threads that are apart may push out the tile of another


def test_memory_is_what_cost_says():
    model = backbone(output_stride=1, tile_memory=1_500_000)
    cost = model.cost((200, 300))
    assert cost.n_tiles > 1
    assert cost.memory <= 1_500_000
    assert cost.features == 4 * 200 * 300 * model.n_features_out_
    whole = backbone(output_stride=1).cost((200, 300))
    assert whole.n_tiles == 1
    assert whole.multiplications < cost.multiplications  # tiles overlap
    assert 0.9 < whole.multiplications / sum(layer.multiplications for layer in whole.layers) <= 1
    assert "average_pool9" in str(cost)


def test_multiplications_are_those_of_the_definition():
    net = [layers.Convolution(np.ones((8, 3, 3, 2)), padding=1, groups=2), layers.MaxPool(2), layers.AveragePool(2)]
    by_layer = AtrousBackbone(net, output_stride=2).cost((20, 30)).layers
    assert [layer.multiplications for layer in by_layer] == [20 * 30 * 8 * 18, 0, 9 * 14 * 8 * 4]
    assert [layer.shape for layer in by_layer] == [(20, 30, 8), (10, 15, 8), (9, 14, 8)]
    assert [layer.dilation for layer in by_layer] == [(1, 1)] * 3


# --- what features see ---


@pytest.mark.parametrize("output_stride", [1, 4, 16])
@pytest.mark.parametrize("size", [60, 61, 67, 75])
def test_halo_is_exact(output_stride, size):
    _, net = make_net(1, 1)
    rng = np.random.default_rng(0)
    # Every weight positive and no ReLU: whatever is seen changes what comes out, in every number.
    positive = [
        layers.Convolution(abs(each.weight), None, each.stride, each.padding, each.dilation, each.groups)
        if isinstance(each, layers.Convolution)
        else each
        for each in net
        if not isinstance(each, layers.ReLU)
    ]
    positive = [
        layers.AveragePool(each.kernel_size, each.stride, each.padding) if isinstance(each, layers.MaxPool) else each
        for each in positive
    ]
    series = rng.uniform(1, 2, size=(size, 1)).astype(np.float32)
    model = AtrousBackbone(positive, output_stride=output_stride, ndim=1, channel_axis=-1).fit(series)
    before = model.transform(series)
    ((left, right),) = model.halo_
    seen = []
    for pixel in range(size):
        changed = series.copy()
        changed[pixel] += 100
        touched = np.flatnonzero((model.transform(changed) != before).any(axis=-1))
        seen.append((int((touched - pixel).max()), int((pixel - touched).max())))
    lefts, rights = zip(*seen, strict=True)
    assert max(lefts) <= left
    assert max(rights) <= right
    if output_stride == 1:
        assert (max(lefts), max(rights)) == (left, right)


def test_halo_is_the_farthest_that_any_size_sees():
    net = [layers.Convolution(np.ones((1, 3, 1))), layers.AveragePool(4), layers.Convolution(np.ones((1, 2, 1)))]
    farthest = [0, 0]
    for size in range(12, 24):
        series = np.ones((size, 1), np.float32)
        model = AtrousBackbone(net, ndim=1, channel_axis=-1).fit(series)
        before = model.transform(series)
        for pixel in range(size):
            changed = series.copy()
            changed[pixel] += 100
            touched = np.flatnonzero((model.transform(changed) != before).any(axis=-1))
            if len(touched):
                farthest = [max(farthest[0], touched.max() - pixel), max(farthest[1], pixel - touched.min())]
    assert model.halo_ == (tuple(farthest),)
    assert model.receptive_field_ == (sum(farthest) + 1,)


# --- in the place of other features ---


def test_classifier_predicts_block_by_block(tmp_path):
    image = make_image(sizes=(60, 50))
    labels = 1 + (image[..., 0] > 0).astype(int)
    features = dconv.make_features(dconv.AtrousFeatures(2), backbone(output_stride=4, tile_memory=1))
    model = dconv.PixelClassifier(features, LogisticRegression(max_iter=2000), channel_axis=-1).fit(image, labels)
    assert model.n_features_ == features.fit(image).n_features_out_
    expected = model.predict_proba(image)
    rows = features.fit(image).transform(image).reshape(-1, model.n_features_)
    np.testing.assert_allclose(expected.reshape(-1, 2), model.classifier_.predict_proba(rows), atol=1e-5)
    out = np.zeros(image.shape[:2], np.uint8)
    dconv.predict_blocks(model, image, out, block_shape=16, progress=False)
    np.testing.assert_array_equal(out, model.predict(image))
    dconv.save(model, tmp_path / "model.dconv")
    np.testing.assert_array_equal(dconv.load(tmp_path / "model.dconv").predict_proba(image), expected)
    assert "backbone" in {plane.split("__")[-1] for plane, _, _ in model.features_._feature_keys()}


def test_dask_arrays_have_the_same_labels():
    da = pytest.importorskip("dask.array", reason="dask is not installed (pip install dconv[dask])")
    image = make_image(sizes=(150, 140))
    model = dconv.PixelClassifier(backbone(output_stride=8), LogisticRegression(), channel_axis=-1)
    model.fit(image, 1 + (image[..., 0] > 0).astype(int))
    lazy = dconv.distributed.predict(model, da.from_array(image, chunks=(75, 70, 3)))
    assert lazy.numblocks != (1, 1)
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), model.predict(image))


def test_file_of_a_net_that_wants_large_images(tmp_path):
    net = [layers.Convolution(np.ones((2, 5, 5, 1)), dilation=(8, 10))]
    image = make_image(n_channels=1, sizes=(60, 70))[..., 0]
    labels = 1 + (image > 0).astype(int)
    model = dconv.PixelClassifier(AtrousBackbone(net, taps=[np.int64(0)]), LogisticRegression()).fit(image, labels)
    dconv.save(model, tmp_path / "model.dconv")
    np.testing.assert_array_equal(dconv.load(tmp_path / "model.dconv").predict(image), model.predict(image))


def test_copies_share_weights():
    model = backbone()
    copy = clone(model)
    assert all(a is b for a, b in zip(copy.layers, model.layers, strict=True))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(make_image()), model.transform(make_image()))


def test_input_is_prepared():
    _, net = make_net()
    image = np.random.default_rng(0).integers(0, 256, (40, 44, 3)).astype(np.uint8)
    plain = AtrousBackbone(net, channel_axis=-1)
    swapped = AtrousBackbone(net, channels=(2, 1, 0), mean=(1, 2, 3), std=(4, 5, 6), channel_axis=-1)
    prepared = (image[..., ::-1].astype(np.float32) - np.float32([1, 2, 3])) * (1 / np.array([4, 5, 6])).astype("f4")
    np.testing.assert_array_equal(swapped.fit_transform(image), plain.fit_transform(prepared))
    grey = AtrousBackbone(net, channels=(0, 0, 0)).fit_transform(image[..., 1])
    np.testing.assert_array_equal(grey, plain.fit_transform(np.repeat(image[..., 1:2], 3, axis=-1)))


# --- bad input ---


def fails(net, match, error=ValueError, image=None, **parameters):
    with pytest.raises(error, match=match):
        AtrousBackbone(net, **{"channel_axis": -1, **parameters}).fit(make_image() if image is None else image)


def test_parameters_that_cannot_be_used():
    _, net = make_net()
    fails(net, r"output_stride=3 cannot be had on axis 0: layer 'max_pool2' has stride 2", output_stride=3)
    fails(net, "output_stride must be at least 1", output_stride=0)
    fails(net, "taps has 'pool9', but the layers are conv0, relu1", taps=["pool9"])
    fails(net, "taps has 11, but there are 11 layers", taps=[11])
    fails(net, "takes a layer twice", taps=[0, "conv0"])
    fails(net, "taps must be None or a list", TypeError, taps="conv0")
    fails(net, "taps must be None or a list of names or places of layers, got 1.0", TypeError, taps=[1.0])
    fails(net, "tile_memory must be an int", TypeError, tile_memory=1e9)
    fails(net, "mean must be one number or 3", mean=(1, 2))
    fails(net, "std must be positive", std=0)
    fails(net, "std must be positive", std=1e-45)
    fails(net, r"std must not be beyond 1e\+18", std=1e300)
    fails(net, r"mean must not be beyond 1e\+18", mean=(0, -1e300, 0))
    fails(net, "mean must be a finite number", TypeError, mean="grey")
    fails(net, r"channels=\(0, 1, 3\) has 3, but X has 3", channels=(0, 1, 3))
    fails(net, "channels must be an int or have one int for each of the 3 channels of the net's input", channels=(0, 1))
    fails(net, "'conv0' has a kernel with 2 axes", ndim=3, image=make_image(3))
    fails([], "layers must be a list of layers", TypeError)
    fails(["conv"], r"layers\[0\] must be a Convolution", TypeError)
    fails([layers.ReLU()], "hold no Convolution")
    fails([layers.ReLU("a"), layers.Convolution(np.ones((1, 1, 1, 3)), name="a")], "names that occur twice: a")
    fails([net[0], net[0]], r"layer 'conv1' takes 3 channels .* give 4")
    fails([*net[:1], layers.MaxPool((2, 2, 2))], "'max_pool1' has sizes for 3 axes, but ndim=2")


def test_images_that_cannot_be_used():
    _, net = make_net()
    fails(net, r"the net takes 3 channel\(s\).* X has 2", image=make_image(n_channels=2))
    fails(net, r"X has 1; channels=\(0, 0, 0\) gives it a grey image", image=make_image(n_channels=1))
    unpadded = [layers.Convolution(np.ones((1, 3, 3, 3))), layers.MaxPool(2)]
    fails(unpadded, r"axis 0 has 3 pixels, but at least 4 are needed; the net has no output", image=np.ones((3, 9, 3)))
    with pytest.raises(ValueError, match="axis 1 has 2 pixels"):
        AtrousBackbone(unpadded).cost((9, 2))
    with pytest.raises(ValueError, match=r"X has 2 channel\(s\) per image, but AtrousBackbone was fitted with 3"):
        backbone().maps(make_image(n_channels=2))
