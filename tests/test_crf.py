"""DenseCRF: against exact Gaussians, the laws it obeys, and every form that images and probabilities may take."""

import itertools
import pickle
from unittest import mock

import numpy as np
import pytest
import reference
from sklearn.base import clone

from dconv import DenseCRF
from dconv._crf_embedding import Features
from dconv._crf_inference import mean_field
from dconv._crf_lattice import Lattice
from dconv._crf_prepared import PreparedCRF
from dconv._kernels import _dispatch

SHAPES = {1: (150,), 2: (12, 16), 3: (5, 6, 7)}
# Pixels of different colours: hardly two are alike under the default widths.
pytestmark = pytest.mark.filterwarnings("ignore:.*is so narrow that hardly two pixels are alike:UserWarning")


def make(shape, n_channels=3, n_classes=3, seed=0):
    """Return an image with edges and probabilities with noise."""
    rng = np.random.default_rng(seed)
    image = 100 + 8 * np.cumsum(rng.normal(size=(*shape, n_channels)), axis=len(shape) - 1)
    return image.astype(np.float32), rng.dirichlet(np.full(n_classes, 2.0), size=shape).astype(np.float32)


def kernels_of(crf, image, costs):
    """Return the kernels of a CRF as the reference takes them."""
    shape, n_channels = image.shape[:-1], image.shape[-1]
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, len(shape))
    near = places / np.float64(crf.spatial_sigma)
    alike = np.concatenate(
        [places / np.float64(crf.appearance_sigma), image.reshape(-1, n_channels) / np.float64(crf.color_sigma)], axis=1
    )
    kernels = [(near, crf.spatial_weight, costs), (alike, crf.appearance_weight, costs)]
    return [kernel for kernel in kernels if kernel[1] > 0][: 1 if n_channels == 0 else 2]


# --- against exact Gaussians ---


@pytest.mark.parametrize("n_classes", [2, 3, 5, 6, 9])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_lattice_is_near_the_exact_mean_field(ndim, n_classes):
    image, probabilities = make(SHAPES[ndim], n_classes=n_classes)
    crf = DenseCRF(n_iter=5, ndim=ndim, spatial_weight=1, spatial_sigma=2, appearance_weight=2, appearance_sigma=5)
    crf.set_params(color_sigma=20)
    kernels = kernels_of(crf, image, 1 - np.eye(n_classes))
    exact = reference.mean_field(-np.log(probabilities.reshape(-1, n_classes)), kernels, 5)
    error = np.abs(crf.refine(image, probabilities).reshape(-1, n_classes) - exact)
    effect = np.abs(probabilities.reshape(-1, n_classes) - exact).mean()
    # What the lattice is known to miss of a Gaussian; see the Notes of DenseCRF.
    assert error.max() < 0.1
    assert error.mean() < min(0.02, 0.4 * effect)


@pytest.mark.parametrize("n_classes", [2, 4, 7])
def test_costs_of_a_matrix(n_classes):
    image, probabilities = make(SHAPES[2], n_classes=n_classes, seed=1)
    costs = np.random.default_rng(0).uniform(0, 1, size=(n_classes, n_classes))
    costs = (costs + costs.T) / 2
    crf = DenseCRF(n_iter=4, spatial_weight=1, appearance_weight=2, appearance_sigma=5, color_sigma=20)
    exact = reference.mean_field(
        -np.log(probabilities.reshape(-1, n_classes)), kernels_of(crf, image, costs), crf.n_iter
    )
    refined = crf.set_params(compatibility=costs).refine(image, probabilities)
    assert np.abs(refined.reshape(exact.shape) - exact).max() < 0.1


