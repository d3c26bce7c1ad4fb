"""Images in blocks: the bits of the whole image, whatever they are stored in; runs that were killed; errors."""

import errno
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from images import BANK, TREES, make_image, scribble
from numpy.testing import assert_array_equal
from processes import output
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB

import dconv
from dconv import AtrousFeatures, ContextClassifier, PixelClassifier, predict_blocks
from dconv._blocks import PADDING_MODES

IMAGE, LABELS = make_image((70, 90))
SCRIBBLES = scribble(LABELS)
EXPECTED_MODEL = PixelClassifier(AtrousFeatures(3, normalize="image"), TREES).fit(IMAGE, SCRIBBLES)


def fitted(features=BANK, classifier=TREES, cls=PixelClassifier, image=IMAGE, labels=SCRIBBLES, **options):
    return cls(features, classifier, **options).fit(image, labels)


class Recorded:
    """An array that notes which boxes are read from and written to it, and may fail at some."""

    def __init__(self, array, chunks=None, fails=lambda box: None):
        self.array, self.chunks, self.fails = array, chunks, fails
        self.shape, self.dtype = array.shape, array.dtype
        self.boxes = []

    def note(self, key):
        box = tuple((part.start, part.stop) for part in key)
        self.boxes.append(box)
        error = self.fails(box)
        if error is not None:
            raise error

    def __getitem__(self, key):
        self.note(key)
        return self.array[key]

    def __setitem__(self, key, value):
        self.note(key)
        self.array[key] = value


# --- the same bits ---


def memory_map(tmp_path, name, shape, dtype, chunks):
    return np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", dtype, shape)


def zarr_array(tmp_path, name, shape, dtype, chunks):
    zarr = pytest.importorskip("zarr", reason="one of the stores")
    return zarr.create_array(tmp_path / f"{name}.zarr", shape=shape, chunks=chunks, dtype=dtype)


def zarr_shards(tmp_path, name, shape, dtype, chunks):
    zarr = pytest.importorskip("zarr", reason="one of the stores")
    shards = tuple(2 * chunk for chunk in chunks)
    return zarr.create_array(tmp_path / f"{name}.zarr", shape=shape, chunks=chunks, shards=shards, dtype=dtype)


def hdf5(tmp_path, name, shape, dtype, chunks):
    h5py = pytest.importorskip("h5py", reason="one of the stores")
    return h5py.File(tmp_path / f"{name}.h5", "w").create_dataset("data", shape, dtype, chunks=chunks)


def tiff(tmp_path, name, shape, dtype, chunks):
    tifffile = pytest.importorskip("tifffile", reason="one of the stores")
    return tifffile.memmap(tmp_path / f"{name}.tif", shape=shape, dtype=dtype)


def in_memory(tmp_path, name, shape, dtype, chunks):
    return np.empty(shape, dtype)


@pytest.mark.parametrize("store", [in_memory, memory_map, zarr_array, zarr_shards, hdf5, tiff])
@pytest.mark.parametrize("proba", [False, True])
def test_every_store(tmp_path, store, proba):
    source = store(tmp_path, "source", IMAGE.shape, "f4", (17, 31))
    source[...] = IMAGE
    shape = IMAGE.shape + (2,) * proba
    out = store(tmp_path, "out", shape, "f4" if proba else "u1", (16, 24) + (1,) * proba)
    assert predict_blocks(EXPECTED_MODEL, source, out, proba=proba, block_shape=(32, 48)) is out
    expected = EXPECTED_MODEL.predict_proba(IMAGE) if proba else EXPECTED_MODEL.predict(IMAGE)
    assert_array_equal(np.asarray(out[...]), expected)
    assert [path.name for path in tmp_path.iterdir() if "journal" in path.name] == []


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("block_shape", [(7, 90), 16, None])
def test_every_border(mode, block_shape):
    model = fitted(AtrousFeatures(3, padding_mode=mode))
    out = predict_blocks(model, IMAGE, np.empty(IMAGE.shape, "i8"), block_shape=block_shape)
    assert_array_equal(out, model.predict(IMAGE))


