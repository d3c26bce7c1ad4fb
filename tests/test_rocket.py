"""MiniRocket against its definition, bit by bit on whole numbers, and what it promises to scikit-learn."""

import pickle
import re

import numpy as np
import pytest
import reference_rocket as reference
from dconv._kernels._dispatch import supported_levels
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from dconv import MiniRocket, _rocket_run
from dconv._rocket_plan import draw_channels, make_taps, quantile_levels, spread_dilations
from dconv._rocket_run import group_images, share_features
from dconv._series import as_collection
from dconv.filters import two_valued

TAPS = {1: reference.LINE, 2: reference.SQUARE}


def whole_numbers(shape, seed=0):
    """Return whole numbers, whose sums are exact in float32 too; biases between them leave no ties to rounding."""
    return np.random.default_rng(seed).integers(-20, 21, shape).astype(np.float32)


def channels_of(model):
    return np.split(model.channel_indices_, np.cumsum(model.n_channels_per_combination_)[:-1])


def expected_features(model, arrays, ndim):
    channels, rows = channels_of(model), []
    for array in arrays:
        image = array if array.ndim == ndim + 1 else array[..., np.newaxis]
        image = image[np.newaxis] if ndim == 1 else image
        rows.append(
            reference.features(
                image, TAPS[ndim], model.dilations_, model.n_features_per_dilation_, model.biases_, channels
            )
        )
    return np.array(rows, np.float32)


CASES = {
    "series": (1, [whole_numbers(40, seed) for seed in range(3)]),
    "short": (1, [whole_numbers(n, n) for n in (1, 5, 8, 9, 10)]),
    "lengths": (1, [whole_numbers(n, n) for n in (40, 11, 25, 40)]),
    "channels": (1, [whole_numbers((30, 4), seed) for seed in range(2)]),
    "images": (2, [whole_numbers((12, 9), seed) for seed in range(2)]),
    "image sizes": (2, [whole_numbers(shape, 1) for shape in ((1, 1), (2, 12), (12, 2), (13, 11), (3, 3))]),
    "image channels": (2, [whole_numbers((9, 10, 3), seed) for seed in range(2)]),
}


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("case", CASES)
def test_definition(case, level):
    ndim, arrays = CASES[case]
    model = MiniRocket(84 * 9, ndim=ndim, random_state=0, max_dilations_per_kernel=5).fit(arrays)
    model.biases_ += np.float32(0.125)  # biases between responses, and some far out, below and above
    actual = share_features(model._plan, model.biases_, as_collection(arrays, ndim), "error", 1, level)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected_features(model, arrays, ndim))


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("n_series", [1, 3, 4, 7, 8, 13, 16, 35])
def test_interleaved_series_equal_single_ones(n_series, level):
    X = np.random.default_rng(1).normal(size=(n_series, 150, 2)).astype(np.float32)
    model = MiniRocket(3000, random_state=0).fit(X)
    together = share_features(model._plan, model.biases_, as_collection(X, 1), "error", 2, level)
    for one, features in zip(X, together, strict=True):
        single = share_features(model._plan, model.biases_, as_collection([one], 1), "error", 1, level)
        np.testing.assert_array_equal(single[0], features)
    np.testing.assert_array_equal(together, model.transform(X))  # at every level the same bits


def test_long_series_pass_through_many_tiles():
    X = np.random.default_rng(0).normal(size=(2, 3000))
    model = MiniRocket(84 * 3, max_dilations_per_kernel=3, random_state=0).fit(X)
    assert model.dilations_.tolist() == [1, 19, 374]
    for x, features in zip(X, model.transform(X), strict=True):
        for number, dilation in enumerate(model.dilations_):
            weight = np.zeros((84, 8 * dilation + 1))
            weight[:, ::dilation] = two_valued(ndim=1).weight[..., 0]
            for kernel in (0, 1, 40, 83):
                response = np.correlate(x, weight[kernel], "same")
                if (number + kernel) % 2:
                    response = response[4 * dilation : -4 * dilation]
                bias = model.biases_[84 * number + kernel]
                share = np.mean(response > bias)
                assert features[84 * number + kernel] == pytest.approx(share, abs=1.5 / len(response))


