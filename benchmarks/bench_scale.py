"""Images larger than memory: `predict_blocks` on Zarr arrays against `predict` in memory, time and memory.

    python benchmarks/bench_scale.py [--side 32768] [--volume 1024 512 512] [--threads 2] [--folder DIR]

The image in memory has 4096 x 4096 pixels of uint8; the large one repeats it, in chunks of 1024 x 1024. The volume is
compared with one of 256 x 256 x 256 in the same way, in chunks of 128^3. Both are segmented by logistic regression on
all 66 features of a grey image, and in 3-D on those of two levels, the fastest that a model can be and so the hardest
to keep fed. Every run is a process of its own; the runs in memory come before and after the large one, as a machine's
speed changes over minutes. Memory is the peak of the whole process, with the interpreter and the libraries. Needs zarr.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dconv
from dconv._threads import default_n_threads

SMALL = {2: (4096, 4096), 3: (256, 256, 256)}
CHUNKS = {2: (1024, 1024), 3: (128, 128, 128)}


def make_piece(ndim: int) -> np.ndarray:
    """Return the image that larger ones repeat: blobs in noise."""
    shape = SMALL[ndim]
    rng = np.random.default_rng(0)
    blobs = np.add.outer(np.sin(np.arange(shape[0]) / 17), np.cos(np.arange(shape[1]) / 23))
    blobs = blobs if ndim == 2 else blobs[..., np.newaxis] + np.sin(np.arange(shape[2]) / 19)
    return np.clip(128 + 30 * blobs + rng.normal(scale=20, size=shape), 0, 255).astype(np.uint8)


def fit_model(piece: np.ndarray, threads: int) -> dconv.PixelClassifier:
    """Return a model that has learnt from two strokes in a corner of the piece."""
    corner = piece[tuple(slice(min(size, 512 if piece.ndim == 2 else 64)) for size in piece.shape)]
    labels = np.zeros(corner.shape, int)
    labels[10:60, 20:30], labels[10:60, 40:50] = 1, 2
    bank = dconv.AtrousFeatures(5 if piece.ndim == 2 else 2)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return dconv.PixelClassifier(bank, classifier, ndim=piece.ndim, max_samples=500, n_jobs=threads).fit(corner, labels)


def make_large(shape: tuple[int, ...], path: Path) -> None:
    """Write an image of `shape` that repeats the piece."""
    import zarr

    piece, chunks = make_piece(len(shape)), CHUNKS[len(shape)]
    image = zarr.create_array(path, shape=shape, chunks=chunks, dtype="u1")
    for block in np.ndindex(*(-(-n // step) for n, step in zip(shape, piece.shape, strict=True))):
        box = tuple(slice(i * n, min((i + 1) * n, size)) for i, n, size in zip(block, piece.shape, shape, strict=True))
        image[box] = piece[tuple(slice(part.stop - part.start) for part in box)]


def run(job: str, ndim: int, folder: Path, threads: int) -> dict[str, float]:
    """Return seconds, megapixels and peak memory of one run; "memory" or "blocks"."""
    piece = make_piece(ndim)
    model = fit_model(piece, threads)
    if job == "blocks":
        del piece
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    if job == "memory":
        model.predict(piece[tuple(slice(n // 4) for n in piece.shape)])  # what is set up once
        start = time.perf_counter()
        labels = model.predict(piece)
        seconds = time.perf_counter() - start
        n_pixels = labels.size
    else:
        import zarr

        source = zarr.open_array(folder / f"image{ndim}.zarr", mode="r")
        out = zarr.create_array(
            folder / f"labels{ndim}.zarr", shape=source.shape, chunks=CHUNKS[ndim], dtype="u1", overwrite=True
        )
        start = time.perf_counter()
        dconv.predict_blocks(model, source, out, n_jobs=threads, progress=False)
        seconds = time.perf_counter() - start
        n_pixels = source.size
    return {"seconds": seconds, "megapixels": n_pixels / 1e6, "peak": machine.resident("VmHWM") / 1e6}


def run_apart(job: str, ndim: int, folder: Path, threads: int) -> dict[str, float]:
    arguments = ["--job", job, "--ndim", ndim, "--folder", folder, "--threads", threads]
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def compare(shape: tuple[int, ...], folder: Path, threads: int) -> None:
    """Print what an image of `shape` takes, beside one in memory."""
    ndim = len(shape)
    start = time.perf_counter()
    make_large(shape, folder / f"image{ndim}.zarr")
    print(f"{' x '.join(map(str, shape))} uint8, made in {time.perf_counter() - start:.0f} s", flush=True)
    before = run_apart("memory", ndim, folder, threads)
    blocks = run_apart("blocks", ndim, folder, threads)
    after = run_apart("memory", ndim, folder, threads)
    rates = [each["seconds"] / each["megapixels"] for each in (before, after)]
    rate = blocks["seconds"] / blocks["megapixels"]
    sizes = " x ".join(map(str, SMALL[ndim]))
    times = " and ".join(f"{1e3 * each:.1f}" for each in rates)
    print(f"  in memory, {sizes}: {times} ms per megapixel, peak {before['peak']:.0f} MB")
    print(
        f"  in blocks: {1e3 * rate:.1f} ms per megapixel, {rate / np.mean(rates):.2f} times that in memory; "
        f"{blocks['seconds']:.0f} s in all, peak {blocks['peak']:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=32768, help="of the large image; 0 leaves it out")
    parser.add_argument("--volume", type=int, nargs=3, default=(1024, 512, 512), help="its shape; 0 0 0 leaves it out")
    parser.add_argument("--threads", type=int, default=default_n_threads())
    parser.add_argument("--folder", type=Path, help="where the images are put, a temporary folder if not told")
    parser.add_argument("--job", choices=["memory", "blocks"], help="for the processes that this one starts")
    parser.add_argument("--ndim", type=int, default=2, help="likewise")
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run(options.job, options.ndim, options.folder, options.threads)))
        return
    print(f"dconv {dconv.__version__}, {options.threads} threads")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for shape in ((options.side,) * 2, tuple(options.volume)):
            if min(shape):
                compare(shape, Path(folder), options.threads)


if __name__ == "__main__":
    main()
