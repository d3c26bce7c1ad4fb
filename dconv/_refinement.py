"""A CRF after a pixel classifier: the answers of whole images, refined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone

from dconv._parts import check_may_look_ahead, check_probabilities
from dconv._responses import entropy_of
from dconv._validation import Images

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
