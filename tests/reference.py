"""The definition of the padded, dilated, strided, grouped cross-correlation: nested loops over Python floats.

    out[n, o, f] = bias[f] + sum over k, c of weight[f, k, c] * x[n, o * stride + k * dilation - before, g * C + c]

x: (batch, *spatial, groups * C), weight: (F, *kernel, C), filter f is in group g = f // (F // groups). Its transpose
spreads y by the same loops. Imports no dconv, and is never to be made faster: it is read, to know what is right.
"""

import itertools

import numpy as np


def sample_at(place, size, mode):
    """Return which sample of an axis stands at `place`, which may lie outside 0 ... size - 1; None is a zero."""
    if 0 <= place < size:
        return place
    if mode == "zeros":
        return None
    if mode == "edge":
        return 0 if place < 0 else size - 1
    if mode == "circular":
        while place < 0:
            place += size
        while place >= size:
            place -= size
        return place
    if mode == "symmetric":  # mirrors stand between samples: -1 shows 0, and size shows size - 1
        while not 0 <= place < size:
            place = -1 - place if place < 0 else 2 * size - 1 - place
        return place
    assert mode == "reflect"  # mirrors stand on samples: -1 shows 1, and size shows size - 2
    if size == 1:
        return 0
    while not 0 <= place < size:
        place = -place if place < 0 else 2 * (size - 1) - place
    return place


def output_size(size, kernel, stride, pads, dilation):
    """Return at how many places a kernel fits in a padded axis, by trying them."""
    before, after = pads
    count = 0
    while count * stride + (kernel - 1) * dilation < before + size + after:
        count += 1
    return count


def conv(x, weight, bias=None, *, stride, padding, dilation, groups=1, padding_mode="zeros"):
    """Return the convolution in float64; `stride` and `dilation` are one int, `padding` one pair per spatial axis."""
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    batch, *sizes, _ = x.shape
    n_filters, *kernel, n_channels = weight.shape
    out_sizes = [output_size(*of_axis) for of_axis in zip(sizes, kernel, stride, padding, dilation, strict=True)]
    out = np.zeros((batch, *out_sizes, n_filters))
    for n, f in itertools.product(range(batch), range(n_filters)):
        first_channel = f // (n_filters // groups) * n_channels
        for o in itertools.product(*map(range, out_sizes)):
            total = 0.0
            for k in itertools.product(*map(range, kernel)):
                place = tuple(
                    sample_at(o[axis] * stride[axis] + k[axis] * dilation[axis] - padding[axis][0], size, padding_mode)
                    for axis, size in enumerate(sizes)
                )
                for c in range(n_channels):
                    value = 0.0 if None in place else float(x[(n, *place, first_channel + c)])
                    total += float(weight[(f, *k, c)]) * value
            out[(n, *o, f)] = total if bias is None else total + float(bias[f])
    return out


def conv_transpose(y, weight, bias=None, *, out_size, stride, padding, dilation, groups=1, padding_mode="zeros"):
    """Return the adjoint of conv on images of `out_size`, in float64: every product goes where conv reads from."""
    y, weight = np.asarray(y, np.float64), np.asarray(weight, np.float64)
    n_filters, *kernel, n_channels = weight.shape
    out = np.zeros((len(y), *out_size, n_channels * groups))
    for n, f in itertools.product(range(len(y)), range(n_filters)):
        first_channel = f // (n_filters // groups) * n_channels
        for o in itertools.product(*map(range, y.shape[1:-1])):
            for k in itertools.product(*map(range, kernel)):
                place = tuple(
                    sample_at(o[axis] * stride[axis] + k[axis] * dilation[axis] - padding[axis][0], size, padding_mode)
                    for axis, size in enumerate(out_size)
                )
                if None in place:
                    continue
                for c in range(n_channels):
                    out[(n, *place, first_channel + c)] += float(weight[(f, *k, c)]) * float(y[(n, *o, f)])
    return out if bias is None else out + np.asarray(bias, np.float64)


