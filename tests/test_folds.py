"""Folds hold images or cells together, each leaves every class to the others, and models do not know their own."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.naive_bayes import GaussianNB

from dconv._folds import new_folds
from dconv._held_out import HeldOut
from dconv._lesson import Lesson
from dconv._pixels import pixel_set
from dconv._stages import Course
from dconv._validation import as_images


def folds_of(labels, n_folds=3, weights=None):
    masks = [image > 0 for image in labels]
    targets = np.concatenate([image[mask] for image, mask in zip(labels, masks, strict=True)])
    return new_folds([pixel_set(mask) for mask in masks], targets, weights, n_folds), targets


def check_every_fold(folds, targets):
    assert set(folds.of_pixel) == set(range(folds.n_folds))
    for fold in range(folds.n_folds):
        np.testing.assert_array_equal(np.unique(targets[folds.of_pixel != fold]), np.unique(targets))


def test_images_stay_together():
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, shape) for shape in ((20, 30), (9, 8), (25, 31), (20, 20), (7, 40))]
    folds, targets = folds_of(labels)
    assert folds.n_folds == 3
    check_every_fold(folds, targets)
    ends = np.cumsum([np.count_nonzero(image) for image in labels])
    of_images = [np.unique(part) for part in np.split(folds.of_pixel, ends[:-1])]
    assert [len(part) for part in of_images] == [1] * 5
    sizes = np.bincount(folds.of_pixel)
    assert sizes.min() > 0.5 * sizes.max()
    assert folds_of(labels[:2])[0].n_folds == 2


@pytest.mark.parametrize("shape", [(300,), (40, 60), (12, 14, 16)])
def test_one_image_is_cut_into_cells(shape):
    labels = np.random.default_rng(0).integers(0, 3, shape)
    folds, targets = folds_of([labels])
    assert folds.n_folds == 3
    check_every_fold(folds, targets)
    whole = folds.of_block(0, tuple(slice(0, size) for size in shape))
    assert whole.shape == shape
    np.testing.assert_array_equal(whole[labels > 0], folds.of_pixel)
    block = tuple(slice(size // 3, size // 2) for size in shape)
    np.testing.assert_array_equal(folds.of_block(0, block), whole[block])
    for axis in range(len(shape)):  # neighbours are mostly in one cell
        assert np.mean(np.diff(whole, axis=axis) == 0) > 0.75
    counts = np.array([np.bincount(targets[folds.of_pixel == fold]) for fold in range(3)])[:, 1:]
    assert counts.min() > 0.4 * counts.max()


def test_a_class_in_one_image_alone_and_one_dab():
    labels = [np.ones((40, 40), int), np.ones((40, 40), int)]
    labels[1][3:9, 5:10] = 2
    folds, targets = folds_of(labels)
    check_every_fold(folds, targets)


def test_there_may_be_none():
    labels = np.ones((40, 40), int)
    labels[3, 4] = 2
    assert folds_of([labels])[0] is None
    labels[30, 30] = 2
    folds, targets = folds_of([labels])
    assert folds.n_folds == 3  # the third learns from both
    check_every_fold(folds, targets)
    weights = np.ones(len(targets))
    weights[np.flatnonzero(targets == 2)[0]] = 0
    assert folds_of([labels], weights=weights)[0] is None


def course_of(image, labels, classifier, weighting=None):
    mask = labels > 0
    lesson = Lesson(as_images(image, 2, None), [mask], labels[mask], weighting or {}, {})
    rows = image[mask][:, np.newaxis]
    return Course(lesson, None, rows, None, classifier, None, np.random.RandomState(0), 1)


def test_models_do_not_know_their_fold():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(24, 36)).astype(np.float32)
    labels = 1 + (image + rng.normal(size=image.shape) > 0)
    folds, _ = folds_of([labels])
    whole = slice(0, 24), slice(0, 36)
    where = folds.of_block(0, whole)

    def answers(labels):
        course = course_of(image, labels, GaussianNB())
        result = np.full((24, 36, 2), np.nan)
        for pixels, respond in HeldOut(course, course.rows, folds).answer(0, whole):
            result[pixels] = respond(image[pixels].reshape(-1, 1)).reshape(-1, 2)
        return result

    before = answers(labels)
    assert np.isfinite(before).all()
    for fold in range(3):
        after = answers(np.where(where == fold, 3 - labels, labels))
        np.testing.assert_array_equal(after[where == fold], before[where == fold])
        assert (after[where != fold] != before[where != fold]).any(axis=-1).all()
        learnt = GaussianNB().fit(image[where != fold][:, np.newaxis], labels[where != fold])
        expected = learnt.predict_proba(image[where == fold][:, np.newaxis])
        np.testing.assert_allclose(before[where == fold], expected, atol=1e-5)


def test_log_loss_of_what_is_held_out():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(24, 36)).astype(np.float32)
    labels = 1 + (image + rng.normal(size=image.shape) > 0)
    weights = rng.random(labels.size)
    folds, targets = folds_of([labels])
    course = course_of(image, labels, LogisticRegression(), {"sample_weight": weights})
    expected = np.empty((labels.size, 2))
    for fold in range(3):
        learnt = folds.of_pixel != fold
        model = LogisticRegression().fit(course.rows[learnt], targets[learnt], sample_weight=weights[learnt])
        expected[~learnt] = model.predict_proba(course.rows[~learnt])
    loss = HeldOut(course, course.rows, folds).log_loss(course.rows, targets, weights)
    expected /= expected.sum(axis=1, keepdims=True)
    assert loss == pytest.approx(log_loss(targets, expected, sample_weight=weights), rel=1e-4)
