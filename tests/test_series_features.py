"""Series: the features that only they have, causal features, channels, and streams worked on in chunks."""

import itertools

import numpy as np
import pytest
from dconv._kernels._dispatch import supported_levels
from reference_features import assert_close, plane_features, random_image
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dconv
from dconv._feature_groups import available_groups
from dconv.combined import make_features
from dconv.context import ContextClassifier
from dconv.crf import DenseCRF
from dconv.features import AtrousFeatures
from dconv.position import PixelPosition
from dconv.segmentation import PixelClassifier

# How far each feature looks ahead at its level, in dilations, as the docstring has it.
REACH = {
    "level": 0, "wavelet": 2, "gradient": 1, "slope": 1, "curvature": 1, "structure_tensor": 3, "std": 2, "max": 1,
    "min": 1, "crossings": 2, "ppv": 2, "activity": 2,
}  # fmt: skip
RADII = {"narrow": 1, "wide": 4}  # of windows, in dilations of the last level, besides
SERIES_GROUPS = ["level", "wavelet", "slope", "curvature", "std", "extrema", "zero_crossings", "ppv", "activity"]


def walk(length, n_channels=None, seed=0):
    """Return random walks with noise, which have structure at all scales."""
    rng = np.random.default_rng(seed)
    shape = (length,) if n_channels is None else (length, n_channels)
    return (np.cumsum(rng.normal(size=shape), axis=0) + rng.normal(size=shape)).astype(np.float32)


def two_regimes(length, seed=0):
    """Return a series that hums and hisses by turns, and which it does: 1 or 2."""
    rng = np.random.default_rng(seed)
    labels = 1 + (np.arange(length) // 150 % 2)
    x = np.where(labels == 1, np.sin(np.arange(length) / 3), rng.normal(size=length)) + 0.2 * rng.normal(size=length)
    return x.astype(np.float32), labels


# --- the groups of series ---


def test_default_groups_of_series():
    bank = AtrousFeatures(3, ndim=1).fit(walk(300))
    names = bank.get_feature_names_out()
    assert list(names) == list(AtrousFeatures(3, groups=SERIES_GROUPS, ndim=1).fit(walk(300)).get_feature_names_out())
    assert len(names) == 3 * 17 + 1
    fast = AtrousFeatures(3, groups="fast", ndim=1).fit(walk(300)).get_feature_names_out()
    left_out = ("_max", "_min", "_crossings", "_ppv")
    assert list(fast) == [name for name in names if not any(part in name for part in left_out)]
    assert AtrousFeatures(ndim=1).fit(walk(300)).n_features_out_ == 86


@pytest.mark.parametrize("group", ["slope", "curvature", "zero_crossings", "ppv", "activity"])
def test_groups_of_series_are_not_those_of_images(group):
    with pytest.raises(ValueError, match=rf"unknown names \['{group}'\] for ndim=2"):
        AtrousFeatures(1, groups=[group]).fit(np.zeros((20, 20)))


def test_slope_and_curvature_of_a_parabola():
    t = np.arange(200.0)
    bank = AtrousFeatures(3, groups=["slope", "curvature"], ndim=1)
    middle = bank.fit_transform(t**2 / 100)[100]
    # Differences over the dilation d, of a parabola that smoothing only shifts: 2 t d / 100 and 2 d^2 / 100.
    np.testing.assert_allclose(middle, np.ravel([(2 * d, d**2 / 50) for d in (1, 2, 4)]), rtol=1e-3)


@pytest.mark.parametrize("period", [5.3, 8.1, 13.7])
def test_zero_crossings_tell_the_frequency(period):
    x = np.sin(2 * np.pi * np.arange(2000) / period + 0.3)
    bank = AtrousFeatures(4, groups=["zero_crossings", "ppv"], ndim=1)
    features = dict(zip(bank.fit(x).get_feature_names_out(), bank.transform(x)[1000], strict=True))
    for dilation, (window, radius) in itertools.product((1, 2), RADII.items()):
        for plane in ("wavelet", "slope"):
            crossings = features[f"intensity_crossings_{plane}_{window}_d{dilation}"]
            n_pairs = 2 * 8 * radius
            assert abs(crossings * n_pairs / dilation - 2 * n_pairs / period) <= 1  # of those in the window
            share = features[f"intensity_ppv_{plane}_{window}_d{dilation}"]
            assert abs(share - 0.5) <= period / (n_pairs + 1)


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 12345.678, -3e17])
def test_roundings_of_a_constant_are_not_counted(value, level):
    x = np.full((500, 1), value, np.float32)
    bank = AtrousFeatures(6, groups=["zero_crossings", "ppv"], ndim=1, channel_axis=-1).fit(x)
    features = np.empty((500, bank.n_features_out_), np.float32)
    bank._bank.fill(x, (slice(0, 500),), features, level)
    assert not features.any()


