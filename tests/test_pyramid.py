"""AtrousPyramid: branches against windows cut by hand, means, labels, blocks, files, bad input."""

import itertools
from unittest import mock

import numpy as np
import pytest
from images import make_image, scribble
from scipy import ndimage
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import dconv
from dconv import AtrousContext, AtrousFeatures, AtrousPyramid
from dconv._block_features import labelled_pixels
from dconv._validation import as_images
from dconv.filters import gaussian

BANK = AtrousFeatures(2, groups=["level", "gradient"])
IMAGE, LABELS = make_image((40, 50))
DILATIONS = (3, 7)


def pyramid(inner=BANK, **parameters):
    return AtrousPyramid(inner, **{"dilations": DILATIONS, "n_components": 4, "random_state": 0, **parameters})


def windows_of(maps, dilation):
    """Return what a kernel of three taps along each axis sees of every pixel, (n_pixels, taps * maps)."""
    ndim = maps.ndim - 1
    padded = np.pad(maps, [(dilation, dilation)] * ndim + [(0, 0)], mode="edge")
    steps = itertools.product((0, dilation, 2 * dilation), repeat=ndim)
    cut = [
        padded[tuple(slice(a, a + n) for a, n in zip(step, maps.shape[:-1], strict=True))].reshape(-1, maps.shape[-1])
        for step in steps
    ]
    return np.concatenate(cut, axis=1)


def standardized(rows, n_maps):
    by_map = rows.reshape(-1, n_maps)
    n_taps = rows.shape[1] // n_maps
    return (rows - np.tile(by_map.mean(axis=0), n_taps)) / np.tile(by_map.std(axis=0), n_taps)


def parts_of(model, image):
    """Return maps, the features of every branch, and means, from `transform`."""
    features = model.transform(image).astype(np.float64)
    sizes = [model._n_maps, *(len(branch.weight) for branch in model._branches)]
    maps, *branches, means = np.split(features, np.cumsum(sizes), axis=-1)
    return maps, branches, means


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_gaussian_branches_smooth_every_map(ndim):
    image = np.random.default_rng(0).normal(size=(40, 19, 18)[:ndim]).astype(np.float32)
    model = pyramid(projection="gaussian", inner=AtrousFeatures(2, groups=["level"]), ndim=ndim).fit(image)
    maps, branches, means = parts_of(model, image)
    np.testing.assert_array_equal(maps, AtrousFeatures(2, groups=["level"], ndim=ndim).fit_transform(image))
    for dilation, found in zip(DILATIONS, branches, strict=True):
        kernel = np.zeros(2 * dilation + 1)
        kernel[[0, dilation, -1]] = 0.25, 0.5, 0.25
        expected = maps
        for axis in range(ndim):
            expected = ndimage.correlate1d(expected, kernel, axis=axis, mode="nearest")
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(means - maps.mean(axis=tuple(range(ndim))), 0, atol=1e-6)


def test_pca_branches_are_the_components_of_windows():
    model = pyramid(n_samples=IMAGE.size).fit(IMAGE)
    maps, branches, _ = parts_of(model, IMAGE)
    for dilation, found in zip(DILATIONS, branches, strict=True):
        rows = standardized(windows_of(maps, dilation), maps.shape[-1])
        expected = PCA(4).fit_transform(rows)
        np.testing.assert_allclose(np.abs(found.reshape(-1, 4)), np.abs(expected), atol=1e-3 * np.abs(expected).max())


def test_labels_and_images_are_read_piece_by_piece_too():
    labels = np.where(np.indices(IMAGE.shape)[1] < 20, LABELS, 3)
    whole = pyramid(projection="lda").fit([IMAGE, IMAGE[:30]], [labels, labels[:30]])
    lazy = pyramid(projection="lda").fit([lambda: IMAGE, lambda: IMAGE[:30]], [lambda: labels, lambda: labels[:30]])
    np.testing.assert_array_equal(lazy.transform(IMAGE), whole.transform(IMAGE))


def test_lda_branches_are_the_discriminants_of_windows():
    labels = np.where(np.indices(IMAGE.shape)[1] < 20, LABELS, 3)
    model = pyramid(projection="lda", n_samples=IMAGE.size).fit(IMAGE, labels)
    maps, branches, _ = parts_of(model, IMAGE)
    for dilation, found in zip(DILATIONS, branches, strict=True):
        rows = standardized(windows_of(maps, dilation), maps.shape[-1])
        analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(rows, labels.ravel())
        expected = (rows - rows.mean(axis=0)) @ analysis.scalings_[:, :2]
        assert found.shape[-1] == 2  # three classes
        np.testing.assert_allclose(found.reshape(-1, 2), expected, atol=2e-3 * np.abs(expected).max())


