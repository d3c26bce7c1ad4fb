"""TransposedConv: the transpose of DilatedConv, upsampling, learning against dense least squares, what it refuses."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

import dconv
from dconv import DilatedConv, TransposedConv, _transpose_fit, filters, shapes
from dconv._blocks import PADDING_MODES

EPS = np.finfo(np.float32).eps
RNG = np.random.default_rng(0)
MANY = settings(deadline=None, max_examples=100)
FAMILIES = [filters.bilinear_upsampling, filters.b3_spline_upsampling]


@st.composite
def geometries(draw, ranks=(1, 2, 3), *, lengthen=False):
    """Draw a convolution that fits in its image: the size of its result, kernel size, parameters of the transposed one.

    With `lengthen`, `output_padding` may also be too large for the convolution to come back from.
    """
    rank = draw(st.sampled_from(ranks))

    def per_axis(low, high):
        return draw(st.tuples(*[st.integers(low, high)] * rank))

    kernel, stride, dilation = per_axis(1, 5 - rank), per_axis(1, 3), per_axis(1, 3)
    one_per_side = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    padding = draw(st.one_of(st.sampled_from(["same", "valid"]), one_per_side))
    full = tuple(span + more for span, more in zip(shapes.span(kernel, dilation), per_axis(0, 4), strict=True))
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    if padding == "same":
        full = tuple(-(-n // step) * step for n, step in zip(full, stride, strict=True))
    size = shapes.conv_shape(full, kernel, **options)
    extra = shapes.output_padding_for(size, full, kernel, **options)
    if lengthen and padding != "same":
        most = [max(pair) - 1 for pair in zip(stride, dilation, strict=True)]
        extra = tuple(draw(st.integers(*bounds)) for bounds in zip(extra, most, strict=True))
    return size, kernel, {**options, "output_padding": extra, "padding_mode": draw(st.sampled_from(PADDING_MODES))}


def learner(size, kernel, options, **parameters):
    """Return an estimator that learns filters of a geometry."""
    return TransposedConv(kernel_size=kernel, ndim=len(size), channel_axis=-1, **options, **parameters)


# --- given filters ---


@MANY
@given(geometry=geometries(), in_channels=st.sampled_from([1, 3]), groups=st.integers(1, 3), seed=st.integers(0, 99))
def test_is_the_transpose_of_dilated_conv(geometry, in_channels, groups, seed):
    size, kernel, options = geometry
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(4, *kernel, in_channels)).astype(np.float32)
    r = rng.normal(size=(*size, 4 * (groups if in_channels == 1 else 1))).astype(np.float32)
    back = TransposedConv(weight, ndim=len(size), channel_axis=-1, **options).fit_transform(r)
    x = rng.normal(size=back.shape).astype(np.float32)
    del options["output_padding"]
    options["dilation"] = (options["dilation"],)  # one that differs between axes, not several
    there = DilatedConv(weight, ndim=len(size), channel_axis=-1, **options).fit_transform(x)
    assert there.shape == r.shape
    terms = np.abs(there.astype(float) * r).sum() + np.abs(x.astype(float) * back).sum()
    difference = (there.astype(float) * r).sum() - (x.astype(float) * back).sum()
    assert abs(difference) <= 4 * weight.size * EPS * terms


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_equals_conv_transpose(in_channels, mode):
    weight, x = RNG.normal(size=(4, 3, 2, in_channels)), RNG.normal(size=(2, 7, 6, 8 if in_channels == 1 else 4))
    options = {"stride": (2, 3), "padding": 1, "dilation": 2, "output_padding": (1, 2), "padding_mode": mode}
    actual = TransposedConv(weight, channel_axis=-1, **options).fit_transform(x)
    groups = x.shape[-1] // 4
    expected = dconv.conv_transpose(x.astype(np.float32), np.concatenate([weight] * groups), groups=groups, **options)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


def test_groups_are_in_the_order_of_dilated_conv():
    image, bank = RNG.normal(size=(12, 14, 3)).astype(np.float32), filters.derivatives(1)
    options = {"stride": 2, "padding_mode": "edge", "channel_axis": -1}
    features = DilatedConv(bank, **options).fit_transform(image)
    transposed = TransposedConv(bank, **options).fit(features)
    assert (transposed.n_channels_in_, transposed.n_features_out_) == (6, 3)
    assert transposed.get_feature_names_out().tolist() == ["c0", "c1", "c2"]
    actual = transposed.transform(features)
    for channel in range(3):
        own = TransposedConv(bank, **options).fit_transform(features[..., 2 * channel : 2 * channel + 2])
        np.testing.assert_allclose(actual[..., channel], own[..., 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_upsamples_every_channel(family, ndim, factor):
    image = RNG.normal(size=(*(6, 7, 8)[:ndim], 2)).astype(np.float32)
    fitted = TransposedConv(family(factor, ndim=ndim), stride=factor, ndim=ndim, channel_axis=-1).fit(image)
    method = "bilinear" if family is filters.bilinear_upsampling else "b3_spline"
    expected = dconv.upsample(image[np.newaxis], factor, method=method, padding_mode="symmetric")[0]
    np.testing.assert_allclose(fitted.transform(image), expected, rtol=0, atol=1e-5)


def test_bank_and_bare_array_are_the_same():
    image, bank = RNG.normal(size=(6, 7)), filters.bilinear_upsampling(2)
    named, bare = TransposedConv(bank).fit(image), TransposedConv(bank.weight).fit(image)
    np.testing.assert_array_equal(named.transform(image), bare.transform(image))
    assert named.bank_.names == bank.names
    assert named.bank_.kernel_size == (4, 4)


def test_fitted_attributes():
    fitted = TransposedConv(filters.gaussian(1, ndim=3), stride=(1, 2, 3), dilation=2, ndim=3).fit(np.zeros((4, 5, 6)))
    assert (fitted.strides_, fitted.dilation_, fitted.output_padding_) == ((1, 2, 3), (2, 2, 2), (0, 0, 0))
    assert (fitted.padding_, fitted.padding_mode_, fitted.ndim_, fitted.channel_axis_) == ("same", "symmetric", 3, None)
    assert (fitted.n_channels_in_, fitted.n_features_out_) == (1, 1)
    assert fitted.transform(np.zeros((4, 5, 6))).shape == (4, 10, 18, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"ndim": 1}, {"channel_axis": -1}, {"dilation": 3}, {"stride": 3}, {"padding": 0}, {"padding_mode": "zeros"},
        {"output_padding": 1}, {"filters": None},
    ],
)  # fmt: skip
def test_what_was_in_force_at_fit_stays_so(changes):
    image = RNG.normal(size=(6, 7))
    fitted = TransposedConv(filters.bilinear_upsampling(2)).fit(image)
    expected = fitted.transform(image)
    np.testing.assert_array_equal(fitted.set_params(**changes).transform(image), expected)


# --- learnt filters ---


def dense(X, kernel, options, n_channels):
    """Return the matrix from weights to outputs, column by column from conv_transpose of unit weights."""
    n_weights = n_channels * int(np.prod(kernel))
    units = np.eye(n_weights).reshape(n_weights, n_channels, *kernel, 1)
    return np.stack([dconv.conv_transpose(X, unit, **options).ravel() for unit in units], axis=1)


@MANY
@given(
    geometry=geometries(ranks=(1, 1, 2), lengthen=True),
    alpha=st.sampled_from([0.0, 0.1, 10.0]),
    seed=st.integers(0, 99),
)
def test_learns_what_dense_least_squares_does(geometry, alpha, seed):
    size, kernel, options = geometry
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2, *size, 2))
    matrix = dense(X, kernel, options, 2)
    out_size = shapes.conv_transpose_shape(size, kernel, **{k: v for k, v in options.items() if k != "padding_mode"})
    y = rng.normal(size=(2, *out_size, 3))
    values = np.linalg.svd(matrix, compute_uv=False)
    assume(alpha or not ((values > 1e-9) & (values < 1e-2)).any())  # where weights are hardly determined nothing agrees
    fitted = learner(size, kernel, options, alpha=alpha).fit(X, y)
    penalty = np.sqrt(alpha) * np.eye(matrix.shape[1])
    targets = np.concatenate([y.reshape(-1, 3), np.zeros((len(penalty), 3))])
    expected = np.linalg.lstsq(np.concatenate([matrix, penalty]), targets, rcond=1e-9)[0]
    assert fitted.bank_.weight.shape == (2, *kernel, 3)
    np.testing.assert_allclose(fitted.bank_.weight.reshape(-1, 3), expected, rtol=4 * EPS, atol=1e-6)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        ((60,), (9,), {"stride": 4}),
        ((24, 20), (4, 6), {"stride": (2, 3)}),
        ((24, 20), (3, 3), {"stride": 2, "dilation": (3, 1), "padding": ((1, 2), (0, 1)), "output_padding": (2, 1)}),
        ((12, 10, 11), (3, 2, 2), {"stride": (2, 1, 2), "padding": "valid"}),
    ],
)
def test_recovers_known_filters(size, kernel, options, mode):
    X, weight = RNG.normal(size=(2, *size, 3)), RNG.normal(size=(3, *kernel, 2)).astype(np.float32)
    y = dconv.conv_transpose(X, weight, padding_mode=mode, **{"padding": "same", **options})
    fitted = learner(size, kernel, options, alpha=0, padding_mode=mode).fit(X, y)
    np.testing.assert_allclose(fitted.bank_.weight, weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.transform(X), y, rtol=0, atol=1e-4)
    assert fitted.n_features_out_ == 2


def test_is_one_ridge_regression_per_phase():
    """Without dilation and with zeros beyond the border: by hand, for the outputs at (2 i, 2 j)."""
    X, y = RNG.normal(size=(8, 9)), RNG.normal(size=(16, 18))
    fitted = TransposedConv(alpha=3.0, padding_mode="zeros").fit(X, y)
    beyond = np.pad(X, ((1, 0), (1, 0)))
    rows = np.stack([beyond[1:, 1:], beyond[1:, :-1], beyond[:-1, 1:], beyond[:-1, :-1]], axis=-1).reshape(-1, 4)
    by_hand = Ridge(alpha=3.0, fit_intercept=False).fit(rows, y[::2, ::2].ravel()).coef_
    assert fitted.bank_.kernel_size == (4, 4)
    np.testing.assert_allclose(fitted.bank_.weight[0, 1::2, 1::2, 0].ravel(), by_hand, rtol=0, atol=1e-6)


def test_blocks_add_up_to_the_whole(monkeypatch):
    X, y = RNG.normal(size=(20, 23, 2)), RNG.normal(size=(40, 46))
    whole = TransposedConv(channel_axis=-1).fit(X, y)
    monkeypatch.setattr(_transpose_fit, "_BLOCK", 200)
    np.testing.assert_allclose(TransposedConv(channel_axis=-1).fit(X, y).bank_.weight, whole.bank_.weight, atol=1e-6)


def test_what_images_do_not_say_is_zero():
    """A channel that is always 0, and one that repeats another: the least weights that are as good."""
    X = RNG.normal(size=(12, 13, 1)) * [1.0, 1.0, 0.0]
    y = dconv.upsample(X[np.newaxis, ..., :1], 2)[0]
    fitted = TransposedConv(alpha=0, channel_axis=-1).fit(X, y)
    half = filters.bilinear_upsampling(2).weight[0] / 2
    np.testing.assert_allclose(fitted.bank_.weight, [half, half, 0 * half], rtol=0, atol=1e-6)
    nothing = TransposedConv(alpha=0).fit(np.zeros((5, 5)), np.ones((10, 10)))
    assert not nothing.bank_.weight.any()


def test_alpha_shrinks():
    X, y = RNG.normal(size=(12, 13)), RNG.normal(size=(24, 26))
    norms = [np.linalg.norm(TransposedConv(alpha=alpha).fit(X, y).bank_.weight) for alpha in (0, 1, 100, 1e9)]
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 1e-5


@pytest.mark.parametrize(("stride", "kernel"), [(1, 1), (2, 4), (3, 5), ((4, 1), (8, 1))])
def test_kernel_size_by_default(stride, kernel):
    steps = np.broadcast_to(stride, 2)
    fitted = TransposedConv(stride=stride).fit(np.ones((5, 5)), np.ones(5 * steps))
    assert fitted.bank_.kernel_size == tuple(np.broadcast_to(kernel, 2))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, np.float32])
def test_targets_of_every_dtype(dtype):
    X, y = RNG.normal(size=(6, 7)), RNG.integers(0, 2, size=(12, 14))
    expected = TransposedConv().fit(X, y.astype(float)).bank_.weight
    np.testing.assert_array_equal(TransposedConv().fit(X, y.astype(dtype)).bank_.weight, expected)


def test_forms_of_y():
    X, y = RNG.normal(size=(2, 6, 7)), RNG.normal(size=(2, 12, 14))
    expected = TransposedConv().fit(X, y).bank_.weight
    for images, targets in [(X, y[..., None]), (list(X), list(y)), (list(X), y), (X, list(y)), (X, y.tolist())]:
        np.testing.assert_array_equal(TransposedConv().fit(images, targets).bank_.weight, expected)
    one = TransposedConv().fit(X[0], y[0]).bank_.weight
    np.testing.assert_array_equal(TransposedConv().fit(X[0], y[0].tolist()).bank_.weight, one)
    np.testing.assert_array_equal(TransposedConv().fit(X[:1], y[:1]).bank_.weight, one)
    ragged = TransposedConv().fit([X[0], X[1, :4]], [y[0], y[1, :8]])
    assert [image.shape for image in ragged.transform([X[0], X[1, :4]])] == [(12, 14, 1), (8, 14, 1)]
    first = TransposedConv(channel_axis=0).fit(X, np.stack(list(y), axis=-1))  # one image of two channels
    assert first.n_channels_in_ == first.n_features_out_ == 2


# --- with scikit-learn ---


def negative_error(estimator, X, y):
    return -np.mean([np.abs(up[..., 0] - full).mean() for up, full in zip(estimator.transform(X), y, strict=True)])


def test_grid_search():
    small = list(RNG.normal(size=(4, 12, 13)))
    full = [dconv.upsample(image[None, ..., None], 2)[0, ..., 0] for image in small]
    grid = {"alpha": [0.1, 1e6], "kernel_size": [2, 4]}
    search = GridSearchCV(TransposedConv(), grid, scoring=negative_error, cv=KFold(2)).fit(small, full)
    assert search.best_params_ == {"alpha": 0.1, "kernel_size": 4}
    assert search.score(small, full) > -1e-3


def test_pipeline():
    """Learning back what a strided convolution loses of a texture."""
    images = [np.sin(np.add.outer(np.arange(24.0), np.arange(26.0) / 2) + phase) for phase in range(4)]
    half = DilatedConv(filters.gaussian(0.5), stride=2)
    pipeline = make_pipeline(half, TransposedConv(kernel_size=6, channel_axis=-1))
    restored = clone(pipeline).fit(images[:3], images[:3])
    assert restored.transform(images[3]).shape == (24, 26, 1)
    blunt = clone(pipeline).set_params(transposedconv=TransposedConv(filters.bilinear_upsampling(2), channel_axis=-1))
    blunt.fit(images[:3])
    assert negative_error(restored, images[3:], images[3:]) > 0.2 * negative_error(blunt, images[3:], images[3:])


def test_a_pixel_classifier_refuses_features_of_another_size():
    image = RNG.normal(size=(20, 20))
    with pytest.raises(ValueError, match="40"):
        dconv.PixelClassifier(TransposedConv(filters.bilinear_upsampling(2))).fit(image, (image > 0) + 1)


# --- what is refused ---


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"filters": np.ones((3, 3))}, ValueError, "filters must have shape (out_channels, *kernel, in_channels)"),
        ({"filters": np.ones((2, 3, 1))}, ValueError, "filters have 1 spatial axes (their shape is (2, 3, 1)), but"),
        ({"filters": np.ones((3, 3, 3, 1))}, ValueError, "images must have 3 channel(s) or a multiple, one per filter"),
        ({"filters": np.ones((1, 3, 3, 4))}, ValueError, "images must have 1 channel(s), one per filter, but"),
        ({"filters": np.ones((4, 3, 3, 2))}, ValueError, "images must have 4 channel(s), one per filter, but"),
        ({"filters": "gaussian"}, TypeError, "filters must be a FilterBank or hold real numbers, but got 'gaussian'"),
        ({"kernel_size": 3}, ValueError, "kernel_size=3 is for learnt filters, but filters are given, of (3, 3) taps"),
        ({"alpha": "big"}, TypeError, "alpha must be a real number"),
        ({"alpha": -1}, ValueError, "alpha must be a number of at least 0, but got -1"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"stride": 2.0}, TypeError, "stride must be an int"),
        ({"dilation": (1, 2, 3)}, ValueError, "dilation must be an int or have one int for each of the 2"),
        ({"output_padding": 1}, ValueError, "output_padding must be less than max(stride, dilation), and 0 with"),
        ({"output_padding": -1}, ValueError, "output_padding must be at least 0"),
        ({"output_padding": 2, "padding": 0}, ValueError, "output_padding must be less than max(stride, dilation)"),
        ({"padding": 20}, ValueError, "padding=20 leaves -27 samples on axis 0 of the transposed convolution"),
        ({"padding": "full"}, ValueError, "padding must be 'same', 'valid'"),
        ({"padding_mode": "mirror"}, ValueError, "padding_mode must be one of"),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(parameters, error, message):
    with pytest.raises(error, match=re.escape(message)):
        TransposedConv(**{"filters": filters.derivatives(1), "channel_axis": -1, **parameters}).fit(np.zeros((6, 7, 2)))


@pytest.mark.parametrize(
    ("y", "parameters", "error", "message"),
    [
        (None, {}, ValueError, "y is missing: filters=None learns the filters from y"),
        (np.zeros((13, 14)), {}, ValueError, "y has shape (13, 14), but an image of (6, 7) pixels becomes (12, 14): y"),
        (np.zeros((13, 14)), {"padding": 1}, ValueError, "becomes (12, 14), or up to (13, 15) with a larger"),
        (np.zeros((13, 14)), {"padding": np.ones((2, 2), int)}, ValueError, "becomes (12, 14), or up to (13, 15)"),
        (np.zeros((12, 14, 2, 2)), {}, ValueError, "and may have an axis of channels after it"),
        (np.zeros((12, 14, 0)), {}, ValueError, "y has shape (12, 14, 0)"),
        (np.full((12, 14), np.nan), {}, ValueError, "y holds values that are not finite or beyond 1e+18"),
        (np.full((12, 14), -1e19), {}, ValueError, "y holds values that are not finite or beyond 1e+18"),
        (np.zeros((12, 14), complex), {}, TypeError, "y must hold real numbers, got dtype complex128"),
        (np.zeros((12, 14)), {"alpha": -1}, ValueError, "alpha must be a number of at least 0, but got -1"),
        (np.zeros((12, 14)), {"alpha": [1, 2]}, ValueError, "alpha must be a number of at least 0, but got [1, 2]"),
        (np.zeros((12, 14)), {"alpha": np.nan}, ValueError, "alpha must be finite"),
        (np.zeros((12, 14)), {"alpha": "big"}, TypeError, "alpha must be a real number"),
        (np.zeros((12, 14)), {"kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
        (np.zeros((12, 14)), {"kernel_size": 2.0}, TypeError, "kernel_size must be an int"),
        (np.zeros((12, 14)), {"kernel_size": 129}, ValueError, "makes 16641 weights for each channel of y"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_from(y, parameters, error, message):
    with pytest.raises(error, match=re.escape(message)):
        TransposedConv(**parameters).fit(np.ones((6, 7)), y)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.zeros((1, 12, 14)), ValueError, "y has 1 image(s), but X has 2; pass one y per image"),
        ([np.zeros((12, 14)), np.zeros((11, 14))], ValueError, "y[1] has shape (11, 14), but an image of (6, 7)"),
        ([np.zeros((12, 14, 1)), np.zeros((12, 14, 2))], ValueError, "same number of channels, but they have [1, 2]"),
        (5, TypeError, "y must be a list or an array of images, as X is a list, but got 5"),
        (np.array(5), TypeError, "y must be a list or an array of images, as X is a list, but got array(5)"),
        ([[[1], [1, 2]]] * 2, TypeError, "y[0] must be an array, but got a list of items of different shapes"),
    ],
)  # fmt: skip
def test_what_lists_cannot_be_learnt_from(y, error, message):
    with pytest.raises(error, match=re.escape(message)):
        TransposedConv().fit([np.ones((6, 7))] * 2, y)