def test_groups_are_of_one_size_and_hold_all():
    sizes = np.array([(1, 5)] * 9 + [(1, 7)] + [(2, 5)] * 3 + [(1, 5)] * 2)
    places = np.column_stack([np.arange(len(sizes)), sizes, np.arange(len(sizes))])
    ordered, groups = group_images(places, 4)
    assert groups.tolist() == [[0, 4, 4], [4, 4, 4], [8, 3, 4], [11, 1, 1], [12, 3, 4]]
    assert sorted(ordered[:, 3]) == list(range(len(sizes)))
    for first, number, _ in groups:
        assert len(np.unique(ordered[first : first + number, 1:3], axis=0)) == 1


# --- fit ---


@pytest.mark.parametrize("n_channels", [1, 5])
@pytest.mark.parametrize("ndim", [1, 2])
def test_biases_are_quantiles_of_responses(ndim, n_channels):
    X = np.random.default_rng(0).normal(size=(1, *(25, 11)[:ndim], n_channels))
    model = MiniRocket(84 * 4, ndim=ndim, random_state=0).fit(X)  # one series: there is no choice
    biases, levels = iter(model.biases_), iter(quantile_levels(84 * 4))
    image, channels = X[0] if ndim == 2 else X, iter(channels_of(model))
    for dilation, count in zip(model.dilations_, model.n_features_per_dilation_, strict=True):
        for high in reference.KERNELS:
            response = reference.responses(image, TAPS[ndim], high, dilation, next(channels))
            for _ in range(count):
                assert next(biases) == pytest.approx(np.quantile(response, next(levels)), abs=1e-5)


def test_fit_in_parts_is_the_same(monkeypatch):
    arrays = [whole_numbers(n, n) for n in (30, 44, 70)]
    whole = MiniRocket(1000, random_state=0).fit(arrays)
    monkeypatch.setattr(_rocket_run, "_RESPONSES", 500)
    monkeypatch.setattr(_rocket_run, "_SHARED", 1)
    parts = MiniRocket(1000, random_state=0, n_jobs=3).fit(arrays)
    np.testing.assert_array_equal(parts.biases_, whole.biases_)
    assert len(np.unique(parts.biases_)) > 500


@pytest.mark.parametrize("n_features", [84, 100, 1000, 9_999, 10_000])
@pytest.mark.parametrize("most", [1, 3, 32, 200])
@pytest.mark.parametrize(("ndim", "size"), [(1, 5), (1, 9), (1, 128), (1, 5000), (2, 2), (2, 33)])
def test_dilations(n_features, most, ndim, size):
    least = make_taps(ndim).least
    sizes = np.array([(1, 1) if ndim == 1 else (1, 2), (1 if ndim == 1 else size + 3, size)])
    dilations, counts = spread_dilations(sizes, least, n_features // 84, most)
    span = 8 if ndim == 1 else 2
    assert counts.sum() == n_features // 84
    assert counts.min() >= 1
    assert len(dilations) <= min(most, n_features // 84)
    assert np.all(np.diff(dilations) > 0)
    assert dilations[0] == 1
    assert dilations[-1] == 1 or dilations[-1] * span <= size - 1
    if len(dilations) > 1:
        assert 2 * dilations[-1] * span >= size - 1 - span


def test_channels_of_kernels():
    channels = draw_channels(20, 5000, np.random.RandomState(0))
    numbers = np.diff(channels.first)
    assert set(numbers) == set(range(1, 10))
    # uniform on log2(1) to log2(10), rounded down
    np.testing.assert_allclose(np.mean(numbers == 1), np.log(2) / np.log(10), atol=0.03)
    assert all(len(set(part)) == len(part) for part in np.split(channels.numbers, channels.first[1:-1]))
    np.testing.assert_allclose(np.bincount(channels.numbers) / len(channels.numbers), 1 / 20, atol=0.01)
    one = draw_channels(1, 7, np.random.RandomState(0))
    assert one.numbers.tolist() == [0] * 7


def test_quantile_levels_are_spread_evenly():
    levels = quantile_levels(1000)
    assert levels[:3] == pytest.approx([0.618034, 0.236068, 0.854102])
    for start in (0, 500):
        counts = np.histogram(levels[start : start + 20], 10, (0, 1))[0]
        assert counts.min() >= 1
        assert counts.max() <= 3


# --- as an estimator ---


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("missing", ["error", "interpolate"])
def test_estimator_checks(missing):
    check_estimator(MiniRocket(missing=missing))


def test_threads_and_seeds():
    X = np.random.default_rng(0).normal(size=(20, 60, 3))
    one = MiniRocket(1000, random_state=7, n_jobs=1).fit(X)
    three = MiniRocket(1000, random_state=7, n_jobs=3).fit(X)
    np.testing.assert_array_equal(one.biases_, three.biases_)
    np.testing.assert_array_equal(one.transform(X), three.transform(X))
    other = MiniRocket(1000, random_state=8).fit(X)
    assert not np.array_equal(other.channel_indices_, one.channel_indices_)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).transform(X), one.transform(X))


