"""The definition of MiniRocket's features: loops over kernels, positions and taps.

    response[p] = sum over nine taps of weight[tap] * x[p + dilation * tap]; weight 2 (three) or -1; 0 outside of x
    feature     = share of the positions whose response is above a bias

x is (rows, columns, channels); a series has one row. Imports no dconv, and is never to be made faster.
"""

import itertools

import numpy as np

KERNELS = list(itertools.combinations(range(9), 3))
LINE = [(0, k - 4) for k in range(9)]
SQUARE = [(i - 1, j - 1) for i in range(3) for j in range(3)]


def grow(x, taps):
    """Return x continued by zeros until a kernel fits in."""
    rows = max(len(x), 1 + max(i for i, _ in taps) - min(i for i, _ in taps))
    columns = max(x.shape[1], 1 + max(j for _, j in taps) - min(j for _, j in taps))
    larger = np.zeros((rows, columns, x.shape[2]))
    larger[: len(x), : x.shape[1]] = x
    return larger


def responses(x, taps, high, dilation, channels):
    """Return the response at every position, (rows, columns)."""
    x = grow(x, taps)
    out = np.zeros(x.shape[:2])
    for row, column, (tap, (i, j)) in itertools.product(range(len(x)), range(x.shape[1]), enumerate(taps)):
        r, c = row + dilation * i, column + dilation * j
        if 0 <= r < x.shape[0] and 0 <= c < x.shape[1]:
            out[row, column] += (2 if tap in high else -1) * sum(x[r, c, channel] for channel in channels)
    return out


def inner(response, taps, dilation):
    """Return the responses whose taps all lie within, or all responses if there are none."""
    i, j = (dilation * max(tap[axis] for tap in taps) for axis in (0, 1))
    within = response[i : len(response) - i, j : response.shape[1] - j]
    return within if len(response) > 2 * i and response.shape[1] > 2 * j else response


def features(x, taps, dilations, counts, biases, channels):
    """Return the features of one image; `channels` has a list for every kernel at every dilation."""
    out, biases, channels = [], list(biases), list(channels)
    for number, (dilation, count) in enumerate(zip(dilations, counts, strict=True)):
        for kernel, high in enumerate(KERNELS):
            response = responses(x, taps, high, dilation, channels.pop(0))
            if (number + kernel) % 2:
                response = inner(response, taps, dilation)
            out += [np.mean(response > biases.pop(0)) for _ in range(count)]
    return np.array(out)
