"""
Pull a segmentation to the edges of its image
=============================================

A pixel classifier looks at windows, so its answers are soft where one thing meets another, and it makes up its mind
pixel by pixel. A fully connected conditional random field looks at all pairs of pixels: two that are near, or not so
far and of one colour, had better be of one class. :class:`dconv.DenseCRF` is what DeepLab ends with, too. It learns
nothing; what it does to an image is a matter of five numbers, and the lower half of the picture shows what each is for.
It cannot do everything: the black helmet lies on black cloth, and there is no edge between them to be pulled to.

The picture is saved in `examples/output/`, or where you say: ``python examples/plot_dense_crf.py picture.png``.
"""

import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
from skimage import data
from skimage.draw import disk, line

from dconv import DenseCRF, PixelClassifier

try:
    import matplotlib.pyplot as plt
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Scribbles and a classifier
# --------------------------
#
# 1 is the astronaut with suit and helmet, 2 all the rest; strokes are a few points `(x, y)` each.

image = data.astronaut()
STROKES = {
    1: [
        [(215, 60), (235, 120), (230, 170)],
        [(190, 60), (165, 95)],
        [(125, 175), (150, 220), (220, 245), (300, 225)],
        [(200, 205), (230, 215)],
        [(120, 330), (200, 380), (300, 340)],
        [(100, 450), (260, 480)],
        [(60, 330), (30, 480)],
        [(310, 400), (380, 400), (470, 430)],
        [(400, 350), (440, 480)],
    ],
    2: [
        [(20, 20), (120, 40), (130, 130)],
        [(300, 20), (420, 60), (500, 200)],
        [(420, 200), (450, 310)],
        [(20, 250), (70, 210)],
        [(330, 60), (330, 190), (360, 290)],
        [(30, 120), (60, 170)],
        [(490, 320), (500, 360)],
    ],
}
scribbles = np.zeros(image.shape[:2], np.uint8)
for label, paths in STROKES.items():
    for path in paths:
        for (x0, y0), (x1, y1) in pairwise(path):
            for center in zip(*line(y0, x0, y1, x1), strict=True):
                scribbles[disk(center, 4, shape=scribbles.shape)] = label

classifier = PixelClassifier(channel_axis=-1, random_state=0).fit(image, scribbles)
probabilities = classifier.predict_proba(image)

# %%
# Refine
# ------
#
# One call. A callback sees the probabilities after every iteration, and by how much one of them changed at most; what
# it returns says whether that is enough.

steps = {}


def watch(iteration, change, state):
    print(f"iteration {iteration:2d}: largest change {change:.3f}")
    steps[iteration] = state[..., 0].copy()


crf = DenseCRF()
refined = crf.refine(image, probabilities, callback=watch)
start = perf_counter()
crf.refine(image, probabilities)
print(f"{crf.n_iter} iterations on {image.shape[0]} x {image.shape[1]} pixels: {perf_counter() - start:.3f} s")
changed = np.mean(probabilities.argmax(axis=-1) != refined.argmax(axis=-1))
print(f"{changed:.1%} of the pixels changed their class")

# %%
# What the parameters do
# ----------------------
#
# `spatial_sigma` and `spatial_weight` clean: regions smaller than the width vanish, whatever their colour.
# `appearance_sigma` says how far a colour is looked for, `color_sigma` how different a colour may be, and
# `appearance_weight` what all that counts beside the classifier. `compatibility` is what it costs that alike pixels
# are of two classes: 1 for all pairs unless told, less for classes that may lie side by side, below 0 on the diagonal
# for a class that should grow. `n_iter` iterations are made: few do not reach far.

VARIANTS = {
    "no appearance kernel": {"appearance_weight": 0},
    "no spatial kernel": {"spatial_weight": 0},
    "appearance_sigma=10": {"appearance_sigma": 10},
    "color_sigma=4": {"color_sigma": 4},
    "color_sigma=50": {"color_sigma": 50},
    "appearance_weight=3": {"appearance_weight": 3},
    "appearance_weight=30": {"appearance_weight": 30},
    "spatial_sigma=12, spatial_weight=10": {"spatial_sigma": 12, "spatial_weight": 10},
    "n_iter=1": {"n_iter": 1},
    "compatibility=[[0, .1], [.1, 0]]": {"compatibility": [[0, 0.1], [0.1, 0]]},
    "compatibility=[[-.1, 1], [1, 0]]": {"compatibility": [[-0.1, 1], [1, 0]]},
    "compatibility=[[0, 1], [1, -.1]]": {"compatibility": [[0, 1], [1, -0.1]]},
}
variants = {name: DenseCRF(**options).refine(image, probabilities) for name, options in VARIANTS.items()}

# %%
# The picture
# -----------


def cut_out(probability):
    """Return the image with everything white that is not the astronaut."""
    return np.where(probability[..., np.newaxis] > 0.5, image, 255)


figure, axes = plt.subplots(5, 4, figsize=(11, 14.4), layout="constrained")
painted = image.copy()
painted[scribbles == 1], painted[scribbles == 2] = (224, 33, 138), (24, 169, 153)
axes[0, 0].imshow(painted)
axes[0, 0].set_title("scribbles")
axes[0, 1].imshow(probabilities[..., 0], cmap="magma", vmin=0, vmax=1)
axes[0, 1].set_title("classifier: probability")
axes[0, 2].imshow(cut_out(probabilities[..., 0]))
axes[0, 2].set_title("classifier: above 1/2")
axes[0, 3].imshow(cut_out(refined[..., 0]))
axes[0, 3].set_title("with the CRF: above 1/2")
for axis, iteration in zip(axes[1], (1, 2, 5, 10), strict=True):
    axis.imshow(steps[iteration], cmap="magma", vmin=0, vmax=1)
    axis.set_title(f"iteration {iteration}")
for axis, (name, result) in zip(axes[2:].flat, variants.items(), strict=True):
    axis.imshow(cut_out(result[..., 0]))
    axis.set_title(name, fontsize=9)
for axis in axes.flat:
    axis.set_axis_off()

path = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent / "output" / "plot_dense_crf.png")
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=90)
print(f"saved as {path}")
plt.show()