@pytest.mark.parametrize(
    "model",
    [
        lambda: fitted(cls=ContextClassifier, classifier=LogisticRegression(max_iter=2000), cv=2),
        lambda: fitted(cls=ContextClassifier, cv=2, n_stages=3),
        lambda: fitted(cls=ContextClassifier, cv=2, n_stages=1),
        lambda: fitted(AtrousFeatures(3, scheme="pyramid")),
        lambda: fitted(AtrousFeatures(2), distill=True, random_state=0),
        lambda: fitted(BANK, GaussianNB()),
        lambda: fitted(AtrousFeatures(2, normalize="training"), RidgeClassifier()),
    ],
    ids=["cascade", "three stages", "one stage", "pyramid", "student", "filters", "no probabilities"],
)
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_every_model(model, n_jobs):
    model = model()
    image, _ = make_image((70, 90), seed=5)
    out = predict_blocks(model, image, np.empty(image.shape, "i8"), block_shape=(24, 40), n_jobs=n_jobs)
    assert_array_equal(out, model.predict(image))


@pytest.mark.parametrize("channel_axis", [0, 1, -1, None])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_dimension(ndim, channel_axis):
    rng = np.random.default_rng(0)
    shape = (24, 30, 20)[:ndim]
    labels = rng.integers(0, 3, shape)
    image = (labels[..., np.newaxis] * [60, 20] + rng.integers(0, 50, (*shape, 2))).astype(np.uint16)
    image = image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis)
    features = AtrousFeatures(2, normalize="image")
    model = fitted(features, image=image, labels=labels, ndim=ndim, channel_axis=channel_axis)
    out = predict_blocks(model, image, np.empty((*shape, 2), "f4"), block_shape=8, proba=True)
    assert_array_equal(out, model.predict_proba(image))


def test_feature_images():
    image = np.stack([IMAGE, IMAGE[::-1]], axis=-1)
    model = fitted("passthrough", image=image)
    out = predict_blocks(model, image, np.empty(IMAGE.shape, "i8"), block_shape=32)
    assert_array_equal(out, model.predict(image))


def test_a_read_only_source_and_no_change_to_it():
    image = IMAGE.copy()
    image.flags.writeable = False
    predict_blocks(EXPECTED_MODEL, image, np.empty(IMAGE.shape, "i8"), block_shape=32)
    assert_array_equal(image, IMAGE)


