"""Features that have learnt from labels, of held-out pixels: for each fold a copy that knows the labels of the others.

Who learns from the features of a pixel should see them as those of other images will be, whose labels are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from sklearn.utils.metaestimators import available_if

from dconv._block_features import gather_rows, prepared_for, relearnt
from dconv._folds import Folds
from dconv._pixels import Block, PixelSet
from dconv._receptive import Margin
from dconv._stages import Course


class HeldOutFeatures:
    """The features of `course`, of each pixel from a copy that has learnt from all folds but its own.

    It stands where a fitted transformer would, for the images of the lesson alone.
    """

    def __init__(self, course: Course, folds: Folds) -> None:
        self.inner_, self._course, self._folds = course.features, course, folds
        self._copies = [_copy(course, folds.of_pixel != fold) for fold in range(folds.n_folds)]

    @property
    def n_features_out_(self) -> int:
        return int(self.inner_.n_features_out_)

    @property
    def halo_(self) -> Margin:
        return self.inner_.halo_

    def rows_of(self, fold: int) -> np.ndarray:
        """Return the features of all labelled pixels from the copy of a fold."""
        return _rows(self._course, self._copies[fold])

    def rows(self) -> np.ndarray:
        """Return the features of all labelled pixels, each held out."""
        return _rows(self._course, self)

    def _for_number(self, number: int) -> Any:
        """Return the transformer of one image, as described in :mod:`dconv._block_features`."""
        present = self._folds.of_image(number)
        if len(present) == 1:
            return self._copies[present[0]]
        return _Mixture({fold: self._copies[fold] for fold in present}, number, self._folds)


class _Mixture:
    """Transformers of one image, each for the pixels of a fold."""

    def __init__(self, copies: Mapping[int, Any], number: int, folds: Folds) -> None:
        self._copies, self._number, self._folds = copies, number, folds
        self.parts_ = list(copies.values())

    @property
    def n_features_out_(self) -> int:
        return int(self.parts_[0].n_features_out_)

    @property
    def halo_(self) -> Margin:
        return self.parts_[0].halo_

    def _for_image(self, image: Any) -> Self:
        prepared = {fold: prepared_for(each, image) for fold, each in self._copies.items()}
        return type(self)(prepared, self._number, self._folds)

    @available_if(lambda self: all(hasattr(part, "_transform_block") for part in self.parts_))
    def _transform_block(self, image: Any, block: Block) -> np.ndarray:
        return self._mixed(block, lambda part: part._transform_block(image, block))

    def transform(self, image: Any) -> np.ndarray:
        whole = tuple(slice(0, size) for size in self._folds.shape(self._number))
        return self._mixed(whole, lambda part: np.array(part.transform(image)))

    def _mixed(self, block: Block, features_of: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Return the features of a block, of each pixel those of its fold."""
        of_pixel = self._folds.of_block(self._number, block)
        first, *others = np.unique(of_pixel)
        mixed = features_of(self._copies[first])
        for fold in others:
            mixed[of_pixel == fold] = features_of(self._copies[fold])[of_pixel == fold]
        return mixed


def _copy(course: Course, learnt: np.ndarray) -> Any:
    """Return the features of a course, which have learnt from those labelled pixels alone that `learnt` picks."""
    lesson = course.lesson
    ends = np.cumsum([mask.n_pixels for mask in lesson.masks])
    parts = zip(lesson.masks, np.split(learnt, ends[:-1]), strict=True)
    masks = [PixelSet(mask.shape, mask.places[part]) for mask, part in parts]
    return relearnt(course.features, lesson.images, masks, lesson.targets[learnt])


def _rows(course: Course, features: Any) -> np.ndarray:
    return gather_rows(features, course.lesson.images, course.channel_axis, course.lesson.masks, course.n_jobs)
