"""Compiled classifiers against scikit-learn's own `predict_proba`, in one process, on the same threads.

    python benchmarks/bench_predictors.py [--threads 2] [--only NAME] [--tile 8192] [--json FILE]

Both sides answer for 262,144 rows of float32, which is what they were fitted on too; trees were fitted on 20,000 rows,
a quarter of them with a random label, so that they are as deep as those of real data. scikit-learn is given all rows
at once, with as many threads (of BLAS, OpenMP, joblib); dconv takes them tile by tile from the same memory, on as many
threads of Python. Results are compared before they are timed. Times are the best of several runs, taken in turns of a
few; "ratio" is scikit-learn's over dconv's. "%gemm" is the share of a large SGEMM's rate, "GB/s" what is read: a linear
classifier has so little arithmetic that its rows' way from memory limits it. "tile" is dconv's time for one tile on one
thread that is in the cache, as a tile of features just computed is, for each row.

--peers also asks ONNX Runtime, which is given the same trees, and scikit-learn-intelex, which learns its own, about
forests, where they are installed; "ratio" is theirs over dconv's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import machine  # first: it mends the environment before NumPy is imported
import numpy as np
from dconv._kernels._dispatch import active_level
from peers_predictors import PEERS, peer_calls
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import dconv
from dconv._threads import default_n_threads, run_tasks
from dconv.predictors import compile_predictor

N_ROWS = 262_144
N_FITTED = 4_000
N_FITTED_TREES = 20_000
NOISE = 0.25  # share of the rows on which trees are fitted whose label says nothing


class Case(NamedTuple):
    part: str
    name: str
    n_features: int
    n_classes: int
    classifier: Any
    multiply_adds: int = 0  # for a row; 0 where they are not what is counted


def perceptron(*sizes: int) -> Case:
    classifier = MLPClassifier(sizes[1:-1], max_iter=5, random_state=0)
    n = sum(a * b for a, b in itertools.pairwise(sizes))
    return Case("mlp", "-".join(map(str, sizes)), sizes[0], sizes[-1], classifier, n)


CASES = [
    Case("linear", "logistic 98 -> 2", 98, 2, LogisticRegression(), 98 * 2),
    Case("linear", "logistic 98 -> 5", 98, 5, LogisticRegression(), 98 * 5),
    Case("linear", "scaler, logistic 98 -> 5", 98, 5, make_pipeline(StandardScaler(), LogisticRegression()), 98 * 5),
    Case("linear", "discriminant 98 -> 5", 98, 5, LinearDiscriminantAnalysis(), 98 * 5),
    perceptron(98, 64, 32, 2),
    perceptron(66, 128, 5),
    Case(
        "mlp", "scaler, 98-64-32-2", 98, 2,
        make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=5, random_state=0)), 98 * 64 + 64 * 32 + 64,
    ),
    Case("gaussian", "naive Bayes 98 -> 5", 98, 5, GaussianNB()),
    Case("gaussian", "quadratic 66 -> 2", 66, 2, QuadraticDiscriminantAnalysis()),
]  # fmt: skip

for n_classes in (2, 5):
    for name, classifier in {
        "random forest, deep": RandomForestClassifier(100, random_state=0),
        "extra trees, deep": ExtraTreesClassifier(100, random_state=0),
        "extra trees, 64 leaves": ExtraTreesClassifier(100, max_leaf_nodes=64, random_state=0),
        "histograms, 31 leaves": HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0),
        "gradient boosting": GradientBoostingClassifier(max_features=8, random_state=0),
    }.items():
        CASES.append(Case("trees", f"{name} -> {n_classes}", 66, n_classes, classifier))


def prepare(case: Case, n_threads: int, tile: int, with_peers: bool) -> dict[str, Callable[[], np.ndarray]]:
    """Return {name: callable}: scikit-learn, dconv, dconv on one tile and thread, scikit-learn on that in float64; of
    forests others, too, if wanted.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(0, case.n_classes, N_ROWS)
    x = rng.normal(size=(N_ROWS, case.n_features)).astype(np.float32)
    x += 0.3 * rng.normal(size=(case.n_classes, case.n_features))[y].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few iterations are enough to measure
        n_fitted = N_FITTED
        if case.part == "trees":
            y, n_fitted = np.where(rng.random(N_ROWS) < NOISE, rng.permutation(y), y), N_FITTED_TREES
            if "n_jobs" in case.classifier.get_params():
                case.classifier.set_params(n_jobs=n_threads)
        classifier = case.classifier.fit(x[:n_fitted], y[:n_fitted])
    predictor = compile_predictor(classifier)
    of_tile = np.empty((len(x[:tile]), case.n_classes), np.float32)

    def run() -> np.ndarray:
        out = np.empty((N_ROWS, case.n_classes), np.float32)  # anew for each call, as scikit-learn's is
        starts = range(0, N_ROWS, tile)
        run_tasks(lambda i: predictor.predict_proba(x[i : i + tile], out[i : i + tile]), starts, n_threads)
        return out

    def run_tile() -> np.ndarray:
        predictor.predict_proba(x[:tile], of_tile)
        return of_tile

    calls: dict[str, Callable[[], np.ndarray]] = {}
    if with_peers and isinstance(case.classifier, RandomForestClassifier | ExtraTreesClassifier):
        calls, missing = peer_calls(classifier, x, y[:n_fitted], n_threads)
        for name, why in missing.items():
            print(f"{case.part:10} {case.name:27} {name}: {why}")
    return calls | {
        "sklearn": lambda: classifier.predict_proba(x),
        "dconv": run,
        "tile": run_tile,
        "exact": lambda: classifier.predict_proba(x[:tile].astype(np.float64)),
    }


