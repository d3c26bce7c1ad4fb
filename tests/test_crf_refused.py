"""What DenseCRF refuses, with messages that say what to change, and what it warns of."""

import linecache
import re
from unittest import mock

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB

from dconv import AtrousFeatures, DenseCRF, PixelClassifier

IMAGE = np.random.default_rng(0).normal(100, 5, size=(12, 14, 3)).astype(np.float32)
PROBABILITIES = np.random.default_rng(1).dirichlet(np.ones(3), size=(12, 14))
pytestmark = pytest.mark.filterwarnings("ignore:.*is so narrow that hardly two pixels are alike:UserWarning")


def changed(value, place=(3, 4, 1)):
    """Return the probabilities with one value changed."""
    out = PROBABILITIES.copy()
    out[place] = value
    return out


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (changed(-0.1), r"probabilities at pixel 46 .* must not be negative.*refine_unary"),
        (changed(np.nan), r"probabilities at pixel 46 .*finite"),
        (changed(np.inf), r"probabilities at pixel 46 .*finite"),
        (2 * PROBABILITIES, r"pixel 0 .*add up to 2, but must to 1 within 0.001; divide them"),
        (PROBABILITIES[:-1], r"image has spatial shape \(12, 14\), but probabilities has \(11, 14\)"),
        (PROBABILITIES[..., :1], r"1 class\(es\).*at least 2"),
        (PROBABILITIES[0, 0], r"shape \(3,\), but with ndim=2 it must have 3 axes"),
        ([], "holds no image"),
        (np.stack([PROBABILITIES] * 2), r"probabilities has 2 image\(s\), but image has 12"),
    ],
)
def test_probabilities(probabilities, message):
    with pytest.raises(ValueError, match=message):
        DenseCRF().refine(IMAGE, probabilities)


def test_late_pixel_of_a_large_image():
    probabilities = np.full((100, 100, 2), 0.5)
    probabilities[77, 7, 0] = 0.7
    with pytest.raises(ValueError, match=r"pixel 7707 .*add up to 1.2"):
        DenseCRF(n_jobs=2).refine(None, probabilities)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_energies(value):
    for n_classes in (2, 3, 9):
        unary = np.zeros((12, 14, n_classes))
        unary[3, 4, 1] = value
        with pytest.raises(ValueError, match=r"unary at pixel 46 .*(finite|beyond 1e18)"):
            DenseCRF().refine_unary(None, unary)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_iter": -1}, ValueError, "n_iter must be at least 0"),
        ({"n_iter": 2.0}, TypeError, "n_iter must be an int"),
        ({"spatial_sigma": 0}, ValueError, "spatial_sigma must be above 0 and finite, got 0; .*weight to 0"),
        ({"appearance_sigma": -3.0}, ValueError, "appearance_sigma must be above 0"),
        ({"color_sigma": np.nan}, ValueError, "color_sigma must be above 0"),
        ({"color_sigma": "wide"}, TypeError, "color_sigma must be a number or one number per channel"),
        ({"color_sigma": (1, 2)}, ValueError, "color_sigma must .* one for each channel, 3 in all"),
        ({"spatial_sigma": (1, 2, 3)}, ValueError, "spatial_sigma must .* one for each spatial axis, 2 in all"),
        ({"spatial_weight": -1}, ValueError, "spatial_weight must be 0 or more"),
        ({"appearance_weight": None}, TypeError, "appearance_weight must be a number"),
        ({"compatibility": np.eye(2)}, ValueError, r"compatibility must .* shape \(3, 3\).*got shape \(2, 2\)"),
        ({"compatibility": np.triu(np.ones((3, 3)))}, ValueError, r"symmetric.*\(m \+ m.T\) / 2"),
        ({"compatibility": np.full((3, 3), np.nan)}, ValueError, "compatibility must be finite"),
        ({"compatibility": np.eye(3) * 1j}, TypeError, "compatibility must hold real numbers"),
        ({"ndim": 4}, ValueError, "ndim must be 1, 2 or 3"),
        ({"channel_axis": 7}, ValueError, "channel_axis=7 is not an axis"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({"verbose": -1}, ValueError, "verbose must be at least 0"),
    ],
)
def test_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        DenseCRF(**parameters).refine(IMAGE, PROBABILITIES)


