"""What the command line makes of files as people have them, and what it says of mistakes."""

import os
import struct
import sys
import zlib
from functools import partial

import numpy as np
import pytest
from images import BANK, TREES
from numpy.testing import assert_array_equal
from PIL import Image
from skimage import io
from test_cli import IMAGE, SCRIBBLES, run, write

import dconv
from dconv import PixelClassifier, _command_predict, _command_train, _image_writers
from dconv._image_axes import as_model_sees
from dconv._image_readers import ImageFile, open_image
from dconv._lazy_arrays import from_array

tifffile = pytest.importorskip("tifffile", reason="one of the formats")
pytest.importorskip("skops", reason="models are written by skops")
RGB = np.stack([IMAGE, IMAGE[::-1], IMAGE // 2], axis=-1)


@pytest.fixture(scope="module")
def model():
    return PixelClassifier(BANK, TREES).fit(IMAGE, SCRIBBLES)


@pytest.fixture(scope="module")
def in_colour():
    return PixelClassifier(BANK, TREES, channel_axis=-1).fit(RGB, SCRIBBLES)


@pytest.fixture
def quick(monkeypatch):
    """Let ``dconv train`` fit what is fitted quickly."""
    monkeypatch.setattr(_command_train, "PixelClassifier", partial(PixelClassifier, BANK, TREES))


@pytest.fixture
def path(tmp_path, model, in_colour):
    dconv.save(model, tmp_path / "m.dconv")
    dconv.save(in_colour, tmp_path / "rgb.dconv")
    return tmp_path


def write_ome(path, array, axes):
    """Write an OME-Zarr image; axes are letters."""
    zarr = pytest.importorskip("zarr", reason="one of the formats")
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": letter, "type": kinds.get(letter, "space")} for letter in axes]
    steps = [{"type": "scale", "scale": [float(1 + n) for n in range(len(axes))]}]
    ome = {"multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]}
    group = zarr.create_group(path, attributes={"ome": ome})
    group.create_array("0", data=array, chunks=(1,) * (array.ndim - 2) + (32, 32))


# --- folders are not files ---


@pytest.mark.parametrize("command", ["train", "predict", "demo", "save"])
def test_a_folder_is_never_replaced_by_a_file(path, command, capsys):
    """Nor is what it holds deleted, also with --overwrite."""
    write(path / "x.png", IMAGE)
    write(path / "y.png", SCRIBBLES)
    for name in ("results", "results.tif", "results.zarr", "results.png"):
        (path / name).mkdir()
        (path / name / "work").write_text("of a week")
    if command == "save":
        with pytest.raises(IsADirectoryError):
            dconv.save(dconv.load(path / "m.dconv"), path / "results")
    elif command == "train":
        assert run("train", path / "x.png", "--labels", path / "y.png", "-o", path / "results", "--overwrite") == 1
    elif command == "demo":
        assert run("demo", "-o", path / "results.png", "--overwrite") == 1
    else:
        assert run("predict", path / "m.dconv", path / "x.png", "-o", path / "results.zarr", "--overwrite") == 1
        assert "results.zarr is a folder, and no Zarr that could be replaced" in capsys.readouterr().err
        assert run("predict", path / "m.dconv", path / "x.png", "-o", path / "results.tif", "--overwrite") == 0
        assert (path / "results.tif" / "x_labels.png").exists()  # a folder, whatever it is called
    for name in ("results", "results.tif", "results.zarr", "results.png"):
        assert (path / name / "work").read_text() == "of a week"


@pytest.mark.parametrize("name", ["out.jpg", "m.dconv"])
def test_what_cannot_be_written_to_is_refused(path, name, capsys):
    write(path / "x.png", IMAGE)
    before = (path / "m.dconv").read_bytes()
    assert run("predict", path / "m.dconv", path / "x.png", "-o", path / name) == 1
    assert f"{name} is no folder; of files, answers are written to those that end with .btf, .npy, .png" in (
        capsys.readouterr().err
    )
    assert not (path / "out.jpg").exists()
    assert (path / "m.dconv").read_bytes() == before


def test_a_png_is_refused_before_any_work(path, monkeypatch, capsys):
    write(path / "x.png", IMAGE)
    monkeypatch.setattr(_command_predict, "predict_blocks", lambda *args, **more: pytest.fail("work was begun"))
    assert run("predict", path / "m.dconv", path / "x.png", "-o", path / "p.png", "--proba") == 1
    assert "a PNG holds no probabilities of shape (70, 90, 2); name a .tif, .npy or .zarr" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [(-1, 5), (1, 70_000)])
def test_labels_that_no_png_holds_become_a_tiff(tmp_path, labels):
    scribbles = np.where(SCRIBBLES > 0, np.take([0, *labels], SCRIBBLES), 0)
    model = PixelClassifier(BANK, TREES).fit(IMAGE, scribbles)
    dconv.save(model, tmp_path / "m.dconv")
    write(tmp_path / "x.png", IMAGE)
    assert run("predict", tmp_path / "m.dconv", tmp_path / "x.png", "-o", tmp_path / "out") == 0
    assert_array_equal(tifffile.imread(tmp_path / "out" / "x_labels.tif"), model.predict(IMAGE))


def test_a_file_that_fails_leaves_nothing(path):
    (path / "in").mkdir()
    for suffix in (".tif", ".npy", ".zarr"):
        write(path / "in" / f"tiny{suffix[1:]}{suffix}", IMAGE[:1, :90])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_command_predict, "predict_blocks", lambda *args, **more: int("no number"))
        assert run("predict", path / "m.dconv", path / "in", "-o", path / "out") == 1
    assert os.listdir(path / "out") == []


# --- which files, under which names ---


def test_what_was_written_beside_the_images_is_not_taken_for_images(path):
    (path / "in").mkdir()
    for name in ("a", "b"):
        write(path / "in" / f"{name}.png", IMAGE)
    for options in ([], ["--proba"]):
        arguments = "predict", path / "m.dconv", path / "in", "-o", path / "in", "--overwrite", *options
        assert run(*arguments, "--overlay") == 0
    kinds = ("labels.png", "overlay.png", "proba.tif")
    assert sorted(os.listdir(path / "in")) == sorted(
        ["a.png", "b.png", *(f"{name}_{kind}" for name in "ab" for kind in kinds)]
    )


def test_overlays_that_would_meet_are_refused(path, capsys):
    write(path / "x.png", IMAGE)
    write(path / "x.npy", IMAGE)
    files = path / "x.png", path / "x.npy"
    assert run("predict", path / "m.dconv", *files, "-o", path / "out", "--overlay") == 1
    assert "several images would be written to x_overlay.png" in capsys.readouterr().err
    assert run("predict", path / "m.dconv", *files, "-o", path / "out") == 0


# --- numbers as they are in the file ---


def png_of_16_bits(path, image, kind):
    """Write what Pillow does not: 16 bits for each of several samples."""
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in image)
    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def test_colours_of_16_bits_are_read_or_refused_but_not_cut(path, in_colour, capsys):
    image = RGB.astype(np.uint16) * 250 + 7
    tifffile.imwrite(path / "x.tif", image, photometric="rgb")
    png_of_16_bits(path / "x.png", image, 2)
    png_of_16_bits(path / "grey.png", image[..., :2], 4)
    assert run("predict", path / "rgb.dconv", path / "x.tif", path / "x.png", path / "grey.png", "-o", path / "o") == 1
    assert_array_equal(tifffile.imread(path / "o" / "x_labels.tif"), in_colour.predict(image))
    assert capsys.readouterr().err.count("it holds 16 bits of each colour") == 2
    assert os.listdir(path / "o") == ["x_labels.tif"]


