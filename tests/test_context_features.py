"""AtrousContext: context against probabilities by hand, labels, blocks, files, the default, bad input."""

import numpy as np
import pytest
from images import make_image, make_images, scribble
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import dconv
from dconv import AtrousContext, AtrousFeatures
from dconv._context_bank import ContextFeatures

BANK = AtrousFeatures(2, groups=["level", "gradient"])
IMAGE, LABELS = make_image((60, 70))
SCRIBBLES = scribble(LABELS, 0.3)
THREE = np.where(np.indices(IMAGE.shape)[1] < 20, SCRIBBLES, 3 * (SCRIBBLES > 0))


def context(inner=BANK, **parameters):
    return AtrousContext(inner, **{"random_state": 0, **parameters})


@pytest.mark.parametrize("labels", [SCRIBBLES, THREE], ids=["two classes", "three classes"])
@pytest.mark.parametrize("classifier", [None, LogisticRegression(max_iter=1000), KNeighborsClassifier(20)])
def test_context_is_what_the_bank_sees_in_probabilities(labels, classifier):
    model = context(classifier=classifier).fit(IMAGE, labels)
    found = model.transform(IMAGE)
    maps = clone(BANK).fit_transform(IMAGE)
    n = maps.shape[-1]
    np.testing.assert_array_equal(found[..., :n], maps)
    probabilities = model.classifier_.predict_proba(maps.reshape(-1, n)).reshape(*IMAGE.shape, -1).astype(np.float32)
    of_probabilities = ContextFeatures(2, len(np.unique(labels)) - 1, far=False)
    expected = of_probabilities._transform_block(probabilities, (slice(0, 60), slice(0, 70)))
    np.testing.assert_allclose(found[..., n:], expected, atol=1e-4)
    assert model.n_features_out_ == found.shape[-1] == len(model.get_feature_names_out())
    assert len(set(model.get_feature_names_out())) == found.shape[-1] == len(model._feature_keys())


def test_first_classifier_learns_from_the_labelled_pixels():
    model = context(classifier=GaussianNB()).fit(IMAGE, SCRIBBLES)
    rows = clone(BANK).fit_transform(IMAGE)[SCRIBBLES > 0]
    expected = GaussianNB().fit(rows, SCRIBBLES[SCRIBBLES > 0])
    np.testing.assert_allclose(model.classifier_.theta_, expected.theta_, rtol=1e-6)
    few = context(classifier=GaussianNB(), n_samples=50).fit([IMAGE, IMAGE[:30]], [SCRIBBLES, SCRIBBLES[:30]])
    assert few.classifier_.class_count_.sum() == 50
    np.testing.assert_array_equal(few.classes_, [1, 2])


def test_a_class_of_one_pixel_is_learnt():
    labels = np.ones(IMAGE.shape, int)
    labels[30, 40] = 2
    for seed in range(5):
        model = context(random_state=seed, n_samples=20).fit(IMAGE, labels)
        np.testing.assert_array_equal(model.classes_, [1, 2])


def test_a_pixel_of_each_image_is_of_any_class():
    for seed in range(5):
        model = context(random_state=seed, n_samples=12).fit([IMAGE] * 12, [SCRIBBLES] * 12)
        np.testing.assert_array_equal(model.classes_, [1, 2])


def test_first_classifier_is_the_one_that_was_measured():
    steps = list(context().fit(IMAGE, SCRIBBLES).classifier_)
    assert [type(step) for step in steps] == [dconv.SoftClipScaler, StandardScaler, dconv.PerceptronClassifier]
    assert (steps[-1].hidden_layer_sizes, steps[-1].alpha) == ((16,), 10.0)
    assert context().n_samples == 20_000


def test_same_seed_same_features():
    one, other, third = (context(random_state=seed).fit(IMAGE, SCRIBBLES).transform(IMAGE) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)


