"""The command line: files in, files out, what it tells and returns."""

import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from images import BANK, TREES, make_image, scribble
from numpy.testing import assert_array_equal
from PIL import Image
from skimage import io

import dconv
from dconv import PixelClassifier, _command_train, cli
from dconv._image_readers import open_image
from dconv._image_writers import label_dtype

pytest.importorskip("skops", reason="models are written by skops")
tifffile = pytest.importorskip("tifffile", reason="one of the formats")

IMAGE, LABELS = make_image((70, 90))
IMAGE = np.clip(IMAGE, 0, 255).astype(np.uint8)
SCRIBBLES = scribble(LABELS).astype(np.uint8)


def run(*arguments):
    return cli.main([str(each) for each in arguments])


@pytest.fixture(scope="module")
def model():
    return PixelClassifier(dconv.AtrousFeatures(3), TREES).fit(IMAGE, SCRIBBLES)


@pytest.fixture
def path(tmp_path, model):
    dconv.save(model, tmp_path / "m.dconv")
    return tmp_path


def write(path, image):
    """Write an image in the format that its name tells."""
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".zarr":
        pytest.importorskip("zarr", reason="one of the formats").save(path, image)
    elif path.suffix == ".png":
        Image.fromarray(image).save(path)
    else:
        tifffile.imwrite(path, image)


# --- train ---


def test_train_and_predict(tmp_path):
    write(tmp_path / "image.png", IMAGE)
    write(tmp_path / "labels.png", SCRIBBLES)
    files = tmp_path / "image.png", "--labels", tmp_path / "labels.png", "-o", tmp_path / "m.dconv"
    assert run("train", *files, "--seed", 3, "--max-samples", 200) == 0
    expected = PixelClassifier(random_state=3, max_samples=200).fit(IMAGE, SCRIBBLES)
    assert run("predict", tmp_path / "m.dconv", tmp_path / "image.png", "-o", tmp_path / "out.png") == 0
    assert_array_equal(io.imread(tmp_path / "out.png"), expected.predict(IMAGE))


@pytest.mark.parametrize("suffix", [".png", ".npy", ".zarr", ".tif"])
def test_train_on_more_than_is_held(tmp_path, suffix, monkeypatch, capsys):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    pairs = [make_image((40, 44), seed) for seed in range(3)]
    pairs = [(np.clip(image, 0, 255).astype(np.uint8), scribble(labels).astype(np.uint8)) for image, labels in pairs]
    for number, (image, labels) in enumerate(pairs):
        write(tmp_path / "images" / f"{number}{suffix}", image)
        write(tmp_path / "labels" / f"{number}{suffix}", labels)
    opened = []
    monkeypatch.setattr(_command_train, "_MAX_HELD_BYTES", 2 * pairs[0][0].nbytes)  # one pair
    decoded = _command_train._decoded
    monkeypatch.setattr(_command_train, "_decoded", lambda *args: opened.append(args[0]) or decoded(*args))
    files = tmp_path / "images", "--labels", tmp_path / "labels", "-o", tmp_path / "m.dconv"
    assert run("train", *files, "--seed", 3) == 0
    assert "pixels) from 3 image(s)" in capsys.readouterr().err
    assert {path.stem for path in opened} == ({"1", "2"} if suffix == ".png" else set())
    expected = PixelClassifier(random_state=3).fit(*map(list, zip(*pairs, strict=True)))
    assert_array_equal(dconv.load(tmp_path / "m.dconv").predict_proba(IMAGE), expected.predict_proba(IMAGE))