def test_images():
    with pytest.raises(ValueError, match=r"image has shape \(12,\).*2 axes, or 3 axes"):
        DenseCRF().refine(np.zeros(12), PROBABILITIES)
    with pytest.raises(ValueError, match=r"image has shape .* has 3 axes"):
        DenseCRF(channel_axis=0).refine(IMAGE[..., 0], PROBABILITIES)
    with pytest.raises(TypeError, match="image must hold real numbers"):
        DenseCRF().refine(IMAGE.astype(complex), PROBABILITIES)
    with pytest.raises(ValueError, match="finite"):
        DenseCRF().refine(np.full_like(IMAGE, np.nan), PROBABILITIES)
    with pytest.raises(ValueError, match="an axis of size 0 holds no pixels"):
        DenseCRF().refine(IMAGE[:0], PROBABILITIES)
    with pytest.raises(TypeError, match="masked"):
        DenseCRF().refine(np.ma.masked_less(IMAGE, 100), PROBABILITIES)
    with pytest.raises(ValueError, match="has 31 features, but 1 to 30"):
        DenseCRF().refine(np.zeros((12, 14, 29)), PROBABILITIES)


def test_kernels():
    for kernels, error, message in [
        ([IMAGE], TypeError, r"kernels\[0\] must be \(features, weight\)"),
        ([(IMAGE[:5], 1)], ValueError, r"features of kernels\[0\] have spatial shape \(5, 14\)"),
        ([(IMAGE, -1)], ValueError, r"weight of kernels\[0\] must be 0 or more"),
        ([(IMAGE, 1, np.eye(2))], ValueError, r"the compatibility of kernels\[0\] must .*\(3, 3\)"),
        ([(np.zeros((12, 14, 0)), 1)], ValueError, r"kernels\[0\] has 0 features"),
        ([(np.full_like(IMAGE, np.nan), 1)], ValueError, r"the features of kernels\[0\] holds nan"),
        (None, TypeError, r"kernels must be a list of \(features, weight\).*got None"),
        (3, TypeError, "kernels must be a list of"),
    ]:
        with pytest.raises(error, match=message):
            DenseCRF().refine(IMAGE, PROBABILITIES, kernels=kernels)


def test_kernels_of_several_images():
    images, probabilities = [IMAGE, IMAGE], [PROBABILITIES, PROBABILITIES]
    for features in ([IMAGE], [IMAGE] * 3, 5):
        with pytest.raises(ValueError, match=r"features of kernels\[0\] must be a batch or list of 2, one for each"):
            DenseCRF().refine(images, probabilities, kernels=[(features, 1)])
    first, second = DenseCRF().refine(images, probabilities, kernels=iter([([IMAGE, IMAGE], 1)]))
    np.testing.assert_array_equal(first, second)


def test_callback():
    for call in (DenseCRF().refine, DenseCRF().refine_unary):
        with pytest.raises(TypeError, match=r"callback must be None or a function .* got 5"):
            call(IMAGE, PROBABILITIES, callback=5)
    with pytest.raises(TypeError, match="callback must be None or a function"):
        DenseCRF().prepare(IMAGE).refine(PROBABILITIES, callback=5)


def test_messages_name_the_argument():
    bad = IMAGE.copy()
    bad[3, 4, 1] = np.inf
    with pytest.raises(ValueError, match=r"^image holds inf at .*\(3, 4, 1\)"):
        DenseCRF().refine(bad, PROBABILITIES)
    with pytest.raises(ValueError, match=r"^image\[1\] holds inf at"):
        DenseCRF().refine([IMAGE, bad], [PROBABILITIES, PROBABILITIES])
    with pytest.raises(TypeError, match=r"^labels must hold integer labels"):
        DenseCRF().tune(IMAGE, PROBABILITIES, np.ones((12, 14)))
    with pytest.raises(ValueError, match=r"classes is \[1, 2, 2\].* a label of its own"):
        DenseCRF().tune(IMAGE, PROBABILITIES, np.ones((12, 14), int), classes=[1, 2, 2])


