"""AtrousFeatures against its definition: values, names, bad input. What all image estimators share: test_contract."""

import numpy as np
import pytest
from dconv._kernels._dispatch import supported_levels
from reference_features import SHAPES, assert_close, plane_features, random_image
from scipy import ndimage

from dconv._feature_groups import GROUPS, Planes, available_groups, slab_axis
from dconv._kernels import _cascade
from dconv.features import AtrousFeatures
from dconv.filters import FilterBank, derivatives, filter_bank


def expected_features(planes, n_levels, mode, names):
    """Return the features called `names` of planes {name: plane} by the definition."""
    features = {}
    for name, plane in planes.items():
        features |= plane_features(plane, n_levels, mode, name)
    return np.stack([features[name] for name in names], axis=-1)


# --- the definition ---


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "edge", "circular", "zeros"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_all_groups_equal_the_definition(ndim, mode):
    image = random_image(SHAPES[ndim])
    bank = AtrousFeatures(n_levels=2, groups=available_groups(ndim), padding_mode=mode, ndim=ndim)
    features = bank.fit_transform(image)
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    names = bank.get_feature_names_out()
    expected = plane_features(image, 2, mode)
    assert list(names) == list(expected)
    assert_close(features, np.stack(list(expected.values()), axis=-1), names, 1)


@pytest.mark.parametrize(
    ("ndim", "spacing"), [(2, (1, 3)), (2, (0.5, 0.2)), (3, (5, 1, 1)), (3, (2.1, 1, 1.4)), (3, (1, 9, 1))]
)
def test_spacing_equals_the_definition(ndim, spacing):
    image = random_image(SHAPES[ndim])
    bank = AtrousFeatures(3 if ndim == 2 else 2, spacing=spacing, ndim=ndim)
    features = bank.fit_transform(image)
    names = bank.get_feature_names_out()
    expected = plane_features(image, bank.n_levels, "reflect", spacing=spacing)
    assert list(names) == list(expected)
    assert_close(features, np.stack(list(expected.values()), axis=-1), names, 1)
    cut = tuple(slice(3, n - 2) for n in image.shape)
    np.testing.assert_array_equal(bank._transform_block(image[..., np.newaxis], cut), features[cut])


def test_spacing_is_relative():
    image = random_image(SHAPES[3])
    plain, same, wide, scaled = (
        AtrousFeatures(2, spacing=spacing, ndim=3).fit(image)
        for spacing in (None, (7, 7, 7), (4, 1, 1), [8.0, 2.0, 2.0])
    )
    np.testing.assert_array_equal(same.transform(image), plain.transform(image))
    np.testing.assert_array_equal(scaled.transform(image), wide.transform(image))
    assert plain.halo_ == ((10, 10),) * 3
    assert wide.halo_ == ((0, 0), (10, 10), (10, 10))


def test_slopes_are_physical():
    """A ramp has the same slope along every axis that is measured alike, however its pixels lie."""
    z, y, x = np.indices((20, 60, 60))
    for ramp, distance in ((3.0 * z, 3.0), (y, 1.0), (x, 1.0)):
        bank = AtrousFeatures(4, groups=["gradient"], spacing=(3, 1, 1), ndim=3).fit(ramp)
        middle = bank.transform(ramp)[10, 30, 30]
        steps = [max(1, int(np.ceil(2**s / distance - 0.5))) * distance for s in range(4)]
        seen = [2**s if step <= 2 * 2**s else 0 for s, step in enumerate(steps)]
        np.testing.assert_allclose(middle, seen, rtol=1e-5)


def test_thin_volumes_take_more_levels_if_their_sections_are_far_apart():
    image = random_image((4, 70, 70))
    with pytest.raises(ValueError, match="axis 0 has 4 pixels"):
        AtrousFeatures(ndim=3).fit(image)
    bank = AtrousFeatures(ndim=3, spacing=(11, 1, 1)).fit(image)
    assert bank.transform(image).shape[:-1] == image.shape
    with pytest.raises(ValueError, match=r"axis 0 has 4 pixels.*use AtrousFeatures\(n_levels=3\)"):
        AtrousFeatures(ndim=3, spacing=(5, 1, 1)).fit(image)