@pytest.mark.parametrize("proba", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("kind", [PixelClassifier, ContextClassifier])
def test_pixels_without_data(tmp_path, proba, with_mask, kind):
    rng = np.random.default_rng(0)
    image, labels = make_image((150, 170))
    image[:, 20:160][rng.random((150, 140)) < 0.2] = np.nan
    image[30:140, 30:150] = np.nan  # more than filling sees: the mean of the image is left
    mask = rng.random(image.shape) < 0.9 if with_mask else None
    model = fitted(AtrousFeatures(2, normalize="image"), cls=kind, image=image, labels=labels, nodata=-1)
    out = np.empty(image.shape + (2,) * proba, "f4" if proba else "i2")
    stored = None if mask is None else memory_map(tmp_path, "mask", mask.shape, bool, None)
    if stored is not None:
        stored[...] = mask
    expected = (model.predict_proba if proba else model.predict)(image, mask=mask)
    source = Recorded(image)
    assert_array_equal(predict_blocks(model, source, out, mask=stored, block_shape=32, proba=proba), expected)
    assert (expected == -1).any() or np.isnan(expected).any()
    assert all(b - a <= 32 + 2 * (model._box_answers("predict").margin[0][0] + 62) for a, b in source.boxes[-1])


def test_a_mask_of_an_image_of_integers(tmp_path):
    image = np.clip(IMAGE, 0, 255).astype(np.uint8)
    mask = np.indices(IMAGE.shape)[1] < 60
    model = fitted(image=image, nodata=0)
    out = predict_blocks(model, image, np.empty(IMAGE.shape, "u1"), mask=mask, block_shape=16)
    assert_array_equal(out, model.predict(image, mask=mask))
    assert_array_equal(predict_blocks(model, image, np.empty(IMAGE.shape, "u1")), model.predict(image))
    everything = predict_blocks(model, image, np.empty(IMAGE.shape, "u1"), mask=np.ones(IMAGE.shape, bool))
    assert_array_equal(everything, model.predict(image))


def test_masks_refused():
    holed = np.where(np.indices(IMAGE.shape)[0] < 5, np.nan, IMAGE)
    with pytest.raises(ValueError, match="nodata=None"):
        predict_blocks(EXPECTED_MODEL, IMAGE, np.empty(IMAGE.shape, "i8"), mask=np.ones(IMAGE.shape, bool))
    with pytest.raises(ValueError, match="holds nan"):
        predict_blocks(EXPECTED_MODEL, holed, np.empty(IMAGE.shape, "i8"))
    model = fitted(nodata=-1)
    with pytest.raises(ValueError, match=r"dtype uint8, which cannot hold the classes \[1, 2, -1\]"):
        predict_blocks(model, holed, np.empty(IMAGE.shape, "u1"))
    with pytest.raises(ValueError, match="mask has shape"):
        predict_blocks(model, IMAGE, np.empty(IMAGE.shape, "i8"), mask=np.ones((3, 4), bool))
    with pytest.raises(TypeError, match="mask must be boolean"):
        predict_blocks(model, IMAGE, np.empty(IMAGE.shape, "i8"), mask=np.ones(IMAGE.shape))


def test_another_mask_is_refused(tmp_path):
    model = fitted(nodata=-1)
    mask = np.indices(IMAGE.shape)[1] < 60
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.int16, IMAGE.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dconv._journal.Journal.remove", lambda self: None)
        predict_blocks(model, IMAGE, out, mask=mask, block_shape=16)
    with pytest.raises(ValueError, match="another mask"):
        predict_blocks(model, IMAGE, out, mask=~mask, block_shape=16)


class OtherCRF(BaseEstimator):
    """Refines, but whole images alone."""

    def __init__(self, ndim=2, channel_axis=None, n_jobs=None):
        self.ndim, self.channel_axis, self.n_jobs = ndim, channel_axis, n_jobs

    def refine(self, image, probabilities):
        return probabilities


@pytest.mark.parametrize("kind", [PixelClassifier, ContextClassifier])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_crf_sees_what_is_around_a_block(kind, ndim):
    shape = {1: (1500,), 2: (150, 170), 3: (40, 36, 44)}[ndim]
    image, labels = make_image(shape)
    crf = dconv.DenseCRF(n_iter=5, spatial_sigma=3 if ndim == 1 else 1, appearance_sigma=5, color_sigma=30)
    model = fitted(AtrousFeatures(1), cls=kind, image=image, labels=labels, refine=crf, ndim=ndim)
    plain = fitted(AtrousFeatures(1), cls=kind, image=image, labels=labels, ndim=ndim)
    whole = model.predict_proba(image)
    one_block = predict_blocks(model, image, np.empty(whole.shape, "f4"), proba=True)
    assert_array_equal(one_block, whole)
    sides = {1: 300, 2: 64, 3: 20}[ndim]
    blocks = predict_blocks(model, image, np.empty(whole.shape, "f4"), proba=True, block_shape=sides)
    assert (blocks.argmax(axis=-1) != whole.argmax(axis=-1)).mean() < 1e-3
    assert np.abs(blocks - whole).mean() < 1e-3
    assert np.abs(plain.predict_proba(image) - whole).mean() > 1e-2  # it does something
    found = predict_blocks(model, image, np.empty(shape, "i8"), block_shape=sides)
    assert_array_equal(found, model.classes_[blocks.argmax(axis=-1)])


def test_a_crf_beside_pixels_without_data():
    holed = np.where(np.indices(IMAGE.shape)[1] % 30 < 4, np.nan, IMAGE)
    model = fitted(AtrousFeatures(2), image=holed, labels=LABELS, nodata=-1, refine=dconv.DenseCRF(n_iter=2))
    out = predict_blocks(model, holed, np.empty(IMAGE.shape, "i8"))
    assert_array_equal(out, model.predict(holed))


# --- which blocks are read and written ---


def test_chunks_are_written_once_and_blocks_read_with_the_exact_halo():
    model = fitted(AtrousFeatures(2))
    source, out = Recorded(IMAGE), Recorded(np.empty(IMAGE.shape, "i8"), chunks=(16, 20))
    predict_blocks(model, source, out, block_shape=(32, 40))
    assert_array_equal(out.array, model.predict(IMAGE))
    starts = [(row, column) for row in (0, 32, 64) for column in (0, 40, 80)]
    assert out.boxes == [((r, min(r + 32, 70)), (c, min(c + 40, 90))) for r, c in starts]
    (left, right), halos = model.features_.halo_[0], []
    for (r0, r1), (c0, c1) in out.boxes:
        halos.append(((max(r0 - left, 0), min(r1 + right, 70)), (max(c0 - left, 0), min(c1 + right, 90))))
    assert source.boxes[-len(halos) :] == halos  # and the pixels between them come from what has been read


def test_blocks_are_whole_chunks_of_a_bounded_size():
    from dconv._outputs import block_shape_for

    halo = ((94, 94),) * 2
    for chunks in ((1024, 1024), (100, 3000), (1, 70_000)):
        block = block_shape_for(None, Recorded(np.empty((1, 1)), chunks), (60_000, 70_000), halo, 3)
        assert all(side % chunk == 0 for side, chunk in zip(block, chunks, strict=True))
        assert 2**19 < np.prod(block) < 2**23
    block = block_shape_for(None, np.empty(0), (4000,) * 3, ((20, 20),) * 3, 40)
    assert 2**26 < np.prod([side + 40 for side in block]) * 40 <= 2**27
    assert 2**16 < np.prod(block_shape_for(None, np.empty(0), (4000,) * 3, ((94, 94),) * 3, 40)) <= 2**18
    with pytest.raises(
        ValueError, match=r"block_shape=\(30, 40\) cuts the chunks \(16, 20\).*use block_shape=\(32, 40\)"
    ):
        predict_blocks(EXPECTED_MODEL, IMAGE, Recorded(np.empty(IMAGE.shape, "i8"), (16, 20)), block_shape=(30, 40))


# --- runs that were killed ---

RUN = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from images import TREES, make_image, scribble
import dconv
from dconv import _journal, tiling

if sys.argv[2] == "zarr":
    import zarr
elif sys.argv[2] == "h5":
    import h5py
folder, kind, moments = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
packed = {"compression": "gzip"}
image, labels = make_image((70, 90))
model = dconv.PixelClassifier(dconv.AtrousFeatures(3, normalize="image"), TREES).fit(image, scribble(labels))

def run(folder, moment, count):
    if kind == "zarr":
        out = zarr.open_array(f"{folder}/out.zarr", mode="a", shape=image.shape, chunks=(16, 16), dtype="u1")
    elif kind == "h5":
        out = h5py.File(folder / "out.h5", "a").require_dataset("labels", image.shape, "u1", chunks=(16, 16), **packed)
    else:
        new = not (folder / "out.npy").exists()
        shape = image.shape if new else None
        out = np.lib.format.open_memmap(folder / "out.npy", "w+" if new else "r+", np.uint8, shape)
    if moment is not None:
        die(*moment.split(), count)
    written = []
    write = tiling._write_block
    def noting(out, box, found):
        written.append(1)
        write(out, box, found)
    tiling._write_block = noting
    tiling.predict_blocks(model, image, out, block_shape=16, progress=False)
    if kind == "h5":
        out.file.close()
    (folder / "written").write_text(str(len(written)))

def die(name, when, count):
    module = _journal.Journal if name == "add" else tiling
    function = getattr(module, name)
    calls = 0
    def dying(*arguments):
        nonlocal calls
        calls += 1
        last = calls == count
        if last and when == "half":
            if name == "add":
                with open(arguments[0].path, "a") as file:
                    file.write('["0:16, 0:1')
            else:
                box = arguments[1]
                function(arguments[0], (slice(box[0].start, box[0].start + 3), *box[1:]), arguments[2][:3])
        if last and when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        function(*arguments)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, dying)

