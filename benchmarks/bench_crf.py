"""DenseCRF against pydensecrf, in one process, on the same threads and inputs.

    python benchmarks/bench_crf.py [--classes 2 5 21] [--threads 1 2] [--repeats 9] [--noise 25] [--large]

On a photograph of scikit-image, 500 x 376 (pydensecrf is wrong where height * width is not divisible by 4), with soft
classes by colour. Timed is everything from energies to probabilities: building the lattices and 10 iterations. Times
are the best of interleaved runs, and "ratio" is theirs, above 1 dconv is faster; pydensecrf has one thread only.
"difference" is the largest between the two results. --noise is the standard deviation of the noise on a second
photograph, which has many more lattice vertices; --large adds one of 10 megapixels, with the peak of resident memory
of either side above what it had before (Linux).
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
from skimage import data, transform

import dconv

SMALL, LARGE = (376, 500), (2736, 3648)


def photograph(shape: tuple[int, int], noise: float = 0) -> np.ndarray:
    """Return an 8-bit RGB photograph, with Gaussian noise."""
    image = 255 * transform.resize(data.astronaut(), shape, order=1, anti_aliasing=shape[0] < 512)
    image += noise * np.random.default_rng(0).normal(size=image.shape) if noise else 0
    return np.ascontiguousarray(image.clip(0, 255).round().astype(np.uint8))


def energies(image: np.ndarray, n_classes: int) -> np.ndarray:
    """Return -log of soft classes by colour, (height, width, n_classes)."""
    colors = image.reshape(-1, 3).astype(np.float32)
    centers = colors[np.random.default_rng(0).choice(len(colors), n_classes, replace=False)]
    out = np.empty((len(colors), n_classes), np.float32)
    for index, center in enumerate(centers):
        out[:, index] = ((colors - center) ** 2).sum(axis=1) / (2 * 40**2)
    out += np.log(np.exp(-out).sum(axis=1, keepdims=True))
    return np.minimum(out, -math.log(1e-5)).reshape(*image.shape[:2], n_classes)


def peer_call(image: np.ndarray, unary: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a call of pydensecrf, whose classes come first."""
    from pydensecrf import densecrf

    height, width, n_classes = unary.shape
    flat = np.ascontiguousarray(unary.reshape(-1, n_classes).T)

    def call() -> np.ndarray:
        crf = densecrf.DenseCRF2D(width, height, n_classes)
        crf.setUnaryEnergy(flat)
        crf.addPairwiseGaussian(sxy=3, compat=3)
        crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
        return np.asarray(crf.inference(10))

    return call


def our_call(image: np.ndarray, unary: np.ndarray, n_threads: int) -> Callable[[], np.ndarray]:
    """Return a call of DenseCRF at its defaults."""
    crf = dconv.DenseCRF(n_jobs=n_threads)
    return lambda: crf.refine_unary(image, unary)


def compare(image: np.ndarray, n_classes: int, threads: list[int], repeats: int) -> None:
    """Print times of both sides."""
    unary = energies(image, n_classes)
    peer = peer_call(image, unary)
    ours = {n: our_call(image, unary, n) for n in threads}
    expected = peer().reshape(n_classes, -1).T
    difference = np.abs(ours[threads[0]]().reshape(-1, n_classes) - expected).max()
    best = dict.fromkeys(["peer", *threads], np.inf)
    for repeat in range(repeats):
        for name, call in {"peer": peer, **ours}.items():
            if name == "peer" and repeat % 3:  # it takes most of the time, and varies least
                continue
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    ratios = ", ".join(f"{n} thread(s) {best[n]:.4f} s ratio {best['peer'] / best[n]:.1f}" for n in threads)
    pixels = image.shape[0] * image.shape[1]
    per_pixel = 1e9 * best[threads[-1]] / pixels
    print(
        f"{n_classes:3d} classes: pydensecrf {best['peer']:.3f} s, dconv {ratios}; {per_pixel:.0f} ns a pixel, "
        f"difference {difference:.1e}",
        flush=True,
    )


def peak_memory(side: str, n_classes: int) -> None:
    """Print by how many bytes one call on the large image raises this process' peak."""
    image = photograph(LARGE)
    unary = energies(image, n_classes)
    call = peer_call(image, unary) if side == "peer" else our_call(image, unary, 2)
    # What the preparation took and gave back must not hide what the call takes.
    Path("/proc/self/clear_refs").write_text("5")
    before = machine.resident("VmRSS")
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    print(f"{machine.resident('VmHWM') - before} {seconds}")


def large(n_classes: int) -> None:
    """Print time and memory of both sides on 10 megapixels, each in a process of its own."""
    found = {}
    for side in ("peer", "dconv"):
        command = [sys.executable, __file__, "--side", side, "--classes", str(n_classes)]
        peak, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
        found[side] = int(peak), float(seconds)
    (peer, peer_time), (ours, our_time) = found["peer"], found["dconv"]
    print(
        f"{n_classes:3d} classes, {LARGE[0]} x {LARGE[1]}: pydensecrf {peer_time:.2f} s {peer / 1e9:.2f} GB, dconv, 2 "
        f"threads, {our_time:.2f} s {ours / 1e9:.2f} GB; {1e9 * our_time / (LARGE[0] * LARGE[1]):.0f} ns a pixel",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 5, 21])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--noise", type=float, default=25)
    parser.add_argument("--large", action="store_true", help="10 megapixels too; takes minutes and several GB")
    parser.add_argument("--side", choices=["peer", "dconv"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        peak_memory(options.side, options.classes[0])
        return
    print(f"dconv {dconv.__version__}, photograph {SMALL[0]} x {SMALL[1]}, build and 10 iterations")
    for noise in dict.fromkeys([0, options.noise]):
        print(f"noise {noise:g}:")
        for n_classes in options.classes:
            compare(photograph(SMALL, noise), n_classes, options.threads, options.repeats)
    if options.large:
        for n_classes in options.classes:
            large(n_classes)


if __name__ == "__main__":
    main()
