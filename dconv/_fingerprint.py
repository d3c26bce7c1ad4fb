"""A hash of what a fitted model is: the same for the same model in another process or from a file."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

# What changes how fast answers come, and not the answers.
_IRRELEVANT = frozenset({"n_jobs", "verbose", "_feature_cache"})


def fingerprint(*things: Any) -> str:
    """Return a hash of the values of objects, whatever their places in memory."""
    found = hashlib.blake2b(digest_size=16)
    for thing in things:
        _feed(found, thing, ())
    return found.hexdigest()


def _feed(found: Any, thing: Any, outer: tuple[int, ...]) -> None:
    """Add `thing` to a hash; `outer` are the objects that it is a part of."""

    def add(*words: Any) -> None:
        found.update(("\0".join(map(str, words)) + "\n").encode())

    def parts(*inner: Any) -> None:
        for each in inner:
            _feed(found, each, (*outer, id(thing)))

    if id(thing) in outer:
        add("again", outer.index(id(thing)))
    elif thing is None or isinstance(thing, bool | int | float | complex | str | bytes | np.generic):
        add(type(thing).__name__, repr(thing))
    elif isinstance(thing, type) or hasattr(thing, "__qualname__"):
        add("name", getattr(thing, "__module__", ""), thing.__qualname__)
    elif isinstance(thing, np.dtype):
        add("dtype", thing)
    elif isinstance(thing, np.random.RandomState | np.random.Generator):
        add("random")  # what it would draw next is of no account to what has been fitted
    elif isinstance(thing, np.ndarray):
        add("array", thing.dtype, thing.shape)
        if thing.dtype.names:
            parts(*(thing[name] for name in thing.dtype.names))  # one by one: what lies between them is of no account
        elif thing.dtype == object:
            parts(*thing.flat)
        else:
            found.update(np.ascontiguousarray(thing).tobytes())
    elif isinstance(thing, dict):
        items = sorted((repr(key), value) for key, value in thing.items() if key not in _IRRELEVANT)
        add("dict", len(items))
        for key, value in items:
            add(key)
            parts(value)
    elif isinstance(thing, list | tuple):
        add(type(thing).__qualname__, len(thing))
        parts(*thing)
    elif isinstance(thing, set | frozenset):
        add("set", sorted(map(repr, thing)))
    else:
        add("object")
        parts(*(part for part in thing.__reduce_ex__(2) if part is not None))
