"""How well regimes of series are labelled: dconv against window statistics with a random forest, on `tssb-series`.

    python benchmarks/accuracy_series.py              # choices compared on the labelled halves alone
    python benchmarks/accuracy_series.py --test       # and the chosen ones on the rest, once

The series (P. Schäfer, A. Ermshaus and U. Leser, "ClaSP - time series segmentation", CIKM 2021,
doi:10.1145/3459637.3482240) lie in the folder `DCONV_DATA`, by default `../shared/data` beside the repository. Each is
a chain of regimes; those of one regime alone are left out. Of every stretch of a regime the first half of its samples
is labelled, and the second half is to be.

What a candidate can choose, how long windows are or how many levels there are, is chosen for all series together on the
labelled halves alone: they are cut out and joined, which makes series of half the length with regimes that follow each
other as before, and of these the first half of every stretch is learnt from and the second scored. The rest takes no
part in it, neither its labels nor its samples. (Halves of the labelled halves in their places mislead: a wide window
sees no other regime there, as it does in the second halves.) As with scribbles on an image, features of labelled
samples may see samples around them that have no label.

"windows + forest" has of each centred window mean, deviation, minimum, maximum, median, slope, mean absolute difference
of neighbours and how often its own mean is crossed. Both have the same random forest; "dconv" has the default
classifier on the features that "dconv + forest" has chosen. Scores are means over series: the accuracy of classes, each
counted alike, the mean IoU and the accuracy; with the mean difference of the first to the baseline, the series that are
better, and Wilcoxon's p. Times are of features, fit and predict of one series.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
import scores
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

import dconv
from dconv._threads import default_n_threads

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WINDOWS = {**{str(n): (n,) for n in (17, 33, 65, 129, 257)}, "33 to 257": (33, 65, 129, 257)}
LEVELS = {str(n): n for n in (4, 5, 6, 7)}
BASELINE = "windows + forest"

Model = Callable[[np.ndarray, np.ndarray, str, int], np.ndarray]  # series, labels with 0, choice, seed -> labels


class Series(NamedTuple):
    """One series, the regime of each sample from 1 on, and where in its stretch of the regime it lies, 0 to 1."""

    name: str
    x: np.ndarray
    regimes: np.ndarray
    place: np.ndarray

    def labels(self, start: float, stop: float) -> np.ndarray:
        """Return the regimes of samples that lie from `start` to `stop` in their stretch, 0 elsewhere."""
        return np.where((self.place >= start) & (self.place < stop), self.regimes, 0)

    def first_halves(self) -> Series:
        """Return the series that the first halves of all stretches make."""
        kept = self.place < 0.5
        return Series(self.name, self.x[kept], self.regimes[kept], 2 * self.place[kept])


def load() -> Iterator[Series]:
    """Yield the series that have two regimes at least."""
    folder = Path(os.environ.get("DCONV_DATA", DEFAULT_DATA)) / "tssb-series" / "series"
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            x, segment, state = file["x"], file["segment"], file["state"]
        regimes = 1 + np.unique(state, return_inverse=True)[1]
        if regimes.max() > 1:
            _, first, length = np.unique(segment, return_index=True, return_counts=True)
            which = np.searchsorted(np.unique(segment), segment)
            yield Series(path.stem, x, regimes, (np.arange(len(x)) - first[which]) / length[which])


def window_statistics(x: np.ndarray, lengths: tuple[int, ...]) -> np.ndarray:
    """Return statistics of the window around every sample, of each of these odd lengths."""
    x = x.astype(np.float64)
    steps = np.abs(np.diff(x, prepend=x[:1]))
    columns = []
    for n in lengths:
        mean = ndimage.uniform_filter1d(x, n, mode="mirror")
        square = ndimage.uniform_filter1d(x**2, n, mode="mirror")
        ramp = np.arange(n) - n // 2
        above = x > mean
        crossings = np.diff(above, prepend=above[:1]).astype(np.float64)
        columns += [
            mean,
            np.sqrt(np.maximum(square - mean**2, 0)),
            ndimage.minimum_filter1d(x, n, mode="mirror"),
            ndimage.maximum_filter1d(x, n, mode="mirror"),
            ndimage.median_filter(x, n, mode="mirror"),
            ndimage.correlate1d(x, ramp / (ramp @ ramp), mode="mirror"),
            ndimage.uniform_filter1d(steps, n, mode="mirror"),
            ndimage.uniform_filter1d(crossings, n, mode="mirror"),
        ]
    return np.stack(columns, axis=-1).astype(np.float32)


def forest(seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(100, min_samples_leaf=2, random_state=seed)


def by_windows(x: np.ndarray, labels: np.ndarray, choice: str, seed: int) -> np.ndarray:
    rows = window_statistics(x, WINDOWS[choice])
    return forest(seed).fit(rows[labels > 0], labels[labels > 0]).predict(rows)


def by_dconv(classifier: Callable[[int], Any]) -> Model:
    def model(x: np.ndarray, labels: np.ndarray, choice: str, seed: int) -> np.ndarray:
        bank = dconv.AtrousFeatures(LEVELS[choice], ndim=1)
        return dconv.PixelClassifier(bank, classifier(seed), random_state=seed).fit(x, labels).predict(x)

    return model


CANDIDATES: dict[str, tuple[Model, dict[str, Any]]] = {
    BASELINE: (by_windows, WINDOWS),
    "dconv + forest": (by_dconv(forest), LEVELS),
    "dconv": (by_dconv(lambda seed: None), LEVELS),
}
CHOSEN_WITH = {"dconv": "dconv + forest"}  # the default classifier chooses too, which takes its time


def score(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return the scores of the samples that have a true label."""
    of_truth = truth > 0
    classes = np.unique(truth[of_truth]).tolist()
    shown = np.where(np.isin(predicted, classes), predicted, 0)[of_truth]
    return scores.class_scores(scores.confusion_matrix(truth[of_truth], shown, [0, *classes]))