def test_is_kept_without_pickle():
    skops_io = pytest.importorskip("skops.io", reason="needs skops: pip install skops")
    X = whole_numbers((6, 12, 11, 2))
    model = MiniRocket(1000, ndim=2, random_state=0).fit(X)
    data = skops_io.dumps(model)
    kept = skops_io.loads(data, trusted=skops_io.get_untrusted_types(data=data))
    np.testing.assert_array_equal(kept.transform(X), model.transform(X))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float16, np.float64, ">f4"])
def test_dtypes_and_memory_layouts(dtype):
    X = np.random.default_rng(0).integers(0, 200, (9, 31, 2))
    model = MiniRocket(500, random_state=0).fit(X.astype(np.float32))
    expected = model.transform(X.astype(np.float32))
    np.testing.assert_array_equal(model.transform(X.astype(dtype)), expected)
    np.testing.assert_array_equal(model.transform(np.asfortranarray(X.astype(dtype))), expected)
    np.testing.assert_array_equal(model.transform(X.astype(dtype)[:, ::-1][:, ::-1]), expected)
    np.testing.assert_array_equal(model.transform([x.astype(dtype) for x in X]), expected)


def test_blocks_change_nothing(monkeypatch):
    arrays = [whole_numbers(n, n) for n in (30, 44, 70, 30, 30)]
    X = whole_numbers((7, 50))
    model = MiniRocket(500, random_state=0).fit(arrays)
    expected = model.transform(arrays), model.transform(list(X))
    monkeypatch.setattr("dconv._series._BLOCK", 100)
    monkeypatch.setattr(_rocket_run, "_INTERLEAVED", 0)
    np.testing.assert_array_equal(model.transform(arrays), expected[0])
    np.testing.assert_array_equal(model.transform(list(X)), expected[1])


def test_table_of_another_length_is_refused_but_not_a_list():
    X = whole_numbers((4, 50))
    model = MiniRocket(84, random_state=0).fit(X)
    assert model.n_features_in_ == 50
    with pytest.raises(ValueError, match="X has 40 features, but MiniRocket is expecting 50"):
        model.transform(X[:, :40])
    assert model.transform(list(X[:, :40])).shape == (4, 84)
    model.fit(list(X))
    assert not hasattr(model, "n_features_in_")
    assert model.transform(X[:, :40]).shape == (4, 84)


def test_names_and_data_frames():
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    table = pandas.DataFrame(whole_numbers((6, 20)), columns=[f"t{i}" for i in range(20)])
    model = MiniRocket(84 * 3, random_state=0).set_output(transform="pandas").fit(table)
    frame = model.transform(table)
    assert frame.columns[0] == "two_valued_012_d1_0"
    assert frame.columns[-1] == f"two_valued_678_d{model.dilations_[-1]}_{model.n_features_per_dilation_[-1] - 1}"
    assert len(set(frame.columns)) == model.n_features_out_ == 84 * 3
    assert list(model.feature_names_in_) == list(table.columns)


@pytest.mark.parametrize("ndim", [1, 2])
def test_classifies(ndim):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    noise = rng.normal(size=(60, 80) if ndim == 1 else (60, 20, 20))
    X = noise + np.roll(noise, 1, axis=-1) * y.reshape(-1, *(1,) * ndim)  # neighbours alike, or not
    features = MiniRocket(2000, ndim=ndim, random_state=0)
    model = make_pipeline(features, StandardScaler(with_mean=False), RidgeClassifierCV())
    assert cross_val_score(model, X, y, cv=3).mean() > 0.95


# --- missing values ---


