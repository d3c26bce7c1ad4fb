"""Fit on scribbles and segment other images, end to end, against scikit-image's segmenter on the same labels.

    python benchmarks/bench_predict.py [--sizes 512 1024 2048 4096] [--set roads-aerial] [--frames]

Learnt from: simulated strokes on one training image of the `isbi2012-em` set (neuron membranes, electron microscopy,
grey), or of `roads-aerial` (RGB). Applied to: its test images, set side by side, turned and flipped until the image has
the wanted size. The data are looked for in the folder `DCONV_DATA`, by default `../shared/data` beside the repository;
without them the same is done with made images, and said. Both sides run at their defaults; how many strokes are drawn
was changed once, for both sides alike, after a look at scores on a test section, so the accuracies are a comparison and
not held-out estimates.

- skimage: `skimage.future.TrainableSegmenter` with a `RandomForestClassifier(100)` on
  `skimage.feature.multiscale_basic_features` at sigma 1 to 16 (intensity, edges and texture)
- dconv: `dconv.PixelClassifier()` at its defaults
- dconv + rf: the same with skimage's forest, to tell the features from the classifier
- dconv distilled: the defaults and `distill=True`; the student also learns from the image that is segmented

--frames adds how many frames of 500 x 375 RGB pixels a second are labelled with 5 classes.

Every side and size has a process of its own, and the same number of threads. "MB" is the peak of the resident memory
during the first call, above what was resident before fit: what fit leaves behind counts for predict. Times are the best
of several calls where they are short. "features" is the part of predict that is not the classifier: for dconv the time
of the same prediction with a classifier that does nothing, for skimage that of its features function. Scores are on all
pixels of the image. Memory is read from /proc, so this runs on Linux.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
from scipy import ndimage
from segmentation_sets import DEFAULT_DATA
from skimage import data, transform
from skimage.feature import multiscale_basic_features
from skimage.future import TrainableSegmenter
from skimage.io import imread
from skimage.morphology import disk, skeletonize
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier

import dconv
from dconv.metrics import mean_iou_score

SIDES = ("skimage", "dconv", "dconv + rf", "dconv distilled")
SETS = ("isbi2012-em", "roads-aerial")
MADE = 512  # height and width of images that are made
FRAME, N_CLASSES = (375, 500), 5
INTERIOR, MEMBRANE = 1, 2  # 0 is "not labelled"; roads stand for membranes


class Sections(NamedTuple):
    """One image to learn from with its true labels, and others to segment with theirs."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: list[tuple[np.ndarray, np.ndarray]]


def load_sections(name: str) -> Sections:
    """Return the images of a set, or made ones where they are missing."""
    folder = Path(os.environ.get("DCONV_DATA", DEFAULT_DATA)) / name
    if not folder.is_dir():
        pairs = [make_section(seed) for seed in range(9)]
        return Sections(f"MADE images ({folder} is missing)", pairs[0], pairs[1:])

    def load(name: str) -> tuple[np.ndarray, np.ndarray]:
        labels = imread(folder / "labels" / f"{name}.png")
        return imread(folder / "images" / f"{name}.png"), np.where(labels == 1, MEMBRANE, INTERIOR).astype(np.uint8)

    train, test = ((folder / f"{part}.txt").read_text().split() for part in ("train", "test"))
    return Sections(folder.name, load(train[0]), [load(name) for name in test])


