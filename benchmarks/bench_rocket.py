"""MiniRocket against aeon's, in one process, on the same threads; and against local binary patterns on images.

    python benchmarks/bench_rocket.py [--only speed first memory accuracy texture] [--threads 2] [--repeats 7]

speed: the time to fit and to transform 1000 x 512, 200 x 4096 and 5000 x 128 random walks, and 300 x 512 with six
channels, the best of interleaved runs once aeon has compiled itself; "equal" is the share of features in which the two
agree, given the same biases. first: the time of the first fit and transform, of 50 x 512 in a new process, which is
when aeon compiles (no cache of an earlier run is read). memory: the peak of resident memory while 5000 x 512 are
transformed, above what was in use before and what the features themselves take (Linux). accuracy: the share of test
series that a ridge classifier names rightly on the sets that aeon's wheel holds, mean and standard deviation over
seeds. "ratio" is aeon's time to dconv's.

texture: patches of 32 x 32 pixels of scikit-image's brick, grass and gravel, those of the left halves to learn from and
those of the right halves to name: `MiniRocket(ndim=2)`, and histograms of uniform local binary patterns of 8, 16 and 24
neighbours at radius 1, 2 and 3.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
from dconv._kernels._dispatch import active_level
from skimage import data
from skimage.feature import local_binary_pattern
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dconv
from dconv._threads import default_n_threads

CELLS = [(1000, 512, 1), (200, 4096, 1), (5000, 128, 1), (300, 512, 6)]  # series, length, channels
SETS = ["arrow_head", "basic_motions", "gunpoint", "italy_power_demand", "osuleaf", "acsf1", "unit_test"]
TEXTURES = ("brick", "grass", "gravel")
PATCH = 32


def walks(n: int, length: int, channels: int) -> np.ndarray:
    """Return random walks of shape (n, length, channels)."""
    return np.random.default_rng(0).normal(size=(n, length, channels)).cumsum(axis=1).astype(np.float32)


def aeon_order(X: np.ndarray) -> np.ndarray:
    """Return series with channels before time."""
    return np.ascontiguousarray(np.moveaxis(X, -1, 1))


def peer(**parameters: Any) -> Any:
    """Return aeon's transformer."""
    from aeon.transformations.collection.convolution_based import MiniRocket

    return MiniRocket(**parameters)


def own(**parameters: Any) -> dconv.MiniRocket:
    """Return dconv's."""
    return dconv.MiniRocket(**parameters)


