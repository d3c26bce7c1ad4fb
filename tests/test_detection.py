"""ObjectDetector: objects learnt from masks and from boxes, in the form of what came in, and what it refuses."""

import pickle
import re

import numpy as np
import pytest
from images import TREES, Untouchable
from scipy import ndimage
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.utils import get_tags

from dconv import AtrousFeatures, ContextClassifier, ObjectDetector, PixelClassifier
from dconv._object_lesson import BACKGROUND, BORDER, INSIDE, UNKNOWN, as_examples, labels_of
from dconv._validation import as_images
from dconv.metrics import object_f1_score
from dconv.objects import Objects

FOREST = ExtraTreesClassifier(30, max_leaf_nodes=64, random_state=0)
SEGMENTER = PixelClassifier(AtrousFeatures(3, normalize="image"), FOREST, max_samples=1000)


def blobs(shape=(90, 110), seed=0):
    """Return a noisy image of balls, some of which touch, and their masks."""
    rng, radius = np.random.default_rng(seed), 8 if len(shape) == 2 else 6
    places = np.indices(shape)
    masks = np.zeros(shape, int)
    grid = [np.arange(radius + 1, size - radius, 2 * radius - 2) for size in shape]
    for number, center in enumerate(zip(*[each.ravel() for each in np.meshgrid(*grid)], strict=True), 1):
        if rng.random() < 0.7:
            distance = sum((axis - middle) ** 2 for axis, middle in zip(places, center, strict=True))
            masks[(distance <= (rng.uniform(0.75, 1) * radius) ** 2) & (masks == 0)] = number
    image = (masks > 0) * 2.0 + rng.normal(scale=0.25, size=shape)
    return image.astype(np.float32), masks


def boxes_of(masks):
    found = [box for box in ndimage.find_objects(masks) if box is not None]
    return np.array([[part.start for part in box] + [part.stop for part in box] for box in found])


def detector(**parameters):
    return ObjectDetector(**{"segmenter": SEGMENTER, "as_frame": False, "random_state": 0, **parameters})


def labels_from(y, image, width=1.5):
    (example,) = as_examples(y, as_images(image, image.ndim, None))
    return labels_of(example, width)


# --- what is learnt ---


@pytest.mark.parametrize("shape", [(90, 110), (30, 34, 32)])
@pytest.mark.parametrize("width", [1, 1.5, 3])
def test_border_is_what_is_near_something_else(shape, width):
    image, masks = blobs(shape)
    labels = labels_from(masks, image, width)
    reach = int(np.ceil(width))
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * len(shape)), -1).reshape(-1, len(shape))
    expected = np.where(masks == 0, BACKGROUND, INSIDE)
    for step in steps[(steps**2).sum(axis=1) <= width**2]:
        moved = np.pad(masks, reach, mode="edge")  # nothing is known beyond the image
        inside = tuple(slice(reach + by, reach + by + size) for by, size in zip(step, shape, strict=True))
        clipped = np.pad(np.ones(shape, bool), reach)[inside]
        expected[(masks > 0) & clipped & (moved[inside] != masks)] = BORDER
    np.testing.assert_array_equal(labels, expected)
    assert set(np.unique(labels)) == {BACKGROUND, INSIDE, BORDER}


def test_negative_pixels_are_unknown():
    image, masks = blobs()
    masks[:, 60:] = -7
    labels = labels_from(masks, image)
    np.testing.assert_array_equal(labels == UNKNOWN, masks == -7)


def test_boxes_hold_ellipses_whose_corners_are_unknown():
    image, boxes = np.zeros((50, 60)), np.array([[5, 10, 25, 50], [10, 20, 18, 28]])
    (example,) = as_examples(boxes, as_images(image, 2, None))
    rows, columns = np.indices(image.shape)
    large = ((rows - 14.5) / 10) ** 2 + ((columns - 29.5) / 20) ** 2 <= 1
    small = (rows - 13.5) ** 2 + (columns - 23.5) ** 2 <= 16  # in front
    np.testing.assert_array_equal(example.instances, np.where(small, 2, np.where(large, 1, example.instances)))
    corners = np.zeros_like(large)
    corners[5:25, 10:50] = True
    np.testing.assert_array_equal(example.instances == -1, corners & ~large & ~small)
    assert not example.instances[~corners].any()


