"""Laws that convolutions keep, whatever their sizes: each is a property of the formula or a promise of conv."""

import dataclasses
import itertools
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from conv_cases import CHANNELS, NUMPY_MODES, Case, cases
from dconv._kernels._dispatch import built_levels, supported_levels
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import assert_close, term_scale

import dconv
from dconv import _conv_layout, _conv_plan, _conv_run, _memory
from dconv._blocks import PADDING_MODES
from dconv._kernels import _dispatch

MANY = settings(deadline=None, max_examples=200)
SOME = settings(deadline=None, max_examples=60)  # against the definition, which is slow
seeds = st.integers(0, 2**32 - 1)
# (channels, filters per group, groups): grey, depthwise of a few and of many channels, few filters of many channels,
# filters, few of one channel, few of groups of two channels.
LOOPS = [(1, 1, 1), (3, 1, 3), (64, 1, 64), (16, 2, 1), (3, 17, 1), (1, 2, 1), (16, 2, 8)]


def plan_of(case):
    return _conv_plan.conv_plan(
        case.shape,
        case.weight_shape,
        case.stride,
        case.padding,
        case.dilation,
        case.groups,
        case.padding_mode,
    )


def small_threads():
    """Return a context in which the smallest convolution takes all threads it is given."""
    return mock.patch.object(_conv_run, "_MULTIPLY_ADDS_PER_THREAD", 1)


def assert_bitwise(actual, expected):
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


# --- algebra ---


@MANY
@given(cases(), seeds)
def test_linear_in_x(case, seed):
    (x, weight, _), (y, _, _) = case.arrays(seed), case.arrays(seed + 1)
    combined = case.conv(2.5 * x - 0.75 * y, weight)
    expected = 2.5 * case.conv(x, weight).astype(float) - 0.75 * case.conv(y, weight)
    assert_close(combined, expected, case.n_taps, 2.5 * term_scale(x, weight) + 0.75 * term_scale(y, weight))


@MANY
@given(cases(), seeds)
def test_linear_in_weight_and_bias(case, seed):
    (x, weight, bias), (_, other, _) = case.arrays(seed), case.arrays(seed + 1)
    combined = case.conv(x, 2.5 * weight - 0.75 * other, None if bias is None else 2.5 * bias)
    expected = 2.5 * case.conv(x, weight, bias).astype(float) - 0.75 * case.conv(x, other)
    assert_close(combined, expected, case.n_taps, 2.5 * term_scale(x, weight, bias) + 0.75 * term_scale(x, other))


@MANY
@given(cases(), seeds, st.integers(-40, 40))
def test_powers_of_two_pass_through(case, seed, exponent):
    x, weight, _ = case.arrays(seed)
    assert_bitwise(case.conv(x * case.dtype(2.0**exponent), weight), case.conv(x, weight) * case.dtype(2.0**exponent))


