"""Sizes against brute force (taps enumerated one by one) and against PyTorch where it is installed."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dconv import shapes
from dconv.shapes import Layer

sizes = st.integers(1, 40)
kernels = st.integers(1, 6)
strides = st.integers(1, 5)
dilations = st.integers(1, 7)
pads = st.tuples(st.integers(0, 9), st.integers(0, 9))
layer_lists = st.lists(st.builds(Layer, kernels, strides, dilations), max_size=5)


def count_outputs(n, kernel, stride, pad, dilation):
    """Number of window positions whose every tap lies in the padded axis."""
    padded = n + sum(pad)
    return sum(all(start + tap * dilation < padded for tap in range(kernel)) for start in range(0, padded, stride))


# --- span, padding and convolution ---


@given(kernels, dilations)
def test_span_counts_from_first_to_last_tap(kernel, dilation):
    taps = [tap * dilation for tap in range(kernel)]
    assert shapes.span(kernel, dilation) == (max(taps) - min(taps) + 1,)


def test_span_takes_the_rank_of_either_argument():
    assert shapes.span(3, (1, 2)) == (3, 5)
    assert shapes.span((3, 5), 2) == (5, 9)
    with pytest.raises(ValueError, match=r"dilation .*\(1, 2\)"):
        shapes.span((3, 3, 3), (1, 2))


@given(sizes, kernels, strides, pads, dilations)
def test_conv_shape_counts_window_positions(n, kernel, stride, pad, dilation):
    expected = count_outputs(n, kernel, stride, pad, dilation)
    arguments = {"stride": stride, "padding": (pad,), "dilation": dilation}
    if expected:
        assert shapes.conv_shape(n, kernel, **arguments) == (expected,)
    else:
        with pytest.raises(ValueError, match=f"dilation={dilation} with kernel_size={kernel} spans"):
            shapes.conv_shape(n, kernel, **arguments)


@given(sizes, kernels, strides, dilations)
def test_same_padding_is_the_least_that_gives_every_stride_an_output(n, kernel, stride, dilation):
    ((left, right),) = shapes.normalize_padding("same", kernel, dilation, stride, n)
    wanted = len(range(0, n, stride))
    assert 0 <= right - left <= 1
    assert count_outputs(n, kernel, stride, (left, right), dilation) == wanted
    if right:
        assert count_outputs(n, kernel, stride, (left, right - 1), dilation) < wanted
    assert shapes.conv_shape(n, kernel, stride=stride, padding="same", dilation=dilation) == (wanted,)


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (2, ((2, 2), (2, 2))),
        (np.int32(2), ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        ((0, (3, 4)), ((0, 0), (3, 4))),
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 1), (4, 4))),
    ],
)
def test_every_form_of_padding(padding, pairs):
    assert shapes.normalize_padding(padding, (3, 5), (1, 2), 1, (20, 20)) == pairs


@pytest.mark.parametrize(
    ("padding", "error", "message"),
    [
        ("full", ValueError, "padding must be 'same', 'valid' or given in samples, but got 'full'"),
        ((1, 2, 3), ValueError, r"padding .* 2 spatial axes, but got \(1, 2, 3\)"),
        (-1, ValueError, "padding on axis 0 must be at least 0, but got .*-1"),
        ((1, (0, -3)), ValueError, r"padding on axis 1 must be at least 0, but got \(0, -3\)"),
        (((1, 2, 3), 1), ValueError, "padding on axis 0"),
        (1.5, TypeError, "padding on axis 0 .* 1.5"),
        (True, TypeError, "padding on axis 0 .* True"),
        (None, TypeError, "padding on axis 0 .* None"),
        (1.0, TypeError, r"padding on axis 0 must be an int or a \(left, right\) pair .*'same' or 'valid', got 1.0"),
        (((1, 1.5), 1), TypeError, r"padding on axis 0 must be an int or a \(left, right\) pair .* got 1.5"),
        (((1, 1), ((1, 1), 2)), TypeError, r"padding on axis 1 must be an int or a \(left, right\) pair"),
        (((1, 2, 3), 1), ValueError, r"a \(left, right\) pair .* but got \(1, 2, 3\) with 3 items"),
    ],
)
def test_bad_padding(padding, error, message):
    with pytest.raises(error, match=message):
        shapes.conv_shape((20, 20), 3, padding=padding)


@pytest.mark.parametrize("padding", ["same", "valid", 1])
@pytest.mark.parametrize("name", ["kernel_size", "dilation", "stride"])
def test_normalize_padding_checks_what_it_may_not_need(padding, name):
    sizes = {"kernel_size": 3, "dilation": 1, "stride": 1, "input_size": (9, 9)}
    with pytest.raises(TypeError, match=f"{name} must be an int"):
        shapes.normalize_padding(padding, **{**sizes, name: "bogus"})
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        shapes.normalize_padding(padding, **{**sizes, name: 0})


def test_one_pair_on_one_axis_must_be_nested():
    with pytest.raises(ValueError, match=r"\(\(left, right\),\)"):
        shapes.conv_shape(20, 3, padding=(1, 2))
    assert shapes.conv_shape(20, 3, padding=((1, 2),)) == (21,)


def test_axes_are_independent():
    result = shapes.conv_shape((20, 30, 40), (1, 3, 5), stride=(1, 2, 3), padding=(0, 1, (2, 3)), dilation=(1, 2, 4))
    alone = [
        shapes.conv_shape(20, 1),
        shapes.conv_shape(30, 3, stride=2, padding=1, dilation=2),
        shapes.conv_shape(40, 5, stride=3, padding=((2, 3),), dilation=4),
    ]
    assert result == tuple(itertools.chain(*alone))


def test_too_wide_a_kernel_names_axis_rule_and_remedy():
    message = "dilation=8 with kernel_size=3 spans 17 samples, but axis 2 has 12; lower dilation or use padding='same'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        shapes.conv_shape((32, 40, 12), 3, dilation=8)
    with pytest.raises(ValueError, match=r"axis 1 has 3 \(5 with padding\); lower kernel_size"):
        shapes.conv_shape((32, 3), 7, padding=(4, 1))


@pytest.mark.parametrize("name", ["input_size", "kernel_size", "stride", "dilation"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_conv_shape_names_the_bad_argument(name, value, error):
    arguments = {"input_size": 9, "kernel_size": 3, "stride": 1, "dilation": 1, "padding": 0} | {name: value}
    with pytest.raises(error, match=name):
        shapes.conv_shape(**arguments)


# --- inverse and transposed ---


@given(st.integers(1, 8), kernels, strides, st.one_of(st.just("same"), st.tuples(pads)), dilations)
def test_conv_input_sizes_are_all_and_only_the_sizes_that_give_the_output(out, kernel, stride, padding, dilation):
    arguments = {"stride": stride, "padding": padding, "dilation": dilation}

    def gives(n):
        ((left, right),) = shapes.normalize_padding(padding, kernel, dilation, stride, n)
        return count_outputs(n, kernel, stride, (left, right), dilation) == out

    expected = [n for n in range(1, 100) if gives(n)]
    (found,) = shapes.conv_input_sizes(out, kernel, **arguments)
    assert list(found) == expected


@given(sizes, kernels, strides, pads, dilations, st.integers(0, 6))
def test_conv_transpose_shape_holds_exactly_the_scattered_samples(n, kernel, stride, pad, dilation, extra):
    touched = [i * stride + tap * dilation for i in range(n) for tap in range(kernel)]
    expected = max(touched) + 1 - sum(pad) + extra
    arguments = {"stride": stride, "padding": (pad,), "dilation": dilation, "output_padding": extra}
    if extra >= max(stride, dilation):
        with pytest.raises(ValueError, match=f"output_padding .* but got {extra}"):
            shapes.conv_transpose_shape(n, kernel, **arguments)
    elif expected < 1:
        with pytest.raises(ValueError, match="lower padding"):
            shapes.conv_transpose_shape(n, kernel, **arguments)
    else:
        assert shapes.conv_transpose_shape(n, kernel, **arguments) == (expected,)


@given(sizes, kernels, strides, pads, dilations)
def test_output_padding_restores_the_size_that_the_convolution_had(n, kernel, stride, pad, dilation):
    if not count_outputs(n, kernel, stride, pad, dilation):
        n += (kernel - 1) * dilation
    arguments = {"stride": stride, "padding": (pad,), "dilation": dilation}
    small = shapes.conv_shape(n, kernel, **arguments)
    extra = shapes.output_padding_for(small, n, kernel, **arguments)
    assert shapes.conv_transpose_shape(small, kernel, output_padding=extra, **arguments) == (n,)


@given(sizes, kernels, strides, dilations)
def test_transposed_same_multiplies_by_the_stride_and_undoes_same(n, kernel, stride, dilation):
    arguments = {"stride": stride, "padding": "same", "dilation": dilation}
    assert shapes.conv_transpose_shape(n, kernel, **arguments) == (n * stride,)
    assert shapes.conv_shape(n * stride, kernel, **arguments) == (n,)
    assert shapes.output_padding_for(n, n * stride, kernel, **arguments) == (0,)
    # The pads that the docstring promises lead to the same size through the explicit formula.
    pads_of_output = shapes.normalize_padding("same", kernel, dilation, stride, n * stride)
    assert n * stride in shapes.conv_input_sizes(n, kernel, stride=stride, padding=pads_of_output, dilation=dilation)[0]


def test_same_refuses_output_padding():
    with pytest.raises(ValueError, match=r"output_padding .* 0 with padding='same'"):
        shapes.conv_transpose_shape(4, 3, stride=2, padding="same", output_padding=1)


def test_output_padding_for_says_which_sizes_can_be_had():
    with pytest.raises(
        ValueError, match=r"output_size must be from 11 to 12 on axis 1 .* of \(5, 5\) samples .* got 13"
    ):
        shapes.output_padding_for((5, 5), (12, 13), 3, stride=2)
    with pytest.raises(ValueError, match="padding=3 leaves -5 samples on axis 0 of the transposed convolution; lower"):
        shapes.output_padding_for(1, 1, 1, padding=3)


# --- stacks of layers ---


def inputs_seen(layers, output):
    """Input positions that reach `output`, followed back layer by layer; taps start at 0."""
    seen = {output}
    for layer in reversed(layers):
        seen = {o * layer.stride + tap * layer.dilation for o in seen for tap in range(layer.kernel_size)}
    return seen


@given(layer_lists)
def test_receptive_field_and_jump_against_traced_taps(layers):
    first, second = inputs_seen(layers, 0), inputs_seen(layers, 1)
    assert shapes.receptive_field(layers) == max(first) - min(first) + 1
    assert shapes.jump(layers) == min(second) - min(first)


@given(layer_lists)
def test_halo_against_traced_centred_taps(layers):
    seen = {0}
    for layer in reversed(layers):
        centre = ((layer.kernel_size - 1) * layer.dilation) // 2
        seen = {o * layer.stride + tap * layer.dilation - centre for o in seen for tap in range(layer.kernel_size)}
    assert shapes.halo(layers) == (-min(seen), max(seen))
    assert shapes.receptive_field(layers) == max(seen) - min(seen) + 1


@given(kernels, dilations)
def test_halo_of_one_layer_is_same_padding(kernel, dilation):
    assert (shapes.halo([Layer(kernel, dilation=dilation)]),) == shapes.normalize_padding(
        "same", kernel, dilation, 1, 100
    )


def test_layers_per_axis_and_as_plain_tuples():
    layers = [(3,), Layer((3, 5), 2, (1, 2)), (2, (1, 3), 1)]
    by_axis = [[Layer(3), Layer(3, 2, 1), Layer(2, 1, 1)], [Layer(3), Layer(5, 2, 2), Layer(2, 3, 1)]]
    assert shapes.receptive_field(layers) == tuple(shapes.receptive_field(axis) for axis in by_axis)
    assert shapes.jump(layers) == tuple(shapes.jump(axis) for axis in by_axis) == (2, 6)
    assert shapes.halo(layers) == tuple(shapes.halo(axis) for axis in by_axis)
    assert shapes.receptive_field(layer for layer in layers) == shapes.receptive_field(layers)


def test_an_empty_stack_is_the_identity():
    assert (shapes.receptive_field([]), shapes.jump([]), shapes.halo([])) == (1, 1, (0, 0))


@pytest.mark.parametrize("function", [shapes.receptive_field, shapes.jump, shapes.halo])
def test_bad_layers(function):
    with pytest.raises(TypeError, match=r"layers must be a sequence of Layer, but got 3; one layer is \[3\]"):
        function(3)
    with pytest.raises(TypeError, match=r"layers\[0\] must be a Layer .* but got 3"):
        function(Layer(3))
    with pytest.raises(TypeError, match=r"layers\[1\] must be a Layer .* \(3, 1, 1, 1\)"):
        function([Layer(3), (3, 1, 1, 1)])
    with pytest.raises(ValueError, match=r"layers\[1\]\.dilation must be at least 1, but got 0"):
        function([Layer(3), Layer(3, 1, 0)])
    with pytest.raises(ValueError, match=r"layers\[0\]\.kernel_size .* \(3, 3\)"):
        function([Layer((3, 3)), Layer((3, 3, 3))])


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 3), st.booleans())
def test_cascade_halo_against_traced_smoothing(n_levels, reach, radius, last_level):
    support, farthest = {0}, 0
    for level in range(n_levels):
        features = {position + offset * 2**level for position in support for offset in (-reach, 0, reach)}
        farthest = max(farthest, *features)
        support = {position + offset * 2**level for position in support for offset in range(-radius, radius + 1)}
    if last_level:
        farthest = max(farthest, *support)
    assert shapes.cascade_halo(n_levels, reach, radius, last_level=last_level) == farthest


@pytest.mark.parametrize(("arguments", "name"), [((0, 1), "n_levels"), ((3, -1), "reach"), ((3, 1, -1), "radius")])
def test_cascade_halo_names_the_bad_argument(arguments, name):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        shapes.cascade_halo(*arguments)


def test_n_parameters_counts_an_actual_weight_array():
    assert shapes.n_parameters(6, 8, (3, 5), groups=2, bias=True) == np.zeros((8, 3, 5, 6 // 2)).size + 8
    assert shapes.n_parameters(4, 4, 7, groups=4) == math.prod((4, 7, 1))


def test_counts_are_single_ints():
    with pytest.raises(TypeError, match=r"groups must be an int \(no bool, no float\), got \[1\]"):
        shapes.n_parameters(4, 4, 3, groups=[1])
    with pytest.raises(TypeError, match=r"n_levels must be an int \(no bool, no float\), got 2.0"):
        shapes.cascade_halo(2.0, 1)
    with pytest.raises(TypeError, match="last_level must be True or False, got 'no'"):
        shapes.cascade_halo(2, 1, last_level="no")
    with pytest.raises(TypeError, match="bias must be True or False, got 'no'"):
        shapes.n_parameters(4, 4, 3, bias="no")


@pytest.mark.parametrize(
    ("channels", "message"), [((3, 4), "in_channels=3 and groups=2"), ((4, 3), "out_channels=3 and groups=2")]
)
def test_n_parameters_needs_channels_divisible_by_groups(channels, message):
    with pytest.raises(ValueError, match=message):
        shapes.n_parameters(*channels, 3, groups=2)


# --- against PyTorch ---


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_convolution_sizes_and_parameters_agree_with_torch(ndim):
    torch = pytest.importorskip("torch")
    layers = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
    size = (13, 16, 19)[:ndim]
    for kernel, stride, padding, dilation in itertools.product((1, 2, 3), (1, 2, 3), (0, 2), (1, 2, 4)):
        layer = layers[ndim](2, 4, kernel, stride=stride, padding=padding, dilation=dilation, groups=2)
        expected = tuple(layer(torch.zeros(1, 2, *size)).shape[2:])
        assert shapes.conv_shape(size, kernel, stride=stride, padding=padding, dilation=dilation) == expected
        n_parameters = sum(parameter.numel() for parameter in layer.parameters())
        assert shapes.n_parameters(2, 4, (kernel,) * ndim, groups=2, bias=True) == n_parameters


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_transposed_sizes_agree_with_torch(ndim):
    torch = pytest.importorskip("torch")
    layers = {1: torch.nn.ConvTranspose1d, 2: torch.nn.ConvTranspose2d, 3: torch.nn.ConvTranspose3d}
    size = (4, 5, 6)[:ndim]
    for kernel, stride, dilation, extra in itertools.product((2, 3), (1, 3), (1, 2), (0, 1, 2, 3)):
        arguments = {"stride": stride, "padding": 1, "output_padding": extra, "dilation": dilation}
        layer = layers[ndim](1, 1, kernel, **arguments)
        try:
            expected = tuple(layer(torch.zeros(1, 1, *size)).shape[2:])
        except RuntimeError:
            with pytest.raises(ValueError, match="output_padding"):
                shapes.conv_transpose_shape(size, kernel, **arguments)
        else:
            assert shapes.conv_transpose_shape(size, kernel, **arguments) == expected


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("kernel", "dilation"), [(2, 1), (2, 3), (3, 2), (4, 1), (4, 3), (5, 2)])
def test_same_padding_agrees_with_torch_sample_by_sample(kernel, dilation):
    torch = pytest.importorskip("torch")
    x = torch.arange(1.0, 13.0).reshape(1, 1, -1) ** 2
    weight = torch.arange(1.0, kernel + 1.0).reshape(1, 1, -1)
    (pair,) = shapes.normalize_padding("same", kernel, dilation, 1, 12)
    ours = torch.nn.functional.conv1d(torch.nn.functional.pad(x, pair), weight, dilation=dilation)
    theirs = torch.nn.functional.conv1d(x, weight, padding="same", dilation=dilation)
    assert torch.equal(ours, theirs)
