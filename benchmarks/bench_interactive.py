"""Add a scribble to an image and see its labels again: how long a user waits.

    python benchmarks/bench_interactive.py [--size 1024] [--repeats 5]

The image is made of the training image of `isbi2012-em` (as in bench_predict.py, made images where the data are
missing), turned and flipped until it has the wanted size. A model is fitted to all strokes but some; then these are
added one by one, learnt and the image predicted. Features at labelled pixels are kept from one call to the next, so
those of the new stroke alone are computed. Sides:

- default: `PixelClassifier()`, whose `fit` chooses a forest, a perceptron or both each time
- default, goes on: the same by `partial_fit` of all strokes: the choice is kept, the forest is fitted anew, the
  perceptron learns for an epoch
- default distilled: with `distill=True`
- extra trees: the forest of the default alone, by `fit`
- perceptron, fit: soft clip, scaler and `PerceptronClassifier()`, by `fit`
- perceptron: the same by `partial_fit` of all strokes, an epoch
- naive Bayes: `GaussianNB()` by `partial_fit` of the new stroke

"learn", "predict" and "wait", which is both, are those of the stroke with the shortest wait; "CPU" is the time of all
cores for it: on a machine that does other things it says more. "IoU" is the mean IoU of all pixels of this one image,
before and after all of those strokes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any, NamedTuple

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
from bench_predict import SETS, channel_axis_of, load_sections, mosaic, simulate_strokes
from scipy import ndimage
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dconv
from dconv.metrics import mean_iou_score


class Side(NamedTuple):
    classifier: Any
    options: dict[str, Any]
    learns: str  # "fit", or "partial_fit" of "all" or of "new" strokes


def make_sides(threads: int) -> dict[str, Side]:
    perceptron = make_pipeline(dconv.SoftClipScaler(), StandardScaler(), dconv.PerceptronClassifier(random_state=0))
    forest = ExtraTreesClassifier(100, max_leaf_nodes=64, n_jobs=threads, random_state=0)
    return {
        "default": Side(None, {}, "fit"),
        "default, goes on": Side(None, {}, "all"),
        "default distilled": Side(None, {"distill": True}, "fit"),
        "extra trees": Side(forest, {}, "fit"),
        "perceptron, fit": Side(perceptron, {}, "fit"),
        "perceptron": Side(perceptron, {}, "all"),
        "naive Bayes": Side(GaussianNB(), {}, "new"),
    }


def without(strokes: np.ndarray, n_strokes: int) -> list[np.ndarray]:
    """Return label images that grow by a stroke, up to `strokes`; those of middling size come last."""
    parts, n_parts = ndimage.label(strokes, np.ones((3, 3)))
    sizes = ndimage.sum_labels(strokes > 0, parts, np.arange(1, n_parts + 1))
    order = 1 + np.argsort(np.abs(sizes - np.median(sizes)), kind="stable")[:n_strokes]
    return [np.where(np.isin(parts, order[kept:]), 0, strokes) for kept in range(n_strokes + 1)]


def measure(side: Side, image: np.ndarray, steps: list[np.ndarray], truth: np.ndarray, **options: Any) -> list[float]:
    """Return seconds of the first fit, of learning a stroke, of predicting, both and CPU; mean IoU before and after."""
    model = dconv.PixelClassifier(classifier=side.classifier, random_state=0, **options, **side.options)
    start = time.perf_counter()
    model.fit(image, steps[0])
    first = time.perf_counter() - start
    before = mean_iou_score(truth, model.predict(image))
    waits = []
    for old, new in itertools.pairwise(steps):
        start, cpu = time.perf_counter(), time.process_time()
        if side.learns == "fit":
            model.fit(image, new)
        else:
            model.partial_fit(image, new if side.learns == "all" else np.where(old > 0, 0, new))
        learnt = time.perf_counter()
        labels = model.predict(image)
        end = time.perf_counter()
        waits.append((end - start, learnt - start, end - learnt, time.process_time() - cpu))
    wait, learn, predict, cpu = min(waits)
    return [first, learn, predict, wait, cpu, before, mean_iou_score(truth, labels)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="height of the square image")
    parser.add_argument("--strokes", type=int, default=40, help="strokes altogether, about")
    parser.add_argument("--repeats", type=int, default=5, help="strokes that are added one by one")
    parser.add_argument("--set", choices=SETS, default=SETS[0], help="the image")
    parser.add_argument("--threads", type=int, default=dconv._threads.default_n_threads())
    parser.add_argument("--only", default="", help="run the sides whose name holds this")
    options = parser.parse_args()
    sections = load_sections(options.set)
    image, truth = (mosaic([part], options.size) for part in sections.train)
    steps = without(simulate_strokes(truth, options.strokes), options.repeats)
    level = dconv._kernels._dispatch.active_level()
    print(f"dconv {dconv.__version__} ({level}), {options.threads} threads, {sections.name}, {image.shape}")
    print(f"from {np.count_nonzero(steps[0])} to {np.count_nonzero(steps[-1])} labelled pixels, seconds\n")
    print(f"{'':18} first fit |  learn predict   wait    CPU | IoU before  after")
    for name, side in make_sides(options.threads).items():
        if options.only not in name:
            continue
        first, learn, predict, wait, cpu, before, after = measure(
            side, image, steps, truth, channel_axis=channel_axis_of(sections), n_jobs=options.threads
        )
        print(
            f"{name:18} {first:9.2f} | {learn:6.2f} {predict:7.2f} {wait:6.2f} {cpu:6.2f} | {before:10.3f} "
            f"{after:6.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
