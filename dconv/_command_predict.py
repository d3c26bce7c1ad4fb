"""``dconv predict``: labels or probabilities for image files."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dconv._command_words import Problem, check_free, in_plain_words, tell
from dconv._image_axes import as_model_sees, number_of_pages
from dconv._image_readers import SUFFIXES, files_in, open_image
from dconv._image_writers import WRITTEN, label_dtype, suffix_for, write_answers, write_overlay
from dconv._lazy_arrays import LazyArray, from_array
from dconv._progress import progress_bar
from dconv._validation import channels_last
from dconv.persistence import load
from dconv.segmentation import PixelClassifier
from dconv.tiling import predict_blocks

_MAX_WHOLE = 1 << 23  # pixels of an image that a CRF refines whole, which takes about 0.1 KB for each


def predict(options: argparse.Namespace) -> int:
    model = load(options.model)
    if not isinstance(model, PixelClassifier):
        raise Problem(
            f"{options.model} holds an {type(model).__name__}, but pixels are labelled here; in Python, "
            "dconv.load(...).predict(image) finds the objects"
        )
    if options.n_jobs is not None:
        model.n_jobs = options.n_jobs
    if options.proba and not hasattr(model, "predict_proba"):
        raise Problem(f"{options.model} has no probabilities")
    files = [file for path in options.images for file in _not_written_before(files_in(path))]
    outputs = _outputs(files, _dtype(model, options), options)
    failed = []
    for number, (path, out) in enumerate(zip(files, outputs, strict=True), 1):
        try:
            check_free(out, options.overwrite)
            if options.overlay:
                check_free(_overlay_path(out), options.overwrite)
            _predict_file(model, path, out, options)
        except Exception as error:  # readers of damaged files raise anything
            known = isinstance(error, Problem | ImportError | OSError | TypeError | ValueError)
            told = "" if known else f"{type(error).__name__}: "
            failed.append(f"{path}: {told}{in_plain_words(error)}")
            tell(f"[{number}/{len(files)}] {path.name} failed")
        else:
            if not options.quiet:
                tell(f"[{number}/{len(files)}] {out}")
    for line in failed:
        tell(f"error: {line}")
    if failed:
        tell(f"{len(files) - len(failed)} of {len(files)} done, {len(failed)} failed")
    return 1 if failed else 0


def _not_written_before(files: list[Path]) -> list[Path]:
    """Return files without those that an earlier run has written beside the images of a folder."""
    stems = {file.stem for file in files}
    kinds = ("_labels", "_proba", "_overlay")
    return [file for file in files if not any(file.stem.removesuffix(kind) in stems - {file.stem} for kind in kinds)]


def _dtype(model: Any, options: argparse.Namespace) -> np.dtype:
    """Return the dtype of what is written."""
    if options.proba:
        return np.dtype(np.float32)
    return label_dtype(model.classes_ if model.nodata_ is None else np.append(model.classes_, model.nodata_))


def _outputs(files: list[Path], dtype: np.dtype, options: argparse.Namespace) -> list[Path]:
    """Return where the answers for each file go: one name for each, told by its own."""
    out, suffix = options.output, options.output.suffix.lower()
    if suffix in WRITTEN and not (out.is_dir() and suffix != ".zarr"):
        if len(files) > 1:
            raise Problem(f"there are {len(files)} images, but {out} is one file; name a folder")
        return [out]
    if not out.is_dir() and (suffix in SUFFIXES or out.is_file()):
        endings = ", ".join(sorted(WRITTEN))
        raise Problem(f"{out} is no folder; of files, answers are written to those that end with {endings}")
    what = "proba" if options.proba else "labels"
    outputs = [out / f"{file.stem}_{what}{suffix_for(file, dtype)}" for file in files]
    for names in (outputs, [_overlay_path(each) for each in outputs] if options.overlay else []):
        repeated = sorted({each.name for each in names if names.count(each) > 1})
        if repeated:
            raise Problem(
                f"several images would be written to {', '.join(repeated)}; predict them to different folders"
            )
    out.mkdir(parents=True, exist_ok=True)
    return outputs


def _overlay_path(out: Path) -> Path:
    stem = out.stem.removesuffix("_labels").removesuffix("_proba")
    return out.with_name(f"{stem}_overlay.png")


def _predict_file(model: Any, path: Path, out: Path, options: argparse.Namespace) -> None:
    """Write the answers for one file, which holds one image or pages of images."""
    ndim, channel_axis = model.ndim_, model.channel_axis_
    image = as_model_sees(open_image(path), ndim, channel_axis)
    n_pages = number_of_pages(image, ndim, channel_axis)
    shape = list(image.array.shape if n_pages is None else image.array.shape[1:])
    if channel_axis is not None:
        del shape[channel_axis]
    before = () if n_pages is None else (n_pages,)
    classes = (len(model.classes_),) if options.proba else ()
    # One that is read when it is sliced stays where it is.
    array = image.array if isinstance(image.array, np.ndarray | LazyArray) else from_array(image.array, "source")

    def fill(answers: Any) -> None:
        if n_pages is None and _by_blocks(model, shape, options):
            blocks = None if options.block_shape is None else _block_shape(options.block_shape)
            predict_blocks(
                model,
                array,
                answers,
                block_shape=blocks,
                proba=options.proba,
                progress=not options.quiet,
                resume=not options.no_resume,
            )
            return
        method = model.predict_proba if options.proba else model.predict
        if n_pages is None:
            answers[...] = method(np.asarray(array))
            return
        step = progress_bar(path.name, n_pages, not options.quiet, "page")
        for page in range(n_pages):
            answers[page] = method(np.asarray(array[page]))
            step()

    dtype = _dtype(model, options)
    write_answers(out, (*before, *shape, *classes), dtype, n_pages, ndim, image, fill, not options.no_resume)
    if options.overlay:
        _draw(model, array, n_pages, out)


def _by_blocks(model: Any, shape: Sequence[int], options: argparse.Namespace) -> bool:
    """Tell whether an image is worked on in blocks: one with a CRF, which sees more of the whole, if it is large."""
    if not (isinstance(model.features_, str) or hasattr(model.features_, "_transform_block")):
        return False
    if model.refine_ is None:
        return True
    large = options.block_shape is not None or math.prod(shape) > _MAX_WHOLE
    return large and hasattr(model.refine_, "_refine_part")


def _block_shape(sizes: list[int]) -> int | tuple[int, ...]:
    return sizes[0] if len(sizes) == 1 else tuple(sizes)


def _draw(model: Any, array: Any, n_pages: int | None, out: Path) -> None:
    """Write the picture of an image, or the first page, under the colours of what was written."""
    answers = open_image(out).array
    if n_pages is not None:
        array = array.item(0) if isinstance(array, LazyArray) else array[0]
        answers = answers[0]
    write_overlay(_overlay_path(out), channels_last(array, model.channel_axis_), answers, model.classes_)
