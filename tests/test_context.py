"""ContextClassifier against its definition by hand, in blocks, with what PixelClassifier has, and what it refuses."""

import re
from unittest import mock

import numpy as np
import pytest
from images import BANK, TREES, Untouchable, make_image, make_images, scribble
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from dconv import (
    AtrousContext,
    AtrousFeatures,
    AtrousPyramid,
    ContextClassifier,
    DenseCRF,
    PixelClassifier,
    PixelPosition,
    _cascade_answers,
    _pixels,
    _progress,
    load,
    make_features,
    save,
)
from dconv._context_bank import ContextFeatures
from dconv._distillation import distill
from dconv._folds import Folds
from dconv._held_out import HeldOut
from dconv._pixels import PixelSet
from dconv._responses import response_of

FITS = []


class Recorder(GaussianNB):
    """Remembers all that any copy of it was fitted on."""

    def fit(self, X, y, sample_weight=None):
        FITS.append((X, y, sample_weight))
        return super().fit(X, y, sample_weight)


@pytest.fixture
def fits():
    FITS.clear()
    return FITS


def three_classes(labels):
    """Return labels with a third class where two meet."""
    labels = labels.copy()
    labels[:, 1:][labels[:, 1:] != labels[:, :-1]] = 3
    return labels


def context_of(probabilities):
    """Return the context of whole images; test_context_bank.py has its definition."""
    block = tuple(slice(0, size) for size in probabilities.shape[:-1])
    return ContextFeatures(probabilities.ndim - 1, probabilities.shape[-1])._transform_block(probabilities, block)


def rows_of(images, labels):
    return np.concatenate([image[mask > 0] for image, mask in zip(images, labels, strict=True)])


def proba(model, feature_image):
    """Return probabilities to the last bit as PixelClassifier asks for them: a tree in the next stage may see it."""
    answers = response_of(model, "predict_proba")(feature_image.reshape(-1, feature_image.shape[-1]))
    return answers.reshape(*feature_image.shape[:-1], -1)


def by_hand(X, y, others, n_stages, transformer=BANK):
    """Return the probabilities of `others` from a cascade fitted to three images, each held out in turn."""
    everything = clone(transformer).fit(X, y)
    other_features = [everything.transform(image) for image in others]
    kept = [[i for i in range(3) if i != index] for index in range(3)]
    copies = [clone(transformer).fit([X[i] for i in each], [y[i] for i in each]) for each in kept]
    features = [copy.transform(image) for copy, image in zip(copies, X, strict=True)]  # each held out
    seen, other_seen = features, other_features
    for number in range(n_stages):
        learnt = [everything.transform(image) for image in X] if number == 0 else seen
        model = clone(TREES).fit(rows_of(learnt, y), rows_of(y, y))
        answers = [proba(model, feature_image) for feature_image in other_seen]
        if number + 1 == n_stages:
            return answers
        context = []
        for image, copy, each in zip(seen, copies, kept, strict=True):
            of_kept, images = [y[i] for i in each], [copy.transform(X[i]) if number == 0 else seen[i] for i in each]
            held_out = clone(TREES).fit(rows_of(images, of_kept), rows_of(of_kept, of_kept))
            context.append(context_of(proba(held_out, image)))
        seen = [np.concatenate(pair, axis=-1) for pair in zip(features, context, strict=True)]
        other_context = [context_of(answer) for answer in answers]
        other_seen = [np.concatenate(pair, axis=-1) for pair in zip(other_features, other_context, strict=True)]


