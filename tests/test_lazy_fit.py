"""Images that are read when they are sliced or called: the fit of images in memory, in the memory of a few blocks."""

import tracemalloc

import numpy as np
import pytest
from images import BANK, TREES, Recorder, make_images, scribble
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.naive_bayes import GaussianNB

from dconv import (
    AtrousFeatures,
    ContextClassifier,
    CustomFeatures,
    DenseCRF,
    PixelClassifier,
    PixelPosition,
    make_features,
)
from dconv._intensity import intensity_of
from dconv._lazy_arrays import LastUsed, as_lazy
from dconv._pixels import PixelSet, pixel_set

IMAGES, SCRIBBLES = make_images()


class Sliced:
    """What has a shape and a dtype and gives arrays when it is sliced, and notes by which boxes it was."""

    def __init__(self, array, chunks=None, fails=lambda box: None):
        self.array, self.chunks, self.fails = array, chunks, fails
        self.shape, self.dtype, self.boxes = array.shape, array.dtype, []

    def __getitem__(self, key):
        box = tuple((part.start, part.stop) for part in (key if isinstance(key, tuple) else (key,)))
        self.boxes.append(box)
        error = self.fails(box)
        if error is not None:
            raise error
        return self.array[key]


def sliced(array, folder):
    return Sliced(array)


def called(array, folder):
    return lambda: array


def called_for_lists(array, folder):
    return lambda: array.tolist() if array.dtype.kind == "i" else array


def called_for_zarr(array, folder):
    return lambda: zarr_array(array, folder)


def memory_map(array, folder):
    path = folder / f"{id(array)}.npy"
    np.save(path, array)
    return lambda: np.load(path, mmap_mode="r")


