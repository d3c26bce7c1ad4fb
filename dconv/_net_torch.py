"""Layers from a module of PyTorch. Public as part of :mod:`dconv.layers`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dconv._net_folding import ceil_pads, fold_batch_norm, identity
from dconv._net_layers import AveragePool, Convolution, MaxPool, NetLayer, ReLU


def from_torch(module: Any) -> list[NetLayer]:
    """Return the layers of a sequential module of PyTorch, as it is evaluated.

    Parameters
    ----------
    module : torch.nn.Module
        A ``Sequential`` of convolutions, ReLU, batch normalization, maximum and average pooling, and further
        ``Sequential``; dropout and ``Identity`` do nothing. Or one such layer. Other modules run code of their own in
        ``forward``, of which nothing can be told: pass their sequential part, as ``vgg.features``.

    Returns
    -------
    layers : list of layers
        Named as in ``module.named_modules()``. Batch normalization is folded into the convolution before it, which
        keeps its name, or becomes a depthwise one.

    Raises
    ------
    ImportError
        If PyTorch is not there.
    TypeError
        If the module holds one of another kind, which is named.
    ValueError
        If a layer has options that there are not here (the message says which).

    Examples
    --------
    >>> from importlib.util import find_spec
    >>> from dconv import layers
    >>> if find_spec("torch"):
    ...     from torch import nn
    ...     net = layers.from_torch(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()))
    ... else:
    ...     net = layers.from_arrays([(np.ones((8, 3, 3, 3)), None, "0")])
    >>> net[0]
    Convolution('0', 3 -> 8 channels, kernel 3x3)
    """
    try:
        from torch import nn
    except ImportError:
        raise ImportError("from_torch reads modules of PyTorch; install it with: pip install torch") from None
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    layers: list[NetLayer] = []
    for name, part in _in_order(nn, module, ""):
        name = name or type(part).__name__.lower()
        if isinstance(part, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.Identity):
            continue
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            layers.append(_convolution(part, name))
        elif isinstance(part, nn.ReLU):
            layers.append(ReLU(name))
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            _add_batch_norm(nn, layers, part, name)
        elif isinstance(part, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
            layers.append(_max_pool(nn, part, name))
        elif isinstance(part, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d):
            layers.append(_average_pool(nn, part, name))
        else:
            raise TypeError(
                f"module {name!r} is a {type(part).__name__}, but only Sequential, convolutions, ReLU, batch "
                "normalization, pooling and dropout can be read; pass the part of the net that is made of these"
            )
    return layers


def _in_order(nn: Any, module: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the layers of nested sequences, with their full names."""
    if not isinstance(module, nn.Sequential):
        yield name, module
        return
    for key, part in module.named_children():
        yield from _in_order(nn, part, f"{name}.{key}" if name else key)


def _array(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach().to("cpu").float().numpy()


def _convolution(part: Any, name: str) -> Convolution:
    if part.padding_mode != "zeros":
        raise ValueError(f"module {name!r} has padding_mode={part.padding_mode!r}; only 'zeros' can be read")
    weight = np.moveaxis(_array(part.weight), 1, -1)
    return Convolution(weight, _array(part.bias), part.stride, part.padding, part.dilation, part.groups, name)


def _add_batch_norm(nn: Any, layers: list[NetLayer], part: Any, name: str) -> None:
    """Add a normalization to layers: to the last, if it is a convolution."""
    if part.running_mean is None:
        raise ValueError(f"module {name!r} has no running statistics, and so normalizes by those of each batch")
    ndim = 1 if isinstance(part, nn.BatchNorm1d) else 2 if isinstance(part, nn.BatchNorm2d) else 3
    last = layers.pop() if layers and isinstance(layers[-1], Convolution) else identity(part.num_features, ndim, name)
    assert isinstance(last, Convolution)
    statistics = (part.running_mean, part.running_var, part.weight, part.bias)
    mean, variance, scale, shift = map(_array, statistics)
    layers.append(fold_batch_norm(last, mean, variance, scale, shift, epsilon=part.eps))


def _max_pool(nn: Any, part: Any, name: str) -> MaxPool:
    ndim = 1 if isinstance(part, nn.MaxPool1d) else 2 if isinstance(part, nn.MaxPool2d) else 3
    kernel, stride, padding, dilation = (
        _per_axis(each, ndim) for each in (part.kernel_size, part.stride, part.padding, part.dilation)
    )
    pads = ceil_pads(kernel, stride, tuple((pad, pad) for pad in padding), part.ceil_mode, f"module {name!r}")
    return MaxPool(kernel, stride, pads, dilation, name)


def _average_pool(nn: Any, part: Any, name: str) -> AveragePool:
    ndim = 1 if isinstance(part, nn.AvgPool1d) else 2 if isinstance(part, nn.AvgPool2d) else 3
    kernel, stride, padding = (_per_axis(each, ndim) for each in (part.kernel_size, part.stride, part.padding))
    if getattr(part, "divisor_override", None) is not None:
        raise ValueError(f"module {name!r} has divisor_override={part.divisor_override}, which cannot be read")
    counted = bool(part.count_include_pad) and any(padding)
    if part.ceil_mode and counted:
        raise ValueError(f"module {name!r} has ceil_mode and counts its padding; only one of the two can be read")
    pads = ceil_pads(kernel, stride, tuple((pad, pad) for pad in padding), part.ceil_mode, f"module {name!r}")
    return AveragePool(kernel, stride, pads, counted, name)


def _per_axis(value: Any, ndim: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * ndim