@pytest.mark.parametrize("n_classes", [2, 3, 4, 5, 6, 8, 21, 25, 33, 40])
def test_potts_is_a_matrix_of_ones_but_for_the_diagonal(n_classes):
    """The two take different loops: rows of differences and rows of all classes."""
    image, probabilities = make((20, 37), n_classes=n_classes)
    potts = DenseCRF(n_iter=3).refine(image, probabilities)
    matrix = DenseCRF(n_iter=3, compatibility=1 - np.eye(n_classes)).refine(image, probabilities)
    np.testing.assert_allclose(matrix, potts, atol=2e-5)


def test_more_kernels():
    image, probabilities = make(SHAPES[2])
    texture = np.random.default_rng(2).normal(size=(*SHAPES[2], 2))
    costs = np.array([[0, 1, 3], [1, 0, 2], [3, 2, 0.0]])
    crf = DenseCRF(n_iter=4, spatial_weight=1, appearance_weight=0)
    kernels = [*kernels_of(crf, image, 1 - np.eye(3)), (texture.reshape(-1, 2), 2, costs)]
    exact = reference.mean_field(-np.log(probabilities.reshape(-1, 3)), kernels, 4).reshape(probabilities.shape)
    refined = crf.refine(image, probabilities, kernels=[(texture, 2, costs)])
    assert np.abs(refined - exact).max() < 0.1
    assert np.abs(refined - crf.refine(image, probabilities)).max() > 0.1
    # What the class knows as a kernel can be given as one, too.
    places = np.stack(np.meshgrid(*map(np.arange, SHAPES[2]), indexing="ij")[::-1], axis=-1)
    same = DenseCRF(n_iter=4, spatial_weight=0, appearance_weight=0).refine(
        image, probabilities, kernels=[(places / 3, 1)]
    )
    np.testing.assert_allclose(same, crf.refine(image, probabilities), atol=1e-5)


def test_hashed_keys_are_as_good():
    """Lattices with more cells than 64 bits can tell apart have their keys hashed; here every lattice."""
    image, probabilities = make((40, 52))
    crf = DenseCRF(n_iter=2, color_sigma=40)
    expected = crf.refine(image, probabilities)
    with mock.patch("dconv._crf_embedding._MOST_KEYS", 0):
        np.testing.assert_array_equal(crf.refine(image, probabilities), expected)


def test_many_channels():
    image, probabilities = make((40, 52), n_channels=28)
    refined = DenseCRF(color_sigma=100).refine(image, probabilities)
    np.testing.assert_allclose(refined.sum(axis=-1), 1, atol=1e-5)
    assert np.abs(refined - DenseCRF().refine(None, probabilities)).max() > 0.01


# --- laws ---