def make_section(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of dark winding lines with blurred noise, and its labels."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(MADE, MADE)), 12)
    lines = np.abs(field) < 0.12 * field.std()
    spots = ndimage.gaussian_filter(rng.normal(size=(MADE, MADE)), 2)
    image = 170 - 90 * ndimage.gaussian_filter(lines.astype(float), 1.5) + 25 * spots / spots.std()
    image += rng.normal(scale=15, size=image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), np.where(lines, MEMBRANE, INTERIOR).astype(np.uint8)


def simulate_strokes(labels: np.ndarray, n_strokes: int = 40, length: int = 40, radius: int = 2) -> np.ndarray:
    """Return a label image with strokes along the middle of regions, as many per class as its area is large, else 0."""
    rng = np.random.default_rng(0)
    strokes = np.zeros_like(labels)
    for label in (INTERIOR, MEMBRANE):
        middle = skeletonize(labels == label)
        share = round(n_strokes * np.mean(labels == label))
        for start in rng.choice(np.argwhere(middle), share, replace=False):
            window = tuple(slice(max(at - length // 2, 0), at + length // 2) for at in start)
            pieces, _ = ndimage.label(middle[window], np.ones((3, 3)))
            piece = pieces == pieces[tuple(at - part.start for at, part in zip(start, window, strict=True))]
            brush = ndimage.binary_dilation(piece, disk(radius)) & (labels[window] == label)
            strokes[window][brush] = label
    return strokes


def mosaic(tiles: list[np.ndarray], size: int) -> np.ndarray:
    """Return a square image of `tiles`, row by row; when they run out again, each time turned or flipped anew."""
    n = -(-size // len(tiles[0]))

    def tile(k: int) -> np.ndarray:
        turn, image = k // len(tiles), tiles[k % len(tiles)]
        return np.rot90(image if turn % 8 < 4 else np.swapaxes(image, 0, 1), turn % 4)

    rows = [np.concatenate([tile(row * n + column) for column in range(n)], axis=1) for row in range(n)]
    return np.concatenate(rows)[:size, :size].copy()


class Side(NamedTuple):
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]  # image, strokes, image to be segmented later
    predict: Callable[[Any, np.ndarray], np.ndarray]
    features: Callable[[np.ndarray], Any]


def make_side(name: str, threads: int, channel_axis: int | None) -> Side:
    """Return the functions to time."""
    forest = RandomForestClassifier(100, n_jobs=threads, random_state=0)
    if name == "skimage":
        features = functools.partial(
            multiscale_basic_features, sigma_min=1, sigma_max=16, workers=threads, channel_axis=channel_axis
        )

        def fit_skimage(image: np.ndarray, strokes: np.ndarray, _: np.ndarray) -> TrainableSegmenter:
            segmenter = TrainableSegmenter(clf=forest, features_func=features)
            segmenter.fit(image, strokes)
            return segmenter

        return Side(fit_skimage, lambda segmenter, image: segmenter.predict(image), features)

    options: dict[str, Any] = {"channel_axis": channel_axis, "n_jobs": threads, "random_state": 0}
    more = {"dconv + rf": {"classifier": forest}, "dconv distilled": {"distill": True}}.get(name, {})

    def fit(image: np.ndarray, strokes: np.ndarray, later: np.ndarray) -> dconv.PixelClassifier:
        unlabeled = later if "distill" in more else None
        return dconv.PixelClassifier(**options, **more).fit(image, strokes, X_unlabeled=unlabeled)

    strokes = np.repeat([[INTERIOR], [MEMBRANE]], 32, axis=0) * np.ones((64, 64), np.uint8)
    small = np.zeros(strokes.shape if channel_axis is None else (*strokes.shape, 3), np.uint8)
    idle = dconv.PixelClassifier(classifier=DummyClassifier(), **options).fit(small, strokes)
    return Side(fit, lambda segmenter, image: segmenter.predict(image), idle.predict)


def channel_axis_of(sections: Sections) -> int | None:
    """Return where the images have their channels."""
    return -1 if sections.train[0].ndim == 3 else None


def check(sections: Sections, threads: int) -> None:
    """Raise unless dconv labels as its classifier does on features of the whole image, and every side learns."""
    image, truth = sections.test[0]
    strokes = simulate_strokes(sections.train[1])
    for name in SIDES:
        side = make_side(name, threads, channel_axis_of(sections))
        segmenter = side.fit(sections.train[0], strokes, image)
        labels = side.predict(segmenter, image)
        if name != "skimage":
            distilled = segmenter.student_ is not None
            features = (segmenter.student_features_ if distilled else segmenter.features_).transform(image)
            classifier = segmenter.student_ if distilled else segmenter.classifier_
            expected = classifier.predict(features.reshape(-1, features.shape[-1])).reshape(truth.shape)
            # What is compiled has other last digits: a pixel or two may lie on a border between classes.
            if np.mean(labels != expected) > 1e-5:
                raise AssertionError(f"{name}: compiled differs from the classifier in {(labels != expected).sum()}")
        score, chance = mean_iou_score(truth, labels), mean_iou_score(truth, np.full_like(truth, INTERIOR))
        if labels.shape != truth.shape or score <= chance:
            raise AssertionError(f"{name}: mean IoU {score:.3f}, that of one class everywhere is {chance:.3f}")


def first_call(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result of a call, its time and the peak of the resident memory in MB."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start, machine.resident("VmHWM") / 1e6


def best_time(call: Callable[[], Any], first: float, seconds: float = 8.0) -> float:
    """Return the best time of the `first` call and of as many more as `seconds` allow."""
    best = spent = first
    while spent + best < seconds:
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best


def run_side(name: str, set_name: str, size: int, threads: int) -> dict[str, Any]:
    """Return the figures of one side at one size; meant for a process of its own."""
    sections = load_sections(set_name)
    strokes = simulate_strokes(sections.train[1])
    image, truth = (mosaic([pair[part] for pair in sections.test], size) for part in (0, 1))
    side = make_side(name, threads, channel_axis_of(sections))

    def fit() -> Any:
        return side.fit(sections.train[0], strokes, image)

    before = machine.resident("VmRSS") / 1e6
    segmenter, fit_s, fit_mb = first_call(fit)
    labels, predict_s, predict_mb = first_call(lambda: side.predict(segmenter, image))
    features_s = first_call(lambda: side.features(image))[1]
    fit_s = best_time(fit, fit_s)
    predict_s = best_time(lambda: side.predict(segmenter, image), predict_s)
    features_s = best_time(lambda: side.features(image), features_s)
    return {
        "side": name,
        "size": size,
        "fit_s": fit_s,
        "predict_s": predict_s,
        "features_s": features_s,
        "fit_mb": fit_mb - before,
        "predict_mb": predict_mb - before,
        "accuracy": float(np.mean(labels == truth)),
        "iou": float(mean_iou_score(truth, labels)),
    }


def run_apart(name: str, set_name: str, size: int, threads: int) -> dict[str, Any]:
    """Return :func:`run_side` from a fresh process."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--set",
        set_name,
        "--sizes",
        str(size),
        "--threads",
        str(threads),
        "--side",
        name,
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def print_frames(threads: int) -> None:
    """Print how many photographs a second are labelled, learnt from 1 of 200 pixels of one, classes by colour."""
    image = (255 * transform.resize(data.astronaut(), FRAME)).astype(np.uint8)
    colors = image.reshape(-1, 3).astype(float)
    classes = KMeans(N_CLASSES, n_init=1, random_state=0).fit_predict(colors).reshape(FRAME) + 1
    scribbles = np.where(np.random.default_rng(0).random(FRAME) < 0.005, classes, 0)
    for name, options in {"dconv": {}, "dconv distilled": {"distill": True}}.items():
        segmenter = dconv.PixelClassifier(channel_axis=-1, n_jobs=threads, random_state=0, **options)
        segmenter.fit(image, scribbles)
        first = first_call(lambda segmenter=segmenter: segmenter.predict(image))[1]
        seconds = best_time(lambda segmenter=segmenter: segmenter.predict(image), first)
        print(f"{name:15}: {1 / seconds:5.1f} frames of {FRAME[1]} x {FRAME[0]} RGB, {N_CLASSES} classes, a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048], help="heights of the square images")
    parser.add_argument("--set", choices=SETS, default=SETS[0], help="the images")
    parser.add_argument("--frames", action="store_true", help="also time frames of colour")
    parser.add_argument("--threads", type=int, default=dconv._threads.default_n_threads())
    parser.add_argument("--only", choices=SIDES, nargs="+", default=SIDES, help="the sides to run")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # one measurement, printed as JSON
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options.side, options.set, options.sizes[0], options.threads)))
        return

    sections = load_sections(options.set)
    check(sections, options.threads)
    strokes = simulate_strokes(sections.train[1])
    level = dconv._kernels._dispatch.active_level()
    print(f"dconv {dconv.__version__} ({level}), {options.threads} threads, {sections.name}")
    print(f"learnt from {np.count_nonzero(strokes)} pixels ({np.mean(strokes > 0):.1%}) of one image\n")
    print(
        f"{'size':6} {'side':15} | {'fit s':>6} {'MB':>6} | {'predict s':>9} {'features':>8} {'Mpixel/s':>8} {'MB':>6}"
        f" | {'accuracy':>8} {'mean IoU':>8}"
    )
    records = []
    for size in options.sizes:
        rows = {}
        for name in options.only:
            row = rows[name] = run_apart(name, options.set, size, options.threads)
            records.append(row)
            print(
                f"{size:<6} {name:15} | {row['fit_s']:6.2f} {row['fit_mb']:6.0f} | {row['predict_s']:9.2f} "
                f"{row['features_s']:8.2f} {size * size / row['predict_s'] / 1e6:8.2f} {row['predict_mb']:6.0f} | "
                f"{row['accuracy']:8.3f} {row['iou']:8.3f}",
                flush=True,
            )
        keys = {"fit": "fit_s", "predict": "predict_s", "memory of predict": "predict_mb"}
        for name in [side for side in rows if side != "skimage" and "skimage" in rows]:
            ours, theirs = rows[name], rows["skimage"]
            ratios = ", ".join(f"{title} {theirs[key] / ours[key]:.1f}" for title, key in keys.items())
            share = ours["features_s"] / ours["predict_s"]
            print(f"{'':6} skimage / {name}: {ratios}; features are {share:.0%} of its predict", flush=True)
        print()
    if options.frames:
        print_frames(options.threads)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(
                {"threads": options.threads, "level": level, "data": sections.name, "rows": records}, file, indent=1
            )


if __name__ == "__main__":
    main()