def unfold(x, kernel, *, stride, padding, dilation, padding_mode="zeros"):
    """Return the windows of x, (batch, *windows, *kernel, channels); arguments as for conv."""
    sizes = x.shape[1:-1]
    counts = [output_size(*of_axis) for of_axis in zip(sizes, kernel, stride, padding, dilation, strict=True)]
    columns = np.zeros((len(x), *counts, *kernel, x.shape[-1]), x.dtype)
    for n, o, k in _window_positions(len(x), counts, kernel):
        place = _place(o, k, sizes, stride, padding, dilation, padding_mode)
        if None not in place:
            columns[(n, *o, *k)] = x[(n, *place)]
    return columns


def fold(columns, sizes, *, stride, padding, dilation, padding_mode="zeros"):
    """Return the sum of windows over an image of `sizes`, in float64."""
    ndim = len(sizes)
    counts, kernel = columns.shape[1 : 1 + ndim], columns.shape[1 + ndim : -1]
    x = np.zeros((len(columns), *sizes, columns.shape[-1]))
    for n, o, k in _window_positions(len(columns), counts, kernel):
        place = _place(o, k, sizes, stride, padding, dilation, padding_mode)
        if None not in place:
            x[(n, *place)] += columns[(n, *o, *k)]
    return x


def _window_positions(batch, counts, kernel):
    return itertools.product(
        range(batch), itertools.product(*map(range, counts)), itertools.product(*map(range, kernel))
    )


def _place(o, k, sizes, stride, padding, dilation, mode):
    return tuple(
        sample_at(o[axis] * stride[axis] + k[axis] * dilation[axis] - padding[axis][0], size, mode)
        for axis, size in enumerate(sizes)
    )


def zero_inserted_conv_transpose(y, weight, *, out_size, stride, padding, dilation):
    """Return the transposed convolution as textbooks draw it: zeros between the pixels of y, padding, convolution with
    the flipped kernel, cropping. One group, border of zeros.
    """
    ndim = y.ndim - 2
    kernel = weight.shape[1:-1]
    between = np.zeros((len(y), *((n - 1) * s + 1 for n, s in zip(y.shape[1:-1], stride, strict=True)), y.shape[-1]))
    between[(slice(None), *(slice(None, None, s) for s in stride))] = y
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    flipped = weight[(slice(None), *[slice(None, None, -1)] * ndim)].swapaxes(0, -1)  # (in_channels, *kernel, filters)
    missing = [
        max(0, left + n - (inserted + width - 1))
        for left, n, inserted, width in zip(
            (left for left, _ in padding), out_size, between.shape[1:-1], span, strict=True
        )
    ]
    full = conv(
        between,
        flipped,
        stride=(1,) * ndim,
        padding=[(width - 1, width - 1 + more) for width, more in zip(span, missing, strict=True)],
        dilation=dilation,
    )
    crop = tuple(slice(left, left + n) for (left, _), n in zip(padding, out_size, strict=True))
    return full[(slice(None), *crop)]


def mean_field(unary, kernels, n_iter):
    """Return the mean field of the fully connected CRF with exact Gaussians, every pixel with every one, in float64.

    unary: (pixels, classes), what each class costs. kernels: (features, weight, costs), features (pixels, d) divided by
    their widths, costs (classes, classes) of one class beside another.
    """
    unary = np.asarray(unary, np.float64)
    n = len(unary)
    couplings = []
    for features, weight, costs in kernels:
        alike = np.zeros((n, n))
        for i, j in itertools.product(range(n), range(n)):
            alike[i, j] = np.exp(-0.5 * np.sum((np.float64(features[i]) - np.float64(features[j])) ** 2))
        norm = 1 / np.sqrt(alike.sum(axis=1))
        couplings.append((weight * norm[:, np.newaxis] * alike * norm, np.asarray(costs, np.float64)))
    q = _softmax(-unary)
    for _ in range(n_iter):
        q = _softmax(-unary - sum(coupling @ q @ costs.T for coupling, costs in couplings))
    return q


def _softmax(z):
    power = np.exp(z - z.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)
