"""What the features of a fitted transformer mean, written down so that another program, or a later one, can tell.

A definition holds their names and reach, and their values at some pixels of an image that is always the same: features
of the same names that are computed in another way have other values.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

_SIDE = 33  # of the image that is looked at, at least
_N_PIXELS = 16
_TOLERANCE = 1e-3  # of values: CPU levels round differently


def definition_of(features: Any, n_features: int, n_channels: int, ndim: int, channel_axis: int | None) -> dict:
    """Return the definition of the features of a fitted transformer, or "passthrough", as JSON can hold it.

    Parameters
    ----------
    features : transformer or "passthrough"
        Fitted on images of `n_channels` channels.
    n_features : int
        Features of a pixel.
    """
    if isinstance(features, str):
        return {"transformer": features, "n_features": n_features, "n_channels": n_channels, "ndim": ndim}
    names = features.get_feature_names_out() if hasattr(features, "get_feature_names_out") else ()
    return {
        "transformer": f"{type(features).__module__}.{type(features).__qualname__}",
        "n_features": n_features,
        "n_channels": n_channels,
        "ndim": ndim,
        "names": [str(name) for name in names],
        "halo": [list(map(int, pair)) for pair in getattr(features, "halo_", ())],
        "values": _values(features, n_channels, ndim, channel_axis),
    }


def hash_of(definition: dict) -> str:
    """Return a hash of what is exact in a definition: all but the values, which CPU levels round differently."""
    exact = {key: value for key, value in definition.items() if key != "values"}
    return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()


def difference(saved: dict, found: dict) -> str | None:
    """Return what differs between two definitions in words, or None if they mean the same."""
    for key in ("transformer", "ndim", "n_channels"):
        if saved.get(key) != found.get(key):
            return f"{key} was {saved.get(key)!r} and is now {found.get(key)!r}"
    old, new = saved.get("names", []), found.get("names", [])
    for index, (before, after) in enumerate(zip(old, new, strict=False)):
        if before != after:
            return f"feature {index} was {before!r} and is now {after!r}"
    for key in ("n_features", "halo"):
        if saved.get(key) != found.get(key):
            return f"{key} was {saved.get(key)!r} and is now {found.get(key)!r}"
    if "values" not in found:
        return None
    before, after = np.asarray(saved.get("values"), float), np.asarray(found["values"], float)
    if before.shape != after.shape:
        return f"values of features had shape {before.shape} and now have {after.shape}"
    scale = np.abs(after).max(axis=0) + 0.1 * np.abs(after).max()
    bad = np.argwhere(~(np.abs(before - after) <= _TOLERANCE * scale))
    if len(bad):
        pixel, column = bad[0]
        name = repr(new[column]) if column < len(new) else str(column)
        return f"feature {name} is computed differently: {before[pixel, column]:g} then, {after[pixel, column]:g} now"
    return None


def _least_side(features: Any) -> int:
    """Return how many pixels along every axis a transformer, or any in it, wants an image to have at least."""
    if hasattr(features, "parts_"):
        return max(_least_side(part) for part in features.parts_)
    if hasattr(features, "inner_"):
        return _least_side(features.inner_)
    if hasattr(features, "_net"):
        return max(features._net.least_size())
    # The least that holds the neighbours at the largest dilation.
    return 2 ** getattr(getattr(features, "_bank", None), "n_levels", 1) + 1


def _values(features: Any, n_channels: int, ndim: int, channel_axis: int | None) -> list[list[float]]:
    """Return the features at some pixels, one list for each."""
    shape = (max(_SIDE, _least_side(features)),) * ndim
    place = np.indices((*shape, n_channels))
    # Sums of products of the coordinates, modulo a prime: no axis and no channel is like another, and no two pixels.
    image = (sum((7 * axis + 5) * each + each * place[0] for axis, each in enumerate(place)) % 97).astype(np.float32)
    image = image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis)
    rows = np.asarray(features.transform(image), np.float64).reshape(np.prod(shape), -1)
    chosen = np.linspace(0, len(rows) - 1, _N_PIXELS).astype(int)
    return [[float(f"{value:.7g}") for value in row] for row in rows[chosen]]
