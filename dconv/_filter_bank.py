"""The container that all filter families return, and how they fill it. Public as part of :mod:`dconv.filters`."""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dconv._axes import items_of
from dconv._validation import real_dtype

Reals: TypeAlias = SupportsFloat | Sequence[SupportsFloat] | NDArray[np.floating | np.integer]

MAX_GAIN = 1e20  # of a filter: its response to an image within dconv._validation.LARGEST is finite in float32
MAX_TAPS = 1 << 20  # of a filter that a family computes


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


def filter_bank(weight: ArrayLike, names: Iterable[str] | None = None) -> FilterBank:
    """Return a checked bank of your own filters.

    Parameters
    ----------
    weight : array_like of shape (out_channels, *kernel, in_channels)
        Real, with 1 to 3 kernel axes; stored as float32. The absolute values of a filter add up to at most 1e20.
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
        If `weight` has another rank, is empty, not finite or too large, or `names` do not fit it.

    Examples
    --------
    >>> bank = filter_bank([[[-1], [1]]], ["step"])
    >>> bank.weight.shape, bank.kernel_size
    ((1, 2, 1), (2,))
    """
    array = _as_weight(weight, "weight")
    return FilterBank(array, _as_names(names, len(array)))


def as_filter_bank(filters: Any) -> FilterBank:
    """Return what an estimator was given as `filters`, a bank or weights, as a checked bank."""
    weight, names = filters if isinstance(filters, FilterBank) else (filters, None)
    array = _as_weight(weight, "filters")
    return FilterBank(array, _as_names(names, len(array)))


def _as_weight(weight: Any, name: str) -> NDArray[np.float32]:
    """Return the weights of a bank; `name` is the argument they belong to."""
    if any(isinstance(item, FilterBank) for item in items_of(weight) or ()):
        raise TypeError(f"{name} must be one bank, but got a sequence of them; join them with concatenate(*banks)")
    try:
        array = np.asarray(weight)
    except ValueError:  # ragged
        raise TypeError(
            f"{name} must be an array, but got a {type(weight).__name__} of items of different shapes; a bank of "
            "weights with names is filter_bank(weight, names)"
        ) from None
    if array.dtype == object or array.dtype.kind in "US":
        raise TypeError(f"{name} must be a FilterBank or hold real numbers, but got {weight!r:.60}")
    real_dtype(array, name)
    if not 3 <= array.ndim <= 5 or array.size == 0:
        raise ValueError(
            f"{name} must have shape (out_channels, *kernel, in_channels) with 1 to 3 kernel axes and no empty axis, "
            f"but got {array.shape}; give a single filter or channel an axis of size 1"
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        gains = np.abs(array, dtype=np.float64).sum(axis=tuple(range(1, array.ndim)))
    if not gains.max() <= MAX_GAIN:
        raise ValueError(
            f"{name} must be finite, and the absolute values of a filter must add up to at most {MAX_GAIN:g} for "
            f"features to be float32, but they add up to {gains.max():.2g}; rescale the filters"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _as_names(names: Any, n_filters: int) -> tuple[str, ...]:
    """Return the names of `n_filters` filters."""
    labels = tuple(f"filter_{index}" for index in range(n_filters)) if names is None else items_of(names)
    if labels is None or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"names must be a sequence of str, but got {names!r}")
    if len(labels) != n_filters:
        raise ValueError(f"names must have one name per filter, but got {len(labels)} for {n_filters} filters")
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ValueError(
            f"names must all be different, but {repeated} occur more than once; rename these filters, or ask for each "
            "of them once"
        )
    return labels


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
    TypeError
        If an argument is no bank.
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
    others = [bank for bank in banks if not isinstance(bank, FilterBank)]
    if others:
        raise TypeError(f"banks must be FilterBanks, one by one as in concatenate(*banks), but got {others[0]!r:.60}")
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


def check_taps(radii: Sequence[float], arguments: str) -> None:
    """Check that a filter with these taps on each side of its centre, per axis, is of a reasonable size."""
    if math.prod(2 * min(radius, MAX_TAPS) + 1 for radius in radii) > MAX_TAPS:
        raise ValueError(
            f"{arguments} gives a filter of more than {MAX_TAPS} taps; make a smaller one and apply it with a "
            "dilation instead"
        )


def as_finite(value: Reals | ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `value` as a float64 array without NaN and infinity, of any shape but not empty."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number or an array of them, but got {value!r}") from None
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite and not empty, but got {value!r}")
    return array


def as_positive(value: Reals, name: str) -> NDArray[np.float64]:
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
