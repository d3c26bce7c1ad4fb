"""The command line: train a model on image files, predict others, look at models, and a demonstration.

Also ``python -m dconv``. Exit codes: 0 if all is done, 1 if something failed, 2 if the command cannot be understood.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dconv._image_readers import ImageFile, files_in, open_image
from dconv._image_writers import label_dtype, overlay, suffix_for, write_answers, write_overlay
from dconv._whole_files import whole
from dconv.context import ContextClassifier
from dconv.persistence import load, read_header, save
from dconv.segmentation import PixelClassifier
from dconv.tiling import predict_blocks

_MAX_HELD_BYTES = 1 << 30  # of images to learn from that are decoded once and kept

_DESCRIPTION = "Segment images: learn from labelled pixels, and label every pixel of other images."
_EXAMPLES = """
examples:
  dconv demo -o demo.png
      segment a photograph of coins from a few strokes, and draw it
  dconv train slide.tif --labels strokes.png -o cells.dconv
      learn; in a label image 0 means "not labelled"
  dconv predict cells.dconv slides/ -o results/ --overlay
      label every image of a folder: results/NAME_labels.tif, and a picture of each
  dconv predict cells.dconv scene.tif -o scene_labels.tif
      a GeoTIFF keeps its place; one larger than memory, without compression, is read piece by piece
  dconv predict cells.dconv volume.zarr -o probabilities.zarr --proba
      from Zarr to Zarr; killed, the same command goes on where it was
  dconv info cells.dconv
      what a model was trained for
"""


class _Problem(Exception):
    """What the user is told, and nothing else."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str or None, default=None
        What follows ``dconv`` on the command line; None is what this process was given.

    Returns
    -------
    code : int
        0 if all is done, 1 if something failed.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (_Problem, ImportError, OSError, TypeError, ValueError) as error:
        _tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _tell("interrupted; the same command goes on")
        return 130


def _parser() -> argparse.ArgumentParser:
    from dconv import __version__

    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("dconv", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"dconv {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "learn from labelled pixels of images")
    train.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG, TIFF, NPY or Zarr; or a folder")
    train.add_argument("--labels", nargs="+", type=Path, required=True, metavar="LABEL", help="one for each image")
    train.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL", help="by custom *.dconv")
    train.add_argument("--ndim", type=int, choices=(1, 2, 3), default=2, help="spatial axes of an image (2)")
    train.add_argument(
        "--channel-axis",
        type=_channel_axis,
        default="auto",
        metavar="AXIS",
        help='axis of the channels, "none", or "auto": the last, if an image has one axis more and up to 4 channels',
    )
    train.add_argument("--ignore-label", type=int, default=0, metavar="N", help='what means "not labelled" (0)')
    train.add_argument(
        "--max-samples", type=int, metavar="N", help="pixels of each class of each image, all if not told"
    )
    train.add_argument("--cascade", action="store_true", help="slower and more accurate, with several images")
    train.add_argument("--distill", action="store_true", help="predict with a small network that learns from the model")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (0)")
    _common(train)

    predict = _command(commands, "predict", _predict, "label every pixel of images")
    predict.add_argument("model", type=Path, help="from dconv train, or dconv.save")
    predict.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="PNG, TIFF, NPY, Zarr, or a folder of them"
    )
    predict.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="a file for one image, or a folder"
    )
    predict.add_argument("--proba", action="store_true", help="probabilities of the classes, last axis, not labels")
    predict.add_argument("--overlay", action="store_true", help="also NAME_overlay.png, a picture to look at")
    predict.add_argument(
        "--block-shape", type=int, nargs="+", metavar="N", help="pixels of a block; chosen if not told"
    )
    predict.add_argument("--no-resume", action="store_true", help="begin anew where a killed run could be continued")
    _common(predict)

    info = _command(commands, "info", _info, "tell what a model was trained for")
    info.add_argument("model", type=Path)
    info.add_argument("--json", action="store_true", help="all that its header holds")

    demo = _command(commands, "demo", _demo, "segment a photograph of coins from a few strokes, and draw it")
    demo.add_argument("-o", "--output", type=Path, default=Path("dconv-demo.png"), metavar="PICTURE", help="a PNG")
    _common(demo)
    return parser


