"""Distillation: the student stands for its teacher, says how well, and gives way where it does not; entropy."""

from unittest import mock

import numpy as np
import pytest
import scipy.stats
from images import make_image, make_images, scribble
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from dconv import _distillation
from dconv._distillation import draw_pixels
from dconv._validation import as_images
from dconv.features import AtrousFeatures
from dconv.filters import gaussian
from dconv.segmentation import PixelClassifier

BANK = AtrousFeatures(2)
TREES = ExtraTreesClassifier(20, max_leaf_nodes=16, random_state=0)


@pytest.fixture(scope="module")
def distilled():
    image, labels = make_image((150, 160))
    return PixelClassifier(BANK, TREES, distill=True, random_state=0).fit(image, scribble(labels))


def test_student_answers_as_its_teacher(distilled):
    image, _ = make_image((150, 160), seed=1)
    agreement = distilled.distillation_agreement_
    assert agreement.labels > 0.97
    assert agreement.probabilities < 0.05
    student, teacher = distilled.predict_proba(image), distilled.predict_proba(image, exact=True)
    assert 0 < np.abs(student - teacher).mean() < 0.06
    same = distilled.predict(image) == distilled.predict(image, exact=True)
    assert 0.95 < same.mean() < 1
    rows = distilled.features_.transform(image).reshape(-1, distilled.n_features_)
    np.testing.assert_array_equal(distilled.predict(image, exact=True).ravel(), distilled.classifier_.predict(rows))
    seen = distilled.student_features_.transform(image).reshape(len(rows), -1)
    np.testing.assert_array_equal(distilled.predict(image).ravel(), distilled.student_.predict(seen))


def test_student_sees_the_cheaper_features(distilled, monkeypatch):
    """But not so the classifier, and not where it needs all."""
    image, labels = make_image((150, 160))
    cheaper = distilled.student_features_
    names, all_names = (each.get_feature_names_out().tolist() for each in (cheaper, distilled.features_))
    assert names == [name for name in all_names if "lines" not in name and "line_" not in name and "tensor" not in name]
    assert distilled.student_.n_features_in_ == len(names) == cheaper.n_features_out_ < distilled.n_features_
    assert cheaper.halo_ < distilled.features_.halo_
    assert cheaper.get_params()["groups"] == ("level", "wavelet", "gradient", "hessian", "std", "extrema")
    assert distilled.features_.get_params()["groups"] is None
    numbers = [all_names.index(name) for name in names]
    np.testing.assert_array_equal(cheaper.transform(image), distilled.features_.transform(image)[..., numbers])
    assert distilled.score(image, labels) == np.mean(distilled.predict(image) == labels)
    monkeypatch.setattr(_distillation, "MIN_AGREEMENT", 1.1)
    monkeypatch.setattr(_distillation, "MAY_LOSE", -1)
    with pytest.warns(UserWarning, match="less than 110%"):
        needing = PixelClassifier(BANK, TREES, distill=True, random_state=0).fit(image, scribble(labels))
    assert needing.student_features_ is needing.features_
    assert needing.student_.n_features_in_ == needing.n_features_
    assert needing.classifier_.predict(np.zeros((1, needing.n_features_))).shape == (1,)


@pytest.mark.parametrize(
    "features",
    [
        AtrousFeatures(2, groups=["level", "std"]),  # nothing is left out
        AtrousFeatures(2, groups=["lines"]),  # nothing is left
        "passthrough",
    ],
    ids=str,
)
def test_student_of_features_without_cheaper_ones(features):
    image, labels = make_image((60, 60))
    x = image[..., np.newaxis] if isinstance(features, str) else image
    segmenter = PixelClassifier(features, TREES, distill=True, random_state=0)
    with mock.patch.object(_distillation, "MIN_AGREEMENT", 0):
        segmenter.fit(x, scribble(labels))
    assert segmenter.student_features_ is segmenter.features_
    assert segmenter.student_.n_features_in_ == segmenter.n_features_


