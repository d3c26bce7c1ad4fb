"""conv_transpose against its definition, PyTorch, and the law that makes it the adjoint of conv."""

import dataclasses

import numpy as np
import pytest
import reference
from conv_cases import CHANNELS, Case, cases
from dconv._kernels._dispatch import built_levels, supported_levels
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tolerance import assert_close

import dconv
from dconv import _conv_run, _transpose_plan, shapes
from dconv._blocks import PADDING_MODES

MANY = settings(deadline=None, max_examples=200)
SOME = settings(deadline=None, max_examples=60)  # against the definition, which is slow
seeds = st.integers(0, 2**32 - 1)


def operands(case, seed=0):
    """Return an image x, and y of the size that the convolution of x has; weight; a bias for the channels of x."""
    rng = np.random.default_rng(seed)
    x, weight, _ = case.arrays(seed)
    y = rng.normal(size=case.conv(x, weight).shape).astype(case.dtype)
    return x, y, weight, rng.normal(size=x.shape[-1]).astype(case.dtype) if case.has_bias else None


def transpose(case, y, weight, bias=None, **changes):
    return dconv.conv_transpose(y, weight, bias, **{**case.options, "output_size": case.shape[1:-1], **changes})


def n_terms(case):
    """Return how many products one pixel of the result adds up at most: a mode may read a pixel several times."""
    return int(np.prod(case.weight_shape[:-1])) * (1 if case.padding_mode == "zeros" else 10)


def scale(y, weight, bias=None):
    """Return a bound on the sum of the absolute values of what any pixel adds up."""
    largest = 0.0 if bias is None else float(np.abs(bias).max(initial=0))
    return float(np.abs(y).max(initial=0)) * float(np.abs(weight).sum()) + largest


@pytest.mark.parametrize("mode", PADDING_MODES)
@SOME
@given(data=st.data(), seed=seeds)
def test_equals_the_definition(mode, data, seed):
    case = data.draw(cases(budget=10_000, modes=(mode,)))
    x, y, weight, bias = operands(case, seed)
    actual = transpose(case, y, weight, bias)
    expected = reference.conv_transpose(y, weight, bias, out_size=x.shape[1:-1], **case.options)
    assert actual.dtype == case.dtype
    assert_close(actual, expected, n_terms(case), scale(y, weight, bias))


@pytest.mark.parametrize("mode", PADDING_MODES)
@MANY
@given(data=st.data(), seed=seeds)
def test_is_the_adjoint_of_conv(mode, data, seed):
    case = dataclasses.replace(data.draw(cases(modes=(mode,))), has_bias=False, dtype=np.float64)
    if data.draw(st.booleans()):
        case = dataclasses.replace(case, padding="same")
    x, y, weight, _ = operands(case, seed)
    there, back = case.conv(x, weight), transpose(case, y, weight)
    np.testing.assert_allclose(
        (there * y).sum(), (x * back).sum(), rtol=0, atol=1e-12 * np.abs(there * y).sum() + 1e-12
    )


@MANY
@given(case=cases(modes=("zeros",)), data=st.data(), seed=seeds)
def test_equals_torch(case, data, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install dconv[peers])")
    padding = tuple(max(pair) for pair in case.padding)
    extra = tuple(data.draw(st.integers(0, max(pair) - 1)) for pair in zip(case.stride, case.dilation, strict=True))
    options = {"stride": case.stride, "dilation": case.dilation, "groups": case.groups}
    _, y, weight, bias = operands(case, seed)
    sizes = [
        (n - 1) * step - 2 * pad + span + more
        for n, step, pad, span, more in zip(y.shape[1:-1], case.stride, padding, case.span, extra, strict=True)
    ]
    assume(min(sizes) > 0)
    first = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1))) for array in (y, weight)]
    function = getattr(torch.nn.functional, f"conv_transpose{len(padding)}d")
    options |= {"padding": padding, "output_padding": extra}
    expected = function(*first, None if bias is None else torch.from_numpy(bias), **options)
    actual = dconv.conv_transpose(y, weight, bias, **options)
    assert actual.dtype == case.dtype
    assert_close(actual, np.moveaxis(expected.numpy(), 1, -1), n_terms(case), scale(y, weight, bias))


@SOME
@given(case=cases(budget=10_000, modes=("zeros",)), seed=seeds)
def test_equals_zero_insertion_padding_and_cropping(case, seed):
    """The view of the textbooks: zeros between the pixels of y, then a convolution with the flipped kernel."""
    case = dataclasses.replace(case, groups=1, shape=(*case.shape[:-1], case.weight_shape[-1]), has_bias=False)
    x, y, weight, _ = operands(case, seed)
    options = {name: case.options[name] for name in ("stride", "padding", "dilation")}
    expected = reference.zero_inserted_conv_transpose(y, weight, out_size=x.shape[1:-1], **options)
    assert_close(transpose(case, y, weight), expected, n_terms(case), scale(y, weight))


