"""How many objects are found: ObjectDetector and scikit-image's recipe on the nuclei of `dsb2018-nuclei`.

    DCONV_DATA=folder python benchmarks/accuracy_objects.py [--images N] [--folds 3] [--lesson masks boxes]
        [--thresholds 0.3 0.4 0.5] [--test]

The recipe: Otsu's threshold of the grey image, the smaller side of it being foreground, and a watershed from the peaks
of the distance transform. It is given every advantage: smoothing, the distance of peaks and the least size are those
of GRID and SIZES that are best on the training images. The detector learns from masks of the nuclei, or from their
boxes alone.

Without --test training images are cut into folds, every --folds-th image in one, and each fold is scored by what was
learnt from the others, for each of the thresholds. With --test all training images are learnt from, and test images are
scored once, with the default threshold; choose nothing by that. Scores are F1 of all objects of all images together, at
an intersection over union of 0.5, and as the mean over 0.5 to 0.95.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from pathlib import Path

import numpy as np
import segmentation_sets
from scipy import ndimage
from skimage import color, feature, filters, io, measure, segmentation

import dconv
from dconv.metrics import object_f1_score

IOUS = np.arange(0.5, 1, 0.05)
GRID = list(itertools.product((0, 1), (10, 15)))  # smoothing, distance of peaks
SIZES = (1, 20, 50, 100)  # least ones

Arrays = list[np.ndarray]


def instances(pictures: segmentation_sets.Pictures) -> Arrays:
    """Return the label images of the nuclei of images."""
    folder = Path(os.environ.get("DCONV_DATA", segmentation_sets.DEFAULT_DATA), "dsb2018-nuclei", "instances")
    return [io.imread(folder / f"{name}.png").astype(int) for name in pictures.names]


def recipe(image: np.ndarray, sigma: float, distance: int) -> np.ndarray:
    """Return what scikit-image's gallery makes of an image."""
    grey = filters.gaussian(color.rgb2gray(image[..., :3]), sigma)
    mask = grey > filters.threshold_otsu(grey)
    mask = ~mask if mask.mean() > 0.5 else mask
    depth = ndimage.distance_transform_edt(mask)
    peaks = feature.peak_local_max(depth, min_distance=distance, labels=measure.label(mask), exclude_border=False)
    markers = np.zeros(mask.shape, int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-depth, markers, mask=mask)


def large(labels: np.ndarray, min_size: int) -> np.ndarray:
    """Return labels without those of fewer pixels."""
    return np.where(np.bincount(labels.ravel())[labels] >= min_size, labels, 0)


def boxes_of(labels: np.ndarray) -> np.ndarray:
    """Return the boxes of objects, as ObjectDetector takes them."""
    table = measure.regionprops_table(labels, properties=["bbox"])
    return np.stack(list(table.values()), axis=1).reshape(-1, 4)


def scores(truth: Arrays, found: Arrays) -> np.ndarray:
    """Return F1 at 0.5 and the mean over IOUS."""
    f1 = object_f1_score(truth, found, iou_threshold=IOUS)
    return np.array([f1[0], np.mean(f1)])


def learnt(images: Arrays, truth: Arrays, lesson: str) -> dconv.ObjectDetector:
    """Return a detector that has learnt from masks or boxes."""
    y = truth if lesson == "masks" else [boxes_of(each) for each in truth]
    return dconv.ObjectDetector(channel_axis=-1, random_state=0).fit(images, y)


def found_by(detector: dconv.ObjectDetector, images: Arrays) -> Arrays:
    return [found.labels for found in detector.predict_objects(images)]


def show(title: str, score: np.ndarray, seconds: float | None = None) -> None:
    took = "" if seconds is None else f"   {seconds:.0f} s"
    print(f"{title:44} F1 at 0.5 {score[0]:.3f}   mean over 0.5 to 0.95 {score[1]:.3f}{took}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help="at most so many of each part, evenly picked")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--lesson", nargs="+", choices=("masks", "boxes"), default=("masks", "boxes"))
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.3, 0.4, 0.5])
    parser.add_argument("--test", action="store_true", help="score the test images, once")
    options = parser.parse_args()
    dataset = segmentation_sets.load("dsb2018-nuclei", options.images, options.test)
    images, truth = dataset.train.images, instances(dataset.train)

    tried = {}
    for choice in GRID:
        labels = [recipe(image, *choice) for image in images]
        tried |= {(*choice, size): scores(truth, [large(each, size) for each in labels]) for size in SIZES}
    *best, size = max(tried, key=lambda choice: tried[choice][0])
    show(f"recipe, training images, {(*best, size)}", tried[(*best, size)])
    if dataset.test is not None:
        tests, answers = dataset.test.images, instances(dataset.test)
        show("recipe, test images", scores(answers, [large(recipe(image, *best), size) for image in tests]))
        for lesson in options.lesson:
            start = time.perf_counter()
            found = found_by(learnt(images, truth, lesson), tests)
            show(f"ObjectDetector, test images, {lesson}", scores(answers, found), time.perf_counter() - start)
        return
    folds = [np.arange(len(images)) % options.folds == fold for fold in range(options.folds)]
    for lesson in options.lesson:
        found: dict[float, list] = {threshold: [None] * len(images) for threshold in options.thresholds}
        start = time.perf_counter()
        for fold in folds:
            known, held = np.flatnonzero(~fold), np.flatnonzero(fold)
            detector = learnt([images[i] for i in known], [truth[i] for i in known], lesson)
            for threshold in options.thresholds:
                detector.set_params(threshold=threshold)
                for i, labels in zip(held, found_by(detector, [images[i] for i in held]), strict=True):
                    found[threshold][i] = labels
        for threshold in options.thresholds:
            score, seconds = scores(truth, found[threshold]), time.perf_counter() - start
            show(f"ObjectDetector, held out, {lesson}, threshold {threshold}", score, seconds)


if __name__ == "__main__":
    main()
