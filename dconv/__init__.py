"""dconv: dilated convolutions for scikit-learn. The public names, nothing else."""

from dconv import filters, metrics, predictors, shapes
from dconv._threads import show_config
from dconv.context import ContextClassifier
from dconv.crf import DenseCRF
from dconv.detection import ObjectDetector
from dconv.features import AtrousFeatures
from dconv.functional import conv, conv_transpose
from dconv.matrix import conv_matrix
from dconv.objects import find_objects
from dconv.scaling import SoftClipScaler
from dconv.segmentation import PixelClassifier
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
    "ObjectDetector",
    "PixelClassifier",
    "SoftClipScaler",
    "TransposedConv",
    "conv",
    "conv_matrix",
    "conv_transpose",
    "default_classifier",
    "filters",
    "find_objects",
    "fold",
    "metrics",
    "overlap_count",
    "predictors",
    "shapes",
    "show_config",
    "unfold",
    "upsample",
]
