"""What a trained net and a spatial pyramid add to the bank: scenes of many classes, one classifier for all.

    python benchmarks/accuracy_backbone.py [--sets camvid labelmefacade] [--train 20] [--pixels 100]
        [--classifier perceptron] [--candidates bank conv5 ...] [--cache FOLDER] [--test 30]

Features are the bank (`AtrousFeatures(normalize="auto")`), maps of HED's VGG-16 trunk at output stride 8
(`AtrousBackbone`; hed_weights.py says where the weights come from), and what `AtrousPyramid` makes of either: branches
at dilations 6 to 24, learnt by PCA, and the means of the image. On the bank these dilations are pixels, on the maps of
the trunk samples, as in DeepLab: 48 to 192 pixels. "LDA branches" over the bank are learnt from the labelled pixels of
all training images; so they are in no table of held-out ones.

All features get the same classifier, which is a choice too: `default_classifier()` ("vote"), its perceptron or forest,
or logistic regression with a penalty that fits many features ("linear"). It learns from `--pixels` pixels of each class
of `--train` training images, evenly picked, drawn once. By default two halves of these images, the first and the last
in the list, are held out in turn, and the table is of their labelled pixels, as many of each class. Only with `--test`
are that many test images read: all training images are learnt from, and every second row and column is scored.

Features of labelled pixels, and every scored image, are kept in the cache folder, so that a run that was stopped goes
on: use another when the code changes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hed_weights
import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
import scores
import segmentation_sets
import strokes
from regimes import generator
from segmentation_sets import MANY_CLASSES, VOID, Dataset
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dconv import AtrousBackbone, AtrousFeatures, AtrousPyramid, SoftClipScaler, default_classifier
from dconv._threads import default_n_threads

TAPS = tuple(hed_weights.MAPS)
EVERY = 2  # rows and columns of a test image that are scored
CANDIDATES = {
    "bank": ("bank",),
    "conv5": ("conv5",),
    "conv3, conv4, conv5": TAPS,
    "bank, conv5": ("bank", "conv5"),
    "bank, conv3, conv4, conv5": ("bank", *TAPS),
    "bank, its branches": ("bank", "bank branches"),
    "bank, its LDA branches": ("bank", "bank LDA branches"),
    "bank, its branches, its means": ("bank", "bank branches", "bank means"),
    "conv5, its branches": ("conv5", "conv5 branches"),
    "conv5, its branches, its means": ("conv5", "conv5 branches", "conv5 means"),
    "all but means": ("bank", "bank branches", *TAPS, "conv5 branches"),
}


class Features:
    """All groups of features of some pixels of an image, fitted to images: every candidate takes its groups."""

    def __init__(self, dataset: Dataset, n_pixels: int, cache: Path) -> None:
        images, self._folder = dataset.train.images, cache / f"{dataset.name}-maps"
        self._folder.mkdir(exist_ok=True)
        self.backbone: AtrousBackbone = hed_weights.hed_backbone(taps=TAPS, output_stride=8).fit(images)
        bank = AtrousFeatures(normalize="auto")
        self.bank = AtrousPyramid(bank, channel_axis=-1, random_state=0).fit(images)
        labels = [drawn_pixels(dataset, number, n_pixels) for number in range(len(images))]
        labels = [np.where(each == VOID, 0, each.astype(int) + 1) for each in labels]
        self.lda = AtrousPyramid(bank, projection="lda", pool=False, channel_axis=-1, random_state=0)
        self.lda.fit(images, labels)
        deep = [self._maps(image, name)["conv5"] for name, image in zip(dataset.train.names, images, strict=True)]
        self.deep = AtrousPyramid("passthrough", channel_axis=-1, random_state=0).fit(deep)
        self.bank_groups = _groups(self.bank.get_feature_names_out(), self.bank.inner_.n_features_out_, "bank")
        self.deep_groups = _groups(self.deep.get_feature_names_out(), self.backbone._net.taps[-1].n_channels, "conv5")

    def _maps(self, image: np.ndarray, name: str) -> dict[str, np.ndarray]:
        """Return the maps of the trunk, which training images are asked for more than once."""
        path = self._folder / f"{name}.npz"
        if not path.exists():
            start = time.perf_counter()
            np.savez(path.with_suffix(".part.npz"), **self.backbone.maps(image))
            path.with_suffix(".part.npz").rename(path)
            print(f"maps of {name}: {time.perf_counter() - start:.1f} s", flush=True)
        with np.load(path) as arrays:
            return dict(arrays)

    def of(self, image: np.ndarray, name: str, rows: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
        """Return features by group, (n_pixels, n), of the pixels with these places."""
        found = {}
        bank = self.bank.transform(image)[rows, columns]
        found |= {group: bank[:, part] for group, part in self.bank_groups.items()}
        n_maps = self.lda.inner_.n_features_out_
        found["bank LDA branches"] = self.lda.transform(image)[rows, columns][:, n_maps:]
        maps = self._maps(image, name)
        for tap in self.backbone._net.taps:
            found[tap.name] = _between(maps[tap.name], tap.stride, tap.centers, (rows, columns))
        tap = self.backbone._net.taps[-1]
        deep = _between(self.deep.transform(maps[tap.name]), tap.stride, tap.centers, (rows, columns))
        return found | {group: deep[:, part] for group, part in self.deep_groups.items() if group not in found}


def drawn_pixels(dataset: Dataset, number: int, n_pixels: int) -> np.ndarray:
    """Return the labels of a training image with all but the drawn pixels void."""
    train = dataset.train
    return strokes.draw_pixels(train.labels[number], n_pixels, generator(dataset.name, train.names[number], 0))


def _groups(names: np.ndarray, n_maps: int, name: str) -> dict[str, slice]:
    """Return which features of a pyramid are the maps, the branches, the means."""
    means = len(names) - n_maps
    return {name: slice(n_maps), f"{name} branches": slice(n_maps, means), f"{name} means": slice(means, None)}


def _between(maps: np.ndarray, stride: tuple, centers: tuple, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return maps at some pixels alone, interpolated as AtrousBackbone.transform does at all of them."""
    found = np.zeros((len(places[0]), maps.shape[-1]), np.float32)
    corners = []
    for place, step, center, size in zip(places, stride, centers, maps.shape, strict=False):
        at = np.clip((place - center / 2) / step, 0, size - 1)
        low = np.minimum(at.astype(int), max(size - 2, 0))
        share = (at - low).astype(np.float32)
        corners.append([(low, 1 - share), (np.minimum(low + 1, size - 1), share)])
    for row, above in corners[0]:
        for column, beside in corners[1]:
            found += maps[row, column] * (above * beside)[:, np.newaxis]
    return found


