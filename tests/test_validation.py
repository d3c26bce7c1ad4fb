"""Checks at the door: what counts as an image, a batch and a list, and what each message says."""

import re

import numpy as np
import pytest

import dconv
from dconv import _validation
from dconv._validation import as_images, as_labels, as_real, as_weights, check_finite, check_min_size, check_n_channels

RNG = np.random.default_rng(0)


class Fitted:
    """An owner for messages."""


# --- dtypes ---


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(bool, "f4"), (np.uint8, "f4"), (np.int64, "f4"), (np.float16, "f4"), (">f4", "f4"), (">f8", "f8"), ("f8", "f8")],
)
def test_as_real_keeps_double_and_values(dtype, expected):
    x = np.arange(6).astype(dtype)
    (real, other), none = as_real(x=x, weight=[1, 2], bias=None)
    assert none is None
    assert real.dtype == other.dtype == np.dtype(expected)
    np.testing.assert_array_equal(real, x)
    assert np.shares_memory(real, x) == (x.dtype == np.dtype(expected))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(3, complex), "weight must hold real numbers, got dtype complex128; .*two channels"),
        (np.array([None, 1]), "weight must hold real numbers, got dtype object; convert it to numbers"),
        (["a"], "weight must hold real numbers, got dtype <U1"),
        ([[1, 2], [3]], "weight must be an array, but got a list of items of different shapes; make them equal"),
        (np.zeros(3, "M8[s]"), "weight must hold real numbers, got dtype datetime64"),
        (np.zeros(3, "f4,f4"), "weight must hold real numbers, got dtype"),
    ],
)
def test_as_real_refuses(value, message):
    with pytest.raises(TypeError, match=message):
        as_real(x=np.zeros(3), weight=value)


# --- kinds of input ---


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("channel_axis", [None, 0, -1, 1, -2])
@pytest.mark.parametrize("kind", ["image", "batch", "list"])
def test_kinds(ndim, channel_axis, kind):
    spatial = (4, 5, 6)[:ndim]
    last = [RNG.random((*spatial, 1 if channel_axis is None else 2)) for _ in range(3)]
    raw = [image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis) for image in last]
    X = {"image": raw[0], "batch": np.stack(raw), "list": raw}[kind]
    images = as_images(X, ndim, channel_axis)
    assert images.kind == kind
    assert images.n_channels == last[0].shape[-1]
    assert images.spatial_shapes == [spatial] * len(images.arrays)
    for array, expected in zip(images.arrays, last[: len(images.arrays)], strict=True):
        np.testing.assert_array_equal(array, expected)
        assert any(np.shares_memory(array, each) for each in (X if kind == "list" else [X]))
    assert len(images.arrays) == (1 if kind == "image" else 3)


def test_lists_may_hold_different_sizes_and_dtypes_and_tuples_are_lists():
    X = (np.zeros((4, 5), np.uint8), np.zeros((7, 3)))
    images = as_images(X, 2, None)
    assert images.kind == "list"
    assert images.spatial_shapes == [(4, 5), (7, 3)]
    assert [array.dtype for array in images.arrays] == [np.uint8, np.float64]
    assert isinstance(X, tuple)


def test_memory_maps_stay_maps(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 5)))
    images = as_images(np.load(tmp_path / "x.npy", mmap_mode="r"), 2, None)
    assert all(isinstance(array, np.memmap) for array in images.arrays)


@pytest.mark.parametrize(("kind", "name"), [("image", "X"), ("batch", "X[1]"), ("list", "X[1]")])
def test_messages_name_the_image(kind, name):
    images = as_images(
        {"image": np.zeros((4, 5)), "batch": np.zeros((2, 4, 5)), "list": [np.zeros((4, 5))] * 2}[kind], 2, None
    )
    assert images.describe(1) == name
    assert ("channel_axis" in images.hint()) == (kind == "batch")


@pytest.mark.parametrize("kind", ["image", "batch", "list"])
def test_results_have_the_kind_of_the_input(kind):
    X = {"image": np.zeros((4, 5)), "batch": np.zeros((2, 4, 5)), "list": [np.zeros((4, 5))] * 2}[kind]
    shapes = [(4, 5, 3)] * (1 if kind == "image" else 2)
    result, views = as_images(X, 2, None).allocate(shapes, np.float32)
    for number, view in enumerate(views):
        assert view.shape == (4, 5, 3)
        assert view.dtype == np.float32
        view[...] = number
    if kind == "image":
        assert result is views[0]
    elif kind == "batch":
        assert result.shape == (2, 4, 5, 3)
    else:
        assert isinstance(result, list)
    if kind != "image":
        assert np.all(result[0] == 0)
        assert np.all(result[1] == 1)