def test_random_branches_are_linear_maps_of_unit_directions():
    model = pyramid(projection="random", n_samples=IMAGE.size).fit(IMAGE)
    maps, branches, _ = parts_of(model, IMAGE)
    rows = standardized(windows_of(maps, 3), maps.shape[-1])
    solution, *_ = np.linalg.lstsq(rows, branches[0].reshape(-1, 4), rcond=None)
    np.testing.assert_allclose(rows @ solution, branches[0].reshape(-1, 4), atol=1e-3)
    again = pyramid(projection="random", n_samples=IMAGE.size).fit(IMAGE).transform(IMAGE)
    np.testing.assert_array_equal(model.transform(IMAGE), again)


def test_labels_come_from_the_classifier(tmp_path):
    scribbles = scribble(LABELS, 0.3)
    model = dconv.PixelClassifier(pyramid(projection="lda"), LogisticRegression(), random_state=0).fit(IMAGE, scribbles)
    rows = model.features_.transform(IMAGE)
    by_hand = pyramid(projection="lda").fit(IMAGE, scribbles)
    np.testing.assert_array_equal(rows, by_hand.transform(IMAGE))
    expected = model.predict_proba(IMAGE)
    flat = model.classifier_.predict_proba(rows.reshape(-1, rows.shape[-1]))
    np.testing.assert_allclose(expected.reshape(flat.shape), flat, atol=1e-5)
    out = np.zeros(IMAGE.shape, np.uint8)
    dconv.predict_blocks(model, IMAGE, out, block_shape=16, progress=False)
    np.testing.assert_array_equal(out, model.predict(IMAGE))
    dconv.save(model, tmp_path / "model.dconv")
    np.testing.assert_array_equal(dconv.load(tmp_path / "model.dconv").predict_proba(IMAGE), expected)


def test_labels_reach_a_pyramid_among_other_features(tmp_path):
    # Beside others, and within: the pyramid of a union of pyramids.
    scribbles = scribble(LABELS, 0.3)
    lda = pyramid(projection="lda")
    expected = pyramid(projection="lda").fit(IMAGE, scribbles).transform(IMAGE)
    n = expected.shape[-1]
    union = dconv.make_features(dconv.PixelPosition(), lda)
    np.testing.assert_array_equal(clone(union).fit(IMAGE, scribbles).transform(IMAGE)[..., 2:], expected)
    over = AtrousPyramid(union, dilations=(2,), projection="gaussian", pool=False)
    np.testing.assert_array_equal(clone(over).fit(IMAGE, scribbles).transform(IMAGE)[..., 2 : 2 + n], expected)
    for features in (union, over):
        model = dconv.PixelClassifier(features, GaussianNB(), random_state=0)
        by_fit = clone(model).fit(IMAGE, scribbles).features_.transform(IMAGE)
        np.testing.assert_array_equal(by_fit[..., 2 : 2 + n], expected)
        by_epochs = clone(model).partial_fit(IMAGE, scribbles).features_.transform(IMAGE)
        np.testing.assert_array_equal(by_epochs, by_fit)
        with pytest.raises(ValueError, match="projection='lda' needs pixels of two classes"):
            clone(features).fit(IMAGE)
    assert pyramid().fit(IMAGE, "what is not used is not looked at").n_features_out_ > 0
    assert dconv.make_features(None).fit(IMAGE, "likewise").n_features_out_ > 0


