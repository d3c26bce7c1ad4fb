"""PixelClassifier: what it learns from, what it returns, how it is scored and searched, and what it refuses."""

import re

import numpy as np
import pytest
import sklearn
from images import BANK, TREES, Recorder, Untouchable, make_image, make_images, scribble
from sklearn.base import clone
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from dconv import _pixels, _progress
from dconv.features import AtrousFeatures
from dconv.metrics import mean_iou_score
from dconv.segmentation import PixelClassifier

# --- what is learnt from ---


def test_classifier_is_fed_exactly_the_labelled_pixels_in_order():
    X, y = make_images()
    seen, targets, weights = PixelClassifier(BANK, Recorder()).fit(X, y).classifier_.seen_
    features = [clone(BANK).fit_transform(image) for image in X]
    np.testing.assert_array_equal(seen, np.concatenate([f[labels > 0] for f, labels in zip(features, y, strict=True)]))
    np.testing.assert_array_equal(targets, np.concatenate([labels[labels > 0] for labels in y]))
    assert seen.dtype == np.float32
    assert seen.flags.c_contiguous
    assert weights is None


def test_equals_the_same_steps_by_hand():
    (image, labels), (other, _) = make_image(), make_image(seed=1)
    y = scribble(labels)
    features = AtrousFeatures(n_levels=2).fit(image)
    trees = clone(TREES).fit(features.transform(image)[y > 0], y[y > 0])
    rows = features.transform(other).reshape(-1, features.n_features_out_)
    segmenter = PixelClassifier(AtrousFeatures(n_levels=2), TREES).fit(image, y)
    np.testing.assert_array_equal(segmenter.predict(other), trees.predict(rows).reshape(other.shape))
    expected = trees.predict_proba(rows).reshape(*other.shape, 2)
    np.testing.assert_allclose(segmenter.predict_proba(other), expected, rtol=0, atol=1e-7)


def test_sample_weight_reaches_the_classifier():
    X, y = make_images()
    weights = [np.random.default_rng(seed).random(labels.shape) for seed, labels in enumerate(y)]
    expected = np.concatenate([weight[labels > 0] for weight, labels in zip(weights, y, strict=True)])
    direct = PixelClassifier(BANK, Recorder()).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(direct.classifier_.seen_[2], expected)
    pipeline = PixelClassifier(BANK, make_pipeline(StandardScaler(), Recorder())).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(pipeline.classifier_[-1].seen_[2], expected)


def test_sample_weight_follows_metadata_routing():
    X, y = make_images()
    weights = [np.full(labels.shape, 1.0 + index) for index, labels in enumerate(y)]
    with sklearn.config_context(enable_metadata_routing=True):
        segmenter = PixelClassifier(BANK, Recorder()).set_fit_request(sample_weight=True)
        search = GridSearchCV(segmenter.set_score_request(sample_weight=True), {"max_samples": [5]}, cv=KFold(2))
        search.fit(X, y, sample_weight=weights)
        routed = PixelClassifier(
            BANK,
            make_pipeline(
                StandardScaler().set_fit_request(sample_weight=False), Recorder().set_fit_request(sample_weight=True)
            ),
        ).fit(X, y, sample_weight=weights)
    seen = search.best_estimator_.classifier_.seen_[2]
    np.testing.assert_array_equal(seen, np.repeat([1.0, 2.0, 3.0, 4.0], 10))
    assert set(routed.classifier_[-1].seen_[2]) == {1.0, 2.0, 3.0, 4.0}


# --- blocks and threads ---


