"""unfold, fold and overlap_count against loops, PyTorch, and the laws that join them with conv."""

import ctypes
import dataclasses
import mmap
import sys

import numpy as np
import pytest
import reference
from conv_cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import assert_close

import dconv
from dconv import unfolding
from dconv._blocks import PADDING_MODES

MANY = settings(deadline=None, max_examples=150)
SOME = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)
# Few channels are copied in chunks, of one number each where the dilation is not 1, and many in long runs.
CHANNELS = st.tuples(st.sampled_from([1, 2, 3, 4, 5, 8, 70]), st.just(1), st.just(1))
PROT_NONE = 0
WINDOWS = {"channels": CHANNELS, "budget": 20_000}


def window_options(case):
    return {name: case.options[name] for name in ("stride", "padding", "dilation", "padding_mode")}


def image_and_columns(case, seed):
    """Return an image, and columns of the shape that its windows have."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=case.shape).astype(case.dtype)
    shape = dconv.unfold(x, case.weight_shape[1:-1], **window_options(case)).shape
    return x, rng.normal(size=shape).astype(case.dtype)


@pytest.mark.parametrize("mode", PADDING_MODES)
@SOME
@given(data=st.data(), seed=seeds)
def test_unfold_and_fold_equal_their_definitions(mode, data, seed):
    case = data.draw(cases(modes=(mode,), **WINDOWS))
    x, columns = image_and_columns(case, seed)
    kernel, options = case.weight_shape[1:-1], window_options(case)
    unfolded = dconv.unfold(x, kernel, **options)
    assert unfolded.dtype == case.dtype
    np.testing.assert_array_equal(unfolded, reference.unfold(x, kernel, **options))
    folded = dconv.fold(columns, case.shape[1:-1], **options)
    assert folded.dtype == case.dtype
    n_terms = columns[0, ..., 0].size
    assert_close(folded, reference.fold(columns, case.shape[1:-1], **options), n_terms, n_terms * np.abs(columns).max())


@MANY
@given(case=cases(budget=20_000), seed=seeds)
def test_convolution_is_a_product_with_columns(case, seed):
    case = dataclasses.replace(case, groups=1, shape=(*case.shape[:-1], case.weight_shape[-1]), has_bias=False)
    x, weight, _ = case.arrays(seed)
    columns = dconv.unfold(x, case.weight_shape[1:-1], **window_options(case))
    n_filters = len(weight)
    product = columns.reshape(-1, case.n_taps).astype(np.float64) @ weight.reshape(n_filters, -1).T.astype(np.float64)
    case.check(product.reshape(case.conv(x, weight).shape).astype(case.dtype), x, weight, None)
    y = case.conv(x, weight)
    spread = (y.reshape(-1, n_filters) @ weight.reshape(n_filters, -1)).reshape(columns.shape)
    folded = dconv.fold(spread, case.shape[1:-1], **window_options(case))
    transposed = dconv.conv_transpose(y, weight, output_size=case.shape[1:-1], **case.options)
    largest = max(1.0, float(np.abs(spread).sum()))
    np.testing.assert_allclose(folded, transposed, rtol=0, atol=largest * 4 * np.finfo(case.dtype).eps)


@MANY
@given(case=cases(**WINDOWS), seed=seeds)
def test_fold_is_the_adjoint_of_unfold(case, seed):
    x, columns = image_and_columns(dataclasses.replace(case, dtype=np.float64), seed)
    options = window_options(case)
    there = dconv.unfold(x, case.weight_shape[1:-1], **options) * columns
    back = x * dconv.fold(columns, case.shape[1:-1], **options)
    np.testing.assert_allclose(there.sum(), back.sum(), rtol=0, atol=1e-12 * np.abs(there).sum() + 1e-12)


@MANY
@given(case=cases(**WINDOWS), seed=seeds)
def test_fold_of_unfold_is_x_times_the_overlap_count(case, seed):
    x = np.random.default_rng(seed).integers(-99, 99, case.shape).astype(case.dtype)
    kernel, size, options = case.weight_shape[1:-1], case.shape[1:-1], window_options(case)
    folded = dconv.fold(dconv.unfold(x, kernel, **options), size, **options)
    count = dconv.overlap_count(size, kernel, **options)
    assert count.dtype == np.float32
    assert count.shape == (*size, 1)
    np.testing.assert_array_equal(folded, x * count)
    ones = np.ones((1, *size, 1))
    expected = reference.fold(reference.unfold(ones, kernel, **options), size, **options)
    np.testing.assert_array_equal(count, expected[0])


@MANY
@given(case=cases(ranks=(2,), modes=("zeros",), **WINDOWS), seed=seeds)
def test_equal_torch(case, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install dconv[peers])")
    x, columns = image_and_columns(
        dataclasses.replace(case, padding=tuple((max(pair),) * 2 for pair in case.padding)), seed
    )
    kernel = case.weight_shape[1:-1]
    options = {"stride": case.stride, "dilation": case.dilation, "padding": tuple(map(max, case.padding))}
    batch, *windows, _, _, channels = columns.shape
    # there (batch, channels * kernel, windows)
    expected = torch.nn.functional.unfold(torch.from_numpy(np.moveaxis(x, -1, 1).copy()), kernel, **options)
    expected = expected.numpy().reshape(batch, channels, *kernel, *windows)
    actual = dconv.unfold(x, kernel, **options)
    np.testing.assert_array_equal(actual, expected.transpose(0, 4, 5, 2, 3, 1))
    theirs = torch.from_numpy(columns.transpose(0, 5, 3, 4, 1, 2).reshape(batch, channels * np.prod(kernel), -1))
    expected = torch.nn.functional.fold(theirs, case.shape[1:-1], kernel, **options).numpy()
    actual = dconv.fold(columns, case.shape[1:-1], **options)
    n_terms = int(np.prod(kernel))
    assert_close(actual, np.moveaxis(expected, 1, -1), n_terms, n_terms * np.abs(columns).max())


@MANY
@given(case=cases(**WINDOWS), n_threads=st.integers(2, 5), piece=st.integers(1, 400), seed=seeds)
def test_threads_pieces_and_out_change_nothing(case, n_threads, piece, seed):
    x, columns = image_and_columns(case, seed)
    kernel, size, options = case.weight_shape[1:-1], case.shape[1:-1], window_options(case)
    unfolded, folded = dconv.unfold(x, kernel, **options), dconv.fold(columns, size, **options)
    # Numbers before and after `out`, which copies in whole chunks must not touch.
    guarded = [np.full(array.size + 32, 7, case.dtype) for array in (unfolded, folded)]
    outs = [memory[16:-16].reshape(array.shape) for memory, array in zip(guarded, (unfolded, folded), strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfolding, "_BYTES_PER_THREAD", 1)
        patch.setattr(unfolding, "_PIECE_BYTES", piece)
        assert dconv.unfold(x, kernel, **options, out=outs[0], n_threads=n_threads) is outs[0]
        assert dconv.fold(columns, size, **options, out=outs[1], n_threads=n_threads) is outs[1]
    np.testing.assert_array_equal(outs[0], unfolded)
    np.testing.assert_array_equal(outs[1], folded)
    for memory in guarded:
        assert (memory[:16] == 7).all()
        assert (memory[-16:] == 7).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_fold_adds_windows_from_first_to_last(axis):
    """In float32 the order shows: 1e8 - 1e8 + 1 is 1, and 1 - 1e8 + 1e8 is 0."""
    kernel, size = [1, 1, 1], [1, 1, 1]
    kernel[axis], size[axis] = 3, 5
    columns = np.zeros((3, 3), np.float32)  # (windows, positions)
    columns[[0, 1, 2], [2, 1, 0]] = 1e8, -1e8, 1  # all on the middle pixel
    folded = dconv.fold(columns.reshape(1, *(n - k + 1 for n, k in zip(size, kernel, strict=True)), *kernel, 1), size)
    assert folded.ravel().tolist() == [0, 0, 1, 0, 0]


def test_layouts_and_dtypes():
    x = np.random.default_rng(0).integers(0, 255, (2, 9, 8, 3)).astype(np.uint8)
    expected = dconv.unfold(x.astype(np.float32), 3, padding=1)
    for other in (x, np.asfortranarray(x), np.ascontiguousarray(x[:, ::-1])[:, ::-1], x.tolist()):
        actual = dconv.unfold(other, 3, padding=1)
        assert actual.dtype == np.float32
        np.testing.assert_array_equal(actual, expected)
    back = dconv.fold(expected, (9, 8), padding=1)
    np.testing.assert_array_equal(dconv.fold(np.asfortranarray(expected.astype(np.int64)), (9, 8), padding=1), back)


@pytest.mark.skipif(sys.platform != "linux", reason="forbids a page of memory by Linux's mprotect")
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("right", [0, 1, 2])  # padded, the last window inside is not the last, which is copied exactly
def test_nothing_behind_x_is_read(channels, dilation, right):
    """An image that ends where memory that must not be read begins: reading on would kill the process."""
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    page = np.frombuffer(memory, np.float32)
    address = ctypes.c_void_p(page.ctypes.data + mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(address, mmap.PAGESIZE, PROT_NONE) == 0
    try:
        end = mmap.PAGESIZE // 4
        x = page[end - 36 * channels : end].reshape(1, 6, 6, channels)
        x[...] = np.arange(x.size).reshape(x.shape)
        options = {"stride": (1, 1), "padding": ((1, 1), (1, right)), "dilation": (1, dilation)}
        expected = reference.unfold(x, (2, 3), **options)
        np.testing.assert_array_equal(dconv.unfold(x, (2, 3), **options), expected)
    finally:
        libc.mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_windows_far_larger_than_the_image(mode):
    """They take memory for what is returned, and not for what they span."""
    x = np.arange(1.0, 6.0).reshape(1, 5, 1)
    columns = dconv.unfold(x, 3, dilation=10**13, padding="same", padding_mode=mode)
    assert columns.shape == (1, 5, 3, 1)
    np.testing.assert_array_equal(columns[..., 1, :], x)
    assert (columns[..., ::2, :] == 0).all() == (mode == "zeros")
    far = dconv.unfold(x, 1, stride=10**12, padding=10**13, padding_mode=mode)
    assert far.shape == (1, 21, 1, 1)
    assert far[0, 10] == 1


def test_empty_batch():
    assert dconv.unfold(np.zeros((0, 5, 6, 2)), 3).shape == (0, 3, 4, 3, 3, 2)
    assert dconv.fold(np.zeros((0, 3, 4, 3, 3, 2)), (5, 6)).shape == (0, 5, 6, 2)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: dconv.unfold(np.zeros((5, 5)), 3), ValueError, r"x must have shape \(batch, \*spatial, channels\)"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 0)), 3), ValueError, "only the batch axis may be empty"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 1)), 6), ValueError, "kernel"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 1)), (3, 3, 3)), ValueError, "kernel_size must be an int or have one"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 1)), 3.0), TypeError, "kernel_size"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 1)), 3, stride=0), ValueError, "stride"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 1)), 3, padding_mode="mirror"), ValueError, "padding_mode"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 1), complex), 3), TypeError, "x"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 1)), 3, out=np.zeros((1, 3, 3, 9))), ValueError, "out must have"),
        (lambda: dconv.unfold(np.zeros((1, 5, 5, 1)), 3, n_threads=0), ValueError, "n_threads"),
        (lambda: dconv.fold(np.zeros((1, 3, 3, 3, 1)), 5), ValueError, r"columns must have shape \(batch, \*windows"),
        (lambda: dconv.fold(np.zeros((1, 3, 3, 3, 3, 1)), (6, 5)), ValueError, r"\(3, 3\) windows .* has \(4, 3\)"),
        (lambda: dconv.fold(np.zeros((1, 3, 3, 3, 3, 1)), 5, stride=2), ValueError, "windows"),
        (lambda: dconv.fold(np.zeros((1, 3, 3, 3, 3, 1)), (5, 5, 5)), ValueError, "output_size"),
        (lambda: dconv.fold(np.zeros((1, 3, 3, 3, 3, 1)), 5, padding_mode="nearest"), ValueError, "padding_mode"),
        (lambda: dconv.overlap_count((5, 5), (3, 3, 3)), ValueError, "kernel_size"),
        (lambda: dconv.overlap_count((5, 0), 3), ValueError, "input_size must be at least 1"),
    ],
)
def test_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_out_must_not_overlap_the_input():
    memory = np.zeros((1, 5, 1))
    with pytest.raises(ValueError, match="out must not overlap x"):
        dconv.unfold(memory, 1, out=memory.reshape(1, 5, 1, 1))
    with pytest.raises(ValueError, match="out must not overlap columns"):
        dconv.fold(memory.reshape(1, 5, 1, 1), 5, out=memory)
