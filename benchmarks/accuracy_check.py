"""Checks of accuracy.py itself, on made data: ``python benchmarks/accuracy.py --check``."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import accuracy
import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
import regimes
import scores
import segmentation_sets
import segmenters
import strokes
from scipy.ndimage import binary_dilation, gaussian_filter, label
from segmentation_sets import VOID
from skimage.io import imsave
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, jaccard_score


def main() -> None:
    """Run all checks."""
    check_scores()
    print("scores: equal to scikit-learn's")
    with tempfile.TemporaryDirectory() as folder:
        make_sets(Path(folder))
        os.environ["DCONV_DATA"] = folder
        for name in MADE:
            check_labels(segmentation_sets.load(name))
        print("labelled pixels: of their class, never void, strokes in one piece, the same for every candidate")
        check_answers()
        print("answers: every image once, by an estimator that has not seen it")
        check_runs(folder)
        print("runs: by folds and on test images, resumed without running again")


def check_scores() -> None:
    """Check against scikit-learn, and the threshold against trying every one."""
    rng = np.random.default_rng(0)
    for size, n_values in ((1000, 11), (999, 1000), (50, 2)):
        truth = rng.random(size) < 0.2
        probability = (rng.integers(n_values, size=size) / n_values + 0.3 * truth).astype(np.float32)
        same(scores.average_precision(truth, probability), average_precision_score(truth, probability))
        threshold = scores.best_threshold(truth, probability)
        tried = [jaccard_score(truth, probability >= t) for t in np.unique(probability)]
        same(scores.binary_iou(truth, probability >= threshold), max(tried))
        classes = [0, 2, 3, 7]
        true, predicted = rng.choice(classes[:3], size), rng.choice(classes, size)  # class 7 is not in the truth
        found = scores.class_scores(scores.confusion_matrix(true, predicted, classes))
        same(found["mean IoU"], jaccard_score(true, predicted, labels=classes[:3], average="macro"))
        same(found["accuracy"], accuracy_score(true, predicted))
        seen = predicted != 7  # which scikit-learn warns of
        found = scores.class_scores(scores.confusion_matrix(true[seen], predicted[seen], classes))
        same(found["class accuracy"], balanced_accuracy_score(true[seen], predicted[seen]))
    sure = rng.uniform(0.5, 1, 20000)
    ensure(scores.calibration_error(sure, rng.random(len(sure)) < sure) < 0.02, "what is said is so")
    same(scores.calibration_error(np.full(8, 0.75), np.arange(8) < 2), 0.5)
    same(scores.calibration_error(np.array([0.6, 1.0]), np.array([True, False])), 0.7)
    one = scores.compare({"a": 1.0, "b": 0.5, "c": 0.1, "d": 9.0}, {"a": 0.5, "b": 0.5, "c": 0.2})
    same(one.difference, 0.4 / 3)
    ensure((one.wins, one.n) == (1, 3), "wins are of common images")


def check_labels(dataset: segmentation_sets.Dataset) -> None:
    """Check what is drawn, and that it is the same again."""
    truths = dataset.train.labels
    dataset.n_dense = 100  # fewer than the images have
    dense = regimes.draw_dense(dataset, 0)
    sites = list(dataset.train.sites())
    for site in sites:
        drawn, truth = dense[site.number][site.part], truths[site.number][site.part]
        ensure(np.all((drawn == VOID) | (drawn == truth)), "dense pixels keep their labels")
        for c in dataset.classes:
            ensure(np.sum(drawn == c) == min(np.sum(truth == c), dataset.n_dense), "so many of each class")
    ensure(equal(dense, regimes.draw_dense(dataset, 0)), "the same again")
    ensure(not equal(dense, regimes.draw_dense(dataset, 1)), "others with another seed")
    for n_sites in (1, 3):
        pool = list(range(1, len(truths)))
        lesson = regimes.draw_scribbles(dataset, n_sites, pool, draw=0)
        again = regimes.draw_scribbles(dataset, n_sites, pool, draw=0)
        ensure(equal(lesson, again), "the same again")
        ensure(np.all(lesson[0] == VOID), "only images of the pool")
        ensure(sum((drawn != VOID).any() for drawn in lesson) <= n_sites, "no more images than asked for")
        for truth, drawn in zip(truths, lesson, strict=True):
            ensure(np.all((drawn == VOID) | (drawn == truth)), "strokes lie in their class and not in void")
    drawn, numbers = strokes.draw_strokes(truths[0], np.random.default_rng(0))
    ensure(np.all((drawn == VOID) == (numbers == -1)), "every stroke has a number")
    for c in dataset.classes:
        for stroke in range(strokes.N_STROKES):
            check_stroke((drawn == c) & (numbers == stroke))


def check_stroke(mask: np.ndarray) -> None:
    """Check the size and shape of one stroke."""
    structure = np.ones((3,) * mask.ndim)
    n_pixels, n_pieces = int(mask.sum()), label(binary_dilation(mask, structure), structure)[1]
    ensure(n_pixels <= 4 * strokes.LENGTH and n_pieces <= 1, "one piece, about 40 pixels long and 2 wide")
    if mask.ndim == 3:
        ensure(mask.any(axis=(1, 2)).sum() <= 1, "in one section")


class Spy:
    """An estimator that remembers what it has seen, and answers with the truth, a little blurred."""

    def __init__(self) -> None:
        self.classes_ = np.array([0, 1])

    def fit(self, images: list[np.ndarray], labels: list[np.ndarray]) -> Spy:
        self.seen = {image.tobytes() for image in images}
        return self

    def predict_proba(self, images: list[np.ndarray]) -> list[np.ndarray]:
        ensure(not any(image.tobytes() in self.seen for image in images), "what was learnt from is not scored")
        return [np.repeat(image[..., :1] / 255, 2, axis=-1) * [-1, 1] + [1, 0] for image in images]


def check_answers() -> None:
    """Check who answers what, and on which images the threshold is chosen."""
    for test in (False, True):
        dataset = segmentation_sets.load("drive", test=test)
        answers, _ = regimes.run(dataset, "dense", Spy, 0, 3)
        part = dataset.test if test else dataset.train
        ensure([answer.site for answer in answers] == part.names, "every image once, in order")
        for answer, labels in zip(answers, part.labels, strict=True):
            ensure(np.array_equal(answer.truth, labels[labels != VOID] == 1), "void is left out")
        if not test:
            for fold in regimes.folds_of(len(answers), 3):
                threshold = regimes.choose_threshold([one for i, one in enumerate(answers) if i not in fold])
                ensure(all(answers[i].threshold == threshold for i in fold), "a threshold is chosen on other folds")
        else:
            of_train, _ = regimes.run(segmentation_sets.load("drive"), "dense", Spy, 0, 3)
            threshold = regimes.choose_threshold(of_train)
            ensure(all(answer.threshold == threshold for answer in answers), "a threshold is chosen on training images")
        answers, _ = regimes.run(dataset, "scribbles-1", Spy, 0, 3)
        scored = part.names if test else [part.names[i] for i in regimes.folds_of(len(part.names), 3)[0]]
        ensure([answer.site for answer in answers] == scored, "every image to score once, in order")
        pool = [i for i, name in enumerate(dataset.train.names) if test or name not in scored]
        drawn = regimes.draw_scribbles(dataset, 1, pool, 0)
        blank = [i for i in pool if np.all(drawn[i] == VOID)]
        ensure(0 < len(blank) <= regimes.N_FOR_THRESHOLD, "all images without strokes are picked")
        kept = [dataset.train.labels[i] != VOID for i in blank]
        truth = np.concatenate([dataset.train.labels[i][k] == 1 for i, k in zip(blank, kept, strict=True)])
        told = np.concatenate([dataset.train.images[i][k][:, 0] / 255 for i, k in zip(blank, kept, strict=True)])
        same(answers[0].threshold, scores.best_threshold(truth, told.astype(np.float32)))


def check_runs(folder: str) -> None:
    """Run from the command line, twice."""
    usual = ["dconv", "dconv" + segmenters.PER_SLICE]
    kept_out = (*usual, *segmenters.NEED_NET)
    others = [name for name in segmenters.CANDIDATES if not (name in kept_out or name.endswith(segmenters.PER_SLICE))]
    sets = ["drive", segmentation_sets.STACK, segmentation_sets.VOLUMES]
    for mode in ([], ["--test"]):
        run_twice(Path(folder), ["--sets", *sets, *mode, "--candidates", *usual], 3 * (1 + 2 + 2))
    run_twice(
        Path(folder), ["--sets", "drive", sets[-1], "--regimes", "dense", "--candidates", *others], 2 * len(others)
    )


def run_twice(folder: Path, options: list[str], n_rows: int) -> None:
    """Run and check what is written; the second time nothing must be run again."""
    store, markdown = folder / "rows.jsonl", folder / "table.md"
    store.unlink(missing_ok=True)
    options = ["--seeds", "1", "--draws", "1", "--folds", "2", "--images", "4", *options]
    options += ["--json", str(store), "--markdown", str(markdown)]
    accuracy.main(options)
    lines, text = store.read_text(), markdown.read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    ensure(len(rows) == n_rows, f"{len(rows)} rows, of sets, regimes and candidates {n_rows}")
    ensure(all(0 < value <= 1 for row in rows for value in row["scores"].values()), "scores within bounds")
    tested = {"test" in site for row in rows for site in row["images"]}
    ensure(tested == {"--test" in options}, "images of the part that was asked for")
    accuracy.main(options)
    ensure((store.read_text(), markdown.read_text()) == (lines, text), "nothing is run again")


MADE = {"drive": 2, "superalloy-sem": 3, "vnc-sstem-volume": 2, "hippocampus-mri-volumes": 3}  # number of classes


def make_sets(folder: Path) -> None:
    """Write sets named like real ones: blobs with noise, and some void in `drive`."""
    for name, n_classes in MADE.items():
        for sub in ("images", "labels", "volumes"):
            (folder / name / sub).mkdir(parents=True)
        rows = [f"{c},class {c}" for c in range(n_classes)] + ["255,void"] * (name == "drive")
        (folder / name / "classes.csv").write_text("\n".join(["id,name", *rows]))
        for part, n in (("train", 8), ("test", 4)):
            names = [f"{part}{i}" for i in range(n)]
            (folder / name / f"{part}.txt").write_text("\n".join(names))
            for one in names:
                make_picture(folder / name, one, n_classes)


def make_picture(folder: Path, name: str, n_classes: int) -> None:
    """Write one image, RGB in `drive`, or one volume."""
    rng = regimes.generator(folder.name, name)
    volume = folder.name == segmentation_sets.VOLUMES
    field = gaussian_filter(rng.normal(size=(12, 20, 24) if volume else (36, 48)), 3)
    cuts = np.quantile(field, np.linspace(0, 1, n_classes + 1)[1:-1])
    labels = np.digitize(field, cuts).astype(np.uint8)
    image = 60 * labels + 40 + rng.normal(scale=20, size=labels.shape)
    if volume:
        np.savez(folder / "volumes" / f"{name}.npz", image=image.astype(np.float32), label=labels)
        return
    image = np.clip(image, 0, 255).astype(np.uint8)
    if folder.name == "drive":
        image = np.stack([image, image // 2, 255 - image], axis=-1)
        labels[:4] = VOID
    imsave(folder / "images" / f"{name}.png", image, check_contrast=False)
    imsave(folder / "labels" / f"{name}.png", labels, check_contrast=False)


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def same(one: float, other: float) -> None:
    """Raise unless two scores are equal up to rounding."""
    ensure(abs(one - other) < 1e-9, f"{one} != {other}")


def ensure(condition: bool, rule: str) -> None:
    """Raise if a rule is broken; not `assert`, which ``python -O`` leaves out."""
    if not condition:
        raise AssertionError(f"broken: {rule}")
