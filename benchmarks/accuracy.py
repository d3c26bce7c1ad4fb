"""How right are the segmentations: dconv and its peers, on real images, by cross-validation or on the test images.

    python benchmarks/accuracy.py [--sets drive isbi2012-em ...] [--regimes dense scribbles-1 scribbles-3]
        [--candidates dconv "skimage + forest" ...] [--seeds 3] [--draws 8] [--images N] [--folds 4 | --test]
        [--json rows.jsonl] [--markdown table.md]
    python benchmarks/accuracy.py --check

Sets and where they lie: segmentation_sets.py. Candidates and how to add one: segmenters.py. Regimes:

- dense: 1000 labelled pixels per class of each training image (250 in camvid and labelmefacade), drawn once per seed
- scribbles-1, scribbles-3: 3 simulated strokes per class (strokes.py), about 40 pixels long and 2 wide, on 1 or 3
  training images; once per draw. Of 20 random choices of images the first that shows the most classes is taken.

**Choices are made without test images**: the default is to score on training images held out. They are cut into
`--folds` runs of neighbours in the list, since neighbours may be of one specimen or scene. Dense, every fold is scored
by what was learnt from the others; scribbles of draw `d` are on images outside fold ``d % folds``, which is scored.
Only with `--test` are test images read: then all training images are learnt from.

Scores, of all pixels that are not void. Two classes: average precision (AP, exact) and intersection over union (IoU) of
class 1, of all pixels pooled (those of all folds too, though each has a model of its own), and as the mean over images.
The threshold of IoU is the one best on whole training images held out: dense, on those of all folds (while scoring by
folds, of the other folds); scribbles, on 8 images, evenly picked, of those that are neither scribbled on nor scored.
More classes, by the most probable: mean IoU, average accuracy of classes and accuracy, over the classes that the truth
has; a class that the labelled pixels did not show is missed. Of any number: the expected calibration error (ECE) of the
probability of the most probable class, corrected by Bayes' rule for how frequent classes are in the images learnt from;
less is better.

All candidates get the same labelled pixels. The table compares them with the first candidate, or `--baseline`, image by
image: mean difference, on how many images it is positive, and p of Wilcoxon's signed-rank test, where the score of an
image is its mean over seeds or draws. A few images cannot give a small p: 4 images at least 0.125, 6 at least 0.03.
Times are seconds: of one fit, and of features and predict per megapixel, the features once more by themselves on one
image. Everything runs on the threads dconv takes by default.

With `--json` every finished row (set, regime, candidate, seed or draw) is a line appended to that file, and rows that
it already has are not run again; use another file when the code behind a name changes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
import regimes
import scores
import segmentation_sets
from segmenters import CANDIDATES, NEED_NET, suits

import dconv
from dconv._threads import default_n_threads

REGIMES = ("dense", "scribbles-1", "scribbles-3")
KEY = ("set", "regime", "candidate", "seed", "part", "folds", "limit")  # what a row is found again by
PAIRED = {True: ("AP", "IoU"), False: ("mean IoU",)}  # the scores of one image, of two classes and of more

Row = dict[str, Any]


def score(dataset: segmentation_sets.Dataset, answers: list[regimes.Answer]) -> Row:
    """Return the scores of all pixels pooled, and of each image."""
    if dataset.binary:
        predicted = [answer.predicted >= answer.threshold for answer in answers]
        truth = np.concatenate([answer.truth for answer in answers])
        probability = np.concatenate([answer.predicted for answer in answers])
        images = {
            answer.site: {
                "AP": scores.average_precision(answer.truth, answer.predicted),
                "IoU": scores.binary_iou(answer.truth, chosen),
            }
            for answer, chosen in zip(answers, predicted, strict=True)
        }
        pooled = {
            "AP": scores.average_precision(truth, probability),
            "IoU": scores.binary_iou(truth, np.concatenate(predicted)),
        }
    else:
        confusions = {
            answer.site: scores.confusion_matrix(answer.truth, answer.predicted, dataset.classes) for answer in answers
        }
        images = {site: scores.class_scores(confusion) for site, confusion in confusions.items()}
        pooled = scores.class_scores(sum(confusions.values()))
    for name in PAIRED[dataset.binary]:
        pooled[f"{name} an image"] = float(np.nanmean([image[name] for image in images.values()]))
    sure = np.concatenate([answer.sure for answer in answers])
    pooled["ECE"] = scores.calibration_error(sure, np.concatenate([answer.right for answer in answers]))
    paired = {site: {name: image[name] for name in PAIRED[dataset.binary]} for site, image in images.items()}
    return {"scores": pooled, "images": paired}


class Store:
    """Finished rows, kept in a file of JSON lines if there is a path."""

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else Path(path)
        lines = self.path.read_text().splitlines() if self.path is not None and self.path.exists() else []
        self.rows = {self.key(row): row for row in map(json.loads, lines)}

    @staticmethod
    def key(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in KEY)

    def add(self, row: Row) -> None:
        self.rows[self.key(row)] = row
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def wanted(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the keys of all rows that these options ask for."""
    for name, regime in itertools.product(options.sets, options.regimes):
        for seed in range(options.seeds if regime == "dense" else options.draws):
            for candidate in options.candidates:
                if suits(candidate, segmentation_sets.ndim(name)):
                    part = "test" if options.test else "train"
                    values = (name, regime, candidate, seed, part, options.folds, options.images)
                    yield dict(zip(KEY, values, strict=True))


