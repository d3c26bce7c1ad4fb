"""The random state that a user gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state


def as_random_state(value: Any) -> np.random.RandomState:
    """Return the RandomState that the argument `random_state` is, or seeds; None is the one that NumPy has itself.

    Raises
    ------
    TypeError
        If it is something else, a Generator for instance.
    ValueError
        If it is an int that is no seed.
    """
    try:
        return check_random_state(value)
    except ValueError:
        error = ValueError if isinstance(value, int | np.integer) else TypeError
        hint = "; take a seed from it, as by int(rng.integers(2**32))" if isinstance(value, np.random.Generator) else ""
        raise error(
            "random_state must be None, an int from 0 to 2**32 - 1 or a numpy.random.RandomState, got "
            f"{value!r:.60}{hint}"
        ) from None
