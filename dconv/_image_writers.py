"""Answers for images in files: the arrays that they are written to, and pictures of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dconv._image_readers import PICTURES, TIFFS, ImageFile, import_zarr
from dconv._whole_files import whole

_CHUNK = {1: 1 << 20, 2: 1024, 3: 128}  # of Zarr, along each spatial axis
_BIG = 1 << 31  # bytes beyond which a TIFF needs the addresses of BigTIFF


def suffix_for(path: Path, proba: bool) -> str:
    """Return the ending of what is written for an image: its own, but TIFF for what its format cannot hold."""
    suffix = path.suffix.lower() or ".zarr"
    return ".tif" if suffix in TIFFS or (suffix in PICTURES and (proba or suffix != ".png")) else suffix


def label_dtype(classes: np.ndarray) -> np.dtype:
    """Return the smallest dtype that holds all labels."""
    kinds = [np.dtype(kind) for kind in ("u1", "u2", "u4", "i1", "i2", "i4", "i8")]
    fit = [np.iinfo(kind).min <= classes.min() and classes.max() <= np.iinfo(kind).max for kind in kinds]
    return kinds[fit.index(True)] if any(fit) else classes.dtype


def write_answers(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    n_spatial: int,
    image: ImageFile,
    fill: Callable[[Any], None],
    resume: bool,
) -> None:
    """Let `fill` write to an array of `shape`, which is the file `path` when it is full.

    Until then it lies beside it under the name ``.partial-...``, from which a run that was killed goes on.

    Parameters
    ----------
    n_spatial : int
        How many axes, from the first, are cut into chunks.
    image : ImageFile
        What the answers are for; the place of its pixels is kept.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        answers = np.empty(shape, dtype)
        fill(answers)
        with whole(path) as temporary:
            _picture(answers).save(temporary)
        return
    partial = path.with_name(f".partial-{path.name}")
    journal = list(path.parent.glob(f"{partial.name}*.dconv-journal"))
    going_on = resume and partial.exists() and bool(journal)
    if not going_on:
        for each in (partial, *journal):
            shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)
    if suffix == ".zarr":
        out = _zarr_output(partial, shape, dtype, n_spatial, image, going_on)
    elif suffix in TIFFS:
        out = _tiff_output(partial, shape, dtype, image, going_on)
    elif going_on:
        out = np.lib.format.open_memmap(partial, "r+")
    else:
        out = np.lib.format.open_memmap(partial, "w+", dtype, shape)
    fill(out)
    del out
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(partial, path)


def _tiff_output(path: Path, shape: tuple[int, ...], dtype: np.dtype, image: ImageFile, going_on: bool) -> Any:
    import tifffile

    if going_on:
        return tifffile.memmap(path, mode="r+")
    big = int(np.prod(shape)) * dtype.itemsize >= _BIG
    options: dict[str, Any] = {
        "photometric": "minisblack",
        "metadata": None,
        "extratags": image.geo_tags,
        "bigtiff": big,
    }
    if dtype.kind == "f":
        options["planarconfig"] = "contig"
    return tifffile.memmap(path, shape=shape, dtype=dtype, **options)


def _zarr_output(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, n_spatial: int, image: ImageFile, going_on: bool
) -> Any:
    zarr = import_zarr()
    if going_on:
        return zarr.open_array(path / "0" if image.axes is not None else path, mode="r+")
    chunks = tuple(min(_CHUNK[min(n_spatial, 3)], size) for size in shape[:n_spatial]) + shape[n_spatial:]
    if image.axes is None:
        return zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype)
    axes = [axis for axis in image.axes if axis.get("type") != "channel"][-n_spatial:]
    channels = [{"name": "c", "type": "channel"}] * (len(shape) - n_spatial)
    scale = [1.0] * n_spatial
    if image.scale is not None:
        kept = [each for each, axis in zip(image.scale, image.axes, strict=True) if axis.get("type") != "channel"]
        scale = list(kept[-n_spatial:])
    transformation = {"type": "scale", "scale": [*scale, *[1.0] * len(channels)]}
    level = {"path": "0", "coordinateTransformations": [transformation]}
    ome = {"version": "0.5", "multiscales": [{"axes": [*axes, *channels], "datasets": [level]}]}
    group = zarr.create_group(path, attributes={"ome": json.loads(json.dumps(ome))})
    return group.create_array("0", shape=shape, chunks=chunks, dtype=dtype)


def _picture(labels: np.ndarray) -> Any:
    from PIL import Image

    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"labels of shape {labels.shape} and dtype {labels.dtype} are no PNG; name a .tif or .npy file as OUT"
        )
    return Image.fromarray(labels)


# --- pictures to look at ---

_COLORS = np.array(
    [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66]]
)  # which the colour-blind can tell apart (Okabe and Ito)
_LARGEST = 2048  # pixels along an axis of a picture


def write_overlay(path: Path, image: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> None:
    """Write a picture of an image (*spatial, channels) under the colours of its labels, or of its middle slice."""
    from PIL import Image

    with whole(path) as temporary:
        Image.fromarray(overlay(image, labels, classes)).save(temporary)


def overlay(image: Any, labels: Any, classes: np.ndarray) -> np.ndarray:
    """Return the picture, (height, width, 3) of uint8, of at most 2048 pixels along an axis."""
    middle = tuple(size // 2 for size in labels.shape[: max(0, labels.ndim - 2)])
    steps = tuple(slice(None, None, -(-size // _LARGEST)) for size in labels.shape[len(middle) :])
    seen, colored = np.asarray(image[middle])[steps].astype(float), np.asarray(labels[middle])[steps]
    if colored.ndim == 1:
        seen, colored = np.repeat(seen[np.newaxis], 32, axis=0), np.repeat(colored[np.newaxis], 32, axis=0)
    seen = seen[..., :3] if seen.shape[-1] >= 3 else np.repeat(seen[..., :1], 3, axis=-1)
    low, high = np.percentile(seen[np.isfinite(seen)], (1, 99))
    seen = 255 * np.clip((seen - low) / max(high - low, 1e-12), 0, 1)
    colors = _COLORS[np.searchsorted(classes, colored) % len(_COLORS)]
    return np.round(0.6 * np.nan_to_num(seen) + 0.4 * colors).astype(np.uint8)
