"""dconv: dilated convolutions for scikit-learn. The public names, nothing else."""

from dconv import distributed, filters, metrics, predictors, shapes
from dconv._threads import show_config
from dconv.context import ContextClassifier
from dconv.crf import DenseCRF
from dconv.features import AtrousFeatures
from dconv.functional import conv, conv_transpose
from dconv.matrix import conv_matrix
from dconv.persistence import load, save
from dconv.scaling import SoftClipScaler
from dconv.segmentation import PixelClassifier
from dconv.tiling import predict_blocks
from dconv.transformers import DilatedConv
from dconv.transposed import TransposedConv
from dconv.unfolding import fold, overlap_count, unfold
from dconv.upsampling import upsample
from dconv.voting import AdaptiveVote, default_classifier

__version__ = "0.1.0"

__all__ = [
    "AdaptiveVote",
    "AtrousFeatures",
    "ContextClassifier",
    "DenseCRF",
    "DilatedConv",
    "PixelClassifier",
    "SoftClipScaler",
    "TransposedConv",
    "conv",
    "conv_matrix",
    "conv_transpose",
    "default_classifier",
    "distributed",
    "filters",
    "fold",
    "load",
    "metrics",
    "overlap_count",
    "predict_blocks",
    "predictors",
    "save",
    "shapes",
    "show_config",
    "unfold",
    "upsample",
]