def _command(commands: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    lines = _EXAMPLES.strip().splitlines()[1:]
    shown = "\n".join(f"{a}\n{b}" for a, b in zip(lines[::2], lines[1::2], strict=True) if a.split()[1] == name)
    form = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(name, help=help, description=help, epilog=f"examples:\n{shown}", formatter_class=form)
    parser.set_defaults(run=run)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n-jobs", type=int, metavar="N", help="threads, as many as cores if not told")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--quiet", action="store_true", help="tell only what fails")


def _channel_axis(word: str) -> int | str | None:
    if word in ("auto", "none"):
        return None if word == "none" else word
    return int(word)


def _tell(text: str) -> None:
    print(f"dconv: {text}", file=sys.stderr, flush=True)


def _check_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise _Problem(f"{path} is there already; pass --overwrite to replace it")
    if not path.parent.is_dir():
        raise _Problem(f"{path.parent} is no folder that {path.name} could be written to")


# --- train ---


def _train(options: argparse.Namespace) -> int:
    _check_free(options.output, options.overwrite)
    images = [file for path in options.images for file in files_in(path)]
    labels = [file for path in options.labels for file in files_in(path)]
    if len(images) != len(labels):
        raise _Problem(f"there are {len(images)} images, but {len(labels)} label images; give one for each, in order")
    X: list[Any] = []
    y: list[Any] = []
    held, axis = 0, options.channel_axis
    for path, label_path in zip(images, labels, strict=True):
        image, label = open_image(path).array, open_image(label_path, labels=True).array
        axis = _found_axis(image, options.ndim) if axis == "auto" else axis
        spatial = image.shape if axis is None else np.delete(image.shape, axis)
        if tuple(label.shape) != tuple(spatial):
            raise _Problem(f"{label_path} has shape {label.shape}, but {path} has {image.shape}, channel axis {axis}")
        for array, file, arrays in ((image, path, X), (label, label_path, y)):
            # What is read when it is sliced stays where it is. Other files are decoded, and as soon as they take much
            # memory together, decoded again whenever they are needed.
            is_read = type(array) is np.ndarray
            held += array.nbytes if is_read else 0
            again = is_read and held > _MAX_HELD_BYTES
            arrays.append(partial(_decoded, file, arrays is y) if again else array)
    model = (ContextClassifier if options.cascade else PixelClassifier)(
        ignore_label=options.ignore_label,
        max_samples=options.max_samples,
        ndim=options.ndim,
        channel_axis=axis,
        distill=options.distill,
        n_jobs=options.n_jobs,
        random_state=options.seed,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model.fit(X, y)
    for warning in {str(each.message) for each in caught}:
        _tell(f"warning: {warning}")
    model.n_jobs = None  # of this machine
    save(model, options.output)
    if not options.quiet:
        counts = zip(model.classes_.tolist(), model.n_pixels_per_class_.tolist(), strict=True)
        learnt = ", ".join(f"{label} ({count} pixels)" for label, count in counts)
        _tell(f"{options.output}: classes {learnt} from {len(X)} image(s)")
    return 0


def _decoded(path: Path, labels: bool) -> np.ndarray:
    return open_image(path, labels).array


def _found_axis(image: Any, ndim: int) -> int | None:
    """Return the axis of the channels, if there are some."""
    if image.ndim == ndim:
        return None
    if image.ndim == ndim + 1 and image.shape[-1] <= 4:
        return -1
    raise _Problem(
        f"an image has shape {image.shape}, which leaves open what its axes are; pass --channel-axis, --ndim"
    )


# --- predict ---


def _predict(options: argparse.Namespace) -> int:
    model = load(options.model)
    if options.n_jobs is not None:
        model.n_jobs = options.n_jobs
    if options.proba and not hasattr(model, "predict_proba"):
        raise _Problem(f"{options.model} has no probabilities")
    files = [file for path in options.images for file in files_in(path)]
    outputs = _outputs(files, options)
    failed = []
    for number, (path, out) in enumerate(zip(files, outputs, strict=True), 1):
        try:
            _check_free(out, options.overwrite)
            if options.overlay:
                _check_free(_overlay_path(out), options.overwrite)
            _predict_file(model, path, out, options)
        except (_Problem, ImportError, OSError, TypeError, ValueError, MemoryError) as error:
            failed.append(f"{path}: {error}")
            _tell(f"[{number}/{len(files)}] {path.name} failed")
        except Exception as error:  # of readers of damaged files, which raise anything
            failed.append(f"{path}: {type(error).__name__}: {error}")
            _tell(f"[{number}/{len(files)}] {path.name} failed")
        else:
            if not options.quiet:
                _tell(f"[{number}/{len(files)}] {out}")
    for line in failed:
        _tell(f"error: {line}")
    if failed:
        _tell(f"{len(files) - len(failed)} of {len(files)} done, {len(failed)} failed")
    return 1 if failed else 0


def _outputs(files: list[Path], options: argparse.Namespace) -> list[Path]:
    """Return where the answers for each file go: one name for each, told by its own."""
    what = "proba" if options.proba else "labels"
    out = options.output
    names = [file.stem + f"_{what}{suffix_for(file, options.proba)}" for file in files]
    as_file = out.suffix.lower() in (".png", ".tif", ".tiff", ".btf", ".npy", ".zarr")
    if as_file:
        if len(files) > 1:
            raise _Problem(f"there are {len(files)} images, but {out} is one file; name a folder")
        return [out]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise _Problem(f"several images would be written to {', '.join(repeated)}; predict them to different folders")
    out.mkdir(parents=True, exist_ok=True)
    return [out / name for name in names]


def _overlay_path(out: Path) -> Path:
    stem = out.stem.removesuffix("_labels").removesuffix("_proba")
    return out.with_name(f"{stem}_overlay.png")


def _predict_file(model: Any, path: Path, out: Path, options: argparse.Namespace) -> None:
    """Write the answers for one file, which holds one image or pages of images."""
    image = open_image(path)
    n_axes = model.ndim_ + (model.channel_axis_ is not None)
    array, image = _without_single_axes(image, n_axes)
    paged = array.ndim == n_axes + 1 and (model.channel_axis_ is not None or array.shape[-1] > 4)
    if array.ndim != n_axes and not paged:
        axis = "without channels" if model.channel_axis_ is None else f"with channels on axis {model.channel_axis_}"
        raise _Problem(f"it has shape {array.shape}, but the model is for {model.ndim_}-D images {axis}")
    pages = array.shape[0] if paged else None
    shape = list(array.shape if pages is None else array.shape[1:])
    if model.channel_axis_ is not None:
        del shape[model.channel_axis_]
    spatial = tuple(shape) if pages is None else (pages, *shape)
    dtype = np.dtype(np.float32) if options.proba else label_dtype(model.classes_)
    classes = (len(model.classes_),) if options.proba else ()

    def fill(answers: Any) -> None:
        if pages is None and _by_blocks(model):
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
        for page in range(1 if pages is None else pages):
            answer = method(np.asarray(array[...] if pages is None else array[page]))
            if pages is None:
                answers[...] = answer
            else:
                answers[page] = answer

    write_answers(out, spatial + classes, dtype, len(spatial), image, fill, not options.no_resume)
    if options.overlay:
        _draw(model, array if pages is None else array[0], out, pages is not None, options.proba)


def _by_blocks(model: Any) -> bool:
    return model.refine_ is None and (isinstance(model.features_, str) or hasattr(model.features_, "_transform_block"))


def _block_shape(sizes: list[int]) -> int | tuple[int, ...]:
    return sizes[0] if len(sizes) == 1 else tuple(sizes)


def _without_single_axes(image: ImageFile, n_axes: int) -> tuple[Any, ImageFile]:
    """Return the array of an image without leading axes of size 1, as OME files have them for time and channels."""
    array, axes, scale = image.array, image.axes, image.scale
    while array.ndim > n_axes and array.shape[0] == 1:
        array = array[0]
        axes = None if axes is None else axes[1:]
        scale = None if scale is None else scale[1:]
    return array, image._replace(array=array, axes=axes, scale=scale)


def _draw(model: Any, array: Any, out: Path, paged: bool, proba: bool) -> None:
    """Write the picture of an image, or the first page, under the colours of what was written."""
    answers = open_image(out).array
    answers = answers[0] if paged else answers
    axis = model.channel_axis_
    seen = np.asarray(array[...])
    seen = seen[..., np.newaxis] if axis is None else np.moveaxis(seen, axis, -1)
    labels = np.asarray(answers[...])
    labels = model.classes_[labels.argmax(axis=-1)] if proba else labels
    write_overlay(_overlay_path(out), seen, labels, model.classes_)


# --- info, demo ---


def _info(options: argparse.Namespace) -> int:
    header = read_header(options.model)
    if options.json:
        print(json.dumps(header, indent=1))
        return 0
    training, features = header["training"], header["features"]
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    names = features.get("names", [])
    shown = f": {names[0]} to {names[-1]}" if names else ""
    print(f"{options.model}: {training['estimator']} with {training['classifier']}")
    print(f"written    {header['written']} by {versions}")
    counts = training.get("n_pixels_per_class")
    learnt = [""] * len(training["classes"]) if counts is None else [f" ({count} pixels)" for count in counts]
    classes = (f"{label}{count}" for label, count in zip(training["classes"], learnt, strict=True))
    print(f"classes    {', '.join(classes)}")
    print(
        f"images     {training['ndim']}-D, {training['n_channels']} channel(s), channel axis {training['channel_axis']}"
    )
    print(f"features   {training['n_features']} of {features['transformer']}{shown}")
    if training["held_out_log_loss"]:
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in training["held_out_log_loss"].items())
        print(f"log loss   on what was held out: {losses}")
    if training["student"]:
        print(f"student    agrees with the classifier on {training['agreement'][0]:.1%} of pixels")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from PIL import Image
    from skimage import data

    _check_free(options.output, options.overwrite)
    if options.output.suffix.lower() != ".png":
        raise _Problem(f"{options.output} is no PNG file")
    image = data.coins()
    scribbles = np.zeros(image.shape, int)
    for row in (10, 88, 152, 296):  # background, above and below each row of coins
        scribbles[row : row + 4, 20:340] = 1
    scribbles[225:229, 90:300] = 1
    for row, column in [(50, 40), (125, 150), (195, 220), (262, 60), (195, 350)]:
        scribbles[row - 8 : row + 8, column - 8 : column + 8] = 2  # a dab on five of the coins
    model = PixelClassifier(n_jobs=options.n_jobs, random_state=0).fit(image, scribbles)
    labels = model.predict(image)
    colored = overlay(image[..., np.newaxis], labels, model.classes_)
    grey = np.repeat(image[..., np.newaxis], 3, axis=-1)
    strokes = overlay(image[..., np.newaxis], np.where(scribbles > 0, scribbles, 1), model.classes_)
    drawn = np.where((scribbles > 0)[..., np.newaxis], strokes, grey)
    with whole(options.output) as temporary:
        Image.fromarray(np.hstack([drawn, colored])).save(temporary)
    if not options.quiet:
        share = np.mean(np.asarray(labels) == 2)
        _tell(f"{options.output}: strokes, and what was learnt from them; coins cover {share:.0%} of the image")
    return 0
