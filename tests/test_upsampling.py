"""upsample against SciPy and PyTorch, its laws, and its weights against SciPy's splines and FCN's kernel."""

import re

import numpy as np
import pytest
import scipy.interpolate
import scipy.ndimage
from conv_cases import SCIPY_MODES
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import assert_close

import dconv
from dconv import _conv_run, filters
from dconv._blocks import PADDING_MODES, read_block

ORDERS = {"bilinear": 1, "b3_spline": 3}
FAMILIES = {"bilinear": filters.bilinear_upsampling, "b3_spline": filters.b3_spline_upsampling}
ALIGNS = ("center", "first")
MODES = {**SCIPY_MODES, "zeros": "grid-constant"}  # SciPy's "constant" has no samples beyond the border at all
MANY = settings(deadline=None, max_examples=100)
methods, aligns, modes = st.sampled_from(list(ORDERS)), st.sampled_from(ALIGNS), st.sampled_from(PADDING_MODES)


@st.composite
def images(draw, dtype=np.float64, smallest=1):
    """Draw a batch of images and one factor per axis."""
    rank = draw(st.integers(1, 3))
    size = draw(st.tuples(*[st.integers(smallest, 7)] * rank))
    factors = draw(st.tuples(*[st.integers(1, 9 - 2 * rank)] * rank))
    shape = (draw(st.integers(1, 2)), *size, draw(st.sampled_from([1, 2, 3, 17])))
    return np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape).astype(dtype), factors


def places(n, factor, align):
    """Return where outputs lie among the samples of an axis."""
    return (np.arange(n) - ((factor - 1) / 2 if align == "center" else 0)) / factor


def by_scipy(x, out_size, factors, method, align, mode):
    """Return `x` upsampled by SciPy."""
    axes = [places(n, f, align) for n, f in zip(out_size, factors, strict=True)]
    where, order = np.meshgrid(*axes, indexing="ij"), ORDERS[method]
    planes = [
        scipy.ndimage.map_coordinates(image[..., c], where, order=order, prefilter=False, mode=MODES[mode])
        for image in x.astype(float)
        for c in range(x.shape[-1])
    ]
    return np.moveaxis(np.reshape(planes, (len(x), x.shape[-1], *out_size)), 1, -1)


# --- against others ---


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize("method", ORDERS)
@MANY
@given(data=st.data())
def test_equals_scipy(method, align, mode, data):
    # SciPy takes a single pixel for a constant in mode "mirror", and for something else in others.
    x, factors = data.draw(images(smallest=2))
    out_size = [data.draw(st.integers((n - 1) * f + 1, n * f)) for n, f in zip(x.shape[1:-1], factors, strict=True)]
    actual = dconv.upsample(x, factors, method=method, align=align, padding_mode=mode, output_size=out_size)
    assert actual.dtype == np.float64
    assert actual.shape == (len(x), *out_size, x.shape[-1])
    np.testing.assert_allclose(actual, by_scipy(x, out_size, factors, method, align, mode), rtol=0, atol=1e-12)


@MANY
@given(drawn=images())
def test_equals_torch(drawn):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install dconv[peers])")
    x, factors = drawn
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(factors)]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).movedim(-1, 1), scale_factor=factors, mode=mode, align_corners=False
    )
    np.testing.assert_allclose(dconv.upsample(x, factors), expected.movedim(1, -1).numpy(), rtol=0, atol=1e-12)


@MANY
@given(drawn=images(np.float32, smallest=2), method=methods, align=aligns, mode=modes)
def test_float32_is_as_exact_as_its_roundings(drawn, method, align, mode):
    x, factors = drawn
    actual = dconv.upsample(x, factors, method=method, align=align, padding_mode=mode)
    assert actual.dtype == np.float32
    out_size = [n * f for n, f in zip(x.shape[1:-1], factors, strict=True)]
    n_terms = (ORDERS[method] + 2) ** len(factors)  # one more for the rounding of each weight
    assert_close(actual, by_scipy(x, out_size, factors, method, align, mode), n_terms, np.abs(x).max())


