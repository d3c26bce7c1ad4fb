"""AtrousFeatures against scikit-image's features, in one process, on the same threads.

    python benchmarks/bench_features.py [--size 512] [--threads 2] [--seconds 0.6]

On a grey and on an RGB image of uniform noise in float32, whose values change the time of neither side:
`dconv.AtrousFeatures` at its defaults, and `skimage.feature.multiscale_basic_features` (intensity, edges and texture)
at sigma 1 to 16, as in bench_predict.py. They compute different features, so their numbers are given beside the times,
which are the best of interleaved runs; "ratio" is that of the times, above 1 dconv is faster.
"""

from __future__ import annotations

import argparse

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
from skimage.feature import multiscale_basic_features

import dconv
from dconv._threads import default_n_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="height of the square images")
    parser.add_argument("--threads", type=int, default=default_n_threads())
    parser.add_argument("--seconds", type=float, default=0.6, help="for each side, at least")
    options = parser.parse_args()
    print(f"dconv {dconv.__version__}, {options.size} x {options.size}, {options.threads} threads")
    for name, channels in (("grey", ()), ("RGB", (3,))):
        image = np.random.default_rng(0).random((options.size, options.size, *channels), np.float32)
        axis = -1 if channels else None
        bank = dconv.AtrousFeatures(channel_axis=axis, n_jobs=options.threads).fit(image)

        def skimage(image: np.ndarray = image, axis: int | None = axis) -> np.ndarray:
            return multiscale_basic_features(image, channel_axis=axis, sigma_min=1, workers=options.threads)

        calls = {"dconv": lambda bank=bank, image=image: bank.transform(image), "skimage": skimage}
        numbers = {side: call().shape[-1] for side, call in calls.items()}
        times = machine.best_in_turns(calls, options.seconds)
        sides = ", ".join(f"{side} {numbers[side]} features in {1e3 * times[side]:.1f} ms" for side in calls)
        print(f"{name}: {sides}; ratio {times['skimage'] / times['dconv']:.1f}")


if __name__ == "__main__":
    main()