def test_student_of_colours_and_own_filters_keeps_them():
    image, labels = make_image((60, 60))
    image = np.stack([image, image[::-1], image[:, ::-1]], axis=-1)
    bank = AtrousFeatures(2, color_groups=["level", "lines"], filters=gaussian(1.0), channel_axis=-1)
    segmenter = PixelClassifier(bank, TREES, distill=True, random_state=0)
    with mock.patch.object(_distillation, "MIN_AGREEMENT", 0):
        segmenter.fit(image, scribble(labels))
    names = segmenter.student_features_.get_feature_names_out().tolist()
    assert {name.split("_level")[0] for name in names if "level" in name} == {"intensity", "red_green", "yellow_blue"}
    assert sum("gaussian" in name for name in names) == 2
    assert not any("line" in name for name in names)
    again = clone(segmenter.student_features_).fit(image)
    np.testing.assert_array_equal(again.transform(image), segmenter.student_features_.transform(image))
    assert segmenter.predict(image).shape == labels.shape


def test_choice_of_the_features_that_a_student_sees():
    """Some if they are enough, without a try of all; and if all are hardly better."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 3)).astype(np.float32)
    teacher = GaussianNB().fit(rows, rows[:, 0] + rows[:, 1] > 0)
    for columns, seen in (([0, 1], 2), ([0, 2], 3)):
        with mock.patch.object(_distillation, "train", side_effect=_distillation.train) as train:
            student, agreement, frugal = _distillation.distill(
                teacher, rows, np.random.RandomState(0), np.array(columns)
            )
        assert student.n_features_in_ == seen
        assert frugal == (seen == 2)
        assert agreement.labels > 0.97
        assert train.call_count == seen - 1
    with mock.patch.object(_distillation, "MIN_AGREEMENT", 1.1), mock.patch.object(_distillation, "MAY_LOSE", 0.5):
        assert _distillation.distill(teacher, rows, np.random.RandomState(0), np.array([0, 2]))[2]


def test_agreement_is_that_of_held_out_pixels():
    """Of a teacher that says nothing: no student can be wrong about it."""

    class Flat(GaussianNB):
        def predict_proba(self, X):
            return np.tile([0.7, 0.3], (len(X), 1))

    rows = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    teacher = Flat().fit(rows, np.arange(5000) % 2)
    student, agreement, _ = _distillation.distill(teacher, rows, np.random.RandomState(0))
    assert agreement.labels == 1
    assert agreement.probabilities < 0.03  # soft targets: 0.7 is learnt, not 1
    np.testing.assert_allclose(student.predict_proba(rows).mean(axis=0), [0.7, 0.3], atol=0.03)


def test_is_the_same_again():
    image, labels = make_image((90, 90))
    one, other = (
        PixelClassifier(BANK, TREES, distill="auto", random_state=3).fit(image, scribble(labels)) for _ in range(2)
    )
    assert one.distillation_agreement_ == other.distillation_agreement_
    np.testing.assert_array_equal(one.predict_proba(image), other.predict_proba(image))


def test_without_distill_there_is_no_student():
    image, labels = make_image((60, 60))
    segmenter = PixelClassifier(BANK, TREES).fit(image, scribble(labels))
    assert segmenter.student_ is None
    assert segmenter.distillation_agreement_ is None
    np.testing.assert_array_equal(segmenter.predict(image), segmenter.predict(image, exact=True))


def test_a_bad_student_gives_way_or_is_warned_of(monkeypatch):
    monkeypatch.setattr(_distillation, "MIN_AGREEMENT", 1.1)
    image, labels = make_image((60, 60))
    with pytest.warns(UserWarning, match=r"gives .* of pixels the label .* less than 110%; pass more images") as seen:
        doubted = PixelClassifier(BANK, TREES, distill=True, random_state=0).fit(image, scribble(labels))
    assert [warning.filename for warning in seen] == [__file__]
    assert doubted.student_ is not None
    automatic = PixelClassifier(BANK, TREES, distill="auto", random_state=0).fit(image, scribble(labels))
    assert automatic.student_ is None
    assert automatic.student_features_ is automatic.features_
    assert automatic.distillation_agreement_ == doubted.distillation_agreement_
    np.testing.assert_array_equal(automatic.predict(image), automatic.predict(image, exact=True))


def test_learns_from_unlabeled_images():
    X, y = make_images()
    dark = [image - 50 for image in X]  # such as the labelled ones do not show
    alone, both = (
        PixelClassifier(BANK, TREES, distill=True, random_state=0).fit(X, y, X_unlabeled=more) for more in (None, dark)
    )

    def error(segmenter):
        answers = zip(segmenter.predict_proba(dark), segmenter.predict_proba(dark, exact=True), strict=True)
        return np.mean([np.abs(one - other).mean() for one, other in answers])

    assert error(both) < error(alone)


@pytest.mark.parametrize(
    ("parameters", "more", "message"),
    [
        ({"distill": "yes"}, None, 'distill must be True, False or "auto"'),
        ({"distill": np.array([True, False])}, None, 'distill must be True, False or "auto"'),
        ({"distill": 1}, None, 'distill must be True, False or "auto"'),
        ({"distill": True, "classifier": LinearSVC()}, None, "LinearSVC has no predict_proba"),
        ({"distill": False}, np.zeros((60, 60)), "distill=False; pass distill=True"),
        ({"distill": True}, np.full((60, 60), np.nan), r"^X_unlabeled holds nan .* finite"),
        ({"distill": True}, [np.zeros((60, 60)), np.zeros((60, 60, 3))], r"^X_unlabeled\[1\] has 3 axes"),
        ({"distill": True}, [], "X_unlabeled is an empty list"),
        ({"distill": True, "features": AtrousFeatures(2)}, np.zeros((60, 3)), "X_unlabeled has spatial shape"),
        ({"distill": True, "features": AtrousFeatures(2)}, np.zeros((60, 60, 3)), "X_unlabeled was taken for a batch"),
        ({"distill": True, "channel_axis": -1}, np.zeros((60, 60, 2)), "X_unlabeled has 2 channel"),
    ],
)
def test_refused(parameters, more, message):
    image, labels = make_image((60, 60))
    if "channel_axis" in parameters:
        image = np.stack([image] * 3, axis=-1)
    segmenter = PixelClassifier(**{"features": BANK, "classifier": TREES, **parameters})
    with pytest.raises(ValueError, match=message):
        segmenter.fit(image, scribble(labels), X_unlabeled=more)
    assert not hasattr(segmenter, "classifier_")


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_entropy", "suggest_pixels"])
def test_exact_is_a_bool(method):
    image, labels = make_image((60, 60))
    segmenter = PixelClassifier(BANK, TREES).fit(image, scribble(labels))
    for no_bool in ("no", 1, np.array([True, False])):
        with pytest.raises(TypeError, match="exact must be True or False, got"):
            getattr(segmenter, method)(image, exact=no_bool)
    expected = getattr(segmenter, method)(image)
    np.testing.assert_array_equal(getattr(segmenter, method)(image, exact=np.True_), expected)


def test_pixels_are_drawn_from_few_blocks_of_every_image(monkeypatch):
    images = as_images([np.zeros((2000, 1500)), np.zeros((700, 800)), np.zeros((30, 40))], 2, None)
    masks = draw_pixels(images, 66, np.random.RandomState(0))
    assert [mask.shape for mask in masks] == images.spatial_shapes
    drawn = [mask.n_pixels for mask in masks]
    assert abs(sum(drawn) - _distillation.N_PIXELS) < 2000
    assert min(drawn) > 0
    rows = np.asarray(masks[0]).any(axis=1)
    assert rows.mean() < 1  # of the large one not every block
    small = as_images(np.zeros((50, 60)), 2, None)
    assert np.asarray(draw_pixels(small, 66, np.random.RandomState(0))[0]).all()


def test_entropy(distilled):
    image, _ = make_image((70, 80), seed=2)
    for exact in (False, True):
        entropy = distilled.predict_entropy(image, exact=exact)
        assert entropy.dtype == np.float32
        assert entropy.shape == image.shape
        expected = scipy.stats.entropy(distilled.predict_proba(image, exact=exact), base=2, axis=-1)
        np.testing.assert_allclose(entropy, expected, atol=1e-5)
    assert distilled.predict_entropy([image, image[:40]])[1].shape == (40, 80)
