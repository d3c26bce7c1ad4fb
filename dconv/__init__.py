"""dconv: dilated convolutions for scikit-learn. The public names, nothing else."""

from dconv import distributed, filters, layers, metrics, predictors, shapes
from dconv._threads import show_config
from dconv.backbone import AtrousBackbone
from dconv.combined import FeatureImageUnion, make_features
from dconv.context import ContextClassifier
from dconv.context_features import AtrousContext
from dconv.crf import DenseCRF
from dconv.custom import CustomFeatures
from dconv.detection import ObjectDetector
from dconv.discriminant import RegularizedDiscriminantAnalysis
from dconv.features import AtrousFeatures
from dconv.functional import conv, conv_transpose
from dconv.importance import group_importance, select_features
from dconv.matrix import conv_matrix
from dconv.objects import find_objects
from dconv.perceptron import PerceptronClassifier
from dconv.persistence import load, save
from dconv.position import PixelPosition
from dconv.pyramid import AtrousPyramid
from dconv.rocket import MiniRocket
from dconv.scaling import SoftClipScaler
from dconv.segmentation import PixelClassifier
from dconv.text import CharEncoder
from dconv.tiling import predict_blocks
from dconv.transformers import DilatedConv
from dconv.transposed import TransposedConv
from dconv.unfolding import fold, overlap_count, unfold
from dconv.upsampling import upsample
from dconv.voting import AdaptiveVote, default_classifier

__version__ = "0.1.0"

__all__ = [
    "AdaptiveVote",
    "AtrousBackbone",
    "AtrousContext",
    "AtrousFeatures",
    "AtrousPyramid",
    "CharEncoder",
    "ContextClassifier",
    "CustomFeatures",
    "DenseCRF",
    "DilatedConv",
    "FeatureImageUnion",
    "MiniRocket",
    "ObjectDetector",
    "PerceptronClassifier",
    "PixelClassifier",
    "PixelPosition",
    "RegularizedDiscriminantAnalysis",
    "SoftClipScaler",
    "TransposedConv",
    "conv",
    "conv_matrix",
    "conv_transpose",
    "default_classifier",
    "distributed",
    "filters",
    "find_objects",
    "fold",
    "group_importance",
    "layers",
    "load",
    "make_features",
    "metrics",
    "overlap_count",
    "predict_blocks",
    "predictors",
    "save",
    "select_features",
    "shapes",
    "show_config",
    "unfold",
    "upsample",
]
