"""The windows of an image side by side (im2col), their sum back into an image (col2im), and how often they overlap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dconv import _memory, shapes
from dconv._axes import Ints, as_hashable, as_tuple
from dconv._blocks import check_padding_mode, fold_border
from dconv._conv_plan import Axis, conv_plan, three_axes
from dconv._kernels import _unfold
from dconv._threads import effective_n_threads
from dconv._validation import as_real
from dconv._windows import samples_read

# The columns of a piece of a row, and the pixels that one of an image gathers, stay in the L1 cache.
_PIECE_BYTES = 1 << 14
_BYTES_PER_THREAD = 1 << 18  # below this a second thread costs more than it copies


def unfold(
    x: ArrayLike,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
    padding_mode: str = "zeros",
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> np.ndarray:
    """Return the windows that a convolution of `x` looks through, side by side (im2col).

    With its last axes flattened a window is a row of a matrix, and the convolution is a matrix product:
    ``conv(x, w)`` is ``unfold(x, kernel).reshape(n_windows, -1) @ w.reshape(n_filters, -1).T``.

    Parameters
    ----------
    x : array_like of shape (batch, *spatial, channels)
        Real, with 1 to 3 spatial axes. float64 stays; every other real dtype becomes float32, without rescaling.
    kernel_size : int or tuple of int, one per spatial axis
        Positions in a window.
    stride, padding, dilation, padding_mode
        As for :func:`conv`.
    out : ndarray of shape (batch, *output, *kernel, channels), optional
        Where to write the result: C-contiguous, of the dtype of the result, not overlapping `x`.
    n_threads : int, optional
        As for :func:`conv`.

    Returns
    -------
    columns : ndarray of shape (batch, *output, *kernel, channels)
        A copy, ``prod(kernel)`` times as large as `x` where the stride is 1.

    Raises
    ------
    TypeError
        If `x` is not real, or an argument is no integer.
    ValueError
        If ranks or sizes do not fit together, or `out` cannot hold the result.

    See Also
    --------
    dconv.fold : The adjoint: adds windows up where they overlap.
    dconv.conv : The convolution itself, which copies no windows.
    numpy.lib.stride_tricks.sliding_window_view : A view, without stride, padding and dilation.

    References
    ----------
    .. [1] K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document processing",
       Tenth International Workshop on Frontiers in Handwriting Recognition, 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import dconv
    >>> series = np.arange(5.0).reshape(1, 5, 1)
    >>> dconv.unfold(series, 3)[0, ..., 0]
    array([[0., 1., 2.],
           [1., 2., 3.],
           [2., 3., 4.]])
    >>> dconv.unfold(series, 2, stride=2, dilation=2)[0, ..., 0]
    array([[0., 2.],
           [2., 4.]])
    """
    (x,), _ = as_real(x=x)
    _check_rank("x", x.shape, 2, "(batch, *spatial, channels)")
    axes = _window_axes(x.shape[1:-1], kernel_size, stride, padding, dilation, padding_mode)
    threads = effective_n_threads(n_threads)
    ndim = x.ndim - 2
    shape = (len(x), *_out_size(axes, ndim), *_kernel(axes, ndim), x.shape[-1])
    out = _memory.result(shape, x.dtype, out, x=x)
    if not out.size:
        return out
    row = axes[2]
    first, stop = row.inside(row.phases[0])
    piece = _piece(row.out_size, out[(0,) * (ndim + 1)].nbytes)
    threads = max(1, min(threads, out.nbytes // _BYTES_PER_THREAD))
    lows = [axis.phases[0].low for axis in axes]
    _unfold.unfold(
        _as_3d(np.ascontiguousarray(x)),
        _table(axes, lows),
        *(samples_read(axis, padding_mode) for axis in axes[:2]),
        samples_read(row, padding_mode, np.concatenate([np.arange(first), np.arange(stop, row.out_size)])),
        first,
        stop,
        out.reshape(-1),
        piece,
        np.zeros(row.size * x.shape[-1] + _unfold.OVERREAD, x.dtype),
        np.empty((threads, 2 * math.prod(_kernel(axes, 3))), np.intp),
        threads,
    )
    return out


def fold(
    columns: ArrayLike,
    output_size: Ints,
    *,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
    padding_mode: str = "zeros",
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> np.ndarray:
    """Return the sum of windows, each at its place in an image (col2im): the adjoint of :func:`unfold`.

    What several windows cover is their sum. ``fold(unfold(x))`` is so `x` times :func:`overlap_count`, and dividing by
    that gives `x` back wherever a window lies.

    Parameters
    ----------
    columns : array_like of shape (batch, *windows, *kernel, channels)
        What :func:`unfold` returns, or anything of that shape, with as many axes of windows as of the kernel, 1 to 3.
        Dtypes as there.
    output_size : int or tuple of int, one per spatial axis
        The spatial sizes of the image.
    stride, padding, dilation, padding_mode
        Those of the :func:`unfold` that is transposed. What falls beyond the border is left out with "zeros"; with
        the other modes it is added to the pixels that :func:`unfold` would have read there.
    out : ndarray of shape (batch, *output_size, channels), optional
        Where to write the result: C-contiguous, of the dtype of the result, not overlapping `columns`.
    n_threads : int, optional
        As for :func:`conv`.

    Returns
    -------
    x : ndarray of shape (batch, *output_size, channels)

    Raises
    ------
    TypeError
        If `columns` are not real, or an argument is no integer.
    ValueError
        If ranks or sizes do not fit together (the message says how many windows there must be), or `out` cannot hold
        the result.

    See Also
    --------
    dconv.overlap_count : What to divide by to get an average instead of a sum.

    Examples
    --------
    >>> import numpy as np
    >>> import dconv
    >>> x = np.arange(1.0, 6.0).reshape(1, 5, 1)
    >>> total = dconv.fold(dconv.unfold(x, 3), 5)
    >>> total[0, :, 0]
    array([1., 4., 9., 8., 5.])
    >>> (total / dconv.overlap_count(5, 3))[0, :, 0]
    array([1., 2., 3., 4., 5.])
    """
    (columns,), _ = as_real(columns=columns)
    _check_rank("columns", columns.shape, 2, "(batch, *windows, *kernel, channels)", axes_per_rank=2)
    ndim = (columns.ndim - 2) // 2
    windows, kernel = columns.shape[1 : 1 + ndim], columns.shape[1 + ndim : -1]
    size = as_tuple(output_size, ndim, "output_size", 1)
    axes = _window_axes(size, kernel, stride, padding, dilation, padding_mode)
    expected = _out_size(axes, ndim)
    if windows != expected:
        raise ValueError(
            f"columns have {windows} windows on their axes 1 to {ndim}, but an image of {size} with these arguments "
            f"has {expected}; give the output_size, stride, padding and dilation of the unfold that made them"
        )
    threads = effective_n_threads(n_threads)
    out = _memory.result((len(columns), *size, columns.shape[-1]), columns.dtype, out, columns=columns)
    pads = shapes.normalize_padding(padding, kernel, dilation, stride, size)
    extends = padding_mode != "zeros" and any(map(any, pads))
    image = out
    lows = [axis.phases[0].low for axis in axes]
    if extends:
        extended = tuple(n + left + right for n, (left, right) in zip(size, pads, strict=True))
        image = _memory.empty((len(columns), *extended, columns.shape[-1]), columns.dtype)
        axes = three_axes([axis._replace(size=n) for axis, n in zip(axes[3 - ndim :], extended, strict=True)])
        lows = [0] * 3
    if image.size:
        _unfold.fold(
            np.ascontiguousarray(columns).reshape(-1),
            _table(axes, lows),
            _as_3d(image),
            _piece(axes[2].size, math.prod(columns.shape[-2:]) * columns.itemsize),
            max(1, min(threads, columns.nbytes // _BYTES_PER_THREAD)),
        )
    if extends:
        out[...] = fold_border(image, pads, padding_mode, first_axis=1)
    return out


def overlap_count(
    input_size: Ints,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
    padding_mode: str = "zeros",
) -> NDArray[np.float32]:
    """Return how often each pixel of an image occurs in its windows, ``fold(unfold(ones))``.

    Parameters
    ----------
    input_size : int or tuple of int, one per spatial axis
        The spatial sizes of the image; an int means one axis.
    kernel_size, stride, padding, dilation, padding_mode
        As for :func:`unfold`.

    Returns
    -------
    count : ndarray of shape (*input_size, 1)
        Whole numbers as float32, to divide what :func:`fold` returns by. 0 where no window reaches.

    Raises
    ------
    TypeError, ValueError
        As :func:`unfold` does.

    Examples
    --------
    >>> import dconv
    >>> dconv.overlap_count(6, 3, stride=2)[:, 0]  # no window reaches the last
    array([1., 1., 2., 1., 1., 0.], dtype=float32)
    """
    size = as_tuple(input_size, None, "input_size", 1)
    axes = _window_axes(size, kernel_size, stride, padding, dilation, padding_mode)[3 - len(size) :]
    counts = []
    for axis in axes:
        samples = samples_read(axis, padding_mode)
        counts.append(np.bincount(samples[samples >= 0], minlength=axis.size))
    grid = np.ix_(*counts)
    return math.prod(grid[1:], start=grid[0]).astype(np.float32)[..., np.newaxis]


def _check_rank(name: str, shape: tuple[int, ...], n_others: int, form: str, axes_per_rank: int = 1) -> None:
    if (len(shape) - n_others) / axes_per_rank not in (1, 2, 3):
        raise ValueError(f"{name} must have shape {form} with 1 to 3 spatial axes, got {shape}")
    if 0 in shape[1:]:
        raise ValueError(f"{name} has shape {shape}: only the batch axis may be empty")


def _window_axes(
    size: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, dilation: Any, padding_mode: str
) -> tuple[Axis, Axis, Axis]:
    """Return how windows lie along each of three axes of an image of `size`, once all arguments are checked."""
    check_padding_mode(padding_mode)
    kernel = as_tuple(kernel_size, len(size), "kernel_size", 1)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    hashable = {name: as_hashable(value, name) for name, value in options.items()}
    return conv_plan((1, *size, 1), (1, *kernel, 1), **hashable, groups=1, padding_mode=padding_mode).axes


def _out_size(axes: tuple[Axis, ...], ndim: int) -> tuple[int, ...]:
    return tuple(axis.out_size for axis in axes[3 - ndim :])


def _kernel(axes: tuple[Axis, ...], ndim: int) -> tuple[int, ...]:
    return tuple(len(axis.phases[0].taps) for axis in axes[3 - ndim :])


def _table(axes: Any, lows: list[int]) -> NDArray[np.intp]:
    """Return the fields of the kernel's `Windows`, a row for each axis."""
    rows = [
        (axis.size, axis.out_size, len(axis.phases[0].taps), low, axis.in_step, axis.spacing)
        for axis, low in zip(axes, lows, strict=True)
    ]
    return np.array(rows, np.intp)


def _as_3d(image: np.ndarray) -> np.ndarray:
    return image.reshape(len(image), *(1,) * (5 - image.ndim), *image.shape[1:])


def _piece(n: int, n_bytes: int) -> int:
    """Return how many of `n` columns or pixels of a row, `n_bytes` each, are written together: in equal pieces."""
    return math.ceil(n / math.ceil(n * n_bytes / _PIECE_BYTES))
