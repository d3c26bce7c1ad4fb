"""Transformers side by side, positions, features of one's own. What all image estimators share: test_contract."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.base import BaseEstimator
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_union

import dconv
from dconv import (
    AtrousFeatures,
    CustomFeatures,
    DilatedConv,
    FeatureImageUnion,
    PixelClassifier,
    PixelPosition,
    make_features,
)
from dconv.filters import gaussian

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(60, 70)).cumsum(axis=1).astype(np.float32)
COLOUR = RNG.integers(0, 256, size=(50, 60, 3)).astype(np.uint8)
LABELS = np.where(np.quantile(IMAGE, 0.8) < IMAGE, 2, np.where(np.quantile(IMAGE, 0.2) > IMAGE, 1, 0))
TREES = ExtraTreesClassifier(5, max_leaf_nodes=16, random_state=0)


def smooth_twice(image):
    """Return two features that see 6 pixels to both sides (scipy cuts its Gaussian off there)."""
    return np.stack([ndimage.gaussian_filter(image, 1.5, truncate=4), image], axis=-1)


class Centred(BaseEstimator):
    """A transformer of another library: it learns the mean, and knows nothing of dconv."""

    def fit(self, X, y=None):
        self.mean_ = np.mean(X)
        return self

    def transform(self, image):
        return image - self.mean_


def test_features_are_those_of_the_parts():
    bank, position, conv = AtrousFeatures(2), PixelPosition(), DilatedConv(gaussian(1.0))
    joined = make_features(bank, position, conv).fit_transform(IMAGE)
    expected = [bank.fit_transform(IMAGE), position.fit_transform(IMAGE), conv.fit_transform(IMAGE)]
    np.testing.assert_array_equal(joined, np.concatenate(expected, axis=-1))
    assert joined.flags.c_contiguous


def test_names_are_those_of_make_union():
    parts = AtrousFeatures(2), AtrousFeatures(3), PixelPosition()
    union = make_features(*parts)
    assert [name for name, _ in union.transformers] == [name for name, _ in make_union(*parts).transformer_list]
    union.fit(IMAGE)
    names = union.get_feature_names_out()
    assert len(names) == union.n_features_out_ == union.transform(IMAGE).shape[-1]
    assert names[0] == "atrousfeatures-1__intensity_level_d1"
    assert names[-1] == "pixelposition__position_axis1"


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_positions_by_hand(ndim):
    shape = (5, 4, 3)[:ndim]
    position = PixelPosition(ndim=ndim, channel_axis=0).fit(np.zeros((2, *shape)))
    features = position.transform(np.zeros((2, *shape)))
    for index in np.ndindex(shape):
        np.testing.assert_allclose(
            features[index], [(i + 0.5) / n for i, n in zip(index, shape, strict=True)], rtol=1e-6
        )


def test_positions_along_chosen_axes():
    image = np.zeros((5, 4))
    everywhere = PixelPosition().fit_transform(image)
    across = PixelPosition(axes=(1, 0))
    np.testing.assert_array_equal(across.fit_transform(image), everywhere[..., ::-1])
    assert across.get_feature_names_out().tolist() == ["position_axis1", "position_axis0"]
    height = PixelPosition(axes=[0]).fit(image)
    np.testing.assert_array_equal(height.transform(image), everywhere[..., :1])
    assert height.n_features_out_ == 1


@pytest.mark.parametrize(
    ("axes", "error"),
    [
        ((), ValueError),
        ((2,), ValueError),
        ((-1,), ValueError),
        ((0, 0), ValueError),
        (0, TypeError),
        ((False, True), TypeError),  # which is no mask of the axes
        ("01", TypeError),
    ],
)
def test_axes_that_positions_cannot_be_along(axes, error):
    with pytest.raises(error, match="axes must be None or different spatial axes from 0 to 1"):
        PixelPosition(axes=axes).fit(np.zeros((5, 4)))


def test_positions_are_of_pixels_that_hold_data():
    """Values do not matter, but to no estimator NaN is one, lest a mistake stays unseen."""
    image = np.zeros((5, 4))
    holes = np.where(np.eye(5, 4, dtype=bool), np.nan, image)
    labels = np.repeat([1, 2], [10, 10]).reshape(5, 4)
    for run in (
        lambda: PixelPosition().fit(holes),
        lambda: PixelPosition().fit(image).transform(holes),
        lambda: PixelClassifier(PixelPosition(), GaussianNB()).fit(holes, labels),
        lambda: PixelClassifier(PixelPosition(), GaussianNB()).fit(image, labels).predict(holes),
        lambda: make_features(PixelPosition()).fit(holes),
    ):
        with pytest.raises(ValueError, match=r"X holds nan at .*PixelClassifier\(nodata=-1\)$"):
            run()
    found = PixelClassifier(PixelPosition(), GaussianNB(), nodata=-1).fit(holes, labels).predict(holes)
    np.testing.assert_array_equal(found == -1, np.isnan(holes))
    with pytest.raises(TypeError, match="n_jobs must be None or an int, got 'two'"):
        make_features(PixelPosition(), n_jobs="two").fit(image)


def test_positions_let_a_classifier_tell_what_looks_alike():
    image = np.zeros((40, 40))
    labels = np.zeros((40, 40), int)
    labels[3, 3:37], labels[36, 3:37] = 1, 2
    model = PixelClassifier(make_features(AtrousFeatures(2), PixelPosition()), GaussianNB()).fit(image, labels)
    assert (model.predict(image)[:18] == 1).all()
    assert (model.predict(image)[22:] == 2).all()


# --- one rule for axes, wherever it is said ---


@pytest.mark.parametrize(
    "features",
    [
        make_features(AtrousFeatures(2, channel_axis=-1), PixelPosition()),
        make_features(PixelPosition(), AtrousFeatures(2, channel_axis=-1)),
        make_features(PixelPosition(), AtrousFeatures(2), channel_axis=-1),
    ],
    ids=["first", "last", "union"],
)
def test_axes_are_said_once(features):
    features.fit(COLOUR)
    assert features.channel_axis_ == -1
    assert all(part.channel_axis == -1 for part in features.parts_)
    assert features.transform(COLOUR).shape == (
        50,
        60,
        AtrousFeatures(2, channel_axis=-1).fit(COLOUR).n_features_out_ + 2,
    )


def test_threads_are_said_once():
    features = make_features(AtrousFeatures(2), CustomFeatures(np.abs, halo=0), AtrousFeatures(1, n_jobs=2), n_jobs=1)
    assert [part.n_jobs for part in features.fit(IMAGE).parts_] == [1, 1, 2]


def test_transformers_that_disagree_about_axes():
    features = make_features(AtrousFeatures(2, channel_axis=-1), PixelPosition(channel_axis=0))
    with pytest.raises(
        ValueError, match="channel_axis=-1 was given, but transformer 'pixelposition' has channel_axis=0"
    ):
        features.fit(COLOUR)


def test_none_is_the_default_bank():
    features = make_features(None, PixelPosition()).fit(IMAGE)
    assert features.parts_[0].normalize == "auto"
    np.testing.assert_array_equal(
        features.transform(IMAGE)[..., :-2], AtrousFeatures(normalize="auto").fit_transform(IMAGE)
    )


# --- in classifiers ---


@pytest.mark.parametrize(
    "more",
    [
        PixelPosition(),
        CustomFeatures(smooth_twice, halo=6),
        AtrousFeatures(2, normalize="image"),
        CustomFeatures(Centred()),
    ],
    ids=["position", "by blocks", "two banks", "whole images"],
)
def test_prediction_equals_features_then_classifier(more, monkeypatch):
    features = make_features(AtrousFeatures(3), more)
    model = PixelClassifier(features, TREES).fit(IMAGE, LABELS)
    rows = features.fit(IMAGE).transform(IMAGE)
    expected = TREES.fit(rows[LABELS > 0], LABELS[LABELS > 0]).predict(rows.reshape(-1, rows.shape[-1]))
    monkeypatch.setattr("dconv._pixels.BLOCK_PIXELS", 500)
    np.testing.assert_array_equal(model.predict(IMAGE), expected.reshape(IMAGE.shape))


def test_search_over_a_part():
    model = PixelClassifier(make_features(AtrousFeatures(2), PixelPosition()), TREES)
    search = GridSearchCV(model, {"features__atrousfeatures__n_levels": [1, 3]}, cv=KFold(2))
    search.fit([IMAGE, IMAGE[::-1]], [LABELS, LABELS[::-1]])
    best = search.best_params_["features__atrousfeatures__n_levels"]
    assert search.best_estimator_.n_features_ == AtrousFeatures(best).fit(IMAGE).n_features_out_ + 2


def test_cascade_with_positions():
    model = dconv.ContextClassifier(make_features(AtrousFeatures(2), PixelPosition()), TREES, cv=2, random_state=0)
    assert model.fit(IMAGE, LABELS).predict_proba(IMAGE).shape == (60, 70, 2)


# --- features of one's own ---


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "reflect"),
        ({"padding_mode": "symmetric"}, "symmetric"),
        ({"padding_mode": "edge"}, "edge"),
        ({"padding_mode": "circular"}, "wrap"),
        ({"padding_mode": "zeros"}, "constant"),
    ],
)
def test_function_on_blocks_equals_function_on_the_padded_image(monkeypatch, options, mode):
    custom = CustomFeatures(smooth_twice, halo=6, **options).fit(IMAGE)
    padded = smooth_twice(np.pad(IMAGE, 6, mode=mode))[6:-6, 6:-6]
    monkeypatch.setattr("dconv._pixels.BLOCK_PIXELS", 300)
    np.testing.assert_allclose(custom.transform(IMAGE), padded, rtol=1e-5, atol=1e-5)
    assert custom.halo_ == ((6, 6), (6, 6))
    assert custom.get_feature_names_out().tolist() == ["smooth_twice_0", "smooth_twice_1"]


def test_function_on_whole_images_sees_the_image_alone():
    custom = CustomFeatures(lambda image: image - image.mean(), names=["centred"]).fit(IMAGE)
    np.testing.assert_array_equal(custom.transform(IMAGE)[..., 0], IMAGE - IMAGE.mean())
    assert custom.halo_ is None
    assert custom.get_feature_names_out().tolist() == ["centred"]
    assert not hasattr(custom, "_transform_block")


def test_halo_that_is_too_small_is_found_out():
    with pytest.raises(ValueError, match="halo=2 is too small: features of function smooth_twice differ"):
        CustomFeatures(smooth_twice, halo=2).fit(IMAGE)


def test_function_may_change_what_it_is_given():
    def spoil(image):
        image *= 0
        return image

    before = IMAGE.copy()
    CustomFeatures(spoil, halo=0).fit_transform(IMAGE)
    np.testing.assert_array_equal(IMAGE, before)


def test_transformer_is_cloned_and_fitted():
    own = Centred()
    custom = CustomFeatures(own).fit(IMAGE)
    assert not hasattr(own, "mean_")
    np.testing.assert_array_equal(custom.transform(IMAGE)[..., 0], IMAGE - IMAGE.mean())


def test_function_is_asked_again_at_the_next_fit():
    """What a function does may change though its name does not: its features are not kept."""
    factor = [1.0]

    def scaled(image):
        return image * factor[0]

    model = PixelClassifier(make_features(CustomFeatures(scaled, halo=0)), GaussianNB()).fit(IMAGE, LABELS)
    factor[0] = 3.0
    model.fit(IMAGE, LABELS)
    np.testing.assert_allclose(model.classifier_.theta_[1], 3 * IMAGE[LABELS == 2].mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "error", "pattern"),
    [
        ({"function": 3}, TypeError, "function must be a callable or a transformer"),
        ({"function": Centred}, TypeError, "function must be a callable or a transformer"),
        ({"function": lambda image: image * 1j}, TypeError, "returns must hold real numbers, got dtype complex64"),
        ({"function": lambda image: image.astype(str)}, TypeError, "returns must hold real numbers, got dtype <U"),
        ({"function": lambda image: np.zeros((*image.shape, 0))}, ValueError, r"shape \(60, 70, 0\) for an image"),
        ({"function": lambda image: np.zeros((*image.shape, 0)), "halo": 1}, ValueError, r"shape \(10, 10, 0\) for"),
        ({"function": np.negative, "halo": -1}, ValueError, "halo"),
        ({"function": np.negative, "halo": (1, 2, 3)}, ValueError, "halo"),
        ({"function": np.negative, "names": "a"}, TypeError, r"one name is \['a'\]"),
        ({"function": np.negative, "names": 5}, TypeError, "names must be a sequence of str, got 5"),
        ({"function": np.negative, "names": [1]}, TypeError, r"names must be a sequence of str, got \[1\]"),
        ({"function": np.negative, "names": ["a", "b"]}, ValueError, "names must name 1 features"),
        ({"function": np.mean}, ValueError, "one value or row of features for every pixel is needed"),
        ({"function": np.transpose}, ValueError, r"shape \(70, 60\) for an image of spatial shape \(60, 70\)"),
        ({"function": np.negative, "padding_mode": "mirror"}, ValueError, "padding_mode must be one of"),
    ],
)
def test_custom_features_refused(parameters, error, pattern):
    with pytest.raises(error, match=pattern):
        CustomFeatures(**parameters).fit(IMAGE)


def test_features_that_are_not_finite():
    """Some classifiers take them. That the others are the same with a larger halo is still looked at."""

    bright = np.median(IMAGE)
    for value in (np.nan, np.inf):
        custom = CustomFeatures(lambda image, value=value: np.where(image > bright, value, image), halo=0).fit(IMAGE)
        expected = np.where(bright < IMAGE, value, IMAGE).astype(np.float32)
        np.testing.assert_array_equal(custom.transform(IMAGE)[..., 0], expected)
        with pytest.raises(ValueError, match="halo=0 is too small"):
            CustomFeatures(lambda image, value=value: np.where(image > bright, value, image.mean()), halo=0).fit(IMAGE)


def test_function_that_changes_its_mind():
    answers = iter([1, 1, 2])
    custom = CustomFeatures(lambda image: np.repeat(image[..., np.newaxis], next(answers), -1), halo=0).fit(IMAGE)
    with pytest.raises(ValueError, match=r"shape \(60, 70\) or \(60, 70, 1\)"):
        custom.transform(IMAGE)


@pytest.mark.parametrize(
    ("transformers", "error", "pattern"),
    [
        ([], ValueError, "must be a list of"),
        (PixelPosition(), ValueError, "must be a list of"),
        ([PixelPosition()], TypeError, "pairs of a name and a transformer"),
        ([("a", "passthrough")], ValueError, "got 'passthrough' as 'a'"),
        ([("a", PixelPosition()), ("a", PixelPosition())], ValueError, "not unique"),
        ([("a", GaussianNB())], TypeError, "transform"),
    ],
)
def test_unions_refused(transformers, error, pattern):
    with pytest.raises(error, match=pattern):
        FeatureImageUnion(transformers).fit(IMAGE)


def test_no_transformer_at_all():
    with pytest.raises(ValueError, match="one transformer at least"):
        make_features()


def test_transformers_of_other_libraries_take_image_after_image():
    class Plain(BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, image):
            return np.asarray(image)[..., np.newaxis]

    union = make_features(Plain(), PixelPosition())
    features = union.fit([IMAGE, IMAGE[:50]]).transform([IMAGE, IMAGE[:50]])
    np.testing.assert_array_equal(features[1][..., 0], IMAGE[:50])
    with pytest.raises(ValueError, match="holds nan"):
        PixelClassifier(union, TREES).fit(np.where(IMAGE.max() == IMAGE, np.nan, IMAGE), LABELS)
    model = PixelClassifier(make_features(AtrousFeatures(2), Plain()), TREES).fit(IMAGE, LABELS)
    with pytest.raises(ValueError, match="Plain does not tell how many features it has"):
        dconv.group_importance(model, IMAGE, LABELS)


def test_a_fit_that_fails_leaves_the_last():
    custom = CustomFeatures(np.negative).fit(IMAGE)
    with pytest.raises(ValueError, match="one value or row"):
        custom.set_params(function=np.mean).fit(IMAGE)
    np.testing.assert_array_equal(custom.transform(IMAGE)[..., 0], -IMAGE)


def test_transformers_of_different_grids():
    union = make_features(PixelPosition(), DilatedConv(gaussian(1.0), stride=2)).fit(IMAGE)
    with pytest.raises(ValueError, match="feature images of one size"):
        union.transform(IMAGE)
    with pytest.raises(ValueError, match="stride=1"):
        PixelClassifier(union, TREES).fit(IMAGE, LABELS)
