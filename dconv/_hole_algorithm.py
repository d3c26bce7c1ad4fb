"""The hole algorithm: a net's layers made dense beyond an output stride, and what every part of its maps needs.

Once the layers passed have the wanted stride together, a layer that would stride further moves by one sample instead,
and the taps of all layers behind it stand as many times farther apart. Where the strided net has an output the dense
one has it too, with the same value: sizes and zeros beyond the border go with it, since a map of n samples at stride s
is a map of m at stride 1 with n = ceil(m / s), so that places n * s and beyond lie outside of both.

Everything here is about one axis after another, and about whole numbers: places, sizes, reaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dconv._axes import as_int, as_tuple, span
from dconv._net_layers import AveragePool, Convolution, MaxPool, NetLayer, ReLU, pool_sizes
from dconv._receptive import Margin, Pair

Region = tuple[Pair, ...]  # first place and the one after the last, per axis


class Step(NamedTuple):
    """A layer as it is run: its sizes on every axis, in samples of its input."""

    layer: NetLayer
    name: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Margin
    n_channels: int  # of its output

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the output for an input of `size`; 0 or less where a window does not fit."""
        spans = span(self.kernel, self.dilation)
        return tuple(
            (n + before + after - width) // step + 1
            for n, (before, after), width, step in zip(size, self.pads, spans, self.stride, strict=True)
        )

    def least_size(self, out_size: Sequence[int]) -> tuple[int, ...]:
        """Return the least size of an input that gives an output of `out_size`."""
        spans = span(self.kernel, self.dilation)
        return tuple(
            max(step * (n - 1) + width - before - after, self._least_pooled(before, after, width, apart))
            for n, (before, after), width, step, apart in zip(
                out_size, self.pads, spans, self.stride, self.dilation, strict=True
            )
        )

    def _least_pooled(self, before: int, after: int, width: int, apart: int) -> int:
        """Return how many samples there must be for every window of a pooling layer to hold one."""
        # With less padding than the window is wide the tap behind the padding always finds one.
        if isinstance(self.layer, Convolution | ReLU) or (before + after < width and before % apart == 0):
            return 1
        return apart

    def needs(self, region: Region, size: Sequence[int]) -> tuple[Region, Margin]:
        """Return which part of an input of `size` a region of the output needs, and how far it is padded there."""
        spans = span(self.kernel, self.dilation)
        wanted = [
            (low * step - before, (high - 1) * step - before + width)
            for (low, high), step, (before, _), width in zip(region, self.stride, self.pads, spans, strict=True)
        ]
        part = tuple((max(low, 0), min(high, n)) for (low, high), n in zip(wanted, size, strict=True))
        return part, tuple((a - low, high - b) for (low, high), (a, b) in zip(wanted, part, strict=True))


class Part(NamedTuple):
    """What a step deals with for a part of an image."""

    output: Region
    input: Region
    pads: Margin  # how far the input is padded, where it ends at the border of the map


class Tap(NamedTuple):
    """A map that becomes features: how its samples lie in the image, on every axis."""

    step: int  # place of the step whose output it is
    name: str
    n_channels: int
    stride: tuple[int, ...]  # pixels between samples
    centers: tuple[int, ...]  # of what the first sample sees, in half pixels
    reach: Margin  # pixels that sample i sees left and right of pixel i * stride


