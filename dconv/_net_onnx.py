"""Layers from a graph of ONNX. Public as part of :mod:`dconv.layers`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dconv._net_folding import ceil_pads, fold_batch_norm, identity
from dconv._net_layers import AveragePool, Convolution, MaxPool, NetLayer, ReLU
from dconv._receptive import Margin

_PASSED = ("Dropout", "Identity")  # which do nothing when a net is evaluated
_KNOWN = ("Conv", "Relu", "BatchNormalization", "MaxPool", "AveragePool", *_PASSED)


def from_onnx(path: str | os.PathLike, *, until: str | None = None) -> list[NetLayer]:
    """Return the layers of a sequential net in a file of ONNX.

    Parameters
    ----------
    path : str or path-like
        The file. Its graph is a chain of Conv, Relu, BatchNormalization, MaxPool and AveragePool, as those of VGG and
        AlexNet are; Dropout and Identity do nothing.
    until : str or None, default=None
        Name of the last node to read, or of its output, where the graph goes on with others, such as Flatten and Gemm.

    Returns
    -------
    layers : list of layers
        Named like the nodes, or their outputs where nodes have no names. Batch normalization is folded into the
        convolution before it, which keeps its name, or becomes a depthwise one.

    Raises
    ------
    ImportError
        If onnx, which the extra ``dconv[onnx]`` installs, is not there.
    OSError
        If the file cannot be read.
    ValueError
        If the graph is no chain or has another node, which is named; if a node has options that there are not here; if
        `until` is unknown.

    Examples
    --------
    >>> from importlib.util import find_spec
    >>> import tempfile
    >>> import numpy as np
    >>> from dconv import layers
    >>> net = layers.from_arrays([(np.ones((8, 3, 3, 3)), None, "conv1")])
    >>> if find_spec("onnx"):
    ...     import onnx
    ...     from onnx import helper, numpy_helper
    ...     weight = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "weight")
    ...     node = helper.make_node("Conv", ["image", "weight"], ["map"], "conv1", pads=[1, 1, 1, 1])
    ...     ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("image", "map")]
    ...     model = helper.make_model(helper.make_graph([node], "net", ends[:1], ends[1:], [weight]))
    ...     with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
    ...         onnx.save(model, file.name)
    ...         net = layers.from_onnx(file.name)
    >>> net[0]
    Convolution('conv1', 3 -> 8 channels, kernel 3x3)
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise ImportError('from_onnx reads graphs by onnx; install it with: pip install "dconv[onnx]"') from None
    graph = onnx.load(os.fspath(path)).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ValueError(f"{path}: the graph must have one input, the image, but it has {len(inputs)}: {inputs}")
    layers: list[NetLayer] = []
    current = inputs[0]
    for node in graph.node:
        name = node.name or (node.output[0] if node.output else "")
        if node.op_type == "Constant":
            weights[node.output[0]] = _constant(node, numpy_helper)
            continue
        if node.op_type not in _KNOWN:
            raise ValueError(
                f"{path}: node {name!r} is a {node.op_type}, but only {', '.join(_KNOWN)} can be read; until= names "
                "the last node to read"
            )
        if node.input[0] != current or any(each not in weights for each in node.input[1:] if each):
            raise ValueError(
                f"{path}: node {name!r} ({node.op_type}) reads {', '.join(node.input)}, but a chain is needed, in "
                f"which it reads what the node before it gives, {current!r}, and weights of the file"
            )
        given = [weights[each] if each else None for each in node.input[1:]]
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        _add(layers, node.op_type, given, attributes, name, f"{path}: node {name!r}")
        current = node.output[0]
        if until in (name, current) and until is not None:
            return layers
    if until is not None:
        raise ValueError(f"until={until!r} is neither a node of {path} nor an output of one")
    return layers


def _constant(node: Any, numpy_helper: Any) -> np.ndarray:
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
    raise ValueError(f"node {node.name or node.output[0]!r} is a Constant that holds no tensor")


def _add(
    layers: list[NetLayer], kind: str, given: list[Any], attributes: dict[str, Any], name: str, place: str
) -> None:
    """Add what a node does to `layers`; `given` are its weights."""
    if kind in _PASSED:
        return
    if kind == "Relu":
        layers.append(ReLU(name))
    elif kind == "BatchNormalization":
        if attributes.get("training_mode", 0):
            raise ValueError(f"{place} normalizes by the statistics of each batch (training_mode=1)")
        scale, shift, mean, variance = given
        # How many axes it has, the layer before it tells; one in front of all is taken for one of images.
        ndim = next((each.weight.ndim - 2 for each in layers if isinstance(each, Convolution)), 2)
        last = layers.pop() if layers and isinstance(layers[-1], Convolution) else identity(len(scale), ndim, name)
        assert isinstance(last, Convolution)
        layers.append(fold_batch_norm(last, mean, variance, scale, shift, epsilon=attributes.get("epsilon", 1e-5)))
    elif kind == "Conv":
        weight = np.moveaxis(given[0], 1, -1)
        kernel = weight.shape[1:-1]
        stride, dilation = _sizes(attributes, "strides", kernel), _sizes(attributes, "dilations", kernel)
        pads = _pads(attributes, kernel, stride, place)
        bias = given[1] if len(given) > 1 else None
        layers.append(Convolution(weight, bias, stride, pads, dilation, attributes.get("group", 1), name))
    else:
        layers.append(_pool(kind, attributes, name, place))


def _pool(kind: str, attributes: dict[str, Any], name: str, place: str) -> NetLayer:
    kernel = tuple(attributes["kernel_shape"])
    stride, dilation = _sizes(attributes, "strides", kernel), _sizes(attributes, "dilations", kernel)
    given = _pads(attributes, kernel, stride, place)
    if isinstance(given, str):  # of windows that do not stride
        given = tuple(((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel)
    pads = ceil_pads(kernel, stride, given, bool(attributes.get("ceil_mode", 0)), place)
    if kind == "MaxPool":
        return MaxPool(kernel, stride, pads, dilation, name)
    if set(dilation) != {1}:
        raise ValueError(f"{place} averages with dilations={dilation}, which cannot be read")
    counted = bool(attributes.get("count_include_pad", 0)) and any(map(any, given))
    if counted and attributes.get("ceil_mode", 0):
        raise ValueError(f"{place} has ceil_mode and counts its padding; only one of the two can be read")
    return AveragePool(kernel, stride, pads, counted, name)


def _sizes(attributes: dict[str, Any], key: str, kernel: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(attributes.get(key, (1,) * len(kernel)))


def _pads(attributes: dict[str, Any], kernel: tuple[int, ...], stride: tuple[int, ...], place: str) -> Any:
    """Return the padding of a node: pairs, or "same" of one that does not stride."""
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto == "VALID":
        return ((0, 0),) * len(kernel)
    if auto == "SAME_UPPER" and set(stride) == {1}:
        return "same"
    if auto != "NOTSET":
        raise ValueError(f"{place} has auto_pad={auto!r} with strides={stride}, which depends on the size of the image")
    pads = tuple(attributes.get("pads", (0,) * (2 * len(kernel))))
    return _pairs(pads)


def _pairs(pads: tuple[int, ...]) -> Margin:
    """Return pairs of what ONNX lists as all before, then all after."""
    return tuple(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))