# --- what it is ---


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n_stages", [2, 3])
def test_equals_the_same_steps_by_hand(n_stages, n_classes):
    X, y = make_images(((40, 50), (30, 44), (36, 44)))
    if n_classes == 3:
        y = [scribble(three_classes(make_image(image.shape)[1]), 0.3, seed) for seed, image in enumerate(X)]
    others = [make_image((41, 37), seed=7)[0], make_image((20, 20), seed=8)[0]]
    segmenter = ContextClassifier(BANK, TREES, n_stages=n_stages).fit(X, y)
    assert segmenter.n_stages_ == len(segmenter.stages_) == n_stages
    assert segmenter.n_context_features_ == (108 if n_classes == 2 else 84)
    assert segmenter.n_features_ == 2
    for got, expected in zip(segmenter.predict_proba(others), by_hand(X, y, others, n_stages), strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(segmenter.predict(others[0]), 1 + segmenter.predict_proba(others[0]).argmax(axis=-1))


AROUND = AtrousContext(BANK, classifier=GaussianNB())
WITH_WHOLE = make_features(AROUND, FunctionTransformer(lambda x: np.asarray(x, np.float32)[..., None] ** 2))
PYRAMID = AtrousPyramid(AROUND, projection="lda", dilations=(2,), pool=False)
NESTED = AtrousContext(AROUND, classifier=GaussianNB())


@pytest.mark.parametrize("n_stages", [2, 3])
@pytest.mark.parametrize("features", [AROUND, WITH_WHOLE, PYRAMID, NESTED])
def test_features_that_learn_from_labels_are_held_out_too(features, n_stages):
    X, y = make_images(((40, 50), (30, 44), (36, 44)))
    others = [make_image((41, 37), seed=7)[0]]
    segmenter = ContextClassifier(features, TREES, n_stages=n_stages).fit(X, y)
    (got,), (expected,) = segmenter.predict_proba(others), by_hand(X, y, others, n_stages, features)
    np.testing.assert_allclose(got, expected, atol=1e-6)


NAIVE = AtrousContext(BANK, classifier=GaussianNB(), random_state=0)
LDA = AtrousPyramid(BANK, projection="lda", dilations=(2,), pool=False, random_state=0)


@pytest.mark.parametrize("with_whole", [False, True])
@pytest.mark.parametrize(
    ("module", "features", "message"),
    [
        (
            "context_features",
            NAIVE,
            r"\[1, 2, 3\] of all .* of \[1, 2\] where some are held out.*\(n_samples\)",
        ),
        ("pyramid", LDA, r"2 direction\(s\) in all .* but 1 where some are held out.*\(n_samples\)"),
    ],
)
def test_features_that_miss_a_class_where_a_fold_is_held_out_are_refused(module, features, message, with_whole):
    image, labels = make_image((60, 60))
    y = scribble(three_classes(labels), 0.3)
    chosen = iter([[1, 2, 3], [1, 2]])

    def choose(shapes, n_samples, masks, targets, random_state):
        kept = np.sort(np.concatenate([masks[0].places[np.flatnonzero(targets == each)[:9]] for each in next(chosen)]))
        return [PixelSet(shapes[0], kept)], targets[np.isin(masks[0].places, kept)]

    if with_whole:  # which does not say how many features there are
        features = make_features(features, FunctionTransformer(lambda x: np.asarray(x, np.float32)[..., None]))
    with mock.patch(f"dconv.{module}.choose_pixels", choose), pytest.raises(ValueError, match=message):
        ContextClassifier(features, TREES).fit(image, y)


@pytest.mark.parametrize("features", [AROUND, WITH_WHOLE])
def test_features_held_out_within_an_image_do_not_know_its_labels(fits, features):
    image, labels = make_image((60, 60))
    y = scribble(labels, 0.2)
    ContextClassifier(features, Recorder(), cv=2).fit(image, y)
    first, second, _, held_out = fits  # models of both folds, of the first stage and of the second
    assert len(first[0]) + len(second[0]) == len(held_out[0])
    known = clone(features).fit(image, y)
    rows = held_out[0][:, : known.n_features_out_] if hasattr(known, "n_features_out_") else held_out[0][:, :-108]
    of_all = known.transform(image)[y > 0]
    np.testing.assert_array_equal(rows[:, :2], of_all[:, :2])  # what no label has taught
    assert (rows[:, 2:110] != of_all[:, 2:110]).any(axis=1).all()
    # Both copies, from what the models of the folds have learnt from: the features of one are held out for the other.
    found = {tuple(row) for row in rows}
    assert not found & {tuple(row) for row in (*first[0], *second[0])}


@pytest.mark.parametrize("parameters", [{}, {"max_samples": 30}, {"distill": "auto"}, {"classifier": TREES}])
def test_one_stage_is_a_pixel_classifier(parameters):
    X, y = make_images()
    parameters = {"features": BANK, "random_state": 3, **parameters}
    plain = PixelClassifier(**parameters).fit(X, y)
    cascade = ContextClassifier(n_stages=1, **parameters).fit(X, y)
    for one, other in zip(cascade.predict_proba(X), plain.predict_proba(X), strict=True):
        np.testing.assert_array_equal(one, other)
    assert cascade.score(X, y) == plain.score(X, y)
    assert cascade.distillation_agreement_ == plain.distillation_agreement_
    first = ContextClassifier(**parameters).fit(X, y).stages_[0].classifier
    rows = plain.features_.transform(X[0]).reshape(-1, plain.n_features_)
    np.testing.assert_allclose(first.predict_proba(rows), plain.classifier_.predict_proba(rows), rtol=1e-12)


def test_context_of_an_image_does_not_come_from_its_labels(fits):
    X, y = make_images(((40, 50), (30, 44), (36, 44)))
    swapped = [np.where(y[0] > 0, 3 - y[0], 0), *y[1:]]
    contexts = []
    for labels in (y, swapped):
        ContextClassifier(BANK, Recorder()).fit(X, labels)
        contexts.append(fits[-1][0][:, 2:])
    n = np.count_nonzero(y[0])
    np.testing.assert_array_equal(contexts[0][:n], contexts[1][:n])
    assert (contexts[0][n:] != contexts[1][n:]).any(axis=1).all()


def test_sample_weight_reaches_every_model(fits):
    X, y = make_images(((40, 50), (30, 44), (36, 44)))
    weights = [np.random.default_rng(seed).random(labels.shape) for seed, labels in enumerate(y)]
    ContextClassifier(BANK, Recorder()).fit(X, y, sample_weight=weights)
    parts = [weight[labels > 0] for weight, labels in zip(weights, y, strict=True)]
    lengths = sorted(len(weight) for _, _, weight in fits)
    folds = [sum(map(len, parts)) - len(part) for part in parts]
    assert lengths == sorted([*folds, sum(map(len, parts)), sum(map(len, parts))])
    np.testing.assert_array_equal(fits[-1][2], np.concatenate(parts))
    assert {tuple(np.concatenate([p for j, p in enumerate(parts) if j != i])[:3]) for i in range(3)} == {
        tuple(weight[:3]) for _, _, weight in fits if len(weight) in folds
    }


@pytest.mark.parametrize("cv", [2, 3])
def test_cv_is_the_number_of_models_that_are_held_out(fits, cv):
    X, y = make_images(((40, 50), (30, 44), (36, 44)))
    ContextClassifier(BANK, Recorder(), cv=cv).fit(X, y)
    n_pixels = sum(np.count_nonzero(labels) for labels in y)
    assert [len(rows) < n_pixels for rows, _, _ in fits] == [True] * cv + [False, False]


# --- blocks and threads ---


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    ("features", "n_stages"), [(BANK, 3), (FunctionTransformer(lambda x: x[..., None]), 2), ("passthrough", 2)]
)
def test_blocks_and_threads_change_no_bit(monkeypatch, features, n_stages, n_classes):
    X, labels = zip(*(make_image(shape, seed) for seed, shape in enumerate(((9, 400), (250, 10)))), strict=True)
    labels = [three_classes(image) if n_classes == 3 else image for image in labels]
    y = [scribble(image, 0.2) for image in labels]
    X = [image[..., np.newaxis] for image in X] if features == "passthrough" else list(X)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))  # which uses all that it sees
    whole = ContextClassifier(features, classifier, n_stages=n_stages, cv=2, n_jobs=1).fit(X, y)
    monkeypatch.setattr(_pixels, "BLOCK_PIXELS", 700)
    monkeypatch.setattr(_cascade_answers, "_OUTER_PIXELS", 1300)
    cascade = ContextClassifier(features, classifier, n_stages=n_stages, cv=2, n_jobs=3).fit(X, y)
    for method in ("predict", "predict_proba"):
        for actual, expected in zip(getattr(cascade, method)(X), getattr(whole, method)(X), strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert cascade.score(X, y) == whole.score(X, y)


@pytest.mark.parametrize("features", [BANK, AROUND])
def test_one_image_in_blocks(monkeypatch, features):
    image, labels = make_image((60, 250))
    y = scribble(labels)
    whole = ContextClassifier(features, TREES, n_jobs=1).fit(image, y)
    monkeypatch.setattr(_pixels, "BLOCK_PIXELS", 500)
    monkeypatch.setattr(_cascade_answers, "_OUTER_PIXELS", 3000)
    of_block, seen = Folds.of_block, []

    def record(folds, index, block):
        found = of_block(folds, index, block)
        seen.append(found.size)
        return found

    with mock.patch.object(Folds, "of_block", record):
        cascade = ContextClassifier(features, TREES, n_jobs=2).fit(image, y)
    assert max(seen) < 2000  # of 15,000: of large images no array of all pixels is made
    np.testing.assert_array_equal(cascade.predict_proba(image), whole.predict_proba(image))


def test_only_what_labels_see_is_predicted_at_fit():
    image, labels = make_image((30, 1000))
    y = np.zeros_like(labels)
    y[:, 300:340] = labels[:, 300:340]
    columns = set()
    answer = HeldOut.answer

    def record(self, index, block):
        columns.update(range(block[1].start, block[1].stop))
        return answer(self, index, block)

    with mock.patch.object(HeldOut, "answer", record):
        segmenter = ContextClassifier(BANK, TREES).fit(image, y)
    left, right = ContextFeatures(2, 2).halo_[1]
    assert (min(columns), max(columns)) == (300 - left, 339 + right)
    assert segmenter.predict(image).shape == image.shape


# --- kinds of images ---


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", [(300,), (20, 24), (10, 11, 12)])
def test_every_rank(shape, n_classes):
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape)
    labels = 1 + (np.arange(shape[0]) * n_classes // shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    labels = np.broadcast_to(labels, shape)
    segmenter = ContextClassifier(AtrousFeatures(2, groups=["level"]), TREES, ndim=len(shape))
    segmenter.fit(image + labels, scribble(labels, 0.3))
    assert segmenter.predict_proba(image + labels).shape == (*shape, n_classes)
    assert segmenter.score(image + labels, labels) > 0.8


def test_default_parts_on_colour_and_labels_of_any_kind():
    image, labels = make_image((60, 70))
    y = np.where(scribble(labels) > 0, 10 * labels - 20, 5).astype(np.int8)
    segmenter = ContextClassifier(channel_axis=0, ignore_label=5, max_samples=50, random_state=0)
    colour = np.stack([image, image[::-1], image])
    segmenter.fit(colour, y)
    assert segmenter.classes_.tolist() == [-10, 0]
    assert segmenter.predict(colour).dtype == np.int8
    again = ContextClassifier(**segmenter.get_params()).fit(colour, y)
    np.testing.assert_array_equal(again.predict_proba(colour), segmenter.predict_proba(colour))


# --- what PixelClassifier has ---


def test_refine_follows_the_last_stage():
    X, y = make_images(((40, 50), (30, 44), (36, 44)))
    crf = DenseCRF(n_iter=2, color_sigma=20.0)
    plain, refined = (ContextClassifier(BANK, TREES, refine=each).fit(X, y) for each in (None, crf))
    expected = crf.refine(X, plain.predict_proba(X))
    for one, other in zip(refined.predict_proba(X), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    right = [np.mean((image == labels)[labels > 0]) for image, labels in zip(refined.predict(X), y, strict=True)]
    assert refined.score(X, y) == pytest.approx(np.average(right, weights=[np.count_nonzero(each) for each in y]))
    logistic = LogisticRegression(max_iter=1000)
    plain, refined = (ContextClassifier(BANK, logistic, refine=each).fit(X, y) for each in (None, crf))
    np.testing.assert_array_equal(refined.decision_function(X[0]), plain.decision_function(X[0]))


def test_decision_function_is_that_of_the_last_stage():
    image, labels = make_image()
    segmenter = ContextClassifier(BANK, LogisticRegression(max_iter=1000)).fit(image, scribble(labels))
    scores = segmenter.decision_function(image)
    probabilities = segmenter.predict_proba(image)[..., 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-scores.astype(float))), probabilities, atol=1e-5)
    features = BANK.fit(image).transform(image)
    first = segmenter.stages_[0].classifier.predict_proba(features.reshape(-1, 2)).astype(np.float32)
    rows = np.concatenate([features, context_of(first.reshape(*image.shape, 2))], axis=-1)
    expected = segmenter.classifier_.decision_function(rows.reshape(-1, 110)).reshape(image.shape)
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_every_stage_has_a_student():
    X, y = make_images(((90, 80), (60, 70), (64, 88)))
    cascade = ContextClassifier(BANK, TREES, distill="auto", random_state=0)
    segmenter = cascade.fit(X, y, X_unlabeled=[X[0][::-1]])
    assert [stage.agreement is None for stage in segmenter.stages_] == [False, False]
    assert segmenter.distillation_agreement_ == min(stage.agreement for stage in segmenter.stages_)
    teacher = ContextClassifier(BANK, TREES).fit(X, y)
    np.testing.assert_array_equal(segmenter.predict_proba(X[0], exact=True), teacher.predict_proba(X[0]))
    with mock.patch("dconv._distillation.MIN_AGREEMENT", 0):
        segmenter = clone(cascade).fit(X, y, X_unlabeled=[X[0][::-1]])
    assert all(stage.student is not None for stage in segmenter.stages_)
    assert segmenter.student_ is segmenter.stages_[1].student
    student, exact = (segmenter.predict(X[0], exact=exact) for exact in (False, True))
    assert 0.8 < np.mean(student == exact) < 1