@pytest.mark.parametrize("labels", [SCRIBBLES, THREE], ids=["two classes", "three classes"])
def test_blocks_change_no_bit_and_halo_holds(labels):
    model = context().fit(IMAGE, labels)
    image = np.random.default_rng(0).normal(scale=50, size=(330, 310)).astype(np.float32)
    expected = model.transform(image)
    for block in [(slice(0, 5), slice(300, 310)), (slice(133, 160), slice(10, 111))]:
        np.testing.assert_array_equal(model._transform_block(image[..., np.newaxis], block), expected[block])
    model.n_jobs = 3
    np.testing.assert_array_equal(model.transform(image), expected)
    changed = image.copy()
    changed[165, 150] += 1000
    touched = np.argwhere((model.transform(changed) != expected).any(axis=-1))
    for axis, centre in ((0, 165), (1, 150)):
        left, right = model.halo_[axis]
        assert 0 < touched[:, axis].max() - centre <= left
        assert 0 < centre - touched[:, axis].min() <= right


def test_classifier_tells_its_labels(tmp_path):
    model = dconv.PixelClassifier(context(), GaussianNB(), random_state=0).fit(IMAGE, SCRIBBLES)
    np.testing.assert_array_equal(model.features_.transform(IMAGE), context().fit(IMAGE, SCRIBBLES).transform(IMAGE))
    expected = model.predict_proba(IMAGE)
    out = np.zeros(IMAGE.shape, np.uint8)
    dconv.predict_blocks(model, IMAGE, out, block_shape=16, progress=False)
    np.testing.assert_array_equal(out, model.predict(IMAGE))
    dconv.save(model, tmp_path / "model.dconv")
    np.testing.assert_array_equal(dconv.load(tmp_path / "model.dconv").predict_proba(IMAGE), expected)


def test_what_was_learnt_from_other_labels_is_not_kept():
    turned = np.where(SCRIBBLES > 0, 3 - SCRIBBLES, 0)
    turned[:30] = SCRIBBLES[:30]
    model = dconv.PixelClassifier(context(), GaussianNB()).fit(IMAGE, SCRIBBLES)
    features = model.features_.transform(IMAGE)
    anew = dconv.PixelClassifier(context(), GaussianNB()).fit(IMAGE, turned)
    assert not np.array_equal(anew.features_.transform(IMAGE), features)
    model.partial_fit(IMAGE, turned)  # which goes on with the features
    np.testing.assert_array_equal(model.features_.transform(IMAGE), features)
    np.testing.assert_array_equal(model.fit(IMAGE, turned).predict_proba(IMAGE), anew.predict_proba(IMAGE))


def test_beside_other_features_and_within():
    alone = context().fit(IMAGE, SCRIBBLES).transform(IMAGE)
    union = dconv.make_features(dconv.PixelPosition(), context())
    np.testing.assert_array_equal(clone(union).fit(IMAGE, SCRIBBLES).transform(IMAGE)[..., 2:], alone)
    twice = context(context()).fit(IMAGE, SCRIBBLES).transform(IMAGE)  # a context of contexts
    np.testing.assert_array_equal(twice[..., : alone.shape[-1]], alone)
    pixels = context("passthrough", channel_axis=-1).fit(IMAGE[..., np.newaxis], SCRIBBLES)
    np.testing.assert_array_equal(pixels.transform(IMAGE[..., np.newaxis])[..., 0], IMAGE)


def test_images_are_read_piece_by_piece_too():
    whole = context().fit([IMAGE, IMAGE[:30]], [SCRIBBLES, SCRIBBLES[:30]])
    lazy = context().fit([lambda: IMAGE, lambda: IMAGE[:30]], [lambda: SCRIBBLES, lambda: SCRIBBLES[:30]])
    np.testing.assert_array_equal(lazy.transform(IMAGE), whole.transform(IMAGE))


@pytest.mark.parametrize("ndim", [1, 3])
def test_series_and_volumes(ndim):
    image, labels = make_image((200,) if ndim == 1 else (20, 18, 22))
    model = context(AtrousFeatures(1, groups=["level"]), ndim=ndim).fit(image, labels)
    block = tuple(slice(3, 15) for _ in image.shape)
    found = model.transform(image)
    np.testing.assert_array_equal(model._transform_block(image[..., np.newaxis], block), found[block])


