"""Layers from plain arrays of weights. Public as part of :mod:`dconv.layers`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from dconv._axes import check_bool
from dconv._net_layers import AveragePool, Convolution, MaxPool, NetLayer, ReLU
from dconv._validation import as_array

_LAYOUTS = ("dconv", "torch", "keras")


def from_arrays(items: Sequence[Any], *, layout: str = "dconv", relu: bool = True) -> list[NetLayer]:
    """Return the layers of a net whose convolutions are given by their weights.

    Parameters
    ----------
    items : sequence
        From the input on: pairs of a weight and a bias, which may be None, or triples with a name, and layers such as
        :class:`MaxPool`. A weight is a convolution without stride that keeps the size ("same"); others are given as
        :class:`Convolution`.
    layout : {"dconv", "torch", "keras"}, default="dconv"
        The axes of weights: (filters, \\*kernel, channels), (filters, channels, \\*kernel) or
        (\\*kernel, channels, filters).
    relu : bool, default=True
        Whether a :class:`ReLU` follows every weight, named like it with "_relu".

    Returns
    -------
    layers : list of layers

    Raises
    ------
    TypeError, ValueError
        If an item is something else, or weights cannot be used; the message tells its place.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import layers
    >>> layers.from_arrays([(np.ones((3, 3, 1, 8)), np.zeros(8), "conv1"), layers.MaxPool(2)], layout="keras")
    [Convolution('conv1', 1 -> 8 channels, kernel 3x3), ReLU('conv1_relu'), MaxPool(kernel 2, stride 2)]
    """
    if not isinstance(layout, str) or layout not in _LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(map(repr, _LAYOUTS))}, got {layout!r}")
    check_bool(relu, "relu")
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise TypeError(f"items must be a sequence of pairs of weight and bias, and of layers, got {items!r:.60}")
    layers: list[NetLayer] = []
    for index, item in enumerate(items):
        if isinstance(item, Convolution | ReLU | MaxPool | AveragePool):
            layers.append(item)
            continue
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise TypeError(
                f"items[{index}] must be a pair of weight and bias, a triple with a name, or a layer, got "
                f"{type(item).__name__}"
            )
        weight, bias, name = (*item, None)[:3]
        layers += convolution_of(weight, bias, name, layout, relu, f"items[{index}]")
    return layers


def convolution_of(weight: Any, bias: Any, name: str | None, layout: str, relu: bool, place: str) -> list[NetLayer]:
    """Return a convolution that keeps the size, and a ReLU if wanted; `place` is what a message calls it."""
    array = as_array(weight, f"{place}: weight")
    if array.ndim not in (3, 4, 5):
        raise ValueError(f"{place}: weight must have filters, channels and 1 to 3 kernel axes, got {array.shape}")
    if layout == "torch":
        array = np.moveaxis(array, 1, -1)
    elif layout == "keras":
        array = np.moveaxis(array, -1, 0)
    try:
        layer = Convolution(array, bias, padding="same", name=name)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from error
    return [layer, ReLU(None if name is None else f"{name}_relu")] if relu else [layer]


def from_keras_h5(path: str | os.PathLike, items: Sequence[Any], *, relu: bool = True) -> list[NetLayer]:
    """Return the layers of a net whose weights lie in a file of Keras (``.weights.h5``).

    Such files hold weights and no net, so the order is to be said.

    Parameters
    ----------
    path : str or path-like
        The file.
    items : sequence of str or layer
        From the input on: names of groups of the file that hold the kernel and the bias of a convolution, as in
        ``"block1/layers/conv2d"``, which becomes a :class:`Convolution` of this name that keeps the size, and layers
        such as :class:`MaxPool`.
    relu : bool, default=True
        Whether a :class:`ReLU` follows every convolution of the file, named like it with "_relu".

    Returns
    -------
    layers : list of layers

    Raises
    ------
    ImportError
        If h5py, which the extra ``dconv[stores]`` installs, is not there.
    OSError
        If the file cannot be read.
    TypeError, ValueError
        If a group is not there (the message says which are) or holds no kernel, or an item is something else.

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> import numpy as np
    >>> from dconv import layers
    >>> with tempfile.NamedTemporaryFile(suffix=".weights.h5") as file:
    ...     with h5py.File(file.name, "w") as weights:
    ...         weights["conv/vars/0"], weights["conv/vars/1"] = np.ones((3, 3, 1, 8)), np.zeros(8)
    ...     layers.from_keras_h5(file.name, ["conv", layers.MaxPool(2)], relu=False)
    [Convolution('conv', 1 -> 8 channels, kernel 3x3), MaxPool(kernel 2, stride 2)]
    """
    try:
        import h5py
    except ImportError:
        raise ImportError('files of Keras are read by h5py; install it with: pip install "dconv[stores]"') from None
    check_bool(relu, "relu")
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise TypeError(f"items must be a sequence of names of groups and of layers, got {items!r:.60}")
    layers: list[NetLayer] = []
    with h5py.File(path, "r") as file:
        groups = _groups_with_kernels(file)
        for index, item in enumerate(items):
            if isinstance(item, NetLayer):
                layers.append(item)
                continue
            if not isinstance(item, str):
                raise TypeError(f"items[{index}] must be the name of a group or a layer, got {item!r:.60}")
            name = item.strip("/")
            if name not in groups:
                raise ValueError(f"{path} has no weights in {item!r}; there are some in {', '.join(sorted(groups))}")
            arrays = groups[name]
            if len(arrays) > 2:
                raise ValueError(f"{path}: {item!r} holds {len(arrays)} arrays, but a convolution has one or two")
            kernel, bias = np.asarray(file[arrays[0]]), np.asarray(file[arrays[1]]) if len(arrays) > 1 else None
            layers += convolution_of(kernel, bias, name, "keras", relu, f"{path}: {item!r}")
    return layers


def _groups_with_kernels(file: Any) -> dict[str, list[str]]:
    """Return the paths of the arrays of every group: ``<group>/vars/0``, ``1``, or ``kernel:0``, ``bias:0`` beside."""
    found: dict[str, list[str]] = {}

    def visit(path: str, thing: Any) -> None:
        if not hasattr(thing, "shape") or math.prod(thing.shape) == 0:
            return
        group, _, leaf = path.rpartition("/")
        group = group.removesuffix("/vars") if leaf.isdecimal() else group
        found.setdefault(group, []).append(path)

    file.visititems(visit)
    # The kernel comes first: "0" before "1", "kernel" before "bias".
    return {
        group: sorted(paths, key=lambda path: (path.rpartition("/")[2].startswith("bias"), path))
        for group, paths in found.items()
    }