def test_pictures_of_any_size(tmp_path, monkeypatch):
    write(tmp_path / "x.png", IMAGE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit is 179 million
    assert_array_equal(open_image(tmp_path / "x.png").array, IMAGE)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "x.png")


def test_labels_of_one_bit(tmp_path, quick, capsys):
    write(tmp_path / "x.png", IMAGE)
    Image.fromarray(SCRIBBLES == 2).save(tmp_path / "y.png")
    files = "train", tmp_path / "x.png", "--labels", tmp_path / "y.png", "-o", tmp_path / "m.dconv"
    assert run(*files) == 1
    assert "only label 1 is in the label images, but a classifier needs two classes; 0 is ignored: pass " in (
        told := capsys.readouterr().err
    )
    assert "pass --ignore-label none if 0 is a class" in told
    assert run(*files, "--ignore-label", "none", "--max-samples", 50) == 0
    assert dconv.load(tmp_path / "m.dconv").classes_.tolist() == [0, 1]


@pytest.mark.filterwarnings("default::UserWarning")
def test_pages_of_other_sizes_are_told(path, model, capsys):
    with tifffile.TiffWriter(path / "x.tif") as file:
        file.write(IMAGE)
        file.write(IMAGE[:20, :30])
    assert run("predict", path / "m.dconv", path / "x.tif", "-o", path / "y.tif") == 0
    assert "warning: " in (told := capsys.readouterr().err)
    assert "those of 70x90 are read, and not 20x30" in told
    assert_array_equal(tifffile.imread(path / "y.tif"), model.predict(IMAGE))


