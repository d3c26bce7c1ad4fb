"""Every public function from eight threads at once, on shared inputs and estimators, equals itself run alone.

`CALLS` has an entry for each public name; a name without one fails a test, so nothing new goes unchecked.
"""

import functools
import inspect
import re
import sys
import tempfile
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
from images import TREES, make_image, scribble
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import dconv
from dconv import _threads, filters, layers, metrics, predictors, shapes

N_THREADS = 8
N_CALLS = 64  # of what is fast; what takes longer meets others at more places in one call, and is called less often
LEAST_CALLS = 2 * N_THREADS
SECONDS = 1.0  # that the calls would take one after another

IMAGE, LABELS = make_image((44, 52))
SCRIBBLES = scribble(LABELS)
PIXELS = IMAGE[..., np.newaxis]
X = np.random.default_rng(0).normal(size=(2, 60, 70, 8)).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=(16, 3, 3, 8)).astype(np.float32)
COLUMNS = dconv.unfold(X, 3, padding=1)
PROBABILITIES = np.random.default_rng(2).dirichlet(np.ones(3), size=IMAGE.shape).astype(np.float32)
TWO_PROBABILITIES = PROBABILITIES[..., :2] + PROBABILITIES[..., 2:] / 2
for array in (IMAGE, LABELS, SCRIBBLES, X, WEIGHT, COLUMNS, PROBABILITIES, TWO_PROBABILITIES):
    array.flags.writeable = False

