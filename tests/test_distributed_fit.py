"""Fitting on dask arrays: the features and the model of one machine, and no pixels brought here."""

import numpy as np
import pytest
from images import BANK, TREES, Recorder, make_images
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.naive_bayes import GaussianNB

from dconv import AtrousFeatures, ContextClassifier, CustomFeatures, PixelClassifier, PixelPosition, make_features
from dconv.distributed import fit

da = pytest.importorskip("dask.array", reason="dask is optional")
import dask  # noqa: E402

from dconv._dask_engine import DaskArray, DaskEngine  # noqa: E402

IMAGES, SCRIBBLES = make_images()
OTHER = IMAGES[1][:30, :40]


def chunked(arrays, chunks=(20, 27)):
    return [da.from_array(array, chunks=chunks) for array in arrays]


def check_same(model, other, image=OTHER):
    assert_array_equal(other.classes_, model.classes_)
    if isinstance(model.classifier_, Recorder):
        for found, expected in zip(other.classifier_.seen_[:2], model.classifier_.seen_[:2], strict=True):
            assert_array_equal(found, expected)
    else:
        assert_array_equal(other.predict_proba(image), model.predict_proba(image))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr("dconv._dask_engine._BAND_BYTES", 3000)  # several bands of rows an image
    monkeypatch.setattr("dconv._pixels._CHUNK", 200)


@pytest.mark.parametrize(
    "new",
    [
        lambda: PixelClassifier(AtrousFeatures(3, normalize="image"), TREES),
        lambda: PixelClassifier(AtrousFeatures(3, normalize="training"), Recorder()),
        lambda: PixelClassifier(AtrousFeatures(2, normalize="auto"), Recorder(), max_samples=30, random_state=0),
        lambda: PixelClassifier(BANK, TREES, max_samples=30, sample="stratified", class_prior="data", random_state=0),
        lambda: PixelClassifier(make_features(AtrousFeatures(2), PixelPosition()), Recorder()),
        lambda: PixelClassifier(CustomFeatures(np.abs, halo=1), Recorder()),
        lambda: PixelClassifier(AtrousFeatures(2), TREES, distill=True, random_state=0),
        lambda: ContextClassifier(AtrousFeatures(2), GaussianNB(), cv=2, random_state=0),
        lambda: ContextClassifier(AtrousFeatures(2), TREES, n_stages=3, cv=2, distill=True, random_state=0),
    ],
)
def test_every_model(new):
    model = new().fit(IMAGES, SCRIBBLES)
    other = new()
    with dask.config.set(scheduler="threads"):
        assert fit(other, chunked(IMAGES), chunked(SCRIBBLES, (13, 50))) is other
    check_same(model, other)


@pytest.mark.parametrize("cls", [PixelClassifier, ContextClassifier])
def test_pixels_without_data_and_weights(cls):
    rng = np.random.default_rng(0)
    masks = [rng.random(image.shape) < 0.8 for image in IMAGES]
    holed = [np.where(rng.random(image.shape) < 0.8, image, np.nan) for image in IMAGES]
    weights = [rng.random(image.shape) for image in IMAGES]

    def new():
        return cls(AtrousFeatures(2, normalize="image"), TREES, nodata=-1, random_state=0)

    model = new().fit(holed, SCRIBBLES, weights, mask=masks)
    with dask.config.set(scheduler="threads"):
        found = fit(new(), chunked(holed), SCRIBBLES, chunked(weights), mask=[*chunked(masks[:2]), *masks[2:]])
    check_same(model, found, holed[0])


@pytest.mark.parametrize("channel_axis", [0, -1, None])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_dimension_and_batches(ndim, channel_axis):
    rng = np.random.default_rng(0)
    shape = (24, 30, 20)[:ndim]
    labels = rng.integers(0, 3, (2, *shape))
    images = (labels[..., np.newaxis] * [60, 20] + rng.integers(0, 50, (2, *shape, 2))).astype(np.uint16)
    images = images[..., 0] if channel_axis is None else np.moveaxis(images, -1, channel_axis + (channel_axis >= 0))

    def new():
        features = AtrousFeatures(2, normalize="training")
        return PixelClassifier(features, TREES, ndim=ndim, channel_axis=channel_axis)

    with dask.config.set(scheduler="sync"):
        batch = fit(new(), da.from_array(images, chunks=11), da.from_array(labels, chunks=7))
        one = fit(new(), da.from_array(images[0], chunks=11), da.from_array(labels[0], chunks=7))
    check_same(new().fit(images, labels), batch, images[0])
    check_same(new().fit(images[0], labels[0]), one, images[0])


def test_feature_images_and_lists_of_both():
    stacked = [np.stack([image, image**2], axis=-1) for image in IMAGES]
    model = PixelClassifier("passthrough", Recorder()).fit(stacked, SCRIBBLES)
    mixed = [da.from_array(stacked[0], chunks=17), *stacked[1:3], da.from_array(stacked[3], chunks=17)]
    with dask.config.set(scheduler="threads"):
        check_same(model, fit(PixelClassifier("passthrough", Recorder()), mixed, SCRIBBLES))