# --- axes ---


def test_channels_lie_where_the_file_says(path, in_colour):
    first = np.moveaxis(RGB, -1, 0)
    write_ome(path / "ome.zarr", first, "cyx")
    write_ome(path / "five.zarr", first[np.newaxis, :, np.newaxis], "tczyx")
    tifffile.imwrite(path / "planes.tif", first, photometric="rgb", planarconfig="separate")
    write_ome(path / "pages.zarr", np.stack([first, first[:, ::-1]]), "tcyx")
    expected = in_colour.predict(RGB)
    files = [path / name for name in ("ome.zarr", "five.zarr", "planes.tif", "pages.zarr")]
    assert run("predict", path / "rgb.dconv", *files, "-o", path / "out", "--overlay", "--block-shape", 1024) == 0
    for name in ("ome_labels.zarr", "five_labels.zarr", "planes_labels.tif"):
        assert_array_equal(open_image(path / "out" / name).array[...], expected)
    five = open_image(path / "out" / "five_labels.zarr")
    assert ([axis["name"] for axis in five.axes], five.scale) == (["y", "x"], (4.0, 5.0))
    pages = open_image(path / "out" / "pages_labels.zarr")
    assert_array_equal(pages.array[...], in_colour.predict(np.stack([RGB, RGB[::-1]])))
    assert ([axis["name"] for axis in pages.axes], pages.scale) == (["t", "y", "x"], (1.0, 3.0, 4.0))
    assert pages.array.chunks == (1, 70, 90)  # a page is written by itself
    assert_array_equal(io.imread(path / "out" / "five_overlay.png"), io.imread(path / "out" / "planes_overlay.png"))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels_where_a_model_wants_them(axis):
    image = np.zeros((4, 5, 3))
    for told in range(3):
        array = np.moveaxis(image, -1, told)
        for source in (array, from_array(array, "x")):
            found = as_model_sees(ImageFile(source, channel_axis=told), 2, axis)
            assert found.array.shape == np.moveaxis(image, -1, axis).shape
            assert found.channel_axis % 3 == axis % 3


def test_train_finds_channels_and_pages(tmp_path, quick):
    first = np.moveaxis(RGB, -1, 0)
    write_ome(tmp_path / "ome.zarr", first, "cyx")
    write_ome(tmp_path / "five.zarr", IMAGE[np.newaxis, np.newaxis, np.newaxis], "tczyx")
    np.save(tmp_path / "many.npy", np.concatenate([RGB, RGB], axis=-1))  # six channels
    np.save(tmp_path / "pages.npy", np.stack([IMAGE, IMAGE[::-1]]))
    np.save(tmp_path / "colour_pages.npy", np.stack([RGB, RGB[::-1]]))
    write(tmp_path / "y.tif", SCRIBBLES)
    np.save(tmp_path / "y_pages.npy", np.stack([SCRIBBLES, SCRIBBLES[::-1]]))
    for image, labels, channels in (
        ("ome.zarr", "y.tif", 3),
        ("five.zarr", "y.tif", 1),
        ("many.npy", "y.tif", 6),
        ("pages.npy", "y_pages.npy", 1),
        ("colour_pages.npy", "y_pages.npy", 3),
    ):
        arguments = "train", tmp_path / image, "--labels", tmp_path / labels, "-o", tmp_path / f"{image}.dconv"
        assert run(*arguments, "--max-samples", 30) == 0
        model = dconv.load(tmp_path / f"{image}.dconv")
        assert model.n_channels_in_ == channels
        assert model.channel_axis_ == (None if channels == 1 else -1)
        if labels == "y_pages.npy":
            X, y = np.load(tmp_path / image), np.load(tmp_path / labels)
            axis = None if channels == 1 else -1
            expected = PixelClassifier(BANK, TREES, max_samples=30, channel_axis=axis, random_state=0).fit(
                list(X), list(y)
            )
            assert_array_equal(model.predict_proba(X[0]), expected.predict_proba(X[0]))
    # OME-Zarr with its channels first is what the same image in a picture is.
    Image.fromarray(RGB).save(tmp_path / "x.png")
    assert run("predict", tmp_path / "ome.zarr.dconv", tmp_path / "x.png", "-o", tmp_path / "out") == 0


