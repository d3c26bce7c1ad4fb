"""Blocks that are read, worked on and written at the same time, each by threads of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def run_pipeline(
    boxes: Iterable[Any],
    read: Callable[[Any], Any],
    compute: Callable[[Any, Any], Any],
    write: Callable[[Any, Any], None],
    n_workers: int,
) -> None:
    """Call ``write(box, compute(box, read(box)))`` for all boxes, or whatever else stands for work.

    One thread reads and one writes, box after box, while `n_workers` compute; one box more than these work on is held.
    The first error ends the work when all boxes begun before it, and those being computed, are written.
    """
    with (
        ThreadPoolExecutor(1) as reading,
        ThreadPoolExecutor(n_workers) as computing,
        ThreadPoolExecutor(1) as writing,
    ):

        def compute_read(box: Any, pixels: Future) -> Any:
            return compute(box, pixels.result())

        def write_computed(box: Any, answers: Future) -> None:
            write(box, answers.result())

        begun: deque[Future] = deque()
        try:
            for box in boxes:
                if len(begun) > n_workers + 1:
                    begun.popleft().result()
                answers = computing.submit(compute_read, box, reading.submit(read, box))
                begun.append(writing.submit(write_computed, box, answers))
            while begun:
                begun.popleft().result()
        except BaseException:
            reading.shutdown(wait=False, cancel_futures=True)  # boxes not yet read fail where they are waited for
            raise