def test_lda_learnt_from_other_labels_keeps_signs_and_order():
    labels = 1 + (np.indices(IMAGE.shape)[1] // 7) % 4
    image = IMAGE + 30 * labels
    model = pyramid(projection="lda", n_samples=IMAGE.size).fit(image, labels)
    images = as_images(image, 2, None)
    learnt = dconv.pyramid.learnt_branch

    def turned_by_chance(*args):
        branch = learnt(*args)
        return branch._replace(weight=-branch.weight[[2, 0, 1]], bias=-branch.bias[[2, 0, 1]])

    with mock.patch("dconv.pyramid.learnt_branch", turned_by_chance):
        found = model._relearnt(images, *labelled_pixels(labels, images)).transform(image)
    np.testing.assert_allclose(found, model.transform(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("projection", ["gaussian", "random", "pca"])
def test_kernels_that_do_not_look_at_labels_stay_where_the_maps_learn_from_others(projection):
    first, second = scribble(LABELS), scribble(LABELS, seed=1)
    model = pyramid(AtrousContext(BANK, classifier=GaussianNB()), projection=projection, random_state=None)
    model.fit(IMAGE, first)
    images = as_images(IMAGE, 2, None)
    other = model._relearnt(images, *labelled_pixels(second, images))
    assert other._branches is model._branches
    maps = other.inner_.transform(IMAGE)
    np.testing.assert_array_equal(other.transform(IMAGE)[..., : maps.shape[-1]], maps)
    assert (maps != model.inner_.transform(IMAGE)).any()


def test_pca_of_many_taps_finds_the_first_directions():
    # 200 maps have windows of 1800 places, of which not all directions are looked for.
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(30, 40, 6)) @ (rng.normal(size=(6, 200)) * np.geomspace(8, 1, 6)[:, np.newaxis])
    maps = (mixed + 0.1 * rng.normal(size=(*mixed.shape[:-1], 200))).astype(np.float32)
    model = pyramid("passthrough", channel_axis=-1, n_samples=1200).fit(maps)
    rows = standardized(windows_of(maps.astype(np.float64), 3), 200)
    explained = PCA(4, svd_solver="full").fit(rows).explained_variance_
    np.testing.assert_allclose(parts_of(model, maps)[1][0].reshape(-1, 4).var(axis=0, ddof=1), explained, rtol=0.01)
    np.testing.assert_array_equal(model.transform(maps), clone(model).fit(maps).transform(maps))


@pytest.mark.parametrize("projection", ["pca", "random", "gaussian"])
def test_constant_maps(projection):
    features = pyramid("passthrough", projection=projection, channel_axis=-1).fit_transform(np.full((30, 30, 1), 0.1))
    assert np.isfinite(features).all()


def test_maps_of_probabilities_and_of_a_backbone():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=(30, 34)).astype(np.float32)
    model = pyramid("passthrough", channel_axis=-1, projection="gaussian").fit(probabilities)
    np.testing.assert_array_equal(model.transform(probabilities)[..., :3], probabilities)
    net = dconv.layers.from_arrays([(np.random.default_rng(0).normal(size=(5, 3, 3, 1)), None)])
    assert pyramid(dconv.AtrousBackbone(net), pool=False).fit_transform(IMAGE).shape[-1] == 5 + 2 * 4


def test_blocks_change_no_bit_and_halo_is_exact():
    image = np.random.default_rng(0).normal(size=(90, 80)).astype(np.float32)
    model = pyramid(pool=False).fit(image)
    expected = model.transform(image)
    for block in [(slice(0, 5), slice(70, 80)), (slice(33, 60), slice(10, 11))]:
        np.testing.assert_array_equal(model._transform_block(image[..., np.newaxis], block), expected[block])
    changed = image.copy()
    changed[45, 40] += 100
    touched = np.argwhere((model.transform(changed) != expected).any(axis=-1))
    (left, right), _ = model.halo_
    assert touched[:, 0].max() - 45 == left
    assert 45 - touched[:, 0].min() == right


def test_dask_workers_cannot_see_the_mean():
    da = pytest.importorskip("dask.array", reason="dask is not installed (pip install dconv[dask])")
    lazy = da.from_array(IMAGE, chunks=25)
    scribbles = scribble(LABELS, 0.3)
    for features in (pyramid(), dconv.make_features(AtrousFeatures(2, normalize="image"), dconv.PixelPosition())):
        model = dconv.PixelClassifier(features, GaussianNB()).fit(IMAGE, scribbles)
        with pytest.raises(ValueError, match="see each image as a whole first"):
            dconv.distributed.predict(model, lazy)
    model = dconv.PixelClassifier(pyramid(pool=False), GaussianNB()).fit(IMAGE, scribbles)
    labels = dconv.distributed.predict(model, lazy).compute(scheduler="threads")
    np.testing.assert_array_equal(labels, model.predict(IMAGE))


def test_bad_input():
    def fails(match, error=ValueError, y=None, **parameters):
        with pytest.raises(error, match=match):
            pyramid(**parameters).fit(IMAGE, y)

    fails("projection must be one of 'gaussian', 'random', 'pca', 'lda', got 'svd'", projection="svd")
    fails("dilations must be a sequence of ints, not empty", TypeError, dilations=6)
    fails("dilations must be at least 1", dilations=(6, 0))
    fails(r"dilations=\(6, 6\) repeats a dilation", dilations=(6, 6))  # whose features would have the same names
    fails("pool must be a bool", TypeError, pool="mean")
    fails("n_components must be at least 1", n_components=0)
    fails("n_samples must be at least 2", n_samples=1)
    fails("projection='lda' needs pixels of two classes", projection="lda")
    fails("projection='lda' needs pixels of two classes", projection="lda", y=np.ones(IMAGE.shape, int))
    two = np.zeros(IMAGE.shape, int)
    two[0, :2] = 1, 2
    fails(r"learns from 2 pixel\(s\) of 2 class\(es\), but needs two classes, and more", projection="lda", y=two)
    rows = np.indices(IMAGE.shape[:2])[0]
    halves, top, bottom = (rows >= 20) * 1.0, rows < 3, rows > 36
    for image in (np.zeros((40, 50)), halves):
        with pytest.raises(ValueError, match="projection='lda' needs maps that vary within a class"):
            pyramid("passthrough", projection="lda", channel_axis=-1).fit(image[..., None], top + 2 * bottom)
    fails("y has shape", projection="lda", y=np.ones((3, 3), int))
    fails("inner must work block by block, but CustomFeatures", inner=dconv.CustomFeatures(np.negative))
    fails("or a bank of filters with stride=1", inner=dconv.DilatedConv(gaussian(1.0), stride=2))
    fails('inner must be None, "passthrough" or a transformer', inner="bank")
    fails("channel_axis must be None or an int", TypeError, channel_axis=np.ones(2))
