"""A net by its definition: layer after layer, strided as it was trained, in float64; nothing here is dense."""

import itertools

import numpy as np
import reference


def run(layers, image):
    """Return the output of every layer for an image (*spatial, channels); layers are tuples, see `LAYERS`.

    ("conv", weight, bias, stride, padding, dilation, groups), ("relu",), ("max", kernel, stride, padding) and
    ("average", kernel, stride, padding, count_padding): one int or pair per axis.
    """
    x, outputs = np.asarray(image, np.float64), []
    for kind, *arguments in layers:
        if kind == "relu":
            x = np.where(x < 0, 0, x)
        elif kind == "conv":
            weight, bias, stride, padding, dilation, groups = arguments
            options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            x = reference.conv(x[np.newaxis], weight, bias, **options)[0]
        else:
            x = pool(x, kind, *arguments)
        outputs.append(x)
    return outputs


def pool(x, kind, kernel, stride, padding, count_padding=True):
    """Return the maximum or the mean of every window."""
    sizes = x.shape[:-1]
    one = (1,) * len(sizes)
    counts = [reference.output_size(*each) for each in zip(sizes, kernel, stride, padding, one, strict=True)]
    out = np.zeros((*counts, x.shape[-1]))
    for place in itertools.product(*map(range, counts)):
        values = []
        for tap in itertools.product(*map(range, kernel)):
            at = [o * s + k - before for o, s, k, (before, _) in zip(place, stride, tap, padding, strict=True)]
            if all(0 <= a < n for a, n in zip(at, sizes, strict=True)):
                values.append(x[tuple(at)])
        if kind == "max":
            out[place] = np.max(values, axis=0)
        else:
            out[place] = np.sum(values, axis=0) / (np.prod(kernel) if count_padding else len(values))
    return out


def enlarge(samples, first_center, stride, sizes):
    """Return a map (*samples, channels) at every pixel: linear between centers of samples, constant beyond them."""
    for axis, size in enumerate(sizes):
        centers = first_center[axis] + stride[axis] * np.arange(samples.shape[axis])
        along = [
            np.interp(np.arange(size), centers, each)
            for each in np.moveaxis(samples, axis, -1).reshape(-1, len(centers))
        ]
        others = np.moveaxis(samples, axis, -1).shape[:-1]
        samples = np.moveaxis(np.reshape(along, (*others, size)), -1, axis)
    return samples
