"""conv against its definition and against SciPy, on every kind of memory and number."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest
import reference
from conv_cases import SCIPY_MODES, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tolerance import assert_close, term_scale

import dconv
from dconv._blocks import PADDING_MODES

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 9, 11, 3)).astype(np.float32)  # batch, rows, columns, channels
WEIGHT = RNG.normal(size=(5, 3, 2, 3)).astype(np.float32)
DENSE = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}


def check(actual, x, weight, bias=None, **options):
    """Compare with the definition; `options` in its form."""
    expected = reference.conv(x, weight, bias, **{**DENSE, **options})
    assert actual.shape == expected.shape
    assert_close(actual, expected, np.size(weight[0]), term_scale(x, weight, bias))


# --- two oracles ---


@settings(deadline=None, max_examples=150)
@given(case=cases(budget=20_000), seed=st.integers(0, 2**32 - 1))
def test_equals_the_definition(case, seed):
    x, weight, bias = case.arrays(seed)
    case.check(case.conv(x, weight, bias), x, weight, bias)


@settings(deadline=None, max_examples=200)
@given(case=cases(), data=st.data())
def test_equals_scipy_with_stuffed_zeros(case, data):
    """SciPy pads an odd kernel "same"; its every stride-th output is ours.

    SciPy 1.17's "reflect" reads memory before the image where a tap lies a multiple of twice the size before it, four
    times the size or more; such small images are left to the definition.
    """
    kernel = tuple(k + 1 - k % 2 for k in case.weight_shape[1:-1])
    reach = [d * (k // 2) for d, k in zip(case.dilation, kernel, strict=True)]
    smallest = [r // 4 + 1 if case.padding_mode == "symmetric" else 1 for r in reach]
    sizes = tuple(data.draw(st.integers(least, 12)) for least in smallest)
    case = dataclasses.replace(
        case,
        shape=(case.shape[0], *sizes, case.shape[-1]),
        weight_shape=(case.weight_shape[0], *kernel, case.weight_shape[-1]),
        padding=tuple((r, r) for r in reach),
    )
    x, weight, bias = case.arrays()
    actual = case.conv(x, weight, bias)
    stuffed = np.zeros((len(weight), *case.span, weight.shape[-1]))
    stuffed[(slice(None), *(slice(None, None, d) for d in case.dilation))] = weight
    expected = np.zeros(actual.shape)
    steps = tuple(slice(None, None, s) for s in case.stride)
    n_channels = weight.shape[-1]
    for n, f, c in itertools.product(range(len(x)), range(len(weight)), range(n_channels)):
        channel = f // (len(weight) // case.groups) * n_channels + c
        plane = x[n, ..., channel].astype(float)
        mode = SCIPY_MODES[case.padding_mode]
        expected[n, ..., f] += ndimage.correlate(plane, stuffed[f, ..., c], mode=mode, cval=0.0)[steps]
    if bias is not None:
        expected += bias
    assert_close(actual, expected, case.n_taps, term_scale(x, weight, bias))


# --- sizes and paddings ---


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 6), (6, 1), (1, 1, 1), (4, 1, 5), (1, 5, 1)])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_axes_of_one_sample(shape, mode):
    rank = len(shape)
    x, weight = RNG.normal(size=(2, *shape, 2)), RNG.normal(size=(3, *(3,) * rank, 2))
    options = {"stride": (1,) * rank, "padding": ((2, 1),) * rank, "dilation": (1,) * rank, "padding_mode": mode}
    check(dconv.conv(x, weight, padding=((2, 1),) * rank, padding_mode=mode), x, weight, **options)


@pytest.mark.parametrize("stride", [1, 2, 100])
def test_kernel_fits_exactly(stride):
    x = RNG.normal(size=(1, 9, 5, 3)).astype(np.float32)
    out = dconv.conv(x, WEIGHT, dilation=4, stride=stride)
    assert out.shape == (1, 1, 1, 5)
    check(out, x, WEIGHT, dilation=(4, 4))


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_empty_batch(channels):
    out = dconv.conv(np.empty((0, 9, 11, channels)), np.ones((2, 3, 3, channels)), [1, 2], padding=1)
    assert out.shape == (0, 9, 11, 2)
    assert out.dtype == np.float64


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        ("valid", ((0, 0), (0, 0))),
        ("same", ((2, 2), (1, 1))),
        (0, ((0, 0), (0, 0))),
        (np.int8(2), ((2, 2), (2, 2))),
        (np.array(2), ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        ([[1, 0], 3], ((1, 0), (3, 3))),
        (np.array([[1, 0], [0, 2]]), ((1, 0), (0, 2))),
    ],
)
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_forms_of_padding(padding, pairs, mode):
    out = dconv.conv(IMAGE, WEIGHT, padding=padding, dilation=2, padding_mode=mode)
    check(out, IMAGE, WEIGHT, padding=pairs, dilation=(2, 2), padding_mode=mode)


@pytest.mark.parametrize(
    ("stride", "dilation", "pairs"),
    [(1, 3, ((3, 3), (1, 2))), (2, 1, ((1, 1), (0, 1))), (3, 2, ((1, 1), (0, 1)))],
)
def test_same_adds_the_odd_pixel_after(stride, dilation, pairs):
    out = dconv.conv(IMAGE, WEIGHT, padding="same", stride=stride, dilation=dilation)
    assert out.shape == (2, -(-9 // stride), -(-11 // stride), 5)
    check(out, IMAGE, WEIGHT, padding=pairs, stride=(stride,) * 2, dilation=(dilation,) * 2)


def test_padding_goes_far_beyond_a_small_image():
    x = np.arange(1.0, 4.0).reshape(1, 3, 1)  # 1 2 3
    expected = {
        "zeros": [0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0],
        "reflect": [2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2],
        "symmetric": [2, 3, 3, 2, 1, 1, 2, 3, 3, 2, 1, 1, 2],
        "edge": [1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3],
        "circular": [2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2],
    }
    for mode, samples in expected.items():
        out = dconv.conv(x, np.ones((1, 1, 1)), padding=5, padding_mode=mode)
        np.testing.assert_array_equal(out[0, :, 0], samples, err_msg=mode)


# --- memory layouts and dtypes ---


def field_of_packed_records(x):
    records = np.zeros(x.shape, np.dtype([("flag", np.uint8), ("value", x.dtype)]))
    records["value"] = x
    assert not records["value"].flags.aligned
    return records["value"]


def read_only_map(x, path):
    file = path / f"{len(list(path.iterdir()))}.npy"
    np.save(file, x)
    return np.load(file, mmap_mode="r")


LAYOUTS = {
    "Fortran order": lambda x, path: np.asfortranarray(x),
    "negative strides": lambda x, path: x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
    "every second of larger": lambda x, path: np.repeat(np.repeat(x, 2, axis=-1), 2, axis=2)[:, :, ::2, ::2],
    "crop": lambda x, path: np.pad(x, 3)[3:-3, 3:-3, 3:-3, 3:-3],
    "channels first": lambda x, path: np.moveaxis(np.moveaxis(x, -1, 1).copy(), 1, -1),
    "swapped axes": lambda x, path: x.swapaxes(1, 2).copy().swapaxes(1, 2),
    "read-only map": read_only_map,
    "unaligned": lambda x, path: field_of_packed_records(x),
    "unaligned map": lambda x, path: np.frombuffer(b"?" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "big-endian": lambda x, path: x.astype(x.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("channels", "filters", "groups"),
    [(1, 1, 1), (3, 5, 1), (16, 2, 1), (3, 3, 3), (9, 9, 9)],
    ids=["grey", "filters", "few filters", "colour depthwise", "depthwise"],
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])  # without padding x itself is read, with it a copy
def test_memory_layout_changes_no_bit(layout, dtype, channels, filters, groups, stride, padding, tmp_path):
    x = RNG.normal(size=(2, 6, 31, channels)).astype(dtype)
    weight = RNG.normal(size=(filters, 3, 2, channels // groups)).astype(dtype)
    options = {"groups": groups, "padding": padding, "dilation": 2, "stride": stride, "padding_mode": "reflect"}
    bias = RNG.normal(size=filters).astype(dtype)
    expected = dconv.conv(x, weight, bias, **options)
    same = [LAYOUTS[layout](array, tmp_path) for array in (x, weight, bias.reshape(1, 1, 1, -1))]
    np.testing.assert_array_equal(dconv.conv(same[0], weight, bias, **options), expected)
    np.testing.assert_array_equal(dconv.conv(x, same[1], same[2][0, 0, 0], **options), expected)


@pytest.mark.parametrize("groups", [1, 3])
def test_zero_stride_broadcast(groups):
    row = RNG.normal(size=(1, 1, 11, 3)).astype(np.float32)
    weight = RNG.normal(size=(3, 3, 2, 3 // groups)).astype(np.float32)
    expected = dconv.conv(np.repeat(row, 9, axis=1), weight, padding=1, groups=groups)
    out = dconv.conv(np.broadcast_to(row, (1, 9, 11, 3)), weight, padding=1, groups=groups)
    np.testing.assert_array_equal(out, expected)
    constant = np.broadcast_to(np.float32(2), (1, 9, 11, 3))
    check(dconv.conv(constant, weight, groups=groups), constant, weight, groups=groups)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64, np.float16, np.float32, ">f4", ">i2"])
def test_other_dtypes_become_float32_without_rescaling(dtype):
    x = np.arange(2 * 9 * 11 * 3).reshape(IMAGE.shape).astype(dtype)
    out = dconv.conv(x, WEIGHT)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, dconv.conv(x.astype(np.float32), WEIGHT))


@pytest.mark.parametrize("dtype", [np.float64, ">f8", np.longdouble])
def test_double_stays(dtype):
    x = (IMAGE.astype(np.float64) + 2.0**-40).astype(dtype)  # what float32 cannot hold
    out = dconv.conv(x, WEIGHT)
    assert out.dtype == np.float64
    check(out, x.astype(np.float64), WEIGHT)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_x_decides_the_dtype(dtype):
    other = np.float64 if dtype is np.float32 else np.float32
    out = dconv.conv(IMAGE.astype(dtype), WEIGHT.astype(other), np.arange(5))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, dconv.conv(IMAGE.astype(dtype), WEIGHT.astype(dtype), np.arange(5.0)))


def test_inputs_are_not_modified_and_result_is_new():
    x, weight, bias = IMAGE.copy(), WEIGHT.copy(), np.arange(5, dtype=np.float32)
    copies = x.copy(), weight.copy(), bias.copy()
    identity = np.eye(3, dtype=np.float32).reshape(3, 1, 1, 3)
    outs = [dconv.conv(x, weight, bias, padding="same", padding_mode=mode) for mode in PADDING_MODES]
    outs.append(dconv.conv(x, identity))
    for out in outs:
        assert out.flags.writeable
        out[...] = np.nan
    for array, copy in zip((x, weight, bias), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


# --- NaN and infinity ---


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(("channels", "filters", "groups"), [(2, 19, 1), (16, 3, 1), (3, 3, 3), (1, 1, 1)])
def test_not_finite_where_the_definition_says(bad, mode, channels, filters, groups):
    """One in a corner, seen again in the border, and one inside; weights hold zeros, for 0 * inf is NaN."""
    x = RNG.normal(size=(1, 6, 17, channels))
    x[0, 0, 1, 0] = x[0, 4, 9, -1] = bad
    weight = RNG.normal(size=(filters, 2, 3, channels // groups))
    weight[0, 0, 1] = 0
    pairs = ((2, 1), (3, 4))
    out = dconv.conv(x, weight, padding=pairs, dilation=2, groups=groups, padding_mode=mode)
    expected = reference.conv(
        x, weight, **{**DENSE, "padding": pairs, "dilation": (2, 2)}, groups=groups, padding_mode=mode
    )
    assert 0 < np.count_nonzero(np.isfinite(expected)) < expected.size
    assert_close(out, expected, np.size(weight[0]), np.nanmax(np.abs(x[np.isfinite(x)])) * np.abs(weight).sum())


def test_infinite_weight_meets_the_zeros_of_the_border():
    out = dconv.conv(np.ones((1, 3, 1)), [[[np.inf], [1.0]]], padding=((1, 0),))
    np.testing.assert_array_equal(out[0, :, 0], [np.nan, np.inf, np.inf])


# --- out ---


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_out_is_filled_and_returned(channels):
    x, weight = RNG.normal(size=(2, 9, 11, channels)), RNG.normal(size=(4, 3, 3, channels))
    out = np.full((2, 9, 11, 4), np.nan)
    assert dconv.conv(x, weight, padding=1, out=out) is out
    np.testing.assert_array_equal(out, dconv.conv(x, weight, padding=1))


# --- more than 2 ** 31 elements ---


def test_view_of_more_than_2_31_samples():
    n = 2**31 + 10
    x = np.broadcast_to(np.float32(3), (1, n, 1))
    out = dconv.conv(x, np.ones((1, 2, 1)), stride=2**20, dilation=2**30)
    assert out.shape == (1, (n - 2**30 - 1) // 2**20 + 1, 1)
    assert np.all(out == 6)


@pytest.mark.skipif(sys.platform == "win32", reason="a truncated file is not sparse on NTFS")
def test_samples_beyond_2_31_are_read(tmp_path):
    """A sparse file of 8 GiB, of which only a few pages are ever touched."""
    n = 2**31 + 10
    with open(tmp_path / "x.bin", "wb") as file:
        file.truncate(4 * n)
    x = np.memmap(tmp_path / "x.bin", np.float32, "r+", shape=(1, n, 1))
    x[0, :2, 0], x[0, -2:, 0] = (1, 2), (40, 80)
    weight = np.array([1, 1], np.float32).reshape(1, 2, 1)
    np.testing.assert_array_equal(dconv.conv(x, weight, dilation=n - 2).ravel(), [41, 82])  # far offset of a tap
    np.testing.assert_array_equal(dconv.conv(x, weight, stride=n - 2).ravel(), [3, 120])  # far output
    grid = x[:, : 2**31].reshape(1, 2**16, 2**15, 1)[:, :, :1]
    grid[0, -1, 0, 0] = 7  # the same with rows and columns
    np.testing.assert_array_equal(dconv.conv(grid, weight[..., None], dilation=2**16 - 1).ravel(), [1 + 7])
