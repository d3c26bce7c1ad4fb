"""PixelClassifier(refine=DenseCRF()) is DenseCRF.refine on predict_proba, image by image."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold

from dconv import AtrousFeatures, DenseCRF, PixelClassifier

SGD = SGDClassifier(loss="log_loss", random_state=0)
TREES = ExtraTreesClassifier(8, max_leaf_nodes=8, random_state=0)
FEATURES = AtrousFeatures(2, groups=("level", "wavelet"))
CRF = DenseCRF(n_iter=3, color_sigma=1.0)


def noisy(shape, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=shape)
    image[:, shape[1] // 2 :] += 1
    labels = np.zeros(shape[:2], int)
    labels[::7, : shape[1] // 2], labels[::7, shape[1] // 2 :] = 4, 9
    return image, labels


def fitted(refine, X, y, **options):
    return PixelClassifier(FEATURES, options.pop("classifier", TREES), refine=refine, **options).fit(X, y)


@pytest.mark.parametrize("kind", ["image", "batch", "list", "colour"])
def test_is_the_crf_on_the_probabilities(kind):
    image, labels = noisy((40, 50, 3) if kind == "colour" else (40, 50))
    options = {"channel_axis": -1} if kind == "colour" else {}
    X, y = image, labels
    if kind == "batch":
        X, y = np.stack([image, image + 1]), np.stack([labels, labels])
    elif kind == "list":
        X, y = [image, image[:31]], [labels, labels[:31]]
    plain, refined = fitted(None, X, y, **options), fitted(CRF, X, y, **options)
    expected = CRF.refine(X, plain.predict_proba(X))
    probabilities, predicted, entropy = refined.predict_proba(X), refined.predict(X), refined.predict_entropy(X)
    assert type(probabilities) is type(expected)
    for i in range(1 if kind in ("image", "colour") else 2):
        whole = ... if kind in ("image", "colour") else i
        got, want = (each if whole is ... else each[i] for each in (probabilities, expected))
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want)
        of_one = predicted if whole is ... else predicted[i]
        np.testing.assert_array_equal(of_one, np.array([4, 9])[want.argmax(axis=-1)])
        of_one = entropy if whole is ... else entropy[i]
        bits = -(want.astype(float) * np.log2(want, where=want > 0, out=np.zeros(want.shape))).sum(axis=-1)
        np.testing.assert_allclose(of_one, bits, atol=1e-5)
    assert any(np.any(a != b) for a, b in zip(predicted, plain.predict(X), strict=True))


def test_width_in_colour_is_learnt_from_the_images_of_fit(tmp_path):
    image, labels = noisy((60, 50))
    X, y = [image, image[:31] / 2 + 7], [labels, labels[:31]]
    model = fitted(DenseCRF(n_iter=2), X, y)
    width = np.concatenate([each.ravel() for each in X]).std() / 4
    assert model.refine_.color_sigma == pytest.approx(width)
    assert model.refine.color_sigma is None
    other = image * 3
    expected = DenseCRF(n_iter=2, color_sigma=model.refine_.color_sigma).refine(
        other, fitted(None, X, y).predict_proba(other)
    )
    np.testing.assert_array_equal(model.predict_proba(other), expected)
    lazy = fitted(DenseCRF(n_iter=2), [lambda: X[0], lambda: X[1]], y)
    assert lazy.refine_.color_sigma == model.refine_.color_sigma
    holed = image.copy()
    holed[10:20, 30:40] = np.nan
    with_holes = fitted(DenseCRF(n_iter=2), holed, labels, nodata=0)
    assert with_holes.refine_.color_sigma == pytest.approx(np.nanstd(holed) / 4)
    assert fitted(CRF, X, y).refine_.color_sigma == 1.0
    bytes_ = np.clip(image * 20 + 100, 0, 255).astype(np.uint8)
    for dtype in (np.uint8, np.uint16):
        assert fitted(DenseCRF(n_iter=2), bytes_.astype(dtype), labels).refine_.color_sigma == 13
    more = PixelClassifier(FEATURES, SGD, refine=DenseCRF()).partial_fit(image, labels)
    assert more.refine_.color_sigma == pytest.approx(image.std() / 4)
    more.partial_fit(image / 10, labels)  # what goes on takes for alike what it did before
    assert more.refine_.color_sigma == pytest.approx(image.std() / 4)


def test_score_counts_refined_labels():
    image, labels = noisy((40, 50))
    truth = np.where(np.arange(50) < 25, 4, 9) * np.ones((40, 1), int)
    segmenter = fitted(CRF, image, labels)
    assert segmenter.score(image, truth) == np.mean(segmenter.predict(image) == truth)
    assert segmenter.score(image, truth) != fitted(None, image, labels).score(image, truth)
    weights = np.random.default_rng(0).uniform(size=truth.shape)
    right = segmenter.predict([image])[0] == truth
    assert segmenter.score([image], [truth], [weights]) == pytest.approx(np.average(right, weights=weights))


def test_scores_of_the_classifier_are_left_alone():
    image, labels = noisy((40, 50))
    logistic = LogisticRegression()
    plain, refined = (fitted(refine, image, labels, classifier=logistic) for refine in (None, CRF))
    np.testing.assert_array_equal(refined.decision_function(image), plain.decision_function(image))


def test_follows_a_student_and_its_teacher():
    image, labels = noisy((60, 70))
    options = {"distill": "auto", "random_state": 0}
    plain, refined = (fitted(refine, image, labels, **options) for refine in (None, CRF))
    for exact in (False, True):
        expected = CRF.refine(image, plain.predict_proba(image, exact=exact))
        np.testing.assert_array_equal(refined.predict_proba(image, exact=exact), expected)


def test_partial_fit_keeps_it():
    image, labels = noisy((40, 50))
    segmenter = PixelClassifier(FEATURES, SGD, refine=CRF).partial_fit(image, labels).partial_fit(image, labels)
    plain = PixelClassifier(FEATURES, SGD).partial_fit(image, labels).partial_fit(image, labels)
    np.testing.assert_array_equal(segmenter.predict_proba(image), CRF.refine(image, plain.predict_proba(image)))


@pytest.mark.parametrize(("ndim", "shape"), [(1, (300,)), (3, (9, 20, 20))])
def test_other_ranks(ndim, shape):
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape)
    labels = rng.integers(0, 3, shape)
    crf = DenseCRF(n_iter=2, color_sigma=1.0)
    features = AtrousFeatures(2, groups=("level", "wavelet"), ndim=ndim)
    plain, refined = (PixelClassifier(features, TREES, refine=each).fit(image, labels) for each in (None, crf))
    expected = clone(crf).set_params(ndim=ndim).refine(image, plain.predict_proba(image))
    np.testing.assert_array_equal(refined.predict_proba(image), expected)


def test_its_parameters_can_be_searched_and_cloned():
    image, labels = noisy((40, 50))
    X, y = [image, image[::-1], image[:35]], [labels, labels[::-1], labels[:35]]
    search = GridSearchCV(PixelClassifier(FEATURES, TREES, refine=CRF), {"refine__spatial_weight": [0, 3]}, cv=KFold(3))
    search.fit(X, y)
    assert search.best_estimator_.refine_.spatial_weight == search.best_params_["refine__spatial_weight"]
    assert (CRF.ndim, CRF.n_jobs) == (2, None)  # a copy is fitted


def test_what_it_says_of_threads_holds():
    image, labels = noisy((40, 50))
    assert fitted(CRF, image, labels, n_jobs=1).refine_.n_jobs == 1
    assert fitted(DenseCRF(n_jobs=2), image, labels, n_jobs=1).refine_.n_jobs == 2
    assert fitted(None, image, labels).refine_ is None


@pytest.mark.parametrize(
    ("refine", "options", "error", "message"),
    [
        ("crf", {}, TypeError, "refine must be None or a DenseCRF, got 'crf'"),
        (DenseCRF, {}, TypeError, "refine must be None or a DenseCRF"),
        (True, {}, TypeError, "refine must be None or a DenseCRF, got True"),
        (CRF, {"features": "passthrough", "channel_axis": -1}, ValueError, 'refine needs images.*"passthrough"'),
        (CRF, {"classifier": RidgeClassifier()}, ValueError, "refine needs a classifier with probabilities"),
    ],
)
def test_what_cannot_be_is_refused_at_fit(refine, options, error, message):
    image, labels = noisy((40, 50))
    with pytest.raises(error, match=message):
        PixelClassifier(**{"features": FEATURES, **options}, refine=refine).fit(
            image[..., np.newaxis] if "channel_axis" in options else image, labels
        )


def test_parameters_of_the_crf_are_checked_when_it_is_used():
    image, labels = noisy((40, 50))
    with pytest.raises(ValueError, match="color_sigma"):
        PixelClassifier(FEATURES, TREES, refine=DenseCRF(color_sigma=0)).fit(image, labels).predict(image)
