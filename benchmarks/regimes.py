"""The two regimes of accuracy.py: what is learnt from, what is predicted, and how the threshold is chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zlib import crc32

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
import scores
import strokes
from segmentation_sets import VOID, Dataset, Pictures, Site
from segmenters import Prepared

N_CHOICES = 20  # of images to scribble on
N_FOR_THRESHOLD = 8  # training images without strokes that the threshold is chosen on
Labels = list[np.ndarray]
Make = Callable[[], Any]


class Answer(NamedTuple):
    """The pixels of one site that count. Of two classes, `truth` is whether it is class 1, `predicted` the probability
    of that and `threshold` the least that is predicted so; of more, both are labels. `sure` is the largest probability,
    at the frequencies that classes have in the images learnt from, and `right` whether it is that of the truth.
    """

    site: str
    truth: np.ndarray
    predicted: np.ndarray
    sure: np.ndarray
    right: np.ndarray
    threshold: float | None = None


class Learnt(NamedTuple):
    """A fitted estimator, and what corrects its probabilities for how frequent classes are in these images."""

    estimator: Any
    factors: np.ndarray


@dataclass
class Clock:
    """Seconds that the fits and predictions behind the scored answers took."""

    fits: list[float] = field(default_factory=list)
    predict: float = 0.0
    pixels: int = 0
    features: float | None = None  # per pixel

    def figures(self) -> dict[str, float | None]:
        """Return seconds a fit, and seconds per megapixel of predict and of its features."""
        features = None if self.features is None else 1e6 * self.features
        return {
            "fit_s": float(np.mean(self.fits)),
            "predict_s": 1e6 * self.predict / self.pixels,
            "features_s": features,
        }


def run(dataset: Dataset, regime: str, make: Make, seed: int, n_folds: int) -> tuple[list[Answer], Clock]:
    """Return the answers of an estimator to the images to score: test images if they are loaded, else held out."""
    clock = Clock()
    folds = folds_of(len(dataset.train.names), n_folds)
    if regime == "dense":
        return list(_run_dense(dataset, make, seed, folds, clock)), clock
    return list(_run_scribbles(dataset, make, int(regime.removeprefix("scribbles-")), seed, folds, clock)), clock


def _run_dense(dataset: Dataset, make: Make, seed: int, folds: list[list[int]], clock: Clock) -> Iterator[Answer]:
    lesson, train, binary = draw_dense(dataset, seed), dataset.train, dataset.binary

    def held_out(clock: Clock) -> Iterator[list[Answer]]:
        for fold in folds:
            others = [np.full_like(x, VOID) if i in fold else x for i, x in enumerate(lesson)]
            yield list(answers(learn(make, train, others, clock), train, fold, binary, clock))

    if dataset.test is None:
        by_fold = list(held_out(clock))
        for number, fold_answers in enumerate(by_fold):
            others = [answer for other, part in enumerate(by_fold) if other != number for answer in part]
            threshold = choose_threshold(others) if binary else None
            yield from (answer._replace(threshold=threshold) for answer in fold_answers)
        return
    threshold = choose_threshold([answer for part in held_out(Clock()) for answer in part]) if binary else None
    learnt = learn(make, train, lesson, clock)
    for answer in answers(learnt, dataset.test, range(len(dataset.test.names)), binary, clock):
        yield answer._replace(threshold=threshold)


def _run_scribbles(
    dataset: Dataset, make: Make, n_sites: int, draw: int, folds: list[list[int]], clock: Clock
) -> Iterator[Answer]:
    held = [] if dataset.test is not None else folds[draw % len(folds)]
    pool = [number for number in range(len(dataset.train.names)) if number not in held]
    labels = draw_scribbles(dataset, n_sites, pool, draw)
    learnt = learn(make, dataset.train, labels, clock)
    others = [number for number in pool if (labels[number] == VOID).all()]
    threshold = _threshold_of(learnt, dataset.train, others) if dataset.binary else None
    scored, numbers = (dataset.train, held) if held else (dataset.test, range(len(dataset.test.names)))
    for answer in answers(learnt, scored, numbers, dataset.binary, clock):
        yield answer._replace(threshold=threshold)


def _threshold_of(learnt: Learnt, train: Pictures, numbers: list[int]) -> float:
    """Return the threshold that is best on training images not learnt from, of which it takes some, evenly picked."""
    if not numbers:
        return 0.5
    places = np.linspace(0, len(numbers) - 1, min(N_FOR_THRESHOLD, len(numbers))).round().astype(int)
    return choose_threshold(answers(learnt, train, [numbers[place] for place in places], True, Clock()))


def choose_threshold(answers: Iterable[Answer]) -> float:
    """Return the threshold of the largest IoU of all these pixels."""
    pairs = [(answer.truth, answer.predicted) for answer in answers]
    return scores.best_threshold(*map(np.concatenate, zip(*pairs, strict=True)))


def generator(*key: Any) -> np.random.Generator:
    """Return a random generator of its own for each key, the same in every run."""
    return np.random.default_rng(crc32(repr(key).encode()))


def draw_dense(dataset: Dataset, seed: int) -> Labels:
    """Return pixels drawn at random on every training image; the draw of an image depends on no other."""
    labels = [np.full_like(labels, VOID) for labels in dataset.train.labels]
    for site in dataset.train.sites():
        truth = dataset.train.labels[site.number][site.part]
        rng = generator(dataset.name, site.name, seed)
        labels[site.number][site.part] = strokes.draw_pixels(truth, dataset.n_dense, rng)
    return labels


def draw_scribbles(dataset: Dataset, n_sites: int, pool: list[int], draw: int) -> Labels:
    """Return strokes on `n_sites` sites of the training images of these numbers."""
    train = dataset.train
    labels = [np.full_like(labels, VOID) for labels in train.labels]
    for site in choose_sites(dataset, n_sites, pool, generator(dataset.name, n_sites, draw)):
        rng = generator(dataset.name, site.name, n_sites, draw)
        labels[site.number][site.part], _ = strokes.draw_strokes(train.labels[site.number][site.part], rng)
    return labels


def choose_sites(dataset: Dataset, n_sites: int, pool: list[int], rng: np.random.Generator) -> list[Site]:
    """Return sites at random, as one who labels them would: such as show the classes."""
    sites = list(dataset.train.sites(pool))
    choices = [rng.choice(len(sites), min(n_sites, len(sites)), replace=False) for _ in range(N_CHOICES)]

    def n_classes(choice: np.ndarray) -> int:
        shown = [np.unique(dataset.train.labels[sites[i].number][sites[i].part]) for i in choice]
        return len(set(np.concatenate(shown).tolist()) - {VOID})

    return [sites[i] for i in max(choices, key=n_classes)]


def learn(make: Make, pictures: Pictures, labels: Labels, clock: Clock) -> Learnt:
    """Return a fitted estimator; images without a label are not shown to it."""
    triples = zip(pictures.images, labels, pictures.labels, strict=True)
    shown = [triple for triple in triples if (triple[1] != VOID).any()]
    images, targets, truths = map(list, zip(*shown, strict=True))
    start = time.perf_counter()
    estimator = make().fit(images, targets)
    clock.fits.append(time.perf_counter() - start)
    return Learnt(estimator, _frequencies(truths, estimator.classes_) / _frequencies(targets, estimator.classes_))


def _frequencies(labels: Labels, classes: np.ndarray) -> np.ndarray:
    """Return the share of each class among the pixels of these classes."""
    counts = np.array([sum(np.count_nonzero(each == c) for each in labels) for c in classes])
    return counts / counts.sum()


def predict(learnt: Learnt, image: np.ndarray, clock: Clock) -> np.ndarray:
    """Return the probabilities of every pixel."""
    start = time.perf_counter()
    probabilities = learnt.estimator.predict_proba([image])[0]
    clock.predict += time.perf_counter() - start
    clock.pixels += probabilities[..., 0].size
    return probabilities


def probability_of_one(learnt: Learnt, probabilities: np.ndarray) -> np.ndarray:
    """Return the probability of class 1."""
    return probabilities[..., list(learnt.estimator.classes_).index(1)].astype(np.float32)


def answers(learnt: Learnt, pictures: Pictures, numbers: Sequence[int], binary: bool, clock: Clock) -> Iterator[Answer]:
    """Yield the answers to all sites of these images."""
    classes = np.asarray(learnt.estimator.classes_).astype(np.uint8)
    for number in numbers:
        probabilities = predict(learnt, pictures.images[number], clock)
        for site in pictures.sites([number]):
            truth = pictures.labels[number][site.part]
            counts = truth != VOID
            truth, rows = truth[counts], probabilities[site.part][counts]
            weighted = rows * learnt.factors.astype(np.float32)
            sure = weighted.max(axis=-1) / weighted.sum(axis=-1)
            right = classes[weighted.argmax(axis=-1)] == truth
            if binary:
                yield Answer(site.name, truth == 1, probability_of_one(learnt, rows), sure, right)
            else:
                yield Answer(site.name, truth, classes[rows.argmax(axis=-1)], sure, right)
    if clock.features is None:
        first = numbers[0]
        clock.features = features_seconds(learnt.estimator, pictures.images[first], pictures.labels[first].size)


def features_seconds(estimator: Any, image: np.ndarray, n_pixels: int) -> float | None:
    """Return the time of the features of an image per pixel, None if the estimator does not show its features."""
    images = [image]
    while isinstance(estimator, Prepared):
        estimator, images = estimator.estimator, estimator.prepare(images)
    if not hasattr(estimator, "features_"):
        return None
    start = time.perf_counter()
    for one in images:
        estimator.features_.transform([one])
    return (time.perf_counter() - start) / n_pixels


def folds_of(n_images: int, n_folds: int) -> list[list[int]]:
    """Return the numbers of the images of each fold, neighbours together."""
    if min(n_images, n_folds) < 2:
        raise SystemExit(f"{n_images} training image(s) in {n_folds} fold(s) leave none to learn from: two at least")
    return [fold.tolist() for fold in np.array_split(np.arange(n_images), min(n_folds, n_images))]
