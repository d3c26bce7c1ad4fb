"""A journal of the blocks of an output that are done, by which a run that was killed is continued.

It is a text file. Its first line says what the run is made from; each further line is a block that was written, with a
hash of what was written. A line that was cut off does not count, and a block counts if the output still holds it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from dconv._pixels import Block
from dconv._whole_files import whole

_FIRST = "dconv journal 1"


def digest_of_block(answers: np.ndarray) -> str:
    """Return a hash of what is written to a block."""
    return hashlib.blake2b(np.ascontiguousarray(answers).data.cast("B"), digest_size=16).hexdigest()


class Journal:
    """The journal at `path` of a run that is made from `facts`; None keeps none."""

    def __init__(self, path: Path | None, facts: dict[str, Any], resume: bool) -> None:
        self.path = path
        self.done: dict[str, str] = {}
        if path is None:
            return
        if resume and path.exists():
            self._read(path, facts)
        with whole(path) as temporary:
            lines = [json.dumps({"journal": _FIRST, **facts}), *map(_line, self.done, self.done.values())]
            temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8")

    def add(self, box: Block, digest: str) -> None:
        """Note that a block has been written.

        Raises
        ------
        OSError
            If that cannot be noted, with the block.
        """
        if self.path is None:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line(name_of(box), digest) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(
                error.errno,
                f"block [{name_of(box)}] is written, but this cannot be noted in the journal: {error.strerror}; what "
                "was finished before stays, and the same call continues",
                str(self.path),
            ) from error

    def remove(self) -> None:
        """Delete the file, when all blocks are done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self, path: Path, facts: dict[str, Any]) -> None:
        """Learn which blocks are done.

        Raises
        ------
        ValueError
            If it is the journal of another run.
        """
        lines = path.read_text("utf-8", errors="replace").split("\n")[:-1]  # what has no end of line was cut off
        remedy = "pass resume=False to begin anew, or what that run was given to continue it"
        try:
            first = json.loads(lines[0])
            if first.pop("journal") != _FIRST:
                raise ValueError
        except (IndexError, KeyError, AttributeError, TypeError, ValueError):
            raise ValueError(f"{path} is no journal that this version of dconv can read; {remedy}") from None
        for name in sorted({*first, *facts}):
            if first.get(name) != facts.get(name):
                raise ValueError(
                    f"{path} is of a run with another {name} ({first.get(name)}, now {facts.get(name)}), whose blocks "
                    f"would not fit together; {remedy}"
                )
        for line in lines[1:]:
            try:
                name, digest = json.loads(line)
            except (TypeError, ValueError):  # the disk lost what came after
                break
            self.done[name] = digest


def name_of(box: Block) -> str:
    """Return what a block is called in journals and messages."""
    return ", ".join(f"{part.start}:{part.stop}" for part in box)


def _line(name: str, digest: str) -> str:
    return json.dumps([name, digest])
