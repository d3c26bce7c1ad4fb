"""What the command line tells: problems, warnings, and messages of the library in the words of its options."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What messages call by its name in Python.
_WORDS = (
    (r"\bignore_label=None\b", "--ignore-label none"),
    (r"\bignore_label=", "--ignore-label "),
    (r"\bresume=False\b", "--no-resume"),
    (r"\brandom_state must be None, an int from (.*) or a numpy.random.RandomState\b", r"--seed must be from \1"),
    (r"\b(block|max|n)_(shape|samples|jobs) must\b", r"--\1-\2 must"),
    (r"; None takes all\b", "; without it all are taken"),
    (r"; None or -1 uses the physical cores\b", "; without it there are as many threads as physical cores"),
    (r"\bis in y\b", "is in the label images"),
    (r"\by holds no labelled pixel\b", "the label images hold no labelled pixel"),
)


class Problem(Exception):
    """What the user is told, and nothing else."""


def tell(text: str) -> None:
    print(f"dconv: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def warnings_told() -> Iterator[None]:
    """Let warnings be told as all else is, each text once."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, UserWarning) and str(message) not in told:
            told.add(str(message))
            tell(f"warning: {in_plain_words(message)}")

    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def in_plain_words(message: Any) -> str:
    """Return a message with the options of the command line in the place of parameters."""
    text = str(message) or type(message).__name__
    if isinstance(message, OSError) and message.filename is not None:  # of the system, with its number and quotes
        text = f"{message.filename}: {message.strerror}"
    for pattern, word in _WORDS:
        text = re.sub(pattern, word, text)
    return text


def check_free(path: Path, overwrite: bool) -> None:
    if path.is_dir() and path.suffix.lower() != ".zarr":
        raise Problem(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise Problem(f"{path} is there already; pass --overwrite to replace it")
    if not path.parent.is_dir():
        raise Problem(f"{path.parent} is no folder that {path.name} could be written to")