def zarr_array(array, folder):
    zarr = pytest.importorskip("zarr", reason="one of the stores")
    chunks = tuple(max(1, size // 3) for size in array.shape)
    path = folder / f"{id(array)}.zarr"
    if path.exists():
        return zarr.open_array(path, mode="r")
    created = zarr.create_array(path, shape=array.shape, chunks=chunks, dtype=array.dtype)
    created[...] = array
    return created


def hdf5(array, folder):
    h5py = pytest.importorskip("h5py", reason="one of the stores")
    return h5py.File(folder / f"{id(array)}.h5", "w").create_dataset("data", data=array)


def dask_array(array, folder):
    da = pytest.importorskip("dask.array", reason="one of the stores")
    return da.from_array(array, chunks=tuple(max(1, size // 2) for size in array.shape))


KINDS = [sliced, called, called_for_lists, called_for_zarr, memory_map, zarr_array, hdf5, dask_array]


def lazily(kind, arrays, folder):
    return [kind(array, folder) for array in arrays]


@pytest.fixture(params=[1 << 21, 300], ids=["one region", "small regions"])
def regions(request, monkeypatch):
    monkeypatch.setattr("dconv._regions._REGION_PIXELS", request.param)


def check_same(model, lazy, other=IMAGES[1]):
    """Check that two fitted models are the same."""
    assert_array_equal(lazy.classes_, model.classes_)
    if hasattr(model, "predict_proba"):
        assert_array_equal(lazy.predict_proba(other), model.predict_proba(other))
    else:
        assert_array_equal(lazy.classifier_.seen_[0], model.classifier_.seen_[0])
        assert_array_equal(lazy.classifier_.seen_[1], model.classifier_.seen_[1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind, tmp_path):
    model = PixelClassifier(AtrousFeatures(3, normalize="image"), TREES).fit(IMAGES, SCRIBBLES)
    images, labels = lazily(kind, IMAGES, tmp_path), lazily(kind, SCRIBBLES, tmp_path)
    lazy = PixelClassifier(AtrousFeatures(3, normalize="image"), TREES).fit(images, labels)
    check_same(model, lazy)
    for found, expected in zip(lazy.predict(images), model.predict(IMAGES), strict=True):
        assert_array_equal(found, expected)
    assert lazy.score(images, labels) == model.score(IMAGES, SCRIBBLES)


@pytest.mark.parametrize(
    "new",
    [
        lambda: PixelClassifier(AtrousFeatures(3, normalize="training"), TREES),
        lambda: PixelClassifier(AtrousFeatures(3, normalize="auto"), Recorder()),
        lambda: PixelClassifier(BANK, Recorder(), max_samples=40, random_state=0),
        lambda: PixelClassifier(BANK, TREES, max_samples=40, sample="stratified", random_state=1, class_prior="data"),
        lambda: PixelClassifier(AtrousFeatures(2, scheme="pyramid"), Recorder()),
        lambda: PixelClassifier(AtrousFeatures(2, padding_mode="circular"), Recorder()),
        lambda: PixelClassifier(make_features(AtrousFeatures(2), PixelPosition()), Recorder()),
        lambda: PixelClassifier(CustomFeatures(np.abs, halo=1), Recorder()),
        lambda: PixelClassifier(CustomFeatures(np.abs), Recorder()),
        lambda: PixelClassifier(AtrousFeatures(2), TREES, distill=True, random_state=0),
        lambda: PixelClassifier(AtrousFeatures(2), TREES, refine=DenseCRF(n_iter=2)),
        lambda: ContextClassifier(AtrousFeatures(2), GaussianNB(), cv=2, random_state=0),
        lambda: ContextClassifier(AtrousFeatures(2), TREES, n_stages=3, cv=2, distill=True, random_state=0),
    ],
)
def test_every_model(new, regions, monkeypatch):
    model = new().fit(IMAGES, SCRIBBLES)
    monkeypatch.setattr("dconv._pixels._CHUNK", 500)  # what is drawn does not depend on how maps are gone through
    images, labels = lazily(sliced, IMAGES, None), lazily(called, SCRIBBLES, None)
    lazy = new().fit(images, labels)
    check_same(model, lazy)
    for found, expected in zip(lazy.predict(images), model.predict(IMAGES), strict=True):
        assert_array_equal(found, expected)
    assert lazy.score(images, labels) == pytest.approx(model.score(IMAGES, SCRIBBLES))


@pytest.mark.parametrize("channel_axis", [0, 1, -1, None])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_dimension(ndim, channel_axis, regions, tmp_path):
    rng = np.random.default_rng(0)
    shape = (24, 30, 20)[:ndim]
    labels = [scribble(rng.integers(1, 3, shape), 0.3, seed) for seed in range(2)]
    images = [(y[..., np.newaxis] * [60, 20] + rng.integers(0, 50, (*shape, 2))).astype(np.uint16) for y in labels]
    images = [image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis) for image in images]

    def new():
        return PixelClassifier(
            AtrousFeatures(2, normalize="training"), TREES, ndim=ndim, channel_axis=channel_axis, n_jobs=3
        )

    model = new().fit(images, labels)
    check_same(model, new().fit(lazily(zarr_array, images, tmp_path), lazily(hdf5, labels, tmp_path)), images[0])
    batch = new().fit(Sliced(np.stack(images)), Sliced(np.stack(labels)))
    check_same(model, batch, images[0])
    assert_array_equal(batch.predict(Sliced(np.stack(images))), np.stack(model.predict(images)))
    one = new().fit(Sliced(images[0]), Sliced(labels[0]))
    check_same(new().fit(images[0], labels[0]), one, images[1])
    assert_array_equal(one.predict(lambda: images[1]), one.predict(images[1]))


@pytest.mark.parametrize("kind", [PixelClassifier, ContextClassifier])
def test_pixels_without_data(kind, regions):
    rng = np.random.default_rng(0)
    masks = [rng.random(image.shape) < 0.8 for image in IMAGES]
    holed = [np.where(rng.random(image.shape) < 0.8, image, np.nan) for image in IMAGES]
    weights = [rng.random(image.shape) for image in IMAGES]

    def new():
        return kind(AtrousFeatures(2, normalize="image"), TREES, nodata=-1, random_state=0)

    model = new().fit(holed, SCRIBBLES, weights, mask=masks)
    lazy = new().fit(
        lazily(sliced, holed, None),
        lazily(called, SCRIBBLES, None),
        lazily(called, weights, None),
        mask=[*lazily(sliced, masks[:3], None), masks[3]],
    )
    check_same(model, lazy, holed[0])
    found = lazy.predict_proba(lazily(called, holed, None), mask=lazily(called, masks, None))
    for each, expected in zip(found, model.predict_proba(holed, mask=masks), strict=True):
        assert_array_equal(each, expected)


def test_feature_images_and_transformers_of_other_libraries(regions):
    class Doubled(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            self.seen_ = [type(image) for image in X]
            return self

        def transform(self, image):
            assert type(image) is np.ndarray
            return np.stack([image, 2 * image], axis=-1)

    for features in (Doubled(), CustomFeatures(Doubled(), halo=0)):
        model = PixelClassifier(features, Recorder()).fit(IMAGES, SCRIBBLES)
        lazy = PixelClassifier(features, Recorder()).fit(lazily(called, IMAGES, None), lazily(sliced, SCRIBBLES, None))
        check_same(model, lazy)
    assert set(PixelClassifier(Doubled(), Recorder()).fit(lazily(called, IMAGES, None), SCRIBBLES).features_.seen_) == {
        np.ndarray
    }
    stacked = [np.stack([image, image**2], axis=-1) for image in IMAGES]
    model = PixelClassifier("passthrough", Recorder()).fit(stacked, SCRIBBLES)
    check_same(model, PixelClassifier("passthrough", Recorder()).fit(lazily(sliced, stacked, None), SCRIBBLES))


def test_further_images_of_students():
    def new():
        return PixelClassifier(BANK, TREES, distill=True, random_state=0)

    model = new().fit(IMAGES[:2], SCRIBBLES[:2], X_unlabeled=IMAGES[2:])
    lazy = new().fit(lazily(called, IMAGES[:2], None), SCRIBBLES[:2], X_unlabeled=lazily(sliced, IMAGES[2:], None))
    check_same(model, lazy)


# --- what is read, and what is held ---


def test_each_region_is_read_once_with_what_is_seen_around_it(monkeypatch):
    monkeypatch.setattr("dconv._regions._REGION_PIXELS", 800)
    image = Sliced(IMAGES[0])
    labels = np.zeros((40, 50), int)
    labels[2, 3], labels[4, 30], labels[35, 5:8] = 1, 2, 1
    PixelClassifier(AtrousFeatures(2), Recorder()).fit([image], [labels])
    (left, right), _ = AtrousFeatures(2).fit(IMAGES[0]).halo_
    labelled = [((2, 3), (3, 4)), ((4, 5), (30, 31)), ((35, 36), (5, 8))]  # in three of the four regions
    around = [
        tuple((max(a - left, 0), min(b + right, size)) for (a, b), size in zip(box, (40, 50), strict=True))
        for box in labelled
    ]
    assert image.boxes[-3:] == around


def test_chunks_are_not_read_once_for_every_row():
    image = Sliced(IMAGES[0].astype(np.float64), chunks=(16, 16))
    PixelClassifier(AtrousFeatures(2, normalize="image"), TREES).fit([image], [SCRIBBLES[0]])
    assert len(image.boxes) <= 5  # values that are not finite, the first pixel, brightness, the one region


def test_images_that_are_called_are_not_kept():
    calls = []

    def loader(index):
        def load():
            calls.append(index)
            return IMAGES[index]

        return load

    PixelClassifier(BANK, TREES, n_jobs=1).fit([loader(index) for index in range(4)], SCRIBBLES)
    assert max(calls.count(index) for index in range(4)) <= 4
    kept = LastUsed()
    lazy = [as_lazy(loader(i), f"X[{i}]", i, kept, lambda found, name: found) for i in range(4)]
    for each in lazy:
        each[0:1]
    assert len(kept._kept) == 2


class Made:
    """Pixels that are made when they are asked for: noise, and labels at the corners of cells."""

    def __init__(self, side, dtype, labels):
        self.shape, self.dtype, self.labels = (side, side), np.dtype(dtype), labels

    def __getitem__(self, box):
        rows, columns = (np.arange(part.start, part.stop, dtype=np.uint32) for part in box)
        made = np.empty((len(rows), len(columns)), self.dtype)
        for row, out in zip(rows, made, strict=True):  # line by line, to take no memory besides
            mixed = (row * np.uint32(40503) ^ columns * np.uint32(2654435761)) >> np.uint32(16)
            few = (row < 1000) & (columns < 1000) & (mixed % 512 == 0)
            out[...] = np.where(few, 1 + (mixed >> 9 & 1), 0) if self.labels else mixed & 255
        return made


@pytest.mark.parametrize("kind", [PixelClassifier, ContextClassifier])
def test_memory_does_not_grow_with_images(kind, monkeypatch):
    monkeypatch.setattr("dconv._lazy_arrays._BAND_BYTES", 1 << 22)
    monkeypatch.setattr("dconv._memory._LIMIT", 0)  # what is kept for later, of as many sizes as blocks have

    def peak(n_images, side):
        images, labels = ([Made(side, dtype, bool(i)) for _ in range(n_images)] for i, dtype in enumerate(("f4", "u1")))
        model = kind(AtrousFeatures(2, normalize="training"), GaussianNB(), n_jobs=1, random_state=0)
        tracemalloc.start()
        model.fit(images, labels)
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    small, large = peak(2, 1024), peak(4, 3000)  # 8 MB and 144 MB of pixels; the features of these would be 3.9 GB
    assert large < small + 6e7  # some regions of 8 MB


# --- what fails ---


def test_refused():
    def missing():
        raise FileNotFoundError("there is no slide.tif")

    model = PixelClassifier(BANK, TREES)
    with pytest.raises(OSError, match=r"X\[1\] cannot be read: calling it raised FileNotFoundError: there is no"):
        model.fit([IMAGES[0], missing], SCRIBBLES[:2])
    with pytest.raises(OSError, match=r"y\[0\] cannot be read"):
        model.fit(IMAGES[:1], [missing])
    with pytest.raises(TypeError, match=r"X\[0\] must hold real numbers, got dtype object"):
        model.fit([lambda: None], SCRIBBLES[:1])
    with pytest.raises(ValueError, match=r"y\[1\] has shape \(30, 44\), but the image has spatial shape \(40, 50\)"):
        model.fit([called(IMAGES[0], None)] * 2, [SCRIBBLES[0], called(SCRIBBLES[1], None)])
    with pytest.raises(TypeError, match=r"y\[0\] must hold integer labels, got dtype float32"):
        model.fit([Sliced(IMAGES[0])], [Sliced(IMAGES[0])])
    with pytest.raises(ValueError, match=r"X\[0\] has 3 axes"):
        model.fit([Sliced(np.zeros((4, 5, 6)))], SCRIBBLES[:1])
    spoilt = IMAGES[0].copy()
    spoilt[7, 9] = np.nan
    with pytest.raises(ValueError, match=r"X\[0\] holds nan at \(\*pixel, channel\) \(7, 9, 0\)"):
        model.fit([Sliced(spoilt)], SCRIBBLES[:1])
    broken = Sliced(IMAGES[0], fails=lambda box: OSError("bad sector") if box[0][1] - box[0][0] > 20 else None)
    with pytest.raises(OSError, match=r"block \[.*\] of X\[0\] cannot be read: OSError: bad sector"):
        PixelClassifier(AtrousFeatures(2), TREES).fit([broken], SCRIBBLES[:1])
    answers = iter([IMAGES[0], IMAGES[1], IMAGES[1], IMAGES[1]])
    changing = [lambda: next(answers), called(IMAGES[1], None), called(IMAGES[2], None)]
    with pytest.raises(OSError, match=r"X\[0\] cannot be read.*must return the same whenever"):
        model.fit(changing, SCRIBBLES[:3])
    assert not hasattr(model, "classifier_")


def test_what_gives_other_sizes_than_asked_for_is_refused():
    class Odd(Sliced):
        def __getitem__(self, key):
            return self.array

    with pytest.raises(OSError, match=r"of X\[0\] cannot be read: TypeError: slicing it by .* returned an array of"):
        PixelClassifier(BANK, TREES).fit([Odd(IMAGES[0])], [np.where(np.indices((40, 50))[0] == 7, SCRIBBLES[0], 0)])


def test_what_gives_another_dtype_than_it_says_is_refused():
    spoilt = IMAGES[0].copy()
    spoilt[7, 9] = np.nan  # which would pass as an image of integers
    image, labels = Sliced(spoilt), Sliced(SCRIBBLES[0] + 0.5)
    image.dtype = labels.dtype = np.dtype(np.uint8)
    with pytest.raises(OSError, match=r"X\[0\] cannot be read: .*its dtype is uint8, but .*float32"):
        PixelClassifier(BANK, TREES).fit([image], [SCRIBBLES[0]])
    with pytest.raises(OSError, match=r"y\[0\] cannot be read: .*its dtype is uint8, but .*float64"):
        PixelClassifier(BANK, TREES).fit([IMAGES[0]], [labels])


# --- sets of pixels ---


@pytest.mark.parametrize("shape", [(50,), (12, 17), (6, 7, 8)])
def test_sets_of_pixels_are_masks(shape):
    rng = np.random.default_rng(0)
    mask = rng.random(shape) < 0.3
    pixels = pixel_set(mask)
    assert_array_equal(np.asarray(pixels), mask)
    assert_array_equal(np.stack(pixels.coordinates()), np.stack(np.nonzero(mask)))
    numbers = np.full(shape, -1)
    numbers[mask] = np.arange(mask.sum())
    for _ in range(30):
        bounds = [np.sort(rng.integers(0, size + 1, 2)) for size in shape]
        box = tuple(slice(int(a), int(b)) for a, b in bounds)
        assert_array_equal(pixels[box], mask[box])
        assert_array_equal(pixels.ranks(box), numbers[box][mask[box]])
        assert_array_equal(np.asarray(pixels.crop(box)), mask[box])
    assert_array_equal(pixels[2:5], mask[2:5])
    assert pixels.n_pixels == mask.sum()
    assert PixelSet(shape, np.empty(0, int)).n_pixels == 0


@pytest.mark.parametrize(("normalize", "dtype", "times"), [("auto", "f4", 2), ("image", "f4", 2), ("auto", "u1", 1)])
def test_an_image_is_gone_through_as_seldom_as_can_be(normalize, dtype, times):
    """Once for its brightness, and for values that are not finite if there can be some; and for nothing twice."""
    image = np.clip(IMAGES[0], 0, 255).astype(dtype)
    source, labels = Sliced(image), np.zeros(image.shape, int)
    labels[2, 2], labels[3, 3] = 1, 2
    PixelClassifier(AtrousFeatures(1, normalize=normalize), GaussianNB()).fit([source], [labels])
    read = sum(np.prod([stop - start for start, stop in box]) for box in source.boxes)
    assert times * image.size <= read < (times + 0.5) * image.size  # and what is seen around the two labels


def test_images_without_labels_are_not_looked_at_for_their_brightness(monkeypatch):
    asked = []
    monkeypatch.setattr("dconv.features.intensity_of", lambda image: asked.append(image.shape) or intensity_of(image))
    masks = [SCRIBBLES[0], np.zeros_like(SCRIBBLES[1]), SCRIBBLES[2]]
    model = PixelClassifier(AtrousFeatures(2, normalize="image"), TREES).fit(list(IMAGES[:3]), masks)
    assert len(asked) == 2
    asked.clear()
    model.fit(list(IMAGES[:3]), masks)  # features of all pixels are known
    assert asked == []
