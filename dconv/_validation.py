"""Checks at the door: dtypes, axes, images and label images, and the messages a user sees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int, as_ndim
from dconv._lazy_arrays import LastUsed, LazyArray, as_lazy, map_rows

Kind = Literal["image", "batch", "list"]

LARGEST = 1e18  # value of an image that filters look at: squares of its differences, added up, fit in float32
FLOAT32_MAX, FLOAT64_MAX = float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)

_CHUNK = 1 << 22  # samples of an image that are checked together; bounds memory on memory maps


def real_dtype(array: np.ndarray, name: str) -> np.dtype:
    """Return the dtype `array` is computed in: float64 stays, every other real dtype becomes float32.

    Raises
    ------
    TypeError
        If the dtype is complex, object, string, or otherwise not a real number.
    """
    if array.dtype.kind not in "buif":
        hint = "convert it to numbers"
        if array.dtype.kind == "c":
            hint = "pass its real and imaginary parts as two channels"
        elif holds_arrays(array):
            hint = f"several arrays are a list: pass list({name})"
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}; {hint}")
    return np.dtype(np.float64 if array.dtype.kind == "f" and array.dtype.itemsize >= 8 else np.float32)


def holds_arrays(array: Any) -> bool:
    """Tell whether an array is one of objects that are arrays, as NumPy makes of such that differ in size."""
    return bool(array.dtype == object and array.size and isinstance(np.asarray(array).flat[0], np.ndarray))


def as_real(*, bias: ArrayLike | None = None, **arrays: ArrayLike) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return the named arrays in one float dtype, which the first of them decides, and `bias`, which may be None.

    Values are not rescaled: a uint8 image keeps its 0 to 255.
    """
    if bias is not None:
        arrays["bias"] = bias
    converted = []
    dtype = None
    for name, value in arrays.items():
        if value is None:  # bias alone may be left out
            raise TypeError(f"{name} must hold real numbers, got None")
        array = as_array(value, name)
        own = real_dtype(array, name)
        dtype = own if dtype is None else dtype
        array = np.asarray(array, dtype=dtype)
        converted.append(array if array.flags.aligned else array.copy())  # kernels read whole vectors of aligned reals
    return converted, None if bias is None else converted.pop()


class Images(NamedTuple):
    """What a user passed as `X`, seen as a list of channels-last images.

    Attributes
    ----------
    arrays : list of array of shape (*spatial, channels)
        Views of the user's data, in its own dtype: ndarrays, or what is read when it is sliced.
    kind : {"image", "batch", "list"}
        What the user passed, and so what they get back.
    name : str
        Of the argument, for messages.
    """

    arrays: list[Any]
    kind: Kind
    name: str = "X"

    @property
    def spatial_shapes(self) -> list[tuple[int, ...]]:
        """Spatial shape of every image."""
        return [array.shape[:-1] for array in self.arrays]

    @property
    def n_channels(self) -> int:
        """Channels of every image (all have the same number)."""
        return self.arrays[0].shape[-1]

    @property
    def n_axes(self) -> int:
        """Spatial axes of every image."""
        return self.arrays[0].ndim - 1

    def describe(self, index: int, name: str | None = None) -> str:
        """Return how a message should call image `index`, or what argument `name` has for it: ``X`` or ``X[3]``."""
        name = self.name if name is None else name
        return name if self.kind == "image" else f"{name}[{index}]"

    def hint(self) -> str:
        """Return what to add to a message about shapes: an image in colour is easily taken for a batch."""
        if self.kind != "batch" or self.n_channels > 1:
            return ""
        taken = f"{self.name} was taken for a batch of {len(self.arrays)} images"
        return f"; {taken}: pass channel_axis if an axis of it holds channels"

    def allocate(self, shapes: Sequence[tuple[int, ...]], dtype: np.dtype | type) -> tuple[Any, list[np.ndarray]]:
        """Return an empty result of the user's kind, and one array of `shapes[i]` to write for every image."""
        if self.kind == "batch":
            result = np.empty((len(shapes), *shapes[0]), dtype)
            return result, list(result)
        views = [np.empty(shape, dtype) for shape in shapes]
        return (views[0] if self.kind == "image" else views), views


