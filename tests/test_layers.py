"""Layers and what reads them: bad weights, PyTorch, ONNX, files of Keras; nets are compared with whoever wrote them."""

import copy
import re

import numpy as np
import pytest

from dconv import AtrousBackbone, layers

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(45, 38, 3)).astype(np.float32)


def last_map(net, image=IMAGE, **parameters):
    """Return what the net itself gives, strided as it is."""
    model = AtrousBackbone(net, output_stride=64, channel_axis=-1, **parameters).fit(image)
    return model.maps(image)[model.taps_[-1]]


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


# --- layers ---


def test_layers_never_change():
    source = np.ones((4, 3, 3, 2))
    layer = layers.Convolution(source)
    source[...] = 0
    assert layer.weight.min() == 1
    assert copy.deepcopy([layer])[0] is layer
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[...] = 2
    with pytest.raises(AttributeError):
        layer.stride = 2


def test_weights_that_cannot_be_used():
    with pytest.raises(ValueError, match="weight must have shape"):
        layers.Convolution(np.ones((3, 3)))
    with pytest.raises(ValueError, match="weight holds values that are NaN, infinite or beyond float32"):
        layers.Convolution(np.full((1, 3, 3, 1), 1e300))
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\), one value per filter, got \(3,\)"):
        layers.Convolution(np.ones((4, 3, 3, 1)), np.zeros(3))
    with pytest.raises(TypeError, match="weight must hold real numbers"):
        layers.Convolution(np.ones((4, 3, 3, 1), complex))
    with pytest.raises(ValueError, match="groups=3 must divide the 4 filters"):
        layers.Convolution(np.ones((4, 3, 3, 1)), groups=3)
    with pytest.raises(ValueError, match=r"padding=\(3, 3\) on axis 0 must be less than the 3 samples"):
        layers.Convolution(np.ones((4, 3, 3, 1)), padding=3)
    with pytest.raises(ValueError, match='padding="same" with stride'):
        layers.Convolution(np.ones((4, 3, 3, 1)), padding="same", stride=2)
    with pytest.raises(TypeError, match="name must be None or a str"):
        layers.ReLU(3)
    with pytest.raises(ValueError, match="kernel_size must be at least 1"):
        layers.MaxPool(0)
    with pytest.raises(ValueError, match="must be less than the 2 samples that a window spans"):
        layers.AveragePool(2, padding=2)
    with pytest.raises(TypeError, match="count_padding must be a bool"):
        layers.AveragePool(2, count_padding="no")


def test_batch_norm_that_cannot_be_folded():
    layer = layers.Convolution(np.ones((2, 1, 1, 1)))
    with pytest.raises(ValueError, match=r"mean must have shape \(2,\)"):
        layers.fold_batch_norm(layer, [0], [1, 1])
    with pytest.raises(ValueError, match=r"variance \+ epsilon must be positive, got -0.99"):
        layers.fold_batch_norm(layer, [0, 0], [1, -1], epsilon=0.01)
    for epsilon in ("x", np.nan, np.inf, None):
        with pytest.raises(TypeError, match="epsilon must be a finite number"):
            layers.fold_batch_norm(layer, [0, 0], [1, 1], epsilon=epsilon)
    with pytest.raises(TypeError, match="convolution must be a Convolution, got ReLU"):
        layers.fold_batch_norm(layers.ReLU(), [0], [1])


# --- arrays and files of Keras ---


def test_layouts_are_the_same_net():
    weight, bias = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), RNG.normal(size=4)
    expected = last_map([layers.Convolution(weight, bias, padding=1), layers.ReLU()])
    for layout, array in {
        "dconv": weight,
        "torch": np.moveaxis(weight, -1, 1),
        "keras": np.moveaxis(weight, 0, -1),
    }.items():
        np.testing.assert_array_equal(last_map(layers.from_arrays([(array, bias)], layout=layout)), expected)


