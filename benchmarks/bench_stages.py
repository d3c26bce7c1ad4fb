"""Where the time of `predict` goes, stage by stage, beside what the arithmetic of each stage takes at least.

    python benchmarks/bench_stages.py [--size 1024] [--set roads-aerial]

Learnt and segmented is what bench_predict.py learns and segments. One thread works block by block, and the CPU time of
that thread is taken, of each block the least of several passes; so the table says something on a machine that does
other things, too. Stages:

- features: a block is read with its halo and mixed into planes; these are smoothed into their levels, and the levels
  made features, band by band
- predictor: what the compiled classifier makes of them, probabilities
- output: labels of these, written to the result

"limit" is the least a stage can take, in the same unit. For features and networks: their operations, a
multiply-add being one, at the rate at which vectors of this machine multiply and add in registers; halos, square roots,
loads and stores are not counted. For trees whose pixels are lanes of vectors: a comparison and a mask for each test. Of
deep trees the same for the head; how long the steps below it take is a matter of memory. For the output: the bytes of
labels at the rate of streaming stores.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
from bench_predict import SETS, channel_axis_of, load_sections, mosaic, simulate_strokes
from dconv._kernels._dispatch import active_level
from dconv._kernels._network import all_finite
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

import dconv
from dconv._pixels import blocks_of
from dconv.predictors import answer_of, compiled_or_none, labels_of

# Operations of a pixel and level in 2-D: derivatives once, where they are used first.
OPERATIONS = {
    "level": 0,
    "wavelet": 1,
    "gradient": 10 + 3,  # two kernels of 2 and 3 taps; squares and root
    "hessian": 6 + 6 + 4 + 8,  # 3 and 3 taps, twice, and 2 and 2; two eigenvalues
    "structure_tensor": 3 * (2 * 5 + 5) + 10,  # products over 5 taps, smoothed over 5; two eigenvalues and roots
    "std": 2 * 5 * 4 + 1,  # a mean and squared differences over 5 taps, along both axes
    "extrema": 8 * 2 + 2,
    "lines": 20 * 1 + 8 * 7 + 8 * 3,  # 20 pairs of a direction and a part of the Hessian that counts in it; 7 taps
}
SMOOTHING = 10  # taps


def sides(threads: int) -> dict[str, dict[str, Any]]:
    return {
        "default": {},
        "extra trees, 64 leaves": {
            "classifier": ExtraTreesClassifier(100, max_leaf_nodes=64, n_jobs=threads, random_state=0)
        },
        "random forest, deep": {"classifier": RandomForestClassifier(100, n_jobs=threads, random_state=0)},
        "distilled": {"distill": True},
    }


def stages(features: Any, compiled: Any, image: np.ndarray, block: Any, labels: np.ndarray) -> list[float]:
    """Return the CPU time of this thread for the stages of one block, in seconds."""
    now = time.thread_time
    took, bands = [0.0] * 3, features._transform_bands(image, block)
    start = now()
    for band, rows in bands:
        computed = now()
        rows = rows.reshape(-1, rows.shape[-1])
        if not all_finite(rows):
            raise AssertionError("features that are not finite")
        answer = answer_of(compiled, rows)
        answered = now()
        labels[band] = labels_of(compiled, answer).reshape([part.stop - part.start for part in band])
        end = now()
        took = [total + more for total, more in zip(took, np.diff([start, computed, answered, end]), strict=True)]
        start = end
    return took


def predictor_operations(predictor: Any) -> int:
    """Return the operations of a row in a compiled classifier, as far as they are counted; see above."""
    if hasattr(predictor, "_network"):
        return sum(layer.affine.weight.size for layer in predictor._network.merged())
    if hasattr(predictor, "_packed"):
        return 2 * len(predictor._packed.__reduce__()[1][5])  # tests: a comparison and a mask
    return sum(predictor_operations(part) for part in predictor._parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="height of the square image")
    parser.add_argument("--set", choices=SETS, default=SETS[0], help="the images")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=dconv._threads.default_n_threads(), help="of fit")
    options = parser.parse_args()
    sections = load_sections(options.set)
    strokes = simulate_strokes(sections.train[1])
    image = mosaic([pair[0] for pair in sections.test], options.size)
    last = image if image.ndim == 3 else image[..., np.newaxis]
    labels = np.empty(image.shape[:2], strokes.dtype)
    limits = machine.limits(1)
    per_pixel = 1e9 / labels.size
    print(f"dconv {dconv.__version__} ({active_level()}), one thread, {sections.name}, {image.shape}")
    print(f"{limits['fma'] / 2:.0f} billion multiply-adds a second, {limits['stream']:.1f} GB/s of streaming stores")
    print("nanoseconds a pixel (limit)\n")
    print(f"{'':23} {'features':>14} {'predictor':>14} {'output':>14} {'together':>9}")
    for name, more in sides(options.threads).items():
        model = dconv.PixelClassifier(
            channel_axis=channel_axis_of(sections), n_jobs=options.threads, random_state=0, **more
        )
        model.fit(sections.train[0], strokes, **({"X_unlabeled": image} if "distill" in more else {}))
        classifier = model.student_ if "distill" in more else model.classifier_
        features = (model.student_features_ if "distill" in more else model.features_)._for_image(last)
        bank = features._bank
        blocks = list(blocks_of(labels.shape, bank.n_features))
        compiled = compiled_or_none(classifier, "predict")
        passes = [[stages(features, compiled, last, block, labels) for block in blocks] for _ in range(options.repeats)]
        took = np.min(passes, axis=0).sum(axis=0) * per_pixel
        n_smoothings = sum(len(bank._level_margins(index)) - 1 for index in range(len(bank.planes)))
        operations = [
            SMOOTHING * n_smoothings
            + bank.n_levels * sum(OPERATIONS[group] for plane in bank.planes for group in plane.groups),
            predictor_operations(compiled),
        ]
        bounds = [2 * n / limits["fma"] for n in operations] + [labels.itemsize / limits["stream"]]
        cells = [f"{a:7.1f} ({b:4.1f})" for a, b in zip(took, bounds, strict=True)]
        print(f"{name:23} " + " ".join(f"{cell:>14}" for cell in cells) + f" {took.sum():9.1f}", flush=True)


if __name__ == "__main__":
    main()