@pytest.mark.parametrize("n_classes", [2, 4, 5, 7, 21, 40])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_threads_change_no_bit(ndim, n_classes):
    shape = {1: (9000,), 2: (130, 141), 3: (18, 33, 35)}[ndim]
    image, probabilities = make(shape, n_channels=1, n_classes=n_classes)
    one, several = (DenseCRF(n_iter=2, ndim=ndim, n_jobs=n_jobs).refine(image, probabilities) for n_jobs in (1, 3))
    np.testing.assert_array_equal(one, several)
    np.testing.assert_allclose(one.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("level", _dispatch.supported_levels())
@pytest.mark.parametrize("n_classes", [2, 4, 9, 21, 40])
@pytest.mark.parametrize("relative", [True, False])
def test_levels_agree(level, n_classes, relative):
    image, probabilities = make((70, 75), n_classes=n_classes)
    kernels = [Features("all", (8.0, 8.0), image[np.newaxis], (20.0,) * 3, 5.0, "")]
    matrices = [None if relative else 1 - np.eye(n_classes)]

    def refine(level):
        lattice = Lattice(kernels, (1, 70, 75), 2, 1, level)
        values = probabilities.reshape(-1, n_classes)
        options = {"are_probabilities": True, "n_iter": 3, "report": None, "n_threads": 1, "name": "x"}
        return mean_field(lattice, values, matrices=matrices, **options)

    np.testing.assert_allclose(refine(level), refine("plain"), atol=1e-4)


@pytest.mark.parametrize("tile", [64, 32, 16, 8])
def test_tiles_do_not_matter_much(tile):
    """More entries make smaller tiles; here the same lattice is built with each of them."""
    image, probabilities = make((75, 83), n_classes=3)
    crf = DenseCRF(n_iter=3, color_sigma=40)
    expected = crf.refine(image, probabilities)
    with mock.patch.dict("dconv._crf_lattice._TILES", {2: ((1, tile, tile),)}):
        np.testing.assert_allclose(crf.refine(image, probabilities), expected, atol=1e-5)


def test_flips_and_shifts_of_energies_and_order_of_classes():
    image, probabilities = make((40, 52), n_classes=4)
    crf = DenseCRF(n_iter=3, color_sigma=40)
    expected = crf.refine(image, probabilities)
    energies = -np.log(np.maximum(probabilities, 1e-5))
    np.testing.assert_allclose(crf.refine_unary(image, energies), expected, atol=1e-5)
    shifts = np.random.default_rng(0).uniform(-5, 5, size=(40, 52, 1))
    np.testing.assert_allclose(crf.refine_unary(image, energies + shifts), expected, atol=1e-4)
    np.testing.assert_allclose(crf.refine(image, probabilities[..., ::-1])[..., ::-1], expected, atol=1e-5)


def test_digits_are_kept_far_from_zero():
    """Values and places count from the least of the image and the start of a tile, so that float32 does.

    A lattice has no period, so that what is far away is refined a little differently; in float32, by much more: values
    of 1e9 have a distance of 64 there.
    """
    image, probabilities = make((40, 52), n_channels=1, n_classes=2)
    crf = DenseCRF(n_iter=2, spatial_weight=0, appearance_weight=3, color_sigma=13)
    expected = crf.refine(image, probabilities)
    for far in (image.astype(np.float64) + 1e7, image.astype(np.int64) + 10**7):
        assert np.abs(crf.refine(far, probabilities) - expected).max() < 0.1
    wide, many = np.zeros((40, 30052, 1), np.float32), np.full((40, 30052, 2), 0.5, np.float32)
    wide[:, 30000:], many[:, 30000:] = image + 5000, probabilities  # a colour that no pixel near it shares
    assert np.abs(crf.refine(wide, many)[:, 30000:] - expected).max() < 0.1


def test_anisotropic_spacing():
    """Twice the distance between slices is half the width in slices."""
    image, probabilities = make((6, 20, 20), n_channels=0, n_classes=2)
    image, probabilities = image[..., :0], probabilities
    flat = DenseCRF(n_iter=2, ndim=3, spatial_sigma=(1e-1, 3, 3)).refine(image, probabilities)
    slices = [DenseCRF(n_iter=2, spatial_sigma=3).refine(None, each) for each in probabilities]
    assert np.abs(flat - np.stack(slices)).max() < 0.2
    assert np.abs(DenseCRF(n_iter=2, ndim=3, spatial_sigma=3).refine(image, probabilities) - flat).mean() > 0.02


# --- forms of input ---


def test_kinds_of_images():
    images, probabilities = zip(*(make((20, 23), seed=seed) for seed in range(2)), strict=True)
    crf = DenseCRF(n_iter=2)
    single = [crf.refine(*pair) for pair in zip(images, probabilities, strict=True)]
    assert single[0].shape == (20, 23, 3)
    assert single[0].dtype == np.float32
    as_list = crf.refine(list(images), list(probabilities))
    assert isinstance(as_list, list)
    batch = crf.refine(np.stack(images), np.stack(probabilities))
    for one, other, expected in zip(as_list, batch, single, strict=True):
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(other, expected)
    ragged = crf.refine([images[0], images[1][:9]], [probabilities[0], probabilities[1][:9]])
    assert [each.shape for each in ragged] == [(20, 23, 3), (9, 23, 3)]
    none = crf.refine(None, np.stack(probabilities))
    np.testing.assert_array_equal(none[1], crf.refine(None, probabilities[1]))


def test_channels():
    image, probabilities = make((20, 23), n_channels=1)
    crf = DenseCRF(n_iter=2)
    expected = crf.refine(image, probabilities)
    np.testing.assert_array_equal(crf.refine(image[..., 0], probabilities), expected)
    first = clone(crf).set_params(channel_axis=0)
    np.testing.assert_array_equal(first.refine(np.moveaxis(image, -1, 0), probabilities), expected)
    np.testing.assert_array_equal(crf.refine(image[..., :0], probabilities), crf.refine(None, probabilities))
    spatial = clone(crf).set_params(appearance_weight=0).refine(image, probabilities)
    np.testing.assert_array_equal(crf.refine(None, probabilities), spatial)
    many = np.repeat(image, 12, axis=-1)
    assert crf.refine(many, probabilities).shape == probabilities.shape
    scaled = clone(crf).set_params(color_sigma=(13, 26, 6.5)).refine(image * [1, 2, 0.5], probabilities)
    alike = clone(crf).set_params(color_sigma=13).refine(image * [1, 1, 1], probabilities)
    np.testing.assert_allclose(scaled, alike, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.float16, np.float64, bool, ">f4"])
