"""The bank at work: what a feature sees, blocks of images, threads, CPU levels, and the laws that features keep."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dconv._kernels._dispatch import supported_levels
from reference_features import SHAPES, assert_close, random_image

from dconv import shapes
from dconv._feature_groups import available_groups
from dconv._filter_bank import MAX_GAIN
from dconv._validation import LARGEST
from dconv.features import AtrousFeatures

# --- what a feature sees ---


def seen_from(bank, shape, axis):
    """Return how far left and right of the middle an impulse changes some feature at the middle, along `axis`."""
    middle = tuple(n // 2 for n in shape)
    changed = np.zeros(shape, bool)
    for height in (1e6, -1e6):  # what is counted above 0 lies around the one and beside the other
        image = np.zeros(shape, np.float32)
        image[middle] = height
        changed |= np.any(bank.fit(image).transform(image) != 0, axis=-1)
    line = np.flatnonzero(np.any(np.moveaxis(changed, axis, 0).reshape(shape[axis], -1), axis=1)) - middle[axis]
    return int(line.max()), int(-line.min())  # what lies right of the impulse sees it on its left


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        *({"groups": [group]} for group in available_groups(2)),
        {"filters": np.ones((1, 2, 13, 1))},
        {"groups": [], "filters": np.ones((1, 4, 3, 1))},
    ],
    ids=["default", *available_groups(2), "wide filter", "filter alone"],
)
def test_halo_is_exact(parameters):
    bank = AtrousFeatures(3, **parameters)
    shape = (121, 151)
    bank.fit(np.zeros(shape))
    assert bank.halo_ == tuple(seen_from(bank, shape, axis) for axis in range(2))
    assert bank.receptive_field_ == tuple(left + 1 + right for left, right in bank.halo_)


def test_halo_of_the_default_bank():
    bank = AtrousFeatures().fit(np.zeros((40, 40)))
    assert bank.halo_ == ((94, 94), (94, 94))
    assert shapes.cascade_halo(5, reach=4, last_level=True) == 94
    assert seen_from(bank, (250, 250), 1) == (94, 94)


@pytest.mark.parametrize("ndim", [1, 3])
def test_halo_in_other_ranks(ndim):
    bank = AtrousFeatures(2, ndim=ndim)
    shape = (45, 43, 41) if ndim == 3 else (95,)
    bank.fit(np.zeros(shape))
    assert bank.halo_ == tuple(seen_from(bank, shape, axis) for axis in range(ndim))


# --- blocks, threads, CPU levels ---


def cuts(size, seed):
    """Return odd places to cut an axis at."""
    inner = np.random.default_rng(seed).choice(np.arange(1, size), min(4, size - 1), replace=False)
    return [0, *sorted(int(place) for place in inner), size]


@pytest.mark.parametrize("scheme", ["atrous", "pyramid"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("ndim", "channels"), [(1, None), (2, None), (2, 3), (3, None)])
def test_blocks_are_bitwise_those_of_the_whole(ndim, channels, seed, scheme):
    shape = {1: (601,), 2: (67, 93), 3: (11, 18, 23)}[ndim]
    image = random_image(shape if channels is None else (*shape, channels), seed)
    n_levels = 2 if ndim == 3 else 4
    filters = np.ones((3, *(3,) * ndim, 1)) / 3
    axis = None if channels is None else -1
    bank = AtrousFeatures(n_levels, filters=filters, scheme=scheme, ndim=ndim, channel_axis=axis)
    whole = bank.fit_transform(image)
    edges = [cuts(n, seed + axis) for axis, n in enumerate(shape)]
    for corner in np.ndindex(*(len(places) - 1 for places in edges)):
        block = tuple(slice(places[i], places[i + 1]) for places, i in zip(edges, corner, strict=True))
        features = bank._transform_block(image if channels else image[..., np.newaxis], block)
        assert features.flags.c_contiguous
        np.testing.assert_array_equal(features, whole[block])


@pytest.mark.parametrize("scheme", ["atrous", "pyramid"])
def test_bands_are_the_block_in_parts(scheme):
    image = random_image((700, 90, 1))
    bank = AtrousFeatures(2, filters=np.ones((2, 3, 3, 1)), scheme=scheme).fit(image[..., 0])
    block = (slice(5, 690), slice(3, 88))
    features = np.full((*image.shape[:2], bank.n_features_out_), np.nan, np.float32)
    n_bands = 0
    for band, part in bank._transform_bands(image, block):
        assert part.flags.c_contiguous
        features[band] = part
        n_bands += 1
    assert n_bands > 1 or scheme == "pyramid"
    np.testing.assert_array_equal(features[block], bank._transform_block(image, block))


def test_block_of_a_memory_map(tmp_path):
    image = (255 * random_image((60, 70, 3))).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    bank = AtrousFeatures(2, channel_axis=-1).fit(mapped)
    np.testing.assert_array_equal(bank.transform(mapped), bank.transform(image.astype(np.float64)))
    block = (slice(3, 20), slice(50, 70))
    np.testing.assert_array_equal(bank._transform_block(mapped, block), bank.transform(image)[block])


def test_threads_change_nothing():
    image = random_image((600, 500))
    bank = AtrousFeatures(n_jobs=1).fit(image)
    one = bank.transform(image)
    np.testing.assert_array_equal(bank.set_params(n_jobs=3).transform(image), one)
    with ThreadPoolExecutor(4) as pool:
        for features in pool.map(bank.transform, [image] * 4):
            np.testing.assert_array_equal(features, one)


@pytest.mark.parametrize("scheme", ["atrous", "pyramid"])
@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_cpu_levels_agree(level, ndim, scheme):
    image = random_image(SHAPES[ndim])[..., np.newaxis]
    bank = AtrousFeatures(2, filters=np.ones((2, *(3,) * ndim, 1)), scheme=scheme, ndim=ndim, channel_axis=-1)
    expected = bank.fit_transform(image)
    whole = tuple(slice(0, n) for n in SHAPES[ndim])
    actual = np.empty_like(expected)
    bank._bank.fill(image, whole, actual, level)
    assert_close(actual, expected, bank.get_feature_names_out(), 1)
    part = tuple(slice(n // 3, n - 2) for n in SHAPES[ndim])
    tile = np.empty(actual[part].shape, np.float32)
    bank._bank.fill(image, part, tile, level)
    np.testing.assert_array_equal(tile, actual[part])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.float16, np.float64, np.dtype(">f4")])
def test_dtypes_are_not_rescaled(dtype):
    image = (200 * random_image((30, 30))).astype(dtype)
    bank = AtrousFeatures(2).fit(image)
    np.testing.assert_array_equal(bank.transform(image), bank.transform(image.astype(np.float32)))


def test_memory_layout_changes_nothing():
    image = random_image((40, 50))
    bank = AtrousFeatures(2).fit(image)
    expected = bank.transform(image)
    for same in (np.asfortranarray(image), image[::-1].copy()[::-1], np.repeat(image, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(bank.transform(same), expected)


# --- laws ---


def test_shift_equivariance_is_bitwise():
    image = random_image((50, 60))
    bank = AtrousFeatures(3, padding_mode="circular").fit(image)
    rolled = np.roll(image, (7, -13), axis=(0, 1))
    np.testing.assert_array_equal(bank.transform(rolled), np.roll(bank.transform(image), (7, -13), axis=(0, 1)))


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("exponent", [-40, -33, 1, 33, 40])  # 1e-12 to 1e12
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_features_scale_with_the_image(ndim, exponent, level):
    image = random_image((*SHAPES[ndim], 3))
    groups = available_groups(ndim)
    bank = AtrousFeatures(2, color_groups=groups, filters=np.ones((1, *(3,) * ndim, 1)), ndim=ndim, channel_axis=-1)
    names = bank.fit(image).get_feature_names_out()
    whole = tuple(slice(0, n) for n in SHAPES[ndim])
    features, scaled = (np.empty((*SHAPES[ndim], len(names)), np.float32) for _ in range(2))
    bank._bank.fill(image, whole, features, level)
    bank._bank.fill(np.ldexp(image, exponent), whole, scaled, level)
    for index, name in enumerate(names):
        power = 0 if "_crossings_" in name or "_ppv_" in name else exponent  # counts do not depend on the unit
        np.testing.assert_array_equal(scaled[..., index], np.ldexp(features[..., index], power), err_msg=name)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_features_of_the_largest_values_are_finite(ndim):
    image = np.where(random_image((*SHAPES[ndim], 3)) < 0.5, -LARGEST, LARGEST)
    groups = available_groups(ndim)
    weight = np.full((1, *(3,) * ndim, 1), MAX_GAIN / 3**ndim)
    for color in ("opponent", "channels"):
        bank = AtrousFeatures(
            2, color=color, color_groups=groups, filters=weight, ndim=ndim, channel_axis=-1, padding_mode="zeros"
        )
        assert np.isfinite(bank.fit_transform(image)).all()
    same = AtrousFeatures(1, groups=[], filters=weight, ndim=ndim).fit_transform(np.full(SHAPES[ndim], LARGEST))
    np.testing.assert_allclose(same, 1e38, rtol=1e-5)


@pytest.mark.parametrize("turn", [np.rot90, np.flipud, np.fliplr, lambda a: np.swapaxes(a, 0, 1)])
def test_features_turn_with_the_image(turn):
    image = random_image((40, 50))
    bank = AtrousFeatures(3).fit(image)
    assert_close(bank.transform(turn(image)), turn(bank.transform(image)), bank.get_feature_names_out(), 1)


def test_constant_image_has_only_levels():
    features = AtrousFeatures(3).fit(np.full((20, 20), 7)).transform(np.full((20, 20), 7))
    assert set(np.unique(features)) == {0, 7}


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize(("spacing", "axis"), [(None, None), ((1, 2.5), None), ((3, 1), None), (None, -1)])
def test_levels_row_by_row_equal_whole_levels(spacing, axis, level):
    """The user's filters want whole levels; without them levels are made just before the rows that look at them."""
    image = random_image((150, 130) if axis is None else (150, 130, 3))
    common = {"spacing": spacing, "channel_axis": axis, "padding_mode": "edge"}
    banks = [AtrousFeatures(filters=filters, **common).fit(image)._bank for filters in (None, np.ones((1, 3, 3, 1)))]
    assert [bank._streams for bank in banks] == [True, False]
    image = image if axis else image[..., np.newaxis]
    block = slice(20, 147), slice(5, 128)
    streamed, whole = (np.empty((127, 123, bank.n_features), np.float32) for bank in banks)
    for bank, out in zip(banks, (streamed, whole), strict=True):
        bank.fill(image, block, out, level)
    np.testing.assert_array_equal(streamed, whole[..., : streamed.shape[-1]])