@pytest.mark.parametrize("n_pixels", [7, 97, 500])
@pytest.mark.parametrize("features", [BANK, AtrousFeatures(n_levels=2), FunctionTransformer(lambda x: x[..., None])])
def test_blocks_change_no_bit(monkeypatch, features, n_pixels):
    X, y = make_images(((33, 20), (20, 31)))
    classifier = make_pipeline(StandardScaler(), TREES)
    whole = PixelClassifier(features, classifier, n_jobs=1).fit(X, y)
    monkeypatch.setattr(_pixels, "BLOCK_PIXELS", n_pixels)
    tiled = PixelClassifier(features, classifier, n_jobs=3).fit(X, y)
    assert len(list(_pixels.blocks_of(X[0].shape, 1))) > 1
    for method in ("predict", "predict_proba"):
        for actual, expected in zip(getattr(tiled, method)(X), getattr(whole, method)(X), strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert tiled.score(X, y) == whole.score(X, y)


# --- composition ---


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint64])
def test_labels_keep_their_dtype(dtype):
    image, labels = make_image()
    y = (labels - 1).astype(dtype)
    segmenter = PixelClassifier(BANK, TREES, ignore_label=None).fit(image, y)
    assert segmenter.predict(image).dtype == segmenter.classes_.dtype == dtype


def test_verbose_tells_what_happens(capsys, monkeypatch):
    image, labels = make_image((600, 500))
    segmenter = PixelClassifier(BANK, TREES, verbose=1, max_samples=30).fit(image, labels)
    out = capsys.readouterr().out
    assert "pixels to learn from in 1 image(s): 30 of label 1, 30 of label 2" in out
    assert "2 features of 60 pixels" in out
    assert "ExtraTreesClassifier fitted" in out
    segmenter.predict(image)
    assert capsys.readouterr() == ("", "")  # it takes less than two seconds
    monkeypatch.setattr(_progress, "DELAY", 0)
    segmenter.predict(image)
    shown = "".join(capsys.readouterr())  # tqdm's bar goes to stderr
    assert "[PixelClassifier] predict" in shown
    assert "2/2" in shown or "block 2 of 2" in shown
    segmenter.set_params(verbose=0).fit(image, labels).predict(image)
    assert capsys.readouterr() == ("", "")


# --- score and model selection ---


def test_score_is_the_accuracy_over_labelled_pixels():
    X, y = make_images()
    segmenter = PixelClassifier(BANK, TREES).fit(X[:2], y[:2])
    y[3][:5] = 9  # a label that was not there at fit
    weights = [np.random.default_rng(seed).random(labels.shape) for seed, labels in enumerate(y)]
    true, predicted, weight = (
        np.concatenate([image[labels != 0] for image, labels in zip(images, y, strict=True)])
        for images in (y, segmenter.predict(X), weights)
    )
    assert segmenter.score(X, y) == pytest.approx(accuracy_score(true, predicted))
    expected = accuracy_score(true, predicted, sample_weight=weight)
    assert segmenter.score(X, y, sample_weight=weights) == pytest.approx(expected)
    assert segmenter.score(X[0], np.full(X[0].shape, 9)) == 0


@pytest.mark.parametrize("ignore_label", [7, None])
def test_score_leaves_out_the_ignored_label_alone(ignore_label):
    image, labels = make_image()
    y = labels - 1  # so that 0 is a class
    y[:, :15] = 7
    segmenter = PixelClassifier(BANK, TREES, ignore_label=ignore_label).fit(image, y)
    counts = y != ignore_label
    assert segmenter.score(image, y) == pytest.approx(accuracy_score(y[counts], segmenter.predict(image)[counts]))


@pytest.mark.parametrize(
    "changes", [{"ignore_label": 1}, {"ignore_label": None}, {"ndim": 1}, {"channel_axis": -1}, {"max_samples": 1}]
)
def test_what_was_in_force_at_fit_stays_so(changes):
    image, labels = make_image()
    y = scribble(labels)
    segmenter = PixelClassifier(BANK, TREES).fit(image, y)
    predicted, score = segmenter.predict(image), segmenter.score(image, y)
    np.testing.assert_array_equal(segmenter.set_params(**changes).predict(image), predicted)
    assert segmenter.score(image, y) == score


