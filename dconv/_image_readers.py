"""Images from files, as arrays of the numbers that the files hold: nothing is rescaled.

PNG and other pictures, TIFF (of several pages, BigTIFF), NPY, Zarr and OME-Zarr.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dconv._caller_warnings import warn_caller

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
TIFFS = frozenset({".tif", ".tiff", ".btf"})
SUFFIXES = PICTURES | TIFFS | {".npy", ".zarr"}

# Where a GeoTIFF says where its pixels lie: scale, tie points, transformation, and the keys with their values.
_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)


class ImageFile(NamedTuple):
    """What was found in a file: an array that slices, and what a file of the same pixels should keep."""

    array: Any
    geo_tags: tuple = ()  # of a GeoTIFF, as tifffile writes them
    axes: tuple[dict, ...] | None = None  # of an OME-Zarr image, one for each axis of the array
    scale: tuple[float, ...] | None = None  # likewise
    channel_axis: int | None = None  # if the file tells where its channels lie


def is_zarr(path: Path) -> bool:
    """Tell whether a folder holds Zarr."""
    return path.is_dir() and any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def files_in(path: Path) -> list[Path]:
    """Return the images that a path given by a user stands for: itself, or those in a folder, by name.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_dir() or is_zarr(path):
        return [path]
    found = [each for each in sorted(path.iterdir()) if each.suffix.lower() in SUFFIXES and each.name[0] != "."]
    if not found:
        raise FileNotFoundError(f"{path} holds no images, files that end with {', '.join(sorted(SUFFIXES))}")
    return found


def open_image(path: Path, labels: bool = False) -> ImageFile:
    """Return the image in a file; arrays, TIFFs without compression and Zarr are read when they are sliced.

    A picture with a palette is in colour, or if it holds `labels`, these are the numbers of the palette.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    ImportError
        If it needs zarr, which is not there.
    """
    suffix = path.suffix.lower()
    if is_zarr(path) or suffix == ".zarr":
        return _open_zarr(path)
    if suffix == ".npy":
        return ImageFile(np.load(path, mmap_mode="r", allow_pickle=False))
    if suffix in TIFFS:
        return _open_tiff(path)
    return ImageFile(_read_picture(path, labels))


def _read_picture(path: Path, labels: bool) -> np.ndarray:
    from PIL import Image

    with _any_size(), Image.open(path) as picture:
        if picture.mode == "1" and labels:
            return np.array(picture).astype(np.uint8)
        if picture.mode == "P" and not labels:
            return np.array(picture.convert("RGB"))
        stored = next((str(tile[3]) for tile in picture.tile), "")
        if ";16" in stored and not picture.mode.startswith("I"):
            raise ValueError(
                "it holds 16 bits of each colour, of which this reader of pictures would keep 8; save it as TIFF"
            )
        return np.array(picture)


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Let Pillow open pictures of any size: it takes those of more than 179 megapixels for attacks."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _open_tiff(path: Path) -> ImageFile:
    import tifffile

    with tifffile.TiffFile(path) as file:
        first, *others = file.series
        if others:
            sizes = ", ".join("x".join(map(str, series.shape)) for series in others)
            warn_caller(
                f"{path} holds pages of several sizes; those of {'x'.join(map(str, first.shape))} are read, and not "
                f"{sizes}"
            )
        tags = file.pages.first.tags
        geo = tuple((tag.code, tag.dtype, tag.count, tag.value, True) for tag in tags if tag.code in _GEO_TAGS)
        # S are the samples of a pixel, C what ImageJ and OME call channels.
        channel_axis = next((first.axes.index(letter) for letter in "SC" if letter in first.axes), None)
        if first.dataoffset is None or first.size == 0:  # compressed, or in tiles
            return ImageFile(file.asarray(series=0), geo, channel_axis=channel_axis)
    return ImageFile(tifffile.memmap(path, series=0, mode="r"), geo, channel_axis=channel_axis)


def _open_zarr(path: Path) -> ImageFile:
    zarr = import_zarr()
    found = zarr.open(path, mode="r")
    if isinstance(found, zarr.Array):
        return ImageFile(found)
    attributes = dict(found.attrs)
    multiscales = attributes.get("ome", attributes).get("multiscales")
    if not multiscales:
        raise ValueError(f"{path} is a Zarr group without an OME-Zarr image; name one of its arrays")
    level = multiscales[0]["datasets"][0]
    scales = [each["scale"] for each in level.get("coordinateTransformations", ()) if each.get("type") == "scale"]
    axes = multiscales[0].get("axes")
    axes = None if axes is None else tuple(each if isinstance(each, dict) else {"name": each} for each in axes)
    kinds = [each.get("type", "channel" if each["name"] == "c" else None) for each in axes or ()]
    channel_axis = kinds.index("channel") if "channel" in kinds else None
    return ImageFile(found[level["path"]], (), axes, tuple(scales[0]) if scales else None, channel_axis)


def import_zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise ImportError(
            'Zarr files are read and written by zarr; install it with: pip install "dconv[stores]"'
        ) from None
    return zarr
