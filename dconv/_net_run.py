"""A dense net at work: the maps of its taps over part of an image, layer after layer.

Of every layer only what the wanted part needs is computed: each reads exactly as far beyond as its taps reach, and
where the map before it ends, zeros stand, as its padding says. So a part has the bits of the whole, at the border too.
Layers of many channels and 3 x 3 kernels are computed by Winograd's minimal filtering (:mod:`dconv._winograd`), all
others directly.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from dconv import _memory, _winograd
from dconv._axes import span
from dconv._blocks import choose_block_shape, split
from dconv._conv_plan import conv_plan
from dconv._conv_run import Packings, run_plan
from dconv._hole_algorithm import DenseNet, Part, Region, Step
from dconv._net_layers import AveragePool, Convolution, MaxPool, NetLayer, ReLU
from dconv._pixels import Block
from dconv._receptive import Margin
from dconv._threads import run_tasks

FLOAT = np.dtype(np.float32)
_PIECE_SAMPLES = 1 << 17  # of a map that one thread pools or clips together: they should stay in its cache
_SHORT_ROW = 128  # samples: shorter rows of a map are computed as one
_BESIDE = 8  # samples between rows that are computed for nothing, at most

# Packed weights by layer, as long as it lives: to pack those of 512 filters takes a tenth of their convolution of a map
# of 64 x 64, and to transform them more than half of it.
_packings: weakref.WeakKeyDictionary[NetLayer, Packings] = weakref.WeakKeyDictionary()
_transformed: weakref.WeakKeyDictionary[NetLayer, np.ndarray] = weakref.WeakKeyDictionary()
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
            relu = isinstance(following, ReLU) and index not in wanted
            x = _convolve(step, part, x, n_samples[index + 1], relu, n_threads)
        elif isinstance(step.layer, MaxPool):
            x = _max_pool(step, part, x, n_threads)
        else:
            x = _average_pool(step, part, x, n_samples[index], n_threads)
        place = part.output
        if index in wanted:
            found[index] = np.ascontiguousarray(_cut(x, place, wanted[index]))
    return found


def peak_bytes(net: DenseNet, size: Sequence[int], wanted: Mapping[int, Region], n_threads: int) -> int:
    """Return the memory that :func:`run_net` takes at most: what a step reads, writes, needs beside; and maps kept."""
    peak = kept = 0
    steps = zip(net.steps, net.parts(wanted, size), net.sizes(size)[1:], strict=True)
    for index, (step, part, out_size) in enumerate(steps):
        read, written, beside = _n_samples(part.input), _n_samples(part.output), 0
        if _winograd.suits(step, out_size):
            beside = _winograd.scratch_bytes(step, n_threads)
        elif _flows(step, part):
            padded = [high - low + sum(pair) for (low, high), pair in zip(part.input, part.pads, strict=True)]
            read += math.prod(padded)
            written = (part.output[0][1] - part.output[0][0]) * math.prod(padded[1:])
        n_read = net.steps[index - 1].n_channels if index else net.n_channels
        peak = max(peak, kept + beside + FLOAT.itemsize * (read * n_read + written * step.n_channels))
        if index in wanted:
            kept += FLOAT.itemsize * _n_samples(wanted[index]) * step.n_channels
    return peak


def _n_samples(region: Region) -> int:
    return math.prod(high - low for low, high in region)


def _cut(x: np.ndarray, place: Region, region: Region) -> np.ndarray:
    """Return `region` of a map of which `x` holds what lies at `place`."""
    return x[tuple(slice(low - at, high - at) for (low, high), (at, _) in zip(region, place, strict=True))]


def _convolve(step: Step, part: Part, x: np.ndarray, size: Sequence[int], relu: bool, n_threads: int) -> np.ndarray:
    """Return part of a layer's output, and what is negative as 0 with `relu`; `size` is that of the whole output."""
    assert isinstance(step.layer, Convolution)
    if _winograd.suits(step, size):
        return _winograd.run_tiles(step, part, x, _transformed_weights(step.layer), relu, n_threads)
    return _run_convolution(step, part, x, step.layer, step.layer.weight, step.layer.bias, relu, n_threads)


