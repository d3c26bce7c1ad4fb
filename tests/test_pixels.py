"""Which pixels a PixelClassifier learns from, in which order, and the blocks it reads them in."""

import numpy as np
import pytest
from images import BANK, TREES, Recorder, make_image, make_images

from dconv import _parts, _pixels
from dconv.segmentation import PixelClassifier
from dconv.transformers import DilatedConv


@pytest.mark.parametrize(
    ("ignore_label", "n_rows", "classes"),
    [(0, 4, [1, 7]), (7, 5, [0, 1]), (-1, 6, [0, 1, 7]), (None, 6, [0, 1, 7])],
)
def test_ignore_label(ignore_label, n_rows, classes):
    y = np.array([[0, 1, 1], [7, 1, 0]], np.uint8)
    X = np.zeros((2, 3, 1))
    segmenter = PixelClassifier("passthrough", Recorder(), ignore_label=ignore_label).fit(X, y)
    assert len(segmenter.classifier_.seen_[0]) == n_rows
    assert segmenter.classes_.tolist() == classes


def test_max_samples_bounds_each_class_of_each_image():
    _, y = make_images(share=0.5)
    y[1][:] = np.where(np.arange(y[1].size).reshape(y[1].shape) < 3, 2, y[1] * (y[1] == 1))  # 3 pixels of class 2
    positions = [np.arange(labels.size, dtype=np.float32).reshape(*labels.shape, 1) for labels in y]

    def chosen(random_state, n_jobs=None):
        segmenter = PixelClassifier(
            "passthrough", Recorder(), max_samples=20, random_state=random_state, n_jobs=n_jobs
        ).fit(positions, y)
        rows, targets, _ = segmenter.classifier_.seen_
        return rows[:, 0].astype(int), targets

    rows, targets = chosen(0)
    counts = [20, 20, 20, 3, 20, 20, 20, 20]
    assert len(rows) == sum(counts)
    starts = np.cumsum([0, 40, 23, 40, 40])
    for labels, start, stop in zip(y, starts[:-1], starts[1:], strict=True):
        own, own_targets = rows[start:stop], targets[start:stop]
        assert (np.diff(own) > 0).all()  # in order, and so without replacement
        np.testing.assert_array_equal(labels.flat[own], own_targets)
        assert np.bincount(own_targets, minlength=3).tolist() in ([0, 20, 20], [0, 20, 3])
    np.testing.assert_array_equal(chosen(0, n_jobs=3)[0], rows)
    assert (chosen(1)[0] != rows).any()


def test_pixels_drawn_do_not_depend_on_the_classifier(monkeypatch):
    def recorder(**_):
        made = Recorder()
        made.set_params = lambda **_: made  # what suits the number of pixels is set
        return made

    monkeypatch.setattr(_parts, "default_classifier", recorder)
    X, y = make_images()
    default, given = (
        PixelClassifier(BANK, classifier, max_samples=5, random_state=0).fit(X, y).classifier_.seen_[0]
        for classifier in (None, Recorder())
    )
    np.testing.assert_array_equal(default, given)


def test_max_samples_draws_uniformly():
    y = np.ones((1, 100), int)
    y[0, 50:] = 2
    X = np.arange(100, dtype=np.float32).reshape(1, 100, 1)
    hits = np.zeros(100)
    for seed in range(400):
        rows = (
            PixelClassifier("passthrough", Recorder(), max_samples=10, random_state=seed).fit(X, y).classifier_.seen_[0]
        )
        hits[rows[:, 0].astype(int)] += 1
    # 80 hits are expected at each pixel, with a standard deviation of 8.
    assert hits.sum() == 8000
    assert hits.min() > 40
    assert hits.max() < 120


@pytest.mark.parametrize(("max_samples", "expected"), [(20, [36, 4]), (3, [5, 1]), (500, [90, 10])])
def test_stratified_samples_keep_the_proportions(max_samples, expected):
    y = np.ones((10, 12), int)
    y[0, :], y[:, :2] = 2, 0  # 90 and 10 pixels are labelled
    X = np.arange(120, dtype=np.float32).reshape(10, 12, 1)
    segmenter = PixelClassifier(
        "passthrough", Recorder(), max_samples=max_samples, sample="stratified", random_state=0
    ).fit(X, y)
    rows, targets, _ = segmenter.classifier_.seen_
    assert np.bincount(targets)[1:].tolist() == expected
    np.testing.assert_array_equal(y.flat[rows[:, 0].astype(int)], targets)


def test_unknown_sample():
    with pytest.raises(ValueError, match="sample must be one of 'balanced', 'stratified', got 'random'"):
        PixelClassifier("passthrough", Recorder(), sample="random").fit(np.zeros((2, 2, 1)), np.eye(2, dtype=int) + 1)


def test_labels_of_two_integer_types_stay_integers():
    X, y = make_images()
    y[0] = y[0].astype(np.uint64)
    assert PixelClassifier(BANK, TREES).fit(X, y).predict(X)[0].dtype == np.int64


def test_features_are_computed_only_around_labels(monkeypatch):
    blocks = []
    compute = DilatedConv._respond

    def record(self, sources, out, **options):
        blocks.append(out.shape[:-1])
        return compute(self, sources, out, **options)

    monkeypatch.setattr(DilatedConv, "_respond", record)
    image, _ = make_image((3000, 500))
    y = np.zeros(image.shape, int)
    y[10:20, 30], y[12, 40:50], y[2900, 300:310] = 1, 2, 1
    segmenter = PixelClassifier(BANK, TREES).fit(image, y)
    assert sorted(blocks) == [(1, 10), (10, 20)]
    blocks.clear()
    assert segmenter.score(image, y) > 0
    assert sorted(blocks) == [(1, 10), (10, 20)]


def test_rows_do_not_depend_on_blocks(monkeypatch):
    X, y = make_images()
    whole = PixelClassifier(BANK, Recorder()).fit(X, y).classifier_.seen_[0]
    monkeypatch.setattr(_pixels, "BLOCK_PIXELS", 60)
    np.testing.assert_array_equal(PixelClassifier(BANK, Recorder(), n_jobs=2).fit(X, y).classifier_.seen_[0], whole)


@pytest.mark.parametrize("n_features", [1, 66, 10_000])
@pytest.mark.parametrize("shape", [(300_000,), (3000, 2000), (64, 300, 500)])
def test_features_of_a_block_stay_within_bounds(shape, n_features):
    n_pixels = max(
        np.prod([part.stop - part.start for part in block]) for block in _pixels.blocks_of(shape, n_features)
    )
    # Blocks may be a little larger than asked, so that they are near-cubic and of equal size.
    assert n_pixels <= 1.3 * _pixels.BLOCK_PIXELS
    assert n_pixels * n_features * 4 <= 1.3 * _pixels.BLOCK_BYTES


@pytest.mark.parametrize(("shape", "n_jobs"), [((1500, 1500), 2), ((1500, 1500), 4), ((300, 200), 2), ((90, 80), 8)])
def test_threads_end_together(shape, n_jobs):
    plain, evened = list(_pixels.blocks_of(shape, 66)), list(_pixels.blocks_of(shape, 66, n_jobs))
    covered = np.zeros(shape, int)
    for block in evened:
        covered[block] += 1
    assert (covered == 1).all()
    n_whole = len(plain) - len(plain) % n_jobs
    assert evened[:n_whole] == plain[:n_whole]
    for pieces in evened[n_whole:]:
        rows = pieces[0].stop - pieces[0].start
        assert rows >= min(shape[0], 64)
    if shape == (1500, 1500) and n_jobs == 2:  # 9 blocks
        assert len(evened) == 10