def in_a_process(*arguments):
    # Of its own: a copy of this one, which has imported all that takes long.
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        run(*arguments)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

for number, moment in enumerate(moments):
    place = folder / str(number)
    place.mkdir()
    killed = in_a_process(place, moment, 11)
    journals = [path.name for path in place.glob("*.dconv-journal")]
    ended = in_a_process(place, None, 0)
    left = [path.name for path in place.glob("*.dconv-journal")]
    print(json.dumps([killed, journals, ended, left]))
"""

MOMENTS = [f"{name} {when}" for name in ("_write_block", "add") for when in ("before", "half", "after")]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("kind", ["npy", "zarr", "h5"])
def test_a_killed_run_is_continued(tmp_path, kind):
    """In a process of its own, killed at each of several moments of the 11th block of 30, and another that goes on."""
    store = None if kind == "npy" else pytest.importorskip({"h5": "h5py"}.get(kind, kind), reason="one of the stores")
    environment = {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    lines = output(RUN, tmp_path, kind, json.dumps(MOMENTS), **environment).splitlines()
    expected = EXPECTED_MODEL.predict(IMAGE)
    assert len(lines) == len(MOMENTS)
    for number, (moment, line) in enumerate(zip(MOMENTS, lines, strict=True)):
        killed, journals, ended, left = json.loads(line)
        assert killed == signal.SIGKILL, moment
        assert journals == [f"out.{kind}{'.labels' * (kind == 'h5')}.dconv-journal"]
        assert (ended, left) == (0, []), moment
        place = tmp_path / str(number)
        assert int((place / "written").read_text()) == (19 if moment == "add after" else 20), moment
        if kind == "npy":
            out = np.load(place / "out.npy")
        else:
            out = store.File(place / "out.h5")["labels"][:] if kind == "h5" else store.open(place / "out.zarr")[:]
        assert_array_equal(out, expected, moment)


class Stop(Exception):
    pass


def stopped(tmp_path, model=EXPECTED_MODEL, source=IMAGE, **options):
    """Return a memory map of which a run has finished some blocks, and the call that continues it."""
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.uint8, IMAGE.shape)

    def run(model=model, source=source, **changed):
        return predict_blocks(model, source, out, **{"block_shape": 16, "progress": False, **options, **changed})

    with pytest.MonkeyPatch.context() as patch:
        write = dconv.tiling._write_block

        def failing(out, box, found):
            if box[0].start == 48:
                raise Stop
            write(out, box, found)

        patch.setattr("dconv.tiling._write_block", failing)
        with pytest.raises(Stop):
            run()
    assert (tmp_path / "out.npy.dconv-journal").exists()
    return out, run


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"model": lambda: fitted(AtrousFeatures(3, normalize="image"), labels=scribble(LABELS, seed=1))}, "model"),
        ({"source": IMAGE + np.float32(1e-3)}, "source"),
        ({"source": IMAGE.astype(float)}, "source"),
        ({"block_shape": 32}, "block_shape"),
    ],
    ids=["model", "pixels", "dtype", "blocks"],
)
def test_changes_are_refused(tmp_path, changed, name):
    out, run = stopped(tmp_path)
    before = out.copy()
    changed = {key: value() if callable(value) else value for key, value in changed.items()}
    with pytest.raises(ValueError, match=rf"is of a run with another {name} .*resume=False"):
        run(**changed)
    assert_array_equal(out, before)
    run()
    assert_array_equal(out, EXPECTED_MODEL.predict(IMAGE))


def test_anew(tmp_path):
    out, run = stopped(tmp_path)
    other = IMAGE[::-1].copy()
    run(source=other, resume=False)
    assert_array_equal(out, EXPECTED_MODEL.predict(other))


def test_blocks_that_the_output_lost_are_done_again(tmp_path):
    out, run = stopped(tmp_path)
    out[:20] = 77
    run()
    assert_array_equal(out, EXPECTED_MODEL.predict(IMAGE))


def test_a_model_with_other_threads_continues(tmp_path):
    _, run = stopped(tmp_path)
    model = fitted(AtrousFeatures(3, normalize="image", n_jobs=1), TREES, n_jobs=1, verbose=0)
    assert_array_equal(run(model=model), EXPECTED_MODEL.predict(IMAGE))


@pytest.mark.parametrize("content", ["", "text\n", '{"journal": "other"}\n', "[1]\n"])
def test_strange_journals_are_refused(tmp_path, content):
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.uint8, IMAGE.shape)
    (tmp_path / "out.npy.dconv-journal").write_text(content)
    with pytest.raises(ValueError, match="is no journal that this version"):
        predict_blocks(EXPECTED_MODEL, IMAGE, out)


# --- what fails ---


def test_a_full_disk_names_the_block_and_keeps_the_rest(tmp_path):
    full = Recorded(np.zeros(IMAGE.shape, "u1"))
    full.fails = lambda box: OSError(errno.ENOSPC, "No space left on device") if box == ((32, 64), (0, 32)) else None
    with pytest.raises(OSError, match=r"block \[32:64, 0:32\] of out cannot be written.*No space left") as caught:
        predict_blocks(EXPECTED_MODEL, IMAGE, full, block_shape=32, n_jobs=1)
    assert caught.value.errno == errno.ENOSPC
    assert_array_equal(full.array[:32], EXPECTED_MODEL.predict(IMAGE)[:32])


def test_what_a_store_keeps_back_and_cannot_write_names_the_block(monkeypatch):
    """HDF5 writes when it is flushed, and raises what it likes."""
    full = Recorded(np.zeros(IMAGE.shape, "u1"))

    def settle(out):
        if len(full.boxes) == 4:
            raise RuntimeError("Unable to synchronously flush file (No space left on device)")

    monkeypatch.setattr("dconv.tiling.settle", settle)
    with pytest.raises(OSError, match=r"block \[32:64, 0:32\] of out cannot be written: RuntimeError: Unable to sync"):
        predict_blocks(EXPECTED_MODEL, IMAGE, full, block_shape=32, n_jobs=1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full, which has room for nothing")
def test_a_journal_that_cannot_be_written_names_the_block(tmp_path, monkeypatch):
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.uint8, IMAGE.shape)
    add = dconv.tiling.Journal.add

    def on_a_full_disk(journal, box, digest):
        journal.path = journal.path if box[0].start < 32 else Path("/dev/full")
        add(journal, box, digest)

    with monkeypatch.context() as patch:
        patch.setattr("dconv.tiling.Journal.add", on_a_full_disk)
        with pytest.raises(OSError, match=r"block \[32:64, 0:32\] is written, but .*No space left") as caught:
            predict_blocks(EXPECTED_MODEL, IMAGE, out, block_shape=32, n_jobs=1)
    assert caught.value.errno == errno.ENOSPC
    assert_array_equal(predict_blocks(EXPECTED_MODEL, IMAGE, out, block_shape=32), EXPECTED_MODEL.predict(IMAGE))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is taken with posix_fallocate")
def test_a_memory_map_without_room_is_refused_before_any_work(tmp_path, monkeypatch):
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.uint8, IMAGE.shape)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("dconv.tiling.run_pipeline", lambda *arguments: pytest.fail("work was begun"))
    with pytest.raises(OSError, match="the disk has no room for the 6428 bytes of out"):
        predict_blocks(EXPECTED_MODEL, IMAGE, out)


def test_an_unreadable_block_is_named_and_the_rest_is_kept(tmp_path):
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.uint8, IMAGE.shape)
    bad = Recorded(IMAGE)
    (left, right), _ = EXPECTED_MODEL.features_.halo_  # of the block [32:64, 32:64]
    place = (max(32 - left, 0), min(64 + right, 70)), (max(32 - left, 0), min(64 + right, 90))
    bad.fails = lambda box: ValueError("checksum") if box == place else None
    name = ", ".join(f"{low}:{high}" for low, high in place)
    with pytest.raises(OSError, match=rf"block \[{name}\] of source cannot be read: ValueError: checksum"):
        predict_blocks(EXPECTED_MODEL, bad, out, block_shape=32)
    assert_array_equal(out[:32], EXPECTED_MODEL.predict(IMAGE)[:32])
    journal = (tmp_path / "out.npy.dconv-journal").read_text().splitlines()
    names = [json.loads(line)[0] for line in journal[1:]]
    assert names[:4] == ["0:32, 0:32", "0:32, 32:64", "0:32, 64:90", "32:64, 0:32"]
    assert "32:64, 32:64" not in names
    bad.fails = lambda box: None
    predict_blocks(EXPECTED_MODEL, bad, out, block_shape=32)
    assert_array_equal(out, EXPECTED_MODEL.predict(IMAGE))


class Whole(TransformerMixin, BaseEstimator):
    """A transformer of whole images."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.stack([X, X], axis=-1)