@MANY
@given(case=cases(modes=("zeros",)), data=st.data())
def test_every_admissible_size_can_be_had(case, data):
    _, y, weight, _ = operands(case)
    arguments = (y.shape[1:-1], case.weight_shape[1:-1])
    options = {name: case.options[name] for name in ("stride", "padding", "dilation")}
    extra = tuple(data.draw(st.integers(0, max(pair) - 1)) for pair in zip(case.stride, case.dilation, strict=True))
    try:
        size = shapes.conv_transpose_shape(*arguments, output_padding=extra, **options)
    except ValueError:
        assume(False)
    by_padding = dconv.conv_transpose(y, weight, output_padding=extra, groups=case.groups, **options)
    assert by_padding.shape[1:-1] == size
    by_size = dconv.conv_transpose(y, weight, output_size=size, groups=case.groups, **options)
    np.testing.assert_array_equal(by_size, by_padding)


@MANY
@given(case=cases(), n_threads=st.integers(2, 5), seed=seeds)
def test_threads_and_out_change_nothing(monkeypatch_threads, case, n_threads, seed):
    _, y, weight, bias = operands(case, seed)
    out = np.full(case.shape, np.nan, case.dtype)
    assert transpose(case, y, weight, bias, out=out, n_threads=n_threads) is out
    np.testing.assert_array_equal(out, transpose(case, y, weight, bias, n_threads=1))


@pytest.fixture(scope="module")
def monkeypatch_threads():
    """Let the smallest convolution take all threads it is given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_conv_run, "_MULTIPLY_ADDS_PER_THREAD", 1)
        yield


@MANY
@given(case=cases(modes=("zeros",)))
def test_phases_cover_the_output_once(case):
    _, y, weight, _ = operands(case)
    plan, out_shape, pads = _transpose_plan.transpose_plan(
        y.shape, weight.shape, case.stride, case.padding, 0, case.dilation, case.groups, case.shape[1:-1], "zeros"
    )
    assert out_shape == case.shape
    assert pads is None
    for axis in plan.axes:
        outputs = [phase.first + j * axis.out_step for phase in axis.phases for j in range(phase.n_outputs)]
        assert sorted(outputs) == list(range(axis.out_size))
        assert len({k for phase in axis.phases for k in phase.taps}) == sum(len(phase.taps) for phase in axis.phases)


@pytest.mark.parametrize("level", built_levels())
@SOME
@given(case=cases(budget=10_000, modes=("zeros",), channels=CHANNELS), seed=seeds)
def test_every_cpu_level_equals_the_definition(level, case, seed):
    if level not in supported_levels():
        pytest.skip(f"this CPU does not run {level}")
    _, y, weight, _ = operands(case, seed)
    plan, out_shape, _ = _transpose_plan.transpose_plan(
        y.shape, weight.shape, case.stride, case.padding, 0, case.dilation, case.groups, case.shape[1:-1], "zeros"
    )
    grouped = weight.reshape(case.groups, -1, *weight.shape[1:])
    turned = np.concatenate([np.moveaxis(group, (0, -1), (-1, 0)) for group in grouped])
    out = np.full(out_shape, np.nan, case.dtype)
    _conv_run.run_plan(plan, y, turned, None, out, 2, level)
    expected = reference.conv_transpose(y, weight, out_size=out_shape[1:-1], **case.options)
    assert_close(out, expected, n_terms(case), scale(y, weight))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("channels", "filters", "groups"), [(3, 16, 1), (17, 3, 1), (1, 1, 9), (1, 1, 1), (40, 8, 2)])
def test_long_rows(channels, filters, groups, stride, dtype):
    """Rows this long are cut into pieces, whose phases take turns: conv_transpose of a delta is the filter there."""
    case = Case(
        (1, 2, 4001, channels * groups), (filters * groups, 2, 3, channels), False, (1, stride), ((1, 0), (2, 2)),
        (1, 2), groups, "zeros", dtype,
    )  # fmt: skip
    x, y, weight, _ = operands(case)
    back = transpose(case, y, weight)
    for start in range(0, 4001, 501):  # the adjoint, on parts of the image
        part = np.zeros_like(x)
        part[:, :, start : start + 501] = x[:, :, start : start + 501]
        there = case.conv(part, weight).astype(np.float64)
        bound = n_terms(case) * np.finfo(dtype).eps * np.abs(there).sum() * np.abs(y).max()
        np.testing.assert_allclose((there * y).sum(), (part * back.astype(np.float64)).sum(), rtol=0, atol=bound)


@pytest.mark.parametrize("layout", ["F", "negative", "float16", "int"])
def test_layouts_and_dtypes(layout):
    rng = np.random.default_rng(0)
    y, weight = rng.integers(-9, 9, (2, 7, 8, 5)).astype(np.float32), rng.integers(-9, 9, (5, 3, 3, 2))
    other = {
        "F": np.asfortranarray(y),
        "negative": np.ascontiguousarray(y[:, ::-1, ::-1])[:, ::-1, ::-1],
        "float16": y.astype(np.float16),
        "int": y.astype(np.int16),
    }[layout]
    expected = dconv.conv_transpose(y, weight, stride=2)
    actual = dconv.conv_transpose(other, weight, stride=2)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


def test_empty_batch():
    assert dconv.conv_transpose(np.zeros((0, 4, 5, 3)), np.zeros((3, 3, 3, 2)), stride=2).shape == (0, 9, 11, 2)


def test_output_without_a_tap_is_the_bias():
    actual = dconv.conv_transpose(np.ones((1, 3, 1)), np.ones((1, 1, 2)), [5.0, 7.0], stride=3, output_padding=2)
    expected = np.tile([5.0, 7.0], (1, 9, 1))
    expected[0, ::3] += 1
    np.testing.assert_array_equal(actual, expected)