def test_spline_coefficients_make_it_interpolate():
    """With SciPy's coefficients it is the cubic spline through the pixels, whatever lies between them."""
    image = np.random.default_rng(0).normal(size=(9, 8))
    coefficients = scipy.ndimage.spline_filter(image, 3, mode="mirror")[None, ..., None]
    fine = dconv.upsample(coefficients, 4, method="b3_spline", align="first", padding_mode="reflect")[0, ..., 0]
    np.testing.assert_allclose(fine[::4, ::4], image, rtol=0, atol=1e-12)
    expected = scipy.ndimage.map_coordinates(image, np.mgrid[:36, :32] / 4, order=3, mode="mirror")
    np.testing.assert_allclose(fine, expected, rtol=0, atol=1e-12)


# --- laws ---


@MANY
@given(drawn=images(), method=methods, align=aligns, mode=st.sampled_from(PADDING_MODES[1:]))
def test_constants_stay_constant(drawn, method, align, mode):
    x, factors = drawn
    actual = dconv.upsample(np.full_like(x, 3), factors, method=method, align=align, padding_mode=mode)
    np.testing.assert_allclose(actual, 3, rtol=0, atol=1e-14)


@MANY
@given(factors=st.lists(st.integers(1, 5), min_size=1, max_size=3), align=aligns, method=methods)
def test_ramps_stay_ramps_inside(factors, align, method):
    """Where the border is not seen, a linear function is kept by both splines, at the places that `align` says."""
    coarse = [(2.0 + axis) * np.arange(9) for axis in range(len(factors))]
    fine = [(2.0 + axis) * places(9 * f, f, align) for axis, f in enumerate(factors)]
    ramp, expected = (np.sum(np.meshgrid(*axes, indexing="ij"), axis=0) for axes in (coarse, fine))
    actual = dconv.upsample(ramp[None, ..., None], factors, method=method, align=align)[0, ..., 0]
    inside = tuple(slice(2 * f, -2 * f) for f in factors)
    np.testing.assert_allclose(actual[inside], expected[inside], rtol=0, atol=1e-12)


@MANY
@given(drawn=images(np.float32), method=methods, align=aligns, mode=modes, n_threads=st.integers(2, 5))
def test_threads_and_out_change_nothing(every_thread, drawn, method, align, mode, n_threads):
    x, factors = drawn
    options = {"method": method, "align": align, "padding_mode": mode}
    expected = dconv.upsample(x, factors, n_threads=1, **options)
    out = np.full_like(expected, np.nan)
    assert dconv.upsample(x, factors, out=out, n_threads=n_threads, **options) is out
    np.testing.assert_array_equal(out, expected)