def test_dtypes(dtype):
    image = np.random.default_rng(0).integers(0, 2, size=(20, 23, 3)).astype(np.float32)
    image *= 1 if dtype is bool else 120
    _, probabilities = make((20, 23))
    np.testing.assert_array_equal(
        DenseCRF(n_iter=2).refine(image.astype(dtype), probabilities), DenseCRF(n_iter=2).refine(image, probabilities)
    )


@pytest.mark.parametrize("n_channels", [1, 3])
def test_width_in_colour_by_default(n_channels):
    image, probabilities = make((40, 43), n_channels)
    whole = image.clip(0, 255).round()
    assert whole.std() > 13
    by_default, of_8_bits = DenseCRF(n_iter=2), DenseCRF(n_iter=2, color_sigma=13)
    for dtype in (np.uint8, np.uint16, np.int64, np.float32):  # whole numbers from 0 to 255
        same = whole.astype(dtype)
        np.testing.assert_array_equal(by_default.refine(same, probabilities), of_8_bits.refine(same, probabilities))
    for scale, offset in ((1 / 255, 0), (200, -7000), (1e-6, 3e-6), (1, 1), (1, -1)):  # any other unit
        other = image.astype(np.float64) * scale + offset if scale != 1 else whole + offset * 256
        # Not of all numbers: channels that are far apart are no wider for that.
        std = np.sqrt(other.reshape(-1, n_channels).var(axis=0).mean())
        expected = DenseCRF(n_iter=2, color_sigma=std / 4).refine(other, probabilities)
        np.testing.assert_allclose(by_default.refine(other, probabilities), expected, atol=1e-3)
        np.testing.assert_array_equal(
            by_default.prepare(other).refine(probabilities), by_default.refine(other, probabilities)
        )
    flat = np.full((40, 43), 0.5)
    np.testing.assert_array_equal(by_default.refine(flat, probabilities), of_8_bits.refine(flat, probabilities))


def test_memory_layout_and_read_only_input(tmp_path):
    image, probabilities = make((20, 23))
    expected = DenseCRF(n_iter=2).refine(image, probabilities)
    np.save(tmp_path / "image.npy", image)
    before = probabilities.copy()
    probabilities.flags.writeable = False
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    np.testing.assert_array_equal(DenseCRF(n_iter=2).refine(mapped, probabilities), expected)
    fortran = DenseCRF(n_iter=2).refine(np.asfortranarray(image), np.asfortranarray(probabilities).astype(np.float64))
    np.testing.assert_array_equal(fortran, expected)
    np.testing.assert_array_equal(probabilities, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 65), (64, 64), (65, 129)])
