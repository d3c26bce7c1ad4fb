"""Files that appear under their name when they are whole."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, for a file that takes its place if no error is raised.

    The ending stays, as writers choose formats by it.

    Raises
    ------
    OSError
        If `path` is a folder, which no file replaces, or lies in one that does not exist.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, which is not replaced by a file", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "lies in a folder that does not exist", str(path))
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
