"""find_objects: what scikit-image measures of the same pixels, the same whatever the blocks, and what it refuses."""

import re

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops_table

from dconv import find_objects
from dconv.objects import Objects


def clouds(*shape, seed=0):
    """Return smooth random maps between 0 and 1."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), [2 if n > 3 else 0 for n in shape])
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def discs(*circles, shape=(60, 90)):
    """Return the probability 0.9 in discs (row, column, radius), 0.1 elsewhere."""
    rows, columns = np.indices(shape)
    inside = [(rows - y) ** 2 + (columns - x) ** 2 < radius**2 for y, x, radius in circles]
    return np.where(np.any(inside, axis=0), 0.9, 0.1)


# --- what is found ---


@pytest.mark.parametrize("shape", [(400,), (70, 90), (24, 30, 28)])
@pytest.mark.parametrize("full", [False, True])
def test_equals_scikit_image_where_nothing_is_split(shape, full):
    ndim, probability = len(shape), clouds(*shape)
    connectivity = ndim if full else 1
    table, labels = find_objects(
        probability, threshold=0.55, split="none", connectivity=connectivity, ndim=ndim, as_frame=False
    )
    expected = label(probability >= 0.55, connectivity=connectivity)
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int32
    if ndim == 1:
        return  # regionprops has no 1-D
    names = ("label", "area", "centroid", "bbox", "mean_intensity", "max_intensity")
    measured = regionprops_table(expected, probability, properties=names)
    assert len(measured["label"]) > 5
    for name, column in measured.items():
        own = {"mean_intensity": "mean_probability", "max_intensity": "max_probability"}.get(name, name)
        np.testing.assert_allclose(table.pop(own), column, rtol=1e-6)
    np.testing.assert_array_equal(table.pop("class"), 0)
    assert table == {}


def test_pixels_belong_to_the_most_probable_class_of_objects():
    probabilities = clouds(60, 70, 4)
    table, labels = find_objects(
        probabilities, threshold=0.5, split="none", background=[1, -4], class_names=list("abcd"), as_frame=False
    )
    best = np.where(probabilities[..., 2] >= probabilities[..., 3], 2, 3)
    classes = np.where(probabilities[..., 2:].max(axis=-1) >= 0.5, best, 0)
    np.testing.assert_array_equal(labels, label(classes, background=0, connectivity=1))
    assert set(table["class"]) == {2, 3}
    for number, found, name in zip(table["label"], table["class"], table["class_name"], strict=True):
        assert set(classes[labels == number]) == {found}
        assert name == "abcd"[found]
    mean = ndimage.mean(probabilities[..., 2:].max(axis=-1).astype(float), labels, table["label"])
    np.testing.assert_allclose(table["mean_probability"], mean, rtol=1e-6)


@pytest.mark.parametrize("distance", range(8, 32, 4))
def test_two_discs_are_parted_where_their_neck_is_narrow(distance):
    radius = 12
    probability = discs((30, 30, radius), (30, 30 + distance, radius))
    width = np.sqrt(max(0, 1 - (distance / (2 * radius)) ** 2))  # of the neck, as a share of a disc's
    for neck in (0.3, 0.6, 0.9):
        if abs(width - neck) < 0.1:
            continue  # too close for discs of pixels
        _, labels = find_objects(probability, neck=neck)
        assert labels.max() == (2 if width < neck else 1)
        np.testing.assert_array_equal(labels > 0, probability > 0.5)
        if labels.max() == 2:
            assert labels[30, 30] != labels[30, 30 + distance]
            halves = np.count_nonzero(labels == 1), np.count_nonzero(labels == 2)
            assert abs(halves[0] - halves[1]) <= 0.1 * sum(halves)


def test_balls_that_touch_are_parted():
    places = np.indices((24, 24, 44))
    centers = np.array([[12, 12, 12], [12, 12, 30]])
    inside = [((places - center[:, None, None, None]) ** 2).sum(axis=0) < 100 for center in centers]
    table, _ = find_objects(np.any(inside, axis=0), ndim=3, as_frame=False)
    np.testing.assert_allclose(np.stack([table[f"centroid-{axis}"] for axis in range(3)], axis=1), centers, atol=0.5)


def test_small_objects_are_left_out_and_none_are_made():
    probability = discs((30, 30, 14), (30, 49, 7), (10, 70, 5))
    sizes = np.bincount(find_objects(probability)[1].ravel())[1:]
    assert len(sizes) == 3
    small, middle, _ = np.sort(sizes)
    table, labels = find_objects(probability, min_size=int(small) + 1, as_frame=False)
    assert small < middle
    assert len(table["label"]) == 2
    assert labels[10, 70] == 0
    _, labels = find_objects(probability, min_size=int(middle) + 1)  # the smaller body is not cut off
    np.testing.assert_array_equal(labels, discs((30, 30, 14), (30, 49, 7)) > 0.5)


def test_an_object_whose_bodies_are_all_small_stays_whole():
    probability = discs((30, 30, 7), (30, 43, 7))
    assert find_objects(probability)[1].max() == 2
    np.testing.assert_array_equal(find_objects(probability, min_size=200)[1], probability > 0.5)
    # Nor does it upset the numbers of those that come after it: a pair that is parted, and a disc.
    more = discs((12, 12, 7), (12, 25, 7), (40, 14, 12), (40, 36, 12), (40, 70, 12))
    labels = find_objects(more, min_size=200)[1]
    assert [len(np.unique(labels[row][labels[row] > 0])) for row in (12, 40)] == [1, 3]
    assert labels.max() == 4


def test_threshold_is_reached_by_what_equals_it():
    assert find_objects(np.full((3, 4), 0.5), threshold=0.5)[1].all()
    assert not find_objects(np.full((3, 4), 0.5), threshold=np.nextafter(0.5, 1))[1].any()


@pytest.mark.parametrize("split", ["watershed", "none"])
def test_nothing_found_is_an_empty_table(split):
    for as_frame in (True, False):
        found = find_objects(np.zeros((8, 9, 3)), split=split, class_names=["a", "b", "c"], as_frame=as_frame)
        some = find_objects(np.ones((8, 9, 3)), split=split, class_names=["a", "b", "c"], as_frame=as_frame)
        assert isinstance(found, Objects)
        assert list(found.table) == list(some.table)
        assert [len(found.table[name]) for name in found.table] == [0] * len(list(some.table))
        assert [found.table[name].dtype for name in found.table] == [some.table[name].dtype for name in some.table]
        assert not found.labels.any()
        assert some.labels.all()


def test_table_is_a_frame_if_asked_for_or_if_there_is_pandas():
    pandas = pytest.importorskip("pandas")
    probability = discs((30, 30, 14), (30, 70, 9))
    columns, _ = find_objects(probability, as_frame=False)
    for as_frame in (True, "auto"):
        table, _ = find_objects(probability, as_frame=as_frame)
        pandas.testing.assert_frame_equal(table, pandas.DataFrame(columns))


def test_without_pandas(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert isinstance(find_objects(discs((30, 30, 9))).table, dict)
    with pytest.raises(ImportError, match="as_frame=True needs pandas"):
        find_objects(discs((30, 30, 9)), as_frame=True)


# --- blocks ---


@pytest.mark.parametrize("shape", [(90, 80), (90, 80, 3), (30, 28, 26)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("split", ["watershed", "none"])
def test_blocks_change_nothing(shape, full, split):
    ndim = 3 if shape[-1] == 26 else 2
    options = {"threshold": 0.55, "split": split, "connectivity": ndim if full else 1, "ndim": ndim, "min_size": 5}
    table, labels = find_objects(clouds(*shape), **options, as_frame=False)
    assert len(table["label"]) > 3
    for block_shape in (7, 16, (50, *(9,) * (ndim - 1))):
        tiled, tiled_labels = find_objects(clouds(*shape), **options, block_shape=block_shape, as_frame=False)
        np.testing.assert_array_equal(tiled_labels, labels)
        for name, column in table.items():
            np.testing.assert_array_equal(tiled[name], column)
            assert tiled[name].dtype == column.dtype


@pytest.mark.parametrize(
    ("shape", "connectivity"), [((40, 50), 1), ((40, 50), 2), ((14, 15, 16), 2), ((14, 15, 16), 3)]
)
def test_single_pixels_are_joined_over_corners_of_blocks(shape, connectivity):
    mask = np.random.default_rng(0).random(shape) < (0.3 if len(shape) == 2 else 0.1)
    expected = label(mask, connectivity=connectivity)
    for block_shape in (1, 3, 5):
        _, labels = find_objects(
            mask, split="none", connectivity=connectivity, ndim=len(shape), block_shape=block_shape
        )
        np.testing.assert_array_equal(labels, expected)


def test_one_object_over_everything():
    for block_shape in (None, 4):
        table, labels = find_objects(np.ones((20, 30)), block_shape=block_shape, as_frame=False)
        np.testing.assert_array_equal(labels, 1)
        assert [int(table[f"bbox-{i}"][0]) for i in range(4)] == [0, 0, 20, 30]


@pytest.mark.parametrize("with_classes", [False, True])
def test_zarr_in_and_out(tmp_path, with_classes):
    zarr = pytest.importorskip("zarr")
    probabilities = clouds(120, 90, 3) if with_classes else clouds(120, 90)
    expected, expected_labels = find_objects(probabilities, threshold=0.5, min_size=4, as_frame=False)
    chunks = (32, 40, 3)[: probabilities.ndim]
    stored = zarr.create_array(tmp_path / "p.zarr", data=probabilities, chunks=chunks)
    out = zarr.create_array(tmp_path / "labels.zarr", shape=(120, 90), chunks=(32, 40), dtype="int64")
    for block_shape in (None, (32, 40), 25):
        table, labels = find_objects(
            stored, threshold=0.5, min_size=4, out=out, block_shape=block_shape, as_frame=False
        )
        assert labels is out
        np.testing.assert_array_equal(out[:], expected_labels)
        for name, column in expected.items():
            np.testing.assert_array_equal(table[name], column)


class Watched:
    """An array that can only be read in parts, and keeps the largest."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.largest = array, array.shape, array.dtype, 0

    def __getitem__(self, box):
        part = self.array[box]
        self.largest = max(self.largest, part.size)
        return part


