"""Transposed convolution against PyTorch, and unfold and fold against PyTorch and a plain copy, in one process.

    python benchmarks/bench_conv_transpose.py [--threads 2] [--only NAME] [--json FILE]

PyTorch is timed in its two memory layouts, and "ratio" is the better of them over dconv: above 1 dconv is faster.
"%gemm" is the share of a large SGEMM's rate, and "GB/s" what is written a second. Columns are compared with a copy of
an array of their size on the same threads, "/copy": 1 is as fast. Results are compared before they are timed; times are
the best of several runs, taken in turns of a few.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
import torch
from dconv._kernels._dispatch import active_level
from torch.nn import functional as F

import dconv
from dconv._threads import default_n_threads


class Transposed(NamedTuple):
    channels: int  # of what goes in
    filters: int  # channels of the result
    size: tuple[int, ...]
    kernel: int
    stride: int
    dilation: int = 1
    groups: int = 1

    @property
    def part(self) -> str:
        return f"transposed {len(self.size)}-D"

    def __str__(self) -> str:
        name = f"{self.channels}->{self.filters} {_size(self.size)} k{self.kernel} s{self.stride} d{self.dilation}"
        return name + (f" g{self.groups}" if self.groups > 1 else "")


class Windows(NamedTuple):
    channels: int
    size: tuple[int, ...]
    kernel: int
    stride: int = 1
    dilation: int = 1

    @property
    def part(self) -> str:
        return "columns"

    def __str__(self) -> str:
        return f"{self.channels} channels {_size(self.size)} k{self.kernel} s{self.stride} d{self.dilation}"


def _size(size: tuple[int, ...]) -> str:
    return f"{size[0]}^{len(size)}"


CELLS = [
    *(
        Transposed(c, f, (n, n), k, s, d)
        for c, f, n, k, s, d in [
            (16, 16, 256, 4, 2, 1),
            (3, 32, 512, 4, 2, 1),
            (32, 3, 512, 4, 2, 1),
            (16, 16, 256, 3, 2, 2),
            (8, 8, 512, 4, 2, 1),
            (21, 21, 128, 16, 8, 1),
        ]
    ),
    Transposed(21, 21, (128, 128), 16, 8, groups=21),
    *(
        Transposed(c, f, (n,), k, s, d)
        for c, f, n, k, s, d in [
            (1, 16, 250_000, 4, 2, 1),
            (16, 16, 250_000, 4, 2, 1),
            (32, 1, 250_000, 8, 4, 1),
            (16, 16, 250_000, 3, 2, 2),
        ]
    ),
    *(
        Transposed(c, f, (n,) * 3, k, s, d)
        for c, f, n, k, s, d in [(1, 16, 48, 4, 2, 1), (16, 16, 32, 4, 2, 1), (16, 1, 64, 2, 2, 1), (8, 8, 48, 3, 2, 2)]
    ),
    *(
        Windows(c, size, k, s, d)
        for c, size, k, s, d in [
            (1, (1024, 1024), 3, 1, 1),
            (1, (1024, 1024), 3, 1, 4),
            (1, (512, 512), 7, 1, 1),
            (3, (1024, 1024), 3, 1, 1),
            (16, (512, 512), 3, 1, 2),
            (64, (256, 256), 3, 1, 1),
            (4, (2048, 2048), 4, 4, 1),
            (1, (4_000_000,), 9, 1, 1),
            (4, (1_000_000,), 9, 1, 32),
            (1, (96, 96, 96), 3, 1, 1),
            (8, (64, 64, 64), 3, 1, 2),
        ]
    ),
]


def prepare_transposed(cell: Transposed, rng: np.random.Generator) -> dict:
    """Return {name: callable} for dconv and for PyTorch in both layouts."""
    rank, threads = len(cell.size), torch.get_num_threads()
    y = rng.normal(size=(1, *cell.size, cell.channels)).astype(np.float32)
    w = rng.normal(size=(cell.channels, *(cell.kernel,) * rank, cell.filters // cell.groups)).astype(np.float32)
    args = {"stride": cell.stride, "padding": 1, "dilation": cell.dilation, "groups": cell.groups}
    yt, wt = (torch.from_numpy(np.moveaxis(array, -1, 1).copy()) for array in (y, w))
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    last, args_last = function, args
    yl, wl, layout = yt, wt, torch.channels_last if rank < 3 else torch.channels_last_3d
    if rank == 1:  # PyTorch has channels-last for 2-D and 3-D only: a series is an image of one row
        yl, wl, last = yt.unsqueeze(2), wt.unsqueeze(2), F.conv_transpose2d
        args_last = {
            name: value if name == "groups" else ({"padding": 0}.get(name, 1), value) for name, value in args.items()
        }
    yl, wl = yl.to(memory_format=layout), wl.to(memory_format=layout)
    calls = {
        "dconv": lambda: dconv.conv_transpose(y, w, **args, n_threads=threads),
        "nchw": lambda: function(yt, wt, **args),
        "last": lambda: last(yl, wl, **args_last),
    }
    ours, theirs = calls["dconv"](), np.moveaxis(calls["nchw"]().numpy(), 1, -1)
    terms = cell.channels // cell.groups * cell.kernel**rank
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * np.finfo(np.float32).eps * terms)
    return calls


def prepare_windows(cell: Windows, rng: np.random.Generator) -> dict:
    """Return {name: callable} for unfold, fold, a copy of the columns, and, in 2-D, PyTorch."""
    x = rng.normal(size=(1, *cell.size, cell.channels)).astype(np.float32)
    padding = cell.dilation * (cell.kernel - 1) // 2 if cell.stride == 1 else 0
    args = {"stride": cell.stride, "padding": padding, "dilation": cell.dilation}
    columns = dconv.unfold(x, cell.kernel, **args)
    out, image, threads = np.empty_like(columns), np.empty_like(x), torch.get_num_threads()
    source, target = torch.from_numpy(columns), torch.from_numpy(np.empty_like(columns))
    calls = {
        "unfold": lambda: dconv.unfold(x, cell.kernel, **args, out=out, n_threads=threads),
        "fold": lambda: dconv.fold(columns, cell.size, **args, out=image, n_threads=threads),
        "copy": lambda: target.copy_(source),
    }
    if len(cell.size) == 2:
        xt = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
        theirs = F.unfold(xt, cell.kernel, **args)
        calls["torch_unfold"] = lambda: F.unfold(xt, cell.kernel, **args)
        calls["torch_fold"] = lambda: F.fold(theirs, cell.size, cell.kernel, **args)
        summed = np.moveaxis(calls["torch_fold"]().numpy(), 1, -1)
        np.testing.assert_allclose(calls["fold"](), summed, rtol=0, atol=1e-3)
    return calls


def record_transposed(cell: Transposed, best: dict[str, float], top: dict[str, float]) -> dict:
    out_size = dconv.shapes.conv_transpose_shape(
        cell.size, cell.kernel, stride=cell.stride, padding=1, dilation=cell.dilation
    )
    products = math.prod(cell.size) * cell.kernel ** len(cell.size) * cell.channels * cell.filters // cell.groups
    gflops = 2 * products / best["dconv"] / 1e9
    return {
        "ratio": min(best["nchw"], best["last"]) / best["dconv"],
        "gflops": gflops,
        "share_sgemm": 100 * gflops / top["sgemm"],
        "gbs": 4 * math.prod(out_size) * cell.filters / best["dconv"] / 1e9,
    }


def record_windows(best: dict[str, float]) -> dict:
    record = {"unfold_copy": best["copy"] / best["unfold"], "fold_copy": best["copy"] / best["fold"]}
    if "torch_unfold" in best:
        record["ratio"] = best["torch_unfold"] / best["unfold"]
        record["ratio_fold"] = best["torch_fold"] / best["fold"]
    return record


# Columns of the tables: title -> (record's key, format).
TRANSPOSED_COLUMNS = {
    "dconv": ("dconv_ms", "9.2f"),
    "nchw": ("nchw_ms", "9.2f"),
    "last": ("last_ms", "9.2f"),
    "ratio": ("ratio", "8.2f"),
    "GF/s": ("gflops", "8.1f"),
    "%gemm": ("share_sgemm", "7.0f"),
    "GB/s": ("gbs", "7.1f"),
}
WINDOWS_COLUMNS = {
    "unfold": ("unfold_ms", "9.2f"),
    "copy": ("copy_ms", "9.2f"),
    "/copy": ("unfold_copy", "8.2f"),
    "torch": ("torch_unfold_ms", "9.2f"),
    "ratio": ("ratio", "8.2f"),
    "fold": ("fold_ms", "9.2f"),
    "torch ": ("torch_fold_ms", "9.2f"),
    "ratio ": ("ratio_fold", "8.2f"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=default_n_threads())
    parser.add_argument("--only", default="", help="run the parts or cells whose name holds this")
    parser.add_argument("--seconds", type=float, default=0.4, help="time spent on each side of each cell")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    top = machine.limits(options.threads)
    print(f"dconv {dconv.__version__} ({active_level()}), PyTorch {torch.__version__}, {options.threads} threads")
    print(", ".join(f"{name} {value:.0f}" for name, value in top.items()), "(GFLOP/s, GFLOP/s, GB/s); times in ms")
    records: list[dict] = []
    for cell in CELLS:
        if options.only not in f"{cell.part} {cell}":
            continue
        is_transposed = isinstance(cell, Transposed)
        columns = TRANSPOSED_COLUMNS if is_transposed else WINDOWS_COLUMNS
        if not records or cell.part != records[-1]["part"]:
            widths = {title: int(form.split(".")[0]) for title, (_, form) in columns.items()}
            print("\n" + cell.part.ljust(32) + "".join(f"{title:>{width}}" for title, width in widths.items()))
        rng = np.random.default_rng(0)
        calls = prepare_transposed(cell, rng) if is_transposed else prepare_windows(cell, rng)
        best = machine.best_in_turns(calls, options.seconds)
        figures = record_transposed(cell, best, top) if is_transposed else record_windows(best)
        times = {f"{name}_ms": 1e3 * value for name, value in best.items()}
        records.append({"part": cell.part, "cell": str(cell), **times, **figures})
        cells = (format(records[-1][k], form) if k in records[-1] else "-".rjust(8) for k, form in columns.values())
        print(str(cell).ljust(32) + "".join(cells), flush=True)
    print()
    ratios = [record["ratio"] for record in records if "gflops" in record]
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"transposed: geometric mean ratio {mean:.2f}, least {min(ratios):.2f}")
    shares = [record["unfold_copy"] for record in records if "unfold_copy" in record]
    if shares:
        print(f"unfold: least share of the rate of a copy {min(shares):.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": top, "cells": records}, indent=1))


if __name__ == "__main__":
    main()
