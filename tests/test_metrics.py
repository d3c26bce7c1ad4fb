"""mean_iou_score against scikit-learn's jaccard_score on flat labels, and what it leaves out or refuses."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from dconv.metrics import mean_iou_score, object_f1_score

SMALL = [1, 2, 3]
MASKED = np.ma.masked_equal(SMALL, 2)


@given(data=st.data(), dtype=st.sampled_from([np.uint8, np.int64, np.int16]), n_images=st.integers(1, 3))
def test_equals_jaccard_score(data, dtype, n_images):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    sizes = [tuple(data.draw(st.integers(1, 7)) for _ in range(2)) for _ in range(n_images)]
    true = [rng.integers(0, 4, size=size).astype(dtype) for size in sizes]
    true[0].flat[0] = 3
    predicted = [rng.integers(1, 6, size=size).astype(dtype) for size in sizes]
    flat_true, flat_predicted = (np.concatenate([image.ravel() for image in images]) for images in (true, predicted))
    counts = flat_true != 0
    for average in ("macro", None):
        expected = jaccard_score(flat_true[counts], flat_predicted[counts], average=average)
        np.testing.assert_allclose(mean_iou_score(true, predicted, average=average), expected, rtol=1e-12)
    every = jaccard_score(flat_true, flat_predicted, average="macro", zero_division=0)
    assert mean_iou_score(true, predicted, ignore_label=None) == pytest.approx(every, rel=1e-12)


def test_images_batches_and_lists_count_the_same_pixels():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, size=(2, 3, 8, 9))
    expected = mean_iou_score(true, predicted)
    assert mean_iou_score(list(true), list(predicted)) == expected
    assert mean_iou_score(true, list(predicted)) == mean_iou_score(list(true), predicted) == expected
    assert np.mean([mean_iou_score(t, p) for t, p in zip(true, predicted, strict=True)]) != expected


def test_ignored_value_is_no_class_but_a_miss_where_predicted():
    assert mean_iou_score(np.array([1, 1, 2, 2]), np.array([1, 0, 2, 2])) == (0.5 + 1) / 2
    assert mean_iou_score(np.array([1, 1, 0, 0]), np.array([1, 1, 2, 2])) == 1
    assert mean_iou_score(np.array([-1, 0, 1]), np.array([0, 0, 1]), ignore_label=-1) == 1


def test_zero_is_a_class_where_it_is_not_ignored():
    true, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    scores = mean_iou_score(true, predicted, ignore_label=None, labels=np.array([1, 0]), average=None)
    np.testing.assert_array_equal(scores, [2 / 3, 1 / 2])


def test_labels_choose_and_order_classes():
    true, predicted = np.array([1, 1, 2, 3]), np.array([1, 2, 2, 1])
    np.testing.assert_array_equal(mean_iou_score(true, predicted, average=None), [1 / 3, 1 / 2, 0])
    np.testing.assert_array_equal(mean_iou_score(true, predicted, labels=[3, 9, 1], average=None), [0, np.nan, 1 / 3])
    assert mean_iou_score(true, predicted, labels=[3, 9, 1]) == 1 / 6
    with pytest.raises(
        ValueError, match=re.escape("none of labels=[8, 9] is in y_true or y_pred; choose from [1, 2, 3]")
    ):
        mean_iou_score(true, predicted, labels=[8, 9])


@pytest.mark.parametrize(
    ("y_true", "y_pred", "parameters", "error", "message"),
    [
        (SMALL, SMALL, {"average": np.ones(2)}, ValueError, "average must be 'macro' or None, got array"),
        (SMALL, SMALL, {"average": "micro"}, ValueError, "average must be 'macro' or None, got 'micro'"),
        ([SMALL], [SMALL, SMALL], {}, ValueError, "y_true has 1 image(s), but y_pred has 2"),
        ([SMALL, SMALL], [SMALL, SMALL[:2]], {}, ValueError, "y_true[1] has shape (3,), but y_pred[1] has (2,)"),
        ([[1.0, 2.0]], [[1, 2]], {}, TypeError, "y_true[0] must hold integer labels, got dtype float64"),
        ([[0, 0]], [[1, 2]], {}, ValueError, "no pixel counts: every value of y_true is ignore_label=0"),
        (MASKED, np.array(SMALL), {}, TypeError, "y_true holds masked pixels, and the mask would be ignored"),
        (SMALL, SMALL, {"labels": [1.9]}, TypeError, "labels must be None or a sequence of ints, got 1.9"),
        (SMALL, SMALL, {"labels": ["a"]}, TypeError, "labels must be None or a sequence of ints, got 'a'"),
        (SMALL, SMALL, {"labels": 3}, TypeError, "labels must be None or a sequence of ints, got 3"),
        (SMALL, SMALL, {"labels": [1, 0]}, ValueError, "labels=[1, 0] holds ignore_label=0, which is no class; leave"),
        (SMALL, SMALL, {"ignore_label": "0"}, TypeError, "ignore_label must be None or an int, got '0'"),
        (SMALL, SMALL, {"ignore_label": True}, TypeError, "ignore_label must be None or an int, got True"),
        (SMALL, SMALL, {"ignore_label": 1.0}, TypeError, "ignore_label must be None or an int, got 1.0"),
    ],
)
def test_bad_input_is_refused(y_true, y_pred, parameters, error, message):
    with pytest.raises(error, match=re.escape(message)):
        mean_iou_score(y_true, y_pred, **parameters)


# --- objects ---


def matched(true, predicted, threshold):
    """Return the F1 score of objects, pair by pair as it is defined."""
    n_found = n_objects = 0
    for one, other in zip(true, predicted, strict=True):
        numbers, others = set(one.ravel().tolist()) - {0}, set(other.ravel().tolist()) - {0}
        n_objects += len(numbers) + len(others)
        for a in numbers:
            ious = [((one == a) & (other == b)).sum() / ((one == a) | (other == b)).sum() for b in others]
            n_found += sum(iou > threshold for iou in ious)
    return 2 * n_found / n_objects


@pytest.mark.parametrize("shape", [(40,), (12, 14), (6, 7, 5)])
def test_object_f1_is_its_definition(shape):
    rng = np.random.default_rng(0)
    true = [np.sort(rng.integers(-1, 6, size=shape).astype(np.int16), axis=0) for _ in range(3)]
    predicted = [np.where(rng.random(shape) < 0.2, rng.integers(0, 9, size=shape), 7 * image) for image in true]
    thresholds = [0.5, 0.6, 0.75, 0.9]
    scores = object_f1_score(true, predicted, iou_threshold=thresholds)
    assert len(set(scores)) > 2
    np.testing.assert_allclose(scores, [matched(true, predicted, each) for each in thresholds], rtol=1e-12)
    assert object_f1_score(np.stack(true), predicted, iou_threshold=0.6) == scores[1]


def test_object_f1_of_equal_and_of_empty_images():
    labels = np.array([[1, 1, 0], [0, 5, 5]])
    assert object_f1_score(labels, labels * 3 - 2 * (labels > 1)) == 1
    assert object_f1_score(labels, np.zeros_like(labels)) == 0
    assert object_f1_score(np.zeros_like(labels), np.zeros_like(labels)) == 1
    assert object_f1_score([[1, 1]], [[1, 0]]) == 0  # half is not more than half


@pytest.mark.parametrize(
    ("y_pred", "iou_threshold", "error", "message"),
    [
        (SMALL[:2], 0.5, ValueError, "y_true has shape (3,), but y_pred has (2,)"),
        ([1.0, 2.0, 3.0], 0.5, TypeError, "y_pred must hold integer labels, got dtype float64"),
        (SMALL, 0.4, ValueError, "iou_threshold must be at least 0.5"),
        (SMALL, [0.5, 1.0], ValueError, "and below 1, but got [0.5, 1.0]"),
        (SMALL, "0.5", TypeError, "iou_threshold must be a number or a sequence of numbers, got '0.5'"),
        (SMALL, [], TypeError, "iou_threshold must be a number or a sequence of numbers, got []"),
    ],
)
def test_object_f1_refuses_bad_input(y_pred, iou_threshold, error, message):
    with pytest.raises(error, match=re.escape(message)):
        object_f1_score(np.array(SMALL), np.array(y_pred), iou_threshold=iou_threshold)
