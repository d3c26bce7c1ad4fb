"""How the cost of a prediction grows: with pixels, channels, levels, classes, block size and workers of dask.

    python benchmarks/bench_costs.py [--threads 2] [--seconds 1] [--workers 1 2]

Milliseconds per megapixel of `predict`, best of interleaved runs, of the model that bench_scale.py takes, logistic
regression on all features, on 1024 x 1024 pixels of noise unless told otherwise; then of `predict_blocks` from memory
to memory in blocks of several sizes; then of `dconv.distributed.predict` on clusters of processes with one thread each,
on a 4096 x 4096 image in Zarr and to Zarr, in chunks of 1024 x 1024. The last part needs dask, distributed and zarr.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dconv
from dconv._threads import default_n_threads

SIDE = 1024
_RUNS_OF_WORKERS = 3


def new_model(threads: int, channels: int = 1, n_levels: int = 5, n_classes: int = 2) -> dconv.PixelClassifier:
    """Return a model that has learnt from noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (256, 256, channels)).astype(np.uint8)
    labels = np.zeros((256, 256), int)
    labels[::4, ::4] = rng.integers(1, n_classes + 1, (64, 64))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=50, tol=0.1))
    bank = dconv.AtrousFeatures(n_levels)
    return dconv.PixelClassifier(bank, classifier, channel_axis=-1, n_jobs=threads).fit(image, labels)


def new_image(side: int = SIDE, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (side, side, channels)).astype(np.uint8)


def show(title: str, calls: dict[str, Callable[[], Any]], megapixels: dict[str, float], seconds: float) -> None:
    times = machine.best_in_turns(calls, seconds)
    print(f"{title}: " + ", ".join(f"{name}: {1e3 * times[name] / megapixels[name]:.0f}" for name in calls), flush=True)


def show_models(title: str, models: dict[str, dconv.PixelClassifier], seconds: float) -> None:
    """Print the cost of models on one image size."""
    calls = {name: partial(model.predict, new_image(SIDE, model.n_channels_in_)) for name, model in models.items()}
    show(title, calls, dict.fromkeys(models, SIDE**2 / 1e6), seconds)


def show_workers(n_workers: list[int]) -> None:
    """Print the cost on clusters of processes, and the seconds of processor time that their workers took."""
    import dask
    import dask.array as da
    import zarr
    from distributed import Client, LocalCluster

    image, model = new_image(4096)[..., 0], new_model(1)
    with tempfile.TemporaryDirectory() as folder:
        source = zarr.create_array(f"{folder}/in.zarr", shape=image.shape, chunks=(1024, 1024), dtype="u1")
        source[...] = image
        out = zarr.create_array(f"{folder}/out.zarr", shape=image.shape, chunks=(1024, 1024), dtype="i8")
        for count in n_workers:
            with (
                dask.config.set({"distributed.worker.daemon": False}),
                LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,
                Client(cluster) as client,
            ):
                y = dconv.distributed.predict(model, da.from_zarr(source)[..., np.newaxis])
                client.run(__import__, "dconv")
                best = machine.best(lambda y=y: da.store(y, out, lock=False), _RUNS_OF_WORKERS)
                taken = sum(client.run(time.process_time).values()) / _RUNS_OF_WORKERS
                megapixels = image.size / 1e6
                print(
                    f"dask, {count} worker(s): {1e3 * best / megapixels:.0f}, "
                    f"of processors {1e3 * taken / megapixels:.0f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=default_n_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="for each cost, at least")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    threads, seconds = options.threads, options.seconds
    print(f"dconv {dconv.__version__}, {threads} threads; milliseconds per megapixel")
    model = new_model(threads)
    sides = (256, 512, 1024, 2048, 4096)
    calls: dict[str, Callable[[], Any]] = {f"{side}^2": partial(model.predict, new_image(side)) for side in sides}
    show("pixels", calls, {f"{side}^2": side**2 / 1e6 for side in sides}, seconds)
    shown = {}
    for channels in (1, 3, 8):
        each = new_model(threads, channels=channels)
        shown[f"{channels} ({each.n_features_} features)"] = each
    show_models("channels", shown, seconds)
    shown = {}
    for n_levels in (2, 3, 4, 5, 6):
        each = new_model(threads, n_levels=n_levels)
        left, right = each.features_.halo_[0]
        shown[f"{n_levels} ({each.n_features_} features, halo {max(left, right)})"] = each
    show_models("levels", shown, seconds)
    show_models("classes", {str(n): new_model(threads, n_classes=n) for n in (2, 5, 20)}, seconds)
    image, labels = new_image(4096), np.empty((4096, 4096), np.uint8)
    blocks = (128, 256, 512, 1024, 2048)
    calls = {
        f"{side}^2": lambda side=side: dconv.predict_blocks(model, image, labels, block_shape=side, progress=False)
        for side in blocks
    }
    show("blocks of 4096^2", calls, dict.fromkeys(calls, image[..., 0].size / 1e6), seconds)
    if options.workers:
        show_workers(options.workers)


if __name__ == "__main__":
    main()
