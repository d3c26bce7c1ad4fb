"""A feature bank from parameters and images: all checks, and which planes, groups and filters it has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dconv._axes import as_int, check_bool
from dconv._bank import Bank, PlanePlan
from dconv._blocks import check_padding_mode
from dconv._feature_groups import available_groups
from dconv._filter_bank import FilterBank, as_filter_bank
from dconv._intensity import BY_ITSELF, Intensity, colorless, intensity_of, mostly_grey, of_several_kinds, pooled
from dconv._pyramid_bank import PyramidBank
from dconv._stencils import scale_of
from dconv._validation import Images, check_finite, check_min_size

_FAST_GROUPS = ("level", "wavelet", "gradient", "hessian", "std")  # the cheapest, with most of the accuracy
_COSTLY_GROUPS = ("structure_tensor", "lines")
_COLOR_GROUPS = ("level", "wavelet", "std")
_BRIGHTNESS_GROUPS = ("level", "std")  # of the color_groups: what tells how bright it is, and how contrasted
_SERIES_GROUPS = ("level", "wavelet", "slope", "curvature", "std", "extrema", "zero_crossings", "ppv", "activity")
_FAST_SERIES_GROUPS = ("level", "wavelet", "slope", "curvature", "std", "activity")
_COLORS = ("auto", "opponent", "channels")
_NORMALIZE = (None, "image", "training", "both", "auto")
_SCHEMES = {"atrous": Bank, "pyramid": PyramidBank}
_CAUSAL_PADDING_MODES = ("edge", "zeros")
_MAX_LEVELS = 30  # no image is larger than such dilations


def plan_bank(
    images: Images,
    *,
    n_levels: Any,
    groups: Any,
    color_groups: Any,
    filters: Any,
    color: Any,
    scheme: Any,
    normalize: Any,
    spacing: Any,
    padding_mode: Any,
    causal: Any,
) -> tuple[Bank, str | None]:
    """Return the bank for images that these parameters of :class:`dconv.AtrousFeatures` ask for, and how images are
    normalized.

    Raises
    ------
    TypeError, ValueError
        As :meth:`dconv.AtrousFeatures.fit` says.
    """
    ndim = images.n_axes
    check_causal(causal, ndim)
    padding_mode = _padding_mode(padding_mode, causal)
    if not isinstance(scheme, str) or scheme not in _SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(map(repr, _SCHEMES))}, got {scheme!r}")
    n_levels = as_int(n_levels, "n_levels", 1)
    if n_levels > _MAX_LEVELS:
        raise ValueError(f"n_levels must be at most {_MAX_LEVELS}, as each doubles the dilation, but got {n_levels}")
    spacing = _relative_spacing(spacing, ndim)
    if spacing is not None and scheme == "pyramid":
        raise ValueError(
            "scheme='pyramid' halves all axes alike and takes no spacing; use scheme='atrous' or spacing=None"
        )
    if causal and scheme == "pyramid":
        raise ValueError(
            "scheme='pyramid' interpolates between samples, one of which lies ahead, so causal must be False; use "
            "scheme='atrous'"
        )
    of_series = ndim == 1
    if isinstance(groups, str) and groups == "fast":
        groups = _FAST_SERIES_GROUPS if of_series else _FAST_GROUPS
    groups = _check_groups(groups, _SERIES_GROUPS if of_series else available_groups(ndim), "groups", ndim)
    # The channels of an image differ in colour; those of series are signals of their own.
    color_groups = _check_groups(color_groups, _SERIES_GROUPS if of_series else _COLOR_GROUPS, "color_groups", ndim)
    filters = _check_filters(filters, ndim)
    check_bank_images(images, n_levels, spacing, causal, "use")
    normalize, scaling, without_color = _normalization(normalize, images, causal)
    colors = [] if without_color else _color_planes(color, images.n_channels, of_series)
    planes = [PlanePlan(*plane, color_groups) for plane in colors if color_groups]
    mean = (1 / images.n_channels,) * images.n_channels
    if groups or filters is not None:
        planes.insert(0, PlanePlan("intensity", mean, groups))
    brightness_groups = tuple(group for group in _BRIGHTNESS_GROUPS if group in color_groups)
    if normalize == "both" and brightness_groups:
        planes.append(PlanePlan("brightness", mean, brightness_groups, normalized=False))
    if not planes:
        raise ValueError("no feature is left: give groups, color_groups for images in colour, or filters")
    bank = _SCHEMES[scheme](ndim, n_levels, tuple(planes), filters, padding_mode, scaling, spacing, causal)
    names = bank.feature_names()
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"filters are named like features of the bank: {repeated} occur twice; rename the filters")
    return bank, normalize


def cheap_groups(groups: Sequence[str]) -> tuple[str, ...]:
    """Return some groups of images without those that take more than the others together."""
    return tuple(group for group in groups if group not in _COSTLY_GROUPS)


def check_causal(causal: Any, ndim: int) -> None:
    """Check that `causal` is a bool, and False unless there is one axis, which can be time."""
    check_bool(causal, "causal")
    if causal and ndim != 1:
        raise ValueError(
            f"causal=True is for series, ndim=1: with ndim={ndim} no side of a pixel is ahead of it; use causal=False"
        )


def _padding_mode(padding_mode: Any, causal: bool) -> str:
    """Return what images continue with; None is "reflect", or "edge" if that would look ahead."""
    if padding_mode is None:
        return "edge" if causal else "reflect"
    check_padding_mode(padding_mode)
    if causal and padding_mode not in _CAUSAL_PADDING_MODES:
        raise ValueError(
            f"padding_mode={padding_mode!r} continues a series before its first sample with later ones, which "
            f"causal=True must not see; use {' or '.join(map(repr, _CAUSAL_PADDING_MODES))}, or None"
        )
    return padding_mode


def _normalization(normalize: Any, images: Images, causal: bool) -> tuple[str | None, Intensity | None, bool]:
    """Return how images are normalized, by what if that is known already, and whether their colour is left out."""
    if not (normalize is None or isinstance(normalize, str)) or normalize not in _NORMALIZE:
        raise ValueError(f"normalize must be one of {', '.join(map(repr, _NORMALIZE))}, got {normalize!r}")
    if causal and normalize in BY_ITSELF:
        raise ValueError(
            f"normalize={normalize!r} needs the mean of a whole series, which causal=True must not see; use 'training' "
            "or None"
        )
    if normalize is None or normalize in BY_ITSELF:
        return normalize, None, False
    intensities = [intensity_of(image) for image in images.arrays]
    if normalize == "training":
        return normalize, pooled(intensities), False
    by_itself = mostly_grey(intensities) and not causal
    # Channels of series are no colours: what hardly differs may be what matters. Nor are series pictures of some kind.
    both = images.n_axes > 1 and of_several_kinds(intensities)
    found = ("both" if both else "image") if by_itself else None
    return found, None, images.n_axes > 1 and colorless(intensities)


def check_bank_images(images: Images, n_levels: int, spacing: tuple[float, ...] | None, causal: bool, use: str) -> None:
    """Check that images are finite and hold the neighbours at the largest dilation along every axis.

    A series with causal features may be as short as it likes: every stream begins with its first samples. `use` is the
    verb of the remedy.
    """
    check_finite(images)
    if causal:
        return

    def least(n_levels: int) -> tuple[int, ...]:
        steps = scale_of(2 ** (n_levels - 1), spacing).steps[3 - images.n_axes :]
        return tuple(2 * step + 1 for step in steps)

    smallest = [min(sizes) for sizes in zip(*images.spatial_shapes, strict=True)]
    fitting = n_levels
    while fitting and any(size < needed for size, needed in zip(smallest, least(fitting), strict=True)):
        fitting -= 1
    remedy = "leave out such images, no n_levels fits"
    if fitting > 0:
        better = f"AtrousFeatures(n_levels={fitting})"
        remedy = f"{use} {better}, in a PixelClassifier as PixelClassifier({better})"
    check_min_size(images, least(n_levels), f"level {n_levels - 1} has dilation {2 ** (n_levels - 1)}: {remedy}")


def _relative_spacing(spacing: Any, ndim: int) -> tuple[float, ...] | None:
    """Return the spacing of pixels in units of the finest, None if it is the same along all axes."""
    if spacing is None:
        return None
    if isinstance(spacing, str):
        raise TypeError(f"spacing must be None or a sequence of numbers, got {spacing!r}")
    try:
        values = [float(value) for value in spacing]
    except (TypeError, ValueError):
        values = []
    if len(values) != ndim or not all(0 < value < math.inf for value in values):
        raise ValueError(f"spacing must be None or {ndim} positive numbers, one for each axis, got {spacing!r}")
    finest = min(values)
    return None if max(values) == finest else tuple(value / finest for value in values)


def _check_groups(groups: Any, default: Sequence[str], name: str, ndim: int) -> tuple[str, ...]:
    """Return the names of groups in the order of the table, each once; None means `default`."""
    available = available_groups(ndim)
    groups = default if groups is None else groups
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise TypeError(f"{name} must be None or a sequence of names, got {groups!r}; one group is [{groups!r}]")
    groups = list(groups)
    unknown = [group for group in groups if group not in available]
    if unknown:
        raise ValueError(f"{name} has unknown names {unknown} for ndim={ndim}; choose from {', '.join(available)}")
    return tuple(group for group in available if group in groups)


def _check_filters(filters: Any, ndim: int) -> FilterBank | None:
    """Return own filters as a checked bank."""
    if filters is None:
        return None
    bank = as_filter_bank(filters)
    if len(bank.kernel_size) != ndim or bank.weight.shape[-1] != 1:
        raise ValueError(
            f"filters must have shape (n_filters, *kernel, 1) with {ndim} kernel axes, as ndim={ndim}, since they are "
            f"applied to one plane, the intensity; got {bank.weight.shape}"
        )
    return bank


def _color_planes(color: Any, n_channels: int, of_series: bool) -> list[tuple[str, tuple[float, ...]]]:
    """Return the planes beside the intensity: name and weight of each channel."""
    if not isinstance(color, str) or color not in _COLORS:
        raise ValueError(f"color must be one of {', '.join(map(repr, _COLORS))}, got {color!r}")
    if color == "opponent" and n_channels != 3:
        raise ValueError(
            f"color='opponent' needs 3 channels (red, green, blue), but X has {n_channels}; "
            "use color='auto' or 'channels'"
        )
    if n_channels == 1:
        return []
    if color == "opponent" or (color == "auto" and n_channels == 3 and not of_series):
        return [
            ("red_green", (math.sqrt(1 / 2), -math.sqrt(1 / 2), 0.0)),
            ("yellow_blue", (math.sqrt(1 / 6), math.sqrt(1 / 6), -2 * math.sqrt(1 / 6))),
        ]
    return [(f"channel_{index}", tuple(row)) for index, row in enumerate(np.eye(n_channels).tolist())]
