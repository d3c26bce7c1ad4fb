"""What DenseCRF does to accuracy: before, with its defaults, and with parameters tuned on other images.

    DCONV_DATA=folder python benchmarks/accuracy_crf.py [--sets weizmann-horse ...] [--images 12] [--test]

Sets and where they lie: segmentation_sets.py. Training images, so many evenly picked, are dealt to three parts. A
PixelClassifier learns from the first, `DenseCRF.tune` chooses parameters on the second, and the third is scored; with
--test all but the second part are learnt from and test images are scored in its place, once; choose nothing by that.
`grabcut-scribbles` has test images alone and so needs --test: a classifier learns from the scribbles of each image, and
nothing is tuned. Scores are the share of right pixels, mean intersection over union, and the share of right pixels
within 3 pixels of a border between classes (the "trimap"), where a CRF should help.
"""

from __future__ import annotations

import argparse
import time

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
import segmentation_sets
from scipy import ndimage
from segmentation_sets import VOID

import dconv
from dconv.metrics import mean_iou_score

SCRIBBLED = "grabcut-scribbles"
SETS = ("weizmann-horse", SCRIBBLED, "camvid", "labelmefacade", "dsb2018-nuclei")
BORDER = 3  # pixels

Arrays = list[np.ndarray]


def near_border(labels: np.ndarray) -> np.ndarray:
    """Return which pixels lie within BORDER of another class."""
    footprint = ndimage.generate_binary_structure(2, 2)
    edge = ndimage.maximum_filter(labels, footprint=footprint) != ndimage.minimum_filter(labels, footprint=footprint)
    return ndimage.binary_dilation(edge, footprint, iterations=BORDER - 1)


def scores(labels: Arrays, predicted: Arrays) -> str:
    """Return accuracy, mean IoU and accuracy near borders, as text."""
    right = np.concatenate([(y == p)[y != VOID] for y, p in zip(labels, predicted, strict=True)])
    near = np.concatenate([near_border(y)[y != VOID] for y in labels])
    iou = mean_iou_score(labels, predicted, ignore_label=VOID)
    return f"accuracy {right.mean():.3f}, mean IoU {iou:.3f}, near borders {right[near].mean():.3f}"


def new_classifier() -> dconv.PixelClassifier:
    """Return the classifier of all sets."""
    return dconv.PixelClassifier(channel_axis=-1, ignore_label=VOID, max_samples=1000, random_state=0)


def compare(images: Arrays, labels: Arrays, probabilities: Arrays, classes: Arrays, crfs: dict) -> None:
    """Print the scores of probabilities as they are and refined; `classes` are those of each image."""
    predicted = [known[p.argmax(axis=-1)] for known, p in zip(classes, probabilities, strict=True)]
    print(f"  without:  {scores(labels, predicted)}")
    for title, crf in crfs.items():
        start = time.perf_counter()
        refined = [crf.refine(image, p) for image, p in zip(images, probabilities, strict=True)]
        seconds = time.perf_counter() - start
        predicted = [known[p.argmax(axis=-1)] for known, p in zip(classes, refined, strict=True)]
        print(f"  {title + ':':9} {scores(labels, predicted)}; {seconds / len(images):.3f} s an image", flush=True)


def run_scribbled(n_images: int) -> None:
    """Print the scores of images that are learnt from by their own scribbles."""
    pictures, scribbles = segmentation_sets.load_scribbled(SCRIBBLED, n_images)
    images = colored(pictures.images)
    models = [new_classifier().fit(image, drawn) for image, drawn in zip(images, scribbles, strict=True)]
    probabilities = [model.predict_proba(image) for model, image in zip(models, images, strict=True)]
    crfs = {"defaults": dconv.DenseCRF()}
    compare(images, integers(pictures.labels), probabilities, [model.classes_ for model in models], crfs)


def run(name: str, n_images: int, test: bool) -> None:
    """Print the scores of a set with training images."""
    data = segmentation_sets.load(name, n_images, test)
    images, labels = colored(data.train.images), integers(data.train.labels)
    numbers = np.arange(len(images))
    tuned_on = numbers % 3 == 1
    learnt = ~tuned_on if test else numbers % 3 == 0

    def chosen(which: np.ndarray) -> tuple[Arrays, Arrays]:
        return [images[i] for i in np.flatnonzero(which)], [labels[i] for i in np.flatnonzero(which)]

    classifier = new_classifier().fit(*chosen(learnt))
    others, other_labels = chosen(tuned_on)
    probabilities = classifier.predict_proba(others)
    start = time.perf_counter()
    tuning = dconv.DenseCRF(n_iter=5).tune(
        others, probabilities, other_labels, classes=classifier.classes_, ignore_label=VOID
    )
    seconds = time.perf_counter() - start
    best = tuning.results[0][0] if tuning.score > tuning.score_without else "no CRF"
    print(
        f"  learnt from {learnt.sum()} images, tuned on {len(others)} in {seconds:.0f} s, mean IoU "
        f"{tuning.score_without:.3f} -> {tuning.score:.3f}: {best}"
    )
    if data.test is None:
        scored, truth = chosen(numbers % 3 == 2)
    else:
        scored, truth = colored(data.test.images), integers(data.test.labels)
    crfs = {"defaults": dconv.DenseCRF(), "tuned": tuning.crf.set_params(n_iter=10)}
    classes = [classifier.classes_] * len(scored)
    compare(scored, truth, classifier.predict_proba(scored), classes, crfs)


def colored(images: Arrays) -> Arrays:
    """Return images with red, green and blue alone."""
    return [np.ascontiguousarray(image[..., :3]) for image in images]


def integers(labels: Arrays) -> Arrays:
    return [each.astype(int) for each in labels]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--images", type=int, default=12, help="of each part, at least 3")
    parser.add_argument("--test", action="store_true", help="score test images")
    options = parser.parse_args()
    if options.images < 3:
        parser.error("--images must be at least 3: to learn from, to tune on, and to score")
    for name in options.sets:
        print(f"{name}:", flush=True)
        if name != SCRIBBLED:
            run(name, options.images, options.test)
        elif options.test:
            run_scribbled(options.images)
        else:
            print("  has test images alone: give --test")


if __name__ == "__main__":
    main()