@pytest.mark.parametrize("folds", ["too few pixels", "no gain"])
def test_the_student_of_the_only_stage_that_auto_finds_does_without_costly_features(folds):
    image, labels = make_image((50, 60))
    y = scribble(labels)
    segmenter = ContextClassifier(AtrousFeatures(2), TREES, n_stages="auto", distill="auto", random_state=0)
    if folds == "no gain":
        with mock.patch.object(HeldOut, "log_loss", side_effect=[0.5, 0.6]):
            segmenter.fit(image, y)
    else:
        y = np.where(y == 1, 1, 0)
        y[20, 20] = 2
        with pytest.warns(UserWarning, match="so there is one stage"):
            segmenter.fit(image, y)
    assert segmenter.n_stages_ == 1
    assert segmenter.student_.n_features_in_ == segmenter.student_features_.n_features_out_ < segmenter.n_features_
    assert segmenter.predict(image).shape == image.shape


@pytest.mark.parametrize("n_stages", [1, 2])
def test_a_student_that_disagrees_is_warned_of_once_where_fit_is_called(n_stages):
    image, labels = make_image((50, 60))
    segmenter = ContextClassifier(BANK, TREES, n_stages=n_stages, distill=True, random_state=0)
    with (
        mock.patch("dconv._distillation.MIN_AGREEMENT", 1.1),
        pytest.warns(UserWarning, match="of pixels the label that the classifier gives") as seen,
    ):
        segmenter.fit(image, scribble(labels))
    assert [warning.filename for warning in seen] == [__file__]
    assert f"gives {segmenter.distillation_agreement_.labels:.1%} of" in str(seen[0].message)


