"""DeepLab's recipe by its parts, in seconds for one photograph of 500 x 375 pixels: features, classifier, CRF.

    python benchmarks/bench_recipe.py [--threads 2] [--repeats 5]

The backbone is VGG-16's trunk with random weights: time does not depend on them. Its maps are those of conv5_3, at
output stride 8. The classifier is a logistic regression of what the bank, the backbone, or both say, compiled. Parts
take turns, with a large SGEMM among them that tells what the machine gave, and the best of each counts.
"""

from __future__ import annotations

import argparse
import time

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np
from bench_backbone import trunk
from dconv._kernels._dispatch import active_level
from skimage import data
from skimage.transform import resize
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dconv import AtrousBackbone, AtrousFeatures, DenseCRF, PixelClassifier, make_features

SHAPE = (375, 500)
N_CLASSES = 21


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    n_jobs, rng = options.threads, np.random.default_rng(0)
    image = (255 * resize(data.coffee(), SHAPE, anti_aliasing=True)).astype(np.uint8)
    labels = np.where(rng.random(SHAPE) < 0.02, 1 + rng.integers(N_CLASSES, size=SHAPE), 0)

    bank = AtrousFeatures(channel_axis=-1, n_jobs=n_jobs)
    backbone = AtrousBackbone(trunk(), mean=128, std=60, channel_axis=-1, n_jobs=n_jobs)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=20))
    models = {}
    for name, features in {"bank": bank, "backbone": backbone, "both": make_features(bank, backbone)}.items():
        model = PixelClassifier(features, classifier, channel_axis=-1, n_jobs=n_jobs, random_state=0)
        models[name] = model.set_params(classifier__logisticregression__tol=1.0).fit(image, labels)
    probabilities = models["bank"].predict_proba(image)
    square = rng.normal(size=(2048, 2048)).astype(np.float32)
    calls = {
        "features of the bank": lambda: models["bank"].features_.transform(image),
        "maps of the backbone": lambda: models["backbone"].features_.maps(image),
        "features of the backbone": lambda: models["backbone"].features_.transform(image),
        **{f"predict, {name}": lambda model=model: model.predict_proba(image) for name, model in models.items()},
        "CRF, 10 iterations": lambda: DenseCRF(n_jobs=n_jobs).refine(image, probabilities),
        "sgemm": lambda: square @ square,
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(options.repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    sgemm = 2 * len(square) ** 3 / best.pop("sgemm") / 1e9
    print(
        f"{SHAPE[1]} x {SHAPE[0]}, {N_CLASSES} classes, {n_jobs} threads, {active_level()}, SGEMM {sgemm:.0f} GFLOP/s"
    )
    for name, seconds in best.items():
        print(f"{name:30s} {seconds:7.3f} s")


if __name__ == "__main__":
    main()
