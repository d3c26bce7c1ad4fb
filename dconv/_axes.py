"""One int per spatial axis: the sizes that users give, made into tuples, and the span of a dilated kernel."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex, TypeAlias

Ints: TypeAlias = SupportsIndex | Sequence[SupportsIndex]

# bool passes operator.index, but stride=True is a slip and not a stride of 1.
_INT = "an int (no bool, no float)"
_INTS = "an int or a sequence of ints"
_PADDING = 'an int or a sequence of ints or of (before, after) pairs, "same" or "valid"'
_PER_AXIS = "an int or a sequence of one int per spatial axis (no bool, no float)"


def as_tuple(
    value: Ints, ndim: int | None, name: str, minimum: int = 1, *, each: str = "spatial axes"
) -> tuple[int, ...]:
    """Return `value` as a tuple of one Python int per spatial axis, or per what else `each` says.

    Parameters
    ----------
    value : int or sequence of int
        Anything that `operator.index` accepts counts as an int, NumPy integers included; bool and float do not.
    ndim : int or None
        Number of axes, over which a single int is repeated. None reads it from `value`, where an int is one axis.
    name : str
        The argument's name, for messages.
    minimum : int, default=1
        Smallest value allowed.
    each : str, default="spatial axes"
        What there is one int for each of, for messages.

    Returns
    -------
    values : tuple of int

    Raises
    ------
    TypeError
        If `value` or one of its items is not an integer.
    ValueError
        If the length is not `ndim` (not 1 to 3 for None), or an item is below `minimum`.

    Examples
    --------
    >>> as_tuple(3, 2, "kernel_size")
    (3, 3)
    >>> as_tuple([3, 5], 2, "kernel_size")
    (3, 5)
    """
    items = items_of(value)
    if items is None:
        values = (as_int(value, name, rule=_INTS),) * (1 if ndim is None else ndim)
    else:
        values = tuple(as_int(item, name, rule=_INTS) for item in items)
        if ndim is None and not 1 <= len(values) <= 3:
            raise ValueError(f"{name} must have 1 to 3 spatial axes, but got {values} with {len(values)}")
        if ndim is not None and len(values) != ndim:
            raise ValueError(
                f"{name} must be an int or have one int for each of the {ndim} {each}, "
                f"but got {values} with {len(values)}"
            )
    if min(values) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but got {values if len(values) > 1 else values[0]}")
    return values


def span(kernel_size: Ints, dilation: Ints = 1) -> tuple[int, ...]:
    """Return the samples from the first to the last tap of a dilated kernel, per axis.

    ``span = dilation * (kernel_size - 1) + 1``. The number of axes is that of whichever argument is a sequence.

    Parameters
    ----------
    kernel_size, dilation : int or sequence of int
        Taps, and distance in samples between neighbouring taps; both at least 1.

    Returns
    -------
    spans : tuple of int

    Raises
    ------
    TypeError, ValueError
        If a size is no integer or below 1, or the two have different numbers of axes.

    Examples
    --------
    >>> span(3, dilation=8)
    (17,)
    >>> span((3, 5), dilation=2)
    (5, 9)
    """
    ndim = common_rank(kernel_size, dilation)
    kernels = as_tuple(kernel_size, ndim, "kernel_size", 1)
    return tuple(d * (k - 1) + 1 for k, d in zip(kernels, as_tuple(dilation, ndim, "dilation", 1), strict=True))


def items_of(value: object) -> tuple | None:
    """Return the items of a sequence, or None for anything to be read as a single value."""
    # A zero-dimensional array claims to be iterable; b"3" would be the int 51, and a dict its keys.
    single = isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", None) == 0
    if single or _index(value) is not None or not isinstance(value, Iterable):
        return None
    return tuple(value)


def common_rank(*values: Ints) -> int:
    """Return the number of axes that the longest sequence in `values` has; 1 if all are single ints."""
    return max([1, *(len(items) for value in values if (items := items_of(value)) is not None)])


def as_int(value: object, name: str, minimum: int | None = None, *, rule: str = _INT) -> int:
    """Return `value` as a Python int of at least `minimum`; `name` and `rule` are for the message."""
    index = None if isinstance(value, bool) else _index(value)
    if index is None:
        raise TypeError(f"{name} must be {rule}, got {value!r} of type {type(value).__name__}")
    if minimum is not None and index < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but got {index}")
    return index


def check_bool(value: Any, name: str) -> None:
    """Check that `value` is True or False, NumPy's included: a word such as "no" would count as True."""
    of_numpy = getattr(value, "shape", None) == () and str(getattr(value, "dtype", None)) == "bool"
    if not isinstance(value, bool) and not of_numpy:
        raise TypeError(f"{name} must be True or False, got {value!r}")


def as_hashable(value: Any, name: str) -> Any:
    """Return ints, and nested sequences of them as tuples, so that plans can be cached by their arguments.

    Only ints: 1.0 and True equal 1, so a cache would take them for it once it has seen 1. Words stay as they are.
    """
    items = items_of(value)
    if items is not None:
        return tuple(as_hashable(item, name) for item in items)
    rule = (
        'an int or a sequence of ints or of (before, after) pairs, "same" or "valid"'
        if name == "padding"
        else _PER_AXIS
    )
    return value if isinstance(value, str) else as_int(value, name, rule=rule)


def as_ndim(ndim: object) -> int:
    """Return the number of spatial axes `ndim` as a Python int."""
    value = as_int(ndim, "ndim")
    if not 1 <= value <= 3:
        raise ValueError(f"ndim must be 1, 2 or 3 spatial axes, but got {value}")
    return value


def _index(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None