def test_axes_that_are_not_clear_are_refused(tmp_path, quick, capsys):
    np.save(tmp_path / "first.npy", np.moveaxis(RGB, -1, 0))
    write(tmp_path / "y.png", SCRIBBLES)
    Image.fromarray(np.stack([SCRIBBLES] * 3, axis=-1)).save(tmp_path / "colour.png")
    write(tmp_path / "x.png", IMAGE)
    arguments = "train", tmp_path / "first.npy", "--labels", tmp_path / "y.png", "-o", tmp_path / "m.dconv"
    assert run(*arguments) == 1
    assert "y.png has labels of shape (70, 90), which do not fit" in (told := capsys.readouterr().err)
    assert "pass --channel-axis 0" in told
    assert run(*arguments, "--channel-axis", 0, "--max-samples", 20) == 0
    assert run(*arguments, "--channel-axis", 5, "--overwrite") == 1
    assert "has no axis 5: see --channel-axis" in capsys.readouterr().err
    assert run("train", tmp_path / "x.png", "--labels", tmp_path / "colour.png", "-o", tmp_path / "n.dconv") == 1
    assert "save it in grey, or with a palette" in capsys.readouterr().err
    assert run("train", tmp_path / "x.png", "--labels", tmp_path / "y.png", "-o", tmp_path / "n", "--ndim", 3) == 1
    assert "with --ndim 3 they have 3 axes" in capsys.readouterr().err


# --- what is told ---


def test_messages_name_files_and_options(tmp_path, capsys):
    write(tmp_path / "x.png", IMAGE)
    write(tmp_path / "tiny.png", IMAGE[:20, :20])
    np.save(tmp_path / "float.npy", SCRIBBLES.astype(float))
    write(tmp_path / "y.png", SCRIBBLES)
    write(tmp_path / "ty.png", SCRIBBLES[:20, :20])
    model = "-o", tmp_path / "m.dconv"
    assert run("train", tmp_path / "x.png", "--labels", tmp_path / "float.npy", *model) == 1
    assert f"{tmp_path / 'float.npy'} must hold integer labels, got dtype float64" in capsys.readouterr().err
    images = tmp_path / "x.png", tmp_path / "tiny.png"
    assert run("train", *images, "--labels", tmp_path / "y.png", tmp_path / "ty.png", *model) == 1
    assert f"{tmp_path / 'tiny.png'} has spatial shape (20, 20)" in capsys.readouterr().err
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert run("train", tmp_path / "bad.png", "--labels", tmp_path / "y.png", *model) == 1
    assert "bad.png: cannot identify image file" in capsys.readouterr().err


def test_many_classes_are_told_in_short(tmp_path, quick, capsys):
    write(tmp_path / "x.png", IMAGE)
    np.save(tmp_path / "y.npy", np.indices(IMAGE.shape)[0] % 30)
    arguments = "train", tmp_path / "x.png", "--labels", tmp_path / "y.npy", "-o", tmp_path / "m.dconv"
    assert run(*arguments, "--max-samples", 3) == 0
    assert "29 classes from 1 to 29 (87 pixels) from 1 image(s)" in capsys.readouterr().err


def test_numbers_that_are_none(capsys):
    for option in ("--channel-axis", "--ignore-label"):
        with pytest.raises(SystemExit, match="2"):
            run("train", "x.png", "--labels", "y.png", "-o", "m", option, "foo")
        assert f"argument {option}: 'foo' is no whole number" in capsys.readouterr().err


def test_without_skops_nothing_is_fitted(tmp_path, monkeypatch, capsys):
    write(tmp_path / "x.png", IMAGE)
    write(tmp_path / "y.png", SCRIBBLES)
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.delitem(sys.modules, "skops.io", raising=False)
    monkeypatch.setattr(PixelClassifier, "fit", lambda *args: pytest.fail("it was fitted"))
    assert run("train", tmp_path / "x.png", "--labels", tmp_path / "y.png", "-o", tmp_path / "m.dconv") == 1
    assert 'pip install "dconv[save]"' in capsys.readouterr().err