class DenseNet(NamedTuple):
    """A net as it is run, and the maps that are taken from it."""

    steps: tuple[Step, ...]
    taps: tuple[Tap, ...]
    n_channels: int  # of its input; 0 if any number will do

    @property
    def ndim(self) -> int:
        """Spatial axes."""
        return len(self.taps[0].stride)

    def sizes(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the sizes of the input and of the output of every step."""
        found = [tuple(size)]
        for step in self.steps:
            found.append(step.out_size(found[-1]))
        return found

    def least_size(self) -> tuple[int, ...]:
        """Return the size of the smallest image of which every step has an output."""
        size: tuple[int, ...] = (1,) * self.ndim
        for step in reversed(self.steps):
            size = step.least_size(size)
        return size

    def parts(self, wanted: Mapping[int, Region], size: Sequence[int]) -> list[Part]:
        """Return what of its output and input every step deals with, so that `wanted` comes out.

        `wanted` are parts of the outputs of some steps, by their places; the last step is among them.
        """
        sizes = self.sizes(size)
        found: list[Part] = []
        region = wanted[len(self.steps) - 1]
        for index in reversed(range(len(self.steps))):
            region = _hull(wanted[index], region) if index in wanted else region
            part, pads = self.steps[index].needs(region, sizes[index])
            found.insert(0, Part(region, part, pads))
            region = part
        return found


def dense_net(layers: Sequence[NetLayer], output_stride: Any, taps: Any, ndim: int) -> DenseNet:
    """Return the net of `layers`, dense beyond `output_stride`, as far as the last of its `taps`; all is checked."""
    names = _names_of(layers)
    chosen = _chosen(taps, names)
    used = list(zip(layers, names, strict=True))[: max(chosen) + 1]
    sizes = [_sizes(*each, ndim) for each in used]
    whole = [math.prod(strides) for strides in zip(*(stride for _, stride, _, _ in sizes), strict=True)]
    # A net that strides over less than that stays as it is.
    limit = tuple(map(min, as_tuple(output_stride, ndim, "output_stride", 1), whole))
    steps: list[Step] = []
    found: dict[int, Tap] = {}
    n_input = n_channels = 0
    jump, holes = (1,) * ndim, (1,) * ndim
    center, reach = (0,) * ndim, ((0, 0),) * ndim
    for index, (layer, name) in enumerate(used):
        if isinstance(layer, Convolution):
            _check_channels(layer, name, n_channels)
            n_input, n_channels = n_input or layer.in_channels, layer.out_channels
        kernel, stride, dilation, pads = sizes[index]
        kept = tuple(_kept(*each, axis, name) for axis, each in enumerate(zip(stride, jump, limit, strict=True)))
        dilation = tuple(d * hole for d, hole in zip(dilation, holes, strict=True))
        pads = tuple((before * hole, after * hole) for (before, after), hole in zip(pads, holes, strict=True))
        steps.append(Step(layer, name, kernel, kept, dilation, pads, n_channels))
        widths = span(kernel, dilation)
        center = tuple(
            at + (width - 1 - 2 * before) * step
            for at, width, (before, _), step in zip(center, widths, pads, jump, strict=True)
        )
        reach = tuple(
            (left + before * step, right + (width - 1 - before) * step)
            for (left, right), (before, _), width, step in zip(reach, pads, widths, jump, strict=True)
        )
        jump = tuple(step * each for step, each in zip(jump, kept, strict=True))
        holes = tuple(hole * (s // each) for hole, s, each in zip(holes, stride, kept, strict=True))
        if index in chosen:
            found[index] = Tap(index, name, n_channels, jump, center, reach)
    if not n_input:
        raise ValueError("layers hold no Convolution up to the last of taps; a backbone needs one at least")
    # What stands before the first convolution has the channels of the input.
    complete = tuple(step if step.n_channels else step._replace(n_channels=n_input) for step in steps)
    chosen_taps = (found[index]._replace(n_channels=complete[index].n_channels) for index in chosen)
    return DenseNet(complete, tuple(chosen_taps), n_input)


def _kept(stride: int, jump: int, limit: int, axis: int, name: str) -> int:
    """Return how much of a layer's stride is left where `jump` pixels of `limit` have been strided over."""
    room = limit // jump
    if room % stride == 0:
        return stride
    if stride % room == 0:
        return room
    raise ValueError(
        f"output_stride={limit} cannot be had on axis {axis}: layer {name!r} has stride {stride} where the layers "
        f"before it have {jump}; choose {jump}, {jump * stride} or a multiple of that"
    )


def _names_of(layers: Sequence[NetLayer]) -> list[str]:
    """Return the name of every layer, all different."""
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise TypeError(f"layers must be a list of layers of dconv.layers, not empty, got {layers!r:.60}")
    for index, layer in enumerate(layers):
        if not isinstance(layer, Convolution | ReLU | MaxPool | AveragePool):
            raise TypeError(
                f"layers[{index}] must be a Convolution, ReLU, MaxPool or AveragePool of dconv.layers, got "
                f"{type(layer).__name__}"
            )
    names = [layer.name or f"{layer.kind}{index}" for index, layer in enumerate(layers)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"layers have names that occur twice: {', '.join(repeated)}; name each differently")
    return names


def _chosen(taps: Any, names: list[str]) -> list[int]:
    """Return the places of the layers whose maps are taken, in the order of the net."""
    if taps is None:
        return [len(names) - 1]
    if isinstance(taps, str) or not isinstance(taps, Sequence) or not taps:
        raise TypeError(f"taps must be None or a list of names or places of layers, got {taps!r}")
    places = []
    for tap in taps:
        if isinstance(tap, str):
            if tap not in names:
                raise ValueError(f"taps has {tap!r}, but the layers are {', '.join(names)}")
            places.append(names.index(tap))
            continue
        place = as_int(tap, "taps", rule="None or a list of names or places of layers")
        if not -len(names) <= place < len(names):
            raise ValueError(f"taps has {tap}, but there are {len(names)} layers")
        places.append(place % len(names))
    if len(set(places)) < len(places):
        raise ValueError(f"taps={list(taps)!r} takes a layer twice")
    return sorted(places)


def _check_channels(layer: Convolution, name: str, n_channels: int) -> None:
    if n_channels and layer.in_channels != n_channels:
        raise ValueError(
            f"layer {name!r} takes {layer.in_channels} channels (its weight has shape {layer.weight.shape}, "
            f"groups={layer.groups}), but the layers before it give {n_channels}"
        )


def _sizes(layer: NetLayer, name: str, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Margin]:
    """Return kernel size, stride, dilation and padding of a layer on every axis."""
    if isinstance(layer, Convolution):
        if layer.weight.ndim - 2 != ndim:
            raise ValueError(
                f"layer {name!r} has a kernel with {layer.weight.ndim - 2} axes (its weight has shape "
                f"{layer.weight.shape}), but ndim={ndim}"
            )
        return layer.weight.shape[1:-1], layer.stride, layer.dilation, layer.padding  # type: ignore[return-value]
    if isinstance(layer, MaxPool | AveragePool):
        if layer.rank not in (None, ndim):
            raise ValueError(f"layer {name!r} has sizes for {layer.rank} axes, but ndim={ndim}")
        return pool_sizes(layer, ndim)
    return (1,) * ndim, (1,) * ndim, (1,) * ndim, ((0, 0),) * ndim


def _hull(one: Region, other: Region) -> Region:
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def samples_for(tap: Tap, box: Sequence[slice], size: Sequence[int]) -> Region:
    """Return the samples of a map of `size` between which the pixels of `box` are interpolated."""
    return tuple(
        (
            min(max(_below(part.start, step, center), 0), n - 1),
            min(max(_above(part.stop - 1, step, center), 0), n - 1) + 1,
        )
        for part, step, center, n in zip(box, tap.stride, tap.centers, size, strict=True)
    )


def _below(pixel: int, step: int, center: int) -> int:
    """Return the last sample whose center lies at `pixel` or before."""
    return (2 * pixel - center) // (2 * step)


def _above(pixel: int, step: int, center: int) -> int:
    """Return the first sample whose center lies at `pixel` or after."""
    return -(-(2 * pixel - center) // (2 * step))


def halo_of(net: DenseNet) -> Margin:
    """Return how far the features of a pixel, interpolated between samples, see: left and right, on every axis."""
    pairs = []
    for axis in range(net.ndim):
        sides = [_halo_of_tap(net, tap, axis) for tap in net.taps]
        pairs.append((max(0, *(left for left, _ in sides)), max(0, *(right for _, right in sides))))
    return tuple(pairs)


def _halo_of_tap(net: DenseNet, tap: Tap, axis: int) -> Pair:
    step, center, (left, right) = tap.stride[axis], tap.centers[axis], tap.reach[axis]
    pixels = range(center // 2, center // 2 + step + 1)  # one period, in which no sample is before the first
    lefts = [pixel - _below(pixel, step, center) * step + left for pixel in pixels]
    rights = [_above(pixel, step, center) * step + right - pixel for pixel in pixels]
    # Before the first sample and after the last a pixel has what that one has, however far.
    rights.append(right)
    least = net.least_size()[axis]
    for size in range(least, least + step):
        sizes: tuple[int, ...] = tuple(size if other == axis else n for other, n in enumerate(net.least_size()))
        for each in net.steps[: tap.step + 1]:
            sizes = each.out_size(sizes)
        lefts.append(size - 1 - (sizes[axis] - 1) * step + left)
    return max(lefts), max(rights)


def strides_of(net: DenseNet) -> list[tuple[int, ...]]:
    """Return the pixels between the samples of every step's output."""
    found: list[tuple[int, ...]] = [(1,) * net.ndim]
    for step in net.steps:
        found.append(tuple(a * b for a, b in zip(found[-1], step.stride, strict=True)))
    return found[1:]


def multiplications(step: Step, out_size: Sequence[int]) -> int:
    """Return the multiplications of a step for an output of a size."""
    if not isinstance(step.layer, Convolution | AveragePool):
        return 0
    per_output = math.prod(step.kernel)
    if isinstance(step.layer, Convolution):
        per_output *= step.layer.weight.shape[-1]
    return math.prod(out_size) * step.n_channels * per_output