@pytest.mark.parametrize("max_samples", [None, 300])
def test_class_weight_undoes_what_max_samples_does(max_samples):
    pairs = [blobs(seed=seed) for seed in (0, 1)]
    X, y = map(list, zip(*pairs, strict=True))
    fitted = detector(segmenter=clone(SEGMENTER).set_params(max_samples=max_samples)).fit(X, y)
    counts = [np.bincount(labels_from(masks, image).ravel(), minlength=4)[1:] for image, masks in pairs]
    drawn = [np.minimum(each, max_samples or image.size) for each, image in zip(counts, X, strict=True)]
    np.testing.assert_allclose(fitted.class_weight_, np.sum(counts, axis=0) / np.sum(drawn, axis=0))
    assert (fitted.class_weight_ == 1).all() == (max_samples is None)


def test_class_weight_follows_what_was_drawn_and_a_prior():
    image, masks = blobs()
    counts = np.bincount(labels_from(masks, image).ravel(), minlength=4)[1:]
    segmenter = clone(SEGMENTER).set_params(max_samples=100, sample="stratified")
    fitted = detector(segmenter=segmenter).fit(image, masks)
    np.testing.assert_allclose(fitted.class_weight_, counts.sum() / 300, rtol=0.02)
    fitted = detector(segmenter=segmenter.set_params(sample="balanced", class_prior="data")).fit(image, masks)
    np.testing.assert_array_equal(fitted.class_weight_, 1)
    np.testing.assert_allclose(
        fitted.segmenter_.prior_factors_ * counts[0] / fitted.segmenter_.prior_factors_[0], counts
    )


# --- what is found ---


@pytest.mark.parametrize("shape", [(90, 110), (42, 46, 44)])
@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_finds_objects_that_touch(shape, kind):
    image, masks = blobs(shape)
    other, truth = blobs(shape, seed=1)
    fitted = detector(ndim=len(shape)).fit(image, masks if kind == "masks" else boxes_of(masks))
    table, labels = fitted.predict_objects(other)
    n_regions = ndimage.label(truth)[1]
    assert n_regions < len(np.unique(truth)) - 1  # some do touch
    assert object_f1_score(truth, labels) > 0.85
    assert fitted.score(other, truth) == object_f1_score(truth, labels)
    assert fitted.set_params(split="none").score(other, truth) < object_f1_score(truth, labels)
    sizes = np.bincount(labels.ravel())[1:]
    np.testing.assert_array_equal(table["area"], sizes)
    assert sizes.min() >= fitted.min_size_
    starts = np.stack([table[f"bbox-{axis}"] for axis in range(2 * len(shape))], axis=1)
    np.testing.assert_array_equal(starts, boxes_of(labels))
    assert (table["mean_probability"] >= fitted.threshold).all()


def test_pixels_of_objects_are_probably_inside_or_border():
    (image, masks), (other, _) = blobs(), blobs(seed=1)
    fitted = detector(split="none", min_size=1).fit(image, masks)
    weighted = fitted.segmenter_.predict_proba(other) * fitted.class_weight_
    foreground = 1 - weighted[..., 0] / weighted.sum(axis=-1)
    assert fitted.class_weight_[0] > 2  # there is much background, of which little was learnt
    table, labels = fitted.predict_objects(other)
    np.testing.assert_array_equal(labels > 0, foreground >= 0.4)
    mean = ndimage.mean(foreground, labels, table["label"])
    np.testing.assert_allclose(table["mean_probability"], mean, rtol=1e-5)


def test_threshold_and_sizes_of_prediction_can_change_after_fit():
    image, masks = blobs()
    fitted = detector().fit(image, masks)
    loose, strict = (fitted.set_params(threshold=t).predict_objects(image).labels for t in (0.2, 0.9))
    assert np.count_nonzero(loose) > np.count_nonzero(strict)
    areas = np.bincount(masks.ravel())[1:]
    assert fitted.min_size_ == int(np.quantile(areas[areas > 0], 0.01) / 2)
    assert fitted.set_params(threshold=0.4).predict(image)["area"].min() < 150
    assert fitted.set_params(min_size=150).predict(image)["area"].min() >= 150
    assert detector(min_size=150).fit(image, masks).min_size_ == 150


