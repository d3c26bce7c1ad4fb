"""The container that all filter families return, and how they fill it. Public as part of :mod:`dconv.filters`."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dconv.shapes import as_tuple


class FilterBank(NamedTuple):
    """Filters of one size, with names; build it with :func:`filter_bank`, which checks both.

    Attributes
    ----------
    weight : ndarray of shape (out_channels, *kernel, in_channels), float32
        For cross-correlation; kernel axes in the order of the image's spatial axes.
    names : tuple of str
        One per output channel, all different.
    """

    weight: NDArray[np.float32]
    names: tuple[str, ...]

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps on each spatial axis."""
        return self.weight.shape[1:-1]


def filter_bank(weight: ArrayLike, names: Sequence[str] | None = None) -> FilterBank:
    """Return a checked bank of your own filters.

    Parameters
    ----------
    weight : array_like of shape (out_channels, *kernel, in_channels)
        Real and finite, with 1 to 3 kernel axes; stored as float32.
    names : sequence of str, default=None
        One per output channel, all different; None names them "filter_0", "filter_1", ...

    Returns
    -------
    bank : FilterBank

    Raises
    ------
    TypeError
        If `weight` is not real or `names` are not strings.
    ValueError
        If `weight` has another rank, is empty or not finite, or `names` do not fit it.

    Examples
    --------
    >>> bank = filter_bank([[[-1], [1]]], ["step"])
    >>> bank.weight.shape, bank.kernel_size
    ((1, 2, 1), (2,))
    """
    array = np.asarray(weight)
    if array.dtype.kind not in "buif":
        raise TypeError(f"weight must hold real numbers, but got dtype {array.dtype}")
    if not 3 <= array.ndim <= 5 or array.size == 0:
        raise ValueError(
            "weight must have shape (out_channels, *kernel, in_channels) with 1 to 3 kernel axes and no empty axis, "
            f"but got {array.shape}; give a single filter or channel an axis of size 1"
        )
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which the next check reports
        array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError(
            f"weight must be finite in float32, but {np.count_nonzero(~np.isfinite(array))} values are not"
        )
    if names is None:
        names = [f"filter_{index}" for index in range(len(array))]
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be a sequence of str, but got {names!r}")
    if len(names) != len(array):
        raise ValueError(f"names must have one name per filter, but got {len(names)} for {len(array)} filters")
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise ValueError(f"names must all be different, but {repeated} occur more than once; rename these filters")
    return FilterBank(array, tuple(names))


def concatenate(*banks: FilterBank) -> FilterBank:
    """Return one bank with the filters of several, in order.

    Parameters
    ----------
    *banks : FilterBank
        At least one; all with the same kernel size and number of input channels.

    Returns
    -------
    bank : FilterBank

    Raises
    ------
    ValueError
        If there is no bank, shapes differ, or two filters share a name.

    Examples
    --------
    >>> from dconv.filters import derivatives, laplacian
    >>> concatenate(derivatives(1), laplacian()).names
    ('d0', 'd1', 'laplacian')
    """
    if not banks:
        raise ValueError("concatenate needs at least one bank, but got none")
    shapes = [bank.weight.shape[1:] for bank in banks]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"banks must agree in (*kernel, in_channels), but got {' and '.join(map(str, shapes))}; "
            "apply banks of different sizes one by one"
        )
    names = list(itertools.chain.from_iterable(bank.names for bank in banks))
    return filter_bank(np.concatenate([bank.weight for bank in banks]), names)


def single_channel(kernels: Iterable[NDArray[np.float64]], names: Sequence[str]) -> FilterBank:
    """Return a bank of `kernels` of shape (*kernel), each for one input channel."""
    return filter_bank(np.stack(list(kernels))[..., None], names)


def outer_product(factors: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the separable kernel with one factor per axis."""
    return functools.reduce(np.multiply.outer, factors)


def as_ndim(ndim: int) -> int:
    """Return `ndim` if it is 1, 2 or 3."""
    (value,) = as_tuple(ndim, 1, "ndim", 1)
    if value > 3:
        raise ValueError(f"ndim must be 1, 2 or 3, but got {value}")
    return value


def as_finite(value: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `value` as a float64 array without NaN and infinity, of any shape but not empty."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number or an array of them, but got {value!r}") from None
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite and not empty, but got {value!r}")
    return array


def as_positive(value: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return one number or a sequence of numbers above zero as a vector."""
    array = np.atleast_1d(as_finite(value, name))
    if array.ndim > 1 or array.min() <= 0:
        raise ValueError(f"{name} must be above 0, one number or a sequence of numbers, but got {value!r}")
    return array


def as_positive_float(value: float, name: str) -> float:
    """Return one number above zero."""
    array = as_positive(value, name)
    if array.size > 1:
        raise ValueError(f"{name} must be one number, but got {value!r}")
    return array.item()
