"""Blocks against numpy.pad, wherever they lie; how planes are split."""

import itertools
import math
import re
import sys

import numpy as np
import pytest
from conv_cases import NUMPY_MODES
from hypothesis import given, settings
from hypothesis import strategies as st

from dconv._blocks import PADDING_MODES, border_index, check_padding_mode, choose_block_shape, read_block, split

shapes = st.lists(st.integers(1, 30), min_size=1, max_size=3).map(tuple)


@st.composite
def boxes(draw):
    """Draw a shape, and starts and stops of a block that may lie anywhere; it may be empty."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))
    starts = draw(st.tuples(*(st.integers(-9, 12) for _ in shape)))
    lengths = draw(st.tuples(*(st.integers(0, 9) for _ in shape)))
    return shape, starts, tuple(start + length for start, length in zip(starts, lengths, strict=True))


@pytest.mark.parametrize("mode", PADDING_MODES)
@settings(deadline=None, max_examples=300)
@given(box=boxes(), first_axis=st.integers(0, 2), channels=st.integers(1, 2))
def test_read_block_equals_numpy_pad(mode, box, first_axis, channels):
    shape, start, stop = box
    lead = (2, 1)[:first_axis]
    x = np.arange(1, 1 + math.prod((*lead, *shape, channels))).reshape(*lead, *shape, channels)
    before = x.copy()
    margin = 24  # beyond any block
    pads = [(0, 0)] * first_axis + [(margin, margin)] * len(shape) + [(0, 0)]
    places = (slice(a + margin, b + margin) for a, b in zip(start, stop, strict=True))
    expected = np.pad(x, pads, mode=NUMPY_MODES[mode])[(slice(None),) * first_axis + tuple(places)]
    block = read_block(x, start, stop, mode, first_axis=first_axis)
    assert block.dtype == x.dtype
    np.testing.assert_array_equal(block, expected)
    inside = all(a >= 0 and b <= n for a, b, n in zip(start, stop, shape, strict=True))
    if block.size:
        assert np.shares_memory(block, x) == inside  # so only a block inside may not be written to
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_border_index_equals_numpy_pad(mode, size):
    expected = np.pad(
        np.arange(size), 20, mode=NUMPY_MODES[mode], **({"constant_values": -1} if mode == "zeros" else {})
    )
    np.testing.assert_array_equal(border_index(size, np.arange(-20, size + 20), mode), expected)
    np.testing.assert_array_equal(border_index(size, np.array([[7, -20]]), mode), expected[[[27, 0]]])


def test_empty_axes_are_zeros_around_nothing():
    np.testing.assert_array_equal(read_block(np.empty((0, 3)), (-1, 0), (2, 4), "zeros"), np.zeros((3, 4)))


@pytest.mark.skipif(sys.platform == "win32", reason="a truncated file is not sparse on NTFS")
def test_only_the_pixels_needed_are_read(tmp_path):
    """Of a file of 64 GiB, of which no disk holds more than a few pages."""
    side = 2**18
    with open(tmp_path / "x.bin", "wb") as file:
        file.truncate(side * side)
    x = np.memmap(tmp_path / "x.bin", np.uint8, "r+", shape=(side, side))
    x[-2, -1], x[-1, -2] = 3, 4
    for mode in PADDING_MODES:
        block = read_block(x, (side - 2, side - 2), (side + 1, side + 1), mode)
        np.testing.assert_array_equal(block[:2, :2], [[0, 3], [4, 0]], err_msg=mode)


@pytest.mark.parametrize("mode", ["mirror", "ZEROS", "", None, 1, ["zeros"], np.array(["zeros", "edge"])])
def test_unknown_mode(mode):
    with pytest.raises(ValueError, match=f"padding_mode must be one of 'zeros', .* got {re.escape(repr(mode))}"):
        check_padding_mode(mode)


def test_known_modes():
    for mode in PADDING_MODES:
        check_padding_mode(mode)


# --- splitting ---


@given(shapes, st.data())
def test_split_covers_every_pixel_once(shape, data):
    block_shape = data.draw(st.tuples(*(st.integers(1, n + 2) for n in shape)))
    count = np.zeros(shape, int)
    blocks = list(split(shape, block_shape))
    for block in blocks:
        assert all(0 < s.stop - s.start <= longest for s, longest in zip(block, block_shape, strict=True))
        count[block] += 1
    assert np.all(count == 1)
    corners = [tuple(s.start for s in block) for block in blocks]
    assert corners == sorted(corners)  # in row order


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=3), st.integers(1, 10**6))
def test_block_shape_is_within_the_image_and_about_as_large_as_asked(shape, n_pixels):
    block = choose_block_shape(shape, n_pixels)
    assert len(block) == len(shape)
    assert all(1 <= side <= n for side, n in zip(block, shape, strict=True))
    assert all(isinstance(side, int) for side in block)
    # Sides are rounded to whole pixels, each by a half at most: a side of one may stand for one and a half.
    assert math.prod(block) <= 1.5 ** len(shape) * n_pixels
    if n_pixels >= math.prod(shape):
        assert block == tuple(shape)


@given(st.lists(st.integers(100, 3000), min_size=1, max_size=3), st.integers(1000, 10**6))
def test_block_shape_is_near_cubic_with_equal_pieces(shape, n_pixels):
    block = choose_block_shape(shape, n_pixels)
    for side, n in zip(block, shape, strict=True):
        pieces = math.ceil(n / side)
        assert side == math.ceil(n / pieces)
    # A side is at least half the next longer one, unless its axis ends there.
    for (short, n), (long, _) in itertools.pairwise(sorted(zip(block, shape, strict=True))):
        assert short == n or 2 * short + 1 >= long / 2
