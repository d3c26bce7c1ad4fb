"""Laws that convolutions keep, whatever their sizes: each is a property of the formula or a promise of conv."""

import itertools
from unittest import mock

import numpy as np
import pytest
from conv_cases import CHANNELS, Case, cases
from dconv._kernels._dispatch import built_levels, supported_levels
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import assert_close, term_scale

import dconv
from dconv import _conv_plan, _conv_run

MANY = settings(deadline=None, max_examples=200)
SOME = settings(deadline=None, max_examples=60)  # against the definition, which is slow
seeds = st.integers(0, 2**32 - 1)


def plan_of(case):
    return _conv_plan.conv_plan(
        case.shape,
        case.weight_shape,
        np.dtype(case.dtype).itemsize,
        case.stride,
        case.padding,
        case.dilation,
        case.groups,
        case.padding_mode,
    )


def framed(n_bytes):
    """Return a context in which inputs from `n_bytes` on have their border cut off; plans made before are forgotten."""
    _conv_plan.conv_plan.cache_clear()
    return mock.patch.object(_conv_plan, "_FRAME_BYTES", n_bytes)


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
def test_framed_equals_padded_whole(case, seed):
    x, weight, bias = case.arrays(seed)
    with framed(0):
        in_parts = case.conv(x, weight, bias)
    with framed(1 << 62):
        assert len(plan_of(case).regions) == 1
        at_once = case.conv(x, weight, bias)
    _conv_plan.conv_plan.cache_clear()
    assert_bitwise(in_parts, at_once)


@MANY
@given(cases())
def test_regions_cover_the_output_once(case):
    with framed(0):
        plan = plan_of(case)
    _conv_plan.conv_plan.cache_clear()
    count = np.zeros(plan.out_shape[1:-1], int)
    for region in plan.regions:
        count[region.out] += 1
    assert np.all(count == 1)
    if len(plan.regions) > 1:
        interior = plan.regions[-1]  # reads nothing beyond the border, or it would be copied to extend it
        assert min(interior.start) >= 0
        assert all(stop <= n for stop, n in zip(interior.stop, case.shape[1:-1], strict=True))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_large_image_has_a_frame(rank):
    size, pads = (40_000, 200, 40)[rank - 1], ((2, 3),) * rank
    case = Case(
        (1, *(size,) * rank, 2), (1, *(3,) * rank, 2), False, (1,) * rank, pads, (2,) * rank, 1, "zeros", np.float32
    )
    plan = plan_of(case)
    assert len(plan.regions) == 2 * rank + 1
    interior = plan.regions[-1]  # which reads only what exists, all of it: nothing is copied
    assert (interior.start, interior.stop) == ((0,) * rank, case.shape[1:-1])


@pytest.mark.parametrize("groups", [1, 3])
def test_frame_one_pixel_wide(groups):
    """What its slabs read is one run of samples, but what they write is not."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(1, 40, 30, 3)), rng.normal(size=(3, 3, 1, 3 // groups))
    results = []
    for n_bytes in (0, 1 << 62):
        with framed(n_bytes):
            results.append(dconv.conv(x, weight, padding=1, groups=groups, padding_mode="edge"))
    _conv_plan.conv_plan.cache_clear()
    assert_bitwise(*results)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "filters", "groups"),
    [(1, 1, 1), (3, 1, 3), (64, 1, 64), (16, 2, 1), (3, 17, 1), (96, 33, 1)],
    ids=["grey", "colour depthwise", "depthwise", "few filters", "filters", "many taps"],
)
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

    def run(n_threads, n_bytes):
        with framed(n_bytes), small_threads():
            plan = plan_of(case)
            out = np.full(plan.out_shape, np.nan, case.dtype)
            _conv_run.run_plan(plan, x, weight, bias, out, n_threads, level)
        _conv_plan.conv_plan.cache_clear()
        return out

    assert_bitwise(run(data.draw(st.integers(2, 4)), 0), run(1, 1 << 62))