def check_between(features: Features, image: np.ndarray) -> None:
    """Check that what is interpolated here is what users get."""
    image = image[:96, :112]
    rows, columns = map(np.ravel, np.indices(image.shape[:2]))
    maps = features.backbone.maps(image)
    parts = [_between(maps[tap.name], tap.stride, tap.centers, (rows, columns)) for tap in features.backbone._net.taps]
    wanted = features.backbone.transform(image).reshape(len(rows), -1)
    assert np.abs(np.concatenate(parts, axis=1) - wanted).max() <= 1e-4 * np.abs(wanted).max()


def lesson(dataset: Dataset, n_pixels: int, features: Features, cache: Path) -> tuple[list[dict], list[np.ndarray]]:
    """Return features and labels of the labelled pixels of every training image."""
    found, targets = [], []
    for number, (name, image) in enumerate(zip(dataset.train.names, dataset.train.images, strict=True)):
        path = cache / f"{dataset.name}-{name}-{n_pixels}.npz"
        if not path.exists():
            drawn = drawn_pixels(dataset, number, n_pixels)
            rows, columns = np.nonzero(drawn != VOID)
            start = time.perf_counter()
            parts = features.of(image, name, rows, columns)
            print(f"{dataset.name} {name}: {time.perf_counter() - start:.1f} s", flush=True)
            np.savez(path.with_suffix(".part.npz"), labels=drawn[rows, columns], **parts)
            path.with_suffix(".part.npz").rename(path)
        with np.load(path) as arrays:
            parts = dict(arrays)
        targets.append(parts.pop("labels"))
        found.append(parts)
    return found, targets


def columns_of(parts: Mapping[str, np.ndarray], candidate: str) -> np.ndarray:
    """Return the features of a candidate side by side."""
    return np.concatenate([parts[group] for group in CANDIDATES[candidate]], axis=1)


def new_classifier(name: str) -> Any:
    """Return a classifier of this name, not fitted."""
    vote = default_classifier(random_state=0, n_jobs=default_n_threads())
    linear = make_pipeline(SoftClipScaler(), StandardScaler(), LogisticRegression(C=0.001, max_iter=300))
    return {"vote": vote, "forest": vote.forest, "perceptron": vote.perceptron, "linear": linear}[name]


def fitted(found: list[dict], targets: list[np.ndarray], candidate: str, classifier: str) -> Any:
    """Return the classifier, fitted to the features of a candidate; images are groups to the vote."""
    rows = np.concatenate([columns_of(parts, candidate) for parts in found])
    groups = {"groups": np.repeat(np.arange(len(found)), list(map(len, targets)))} if classifier == "vote" else {}
    return new_classifier(classifier).fit(rows, np.concatenate(targets), **groups)


