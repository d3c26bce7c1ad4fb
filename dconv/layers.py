"""Layers of trained nets for :class:`dconv.AtrousBackbone`, and what reads them from files and other libraries.

A layer holds its weights, channels last as everywhere here, and never changes; a net is a list of layers.
"""

from dconv._net_arrays import from_arrays, from_keras_h5
from dconv._net_folding import fold_batch_norm
from dconv._net_layers import AveragePool, Convolution, MaxPool, ReLU
from dconv._net_onnx import from_onnx
from dconv._net_torch import from_torch

__all__ = [
    "AveragePool",
    "Convolution",
    "MaxPool",
    "ReLU",
    "fold_batch_norm",
    "from_arrays",
    "from_keras_h5",
    "from_onnx",
    "from_torch",
]