def big(n_images=2):
    """Return images with 10,000 labelled pixels all together."""
    images, _ = make_images(((90, 80),) * n_images)
    labels = [np.broadcast_to(1 + (np.indices((90, 80)).sum(axis=0) // 12) % 2, (90, 80)).copy() for _ in images]
    excess = sum(each.size for each in labels) - 10_000
    labels[0].flat[:excess] = 0
    return images, labels


def test_it_is_the_default_where_labels_are_many():
    images, labels = big()
    fast = {"classifier": GaussianNB(), "random_state": 0}
    model = dconv.PixelClassifier(**fast).fit(images, labels)
    assert type(model.features_) is AtrousContext
    assert type(model.features_.inner_) is AtrousFeatures
    assert model.features_.inner_.normalize == "auto"
    assert model.features is None
    np.testing.assert_array_equal(
        dconv.PixelClassifier(**fast).fit(images, labels).predict(images), model.predict(images)
    )
    fewer = [labels[0].copy(), labels[1]]
    fewer[0][-1, -1] = 0
    weights = [np.ones(each.shape) for each in labels]
    others = [
        dconv.PixelClassifier(**fast).fit(images, fewer),
        dconv.PixelClassifier(**fast).fit(images, labels, weights),
        dconv.PixelClassifier(AtrousFeatures(normalize="auto"), **fast).fit(images, labels),
        dconv.PixelClassifier(ndim=1, **fast).fit([each.ravel() for each in images], [each.ravel() for each in labels]),
    ]
    assert [type(other.features_) for other in others] == [AtrousFeatures] * 4
    model.fit(images, fewer)  # and back
    assert type(model.features_) is AtrousFeatures


def test_it_is_the_default_of_volumes_too():
    volume, labels = make_image((36, 34, 33))  # as small as five levels take
    model = dconv.PixelClassifier(classifier=GaussianNB(), ndim=3, channel_axis=0, random_state=0)
    model.fit(volume[np.newaxis], labels)
    assert type(model.features_) is AtrousContext
    assert (model.features_.ndim_, model.features_.channel_axis_) == (3, 0)
    found = np.zeros(volume.shape, labels.dtype)
    dconv.predict_blocks(model, volume[np.newaxis], found, block_shape=(36, 20, 33))
    np.testing.assert_array_equal(found, model.predict(volume[np.newaxis]))
    few = dconv.PixelClassifier(classifier=GaussianNB(), ndim=3).fit(volume, scribble(labels))
    assert type(few.features_) is AtrousFeatures


def test_bad_input():
    def fails(match, error=ValueError, y=SCRIBBLES, **parameters):
        with pytest.raises(error, match=match):
            context(**parameters).fit(IMAGE, y)

    fails("AtrousContext needs labelled pixels of two classes", y=None)
    fails("AtrousContext needs labelled pixels of two classes", y=np.where(SCRIBBLES == 1, 1, 0))
    fails("n_samples must be at least 2, but got 1", n_samples=1)
    fails("needs a classifier with probabilities, but RidgeClassifier", classifier=RidgeClassifier())
    fails("classifier must be None or a scikit-learn classifier", classifier="forest")
    fails("classifier must be None or a scikit-learn classifier", TypeError, classifier=RidgeClassifier)
    fails('inner must be None, "passthrough" or a transformer', inner="bank")
    fails("inner must work block by block, but CustomFeatures", inner=dconv.CustomFeatures(np.negative))
    fails("the context of AtrousContext looks at what lies ahead", inner=AtrousFeatures(2, causal=True))
    with pytest.raises(ValueError, match="X has 1 channel"):
        context(channel_axis=-1).fit(np.stack([IMAGE] * 2, -1), SCRIBBLES).transform(IMAGE[..., np.newaxis])
