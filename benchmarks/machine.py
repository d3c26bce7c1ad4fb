"""What this machine can do at most: multiply-adds, SGEMM, streaming stores. Benchmarks report their share of it.

And what memory this process takes (Linux).
"""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# These make an old OpenBLAS safe on some CPUs and a current one slow; they must go before NumPy is imported.
os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.pop("OPENBLAS_L2_SIZE", None)

import numpy as np

SOURCE = r"""
#include <immintrin.h>
#include <stddef.h>
#ifdef __AVX512F__
#define W 16
#define N 24
typedef float v __attribute__((vector_size(64)));
#define STREAM(p, x) _mm512_stream_ps(p, (__m512)(x))
#else
#define W 8
#define N 12
typedef float v __attribute__((vector_size(32)));
#define STREAM(p, x) _mm256_stream_ps(p, (__m256)(x))
#endif
/* N independent chains of multiply-adds hide the latency of each; peak returns the number of operations. */
static float chains(long rounds) {
    v a[N], m = {0}, c = {0};
    m += 0.999f; c += 1e-3f;
    #pragma GCC unroll 32
    for (int i = 0; i < N; i++) a[i] = m * (float)i;
    for (long r = 0; r < rounds; r++) {
        #pragma GCC unroll 32
        for (int i = 0; i < N; i++) a[i] = a[i] * m + c;
    }
    #pragma GCC unroll 32
    for (int i = 1; i < N; i++) a[0] += a[i];
    return a[0][0];
}
double peak(long rounds, int threads, float *sink) {
    #pragma omp parallel num_threads(threads)
    {
        const float sum = chains(rounds);
        #pragma omp critical
        *sink += sum;
    }
    return 2.0 * W * N * rounds * threads;
}
void stream(float *out, long n, int threads) {
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < n; i += W) { v x = {0}; STREAM(out + i, x + (float)threads); }
    _mm_sfence();
}
"""


def best_in_turns(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Return the best time of each call, of turns taken until each has had `seconds`.

    A turn is several calls, four or a tenth of a second: the threads of the side before, OpenMP's or BLAS's, wait for
    more work in a loop for some milliseconds, on the cores that this side needs, and the first call pays for that.
    """
    best, spent = dict.fromkeys(calls, math.inf), dict.fromkeys(calls, 0.0)
    while min(spent.values()) < seconds:
        for name, call in calls.items():
            if spent[name] >= 4 * seconds:
                continue
            turn = 0.0
            for _ in range(4):
                start = time.perf_counter()
                call()
                took = time.perf_counter() - start
                best[name], turn = min(best[name], took), turn + took
                if turn > 0.1:
                    break
            spent[name] += turn
    return best


def best(call: Callable[[], Any], repeats: int) -> float:
    """Return the best time of a call in seconds, of so many."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def limits(n_threads: int) -> dict[str, float]:
    """Return {"fma": GFLOP/s, "sgemm": GFLOP/s, "stream": GB/s} of this machine on `n_threads` threads."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "machine.c"), Path(folder, "machine.so")
        source.write_text(SOURCE)
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run([os.environ.get("CC", "cc"), *flags, str(source), "-o", str(library)], check=True)
        native = ctypes.CDLL(str(library))
    native.peak.restype = ctypes.c_double
    native.peak.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p]
    native.stream.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
    sink = ctypes.c_float()
    rounds = 10_000_000
    operations = native.peak(1, n_threads, ctypes.byref(sink)) * rounds
    fma = operations / best(lambda: native.peak(rounds, n_threads, ctypes.byref(sink)), 5)

    out = np.zeros(1 << 26, np.float32)
    address = out.ctypes.data + (-out.ctypes.data) % 64
    size = out.size - 32
    stream = 4 * size / best(lambda: native.stream(address, size // 32 * 32, n_threads), 9)

    a = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)
    product = np.empty_like(a)
    sgemm = 2 * 2048**3 / best(lambda: np.matmul(a, a, out=product), 9)
    return {"fma": fma / 1e9, "sgemm": sgemm / 1e9, "stream": stream / 1e9}


def resident(field: str) -> int:
    """Return a line of /proc/self/status in bytes: "VmRSS", resident memory now, or "VmHWM", its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    print(limits(len(os.sched_getaffinity(0))))
