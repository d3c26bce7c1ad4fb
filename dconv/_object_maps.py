"""Maps of probabilities that objects are found in: checked, and read block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dconv._axes import as_int, items_of
from dconv._pixels import Block
from dconv._validation import as_array, real_dtype


class Maps(NamedTuple):
    """Probabilities of shape (*spatial), or (*spatial, n_classes), and which classes are of objects."""

    array: Any  # an ndarray, or what is read like one
    shape: tuple[int, ...]  # spatial
    objects: list[int]  # classes
    names: list[str] | None  # of all classes

    def read(self, block: Block, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the class of each pixel of a block, counted from 1, 0 where there is no object; its probability.

        Raises
        ------
        ValueError
            If a probability is not between 0 and 1.
        """
        values = np.asarray(self.array[block])
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 1):  # also where they are NaN
            place = np.argwhere(~((values >= 0) & (values <= 1)))[0]
            start = [part.start for part in block] + [0] * (values.ndim - len(block))
            raise ValueError(
                f"probabilities must lie between 0 and 1, but at {tuple(int(i) for i in place + start)} there is "
                f"{values[tuple(place)]}; scores become probabilities by a logistic function, images by a division"
            )
        if values.ndim == len(self.shape):
            return (values >= threshold).astype(np.int32), values
        chosen = values[..., self.objects]
        best = chosen.argmax(axis=-1)
        probability = np.take_along_axis(chosen, best[..., np.newaxis], axis=-1)[..., 0]
        return np.where(probability >= threshold, np.array(self.objects)[best] + 1, 0).astype(np.int32), probability


def as_maps(probabilities: Any, ndim: int, background: Any, class_names: Any) -> Maps:
    """Return checked maps; only their shape and dtype are looked at."""
    readable = all(hasattr(probabilities, name) for name in ("shape", "dtype", "__getitem__"))
    array = probabilities if readable and not isinstance(probabilities, np.ndarray) else None
    array = as_array(probabilities, "probabilities", "0") if array is None else array
    shape = tuple(int(size) for size in array.shape)
    real_dtype(np.empty(0, array.dtype), "probabilities")
    if len(shape) not in (ndim, ndim + 1):
        raise ValueError(
            f"probabilities has shape {shape}, but with ndim={ndim} it is one map of {ndim} axes, or has the classes "
            f"on an axis {ndim + 1}; give ndim the number of spatial axes, and one image at a time"
        )
    if 0 in shape:
        raise ValueError(f"probabilities has shape {shape}: an axis of size 0 holds no pixels")
    n_classes = shape[ndim] if len(shape) > ndim else 1
    objects = _object_classes(background, n_classes) if len(shape) > ndim else [0]
    return Maps(array, shape[:ndim], objects, _as_names(class_names, n_classes))


def _object_classes(background: Any, n_classes: int) -> list[int]:
    """Return the classes that are of objects: all that are not `background`."""
    items = () if background is None else items_of(background)
    rule = "None, an int or a sequence of ints"
    without = [as_int(item, "background", rule=rule) for item in ((background,) if items is None else items)]
    for item in without:
        if not -n_classes <= item < n_classes:
            raise ValueError(
                f"background={background!r} names class {item}, but probabilities has {n_classes} classes on its last "
                f"axis, 0 to {n_classes - 1}"
            )
    objects = sorted(set(range(n_classes)) - {item % n_classes for item in without})
    if not objects:
        raise ValueError(
            f"background={background!r} leaves no class of objects: probabilities has {n_classes} class(es) on its "
            "last axis; a single map comes without that axis, or with background=None"
        )
    return objects


def _as_names(class_names: Any, n_classes: int) -> list[str] | None:
    if class_names is None:
        return None
    if isinstance(class_names, str) or not isinstance(class_names, Sequence | np.ndarray):
        raise TypeError(f"class_names must be None or a sequence of one name per class, got {class_names!r}")
    names = [str(name) for name in class_names]
    if len(names) != n_classes:
        raise ValueError(
            f"class_names has {len(names)} name(s), but probabilities has {n_classes} class(es), those without objects "
            "included; give one name for each"
        )
    return names
