"""Prediction of images that do not fit in memory: block by block, from anything that slices to anything that does."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dconv._axes import check_bool
from dconv._block_features import check_images, prepared_for, reader_of_one
from dconv._blocks import split
from dconv._boxes import sizes
from dconv._fingerprint import fingerprint
from dconv._journal import Journal, digest_of_block, name_of
from dconv._kernels import _dispatch
from dconv._lazy_images import as_lazy_image, as_lazy_mask, digest_of_array
from dconv._nodata import fill_nodata, valid_pixels
from dconv._outputs import block_shape_for, check_apart, check_output, journal_path, make_room, settle
from dconv._pipeline import run_pipeline
from dconv._pixels import Block
from dconv._progress import progress_bar
from dconv._regions import margin_of, read_around
from dconv._threads import effective_n_jobs, run_tasks
from dconv._validation import Images
from dconv.segmentation import PixelClassifier

_SIDE_BY_SIDE = 2  # blocks that are worked on together, so that the end of one leaves no thread idle


def predict_blocks(
    estimator: PixelClassifier,
    source: Any,
    out: Any,
    *,
    mask: Any = None,
    block_shape: Any = None,
    proba: bool = False,
    n_jobs: int | None = None,
    progress: bool = True,
    resume: bool = True,
) -> Any:
    """Segment an image of any size: read it block by block, and write labels or probabilities to an array.

    The result is that of ``estimator.predict(image)`` to the last bit, but for `refine`. Images are read twice or three
    times: first from top to bottom, to tell what they are, whether their values can be used and how bright they are,
    then in blocks, each with what its features see around it, while other blocks are worked on and written.

    Parameters
    ----------
    estimator : PixelClassifier or ContextClassifier
        Fitted. With `refine` each block is refined together with the pixels around it: see Notes.
    source : array
        One image of the kind seen at fit: a NumPy array, memory map, Zarr array, HDF5 data set, or anything that has
        shape and dtype and gives arrays when it is sliced.
    out : array of shape (*spatial) or (*spatial, n_classes)
        Written to: of a dtype that holds the labels, and `nodata` if some pixels may hold none, or floating for
        probabilities.
    mask : array of bool of shape (*spatial), default=None
        True where a pixel holds data, read in blocks likewise; for an estimator with `nodata`.
    block_shape : int, sequence of int or None, default=None
        Pixels of a block along each spatial axis, whole chunks of `out`. None is about two million pixels, fewer where
        the source of a block would take more than 128 MiB.
    proba : bool, default=False
        Whether probabilities are written, and not labels.
    n_jobs : int or None, default=None
        Number of threads that compute; None is what the estimator says. One more reads and one writes.
    progress : bool, default=True
        Whether a progress bar is shown, after two seconds.
    resume : bool, default=True
        Whether to continue a run that was killed. Finished blocks are kept in a journal, a file with the ending
        ``.dconv-journal`` beside a memory map, a local Zarr array or an HDF5 file, until all are done. Those that the
        output still holds, which is checked, are not done again. False begins anew. HDF5 files are flushed after each
        block; one that cannot be opened again after all must be made anew. Arrays in memory have no journal.

    Returns
    -------
    out : array
        The same.

    Raises
    ------
    NotFittedError
        If `fit` has not been called.
    TypeError, ValueError
        If an argument cannot be used, `out` shares memory with `source`, or the journal is that of another model, image
        or block shape.
    OSError
        If a block cannot be read or written, with its place. All that was finished stays, and the same call continues.

    See Also
    --------
    dconv.PixelClassifier.predict : The same in memory, of batches and lists too.

    Notes
    -----
    Memory is that of some blocks and threads, whatever the size of the image: some hundred MB with two threads.

    A CRF (`refine`) joins every pixel of an image to every other. In blocks it sees those around a block, as many as
    three of its `appearance_sigma`, 240 by default; labels then differ from those of the whole image at less than one
    pixel in a thousand (measured, docs/scaling.md), and memory is about 0.7 GB more with two threads. An image of one
    block has the bits of the whole.

    An estimator with `nodata` gives that label, or NaN for probabilities, to pixels that are NaN or outside of `mask`.
    What its features see in their place comes from up to 62 pixels beyond the halo, which are read too.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn.naive_bayes import GaussianNB
    >>> import dconv
    >>> image = np.zeros((64, 64))
    >>> image[:, 32:] = 1
    >>> scribbles = np.zeros((64, 64), int)
    >>> scribbles[10:50, 10], scribbles[10:50, 50] = 1, 2
    >>> model = dconv.PixelClassifier(classifier=GaussianNB()).fit(image, scribbles)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     labels = np.lib.format.open_memmap(f"{folder}/labels.npy", "w+", np.uint8, image.shape)
    ...     np.array_equal(dconv.predict_blocks(model, image, labels), model.predict(image))
    True
    """
    check_blockwise(estimator, proba)
    check_bool(progress, "progress")
    check_bool(resume, "resume")
    n_jobs = effective_n_jobs(estimator.n_jobs if n_jobs is None else n_jobs)
    image = as_lazy_image(source, estimator.ndim_, estimator.channel_axis_)
    if image.shape[-1] != estimator.n_channels_in_:
        raise ValueError(
            f"source has {image.shape[-1]} channel(s), but {type(estimator).__name__} was fitted with "
            f"{estimator.n_channels_in_}; pass an image of the kind seen at fit"
        )
    spatial, classes = image.shape[:-1], estimator.classes_
    dtype = np.dtype(np.float32) if proba else classes.dtype
    missing = [estimator.nodata_] if _may_miss(image, mask, estimator) else []
    written = None if proba else np.array([*classes.tolist(), *missing])
    check_output(out, spatial + ((len(classes),) if proba else ()), dtype, written)
    check_apart(source, out)
    method = "predict_proba" if proba else "predict"
    answers = estimator._box_answers(method)

    mask = None if mask is None else as_lazy_mask(mask, image)
    pixels = fill_nodata(Images([image], "image"), mask, estimator.nodata_).arrays[0]
    n_bytes = max(image.dtype.itemsize * image.shape[-1], answers.n_bytes)
    block_shape = block_shape_for(block_shape, out, spatial, margin_of(pixels, answers.margin), n_bytes)
    check_images(estimator.features_, Images([pixels], "image"))
    prepared = prepared_for(estimator._features_seen(exact=False), pixels)
    path = journal_path(out)
    facts = {} if path is None else _facts(estimator, image, mask, method, out, block_shape)
    journal = Journal(path, facts, resume)
    make_room(out)

    together = min(n_jobs, _SIDE_BY_SIDE)

    def read(box: Block) -> Any:
        return read_around(pixels, box, answers.margin)

    def compute(box: Block, window: Any) -> np.ndarray:
        found = np.empty(sizes(box) + tuple(out.shape[len(spatial) :]), dtype)
        answers.write(reader_of_one(prepared, window), window, box, found, math.ceil(n_jobs / together))
        valid = valid_pixels(window)
        if valid is not None:
            found[~valid[box]] = np.nan if proba else estimator.nodata_
        return found.astype(out.dtype, copy=False)

    boxes = list(split(spatial, block_shape))
    finished = _finished(boxes, out, journal, n_jobs)
    step = progress_bar(f"[{type(estimator).__name__}] {method}", len(boxes), progress)
    for _ in finished:
        step()

    def write(box: Block, found: np.ndarray) -> None:
        _write_block(out, box, found)
        journal.add(box, digest_of_block(found))
        step()

    run_pipeline([box for box in boxes if name_of(box) not in finished], read, compute, write, together)
    journal.remove()
    return out


def check_blockwise(estimator: Any, proba: bool) -> None:
    """Check that an estimator can answer for blocks."""
    if not isinstance(estimator, PixelClassifier):
        raise TypeError(f"estimator must be a PixelClassifier or ContextClassifier, got {type(estimator).__name__}")
    check_is_fitted(estimator)
    check_bool(proba, "proba")
    if estimator.refine_ is not None and not hasattr(estimator.refine_, "_refine_part"):
        raise ValueError(
            f"estimator has refine={type(estimator.refine_).__name__}(...), which refines whole images and cannot be "
            "worked on in blocks; use DenseCRF, or fit with refine=None"
        )
    features = estimator.features_
    if not isinstance(features, str) and not hasattr(features, "_transform_block"):
        raise ValueError(
            f"features of {type(features).__name__} are computed of whole images, and so cannot be worked on in "
            "blocks; use AtrousFeatures or DilatedConv, and CustomFeatures with a halo"
        )
    if proba and not hasattr(estimator, "predict_proba"):
        raise ValueError(
            f"proba=True needs a classifier with predict_proba, got {type(estimator.classifier_).__name__}"
        )


def _may_miss(image: Any, mask: Any, estimator: Any) -> bool:
    """Tell whether some pixels may hold no data."""
    return estimator.nodata_ is not None and (mask is not None or image.dtype.kind == "f")


def _facts(
    estimator: Any, image: Any, mask: Any, method: str, out: Any, block_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return what must be the same for blocks of two runs to fit together."""
    from dconv import __version__

    fitted = {
        name: getattr(estimator, name, None)
        for name in (
            "features_",
            "classifier_",
            "student_",
            "student_features_",
            "stages_",
            "classes_",
            "prior_factors_",
            "nodata_",
            "refine_",
            "ndim_",
            "channel_axis_",
        )
    }
    return {
        "model": fingerprint(type(estimator), fitted),
        "source": digest_of_array(image),
        "mask": None if mask is None else digest_of_array(mask),
        "method": method,
        "shape of out": list(out.shape),
        "dtype of out": str(out.dtype),
        "block_shape": list(block_shape),
        "version of dconv": __version__,
        "CPU level": _dispatch.active_level(),  # levels round differently
    }


def _finished(boxes: list[Block], out: Any, journal: Journal, n_jobs: int) -> set[str]:
    """Return the names of the blocks that the journal has and the output still holds."""
    finished: set[str] = set()

    def work(box: Block) -> None:
        with contextlib.suppress(OSError):  # what cannot be read, as a chunk cut off in HDF5, is done again
            if digest_of_block(np.asarray(out[box])) == journal.done[name_of(box)]:
                finished.add(name_of(box))

    run_tasks(work, [box for box in boxes if name_of(box) in journal.done], n_jobs)
    return finished


def _write_block(out: Any, box: Block, found: np.ndarray) -> None:
    try:
        out[box] = found
        settle(out)
    except Exception as error:
        number = getattr(error, "errno", None)
        message = (
            f"block [{name_of(box)}] of out cannot be written: {type(error).__name__}: {error}; what was finished "
            "stays, and the same call continues"
        )
        raise (OSError(message) if number is None else OSError(number, message)) from error