@MANY
@given(cases(strides=(1,), modes=("circular",)), st.data())
def test_shift_equivariance(case, data):
    x, weight, bias = case.arrays()
    shift = data.draw(st.tuples(*(st.integers(-n, n) for n in case.shape[1:-1])))
    axes = range(1, x.ndim - 1)
    pads = tuple((width // 2, width - 1 - width // 2) for width in case.span)  # outputs as many as inputs
    rolled = case.conv(np.roll(x, shift, axes), weight, bias, padding=pads)
    assert_bitwise(rolled, np.roll(case.conv(x, weight, bias, padding=pads), shift, axes))


@MANY
@given(cases(channels=CHANNELS.filter(lambda triple: triple[2] > 1)), seeds)
def test_groups_are_blocks(case, seed):
    x, weight, bias = case.arrays(seed)
    parts = zip(
        np.split(x, case.groups, axis=-1),
        np.split(weight, case.groups),
        itertools.repeat(None) if bias is None else np.split(bias, case.groups),
        strict=bias is not None,
    )
    expected = np.concatenate([case.conv(*part, groups=1) for part in parts], axis=-1)
    assert_close(case.conv(x, weight, bias), expected, case.n_taps, term_scale(x, weight, bias))


@MANY
@given(cases(), seeds)
def test_batch_is_one_by_one(case, seed):
    x, weight, bias = case.arrays(seed)
    expected = np.concatenate([case.conv(image[np.newaxis], weight, bias) for image in x])
    assert_bitwise(case.conv(x, weight, bias), expected)


# --- bits: tiles, threads, borders ---


@MANY
@given(cases(), st.data())
def test_tiles_equal_the_whole(case, data):
    x, weight, bias = case.arrays()
    whole = case.conv(x, weight, bias)
    padded = case.padded(x)
    cuts = []
    for n in whole.shape[1:-1]:
        inner = data.draw(st.sets(st.integers(1, n - 1), max_size=3)) if n > 1 else set()
        cuts.append(list(itertools.pairwise([0, *sorted(inner), n])))
    for tile in itertools.product(*cuts):
        reads = [
            slice(first * step, (stop - 1) * step + width)
            for (first, stop), step, width in zip(tile, case.stride, case.span, strict=True)
        ]
        target = (slice(None), *(slice(*pair) for pair in tile))
        actual = case.conv(padded[(slice(None), *reads)], weight, bias, padding="valid")
        assert_bitwise(actual, whole[target])


@MANY
@given(cases(), st.integers(2, 5), seeds)
def test_threads_change_nothing(case, n_threads, seed):
    x, weight, bias = case.arrays(seed)
    one = case.conv(x, weight, bias, n_threads=1)
    with small_threads():
        several = case.conv(x, weight, bias, n_threads=n_threads)
    assert_bitwise(several, one)


@MANY
@given(cases(), seeds)
def test_borders_equal_padding_beforehand(case, seed):
    x, weight, bias = case.arrays(seed)
    assert_bitwise(case.conv(x, weight, bias), case.conv(case.padded(x), weight, bias, padding="valid"))


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(("channels", "filters", "groups"), LOOPS, ids=str)
@pytest.mark.parametrize("size", [(3000,), (70, 90), (90, 10), (30, 31, 32), (40, 6, 5)])
def test_borders_of_images_with_an_interior(size, channels, filters, groups, mode):
    """Most pixels read x in place, and none of the seams may be seen; `size` has rows along every axis."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, channels)).astype(np.float32)
    weight = rng.normal(size=(filters * groups, *(3,) * len(size), channels // groups)).astype(np.float32)
    pads = ((3, 5),) * len(size)
    padded = np.pad(x, [(0, 0), *pads, (0, 0)], mode=NUMPY_MODES[mode])
    actual = dconv.conv(x, weight, padding=pads, dilation=2, groups=groups, padding_mode=mode, n_threads=2)
    assert_bitwise(actual, dconv.conv(padded, weight, dilation=2, groups=groups))


@pytest.mark.parametrize("size", [(1_000_000,), (1000, 1000), (100, 100, 100)])
def test_only_the_border_is_copied(size):
    case = Case((1, *size, 2), (1, *(3,) * len(size), 2), False, (1,), ((2, 2),) * len(size), (2,), 1, "zeros", float)
    plan = plan_of(dataclasses.replace(case, stride=(1,) * len(size), dilation=(2,) * len(size)))
    (rows,) = _conv_layout.rows_of(plan, 2, _conv_layout.Tap(2, 1, False), (0, 0, 0, 1), 4)
    assert 0 < rows.scratch_size < np.prod(size) / 10


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "filters", "groups"), [*LOOPS, (96, 33, 1)], ids=str)
def test_pieces_of_long_rows(channels, filters, groups, stride):
    """Rows this long are cut into pieces: none of their borders may be seen."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, 5003, channels)).astype(np.float32)
    weight = rng.normal(size=(filters * groups, 2, 3, channels // groups)).astype(np.float32)
    options = {"groups": groups, "dilation": (1, 5), "stride": stride}
    whole = dconv.conv(x, weight, n_threads=2, **options)
    for start in range(0, whole.shape[2], 97):
        stop = min(start + 97, whole.shape[2])
        part = dconv.conv(x[:, :, start * stride : (stop - 1) * stride + 11], weight, **options)
        assert_bitwise(part, whole[:, :, start:stop])


# --- CPU levels ---


@pytest.mark.parametrize("level", built_levels())
@SOME
@given(case=cases(budget=20_000), n_threads=st.integers(1, 3), seed=seeds)
def test_every_cpu_level_equals_the_definition(level, case, n_threads, seed):
    if level not in supported_levels():
        pytest.skip(f"this CPU does not run {level}; test_microkernel runs its 64-byte vectors as two halves")
    x, weight, bias = case.arrays(seed)
    plan = plan_of(case)
    out = np.full(plan.out_shape, np.nan, case.dtype)
    with small_threads():
        _conv_run.run_plan(plan, x, weight, bias, out, n_threads, level)
    case.check(out, x, weight, bias)


@pytest.mark.parametrize("level", supported_levels())
@MANY
@given(case=cases(), data=st.data())
def test_every_cpu_level_has_no_borders_between_threads_and_tiles(level, case, data):
    x, weight, bias = case.arrays()

    def run(plan, image, n_threads):
        out = np.full(plan.out_shape, np.nan, case.dtype)
        with small_threads():
            _conv_run.run_plan(plan, image, weight, bias, out, n_threads, level)
        return out

    padded = case.padded(x)
    inside = dataclasses.replace(case, shape=padded.shape, padding="valid")
    assert_bitwise(run(plan_of(case), x, data.draw(st.integers(2, 4))), run(plan_of(inside), padded, 1))


@pytest.mark.parametrize("level", supported_levels())
@MANY
@given(case=cases(), n_threads=st.integers(1, 3))
def test_relu_in_the_convolution_is_one_after_it(level, case, n_threads):
    x, weight, bias = case.arrays()
    plan, packings = plan_of(case), {}
    plain, clipped, again = (np.full(plan.out_shape, np.nan, case.dtype) for _ in range(3))
    with small_threads():
        _conv_run.run_plan(plan, x, weight, bias, plain, n_threads, level)
        for out in (clipped, again):  # the second from the weights that the first has packed
            _conv_run.run_plan(plan, x, weight, bias, out, n_threads, level, packings=packings, relu=True)
    expected = np.where(plain < 0, 0, plain)
    assert_bitwise(clipped, expected)
    assert_bitwise(again, expected)


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("channels", "filters", "groups"),
    [(2, 16, 1), (5, 48, 1), (3, 40, 1), (16, 16, 16), (1, 1, 1), (1, 4, 1), (1, 2, 1), (32, 32, 8), (16, 16, 8)],
)
def test_large_results_past_the_caches_are_those_of_small_ones(channels, filters, groups, dtype, level):
    shape, weight_shape = (1, 9, 48, channels), (filters, 3, 3, channels // groups)
    case = Case(shape, weight_shape, True, (1, 1), ((1, 1), (1, 1)), (1, 1), groups, "zeros", dtype)
    x, weight, bias = case.arrays()
    results = []
    for limit in (1 << 62, 0):
        out = _memory.empty((1, 9, 48, filters), np.dtype(dtype))
        out[...] = np.nan
        with mock.patch.object(_conv_run, "_STREAMED_BYTES", limit), small_threads():
            _conv_run.run_plan(plan_of(case), x, weight, bias, out, 2, level)
        results.append(out)
    assert_bitwise(*results)
    case.check(results[1], x, weight, bias)


# Few filters of one to five channels, and of groups of one to three.
SHARING = [(1, 2, 1), (1, 3, 1), (1, 4, 1), (2, 1, 1), (3, 1, 1), (3, 2, 1), (3, 3, 1), (5, 4, 1)]
SHARING += [(8, 16, 8), (14, 7, 7), (20, 10, 10), (15, 20, 5), (15, 5, 5)]


@pytest.mark.parametrize("level", [level for level in supported_levels() if _dispatch.can_share(level, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "filters", "groups"), SHARING, ids=str)
def test_filters_that_share_a_vector_have_the_bits_of_those_that_do_not(
    channels, filters, groups, stride, dtype, level
):
    n_shared = []
    for width, bias, mode in [(40, True, "zeros"), (203, False, "reflect")]:
        shape, weight_shape = (2, 5, width, channels), (filters, 3, 3, channels // groups)
        case = Case(shape, weight_shape, bias, (1, stride), ((1, 1), (2, 1)), (1, 2), groups, mode, dtype)
        x, weight, b = case.arrays()
        results = []
        for at_least in (1, 1 << 62):
            out = np.full(plan_of(case).out_shape, np.nan, dtype)
            with (
                mock.patch.object(_conv_run, "_SHARES", at_least),
                mock.patch.object(_conv_run, "_beside", wraps=_conv_run._beside) as beside,
                small_threads(),
            ):
                _conv_run.run_plan(plan_of(case), x, weight, b, out, 2, level)
            results.append(out)
            n_shared.append(beside.call_count)
        assert_bitwise(*results)
        case.check(results[0], x, weight, b)
    assert all(n_shared[::2])
    assert not any(n_shared[1::2])


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect by ctypes")
def test_vectors_that_are_shared_read_nothing_beyond_x():
    """Whole vectors are read where less is needed: here memory that may not be read lies right behind x, and before."""
    script = """
import ctypes, mmap, numpy as np, dconv
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 3 * page)
begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
for each in (begin, begin + 2 * page):
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(each), page, 0) == 0
whole = np.frombuffer(memory, np.float32, page // 4, page)
whole[:] = np.random.default_rng(0).normal(size=whole.size)
for channels, filters, groups in [(1, 4, 1), (1, 2, 1), (3, 2, 1), (16, 16, 4), (8, 16, 8)]:
    weight = np.ones((filters, 2, 3, channels // groups), np.float32)
    for width in (3, 12, 40, 64, 100, 341):
        n = 2 * width * channels
        if n <= whole.size:
            for x in (whole[:n], whole[-n:]):
                dconv.conv(x.reshape(1, 2, width, channels), weight, padding=((0, 0), (1, 0)), groups=groups)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kernel", "dilation", "stride"), [(3, 1, 1), (5, 1, 1), (7, 1, 1), (5, 2, 1), (3, 4, 1), (3, 2, 2), (9, 3, 1)]
)
def test_depthwise_rows_that_slide_over_what_they_have_read(kernel, dilation, stride, dtype, level):
    for channels in (16, 35):
        shape, weight_shape, pads = (1, 4, 70, channels), (channels, 3, kernel, 1), ((1, 1), (kernel, 2))
        case = Case(shape, weight_shape, True, (1, stride), pads, (1, dilation), channels, "symmetric", dtype)
        x, weight, bias = case.arrays()
        whole = np.full(plan_of(case).out_shape, np.nan, dtype)
        _conv_run.run_plan(plan_of(case), x, weight, bias, whole, 1, level)
        case.check(whole, x, weight, bias)
        one = dataclasses.replace(case, padding=((0, 0), (0, 0)), shape=(1, 3, dilation * (kernel - 1) + 1, channels))
        for column in range(0, 40, 7):  # a single pixel cannot slide
            pixel = np.full((1, 1, 1, channels), np.nan, dtype)
            part = case.padded(x)[:, :3, column * stride :][:, :, : one.shape[2]]
            _conv_run.run_plan(plan_of(one), part, weight, bias, pixel, 1, level)
            assert_bitwise(pixel, whole[:, :1, column : column + 1])