@pytest.mark.parametrize(
    ("X", "ndim", "channel_axis", "error", "message"),
    [
        (
            np.zeros(5),
            2,
            None,
            ValueError,
            r"X has 1 axes \(5,\), but with ndim=2 and channel_axis=None .* 2 axes; check",
        ),
        (np.zeros((2, 3, 4, 5)), 2, None, ValueError, r"X has 4 axes \(2, 3, 4, 5\)"),
        ([np.zeros((4, 5)), np.zeros((4, 5, 3))], 2, None, ValueError, r"X\[1\] has 3 axes .*; pass channel_axis=-1"),
        (
            np.zeros((4, 5)),
            2,
            -1,
            ValueError,
            r"X has 2 axes \(4, 5\), .*channel_axis=-1 .* 3 axes; pass channel_axis=None",
        ),
        ([], 2, None, ValueError, "X is an empty list; pass at least one image"),
        (np.zeros((0, 4, 5)), 2, None, ValueError, r"X has shape \(0, 4, 5\): a batch of no images"),
        (np.zeros((4, 0)), 2, None, ValueError, r"X has shape \(4, 0\): an axis of size 0 holds no pixels"),
        ([np.zeros((4, 5, 0))], 2, -1, ValueError, r"X\[0\] has shape \(4, 5, 0\)"),
        ([np.zeros((4, 5, 2)), np.zeros((4, 5, 3))], 2, -1, ValueError, r"X\[0\] has 2 and X\[1\] has 3"),
        ([np.zeros((4, 5)), np.zeros((4, 5), complex)], 2, None, TypeError, r"X\[1\] must hold real .* complex128"),
        (np.full((4, 5), None), 2, None, TypeError, "X must hold real numbers, got dtype object"),
        ("image.png", 2, None, TypeError, "X must hold real numbers, got dtype <U9"),
        (np.zeros((4, 5)), 4, None, ValueError, "ndim must be 1, 2 or 3 spatial axes, but got 4"),
        (np.zeros((4, 5)), True, None, TypeError, "ndim must be an int .*, got True"),
        (np.zeros((4, 5)), 2.0, None, TypeError, "ndim must be an int .*, got 2.0"),
        (np.zeros((4, 5)), np.array([2]), None, TypeError, "ndim must be an int"),
        (
            np.zeros((4, 5)).tolist(),
            2,
            None,
            ValueError,
            r"X\[0\] has 1 axes .*; a list holds several images",
        ),
        (np.ma.masked_equal(np.eye(3), 1), 2, None, TypeError, r"X holds masked pixels, .*: pass X.filled\(value\)"),
        ([np.eye(3), np.ma.masked_equal(np.eye(3), 1)], 2, None, TypeError, r"X\[1\] holds masked pixels"),
        (np.zeros((4, 5)), 2, 1.0, TypeError, "channel_axis must be None or an int, got 1.0"),
        (np.zeros((4, 5)), 2, True, TypeError, "channel_axis must be None or an int, got True"),
        (np.zeros((4, 5, 3)), 2, 3, ValueError, "channel_axis=3 is not an axis .* choose one from -3 to 2"),
        (np.zeros((4, 5, 3)), 2, -4, ValueError, "channel_axis=-4 is not an axis"),
    ],
)
def test_refused_images(X, ndim, channel_axis, error, message):
    with pytest.raises(error, match=message):
        as_images(X, ndim, channel_axis)


def test_number_of_channels_seen_at_fit():
    images = as_images(np.zeros((4, 5, 3)), 2, -1)
    check_n_channels(images, 3, Fitted())
    with pytest.raises(ValueError, match=r"X has 3 channel\(s\) per image, but Fitted was fitted with 1"):
        check_n_channels(images, 1, Fitted())