def test_dask_in():
    array = pytest.importorskip("dask.array")
    maps = np.random.default_rng(0).random((40, 50))
    table, labels = find_objects(array.from_array(maps, chunks=((7, 20, 13), 11)), as_frame=False)
    expected, whole = find_objects(maps, as_frame=False)
    np.testing.assert_array_equal(labels, whole)
    assert all(np.array_equal(column, expected[name]) for name, column in table.items())


def test_only_blocks_are_read():
    probability = clouds(200, 150)
    watched = Watched(probability)
    labels = find_objects(watched, block_shape=(20, 30)).labels
    assert watched.largest == 600
    np.testing.assert_array_equal(labels, find_objects(probability).labels)


# --- what comes in ---


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, np.float32, np.float64])
def test_dtypes_and_layouts_do_not_matter(dtype):
    mask = clouds(40, 50) > 0.5
    expected = find_objects(mask).labels
    array = mask.astype(dtype)
    for variant in (array, np.asfortranarray(array), array[::-1, ::-1].copy()[::-1, ::-1]):
        before = variant.copy()
        variant.flags.writeable = False
        np.testing.assert_array_equal(find_objects(variant).labels, expected)
        np.testing.assert_array_equal(variant, before)


GOOD = discs((30, 30, 9))
NAN = np.where(np.indices((6, 7)).sum(axis=0) == 5, np.nan, 0.5)