def seconds(call: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def speed(options: argparse.Namespace) -> None:
    """Print the time of every cell."""
    for n, length, channels in CELLS:
        X = walks(n, length, channels)
        ours, theirs = own(n_jobs=options.threads, random_state=0).fit(X), peer(n_jobs=options.threads, random_state=0)
        swapped = aeon_order(X)
        theirs.fit(swapped)
        indices = (ours.n_channels_per_combination_, ours.channel_indices_, ours.dilations_)
        kept = (*indices, ours.n_features_per_dilation_)
        theirs.parameters = (*(part.astype(np.int32) for part in kept), ours.biases_)
        equal = np.mean(np.abs(ours.transform(X) - theirs.transform(swapped)) < 1e-6)
        if equal < 0.9999:
            raise AssertionError(f"only {equal:.4%} of the features are those of aeon")
        calls = {
            "fit": (lambda ours=ours, X=X: ours.fit(X), lambda theirs=theirs, X=swapped: theirs.fit(X)),
            "transform": (lambda ours=ours, X=X: ours.transform(X), lambda t=theirs, X=swapped: t.transform(X)),
        }
        for name, sides in calls.items():
            runs = [[seconds(side) for side in sides] for _ in range(options.repeats)]
            mine, other = np.min(runs, axis=0)
            print(
                f"{n} x {length}{f' x {channels}' if channels > 1 else ''}, {name}: dconv {1e3 * mine:.0f} ms, "
                f"aeon {1e3 * other:.0f} ms, ratio {other / mine:.1f}; {equal:.3%} equal",
                flush=True,
            )


def in_new_process(call: str, side: str, threads: int) -> dict[str, float]:
    """Return what a function of this file measures for one side in a new process."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--measure", call, "--side", side, "--threads", str(threads)]
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def measure_first(side: str, threads: int) -> dict[str, float]:
    """Return the seconds of the first fit and of the first transform."""
    X = walks(50, 512, 1)
    X = X[..., 0] if side == "dconv" else aeon_order(X)
    model = {"dconv": own, "aeon": peer}[side](n_jobs=threads, random_state=0)
    return {"fit": seconds(lambda: model.fit(X)), "transform": seconds(lambda: model.transform(X))}


def measure_memory(side: str, threads: int) -> dict[str, float]:
    """Return the peak of memory in MB during `transform` above what was in use and what the features take."""
    X = walks(5000, 512, 1).astype(float)
    X = X[..., 0] if side == "dconv" else aeon_order(X)
    model = {"dconv": own, "aeon": peer}[side](n_jobs=threads, random_state=0).fit(X[:50])
    model.transform(X[:50])
    before = machine.resident("VmRSS")
    features = model.transform(X)
    return {"MB": (machine.resident("VmHWM") - before - features.nbytes) / 1e6}


def first(options: argparse.Namespace) -> None:
    """Print the time of first calls."""
    took = {side: in_new_process("first", side, options.threads) for side in ("dconv", "aeon")}
    for name in ("fit", "transform"):
        mine, other = took["dconv"][name], took["aeon"][name]
        print(f"first {name}: dconv {mine:.3f} s, aeon {other:.1f} s, ratio {other / mine:.0f}")


def memory(options: argparse.Namespace) -> None:
    """Print the memory of `transform`."""
    for side in ("dconv", "aeon"):
        took = in_new_process("memory", side, options.threads)["MB"]
        print(f"memory beside the features, 5000 x 512: {side} {took:.0f} MB")


def classifier(features: Any) -> Any:
    """Return a ridge classifier of features."""
    return make_pipeline(features, StandardScaler(with_mean=False), RidgeClassifierCV(np.logspace(-3, 3, 10)))


def accuracy(options: argparse.Namespace) -> None:
    """Print the accuracy on the sets in aeon's wheel."""
    from aeon import datasets

    for name in SETS:
        parts = {split: getattr(datasets, f"load_{name}")(split=split) for split in ("train", "test")}
        (X, y), (X_test, y_test) = parts["train"], parts["test"]
        scores: dict[str, list[float]] = {"dconv": [], "aeon": []}
        for seed in range(options.seeds):
            theirs = classifier(peer(n_jobs=options.threads, random_state=seed)).fit(X, y)
            scores["aeon"].append(theirs.score(X_test, y_test))
            ours = classifier(own(n_jobs=options.threads, random_state=seed)).fit(np.moveaxis(X, 1, -1), y)
            scores["dconv"].append(ours.score(np.moveaxis(X_test, 1, -1), y_test))
        shown = ", ".join(f"{side} {np.mean(s):.4f} +- {np.std(s):.4f}" for side, s in scores.items())
        print(f"{name} ({len(X)} and {len(X_test)} series): {shown}", flush=True)


def patches(half: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return patches of half of each texture, and which texture each is of."""
    X, y = [], []
    for label, name in enumerate(TEXTURES):
        image = getattr(data, name)()[:, half]
        rows, columns = (n // PATCH for n in image.shape)
        X.append(image.reshape(rows, PATCH, columns, PATCH).swapaxes(1, 2).reshape(-1, PATCH, PATCH))
        y += [label] * len(X[-1])
    return np.concatenate(X), np.array(y)


def binary_patterns(X: np.ndarray) -> np.ndarray:
    """Return histograms of uniform local binary patterns at three radii."""
    rows = []
    for image in X:
        parts = []
        for radius in (1, 2, 3):
            codes = local_binary_pattern(image, 8 * radius, radius, "uniform")
            parts.append(np.bincount(codes.astype(int).ravel(), minlength=8 * radius + 2) / codes.size)
        rows.append(np.concatenate(parts))
    return np.array(rows)


def texture(options: argparse.Namespace) -> None:
    """Print how well patches are told apart."""
    (X, y), (X_test, y_test) = patches(slice(0, 256)), patches(slice(256, 512))
    print(f"texture: {len(X)} patches to learn from, {len(X_test)} to name")
    for seed in range(options.seeds):
        model = classifier(own(ndim=2, n_jobs=options.threads, random_state=seed)).fit(X, y)
        took = seconds(lambda model=model: model[0].transform(X_test))
        print(f"  MiniRocket(ndim=2), seed {seed}: {model.score(X_test, y_test):.4f}, {1e3 * took:.0f} ms")
    ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-3, 3, 10))).fit(binary_patterns(X), y)
    took = seconds(lambda: binary_patterns(X_test))
    print(f"  local binary patterns: {ridge.score(binary_patterns(X_test), y_test):.4f}, {1e3 * took:.0f} ms")


def main() -> None:
    parts = {part.__name__: part for part in (speed, first, memory, accuracy, texture)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=default_n_threads())
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--measure", choices=["first", "memory"], help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--side", choices=["dconv", "aeon"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure = {"first": measure_first, "memory": measure_memory}[options.measure]
        print(json.dumps(measure(options.side, options.threads)))
        return
    print(f"dconv {dconv.__version__} ({active_level()}), {options.threads} threads")
    for part in options.only:
        parts[part](options)


if __name__ == "__main__":
    main()
