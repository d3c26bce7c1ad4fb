"""The operators ConvTranspose and Col2Im of ONNX, read as calls of dconv, against ONNX's own reference evaluator.

ONNX has channels first and calls the kernel's axes its own way: W of ConvTranspose is (channels of X, channels of Y /
groups, *kernel), which is conv_transpose's weight with its last axis moved; Col2Im has (batch, channels * kernel,
windows).
"""

import numpy as np
import pytest

import dconv
from dconv import shapes

onnx = pytest.importorskip("onnx", reason="ONNX is not installed (pip install dconv[peers])")


def evaluate(operator, inputs, **attributes):
    """Return the output of one operator, computed by ONNX's reference implementation."""
    from onnx.reference import ReferenceEvaluator

    names = [f"input{index}" for index in range(len(inputs))]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, inputs, strict=True)
    ]
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node(operator, names, ["out"], **attributes)
    graph = onnx.helper.make_graph([node], "one", values, [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    return ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0]


def integers(*shape):
    return np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)


def explicit_pads(size, kernel, *, strides, dilations, pads=None, auto_pad="NOTSET", output_shape=None,
                  output_padding=None):  # fmt: skip
    """Return one pair of pads per axis, as the text of the operator derives them."""
    ndim = len(size)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and output_shape is None:
        output_shape = [n * s for n, s in zip(size, strides, strict=True)]
    if output_shape is None:
        return list(zip(pads[:ndim], pads[ndim:], strict=True)) if pads else [(0, 0)] * ndim
    extra = output_padding or [0] * ndim
    spans = shapes.span(kernel, dilations)
    pairs = []
    for n, s, more, span, wanted in zip(size, strides, extra, spans, output_shape, strict=True):
        total = s * (n - 1) + more + span - wanted
        pairs.append((total // 2, total - total // 2) if auto_pad == "SAME_UPPER" else (total - total // 2, total // 2))
    return pairs


def read_conv_transpose(x, weight, *, strides, dilations, output_padding=None, **attributes):
    """Return what the text of the operator says, in terms of dconv."""
    options = {"strides": strides, "dilations": dilations, "output_padding": output_padding}
    y = dconv.conv_transpose(
        np.moveaxis(x, 1, -1), np.moveaxis(weight, 1, -1), stride=strides, dilation=dilations,
        padding=explicit_pads(x.shape[2:], weight.shape[2:], **options, **attributes),
        output_padding=output_padding or 0,
    )  # fmt: skip
    return np.moveaxis(y, -1, 1)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": (1, 2)},
        {"pads": (1, 0), "output_padding": 1},
        {"auto_pad": "VALID"},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"output_shape": None},
        {"output_shape": None, "auto_pad": "SAME_UPPER"},
    ],
)
@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (3, 2), (2, 3)])
def test_conv_transpose(ndim, attributes, stride, dilation):
    kernel = (3, 2, 4)[:ndim]
    size = (4, 3, 3)[:ndim]
    spans = shapes.span(kernel, dilation)
    attributes = dict(attributes)
    if "pads" in attributes:
        first, last = attributes["pads"]
        attributes["pads"] = [first] * ndim + [last] * ndim
    if "output_padding" in attributes:
        attributes["output_padding"] = [attributes["output_padding"]] * ndim
    if "output_shape" in attributes:  # one and two pixels less than the whole
        attributes["output_shape"] = [
            (n - 1) * stride + span - 1 - axis % 2 for axis, (n, span) in enumerate(zip(size, spans, strict=True))
        ]
    auto = attributes.get("auto_pad", "")
    if auto.startswith("SAME") and min(spans) < stride:
        pytest.skip("here the padding would be negative")
    x, weight = integers(2, 3, *size), integers(3, 4, *kernel)
    options = {"strides": [stride] * ndim, "dilations": [dilation] * ndim, **attributes}
    theirs = dict(options)
    if "output_shape" in theirs:  # the evaluator does not derive the pads from it
        pads = explicit_pads(size, kernel, **options)
        theirs = {name: options[name] for name in ("strides", "dilations")}
        theirs["pads"] = [*(first for first, _ in pads), *(last for _, last in pads)]
    expected = evaluate("ConvTranspose", [x, weight], **theirs)
    if "output_shape" in attributes:
        assert expected.shape[2:] == tuple(attributes["output_shape"])
    np.testing.assert_array_equal(read_conv_transpose(x, weight, **options), expected)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "dilation", "pads"), [(1, 1, (0, 0)), (2, 1, (1, 1)), (1, 2, (1, 2)), (3, 2, (0, 1))]
)
def test_col2im(ndim, stride, dilation, pads):
    size, kernel, channels = (9, 8, 7)[:ndim], (2, 3, 2)[:ndim], 2
    options = {"stride": stride, "dilation": dilation, "padding": (pads,) * ndim}
    windows = shapes.conv_shape(size, kernel, **options)
    columns = integers(2, *windows, *kernel, channels)
    batch, flat = len(columns), int(np.prod(windows))
    axes = (0, 2 * ndim + 1, *range(1 + ndim, 1 + 2 * ndim), *range(1, 1 + ndim))  # batch, channels, kernel, windows
    theirs = evaluate(
        "Col2Im",
        [columns.transpose(axes).reshape(batch, -1, flat), np.array(size), np.array(kernel)],
        strides=[stride] * ndim, dilations=[dilation] * ndim, pads=[*[pads[0]] * ndim, *[pads[1]] * ndim],
    )  # fmt: skip
    np.testing.assert_array_equal(np.moveaxis(dconv.fold(columns, size, **options), -1, 1), theirs)


def test_the_example_of_the_specification():
    """ConvTranspose of the numbers 0 to 8 with ones, as printed in the operator's documentation."""
    x = np.arange(9.0).reshape(1, 3, 3, 1)
    expected = [[0, 1, 3, 3, 2], [3, 8, 15, 12, 7], [9, 21, 36, 27, 15], [9, 20, 33, 24, 13], [6, 13, 21, 15, 8]]
    y = dconv.conv_transpose(x, np.ones((1, 3, 3, 2)))
    for channel in range(2):
        np.testing.assert_array_equal(y[0, ..., channel], expected)
