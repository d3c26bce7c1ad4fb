"""Which axes of an image from a file are pages, which are space, and which holds the channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dconv._image_readers import ImageFile
from dconv._lazy_arrays import LazyArray, from_array

_FEW = 4  # as many samples as the last axis of a picture in colour has at most, where a file does not tell


def as_model_sees(image: ImageFile, ndim: int, channel_axis: int | None) -> ImageFile:
    """Return an image with its channels, if the file tells where they lie, on `channel_axis`, and without leading axes
    of size 1, as OME files have them for time and depth.

    Zarr arrays stay where they are.

    Parameters
    ----------
    channel_axis : int or None
        Among the axes of one image; None is an image without channels.
    """
    n_axes, told = ndim + (channel_axis is not None), image.channel_axis
    if told is not None and channel_axis is not None:
        place = image.array.ndim - n_axes + channel_axis % n_axes
        if 0 <= place != told:
            image = _moved(image, told, place)
    elif told is not None and image.array.shape[told] == 1:
        image = _without_first(_moved(image, told, 0))
    while image.array.ndim > n_axes and image.array.shape[0] == 1:
        image = _without_first(image)
    return image


def number_of_pages(image: ImageFile, ndim: int, channel_axis: int | None) -> int | None:
    """Return how many images `image`, as a model sees it, is; None if it is one.

    Raises
    ------
    ValueError
        If it is neither.
    """
    shape = image.array.shape
    n_axes = ndim + (channel_axis is not None)
    in_colour = channel_axis is None and (image.channel_axis is not None or shape[-1] <= _FEW)
    if len(shape) == n_axes + 1 and not in_colour:
        return shape[0]
    if len(shape) != n_axes:
        axis = "without channels" if channel_axis is None else f"with channels on axis {channel_axis}"
        raise ValueError(f"it has shape {shape}, but the model is for {ndim}-D images {axis}")
    return None


def images_of(image: ImageFile, ndim: int, channel_axis: int | None) -> list[Any]:
    """Return the images that a file holds: its pages, or one."""
    array = as_model_sees(image, ndim, channel_axis).array
    if array.ndim == ndim + (channel_axis is not None):
        return [array]
    return list(array) if isinstance(array, np.ndarray) else [_lazy(array).item(page) for page in range(len(array))]


def axis_of_channels(
    path: Path, image: ImageFile, label_path: Path, label: ImageFile, ndim: int, channel_axis: int | str | None
) -> int | None:
    """Return `channel_axis`, or if that is "auto" the one by which an image, or each page, has the shape of its labels.

    Raises
    ------
    ValueError
        If the shapes do not fit together.
    """
    labels = as_model_sees(label, ndim, None).array.shape
    choices: tuple[Any, ...] = (channel_axis,)
    if channel_axis == "auto":
        in_colour = image.channel_axis is not None and image.array.shape[image.channel_axis] > 1
        choices = (-1,) if in_colour else (None, -1)
    for axis in choices:
        n_axes = ndim + (axis is not None)
        if axis is not None and not -n_axes <= axis < n_axes:
            raise ValueError(f"an image of {ndim} spatial axes and channels has no axis {axis}: see --channel-axis")
        shape = list(as_model_sees(image, ndim, axis).array.shape)
        if axis is not None and len(shape) >= n_axes:
            del shape[len(shape) - n_axes + axis % n_axes]
        if tuple(shape) == labels and len(labels) in (ndim, ndim + 1):
            return axis
    given, hint = image.array.shape, ""
    if labels == given[1:]:
        hint = "; if the first axis of the image holds channels, pass --channel-axis 0"
    elif labels[:-1] == given[:ndim]:
        hint = "; a label image holds one whole number for each pixel: save it in grey, or with a palette"
    elif len(labels) < ndim:
        hint = f"; with --ndim {ndim} they have {ndim} axes"
    told = "" if channel_axis == "auto" else f" with channel axis {channel_axis}"
    raise ValueError(
        f"{label_path} has labels of shape {label.array.shape}, which do not fit {path} of shape {given}{told}{hint}"
    )


def _lazy(array: Any) -> LazyArray:
    return array if isinstance(array, LazyArray) else from_array(array, "image")


def _moved(image: ImageFile, source: int, place: int) -> ImageFile:
    """Return an image with its channels on another axis."""
    order = [axis for axis in range(image.array.ndim) if axis != source]
    order.insert(place, source)
    is_read = isinstance(image.array, np.ndarray)
    return image._replace(
        array=image.array.transpose(order) if is_read else _lazy(image.array).transposed(order),
        axes=_in_order(image.axes, order),
        scale=_in_order(image.scale, order),
        channel_axis=place,
    )


def _without_first(image: ImageFile) -> ImageFile:
    """Return an image without its first axis, of size 1."""
    is_read = isinstance(image.array, np.ndarray)
    return image._replace(
        array=image.array[0] if is_read else _lazy(image.array).item(0),
        axes=None if image.axes is None else image.axes[1:],
        scale=None if image.scale is None else image.scale[1:],
        channel_axis=None if not image.channel_axis else image.channel_axis - 1,
    )


def _in_order(values: Sequence[Any] | None, order: Sequence[int]) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values[axis] for axis in order)
