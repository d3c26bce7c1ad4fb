"""``dconv train``: a model from image files and label images."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dconv._command_words import Problem, check_free, tell
from dconv._image_axes import axis_of_channels, images_of
from dconv._image_readers import files_in, open_image
from dconv.context import ContextClassifier
from dconv.persistence import import_skops, save
from dconv.segmentation import PixelClassifier

_MAX_HELD_BYTES = 1 << 30  # of images to learn from that are decoded once and kept
_FEW_CLASSES = 20  # that are told one by one


def train(options: argparse.Namespace) -> int:
    check_free(options.output, options.overwrite)
    import_skops()  # it is missed now, and not when the model has been fitted
    images = [file for path in options.images for file in files_in(path)]
    labels = [file for path in options.labels for file in files_in(path)]
    if len(images) != len(labels):
        raise Problem(f"there are {len(images)} images, but {len(labels)} label images; give one for each, in order")
    X: list[Any] = []
    y: list[Any] = []
    names: list[tuple[Path, Path]] = []  # of X and y
    held, axis = 0, options.channel_axis
    for path, label_path in zip(images, labels, strict=True):
        image, label = _opened(path), _opened(label_path, True)
        axis = axis_of_channels(path, image, label_path, label, options.ndim, axis)
        pair = images_of(image, options.ndim, axis), images_of(label, options.ndim, None)
        for found, file, of_image, arrays in zip(pair, (path, label_path), (axis, None), (X, y), strict=True):
            for page, array in enumerate(found):
                # What is read when it is sliced stays where it is. Other files are decoded, and as soon as they take
                # much memory together, decoded again whenever they are needed.
                is_read = type(array) is np.ndarray
                held += array.nbytes if is_read else 0
                again = is_read and held > _MAX_HELD_BYTES
                arrays.append(partial(_decoded, file, arrays is y, options.ndim, of_image, page) if again else array)
        names += [(path, label_path)] * len(pair[0])
    model = (ContextClassifier if options.cascade else PixelClassifier)(
        ignore_label=options.ignore_label,
        max_samples=options.max_samples,
        ndim=options.ndim,
        channel_axis=axis,
        distill=options.distill,
        n_jobs=options.n_jobs,
        random_state=options.seed,
    )
    try:
        model.fit(X, y)
    except (OSError, TypeError, ValueError) as error:
        raise Problem(_with_names(str(error), names)) from error
    model.n_jobs = None  # of this machine
    save(model, options.output)
    if not options.quiet:
        tell(f"{options.output}: {_learnt(model)} from {len(X)} image(s)")
    return 0


def _opened(path: Path, labels: bool = False) -> Any:
    try:
        return open_image(path, labels)
    except (OSError, ValueError) as error:
        raise Problem(f"{path}: {error}") from error


def _decoded(path: Path, labels: bool, ndim: int, channel_axis: int | None, page: int) -> np.ndarray:
    return images_of(open_image(path, labels), ndim, channel_axis)[page]


def _with_names(message: str, names: Sequence[tuple[Path, Path]]) -> str:
    """Return a message with the names of files in the place of ``X[0]`` and ``y[0]``."""

    def name(found: re.Match) -> str:
        return str(names[int(found[2])][found[1] == "y"]) if int(found[2]) < len(names) else found[0]

    return re.sub(r"\b([Xy])\[(\d+)\]", name, message)


def _learnt(model: Any) -> str:
    """Return what to say of the classes that a model has learnt."""
    classes, counts = model.classes_.tolist(), model.n_pixels_per_class_.tolist()
    if len(classes) > _FEW_CLASSES:
        return f"{len(classes)} classes from {classes[0]} to {classes[-1]} ({sum(counts)} pixels)"
    return "classes " + ", ".join(f"{label} ({count} pixels)" for label, count in zip(classes, counts, strict=True))