def test_share_of_a_square_wave():
    """Three samples of four up: the wavelet is above 0 there."""
    x = np.tile([0.0, 1.0, 1.0, 1.0], 100)
    bank = AtrousFeatures(3, groups=["ppv"], ndim=1)
    narrow, _, wide, _ = bank.fit_transform(x)[200, :4]
    assert narrow == np.float32(np.mean(x[200 - 4 : 200 + 5]))
    assert wide == np.float32(np.mean(x[200 - 16 : 200 + 17]))


def test_activity_tells_how_loud_each_scale_is():
    """Twice as loud is twice the activity, at the scale of that tone alone, and in windows that see it."""
    time = np.arange(2000)
    x = np.sin(2 * np.pi * time / 4 + 0.4) * np.where(time < 1000, 1, 2) + np.sin(2 * np.pi * time / 40)
    bank = AtrousFeatures(5, groups=["activity"], ndim=1).fit(x)
    features, names = bank.transform(x), list(bank.get_feature_names_out())
    for window, radius in (("narrow", 16), ("wide", 64)):
        fast, slow = (features[:, names.index(f"intensity_activity_{window}_d{d}")] for d in (1, 8))
        assert fast[1500] / fast[500] == pytest.approx(2, rel=0.02)
        assert slow[1500] / slow[500] == pytest.approx(1, rel=0.02)
        assert slow[500] > 0.25
        assert fast[1000 - radius - 3] < 1.03 * fast[500]
        assert fast[1000 + radius + 3] > 0.98 * fast[1500]
        assert fast[1000] == pytest.approx((fast[500] + fast[1500]) / 2, rel=0.02)


# --- channels ---


@pytest.mark.parametrize("n_channels", [2, 3, 5])
def test_channels_are_signals_of_their_own(n_channels):
    x = walk(150, n_channels)
    bank = AtrousFeatures(2, ndim=1, channel_axis=-1)
    features, names = bank.fit_transform(x), bank.get_feature_names_out()
    single = AtrousFeatures(2, ndim=1)
    for index, channel in enumerate(x.T):
        columns = [i for i, name in enumerate(names) if name.startswith(f"channel_{index}_")]
        np.testing.assert_array_equal(features[:, columns], single.fit_transform(channel))
    expected = plane_features(x.mean(axis=1), 2, "reflect")
    columns = [i for i, name in enumerate(names) if name.startswith("intensity_")]
    wanted = [names[i] for i in columns]
    assert_close(features[:, columns], np.stack([expected[name] for name in wanted], axis=-1), wanted, np.abs(x).max())
    without_mean = AtrousFeatures(2, groups=(), ndim=1, channel_axis=-1)
    np.testing.assert_array_equal(without_mean.fit_transform(x), np.delete(features, columns, axis=1))


def test_channels_that_hardly_differ_are_kept():
    x = walk(300)
    both = np.stack([x, x + 0.01 * walk(300, seed=1)], axis=-1)
    bank = AtrousFeatures(2, normalize="auto", ndim=1, channel_axis=-1).fit(both)
    assert bank.normalize_ == "image"
    assert bank.n_features_out_ == 3 * 35


# --- causal ---