OUT = np.empty(IMAGE.shape, "i8")


def frozen():
    out = OUT.copy()
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (TypeError, {"estimator": TREES}, "estimator must be a PixelClassifier"),
        (NotFittedError, {"estimator": PixelClassifier()}, "not fitted"),
        (ValueError, {"estimator": lambda: fitted(refine=OtherCRF())}, "refines whole images"),
        (ValueError, {"estimator": lambda: fitted(Whole())}, "features of Whole are computed of whole images"),
        (
            ValueError,
            {"estimator": lambda: fitted(classifier=RidgeClassifier()), "proba": True},
            "needs a classifier with",
        ),
        (TypeError, {"source": [[1.0]]}, "source must be an array that slices.*list"),
        (TypeError, {"source": IMAGE.astype(complex)}, "source must hold real numbers"),
        (TypeError, {"source": np.ma.masked_less(IMAGE, 50)}, "source holds masked pixels"),
        (ValueError, {"source": IMAGE[np.newaxis]}, "source has 3 axes"),
        (ValueError, {"source": IMAGE[:0]}, "holds no pixels"),
        (ValueError, {"source": np.where(IMAGE > 100, np.nan, IMAGE)}, "holds nan"),
        (TypeError, {"out": [1]}, "out must be an array"),
        (ValueError, {"out": OUT[1:]}, r"out has shape \(69, 90\), but the answers have shape \(70, 90\)"),
        (ValueError, {"proba": True}, r"the answers have shape \(70, 90, 2\)"),
        (ValueError, {"out": np.empty((*IMAGE.shape, 2), int), "proba": True}, "probabilities need a floating"),
        (ValueError, {"out": OUT.astype(bool)}, r"cannot hold the classes \[1, 2\]"),
        (ValueError, {"out": frozen()}, "out is read-only"),
        (ValueError, {"block_shape": 0}, "block_shape must be at least 1"),
        (ValueError, {"block_shape": (3, 4, 5)}, "block_shape"),
        (TypeError, {"block_shape": 1.5}, "block_shape"),
        (ValueError, {"n_jobs": 0}, "n_jobs must not be 0"),
        (TypeError, {"proba": "no"}, "proba must be True or False, got 'no'"),
        (TypeError, {"progress": 2}, "progress must be True or False, got 2"),
        (TypeError, {"resume": "yes"}, "resume must be True or False, got 'yes'"),
    ],
    ids=lambda value: None if isinstance(value, dict | type) else value,
)
def test_refused(error, arguments, message, monkeypatch):
    monkeypatch.setattr("dconv.tiling.run_pipeline", lambda *arguments: pytest.fail("work was begun"))
    if callable(arguments.get("estimator")):
        arguments = {**arguments, "estimator": arguments["estimator"]()}
    with pytest.raises(error, match=message):
        predict_blocks(**{"estimator": EXPECTED_MODEL, "source": IMAGE, "out": OUT, **arguments})


