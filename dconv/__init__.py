"""dconv: dilated convolutions for scikit-learn. The public names, nothing else."""

from dconv import filters, metrics, shapes
from dconv._threads import show_config
from dconv.features import AtrousFeatures
from dconv.functional import conv, conv_transpose
from dconv.segmentation import PixelClassifier
from dconv.transformers import DilatedConv

__version__ = "0.1.0"

__all__ = [
    "AtrousFeatures",
    "DilatedConv",
    "PixelClassifier",
    "conv",
    "conv_transpose",
    "filters",
    "metrics",
    "shapes",
    "show_config",
]
