"""Filters learnt from patches: against NumPy's eigenvectors, planted patterns and the laws that docstrings promise."""

import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.testing import assert_allclose, assert_array_equal

from dconv import filters

EPS = np.finfo(np.float32).eps
LEARNERS = [filters.pca_patches, filters.kmeans_patches]


def textured(shape, seed=0):
    """Integer noise smoothed along axis 0 so that eigenvalues differ."""
    noise = np.random.default_rng(seed).integers(0, 200, size=shape)
    return noise + 2 * np.roll(noise, 1, axis=0)


def all_patches(images, kernel, dilation):
    """Every patch of every image as rows (taps * channels), each channel's mean removed."""
    rows = []
    for image in images:
        windows = sliding_window_view(
            image, tuple((k - 1) * dilation + 1 for k in kernel), axis=tuple(range(len(kernel)))
        )
        windows = windows[(..., *(slice(None, None, dilation),) * len(kernel))]
        patches = np.moveaxis(windows, len(kernel), -1).reshape(-1, math.prod(kernel), image.shape[-1]).astype(float)
        rows.append((patches - patches.mean(axis=1, keepdims=True)).reshape(len(patches), -1))
    return np.concatenate(rows)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(
    ("shapes", "kernel"),
    [([(90, 1), (50, 1)], (5,)), ([(16, 13, 2), (9, 20, 2), (5, 5, 2)], (3, 2)), ([(9, 8, 7, 1)], (2, 3, 2))],
)
def test_pca_filters_are_the_leading_eigenvectors(shapes, kernel, dilation):
    images = [textured(shape, seed) for seed, shape in enumerate(shapes)]
    bank = filters.pca_patches(images, 3, kernel, dilation=dilation, random_state=0)
    _, vectors = np.linalg.eigh(np.cov(all_patches(images, kernel, dilation), rowvar=False))
    cosines = bank.weight.reshape(3, -1) @ vectors[:, ::-1][:, :3]
    assert_allclose(np.abs(cosines), np.eye(3), atol=1e-5)
    assert bank.names == ("pca_0", "pca_1", "pca_2")


@pytest.mark.parametrize("learn", LEARNERS)
def test_dilation_and_kernel_may_differ_per_axis(learn):
    image = textured((20, 20, 1))
    patches = [image[i : i + 3, j : j + 5 : 4] for i in range(18) for j in range(16)]  # each as an image of its own
    bank = learn([image], 2, (3, 2), dilation=(1, 4), random_state=0)
    assert_array_equal(bank.weight, learn(patches, 2, (3, 2), random_state=0).weight)


@pytest.mark.parametrize("learn", LEARNERS)
def test_learnt_filters_ignore_brightness_and_have_unit_norm(learn):
    weight = learn([textured((30, 30, 3))], 6, (3, 3), random_state=0).weight
    assert_allclose(weight.reshape(6, 9, 3).sum(axis=1), 0, atol=9 * EPS)
    assert_allclose(np.linalg.norm(weight.reshape(6, -1), axis=1), 1, rtol=8 * EPS)


@pytest.mark.parametrize("learn", LEARNERS)
def test_brightness_and_contrast_of_the_images_do_not_matter(learn):
    image = textured((30, 30, 2))
    expected = learn([image], 5, (3, 3), random_state=0).weight
    assert_allclose(learn([64 * image + 1000], 5, (3, 3), random_state=0).weight, expected, atol=1e-5)
    assert_allclose(learn([image / 1024], 5, (3, 3), random_state=0).weight, expected, atol=1e-5)


@pytest.mark.parametrize("learn", LEARNERS)
def test_random_state_draws_the_patches(learn):
    images = [textured((40, 40, 1)), textured((30, 50, 1), seed=1)]
    arguments = {"n_filters": 4, "kernel_size": (3, 3), "n_patches": 200}
    global_state = np.random.get_state()[1].copy()  # noqa: NPY002 - the point is that nobody touches it
    first = learn(images, random_state=3, **arguments).weight
    assert_array_equal(learn(images, random_state=np.random.RandomState(3), **arguments).weight, first)
    assert_array_equal(np.random.get_state()[1], global_state)  # noqa: NPY002
    assert not np.allclose(learn(images, random_state=4, **arguments).weight, first, atol=1e-3)


