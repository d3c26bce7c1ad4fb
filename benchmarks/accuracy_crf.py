"""What DenseCRF does to accuracy: before, with its defaults, and with parameters tuned on other images.

    DCONV_DATA=folder python benchmarks/accuracy_crf.py [--sets weizmann-horse ...] [--images 8]

On sets of the folder that the environment variable DCONV_DATA names. A PixelClassifier learns from the first half of
the training images, `DenseCRF.tune` chooses parameters on the second half, and test images are scored: the share of
right pixels, mean intersection over union, and the share of right pixels within 3 pixels of a border between classes
(the "trimap"), where a CRF should help. `grabcut-scribbles` has no training images: a classifier learns from the
scribbles of each image, and nothing is tuned. Images are the first of each part, all of them with --images 1000.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage import io

import dconv
from dconv.metrics import mean_iou_score

SETS = ("weizmann-horse", "grabcut-scribbles", "camvid", "labelmefacade", "dsb2018-nuclei")
VOID = 255
BORDER = 3  # pixels


def names(folder: Path, part: str, n: int) -> list[str]:
    """Return the names of the first `n` images of a part, none if there is no such part."""
    path = folder / f"{part}.txt"
    return path.read_text().split()[:n] if path.exists() else []


def read(folder: Path, name: str, labels: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    """Return an RGB image and labels of it."""
    image = io.imread(next((folder / "images").glob(f"{name}.*")))
    return np.ascontiguousarray(image[..., :3]), io.imread(folder / labels / f"{name}.png").astype(int)


def near_border(labels: np.ndarray) -> np.ndarray:
    """Return which pixels lie within BORDER of another class."""
    footprint = ndimage.generate_binary_structure(2, 2)
    edge = ndimage.maximum_filter(labels, footprint=footprint) != ndimage.minimum_filter(labels, footprint=footprint)
    return ndimage.binary_dilation(edge, footprint, iterations=BORDER - 1)


def scores(labels: list[np.ndarray], predicted: list[np.ndarray]) -> str:
    """Return accuracy, mean IoU and accuracy near borders, as text."""
    right = np.concatenate([(y == p)[y != VOID] for y, p in zip(labels, predicted, strict=True)])
    near = np.concatenate([near_border(y)[y != VOID] for y in labels])
    iou = mean_iou_score(labels, predicted, ignore_label=VOID)
    return f"accuracy {right.mean():.3f}, mean IoU {iou:.3f}, near borders {right[near].mean():.3f}"


def new_classifier() -> dconv.PixelClassifier:
    """Return the classifier of all sets."""
    return dconv.PixelClassifier(channel_axis=-1, ignore_label=VOID, max_samples=1000, random_state=0)


def run(folder: Path, n: int) -> None:
    """Print the scores of one set."""
    train = [read(folder, name) for name in names(folder, "train", n)]
    test = [read(folder, name) for name in names(folder, "test", n)]
    images, labels = map(list, zip(*test, strict=True))
    crfs = {"defaults": dconv.DenseCRF()}
    if train:
        half = len(train) // 2
        classifier = new_classifier().fit(*map(list, zip(*train[:half], strict=True)))
        others, other_labels = map(list, zip(*train[half:], strict=True))
        probabilities = classifier.predict_proba(others)
        start = time.perf_counter()
        tuning = dconv.DenseCRF(n_iter=5).tune(
            others, probabilities, other_labels, classes=classifier.classes_, ignore_label=VOID
        )
        seconds = time.perf_counter() - start
        crfs["tuned"] = tuning.crf.set_params(n_iter=10)
        chosen = tuning.results[0][0] if tuning.score > tuning.score_without else "no CRF"
        print(
            f"  tuned in {seconds:.0f} s on {len(others)} images, mean IoU {tuning.score_without:.3f} -> "
            f"{tuning.score:.3f}: {chosen}"
        )
        classes = [classifier.classes_] * len(test)
        probabilities = classifier.predict_proba(images)
    else:
        classes, probabilities = [], []
        for name, image in zip(names(folder, "test", n), images, strict=True):
            scribbles = read(folder, name, "scribbles1")[1]
            classifier = new_classifier().fit(image, scribbles)
            classes.append(classifier.classes_)
            probabilities.append(classifier.predict_proba(image))
    predicted = [known[p.argmax(axis=-1)] for known, p in zip(classes, probabilities, strict=True)]
    print(f"  without:  {scores(labels, predicted)}")
    for title, crf in crfs.items():
        start = time.perf_counter()
        refined = [crf.refine(image, p) for image, p in zip(images, probabilities, strict=True)]
        seconds = time.perf_counter() - start
        predicted = [known[p.argmax(axis=-1)] for known, p in zip(classes, refined, strict=True)]
        print(f"  {title + ':':9} {scores(labels, predicted)}; {seconds / len(images):.3f} s an image", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--images", type=int, default=8, help="of each part")
    options = parser.parse_args()
    if "DCONV_DATA" not in os.environ:
        raise SystemExit("set DCONV_DATA to the folder that holds the sets")
    for name in options.sets:
        print(f"{name}:", flush=True)
        run(Path(os.environ["DCONV_DATA"], name), options.images)


if __name__ == "__main__":
    main()
