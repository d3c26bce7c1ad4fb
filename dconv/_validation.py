"""Checks at the door: dtypes, axes, images and label images, and the messages a user sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_CHUNK = 1 << 22  # samples looked at together when an image is searched for NaN; bounds memory on memory maps


def real_dtype(array: np.ndarray, name: str) -> np.dtype:
    """Return the dtype `array` is computed in: float64 stays, every other real dtype becomes float32.

    Raises
    ------
    TypeError
        If the dtype is complex, object, string, or otherwise not a real number.
    """
    if array.dtype.kind not in "buif":
        hint = (
            "pass its real and imaginary parts as two channels" if array.dtype.kind == "c" else "convert it to numbers"
        )
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}; {hint}")
    return np.dtype(np.float64 if array.dtype.kind == "f" and array.dtype.itemsize >= 8 else np.float32)


def as_real(**arrays: Any) -> list[np.ndarray | None]:
    """Return the named arrays in one float dtype, which the first of them decides; None stays None.

    Values are not rescaled: a uint8 image keeps its 0 to 255.
    """
    converted: list[np.ndarray | None] = []
    dtype = None
    for name, value in arrays.items():
        if value is None:
            converted.append(None)
            continue
        array = np.asarray(value)
        own = real_dtype(array, name)
        dtype = own if dtype is None else dtype
        array = np.asarray(array, dtype=dtype)
        converted.append(array if array.flags.aligned else array.copy())  # kernels read whole vectors of aligned reals
    return converted


class Images(NamedTuple):
    """What a user passed as `X`, seen as a list of channels-last images.

    Attributes
    ----------
    arrays : list of array of shape (*spatial, channels)
        Views of the user's data, in its own dtype.
    kind : {"image", "batch", "list"}
        What the user passed, and so what they get back.
    """

    arrays: list[np.ndarray]
    kind: str

    @property
    def spatial_shapes(self) -> list[tuple[int, ...]]:
        """Spatial shape of every image."""
        return [array.shape[:-1] for array in self.arrays]

    @property
    def n_channels(self) -> int:
        """Channels of every image (all have the same number)."""
        return self.arrays[0].shape[-1]

    def describe(self, index: int, name: str = "X") -> str:
        """Return how a message should call image `index`: ``X`` or ``X[3]``."""
        return name if self.kind == "image" else f"{name}[{index}]"

    def hint(self) -> str:
        """Return what to add to a message about shapes: an image in colour is easily taken for a batch."""
        if self.kind != "batch" or self.n_channels > 1:
            return ""
        return (
            f"; X was taken for a batch of {len(self.arrays)} images: pass channel_axis if an axis of it holds channels"
        )

    def allocate(self, shapes: Sequence[tuple[int, ...]], dtype: np.dtype | type) -> tuple[Any, list[np.ndarray]]:
        """Return an empty result of the user's kind, and one array of `shapes[i]` to write for every image."""
        if self.kind == "batch":
            result = np.empty((len(shapes), *shapes[0]), dtype)
            return result, list(result)
        views = [np.empty(shape, dtype) for shape in shapes]
        return (views[0] if self.kind == "image" else views), views


def _as_array(image: Any) -> np.ndarray:
    """Return `image` as an ndarray without copying what already is one (memory maps stay memory maps)."""
    return image if isinstance(image, np.ndarray) else np.asarray(image)


def _channels_last(image: np.ndarray, ndim: int, channel_axis: int | None, name: str) -> np.ndarray:
    if channel_axis is None:
        if image.ndim != ndim:
            remedy = (
                "pass channel_axis=-1 if the last axis holds channels"
                if image.ndim == ndim + 1
                else "check ndim and the array"
            )
            raise ValueError(
                f"{name} has {image.ndim} axes {image.shape}, but with ndim={ndim} and channel_axis=None an image has "
                f"{ndim} axes; {remedy}"
            )
        return image[..., np.newaxis]
    if image.ndim != ndim + 1:
        remedy = "pass channel_axis=None for a grey image" if image.ndim == ndim else "check ndim and the array"
        raise ValueError(
            f"{name} has {image.ndim} axes {image.shape}, but with ndim={ndim} and channel_axis={channel_axis} an "
            f"image has {ndim + 1} axes; {remedy}"
        )
    return np.moveaxis(image, channel_axis, -1)


def check_ndim(ndim: Any, channel_axis: Any) -> None:
    """Check that `ndim` is 1, 2 or 3 and that `channel_axis` is None or an axis of one image."""
    if ndim not in (1, 2, 3) or isinstance(ndim, bool):
        raise ValueError(f"ndim must be 1, 2 or 3 spatial axes, got {ndim!r}")
    if channel_axis is None:
        return
    if isinstance(channel_axis, bool) or not isinstance(channel_axis, int | np.integer):
        raise TypeError(f"channel_axis must be None or an int, got {channel_axis!r}")
    if not -ndim - 1 <= channel_axis <= ndim:
        raise ValueError(
            f"channel_axis={channel_axis} is not an axis of an image with ndim={ndim} and channels; "
            f"choose one from {-ndim - 1} to {ndim} (the batch axis does not count)"
        )