def test_filters_of_coarse_axes_keep_their_taps_apart():
    image = random_image((6, 30, 30))
    bank = AtrousFeatures(2, groups=[], filters=np.ones((1, 3, 1, 1, 1)), spacing=(9, 1, 1), ndim=3)
    features = bank.fit_transform(image)
    np.testing.assert_allclose(features[2, 4, 5, 0], image[1:4, 4, 5].sum(), rtol=1e-5)
    assert bank.halo_[0] == (1, 1)


def test_spacing_is_no_text():
    with pytest.raises(TypeError, match="spacing must be None or a sequence of numbers, got '12'"):
        AtrousFeatures(1, spacing="12").fit(np.zeros((5, 5)))


@pytest.mark.parametrize("spacing", [(1, 2), (1, 1, 0), (1, 1, -1), (1, 1, np.inf), 3, ("a", "b", "c"), (1, 1, np.nan)])
def test_bad_spacing(spacing):
    with pytest.raises(ValueError, match="spacing must be None or 3 positive numbers"):
        AtrousFeatures(1, spacing=spacing, ndim=3).fit(np.zeros((5, 5, 5)))


def test_pyramid_takes_no_spacing():
    with pytest.raises(ValueError, match="scheme='pyramid' halves all axes alike"):
        AtrousFeatures(1, spacing=(1, 2), scheme="pyramid").fit(np.zeros((5, 5)))


def test_default_bank_equals_the_definition():
    image = random_image((70, 64))
    bank = AtrousFeatures().fit(image)
    names = bank.get_feature_names_out()
    assert_close(bank.transform(image), expected_features({"intensity": image}, 5, "reflect", names), names, 1)


def test_levels_equal_scipy_at_a_mirrored_border():
    image = random_image((40, 50))
    bank = AtrousFeatures(3, groups=["level"])
    features = bank.fit_transform(image)
    level = image.astype(float)
    for index, dilation in enumerate((1, 2, 4, 8)):
        np.testing.assert_allclose(features[..., index], level, atol=1e-5)
        taps = np.zeros(4 * dilation + 1)
        taps[::dilation] = np.array([1, 4, 6, 4, 1]) / 16
        level = ndimage.correlate(level, np.outer(taps, taps), mode="mirror")


@pytest.mark.parametrize(
    ("ndim", "color"), [(1, "opponent"), (2, "auto"), (2, "opponent"), (3, "auto"), (3, "opponent")]
)
def test_rgb_planes(ndim, color):
    image = random_image((*SHAPES[ndim], 3))
    bank = AtrousFeatures(2, ndim=ndim, channel_axis=-1, color=color).fit(image)
    r, g, b = np.moveaxis(image.astype(float), -1, 0)
    planes = {
        "intensity": (r + g + b) / 3,
        "red_green": (r - g) / np.sqrt(2),
        "yellow_blue": (r + g - 2 * b) / np.sqrt(6),
    }
    names = bank.get_feature_names_out()
    assert_close(bank.transform(image), expected_features(planes, 2, "reflect", names), names, 2)
    colors = [name for name in names if not name.startswith("intensity")]
    assert len(colors) == 2 * ((3 if ndim > 1 else 17) * 2 + 1)


@pytest.mark.parametrize(("n_channels", "color"), [(2, "auto"), (4, "auto"), (4, "channels"), (3, "channels")])
def test_planes_of_other_numbers_of_channels(n_channels, color):
    image = random_image((n_channels, 20, 30))
    bank = AtrousFeatures(2, channel_axis=0, color=color).fit(image)
    planes = {"intensity": image.mean(axis=0)} | {f"channel_{index}": plane for index, plane in enumerate(image)}
    names = bank.get_feature_names_out()
    assert len(names) == 27 + 7 * n_channels
    assert_close(bank.transform(image), expected_features(planes, 2, "reflect", names), names, 1)


def test_one_channel_is_grey():
    image = random_image((20, 30))
    grey, channel = AtrousFeatures(2), AtrousFeatures(2, channel_axis=-1)
    np.testing.assert_array_equal(grey.fit_transform(image), channel.fit_transform(image[..., np.newaxis]))
    assert list(grey.get_feature_names_out()) == list(channel.get_feature_names_out())


def test_std_keeps_its_digits_on_large_values():
    noise = random_image((40, 40), scale=4)
    bank = AtrousFeatures(3, groups=["std"])
    offset = np.float32(2**15)
    # The sum rounds the noise to a grid of 2**-8, so the image itself is what both see.
    shifted = noise + offset
    np.testing.assert_allclose(bank.fit_transform(shifted), bank.transform(shifted - offset), rtol=0, atol=0.01)


