"""What layers of other libraries become here: batch normalization is a convolution's, "ceil mode" is padding."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dconv._net_layers import Convolution, as_weights
from dconv._receptive import Margin


def fold_batch_norm(
    convolution: Convolution,
    mean: ArrayLike,
    variance: ArrayLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    *,
    epsilon: float = 1e-5,
) -> Convolution:
    """Return a convolution that does what `convolution` and a batch normalization behind it do.

    Parameters
    ----------
    convolution : Convolution
        The layer in front of the normalization.
    mean, variance : array_like of shape (out_channels,)
        Running statistics of the normalization.
    scale, shift : array_like of shape (out_channels,) or None, default=None
        Its learnt factors and summands; None is 1 and 0.
    epsilon : float, default=1e-5
        Added to the variance.

    Returns
    -------
    folded : Convolution
        With the filters scaled and another bias; else like `convolution`.

    Raises
    ------
    TypeError, ValueError
        If statistics are not real and finite, or not one for every filter, or a variance with `epsilon` is not
        positive.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization", ICML 2015, arXiv:1502.03167.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import layers
    >>> convolution = layers.Convolution(np.ones((1, 1, 1, 1)))
    >>> folded = layers.fold_batch_norm(convolution, mean=[3.0], variance=[4.0], epsilon=0.0)
    >>> folded.weight.item(), folded.bias.item()
    (0.5, -1.5)
    """
    if not isinstance(convolution, Convolution):
        raise TypeError(f"convolution must be a Convolution, got {type(convolution).__name__}")
    wanted = (convolution.out_channels,)
    statistics = {
        "mean": mean,
        "variance": variance,
        "scale": np.ones(wanted) if scale is None else scale,
        "shift": np.zeros(wanted) if shift is None else shift,
    }
    arrays = {name: as_weights(value, name).astype(np.float64) for name, value in statistics.items()}
    for name, array in arrays.items():
        if array.shape != wanted:
            raise ValueError(f"{name} must have shape {wanted}, one value per filter, got {array.shape}")
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float | np.number) or not np.isfinite(epsilon):
        raise TypeError(f"epsilon must be a finite number, got {epsilon!r}")
    spread = arrays["variance"] + float(epsilon)
    if not (spread > 0).all():
        raise ValueError(f"variance + epsilon must be positive, got {spread.min():g}")
    factor = arrays["scale"] / np.sqrt(spread)
    bias = np.zeros(wanted) if convolution.bias is None else convolution.bias
    return Convolution(
        convolution.weight * factor.reshape(-1, *(1,) * (convolution.weight.ndim - 1)),
        (bias - arrays["mean"]) * factor + arrays["shift"],
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
        convolution.name,
    )


def identity(n_channels: int, ndim: int, name: str | None = None) -> Convolution:
    """Return a depthwise convolution that changes nothing, to fold a normalization into that has none in front."""
    return Convolution(np.ones((n_channels, *(1,) * (ndim + 1))), groups=n_channels, name=name)


def ceil_pads(kernel: tuple[int, ...], stride: tuple[int, ...], pads: Margin, ceil_mode: bool, place: str) -> Margin:
    """Return padding with which the last window of a pooling layer may reach beyond the input, if `ceil_mode`."""
    if not ceil_mode:
        return pads
    if any(after + s > k for k, s, (_, after) in zip(kernel, stride, pads, strict=True)):
        # Other libraries leave out a window that begins behind the input: there is one at some sizes.
        raise ValueError(
            f"{place} has ceil_mode with kernel_size={kernel}, stride={stride} and padding={pads}: its last window may "
            "begin behind the input, which depends on the size of the image and cannot be read"
        )
    return tuple((before, after + s - 1) for (before, after), s in zip(pads, stride, strict=True))
