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
from scipy.special import expit
from tolerance import assert_close

KERNELS = Path(__file__).resolve().parents[1] / "dconv" / "_kernels"
SOURCE = KERNELS / "microkernel.c"
TYPES = {"f32": ("float", np.float32), "f64": ("double", np.float64)}
RELU, STREAM = 1, 2  # DCONV_RELU, DCONV_STREAM
RUNS = [(3, 1), (3, 2), (3, 4), (3, 8), (2, 1), (2, 2)]  # how many taps, how far apart, have tiles of their own
LONG_TAPS = 256  # from which on tiles of 64-byte vectors are larger
GUARD = 64  # numbers before and after every array, which no loop may write
rng = np.random.default_rng(0)

pytestmark = [
    pytest.mark.skipif(not SOURCE.exists(), reason=f"no kernel sources at {KERNELS}: not run from a checkout"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is of x86-64"),
    pytest.mark.skipif("avx2" not in supported_levels(), reason="this CPU does not run AVX2"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to compile the micro-kernel with"),
]

# The loops are static and reached through the table; a library exports a function for each entry, which returns it:
# a size, or the address of a loop.
SIZES = [f"{size}_{suffix}" for size in ("block", "lanes") for suffix in TYPES]
LOOPS = [f"{loop}_row_{suffix}" for loop in ("conv", "dot", "lanewise", "shared") for suffix in TYPES]
ROWS = ["weighted", "products", "moments", "root", "magnitude", "eigenvalues", "extrema", "lines", "interleave"]
ROWS += ["above", "changes", "window_sums", "difference", "mixed"]
ACTIVATIONS = {"exponential": np.exp, "logistic": expit, "tanh": np.tanh}
ENTRIES = {name: name for name in SIZES + LOOPS} | {f"{name}_row": f"rows.{name}" for name in ROWS}
ENTRIES |= {f"{name}_row": f"activations.{name}" for name in ACTIVATIONS}
ENTRIES |= {f"rocket_{name}": f"rocket.{name}" for name in ("sum", "count", "share", "share_lane")}
GLUE = '#include "microkernel.h"\nextern const dconv_microkernel dconv_microkernel_halves;\n' + "".join(
    f'__attribute__((visibility("default"))) ptrdiff_t {name}(void) '
    f"{{ return (ptrdiff_t)dconv_microkernel_halves.{entry}; }}\n"
    for name, entry in ENTRIES.items()
)


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
    for name in ENTRIES:
        getattr(loaded, name).restype = ctypes.c_ssize_t
    return loaded


def call(library, function, *arguments):
    """Call a loop of the library; ints are ptrdiff_t, floats float, arrays are passed by address and None is NULL."""
    assert all(a is None or isinstance(a, int | float) or a.flags.c_contiguous or a.ndim == 1 for a in arguments)
    scalars = {int: ctypes.c_ssize_t, float: ctypes.c_float}
    passed = [
        scalars[type(a)](a) if type(a) in scalars else ctypes.c_void_p(None if a is None else a.ctypes.data)
        for a in arguments
    ]
    ctypes.CFUNCTYPE(None)(getattr(library, function)())(*passed)


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


def runs_of_taps(n, n_taps, n_run, step):
    """Return offsets below n, `step` from one to the next within every run of `n_run`."""
    place = np.arange(n_taps) % n_run * step
    return np.repeat(rng.integers(0, n - place.max(), n_taps // n_run), n_run) + place


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
    filters = [*range(1, lanes + 2), block - 1, block, block + 1, block + lanes, 2 * block + lanes + 1]
    sizes = itertools.chain(
        itertools.product(filters, [1, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 19], [1, 2, 5], [(1, 0)]),
        itertools.product([block, block + 1], [3, 7, 12, 17, 27], [LONG_TAPS - 1, LONG_TAPS], [(1, 0)]),
        itertools.product(
            [lanes // 2, lanes - 1, lanes, block + lanes],
            [11, 12, 13, 21, 24],
            [12, 30],
            [*RUNS, (6, 1), (3, 3), (2, 5)],
        ),
        itertools.product([lanes // 2, lanes], [11, 12, 25], [35], [(5, 1), (5, 2), (7, 1), (5, 3)]),
    )
    for n_filters, n_pixels, n_taps, (n_run, apart) in sizes:
        x_step, out_step = 3, n_filters + 2
        x = normal(200, dtype)
        offsets = runs_of_taps(200 - n_pixels * x_step, n_taps, n_run, apart * x_step)
        taps = normal((n_taps, n_filters), dtype)
        bias = normal(n_filters, dtype) if with_bias else None
        padded = np.zeros((n_taps, -(-n_filters // lanes) * lanes), dtype)
        padded[:, :n_filters] = taps
        packed = np.concatenate([padded[:, f : f + block].ravel() for f in range(0, n_filters, block)])
        padded_bias = None if bias is None else np.concatenate([bias, np.zeros(-n_filters % lanes, dtype)])
        out, check_guards = guarded(n_pixels * out_step - 2, dtype)
        call(
            library, f"conv_row_{suffix}", x, x_step, offsets, n_taps, n_run, apart, packed, padded_bias, n_filters,
            out, out_step, n_pixels, 0,
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
            library, f"dot_row_{suffix}", x, x_step, offsets, n_taps, taps, bias, n_filters, out, out_step, n_pixels,
            0,
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
    scattered = itertools.product(widths, [1, 2, 3, 6], [1, 2, 5], [(1, 0)])
    sliding = [
        (*size, (n_run, apart))
        for n_run, apart in [(3, 1), (3, 2), (3, 4), (5, 1), (5, 2), (7, 1), (3, 5)]
        for size in itertools.product(widths[2:4], [7, 8, 9, 16, 19], [n_run, 2 * n_run])
    ]
    for n_lanes, n_pixels, n_taps, (n_run, apart) in itertools.chain(scattered, sliding):
        x_step, out_step, weight_step = n_lanes + 1, n_lanes + 2, n_lanes + 3
        x = normal((n_pixels + 14) * x_step, dtype)
        offsets = runs_of_taps(13 * x_step, n_taps, n_run, apart * x_step)
        weight = normal((n_taps, weight_step), dtype)
        bias = normal(n_lanes, dtype) if with_bias else None
        out, check_guards = guarded(n_pixels * out_step - 2, dtype)
        call(
            library, f"lanewise_row_{suffix}", x, x_step, offsets, n_taps, n_run, apart, weight, weight_step, bias,
            n_lanes, out, out_step, n_pixels, 0,
        )  # fmt: skip
        starts = np.arange(n_pixels)[:, np.newaxis, np.newaxis] * x_step + offsets[:, np.newaxis] + np.arange(n_lanes)
        terms = x[starts].astype(np.float64) * weight[:, :n_lanes]  # (pixel, tap, lane)
        expected, products = terms.sum(axis=1), np.abs(terms).sum(axis=1)
        if bias is not None:
            expected, products = expected + bias, products + np.abs(bias)
        check_row(out, out_step, expected, products.max(), n_taps)
        check_guards()


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("suffix", TYPES)
def test_shared_row(library, suffix, with_bias):
    dtype = TYPES[suffix][1]
    lanes = getattr(library, f"lanes_{suffix}")()
    for n_filters, share_step, x_step in [
        (1, 1, lanes),
        (2, 1, 3),
        (1, 3, 40),
        (3, 2, 7),
        (lanes, 1, 2),
        (lanes // 2, 9, 1),
    ]:
        n_shares = min(lanes // n_filters, (lanes - 1) // share_step + 1)
        for n_vectors, n_taps in itertools.product([1, 7, 8, 9, 16, 21], [1, 5]):
            n_lanes = n_shares * n_filters
            offsets = rng.integers(0, 90, n_taps)
            last = offsets.max() + (n_vectors - 1) * x_step + (n_shares - 1) * share_step
            x = np.full(GUARD + last + 1 + GUARD, np.nan, dtype)  # what is read beyond must not be used
            x[GUARD : GUARD + last + 1] = normal(last + 1, dtype)
            taps = normal((n_taps, n_lanes), dtype)
            bias = normal(n_lanes, dtype) if with_bias else None
            packed = np.zeros(n_taps * lanes + lanes, dtype)
            packed[:-lanes].reshape(n_taps, lanes)[:, :n_lanes] = taps
            padded_bias = None if bias is None else np.concatenate([bias, np.zeros(2 * lanes, dtype)])
            out_step = n_lanes + 2
            out, check_guards = guarded(n_vectors * out_step - 2, dtype)
            call(
                library, f"shared_row_{suffix}", x[GUARD:], x_step, share_step, n_shares, offsets, n_taps, packed,
                padded_bias, n_filters, out, out_step, n_vectors, 0,
            )  # fmt: skip
            begins = np.arange(n_vectors)[:, np.newaxis, np.newaxis] * x_step + offsets[:, np.newaxis]
            read = x[GUARD + begins + np.arange(n_lanes) // n_filters * share_step]  # (vector, tap, lane)
            terms = read.astype(np.float64) * taps
            expected, products = terms.sum(axis=1), np.abs(terms).sum(axis=1)
            if bias is not None:
                expected, products = expected + bias, products + np.abs(bias)
            check_row(out, out_step, expected, products.max(), n_taps)
            check_guards()


def lines(n, dtype):
    """Return the first whole cache lines of a new array, of NaN, whose first element begins one."""
    memory = np.full(n + 64, np.nan, dtype)
    start = -memory.ctypes.data % 64 // memory.itemsize
    return memory[start : start + n]


@pytest.mark.parametrize("finish", [0, RELU, STREAM, RELU | STREAM])
@pytest.mark.parametrize("begins", [0, 1])
@pytest.mark.parametrize("suffix", TYPES)
def test_results_are_finished_as_asked_for(library, suffix, begins, finish):
    """Streamed or not, with or without ReLU: the same bits, NaN included, wherever the result begins in a line."""
    dtype = TYPES[suffix][1]
    lanes, line = getattr(library, f"lanes_{suffix}")(), 64 // np.dtype(dtype).itemsize
    x, bias = normal(900, dtype), normal(3 * line, dtype)
    x[40] = np.nan
    offsets, weight = np.array([0, 3, 7]), normal((3, 3 * line), dtype)
    calls = {
        "conv": (2 * line, (x, 5, offsets, 3, 1, 0, weight, bias, 2 * line)),
        "conv one vector": (line, (x, 5, offsets, 3, 1, 0, weight, bias, line)),
        "conv runs of taps": (line, (x, 5, np.array([0, 5, 10]), 3, 3, 1, weight, bias, line)),
        "conv part of a vector": (3, (x, 5, offsets, 3, 1, 0, weight, bias, 3)),
        "shared": (line, (x, 5, 3, 2, offsets, 3, weight, bias, line // 2)),
        "shared part of a vector": (6, (x, 5, 3, 2, offsets, 3, weight, bias, 3)),
        "dot": (3, (x, lanes, offsets, 3, weight, bias, 3)),
        "lanewise": (3 * line, (x, 5, offsets, 3, 1, 0, weight, 3 * line, bias, 3 * line)),
        "lanewise part of a vector": (3, (x, 5, offsets, 3, 1, 0, weight, 3 * line, bias, 3)),
    }
    for name, (n, arguments) in calls.items():
        results = []
        for asked in (0, finish):
            out = lines(13 * n + begins, dtype)[begins:]
            call(library, f"{name.split()[0]}_row_{suffix}", *arguments, out, n, 13, asked)
            results.append(out)
        expected = np.where(results[0] < 0, 0, results[0]) if finish & RELU else results[0]
        assert np.any(results[0] < 0)
        assert np.any(np.isnan(results[0]))
        np.testing.assert_array_equal(results[1], expected, err_msg=name)


# --- the rows of the feature bank: float32, written in whole vectors ---

UNIT = 32  # DCONV_ROW_UNIT
LENGTHS = [1, 31, 32, 33, 64, 100]


def addresses(rows):
    return np.array([row.ctypes.data for row in rows], np.uintp)


def fill_rows(library, function, n, *inputs, n_out=1, table=False):
    """Return the `n_out` rows of n pixels that a loop writes; it takes them one by one or as a table of addresses."""
    guards = [guarded(-(-n // UNIT) * UNIT, np.float32) for _ in range(n_out)]
    out = [row for row, _ in guards]
    call(library, f"{function}_row", *inputs, *([addresses(out)] if table else out), n)
    for _, check in guards:
        check()
    return np.stack([row[:n] for row in out])


def places(n, n_taps):
    """Return offsets of taps in a row of 300, and the indices (n, n_taps) that n pixels read there."""
    offsets = rng.integers(0, 300 - -(-n // UNIT) * UNIT, n_taps)
    return offsets, np.arange(n)[:, np.newaxis] + offsets


@pytest.mark.parametrize("n_taps", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("n", LENGTHS)
def test_weighted_row(library, n, n_taps):
    x, weight = normal(300, np.float32), normal(n_taps, np.float32)
    offsets, read = places(n, n_taps)
    expected, products = sum_of_taps(x[read], weight, None)
    assert_close(fill_rows(library, "weighted", n, x, offsets, weight, n_taps)[0], expected, n_taps, products)


@pytest.mark.parametrize("n_parts", [1, 2, 3])
@pytest.mark.parametrize("n_taps", [1, 2, 5])
@pytest.mark.parametrize("n", LENGTHS)
def test_products_row(library, n, n_taps, n_parts):
    parts, weight = normal((n_parts, 300), np.float32), normal(n_taps, np.float32)
    offsets, read = places(n, n_taps)
    pairs = [(a, a) for a in range(n_parts)] + list(itertools.combinations(range(n_parts), 2))
    step = -(-n // UNIT) * UNIT + 8
    out, check_guards = guarded(len(pairs) * step, np.float32)
    call(library, "products_row", addresses(parts), n_parts, offsets, weight, n_taps, out, step, n)
    check_guards()
    for row, (a, b) in zip(out.reshape(-1, step), pairs, strict=True):
        expected, products = sum_of_taps((parts[a].astype(np.float64) * parts[b])[read], weight, None)
        assert_close(row[:n], expected, 2 * n_taps, products)
        assert np.all(np.isnan(row[step - 8 :]))


@pytest.mark.parametrize("n", LENGTHS)
def test_difference_row(library, n):
    a, b = normal((2, 128), np.float32)
    np.testing.assert_array_equal(fill_rows(library, "difference", n, a, b)[0], (a - b)[:n])


@pytest.mark.parametrize("n_parts", [3, 6])
@pytest.mark.parametrize("n_out", [1, 4])
@pytest.mark.parametrize("n", LENGTHS)
def test_mixed_row(library, n, n_out, n_parts):
    parts, weight = normal((n_parts, 128), np.float32), normal((n_out, n_parts), np.float32)
    guards = [guarded(-(-n // UNIT) * UNIT, np.float32) for _ in range(n_out)]
    call(library, "mixed_row", addresses(parts), n_parts, weight, addresses([row for row, _ in guards]), n_out, n)
    expected, products = sum_of_taps(parts.T, weight.T, None)
    for (row, check_guards), values in zip(guards, expected.T, strict=True):
        check_guards()
        assert_close(row[:n], values[:n], n_parts, products)


@pytest.mark.parametrize("spreads", [False, True])
@pytest.mark.parametrize("n_taps", [1, 2, 5])
@pytest.mark.parametrize("n", LENGTHS)
def test_moments_row(library, n, n_taps, spreads):
    mean, variance = normal(300, np.float32), np.square(normal(300, np.float32))
    weight = rng.dirichlet(np.ones(n_taps)).astype(np.float32)
    offsets, read = places(n, n_taps)
    inputs = mean, variance if spreads else None, offsets, weight, n_taps
    centre, spread = fill_rows(library, "moments", n, *inputs, n_out=2)
    expected, largest = mean[read].astype(np.float64) @ weight, float(np.abs(mean).max())
    assert_close(centre, expected, n_taps, largest)
    terms = np.square(mean[read] - expected[:, np.newaxis]) + (variance[read] if spreads else 0)
    assert_close(spread, terms @ weight.astype(np.float64), 2 * n_taps, 4 * largest**2 + float(variance.max()))


@pytest.mark.parametrize("n", LENGTHS)
def test_root_row(library, n):
    row, check_guards = guarded(-(-n // UNIT) * UNIT, np.float32)
    row[:] = x = normal(len(row), np.float32)
    call(library, "root_row", row, n)
    np.testing.assert_array_equal(row[:n], np.sqrt(np.maximum(x[:n], 0)))
    check_guards()


@pytest.mark.parametrize("n_parts", [1, 2, 3])
@pytest.mark.parametrize("n", LENGTHS)
def test_magnitude_row(library, n, n_parts):
    parts = normal((n_parts, 128), np.float32)
    out = fill_rows(library, "magnitude", n, addresses(parts), n_parts)[0]
    assert_close(out, np.linalg.norm(parts[:, :n].astype(np.float64), axis=0), n_parts, np.abs(parts).sum(axis=0).max())


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("n", LENGTHS)
def test_eigenvalues_row(library, n, size):
    pairs = [(a, a) for a in range(size)] + list(itertools.combinations(range(size), 2))
    parts, matrix = normal((len(pairs), 128), np.float32), np.empty((128, size, size))
    for part, (a, b) in zip(parts, pairs, strict=True):
        matrix[:, a, b] = matrix[:, b, a] = part
    out = fill_rows(library, "eigenvalues", n, addresses(parts), size, n_out=size, table=True)
    expected = np.linalg.eigvalsh(matrix)[:n, ::-1].T
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-7 * np.abs(expected).max())


@pytest.mark.parametrize("n_taps", [1, 2, 5])
@pytest.mark.parametrize("n", LENGTHS)
def test_extrema_row(library, n, n_taps):
    x = normal(300, np.float32)
    offsets, read = places(n, n_taps)
    out = fill_rows(library, "extrema", n, x, offsets, n_taps, n_out=2)
    np.testing.assert_array_equal(out, [x[read].max(axis=1) - x[:n], x[read].min(axis=1) - x[:n]])


@pytest.mark.parametrize("n_parts", [1, 3, 6])
@pytest.mark.parametrize("n_directions", [1, 2, 8])
@pytest.mark.parametrize("n", LENGTHS)
def test_lines_row(library, n, n_directions, n_parts):
    parts, weight = normal((n_directions, n_parts, 300), np.float32), normal((n_directions, n_parts), np.float32)
    weight[-1, 0] = 0
    if n_parts == 1:
        weight[:] = 1  # which is not read
    offsets, read = places(n, n_directions * 7)
    inputs = addresses(parts.reshape(-1, 300)), n_parts, offsets, weight if n_parts > 1 else None, n_directions
    out = fill_rows(library, "lines", n, *inputs, n_out=3, table=True)
    of_directions = read.reshape(n, n_directions, 7)
    along = np.stack([parts[o][:, of_directions[:, o]] for o in range(n_directions)]).astype(np.float64)
    responses = np.einsum("oc,ocnk->no", weight, along)
    expected = np.stack([responses.max(axis=1), responses.min(axis=1), responses.mean(axis=1)])
    products = np.einsum("oc,ocnk->no", np.abs(weight), np.abs(along)).max()
    assert_close(out, expected, 7 * n_parts + n_directions, products)


@pytest.mark.parametrize("n", LENGTHS)
def test_above_row_and_changes_row(library, n):
    a, b = normal(128, np.float32), normal(128, np.float32)
    b[:9], a[3] = a[:9], 0  # equal; 0 against something; and by so little that it does not count, or just does
    b[4:6] = a[4:6] - np.abs(a[4:6]) * np.array([0.9, 1.1], np.float32) * np.float32(2**-20)
    expected = a.astype(np.float64) - b > 2.0**-20 * np.abs(a)
    assert expected[:9].tolist() == [False] * 3 + [bool(b[3] < 0)] + [False, True] + [False] * 3
    (marks,) = fill_rows(library, "above", n, a, b)
    np.testing.assert_array_equal(marks, expected[:n])
    marks = expected.astype(np.float32)
    (changes,) = fill_rows(library, "changes", n, marks)
    np.testing.assert_array_equal(changes, expected[:n] ^ expected[1 : n + 1])


@pytest.mark.parametrize("window", [1, 2, 33, 64])
@pytest.mark.parametrize("n", LENGTHS)
def test_window_sums_row(library, n, window):
    marks = (normal(n + window - 1, np.float32) > 0).astype(np.float32)
    out, check_guards = guarded(n, np.float32)
    call(library, "window_sums_row", marks, window, 0.25, out, n)
    np.testing.assert_array_equal(out, np.convolve(marks, np.ones(window), "valid") / 4)
    check_guards()


@pytest.mark.parametrize("n_planes", [1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 16, 31])
def test_interleave_row(library, n, n_planes):
    planes, out_step = normal((n_planes, n), np.float32), n_planes + 2
    out, check_guards = guarded(n * out_step, np.float32)
    call(library, "interleave_row", planes, n, n_planes, out, out_step, n)
    pixels = out.reshape(n, out_step)
    np.testing.assert_array_equal(pixels[:, :n_planes], planes.T)
    assert np.all(np.isnan(pixels[:, n_planes:]))
    check_guards()


# --- the activations of networks: float32, in place, in whole vectors ---


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("n", LENGTHS)
def test_activation_row(library, n, name):
    row, check_guards = guarded(-(-n // UNIT) * UNIT, np.float32)
    row[:] = x = 10 * normal(len(row), np.float32)
    row[0] = np.nan
    call(library, f"{name}_row", row, n)
    tolerance = {"rtol": 3e-7, "atol": 0} if name == "exponential" else {"rtol": 0, "atol": 2e-7}
    np.testing.assert_allclose(row[1:n], ACTIVATIONS[name](x[1:n].astype(np.float64)), **tolerance)
    assert np.isnan(row[0])
    check_guards()


# --- the counts of MiniRocket ---


@pytest.mark.parametrize("n_channels", [1, 2, 9])
@pytest.mark.parametrize("n", LENGTHS)
def test_rocket_sum(library, n, n_channels):
    terms = normal((4 * n_channels, 128), np.float32)
    out, check_guards = guarded(-(-n // UNIT) * UNIT, np.float32)
    call(library, "rocket_sum", addresses(terms), n_channels, out, n)
    assert_close(out[:n], terms[:, :n].astype(np.float64).sum(axis=0), 4 * n_channels, np.abs(terms).sum(axis=0).max())
    check_guards()


@pytest.mark.parametrize("n_thresholds", [*range(1, 9), 14, 15, 30])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("n", LENGTHS)
def test_rocket_count(library, n, n_channels, n_thresholds):
    lanes = 16
    terms = rng.integers(-9, 10, (4 * n_channels, 128)).astype(np.float32)
    terms[0, n:] = -np.inf
    thresholds = np.append(rng.integers(-20, 20, n_thresholds - 1), -0.0).astype(np.float32)
    counts = np.full((n_thresholds + 1, lanes), -3, np.int32)
    scratch, check_guards = guarded(128, np.float32)
    call(library, "rocket_count", addresses(terms), n_channels, thresholds, n_thresholds, counts, scratch, n)
    above = terms.sum(axis=0)[:, np.newaxis] > thresholds
    expected = -3 - above.reshape(-1, lanes, n_thresholds).sum(axis=0).T
    np.testing.assert_array_equal(counts[:-1], expected)
    assert np.all(counts[-1] == -3)
    check_guards()
    for lane, function in ((slice(None), "rocket_share"), (slice(5, 6), "rocket_share_lane")):
        out, check_guards = guarded(n_thresholds, np.float32)
        call(library, function, counts, *([5] if "lane" in function else []), n_thresholds, 77, out)
        np.testing.assert_array_equal(out, np.float32(-expected[:, lane].sum(axis=1) / 77))
        check_guards()