def test_score_needs_pixels_that_count():
    image, labels = make_image()
    segmenter = PixelClassifier(BANK, TREES).fit(image, labels)
    with pytest.raises(ValueError, match="no labelled pixel: every value is ignore_label=0"):
        segmenter.score(image, np.zeros_like(labels))
    with pytest.raises(ValueError, match="sample_weight is 0 at every labelled pixel"):
        segmenter.score(image, labels, sample_weight=np.zeros(image.shape))


@pytest.mark.parametrize("kind", ["batch", "list"])
def test_grid_search_over_features_and_classifier(kind):
    X, y = make_images(((40, 50),) * 4) if kind == "batch" else make_images()
    if kind == "batch":
        X, y = np.stack(X), np.stack(y)
    grid = {"features__n_levels": [1, 2], "classifier__n_estimators": [3, 5], "max_samples": [10, None]}
    segmenter = PixelClassifier(AtrousFeatures(), TREES)
    search = GridSearchCV(segmenter, grid, cv=GroupKFold(2)).fit(X, y, groups=[0, 0, 1, 1])
    assert len(search.cv_results_["params"]) == 8
    assert search.best_score_ > 0.6
    assert search.best_estimator_.features_.n_levels == search.best_params_["features__n_levels"]
    assert type(search.predict(X)) is type(X)


