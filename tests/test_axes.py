"""One integer, or one per spatial axis: what counts as an int, and what each message says."""

import numpy as np
import pytest

from dconv._axes import as_int, as_ndim, as_tuple, items_of


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), (3, 3), [3, 3], np.array([3, 3])])
def test_as_tuple_returns_python_ints(value):
    result = as_tuple(value, 2, "stride", 1)
    assert result == (3, 3)
    assert [type(item) for item in result] == [int, int]


def test_as_tuple_reads_the_rank_from_the_value():
    assert as_tuple(5, None, "input_size", 1) == (5,)
    assert as_tuple((5, 6, 7), None, "input_size", 1) == (5, 6, 7)


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.True_, 1.0, np.float32(1), np.array(1.0), "1", None, (1, 2.5), (1, False), ((1, 1), (1, 1))),
        *(b"33", {1: 2, 2: 1}),  # of two ints each, but no sequence of them
    ],
)
def test_as_tuple_refuses_what_is_not_an_integer(value):
    with pytest.raises(TypeError, match="dilation must be an int"):
        as_tuple(value, 2, "dilation", 1)


@pytest.mark.parametrize(
    ("value", "ndim", "message"),
    [
        ((1, 2, 3), 2, r"dilation .* 2 spatial axes, but got \(1, 2, 3\) with 3"),
        ((), 2, r"dilation .* but got \(\) with 0"),
        ((), None, "dilation must have 1 to 3 spatial axes"),
        ((1, 2, 3, 4), None, r"dilation must have 1 to 3 spatial axes, but got \(1, 2, 3, 4\)"),
        (0, 2, "dilation must be at least 1"),
        ((1, -2), 2, r"dilation must be at least 1, but got \(1, -2\)"),
    ],
)
def test_as_tuple_names_argument_and_values(value, ndim, message):
    with pytest.raises(ValueError, match=message):
        as_tuple(value, ndim, "dilation", 1)


def test_as_tuple_says_what_there_is_one_of():
    with pytest.raises(
        ValueError, match=r"order must be an int or have one int for each of the 3 bands, but got \(1, 2\)"
    ):
        as_tuple((1, 2), 3, "order", each="bands")


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_one_int(value):
    assert as_int(value, "order", 3) == 3
    assert type(as_int(value, "order")) is type(as_ndim(value)) is int


@pytest.mark.parametrize("value", [True, np.True_, 2.0, "2", None, [2], (2,), np.array([2]), range(2, 3)])
def test_what_is_not_one_int(value):
    with pytest.raises(TypeError, match=r"^order must be an int \(no bool, no float\), got .* of type"):
        as_int(value, "order")
    with pytest.raises(TypeError, match=r"^ndim must be an int"):
        as_ndim(value)


def test_ints_out_of_range():
    with pytest.raises(ValueError, match="order must be at least 1, but got 0"):
        as_int(0, "order", 1)
    for ndim in (-1, 0, 4):
        with pytest.raises(ValueError, match=f"ndim must be 1, 2 or 3 spatial axes, but got {ndim}"):
            as_ndim(ndim)


def test_every_sequence_has_items():
    for value in ((1, 2), [1, 2], range(1, 3), np.array([1, 2]), {1, 2}):
        assert items_of(value) == (1, 2)
    for value in (1, np.array(1), "12", None, 1.5):
        assert items_of(value) is None
