"""Small nets that tests of the backbone share, as dconv's layers and as `reference_net` takes them."""

import numpy as np

from dconv import layers


def make_net(ndim=2, n_channels=3, seed=0):
    """Return a net with every kind of layer, strides of 8 pixels on the first axis and 16 on the others, both ways."""
    rng = np.random.default_rng(seed)

    def weight(filters, kernel, channels):
        array = rng.normal(size=(filters, *kernel, channels)).astype(np.float32)
        return array / np.sqrt(array[0].size, dtype=np.float32)

    def per_axis(first, other):
        return (first, *[other] * (ndim - 1))

    one, pair = per_axis(1, 1), per_axis((1, 1), (1, 1))
    bias = rng.normal(size=4).astype(np.float32)
    plain = [
        ("conv", weight(4, per_axis(3, 3), n_channels), bias, one, pair, one, 1),
        ("relu",),
        ("max", per_axis(2, 2), per_axis(2, 2), per_axis((0, 0), (0, 1))),
        ("conv", weight(4, per_axis(3, 2), 2), None, one, per_axis((1, 1), (0, 1)), one, 2),
        ("average", per_axis(3, 3), per_axis(2, 2), pair, False),
        ("relu",),
        ("conv", weight(6, per_axis(3, 3), 4), None, per_axis(2, 2), pair, one, 1),
        ("max", per_axis(3, 3), per_axis(1, 2), pair),
        ("conv", weight(6, per_axis(3, 3), 1), None, one, per_axis((2, 2), (2, 2)), per_axis(2, 2), 6),
        ("average", per_axis(2, 2), one, per_axis((0, 1), (1, 0)), True),
        ("conv", weight(5, per_axis(1, 1), 6), rng.normal(size=5), one, per_axis((0, 0), (0, 0)), one, 1),
    ]
    return plain, [as_layer(*each) for each in plain]


def as_layer(kind, *arguments):
    """Return one layer of dconv."""
    if kind == "conv":
        weight, bias, stride, padding, dilation, groups = arguments
        return layers.Convolution(weight, bias, stride, padding, dilation, groups)
    if kind == "relu":
        return layers.ReLU()
    return layers.MaxPool(*arguments) if kind == "max" else layers.AveragePool(*arguments)


def make_image(ndim=2, n_channels=3, seed=1, sizes=(37, 30, 19)):
    """Return an image of odd sizes, (*spatial, channels)."""
    shape = {1: (61,), 2: sizes[:2], 3: (19, 18, 17)}[ndim]
    return np.random.default_rng(seed).normal(size=(*shape, n_channels)).astype(np.float32)