@pytest.mark.parametrize("cls", [PixelClassifier, ContextClassifier])
def test_images_in_memory_stay_here(cls, monkeypatch):
    sent = []
    map_boxes = DaskEngine.map_boxes

    def noting(self, function, common, shared, tasks):
        sent.extend(image for _, image, *_ in tasks)
        return map_boxes(self, function, common, shared, tasks)

    monkeypatch.setattr(DaskEngine, "map_boxes", noting)
    more = {"cv": 2} if cls is ContextClassifier else {}
    model, other = (cls(AtrousFeatures(2, normalize="image"), TREES, random_state=0, **more) for _ in range(2))
    with dask.config.set(scheduler="sync"):
        fit(other, [da.from_array(IMAGES[0], chunks=17), *IMAGES[1:3], da.from_array(IMAGES[3], chunks=17)], SCRIBBLES)
    assert sent
    assert all(isinstance(image, DaskArray) for image in sent)
    check_same(model.fit(IMAGES, SCRIBBLES), other)


def test_processes_of_a_cluster():
    distributed = pytest.importorskip("distributed", reason="the cluster of dask")
    model = ContextClassifier(AtrousFeatures(2, normalize="image"), TREES, cv=2, random_state=0).fit(IMAGES, SCRIBBLES)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        new = ContextClassifier(AtrousFeatures(2, normalize="image"), TREES, cv=2, random_state=0)
        check_same(model, fit(new, chunked(IMAGES), chunked(SCRIBBLES)))


def test_pixels_stay_where_they_are(monkeypatch):
    brought = []
    read = DaskArray._read

    def noting(self, box):
        part = read(self, box)
        brought.append(part.size)
        return part

    monkeypatch.setattr(DaskArray, "_read", noting)
    model = ContextClassifier(AtrousFeatures(2, normalize="image"), TREES, cv=2, random_state=0, max_samples=50)
    with dask.config.set(scheduler="threads"):
        fit(model, chunked([image.astype(float) for image in IMAGES]), chunked(SCRIBBLES))
    assert set(brought) == {1}  # the first pixel, about which variances are taken


@pytest.mark.parametrize("normalize", ["image", None])
def test_chunks_of_another_dtype_than_told_are_refused(normalize):
    model, image = PixelClassifier(AtrousFeatures(2, normalize=normalize), TREES), IMAGES[0]
    x = da.from_array(image, chunks=20).map_blocks(np.uint8, dtype=np.float32, meta=np.empty((0, 0), np.float32))
    with dask.config.set(scheduler="sync"), pytest.raises(TypeError, match=r"X.* its dtype is float32, but .* uint8"):
        fit(model, x, SCRIBBLES[0])
    y = da.from_array(SCRIBBLES[0], chunks=20).map_blocks(np.float64, dtype=int, meta=np.empty((0, 0), int))
    with dask.config.set(scheduler="sync"), pytest.raises(TypeError, match=r"y.* its dtype is int64, but .* float64"):
        fit(model, da.from_array(image, chunks=20), y)


class Whole(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, image):
        return np.asarray(image)[..., np.newaxis]


def test_refused():
    x, y = chunked(IMAGES[:2]), SCRIBBLES[:2]
    with pytest.raises(TypeError, match="estimator must be a PixelClassifier"):
        fit(TREES, x, y)
    with pytest.raises(TypeError, match="images must be a dask array or a list that holds some, got ndarray"):
        fit(PixelClassifier(BANK, TREES), IMAGES[0], SCRIBBLES[0])
    with pytest.raises(ValueError, match="images is an empty list"):
        fit(PixelClassifier(BANK, TREES), [], [])
    with pytest.raises(ValueError, match="would bring them all here"):
        fit(PixelClassifier(Whole(), TREES), x, y)
    with pytest.raises(ValueError, match="would bring them all here"):
        fit(PixelClassifier(CustomFeatures(Whole(), halo=0), TREES), x, y)
    with pytest.raises(ValueError, match="distill=False or nodata=None"):
        fit(PixelClassifier(BANK, TREES, distill=True, nodata=-1), x, y)
    circular = make_features(AtrousFeatures(2, padding_mode="circular"), PixelPosition())
    with dask.config.set(scheduler="threads"), pytest.raises(ValueError, match="see the other end"):
        fit(PixelClassifier(circular, TREES), x, y)
    spoilt = IMAGES[0].copy()
    spoilt[33, 9] = np.inf
    with dask.config.set(scheduler="threads"), pytest.raises(ValueError, match=r"X\[0\] holds inf at .* \(33, 9, 0\)"):
        fit(PixelClassifier(BANK, TREES), chunked([spoilt]), y[:1])
    with pytest.raises(ValueError, match=r"y\[1\] has shape") as caught:
        fit(PixelClassifier(BANK, TREES), x, [y[0], y[0]])
    assert caught.value.__notes__ == [
        "In distributed.fit `images` are what is called X, and `labels` what is called y."
    ]
    unknown = x[0][x[0][:, 0] > 0]
    with pytest.raises(ValueError, match=r"X\[0\] has shape .*compute_chunk_sizes"):
        fit(PixelClassifier(BANK, TREES), [unknown], y[:1])
    model = PixelClassifier(BANK, TREES)
    assert not hasattr(model, "classifier_")