def test_nothing_found_is_an_empty_table():
    image, masks = blobs()
    fitted = detector().fit([image, image], [masks, np.zeros((0, 4))])
    some, none = fitted.set_params(threshold=1.0, min_size=3).predict([image, np.zeros((40, 50))])
    assert list(some) == list(none)
    assert [len(column) for column in none.values()] == [0] * len(none)


def test_no_object_where_there_is_no_data():
    image, masks = blobs()
    missing = np.indices(image.shape)[1] > 60
    holed = np.where(missing, np.nan, image)
    segmenter = clone(SEGMENTER).set_params(max_samples=None, nodata=9)
    fitted = detector(segmenter=segmenter).fit(holed, masks)
    np.testing.assert_array_equal(fitted.class_weight_, 1)
    table, labels = fitted.predict_objects(holed)
    assert not labels[missing].any()
    assert object_f1_score(np.where(missing, 0, masks), labels) > 0.85
    assert len(table["label"]) == labels.max()
    assert len(fitted.predict(np.full_like(image, np.nan))["label"]) == 0
    with pytest.raises(ValueError, match="X holds nan"):
        detector().fit(holed, masks)


def test_an_image_that_is_one_object():
    image, masks = blobs()
    fitted = detector().fit(image, masks).set_params(threshold=1e-9)
    assert fitted.predict_objects(np.zeros((40, 50))).labels.all()


def test_tables_come_in_the_form_of_the_images():
    pandas = pytest.importorskip("pandas")
    (image, masks), (other, more) = blobs(), blobs(seed=1)
    fitted = detector().fit([image, other], [masks, boxes_of(more)])
    one = fitted.predict(image)
    assert isinstance(fitted.predict_objects(image), Objects)
    for X in ([image, other], np.stack([image, other])):
        tables = fitted.predict(X)
        assert len(tables) == 2
        for name, column in one.items():
            np.testing.assert_array_equal(tables[0][name], column)
    pandas.testing.assert_frame_equal(fitted.set_params(as_frame="auto").predict(image), pandas.DataFrame(one))


def test_default_segmenter_colours_and_cascades():
    image, masks = blobs()
    colour = np.stack([image, image, 1 - image])
    fitted = ObjectDetector(channel_axis=0, random_state=0, as_frame=False).fit(colour, masks)
    assert fitted.segmenter_.features_.normalize == "image"
    assert fitted.segmenter_.max_samples == 1000
    assert fitted.score(colour, masks) > 0.85
    cascade = ContextClassifier(AtrousFeatures(3), FOREST, cv=2, channel_axis=0, max_samples=500)
    fitted = ObjectDetector(cascade, random_state=0).fit(np.stack([colour, colour]), np.stack([masks, masks]))
    assert fitted.segmenter_.n_stages_ == 2
    assert fitted.score(colour, masks) > 0.85


# --- as an estimator ---


def test_estimator_conventions():
    image, masks = blobs()
    before, parameters = (image.copy(), masks.copy()), detector()
    fitted = parameters.fit(image, masks)
    expected = fitted.predict_objects(image).labels
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(masks, before[1])
    for same in (
        clone(fitted).fit(image, masks),
        pickle.loads(pickle.dumps(fitted)),
        detector(n_jobs=3).fit(image, masks),
    ):
        np.testing.assert_array_equal(same.predict_objects(image).labels, expected)
    assert not [name for name in vars(clone(fitted)) if name.endswith("_")]
    assert SEGMENTER.ignore_label == 0
    assert not get_tags(fitted).input_tags.two_d_array
    assert "ObjectDetector" in repr(fitted)
    with pytest.raises(NotFittedError, match="ObjectDetector"):
        detector().predict(image)


# --- bad input ---

IMAGE, MASKS = blobs((40, 50))