def test_smallest_size():
    images = as_images([np.zeros((9, 9)), np.zeros((9, 4))], 2, None)
    check_min_size(images, (9, 4), "why")
    with pytest.raises(
        ValueError, match=r"X\[1\] has spatial shape \(9, 4\): axis 1 has 4 pixels, .* 5 are needed; why$"
    ):
        check_min_size(images, (9, 5), "why")
    with pytest.raises(ValueError, match="why; X was taken for a batch of 2 images: pass channel_axis"):
        check_min_size(as_images(np.zeros((2, 9, 4)), 2, None), (9, 5), "why")


# --- NaN and infinity ---


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_not_finite_is_found_wherever_it_is(bad, dtype, monkeypatch):
    monkeypatch.setattr(_validation, "_CHUNK", 50)  # two rows of 8 x 3 at a time
    clean = RNG.random((9, 8, 3)).astype(dtype)
    check_finite(as_images([clean, clean], 2, -1))
    for place in [(0, 0, 0), (3, 7, 1), (8, 7, 2)]:
        image = clean.copy()
        image[place] = bad
        remedy = r"PixelClassifier\(nodata=-1\)" + ("" if np.isnan(bad) else " and mask")
        named = rf"^X\[1\] holds {bad} at \(\*pixel, channel\) {re.escape(str(place))}; .*{remedy}$"
        with pytest.raises(ValueError, match=named):
            check_finite(as_images([clean, image], 2, -1))


def test_both_infinities_do_not_cancel():
    with pytest.raises(ValueError, match=r"X holds inf at \(\*pixel, channel\) \(0, 0, 0\)"):
        check_finite(as_images(np.array([[np.inf, -np.inf]]), 2, None))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_the_largest_value(dtype):
    largest = min(float(np.finfo(dtype).max), 1e18)
    for sign in (-1, 1):
        image = np.full((4, 5), sign * largest, dtype)
        check_finite(as_images(image, 2, None))
        if largest == 1e18:
            image[2, 3] *= 2
            with pytest.raises(ValueError, match=r"X holds -?[12]\S*e\+18 at .* \(2, 3, 0\); .* 1e\+18: rescale"):
                check_finite(as_images(image, 2, None))
            check_finite(as_images(image, 2, None), 2.1e18)


def test_large_integers_are_checked_too():
    check_finite(as_images(np.full((4, 5), 10**18), 2, None))
    with pytest.raises(ValueError, match=r"X holds 10000000000000000000 at .*rescale the image"):
        check_finite(as_images(np.full((4, 5), 10**19, np.uint64), 2, None))


def test_integers_are_not_looked_at():
    class Untouched(np.ndarray):
        def __getitem__(self, key):
            if isinstance(key, slice):
                pytest.fail("an integer image was read")
            return super().__getitem__(key)

    check_finite(as_images(np.zeros((4, 5), np.uint8).view(Untouched), 2, None))


def test_an_array_of_arrays_is_no_image():
    several = np.empty(2, object)
    several[:] = [np.zeros((9, 8)), np.zeros((7, 9))]
    message = r"X must hold real numbers, got dtype object; several arrays are a list: pass list\(X\)"
    for transformer in (dconv.PixelPosition(), dconv.MiniRocket(84, ndim=2), dconv.MiniRocket(84)):
        with pytest.raises(TypeError, match=message):
            transformer.fit(several)
    dconv.PixelPosition().fit(list(several))


@pytest.mark.filterwarnings("ignore:.*matrix subclass:PendingDeprecationWarning")
def test_subclasses_of_arrays_with_ways_of_their_own():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(12, 13))
    bank = dconv.DilatedConv(dconv.filters.gaussian(0.5))
    expected = bank.fit_transform(image)
    for array in (np.matrix(image), np.ma.masked_array(image, np.zeros(image.shape, bool))):
        result = bank.fit_transform(array)
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)
    probabilities = np.stack([image > 0, image <= 0], axis=-1) * 0.8 + 0.1
    crf = dconv.DenseCRF(n_iter=1)
    for nothing_masked in (np.ma.masked_array(image), np.ma.masked_less(image, -1e9)):
        np.testing.assert_array_equal(crf.refine(nothing_masked, probabilities), crf.refine(image, probabilities))


@pytest.mark.parametrize("channel_axis", [0, -1])
def test_map_of_an_image_is_read_in_parts(channel_axis, tmp_path, monkeypatch):
    monkeypatch.setattr(_validation, "_CHUNK", 1000)
    shape = (2, 90, 70) if channel_axis == 0 else (90, 70, 2)
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, shape)
    images = as_images(x, 2, channel_axis)
    check_finite(images)
    images.arrays[0][89, 69, 1] = np.nan
    sizes = []
    original = np.argwhere
    monkeypatch.setattr(np, "argwhere", lambda a: sizes.append(np.size(a)) or original(a))
    with pytest.raises(ValueError, match=r"X holds nan at \(\*pixel, channel\) \(89, 69, 1\)"):
        check_finite(images)
    assert max(sizes) <= 1000