def as_array(value: Any, name: str, fill: str = "value") -> np.ndarray:
    """Return `value` as an ndarray without copying what already is one (memory maps stay memory maps).

    A matrix, which has two axes whatever is done to it, and a masked array that masks nothing become plain arrays.

    Raises
    ------
    TypeError
        If values are masked: the mask would be lost. `fill` is what the message proposes in their place.
        If nested lists differ in length.
    """
    if np.ma.is_masked(value):
        raise TypeError(f"{name} holds masked pixels, and the mask would be ignored: pass {name}.filled({fill})")
    try:
        plain = isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray | np.matrix)
        return value if plain else np.asarray(value)
    except ValueError:  # ragged
        raise TypeError(
            f"{name} must be an array, but got a {type(value).__name__} of items of different shapes; make "
            "them equal, or pass one after another"
        ) from None


def as_readable(value: Any, name: str, number: int, last_used: LastUsed, fill: str = "value") -> Any:
    """Return `value` as an array that can be sliced: an ndarray, or a :class:`dconv._lazy_arrays.LazyArray`."""
    lazy = as_lazy(value, name, number, last_used, lambda found, name: as_array(found, name, fill))
    return as_array(value, name, fill) if lazy is None else lazy


def as_axes(ndim: Any, channel_axis: Any) -> tuple[int, int | None]:
    """Return `ndim`, which must be 1, 2 or 3, and `channel_axis`, which must be None or an axis of one image."""
    ndim = as_ndim(ndim)
    if channel_axis is None:
        return ndim, None
    axis = as_int(channel_axis, "channel_axis", rule="None or an int")
    if not -ndim - 1 <= axis <= ndim:
        raise ValueError(
            f"channel_axis={axis} is not an axis of an image with ndim={ndim} and channels; "
            f"choose one from {-ndim - 1} to {ndim} (the batch axis does not count)"
        )
    return ndim, axis


def as_images(
    X: Any,
    ndim: int,
    channel_axis: int | None,
    *,
    name: str = "X",
    grey_remedy: str = "pass channel_axis=None for a grey image",
) -> Images:
    """Return `X` (one image, a batch array or a list of images) as channels-last :class:`Images`.

    An image that slices but is no NumPy array (Zarr, HDF5, dask), or is a callable that returns one, stays where it is.

    `channel_axis` counts the axes of one image: it means the same in an image, a batch and a list. `name` is that of
    the argument, and `grey_remedy` what a message proposes where the axis of channels is missing.

    Raises
    ------
    TypeError
        If the dtype is not real, or pixels are masked.
    ValueError
        If the rank is wrong, an axis is empty, or the images do not have the same number of channels.
    """
    ndim, channel_axis = as_axes(ndim, channel_axis)
    n_axes = ndim + (channel_axis is not None)
    kind: Kind = "list"
    last_used = LastUsed()
    if isinstance(X, list | tuple):
        if not X:
            raise ValueError(f"{name} is an empty list; pass at least one image")
        raw = [as_readable(image, f"{name}[{index}]", index, last_used) for index, image in enumerate(X)]
    else:
        array = as_readable(X, name, 0, last_used)
        kind = "batch" if array.ndim == n_axes + 1 else "image"
        if kind == "batch" and len(array) == 0:
            raise ValueError(f"{name} has shape {array.shape}: a batch of no images; pass at least one image")
        raw = items_of_batch(array) if kind == "batch" else [array]
    images = Images(raw, kind, name)
    for index, image in enumerate(raw):
        called = images.describe(index)
        real_dtype(image, called)
        if image.ndim != n_axes:
            remedy = "check ndim and the array"
            if kind == "list" and image.ndim == n_axes - 1:
                remedy = "a list holds several images: pass one image as an array, as by numpy.asarray"
            elif channel_axis is None and image.ndim == n_axes + 1:
                remedy = "pass channel_axis=-1 if the last axis holds channels"
            elif channel_axis is not None and image.ndim == ndim:
                remedy = grey_remedy
            raise ValueError(
                f"{called} has {image.ndim} axes {image.shape}, but with ndim={ndim} and channel_axis={channel_axis} "
                f"an image has {n_axes} axes; {remedy}"
            )
        if image.size == 0:
            raise ValueError(f"{called} has shape {image.shape}: an axis of size 0 holds no pixels")
        raw[index] = channels_last(image, channel_axis)
    counts = [image.shape[-1] for image in raw]
    if len(set(counts)) > 1:
        odd = next(index for index, count in enumerate(counts) if count != counts[0])
        raise ValueError(
            f"all images must have the same number of channels, but {name}[0] has {counts[0]} and {name}[{odd}] has "
            f"{counts[odd]}"
        )
    return images


