"""
Holes or pooling
================

To see far, a bank of features can look at a pyramid of ever smaller images and bring what it finds back to full size,
or it can keep the image and move the taps of its filters apart. :class:`dconv.AtrousFeatures` does both, with the same
filters, the same number of features and nearly the same receptive field: ``scheme="pyramid"`` and ``scheme="atrous"``.
All that differs is where the features of coarse scales are computed: at some pixels, or at all of them.

The same classifier learns from both, from a few labelled pixels of one half of an image of ancient coins, and labels
the other half. The picture shows where each is wrong; it is saved in `examples/output/`, or where you say:
``python examples/plot_atrous_vs_pooling.py picture.png``.
"""

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage import data, filters, segmentation
from sklearn.compose import make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import make_pipeline

from dconv import AtrousFeatures, PixelClassifier

try:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# An image with outlines
# ----------------------
#
# The coins come with scikit-image, whose user guide outlines them with a watershed on the edges of the image, flooded
# from pixels that are surely coin or surely background. That is our reference: it follows the edges, as the eye does.

image = data.coins()
markers = np.zeros(image.shape, int)
markers[image < 30], markers[image > 150] = 1, 2
coins = ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(image), markers) == 2)
coins = ndimage.binary_opening(coins, iterations=2)

left, right = np.s_[:, : image.shape[1] // 2], np.s_[:, image.shape[1] // 2 :]
distance = ndimage.distance_transform_edt(coins) + ndimage.distance_transform_edt(~coins) - 1
near_outline = distance[right] <= 3  # pixels

# %%
# The same bank in two ways
# -------------------------
#
# 300 pixels of each class are labelled in the left half, drawn at random, five times. With all levels both schemes do
# well, since the finest one, which is not pooled yet, knows where the outlines are. So the experiment is repeated
# without the finest levels, as it is for a network whose first layers pool: from the features of scale 2 and coarser,
# of scale 4 and coarser, and so on.

SCHEMES = {"atrous": "dilation", "pyramid": "pooling"}
COLORS = {"atrous": "#e0218a", "pyramid": "#18a999"}
N_LEVELS, N_LABELS, N_DRAWS = 5, 300, 5
FINEST = [2**level for level in range(N_LEVELS)]

scales = [int(name.rsplit("_d", 1)[1]) for name in AtrousFeatures(N_LEVELS).fit(image).get_feature_names_out()]
wrong = {(scheme, finest): np.zeros(coins[right].shape) for scheme in SCHEMES for finest in FINEST}
for seed in range(N_DRAWS):
    rng = np.random.default_rng(seed)
    labels = np.zeros(coins[left].shape, np.uint8)
    for label, mask in ((1, ~coins[left]), (2, coins[left])):
        labels.ravel()[rng.choice(np.flatnonzero(mask), N_LABELS, replace=False)] = label
    for scheme, finest in wrong:
        columns = [index for index, scale in enumerate(scales) if scale >= finest]
        classifier = make_pipeline(
            make_column_transformer(("passthrough", columns)),
            ExtraTreesClassifier(100, max_leaf_nodes=64, random_state=seed),
        )
        model = PixelClassifier(AtrousFeatures(N_LEVELS, scheme=scheme), classifier).fit(image[left], labels)
        wrong[scheme, finest] += ((model.predict(image[right]) == 2) != coins[right]) / N_DRAWS

print("wrong near outlines (within 3 pixels), and elsewhere:")
for finest in FINEST:
    figures = [
        f"{name} {100 * wrong[scheme, finest][near_outline].mean():4.1f} % and "
        f"{100 * wrong[scheme, finest][~near_outline].mean():.2f} %"
        for scheme, name in SCHEMES.items()
    ]
    print(f"  scale {finest:2d} and coarser: {', '.join(figures)}")

# %%
# Where the boundaries are lost
# -----------------------------

window, coarse = np.s_[20:190, 5:175], FINEST[-1]
figure, axes = plt.subplots(1, 4, figsize=(15, 4.75), layout="constrained")
axes[0].imshow(image[right][window], cmap="gray")
axes[0].contour(coins[right][window], [0.5], colors="deepskyblue", linewidths=1)
axes[0].set_title("image, and the outlines wanted", fontsize=10)
for axis, (scheme, name) in zip(axes[1:3], SCHEMES.items(), strict=True):
    axis.imshow(image[right][window], cmap="gray", alpha=0.5, vmin=0, vmax=255)
    share = wrong[scheme, coarse]
    axis.imshow(np.ma.masked_less(share, 0.1)[window], cmap="autumn_r", vmin=0, vmax=1, interpolation="nearest")
    near = 100 * share[near_outline].mean()
    axis.set_title(f"{name}, scale {coarse} alone:\n{near:.0f} % wrong near outlines", fontsize=10)
axes[2].legend(
    handles=[Patch(color="red", label="wrong in all draws"), Patch(color="gold", label="in one of five")],
    loc="lower right",
    fontsize=8,
)
for axis in axes[:3]:
    axis.set_axis_off()
for scheme, name in SCHEMES.items():
    shares = [100 * wrong[scheme, finest][near_outline].mean() for finest in FINEST]
    axes[3].plot(FINEST, shares, "-o", color=COLORS[scheme], label=name)
axes[3].set_xscale("log", base=2)
axes[3].set_xticks(FINEST, map(str, FINEST))
axes[3].set(xlabel="finest scale that the classifier sees (pixels)", ylabel="wrong within 3 pixels of an outline (%)")
axes[3].set_ylim(0)
axes[3].set_box_aspect(1)
axes[3].grid(alpha=0.3)
axes[3].legend(frameon=False)

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "output" / "plot_atrous_vs_pooling.png"
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=100)
print(f"saved as {path}")
plt.show()