@pytest.fixture(scope="module")
def every_thread():
    """Let the smallest convolution take all threads it is given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_conv_run, "_MULTIPLY_ADDS_PER_THREAD", 1)
        yield


@MANY
@given(drawn=images(np.float32), method=methods, align=aligns, mode=modes, grow=st.integers(3, 5))
def test_an_extended_crop_gives_the_same_bits(drawn, method, align, mode, grow):
    """What lies beyond the border is what the padding mode continues the image with, and nothing else is seen."""
    x, factors = drawn
    options = {"method": method, "align": align}
    whole = dconv.upsample(x, factors, padding_mode=mode, **options)
    size = x.shape[1:-1]
    extended = read_block(x, [-grow] * len(size), [n + grow for n in size], mode, first_axis=1)
    crop = tuple(slice(grow * f, (grow + n) * f) for n, f in zip(size, factors, strict=True))
    again = dconv.upsample(extended, factors, **options)[(slice(None), *crop)]
    np.testing.assert_array_equal(again, whole)


def test_every_dtype_and_layout():
    x = np.random.default_rng(0).integers(0, 255, size=(2, 6, 7, 3)).astype(np.uint8)
    expected = dconv.upsample(x.astype(np.float32), 3)
    assert expected.dtype == np.float32
    for same in (x, x.astype(np.float16), np.asfortranarray(x), x[:, ::-1].copy()[:, ::-1], x.tolist()):
        np.testing.assert_array_equal(dconv.upsample(same, 3), expected)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_input_is_not_modified(mode):
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 2))
    before = x.copy()
    for factor in (1, 2):
        assert not np.may_share_memory(dconv.upsample(x, factor, padding_mode=mode), x)
    np.testing.assert_array_equal(x, before)


def test_factor_one():
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 3))
    np.testing.assert_array_equal(dconv.upsample(x, 1), x)
    smooth = dconv.upsample(x, 1, method="b3_spline", align="first")
    expected = x
    for axis in (1, 2):
        expected = scipy.ndimage.correlate1d(expected, [1 / 6, 4 / 6, 1 / 6], axis, mode="nearest")
    np.testing.assert_allclose(smooth, expected, rtol=0, atol=1e-14)


def test_empty_batch():
    assert dconv.upsample(np.zeros((0, 4, 5, 3)), (2, 3)).shape == (0, 8, 15, 3)


def test_nan_stays_where_the_spline_reaches():
    x = np.zeros((1, 9, 1))
    x[0, 4] = np.nan
    bad = np.isnan(dconv.upsample(x, 4, align="first"))[0, :, 0]
    np.testing.assert_array_equal(np.flatnonzero(bad), range(13, 20))


# --- the weights ---


@MANY
@given(factor=st.integers(1, 12), method=methods, align=aligns)
def test_weights_are_the_spline_and_as_few_as_can_be(factor, method, align):
    (weight,) = FAMILIES[method](factor, ndim=1, align=align).weight[..., 0].astype(float)
    degree = ORDERS[method]
    offset = (factor - 1) / 2 if align == "center" else 0
    spline = scipy.interpolate.BSpline.basis_element(np.arange(degree + 2) - (degree + 1) / 2, extrapolate=False)
    t = np.arange(-5 * factor, 5 * factor + 1)
    expected = np.nan_to_num(spline((t - offset) / factor))
    expected = expected[np.flatnonzero(expected > 1e-12)]
    np.testing.assert_allclose(weight, expected, rtol=1e-6, atol=0)
    n_taps = (degree + 1) * factor - (factor % 2 if align == "center" else 1)
    assert len(weight) == n_taps
    phases = [weight[phase::factor].sum() for phase in range(factor)]
    np.testing.assert_allclose(phases, 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", range(1, 9))
def test_bilinear_weights_are_those_of_fcn(factor):
    """As `upsample_filt` in the reference code of Long, Shelhamer and Darrell."""
    size = 2 * factor - factor % 2
    middle = (size + 1) // 2 - (1 if size % 2 else 0.5)
    rows, columns = np.ogrid[:size, :size]
    expected = (1 - abs(rows - middle) / ((size + 1) // 2)) * (1 - abs(columns - middle) / ((size + 1) // 2))
    np.testing.assert_allclose(filters.bilinear_upsampling(factor).weight[0, ..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_weights_are_outer_products(family):
    bank = family((2, 1, 3), ndim=3, align="first")
    factors = [family(f, ndim=1, align="first").weight.ravel() for f in (2, 1, 3)]
    np.testing.assert_allclose(bank.weight[0, ..., 0], np.einsum("i,j,k", *factors), rtol=1e-6)
    assert bank.names[0].endswith("_upsampling_2x1x3")
    assert family(2).names[0].endswith("_upsampling_2")


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("method", FAMILIES)
def test_first_lies_where_a_strided_convolution_takes_pixels_from(method, factor):
    """The padding that the docstrings name centres the filter on pixels 0, factor, 2 * factor, ..."""
    weight = FAMILIES[method](factor, ndim=1, align="first").weight
    padding = (factor if method == "bilinear" else 2 * factor) - 1
    impulse = np.zeros((1, 6, 1))
    impulse[0, 2] = 1
    spread = dconv.conv_transpose(impulse, weight, stride=factor, padding=padding)
    assert spread.shape == (1, 5 * factor + 1, 1)
    assert spread.argmax() == 2 * factor
    options = {"method": method, "align": "first", "padding_mode": "zeros", "output_size": 5 * factor + 1}
    np.testing.assert_allclose(spread, dconv.upsample(impulse, factor, **options), atol=1e-7)


@pytest.mark.parametrize("factor", [2, 3, (4, 5)])
@pytest.mark.parametrize("method", FAMILIES)
def test_center_is_same_padding(method, factor):
    x = np.random.default_rng(0).normal(size=(1, 6, 7, 1))
    weight = FAMILIES[method](factor).weight
    actual = dconv.conv_transpose(x, weight, stride=factor, padding="same")
    np.testing.assert_allclose(actual, dconv.upsample(x, factor, method=method, padding_mode="zeros"), atol=1e-6)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": np.zeros((4, 4))}, ValueError, "x must have shape (batch, *spatial, channels) with 1 to 3"),
        ({"x": np.zeros((1, 0, 4, 1))}, ValueError, "x has shape (1, 0, 4, 1): only the batch axis may be empty"),
        ({"x": np.zeros((1, 4, 4, 1), complex)}, TypeError, "x must hold real numbers, got dtype complex128"),
        ({"factor": 0}, ValueError, "factor must be at least 1, but got (0, 0)"),
        ({"factor": 2.0}, TypeError, "factor must be an int or a sequence of ints, got 2.0"),
        ({"factor": True}, TypeError, "factor must be an int or a sequence of ints, got True"),
        ({"factor": (2, 2, 2)}, ValueError, "factor must be an int or have one int for each of the 2 spatial axes"),
        ({"factor": 1 << 20}, ValueError, "factor=(1048576, 1048576) gives a filter of more than 1048576 taps"),
        ({"method": "cubic"}, ValueError, "method must be one of 'bilinear', 'b3_spline', got 'cubic'"),
        ({"method": ["bilinear"]}, ValueError, "method must be one of 'bilinear', 'b3_spline', got ['bilinear']"),
        ({"align": "corners"}, ValueError, "align must be 'center' or 'first', but got 'corners'"),
        ({"align": None}, ValueError, "align must be 'center' or 'first', but got None"),
        ({"padding_mode": "nearest"}, ValueError, "padding_mode must be one of"),
        ({"output_size": (8, 6)}, ValueError, "from 9 to 10 on axis 1, 2 times its 5 pixels, but got 6"),
        ({"output_size": 9}, ValueError, "output_size must be from 7 to 8 on axis 0"),
        ({"output_size": 7.5}, TypeError, "output_size must be an int"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
        ({"out": np.zeros((1, 8, 10, 1), np.float32)}, ValueError, "out must have shape (1, 8, 10, 1) and dtype"),
        ({"out": [0.0]}, TypeError, "out must be a numpy array, got list"),
    ],
)  # fmt: skip
def test_what_is_refused(changes, error, message):
    arguments = {"x": np.zeros((1, 4, 5, 1)), "factor": 2, **changes}
    with pytest.raises(error, match=re.escape(message)):
        dconv.upsample(**arguments)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"factor": 0}, ValueError, "factor must be at least 1, but got"),
        ({"factor": (2, 3, 4)}, ValueError, "factor must be an int or have one int for each of the 2 spatial axes"),
        ({"factor": 0.5}, TypeError, "factor must be an int or a sequence of ints, got 0.5"),
        ({"factor": 1000}, ValueError, "upsample in several steps"),
        ({"ndim": 4}, ValueError, "ndim must be 1, 2 or 3"),
        ({"align": "corner"}, ValueError, "align must be 'center' or 'first', but got 'corner'"),
    ],
)
def test_what_the_families_refuse(family, changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        family(**{"factor": 2, **changes})


@pytest.mark.parametrize("factor", [1, 2])
def test_out_must_not_overlap_x(factor):
    memory = np.zeros((1, 8, 8, 1))
    x = memory[:, : 8 // factor, : 8 // factor]
    with pytest.raises(ValueError, match="out must not overlap x in memory"):
        dconv.upsample(x, factor, out=memory)