def test_patches_are_drawn_evenly_from_all_images_and_positions():
    # Two orthogonal patterns, in the first quarter and in the last half of all positions: variances 1 to 2.
    first, last = np.zeros((400, 8, 3, 1)), np.zeros((400, 8, 3, 1))
    first[:200] = [[-1.0], [0.0], [1.0]]
    last[:] = [[-1.0], [2.0], [-1.0]]
    signs = np.random.default_rng(0).choice([-1, 1], size=(400, 1, 1, 1))
    images = [*(first * signs), *(last * signs)]
    weight = filters.pca_patches(images, 2, (1, 3), n_patches=1000, random_state=0).weight.reshape(2, 3)
    assert_allclose(np.abs(weight), [[6**-0.5, 2 * 6**-0.5, 6**-0.5], [0.5**0.5, 0, 0.5**0.5]], atol=0.1)


@pytest.mark.parametrize("learn", LEARNERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, np.float64])
def test_real_dtypes_and_layouts_are_equal_and_images_stay_untouched(learn, dtype):
    image = textured((12, 14, 2)) % 251
    expected = learn([image], 4, (3, 2), random_state=0).weight
    given = np.asfortranarray(image.astype(dtype))
    given.flags.writeable = False
    assert_array_equal(learn([given], 4, (3, 2), random_state=0).weight, expected)
    assert_array_equal(learn(image[None].tolist(), 4, (3, 2), random_state=0).weight, expected)
    assert_array_equal(given, image)


@pytest.mark.parametrize("channels", [1, 2])
def test_kmeans_finds_planted_patterns_of_either_sign(channels):
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(4, 9, channels))
    raw -= raw.mean(axis=1, keepdims=True)
    patterns = np.linalg.qr(raw.reshape(4, -1).T)[0].T
    signs = rng.choice([-1, 1], size=(600, 1)) * rng.uniform(1, 2, size=(600, 1))
    patches = signs * patterns[rng.integers(0, 4, 600)] + 0.002 * rng.normal(size=(600, 9 * channels))
    bank = filters.kmeans_patches(patches.reshape(600, 3, 3, channels), 16, (3, 3), random_state=0)
    cosines = np.abs(bank.weight.reshape(16, -1) @ patterns.T)
    assert (cosines.max(axis=0) > 0.95).all()  # every pattern has its filter
    assert (cosines.max(axis=1) > 0.95).all()  # and no filter mixes patterns


def test_kmeans_folds_contrast_and_whitening_into_the_filter():
    # Every patch is a pattern or its negative, so the whitened patches of a kind lie on one line through zero, that
    # line is the centroid, and its filter is the whitening applied twice to the pattern.
    rng = np.random.default_rng(0)
    patterns = rng.integers(-20, 20, size=(3, 9)) * np.array([[1], [2], [4]])
    kinds, signs = rng.integers(0, 3, 300), rng.choice([-1, 1], size=(300, 1))
    bank = filters.kmeans_patches((signs * patterns[kinds]).reshape(300, 3, 3, 1), 12, (3, 3), random_state=0)
    assert bank.names == tuple(f"kmeans_{index}" for index in range(12))

    patterns = patterns - patterns.mean(axis=1, keepdims=True)
    variances = np.square(patterns).mean(axis=1)
    patterns /= np.sqrt(variances + 0.04 * variances[kinds].mean())[:, None]
    expected = patterns @ np.linalg.inv(np.cov((signs * patterns[kinds]).T) + 0.1 * np.eye(9))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosines = np.abs(bank.weight.reshape(12, 9) @ expected.T)
    assert_allclose(cosines.max(axis=0), 1, atol=1e-6)
    assert_allclose(cosines.max(axis=1), 1, atol=1e-6)


def test_kmeans_counts_a_patch_and_its_negative_as_one_kind():
    rng = np.random.default_rng(0)
    patches, signs = rng.normal(size=(150, 3, 3, 1)), rng.choice([-1, 1], size=(150, 1, 1, 1))
    plain = filters.kmeans_patches([*patches, *-patches], 6, (3, 3), random_state=0).weight
    flipped = filters.kmeans_patches([*signs * patches, *-signs * patches], 6, (3, 3), random_state=0).weight
    assert_allclose(np.abs((plain * flipped).reshape(6, 9).sum(axis=1)), 1, atol=1e-5)


