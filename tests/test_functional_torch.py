"""conv against PyTorch, whose words for paddings differ and whose channels come first."""

import itertools

import numpy as np
import pytest
from conv_cases import cases
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tolerance import assert_close, term_scale

import dconv

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install dconv[peers])")

TORCH_MODES = {"zeros": "constant", "reflect": "reflect", "edge": "replicate", "circular": "circular"}
MANY = settings(deadline=None, max_examples=80)
seeds = st.integers(0, 2**32 - 1)


def channels_first(array):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def torch_conv(x, weight, bias, *, pads=None, mode="constant", **options):
    """Return torch's convolution of channels-last arrays, padded beforehand by one pair per axis where given."""
    x, weight = channels_first(x), channels_first(weight)
    if pads is not None:
        x = torch.nn.functional.pad(x, list(itertools.chain(*reversed(pads))), mode=mode)
    conv = getattr(torch.nn.functional, f"conv{x.ndim - 2}d")
    out = conv(x, weight, None if bias is None else torch.from_numpy(bias), **options)
    return np.moveaxis(out.numpy(), 1, -1)


def check(case, actual, expected, x, weight, bias):
    assert actual.dtype == expected.dtype == case.dtype
    assert actual.shape == expected.shape
    assert_close(actual, expected, case.n_taps, term_scale(x, weight, bias))


@MANY
@given(case=cases(modes=("zeros",)), seed=seeds)
def test_torchs_own_padding(case, seed):
    x, weight, bias = case.arrays(seed)
    options = {"stride": case.stride, "dilation": case.dilation, "groups": case.groups}
    padding = tuple(max(pair) for pair in case.padding)
    expected = torch_conv(x, weight, bias, padding=padding, **options)
    check(case, dconv.conv(x, weight, bias, padding=padding, **options), expected, x, weight, bias)


@pytest.mark.parametrize("mode", TORCH_MODES)
@MANY
@given(data=st.data(), seed=seeds)
def test_padding_modes(mode, data, seed):
    case = data.draw(cases(modes=(mode,)))
    # torch pads by less than the image to reflect, and by the image at most to go round
    longest = {"reflect": -1, "circular": 0}.get(mode, 100)
    assume(all(max(pair) <= n + longest for pair, n in zip(case.padding, case.shape[1:-1], strict=True)))
    x, weight, bias = case.arrays(seed)
    options = {"stride": case.stride, "dilation": case.dilation, "groups": case.groups}
    expected = torch_conv(x, weight, bias, pads=case.padding, mode=TORCH_MODES[mode], **options)
    check(case, case.conv(x, weight, bias), expected, x, weight, bias)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@MANY
@given(case=cases(modes=("zeros",), strides=(1,)), seed=seeds)
def test_same(case, seed):
    x, weight, bias = case.arrays(seed)
    options = {"padding": "same", "dilation": case.dilation, "groups": case.groups}
    expected = torch_conv(x, weight, bias, **options)
    check(case, dconv.conv(x, weight, bias, **options), expected, x, weight, bias)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_large_image_on_many_channels(rank):
    """Long rows, frames, several threads and all blocks of filters at once."""
    rng = np.random.default_rng(rank)
    shape = {1: (20_011,), 2: (131, 157), 3: (23, 29, 31)}[rank]
    x = rng.normal(size=(1, *shape, 12)).astype(np.float32)
    weight = rng.normal(size=(37, *(3,) * rank, 12)).astype(np.float32)
    actual = dconv.conv(x, weight, padding=4, dilation=4, padding_mode="reflect", n_threads=2)
    expected = torch_conv(x, weight, None, pads=((4, 4),) * rank, mode="reflect", dilation=4)
    assert_close(actual, expected, weight[0].size, term_scale(x, weight))