def test_grid_search_in_processes_finds_the_same():
    X, y = make_images()
    grid = {"features__dilation": [(1,), (1, 2)]}
    serial, parallel = (
        GridSearchCV(PixelClassifier(BANK, TREES), grid, cv=KFold(2), n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(parallel.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"])


def test_whole_numbers_of_folds():
    X, y = make_images()  # no two label images that differ in width alone follow each other
    assert cross_val_score(PixelClassifier(BANK, TREES), X, y, cv=2).min() > 0.6
    assert cross_val_score(PixelClassifier(BANK, TREES), np.stack([X[0]] * 4), np.stack([y[0]] * 4), cv=2).min() > 0.6


def test_splitters_take_images_of_one_height_and_several_widths():
    X, y = make_images(((40, 50), (40, 44), (40, 60), (40, 30)))
    expected = [
        PixelClassifier(BANK, TREES).fit(X[2:], y[2:]).score(X[:2], y[:2]),
        PixelClassifier(BANK, TREES).fit(X[:2], y[:2]).score(X[2:], y[2:]),
    ]
    assert cross_val_score(PixelClassifier(BANK, TREES), X, y, cv=KFold(2)).tolist() == expected


def test_mean_iou_is_a_scorer():
    X, y = make_images()
    grid, split, scorer = {"max_samples": [20, None]}, [([0, 1], [2, 3])], make_scorer(mean_iou_score)
    search = GridSearchCV(PixelClassifier(BANK, TREES), grid, scoring=scorer, cv=split).fit(X, y)
    model = PixelClassifier(BANK, TREES).fit(X[:2], y[:2])
    assert search.cv_results_["split0_test_score"][1] == mean_iou_score(y[2:], model.predict(X[2:]))


# --- bad input: refused before any feature is computed ---

GREY, FULL = make_image((8, 9))


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (GREY[0], FULL[0], ValueError, "X has 1 axes (9,), but with ndim=2 and channel_axis=None an image has 2 axes"),
        (GREY, FULL[1:], ValueError, "y has shape (7, 9), but the image has spatial shape (8, 9)"),
        ([GREY, GREY], [FULL], ValueError, "y has 1 image(s), but X has 2"),
        ([GREY, GREY], [FULL, FULL.T], ValueError, "y[1] has shape (9, 8)"),
        (GREY, FULL.astype(float), TypeError, "y must hold integer labels, got dtype float64"),
        (GREY, np.zeros_like(FULL), ValueError, "pass ignore_label=None if 0 is a class"),
        (GREY, FULL // 2, ValueError, "only label 1 is in y, but a classifier needs two classes; 0 is ignored: pass"),
        (np.where(GREY > 100, np.nan, GREY), FULL, ValueError, "X holds nan at (*pixel, channel)"),
        (GREY.astype(complex), FULL, TypeError, "X must hold real numbers, got dtype complex128"),
        (GREY.astype(object), FULL, TypeError, "X must hold real numbers, got dtype object"),
        ([], [], ValueError, "X is an empty list"),
        (GREY[:0], FULL[:0], ValueError, "an axis of size 0"),
    ],
)
def test_bad_images_are_refused(X, y, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PixelClassifier(Untouchable(), TREES).fit(X, y)


@pytest.mark.parametrize("factor", [1e12, 1e300])
def test_values_that_features_cannot_hold_are_refused(factor):
    image, labels = make_image()
    large = image.astype(float) * factor
    for features in (AtrousFeatures(2), BANK, "passthrough"):
        X, x = (image[..., None], large[..., None]) if features == "passthrough" else (image, large)
        fitted = PixelClassifier(features, TREES).fit(X, labels)
        if factor == 1e12:  # well within
            assert fitted.predict(x).shape == labels.shape
            continue
        for method in (PixelClassifier(features, TREES).fit, fitted.score):
            with pytest.raises(ValueError, match=r"X holds .*e\+30\d at .*features are float32 .*: rescale the image"):
                method(x, labels)
        with pytest.raises(ValueError, match="rescale the image"):
            fitted.predict(x)


def test_transformers_from_outside_take_any_finite_value():
    image, labels = make_image()
    image = image.astype(float)
    logarithm = FunctionTransformer(lambda x: np.log(np.abs(x) + 1)[..., np.newaxis])
    fitted = PixelClassifier(logarithm, TREES).fit(image * 1e300, labels)
    assert fitted.predict(image * 1e300).shape == labels.shape
    with pytest.raises(ValueError, match="X holds nan"):
        fitted.predict(image * np.nan)


def test_passthrough_needs_features_on_an_axis():
    fitted = PixelClassifier("passthrough", TREES).fit(GREY[..., np.newaxis], FULL)
    for call in (lambda: PixelClassifier("passthrough").fit(GREY, FULL), lambda: fitted.predict(GREY)):
        with pytest.raises(
            ValueError, match=r"2 axes .*; features=\"passthrough\" needs .* X\[\.\.\., numpy.newaxis\]"
        ):
            call()


def test_small_images_are_refused_with_the_remedy_for_this_class():
    image, labels = make_image()
    with pytest.raises(ValueError, match=r"8 pixels, .*: use .* PixelClassifier\(AtrousFeatures\(n_levels=2\)\)"):
        PixelClassifier().fit(GREY, FULL)
    with pytest.raises(ValueError, match=r"8 pixels, .*: fit again with .*\(AtrousFeatures\(n_levels=2\)\)"):
        PixelClassifier(AtrousFeatures(3), TREES).fit(image, labels).predict(GREY)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("features", ["passthrough", FunctionTransformer()], ids=["passthrough", "foreign"])
def test_unusable_values_are_refused_after_fit_whatever_the_features(features, value):
    X = GREY[..., np.newaxis].copy()
    segmenter = PixelClassifier(features, TREES, channel_axis=-1).fit(X, FULL)
    X[3, 4] = value
    for call in (segmenter.predict, segmenter.predict_proba, lambda X: segmenter.score(X, FULL)):
        with pytest.raises(ValueError, match=rf"X holds {value} at \(\*pixel, channel\) \(3, 4, 0\)"):
            call(X)


def test_one_class_without_ignored_label():
    with pytest.raises(ValueError, match=r"only label 1 is in y, but a classifier needs two classes$"):
        PixelClassifier(Untouchable(), TREES, ignore_label=None).fit(GREY, np.ones_like(FULL))
