"""A VGG-16 trunk, dense at output stride 8 and strided at 16, against PyTorch channels-last on the same threads.

    python benchmarks/bench_backbone.py [--size 512] [--threads 2] [--repeats 5] [--direct] [--layers]

Weights are random: what is computed does not depend on them. Both sides get the image, already float32, and return the
map of the last layer; the maps are compared before they are timed. Runs alternate, with a large SGEMM between them,
and the best of each counts. "Of SGEMM" is the rate of multiply-adds of all convolutions, pooling and ReLU in the time,
as a share of the SGEMM's. It is an effective rate: the multiply-adds are those of the layers as they are defined, of
which Winograd's minimal filtering needs 16 for 36, so that a share may be above 1. With `--direct` a third side
computes all layers directly. `--layers` lists the time of each layer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest import mock

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
import torch
from dconv._kernels._dispatch import active_level
from torch.nn import functional as F

from dconv import AtrousBackbone, _net_run, _winograd, layers

WIDTHS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


def trunk() -> list:
    """Return the layers of VGG-16 up to conv5_3, with weights that keep the scale of their input."""
    rng, n_channels, net = np.random.default_rng(0), 3, []
    for width in WIDTHS:
        if width == "pool":
            net.append(layers.MaxPool(2))
            continue
        weight = rng.normal(scale=np.sqrt(2 / (9 * n_channels)), size=(width, 3, 3, n_channels))
        net += layers.from_arrays([(weight, rng.normal(scale=0.1, size=width))])
        n_channels = width
    return net


def torch_trunk(backbone: AtrousBackbone):
    """Return the same net as PyTorch runs it, dilated as `backbone` is."""
    steps = []
    for step in backbone._net.steps:
        if isinstance(step.layer, layers.Convolution):
            weight = torch.from_numpy(np.moveaxis(step.layer.weight, -1, 1).copy())
            weight = weight.contiguous(memory_format=torch.channels_last)
            bias = torch.from_numpy(step.layer.bias.copy())
            dilation = step.dilation
            steps.append(lambda x, w=weight, b=bias, d=dilation: F.conv2d(x, w, b, padding=d, dilation=d))
        elif isinstance(step.layer, layers.ReLU):
            steps.append(lambda x: F.relu_(x))
        else:
            steps.append(lambda x, s=step: F.max_pool2d(x, s.kernel, s.stride, dilation=s.dilation))

    def run(x):
        for step in steps:
            x = step(x)
        return x

    return run


def direct(call: Callable[[], object]) -> Callable[[], object]:
    """Return a call with all layers computed directly."""

    def run() -> object:
        with mock.patch.object(_winograd, "suits", return_value=False):
            return call()

    return run


def by_layer(backbone: AtrousBackbone, image: np.ndarray, repeats: int) -> list[float]:
    """Return the seconds of every convolution in the net, the best of some runs."""
    best: list[float] = []

    def timed(*arguments):
        start = time.perf_counter()
        result = convolve(*arguments)
        taken.append(time.perf_counter() - start)
        return result

    convolve = _net_run._convolve
    with mock.patch.object(_net_run, "_convolve", timed):
        for _ in range(repeats):
            taken: list[float] = []
            backbone.maps(image)
            best = list(map(min, best, taken)) if best else taken
    return best


def print_layers(backbone: AtrousBackbone, image: np.ndarray, repeats: int) -> None:
    """Print the time of every convolution, and directly."""
    ours = by_layer(backbone, image, repeats)
    directly = direct(lambda: by_layer(backbone, image, repeats))()
    steps = [step for step in backbone._net.steps if isinstance(step.layer, layers.Convolution)]
    for step, each, plain in zip(steps, ours, directly, strict=True):
        print(f"{step.layer!r:55} dilation {step.dilation[0]}: {1e3 * each:7.1f} ms, directly {1e3 * plain:7.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--direct", action="store_true", help="show what Winograd's minimal filtering gains")
    parser.add_argument("--layers", action="store_true", help="list the time of each convolution")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = np.random.default_rng(1).normal(size=(options.size, options.size, 3)).astype(np.float32)
    x = torch.from_numpy(image).permute(2, 0, 1)[np.newaxis].contiguous(memory_format=torch.channels_last)
    square = np.random.default_rng(2).normal(size=(2048, 2048)).astype(np.float32)
    product = np.empty_like(square)
    print(f"{options.size} x {options.size}, {options.threads} threads, {active_level()}, PyTorch {torch.__version__}")
    for output_stride in (8, 16):
        backbone = AtrousBackbone(trunk(), output_stride=output_stride, channel_axis=-1, n_jobs=options.threads)
        multiplications = backbone.cost(options.size).multiplications
        backbone.fit(image)
        peer = torch_trunk(backbone)
        with torch.inference_mode():
            ours = backbone.maps(image)[backbone.taps_[-1]]
            theirs = peer(x)[0].permute(1, 2, 0).numpy()
            assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
            calls = {
                "dconv": lambda backbone=backbone: backbone.maps(image),
                "torch": lambda peer=peer: peer(x),
                "sgemm": lambda: np.matmul(square, square, out=product),
            }
            if options.direct:
                calls["direct"] = direct(calls["dconv"])
            best = dict.fromkeys(calls, float("inf"))
            for _ in range(options.repeats):
                for name, call in calls.items():
                    start = time.perf_counter()
                    call()
                    best[name] = min(best[name], time.perf_counter() - start)
        sgemm = 2 * len(square) ** 3 / best["sgemm"] / 1e9
        rate = 2 * multiplications / best["dconv"] / 1e9
        print(
            f"output stride {output_stride:2d}: dconv {best['dconv']:.3f} s, PyTorch {best['torch']:.3f} s, ratio "
            f"{best['torch'] / best['dconv']:.2f}; {multiplications / 1e9:.1f} e9 multiply-adds, {rate:.0f} GFLOP/s, "
            f"effectively, {rate / sgemm:.0%} of SGEMM ({sgemm:.0f} GFLOP/s)",
            flush=True,
        )
        if options.direct:
            print(f"                  all layers directly: {best['direct']:.3f} s")
        if options.layers:
            print_layers(backbone, image, options.repeats)


if __name__ == "__main__":
    main()
