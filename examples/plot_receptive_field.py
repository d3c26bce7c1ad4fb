"""
What dilation sees
==================

How far does a filter look, and what does it cost? A stack of 3 x 3 convolutions widens its *receptive field* by two
pixels a layer. Two ways to go faster are known: pooling throws pixels away between the layers, dilation moves the taps
apart. This example draws the three against each other, with the sizes from :mod:`dconv.shapes` and the taps measured by
:func:`dconv.conv` itself.
"""

from pathlib import Path

import numpy as np

import dconv
from dconv.shapes import Layer, jump, n_parameters, receptive_field

try:
    import matplotlib.pyplot as plt
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Receptive field against parameters
# ----------------------------------
#
# Every layer has the nine weights of a 3 x 3 kernel. "Pooled" convolutions have stride 2.

N_LAYERS = 5
stacks = {
    "dense": [Layer(3)] * N_LAYERS,
    "dilated 1, 2, 4, 8, 16": [Layer(3, dilation=2**i) for i in range(N_LAYERS)],
    "pooled, stride 2": [Layer(3, stride=2)] * N_LAYERS,
}
weights = n_parameters(1, 1, (3, 3))
curves = {name: [receptive_field(layers[: n + 1]) for n in range(N_LAYERS)] for name, layers in stacks.items()}
for name, layers in stacks.items():
    seen = curves[name][-1]
    print(f"{name:24} sees {seen:3} pixels with {N_LAYERS * weights} weights, an output every {jump(layers)}")

# %%
# How often each pixel is used
# ----------------------------
#
# Sent through a stack of convolutions whose weights are all 1, an impulse shows in how many ways each input pixel
# reaches the output in the middle. Dilations that grow too fast, or do not grow, leave holes ("gridding").


def usage(dilations, size=65):
    """Return the response of stacked all-one 3 x 3 kernels to an impulse in the middle."""
    response = np.zeros((1, size, size, 1), np.float32)
    response[0, size // 2, size // 2] = 1
    for dilation in dilations:
        response = dconv.conv(response, np.ones((1, 3, 3, 1)), dilation=dilation, padding="same")
    return response[0, ..., 0]


patterns = {"dense 1, 1, 1, 1": (1, 1, 1, 1), "dilated 1, 2, 4, 8": (1, 2, 4, 8), "always 4: holes": (4, 4, 4, 4)}

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 4, figsize=(15, 4.2), layout="constrained", width_ratios=[1.35, 1, 1, 1])
for (name, values), marker in zip(curves.items(), "os^", strict=True):
    axes[0].plot(weights * np.arange(1, N_LAYERS + 1), values, marker=marker, label=name, alpha=0.8)
axes[0].set(xlabel="weights", ylabel="receptive field (pixels)", title="five layers of 3 x 3")
axes[0].annotate(
    f"one output every {jump(stacks['pooled, stride 2'])} pixels", (weights * 5, 63), (weights * 2, 50),
    arrowprops={"arrowstyle": "->"}, fontsize=9,
)  # fmt: skip
axes[0].legend(loc="upper left", fontsize=9)
axes[0].grid(alpha=0.3)
for axis, (name, dilations) in zip(axes[1:], patterns.items(), strict=True):
    used = usage(dilations)
    axis.imshow(np.ma.masked_equal(used, 0), cmap="viridis", norm="log", extent=(-32.5, 32.5, 32.5, -32.5))
    axis.set_facecolor("0.92")
    seen = receptive_field([Layer(3, dilation=d) for d in dilations])
    axis.set(title=f"{name}\n{seen} x {seen} pixels, {np.count_nonzero(used) / seen**2:.0%} of them used")
    axis.set(xticks=[-30, 0, 30], yticks=[-30, 0, 30])

output = Path(__file__).parent / "output"
output.mkdir(exist_ok=True)
figure.savefig(output / "plot_receptive_field.png", dpi=100)
plt.show()