def test_prepared():
    prepared = DenseCRF().prepare(IMAGE)
    with pytest.raises(ValueError, match=r"of shape \(12, 14\) and last .* got \(12, 13, 3\)"):
        prepared.refine(PROBABILITIES[:, :-1])
    with pytest.raises(ValueError, match=r"must be those of the one image .* a list of 1"):
        prepared.refine([PROBABILITIES])


def refined_behind_a_classifier(crf, image, probabilities):
    scribbles = np.zeros(image.shape[:2], int)
    scribbles[0], scribbles[-1] = 1, 2
    segmenter = PixelClassifier(AtrousFeatures(1), GaussianNB(), channel_axis=-1, refine=crf)
    return segmenter.fit(image, scribbles).predict(image)


def predicted_by_scikit_learn(crf, image, probabilities):
    labels = np.where(np.arange(60) < 30, 1, 2) * np.ones((50, 1), int)
    segmenter = PixelClassifier(AtrousFeatures(1), GaussianNB(), channel_axis=-1, refine=crf)
    splits = [(np.array([0]), np.array([1]))]
    GridSearchCV(segmenter, {"nodata": [None]}, cv=splits, refit=False).fit([image, image], [labels, labels])


@pytest.mark.filterwarnings("default:.*is so narrow:UserWarning")
@pytest.mark.parametrize(
    "refined",
    [
        lambda crf, image, probabilities: crf.refine(image, probabilities),
        lambda crf, image, probabilities: crf.prepare(image).refine(probabilities),
        refined_behind_a_classifier,
        predicted_by_scikit_learn,
    ],
    ids=["refine", "prepare", "PixelClassifier", "GridSearchCV"],
)
def test_too_fine_a_lattice_warns_where_dconv_is_called(refined):
    noise = np.random.default_rng(0).uniform(0, 255, size=(50, 60, 3))
    crf = DenseCRF(color_sigma=0.5, channel_axis=-1)
    with pytest.warns(UserWarning, match="appearance kernel is so narrow .* 3000 pixels .* raise color_sigma") as seen:
        refined(crf, noise, np.full((50, 60, 2), 0.5))
    assert [warning.filename for warning in seen] == [__file__]
    assert re.search(r"\.(refine|predict|fit)\(", linecache.getline(__file__, seen[0].lineno))


def test_lattice_beyond_its_keys():
    with pytest.raises(ValueError, match=r"appearance kernel spans .*; raise color_sigma"):
        DenseCRF(color_sigma=1e-6).refine(IMAGE, PROBABILITIES)
    with pytest.raises(ValueError, match=r"spatial kernel spans .* cells of its lattice; raise spatial_sigma"):
        DenseCRF(spatial_sigma=1e-8).refine(IMAGE, PROBABILITIES)


def test_memory_is_estimated_before_it_is_taken():
    with (
        mock.patch("dconv._crf_memory.available_memory", return_value=10_000),
        pytest.raises(MemoryError, match=r"takes about .* GB, this machine has 1e-05"),
    ):
        DenseCRF().refine(IMAGE, PROBABILITIES)
    with mock.patch("dconv._crf_memory.available_memory", return_value=None):  # a system that does not say
        DenseCRF().refine(IMAGE, PROBABILITIES)


@pytest.mark.parametrize("images", [1, 2])
def test_a_compatibility_of_other_classes_is_refused_before_any_lattice_is_built(images):
    with mock.patch("dconv._crf_prepared.Lattice") as built, pytest.raises(ValueError, match="compatibility must"):
        DenseCRF(compatibility=np.eye(2)).refine([IMAGE] * images, [PROBABILITIES] * images)
    built.assert_not_called()