def lag_of(name):
    """Return how many samples a feature of a bank of 3 levels, or a filter of four taps named last, looks ahead."""
    part, dilation = name.removeprefix("intensity_").rsplit("_d", 1)
    dilation = int(dilation)
    kind, _, window = part.partition("_") if part.endswith(tuple(RADII)) else (part, "", "")
    own = -(-3 * dilation // 2) if part == "last" else REACH[kind] * dilation
    return 2 * (dilation - 1) + own + 4 * RADII.get(window.rpartition("_")[2], 0)


@pytest.mark.parametrize("padding_mode", ["edge", "zeros"])
def test_causal_features_are_those_that_lag(padding_mode):
    x = walk(400)
    filters = dconv.filters.FilterBank(np.array([1.0, -2.0, 3.0, 0.5]).reshape(1, 4, 1), ["last"])
    parameters = {"groups": available_groups(1), "filters": filters, "padding_mode": padding_mode, "ndim": 1}
    causal = AtrousFeatures(3, causal=True, **parameters)
    features, names = causal.fit_transform(x), causal.get_feature_names_out()
    before = 200
    longer = np.pad(x, (before, 0), mode="edge" if padding_mode == "edge" else "constant")
    centred = AtrousFeatures(3, **parameters).fit_transform(longer)
    assert lag_of("intensity_ppv_slope_wide_d4") == 6 + 8 + 16
    assert lag_of("intensity_ppv_slope_narrow_d2") == 2 + 4 + 4
    for index, name in enumerate(names):
        start = before - lag_of(name)
        np.testing.assert_array_equal(features[:, index], centred[start : start + len(x), index], err_msg=name)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"padding_mode": "zeros"},
        {"groups": available_groups(1)},
        {"filters": np.ones((2, 6, 1))},
        {"groups": [], "filters": np.ones((2, 5, 1))},
        {"groups": ["ppv"]},
        {"groups": ["level"]},
        {"normalize": "training"},
    ],
    ids=str,
)
def test_causal_features_do_not_look_ahead(parameters):
    x, other = walk(300), walk(300, seed=1)
    bank = AtrousFeatures(3, causal=True, ndim=1, **parameters).fit(x)
    features = bank.transform(x)
    ((left, right),) = bank.halo_
    assert right == 0
    for place in (1, 40, 200, 299):
        changed = np.concatenate([x[:place], other[place:]])
        np.testing.assert_array_equal(bank.transform(changed)[:place], features[:place])
    impulses = np.zeros((2, 600), np.float32)
    impulses[:, 300] = 1e6, -1e6
    quiet = bank.transform(np.zeros(600))
    last = max(np.flatnonzero((bank.transform(x) != quiet).any(axis=1)).max() for x in impulses)
    assert last - 300 == left


def test_causal_channels_do_not_look_ahead():
    x = walk(200, 3)
    bank = AtrousFeatures(3, causal=True, normalize="auto", ndim=1, channel_axis=-1).fit(x)
    assert bank.normalize_ is None
    features, changed = bank.transform(x), x.copy()
    changed[120:, 1] = 7
    np.testing.assert_array_equal(bank.transform(changed)[:120], features[:120])


@pytest.mark.parametrize(
    ("parameters", "shape", "error", "message"),
    [
        ({"ndim": 2}, (40, 40), ValueError, "causal=True is for series, ndim=1: with ndim=2"),
        ({"ndim": 3}, (40, 40, 40), ValueError, "causal=True is for series, ndim=1: with ndim=3"),
        ({"scheme": "pyramid"}, (40,), ValueError, "scheme='pyramid' interpolates"),
        ({"normalize": "image"}, (40,), ValueError, "normalize='image' needs the mean of a whole series"),
        *(({"padding_mode": mode}, (40,), ValueError, f"padding_mode='{mode}' continues a series before its first")
          for mode in ("reflect", "symmetric", "circular")),
        ({"causal": "yes"}, (40,), TypeError, "causal must be True or False, got 'yes'"),
        ({"causal": 1}, (40,), TypeError, "causal must be True or False, got 1"),
    ],
)  # fmt: skip
def test_causal_is_refused_where_it_makes_no_sense(parameters, shape, error, message):
    with pytest.raises(error, match=message):
        AtrousFeatures(**{"n_levels": 2, "causal": True, "ndim": 1, **parameters}).fit(np.zeros(shape))


@pytest.mark.parametrize("joined", [False, True])
def test_what_looks_ahead_is_refused_after_causal_features(joined):
    x, y = two_regimes(400)
    bank = AtrousFeatures(2, causal=True, ndim=1)
    if joined:
        bank = make_features(PixelPosition(), bank, ndim=1)
    trees = ExtraTreesClassifier(3, random_state=0)
    with pytest.raises(ValueError, match="second stage of a cascade looks at what lies ahead"):
        ContextClassifier(bank, trees).fit(x, y)
    ContextClassifier(bank, trees, n_stages=1).fit(x, y)
    with pytest.raises(ValueError, match="refine looks at what lies ahead"):
        PixelClassifier(bank, trees, refine=DenseCRF()).fit(x, y)
    with pytest.raises(ValueError, match="nodata=-1, which fills gaps from both sides, looks at what lies ahead"):
        PixelClassifier(bank, trees, nodata=-1).fit(x, y)


# --- labels of series ---