def test_flat_patches_never_start_a_centroid():
    images = [*np.ones((400, 3, 3, 1)), textured((8, 8, 1))]
    assert filters.kmeans_patches(images, 20, (3, 3), random_state=0).weight.shape == (20, 3, 3, 1)
    with pytest.raises(ValueError, match=r"patches that are not flat, but got 37 and 36"):
        filters.kmeans_patches(images, 37, (3, 3), random_state=0)


def test_number_of_patches_bounds_the_filters():
    with pytest.raises(ValueError, match=r"n_filters must be at most .* but got 200 and 100; .* raise n_patches"):
        filters.kmeans_patches([textured((30, 30, 1))], 200, (3, 3), n_patches=100, random_state=0)


def test_more_kmeans_filters_than_taps():
    assert filters.kmeans_patches([textured((30, 30, 1))], 40, (3, 3), random_state=0).weight.shape == (40, 3, 3, 1)


@pytest.mark.parametrize("learn", LEARNERS)
@pytest.mark.parametrize(
    ("images", "arguments", "error", "message"),
    [
        ([], {}, ValueError, "images must hold at least one"),
        ([np.ones((9, 9))], {}, ValueError, r"images\[0\] .* 2 spatial axes.* \(9, 9\)"),
        (textured((9, 9, 1)), {}, ValueError, r"images\[0\] .* wrap one image in a list"),
        ([textured((9, 9, 1)), textured((9, 9, 3))], {}, ValueError, r"images\[0\] has 1 and images\[1\] has 3"),
        ([np.ones((9, 9, 0))], {}, ValueError, "channels, at least 1"),
        (
            [textured((9, 9, 1)), textured((9, 2, 1))],
            {},
            ValueError,
            r"images\[1\] has shape \(9, 2, 1\), .* spans \(3, 3\) samples; lower",
        ),
        (
            [textured((9, 9, 1))],
            {"dilation": 5},
            ValueError,
            r"images\[0\] .* spans \(11, 11\) samples; lower them, or leave out [a-z ]*$",
        ),
        ([textured((3, 3, 1))], {}, ValueError, "at least 2 patches"),
        ([np.full((9, 9, 1), level) for level in np.linspace(0, 1, 30)], {}, ValueError, "images must vary"),
        ([np.add.outer(np.arange(9.0), np.arange(9.0))[..., None]], {}, ValueError, "images must vary"),
        ([np.full((9, 9, 1), np.nan)], {}, ValueError, "images must be finite"),
        ([np.ones((9, 9, 1), complex)], {}, TypeError, r"images\[0\] .* complex128"),
        ([np.full((9, 9, 1), None)], {}, TypeError, r"images\[0\] .* object"),
        ([textured((9, 9, 1))], {"kernel_size": (1, 1)}, ValueError, r"kernel_size .* \(1, 1\)"),
        (5, {}, TypeError, "images must be a sequence of images, but got 5; wrap one image in a list"),
        ([textured((9, 9, 1))], {"n_patches": 1}, ValueError, "n_patches must be at least 2"),
        ([textured((9, 9, 1))], {"n_filters": 0}, ValueError, "n_filters must be at least 1"),
        ([textured((9, 9, 1))], {"n_filters": 50}, ValueError, "n_filters must be at most .* but got 50"),
        ([textured((9, 9, 1))], {"n_filters": 2.0}, TypeError, "n_filters .* 2.0"),
    ],
)
def test_bad_input(learn, images, arguments, error, message):
    with pytest.raises(error, match=message):
        learn(images, **({"n_filters": 2, "kernel_size": (3, 3), "random_state": 0} | arguments))


def test_pca_refuses_directions_without_variance():
    # A bar that moves along a line: of the 8 directions in which a 3 x 3 patch may vary, columns use only 2.
    image = np.repeat(np.random.default_rng(0).normal(size=(1, 40, 1)), 30, axis=0)
    assert filters.pca_patches([image], 2, (3, 3), random_state=0).weight.shape == (2, 3, 3, 1)
    with pytest.raises(ValueError, match=r"n_filters .* but got 3 and 2"):
        filters.pca_patches([image], 3, (3, 3), random_state=0)