@pytest.mark.parametrize(
    ("probabilities", "options", "error", "message"),
    [
        (GOOD * 255, {}, ValueError, "probabilities must lie between 0 and 1, but at (0, 0) there is 25.5"),
        (-GOOD, {}, ValueError, "probabilities must lie between 0 and 1, but at (0, 0) there is -0.1"),
        (NAN, {"block_shape": 3}, ValueError, "between 0 and 1, but at (0, 5) there is nan"),
        (np.stack([GOOD, 2 * GOOD], -1), {}, ValueError, "between 0 and 1, but at (22, 26, 1) there is 1.8"),
        (GOOD * 1j, {}, TypeError, "probabilities must hold real numbers, got dtype complex128"),
        (np.ma.masked_less(GOOD, 0.5), {}, TypeError, "probabilities holds masked pixels"),
        (GOOD[0], {}, ValueError, "probabilities has shape (90,), but with ndim=2 it is one map of 2 axes"),
        (GOOD[None, None], {}, ValueError, "has shape (1, 1, 60, 90), but with ndim=2"),
        (GOOD[:0], {}, ValueError, "an axis of size 0 holds no pixels"),
        (GOOD, {"threshold": 0}, ValueError, "threshold must be above 0 and at most 1, but got 0"),
        (GOOD, {"threshold": "otsu"}, TypeError, "threshold must be a number, got 'otsu'"),
        (GOOD, {"threshold": np.nan}, ValueError, "threshold must be above 0 and at most 1, but got nan"),
        (GOOD, {"neck": 1.5}, ValueError, "neck must be above 0 and at most 1, but got 1.5"),
        (GOOD, {"min_size": 0}, ValueError, "min_size must be at least 1, but got 0"),
        (GOOD, {"min_size": 2.5}, TypeError, "min_size must be an int (no bool, no float), got 2.5"),
        (GOOD, {"split": "skeleton"}, ValueError, 'split must be "watershed" or "none", got \'skeleton\''),
        (GOOD, {"split": None}, ValueError, 'split must be "watershed" or "none", got None'),
        (GOOD, {"connectivity": 3}, ValueError, "connectivity=3 joins pixels along 3 axes at once, but ndim=2"),
        (GOOD, {"connectivity": 0}, ValueError, "connectivity must be at least 1, but got 0"),
        (GOOD, {"ndim": 4}, ValueError, "ndim must be 1, 2 or 3"),
        (GOOD, {"class_names": ["a", "b"]}, ValueError, "class_names has 2 name(s), but probabilities has 1 class(es)"),
        (GOOD, {"class_names": "coin"}, TypeError, "class_names must be None or a sequence of one name per class"),
        (GOOD[..., None], {}, ValueError, "background=0 leaves no class of objects"),
        (GOOD[..., None], {"background": 1}, ValueError, "background=1 names class 1, but probabilities has 1 classes"),
        (GOOD[..., None], {"background": 0.5}, TypeError, "background must be None, an int or a sequence of ints"),
        (GOOD, {"as_frame": "yes"}, ValueError, "as_frame must be True, False or \"auto\", got 'yes'"),
        (GOOD, {"block_shape": 0}, ValueError, "block_shape must be at least 1, but got (0, 0)"),
        (GOOD, {"block_shape": (3, 4, 5)}, ValueError, "block_shape must be an int or have one int for each of the 2"),
        (GOOD, {"out": np.empty((60, 9), int)}, ValueError, "out must have shape (60, 90) and integers of 32 bits"),
        (GOOD, {"out": np.empty((60, 90))}, ValueError, "integers of 32 bits or more, got (60, 90) and float64"),
        (GOOD, {"out": np.empty((60, 90), np.int16)}, ValueError, "integers of 32 bits or more"),
        (GOOD, {"out": "labels.npy"}, TypeError, "out must be an array that can be read and written by slices"),
        (GOOD, {"out": np.broadcast_to(0, GOOD.shape)}, ValueError, "out is read-only"),
        (GOOD, {"out": GOOD.view(np.int64)}, ValueError, "out must not overlap probabilities in memory"),
    ],
)
def test_bad_input_is_refused(probabilities, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        find_objects(probabilities, **options)