def test_train_on_folders_in_colour(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for seed in (0, 1):
        image, labels = make_image((40, 44), seed)
        rgb = np.clip(np.stack([image, image[::-1], image], axis=-1), 0, 255).astype(np.uint8)
        write(tmp_path / "images" / f"{seed}.png", rgb)
        write(tmp_path / "labels" / f"{seed}.tif", scribble(labels).astype(np.uint8))
    arguments = ["train", tmp_path / "images", "--labels", tmp_path / "labels", "-o", tmp_path / "m.dconv"]
    assert run(*arguments, "--max-samples", 50) == 0
    loaded = dconv.load(tmp_path / "m.dconv")
    assert (loaded.channel_axis_, loaded.n_channels_in_, loaded.classes_.tolist()) == (-1, 3, [1, 2])
    assert run(*arguments) == 1  # it is there
    assert run(*arguments, "--overwrite", "--max-samples", 50, "--channel-axis", 2) == 0


def test_labels_in_a_palette_are_numbers(tmp_path):
    picture = Image.fromarray(SCRIBBLES, mode=None).convert("P")
    picture.putdata(SCRIBBLES.ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / "p.png")
    assert_array_equal(open_image(tmp_path / "p.png", labels=True).array, SCRIBBLES)
    assert open_image(tmp_path / "p.png").array.shape == (*SCRIBBLES.shape, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (SCRIBBLES[1:], r"labels of shape \(69, 90\)"),
        (np.zeros_like(SCRIBBLES), "the label images hold no labelled pixel: every value is --ignore-label 0"),
    ],
)
def test_train_refuses(tmp_path, capsys, labels, message):
    write(tmp_path / "image.png", IMAGE)
    write(tmp_path / "labels.png", labels)
    files = tmp_path / "image.png", "--labels", tmp_path / "labels.png"
    assert run("train", *files, "-o", tmp_path / "m.dconv") == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "m.dconv").exists()
    assert run("train", *files, tmp_path / "labels.png", "-o", tmp_path / "m.dconv") == 1
    assert "there are 1 images, but 2 label images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", -1, "--seed must be from 0 to 2**32 - 1, got -1"),
        ("--max-samples", 0, "--max-samples must be at least 1 pixel per class and image, got 0; without it all are"),
        ("--n-jobs", 0, "--n-jobs must not be 0; without it there are as many threads as physical cores"),
    ],
)
def test_messages_name_options(tmp_path, capsys, option, value, message):
    write(tmp_path / "image.png", IMAGE)
    write(tmp_path / "labels.png", SCRIBBLES)
    files = tmp_path / "image.png", "--labels", tmp_path / "labels.png", "-o", tmp_path / "m.dconv"
    assert run("train", *files, option, value) == 1
    assert message in capsys.readouterr().err


# --- predict ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".zarr"])
@pytest.mark.parametrize("proba", [False, True])
def test_every_format_with_its_own_numbers(path, model, suffix, dtype, proba):
    if suffix == ".png" and dtype == np.float32:
        pytest.skip("PNG holds no floating numbers")
    image = (IMAGE.astype(dtype) * (200 if dtype == np.uint16 else 1)) / (1 if dtype != np.float32 else 7)
    image = image.astype(dtype)
    write(path / f"x{suffix}", image)
    assert run("predict", path / "m.dconv", path / f"x{suffix}", "-o", path / "out", *["--proba"] * proba) == 0
    ending = ".tif" if suffix == ".png" and proba else suffix
    (out,) = (path / "out").iterdir()
    assert out.name == f"x_{'proba' if proba else 'labels'}{ending}"
    found = open_image(out).array[...]
    assert found.dtype == (np.float32 if proba else np.uint8)
    assert_array_equal(found, model.predict_proba(image) if proba else model.predict(image))


def test_pages_of_a_tiff(path, model):
    pages = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]])
    tifffile.imwrite(path / "pages.tif", pages, bigtiff=True, photometric="minisblack")
    tifffile.imwrite(path / "packed.tif", pages, compression="zlib", photometric="minisblack")
    for name in ("pages", "packed"):
        assert run("predict", path / "m.dconv", path / f"{name}.tif", "-o", path / "out", "--overlay") == 0
        assert_array_equal(tifffile.imread(path / "out" / f"{name}_labels.tif"), model.predict(pages))
        assert io.imread(path / "out" / f"{name}_overlay.png").shape == (70, 90, 3)


def test_an_uncompressed_tiff_is_not_read_whole(path):
    tifffile.imwrite(path / "a.tif", IMAGE)
    assert isinstance(open_image(path / "a.tif").array, np.memmap)
    np.save(path / "a.npy", IMAGE)
    assert isinstance(open_image(path / "a.npy").array, np.memmap)