def items_of_batch(array: Any) -> list[Any]:
    """Return the items of an array along its first axis."""
    return [array.item(index) for index in range(len(array))] if isinstance(array, LazyArray) else list(array)


def channels_last(image: Any, channel_axis: int | None) -> Any:
    """Return a view of an image (*spatial, channels)."""
    if isinstance(image, LazyArray):
        return image.channels_last(channel_axis)
    return image[..., np.newaxis] if channel_axis is None else np.moveaxis(image, channel_axis, -1)


def check_n_channels(images: Images, expected: int, owner: object) -> None:
    """Check that images have the number of channels `owner` was fitted with."""
    if images.n_channels != expected:
        raise ValueError(
            f"X has {images.n_channels} channel(s) per image, but {type(owner).__name__} was fitted with "
            f"{expected}; pass images of the kind seen at fit"
        )


def check_finite(images: Images, largest: float = LARGEST) -> None:
    """Check that no image holds NaN, infinity or a value beyond `largest`; integers of few bits pass at no cost.

    Pixels of which an image knows that they hold no data (`valid`) may hold anything.
    """
    for index, image in enumerate(images.arrays):
        source, valid = getattr(image, "source", image), getattr(image, "valid", None)
        known = getattr(image, "known", {})
        if (source.dtype.kind != "f" and source.dtype.itemsize < 8) or known.get("at most", np.inf) <= largest:
            continue
        n_rows = max(1, _CHUNK // max(1, math.prod(source.shape[1:])))
        for found in map_rows(partial(_first_bad, largest), n_rows, source, valid):
            if found is None:
                continue
            value, place = found
            if np.isfinite(value):
                remedy = f"features are float32 and need values up to {largest:g}: rescale the image"
            else:
                remedy = (
                    "features need finite numbers: fill such pixels, for instance with the median of the others, or "
                    f"leave them out, as by PixelClassifier(nodata=-1){'' if np.isnan(value) else ' and mask'}"
                )
            raise ValueError(f"{images.describe(index)} holds {value} at (*pixel, channel) {place}; {remedy}")
        known["at most"] = largest


def _first_bad(
    largest: float, start: int, part: np.ndarray, valid: np.ndarray | None
) -> tuple[Any, tuple[int, ...]] | None:
    """Return a value beyond `largest`, or not finite, and its place in an image of which `part` begins at a row."""
    if valid is not None:
        part = np.where(valid[..., np.newaxis], part, part.dtype.type(0))
    # NaN is the minimum and the maximum of its part. float16 cannot be compared with 1e18.
    if -largest <= float(part.min()) and float(part.max()) <= largest:
        return None
    with np.errstate(over="ignore"):
        size = np.abs(part.astype(np.float64))
    bad = np.argwhere(~(size <= largest))[0]
    return part[tuple(bad)], (int(bad[0]) + start, *(int(i) for i in bad[1:]))


def check_min_size(images: Images, minimum: Sequence[int], why: str) -> None:
    """Check that every image has at least `minimum[axis]` pixels along every spatial axis; `why` ends the message."""
    for index, shape in enumerate(images.spatial_shapes):
        for axis, (size, least) in enumerate(zip(shape, minimum, strict=True)):
            if size < least:
                raise ValueError(
                    f"{images.describe(index)} has spatial shape {shape}: axis {axis} has {size} pixels, but at "
                    f"least {least} are needed; {why}{images.hint()}"
                )


def _as_pixel_maps(values: Any, images: Images, name: str, fill: str) -> list[np.ndarray]:
    """Return one array of the spatial shape of each image, from an array or list that matches `X` in kind."""
    last_used = LastUsed()
    if images.kind == "image":
        maps = [as_readable(values, name, 0, last_used, fill)]
    else:
        stacked = None if isinstance(values, list | tuple) else as_readable(values, name, 0, last_used, fill)
        if stacked is not None and stacked.ndim != images.n_axes + 1:
            found = f"{values!r:.60}" if stacked.ndim == 0 else f"an array of shape {stacked.shape}"
            raise ValueError(
                f"{name} must be a list of {len(images.arrays)} arrays, or one array, with one value for every pixel "
                f"of every image, as X is a {images.kind} of images, but got {found}{images.hint()}"
            )
        several = values if stacked is None else items_of_batch(stacked)
        maps = [as_readable(each, f"{name}[{index}]", index, last_used, fill) for index, each in enumerate(several)]
        if len(maps) != len(images.arrays):
            raise ValueError(
                f"{name} has {len(maps)} image(s), but X has {len(images.arrays)}; "
                f"pass one {name} image per image{images.hint()}"
            )
    for index, (array, shape) in enumerate(zip(maps, images.spatial_shapes, strict=True)):
        if array.shape != shape:
            hint = images.hint()
            if images.kind == "image" and array.ndim == images.n_axes + 1:
                hint = (
                    f"; X was taken for one image of {images.n_channels} channels: pass channel_axis=None if it is a "
                    "batch of grey images"
                )
            raise ValueError(
                f"{images.describe(index, name)} has shape {array.shape}, but the image has spatial shape {shape}; "
                f"{name} gives one value per pixel{hint}"
            )
    return maps


def as_labels(y: Any, images: Images, name: str = "y") -> list[np.ndarray]:
    """Return the label images of `images`, integers of the images' spatial shapes.

    Raises
    ------
    TypeError
        If labels are not integers, or some are masked.
    ValueError
        If there is not one label per pixel.
    """
    maps = _as_pixel_maps(y, images, name, fill="ignore_label")
    for index, labels in enumerate(maps):
        check_integers(labels, images.describe(index, name))
    return maps


def as_masks(mask: Any, images: Images) -> list[np.ndarray]:
    """Return one boolean mask for each image, True where a pixel holds data."""
    if isinstance(mask, list | tuple):  # None stands for an image in which all pixels hold data
        shapes = itertools.chain(images.spatial_shapes, itertools.repeat((0,)))  # too long a list is refused below
        mask = [_all_true(shape) if each is None else each for each, shape in zip(mask, shapes, strict=False)]
    maps = _as_pixel_maps(mask, images, "mask", fill="False")
    for index, each in enumerate(maps):
        if each.dtype != bool:
            raise TypeError(
                f"{images.describe(index, 'mask')} must be boolean, True where a pixel holds data, got dtype "
                f"{each.dtype}"
            )
    return maps


def _all_true(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.True_, shape)


def check_integers(labels: np.ndarray, name: str) -> None:
    """Check that a label image holds integers."""
    if labels.dtype.kind in "bui":
        return
    if labels.dtype.kind != "f":
        remedy = f"number the classes, as by 1 + numpy.unique({name}, return_inverse=True)[1]"
    elif np.isfinite(np.asarray(labels)).all():
        remedy = f"convert it with {name}.astype(int)"
    else:
        remedy = f"give pixels that are NaN or infinite the ignored label, then convert it with {name}.astype(int)"
    raise TypeError(f"{name} must hold integer labels, got dtype {labels.dtype}; {remedy}")


def as_weights(sample_weight: Any, images: Images) -> list[np.ndarray] | None:
    """Return one non-negative, finite weight per pixel for each image, or None."""
    if sample_weight is None:
        return None
    maps = _as_pixel_maps(sample_weight, images, "sample_weight", fill="0")
    for index, weights in enumerate(maps):
        name = images.describe(index, "sample_weight")
        real_dtype(weights, name)
        n_rows = max(1, _CHUNK // max(1, math.prod(weights.shape[1:])))
        if not all(map_rows(_are_weights, n_rows, weights)):
            raise ValueError(f"{name} must be finite and not negative")
    return maps


def _are_weights(start: int, weights: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(weights)) and not np.any(weights < 0))
