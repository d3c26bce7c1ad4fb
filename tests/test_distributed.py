"""Dask arrays: the bits of the whole image, on every scheduler, and when a worker is killed."""

import os
import signal
import sys
import time

import numpy as np
import pytest
from images import BANK, TREES, make_image, scribble
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier

import dconv
from dconv import AtrousFeatures, ContextClassifier, PixelClassifier
from dconv._intensity import intensity_of
from dconv.distributed import predict

da = pytest.importorskip("dask.array", reason="dask is optional")
import dask  # noqa: E402

IMAGE, LABELS = make_image((70, 90))
SCRIBBLES = scribble(LABELS)


def fitted(features=None, classifier=TREES, cls=PixelClassifier, image=IMAGE, labels=SCRIBBLES, **options):
    features = AtrousFeatures(3, normalize="image") if features is None else features
    return cls(features, classifier, **options).fit(image, labels)


@pytest.fixture(scope="module")
def model():
    return fitted()


@pytest.mark.parametrize("chunks", [(70, 90), (35, 30), (17, 90), (3, 4), ((40, 10, 20), (1, 80, 9))])
@pytest.mark.parametrize("proba", [False, True])
def test_every_chunking(model, chunks, proba):
    x = da.from_array(IMAGE, chunks=chunks)
    y = predict(model, x, proba=proba)
    expected = model.predict_proba(IMAGE) if proba else model.predict(IMAGE)
    assert (y.shape, y.dtype, y._meta.dtype, y._meta.ndim) == (
        expected.shape,
        expected.dtype,
        expected.dtype,
        expected.ndim,
    )
    reach = max(model.features_.halo_[0])
    for old, new in zip(x.chunks, y.chunks, strict=False):
        assert len(new) == 1 or min(new) >= reach
        assert set(np.cumsum(new)) <= set(np.cumsum(old))  # merged, not cut
        assert min(old) < reach or new == old
    computed = y.compute(scheduler="threads")
    assert computed.dtype == expected.dtype
    assert_array_equal(computed, expected)
    assert_array_equal(y[20:33, 41:60].compute(scheduler="sync"), expected[20:33, 41:60])


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("channel_axis", [None, 0, -1])
def test_dimensions_channels_and_batches(ndim, channel_axis):
    rng = np.random.default_rng(0)
    shape = (24, 30, 26)[:ndim]
    labels = rng.integers(0, 3, shape)
    image = (labels[..., np.newaxis] * [60, 20] + rng.integers(0, 50, (*shape, 2))).astype(np.uint16)
    image = image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis)
    model = fitted(
        AtrousFeatures(2, normalize="both"), image=image, labels=labels, ndim=ndim, channel_axis=channel_axis
    )
    assert_array_equal(predict(model, da.from_array(image, chunks=12)).compute(scheduler="sync"), model.predict(image))
    batch = np.stack([image, image[::-1] // 2])
    for proba in (False, True):
        y = predict(model, da.from_array(batch, chunks=13), proba)
        expected = model.predict_proba(batch) if proba else model.predict(batch)
        assert y.shape == expected.shape
        assert_array_equal(y.compute(scheduler="sync"), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"features": BANK},
        {"features": AtrousFeatures(3, padding_mode="symmetric")},
        {"features": AtrousFeatures(2, scheme="pyramid", padding_mode="zeros")},
        {"features": AtrousFeatures(2, normalize="training", padding_mode="edge")},
        {"features": AtrousFeatures(2), "distill": True, "random_state": 0},
        {"cls": ContextClassifier, "features": BANK, "classifier": LogisticRegression(max_iter=2000), "cv": 2},
        {"classifier": RidgeClassifier()},
    ],
    ids=["filters", "symmetric", "pyramid", "edge", "student", "cascade", "no probabilities"],
)
def test_every_model(options):
    model = fitted(**options)
    image, _ = make_image((120, 140), seed=3)
    y = predict(model, da.from_array(image, chunks=(40, 50)))
    assert_array_equal(y.compute(scheduler="threads"), model.predict(image))