def test_ome_zarr_keeps_its_axes(path, model):
    zarr = pytest.importorskip("zarr", reason="one of the formats")
    axes = [{"name": "t", "type": "time"}] + [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    transformation = {"type": "scale", "scale": [1.0, 0.5, 0.25]}
    levels = [{"path": "full", "coordinateTransformations": [transformation]}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    group = zarr.create_group(path / "x.ome.zarr", attributes={"ome": ome})
    group.create_array("full", data=IMAGE[np.newaxis])
    assert run("predict", path / "m.dconv", path / "x.ome.zarr", "-o", path / "labels.zarr") == 0
    found = open_image(path / "labels.zarr")
    assert_array_equal(found.array[...], model.predict(IMAGE))
    assert found.axes == tuple(axes[1:])
    assert found.scale == (0.5, 0.25)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of rasterio itself
def test_a_geotiff_keeps_its_place(path, model):
    rasterio = pytest.importorskip("rasterio", reason="writes and reads GeoTIFF here")
    transform = rasterio.transform.from_origin(500_000, 4_600_000, 10, 10)
    profile = {"driver": "GTiff", "height": 70, "width": 90, "count": 1, "dtype": "uint8"}
    with rasterio.open(path / "scene.tif", "w", crs="EPSG:32633", transform=transform, **profile) as file:
        file.write(IMAGE, 1)
    for proba in (False, True):
        out = path / f"out{proba}.tif"
        assert run("predict", path / "m.dconv", path / "scene.tif", "-o", out, *["--proba"] * proba) == 0
        with rasterio.open(out) as file:
            assert file.crs.to_epsg() == 32633
            assert file.transform == transform
            expected = np.moveaxis(model.predict_proba(IMAGE), -1, 0) if proba else model.predict(IMAGE)[np.newaxis]
            assert_array_equal(file.read(), expected)


def test_a_bad_file_does_not_stop_the_others(path, model, capsys):
    (path / "in").mkdir()
    for number in range(5):
        write(path / "in" / f"{number}.png", np.roll(IMAGE, number, axis=0))
    (path / "in" / "2.png").write_bytes(b"no picture")
    write(path / "in" / "3.png", np.stack([IMAGE] * 3, axis=-1))
    (path / "in" / "notes.txt").write_text("not an image")
    assert run("predict", path / "m.dconv", path / "in", "-o", path / "out") == 1
    assert sorted(os.listdir(path / "out")) == [f"{number}_labels.png" for number in (0, 1, 4)]
    assert_array_equal(io.imread(path / "out" / "4_labels.png"), model.predict(np.roll(IMAGE, 4, axis=0)))
    lines = capsys.readouterr().err.splitlines()
    assert "2.png: cannot identify image file" in lines[-3]
    assert "3.png: it has shape (70, 90, 3), but the model is for 2-D images without channels" in lines[-2]
    assert "3 of 5 done, 2 failed" in lines[-1]


def test_nothing_is_overwritten(path, model, capsys):
    write(path / "x.png", IMAGE)
    (path / "y.png").write_bytes(b"before")
    arguments = "predict", path / "m.dconv", path / "x.png", "-o", path / "y.png"
    assert run(*arguments) == 1
    assert "y.png is there already; pass --overwrite" in capsys.readouterr().err
    assert (path / "y.png").read_bytes() == b"before"
    assert run(*arguments, "--overwrite") == 0
    assert_array_equal(io.imread(path / "y.png"), model.predict(IMAGE))
    (path / "x_overlay.png").write_bytes(b"before")
    assert run("predict", path / "m.dconv", path / "x.png", "-o", path / "x_labels.png", "--overlay") == 1
    assert not (path / "x_labels.png").exists()
    assert (path / "x_overlay.png").read_bytes() == b"before"


def test_names_that_would_meet_are_refused(path, capsys):
    for folder in ("a", "b"):
        (path / folder).mkdir()
        write(path / folder / "x.png", IMAGE)
    assert run("predict", path / "m.dconv", path / "a", path / "b", "-o", path / "out") == 1
    assert "several images would be written to x_labels.png" in capsys.readouterr().err
    assert run("predict", path / "m.dconv", path / "a", path / "b", "-o", path / "out.png") == 1
    assert "there are 2 images, but" in capsys.readouterr().err
    assert not (path / "out").exists()


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".zarr"])
def test_a_run_that_failed_goes_on(path, model, suffix, monkeypatch, capsys):
    write(path / f"x{suffix}", IMAGE)
    out = path / f"y{suffix}"
    arguments = "predict", path / "m.dconv", path / f"x{suffix}", "-o", out, "--block-shape", 70, 30
    block = dconv.tiling._write_block
    written = []

    def failing(target, box, found):
        if box[1].start == 60 and len(written) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(box)
        block(target, box, found)

    if suffix == ".zarr":
        monkeypatch.setattr("dconv._image_writers._CHUNK", {1: 10, 2: 10, 3: 10})
    monkeypatch.setattr("dconv.tiling._write_block", failing)
    assert run(*arguments) == 1
    assert "No space left" in capsys.readouterr().err
    assert not out.exists()
    written.append("room")
    assert run(*arguments) == 0
    assert len(written) == 4  # one more block, and no other again
    assert_array_equal(open_image(out).array[...], model.predict(IMAGE))
    assert sorted(each.name for each in path.iterdir()) == ["m.dconv", f"x{suffix}", f"y{suffix}"]