def test_missing_values_of_series_are_interpolated():
    X = np.random.default_rng(0).normal(size=(5, 40, 2))
    filled = X.copy()
    filled[1, 10:13, 0] = np.linspace(X[1, 9, 0], X[1, 13, 0], 5)[1:-1]
    filled[2, :4, 1], filled[2, 38:, 1] = X[2, 4, 1], X[2, 37, 1]
    holes = np.where(filled == X, X, np.nan)
    model = MiniRocket(500, missing="interpolate", random_state=0)
    np.testing.assert_allclose(model.fit(holes).transform(holes), model.fit(filled).transform(filled), atol=1 / 40)
    before = holes.copy()
    np.testing.assert_array_equal(model.transform(list(holes)), model.transform(holes))
    np.testing.assert_array_equal(holes, before)


def test_missing_values_of_images_are_interpolated():
    image = np.add.outer(3.0 * np.arange(8), np.arange(9.0))  # any interpolation between two numbers gives it back
    holes = image.copy()
    holes[2, 3:6] = holes[5] = np.nan
    model = MiniRocket(500, ndim=2, missing="interpolate", random_state=0).fit(image[np.newaxis])
    np.testing.assert_array_equal(model.transform([holes]), model.transform([image]))


def test_bad_values_are_named():
    X = whole_numbers((3, 20, 2)).astype(float)
    for value, remedy in ((np.nan, 'pass missing="interpolate"'), (np.inf, "replace"), (-1e19, "rescale")):
        bad = X.copy()
        bad[1, 7, 1] = value
        named = re.escape(f"X[1] holds {'NaN' if np.isnan(value) else value} at (*position, channel) (7, 1)")
        for form in (bad, list(bad)):
            with pytest.raises(ValueError, match=f"{named}.*{remedy}"):
                MiniRocket().fit(form)
    bad[2, :, 0] = np.nan
    with pytest.raises(ValueError, match="holds -1e"):
        MiniRocket(missing="interpolate").fit(bad)
    bad[1] = 0
    with pytest.raises(ValueError, match=re.escape("X[2] holds nothing but NaN in channel 0")):
        MiniRocket(missing="interpolate").fit(bad)
    with pytest.raises(TypeError, match="masked"):
        MiniRocket().fit(np.ma.masked_less(X[..., 0], 0))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_features": 83}, ValueError, "n_features must be at least 84"),
        ({"n_features": 1e4}, TypeError, "n_features must be an int"),
        ({"max_dilations_per_kernel": 0}, ValueError, "max_dilations_per_kernel must be at least 1"),
        ({"ndim": 3}, ValueError, "ndim must be 1 or 2"),
        ({"missing": "drop"}, ValueError, "missing must be one of 'error', 'interpolate', got 'drop'"),
        ({"missing": None}, ValueError, "missing must be one of"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        MiniRocket(**parameters).fit(whole_numbers((3, 20)))


@pytest.mark.parametrize(
    ("ndim", "X", "error", "message"),
    [
        (1, [], ValueError, "X is an empty list; pass at least one series"),
        (1, np.zeros(20), ValueError, "Expected 2D array"),
        (1, [1.0, 2.0], ValueError, "X[0] has shape (), but with ndim=1 each series of a list has the axes (length"),
        (1, [np.zeros(9), np.zeros((9, 2))], ValueError, "X[1] has (9, 2)"),
        (1, [np.zeros(9), np.zeros(0)], ValueError, "X[1] has shape (0,): an axis of size 0"),
        (1, np.zeros((2, 3, 4, 5)), ValueError, "X has shape (2, 3, 4, 5)"),
        (1, [np.array(["a", "b"])], TypeError, "X[0] must hold real numbers"),
        (2, np.zeros((8, 8)), ValueError, "X has shape (8, 8), but with ndim=2 an array has the axes (n, height"),
        (2, np.zeros((8, 8)), ValueError, "for a single image pass [X]"),
        (2, np.zeros((0, 8, 8)), ValueError, "X has shape (0, 8, 8)"),
        (2, np.zeros((2, 8, 8), complex), TypeError, "X must hold real numbers"),
    ],
)
def test_bad_input(ndim, X, error, message):
    with pytest.raises(error, match=re.escape(message)):
        MiniRocket(ndim=ndim).fit(X)


def test_other_channels_are_refused():
    model = MiniRocket(84).fit(whole_numbers((3, 20, 2)))
    with pytest.raises(ValueError, match=re.escape("X has 3 channel(s), but MiniRocket was fitted with 2")):
        model.transform(whole_numbers((3, 20, 3)))