def matrices_with(values, n=200):
    """Return symmetric matrices (n, 3, 3) with these eigenvalues, turned at random."""
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, 3, 3)))
    return q @ np.diag(values) @ q.transpose(0, 2, 1)


@pytest.mark.parametrize("values", [(3, 2, 1), (5, 5, -1), (2, -1, -1), (1, 1, 1), (1, 0, 0), (0, 0, 0), (1, 0, -1)])
@pytest.mark.parametrize("scale", [1e-18, 1, 1e18])
@pytest.mark.parametrize("level", supported_levels())
def test_eigenvalues_that_meet(values, scale, level):
    matrix = (scale * matrices_with(values)).astype(np.float32)
    parts, out = Planes(6, (0, 0, 0), (1, 1, len(matrix))), np.empty((1, 1, len(matrix), 3), np.float32)
    for part, (a, b) in zip(parts.data, [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)], strict=True):
        part[...] = matrix[:, a, b]
    program = _cascade.Program(out.shape[:3], slab_axis(3), 3, level)
    program.eigenvalues(parts.at((0, 0, 0)), 6, 0)
    program.run(0, 1, out)
    expected = np.linalg.eigvalsh(matrix.astype(float))[:, ::-1]
    np.testing.assert_allclose(out[0, 0], expected, rtol=0, atol=2e-7 * scale * max(map(abs, values)))


@pytest.mark.parametrize("values", [(3, 1), (5, -1), (1, 1), (1, 0), (0, 0), (1, -1), (1, 1e-4)])
@pytest.mark.parametrize("scale", [1e-37, 1e-18, 1, 1e18, 1e37])
@pytest.mark.parametrize("level", supported_levels())
def test_eigenvalues_of_two_axes(values, scale, level):
    angles = np.linspace(0, 2 * np.pi, 200)
    u = np.stack([np.cos(angles), np.sin(angles)])
    v = np.stack([-u[1], u[0]])
    parts, out = Planes(3, (0, 0, 0), (1, 1, len(angles))), np.empty((1, 1, len(angles), 2), np.float32)
    for part, (a, b) in zip(parts.data, [(0, 0), (1, 1), (0, 1)], strict=True):
        part[...] = scale * (values[0] * u[a] * u[b] + values[1] * v[a] * v[b])
    matrix = np.moveaxis(parts.data[[0, 2, 2, 1], 0, 0].astype(float), 0, -1).reshape(-1, 2, 2)
    program = _cascade.Program(out.shape[:3], slab_axis(2), 2, level)
    program.eigenvalues(parts.at((0, 0, 0)), 3, 0)
    program.run(0, 1, out)
    expected = np.linalg.eigvalsh(matrix)[:, ::-1]
    np.testing.assert_allclose(out[0, 0], expected, rtol=0, atol=2e-7 * scale * max(map(abs, values)))


ROWS, COLUMNS = np.indices((50, 60))
ORIENTED = {
    "diagonal edge": 1.0 * (ROWS > COLUMNS),
    "sloped ramp": (0.7 * ROWS + 0.3 * COLUMNS) / 60,
    "slanted wave": np.sin(0.3 * ROWS + 0.2 * COLUMNS),
    "plane wave": np.sin(np.tensordot((0.31, 0.17, 0.23), np.indices((30, 30, 30)), 1)),
}


@pytest.mark.parametrize("image", ORIENTED.values(), ids=ORIENTED)
def test_structure_tensor_of_one_orientation(image):
    """Its smaller eigenvalues are 0, which rounding puts on either side: below it no square root may be NaN."""
    image = image.astype(np.float32)
    n_levels = 5 - image.ndim  # of volumes, the reference takes long
    bank = AtrousFeatures(n_levels, groups=["structure_tensor"], ndim=image.ndim).fit(image)
    names = bank.get_feature_names_out()
    expected = expected_features({"intensity": image}, n_levels, "reflect", names)
    for level in supported_levels():
        features = np.empty_like(expected, np.float32)
        bank._bank.fill(image[..., np.newaxis], tuple(slice(0, n) for n in image.shape), features, level)
        assert np.isfinite(features).all(), level
        assert_close(features, expected, names, 1)


# --- names, numbers and groups ---


