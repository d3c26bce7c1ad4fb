"""The candidates that accuracy.py judges: a registry of ``name -> function(dataset, seed) -> estimator``.

An estimator has ``fit(images, labels)``, with VOID where a pixel is not labelled, ``classes_`` and
``predict_proba(images)``, which returns a list of arrays (*spatial, n_classes). If it has ``features_`` with
``transform(images)``, that is timed too. To add a candidate, write such a function and register it::

    @candidate("dconv distilled")
    def _(dataset, seed):
        return dconv.PixelClassifier(distill=True, **common(dataset, seed))

On sets of volumes a candidate works in 3-D, and one named "NAME 2-D per slice", registered with it, on each section by
itself. Where the scales of images differ, which is in `hippocampus-mri-volumes`, each is standardised first, unless the
candidate is registered with ``standardise=False`` because it does so itself. Those in NEED_NET need the weights that
hed_weights.py reads (registered with ``needs_net=True``), and are run only if they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import hed_weights
import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
from peers_features import ilastik_like_features, skimage_features
from segmentation_sets import VOID, Dataset
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

import dconv
from dconv._threads import default_n_threads

Make = Callable[[Dataset, int], Any]
Arrays = list[np.ndarray]

CANDIDATES: dict[str, Make] = {}
PER_SLICE = " 2-D per slice"
NEED_NET: set[str] = set()


def candidate(name: str, standardise: bool = True, needs_net: bool = False) -> Callable[[Make], Make]:
    """Register a function under this name, and for volumes under that of its slices."""
    if needs_net:
        NEED_NET.update((name, name + PER_SLICE))

    def prepared(dataset: Dataset, estimator: Any) -> Any:
        return Standardised(estimator) if standardise and dataset.scales_differ else estimator

    def register(make: Make) -> Make:
        def per_slice(dataset: Dataset, seed: int) -> Any:
            return PerSlice(make(replace(dataset, ndim=2, smallest=dataset.smallest[1:], spacing=None), seed))

        CANDIDATES[name] = lambda dataset, seed: prepared(dataset, make(dataset, seed))
        CANDIDATES[name + PER_SLICE] = lambda dataset, seed: prepared(dataset, per_slice(dataset, seed))
        return make

    return register


def suits(name: str, ndim: int) -> bool:
    """Return whether a candidate is one for sets of this rank: slices are what volumes have."""
    return ndim == 3 or not name.endswith(PER_SLICE)


@candidate("skimage + forest")
def _(dataset: Dataset, seed: int) -> Any:
    return FeaturesForest(skimage_features, dataset, seed)


@candidate("ilastik-like + forest")
def _(dataset: Dataset, seed: int) -> Any:
    return FeaturesForest(ilastik_like_features, dataset, seed)


@candidate("dconv")
def _(dataset: Dataset, seed: int) -> Any:
    return dconv.PixelClassifier(fitting_features(dataset), **common(dataset, seed))


@candidate("dconv with context")
def _(dataset: Dataset, seed: int) -> Any:
    # As the default where labels are many, also on sets that have to be given their levels or spacing.
    features = dconv.AtrousContext(fitting_features(dataset), random_state=seed)
    return dconv.PixelClassifier(features, **common(dataset, seed))


@candidate("dconv context")
def _(dataset: Dataset, seed: int) -> Any:
    return dconv.ContextClassifier(fitting_features(dataset), **common(dataset, seed))


@candidate("dconv context + CRF")
def _(dataset: Dataset, seed: int) -> Any:
    # Chosen among 24 on halves of the training images of dsb2018-nuclei, by IoU at the threshold of the other half.
    crf = dconv.DenseCRF(
        appearance_weight=3, color_sigma=8, spatial_weight=1, ndim=dataset.ndim, channel_axis=dataset.channel_axis
    )
    return dconv.ContextClassifier(fitting_features(dataset), refine=crf, **common(dataset, seed))


@candidate("dconv context, stages chosen")
def _(dataset: Dataset, seed: int) -> Any:
    return dconv.ContextClassifier(fitting_features(dataset), n_stages="auto", **common(dataset, seed))


@candidate("dconv + position")
def _(dataset: Dataset, seed: int) -> Any:
    return dconv.PixelClassifier(with_position(dataset), **common(dataset, seed))


@candidate("dconv context + position")
def _(dataset: Dataset, seed: int) -> Any:
    return dconv.ContextClassifier(with_position(dataset), **common(dataset, seed))


@candidate("dconv context + position + CRF")
def _(dataset: Dataset, seed: int) -> Any:
    # Chosen among seven on training images of camvid, held out: with the default weights rare classes vanish.
    crf = dconv.DenseCRF(appearance_weight=4, color_sigma=8, ndim=dataset.ndim, channel_axis=dataset.channel_axis)
    return dconv.ContextClassifier(with_position(dataset), refine=crf, **common(dataset, seed))


@candidate("dconv street scenes")
def street_scenes(dataset: Dataset, seed: int) -> dconv.PixelClassifier:
    # Chosen on training images of camvid, sequences held out. The first guess sees how high a pixel lies too; left and
    # right misled on other sequences. A narrow appearance kernel takes less from small classes.
    features = dconv.make_features(fitting_features(dataset), dconv.PixelPosition(axes=[0]))
    crf = dconv.DenseCRF(appearance_weight=6, appearance_sigma=40, color_sigma=8)
    context = dconv.AtrousContext(features, random_state=seed)
    return dconv.PixelClassifier(context, class_prior="balanced", refine=crf, **common(dataset, seed))


@candidate("dconv street scenes + net", needs_net=True)
def street_scenes_with_net(dataset: Dataset, seed: int) -> dconv.PixelClassifier:
    scenes = street_scenes(dataset, seed)
    net = hed_weights.hed_backbone(taps=tuple(hed_weights.MAPS), output_stride=8)
    return scenes.set_params(features=dconv.make_features(scenes.features, net), classifier=with_and_without_net(seed))


@candidate("dconv street scenes + net + image prior", needs_net=True)
def _(dataset: Dataset, seed: int) -> Any:
    # Of three parts of sequences held out, one at dusk, the members that see the maps are the better ones on two.
    scenes = street_scenes_with_net(dataset, seed)
    crf = ImageLevelPriorCRF(**scenes.refine.get_params())
    return scenes.set_params(refine=crf, classifier__votingclassifier__weights=[1, 2] * 3)


def with_and_without_net(seed: int, n_components: int = 64) -> Pipeline:
    """Return the mean of six perceptrons, of which three do not see the components of the maps, the last columns.

    Chosen on training images of camvid, sequences held out: the two kinds err in different places.
    """
    parts, start = [], -sum(hed_weights.MAPS.values())
    features = ("features", "passthrough", slice(start))
    for name, n_channels in hed_weights.MAPS.items():
        components = make_pipeline(FunctionTransformer(np.sqrt), PCA(n_components, whiten=True, random_state=seed))
        parts.append((name, components, slice(start, start + n_channels or None)))
        start += n_channels
    without = ColumnTransformer([("features", "passthrough", slice(-n_components * len(parts)))])
    perceptron, votes = dconv.default_classifier().perceptron, []
    for number in range(3):
        member = clone(perceptron).set_params(perceptronclassifier__random_state=3 * seed + number)
        votes += [(f"without {number}", make_pipeline(without, member)), (f"with {number}", member)]
    return make_pipeline(ColumnTransformer([features, *parts]), VotingClassifier(votes, voting="soft"))


def with_position(dataset: Dataset) -> dconv.FeatureImageUnion:
    """Return these features and where a pixel lies."""
    return dconv.make_features(fitting_features(dataset), dconv.PixelPosition())


def common(dataset: Dataset, seed: int) -> dict[str, Any]:
    """Return the parameters of a dconv.PixelClassifier that the set and the seed dictate."""
    return {
        "ignore_label": VOID,
        "ndim": dataset.ndim,
        "channel_axis": dataset.channel_axis,
        "n_jobs": default_n_threads(),
        "random_state": seed,
    }


def fitting_features(dataset: Dataset) -> dconv.AtrousFeatures | None:
    """Return the default features, None, or with the set's spacing, or as many levels as the smallest image takes.

    Level s has dilation 2**s and needs ``2 * 2**s + 1`` pixels along every axis: the volumes of hippocampus-mri-volumes
    and their sections take 4 levels. Those of vnc-sstem-volume take 5, as their 4 sections lie 11 pixels apart.
    """
    if dataset.spacing is not None:
        return dconv.AtrousFeatures(normalize="auto", spacing=dataset.spacing)
    n_levels = int(np.log2(min(dataset.smallest) - 1))
    return None if n_levels >= 5 else dconv.AtrousFeatures(n_levels, normalize="auto")


class ImageLevelPriorCRF(dconv.DenseCRF):
    """A CRF that is told what classes an image shows: the mean of the probabilities of its pixels, to a power.

    That is a prior for each of them. The idea of a prior for an image is that of Shotton, Johnson and Cipolla,
    doi:10.1109/CVPR.2008.4587503, who learn it apart.
    """

    # Chosen on training images of camvid, sequences held out; what the mean says is not there stays possible by LEAST.
    POWER, LEAST = 0.5, 0.002

    def refine(self, image: np.ndarray, probabilities: np.ndarray, **options: Any) -> np.ndarray:
        shown = probabilities.mean(axis=tuple(range(probabilities.ndim - 1)))
        likely = probabilities * (shown + self.LEAST) ** self.POWER
        return super().refine(image, likely / likely.sum(axis=-1, keepdims=True), **options)


class FeaturesForest:
    """A features function and scikit-learn's random forest, as scikit-image's TrainableSegmenter joins them.

    Not a dconv.PixelClassifier with another transformer, lest dconv speeds up what it is compared with.
    """

    def __init__(self, function: Callable[..., np.ndarray], dataset: Dataset, seed: int) -> None:
        self.features_ = Features(function, dataset.channel_axis)
        self.forest = RandomForestClassifier(100, n_jobs=default_n_threads(), random_state=seed)

    def fit(self, images: Arrays, labels: Arrays) -> Self:
        rows, targets = [], []
        for image, label in zip(images, labels, strict=True):
            counts = label != VOID
            rows.append(self.features_.transform([image])[0][counts])  # features of one image exist at a time
            targets.append(label[counts])
        self.forest.fit(np.concatenate(rows), np.concatenate(targets))
        self.classes_ = self.forest.classes_
        return self

    def predict_proba(self, images: Arrays) -> Arrays:
        answers = []
        for image in images:
            features = self.features_.transform([image])[0]
            rows = features.reshape(-1, features.shape[-1])
            answers.append(self.forest.predict_proba(rows).reshape(*features.shape[:-1], -1))
        return answers


class Features:
    """A features function as a transformer."""

    def __init__(self, function: Callable[..., np.ndarray], channel_axis: int | None) -> None:
        self.function, self.channel_axis = function, channel_axis

    def transform(self, images: Arrays) -> Arrays:
        return [self.function(image, self.channel_axis) for image in images]


class Prepared:
    """An estimator that is given other images than it is asked about."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    @property
    def classes_(self) -> np.ndarray:
        return self.estimator.classes_

    def prepare(self, images: Arrays) -> Arrays:
        raise NotImplementedError


class Standardised(Prepared):
    """Every image has mean 0 and standard deviation 1."""

    def prepare(self, images: Arrays) -> Arrays:
        return [((image - image.mean()) / image.std()).astype(np.float32) for image in images]

    def fit(self, images: Arrays, labels: Arrays) -> Self:
        self.estimator.fit(self.prepare(images), labels)
        return self

    def predict_proba(self, images: Arrays) -> Arrays:
        return self.estimator.predict_proba(self.prepare(images))


class PerSlice(Prepared):
    """Every section of a volume is an image."""

    def prepare(self, images: Arrays) -> Arrays:
        return [section for volume in images for section in volume]

    def fit(self, images: Arrays, labels: Arrays) -> Self:
        pairs = zip(self.prepare(images), self.prepare(labels), strict=True)
        sections, targets = zip(*(pair for pair in pairs if (pair[1] != VOID).any()), strict=True)
        self.estimator.fit(list(sections), list(targets))
        return self

    def predict_proba(self, images: Arrays) -> Arrays:
        return [np.stack(self.estimator.predict_proba(list(volume))) for volume in images]
