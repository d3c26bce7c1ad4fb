"""What a CRF is given, checked: images beside their probabilities, widths, weights, compatibilities, kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dconv._axes import items_of
from dconv._crf_embedding import Features
from dconv._intensity import intensity_of, pooled, rows_summed
from dconv._kernels import _lattice
from dconv._lazy_arrays import map_rows
from dconv._nodata import valid_pixels
from dconv._receptive import Margin
from dconv._validation import Images, Kind, as_array, check_finite, real_dtype

_SPATIAL_SIGMAS, _APPEARANCE_SIGMAS = 10, 3  # that a part of an image is refined with: measured, see docs/scaling.md
COLOR_SIGMA = 13.0  # of images of 8 bits, as the CRF's authors have it
_SHARE_OF_STD = 0.25  # of others: photographs of 8 bits have standard deviations of about 50
ASYMMETRY = 1e-4  # of a compatibility, relative, that counts as rounding


class Pair(NamedTuple):
    """An image, channels last and maybe with no channels, and one row of values for each of its pixels."""

    image: np.ndarray
    values: np.ndarray
    name: str


def as_pairs(image: Any, values: Any, ndim: int, channel_axis: int | None, name: str) -> tuple[Kind, list[Pair]]:
    """Return every image with its probabilities or energies, and whether it is one image, a batch or a list.

    `values`, whose last axis holds classes, say what the kind is; so an image with one axis more than its pixels have
    holds channels, and no word is needed.
    """
    if isinstance(values, list | tuple):
        kind: Kind = "list"
        several = list(values)
    else:
        array = as_array(values, name)
        kind = "batch" if array.ndim == ndim + 2 else "image"
        several = list(array) if kind == "batch" else [array]
    if not several:
        raise ValueError(f"{name} holds no image; pass at least one")
    if image is None:
        images = [None] * len(several)
    elif kind == "image":
        images = [image]
    else:
        images = list(image) if isinstance(image, list | tuple | np.ndarray) else list(np.asarray(image))
    if len(images) != len(several):
        raise ValueError(f"{name} has {len(several)} image(s), but image has {len(images)}; pass one for each")
    pairs = []
    for index, (one, rows) in enumerate(zip(images, several, strict=True)):
        suffix = "" if kind == "image" else f"[{index}]"
        rows = _as_values(rows, ndim, name + suffix)
        shape = rows.shape[:-1]
        one = np.empty((*shape, 0), np.float32) if one is None else as_image(one, ndim, channel_axis, "image" + suffix)
        if one.shape[:-1] != shape:
            raise ValueError(
                f"image{suffix} has spatial shape {one.shape[:-1]}, but {name}{suffix} has {shape}; give both the "
                "same pixels"
            )
        pairs.append(Pair(one, rows, name + suffix))
    return kind, pairs


def as_image(image: Any, ndim: int, channel_axis: int | None, name: str) -> np.ndarray:
    """Return an image with its channels last, which may be none; finite and real."""
    array = as_array(image, name)
    real_dtype(array, name)
    if array.ndim == ndim and channel_axis is None:
        array = array[..., np.newaxis]
    elif array.ndim == ndim + 1:
        array = np.moveaxis(array, -1 if channel_axis is None else channel_axis, -1)
    else:
        expected = f"{ndim + 1}" if channel_axis is not None else f"{ndim} axes, or {ndim + 1}"
        raise ValueError(
            f"{name} has shape {array.shape}, but with ndim={ndim} and channel_axis={channel_axis} an image has "
            f"{expected} axes; check ndim and channel_axis"
        )
    if 0 in array.shape[:-1]:
        raise ValueError(f"{name} has shape {array.shape}: an axis of size 0 holds no pixels")
    if array.shape[-1] > 0:
        check_finite(Images([array], "image", name))
    return array


def _as_values(values: Any, ndim: int, name: str) -> np.ndarray:
    array = as_array(values, name)
    real_dtype(array, name)
    if array.ndim != ndim + 1:
        raise ValueError(
            f"{name} has shape {array.shape}, but with ndim={ndim} it must have {ndim + 1} axes: those of the image, "
            "and last one of classes"
        )
    if 0 in array.shape[:-1]:
        raise ValueError(f"{name} has shape {array.shape}: an axis of size 0 holds no pixels")
    if array.shape[-1] < 2:
        raise ValueError(f"{name} has {array.shape[-1]} class(es) on its last axis, but at least 2 are needed")
    return np.ascontiguousarray(array, np.float32)


def as_widths(value: Any, n: int, name: str, per: str) -> tuple[float, ...]:
    """Return one standard deviation above 0 for each of `n` axes or channels."""
    items = items_of(value)
    values = (value,) * n if items is None else items
    try:
        widths = tuple(float(item) for item in values)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or one number per {per}, got {value!r}") from None
    if len(widths) != n:
        raise ValueError(f"{name} must be a number or have one for each {per}, {n} in all, but got {value!r}")
    if not all(0 < width < math.inf for width in widths):
        raise ValueError(f"{name} must be above 0 and finite, got {value!r}; to leave a kernel out set its weight to 0")
    return widths


def as_weight(value: Any, name: str) -> float:
    """Return the weight of a kernel, 0 or more."""
    try:
        weight = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name} must be 0 or more and finite, got {value!r}")
    return weight


def as_compatibility(value: Any, n_classes: int, name: str) -> np.ndarray | None:
    """Return a symmetric matrix of costs, or None for Potts."""
    if value is None:
        return None
    matrix = as_array(value, name)
    real_dtype(matrix, name)
    matrix = matrix.astype(np.float64)
    if matrix.shape != (n_classes, n_classes):
        raise ValueError(
            f"{name} must be None (Potts) or a matrix of shape ({n_classes}, {n_classes}), as there are {n_classes} "
            f"classes, got shape {matrix.shape}"
        )
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite")
    if np.abs(matrix - matrix.T).max() > ASYMMETRY * np.abs(matrix).max():
        raise ValueError(f"{name} must be symmetric: what i costs beside j, j costs beside i; take (m + m.T) / 2")
    return matrix


def as_kernel_list(kernels: Any, n_images: int | None) -> list:
    """Return the extra kernels as given, with features of each of `n_images`; None: of one image, not of a list."""
    form = "(features, weight) or (features, weight, compatibility)"
    try:
        listed = list(kernels)  # an iterator would be empty at the second image
    except TypeError:
        raise TypeError(f"kernels must be a list of {form}, got {kernels!r:.60}") from None
    for number, kernel in enumerate(listed):
        name = f"kernels[{number}]"
        if not isinstance(kernel, list | tuple) or len(kernel) not in (2, 3):
            raise TypeError(f"{name} must be {form}, got {kernel!r:.60}")
        if n_images is not None and (not hasattr(kernel[0], "__len__") or len(kernel[0]) != n_images):
            raise ValueError(f"the features of {name} must be a batch or list of {n_images}, one for each image")
    return listed


def as_kernels(
    kernels: list, index: int, kind: Kind, ndim: int, spatial: tuple[int, ...]
) -> list[tuple[Features, Any]]:
    """Return the extra kernels of image `index`, each with its compatibility as given."""
    found = []
    for number, kernel in enumerate(kernels):
        name = f"kernels[{number}]"
        given, weight, compatibility = (*kernel, None)[:3]
        features = as_image(given if kind == "image" else given[index], ndim, -1, f"the features of {name}")
        if features.shape[:-1] != spatial:
            raise ValueError(
                f"the features of {name} have spatial shape {features.shape[:-1]}, but the image has {spatial}"
            )
        described = Features(
            name, (), to_3d(features), (1.0,) * features.shape[-1], as_weight(weight, f"the weight of {name}"),
            "divide its features by larger widths",
        )  # fmt: skip
        found.append((described, compatibility))
    return found


def default_kernels(crf: Any, image: np.ndarray, start: tuple[int, ...]) -> list[Features]:
    """Return the spatial and the appearance kernel of a CRF on an image, channels last, or on the part of one that
    begins at `start`.
    """
    place = (*(0,) * (3 - len(start)), *start)
    ndim, n_channels = image.ndim - 1, image.shape[-1]
    spatial_weight = as_weight(crf.spatial_weight, "spatial_weight")
    appearance_weight = as_weight(crf.appearance_weight, "appearance_weight")
    spatial_sigma = as_widths(crf.spatial_sigma, ndim, "spatial_sigma", "spatial axis")
    appearance_sigma = as_widths(crf.appearance_sigma, ndim, "appearance_sigma", "spatial axis")
    kernels = [
        Features(
            "the spatial kernel",
            spatial_sigma,
            to_3d(image[..., :0]),
            (),
            spatial_weight,
            "raise spatial_sigma",
            place,
        )
    ]
    if n_channels > 0:
        color_sigma = as_widths(
            color_sigma_of([image]) if crf.color_sigma is None else crf.color_sigma,
            n_channels,
            "color_sigma",
            "channel",
        )
        remedy = "raise color_sigma, to which the image's values are compared, or appearance_sigma"
        name, channels = "the appearance kernel", to_3d(image)
        kernels.append(Features(name, appearance_sigma, channels, color_sigma, appearance_weight, remedy, place))
    return kernels


def color_sigma_of(images: Sequence[Any]) -> float:
    """Return the width in colour, for images (*spatial, channels), that :class:`dconv.DenseCRF` takes if it has none.

    It is about the same share of what images vary by, whatever their unit: with 13 in images from 0 to 1 all are alike.
    """
    images = [image for image in images if image.shape[-1] > 0]
    if all(_holds_bytes(image) for image in images):
        return COLOR_SIGMA
    intensities = [intensity_of(image) for image in images]
    brightness = pooled(intensities)
    colors = [each.n_pixels * each.color / image.shape[-1] for each, image in zip(intensities, images, strict=True)]
    return _SHARE_OF_STD * math.sqrt(brightness.variance + math.fsum(colors) / brightness.n_pixels) or COLOR_SIGMA


def _holds_bytes(image: Any) -> bool:
    """Tell whether an image holds whole numbers from 0 to 255, in whatever dtype; pixels without data do not count."""
    if image.dtype == np.uint8:
        return True
    valid = valid_pixels(image)
    source = image if valid is None else image.source
    return all(map_rows(_are_bytes, rows_summed(image.shape), source, valid))


def _are_bytes(start: int, rows: np.ndarray, valid: np.ndarray | None) -> bool:
    values = rows if valid is None else rows[valid]
    return bool(np.all((values >= 0) & (values <= 255) & (values == np.floor(values))))


def part_overlap(crf: Any, ndim: int) -> Margin:
    """Return the pixels around a part of an image that a CRF is to see, per spatial axis."""
    spatial = as_widths(crf.spatial_sigma, ndim, "spatial_sigma", "spatial axis")
    appearance = as_widths(crf.appearance_sigma, ndim, "appearance_sigma", "spatial axis")
    counts = as_weight(crf.appearance_weight, "appearance_weight") > 0
    reach = [
        math.ceil(max(_SPATIAL_SIGMAS * near, _APPEARANCE_SIGMAS * far if counts else 0))
        for near, far in zip(spatial, appearance, strict=True)
    ]
    return tuple((pixels, pixels) for pixels in reach)


def check_callback(callback: Any) -> None:
    """Check that what is to be called can be, before the work of a first iteration."""
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be None or a function of (iteration, change, probabilities), got {callback!r}")


def check_n_features(kernels: Sequence[Features]) -> None:
    """Check that no kernel has more features than the lattice is made for."""
    for kernel in kernels:
        if not 1 <= kernel.n_features <= _lattice.MAX_FEATURES:
            raise ValueError(
                f"{kernel.name} has {kernel.n_features} features, but 1 to {_lattice.MAX_FEATURES} can be used; "
                "project channels to fewer, as by sklearn's PCA"
            )


def to_3d(image: np.ndarray) -> np.ndarray:
    """Return an image with three spatial axes, leading ones of size 1."""
    return image.reshape((1,) * (4 - image.ndim) + image.shape)