@pytest.mark.parametrize(("channel_axis", "n_features"), [(None, 66), (-1, 98)])
def test_number_of_default_features(channel_axis, n_features):
    image = random_image((40, 40) if channel_axis is None else (40, 40, 3))
    bank = AtrousFeatures(channel_axis=channel_axis).fit(image)
    names = bank.get_feature_names_out()
    assert bank.n_features_out_ == n_features == len(set(names)) == len(names)
    some = {"intensity_gradient_d4", "intensity_hessian_max_d1", "intensity_line_mean_d16", "intensity_level_d32"}
    assert some <= set(names)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_equals_the_group_among_all(group, ndim):
    image = random_image(SHAPES[ndim])
    everything = AtrousFeatures(2, groups=available_groups(ndim), ndim=ndim)
    features = everything.fit_transform(image)
    alone = AtrousFeatures(2, groups=[group], ndim=ndim)
    if group not in available_groups(ndim):
        with pytest.raises(ValueError, match=rf"unknown names \['{group}'\] for ndim={ndim}"):
            alone.fit(image)
        return
    expected = alone.fit_transform(image)
    index = [list(everything.get_feature_names_out()).index(name) for name in alone.get_feature_names_out()]
    np.testing.assert_array_equal(features[..., index], expected)


def test_groups_are_in_table_order_whatever_order_they_are_given_in():
    image = random_image((20, 20))
    one, other = AtrousFeatures(2, groups=["std", "level", "std"]), AtrousFeatures(2, groups=("level", "std"))
    np.testing.assert_array_equal(one.fit_transform(image), other.fit_transform(image))
    assert list(one.get_feature_names_out()) == list(other.get_feature_names_out())


def test_color_groups():
    image = random_image((20, 20, 3))
    bank = AtrousFeatures(2, groups=["gradient"], color_groups=["gradient"], channel_axis=-1).fit(image)
    assert list(bank.get_feature_names_out()) == [
        f"{plane}_gradient_d{d}" for plane in ("intensity", "red_green", "yellow_blue") for d in (1, 2)
    ]
    bank.set_params(color_groups=[]).fit(image)
    assert list(bank.get_feature_names_out()) == ["intensity_gradient_d1", "intensity_gradient_d2"]
    bank.set_params(groups=[], color_groups=["level"]).fit(image)
    assert bank.transform(image).shape == (20, 20, 6)


# --- own filters ---


