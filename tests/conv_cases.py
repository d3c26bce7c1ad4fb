"""Convolutions drawn by Hypothesis, for the tests that compare conv with something else or with itself."""

import dataclasses
import math

import numpy as np
import reference
from hypothesis import strategies as st
from tolerance import assert_close, term_scale

import dconv
from dconv._blocks import PADDING_MODES

NUMPY_MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "edge": "edge",
    "circular": "wrap",
}
SCIPY_MODES = {
    "zeros": "constant",
    "reflect": "mirror",
    "symmetric": "reflect",
    "edge": "nearest",
    "circular": "grid-wrap",
}
# (channels per group, filters per group, groups): dense, few filters over whole vectors, many filters, grouped,
# depthwise with one filter a channel and with two.
CHANNELS = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.just(1)),
    st.tuples(st.sampled_from([8, 16, 32]), st.integers(1, 4), st.integers(1, 2)),
    st.tuples(st.integers(1, 3), st.integers(21, 40), st.just(1)),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 3)),
    st.tuples(st.just(1), st.sampled_from([1, 1, 2]), st.integers(1, 19)),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """The arguments of one convolution; strides and dilations one int, padding one pair per axis."""

    shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    has_bias: bool
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    dtype: type

    @property
    def options(self):
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}

    @property
    def n_taps(self):
        return math.prod(self.weight_shape[1:])

    @property
    def span(self):
        return tuple(d * (k - 1) + 1 for k, d in zip(self.weight_shape[1:-1], self.dilation, strict=True))

    def arrays(self, seed=0):
        """Return x, weight and bias (or None) with normal entries."""
        rng = np.random.default_rng(seed)
        x, weight = (rng.normal(size=shape).astype(self.dtype) for shape in (self.shape, self.weight_shape))
        return x, weight, rng.normal(size=self.weight_shape[0]).astype(self.dtype) if self.has_bias else None

    def conv(self, x, weight, bias=None, **changes):
        return dconv.conv(x, weight, bias, **{**self.options, **changes})

    def padded(self, x):
        """Return `x` extended by NumPy."""
        return np.pad(x, [(0, 0), *self.padding, (0, 0)], mode=NUMPY_MODES[self.padding_mode])

    def check(self, actual, x, weight, bias):
        """Compare with the definition."""
        expected = reference.conv(x, weight, bias, **self.options)
        assert actual.dtype == self.dtype
        assert_close(actual, expected, self.n_taps, term_scale(x, weight, bias))


@st.composite
def cases(draw, *, budget=200_000, ranks=(1, 2, 3), modes=PADDING_MODES, channels=CHANNELS, strides=(1, 1, 2, 3)):
    """Draw a convolution that takes about `budget` multiply-adds at most."""
    rank = draw(st.sampled_from(ranks))

    def per_axis(values):
        return draw(st.tuples(*[values] * rank))

    n_channels, n_filters, groups = draw(channels)
    kernel = per_axis(st.integers(1, 5 - rank + (rank == 1)))
    stride, dilation = per_axis(st.sampled_from(strides)), per_axis(st.integers(1, 4))
    padding = per_axis(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    batch = draw(st.integers(1, 2))
    left = max(1, budget // (batch * n_filters * groups * n_channels * math.prod(kernel)))
    size = []
    for axis, (k, s, d, pads) in enumerate(zip(kernel, stride, dilation, padding, strict=True)):
        out = draw(st.integers(1, max(1, min(30, round(left ** (1 / (rank - axis)))))))
        unused = draw(st.integers(0, s - 1))  # samples after the last that a kernel reaches
        size.append(max(1, (out - 1) * s + d * (k - 1) + 1 + unused - sum(pads)))
        left = max(1, left // out)
    return Case(
        (batch, *size, n_channels * groups),
        (n_filters * groups, *kernel, n_channels),
        draw(st.booleans()),
        stride,
        padding,
        dilation,
        groups,
        draw(st.sampled_from(modes)),
        draw(st.sampled_from([np.float32, np.float64])),
    )