def second_half_scores(series: list[Series], model: Model, choice: str, n_seeds: int) -> list[dict[str, float]]:
    """Return the scores on the second halves of all stretches, learnt from the first, of each series."""
    rows = []
    for each in series:
        truth, learnt = each.labels(0.5, 1.0), each.labels(0, 0.5)
        of_seeds = [score(truth, model(each.x, learnt, choice, seed)) for seed in range(n_seeds)]
        rows.append({key: float(np.mean([row[key] for row in of_seeds])) for key in of_seeds[0]})
    return rows


def choose(series: list[Series], name: str) -> str:
    """Return the choice of a candidate that is best on the labelled halves alone: class accuracy, mean over series."""
    model, choices = CANDIDATES[name]
    halves, found = [each.first_halves() for each in series], {}
    for choice in choices:
        rows = second_half_scores(halves, model, choice, 1)
        found[choice] = float(np.mean([row["class accuracy"] for row in rows]))
        print(f"{name}, {choice}: class accuracy {found[choice]:.3f} on the labelled halves", flush=True)
    return max(found, key=lambda choice: found[choice])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", action="store_true", help="score the rest too; choose nothing by what you see")
    parser.add_argument("--seeds", type=int, default=3, help="of the test")
    options = parser.parse_args(arguments)
    series = list(load())
    print(f"dconv {dconv.__version__}, {default_n_threads()} threads; {len(series)} series of two regimes or more\n")
    chosen: dict[str, str] = {}
    for name in CANDIDATES:
        if name not in CHOSEN_WITH:
            chosen[name] = choose(series, name)
    chosen |= {name: chosen[other] for name, other in CHOSEN_WITH.items()}
    print("\nchosen: " + "; ".join(f"{name} {choice}" for name, choice in chosen.items()))
    if not options.test:
        return
    lines, baseline = [], {}
    for name, (model, _) in CANDIDATES.items():
        start = perf_counter()
        rows = second_half_scores(series, model, chosen[name], options.seeds)
        seconds = (perf_counter() - start) / len(series) / options.seeds
        of_series = {each.name: row["class accuracy"] for each, row in zip(series, rows, strict=True)}
        baseline = baseline or of_series
        compared = "" if name == BASELINE else str(scores.compare(of_series, baseline))
        means = [f"{np.mean([row[key] for row in rows]):.3f}" for key in rows[0]]
        lines.append([name, chosen[name], *(means[index] for index in (1, 0, 2)), compared, f"{seconds:.2f}"])
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in of_series.items()), flush=True)
    head = ["candidate", "choice", "class accuracy", "mean IoU", "accuracy", f"against {BASELINE}", "s a series"]
    print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)))


if __name__ == "__main__":
    main()
