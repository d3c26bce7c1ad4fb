"""The definition of the atrous feature bank in NumPy and SciPy, float64, as slow as it is plain, and how to compare
with it. Imports no dconv.

The image is extended by hand, so far that what wraps around at the end of the extension never reaches the image.
"""

import itertools

import numpy as np
from scipy import ndimage

PAD_MODES = {"reflect": "reflect", "symmetric": "symmetric", "edge": "edge", "circular": "wrap", "zeros": "constant"}
SHAPES = {1: (83,), 2: (33, 47), 3: (13, 19, 17)}  # small images, whose sizes are multiples of nothing
B3 = np.array([1, 4, 6, 4, 1]) / 16
SMOOTH, FIRST, SECOND = np.array([1, 2, 1]) / 4, np.array([-1, 0, 1]) / 2, np.array([1, -2, 1])


def correlate(x, kernels, steps):
    """Correlate each axis with its kernel, with zeros stuffed between the taps; at a step of 0 they are one tap."""
    for axis, (taps, step) in enumerate(zip(kernels, steps, strict=True)):
        if step == 0:
            x = x * np.sum(taps)
            continue
        stuffed = np.zeros((len(taps) - 1) * step + 1)
        stuffed[::step] = taps
        x = ndimage.correlate1d(x, stuffed, axis=axis, mode="wrap")
    return x


def shifted(x, step):
    """Return x[p + step] at p."""
    return np.roll(x, [-s for s in step], axis=range(x.ndim))


def descending_eigenvalues(parts):
    """Return the eigenvalues of the symmetric matrix of planes {(a, b): plane, a <= b}."""
    ndim = max(max(pair) for pair in parts) + 1
    matrix = np.stack([np.stack([parts[min(a, b), max(a, b)] for b in range(ndim)], -1) for a in range(ndim)], -2)
    return np.moveaxis(np.linalg.eigvalsh(matrix), -1, 0)[::-1]


def line_directions(ndim):
    if ndim == 1:
        return []
    if ndim == 2:
        return [(np.sin(angle), np.cos(angle)) for angle in np.pi * np.arange(8) / 8]
    half = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    return [np.array(step) / np.linalg.norm(step) for step in half]


def series_features(x, smoother, slope, curvature, d, last):
    """Return {feature: plane} of what is computed of series only, at one level; `last` is the dilation of the last."""
    windows = {"narrow": last, "wide": 4 * last}  # radii
    features = {"slope": slope, "curvature": curvature}
    differences = {"wavelet": (x, smoother), "slope": (shifted(x, [d]), shifted(x, [-d]))}
    positive = {name: a - b > 2.0**-20 * np.abs(a) for name, (a, b) in differences.items()}
    for window, radius in windows.items():
        for name, marks in positive.items():
            around = [shifted(marks, [k]) for k in range(-radius, radius + 1)]
            features[f"crossings_{name}_{window}"] = d * np.mean(np.not_equal(around[1:], around[:-1]), axis=0)
    for window, radius in windows.items():
        for name, marks in positive.items():
            around = [shifted(marks, [k]) for k in range(-radius, radius + 1)]
            features[f"ppv_{name}_{window}"] = np.mean(around, axis=0)
    for window, radius in windows.items():
        around = [shifted(np.abs(x - smoother), [k]) for k in range(-radius, radius + 1)]
        features[f"activity_{window}"] = np.mean(around, axis=0)
    return features


def level_features(x, dilation, spacing, last):
    """Return {feature: plane} of one level, and the next level; `last` is the dilation of the last."""
    ndim = x.ndim
    d = np.array([int(np.ceil(dilation / distance - 0.5)) for distance in spacing])
    slope = [dilation / (step * distance) if step else 0 for step, distance in zip(d, spacing, strict=True)]
    smoother = correlate(x, [B3] * ndim, d)
    g = [slope[a] * correlate(x, [FIRST if i == a else SMOOTH for i in range(ndim)], d) for a in range(ndim)]
    h = {}
    for a, b in itertools.combinations_with_replacement(range(ndim), 2):
        special = {a: SECOND} if a == b else {a: FIRST, b: FIRST}
        h[a, b] = slope[a] * slope[b] * correlate(x, [special.get(axis, SMOOTH) for axis in range(ndim)], d)
    names = {1: [""], 2: ["_max", "_min"], 3: ["_max", "_middle", "_min"]}[ndim]
    tensor = {pair: correlate(g[pair[0]] * g[pair[1]], [B3] * ndim, d) for pair in h}
    around = [shifted(x, d * np.array(step)) for step in itertools.product((-1, 0, 1), repeat=ndim) if any(step)]
    features = {"level": x, "wavelet": x - smoother, "gradient": np.sqrt(sum(plane**2 for plane in g))}
    of_series = series_features(x, smoother, g[0], h[0, 0], d[0], last) if ndim == 1 else {}
    if ndim == 1:
        features |= {name: of_series.pop(name) for name in ("slope", "curvature")}
    else:
        features |= {f"hessian{name}": plane for name, plane in zip(names, descending_eigenvalues(h), strict=True)}
    roots = np.sqrt(np.maximum(descending_eigenvalues(tensor), 0))
    features |= {f"structure_tensor{name}": plane for name, plane in zip(names, roots, strict=True)}
    features["std"] = np.sqrt(np.maximum(correlate(x**2, [B3] * ndim, d) - smoother**2, 0))
    features["max"], features["min"] = np.max(around, axis=0) - x, np.min(around, axis=0) - x
    responses = []
    for u in line_directions(ndim):
        along = sum(u[a] * u[b] * plane * (1 if a == b else 2) for (a, b), plane in h.items())
        across = sum(h[a, a] for a in range(ndim)) - along
        taps = [[round(k * step * part) for step, part in zip(d, u, strict=True)] for k in range(-3, 4)]
        responses.append(np.mean([shifted(across, step) for step in taps], axis=0))
    if responses:
        features["line_max"], features["line_min"] = np.max(responses, axis=0), np.min(responses, axis=0)
        features["line_mean"] = np.mean(responses, axis=0)
    return features | of_series, smoother


def plane_features(plane, n_levels, mode, name="intensity", spacing=None):
    """Return {full feature name: plane} for all groups of a plane (*spatial), in the bank's order."""
    spacing = (1,) * plane.ndim if spacing is None else np.divide(spacing, np.min(spacing))
    margin = 4 * 2**n_levels
    x = np.pad(np.asarray(plane, np.float64), margin, mode=PAD_MODES[mode])
    inside = (slice(margin, -margin),) * plane.ndim
    features = {}
    for s in range(n_levels):
        parts, x = level_features(x, 2**s, spacing, 2 ** (n_levels - 1))
        features |= {f"{name}_{part}_d{2**s}": values[inside] for part, values in parts.items()}
    features[f"{name}_level_d{2**n_levels}"] = x[inside]
    return features


def random_image(shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).random(shape)).astype(np.float32)


def assert_close(actual, expected, names, scale):
    """Compare feature images (*spatial, n_features) of an image with values up to `scale`.

    Every feature is a sum of at most 3**7 products that cancel down from `scale`, rounded once or twice each; square
    roots of what is left of a cancellation are compared as squares.
    """
    tolerance = 64 * np.finfo(np.float32).eps * scale
    for index, name in enumerate(names):
        a, b = actual[..., index].astype(float), expected[..., index].astype(float)
        if "structure_tensor" in name or "std" in name:
            a, b, bound = a**2, b**2, tolerance * scale
        else:
            bound = tolerance
        np.testing.assert_allclose(a, b, rtol=0, atol=bound, err_msg=name)
