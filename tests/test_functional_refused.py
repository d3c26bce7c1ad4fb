"""What conv and conv_transpose refuse: messages name the argument, the rule and the value, before any work is done."""

import re

import numpy as np
import pytest

import dconv

X, W = np.zeros((1, 9, 11, 4), np.float32), np.zeros((6, 3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"x": X[0]},
            ValueError,
            r"x must have shape \(batch, \*spatial, channels\) with 2 .* got \(9, 11, 4\); .*None",
        ),
        ({"x": X[None]}, ValueError, r"x must have shape .* got \(1, 1, 9, 11, 4\)"),
        ({"weight": W[0, 0]}, ValueError, r"weight must have shape .* got \(3, 4\)"),
        ({"weight": W[:, None, None]}, ValueError, r"weight must have shape .* 1 to 3 kernel axes, got \(6, 1, 1, 3"),
        ({"weight": W[:0]}, ValueError, r"weight has shape \(0, 3, 3, 4\): no axis may be empty"),
        ({"weight": W[:, :0]}, ValueError, r"weight has shape \(6, 0, 3, 4\)"),
        ({"x": X[:, :0]}, ValueError, r"x has shape \(1, 0, 11, 4\): only the batch axis may be empty"),
        ({"x": X[..., :3]}, ValueError, "weight takes 4 .* x must have 4 channels .* but it has 3"),
        ({"weight": W[..., :3]}, ValueError, "weight takes 3 .* x must have 3 channels .* but it has 4"),
        ({"groups": 2}, ValueError, "groups=2, so x must have 8 channels .* it has 4"),
        ({"weight": W[..., :1], "groups": 4}, ValueError, "groups=4 must divide the 6 filters"),
        ({"groups": 0}, ValueError, "groups must be at least 1, but got 0"),
        ({"groups": 1.0}, TypeError, "groups must be an int .* 1.0"),
        ({"groups": [1]}, TypeError, r"groups must be an int .* \[1\]"),
        ({"dilation": 5}, ValueError, "dilation=5 with kernel_size=3 spans 11 samples, but axis 0 has 9; lower"),
        ({"dilation": 6, "padding": ((2, 1), 0)}, ValueError, r"dilation=6 .* spans 13 .* axis 0 has 9 \(12 with pad"),
        ({"dilation": 10**30}, ValueError, "dilation=10{30} with kernel_size=3"),
        ({"dilation": 0}, ValueError, "dilation must be at least 1, but got .*0"),
        ({"stride": 0}, ValueError, "stride must be at least 1, but got .*0"),
        ({"stride": (1, -2)}, ValueError, r"stride must be at least 1, but got \(1, -2\)"),
        ({"stride": (1, 2, 3)}, ValueError, r"stride .* 2 spatial axes, but got \(1, 2, 3\) with 3"),
        ({"stride": "2"}, TypeError, "stride must be an int .* '2'"),
        ({"stride": None}, TypeError, "stride must be an int .* None"),
        ({"padding": -1}, ValueError, r"padding on axis 0 must be at least 0, but got \(-1, -1\)"),
        ({"padding": "SAME"}, ValueError, "padding must be 'same', 'valid' or given in samples, but got 'SAME'"),
        ({"padding": (1, 2, 3)}, ValueError, r"padding .* 2 spatial axes, but got \(1, 2, 3\) with 3"),
        ({"padding": ((1, 2, 3), 0)}, ValueError, r"padding on axis 0 .* \(1, 2, 3\)"),
        ({"padding": None}, TypeError, "padding must be an int .* None"),
        ({"padding_mode": "mirror"}, ValueError, "padding_mode must be one of 'zeros', .*'circular', got 'mirror'"),
        ({"padding_mode": None}, ValueError, "padding_mode must be one of .* got None"),
        ({"padding_mode": ["zeros"]}, ValueError, r"padding_mode must be one of .* got \['zeros'\]"),
        ({"bias": np.zeros(4)}, ValueError, r"bias must have shape \(6,\), one value per filter of weight, got \(4,\)"),
        ({"bias": 1.0}, ValueError, r"bias must have shape \(6,\).* got \(\)"),
        ({"x": X.astype(complex)}, TypeError, "x must hold real numbers, got dtype complex128; .*two channels"),
        ({"weight": W.astype(object)}, TypeError, "weight must hold real numbers, got dtype object"),
        ({"bias": ["a"] * 6}, TypeError, "bias must hold real numbers, got dtype <U1"),
        ({"x": None}, TypeError, "x must hold real numbers, got None"),
        ({"weight": None}, TypeError, "weight must hold real numbers, got None"),
        ({"x": X.astype("M8[s]")}, TypeError, r"x must hold real numbers, got dtype datetime64\[s\]"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1, got 0"),
        ({"n_threads": -1}, ValueError, "n_threads must be at least 1, got -1"),
        ({"n_threads": 1.5}, TypeError, "n_threads must be None or an int, got 1.5"),
        ({"n_threads": True}, TypeError, "n_threads must be None or an int, got True"),
    ],
)
def test_refused(changes, error, message):
    out = np.full((1, 7, 9, 6), 5, np.float32)
    with pytest.raises(error, match=message):
        dconv.conv(**{"x": X, "weight": W, "out": out, **changes})
    assert np.all(out == 5)  # before any work