BANK = dconv.DilatedConv(filters.derivatives(1), dilation=(1, 2, 4))
FEATURES = dconv.AtrousFeatures(3)
POSITION = dconv.PixelPosition()
CUSTOM = dconv.CustomFeatures(np.negative)
UNION = dconv.make_features(FEATURES, POSITION)
NET = [layers.Convolution(WEIGHT[..., :1], padding=1), layers.MaxPool(2), layers.AveragePool(3, 1, 1), layers.ReLU()]
BACKBONE = dconv.AtrousBackbone(NET, output_stride=1, taps=[0, -1])
PYRAMID = dconv.AtrousPyramid(BANK, dilations=(3, 9), n_components=3, random_state=0)
CONTEXT = dconv.AtrousContext(BANK, classifier=GaussianNB())
ENLARGE = dconv.TransposedConv(filters.bilinear_upsampling(2))
CRF = dconv.DenseCRF(n_iter=3)
MODEL = dconv.PixelClassifier(BANK, TREES)
MODEL_OF_ONE = dconv.PixelClassifier(dconv.AtrousFeatures(1, groups=["level", "std"]), TREES, max_samples=50)
STUDENT = dconv.PixelClassifier(BANK, TREES, distill="auto", random_state=0)
LINEAR = dconv.PixelClassifier(BANK, LogisticRegression())  # has a decision_function
CASCADE = dconv.ContextClassifier(BANK, LogisticRegression(max_iter=1000), n_jobs=2)
DETECTOR = dconv.ObjectDetector(dconv.PixelClassifier(BANK, TREES), as_frame=False)
INSTANCES = np.where(np.indices(IMAGE.shape)[0] % 11 < 8, 1 + np.indices(IMAGE.shape)[0] // 11, 0)
TILE = X[0].reshape(-1, 8)
TILE_LABELS, TILE_GROUPS = TILE[:, 0] > 0, np.arange(len(TILE)) % 5
VOTE = dconv.AdaptiveVote(TREES, LogisticRegression(), random_state=0)
PERCEPTRON = dconv.PerceptronClassifier((4,), max_iter=2, random_state=0)
DISCRIMINANT = dconv.RegularizedDiscriminantAnalysis()
SCALER = dconv.SoftClipScaler()
SERIES = X[0, ..., 0]
ROCKET = dconv.MiniRocket(500, random_state=0)
LOGISTIC = LogisticRegression().fit(TILE, TILE_LABELS)
SCORER = predictors.compile_scorer(LOGISTIC)
PREDICTOR = predictors.compile_predictor(LOGISTIC)
LAYERS = [shapes.Layer(3, dilation=2), shapes.Layer((3, 5), stride=2)]


def distributed_fit():
    """Return what a model answers that was fitted to dask arrays."""
    with dask.config.set(scheduler="sync"):
        model = dconv.PixelClassifier(BANK, GaussianNB())
        return dconv.distributed.fit(model, da.from_array(IMAGE, chunks=24), SCRIBBLES).predict_proba(IMAGE)


@functools.cache
def fitted(estimator):
    """Return the one fitted estimator that all threads share."""
    if isinstance(estimator, dconv.DenseCRF):
        return estimator.prepare(IMAGE)
    if estimator is ROCKET:
        return estimator.fit(SERIES)
    if estimator in (VOTE, SCALER, PERCEPTRON, DISCRIMINANT):
        return estimator.fit(TILE, TILE_LABELS)
    labels = SCRIBBLES if isinstance(estimator, dconv.PixelClassifier | dconv.AtrousContext) else None
    labels = INSTANCES if isinstance(estimator, dconv.ObjectDetector) else labels
    return estimator.fit(IMAGE, labels)


def probabilities(predictor):
    out = np.empty((len(TILE), 2), np.float32)
    predictor.predict_proba(TILE, out)
    return out


def new_detector():
    return dconv.ObjectDetector(dconv.PixelClassifier(BANK, TREES), as_frame=False, n_jobs=2)


def find_objects(**options):
    return dconv.find_objects(PROBABILITIES, background=1, min_size=3, as_frame=False, **options)


class Printed:
    """Stands for sys.stdout and keeps what each thread prints to itself."""

    def __init__(self):
        self.of_thread = threading.local()

    def write(self, text):
        self.of_thread.text = getattr(self.of_thread, "text", "") + text

    def take(self):
        text, self.of_thread.text = self.of_thread.text, ""
        return text


def show_config():
    dconv.show_config()
    return np.array(sys.stdout.take())


def conv(n_threads=None, **options):
    return dconv.conv(X, WEIGHT, padding="same", dilation=3, padding_mode="reflect", n_threads=n_threads, **options)


def conv_into():
    out = np.empty((*X.shape[:-1], len(WEIGHT)), np.float32)
    return conv(out=out) if threading.get_ident() % 2 else conv(n_threads=2, out=out)


def saved():
    """Return what comes back from a file."""
    with tempfile.TemporaryDirectory() as folder:
        dconv.save(fitted(LINEAR), f"{folder}/model.dconv")
        return dconv.load(f"{folder}/model.dconv").predict_proba(IMAGE)


def from_keras():
    """Return the layers in a file of Keras."""
    with tempfile.TemporaryDirectory() as folder:
        with h5py.File(f"{folder}/net.weights.h5", "w") as file:
            file["conv/vars/0"] = np.moveaxis(WEIGHT, 0, -1)
        return str(layers.from_keras_h5(f"{folder}/net.weights.h5", ["conv"]))


def refusal(call):
    """Return how a call is refused."""
    try:
        call()
    except Exception as error:
        return type(error).__name__


def fit(make):
    """Return a call that fits an estimator of its own and applies it."""

    def call():
        estimator = make()
        if isinstance(estimator, dconv.PixelClassifier):
            return estimator.fit(IMAGE, SCRIBBLES).predict_proba(IMAGE)
        return estimator.fit(IMAGE).transform(IMAGE)

    return call


def new_vote():
    return dconv.AdaptiveVote(TREES, LogisticRegression(), random_state=0)


def new_perceptron():
    return dconv.PerceptronClassifier((4,), max_iter=2, random_state=0)


def new_model():
    return dconv.PixelClassifier(dconv.AtrousFeatures(2), TREES, max_samples=50, n_jobs=2, random_state=0)


# "name" or "name: what is special", as the call may be made in several ways
CALLS = {
    "conv": conv,
    "conv: two threads each": lambda: conv(n_threads=2),
    "conv: into out": conv_into,
    "conv: depthwise": lambda: dconv.conv(X, WEIGHT[:8, ..., :1], groups=8, padding=2, padding_mode="circular"),
    "conv: few filters, float64": lambda: dconv.conv(X.astype(float), WEIGHT[:2], stride=2, dilation=2),
    "conv_transpose": lambda: dconv.conv_transpose(X, WEIGHT[: X.shape[-1]], stride=2, dilation=3),
    "conv_transpose: two threads each": lambda: dconv.conv_transpose(
        X, WEIGHT[: X.shape[-1]], stride=2, padding=2, padding_mode="reflect", n_threads=2
    ),
    "conv_matrix": lambda: dconv.conv_matrix((9, 8), WEIGHT, padding=2, padding_mode="edge").data,
    "unfold": lambda: dconv.unfold(X, 3, padding="same", dilation=2, padding_mode="symmetric"),
    "unfold: two threads each": lambda: dconv.unfold(X, (3, 2), stride=2, n_threads=2),
    "fold": lambda: dconv.fold(COLUMNS, X.shape[1:-1], padding=1),
    "fold: two threads each": lambda: dconv.fold(COLUMNS, X.shape[1:-1], padding=1, padding_mode="edge", n_threads=2),
    "overlap_count": lambda: dconv.overlap_count((30, 40), 5, stride=2, padding=1),
    "upsample": lambda: dconv.upsample(X, 3),
    "upsample: two threads each": lambda: dconv.upsample(X, (2, 4), method="b3_spline", align="first", n_threads=2),
    "show_config": show_config,
    "AtrousBackbone": fit(lambda: dconv.AtrousBackbone(NET, tile_memory=10**5, n_jobs=2)),
    "AtrousBackbone.fit": lambda: dconv.AtrousBackbone(NET).fit(IMAGE).halo_,
    "AtrousBackbone.transform": lambda: fitted(BACKBONE).transform(IMAGE),
    "AtrousBackbone.maps": lambda: tuple(fitted(BACKBONE).maps(IMAGE).values()),
    "AtrousBackbone.cost": lambda: str(BACKBONE.cost(500)),
    "AtrousBackbone.get_feature_names_out": lambda: fitted(BACKBONE).get_feature_names_out(),
    "AtrousBackbone.set_output": lambda: fitted(BACKBONE).set_output(transform="default").transform(IMAGE),
    "AtrousFeatures": fit(lambda: dconv.AtrousFeatures(2, filters=filters.b3_spline(), n_jobs=2)),
    "AtrousFeatures.fit": lambda: dconv.AtrousFeatures(2).fit(IMAGE).halo_,
    "AtrousFeatures.transform": lambda: fitted(FEATURES).transform(IMAGE),
    "AtrousFeatures.get_feature_names_out": lambda: fitted(FEATURES).get_feature_names_out(),
    "AtrousFeatures.set_output": lambda: fitted(FEATURES).set_output(transform="default").transform(IMAGE),
    "make_features": fit(lambda: dconv.make_features(FEATURES, dconv.PixelPosition())),
    "FeatureImageUnion": fit(lambda: dconv.FeatureImageUnion([("bank", FEATURES), ("filters", BANK)], n_jobs=2)),
    "FeatureImageUnion.fit": lambda: dconv.make_features(FEATURES).fit(IMAGE).halo_,
    "FeatureImageUnion.transform": lambda: fitted(UNION).transform(IMAGE),
    "FeatureImageUnion.get_feature_names_out": lambda: fitted(UNION).get_feature_names_out(),
    "FeatureImageUnion.spacing_": lambda: fitted(UNION).spacing_,
    "FeatureImageUnion.get_params": lambda: sorted(UNION.get_params()),
    "FeatureImageUnion.set_params": lambda: dconv.make_features(FEATURES).set_params(n_jobs=1).n_jobs,
    "FeatureImageUnion.set_output": lambda: fitted(UNION).set_output(transform="default").transform(IMAGE),
    "group_importance": lambda: dconv.group_importance(fitted(MODEL), IMAGE, LABELS, n_repeats=1, random_state=0).mean,
    "select_features": lambda: dconv.select_features(MODEL_OF_ONE, IMAGE, LABELS, cv=2, random_state=0).log_loss,
    "PixelPosition": fit(dconv.PixelPosition),
    "PixelPosition.fit": lambda: dconv.PixelPosition().fit(IMAGE).halo_,
    "PixelPosition.transform": lambda: fitted(POSITION).transform(IMAGE),
    "PixelPosition.get_feature_names_out": lambda: fitted(POSITION).get_feature_names_out(),
    "PixelPosition.set_output": lambda: fitted(POSITION).set_output(transform="default").transform(IMAGE),
    "CustomFeatures": fit(lambda: dconv.CustomFeatures(np.negative, halo=1, n_jobs=2)),
    "CustomFeatures.fit": lambda: dconv.CustomFeatures(np.negative).fit(IMAGE).n_features_out_,
    "CustomFeatures.transform": lambda: fitted(CUSTOM).transform(IMAGE),
    "CustomFeatures.get_feature_names_out": lambda: fitted(CUSTOM).get_feature_names_out(),
    "CustomFeatures.set_output": lambda: fitted(CUSTOM).set_output(transform="default").transform(IMAGE),
    "DenseCRF": lambda: dconv.DenseCRF(n_iter=3, n_jobs=2).refine(IMAGE, PROBABILITIES),
    "DenseCRF.refine": lambda: CRF.refine(IMAGE, PROBABILITIES),
    "DenseCRF.refine_unary": lambda: CRF.refine_unary(IMAGE, PROBABILITIES),
    "DenseCRF.tune": lambda: CRF.tune(IMAGE, TWO_PROBABILITIES, LABELS, param_grid={"color_sigma": [5, 9]}).score,
    "DenseCRF.prepare": lambda: CRF.prepare(IMAGE).refine(PROBABILITIES),
    "DenseCRF.prepare: one for all": lambda: fitted(CRF).refine(PROBABILITIES),
    "AtrousPyramid": fit(lambda: dconv.AtrousPyramid(BANK, random_state=0, n_jobs=2)),
    "AtrousPyramid.fit": lambda: dconv.AtrousPyramid(BANK, projection="lda").fit(IMAGE, SCRIBBLES).halo_,
    "AtrousPyramid.transform": lambda: fitted(PYRAMID).transform(IMAGE),
    "AtrousPyramid.get_feature_names_out": lambda: fitted(PYRAMID).get_feature_names_out(),
    "AtrousPyramid.set_output": lambda: fitted(PYRAMID).set_output(transform="default").transform(IMAGE),
    "AtrousContext": lambda: dconv.AtrousContext(BANK, random_state=0, n_jobs=2).fit(IMAGE, SCRIBBLES).transform(IMAGE),
    "AtrousContext.fit": lambda: dconv.AtrousContext(BANK).fit(IMAGE, SCRIBBLES).halo_,
    "AtrousContext.transform": lambda: fitted(CONTEXT).transform(IMAGE),
    "AtrousContext.get_feature_names_out": lambda: fitted(CONTEXT).get_feature_names_out(),
    "AtrousContext.spacing_": lambda: fitted(CONTEXT).spacing_,
    "AtrousContext.set_output": lambda: fitted(CONTEXT).set_output(transform="default").transform(IMAGE),
    "DilatedConv": fit(lambda: dconv.DilatedConv(filters.gabor(0.2), stride=2, n_jobs=2)),
    "DilatedConv.fit": lambda: dconv.DilatedConv(filters.laplacian(), dilation=3).fit(IMAGE).halo_,
    "DilatedConv.transform": lambda: fitted(BANK).transform(IMAGE),
    "DilatedConv.get_feature_names_out": lambda: fitted(BANK).get_feature_names_out(),
    "DilatedConv.set_output": lambda: fitted(BANK).set_output(transform="default").transform(IMAGE),
    "CharEncoder": lambda: dconv.CharEncoder("hash").fit_transform("dilated"),
    "CharEncoder.fit": lambda: dconv.CharEncoder("one-hot").fit(["dilated", "holes"]).characters_,
    "CharEncoder.transform": lambda: tuple(dconv.CharEncoder(unit="byte").fit("a").transform([b"atrous", "holes"])),
    "CharEncoder.get_feature_names_out": lambda: dconv.CharEncoder().fit("a").get_feature_names_out(),
    "AtrousFeatures: causal": lambda: dconv.AtrousFeatures(2, causal=True, ndim=1).fit_transform(SERIES[0]),
    "MiniRocket": lambda: dconv.MiniRocket(1000, n_jobs=2, random_state=0).fit_transform(SERIES),
    "MiniRocket: channels": lambda: dconv.MiniRocket(500, random_state=0).fit_transform(X[0]),
    "MiniRocket.fit": lambda: dconv.MiniRocket(500, random_state=0).fit(list(SERIES)).biases_,
    "MiniRocket.transform": lambda: fitted(ROCKET).transform(SERIES),
    "MiniRocket.get_feature_names_out": lambda: fitted(ROCKET).get_feature_names_out(),
    "TransposedConv": fit(lambda: dconv.TransposedConv(filters.b3_spline_upsampling(3), stride=3, n_jobs=2)),
    "TransposedConv.fit": lambda: dconv.TransposedConv().fit(IMAGE[::2, ::2], IMAGE).bank_.weight,
    "TransposedConv.transform": lambda: fitted(ENLARGE).transform(IMAGE),
    "TransposedConv.get_feature_names_out": lambda: fitted(ENLARGE).get_feature_names_out(),
    "TransposedConv.set_output": lambda: fitted(ENLARGE).set_output(transform="default").transform(IMAGE),
    "PixelClassifier": fit(new_model),
    "PixelClassifier.fit": lambda: new_model().fit(IMAGE, SCRIBBLES).classes_,
    "PixelClassifier.partial_fit": lambda: (
        dconv.PixelClassifier(BANK, GaussianNB()).partial_fit(IMAGE, SCRIBBLES).predict_proba(IMAGE)
    ),
    "PixelClassifier.predict": lambda: fitted(MODEL).predict(IMAGE),
    "PixelClassifier.predict_proba": lambda: fitted(MODEL).predict_proba(IMAGE),
    "PixelClassifier.predict_entropy": lambda: fitted(MODEL).predict_entropy(IMAGE),
    "PixelClassifier.predict: of a student": lambda: fitted(STUDENT).predict(IMAGE),
    "PixelClassifier.suggest_pixels": lambda: fitted(MODEL).suggest_pixels(IMAGE, 3),
    "PixelClassifier.decision_function": lambda: fitted(LINEAR).decision_function(IMAGE),
    "PixelClassifier.score": lambda: fitted(MODEL).score(IMAGE, LABELS),
    "AdaptiveVote": lambda: new_vote().fit(TILE, TILE_LABELS).predict_proba(TILE),
    "AdaptiveVote.fit": lambda: list(new_vote().fit(TILE, TILE_LABELS, groups=TILE_GROUPS).log_loss_.values()),
    "AdaptiveVote.partial_fit": lambda: (
        new_vote().fit(TILE, TILE_LABELS).partial_fit(TILE, TILE_LABELS).predict_proba(TILE)
    ),
    "AdaptiveVote.predict": lambda: fitted(VOTE).predict(TILE),
    "AdaptiveVote.predict_proba": lambda: fitted(VOTE).predict_proba(TILE),
    "PerceptronClassifier": lambda: new_perceptron().fit(TILE, TILE_LABELS).predict_proba(TILE),
    "PerceptronClassifier.fit": lambda: new_perceptron().fit(TILE, TILE_LABELS).network_.alpha,
    "PerceptronClassifier.partial_fit": lambda: (
        new_perceptron().partial_fit(TILE, TILE_LABELS, classes=[0, 1]).predict_proba(TILE)
    ),
    "PerceptronClassifier.predict": lambda: fitted(PERCEPTRON).predict(TILE),
    "PerceptronClassifier.predict_proba": lambda: fitted(PERCEPTRON).predict_proba(TILE),
    "RegularizedDiscriminantAnalysis": lambda: (
        dconv.RegularizedDiscriminantAnalysis().fit(TILE, TILE_LABELS).predict_proba(TILE)
    ),
    "RegularizedDiscriminantAnalysis.fit": lambda: (
        dconv.RegularizedDiscriminantAnalysis().fit(TILE, TILE_LABELS).intercept_
    ),
    "RegularizedDiscriminantAnalysis.predict": lambda: fitted(DISCRIMINANT).predict(TILE),
    "RegularizedDiscriminantAnalysis.predict_proba": lambda: fitted(DISCRIMINANT).predict_proba(TILE),
    "SoftClipScaler": lambda: dconv.SoftClipScaler().fit_transform(TILE),
    "SoftClipScaler.fit": lambda: dconv.SoftClipScaler().fit(TILE).scale_,
    "SoftClipScaler.transform": lambda: fitted(SCALER).transform(TILE),
    "default_classifier": lambda: str(dconv.default_classifier(random_state=0)),
    "ContextClassifier": fit(lambda: dconv.ContextClassifier(BANK, GaussianNB(), cv=2, n_jobs=2)),
    "ContextClassifier.fit": lambda: dconv.ContextClassifier(BANK, TREES, cv=2).fit(IMAGE, SCRIBBLES).classes_,
    "ContextClassifier.partial_fit": lambda: hasattr(CASCADE, "partial_fit"),  # it has none
    "ContextClassifier.predict": lambda: fitted(CASCADE).predict(IMAGE),
    "ContextClassifier.predict_proba": lambda: fitted(CASCADE).predict_proba(IMAGE),
    "ContextClassifier.predict_entropy": lambda: fitted(CASCADE).predict_entropy(IMAGE),
    "ContextClassifier.suggest_pixels": lambda: fitted(CASCADE).suggest_pixels(IMAGE, 3),
    "ContextClassifier.decision_function": lambda: fitted(CASCADE).decision_function(IMAGE),
    "ContextClassifier.score": lambda: fitted(CASCADE).score(IMAGE, LABELS),
    "distributed.predict": lambda: dconv.distributed.predict(fitted(MODEL), da.from_array(IMAGE, chunks=24)).compute(
        scheduler="sync"
    ),
    "distributed.fit": distributed_fit,
    "predict_blocks": lambda: dconv.predict_blocks(
        fitted(MODEL), IMAGE, np.empty(IMAGE.shape, np.uint8), block_shape=20, n_jobs=2, progress=False
    ),
    "save": saved,
    "load": saved,
    "ObjectDetector": lambda: new_detector().fit(IMAGE, INSTANCES).predict_objects(IMAGE).labels,
    "ObjectDetector.fit": lambda: new_detector().fit(IMAGE, INSTANCES).class_weight_,
    "ObjectDetector.predict": lambda: tuple(fitted(DETECTOR).predict(IMAGE).values()),
    "ObjectDetector.predict_objects": lambda: fitted(DETECTOR).predict_objects(IMAGE).labels,
    "ObjectDetector.score": lambda: fitted(DETECTOR).score(IMAGE, INSTANCES),
    "find_objects": lambda: find_objects().labels,
    "find_objects: by blocks": lambda: tuple(find_objects(block_shape=17).table.values()),
    "filters.FilterBank": lambda: filters.FilterBank(WEIGHT, ("a",)).kernel_size,
    "filters.b3_spline": lambda: filters.b3_spline(ndim=3).weight,
    "filters.b3_spline_upsampling": lambda: filters.b3_spline_upsampling((2, 3), align="first").weight,
    "filters.bilinear_upsampling": lambda: filters.bilinear_upsampling(4, ndim=3).weight,
    "filters.concatenate": lambda: filters.concatenate(filters.derivatives(1), filters.laplacian()).weight,
    "filters.derivatives": lambda: filters.derivatives(2).weight,
    "filters.directional": lambda: filters.directional([[1.0, 0.5], [0.0, 1.0]], 2).weight,
    "filters.filter_bank": lambda: filters.filter_bank(WEIGHT).weight,
    "filters.gabor": lambda: filters.gabor([0.1, 0.25]).weight,
    "filters.gaussian": lambda: filters.gaussian((1.0, 2.0)).weight,
    "filters.kmeans_patches": lambda: filters.kmeans_patches([PIXELS], 4, (3, 3), n_patches=300, random_state=0).weight,
    "filters.laplacian": lambda: filters.laplacian(ndim=3).weight,
    "filters.pca_patches": lambda: filters.pca_patches([PIXELS], 4, (3, 3), n_patches=300, random_state=0).weight,
    "filters.random_normal": lambda: filters.random_normal(5, (3, 3), random_state=0).weight,
    "filters.two_valued": lambda: filters.two_valued().weight,
    "layers.AveragePool": lambda: str(layers.AveragePool(2)),
    "layers.Convolution": lambda: layers.Convolution(WEIGHT).weight,
    "layers.MaxPool": lambda: str(layers.MaxPool((2, 3))),
    "layers.ReLU": lambda: str(layers.ReLU("a")),
    "layers.fold_batch_norm": lambda: layers.fold_batch_norm(NET[0], np.zeros(16), np.ones(16)).weight,
    "layers.from_arrays": lambda: str(layers.from_arrays([(WEIGHT, None)])),
    "layers.from_keras_h5": from_keras,
    "layers.from_onnx": lambda: refusal(lambda: layers.from_onnx("nothing.onnx")),
    "layers.from_torch": lambda: refusal(lambda: layers.from_torch(WEIGHT)),
    "metrics.mean_iou_score": lambda: metrics.mean_iou_score(LABELS, SCRIBBLES, average=None),
    "metrics.object_f1_score": lambda: metrics.object_f1_score(LABELS, SCRIBBLES),
    "predictors.NotCompilable": lambda: str(predictors.NotCompilable("why")),
    "predictors.Predictor": lambda: isinstance(PREDICTOR, predictors.Predictor),
    "predictors.Scorer": lambda: isinstance(SCORER, predictors.Scorer),
    "predictors.compile_predictor": lambda: probabilities(predictors.compile_predictor(LOGISTIC)),
    "predictors.compile_predictor: one for all": lambda: probabilities(PREDICTOR),
    "predictors.compile_scorer": lambda: predictors.compile_scorer(LOGISTIC).n_scores,
    "predictors.predict": lambda: predictors.predict(SCORER, TILE),
    "shapes.Layer": lambda: shapes.Layer(3, dilation=2),
    "shapes.cascade_halo": lambda: shapes.cascade_halo(5, 3),
    "shapes.conv_input_sizes": lambda: shapes.conv_input_sizes((4, 8), 3, stride=(1, 2)),
    "shapes.conv_shape": lambda: shapes.conv_shape((512, 511), 3, stride=2, dilation=4, padding="same"),
    "shapes.conv_transpose_shape": lambda: shapes.conv_transpose_shape((25, 26), 4, stride=2, padding=1),
    "shapes.halo": lambda: shapes.halo(LAYERS),
    "shapes.jump": lambda: shapes.jump(LAYERS),
    "shapes.n_parameters": lambda: shapes.n_parameters(4, 8, (3, 3), groups=2, bias=True),
    "shapes.normalize_padding": lambda: shapes.normalize_padding("same", 4, 3, 2, (10, 11)),
    "shapes.output_padding_for": lambda: shapes.output_padding_for(5, 12, 3, stride=2),
    "shapes.receptive_field": lambda: shapes.receptive_field(LAYERS),
    "shapes.span": lambda: shapes.span((3, 5), 2),
}


def public_of_module(module):
    """Return the names that a module publishes: its __all__, or what it defines itself."""
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    return getattr(module, "__all__", [name for name in own if not name.startswith("_")])


def methods_of(estimator):
    """Return the public methods that dconv defines for a class of estimators, properties and `available_if` included.

    scikit-learn adds ``set_fit_request`` and its like to every class.
    """
    own = [cls for cls in estimator.__mro__ if cls.__module__.startswith("dconv")]
    things = {name: thing for cls in own for name, thing in vars(cls).items() if not name.startswith("_")}
    methods = [name for name, thing in things.items() if callable(thing) or hasattr(thing, "__get__")]
    return [name for name in methods if not re.fullmatch(r"set_\w+_request", name)]


def public_names():
    names = set()
    for name in dconv.__all__:
        thing = getattr(dconv, name)
        if inspect.ismodule(thing):
            names |= {f"{name}.{inner}" for inner in public_of_module(thing)}
        else:
            names.add(name)
            names |= {f"{name}.{method}" for method in methods_of(thing)} if inspect.isclass(thing) else set()
    return names


def test_every_public_name_has_a_call():
    names = public_names()
    assert {"conv", "PixelClassifier.predict_proba", "filters.gabor", "metrics.mean_iou_score", "shapes.halo"} <= names
    assert {call.split(":")[0] for call in CALLS} == names


def flat(result):
    """Return a result as a list of arrays with their types."""
    items = result if isinstance(result, tuple) else (result,)
    return [(type(item), np.asarray(item)) for item in items]


def assert_same(results, expected):
    assert len(results) == len(expected)
    for (kind, array), (wanted_kind, wanted) in zip(results, expected, strict=True):
        assert kind is wanted_kind
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)


