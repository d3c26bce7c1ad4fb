"""Answers for images in files: the arrays that they are written to, and pictures of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dconv._image_readers import PICTURES, TIFFS, ImageFile, import_zarr, is_zarr
from dconv._lazy_arrays import LazyArray, RowBands, from_array
from dconv._whole_files import whole

WRITTEN = TIFFS | {".png", ".npy", ".zarr"}  # endings of files that answers can be written to

_CHUNK = {1: 1 << 20, 2: 1024, 3: 128}  # of Zarr, along each spatial axis
_BIG = 1 << 31  # bytes beyond which a TIFF needs the addresses of BigTIFF


def suffix_for(path: Path, dtype: np.dtype) -> str:
    """Return the ending of what is written for an image: its own, but TIFF for what its format cannot hold."""
    suffix = path.suffix.lower() or ".zarr"
    in_picture = suffix == ".png" and dtype in (np.uint8, np.uint16)
    return ".tif" if suffix in TIFFS or (suffix in PICTURES and not in_picture) else suffix


def label_dtype(classes: np.ndarray) -> np.dtype:
    """Return the smallest dtype that holds all labels."""
    kinds = [np.dtype(kind) for kind in ("u1", "u2", "u4", "i1", "i2", "i4", "i8")]
    fit = [np.iinfo(kind).min <= classes.min() and classes.max() <= np.iinfo(kind).max for kind in kinds]
    return kinds[fit.index(True)] if any(fit) else classes.dtype


def write_answers(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    n_pages: int | None,
    n_spatial: int,
    image: ImageFile,
    fill: Callable[[Any], None],
    resume: bool,
) -> None:
    """Let `fill` write to an array of `shape`, which is the file `path` when it is full.

    Until then it lies beside it under the name ``.partial-...``, from which a run that was killed goes on.

    Parameters
    ----------
    n_pages : int or None
        How many images there are, on the first axis; None is one, without such an axis.
    n_spatial : int
        Axes of one image.
    image : ImageFile
        What the answers are for; the place of its pixels is kept.

    Raises
    ------
    ValueError
        If the format of the file cannot hold them, or a folder of that name is no Zarr.
    """
    from PIL import Image

    suffix = path.suffix.lower()
    if path.is_dir() and not (suffix == ".zarr" and is_zarr(path)):
        raise ValueError(f"{path} is a folder, and no Zarr that could be replaced")
    if suffix == ".png":
        if len(shape) != 2 or dtype not in (np.uint8, np.uint16):
            what = f"labels of {dtype}" if dtype.kind != "f" else "probabilities"
            raise ValueError(f"a PNG holds no {what} of shape {shape}; name a .tif, .npy or .zarr file as OUT")
        answers = np.empty(shape, dtype)
        fill(answers)
        with whole(path) as temporary:
            Image.fromarray(answers).save(temporary)
        return
    partial = path.with_name(f".partial-{path.name}")
    journal = list(path.parent.glob(f"{partial.name}*.dconv-journal"))
    going_on = resume and partial.exists() and bool(journal)
    if not going_on:
        for each in (partial, *journal):
            _remove(each)
    if suffix == ".zarr":
        out = _zarr_output(partial, shape, dtype, n_pages, n_spatial, image, going_on)
    elif suffix in TIFFS:
        out = _tiff_output(partial, shape, dtype, image, going_on)
    elif going_on:
        out = np.lib.format.open_memmap(partial, "r+")
    else:
        out = np.lib.format.open_memmap(partial, "w+", dtype, shape)
    try:
        fill(out)
    except BaseException:
        del out
        if not list(path.parent.glob(f"{partial.name}*.dconv-journal")):  # there is nothing to go on from
            _remove(partial)
        raise
    del out
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(partial, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    n_pages: int | None,
    n_spatial: int,
    image: ImageFile,
    going_on: bool,
) -> Any:
    zarr = import_zarr()
    if going_on:
        return zarr.open_array(path / "0" if image.axes is not None else path, mode="r+")
    n_before = 0 if n_pages is None else 1
    n_axes = n_before + n_spatial
    sides = (1,) * n_before + (_CHUNK[n_spatial],) * n_spatial  # pages are written one after another
    chunks = tuple(min(side, size) for side, size in zip(sides, shape, strict=False)) + shape[n_axes:]
    if image.axes is None:
        return zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype)
    kept = [axis for axis in range(len(image.axes)) if axis != image.channel_axis][-n_axes:]
    channels = [{"name": "c", "type": "channel"}] * (len(shape) - n_axes)
    scale = [1.0] * n_axes if image.scale is None else [image.scale[axis] for axis in kept]
    transformation = {"type": "scale", "scale": [*scale, *[1.0] * len(channels)]}
    level = {"path": "0", "coordinateTransformations": [transformation]}
    axes = [*(image.axes[axis] for axis in kept), *channels]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    group = zarr.create_group(path, attributes={"ome": json.loads(json.dumps(ome))})
    return group.create_array("0", shape=shape, chunks=chunks, dtype=dtype)


# --- pictures to look at ---

_COLORS = np.array(
    [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66]]
)  # which the colour-blind can tell apart (Okabe and Ito)
_LARGEST = 2048  # pixels along an axis of a picture


def write_overlay(path: Path, image: Any, answers: Any, classes: np.ndarray) -> None:
    """Write a picture of an image under the colours of its labels: of its middle slice, of at most 2048 pixels along an
    axis. No more of arrays on a disk is held at once than some rows.

    Parameters
    ----------
    image : array of shape (*spatial, channels)
    answers : array of shape (*spatial) or (*spatial, n_classes)
        Labels or probabilities.
    """
    from PIL import Image

    spatial = image.shape[:-1]
    seen, found = _sampled(image, spatial), _sampled(answers, spatial)
    if found.ndim > min(2, len(spatial)):
        certain = np.isfinite(found).all(axis=-1)
        labels = np.ma.masked_array(classes[np.nan_to_num(found).argmax(axis=-1)], ~certain)
    else:
        labels = np.ma.masked_array(found, ~np.isin(found, classes))
    with whole(path) as temporary:
        Image.fromarray(overlay(seen, labels, classes)).save(temporary)


def _sampled(array: Any, spatial: tuple[int, ...]) -> np.ndarray:
    """Return some pixels of the middle slice of an array (*spatial, ...), which is read in order."""
    for size in spatial[: max(0, len(spatial) - 2)]:
        array = array.item(size // 2) if isinstance(array, LazyArray) else array[size // 2]
    step, *others = (-(-size // _LARGEST) for size in spatial[-2:])
    columns = tuple(slice(None, None, other) for other in others)
    if isinstance(array, np.ndarray):
        return np.asarray(array[(slice(None, None, step), *columns)])
    lazy = array if isinstance(array, LazyArray) else from_array(array, "image")
    rows, start = [], 0
    for band in RowBands(lazy).bands():
        rows.append(band[(slice(-start % step, None, step), *columns)].copy())
        start += len(band)
    return np.concatenate(rows)


def overlay(image: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the picture (height, width, 3), uint8, of an image (height, width, channels) or a series (length,
    channels) under the colours of its labels; what is masked in these has none.
    """
    seen = image.astype(np.float32)
    if labels.ndim == 1:
        seen, labels = np.repeat(seen[np.newaxis], 32, axis=0), np.ma.stack([labels] * 32)
    finite = seen[np.isfinite(seen)]
    low, high = np.percentile(finite, (1, 99)) if len(finite) else (0, 1)
    seen = np.clip((np.nan_to_num(seen) - np.float32(low)) * np.float32(255 / max(high - low, 1e-12)), 0, 255)
    seen = seen[..., :3] if seen.shape[-1] >= 3 else np.repeat(seen[..., :1], 3, axis=-1)
    colors = _COLORS.astype(np.float32)[np.searchsorted(classes, np.ma.getdata(labels)) % len(_COLORS)]
    hidden = np.ma.getmaskarray(labels)[..., np.newaxis]
    return np.round(np.where(hidden, seen, 0.6 * seen + 0.4 * colors)).astype(np.uint8)