def _transformed_weights(layer: Convolution) -> np.ndarray:
    with _lock:
        found = _transformed.get(layer)
    if found is None:  # maybe by two threads at once, to the same bits
        found = _winograd.pack_weights(layer.weight)
        with _lock:
            _transformed[layer] = found
    return found


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
    with _lock:
        packings = _packings.setdefault(layer, {})
    if _flows(step, part):
        padded = _padded(x, part.pads, 0, n_threads)
        sizes = plan.out_shape[1:-1]
        out = _memory.empty((*sizes[:1], *padded.shape[1:-1], weight.shape[0]), FLOAT)
        rows, run = _as_one_row(padded, sizes, step)
        plan = conv_plan(rows.shape, weight.shape, 1, 0, (*(1,) * (x.ndim - 2), step.dilation[-1]), groups, "zeros")
        run_plan(plan, rows, weight, bias, out.reshape(-1, out.shape[-1])[:run].reshape(plan.out_shape), n_threads,
                 packings=packings, relu=relu)  # fmt: skip
        return out[tuple(slice(n) for n in sizes)]
    out = _memory.empty(plan.out_shape, FLOAT)
    run_plan(plan, x[np.newaxis], weight, bias, out, n_threads, packings=packings, relu=relu)
    return out[0]


def _flows(step: Step, part: Part) -> bool:
    """Tell whether a layer convolves rows of its map as one long row, with the padding between them.

    The weights of all filters pass by for each stretch of a row, and those of many channels are megabytes: with rows of
    32 pixels their way to the core takes longer than the work. What is computed between rows is thrown away, and the
    input is copied; so rows must be short and the padding small. Taps keep their order, and outputs their bits.
    """
    if not isinstance(step.layer, Convolution) or step.layer.groups == step.layer.out_channels or max(step.stride) > 1:
        return False
    *outer, n = (high - low for low, high in part.output)
    beside = sum(width - 1 for width in span(step.kernel, step.dilation)[1:])
    return math.prod(outer) > 1 and n <= _SHORT_ROW and beside <= _BESIDE


def _as_one_row(padded: np.ndarray, sizes: Sequence[int], step: Step) -> tuple[np.ndarray, int]:
    """Return a padded map as one row for each position of the kernel on all axes but the last, and the length of the
    output: each of these rows begins where the first window has that position, and so all lie over each other.
    """
    steps = [math.prod(padded.shape[axis + 1 : -1]) for axis in range(len(sizes))]  # in pixels
    run = 1 + sum((n - 1) * by for n, by in zip(sizes, steps, strict=True))
    *kernel, last = step.kernel
    pixel = padded.shape[-1] * padded.itemsize
    starts = [apart * by * pixel for apart, by in zip(step.dilation, steps[:-1], strict=False)]
    shape = (1, *kernel, run + (last - 1) * step.dilation[-1], padded.shape[-1])
    return as_strided(padded, shape, (0, *starts, pixel, padded.itemsize), writeable=False), run


def _padded(x: np.ndarray, pads: Margin, value: float, n_threads: int) -> np.ndarray:
    """Return a map with `value` around it, C-contiguous; itself, if it is and there is nothing around it."""
    if x.flags.c_contiguous and not any(map(any, pads)):
        return x
    out = _memory.empty((*(n + sum(pair) for n, pair in zip(x.shape[:-1], pads, strict=True)), x.shape[-1]), FLOAT)

    def copy(block: Block) -> None:
        inside, source = [], []
        for part, (before, _), n in zip(block, pads, x.shape[:-1], strict=True):
            low, high = np.clip((part.start - before, part.stop - before), 0, n)
            source.append(slice(low, high))
            inside.append(slice(low + before - part.start, high + before - part.start))
        target = out[block]
        if target.shape[:-1] != x[tuple(source)].shape[:-1]:
            target[...] = value
        target[tuple(inside)] = x[tuple(source)]

    _run_pieces(copy, out, n_threads)
    return out


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
    x = _padded(x, part.pads, -np.inf, n_threads) if any(map(any, part.pads)) else x
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
