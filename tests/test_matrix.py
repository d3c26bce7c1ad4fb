"""conv_matrix against SciPy and the definition; conv and conv_transpose against it, for what PyTorch does not have."""

import dataclasses

import numpy as np
import pytest
import reference
import scipy.linalg
from conv_cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tolerance import assert_close, term_scale

import dconv
from dconv._blocks import PADDING_MODES

MANY = settings(deadline=None, max_examples=150)
SOME = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)


def matrix_of(case, weight):
    return dconv.conv_matrix(case.shape[1:-1], weight, **case.options)


@pytest.mark.parametrize("mode", PADDING_MODES)
@SOME
@given(data=st.data(), seed=seeds)
def test_columns_are_the_convolutions_of_single_pixels(mode, data, seed):
    case = data.draw(cases(budget=300, modes=(mode,)))
    case = dataclasses.replace(case, shape=(1, *case.shape[1:]))
    _, weight, _ = case.arrays(seed)
    n = int(np.prod(case.shape))
    matrix = matrix_of(case, weight)
    assert matrix.dtype == case.dtype
    pixels = reference.conv(np.eye(n).reshape(n, *case.shape[1:]), weight, **case.options)
    np.testing.assert_allclose(matrix.toarray(), pixels.reshape(n, -1).T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", PADDING_MODES)
@MANY
@given(data=st.data(), seed=seeds)
def test_joins_conv_and_conv_transpose(mode, data, seed):
    case = data.draw(cases(budget=20_000, modes=(mode,)))
    if data.draw(st.booleans()):
        case = dataclasses.replace(case, padding="same")
    case = dataclasses.replace(case, has_bias=False, dtype=np.float64)
    x, weight, _ = case.arrays(seed)
    matrix = matrix_of(case, weight)
    there = (matrix @ x.reshape(len(x), -1).T).T
    actual = case.conv(x, weight)
    assert_close(actual, there.reshape(actual.shape), case.n_taps, term_scale(x, weight))
    y = np.random.default_rng(seed + 1).normal(size=actual.shape)
    back = (matrix.T @ y.reshape(len(y), -1).T).T.reshape(x.shape)
    transposed = dconv.conv_transpose(y, weight, output_size=x.shape[1:-1], **case.options)
    np.testing.assert_allclose(transposed, back, rtol=0, atol=1e-13 * max(1.0, float(np.abs(weight).sum())) * 50)


def test_of_a_series_is_scipys_toeplitz_matrix():
    weight = np.array([1.0, 2.0, 3.0])
    expected = scipy.linalg.convolution_matrix(weight[::-1], 6, "valid")
    np.testing.assert_array_equal(dconv.conv_matrix(6, weight.reshape(1, 3, 1)).toarray(), expected)
    circulant = scipy.linalg.circulant([1.0, 0, 0, 0, 3, 2]).astype(float)
    actual = dconv.conv_matrix(6, weight.reshape(1, 3, 1), padding=((0, 2),), padding_mode="circular").toarray()
    np.testing.assert_array_equal(actual, circulant)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_form(mode):
    """CSR with small, sorted indices, each once in a row, although the border repeats pixels."""
    weight = np.ones((4, 3, 3, 2), np.int32)
    matrix = dconv.conv_matrix((5, 6), weight, padding=4, groups=2, dilation=2, padding_mode=mode)
    assert isinstance(matrix, sparse.csr_array)
    assert matrix.shape == (9 * 10 * 4, 5 * 6 * 4)
    assert matrix.dtype == np.float32
    assert matrix.indices.dtype == np.int32
    assert matrix.has_canonical_format
    rows = np.split(matrix.indices, matrix.indptr[1:-1])
    assert all((np.diff(row) > 0).all() for row in rows)


def test_an_int_is_the_size_of_every_axis():
    assert dconv.conv_matrix(5, np.ones((1, 3, 3, 1))).shape == (9, 25)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (((5, 5, 5), np.ones((1, 3, 3, 1))), {}, ValueError, "input_size must be an int or have one"),
        (((5, 0), np.ones((1, 3, 3, 1))), {}, ValueError, "input_size must be at least 1"),
        (((5, 2), np.ones((1, 3, 3, 1))), {}, ValueError, "kernel"),
        ((5, np.ones((3, 1))), {}, ValueError, "weight must have shape"),
        ((5, np.ones((3, 3, 1))), {"groups": 2}, ValueError, "groups=2 must divide the 3 filters"),
        ((5, np.ones((3, 3, 1))), {"groups": 0}, ValueError, "groups"),
        ((5, np.ones((3, 3, 1))), {"padding_mode": "wrap"}, ValueError, "padding_mode"),
        ((5.0, np.ones((3, 3, 1))), {}, TypeError, "input_size"),
        ((5, np.ones((3, 3, 1), complex)), {}, TypeError, "weight"),
    ],
)
def test_refused(arguments, options, error, words):
    with pytest.raises(error, match=words):
        dconv.conv_matrix(*arguments, **options)
