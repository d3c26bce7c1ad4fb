"""
What dilation sees
==================

To tell what a pixel belongs to, a filter has to look at what lies around it, far around. Larger filters cost more, and
pooling gives up resolution, which is what a segmentation is made of. Dilated filters ("atrous", with holes between
their taps) look as far as pooled ones, with as few weights, at every pixel. This example draws why, and the one
mistake that is easy to make with them. The picture is saved in `examples/output/`, or where you say:
``python examples/plot_receptive_field.py picture.png``.
"""

import sys
from pathlib import Path

import numpy as np
from skimage import data

import dconv
from dconv.shapes import Layer, jump, n_parameters, receptive_field

try:
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Reach against weights
# ---------------------
#
# Three ways to stack 3 x 3 filters: densely, with dilation 1, 2, 4, ..., or with stride 2, as pooling does. Each layer
# has 9 weights, but with every layer the dense stack sees 2 pixels further and the others twice as far. What the pooled
# stack pays is the `jump`: the distance between its outputs.

N_LAYERS = 6
STACKS = {
    "dense": [Layer(3)] * N_LAYERS,
    "dilated": [Layer(3, dilation=2**i) for i in range(N_LAYERS)],
    "pooled": [Layer(3, stride=2)] * N_LAYERS,
}
weights_of_layer = n_parameters(1, 1, (3, 3))
depths = range(1, N_LAYERS + 1)
reach = {name: [receptive_field(stack[:depth]) for depth in depths] for name, stack in STACKS.items()}
for name, stack in STACKS.items():
    print(f"{name:8} {N_LAYERS * weights_of_layer} weights see {reach[name][-1]:3} pixels, every {jump(stack)} pixels")

# %%
# How often each pixel is used
# ----------------------------
#
# With all weights 1, the response of a stack to a single bright pixel counts the ways from that pixel to each output,
# or, seen from the output, how often it uses each pixel. A constant dilation of 2 never looks at the pixels in between
# (*gridding*), and nor does a series that starts above 1. A series that begins with 1 and doubles leaves no holes.


def count_uses(dilations, size=31):
    """Return how often the output in the middle of a stack of 3 x 3 filters uses each pixel."""
    counts = np.zeros((1, size, size, 1))
    counts[0, size // 2, size // 2] = 1
    for dilation in dilations:
        counts = dconv.conv(counts, np.ones((1, 3, 3, 1)), padding="same", dilation=dilation)
    return counts[0, ..., 0]


SERIES = [(1, 1, 1, 1), (2, 2, 2, 2), (2, 4, 8), (1, 2, 4, 8)]
uses = {series: count_uses(series) for series in SERIES}

# %%
# What pooling loses
# ------------------
#
# Blood vessels of a retina are dark lines: a Laplacian after some smoothing finds them. Smoothed with stride 2 three
# times, it answers once every 8 x 8 pixels. The same weights with dilation 1, 2, 4 and 8 and no stride give the same
# numbers at those pixels, and all the numbers in between. This is the hole algorithm.

image = data.retina()[560:817, 150:407, 1].astype(float)
smooth = np.outer([1, 2, 1], [1, 2, 1]).reshape(1, 3, 3, 1) / 16
laplacian = np.array([[1, 2, 1], [2, -12, 2], [1, 2, 1]]).reshape(1, 3, 3, 1) / 16
N_SMOOTH = 3

pooled = dilated = image[None, ..., None]
for i in range(N_SMOOTH):
    pooled = dconv.conv(pooled, smooth, stride=2, padding=1, padding_mode="reflect")
    dilated = dconv.conv(dilated, smooth, dilation=2**i, padding="same", padding_mode="reflect")
step = 2**N_SMOOTH
pooled = dconv.conv(pooled, laplacian, padding=1, padding_mode="reflect")[0, ..., 0]
dilated = dconv.conv(dilated, laplacian, dilation=step, padding="same", padding_mode="reflect")[0, ..., 0]

np.testing.assert_allclose(dilated[::step, ::step], pooled, atol=1e-9)
print(f"pooled answers at {pooled.size} pixels, dilated at {dilated.size}; where both do, they are equal")

# %%
# The picture
# -----------

COLORS = {"dense": "#7a7a7a", "dilated": "#e0218a", "pooled": "#18a999"}


def draw_grid(axis, half):
    """Prepare an axis for pixels from -half to half, with lines between them."""
    edges = np.arange(-half, half + 2) - 0.5
    axis.hlines(edges, -half - 0.5, half + 0.5, color="0.85", lw=0.5)
    axis.vlines(edges, -half - 0.5, half + 0.5, color="0.85", lw=0.5)
    axis.set(xlim=(-half - 0.6, half + 0.6), ylim=(-half - 0.6, half + 0.6), aspect="equal")
    axis.set_axis_off()


def square(axis, x, y, half, **style):
    axis.add_patch(Rectangle((x - half - 0.5, y - half - 0.5), 2 * half + 1, 2 * half + 1, **style))


figure = plt.figure(figsize=(12, 12.5), layout="constrained")
top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.25, 1, 1.2], hspace=0.04)
left, right = top.subfigures(1, 2, width_ratios=[1, 1.35], wspace=0.03)