@pytest.mark.parametrize("features", [BANK, AROUND])
def test_a_student_sees_what_the_one_before_it_says(features):
    image, labels = make_image((50, 60))
    y = scribble(labels)
    segmenter = ContextClassifier(features, TREES, distill=True, random_state=0)
    with (
        mock.patch("dconv._distillation.MIN_AGREEMENT", 0),
        mock.patch("dconv.segmentation.distill", side_effect=distill) as learn,
    ):
        segmenter.fit(image, y)
    maps = clone(features).fit(image, y).transform(image)  # as other images have them: no pixel is held out
    first = segmenter.stages_[0].student.predict_proba(maps.reshape(-1, maps.shape[-1])).astype(np.float32)
    rows = np.concatenate([maps, context_of(first.reshape(*image.shape, 2))], axis=-1)
    rows = rows.reshape(-1, rows.shape[-1])
    np.testing.assert_allclose(learn.call_args_list[1].args[1], rows, atol=1e-4)  # all pixels, as there are few
    expected = segmenter.student_.predict_proba(rows).reshape(*image.shape, 2)
    np.testing.assert_allclose(segmenter.predict_proba(image), expected, atol=1e-3)


def test_grid_search():
    X, y = make_images()
    grid = {"n_stages": [1, 2], "features__n_levels": [1, 2], "cv": [2]}
    segmenter = ContextClassifier(AtrousFeatures(groups=["level"]), TREES)
    search = GridSearchCV(segmenter, grid, cv=KFold(2)).fit(X, y)
    assert search.best_score_ > 0.6
    assert search.best_estimator_.n_stages_ == search.best_params_["n_stages"]


