"""The innermost loops with vectors of 64 bytes, which the AVX-512 level uses, on any CPU with AVX2.

GCC computes a vector wider than the CPU's as two halves: so the code path of 64 bytes, with its own blocks and tails,
is run and compared with the definition where no AVX-512 is at hand. Only the instructions are not those of that level.
"""

import ctypes
import itertools
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dconv._kernels._dispatch import supported_levels
from tolerance import assert_close

KERNELS = Path(__file__).resolve().parents[1] / "dconv" / "_kernels"
SOURCE = KERNELS / "microkernel.c"
TYPES = {"f32": ("float", np.float32), "f64": ("double", np.float64)}
GUARD = 64  # numbers before and after every array, which no loop may write
rng = np.random.default_rng(0)

pytestmark = [
    pytest.mark.skipif(not SOURCE.exists(), reason=f"no kernel sources at {KERNELS}: not run from a checkout"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is of x86-64"),
    pytest.mark.skipif("avx2" not in supported_levels(), reason="this CPU does not run AVX2"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to compile the micro-kernel with"),
]

# The loops are static and reached through the table; a library exports one plain function for each.
GLUE = """
#include "microkernel.h"
#define EXPORT __attribute__((visibility("default")))
extern const dconv_microkernel dconv_microkernel_halves;
typedef ptrdiff_t N;
#define LOOPS(T, S)                                                                                                   \
    EXPORT N block_##S(void) { return dconv_microkernel_halves.block_##S; }                                           \
    EXPORT N lanes_##S(void) { return dconv_microkernel_halves.lanes_##S; }                                           \
    EXPORT void conv_row_##S(const T *x, N x_step, const N *offsets, N n_taps, const T *weight, const T *bias,        \
                             N n_filters, T *out, N out_step, N n_pixels) {                                           \
        dconv_microkernel_halves.conv_row_##S(x, x_step, offsets, n_taps, weight, bias, n_filters, out, out_step,     \
                                              n_pixels);                                                              \
    }                                                                                                                 \
    EXPORT void dot_row_##S(const T *x, N x_step, const N *offsets, N n_taps, const T *weight, const T *bias,         \
                            N n_filters, T *out, N out_step, N n_pixels) {                                            \
        dconv_microkernel_halves.dot_row_##S(x, x_step, offsets, n_taps, weight, bias, n_filters, out, out_step,      \
                                             n_pixels);                                                               \
    }                                                                                                                 \
    EXPORT void lanewise_row_##S(const T *x, N x_step, const N *offsets, N n_taps, const T *weight, N weight_step,    \
                                 const T *bias, N n_lanes, T *out, N out_step, N n_pixels) {                          \
        dconv_microkernel_halves.lanewise_row_##S(x, x_step, offsets, n_taps, weight, weight_step, bias, n_lanes,     \
                                                  out, out_step, n_pixels);                                           \
    }
LOOPS(float, f32)
LOOPS(double, f64)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return the micro-kernel with 64-byte vectors and AVX2 instructions, compiled as setup.py does."""
    folder = tmp_path_factory.mktemp("microkernel")
    (folder / "glue.c").write_text(GLUE, "utf-8")
    flags = ["-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    flags += ["-mavx2", "-mfma", "-Wno-psabi", "-DDCONV_LEVEL=halves", "-DDCONV_VECTOR_BYTES=64", f"-I{KERNELS}"]
    path = folder / "halves.so"
    command = ["gcc", "-shared", "-fPIC", *flags, str(folder / "glue.c"), str(SOURCE), "-lm", "-o", str(path)]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stderr
    loaded = ctypes.CDLL(str(path))
    for name in (f"{size}_{suffix}" for size in ("block", "lanes") for suffix in TYPES):
        getattr(loaded, name).restype = ctypes.c_ssize_t
    return loaded


def call(library, function, *arguments):
    """Call a loop of the library; ints are ptrdiff_t, arrays are passed by address and None is NULL."""
    assert all(a is None or isinstance(a, int) or a.flags.c_contiguous or a.ndim == 1 for a in arguments)
    passed = [
        ctypes.c_ssize_t(a) if isinstance(a, int) else ctypes.c_void_p(None if a is None else a.ctypes.data)
        for a in arguments
    ]
    getattr(library, function)(*passed)


def normal(shape, dtype):
    return rng.normal(size=shape).astype(dtype)


def guarded(size, dtype):
    """Return an output of NaN between guards, and a function that checks that the guards are whole."""
    memory = np.full(size + 2 * GUARD, np.nan, dtype)
    memory[:GUARD] = memory[-GUARD:] = 12345

    def check():
        assert np.all(memory[:GUARD] == 12345)
        assert np.all(memory[-GUARD:] == 12345)

    return memory[GUARD:-GUARD], check


def check_row(out, out_step, expected, products, n_taps):
    """Compare pixels (n_pixels, n) of a row; the numbers between them must be untouched."""
    n_pixels, n = expected.shape
    rows = np.full((n_pixels, out_step), np.nan, out.dtype)
    rows.ravel()[: len(out)] = out
    assert_close(rows[:, :n], expected, n_taps, products)
    assert np.all(np.isnan(rows[:, n:]))


def sum_of_taps(x, weight, bias):
    """Return sum_k weight[k, f] * x[p, k] + bias[f] in float64, and the largest sum of absolute terms."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    total, products = x @ weight, np.abs(x) @ np.abs(weight)
    if bias is not None:
        total, products = total + bias, products + np.abs(bias)
    return total, products.max()


@pytest.mark.parametrize("suffix", TYPES)
def test_vectors_are_64_bytes_wide(library, suffix):
    itemsize = np.dtype(TYPES[suffix][1]).itemsize
    assert getattr(library, f"lanes_{suffix}")() == 64 // itemsize
    assert getattr(library, f"block_{suffix}")() == 2 * 64 // itemsize


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("suffix", TYPES)
def test_conv_row(library, suffix, with_bias):
    dtype = TYPES[suffix][1]
    block, lanes = getattr(library, f"block_{suffix}")(), getattr(library, f"lanes_{suffix}")()
    filters = [1, lanes - 1, lanes, lanes + 1, block - 1, block, block + 1, block + lanes, 2 * block + lanes + 1]
    for n_filters, n_pixels, n_taps in itertools.product(filters, [1, 5, 6, 7, 8, 9, 13, 16, 19], [1, 2, 5]):
        x_step, out_step = 3, n_filters + 2
        x = normal(200, dtype)
        offsets = rng.integers(0, 200 - n_pixels * x_step, n_taps)
        taps = normal((n_taps, n_filters), dtype)
        bias = normal(n_filters, dtype) if with_bias else None
        padded = np.zeros((n_taps, -(-n_filters // lanes) * lanes), dtype)
        padded[:, :n_filters] = taps
        packed = np.concatenate([padded[:, f : f + block].ravel() for f in range(0, n_filters, block)])
        padded_bias = None if bias is None else np.concatenate([bias, np.zeros(-n_filters % lanes, dtype)])
        out, check_guards = guarded(n_pixels * out_step - 2, dtype)
        call(
            library, f"conv_row_{suffix}", x, x_step, offsets, n_taps, packed, padded_bias, n_filters, out, out_step,
            n_pixels,
        )  # fmt: skip
        read = x[np.arange(n_pixels)[:, np.newaxis] * x_step + offsets]
        check_row(out, out_step, *sum_of_taps(read, taps, bias), n_taps)
        check_guards()


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("suffix", TYPES)
def test_dot_row(library, suffix, with_bias):
    dtype = TYPES[suffix][1]
    lanes = getattr(library, f"lanes_{suffix}")()
    shapes = itertools.product([1, 2, 3, 4, 5, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 13], [1, 2, 5])
    for n_filters, n_pixels, n_taps in shapes:
        x_step, out_step = lanes + 1, n_filters + 2
        x = normal(40 * x_step, dtype)
        offsets = rng.integers(0, 25 * x_step, n_taps)
        taps = normal((n_filters, n_taps * lanes), dtype)
        bias = normal(n_filters, dtype) if with_bias else None
        out, check_guards = guarded(n_pixels * out_step - 2, dtype)
        call(
            library, f"dot_row_{suffix}", x, x_step, offsets, n_taps, taps, bias, n_filters, out, out_step, n_pixels
        )  # fmt: skip
        places = (offsets[:, np.newaxis] + np.arange(lanes)).ravel()
        read = x[np.arange(n_pixels)[:, np.newaxis] * x_step + places]
        check_row(out, out_step, *sum_of_taps(read, taps.T, bias), taps.shape[1])
        check_guards()


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("suffix", TYPES)
def test_lanewise_row(library, suffix, with_bias):
    dtype = TYPES[suffix][1]
    lanes = getattr(library, f"lanes_{suffix}")()
    widths = [1, lanes - 1, lanes, lanes + 1, 4 * lanes - 1, 4 * lanes, 4 * lanes + 1, 9 * lanes + 3]
    for n_lanes, n_pixels, n_taps in itertools.product(widths, [1, 2, 3, 6], [1, 2, 5]):
        x_step, out_step, weight_step = n_lanes + 1, n_lanes + 2, n_lanes + 3
        x = normal((n_pixels + 3) * x_step, dtype)
        offsets = rng.integers(0, 2 * x_step, n_taps)
        weight = normal((n_taps, weight_step), dtype)
        bias = normal(n_lanes, dtype) if with_bias else None
        out, check_guards = guarded(n_pixels * out_step - 2, dtype)
        call(
            library, f"lanewise_row_{suffix}", x, x_step, offsets, n_taps, weight, weight_step, bias, n_lanes, out,
            out_step, n_pixels,
        )  # fmt: skip
        starts = np.arange(n_pixels)[:, np.newaxis, np.newaxis] * x_step + offsets[:, np.newaxis] + np.arange(n_lanes)
        terms = x[starts].astype(np.float64) * weight[:, :n_lanes]  # (pixel, tap, lane)
        expected, products = terms.sum(axis=1), np.abs(terms).sum(axis=1)
        if bias is not None:
            expected, products = expected + bias, products + np.abs(bias)
        check_row(out, out_step, expected, products.max(), n_taps)
        check_guards()
