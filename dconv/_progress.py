"""A progress bar for what takes long: tqdm's where it is installed, else a line that is rewritten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter

DELAY = 2.0  # seconds before anything is shown: what is over by then needs no bar


def progress_bar(title: str, n_steps: int, verbose: int | bool, unit: str = "block") -> Callable[[], None]:
    """Return a function to call, from any thread, when a step is done; it shows nothing if `verbose` is 0."""
    if not verbose:
        return lambda: None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _line(title, n_steps, unit)
    bar, lock, left = tqdm(total=n_steps, desc=title, unit=unit, delay=DELAY), threading.Lock(), n_steps

    def step() -> None:
        nonlocal left
        with lock:
            bar.update()
            left -= 1
            if left == 0:
                bar.close()

    return step


def _line(title: str, n_steps: int, unit: str) -> Callable[[], None]:
    done, start, lock = 0, perf_counter(), threading.Lock()

    def step() -> None:
        nonlocal done
        with lock:
            done += 1
            seconds = perf_counter() - start
            if seconds >= DELAY:
                end = "\n" if done == n_steps else ""
                print(f"\r{title}: {unit} {done} of {n_steps}, {seconds:.1f} s", end=end, flush=True)

    return step
