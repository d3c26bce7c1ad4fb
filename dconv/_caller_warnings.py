"""Warnings that name the line that called dconv, however deep within it they come from."""

from __future__ import annotations

import sys
import warnings

_BETWEEN = {"dconv", "sklearn", "joblib"}  # packages whose lines are not those of a user


def warn_caller(message: str | Warning) -> None:
    """Warn of `message`, a UserWarning if it is text, at the nearest line outside dconv and of who calls it for a user;
    in a thread of their own, where it began.

    What :func:`warnings.warn` has for this, `skip_file_prefixes`, came with Python 3.12.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