@pytest.mark.parametrize("proba", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("cls", [PixelClassifier, ContextClassifier])
def test_pixels_without_data(proba, with_mask, cls):
    rng = np.random.default_rng(0)
    image, labels = make_image((620, 380))
    image[:, 20:160][rng.random((620, 140)) < 0.2] = np.nan
    image[30:340, 30:260] = np.nan  # more than filling sees: the mean of the image is left
    image[0, 0] = np.nan
    mask = rng.random(image.shape) < 0.9 if with_mask else None
    model = fitted(AtrousFeatures(2, normalize="image"), cls=cls, image=image, labels=labels, nodata=-1)
    expected = (model.predict_proba if proba else model.predict)(image, mask=mask)
    found = predict(model, da.from_array(image, chunks=310), proba=proba, mask=mask)
    assert max(found.numblocks) > 1
    assert_array_equal(found.compute(scheduler="threads"), expected)
    assert (expected == -1).any() or np.isnan(expected).any()


def test_masks_of_batches_and_channels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (2, 3, 40, 50)).astype(np.int32)
    labels, masks = rng.integers(0, 3, (2, 40, 50)), rng.random((2, 40, 50)) < 0.8
    model = fitted(AtrousFeatures(2), image=images, labels=labels, channel_axis=0, nodata=-1)
    expected = model.predict(images, mask=masks)
    found = predict(model, da.from_array(images, chunks=(1, 3, 20, 50)), mask=da.from_array(masks, chunks=30))
    assert_array_equal(found.compute(scheduler="sync"), expected)
    everything = predict(model, da.from_array(images, chunks=(1, 3, 20, 50)), mask=np.ones(masks.shape, bool))
    assert_array_equal(everything.compute(scheduler="sync"), model.predict(images))
    x = da.from_array(images[0], chunks=20)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 40\)"):
        predict(model, x, mask=np.ones((3, 40), bool))
    with pytest.raises(TypeError, match="mask must be boolean"):
        predict(model, x, mask=np.ones((40, 50)))
    with pytest.raises(ValueError, match="nodata=None"):
        predict(fitted(), da.from_array(IMAGE), mask=np.ones(IMAGE.shape, bool))


def test_a_crf_sees_what_is_around_a_chunk():
    image, labels = make_image((150, 170))
    crf = dconv.DenseCRF(n_iter=5, spatial_sigma=1, appearance_sigma=5, color_sigma=30)
    model = fitted(AtrousFeatures(1), image=image, labels=labels, refine=crf)
    found = predict(model, da.from_array(image, chunks=64))
    assert found.numblocks == (3, 3)
    whole = model.predict(image)
    computed = found.compute(scheduler="threads")
    assert (computed != whole).mean() < 1e-3
    assert_array_equal(computed, dconv.predict_blocks(model, image, np.empty(image.shape, "i8"), block_shape=64))
    assert_array_equal(predict(model, da.from_array(image, chunks=200)).compute(scheduler="sync"), whole)


def test_circular_features_need_one_chunk():
    model = fitted(AtrousFeatures(2, padding_mode="circular"))
    assert_array_equal(predict(model, da.from_array(IMAGE)).compute(), model.predict(IMAGE))
    with pytest.raises(ValueError, match=r"see the other end of an image, which here has \(2, 1, 1\) chunks"):
        predict(model, da.from_array(IMAGE, chunks=(35, 90)))


@pytest.mark.parametrize("shape", [(70, 90), (3000, 200), (40, 50, 60)])
def test_intensity_is_that_of_the_whole_image(shape, monkeypatch):
    from dconv import _dask_statistics

    image = np.random.default_rng(0).normal(1e3, 1, (*shape, 2)).astype(np.float32)
    monkeypatch.setattr("dconv._intensity._CHUNK", 10_000)
    monkeypatch.setattr("dconv._dask_statistics._BAND_BYTES", 300_000)
    x = da.from_array(image, chunks=33)
    assert _dask_statistics.intensity_of(x, None, None).compute(scheduler="sync") == intensity_of(image)


def test_nothing_is_computed_before_it_is_asked_for(model):
    def fail(block):
        if block.size:
            pytest.fail("a block was computed")
        return block

    predict(model, da.from_array(IMAGE, chunks=40).map_blocks(fail, dtype="f4", meta=np.empty((0, 0), "f4")))


def test_the_model_is_one_node_of_the_graph(model):
    graph = predict(model, da.from_array(IMAGE, chunks=20)).__dask_graph__()
    assert len([key for key in graph if str(key).startswith("dconv-model-")]) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0), (50, 60)])
def test_values_that_are_not_finite_spoil_no_block_that_holds_none(value, place):
    image = IMAGE.astype(np.float32)
    model = fitted(AtrousFeatures(2, normalize="image"), image=image)
    image[place] = value
    y = predict(model, da.from_array(image, chunks=40))
    with pytest.raises(ValueError, match=r"rows of x from row 0 on.*holds (nan|inf) at"):
        y[:30, 80:].compute(scheduler="sync")


