"""
Segment a tissue section from a few scribbles
=============================================

A section of colon tissue is stained so that the epithelium of its glands turns brown and cell nuclei turn blue.
How much of the section is gland? Colour alone cannot say: the blue nuclei *inside* the glands belong to them, the same
blue nuclei outside belong to the connective tissue. What tells them apart is what lies around them. This is what the
dilated filters of :class:`dconv.AtrousFeatures` see, and why a few scribbles are enough for
:class:`dconv.PixelClassifier` to learn from.

One half of the section is scribbled on; the other half is segmented without another stroke. The picture is saved in
`examples/output/`, or where you say: ``python examples/plot_pixel_classifier.py picture.png``.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from skimage import data
from skimage.draw import disk, line
from skimage.segmentation import find_boundaries

from dconv import PixelClassifier

try:
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch
    from PIL import Image
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Two images
# ----------
#
# The section comes with scikit-image. Its lower half is the image that we scribble on, its upper half stands for the
# next image of the series.

section = data.immunohistochemistry()
image, second_image = section[256:], section[:256]

# %%
# A handful of scribbles
# ----------------------
#
# An annotation tool (napari, ilastik, any paint program) gives a label image: a number for each class where the brush
# went and 0, "not labelled", everywhere else. Here the brush is a function, and each stroke a few points `(x, y)`.

CLASSES = {1: "gland", 2: "connective tissue", 3: "empty"}


def scribble(shape, strokes, radius=3):
    """Return a label image with thick strokes: ``strokes[label]`` lists strokes, each a list of points (x, y)."""
    labels = np.zeros(shape, np.uint8)
    for label, paths in strokes.items():
        for path in paths:
            for (x0, y0), (x1, y1) in pairwise(path):
                for center in zip(*line(y0, x0, y1, x1), strict=True):
                    labels[disk(center, radius, shape=shape)] = label
    return labels


scribbles = scribble(
    image.shape[:2],
    {
        1: [
            [(75, 54), (110, 84), (140, 130), (148, 180)],
            [(280, 84), (345, 150), (320, 224)],
            [(366, 90), (372, 150)],
        ],
        2: [
            [(160, 20), (166, 100), (172, 150), (190, 235)],
            [(244, 90), (245, 140), (262, 190)],
            [(440, 50), (480, 140)],
        ],
        3: [
            [(10, 34), (38, 84), (42, 120)],
            [(100, 164), (106, 166)],
            [(14, 150), (24, 220)],
            [(448, 150), (452, 185)],
        ],
    },
)
print(f"labelled by hand: {np.mean(scribbles > 0):.1%} of the image")

# %%
# Fit and predict
# ---------------
#
# `channel_axis=-1` says that the last axis holds colours; everything else is at its default. Only labelled pixels are
# learnt from, and features are computed only where they are needed.

segmenter = PixelClassifier(channel_axis=-1, random_state=0).fit(image, scribbles)
bank = segmenter.features_
print(f"{bank.n_features_out_} features of a pixel see {bank.receptive_field_} pixels around it")
probabilities = segmenter.predict_proba(image)
labels = segmenter.classes_[probabilities.argmax(axis=-1)]  # as segmenter.predict(image)

# %%
# The second image
# ----------------
#
# The same fitted segmenter, an image that it has not learnt from. A few strokes are drawn here too, only to count how
# many of their pixels come out right. That is a sanity check and no measure of accuracy: they lie where the tissue is
# plain, and the scribbles above were mended by someone who had seen this half.

second_probabilities = segmenter.predict_proba(second_image)
second_labels = segmenter.predict(second_image)

check = scribble(
    second_image.shape[:2],
    {
        1: [[(40, 60), (110, 150), (200, 230)], [(400, 200), (420, 130), (400, 30)], [(20, 200), (60, 240)]],
        2: [[(480, 20), (490, 240)], [(277, 175), (265, 240)], [(98, 230), (128, 250)]],
        3: [[(306, 66), (329, 106)], [(345, 135), (370, 180)]],
    },
    radius=2,
)
print(f"sanity check, strokes of the second image: {segmenter.score(second_image, check):.1%}")
for name, each in [("first", labels), ("second", second_labels)]:
    shares = ", ".join(f"{title} {np.mean(each == label):.0%}" for label, title in CLASSES.items())
    print(f"{name} image: {shares}")

# %%
# The picture
# -----------

COLORS = {1: "#e0218a", 2: "#18a999", 3: "#ffd23f"}


def overlay(rgb, labels, opacity):
    """Return an image with every labelled pixel tinted in the colour of its class."""
    out = rgb / 255.0
    for label, color in COLORS.items():
        out[labels == label] = (1 - opacity) * out[labels == label] + opacity * np.array(to_rgb(color))
    return out


def outlined(rgb, labels):
    """Return an image with the classes tinted and the borders between them drawn in black."""
    out = overlay(rgb, labels, 0.45)
    out[find_boundaries(labels, mode="inner")] = 0.1
    return out


figure, axes = plt.subplots(2, 3, figsize=(12, 4.9), layout="constrained")
figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01)
rows = [(image, labels, probabilities), (second_image, second_labels, second_probabilities)]
for (left, middle, right), (rgb, each, proba) in zip(axes, rows, strict=True):
    left.imshow(rgb)
    middle.imshow(outlined(rgb, each))
    shown = right.imshow(proba[..., 0], cmap="magma", vmin=0, vmax=1)
axes[0, 0].imshow(overlay(image, scribbles, 1.0))
axes[0, 0].set_title(f"scribbles on {np.mean(scribbles > 0):.0%} of an image", fontsize=11)
axes[1, 0].set_title("a second image, no scribbles", fontsize=11)
for axis in axes[:, 1]:
    axis.set_title("segmentation", fontsize=11)
for axis in axes[:, 2]:
    axis.set_title(f"probability of {CLASSES[1]}", fontsize=11)
for axis in axes.flat:
    axis.set_axis_off()
figure.colorbar(shown, ax=axes[:, 2], shrink=0.8, pad=0.02, ticks=[0, 0.5, 1])
patches = [Patch(color=COLORS[label], label=title) for label, title in CLASSES.items()]
figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=11)

path = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent / "output" / "plot_pixel_classifier.png")
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=100)
Image.open(path).convert("RGB").quantize(256, kmeans=2).save(path, optimize=True)  # a palette: a third of the bytes
print(f"saved as {path}")
plt.show()
