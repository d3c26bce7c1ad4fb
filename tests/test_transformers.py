"""DilatedConv against SciPy with zero-stuffed kernels, its names and sizes, its blocks, and what it refuses."""

import re

import numpy as np
import pytest
import scipy.ndimage
from conv_cases import SCIPY_MODES
from hypothesis import given, settings
from hypothesis import strategies as st

from dconv import transformers
from dconv._blocks import PADDING_MODES
from dconv.filters import FilterBank, derivatives, filter_bank, gaussian
from dconv.functional import conv
from dconv.transformers import DilatedConv

RNG = np.random.default_rng(0)


def correlate(channel, kernel, dilation, mode):
    """Return the dilated cross-correlation of one channel, with taps spread out among zeros."""
    stuffed = np.zeros([d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape, strict=True)])
    stuffed[tuple(slice(None, None, d) for d in dilation)] = kernel
    # SciPy centres an even kernel on the right of its two middle taps, "same" padding on the left.
    origin = [-((n + 1) % 2) for n in stuffed.shape]
    return scipy.ndimage.correlate(channel.astype(float), stuffed, mode=SCIPY_MODES[mode], origin=origin)


def reference(image, weight, dilations, mode):
    """Return the features of a channels-last image by `correlate`."""
    features = []
    for dilation in dilations:
        if weight.shape[-1] == 1:
            pairs = [([image[..., c]], [kernel[..., 0]]) for c in range(image.shape[-1]) for kernel in weight]
        else:
            pairs = [(np.moveaxis(image, -1, 0), np.moveaxis(kernel, -1, 0)) for kernel in weight]
        for channels, kernels in pairs:
            features.append(sum(correlate(c, k, dilation, mode) for c, k in zip(channels, kernels, strict=True)))
    return np.stack(features, axis=-1)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "kernel", "dilation"),
    [
        ((40,), (3,), (1, 4)),
        ((23, 19), (3, 2), (1, 2, 5)),
        ((12, 10, 11), (2, 3, 3), 2),
        ((21, 22), (3, 3), ((1, 4), 3)),
    ],
)
def test_equals_scipy(shape, kernel, dilation, in_channels, mode):
    image = RNG.integers(0, 256, size=(*shape, 3))
    weight = RNG.normal(size=(4, *kernel, in_channels)).astype(np.float32)
    ndim = len(shape)
    features = DilatedConv(weight, dilation=dilation, padding_mode=mode, ndim=ndim, channel_axis=-1).fit_transform(
        image
    )
    dilations = [
        d if isinstance(d, tuple) else (d,) * ndim for d in (dilation if isinstance(dilation, tuple) else (dilation,))
    ]
    expected = reference(image, weight, dilations, mode)
    assert features.dtype == np.float32
    # Rounding of float32 sums of n products, each below 256 * |w|.
    n_taps = np.prod(kernel) * in_channels
    bound = n_taps * np.finfo(np.float32).eps * 256 * np.abs(weight).sum(axis=tuple(range(1, ndim + 2))).max()
    np.testing.assert_allclose(features, expected, rtol=0, atol=bound)


def test_bank_and_bare_array_are_the_same():
    image, bank = RNG.normal(size=(20, 21)), derivatives(2)
    named, bare = DilatedConv(bank).fit(image), DilatedConv(bank.weight).fit(image)
    np.testing.assert_array_equal(named.transform(image), bare.transform(image))
    assert named.get_feature_names_out().tolist() == ["d00_d1", "d01_d1", "d11_d1"]
    assert bare.get_feature_names_out().tolist() == ["filter_0_d1", "filter_1_d1", "filter_2_d1"]


