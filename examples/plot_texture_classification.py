"""
Which texture is this?
======================

:class:`dconv.PixelClassifier` labels pixels. Where the question is what a whole picture shows, here which of three
textures a patch of 32 x 32 pixels is cut from, a patch needs one row of features: how often each of 84 small filters
responds, at several dilations. That is :class:`dconv.MiniRocket`, made for series, with its nine taps in a square. A
linear classifier behind it is enough. The picture is saved in `examples/output/`, or where you say:
``python examples/plot_texture_classification.py picture.png``.
"""

import sys
from pathlib import Path

import numpy as np
from skimage import data
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dconv

try:
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Patches
# -------
#
# Each texture is one photograph of 512 x 512 pixels. Patches of its left half are there to learn from, its right half
# is kept apart.

SIZE = 32
NAMES = ["brick", "grass", "gravel"]
photographs = [getattr(data, name)() for name in NAMES]


def cut(image: np.ndarray, step: int) -> np.ndarray:
    """Return patches of SIZE x SIZE, every `step` pixels, of shape (rows, columns, SIZE, SIZE)."""
    return np.lib.stride_tricks.sliding_window_view(image, (SIZE, SIZE))[::step, ::step]


X = np.concatenate([cut(image[:, :256], SIZE).reshape(-1, SIZE, SIZE) for image in photographs])
y = np.repeat(np.arange(3), len(X) // 3)

# %%
# Features and a linear classifier
# --------------------------------
#
# Filters add up to zero, so how bright a patch is does not matter; and a share of pixels is no larger where contrast
# is strong. `StandardScaler(with_mean=False)` and a ridge classifier are what MiniRocket's authors put behind it.

model = make_pipeline(
    dconv.MiniRocket(ndim=2, random_state=0),
    StandardScaler(with_mean=False),
    RidgeClassifierCV(np.logspace(-3, 3, 10)),
)
model.fit(X, y)

X_test = np.concatenate([cut(image[:, 256:], SIZE).reshape(-1, SIZE, SIZE) for image in photographs])
accuracy = model.score(X_test, np.repeat(np.arange(3), len(X_test) // 3))
print(f"{len(X)} patches to learn from; of {len(X_test)} others {accuracy:.1%} are named rightly")

# %%
# A new image
# -----------
#
# A collage of the right halves, and what the model says of the patch around every eighth pixel. Where a patch shows two
# textures there is no right answer: labels of pixels are what PixelClassifier is for.

truth = np.zeros((256, 256), int)
truth[:, 96:] = 1
truth[128:, 48:208] = 2
collage = np.choose(truth, [image[:256, 256:] for image in photographs])

step = 8
windows = cut(collage, step)
answers = model.predict(windows.reshape(-1, SIZE, SIZE)).reshape(windows.shape[:2])
centres = truth[SIZE // 2 :: step, SIZE // 2 :: step][: len(answers), : answers.shape[1]]
whole = np.ptp(cut(truth, step), axis=(2, 3)) == 0  # windows that show one texture only
print(f"collage: {np.mean((answers == centres)[whole]):.1%} of the {whole.sum()} windows of one texture are right")

# %%
# The picture
# -----------

colors = ListedColormap(["#c2543f", "#4f9d53", "#4c72b0"])
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.9), layout="constrained")
axes[0].imshow(collage, cmap="gray")
axes[0].set_title("collage of three textures")
axes[1].imshow(truth, cmap=colors, vmin=0, vmax=2, interpolation="nearest")
axes[1].set_title("what it is made of")
half = SIZE / 2 - step / 2
extent = (half, half + step * answers.shape[1], half + step * len(answers), half)
axes[2].imshow(answers, cmap=colors, vmin=0, vmax=2, interpolation="nearest", extent=extent)
axes[2].set(xlim=axes[1].get_xlim(), ylim=axes[1].get_ylim(), title=f"named by MiniRocket, {SIZE} x {SIZE} around")
rows, columns = truth.shape  # nearer to their border no patch fits in
axes[2].add_patch(plt.Rectangle((-0.5, -0.5), columns, rows, fill=False, edgecolor="0.7", clip_on=False))
for axis in axes:
    axis.set_axis_off()
axes[1].legend([plt.Rectangle((0, 0), 1, 1, color=color) for color in colors.colors], NAMES, loc="upper left")

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "output" / "plot_texture_classification.png"
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=110)
print(f"saved as {path}")
plt.show()