def test_the_source_is_no_output(tmp_path):
    zarr, h5py = pytest.importorskip("zarr"), pytest.importorskip("h5py")
    pair = np.zeros((*IMAGE.shape, 2), np.float32)
    pair[..., 0] = IMAGE
    np.save(tmp_path / "image.npy", pair[..., 0])
    again = [np.load(tmp_path / "image.npy", mmap_mode="r+") for _ in range(2)]
    stored = zarr.create_array(str(tmp_path / "image.zarr"), shape=IMAGE.shape, chunks=(32, 32), dtype="f4")
    stored[...] = IMAGE
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["image"] = pair[..., 0]
        for source, out in (
            (pair[..., 0], pair[..., 0]),
            (pair[:, ::-1, 0], pair[..., 0]),
            (again[0], again[1]),
            (stored, zarr.open_array(str(tmp_path / "image.zarr"))),
            (file["image"], file["image"]),
        ):
            with pytest.raises(ValueError, match="out is the source, or shares memory with it"):
                predict_blocks(EXPECTED_MODEL, source, out, progress=False)
        np.testing.assert_array_equal(file["image"], IMAGE)
    np.testing.assert_array_equal(pair[..., 0], IMAGE)
    # What lies between its pixels, or elsewhere in its file, may be written to.
    predict_blocks(EXPECTED_MODEL, pair[..., 0], pair[..., 1], progress=False)
    np.testing.assert_array_equal(pair[..., 1], EXPECTED_MODEL.predict(IMAGE))
    np.testing.assert_array_equal(pair[..., 0], IMAGE)
    for offset in (0, IMAGE.size * 4):
        np.memmap(tmp_path / "both.raw", np.float32, "r+" if offset else "w+", offset, IMAGE.shape)[...] = IMAGE
    first, second = (
        np.memmap(tmp_path / "both.raw", np.float32, "r+", offset, IMAGE.shape) for offset in (0, IMAGE.size * 4)
    )
    predict_blocks(EXPECTED_MODEL, first, second, progress=False)
    np.testing.assert_array_equal(second, pair[..., 1])


def test_channels_of_another_kind_are_refused():
    model = fitted(image=np.stack([IMAGE] * 3, axis=-1), channel_axis=-1)
    with pytest.raises(ValueError, match="source has 2 channel"):
        predict_blocks(model, np.stack([IMAGE] * 2, axis=-1), OUT)