@contextmanager
def busy_threads():
    """Let threads take turns a thousand times as often as usual, and keep what they print apart.

    No fixture: pytest changes sys.stdout after it has set fixtures up.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        with redirect_stdout(Printed()):
            yield
    finally:
        sys.setswitchinterval(interval)


def run_from_threads(calls):
    """Return the results of calls made by threads that all begin at once."""
    barrier = threading.Barrier(N_THREADS, timeout=60)

    def thread(number):
        barrier.wait()
        return [(index, flat(calls[index]())) for index in range(number, len(calls), N_THREADS)]

    with ThreadPoolExecutor(N_THREADS) as pool:
        return [result for results in pool.map(thread, range(N_THREADS)) for result in results]


@pytest.mark.parametrize("name", CALLS)
def test_call_from_threads(name):
    with busy_threads():
        expected = flat(CALLS[name]())  # and what is fitted once, or imported, is so now
        start = time.perf_counter()
        again = flat(CALLS[name]())
        seconds = time.perf_counter() - start
        n_calls = int(np.clip(SECONDS / seconds, LEAST_CALLS, N_CALLS))
        results = run_from_threads([CALLS[name]] * n_calls)
    assert_same(again, expected)
    assert len(results) == n_calls
    for _, result in results:
        assert_same(result, expected)


def test_all_calls_at_once():
    """Different functions share caches, memory and OpenMP's threads."""
    names = sorted(CALLS, key=lambda name: name[::-1]) * 3
    with busy_threads():
        expected = {name: flat(CALLS[name]()) for name in CALLS}
        results = run_from_threads([CALLS[name] for name in names])
    assert len(results) == len(names)
    for index, result in results:
        assert_same(result, expected[names[index]])


def test_warning_filters_are_changed_by_one_thread_at_a_time(monkeypatch):
    """They are the process's before Python 3.14: who changes them holds the lock, or another thread's come back."""
    enter, strangers = warnings.catch_warnings.__enter__, set()
    package = str(Path(dconv.__file__).parent)

    def watched(self):
        if threading.current_thread() is threading.main_thread() and not _threads._scikit_learn._is_owned():
            frames = [frame.filename for frame in traceback.extract_stack()]
            strangers.update(name for name in frames if name.startswith(package))
        return enter(self)

    monkeypatch.setattr(warnings.catch_warnings, "__enter__", watched)
    with busy_threads():
        for call in CALLS.values():
            call()
    assert strangers == set()