def test_names_follow_the_order_of_features():
    image = RNG.normal(size=(20, 21, 2))
    each = DilatedConv(derivatives(1), dilation=(2, (1, 4)), channel_axis=-1).fit(image)
    expected = ["d0_c0_d2", "d1_c0_d2", "d0_c1_d2", "d1_c1_d2", "d0_c0_d1x4", "d1_c0_d1x4", "d0_c1_d1x4", "d1_c1_d1x4"]
    assert each.get_feature_names_out().tolist() == expected
    assert each.n_features_out_ == 8
    features = each.transform(image)
    for channel in range(2):  # one channel at a time gives the same planes
        single = DilatedConv(derivatives(1), dilation=2).fit_transform(image[..., channel])
        for index in range(2):
            column = expected.index(f"d{index}_c{channel}_d2")
            np.testing.assert_array_equal(features[..., column], single[..., index])
    joint = DilatedConv(filter_bank(np.ones((1, 3, 3, 2)), ["sum"]), channel_axis=-1).fit(image)
    assert joint.get_feature_names_out().tolist() == ["sum_d1"]


@pytest.mark.parametrize(
    ("stride", "padding", "shape"),
    [
        (1, "same", (20, 21, 1)),
        (2, "same", (10, 11, 1)),
        ((1, 3), "valid", (16, 6, 1)),
        (2, 1, (9, 10, 1)),
        (1, ((0, 4), (4, 0)), (20, 21, 1)),
    ],
)
def test_strides_and_padding(stride, padding, shape):
    image = RNG.normal(size=(20, 21)).astype(np.float32)
    bank = gaussian(1.0, truncate=1)
    features = DilatedConv(bank, dilation=2, stride=stride, padding=padding, padding_mode="edge").fit_transform(image)
    assert features.shape == shape
    expected = conv(
        image[None, ..., None], bank.weight, dilation=2, stride=stride, padding=padding, padding_mode="edge"
    )[0]
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("several", [[1, 4], range(1, 5, 3), np.array([1, 4]), np.array([[1, 1], [4, 4]])])
def test_every_sequence_holds_several_dilations(several):
    image = RNG.normal(size=(20, 21))
    expected = DilatedConv(derivatives(1), dilation=(1, 4)).fit(image)
    fitted = DilatedConv(derivatives(1), dilation=several).fit(image)
    assert fitted.dilations_ == expected.dilations_ == ((1, 1), (4, 4))
    np.testing.assert_array_equal(fitted.transform(image), expected.transform(image))


@pytest.mark.parametrize(
    "changes",
    [{"ndim": 1}, {"channel_axis": -1}, {"dilation": 3}, {"stride": 2}, {"padding": 0}, {"padding_mode": "zeros"}],
)
def test_what_was_in_force_at_fit_stays_so(changes):
    image = RNG.normal(size=(20, 21))
    fitted = DilatedConv(derivatives(1), dilation=(1, 2)).fit(image)
    expected = fitted.transform(image)
    np.testing.assert_array_equal(fitted.set_params(**changes).transform(image), expected)
    block = (slice(0, 9), slice(3, 21))
    np.testing.assert_array_equal(fitted._transform_block(image[..., np.newaxis], block), expected[block])


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_n_jobs_are_the_threads_of_conv(monkeypatch, n_jobs):
    seen = []

    def spy(*arguments, n_threads=None, **options):
        seen.append(n_threads)
        return conv(*arguments, n_threads=n_threads, **options)

    monkeypatch.setattr(transformers, "conv", spy)
    DilatedConv(gaussian(1), dilation=(1, 2), n_jobs=n_jobs).fit_transform(RNG.normal(size=(20, 21)))
    assert seen == [n_jobs, n_jobs]


def test_halo_is_what_a_response_sees():
    image = np.zeros((40, 41))
    bank = filter_bank(np.ones((1, 3, 4, 1)))
    fitted = DilatedConv(bank, dilation=(1, (4, 2)), padding_mode="zeros").fit(image)
    image[20, 20] = 1
    hit = np.argwhere((fitted.transform(image) != 0).any(axis=-1)) - 20
    # A pixel is seen by the responses from `right` before it to `left` after it.
    assert fitted.halo_ == tuple(zip(hit.max(axis=0), -hit.min(axis=0), strict=True))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), mode=st.sampled_from(PADDING_MODES), in_channels=st.sampled_from([1, 2]))
