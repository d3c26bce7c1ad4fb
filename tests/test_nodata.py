"""Pixels without data: how they are filled, and that nothing is learnt or told there."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.naive_bayes import GaussianNB

from dconv import AtrousFeatures, ContextClassifier, DenseCRF, PixelClassifier, make_features
from dconv._intensity import intensity_of
from dconv._nodata import infilled as filled

RNG = np.random.default_rng(0)
TREES = ExtraTreesClassifier(5, max_leaf_nodes=16, random_state=0)


def scene(seed, shape=(90, 110)):
    """Return a satellite-like image of two fields and noise, and its labels 1 and 2."""
    rng = np.random.default_rng(seed)
    labels = 1 + (ndimage.gaussian_filter(rng.normal(size=shape), 8) > 0)
    return (100 * labels + rng.normal(0, 20, shape)).astype(np.float32), labels


def swaths(shape, width=7):
    """Return a mask without diagonal swaths."""
    rows, columns = np.indices(shape)
    return (rows + columns) % 30 >= width


IMAGE, LABELS = scene(0)
VALID = swaths(IMAGE.shape)
HOLED = np.where(VALID, IMAGE, np.nan)


def definition_of_filling(image, valid):
    """Return normalized convolution with ever larger windows, whole images at a time."""
    filled, missing = image.astype(float).copy(), ~valid
    values, weight = np.where(valid, image, 0).astype(float), valid.astype(float)
    for scale in range(5):
        taps = np.zeros(4 * 2**scale + 1)
        taps[:: 2**scale] = np.array([1, 4, 6, 4, 1]) / 16
        window = np.outer(taps, taps)
        values = ndimage.convolve(values, window, mode="constant")
        weight = ndimage.convolve(weight, window, mode="constant")
        seen = missing & (weight > 1e-15)
        filled[seen] = (values / np.maximum(weight, 1e-30))[seen]
        missing &= ~seen
    filled[missing] = image[valid].mean()
    return filled


@pytest.mark.parametrize("valid", [VALID, np.arange(110) < 4 + 0 * np.arange(90)[:, None]], ids=["swaths", "one side"])
def test_filling_equals_its_definition(valid):
    infilled = filled(np.where(valid, IMAGE, np.nan)[..., np.newaxis], None)
    np.testing.assert_allclose(np.asarray(infilled)[..., 0], definition_of_filling(IMAGE, valid), rtol=1e-4)


def test_blocks_of_a_filled_image_are_those_of_the_whole():
    image = np.stack([HOLED, 2 * HOLED], axis=-1)
    infilled = filled(image, None)
    whole = np.asarray(infilled)
    corner = (slice(80, None), slice(-9, None), 0)
    for block in [(slice(3, 40), slice(50, 51)), (slice(None), 7), (5,), slice(20, 80, 3), corner]:
        np.testing.assert_array_equal(infilled[block], whole[block])
    np.testing.assert_array_equal(infilled[::-1], whole[::-1])
    assert infilled.shape == whole.shape
    assert len(infilled) == 90
    with pytest.raises(IndexError):
        infilled[90]


def test_valid_pixels_are_not_touched():
    np.testing.assert_array_equal(np.asarray(filled(HOLED[..., np.newaxis], None))[VALID, 0], IMAGE[VALID])


def test_intensity_counts_valid_pixels_alone():
    found = intensity_of(filled(HOLED[..., np.newaxis], None))
    assert found.n_pixels == VALID.sum()
    np.testing.assert_allclose([found.mean, found.std], [IMAGE[VALID].mean(), IMAGE[VALID].std()], rtol=1e-5)


# --- in classifiers ---


def new_model(kind=PixelClassifier, **parameters):
    return kind(AtrousFeatures(3, normalize="image"), TREES, nodata=0, random_state=0, **parameters)


@pytest.mark.parametrize("kind", [PixelClassifier, ContextClassifier])
def test_swaths_are_left_out_and_the_rest_is_nearly_as_good(kind):
    model = new_model(kind).fit(HOLED, np.where(RNG.random(LABELS.shape) < 0.2, LABELS, 0))
    other, truth = scene(1)
    predicted = model.predict(np.where(VALID, other, np.nan))
    assert (predicted[~VALID] == 0).all()
    whole = new_model(kind).fit(IMAGE, np.where(RNG.random(LABELS.shape) < 0.2, LABELS, 0)).predict(other)
    accuracy, of_whole = ((labels == truth)[VALID].mean() for labels in (predicted, whole))
    assert accuracy > of_whole - 0.02
    probabilities = model.predict_proba(np.where(VALID, other, np.nan))
    assert np.isnan(probabilities[~VALID]).all()
    assert np.isfinite(probabilities[VALID]).all()
    assert np.isnan(model.predict_entropy(np.where(VALID, other, np.nan))[~VALID]).all()


def test_mask_equals_nan():
    labels = np.where(VALID, LABELS, 2)  # labels where there is no data do not count
    by_nan = new_model().fit(HOLED, labels)
    by_mask = new_model().fit(np.where(VALID, IMAGE, 1e6), labels, mask=VALID)
    np.testing.assert_array_equal(by_nan.predict_proba(HOLED), by_mask.predict_proba(IMAGE, mask=VALID))
    np.testing.assert_array_equal(by_nan.predict(HOLED), by_mask.predict(IMAGE, mask=VALID))
    assert by_nan.score(HOLED, LABELS) == by_mask.score(IMAGE, LABELS, mask=VALID)
    assert by_nan.score(HOLED, LABELS) == (by_nan.predict(HOLED) == LABELS)[VALID].mean()
    np.testing.assert_array_equal(by_nan.suggest_pixels(HOLED, 5), by_mask.suggest_pixels(IMAGE, 5, mask=VALID))


def test_scores_and_entropies_have_no_data_either():
    model = PixelClassifier(AtrousFeatures(3), LinearDiscriminantAnalysis(), nodata=0).fit(HOLED, LABELS)
    for method in (model.decision_function, model.predict_entropy):
        by_nan = method(HOLED)
        np.testing.assert_array_equal(np.isnan(by_nan), ~VALID)
        np.testing.assert_array_equal(method(IMAGE, mask=VALID), by_nan)


def test_nothing_is_learnt_where_there_is_no_data():
    class Recorder(GaussianNB):
        def fit(self, X, y, sample_weight=None):
            self.n_rows_ = len(y)
            return super().fit(X, y)

    model = PixelClassifier(AtrousFeatures(2), Recorder(), nodata=-1, ignore_label=None).fit(HOLED, LABELS)
    assert model.classifier_.n_rows_ == VALID.sum()


@pytest.mark.parametrize("options", [{}, {"distill": True}, {"refine": DenseCRF(n_iter=2)}], ids=str)
@pytest.mark.parametrize("channel_axis", [None, 0])
def test_blocks_of_any_size(options, channel_axis, monkeypatch):
    image = HOLED if channel_axis is None else np.stack([HOLED, IMAGE, 2 * IMAGE])
    model = new_model(channel_axis=channel_axis, **options).fit(image, LABELS)
    expected = model.predict_proba(image)
    monkeypatch.setattr("dconv._pixels.BLOCK_PIXELS", 700)
    np.testing.assert_array_equal(model.predict_proba(image), expected)
    assert np.isnan(expected[~VALID]).all()


def test_lists_and_batches_with_masks():
    model = new_model().fit([IMAGE, IMAGE], [LABELS, LABELS], mask=[VALID, None])
    batch = model.predict(np.stack([IMAGE, IMAGE]), mask=np.stack([VALID, ~VALID]))
    assert (batch[0][~VALID] == 0).all()
    assert (batch[1][VALID] == 0).all()
    assert (batch[0][VALID] > 0).all()
    np.testing.assert_array_equal(model.predict([IMAGE, HOLED])[1], batch[0])


def test_image_without_any_data():
    model = new_model().fit(HOLED, LABELS)
    assert (model.predict(np.full_like(IMAGE, np.nan)) == 0).all()
    assert (model.predict(IMAGE.astype(np.uint8), mask=np.zeros_like(VALID)) == 0).all()


def test_statistics_of_training_images_count_valid_pixels_alone():
    image = np.random.default_rng(0).normal(5, 3, size=(100, 100))
    valid = np.arange(100) < 15 + 0 * np.arange(100)[:, np.newaxis]
    for features in (AtrousFeatures(2, normalize="training"), make_features(AtrousFeatures(2, normalize="training"))):
        model = PixelClassifier(features, TREES, nodata=-1).fit(image, 1 + (image > 5), mask=valid)
        bank = getattr(model.features_, "parts_", [model.features_])[0]._bank
        assert bank.scaling.n_pixels == valid.sum()
        assert bank.scaling.std == pytest.approx(image[valid].std())


def test_student_of_a_scene_with_little_data():
    image = np.full((600, 1500), np.nan)
    image[:60, :70] = np.random.default_rng(0).normal(size=(60, 70))
    labels = 1 + (np.nan_to_num(image) > 0)
    for seed in range(3):
        model = PixelClassifier(
            "passthrough", GaussianNB(), nodata=-1, ignore_label=None, distill=True, random_state=seed
        ).fit(image[..., np.newaxis], labels)
        assert (model.predict(image[..., np.newaxis]) == np.where(np.isnan(image), -1, labels)).mean() > 0.99


def test_transformers_of_other_libraries_see_the_dtype_of_the_image():
    class Recorder(BaseEstimator):
        def fit(self, X, y=None):
            self.dtypes_ = [X.dtype]
            return self

        def transform(self, image):
            self.dtypes_.append(image.dtype)
            return np.asarray(image, np.float32)[..., np.newaxis]

    image = IMAGE.clip(0, 255).astype(np.uint8)
    model = PixelClassifier(Recorder(), TREES, nodata=-1).fit(image, LABELS, mask=VALID)
    model.predict(image, mask=VALID)
    assert set(model.features_.dtypes_) == {np.dtype(np.uint8)}


def test_classes_to_come_are_checked_too():
    model = PixelClassifier(AtrousFeatures(2), GaussianNB(), nodata=-1)
    with pytest.raises(ValueError, match="uint8, which cannot hold nodata=-1"):
        model.partial_fit(IMAGE, LABELS, classes=np.array([1, 2], np.uint8), mask=VALID)
    with pytest.raises(ValueError, match="nodata=3 is the label of a class"):
        PixelClassifier(AtrousFeatures(2), GaussianNB(), nodata=3).partial_fit(IMAGE, LABELS, classes=[1, 2, 3])


def test_refused():
    with pytest.raises(ValueError, match="holds nan"):
        PixelClassifier(AtrousFeatures(2), TREES).fit(HOLED, LABELS)
    with pytest.raises(ValueError, match="nodata=None; give the label"):
        PixelClassifier(AtrousFeatures(2), TREES).fit(IMAGE, LABELS, mask=VALID)
    with pytest.raises(ValueError, match="nodata=2 is the label of a class"):
        PixelClassifier(AtrousFeatures(2), TREES, nodata=2).fit(HOLED, LABELS)
    with pytest.raises(ValueError, match="uint8, which cannot hold nodata=-1"):
        PixelClassifier(AtrousFeatures(2), TREES, nodata=-1).fit(HOLED, LABELS.astype(np.uint8))
    with pytest.raises(TypeError, match="nodata must be None or an int"):
        PixelClassifier(AtrousFeatures(2), TREES, nodata=0.5).fit(HOLED, LABELS)
    model = new_model()
    with pytest.raises(TypeError, match="mask must be boolean"):
        model.fit(IMAGE, LABELS, mask=VALID.astype(int))
    with pytest.raises(ValueError, match="mask has shape"):
        model.fit(IMAGE, LABELS, mask=VALID[1:])
    with pytest.raises(ValueError, match="no labelled pixel"):
        model.fit(IMAGE, np.where(VALID, 0, LABELS), mask=VALID)
    infinite = np.where(VALID, HOLED, np.inf)
    with pytest.raises(ValueError, match="holds inf"):
        model.fit(infinite, LABELS)
