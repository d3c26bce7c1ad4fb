"""
Count coins
===========

Coins lie on a dark cloth that is lit unevenly: at the top the cloth is as bright as the dark coins at the bottom, so no
threshold finds them all. Boxes around the coins of one half of the picture are enough for :class:`dconv.ObjectDetector`
to learn what the inside of a coin looks like, and what its border, and to find those of the other half, with a box, a
size and a score for each. The picture is saved in `examples/output/`, or where you say:
``python examples/plot_objects.py picture.png``.
"""

import sys
from pathlib import Path

import numpy as np
from skimage import data
from skimage.segmentation import find_boundaries

from dconv import ObjectDetector

try:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Boxes around coins
# ------------------
#
# The image comes with scikit-image. Its left half is what we draw boxes on, by hand: first row and column, and then
# those after the last, as scikit-image has them. Of the last coin a part is cut off.

image = data.coins()
left, right = image[:, :184], image[:, 184:]
boxes = np.array(
    [
        (30, 20, 77, 69),
        (32, 78, 77, 123),
        (27, 130, 75, 180),
        (103, 24, 147, 68),
        (105, 82, 147, 124),
        (108, 132, 147, 176),
        (176, 23, 219, 65),
        (174, 79, 219, 126),
        (177, 133, 219, 176),
        (231, 17, 290, 77),
        (243, 90, 289, 138),
        (234, 142, 290, 184),
    ]
)

# %%
# Fit and predict
# ---------------
#
# Of a box only its ellipse is taken for the coin. Everything else is at its default. What comes back is a table, a
# DataFrame where pandas is installed and a dict of arrays here, with one row for each object.

detector = ObjectDetector(random_state=0, as_frame=False).fit(left, boxes)
table, labels = detector.predict_objects(right)
print(f"{len(table['label'])} coins found on the right")
for number, area, score in zip(table["label"], table["area"], table["mean_probability"], strict=True):
    print(f"coin {number:2}: {area} pixels, probability {score:.2f}")

# %%
# The picture
# -----------


def draw(axis, pixels, boxes, color):
    """Show an image with boxes on it."""
    axis.imshow(pixels, cmap="gray")
    for top, first, bottom, last in boxes:
        corner, width, height = (first - 0.5, top - 0.5), last - first, bottom - top
        axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=color, linewidth=1.5))
    axis.set_axis_off()


figure, (before, after) = plt.subplots(1, 2, figsize=(9, 6.6), layout="constrained")
draw(before, left, boxes, "#ffd23f")
before.set_title(f"{len(boxes)} boxes drawn by hand")
outlined = np.stack([right] * 3, axis=-1)
outlined[find_boundaries(labels, mode="inner")] = (224, 33, 138)
found = np.stack([table[f"bbox-{axis}"] for axis in range(4)], axis=1)
draw(after, outlined, found, "#18a999")
for (top, first, _, _), score in zip(found, table["mean_probability"], strict=True):
    after.text(first, top - 3, f"{score:.2f}", color="#18a999", fontsize=9)
after.set_title(f"{len(found)} coins found in the other half")

path = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent / "output" / "plot_objects.png")
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=100)
print(f"saved as {path}")
plt.show()