def test_models_that_need_whole_images(path):
    refined = PixelClassifier(BANK, TREES, refine=dconv.DenseCRF(n_iter=2)).fit(IMAGE, SCRIBBLES)
    dconv.save(refined, path / "m.dconv")
    write(path / "x.png", IMAGE)
    assert run("predict", path / "m.dconv", path / "x.png", "-o", path / "y.png", "--n-jobs", 1, "--quiet") == 0
    assert_array_equal(io.imread(path / "y.png"), refined.predict(IMAGE))


def test_label_dtypes():
    for labels, dtype in (([0, 255], "u1"), ([1, 256], "u2"), ([-1, 3], "i1"), ([-1, 200], "i2")):
        assert label_dtype(np.array(labels)) == dtype


# --- info, demo, and the process ---


def test_info(path, capsys):
    assert run("info", path / "m.dconv") == 0
    text = capsys.readouterr().out
    assert "PixelClassifier with ExtraTreesClassifier" in text
    assert "40 of dconv.features.AtrousFeatures: intensity_level_d1 to" in text
    assert run("info", path / "m.dconv", "--json") == 0
    training = json.loads(capsys.readouterr().out)["training"]
    counts = [int((label == SCRIBBLES).sum()) for label in (1, 2)]
    assert training["classes"] == [1, 2]
    assert training["n_pixels_per_class"] == counts
    assert f"1 ({counts[0]} pixels), 2 ({counts[1]} pixels)" in text
    (path / "m.dconv").write_bytes(b"no model")
    assert run("info", path / "m.dconv") == 1
    assert "is no model of dconv" in capsys.readouterr().err


def test_detector_of_objects(path, capsys):
    detector = dconv.ObjectDetector(PixelClassifier(BANK, TREES)).fit(IMAGE, (LABELS == 2).astype(int))
    dconv.save(detector, path / "m.dconv")
    assert run("info", path / "m.dconv") == 0
    assert "ObjectDetector with ExtraTreesClassifier" in capsys.readouterr().out
    assert run("predict", path / "m.dconv", path / "none.png", "-o", path / "out") == 1
    assert "holds an ObjectDetector, but pixels are labelled here" in capsys.readouterr().err


def test_demo(tmp_path, capsys):
    assert run("demo", "-o", tmp_path / "demo.png") == 0
    assert io.imread(tmp_path / "demo.png").shape == (303, 768, 3)
    assert run("demo", "-o", tmp_path / "demo.png") == 1
    assert run("demo", "-o", tmp_path / "demo.tif") == 1


@pytest.mark.parametrize("command", [[], ["train"], ["predict"], ["info"], ["demo"]])
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(*command, "--help")
    printed = capsys.readouterr().out
    assert "examples:" in printed
    assert f"dconv {command[0] if command else 'demo'} " in printed


@pytest.mark.parametrize(("arguments", "code"), [(["fly"], 2), (["info"], 2), (["--version"], 0), ([], 2)])
def test_exit_codes(arguments, code):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == code


def test_exit_codes_of_the_process(tmp_path):
    """The command and the module are the same, and a code that is returned is the process's."""
    module = [sys.executable, "-m", "dconv", "info", str(tmp_path / "none")]
    done = subprocess.run(module, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"dconv: error: {tmp_path / 'none'}: No such file or directory\n"