def test_values_that_are_not_finite_are_told_with_their_block(model):
    image = IMAGE.copy()
    image[50, 60] = np.nan
    y = predict(fitted(AtrousFeatures(2)), da.from_array(image, chunks=(35, 45)))
    assert np.isfinite(y[:20, :20].compute()).all()
    with pytest.raises(ValueError, match=r"block of x that begins at \[\d+, \d+\].*holds nan"):
        y.compute()


@pytest.mark.parametrize("normalize", ["image", None])
def test_chunks_of_another_dtype_than_told_are_refused(normalize):
    """They would be worked on by rules for the dtype that is told."""
    model = fitted(AtrousFeatures(2, normalize=normalize))
    x = da.from_array(IMAGE, chunks=35).map_blocks(np.uint8, dtype=np.float32, meta=np.empty((0, 0), np.float32))
    with pytest.raises(TypeError, match="x says that its dtype is float32, but a chunk of it has uint8"):
        predict(model, x).compute(scheduler="sync")


class Whole(TransformerMixin, BaseEstimator):
    """A transformer of whole images."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.stack([X, X], axis=-1)


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (TypeError, {"estimator": TREES}, "estimator must be a PixelClassifier"),
        (NotFittedError, {"estimator": PixelClassifier()}, "not fitted"),
        (ValueError, {"estimator": lambda: fitted(Whole())}, "features of Whole are computed of whole images"),
        (ValueError, {"estimator": lambda: fitted(BANK, RidgeClassifier()), "proba": True}, "needs a classifier with"),
        (TypeError, {"x": IMAGE}, "x must be a dask array, got ndarray"),
        (TypeError, {"x": da.zeros((40, 40), dtype=complex)}, "x must hold real numbers"),
        (ValueError, {"x": da.zeros((2, 2, 40, 40))}, "x has 4 axes"),
        (ValueError, {"x": da.zeros((0, 40, 40))}, "a batch of no images"),
        (ValueError, {"x": da.zeros((0, 40))}, "holds no pixels"),
        (ValueError, {"x": da.zeros((4, 40))}, "axis 0 has 4 pixels, but at least 9"),
        (TypeError, {"proba": 1}, "proba must be True or False"),
        (ValueError, {"x": da.from_array(IMAGE)[da.from_array(IMAGE[:, 0]) > 0]}, "some of it unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(model, error, arguments, message):
    arguments = {"estimator": model, "x": da.from_array(IMAGE), **arguments}
    if arguments["estimator"] is not model and not isinstance(arguments["estimator"], BaseEstimator):
        arguments["estimator"] = arguments["estimator"]()
    with pytest.raises(error, match=message):
        predict(**arguments)


def test_other_numbers_of_channels_are_refused():
    model = fitted(BANK, image=np.stack([IMAGE] * 3, axis=-1), channel_axis=-1)
    with pytest.raises(ValueError, match="x has 2 channel"):
        predict(model, da.from_array(np.stack([IMAGE] * 2, axis=-1)))


def test_processes(model):
    y = predict(model, da.from_array(IMAGE, chunks=35))
    assert_array_equal(y.compute(scheduler="processes", num_workers=2), model.predict(IMAGE))


def slowly(block):
    time.sleep(0.2)
    return block


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.filterwarnings("ignore")  # of sockets and files that the killed process has left
def test_a_killed_worker_changes_nothing(tmp_path):
    """And what is written to Zarr is whole."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is optional")
    zarr = pytest.importorskip("zarr", reason="one of the stores")
    image, _ = make_image((400, 440), seed=1)
    model = fitted(AtrousFeatures(3, normalize="image"))
    source = zarr.create_array(tmp_path / "source.zarr", shape=image.shape, chunks=(50, 50), dtype="f4")
    source[...] = image
    out = zarr.create_array(tmp_path / "out.zarr", shape=image.shape, chunks=(50, 50), dtype="u1")
    folder = str(tmp_path / "workers")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 10, "distributed.worker.memory.terminate": False}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=folder
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2
        x = da.from_zarr(source).map_blocks(slowly, dtype="f4")
        y = predict(model, x)
        written = client.compute(da.store(y.astype("u1"), out, lock=False, compute=False))
        chunks = tmp_path / "out.zarr" / "c"
        deadline = time.monotonic() + 120
        while len([path for path in chunks.rglob("*") if path.is_file()]) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not written.done()
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        written.result(timeout=240)
        assert set(client.run(os.getpid).values()) != set(pids.values())  # one was killed, and started anew
    assert_array_equal(out[...], model.predict(image))