def held_out(dataset: Dataset, found: list[dict], targets: list[np.ndarray], options: argparse.Namespace) -> None:
    """Print the scores of labelled pixels of images held out."""
    half = len(found) // 2
    folds = [(slice(half), slice(half, None)), (slice(half, None), slice(half))]
    n_pixels = sum(map(len, targets))
    print(f"\n{dataset.name}: {len(found)} training images in halves, {n_pixels} labelled pixels, {options.classifier}")
    print("| features | number | class accuracy | mean IoU | log-loss |\n| --- | --- | --- | --- | --- |")
    for candidate in options.candidates:
        if any("LDA" in group for group in CANDIDATES[candidate]):
            continue  # what they are has been learnt from the pixels to be scored
        confusion, losses = np.zeros((len(dataset.classes),) * 2, int), []
        for learnt, scored in folds:
            classifier = fitted(found[learnt], targets[learnt], candidate, options.classifier)
            rows = np.concatenate([columns_of(parts, candidate) for parts in found[scored]])
            truth, known = np.concatenate(targets[scored]), classifier.classes_
            probability = classifier.predict_proba(rows).astype(np.float64)
            confusion += scores.confusion_matrix(truth, known[probability.argmax(axis=1)], dataset.classes)
            shown = np.isin(truth, known)
            probability /= probability.sum(axis=1, keepdims=True)
            losses.append(log_loss(truth[shown], probability[shown], labels=known))
        by_class = scores.class_scores(confusion)
        print(
            f"| {candidate} | {rows.shape[1]} | {by_class['class accuracy']:.3f} | {by_class['mean IoU']:.3f} | "
            f"{np.mean(losses):.3f} |",
            flush=True,
        )


def test(
    dataset: Dataset, features: Features, found: list[dict], targets: list[np.ndarray], options: argparse.Namespace
) -> None:
    """Print the scores of test images."""
    assert dataset.test is not None
    classifiers = None
    confusions: dict[str, dict[str, np.ndarray]] = {}
    for name, image, labels in zip(dataset.test.names, dataset.test.images, dataset.test.labels, strict=True):
        path = options.cache / f"{dataset.name}-{name}-{options.classifier}-test.json"
        if not path.exists():
            if classifiers is None:
                classifiers = {name: fitted(found, targets, name, options.classifier) for name in options.candidates}
            scored = np.zeros(labels.shape, bool)
            scored[::EVERY, ::EVERY] = True
            rows, columns = np.nonzero(scored & (labels != VOID))
            start = time.perf_counter()
            parts = features.of(image, name, rows, columns)
            answers = {}
            for candidate, classifier in classifiers.items():
                predicted = classifier.predict(columns_of(parts, candidate))
                confusion = scores.confusion_matrix(labels[rows, columns], predicted, dataset.classes)
                answers[candidate] = confusion.tolist()
            print(f"{dataset.name} {name}: {time.perf_counter() - start:.1f} s", flush=True)
            path.write_text(json.dumps(answers))
        for candidate, confusion in json.loads(path.read_text()).items():
            confusions.setdefault(candidate, {})[name] = np.array(confusion)
    counts = f"{len(dataset.train.names)} training images, {len(dataset.test.names)} test images"
    print(f"\n{dataset.name}: {counts}, {options.classifier}")
    print("| features | mean IoU | class average | accuracy | mean IoU of an image against the bank's |")
    print("| --- | --- | --- | --- | --- |")
    by_image = {
        candidate: {name: scores.class_scores(confusion)["mean IoU"] for name, confusion in by_name.items()}
        for candidate, by_name in confusions.items()
    }
    for candidate, by_name in confusions.items():
        pooled = scores.class_scores(np.sum(list(by_name.values()), axis=0))
        against = "" if candidate == "bank" else str(scores.compare(by_image[candidate], by_image["bank"]))
        print(
            f"| {candidate} | {pooled['mean IoU']:.3f} | {pooled['class accuracy']:.3f} | {pooled['accuracy']:.3f} | "
            f"{against} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(MANY_CLASSES), choices=MANY_CLASSES)
    parser.add_argument("--train", type=int, default=20, help="training images")
    parser.add_argument("--pixels", type=int, default=100, help="labelled pixels of each class and training image")
    parser.add_argument("--test", type=int, default=0, help="test images to score; 0 leaves them alone")
    parser.add_argument("--classifier", default="perceptron", choices=("vote", "forest", "perceptron", "linear"))
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=CANDIDATES)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "dconv-accuracy-backbone"))
    options = parser.parse_args()
    hed_weights.weights_file()
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        dataset = segmentation_sets.load(name, options.train)
        features = Features(dataset, options.pixels, options.cache)
        check_between(features, dataset.train.images[0])
        found, targets = lesson(dataset, options.pixels, features, options.cache)
        if not options.test:
            held_out(dataset, found, targets, options)
            continue
        dataset.test = segmentation_sets.load(name, options.test, test=True).test
        test(dataset, features, found, targets, options)


if __name__ == "__main__":
    main()