left.suptitle("Reach against weights", fontweight="bold")
axis = left.subplots()
weights = [depth * weights_of_layer for depth in depths]
axis.plot(
    weights, reach["dilated"], "-o", color=COLORS["dilated"], lw=2.5, ms=7, label="dilated 1, 2, 4, ...: at every pixel"
)
axis.plot(
    weights,
    reach["pooled"],
    "--o",
    color=COLORS["pooled"],
    ms=12,
    mfc="none",
    mew=1.8,
    label="pooled by 2: at fewer and fewer",
)
axis.plot(weights, reach["dense"], "-o", color=COLORS["dense"], lw=2.5, ms=7, label="dense: at every pixel")
for depth, x, y in zip(depths, weights, reach["pooled"], strict=True):
    distance = jump(STACKS["pooled"][:depth])
    axis.annotate(f"every {distance}", (x, y), (-9, 5), textcoords="offset points", ha="right", color=COLORS["pooled"])
axis.set_yscale("log", base=2)
axis.set(xlabel="weights of a stack of 3 x 3 filters", ylabel="receptive field (pixels)", xlim=(-1, 57), ylim=(2, 400))
axis.set_xticks(weights)
axis.set_yticks([3, 7, 15, 31, 63, 127], ["3", "7", "15", "31", "63", "127"])
axis.minorticks_off()
axis.grid(alpha=0.3)
axis.legend(loc="upper left", frameon=False)

right.suptitle("Taps of three layers, and what the stack sees so far", fontweight="bold")
for row, name in zip(right.subplots(2, 3), ("dense", "dilated"), strict=True):
    for depth, axis in enumerate(row, start=1):
        layers = STACKS[name][:depth]
        dilation, field = layers[-1].dilation, receptive_field(layers)
        draw_grid(axis, 7)
        square(axis, 0, 0, field // 2, color=COLORS[name], alpha=0.25, lw=0)
        for x in (-dilation, 0, dilation):
            for y in (-dilation, 0, dilation):
                square(axis, x, y, 0, color=COLORS[name], lw=0)
        axis.set_title(f"{name}, dilation {dilation}: {field} x {field}", fontsize=10)

middle.suptitle("How often each pixel is used (white inside the frame: never)", fontweight="bold")
axes = middle.subplots(1, len(SERIES))
most = max(counts.max() for counts in uses.values())
for axis, (series, counts) in zip(axes, uses.items(), strict=True):
    half = counts.shape[0] // 2
    shown = axis.imshow(
        np.ma.masked_equal(counts, 0), cmap="viridis_r", norm=LogNorm(1, most), extent=(-half - 0.5, half + 0.5) * 2
    )
    field = receptive_field([Layer(3, dilation=dilation) for dilation in series])
    square(axis, 0, 0, field // 2, fill=False, edgecolor="black", lw=1)
    seen = np.count_nonzero(counts) / field**2
    axis.set_title(f"dilation {', '.join(map(str, series))}\n{seen:.0%} of {field} x {field} pixels", fontsize=10)
    axis.set(xlim=(-half - 0.8, half + 0.8), ylim=(-half - 0.8, half + 0.8))
    axis.set_axis_off()
middle.colorbar(shown, ax=axes, shrink=0.8, pad=0.01, label="times")

bottom.suptitle("What pooling loses: the same weights, pooled and dilated, looking for vessels", fontweight="bold")
axes = bottom.subplots(1, 3)
axes[0].imshow(image, cmap="gray")
axes[0].set_title("a retina (green channel)", fontsize=10)
limit = np.percentile(np.abs(dilated), 99.5)
for axis, response, title in [(axes[1], pooled, "pooled"), (axes[2], dilated, "dilated")]:
    axis.imshow(response, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set_title(f"{title}: {response.shape[0]} x {response.shape[1]} answers", fontsize=10)
for axis in axes:
    axis.set_axis_off()

path = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent / "output" / "plot_receptive_field.png")
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=100)
print(f"saved as {path}")
plt.show()
