"""Filter families against SciPy, scikit-image, NumPy's eigenvectors and the laws that their docstrings promise."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.interpolate
import scipy.ndimage
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal
from skimage.filters import gabor_kernel

from dconv import filters

EPS = np.finfo(np.float32).eps
NOISE = np.random.default_rng(0).integers(0, 256, size=(12, 14, 2))
FAMILIES = {
    "gaussian": lambda: filters.gaussian((1.0, 2.0)),
    "b3_spline": filters.b3_spline,
    "bilinear_upsampling": lambda: filters.bilinear_upsampling((2, 3)),
    "b3_spline_upsampling": lambda: filters.b3_spline_upsampling(2, ndim=3, align="first"),
    "derivatives": lambda: filters.derivatives(2, ndim=3),
    "directional": lambda: filters.directional([0.1, 0.2], 1),
    "laplacian": filters.laplacian,
    "gabor": lambda: filters.gabor([0.2, 0.3], 3),
    "two_valued": filters.two_valued,
    "random_normal": lambda: filters.random_normal(5, (3, 2), in_channels=2, random_state=1),
    "pca_patches": lambda: filters.pca_patches([NOISE], 4, (3, 2), random_state=1),
    "kmeans_patches": lambda: filters.kmeans_patches([NOISE], 7, (3, 2), random_state=1),
}


def taps(kernel_size):
    """Tap positions relative to the centre of an odd kernel, one array per axis."""
    return np.meshgrid(*(np.arange(k) - k // 2 for k in kernel_size), indexing="ij")


# --- the bank ---


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_family_returns_a_well_formed_bank_of_its_own(family):
    bank = family()
    assert isinstance(bank, filters.FilterBank)
    assert bank.weight.dtype == np.float32
    assert bank.weight.flags.c_contiguous
    assert np.isfinite(bank.weight).all()
    assert bank.kernel_size == bank.weight.shape[1:-1]
    assert len(set(bank.names)) == len(bank.names) == len(bank.weight)
    weight = bank.weight.copy()
    bank.weight[:] = 0  # must not reach a constant or a cache
    assert_array_equal(family().weight, weight)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_families_in_a_thread_pool(family):
    expected = family()
    with ThreadPoolExecutor(4) as pool:
        for bank in pool.map(lambda _: family(), range(8)):
            assert_array_equal(bank.weight, expected.weight)
            assert bank.names == expected.names


def test_filter_bank_takes_lists_and_names_filters():
    bank = filters.filter_bank([[[1], [2], [3]], [[4], [5], [6]]])
    assert_array_equal(bank.weight[..., 0], [[1, 2, 3], [4, 5, 6]])
    assert bank.names == ("filter_0", "filter_1")
    assert filters.filter_bank(np.asfortranarray(np.ones((2, 3, 4, 1)))).weight.flags.c_contiguous


@pytest.mark.parametrize(
    ("weight", "names", "error", "message"),
    [
        (np.ones((2, 3)), None, ValueError, r"weight .* \(2, 3\)"),
        (np.ones((1,) * 6), None, ValueError, "weight"),
        (np.ones((0, 3, 1)), None, ValueError, r"weight .* \(0, 3, 1\)"),
        (np.ones((1, 3, 1), complex), None, TypeError, "weight .* complex128"),
        (np.array([[["a"]]]), None, TypeError, "weight"),
        ([[[np.nan], [1.0]]], None, ValueError, "weight must be finite, .* add up to nan"),
        (
            [[[1e39], [1.0]]],
            None,
            ValueError,
            r"weight .* at most 1e\+20 .* add up to 1e\+39; rescale",
        ),
        ([[[1e308], [1e308]]], None, ValueError, "weight .* add up to inf"),
        (None, None, TypeError, "weight must be a FilterBank or hold real numbers, but got None"),
        (
            [np.ones((3, 1)), np.ones((2, 1))],
            None,
            TypeError,
            "weight must be an array, but got a list of items",
        ),
        ((np.ones((1, 3, 1)), ["a"]), None, TypeError, r"filter_bank\(weight, names\)"),
        ([filters.laplacian()], None, TypeError, r"weight must be one bank, .*join them with concatenate\(\*banks\)"),
        (np.ones((2, 3, 1)), 5, TypeError, "names must be a sequence of str, but got 5"),
        (np.ones((2, 3, 1)), ["a"], ValueError, "names .* 1 for 2 filters"),
        (np.ones((2, 3, 1)), ["a", "a"], ValueError, r"names .* \['a'\]"),
        (np.ones((2, 3, 1)), "ab", TypeError, "names .* 'ab'"),
        (np.ones((2, 3, 1)), ["a", 1], TypeError, "names"),
    ],
)
def test_bad_banks(weight, names, error, message):
    with pytest.raises(error, match=message):
        filters.filter_bank(weight, names)


def test_concatenate_keeps_order():
    first, second = filters.derivatives(2), filters.laplacian()
    both = filters.concatenate(first, second)
    assert_array_equal(both.weight, np.concatenate([first.weight, second.weight]))
    assert both.names == ("d00", "d01", "d11", "laplacian")


def test_concatenate_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="at least one bank"):
        filters.concatenate()
    with pytest.raises(TypeError, match=r"banks must be FilterBanks, one by one .* but got None"):
        filters.concatenate(None, filters.laplacian())
    with pytest.raises(TypeError, match=r"banks must be FilterBanks, one by one .* but got \[FilterBank"):
        filters.concatenate([filters.laplacian()])
    with pytest.raises(ValueError, match=r"\(3, 3, 1\) and \(5, 5, 1\)"):
        filters.concatenate(filters.laplacian(), filters.b3_spline())
    with pytest.raises(ValueError, match="laplacian"):
        filters.concatenate(filters.laplacian(), filters.laplacian())


@pytest.mark.parametrize("family", [filters.b3_spline, filters.laplacian, filters.two_valued])
@pytest.mark.parametrize(("ndim", "error"), [(0, ValueError), (4, ValueError), (2.0, TypeError), (True, TypeError)])
def test_ndim_is_checked(family, ndim, error):
    with pytest.raises(error, match="ndim"):
        family(ndim=ndim)


# --- smoothing ---


@pytest.mark.parametrize("truncate", [2.0, 3.0, 4.3])
@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.2, (0.7,), (0.5, 1.5), (1.2, 0.6, 0.9)])
def test_gaussian_is_the_impulse_response_of_scipy(sigma, truncate):
    ndim = np.size(sigma) if np.ndim(sigma) else 2
    bank = filters.gaussian(sigma, ndim=ndim, truncate=truncate)
    impulse = np.zeros(bank.kernel_size)
    impulse[tuple(k // 2 for k in bank.kernel_size)] = 1
    expected = scipy.ndimage.gaussian_filter(impulse, sigma, truncate=truncate, mode="constant")
    assert_allclose(bank.weight[0, ..., 0], expected, rtol=4 * EPS, atol=1e-12)
    assert (expected[0] > 0).any()  # nor is the kernel larger than SciPy's


def test_gaussian_names_its_scale():
    assert filters.gaussian(1.5).names == ("gaussian_1.5",)
    assert filters.gaussian((1, 2.5)).names == ("gaussian_1x2.5",)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sigma": 0}, ValueError, "sigma must be above 0"),
        ({"sigma": (1, -2)}, ValueError, r"sigma .* \(1, -2\)"),
        ({"sigma": np.inf}, ValueError, "sigma must be finite"),
        ({"sigma": (1, 2, 3)}, ValueError, r"sigma .* 2 spatial axes, but got \(1, 2, 3\)"),
        ({"sigma": "wide"}, TypeError, "sigma .* 'wide'"),
        ({"sigma": 1, "truncate": 0}, ValueError, "truncate"),
        ({"sigma": 1e9, "ndim": 1}, ValueError, "sigma=1000000000.0 .* more than 1048576 taps; .* with a dilation"),
        ({"sigma": 1e300, "ndim": 3}, ValueError, "more than 1048576 taps"),
        ({"sigma": 1, "truncate": (3, 3)}, ValueError, r"truncate must be one number, but got \(3, 3\)"),
    ],
)
def test_bad_gaussians(arguments, error, message):
    with pytest.raises(error, match=message):
        filters.gaussian(**arguments)


def test_b3_spline_satisfies_the_two_scale_relation_of_the_cubic_spline():
    (h,) = filters.b3_spline(ndim=1).weight[..., 0].astype(float)
    knots = np.arange(-2.0, 3.0)

    def spline(x):
        return np.where(np.abs(x) < 2, scipy.interpolate.BSpline.basis_element(knots)(x), 0)

    x = np.linspace(-5, 5, 101)
    assert_allclose(spline(x / 2) / 2, sum(h[k + 2] * spline(x - k) for k in range(-2, 3)), atol=1e-14)


@pytest.mark.parametrize("ndim", [2, 3])
def test_b3_spline_is_separable(ndim):
    (line,) = filters.b3_spline(ndim=1).weight[..., 0]
    image = np.random.default_rng(0).normal(size=(11,) * ndim)
    expected = image
    for axis in range(ndim):
        expected = scipy.ndimage.correlate1d(expected, line, axis=axis)
    assert_allclose(
        scipy.ndimage.correlate(image, filters.b3_spline(ndim=ndim).weight[0, ..., 0]), expected, atol=1e-12
    )


# --- derivatives ---


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_are_exact_on_polynomials(order, ndim):
    degree = {1: 2, 2: 3}[order]
    bank = filters.derivatives(order, ndim=ndim)
    powers = [power for power in itertools.product(range(degree + 1), repeat=ndim) if sum(power) <= degree]
    coefficients = dict(zip(powers, np.random.default_rng(0).integers(1, 50, len(powers)), strict=True))
    grid = taps(bank.kernel_size)
    values = sum(
        c * math.prod(axis**p for axis, p in zip(grid, power, strict=True)) for power, c in coefficients.items()
    )
    for name, weight in zip(bank.names, bank.weight[..., 0], strict=True):
        power = tuple(name[1:].count(str(axis)) for axis in range(ndim))
        derivative_at_0 = coefficients[power] * math.prod(math.factorial(p) for p in power)
        assert (weight * values).sum() == derivative_at_0  # weights are dyadic and values small integers: no rounding


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_names_of_derivatives(ndim):
    assert filters.derivatives(1, ndim=ndim).names == ("d0", "d1", "d2")[:ndim]
    second = {1: ("d00",), 2: ("d00", "d01", "d11"), 3: ("d00", "d01", "d02", "d11", "d12", "d22")}
    assert filters.derivatives(2, ndim=ndim).names == second[ndim]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_first_derivatives_are_scipys_sobel_at_unit_gain(ndim):
    image = np.random.default_rng(0).normal(size=(9, 8, 7)[:ndim])
    for axis, weight in enumerate(filters.derivatives(1, ndim=ndim).weight[..., 0]):
        expected = scipy.ndimage.sobel(image, axis) / (2 * 4 ** (ndim - 1))
        assert_allclose(scipy.ndimage.correlate(image, weight), expected, atol=1e-14)


@pytest.mark.parametrize(("order", "error"), [(0, ValueError), (3, ValueError), (1.0, TypeError)])
def test_bad_order(order, error):
    with pytest.raises(error, match="order"):
        filters.derivatives(order)
    with pytest.raises(error, match="order"):
        filters.directional([0.0], order)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_steering_is_the_derivative_along_the_direction_on_quadratics(ndim):
    rng = np.random.default_rng(0)
    gradient, hessian, directions = rng.normal(size=ndim), rng.normal(size=(ndim, ndim)), rng.normal(size=(6, ndim))
    hessian += hessian.T
    t = np.stack(taps((3,) * ndim), axis=-1)
    values = t @ gradient + 0.5 * np.einsum("...a,ab,...b", t, hessian, t)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for order, expected in [(1, unit @ gradient), (2, np.einsum("na,ab,nb->n", unit, hessian, unit))]:
        bank = filters.directional(directions, order)
        assert bank.names == tuple(f"d{'u' * order}_{index}" for index in range(6))
        response = (bank.weight[..., 0] * values).reshape(6, -1).sum(axis=1)
        assert_allclose(response, expected, atol=3**ndim * EPS * np.abs(values).max())


def test_angles_run_from_columns_to_rows():
    bank = filters.directional(np.radians([0, 90, 180, 30]), 1)
    assert bank.names == ("du_0deg", "du_90deg", "du_180deg", "du_30deg")
    d0, d1 = filters.derivatives(1).weight
    assert_allclose(bank.weight, [d1, d0, -d1, d0 / 2 + d1 * math.sqrt(3) / 2], atol=2 * EPS)


@pytest.mark.parametrize("order", [1, 2])
def test_steering_by_a_right_angle_turns_the_kernel(order):
    angles = np.linspace(0, np.pi, 7)
    plain, turned = filters.directional(angles, order), filters.directional(angles + np.pi / 2, order)
    # Angles grow from columns towards rows, which is clockwise as arrays are printed.
    assert_allclose(turned.weight, np.rot90(plain.weight, -1, axes=(1, 2)), atol=4 * EPS)


@pytest.mark.parametrize(
    ("directions", "error", "message"),
    [
        ([], ValueError, "directions"),
        (0.5, ValueError, r"directions .* \(\)"),
        (np.ones((2, 4)), ValueError, r"directions .* \(2, 4\)"),
        ([[1.0, 0.0], [0.0, 0.0]], ValueError, "directions .* zero vector, but number 1"),
        ([np.nan], ValueError, "directions must be finite"),
        ([1.0, 1.0], ValueError, "du_57.2958deg"),
        (["north"], TypeError, "directions .*north"),
    ],
)
def test_bad_directions(directions, error, message):
    with pytest.raises(error, match=message):
        filters.directional(directions, 1)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_laplacian_agrees_with_scipy(ndim):
    image = np.random.default_rng(0).normal(size=(9, 8, 7)[:ndim])
    weight = filters.laplacian(ndim=ndim).weight[0, ..., 0]
    assert_allclose(scipy.ndimage.correlate(image, weight), scipy.ndimage.laplace(image), atol=1e-13)


# --- Gabor ---


@pytest.mark.parametrize("bandwidth", [0.8, 1.0, 1.7])
@pytest.mark.parametrize("frequency", [0.15, 0.3, 0.45])
def test_gabor_agrees_with_scikit_image(frequency, bandwidth):
    angles = [0.0, 0.4, 2.0]
    bank = filters.gabor(frequency, angles, bandwidth=bandwidth, truncate=4)
    reach = bank.kernel_size[0] // 2
    for index, angle in enumerate(angles):
        theirs = gabor_kernel(frequency, angle, bandwidth, n_stds=6)
        crop = tuple(slice(size // 2 - reach, size // 2 + reach + 1) for size in theirs.shape)
        theirs = theirs[crop]
        envelope = np.abs(theirs)
        theirs = 2 * theirs / envelope.sum()
        even = theirs.real - theirs.real.sum() * envelope / envelope.sum()
        even_odd = bank.weight[2 * index : 2 * index + 2, ..., 0]
        assert_allclose(even_odd, [even, theirs.imag], atol=4 * EPS)


def test_gabor_sums_and_symmetry():
    bank = filters.gabor((0.1, 0.2), 4)
    even, odd = bank.weight[0::2, ..., 0], bank.weight[1::2, ..., 0]
    assert_allclose(bank.weight.sum(axis=(1, 2, 3), dtype=float), 0, atol=EPS)
    assert_allclose(even, even[:, ::-1, ::-1], atol=EPS)
    assert_allclose(odd, -odd[:, ::-1, ::-1], atol=EPS)
    assert bank.names[:4] == (
        "gabor_even_0.1_0deg",
        "gabor_odd_0.1_0deg",
        "gabor_even_0.1_45deg",
        "gabor_odd_0.1_45deg",
    )
    assert bank.names[8] == "gabor_even_0.2_0deg"


@pytest.mark.parametrize(("truncate", "size"), [(0.4, 3), (1, 7), (2, 11), (3, 15)])
def test_gabor_is_truncated_at_standard_deviations_of_the_widest_envelope(truncate, size):
    bank = filters.gabor([0.25, 0.4], truncate=truncate)  # at 0.25, sigma is 2.249
    assert bank.kernel_size == (size, size)


@pytest.mark.parametrize("frequency", [0.05, 0.125, 0.3])
def test_gabor_pair_measures_the_amplitude_of_its_wave_at_any_phase(frequency):
    angles = np.linspace(0, np.pi, 5)
    bank = filters.gabor(frequency, angles)
    rows, columns = taps(bank.kernel_size)
    for index, (angle, phase) in enumerate(zip(angles, np.linspace(0, 6, 5), strict=True)):
        wave = 3 * np.cos(2 * np.pi * frequency * (columns * np.cos(angle) + rows * np.sin(angle)) + phase)
        even, odd = (bank.weight[2 * index : 2 * index + 2, ..., 0] * wave).sum(axis=(1, 2))
        # The even filter's own mean correction, exp(-6.2), and truncation at 3 sigma bound the error.
        assert math.hypot(even, odd) == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"frequencies": 0.5}, ValueError, "frequencies must be below 0.5 .* 0.5"),
        ({"frequencies": [0.2, 0]}, ValueError, "frequencies must be above 0"),
        ({"frequencies": []}, ValueError, "frequencies"),
        ({"frequencies": [0.2, 0.2]}, ValueError, "gabor_even_0.2_0deg.* or ask for each of them once"),
        ({"frequencies": 1e-4}, ValueError, "frequencies=0.0001 .* more than 1048576 taps; .* with a dilation"),
        ({"frequencies": 1e-300}, ValueError, "frequencies=1e-300 .* more than 1048576 taps"),
        ({"frequencies": 0.2, "bandwidth": 1e-20}, ValueError, "bandwidth=1e-20 .* more than 1048576 taps"),
        ({"frequencies": 0.2, "orientations": 0}, ValueError, "orientations must be at least 1"),
        (
            {"frequencies": 0.2, "orientations": 2.5},
            TypeError,
            "orientations must be an int or a sequence of angles",
        ),
        ({"frequencies": 0.2, "orientations": [0, np.nan]}, ValueError, "orientations must be finite"),
        ({"frequencies": 0.2, "bandwidth": 0}, ValueError, "bandwidth"),
        ({"frequencies": 0.2, "truncate": -1}, ValueError, "truncate"),
    ],
)
def test_bad_gabors(arguments, error, message):
    with pytest.raises(error, match=message):
        filters.gabor(**arguments)


# --- two-valued and random ---


def test_two_valued_are_all_84_kernels():
    bank = filters.two_valued(ndim=1)
    masks = [mask for mask in itertools.product((False, True), repeat=9) if sum(mask) == 3]
    expected = {tuple(3.0 * mask - 1.0 for mask in choice) for choice in masks}
    assert bank.weight.shape == (84, 9, 1)
    assert set(map(tuple, bank.weight[..., 0].tolist())) == expected
    assert_array_equal(bank.weight.sum(axis=(1, 2)), 0)
    for name, kernel in zip(bank.names, bank.weight[..., 0], strict=True):
        assert name.removeprefix("two_valued_") == "".join(map(str, np.flatnonzero(kernel == 2)))


def test_two_valued_square_is_the_line_row_by_row():
    square = filters.two_valued()
    assert square.kernel_size == (3, 3)
    assert_array_equal(square.weight.reshape(84, 9, 1), filters.two_valued(ndim=1).weight)
    with pytest.raises(ValueError, match="ndim must be 1 or 2"):
        filters.two_valued(ndim=3)


@pytest.mark.parametrize("kernel_size", [9, (3, 3), (2, 3, 4)])
def test_random_normal_has_zero_sum_per_channel_and_unit_norm(kernel_size):
    weight = filters.random_normal(6, kernel_size, in_channels=3, random_state=0).weight
    assert weight.shape == (6, *np.atleast_1d(kernel_size), 3)
    n_taps = np.prod(kernel_size)
    assert_allclose(weight.reshape(6, n_taps, 3).sum(axis=1, dtype=float), 0, atol=n_taps * EPS)
    assert_allclose(np.square(weight, dtype=float).reshape(6, -1).sum(axis=1), 1, rtol=4 * EPS)


def test_random_normal_is_normal_and_reproducible():
    plain = {"zero_mean": False, "unit_norm": False}
    weight = filters.random_normal(200, (5, 5), random_state=0, **plain).weight
    assert scipy.stats.kstest(weight.ravel(), "norm").pvalue > 0.01
    assert scipy.stats.kstest(weight.sum(axis=(1, 2, 3)) / 5, "norm").pvalue > 0.01  # the mean is left in
    assert_array_equal(
        filters.random_normal(200, (5, 5), random_state=np.random.RandomState(0), **plain).weight, weight
    )
    assert not np.array_equal(filters.random_normal(200, (5, 5), random_state=1, **plain).weight, weight)
    assert filters.random_normal(2, 1, random_state=0, zero_mean=False).weight.shape == (2, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 3), ValueError, "n_filters"),
        ((2.0, 3), TypeError, r"n_filters must be an int \(no bool, no float\), got 2.0"),
        ((2, 0), ValueError, "kernel_size"),
        ((2, (3, 3, 3, 3)), ValueError, "kernel_size"),
        ((2, (1, 1)), ValueError, r"zero_mean .* kernel_size=\(1, 1\)"),
    ],
)
def test_bad_random_filters(arguments, error, message):
    with pytest.raises(error, match=message):
        filters.random_normal(*arguments)
    with pytest.raises(ValueError, match="in_channels"):
        filters.random_normal(2, 3, in_channels=0)
    for name in ("zero_mean", "unit_norm"):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 'no'"):
            filters.random_normal(2, 3, **{name: "no"})