def test_arrays_that_cannot_be_used():
    with pytest.raises(TypeError, match=r"items\[1\] must be a pair of weight and bias"):
        layers.from_arrays([layers.ReLU(), "pool"])
    with pytest.raises(ValueError, match=r"items\[0\]: bias must have shape \(4,\)"):
        layers.from_arrays([(np.ones((4, 3, 3, 1)), np.zeros(3))])
    with pytest.raises(ValueError, match="layout must be one of 'dconv', 'torch', 'keras', got 'OIHW'"):
        layers.from_arrays([], layout="OIHW")
    with pytest.raises(TypeError, match="items must be a sequence"):
        layers.from_arrays("conv")
    with pytest.raises(TypeError, match="relu must be True or False, got 'no'"):
        layers.from_arrays([], relu="no")


def test_keras_files_of_both_kinds(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed (pip install dconv[stores])")
    kernel, bias = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        file["block1/layers/conv2d/vars/0"], file["block1/layers/conv2d/vars/1"] = kernel, bias
        file["old/conv/bias:0"], file["old/conv/kernel:0"] = bias, kernel
        file["block1/vars/none"] = np.zeros(0)
        file["norm/vars/0"], file["norm/vars/1"], file["norm/vars/2"] = bias, bias, bias
    expected = last_map([layers.Convolution(np.moveaxis(kernel, -1, 0), bias, padding=1), layers.ReLU()])
    for name in ("block1/layers/conv2d", "old/conv"):
        net = layers.from_keras_h5(tmp_path / "net.weights.h5", [name])
        assert [each.name for each in net] == [name, f"{name}_relu"]
        np.testing.assert_array_equal(last_map(net), expected)
    with pytest.raises(
        ValueError, match="no weights in 'conv1'; there are some in block1/layers/conv2d, norm, old/conv"
    ):
        layers.from_keras_h5(tmp_path / "net.weights.h5", ["conv1"])
    with pytest.raises(ValueError, match="'norm' holds 3 arrays"):
        layers.from_keras_h5(tmp_path / "net.weights.h5", ["norm"])
    with pytest.raises(OSError, match=re.escape("nothing.h5")):
        layers.from_keras_h5(tmp_path / "nothing.h5", ["norm"])


# --- PyTorch ---


def torch_net(nn):
    """Return a net with all that can be read, with statistics that do something."""
    net = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1, groups=4, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.Dropout(),
        ),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(12, 12, 3, padding="same", dilation=2, groups=12),
        nn.Identity(),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(2, 1, ceil_mode=True),
        nn.Conv2d(12, 5, 1),
    )
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return net.eval()


def test_torch_modules_are_the_same_net():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install dconv[peers])")
    torch.manual_seed(0)
    net = torch_net(torch.nn)
    for size in [(45, 38), (64, 64), (46, 51)]:
        image = RNG.normal(size=(*size, 3)).astype(np.float32)
        with torch.inference_mode():
            expected = net(torch.from_numpy(image).permute(2, 0, 1)[np.newaxis])[0].permute(1, 2, 0).numpy()
        assert_close(last_map(layers.from_torch(net), image), expected)
    names = [layer.name for layer in layers.from_torch(net)]
    assert names == ["0", "1", "2", "3", "4.0", "4.2", "5", "6", "8", "9", "10"]


def test_torch_modules_in_other_ranks():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install dconv[peers])")
    nn = torch.nn
    for ndim, conv, pool, norm in (
        (1, nn.Conv1d, nn.MaxPool1d, nn.BatchNorm1d),
        (3, nn.Conv3d, nn.MaxPool3d, nn.BatchNorm3d),
    ):
        net = nn.Sequential(norm(2), conv(2, 4, 3, padding=1), norm(4), nn.ReLU(), pool(2), conv(4, 3, 3)).eval()
        image = RNG.normal(size=(*(21, 17, 14)[:ndim], 2)).astype(np.float32)
        with torch.inference_mode():
            expected = np.moveaxis(
                net(torch.from_numpy(np.moveaxis(image, -1, 0)[np.newaxis].copy()))[0].numpy(), 0, -1
            )
        assert_close(last_map(layers.from_torch(net), image, ndim=ndim), expected)