def test_small_and_odd_sizes(shape):
    for n_classes, n_channels in itertools.product((2, 3, 9), (0, 3)):
        image, probabilities = make(shape, n_channels, n_classes)
        refined = DenseCRF(n_iter=2).refine(image, probabilities)
        np.testing.assert_allclose(refined.sum(axis=-1), 1, atol=1e-5)


def test_nothing_to_do_returns_the_probabilities():
    image, probabilities = make((20, 23), n_classes=6)
    for crf in (DenseCRF(n_iter=0), DenseCRF(spatial_weight=0, appearance_weight=0)):
        np.testing.assert_allclose(crf.refine(image, probabilities), probabilities, atol=2e-6)


def test_zeros_are_taken_for_the_floor():
    certain = np.zeros((8, 8, 3), np.float32)
    certain[..., 0] = 1
    refined = DenseCRF(n_iter=0).refine(None, certain)
    np.testing.assert_allclose(refined[..., 1], 1e-5 / (1 + 2e-5), rtol=1e-4)


def test_extreme_energies():
    """Neither overflows nor divides by zero."""
    unary = np.random.default_rng(0).uniform(-1e4, 1e4, size=(20, 23, 7))
    for n_classes in (2, 5, 7):
        refined = DenseCRF(spatial_weight=1e3).refine_unary(None, unary[..., :n_classes])
        np.testing.assert_allclose(refined.sum(axis=-1), 1, atol=1e-5)


# --- the object ---


def test_parameters_clone_and_pickle():
    crf = DenseCRF(n_iter=2, spatial_sigma=(2, 3), compatibility=[[0, 1], [1, 0]])
    image, probabilities = make((20, 23), n_classes=2)
    expected = crf.refine(image, probabilities)
    for other in (clone(crf), pickle.loads(pickle.dumps(crf))):
        assert other.get_params() == crf.get_params()
        np.testing.assert_array_equal(other.refine(image, probabilities), expected)
    assert "spatial_sigma=(2, 3)" in repr(crf)


@pytest.mark.parametrize("n_classes", [2, 4, 9])
def test_prepared_is_the_same(n_classes):
    image, probabilities = make((20, 23), n_classes=n_classes)
    crf = DenseCRF(n_iter=3)
    prepared = crf.prepare(image)
    assert isinstance(prepared, PreparedCRF)
    assert prepared.n_vertices_ > 0
    for _ in range(2):
        np.testing.assert_array_equal(prepared.refine(probabilities), crf.refine(image, probabilities))
    np.testing.assert_array_equal(prepared.refine_unary(probabilities), crf.refine_unary(image, probabilities))


@pytest.mark.parametrize("n_classes", [2, 4, 9])
def test_callback_sees_every_iteration_and_can_stop(n_classes):
    image, probabilities = make((20, 23), n_classes=n_classes)
    seen = []
    crf = DenseCRF(n_iter=4)
    refined = crf.refine(image, probabilities, callback=lambda *step: seen.append((*step[:2], step[2].copy())))
    np.testing.assert_array_equal(refined, crf.refine(image, probabilities))
    assert [iteration for iteration, _, _ in seen] == [1, 2, 3, 4]
    states = [crf.set_params(n_iter=n).refine(image, probabilities) for n in range(5)]
    for (_, change, state), before, after in zip(seen, states[:-1], states[1:], strict=True):
        np.testing.assert_array_equal(state, after)
        assert change == pytest.approx(np.abs(after - before).max(), abs=1e-6)
    stopped = crf.refine(image, probabilities, callback=lambda iteration, change, state: iteration == 2)
    np.testing.assert_array_equal(stopped, states[2])


def test_verbose(capsys):
    _, probabilities = make((20, 23))
    DenseCRF(n_iter=2, verbose=1).refine(None, [probabilities])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[DenseCRF] probabilities[0]: iteration 1, largest change 0.")


# --- tune ---


