"""A CRF after a pixel classifier: the answers of whole images, refined, or of boxes with an overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone

from dconv._block_features import Reader
from dconv._boxes import grown, sizes, within
from dconv._parts import check_may_look_ahead, check_probabilities
from dconv._pixels import Block
from dconv._prediction import BoxAnswers
from dconv._responses import entropy_of
from dconv._validation import Images

# Of a box and its overlap, about; measured. Boxes are chosen by the bytes of a pixel of the source, of which there are
# some for each thread: a few times as many may be taken by the CRF.
_BYTES_A_PIXEL, _BYTES_A_CLASS, _SHARE = 64, 16, 4

Write = Callable[[Images, list[np.ndarray]], None]  # images and what the answers for their pixels go to


def new_refine(refine: Any, features: Any, classifier: Any, ndim: int, n_jobs: int | None) -> Any:
    """Return the CRF that follows `classifier`, a checked copy that takes images channels last, or None.

    Raises
    ------
    TypeError, ValueError
        If `refine` is no CRF, if there are no images for it, or no probabilities.
    """
    if refine is None:
        return None
    if isinstance(refine, type) or not all(hasattr(refine, method) for method in ("refine", "get_params")):
        raise TypeError(f"refine must be None or a DenseCRF, got {refine!r:.60}")
    if isinstance(features, str):
        raise ValueError(
            'refine needs images, but with features="passthrough" X holds features; pass the transformer that makes '
            "them as features, or call DenseCRF.refine on the images and predict_proba"
        )
    check_may_look_ahead(features, "refine")
    check_probabilities(classifier, "refine needs a classifier with probabilities")
    refine = clone(refine)
    return refine.set_params(ndim=ndim, channel_axis=-1, n_jobs=n_jobs if refine.n_jobs is None else refine.n_jobs)


def fitted_refine(refine: Any, images: Images, before: Any = None) -> Any:
    """Return the CRF that refines all images as it does those of `fit`, whole or in blocks; None if there is none.

    `before` is the one of the calls that this one goes on from, if there were any: what it takes for alike stays so.
    """
    if not hasattr(refine, "_for_images"):
        return refine
    if hasattr(before, "_for_images") and refine.color_sigma is None:
        return refine.set_params(color_sigma=before.color_sigma)
    return refine._for_images(images.arrays)


def write_refined(
    refine: Any, images: Images, classes: np.ndarray, method: str, write_proba: Write, outputs: list[np.ndarray]
) -> None:
    """Write refined labels, probabilities or entropies to `outputs`, one whole image after another.

    The probabilities of one image are all that is held besides: a CRF joins every pixel of it to every other.
    """
    for image, output in zip(images.arrays, outputs, strict=True):
        probabilities = np.empty((*image.shape[:-1], len(classes)), np.float32)
        write_proba(Images([image], "image"), [probabilities])
        refined = refine.refine(image, probabilities)
        if method == "predict":
            output[...] = classes[refined.argmax(axis=-1)]
        else:
            output[...] = refined if method == "predict_proba" else entropy_of(refined)


def refined_boxes(refine: Any, of_boxes: BoxAnswers, classes: np.ndarray, method: str) -> BoxAnswers:
    """Return how refined labels or probabilities are given for boxes of one image: each is refined with what lies
    around it, as far as the CRF says, from the probabilities that `of_boxes` gives.
    """
    overlap = refine._part_overlap(len(of_boxes.margin))

    def write(reader: Reader, image: Any, box: Block, out: np.ndarray, n_jobs: int) -> None:
        window = grown(box, overlap, 1, image.shape[:-1])
        probabilities = np.empty((*sizes(window), len(classes)), np.float32)
        of_boxes.write(reader, image, window, probabilities, n_jobs)
        start = tuple(part.start for part in window)
        refined = refine._refine_part(np.asarray(image[window]), probabilities, start, n_jobs)[within(box, window)]
        out[...] = classes[refined.argmax(axis=-1)] if method == "predict" else refined

    pairs = zip(of_boxes.margin, overlap, strict=True)
    n_bytes = _BYTES_A_PIXEL + _BYTES_A_CLASS * len(classes)
    return BoxAnswers(tuple((a + c, b + d) for (a, b), (c, d) in pairs), write, n_bytes // _SHARE)