def test_blocks_equal_the_whole_bitwise(data, mode, in_channels):
    ndim = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(13, 20)) for _ in range(ndim))
    block = []
    for size in shape:
        start = data.draw(st.integers(0, size - 1))
        block.append(slice(start, data.draw(st.integers(start + 1, size))))
    image = (
        np.random.default_rng(0).integers(0, 255, (*shape, 2)).astype(data.draw(st.sampled_from(["u1", "f4", "f8"])))
    )
    weight = np.random.default_rng(1).normal(size=(data.draw(st.integers(1, 20)), *(3,) * ndim, in_channels))
    bank = DilatedConv(weight, dilation=(1, 6), padding_mode=mode, ndim=ndim, channel_axis=-1).fit(image)
    features = bank._transform_block(image, tuple(block))
    assert features.flags.c_contiguous
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, bank.transform(image)[tuple(block)])


def test_only_same_and_stride_one_go_block_by_block():
    image = RNG.normal(size=(20, 21))
    assert hasattr(DilatedConv(gaussian(1)).fit(image), "_transform_block")
    assert not hasattr(DilatedConv(gaussian(1), stride=2).fit(image), "_transform_block")
    assert not hasattr(DilatedConv(gaussian(1), padding="valid").fit(image), "_transform_block")


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"filters": np.ones((3, 3))}, ValueError, "filters must have shape (out_channels, *kernel, in_channels)"),
        (
            {"filters": np.ones((2, 3, 1))},
            ValueError,
            "filters have 1 spatial axes (their shape is (2, 3, 1)), but ndim=2",
        ),
        ({"filters": np.ones((2, 3, 3, 4))}, ValueError, "filters have in_channels=4, but images have 1 channel(s)"),
        ({"filters": np.full((1, 3, 3, 1), np.nan)}, ValueError, "filters must be finite"),
        ({"filters": np.ones((1, 3, 3, 1), complex)}, TypeError, "filters must hold real numbers"),
        ({"filters": FilterBank(np.ones((2, 3, 3, 1)), ("one",))}, ValueError, "one name per filter"),
        ({"filters": None}, TypeError, "filters must be a FilterBank or hold real numbers, but got None"),
        ({"filters": "gaussian"}, TypeError, "filters must be a FilterBank or hold real numbers, but got 'gaussian'"),
        ({"filters": [gaussian(1), derivatives(1)]}, TypeError, "filters must be one bank, but got a sequence of them"),
        ({"filters": (np.ones((1, 3, 3, 1)), ["a"])}, TypeError, "filters must be an array, but got a tuple of items"),
        ({"dilation": (1, 1)}, ValueError, "dilation=(1, 1) repeats a dilation; give each once"),
        ({"dilation": (2, (2, 2))}, ValueError, "repeats a dilation"),
        (
            {"filters": np.ones((1, 21, 21, 1))},
            ValueError,
            "span (21, 21) pixels: choose smaller filters",
        ),
        ({"padding": 1.0}, TypeError, "padding on axis 0 must be an int or a (left, right) pair"),
        ({"ndim": 2.0}, TypeError, "ndim must be an int (no bool, no float), got 2.0"),
        ({"ndim": np.array([2])}, TypeError, "ndim must be an int"),
        ({"dilation": 0}, ValueError, "dilation must be at least 1"),
        ({"dilation": ()}, ValueError, "dilation is an empty sequence"),
        ({"dilation": 1.5}, TypeError, "dilation must be an int"),
        ({"dilation": ((1, 2, 3),)}, ValueError, "one int for each of the 2 spatial axes"),
        (
            {"dilation": 12},
            ValueError,
            "axis 0 has 20 pixels, but at least 25 are needed; the filters span (25, 25) pixels: lower dilation",
        ),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"padding": "full"}, ValueError, "padding must be 'same', 'valid'"),
        ({"padding": "valid", "dilation": (1, 2)}, ValueError, "gives outputs of different sizes"),
        ({"padding_mode": "mirror"}, ValueError, "padding_mode must be one of"),
    ],
)
def test_bad_parameters_are_refused(parameters, error, message):
    with pytest.raises(error, match=re.escape(message)):
        DilatedConv(**{"filters": derivatives(1), **parameters}).fit(np.zeros((20, 21)))