@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 3), (4, 1), (5, 2)])
def test_own_filters_are_applied_to_every_level(kernel_size):
    image = random_image((30, 37))
    weight = random_image((2, *kernel_size, 1), seed=1) - 0.5
    bank = AtrousFeatures(3, groups=["level"], filters=weight)
    features = bank.fit_transform(image)
    assert list(bank.get_feature_names_out()[4:]) == [f"intensity_filter_{i}_d{d}" for d in (1, 2, 4) for i in (0, 1)]
    levels = AtrousFeatures(3, groups=["level"]).fit_transform(np.pad(image, 60, mode="reflect"))
    for s in range(3):
        for index in range(2):
            expected = 0
            for tap, value in np.ndenumerate(weight[index, ..., 0]):
                # As with padding="same": (span - 1) // 2 pixels to the left.
                place = [t * 2**s - (k - 1) * 2**s // 2 for t, k in zip(tap, kernel_size, strict=True)]
                rows, columns = (slice(60 + p, 60 + p + n) for p, n in zip(place, image.shape, strict=True))
                expected = expected + value * levels[rows, columns, s]
            np.testing.assert_allclose(features[..., 4 + 2 * s + index], expected, atol=1e-5)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_named_filters(ndim):
    image, filters = random_image(SHAPES[ndim]), derivatives(1, ndim=ndim)
    named, plain = (AtrousFeatures(2, groups=["gradient"], filters=f, ndim=ndim) for f in (filters, filters.weight))
    np.testing.assert_array_equal(named.fit_transform(image), plain.fit_transform(image))
    expected = [f"intensity_d{axis}_d{dilation}" for dilation in (1, 2) for axis in range(ndim)]
    assert named.get_feature_names_out().tolist() == ["intensity_gradient_d1", "intensity_gradient_d2", *expected]


def test_filters_may_reach_beyond_the_image():
    image = random_image((20, 20))
    wide = np.zeros((1, 31, 31, 1))
    wide[0, 0, 0, 0] = 1  # sees the pixel 15 rows and columns before its own
    features = AtrousFeatures(1, groups=[], filters=wide, padding_mode="circular").fit_transform(image)
    np.testing.assert_array_equal(features[..., 0], np.roll(image, (15, 15), axis=(0, 1)))


@pytest.mark.parametrize(
    "changes", [{"ndim": 1}, {"channel_axis": -1}, {"n_levels": 1}, {"padding_mode": "zeros"}, {"groups": ["level"]}]
)
def test_what_was_in_force_at_fit_stays_so(changes):
    image = random_image((20, 30))
    bank = AtrousFeatures(2).fit(image)
    expected = bank.transform(image)
    np.testing.assert_array_equal(bank.set_params(**changes).transform(image), expected)


# --- bad input ---


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"groups": ["levels"]}, ValueError, r"groups has unknown names \['levels'\].*level, wavelet"),
        ({"color_groups": ["hue"]}, ValueError, "color_groups has unknown names"),
        ({"groups": "level"}, TypeError, r"one group is \['level'\]"),
        ({"groups": []}, ValueError, "no feature is left"),
        ({"groups": 3}, TypeError, "groups must be None or a sequence"),
        ({"color": "hue"}, ValueError, "color must be one of"),
        ({"color": np.array(["auto", "hue"])}, ValueError, "color must be one of"),
        ({"n_levels": 0}, ValueError, "n_levels"),
        ({"n_levels": 10**12}, ValueError, "n_levels must be at most 30, as each doubles the dilation, but got 10{12}"),
        ({"n_levels": 2.0}, TypeError, "n_levels"),
        ({"n_levels": [2]}, TypeError, r"n_levels must be an int \(no bool, no float\), got \[2\]"),
        ({"ndim": 2.0}, TypeError, "ndim must be an int"),
        ({"filters": [derivatives(1), derivatives(2)]}, TypeError, "filters must be one bank, .* join them"),
        ({"padding_mode": "mirror"}, ValueError, "padding_mode"),
        ({"ndim": 4}, ValueError, "ndim"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
        ({"filters": np.ones((1, 3, 1))}, ValueError, r"filters.*ndim=2"),
        ({"filters": np.ones((1, 3, 3, 2))}, ValueError, r"filters.*\(1, 3, 3, 2\)"),
        ({"filters": filter_bank(np.ones((1, 3, 1)))}, ValueError, r"filters.*ndim=2"),
        ({"filters": FilterBank(np.ones((2, 3, 3, 1)), ("one",))}, ValueError, "one name per filter, but got 1 for 2"),
        ({"filters": filter_bank(np.ones((1, 3, 3, 1)), ["std"])}, ValueError, "intensity_std_d1.*rename the filters"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        AtrousFeatures(**parameters).fit(np.zeros((40, 40)))


def test_opponent_planes_need_three_channels():
    with pytest.raises(ValueError, match=r"needs 3 channels .* X has 4"):
        AtrousFeatures(color="opponent", channel_axis=-1).fit(np.zeros((40, 40, 4)))


def test_small_images_are_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"axis 0 has 20 pixels, .* 33 .* dilation 16: use AtrousFeatures\(n_levels=4\)"
    ):
        AtrousFeatures().fit(np.zeros((20, 300)))
    assert AtrousFeatures(4).fit(np.zeros((20, 300))).n_features_out_ == 53
    with pytest.raises(ValueError, match="no n_levels fits"):
        AtrousFeatures(1).fit(np.zeros((2, 300)))
    with pytest.raises(ValueError, match=r"X\[1\].*dilation 8: fit again with AtrousFeatures\(n_levels=3\)"):
        AtrousFeatures(4).fit(np.zeros((20, 20))).transform([np.zeros((20, 20)), np.zeros((9, 20))])


def test_not_finite_images_are_refused():
    image = np.zeros((40, 40))
    image[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"X holds nan at \(\*pixel, channel\) \(3, 4, 0\)"):
        AtrousFeatures().fit(image)


def test_fast_groups_are_those_of_the_table():
    image = random_image((40, 50))
    fast = AtrousFeatures(3, groups="fast")
    groups = ["level", "wavelet", "gradient", "hessian", "std"]
    np.testing.assert_array_equal(fast.fit_transform(image), AtrousFeatures(3, groups=groups).fit_transform(image))
    assert fast.n_features_out_ == 3 * 6 + 1
    with pytest.raises(TypeError, match="got 'slow'"):
        AtrousFeatures(groups="slow").fit(image)