@pytest.mark.parametrize(
    ("y", "parameters", "error", "message"),
    [
        (MASKS[:-1], {}, ValueError, "y has shape (39, 50), but for an image of spatial shape (40, 50) it is either a"),
        (np.zeros((3, 6)), {}, ValueError, "boxes of shape (n_boxes, 4)"),
        (MASKS > 0, {}, TypeError, "y is bool, which tells where objects are and not which is which"),
        (MASKS.astype(float), {}, TypeError, "y must hold integer labels, got dtype float64"),
        ([[5, 5, 5, 9]], {}, ValueError, "y[0] is the box [5, 5, 5, 9], but in an image of spatial shape (40, 50)"),
        ([[1, 1, 9, 9], [-1, 0, 3, 3]], {}, ValueError, "y[1] is the box [-1, 0, 3, 3]"),
        ([[0, 0, 9, 51]], {}, ValueError, "y[0] is the box [0, 0, 9, 51]"),
        ([[0, 0, np.nan, 5]], {}, ValueError, "y[0] is the box [0.0, 0.0, nan, 5.0]"),
        (np.zeros_like(MASKS), {}, ValueError, "y holds no object in any image"),
        ([], {}, ValueError, "y holds no object in any image"),
        (np.ones_like(MASKS), {}, ValueError, "y holds no pixel of the background"),
        (MASKS, {"border_width": 30}, ValueError, "border_width=30 leaves no inside of any object"),
        (MASKS, {"border_width": 0.5}, ValueError, "border_width must be at least 1 pixel, and finite, but got 0.5"),
        (MASKS, {"border_width": "thin"}, TypeError, "border_width must be a number, got 'thin'"),
        (MASKS, {"threshold": 1.2}, ValueError, "threshold must be above 0 and at most 1, but got 1.2"),
        (MASKS, {"neck": 0}, ValueError, "neck must be above 0 and at most 1, but got 0"),
        (MASKS, {"split": "yes"}, ValueError, 'split must be "watershed" or "none"'),
        (MASKS, {"connectivity": 3}, ValueError, "connectivity=3 joins pixels along 3 axes"),
        (MASKS, {"min_size": 0}, ValueError, "min_size must be at least 1, but got 0"),
        (MASKS, {"min_size": 2.0}, TypeError, "min_size must be None or an int, got 2.0"),
        (MASKS, {"as_frame": np.arange(2)}, ValueError, 'as_frame must be True, False or "auto"'),
        (MASKS, {"as_frame": 3}, ValueError, 'as_frame must be True, False or "auto", got 3'),
        (MASKS, {"ndim": np.ones(2)}, TypeError, "ndim must be an int"),
        (MASKS, {"n_jobs": np.ones(2)}, TypeError, "n_jobs must be None or an int"),
        (MASKS, {"ndim": 3}, ValueError, "X has 2 axes (40, 50), but with ndim=3"),
        (MASKS, {"segmenter": TREES}, TypeError, "segmenter must be None or a PixelClassifier, got ExtraTrees"),
        (
            MASKS,
            {"segmenter": PixelClassifier(None, RidgeClassifier())},
            TypeError,
            "needs a classifier with predict_pr",
        ),
        (
            MASKS,
            {"segmenter": PixelClassifier(random_state=1), "random_state": 2},
            ValueError,
            "random_state=2 was given, but segmenter has random_state=1; say it in one of them",
        ),
    ],
)
def test_bad_input_is_refused_before_any_feature(y, parameters, error, message):
    segmenter = PixelClassifier(Untouchable(), TREES)
    with pytest.raises(error, match=re.escape(message)):
        ObjectDetector(**{"segmenter": segmenter, **parameters}).fit(IMAGE, y)


def test_objects_of_every_image_are_needed():
    with pytest.raises(ValueError, match=re.escape("y has 1 item(s), but X has 2")):
        detector().fit([IMAGE, IMAGE], [MASKS])
    with pytest.raises(TypeError, match="y must hold the objects of each image of X, one after another, got None"):
        detector().fit([IMAGE, IMAGE], None)
    with pytest.raises(ValueError, match=re.escape("y[1] has shape (39, 50)")):
        detector().fit([IMAGE, IMAGE], [MASKS, MASKS[1:]])


def test_prediction_refuses_other_images():
    fitted = detector(channel_axis=-1).fit(np.stack([IMAGE] * 3, axis=-1), MASKS)
    with pytest.raises(
        ValueError, match=re.escape("X has 2 channel(s) per image, but ObjectDetector was fitted with 3")
    ):
        fitted.predict(np.stack([IMAGE] * 2, axis=-1))
    with pytest.raises(ValueError, match="threshold must be above 0"):
        fitted.set_params(threshold=0).predict(np.stack([IMAGE] * 3, axis=-1))