# --- labels and weights ---


def test_labels_of_every_kind():
    for X, y in [
        (np.zeros((4, 5)), np.ones((4, 5), int)),
        (np.zeros((2, 4, 5)), np.ones((2, 4, 5), np.uint8)),
        ([np.zeros((4, 5)), np.zeros((3, 2))], [np.ones((4, 5), bool), np.ones((3, 2), int).tolist()]),
    ]:
        images = as_images(X, 2, None)
        labels = as_labels(y, images)
        assert [label.shape for label in labels] == images.spatial_shapes
        assert all(np.all(label == 1) for label in labels)


IMAGE, BATCH, LIST = np.zeros((4, 5)), np.zeros((2, 4, 5)), [np.zeros((4, 5)), np.zeros((3, 2))]


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (
            IMAGE,
            np.ones((5, 4), int),
            ValueError,
            r"y has shape \(5, 4\), but the image has spatial shape \(4, 5\); .*pixel$",
        ),
        (IMAGE, np.ones((4, 5)), TypeError, r"y must hold integer labels, got dtype float64; .*y.astype\(int\)"),
        (
            IMAGE,
            np.full((4, 5), "a"),
            TypeError,
            r"y must hold .* <U1; number the classes, as by 1 \+ numpy.unique",
        ),
        (LIST, [np.ones((4, 5), int)], ValueError, r"y has 1 image\(s\), but X has 2; pass one y image per image$"),
        (LIST, [np.ones((4, 5), int)] * 2, ValueError, r"y\[1\] has shape \(4, 5\), .* \(3, 2\)"),
        (LIST, [np.ones((4, 5), int), np.ones((3, 2))], TypeError, r"y\[1\] must hold integer labels"),
        (
            BATCH,
            np.ones((4, 5), int),
            ValueError,
            r"X is a batch of images, .* \(4, 5\).*taken for a batch of 2",
        ),
        (BATCH, np.ones((3, 4, 5), int), ValueError, r"y has 3 image\(s\), but X has 2; .*taken for a batch of 2"),
        (BATCH, np.ones((2, 4, 6), int), ValueError, r"y\[0\] has shape \(4, 6\), .*taken for a batch of 2 images"),
        (LIST, np.ones((64, 64), int), ValueError, r"y must be a list of 2 arrays, .* an array of shape \(64, 64\)"),
        (LIST, None, ValueError, "y must be a list of 2 arrays, .* but got None"),
        (LIST, 1, ValueError, "y must be a list of 2 arrays, .* but got 1"),
        (
            IMAGE,
            np.full((4, 5), np.nan),
            TypeError,
            "y must hold integer .*; give pixels that are NaN",
        ),
        (IMAGE, np.ma.masked_equal(np.eye(4, 5, dtype=int), 0), TypeError, r"pass y.filled\(ignore_label\)"),
    ],
)
def test_refused_labels(X, y, error, message):
    with pytest.raises(error, match=message):
        as_labels(y, as_images(X, 2, None))


def test_grey_images_taken_for_one_image_with_channels():
    with pytest.raises(ValueError, match=r"y has shape \(3, 9, 9\).*X was taken for one image of 9 channels"):
        as_labels(np.ones((3, 9, 9), int), as_images(np.zeros((3, 9, 9)), 2, -1))


def test_weights():
    images = as_images(LIST, 2, None)
    assert as_weights(None, images) is None
    weights = as_weights([np.ones((4, 5)), np.zeros((3, 2), int)], images)
    assert [weight.shape for weight in weights] == [(4, 5), (3, 2)]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_refused_weights(bad):
    weights = np.ones((4, 5))
    weights[2, 3] = bad
    with pytest.raises(ValueError, match="sample_weight must be finite and not negative"):
        as_weights(weights, as_images(IMAGE, 2, None))
    with pytest.raises(TypeError, match="sample_weight must hold real numbers, got dtype complex128"):
        as_weights(weights.astype(complex), as_images(IMAGE, 2, None))
