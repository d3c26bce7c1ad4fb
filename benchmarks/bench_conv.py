"""Dilated convolution against PyTorch, in one process, on the same threads.

    python benchmarks/bench_conv.py [--threads 2] [--only NAME] [--json FILE]

Both sides allocate their output in the timed call, as users call them; "reuse" is dconv with an earlier result as
`out=`. PyTorch is timed in its two memory layouts, and "ratio" is the better of them over dconv: above 1 dconv is
faster. "bound" is that ratio for a direct convolution that did its multiply-adds at the machine's peak and wrote its
result at the rate of streaming stores, both at once: no ratio can be higher.
The results are compared before they are timed. Times are the best of several runs, taken in turns of a few.
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


class Cell(NamedTuple):
    part: str
    channels: int
    filters: int
    size: tuple[int, ...]
    kernel: int
    dilation: int = 1
    stride: int = 1
    groups: int = 1
    dtype: str = "float32"

    def __str__(self) -> str:
        extra = "".join(
            [
                f" s{self.stride}" * (self.stride > 1),
                f" g{self.groups}" * (self.groups > 1),
                " f64" * (self.dtype == "float64"),
            ]
        )
        size = "x".join(map(str, self.size)) if len(set(self.size)) > 1 else f"{self.size[0]}^{len(self.size)}"
        return f"{self.channels}->{self.filters} {size} k{self.kernel} d{self.dilation}{extra}"


def square(part, channels, filters, n, dilation, kernel, **more):
    return Cell(part, channels, filters, (n, n), kernel, dilation, **more)


DESIGN = [
    square("design", *row)
    for row in [
        (1, 16, 1024, 1, 3),
        (1, 16, 1024, 4, 3),
        (1, 64, 1024, 4, 3),
        (3, 32, 1024, 1, 3),
        (3, 32, 1024, 2, 3),
        (3, 32, 1024, 8, 3),
        (3, 64, 512, 16, 3),
        (16, 64, 512, 4, 3),
        (64, 64, 256, 4, 3),
        (1, 32, 1024, 4, 7),
        (3, 64, 512, 2, 5),
    ]
]
CELLS = [
    *DESIGN,
    *(
        square("depthwise", c, c, n, d, 3, groups=c)
        for c, n, d in [(1, 1024, 2), (3, 1024, 2), (16, 512, 1), (64, 512, 4), (64, 256, 1)]
    ),
    square("depthwise", 32, 32, 512, 1, 3, groups=32, stride=2),
    square("depthwise", 16, 32, 512, 2, 3, groups=16),
    square("depthwise", 16, 16, 512, 2, 5, groups=16),
    *(
        square("stride 2", c, f, n, 1, k, stride=2)
        for c, f, n, k in [(1, 16, 1024, 3), (3, 32, 1024, 3), (16, 64, 512, 3), (64, 64, 256, 3), (3, 64, 512, 7)]
    ),
    *(
        square("few filters", c, f, n, d, k)
        for c, f, n, d, k in [
            (1, 1, 1024, 4, 5),
            (1, 4, 1024, 2, 3),
            (3, 2, 1024, 2, 3),
            (16, 1, 512, 2, 3),
            (16, 4, 512, 2, 3),
            (64, 2, 256, 1, 3),
        ]
    ),
    *(square("groups", c, c, n, 2, 3, groups=g) for c, n, g in [(32, 512, 4), (64, 256, 16)]),
    *(square("1x1", c, f, n, 1, 1) for c, f, n in [(66, 64, 512), (64, 2, 512)]),
    *(
        Cell("1-D", c, f, (1_000_000,), k, d)
        for c, f, k, d in [
            (1, 1, 3, 1),
            (1, 1, 9, 512),
            (1, 16, 9, 8),
            (4, 4, 3, 64),
            (16, 16, 3, 1),
            (16, 16, 3, 512),
            (64, 64, 3, 1),
            (64, 64, 3, 32),
            (64, 64, 3, 512),
        ]
    ),
    *(
        Cell("3-D", c, f, (n,) * 3, 3, d)
        for c, f, n, d in [
            (1, 8, 128, 1),
            (1, 16, 96, 2),
            (4, 16, 64, 2),
            (16, 16, 64, 1),
            (8, 8, 128, 4),
            (32, 32, 64, 2),
        ]
    ),
    *(
        square("float64", c, f, n, d, 3, dtype="float64")
        for c, f, n, d in [(1, 16, 1024, 4), (3, 32, 512, 2), (16, 64, 256, 4), (64, 64, 256, 4)]
    ),
    square("float64", 16, 16, 512, 2, 3, groups=16, dtype="float64"),
]


def prepare(cell: Cell):
    """Return {name: callable} for dconv, dconv into a given array, and PyTorch in both layouts."""
    rng = np.random.default_rng(0)
    rank = len(cell.size)
    x = rng.normal(size=(1, *cell.size, cell.channels)).astype(cell.dtype)
    w = rng.normal(size=(cell.filters, *(cell.kernel,) * rank, cell.channels // cell.groups)).astype(cell.dtype)
    pad = cell.dilation * (cell.kernel - 1) // 2
    args = {"stride": cell.stride, "padding": pad, "dilation": cell.dilation, "groups": cell.groups}
    threads = torch.get_num_threads()
    out = dconv.conv(x, w, **args)

    xt = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    wt = torch.from_numpy(np.moveaxis(w, -1, 1).copy())
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    if rank == 1:  # PyTorch has channels-last for 2-D and 3-D only: a series is an image of one row
        xl, wl = xt.unsqueeze(2), wt.unsqueeze(2)
        args_last = {k: (1 if k != "padding" else 0, v) for k, v in args.items() if k != "groups"} | {
            "groups": cell.groups
        }
        function_last, layout = F.conv2d, torch.channels_last
    else:
        xl, wl, args_last, function_last = xt, wt, args, function
        layout = torch.channels_last if rank == 2 else torch.channels_last_3d
    xl, wl = xl.to(memory_format=layout), wl.to(memory_format=layout)
    return {
        "dconv": lambda: dconv.conv(x, w, **args, n_threads=threads),
        "reuse": lambda: dconv.conv(x, w, **args, out=out, n_threads=threads),
        "nchw": lambda: function(xt, wt, **args),
        "last": lambda: function_last(xl, wl, **args_last),
    }


def check(cell: Cell, calls: dict) -> None:
    """Raise if PyTorch and dconv do not agree to rounding."""
    ours = calls["dconv"]()
    theirs = np.moveaxis(calls["nchw"]().numpy(), 1, -1)
    taps = cell.kernel ** len(cell.size) * cell.channels // cell.groups
    tolerance = 8 * np.finfo(cell.dtype).eps * taps  # of sums of products of standard normals
    difference = float(np.abs(ours - theirs).max())
    if ours.shape != theirs.shape or difference > tolerance:
        raise AssertionError(f"{cell}: differs from PyTorch by {difference}, allowed {tolerance}")


# Columns of the table: title -> (record's key, format).
COLUMNS = {
    "dconv": ("dconv_ms", "8.2f"),
    "reuse": ("reuse_ms", "8.2f"),
    "nchw": ("nchw_ms", "8.2f"),
    "last": ("last_ms", "8.2f"),
    "/nchw": ("ratio_nchw", "7.1f"),
    "/last": ("ratio_last", "7.1f"),
    "ratio": ("ratio", "7.2f"),
    "bound": ("ratio_bound", "7.2f"),
    "r.reuse": ("ratio_reuse", "8.2f"),
    "GF/s": ("gflops", "7.1f"),
    "%fma": ("share_fma", "6.0f"),
    "%gemm": ("share_sgemm", "6.0f"),
    "GB/s": ("gbs", "6.1f"),
    "%strm": ("share_stream", "6.0f"),
}


def record_of(cell: Cell, best: dict[str, float], n_outputs: int, top: dict[str, float]) -> dict:
    """Return the figures of one cell; rates and shares are those of `reuse`, which takes no time to get memory."""
    flops = 2 * n_outputs * cell.kernel ** len(cell.size) * cell.channels // cell.groups
    gflops = flops / best["reuse"] / 1e9
    gbs = n_outputs * np.dtype(cell.dtype).itemsize / best["reuse"] / 1e9
    width = 2 if cell.dtype == "float64" else 1  # a vector holds half as many float64
    torch_best = min(best["nchw"], best["last"])
    n_bytes = n_outputs * np.dtype(cell.dtype).itemsize
    bound = max(width * flops / top["fma"], n_bytes / top["stream"]) / 1e9
    return {
        "part": cell.part,
        "cell": str(cell),
        **{f"{name}_ms": 1e3 * value for name, value in best.items()},
        "ratio_nchw": best["nchw"] / best["dconv"],
        "ratio_last": best["last"] / best["dconv"],
        "ratio": torch_best / best["dconv"],
        "ratio_bound": torch_best / bound,
        "ratio_reuse": torch_best / best["reuse"],
        "gflops": gflops,
        "gbs": gbs,
        "share_fma": 100 * width * gflops / top["fma"],
        "share_sgemm": 100 * width * gflops / top["sgemm"],
        "share_stream": 100 * gbs / top["stream"],
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
    print(", ".join(f"{name} {value:.0f}" for name, value in top.items()), "(GFLOP/s, GFLOP/s, GB/s)")
    print("ms: dconv, dconv into out=, PyTorch NCHW, PyTorch channels-last; rates and shares are of dconv into out=\n")
    records: list[dict] = []
    for cell in CELLS:
        if options.only not in f"{cell.part} {cell}":
            continue
        if not records or cell.part != records[-1]["part"]:
            widths = {title: int(form.split(".")[0]) for title, (_, form) in COLUMNS.items()}
            print(cell.part.ljust(34) + "".join(f"{title:>{width}}" for title, width in widths.items()))
        calls = prepare(cell)
        check(cell, calls)
        records.append(record_of(cell, machine.best_in_turns(calls, options.seconds), calls["dconv"]().size, top))
        figures = "".join(format(records[-1][key], form) for key, form in COLUMNS.values())
        print(str(cell).ljust(34) + figures, flush=True)
    print()
    for part in dict.fromkeys(record["part"] for record in records):
        ratios = [record["ratio"] for record in records if record["part"] == part]
        bounds = [record["ratio_bound"] for record in records if record["part"] == part]
        mean, bound = (math.exp(sum(map(math.log, values)) / len(values)) for values in (ratios, bounds))
        print(f"{part:12} geometric mean ratio {mean:5.2f} (at most {bound:5.2f}), least {min(ratios):5.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": top, "cells": records}, indent=1))


if __name__ == "__main__":
    main()