def test_stages_are_chosen_by_what_is_held_out(capsys):
    X, y = make_images(((40, 50), (30, 44), (36, 44)))
    automatic = ContextClassifier(BANK, TREES, n_stages="auto", verbose=1)
    for losses, n_stages in (([0.5, 0.6], 1), ([0.5, 0.4, 0.3, 0.35], 3), ([0.5, 0.4, 0.3, 0.2], 4)):
        with mock.patch.object(HeldOut, "log_loss", side_effect=losses):
            segmenter = clone(automatic).fit(X, y)
        assert segmenter.n_stages_ == n_stages
        expected = ContextClassifier(BANK, TREES, n_stages=n_stages).fit(X, y)
        np.testing.assert_array_equal(segmenter.predict_proba(X[0]), expected.predict_proba(X[0]))
    assert "[ContextClassifier] stage 2: log loss 0.4000 on what was held out" in capsys.readouterr().out
    assert clone(automatic).fit(X, y).n_stages_ > 1  # here context helps


def test_verbose_counts_blocks(capsys, monkeypatch):
    image, labels = make_image((60, 250))
    segmenter = ContextClassifier(BANK, TREES, verbose=1).fit(image, scribble(labels))
    assert "108 features of context" in capsys.readouterr().out
    monkeypatch.setattr(_progress, "DELAY", 0)
    monkeypatch.setattr(_pixels, "BLOCK_PIXELS", 500)
    monkeypatch.setattr(_cascade_answers, "_OUTER_PIXELS", 3000)
    segmenter.predict(image)
    shown = "".join(capsys.readouterr())
    assert "[ContextClassifier] predict" in shown
    done, total = re.findall(r"(\d+)/(\d+)|block (\d+) of (\d+)", shown)[-1][:2]
    assert done == total