@pytest.mark.parametrize("name", ["stride", "dilation", "groups"])
@pytest.mark.parametrize("value", [1.0, True, np.True_])
def test_what_equals_an_int_is_no_int_even_after_the_int_was_seen(name, value):
    dconv.conv(X, W, **{name: 1})
    with pytest.raises(TypeError, match=f"{name} must be an int .*{value}"):
        dconv.conv(X, W, **{name: value})
    if name != "groups":
        with pytest.raises(TypeError, match=f"{name} must be an int .*{value}"):
            dconv.conv(X, W, **{name: (value, 1)})


# --- out ---

SHAPE = (2, 7, 10, 5)
READ_ONLY = np.empty(SHAPE, np.float32)
READ_ONLY.flags.writeable = False
SHARED = np.zeros(2000, np.float32)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([1.0], TypeError, "out must be a numpy array, got list"),
        (np.empty((2, 7, 9, 5), np.float32), ValueError, r"out must have shape (2, 7, 10, 5) .* got (2, 7, 9, 5)"),
        (np.empty(SHAPE), ValueError, "out must have .* dtype float32, got .* float64"),
        (np.empty(SHAPE, ">f4"), ValueError, "out must have .* dtype float32, got .* >f4"),
        (np.empty(SHAPE, np.float32, order="F"), ValueError, "out must be C-contiguous"),
        (np.empty((2, 7, 10, 10), np.float32)[..., ::2], ValueError, "out must be C-contiguous"),
        (np.frombuffer(bytearray(2801), np.float32, 700, 1).reshape(SHAPE), ValueError, "out must be .* aligned"),
        (READ_ONLY, ValueError, "out must be .* writeable"),
    ],
)
def test_out_that_cannot_hold_the_result(out, error, message):
    with pytest.raises(error, match=re.sub(r"[()]", r"\\\g<0>", message)):
        dconv.conv(np.zeros((2, 9, 11, 3), np.float32), np.zeros((5, 3, 2, 3), np.float32), out=out)


@pytest.mark.parametrize("argument", ["x", "weight", "bias"])
def test_out_overlapping_an_input(argument):
    shapes = {"x": (2, 9, 11, 3), "weight": (5, 3, 2, 3), "bias": (5,)}
    inputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    size = inputs[argument].size
    inputs[argument] = SHARED[600 : 600 + size].reshape(inputs[argument].shape)
    with pytest.raises(ValueError, match=f"out must not overlap {argument} in memory"):
        dconv.conv(**inputs, out=SHARED[:700].reshape(SHAPE))


# --- conv_transpose: what it shares with conv is tested above ---

Y = np.zeros((1, 9, 11, 6), np.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"y": Y[0]}, ValueError, r"y must have shape \(batch, \*spatial, out_channels\) .*y\[None, \.\.\., None\]"),
        ({"y": Y[:, :0]}, ValueError, r"y has shape \(1, 0, 11, 6\): only the batch axis may be empty"),
        ({"y": Y[..., :4]}, ValueError, "y must have one channel for each of the 6 filters .* but it has 4"),
        ({"groups": 4}, ValueError, "groups=4 must divide the 6 filters"),
        ({"stride": 2, "output_padding": 2}, ValueError, r"output_padding must be less than max\(stride, dilation\)"),
        ({"output_padding": -1}, ValueError, "output_padding must be at least 0"),
        ({"output_padding": 1.0}, TypeError, "output_padding must be an int .* 1.0"),
        ({"padding": 7}, ValueError, "padding=7 leaves -3 samples on axis 0 .*; lower padding"),
        ({"stride": 2, "output_size": 24}, ValueError, r"output_size must be from 19 to 20 on axis 0 .* got 24"),
        ({"stride": 2, "output_size": (19, 23, 1)}, ValueError, "output_size .* 2 spatial axes"),
        ({"output_size": 11, "output_padding": 1}, ValueError, "output_size or output_padding, not both"),
        (
            {"padding": "same", "stride": 2, "output_size": 16},
            ValueError,
            "output_size must be from 17 to 18 on axis",
        ),
        ({"padding": "same", "output_padding": 1}, ValueError, "output_padding must be .* 0 with padding='same'"),
        ({"bias": np.zeros(6)}, ValueError, r"bias must have shape \(4,\), one value per channel of the result"),
        ({"padding_mode": "mirror"}, ValueError, "padding_mode must be one of"),
        ({"y": Y.astype(complex)}, TypeError, "y must hold real numbers"),
        ({"y": None}, TypeError, "y must hold real numbers, got None"),
        ({"out": np.zeros((1, 11, 13, 6), np.float32)}, ValueError, r"out must have shape \(1, 11, 13, 4\)"),
    ],
    ids=str,
)
def test_transpose_refused(changes, error, message):
    with pytest.raises(error, match=message):
        dconv.conv_transpose(**{"y": Y, "weight": W, **changes})


@pytest.mark.parametrize("argument", ["y", "weight", "bias"])
def test_transpose_out_overlapping_an_input(argument):
    shapes = {"y": (2, 7, 10, 5), "weight": (5, 3, 2, 3), "bias": (3,)}
    inputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    size = inputs[argument].size
    inputs[argument] = SHARED[500 : 500 + size].reshape(inputs[argument].shape)
    with pytest.raises(ValueError, match=f"out must not overlap {argument} in memory"):
        dconv.conv_transpose(**inputs, out=SHARED[: 2 * 9 * 11 * 3].reshape(2, 9, 11, 3))
