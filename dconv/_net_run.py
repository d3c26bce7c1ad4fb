"""A dense net at work: the maps of its taps over part of an image, layer after layer.

Of every layer only what the wanted part needs is computed: each reads exactly as far beyond as its taps reach, and
where the map before it ends, zeros stand, as its padding says. So a part has the bits of the whole, at the border too.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dconv import _memory
from dconv._blocks import choose_block_shape, split
from dconv._conv_plan import conv_plan
from dconv._conv_run import Packings, run_plan
from dconv._hole_algorithm import DenseNet, Part, Region, Step
from dconv._net_layers import AveragePool, Convolution, MaxPool, NetLayer, ReLU
from dconv._pixels import Block
from dconv._threads import run_tasks

FLOAT = np.dtype(np.float32)
_PIECE_SAMPLES = 1 << 17  # of a map that one thread pools or clips together: they should stay in its cache

# Packed weights by layer, as long as it lives: to pack those of 512 filters takes a tenth of their convolution.
_packings: weakref.WeakKeyDictionary[NetLayer, Packings] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def run_net(
    net: DenseNet, source: np.ndarray, size: Sequence[int], wanted: Mapping[int, Region], n_threads: int
) -> dict[int, np.ndarray]:
    """Return parts of the outputs of some steps, each (*region, channels) and with memory of its own.

    Parameters
    ----------
    net : DenseNet
        The net.
    source : float32 array (*part, channels)
        What :meth:`DenseNet.parts` says that the first step reads; it is overwritten.
    size : sequence of int
        Size of the whole image.
    wanted : mapping of int to region
        Parts of the outputs of steps, by the places of these; of the last step too.
    n_threads : int
        Threads.
    """
    parts = net.parts(wanted, size)
    found: dict[int, np.ndarray] = {}
    x, place = source, parts[0].input
    n_samples = net.sizes(size)
    for index, (step, part) in enumerate(zip(net.steps, parts, strict=True)):
        x, place = _cut(x, place, part.input), part.input
        after_convolution = index > 0 and isinstance(net.steps[index - 1].layer, Convolution)
        if isinstance(step.layer, ReLU) and after_convolution and index - 1 not in wanted:
            pass  # the convolution has done it while its outputs were in the cache
        elif isinstance(step.layer, ReLU):
            x = _relu(x, n_threads)
        elif isinstance(step.layer, Convolution):
            following = net.steps[index + 1].layer if index + 1 < len(net.steps) else None
            x = _convolve(step, part, x, isinstance(following, ReLU) and index not in wanted, n_threads)
        elif isinstance(step.layer, MaxPool):
            x = _max_pool(step, part, x, n_threads)
        else:
            x = _average_pool(step, part, x, n_samples[index], n_threads)
        place = part.output
        if index in wanted:
            found[index] = np.ascontiguousarray(_cut(x, place, wanted[index]))
    return found


def peak_bytes(net: DenseNet, size: Sequence[int], wanted: Mapping[int, Region]) -> int:
    """Return the memory that :func:`run_net` takes at most: what a step reads and writes, and the maps kept."""
    peak = kept = 0
    for index, (step, part) in enumerate(zip(net.steps, net.parts(wanted, size), strict=True)):
        read, written = _n_samples(part.input), _n_samples(part.output)
        n_read = net.steps[index - 1].n_channels if index else net.n_channels
        peak = max(peak, kept + FLOAT.itemsize * (read * n_read + written * step.n_channels))
        if index in wanted:
            kept += FLOAT.itemsize * _n_samples(wanted[index]) * step.n_channels
    return peak


def _n_samples(region: Region) -> int:
    return math.prod(high - low for low, high in region)


def _cut(x: np.ndarray, place: Region, region: Region) -> np.ndarray:
    """Return `region` of a map of which `x` holds what lies at `place`."""
    return x[tuple(slice(low - at, high - at) for (low, high), (at, _) in zip(region, place, strict=True))]


def _convolve(step: Step, part: Part, x: np.ndarray, relu: bool, n_threads: int) -> np.ndarray:
    assert isinstance(step.layer, Convolution)
    return _run_convolution(step, part, x, step.layer, step.layer.weight, step.layer.bias, relu, n_threads)


def _run_convolution(
    step: Step,
    part: Part,
    x: np.ndarray,
    layer: NetLayer,
    weight: np.ndarray,
    bias: np.ndarray | None,
    relu: bool,
    n_threads: int,
) -> np.ndarray:
    groups = x.shape[-1] // weight.shape[-1]
    plan = conv_plan((1, *x.shape), weight.shape, step.stride, part.pads, step.dilation, groups, "zeros")
    out = _memory.empty(plan.out_shape, FLOAT)
    with _lock:
        packings = _packings.setdefault(layer, {})
    run_plan(plan, x[np.newaxis], weight, bias, out, n_threads, packings=packings, relu=relu)
    return out[0]


def _average_pool(step: Step, part: Part, x: np.ndarray, size: Sequence[int], n_threads: int) -> np.ndarray:
    """Return means of windows, a depthwise convolution; `size` is that of the whole input."""
    assert isinstance(step.layer, AveragePool)
    weight = np.full((x.shape[-1], *step.kernel, 1), 1 / math.prod(step.kernel), np.float32)
    out = _run_convolution(step, part, x, step.layer, weight, None, False, n_threads)
    if not step.layer.count_padding and any(map(any, step.pads)):
        for axis, n in enumerate(size):
            (low, high), before = part.output[axis], step.pads[axis][0]
            first = np.arange(low, high)[:, np.newaxis] * step.stride[axis] - before
            taps = first + np.arange(step.kernel[axis]) * step.dilation[axis]
            share = ((taps >= 0) & (taps < n)).mean(axis=1, dtype=np.float32)
            out /= share.reshape(-1, *(1,) * (out.ndim - 1 - axis))
    return out


def _max_pool(step: Step, part: Part, x: np.ndarray, n_threads: int) -> np.ndarray:
    if any(map(any, part.pads)):
        padded = np.full(
            (*(n + sum(pair) for n, pair in zip(x.shape[:-1], part.pads, strict=True)), x.shape[-1]), -np.inf, FLOAT
        )
        padded[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape[:-1], part.pads, strict=True))] = x
        x = padded
    out = _memory.empty((*(high - low for low, high in part.output), x.shape[-1]), FLOAT)

    def pool(block: Block) -> None:
        # Axis after axis: what has been pooled along one is pooled along the next.
        source = x[
            tuple(
                slice(each.start * step.stride[axis], (each.stop - 1) * step.stride[axis] + _width(step, axis))
                for axis, each in enumerate(block)
            )
        ]
        for axis in range(len(block)):
            target = out[block] if axis == len(block) - 1 else None
            source = _max_along(source, axis, step, block[axis].stop - block[axis].start, target)

    _run_pieces(pool, out, n_threads)
    return out


def _width(step: Step, axis: int) -> int:
    return (step.kernel[axis] - 1) * step.dilation[axis] + 1


def _max_along(x: np.ndarray, axis: int, step: Step, n: int, out: np.ndarray | None) -> np.ndarray:
    """Return the largest of every window of `x` along one axis; `n` windows."""
    stride, lead = step.stride[axis], (slice(None),) * axis
    windows = [
        x[(*lead, slice(tap * step.dilation[axis], tap * step.dilation[axis] + (n - 1) * stride + 1, stride))]
        for tap in range(step.kernel[axis])
    ]
    if len(windows) == 1:
        if out is None:
            return windows[0]
        out[...] = windows[0]
        return out
    out = np.maximum(windows[0], windows[1], out=out)
    for window in windows[2:]:
        np.maximum(out, window, out=out)
    return out


def _relu(x: np.ndarray, n_threads: int) -> np.ndarray:
    out = _memory.empty(x.shape, FLOAT)

    def clip(block: Block) -> None:
        np.maximum(x[block], np.float32(0), out=out[block])

    _run_pieces(clip, out, n_threads)
    return out


def _run_pieces(work: Callable[[Block], None], out: np.ndarray, n_threads: int) -> None:
    shape = out.shape[:-1]
    n_pixels = max(1, _PIECE_SAMPLES // out.shape[-1])
    run_tasks(work, list(split(shape, choose_block_shape(shape, n_pixels))), n_threads)
