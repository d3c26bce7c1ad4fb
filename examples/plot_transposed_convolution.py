"""
What transposed convolution gives back
======================================

A convolution with a stride makes an image small. Its transpose brings it back to full size, and is therefore sometimes
called "deconvolution": wrongly, as it restores the *shape* and not the *values*. As a matrix, the convolution is C, and
:func:`dconv.conv_transpose` applies the transpose of C, not its inverse.

This example computes it in the three ways in which the literature describes it, and by the zeros between pixels by
which TensorFlow and PyTorch explain it, shows that they agree, and draws what comes back. The picture is saved in
`examples/output/`, or where you say:
``python examples/plot_transposed_convolution.py picture.png``.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.sparse.linalg import lsqr
from skimage import data

import dconv

try:
    import matplotlib.pyplot as plt
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Down
# ----
#
# A filter of 5 x 5 that smooths, at every third pixel: 96 x 96 pixels become 32 x 32.

image = data.camera()[60:156, 190:286] / 255.0
size, factor = image.shape, 3
taps = np.array([1, 4, 6, 4, 1]) / 16
weight = np.outer(taps, taps)[np.newaxis, ..., np.newaxis]  # one filter, one channel
options = {"stride": factor, "padding": 2, "padding_mode": "reflect"}

x = image[np.newaxis, ..., np.newaxis]  # (batch, height, width, channels)
small = dconv.conv(x, weight, **options)

# %%
# Up again, in three ways
# -----------------------
#
# The fast one; the transposed matrix; and windows: every small pixel is multiplied by the filter, and the products are
# added up where they overlap (col2im). They are one operation.

back = dconv.conv_transpose(small, weight, output_size=size, **options)

C = dconv.conv_matrix(size, weight, **options)
by_matrix = (C.T @ small.ravel()).reshape(back.shape)

columns = small[..., np.newaxis, np.newaxis, :] * weight  # (batch, height, width, 5, 5, 1)
by_windows = dconv.fold(columns, size, **options)

assert np.allclose(by_matrix, back)
assert np.allclose(by_windows, back)

# %%
# Zero insertion, padding and cropping
# ------------------------------------
#
# The frameworks, which know no border but zeros, explain it as a plain convolution: put zeros between the small pixels,
# pad by as far as a kernel reaches, convolve with the kernel turned round (and with several channels, those that went
# in and those that came out exchanged), and crop what the first convolution was padded by. That is the same, and slow:
# with a stride of 3, eight of nine multiplications are by a zero.

padding = options["padding"]
spread = np.zeros((1, *((n - 1) * factor + 1 for n in small.shape[1:3]), 1))
spread[:, ::factor, ::factor] = small
whole = dconv.conv(spread, weight[:, ::-1, ::-1], padding=len(taps) - 1)
by_zeros = whole[:, padding : padding + size[0], padding : padding + size[1]]

assert np.allclose(by_zeros, dconv.conv_transpose(small, weight, stride=factor, padding=padding, output_size=size))

# %%
# The shape is back, the values are not
# -------------------------------------
#
# Pixels where large weights meet are brighter than others: a checkerboard, which dividing by the sum of the weights
# that meet at each pixel takes away. What remains is smooth: what the convolution has averaged away is in `small` no
# more. Of all images that the convolution makes `small` of, solving with C finds the one with the least values: as
# good an inverse as there is, and not the image either. If all that is wanted is the small image at full size,
# :func:`dconv.upsample` has the weights.

weights_met = dconv.conv_transpose(np.ones_like(small), weight, output_size=size, **options)
divided = back / np.maximum(weights_met, 1e-9)
inverse = lsqr(C, small.ravel(), atol=1e-10, btol=1e-10, iter_lim=500)[0].reshape(size)
upsampled = dconv.upsample(small, factor, align="first", output_size=size)

pictures = {
    f"image, {size[0]} x {size[1]}": image,
    f"conv, stride {factor}: {small.shape[1]} x {small.shape[2]}": small[0, ..., 0],
    f"conv_transpose, times {factor**2}": back[0, ..., 0] * factor**2,  # every pixel got a ninth, on average
    "... divided by the weights that meet": divided[0, ..., 0],
    "least squares with conv_matrix": inverse,
    "upsample, bilinear": upsampled[0, ..., 0],
}
for title, picture in pictures.items():
    if picture.shape == size and picture is not image:
        error = np.sqrt(np.mean((picture - image) ** 2))
        print(f"{title:40s} root mean square error {error:.3f}")

# %%
# The picture
# -----------

figure, axes = plt.subplots(2, 3, figsize=(10.5, 7.4), layout="constrained")
for axis, (title, picture) in zip(axes.ravel(), pictures.items(), strict=True):
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
figure.suptitle("Transposed convolution restores the shape, not the values")

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "output" / "plot_transposed_convolution.png"
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=110)
print(f"saved as {path}")
plt.show()