def check(case: Case, calls: dict[str, Callable[[], np.ndarray]]) -> float:
    """Return how far dconv differs at most from scikit-learn in float64; raise if that is not rounding."""
    expected = calls["exact"]()
    difference = float(np.abs(expected - calls["dconv"]()[: len(expected)]).max())
    if not difference < 1e-5:
        raise AssertionError(f"{case.name}: differs from scikit-learn by {difference}")
    for name in set(calls) & set(PEERS):  # whose rounding sends some rows elsewhere, or whose trees are others
        typical = float(np.abs(expected - calls[name]()[: len(expected)]).mean())
        if not typical < 0.1:
            raise AssertionError(f"{case.name}: {name} differs from scikit-learn by {typical} on average")
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=default_n_threads())
    parser.add_argument("--only", default="", help="run the parts or cases whose name holds this")
    parser.add_argument("--tile", type=int, default=8192, help="rows in a tile")
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent on each side of each case")
    parser.add_argument("--peers", action="store_true", help="also time other libraries on forests")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    records: list[dict] = []
    with threadpool_limits(options.threads):
        top = machine.limits(options.threads)
        print(f"dconv {dconv.__version__} ({active_level()}), {options.threads} threads, tiles of {options.tile} rows")
        print(", ".join(f"{name} {value:.0f}" for name, value in top.items()), "(GFLOP/s, GFLOP/s, GB/s)\n")
        print(f"{'':38} {'sklearn':>9} {'dconv':>9} {'ratio':>7} {'%gemm':>6} {'GB/s':>6} {'tile':>8} {'differ':>9}")
        for case in CASES:
            if options.only not in f"{case.part} {case.name}":
                continue
            calls = prepare(case, options.threads, options.tile, options.peers)
            difference = check(case, calls)
            del calls["exact"]
            best = machine.best_in_turns(calls, options.seconds)
            record = {
                "part": case.part,
                "case": case.name,
                "sklearn_ms": 1e3 * best["sklearn"],
                "dconv_ms": 1e3 * best["dconv"],
                "ratio": best["sklearn"] / best["dconv"],
                "share_sgemm": 100 * 2e-9 * N_ROWS * case.multiply_adds / best["dconv"] / top["sgemm"],
                "gbs": 4e-9 * N_ROWS * case.n_features / best["dconv"],
                "tile_ns": 1e9 * best["tile"] / options.tile,
                "difference": difference,
                **{f"{name}_ms": 1e3 * best[name] for name in PEERS if name in best},
            }
            records.append(record)
            share = f"{record['share_sgemm']:6.0f}" if case.multiply_adds else f"{'-':>6}"
            print(
                f"{case.part:10} {case.name:27} {record['sklearn_ms']:6.1f} ms {record['dconv_ms']:6.1f} ms "
                f"{record['ratio']:7.1f} {share} {record['gbs']:6.1f} {record['tile_ns']:5.0f} ns {difference:9.1e}",
                flush=True,
            )
            for name in best.keys() & PEERS.keys():
                print(
                    f"{'':10} {name:>27} {1e3 * best[name]:6.1f} ms {'':9} {best[name] / best['dconv']:7.1f}",
                    flush=True,
                )
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": top, "cases": records}, indent=1))


if __name__ == "__main__":
    main()