def labelled(noise):
    """Return images of two flat colours, probabilities with noise that do not tell small regions, and labels 1, 2."""
    rng = np.random.default_rng(0)
    labels = np.ones((2, 40, 50), int)
    labels[:, 10:30, 15:40] = 2
    images = np.where(labels == 2, 180, 60).astype(np.uint8)
    right = np.clip(0.5 + 0.1 * (labels == 2) - 0.05 + noise * rng.normal(size=labels.shape), 0.01, 0.99)
    return images, np.stack([1 - right, right], axis=-1), labels


def test_tune_finds_parameters_that_help():
    images, probabilities, labels = labelled(0.2)
    tuning = DenseCRF(n_iter=5).tune(images, probabilities, labels)
    assert tuning.score_without < 0.6 < 0.95 < tuning.score
    assert len(tuning.results) == 24
    assert tuning.results[0][1] == tuning.score
    assert tuning.results[0][0].items() <= tuning.crf.get_params().items()
    assert tuning.crf.n_iter == 5


def test_tune_tries_widths_of_the_unit_of_images():
    images, probabilities, labels = labelled(0.2)
    of_8_bits = DenseCRF(n_iter=2).tune(images, probabilities, labels)
    assert {parameters["color_sigma"] for parameters, _ in of_8_bits.results} == {5, 13, 30}
    tuning = DenseCRF(n_iter=2).tune(list(images / 255 * [[[0.5]], [[1]]]), list(probabilities), list(labels))
    width = np.std(images / 255 * [[[0.5]], [[1]]]) / 4  # of all together
    found = sorted({parameters["color_sigma"] for parameters, _ in tuning.results})
    np.testing.assert_allclose(found, [5 / 13 * width, width, 30 / 13 * width])
    assert tuning.score > 0.95


def test_tune_may_find_that_no_crf_is_best():
    images, probabilities, labels = labelled(0)
    holes = probabilities.copy()
    labels[:, ::6, ::6] = 3 - labels[:, ::6, ::6]  # the truth has specks, which the image does not show
    holes[:, ::6, ::6] = holes[:, ::6, ::6, ::-1]
    tuning = DenseCRF().tune(list(images), list(holes), list(labels), param_grid={"spatial_weight": [3]})
    assert tuning.score == tuning.score_without == 1
    assert tuning.crf.spatial_weight == tuning.crf.appearance_weight == 0
    np.testing.assert_allclose(tuning.crf.refine(images, holes), holes, atol=1e-6)


def test_tune_needs_parameters_to_try():
    images, probabilities, labels = labelled(0.2)
    with pytest.raises(ValueError, match=r"param_grid must hold parameters to try, got \[\]"):
        DenseCRF().tune(images, probabilities, labels, param_grid=[])


def test_tune_knows_labels():
    images, probabilities, labels = labelled(0.2)
    grid = {"spatial_weight": [3]}
    expected = DenseCRF().tune(images[0], probabilities[0], labels[0], param_grid=grid)
    ids = np.where(labels[0] == 2, 7, 4)
    assert DenseCRF().tune(images[0], probabilities[0], ids, param_grid=grid).results == expected.results
    ids[0] = 255
    tuning = DenseCRF().tune(images[0], probabilities[0], ids, classes=[4, 7], ignore_label=255, param_grid=grid)
    assert tuning.score == pytest.approx(expected.score, abs=0.05)
    with pytest.raises(ValueError, match=r"labels holds the classes \[4, 7, 255\], but probabilities has 2 columns"):
        DenseCRF().tune(images[0], probabilities[0], ids)
    with pytest.raises(ValueError, match=r"classes is \[4, 7, 9\], but probabilities has 2 columns"):
        DenseCRF().tune(images[0], probabilities[0], ids, classes=[4, 7, 9])
    with pytest.raises(ValueError, match="labels has shape"):
        DenseCRF().tune(images[0], probabilities[0], ids[:-1])
