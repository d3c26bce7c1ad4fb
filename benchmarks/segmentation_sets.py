"""The sets of real images with ground truth that accuracy.py judges on, as lists of images and of label images.

They lie in the folder `DCONV_DATA`, by default `../shared/data` beside the repository. A *site* is what counts as one
image when pixels are drawn and scores are paired: an image, a volume of `hippocampus-mri-volumes`, one section of
`vnc-sstem-volume`, whose stack of sections is cut into volumes as deep as its test part. Volumes are arrays (z, y, x).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
from skimage.io import imread

VOID = 255  # in every set: not labelled, in no score
SETS_2D = (
    "isbi2012-em",
    "drive",
    "dsb2018-nuclei",
    "roads-aerial",
    "crackforest",
    "camvid",
    "labelmefacade",
    "superalloy-sem",
    "ebc-oxide-sem",
    "weizmann-horse",
)
STACK, VOLUMES = "vnc-sstem-volume", "hippocampus-mri-volumes"
SETS = (*SETS_2D, STACK, VOLUMES)
MANY_CLASSES = ("camvid", "labelmefacade")  # and many images: fewer pixels of each will do
STACK_DEPTH = 4  # sections
STACK_SPACING = (50.0, 4.6, 4.6)  # nanometres
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

Picture = tuple[str, np.ndarray, np.ndarray]  # name, image, labels


class Site(NamedTuple):
    """A part of one image of a list: its name, the number of the image, and the index of the part in it."""

    name: str
    number: int
    part: tuple[int, ...]


@dataclass
class Pictures:
    """Images, a list, with their labels."""

    names: list[str]
    images: list[np.ndarray]
    labels: list[np.ndarray]
    sectioned: bool  # whether every section of a volume is a site

    def sites(self, numbers: Iterable[int] | None = None) -> Iterator[Site]:
        """Yield the sites of the images of these `numbers`, None is all."""
        for number in range(len(self.names)) if numbers is None else numbers:
            if self.sectioned:
                for z in range(len(self.images[number])):
                    yield Site(f"{self.names[number]}[{z}]", number, (z,))
            else:
                yield Site(self.names[number], number, ())


@dataclass
class Dataset:
    """One set. `test` is None unless it was asked for."""

    name: str
    ndim: int
    channel_axis: int | None
    classes: list[int]  # without VOID
    n_dense: int  # labelled pixels per class and site in the dense regime
    smallest: tuple[int, ...]  # pixels along each spatial axis, over all images
    spacing: tuple[float, ...] | None  # of pixels along these axes, None if they are alike
    train: Pictures
    test: Pictures | None

    @property
    def binary(self) -> bool:
        return len(self.classes) == 2

    @property
    def scales_differ(self) -> bool:
        """Whether values of different images mean different things."""
        return self.name == VOLUMES


def ndim(name: str) -> int:
    """Return the number of spatial axes of a set."""
    return 3 if name in (STACK, VOLUMES) else 2


def load(name: str, n_images: int | None = None, test: bool = False) -> Dataset:
    """Return a set, with at most `n_images` images a part, evenly picked; the test part only if `test`."""
    folder = _folder(name)
    rows = (folder / "classes.csv").read_text().splitlines()[1:]
    classes = sorted({int(row.split(",")[0]) for row in rows} - {VOID})
    train = _read_part(folder, "train", n_images)
    held = _read_part(folder, "test", n_images) if test else None
    shapes = [labels.shape for part in (train, held) if part is not None for labels in part.labels]
    smallest = tuple(map(min, zip(*shapes, strict=True)))
    channel_axis = -1 if train.images[0].ndim > ndim(name) else None
    n_dense = 250 if name in MANY_CLASSES else 1000
    spacing = STACK_SPACING if name == STACK else None
    return Dataset(name, ndim(name), channel_axis, classes, n_dense, smallest, spacing, train, held)


def load_scribbled(name: str, n_images: int | None = None) -> tuple[Pictures, list[np.ndarray]]:
    """Return the test part of a set whose images have strokes of their own to learn from, and these."""
    folder = _folder(name)
    pictures = _read_part(folder, "test", n_images)
    return pictures, [imread(folder / "scribbles1" / f"{each}.png") for each in pictures.names]


def _folder(name: str) -> Path:
    folder = Path(os.environ.get("DCONV_DATA", DEFAULT_DATA), name)
    if not folder.is_dir():
        raise SystemExit(f"{folder} is missing: set DCONV_DATA to the folder that holds the sets, or choose --sets")
    return folder


def _read_part(folder: Path, part: str, n_images: int | None) -> Pictures:
    names = (folder / f"{part}.txt").read_text().split()
    units = [names[i : i + STACK_DEPTH] for i in range(0, len(names), STACK_DEPTH)] if folder.name == STACK else names
    if n_images is not None and n_images < len(units):
        units = [units[i] for i in np.linspace(0, len(units) - 1, n_images).round().astype(int)]
    read = {STACK: _read_stack, VOLUMES: _read_volume}.get(folder.name, _read_image)
    names, images, labels = map(list, zip(*(read(folder, unit) for unit in units), strict=True))
    return Pictures(names, images, labels, folder.name == STACK)


def _read_image(folder: Path, name: str) -> Picture:
    image = imread(next((folder / "images").glob(f"{name}.*")))
    return name, image, imread(folder / "labels" / f"{name}.png")


def _read_stack(folder: Path, names: list[str]) -> Picture:
    _, images, labels = zip(*(_read_image(folder, name) for name in names), strict=True)
    return f"{names[0]}-{names[-1]}", np.stack(images), np.stack(labels)


def _read_volume(folder: Path, name: str) -> Picture:
    with np.load(folder / "volumes" / f"{name}.npz") as arrays:
        return name, arrays["image"], arrays["label"]