# --- what cannot be ---


def test_no_folds_are_warned_of():
    image, labels = make_image()
    y = np.where(labels == 1, 1, 0)
    y[20, 20] = 2
    with pytest.warns(
        UserWarning, match="every class is in two of them, so stages learn from what others say of pixels"
    ):
        segmenter = ContextClassifier(BANK, TREES).fit(image, y)
    assert segmenter.n_stages_ == 2
    assert segmenter.predict(image).shape == image.shape
    with pytest.warns(UserWarning, match="so there is one stage"):
        assert ContextClassifier(BANK, TREES, n_stages="auto").fit(image, y).n_stages_ == 1


def test_there_is_no_partial_fit():
    for segmenter in (ContextClassifier(), ContextClassifier(classifier=GaussianNB())):
        assert not hasattr(segmenter, "partial_fit")
        with pytest.raises(AttributeError, match=r"ContextClassifier has no partial_fit.*call fit"):
            segmenter.partial_fit(*make_image())


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (
            {"classifier": RidgeClassifier()},
            ValueError,
            "stages of a cascade need .* RidgeClassifier has no predict_proba",
        ),
        ({"n_stages": 0}, ValueError, "n_stages must be at least 1"),
        ({"n_stages": "many"}, ValueError, "n_stages must be \"auto\" or an int, got 'many'"),
        ({"n_stages": 2.0}, TypeError, 'n_stages must be "auto" or an int'),
        ({"cv": 1}, ValueError, "cv must be at least 2"),
        ({"cv": KFold(2)}, TypeError, "cv must be an int"),
    ],
)
def test_parameters_are_refused_before_any_work(parameters, error, message):
    image, labels = make_image()
    with pytest.raises(error, match=message):
        ContextClassifier(Untouchable(), **parameters).fit(image, labels)


def test_one_stage_needs_no_probabilities():
    image, labels = make_image()
    segmenter = ContextClassifier(BANK, RidgeClassifier(), n_stages=1).fit(image, labels)
    assert not hasattr(segmenter, "predict_proba")
    assert segmenter.decision_function(image).shape == image.shape


@pytest.mark.parametrize("joined", [False, True])
def test_the_context_has_the_spacing_of_the_features(joined, tmp_path):
    volume = np.random.default_rng(0).normal(size=(6, 24, 26))
    volume[:, :, 13:] += 2
    labels = np.zeros(volume.shape, int)
    labels[::2, ::4, :10], labels[::2, ::4, 16:] = 1, 2
    features = AtrousFeatures(2, spacing=(6.0, 2.0, 2.0), ndim=3)
    if joined:
        features = make_features(PixelPosition(ndim=3), features)
    segmenter = ContextClassifier(features, GaussianNB(), ndim=3).fit(volume, labels)
    assert segmenter._context.halo_ == ContextFeatures(3, 2, (3.0, 1.0, 1.0)).halo_
    assert segmenter._context.halo_ != ContextFeatures(3, 2).halo_
    pytest.importorskip("skops")
    save(segmenter, tmp_path / "model.dconv")
    np.testing.assert_array_equal(load(tmp_path / "model.dconv").predict_proba(volume), segmenter.predict_proba(volume))
