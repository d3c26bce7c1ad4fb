"""The command line: train a model on image files, predict others, look at models, and a demonstration.

Also ``python -m dconv``. Exit codes: 0 if all is done, 1 if something failed, 2 if the command cannot be understood.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dconv._command_predict import predict
from dconv._command_train import train
from dconv._command_words import Problem, check_free, in_plain_words, tell, warnings_told
from dconv._image_writers import overlay
from dconv._whole_files import whole
from dconv.persistence import read_header
from dconv.segmentation import PixelClassifier

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
        with warnings_told():
            return options.run(options)
    except (Problem, ImportError, MemoryError, OSError, TypeError, ValueError) as error:
        tell(f"error: {in_plain_words(error)}")
        return 1
    except KeyboardInterrupt:
        tell("interrupted; the same command goes on" if options.run is predict else "interrupted")
        return 130


def _parser() -> argparse.ArgumentParser:
    from dconv import __version__

    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("dconv", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"dconv {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    learn = _command(commands, "train", train, "learn from labelled pixels of images")
    learn.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG, TIFF, NPY or Zarr; or a folder")
    learn.add_argument("--labels", nargs="+", type=Path, required=True, metavar="LABEL", help="one for each image")
    learn.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL", help="by custom *.dconv")
    learn.add_argument("--ndim", type=int, choices=(1, 2, 3), default=2, help="spatial axes of an image (2)")
    learn.add_argument(
        "--channel-axis",
        type=_channel_axis,
        default="auto",
        metavar="AXIS",
        help='axis of the channels, "none", or "auto": by what the file tells, or the shape of its labels',
    )
    learn.add_argument(
        "--ignore-label", type=_label, default=0, metavar="N", help='what means "not labelled" (0), or "none"'
    )
    learn.add_argument(
        "--max-samples", type=int, metavar="N", help="pixels of each class of each image, all if not told"
    )
    learn.add_argument("--cascade", action="store_true", help="slower and more accurate, with several images")
    learn.add_argument("--distill", action="store_true", help="predict with a small network that learns from the model")
    learn.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (0)")
    _common(learn)

    answer = _command(commands, "predict", predict, "label every pixel of images")
    answer.add_argument("model", type=Path, help="from dconv train, or dconv.save")
    answer.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="PNG, TIFF, NPY, Zarr, or a folder of them"
    )
    answer.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="a file for one image, or a folder"
    )
    answer.add_argument("--proba", action="store_true", help="probabilities of the classes, last axis, not labels")
    answer.add_argument("--overlay", action="store_true", help="also NAME_overlay.png, a picture to look at")
    answer.add_argument("--block-shape", type=int, nargs="+", metavar="N", help="pixels of a block; chosen if not told")
    answer.add_argument("--no-resume", action="store_true", help="begin anew where a killed run could be continued")
    _common(answer)

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
    return word if word == "auto" else _label(word)


def _label(word: str) -> int | None:
    try:
        return None if word == "none" else int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number") from None


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

    check_free(options.output, options.overwrite)
    if options.output.suffix.lower() != ".png":
        raise Problem(f"{options.output} is no PNG file")
    image = data.coins()
    scribbles = np.zeros(image.shape, int)
    for row in (10, 88, 152, 296):  # background, above and below each row of coins
        scribbles[row : row + 4, 20:340] = 1
    scribbles[225:229, 90:300] = 1
    for row, column in [(50, 40), (125, 150), (195, 220), (262, 60), (195, 350)]:
        scribbles[row - 8 : row + 8, column - 8 : column + 8] = 2  # a dab on five of the coins
    model = PixelClassifier(n_jobs=options.n_jobs, random_state=0).fit(image, scribbles)
    labels = np.asarray(model.predict(image))
    colored = overlay(image[..., np.newaxis], labels, model.classes_)
    grey = np.repeat(image[..., np.newaxis], 3, axis=-1)
    strokes = overlay(image[..., np.newaxis], np.where(scribbles > 0, scribbles, 1), model.classes_)
    drawn = np.where((scribbles > 0)[..., np.newaxis], strokes, grey)
    with whole(options.output) as temporary:
        Image.fromarray(np.hstack([drawn, colored])).save(temporary)
    if not options.quiet:
        share = np.mean(labels == 2)
        tell(f"{options.output}: strokes, and what was learnt from them; coins cover {share:.0%} of the image")
    return 0
