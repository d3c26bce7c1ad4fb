"""Features of labelled pixels, kept from one `fit` to the next: who adds a scribble waits for the new pixels only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np

from dconv._block_features import gather_rows
from dconv._nodata import valid_pixels
from dconv._pixels import PixelSet
from dconv._regions import is_lazy
from dconv._validation import Images

_MAX_IMAGE_BYTES = 1 << 26  # larger images are not looked at whole to know them again: that takes longer than it saves
_MAX_BYTES = 1 << 26  # of features that are kept


class FeatureCache:
    """What was computed for the images of the last call. Images are known by what they hold, not by where they lie."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of an image: places of pixels, ascending; features

    def gather(
        self, features: Any, images: Images, channel_axis: int | None, masks: Sequence[PixelSet], n_jobs: int
    ) -> np.ndarray:
        """Return what :func:`dconv._block_features.gather_rows` returns, computing only what is not known yet.

        `features` has been fitted. Only transformers that work block by block are known to give a pixel of the same
        image the same features; of others nothing is kept.
        """
        if not hasattr(features, "_transform_block") or not getattr(features, "_cacheable", True):
            return gather_rows(features, images, channel_axis, masks, n_jobs)
        keys = self._keys(features, images)
        missing = []
        for key, mask in zip(keys, masks, strict=True):
            known_places: Any = self._known[key][0] if key in self._known else []
            missing.append(PixelSet(mask.shape, np.setdiff1d(mask.places, known_places, assume_unique=True)))
        computed = gather_rows(features, images, channel_axis, missing, n_jobs)
        parts, known, done = [], {}, 0
        for key, mask, rest in zip(keys, masks, missing, strict=True):
            places = rest.places
            rows = computed[done : done + len(places)]
            done += len(places)
            if key in self._known:
                old_places, old_rows = self._known[key]
                order = np.argsort(np.concatenate([old_places, places]), kind="stable")
                rows = np.concatenate([old_rows, rows])[order]
                places = np.concatenate([old_places, places])[order]
            known[key] = places, rows
            parts.append(rows[np.searchsorted(places, mask.places)])
        known.pop("", None)
        self._known = known if sum(rows.nbytes for _, rows in known.values()) <= _MAX_BYTES else {}
        return np.concatenate(parts)

    def _keys(self, features: Any, images: Images) -> list[str]:
        """Return what tells each image, and how its features are made, from others; "" for images that are too large,
        or would have to be read whole, to tell.
        """
        # With what it has learnt from the images of fit, which may be others now.
        parameters = {name: value for name, value in vars(features).items() if name != "n_jobs"}
        maker = joblib.hash((type(features).__qualname__, parameters))
        content = [(image, valid_pixels(image)) for image in images.arrays]
        return [
            f"{maker} {joblib.hash((np.asarray(image), None if valid is None else np.asarray(valid)))}"
            if image.nbytes <= _MAX_IMAGE_BYTES and not is_lazy(image)
            else ""
            for image, valid in content
        ]