def run(options: argparse.Namespace, store: Store) -> list[Row]:
    """Return all rows, of which those that the store does not have are run and printed."""
    rows, dataset = [], None
    for key in wanted(options):
        row = store.rows.get(Store.key(key))
        if row is None:
            if dataset is None or dataset.name != key["set"]:
                dataset = segmentation_sets.load(key["set"], options.images, options.test)
            make = functools.partial(CANDIDATES[key["candidate"]], dataset, key["seed"])
            answers, clock = regimes.run(dataset, key["regime"], make, key["seed"], options.folds)
            row = {**key, "date": f"{datetime.now():%Y-%m-%d %H:%M}", **clock.figures(), **score(dataset, answers)}
            store.add(row)
            figures = ", ".join(f"{name} {value:.3f}" for name, value in row["scores"].items())
            times = f"fit {row['fit_s']:.2f} s, predict {row['predict_s']:.2f} s a megapixel"
            print(f"{key['set']}, {key['regime']} {key['seed']}, {key['candidate']}: {figures}; {times}", flush=True)
        rows.append(row)
    return rows


def table(rows: list[Row], baseline: str) -> str:
    """Return the rows as Markdown: one table for each set and regime, one line for each candidate."""
    groups: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["set"], row["regime"]][row["candidate"]].append(row)
    return "\n\n".join(f"**{', '.join(title)}**\n\n{_table(group, baseline)}" for title, group in groups.items())


def _table(group: dict[str, list[Row]], baseline: str) -> str:
    first = next(iter(group.values()))[0]
    paired = list(next(iter(first["images"].values())))
    times = {"fit_s": "fit s", "features_s": "features s/Mpixel", "predict_s": "predict s/Mpixel"}
    head = ["candidate", *first["scores"], *(f"{name} against {baseline}" for name in paired), *times.values(), "runs"]
    lines = [head, ["---"] * len(head)]
    for candidate, rows in group.items():
        line = [candidate]
        for name in first["scores"]:
            values = [row["scores"][name] for row in rows]
            line.append(
                f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if len(rows) > 1 else f"{values[0]:.3f}"
            )
        for name in paired:
            comparison = None
            if candidate != baseline and baseline in group:
                comparison = scores.compare(*(image_means(side, name, rows) for side in (rows, group[baseline])))
            line.append("" if comparison is None else str(comparison))
        for name in times:
            values = [row[name] for row in rows if row[name] is not None]
            line.append(f"{np.mean(values):.2f}" if values else "")
        lines.append([*line, str(len(rows))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def image_means(rows: list[Row], name: str, others: list[Row]) -> dict[str, float]:
    """Return one score of each image, the mean over seeds or draws; only of those that `others` have too."""
    seeds = {row["seed"] for row in others}
    values = defaultdict(list)
    for row in rows:
        if row["seed"] in seeds:
            for site, image in row["images"].items():
                values[site].append(image[name])
    return {site: float(np.mean(of_site)) for site, of_site in values.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=segmentation_sets.SETS, default=segmentation_sets.SETS)
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=REGIMES)
    usual = [name for name in CANDIDATES if name not in NEED_NET]
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=usual, metavar="NAME")
    parser.add_argument("--baseline", choices=CANDIDATES, metavar="NAME", help="default: the first of --candidates")
    parser.add_argument("--seeds", type=int, default=3, help="of the dense regime")
    parser.add_argument("--draws", type=int, default=8, help="of scribbles")
    parser.add_argument("--images", type=int, help="at most so many of each part, for a quick look; default: all")
    parser.add_argument("--folds", type=int, default=4, help="of the training images")
    parser.add_argument("--test", action="store_true", help="score test images; choose nothing by what you see")
    parser.add_argument("--json", metavar="FILE", help="keep finished rows in this file, and do not run them again")
    parser.add_argument("--markdown", metavar="FILE", help="also write the table to this file")
    parser.add_argument("--check", action="store_true", help="check the judge itself, on made data")
    options = parser.parse_args(arguments)
    if options.check:
        import accuracy_check  # which imports this module

        accuracy_check.main()
        return
    rows = run(options, Store(options.json))
    part = "test images" if options.test else f"training images held out, {options.folds} folds"
    limit = "" if options.images is None else f", at most {options.images} images of a part"
    text = f"dconv {dconv.__version__}, {default_n_threads()} threads; {part}{limit}\n\n"
    text += table(rows, options.baseline or options.candidates[0]) + "\n"
    print("\n" + text)
    if options.markdown:
        Path(options.markdown).write_text(text)


if __name__ == "__main__":
    main()