def as_images(X: Any, ndim: int, channel_axis: int | None, *, name: str = "X") -> Images:
    """Return `X` (one image, a batch array or a list of images) as channels-last :class:`Images`.

    `channel_axis` counts the axes of one image: it means the same in an image, a batch and a list.

    Raises
    ------
    TypeError
        If the dtype is not real.
    ValueError
        If the rank is wrong, an axis is empty, or the images do not have the same number of channels.
    """
    check_ndim(ndim, channel_axis)
    n_axes = ndim + (channel_axis is not None)
    if isinstance(X, list | tuple):
        if not X:
            raise ValueError(f"{name} is an empty list; pass at least one image")
        raw, kind = [_as_array(image) for image in X], "list"
    else:
        array = _as_array(X)
        if array.ndim == n_axes + 1:
            if len(array) == 0:
                raise ValueError(f"{name} has shape {array.shape}: a batch of no images; pass at least one image")
            raw, kind = list(array), "batch"
        else:
            raw, kind = [array], "image"
    images = Images(raw, kind)
    for index, image in enumerate(raw):
        real_dtype(image, images.describe(index, name))
        raw[index] = _channels_last(image, ndim, channel_axis, images.describe(index, name))
        if raw[index].size == 0:
            raise ValueError(
                f"{images.describe(index, name)} has shape {image.shape}: an axis of size 0 holds no pixels"
            )
    counts = [image.shape[-1] for image in raw]
    if len(set(counts)) > 1:
        odd = next(index for index, count in enumerate(counts) if count != counts[0])
        raise ValueError(
            f"all images must have the same number of channels, but {name}[0] has {counts[0]} and {name}[{odd}] has "
            f"{counts[odd]}"
        )
    return images


def check_n_channels(images: Images, expected: int, owner: object, *, name: str = "X") -> None:
    """Check that images have the number of channels `owner` was fitted with."""
    if images.n_channels != expected:
        raise ValueError(
            f"{name} has {images.n_channels} channel(s) per image, but {type(owner).__name__} was fitted with "
            f"{expected}; pass images of the kind seen at fit"
        )


def check_finite(images: Images, *, name: str = "X") -> None:
    """Check that no image holds NaN or infinity; integer images pass at no cost."""
    for index, image in enumerate(images.arrays):
        if image.dtype.kind != "f":
            continue
        rows = max(1, _CHUNK // max(1, image[0].size))
        for start in range(0, len(image), rows):
            part = np.asarray(image[start : start + rows])
            with np.errstate(over="ignore", invalid="ignore"):
                total = part.sum(dtype=np.result_type(part, np.float32))  # float16 would overflow on any image
            if np.isfinite(total):  # one pass without a temporary; a sum that overflows is looked at again
                continue
            bad = np.argwhere(~np.isfinite(part))
            if len(bad):
                place = (int(bad[0][0]) + start, *(int(i) for i in bad[0][1:]))
                raise ValueError(
                    f"{images.describe(index, name)} holds {part[tuple(bad[0])]} at (*pixel, channel) {place}; "
                    "features need finite numbers: fill such pixels, for instance with numpy.nan_to_num or the median"
                )


def check_min_size(images: Images, minimum: Sequence[int], why: str, *, name: str = "X") -> None:
    """Check that every image has at least `minimum[axis]` pixels along every spatial axis; `why` ends the message."""
    for index, shape in enumerate(images.spatial_shapes):
        for axis, (size, least) in enumerate(zip(shape, minimum, strict=True)):
            if size < least:
                raise ValueError(
                    f"{images.describe(index, name)} has spatial shape {shape}: axis {axis} has {size} pixels, but at "
                    f"least {least} are needed; {why}{images.hint()}"
                )


def _as_pixel_maps(values: Any, images: Images, name: str) -> list[np.ndarray]:
    """Return one array of the spatial shape of each image, from an array or list that matches `X` in kind."""
    if images.kind == "image":
        maps = [_as_array(values)]
    else:
        maps = [_as_array(value) for value in values]
        if len(maps) != len(images.arrays):
            raise ValueError(
                f"{name} has {len(maps)} image(s), but X has {len(images.arrays)}; "
                f"pass one {name} image per image{images.hint()}"
            )
    for index, (array, shape) in enumerate(zip(maps, images.spatial_shapes, strict=True)):
        if array.shape != shape:
            raise ValueError(
                f"{images.describe(index, name)} has shape {array.shape}, but the image has spatial shape {shape}; "
                f"{name} gives one value per pixel{images.hint()}"
            )
    return maps


def as_labels(y: Any, images: Images, *, name: str = "y") -> list[np.ndarray]:
    """Return the label images of `images`, integers of the images' spatial shapes.

    Raises
    ------
    TypeError
        If labels are not integers.
    ValueError
        If there is not one label per pixel.
    """
    maps = _as_pixel_maps(y, images, name)
    for index, labels in enumerate(maps):
        if labels.dtype.kind not in "bui":
            raise TypeError(
                f"{images.describe(index, name)} must hold integer labels, got dtype {labels.dtype}; "
                f"convert it with {name}.astype(int)"
            )
    return maps


def as_weights(sample_weight: Any, images: Images, *, name: str = "sample_weight") -> list[np.ndarray] | None:
    """Return one non-negative, finite weight per pixel for each image, or None."""
    if sample_weight is None:
        return None
    maps = _as_pixel_maps(sample_weight, images, name)
    for index, weights in enumerate(maps):
        real_dtype(weights, images.describe(index, name))
        if not np.all(np.isfinite(weights)) or np.any(weights < 0):
            raise ValueError(f"{images.describe(index, name)} must be finite and not negative")
    return maps
