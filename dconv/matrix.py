"""Convolution as a matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from dconv._axes import Ints, as_hashable, as_int, as_tuple
from dconv._blocks import check_padding_mode
from dconv._conv_plan import check_weight, conv_plan
from dconv._validation import as_real
from dconv._windows import samples_read


def conv_matrix(
    input_size: Ints,
    weight: ArrayLike,
    *,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> sparse.csr_array:
    """Return the sparse matrix C of a convolution, ``conv(x, weight).ravel() == C @ x.ravel()`` for one image x.

    ``C.T @ y.ravel()`` is then :func:`conv_transpose`, which never builds the matrix: this one is there to be looked
    at, to be handed to a solver (:func:`scipy.sparse.linalg.lsqr`), and to test against.

    Parameters
    ----------
    input_size : int or tuple of int, one per spatial axis
        The spatial sizes of `x`.
    weight : array_like of shape (out_channels, *kernel, in_channels // groups)
        As for :func:`conv`.
    stride, padding, dilation, groups, padding_mode
        As for :func:`conv`.

    Returns
    -------
    C : scipy.sparse.csr_array of shape (prod(output) * out_channels, prod(input_size) * in_channels)
        float64 if `weight` is, else float32. Rows and columns are in the order of images without their batch axis,
        channels last. Indices of a row are sorted, and occur once: a border that repeats a pixel adds its weights up.
        It stores a number for every tap that lies in the image, also where the weight is 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv` does.

    See Also
    --------
    dconv.conv, dconv.conv_transpose : ``C @ x`` and ``C.T @ y``, without the matrix.

    Notes
    -----
    About ``prod(output) * weight.size`` numbers are stored, each with the index of its column: 8 or 12 bytes.

    References
    ----------
    .. [1] V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, 2016,
       section 4.1.

    Examples
    --------
    A difference of neighbours, and its transpose:

    >>> import numpy as np
    >>> import dconv
    >>> C = dconv.conv_matrix(4, np.array([[[-1.0], [1.0]]]))
    >>> C.toarray()
    array([[-1.,  1.,  0.,  0.],
           [ 0., -1.,  1.,  0.],
           [ 0.,  0., -1.,  1.]])
    >>> C.T @ np.array([1.0, 0.0, 0.0])
    array([-1.,  1.,  0.,  0.])
    """
    (weight,), _ = as_real(weight=weight)
    check_padding_mode(padding_mode)
    groups = as_int(groups, "groups", 1)
    check_weight(weight.shape, groups)
    size = as_tuple(input_size, weight.ndim - 2, "input_size", 1)
    n_filters, n_channels = weight.shape[0], weight.shape[-1]
    plan = conv_plan(
        (1, *size, n_channels * groups),
        weight.shape,
        as_hashable(stride, "stride"),
        as_hashable(padding, "padding"),
        as_hashable(dilation, "dilation"),
        groups,
        padding_mode,
    )
    pixels = np.zeros((1, 1), np.int64)  # (windows, positions): the pixel of x read, -1 where it is a zero
    for axis in plan.axes:
        samples = samples_read(axis, padding_mode)
        outer, inner = pixels[:, np.newaxis, :, np.newaxis], samples[:, np.newaxis, :]
        joined = np.where((outer < 0) | (inner < 0), -1, outer * axis.size + inner)
        pixels = joined.reshape(pixels.shape[0] * samples.shape[0], -1)
    # Rows: windows, then filters. Columns: pixels, then channels, of which a filter sees those of its group.
    first_channel = np.arange(n_filters) // (n_filters // groups) * n_channels
    channels = first_channel[:, np.newaxis, np.newaxis] + np.arange(n_channels)
    columns = pixels[:, np.newaxis, :, np.newaxis] * (n_channels * groups) + channels
    exists = np.broadcast_to((pixels >= 0)[:, np.newaxis, :, np.newaxis], columns.shape)
    values = np.broadcast_to(weight.reshape(n_filters, -1, n_channels), columns.shape)
    n_stored = np.repeat((pixels >= 0).sum(axis=1) * n_channels, n_filters)
    shape = (len(pixels) * n_filters, math.prod(size) * n_channels * groups)
    starts = np.concatenate([[0], np.cumsum(n_stored)])
    index = np.int32 if max(shape[1], starts[-1]) <= np.iinfo(np.int32).max else np.int64
    matrix = sparse.csr_array((values[exists], columns[exists].astype(index), starts.astype(index)), shape=shape)
    matrix.sum_duplicates()
    return matrix