def test_torch_modules_that_cannot_be_read():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install dconv[peers])")
    nn = torch.nn
    with pytest.raises(TypeError, match=r"module '1\.0' is a Linear"):
        layers.from_torch(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(3, 3))))
    with pytest.raises(ValueError, match="padding_mode='reflect'"):
        layers.from_torch(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match=r"ceil_mode with kernel_size=.*depends on the size"):
        layers.from_torch(nn.MaxPool2d(2, 3, ceil_mode=True))
    with pytest.raises(ValueError, match="no running statistics"):
        layers.from_torch(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)))
    with pytest.raises(ValueError, match="divisor_override=3"):
        layers.from_torch(nn.AvgPool2d(2, divisor_override=3))
    with pytest.raises(ValueError, match="ceil_mode and counts its padding"):
        layers.from_torch(nn.AvgPool2d(3, 2, 1, ceil_mode=True))
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got list"):
        layers.from_torch([])


# --- ONNX ---


def write_onnx(path, nodes, weights):
    """Write a graph of nodes (operator, inputs, output, attributes) from "image" on."""
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed (pip install dconv[onnx])")
    helper = onnx.helper
    made = [helper.make_node(kind, inputs, [output], name, **options) for kind, inputs, output, name, options in nodes]
    ends = [
        helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, None),
        helper.make_tensor_value_info(nodes[-1][2], onnx.TensorProto.FLOAT, None),
    ]
    tensors = [onnx.numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(made, "net", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)


WEIGHTS = {
    "w1": RNG.normal(size=(8, 3, 3, 3)),
    "b1": RNG.normal(size=8),
    "w2": RNG.normal(size=(6, 4, 3, 3)),
    "scale": RNG.normal(size=6),
    "shift": RNG.normal(size=6),
    "mean": RNG.normal(size=6),
    "var": RNG.uniform(0.5, 2, size=6),
}
CHAIN = [
    ("Conv", ["image", "w1", "b1"], "a", "conv1", {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
    ("Relu", ["a"], "b", "", {}),
    ("MaxPool", ["b"], "c", "pool1", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("Conv", ["c", "w2"], "d", "conv2", {"group": 2, "dilations": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("BatchNormalization", ["d", "scale", "shift", "mean", "var"], "e", "norm", {"epsilon": 0.01}),
    ("Identity", ["e"], "f", "same", {}),
    ("AveragePool", ["f"], "g", "pool2", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
    ("Relu", ["g"], "h", "relu2", {}),
]


def test_onnx_graphs_are_the_same_net(tmp_path):
    path = tmp_path / "net.onnx"
    write_onnx(path, CHAIN, WEIGHTS)
    from onnx.reference import ReferenceEvaluator

    net = layers.from_onnx(path)
    assert [layer.name for layer in net] == ["conv1", "b", "pool1", "conv2", "pool2", "relu2"]
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"image": np.moveaxis(IMAGE, -1, 0)[np.newaxis]})
    assert_close(last_map(net), np.moveaxis(expected[0], 0, -1))
    assert len(layers.from_onnx(path, until="c")) == len(layers.from_onnx(path, until="pool1")) == 3


def test_onnx_graphs_that_cannot_be_read(tmp_path):
    path = tmp_path / "net.onnx"

    def refused(match, *nodes, until=None):
        write_onnx(path, [*CHAIN[:2], *nodes], WEIGHTS)
        with pytest.raises(ValueError, match=match):
            layers.from_onnx(path, until=until)

    refused(r"node 'flat' is a Flatten, but only Conv, .* until= names", ("Flatten", ["b"], "c", "flat", {}))
    refused(r"node 'add' is a Add", ("Add", ["a", "b"], "c", "add", {}))
    refused("reads a, but a chain is needed", ("Relu", ["a"], "c", "again", {}))
    refused("auto_pad='SAME_LOWER'", ("Conv", ["b", "w2"], "c", "", {"group": 2, "auto_pad": "SAME_LOWER"}))
    refused("training_mode=1", ("BatchNormalization", ["b", *["b1"] * 4], "c", "", {"training_mode": 1}))
    refused("until='fc' is neither a node", until="fc")
    with pytest.raises(FileNotFoundError):
        layers.from_onnx(tmp_path / "nothing.onnx")