def test_interruptions(path, monkeypatch, capsys):
    write(path / "x.png", IMAGE)
    write(path / "y.png", SCRIBBLES)

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(_command_predict, "predict_blocks", interrupt)
    assert run("predict", path / "m.dconv", path / "x.png", "-o", path / "z.png") == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(PixelClassifier, "fit", interrupt)
    assert run("train", path / "x.png", "--labels", path / "y.png", "-o", path / "n.dconv") == 130
    assert capsys.readouterr().err == "dconv: interrupted\n"


# --- models of other kinds ---


def test_pixels_without_data(tmp_path):
    image = IMAGE.astype(np.float32)
    image[20:30, 30:50] = np.nan
    model = PixelClassifier(BANK, TREES, nodata=-1).fit(image, SCRIBBLES.astype(int))
    dconv.save(model, tmp_path / "m.dconv")
    tifffile.imwrite(tmp_path / "x.tif", image)
    for options in ([], ["--proba"]):
        out = tmp_path / f"y{len(options)}.tif"
        assert run("predict", tmp_path / "m.dconv", tmp_path / "x.tif", "-o", out, "--overlay", *options) == 0
        expected = model.predict_proba(image) if options else model.predict(image)
        assert_array_equal(tifffile.imread(out), expected)
    for number in (0, 1):
        picture = io.imread(tmp_path / f"y{number}_overlay.png")
        assert_array_equal(picture[22, 32], [0, 0, 0])  # no class, no colour
        assert np.ptp(picture[5, 5].astype(int)) > 0


def test_a_crf_works_on_large_images_in_blocks(tmp_path, monkeypatch):
    crf = dconv.DenseCRF(n_iter=2, spatial_sigma=1, appearance_sigma=3)
    model = PixelClassifier(BANK, TREES, refine=crf).fit(IMAGE, SCRIBBLES)
    dconv.save(model, tmp_path / "m.dconv")
    write(tmp_path / "x.npy", IMAGE)
    used = []
    blocks = _command_predict.predict_blocks
    monkeypatch.setattr(
        _command_predict, "predict_blocks", lambda *a, **o: used.append(o["block_shape"]) or blocks(*a, **o)
    )
    for number, options in enumerate(([], ["--block-shape", 40], [])):
        if number == 2:
            monkeypatch.setattr(_command_predict, "_MAX_WHOLE", IMAGE.size - 1)
        assert run("predict", tmp_path / "m.dconv", tmp_path / "x.npy", "-o", tmp_path / f"{number}.npy", *options) == 0
    assert used == [40, None]
    whole = model.predict(IMAGE)
    assert_array_equal(np.load(tmp_path / "0.npy"), whole)
    assert_array_equal(np.load(tmp_path / "2.npy"), whole)  # one block
    assert (np.load(tmp_path / "1.npy") == whole).mean() > 0.99


# --- memory ---


@pytest.mark.parametrize("name", ["x.zarr", "x.ome.zarr"])
def test_zarr_is_not_read_whole(path, monkeypatch, name):
    """Nor with an axis of size 1 in front, nor for the picture."""
    if name == "x.zarr":
        write(path / name, IMAGE)
    else:
        write_ome(path / name, IMAGE[np.newaxis], "zyx")
    monkeypatch.setattr("dconv._lazy_arrays._BAND_BYTES", 20 * 90)
    zarr, read = pytest.importorskip("zarr"), []
    slicing = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, key: read.append(found := slicing(self, key)) or found)
    blocks = "--block-shape", 70, 10
    assert run("predict", path / "m.dconv", path / name, "-o", path / "y.npy", *blocks, "--overlay") == 0
    assert max(np.size(each) for each in read) < IMAGE.size / 2
    assert sum(np.size(each) for each in read) > 2 * IMAGE.size


@pytest.mark.parametrize("shape", [(50,), (50, 61), (7, 50, 61)])
def test_pictures_are_sampled_in_order(shape, monkeypatch):
    monkeypatch.setattr(_image_writers, "_LARGEST", 9)
    monkeypatch.setattr("dconv._lazy_arrays._BAND_BYTES", 1000)
    array = np.arange(np.prod(shape) * 2, dtype=np.int32).reshape(*shape, 2)
    expected = array[3] if len(shape) == 3 else array
    expected = expected[::6] if len(shape) == 1 else expected[::6, ::7]
    for given in (array, from_array(array, "x")):
        assert_array_equal(_image_writers._sampled(given, shape), expected)