def classifiers():
    """Return a classifier that is walked through, and one that is a network."""
    return [
        ExtraTreesClassifier(10, max_leaf_nodes=32, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ]


@pytest.mark.parametrize("classifier", classifiers(), ids=["trees", "logistic"])
@pytest.mark.parametrize("causal", [False, True])
def test_chunks_with_their_halo_equal_the_whole(causal, classifier):
    x, y = two_regimes(5000)
    model = PixelClassifier(AtrousFeatures(4, causal=causal, ndim=1), classifier)
    model.fit(x[:1000], y[:1000])
    labels, probabilities = model.predict(x), model.predict_proba(x)
    assert np.mean(labels == y) > (0.75 if causal else 0.9)
    ((left, right),) = model.features_.halo_
    assert (right == 0) == causal
    rng = np.random.default_rng(0)
    start = 0
    while start < len(x):
        stop = min(start + int(rng.integers(1, 700)), len(x))
        chunk = x[max(start - left, 0) : stop + right]
        wanted = slice(min(start, left), min(start, left) + stop - start)
        np.testing.assert_array_equal(model.predict(chunk)[wanted], labels[start:stop])
        np.testing.assert_array_equal(model.predict_proba(chunk)[wanted], probabilities[start:stop])
        start = stop


@pytest.mark.parametrize("padding_mode", [None, "zeros"])
def test_stream_from_its_first_sample(padding_mode):
    """A stream has few samples at first, fewer than the bank has dilations; they are labelled when they come."""
    x, y = two_regimes(900)
    bank = AtrousFeatures(4, causal=True, padding_mode=padding_mode, normalize="training", ndim=1)
    model = PixelClassifier(bank, classifiers()[0]).fit(x, y)
    ((left, _),) = model.features_.halo_
    said = [model.predict(x[max(stop - 3 - left, 0) : stop])[-3:] for stop in range(3, 303, 3)]
    np.testing.assert_array_equal(np.concatenate(said), model.predict(x)[:300])
    np.testing.assert_array_equal(model.predict(x[:1]), model.predict(x)[:1])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n_channels", [None, 2])
def test_blocks_of_a_series_equal_the_whole(n_channels, causal):
    x = walk(3000, n_channels)
    y = np.where((x if n_channels is None else x[:, 0]) > 0, 2, 1)
    axis = None if n_channels is None else -1
    bank = AtrousFeatures(3, causal=causal, ndim=1, channel_axis=axis)
    model = PixelClassifier(bank, classifiers()[0]).fit(x, y)
    labels = dconv.predict_blocks(model, x, np.empty(3000, np.uint8), block_shape=333, progress=False)
    np.testing.assert_array_equal(labels, model.predict(x))
    out = np.empty((3000, 2), np.float32)
    dconv.predict_blocks(model, x, out, block_shape=333, proba=True, progress=False)
    np.testing.assert_array_equal(out, model.predict_proba(x))


def test_batches_and_lists_of_series():
    series = [two_regimes(length, seed) for seed, length in enumerate((400, 700, 333))]
    model = PixelClassifier(AtrousFeatures(3, ndim=1), classifiers()[0])
    model.fit([x for x, _ in series], [y for _, y in series])
    answers = model.predict([x for x, _ in series])
    assert [len(labels) for labels in answers] == [400, 700, 333]
    for labels, (x, _) in zip(answers, series, strict=True):
        np.testing.assert_array_equal(labels, model.predict(x))
    batch, truth = (np.stack(each) for each in zip(*(two_regimes(400, seed) for seed in range(4)), strict=True))
    assert model.fit(batch, truth).predict(batch).shape == (4, 400)
    assert model.score(batch, truth) > 0.9
    both = np.stack([batch, -batch], axis=-1)
    two = PixelClassifier(AtrousFeatures(3, groups=(), ndim=1), classifiers()[0], channel_axis=-1).fit(both, truth)
    assert two.predict_proba(both).shape == (4, 400, 2)
    np.testing.assert_array_equal(two.predict(both[2]), two.predict(both)[2])


def test_default_classifier_of_series():
    x, y = two_regimes(2000)
    model = PixelClassifier(ndim=1, random_state=0).fit(x[:1000], y[:1000])
    assert np.mean(model.predict(x[1000:]) == y[1000:]) > 0.9


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_dtypes_of_series(dtype):
    x = (100 + 20 * random_image((300,))).astype(dtype)
    bank = AtrousFeatures(3, ndim=1).fit(x)
    np.testing.assert_array_equal(bank.transform(x), bank.transform(x.astype(np.float32)))


def test_short_series_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"X\[1\] has spatial shape \(20,\).*use AtrousFeatures\(n_levels=4\)"):
        AtrousFeatures(ndim=1).fit([walk(100), walk(20)])
