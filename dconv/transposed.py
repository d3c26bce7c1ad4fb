"""A transformer that turns feature images into larger images, by filters that are given or learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dconv._axes import as_tuple
from dconv._base import FeatureImageTransformer
from dconv._blocks import check_padding_mode
from dconv._filter_bank import FilterBank, as_filter_bank, as_finite, filter_bank
from dconv._threads import effective_n_jobs
from dconv._transpose_fit import MAX_WEIGHTS, Layout, NormalEquations
from dconv._validation import LARGEST, Images, as_array, as_axes, as_images, check_finite, real_dtype
from dconv.functional import conv_transpose


class TransposedConv(FeatureImageTransformer):
    """Turn images into larger ones by a transposed convolution, with given filters or with learnt ones.

    With given filters it is the transpose of :class:`DilatedConv` with the same filters, stride, dilation, padding and
    padding mode: it takes images like those that the latter returns, and returns images like those that it takes. With
    ``filters=None`` the filters are learnt: those that turn the images `X` into the images `y` with the least squared
    error.

    Parameters
    ----------
    filters : FilterBank or array_like of shape (n_filters, *kernel, in_channels), default=None
        A family of :mod:`dconv.filters`, or weights, unflipped as in :func:`dconv.conv_transpose`. Images must have one
        channel per filter, and the result has `in_channels` channels. Filters of one channel also take images of
        ``n_filters * C`` channels, ordered as :class:`DilatedConv` returns them (channel, then filter), and give
        images of C: so one filter upsamples every channel by itself, if its factor is also the `stride`. None learns
        the filters from `y`.
    stride : int or tuple of int, one per spatial axis, default=2
        How many times larger the result is.
    padding : "same", "valid", int or tuple, default="same"
        Of the convolution, as in :func:`dconv.conv_transpose`: so many pixels are cut off the result. "same" gives
        ``size * stride`` pixels.
    output_padding : int or tuple of int, one per spatial axis, default=0
        Pixels by which the result is longer at its end, less than ``max(stride, dilation)``; 0 with ``padding="same"``.
    dilation : int or tuple of int, one per spatial axis, default=1
        Distance in pixels between neighbouring taps. It is one dilation, never a sequence of several.
    kernel_size : int or tuple of int, one per spatial axis, default=None
        Taps of learnt filters. None takes ``2 * stride - stride % 2``, with which every pixel of the result sees two
        pixels of the image along each axis, as in bilinear upsampling. Given filters have their own.
    alpha : float, default=1.0
        Ridge penalty of learnt filters: ``alpha * sum(weight**2)`` is added to the sum of squared errors over all
        pixels, as in :class:`sklearn.linear_model.Ridge`. With 0 it is least squares.
    padding_mode : {"symmetric", "reflect", "edge", "circular", "zeros"}, default="symmetric"
        That of the convolution. "zeros" cuts off what falls beyond the border, and so darkens the border; the others
        add it to the pixels that the convolution would have read there. See Notes.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes, in images and filters.
    channel_axis : int or None, default=None
        Axis of one image of `X` that holds its channels; None for grey images.
    n_jobs : int or None, default=None
        Number of threads of `transform`, as for :class:`DilatedConv`. What `fit` learns is computed by NumPy's own.

    Attributes
    ----------
    bank_ : FilterBank
        The filters, given or learnt.
    strides_, dilation_, output_padding_ : tuple of int
        These parameters per spatial axis.
    padding_, padding_mode_, ndim_, channel_axis_
        These parameters as they were at fit; changes take effect at the next `fit`.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Channels of the result, named "c0", "c1", ...; its sizes are those of :func:`dconv.shapes.conv_transpose_shape`.

    See Also
    --------
    dconv.conv_transpose : The operation itself, on arrays.
    dconv.upsample : Upsampling by splines, in every padding mode, with borders as if the image went on.

    Notes
    -----
    A transposed convolution knows nothing beyond the border of an image: there, outputs lack what further pixels would
    have given them, which only an image that is continued first can have, as in :func:`dconv.upsample`. With
    "symmetric" and filters that are symmetric about their middle, such as the ``align="center"`` families with
    ``padding="same"``, both come to the same: what falls beyond the border is just what is lacking, mirrored, so a
    constant image stays constant. To transpose a :class:`DilatedConv`, give its `padding_mode`, which is "reflect"
    unless set.

    Learning adds up the normal equations of all weights, ``(prod(kernel) * n_channels)**2`` numbers (2**28 at most, in
    float64) whatever the number of images, which takes about ``(prod(kernel) / prod(stride) * n_channels)**2``
    multiply-adds for every pixel of `y`.
    It is exact up to the border, as `padding_mode` says. There is no intercept.

    References
    ----------
    J. Long, E. Shelhamer and T. Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015
    (upsampling by learnt transposed convolutions). doi:10.1109/CVPR.2015.7298965

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import TransposedConv
    >>> from dconv.filters import bilinear_upsampling
    >>> image = np.add.outer(np.arange(4.0), np.arange(6.0))
    >>> large = TransposedConv(bilinear_upsampling(2)).fit_transform(image)
    >>> large.shape, large[3:5, 0, 0]
    ((8, 12, 1), array([1.25, 1.75], dtype=float32))

    Filters learnt from a pair of images, one of them blurred, sharpen where bilinear ones blur further:

    >>> full = np.sin(np.add.outer(np.arange(64.0), np.arange(64.0) / 2))
    >>> small = full.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    >>> learnt = TransposedConv(kernel_size=6).fit(small, full)
    >>> bilinear = TransposedConv(bilinear_upsampling(2)).fit(small)
    >>> [round(float(np.abs(up.transform(small)[..., 0] - full).mean()), 2) for up in (learnt, bilinear)]
    [0.0, 0.31]
    """

    def __init__(
        self,
        filters: Any = None,
        *,
        stride: Any = 2,
        padding: Any = "same",
        output_padding: Any = 0,
        dilation: Any = 1,
        kernel_size: Any = None,
        alpha: float = 1.0,
        padding_mode: str = "symmetric",
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.filters = filters
        self.stride = stride
        self.padding = padding
        self.output_padding = output_padding
        self.dilation = dilation
        self.kernel_size = kernel_size
        self.alpha = alpha
        self.padding_mode = padding_mode
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the filters against images, or learn them.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : array_like or list of array_like, default=None
            To learn from: for every image, in the form of `X`, what `transform` is to return, of shape
            (*spatial, channels), or (*spatial) for one channel; channels are always last. Given filters do not use it.

        Returns
        -------
        self : TransposedConv

        Raises
        ------
        TypeError
            If a parameter or the images have the wrong type.
        ValueError
            If a parameter is out of range, filters do not fit `ndim` or the channels, images have the wrong rank or
            values that are not finite or beyond 1e18, or `y` is missing or has another size (the message says which
            it can have).
        """
        effective_n_jobs(self.n_jobs)
        ndim, channel_axis = as_axes(self.ndim, self.channel_axis)
        check_padding_mode(self.padding_mode)
        alpha = self._checked_alpha()
        strides = as_tuple(self.stride, ndim, "stride")
        dilation = as_tuple(self.dilation, ndim, "dilation")
        output_padding = as_tuple(self.output_padding, ndim, "output_padding", 0)
        given = None if self.filters is None else self._given_bank(ndim)
        kernel_size = self._learnt_kernel_size(strides) if given is None else given.kernel_size
        layout = Layout(kernel_size, strides, self.padding, output_padding, dilation)
        images = as_images(X, ndim, channel_axis)
        check_finite(images)
        sizes = [layout.output_size(size) for size in images.spatial_shapes]
        if given is None:
            bank = self._learn(images, _as_targets(y, images, sizes, layout), layout, alpha)
        else:
            bank = given
            _check_fit(bank, images.n_channels)
        self.bank_ = bank
        self.strides_, self.dilation_, self.output_padding_ = strides, dilation, output_padding
        self.padding_, self.padding_mode_ = self.padding, self.padding_mode
        self.ndim_, self.channel_axis_ = ndim, channel_axis
        self.n_channels_in_ = images.n_channels
        self.n_features_out_ = bank.weight.shape[-1] * self._n_groups
        return self

    def _write(self, images: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Write the features of images, as :class:`~dconv._base.FeatureImageTransformer` describes."""
        n_threads = effective_n_jobs(self.n_jobs)
        weight = np.tile(self.bank_.weight, (self._n_groups, *(1,) * (self.ndim_ + 1)))
        for image, out in zip(images, outputs, strict=True):
            conv_transpose(
                np.asarray(image, np.float32)[np.newaxis],
                weight,
                stride=self.strides_,
                padding=self.padding_,
                output_padding=self.output_padding_,
                dilation=self.dilation_,
                groups=self._n_groups,
                padding_mode=self.padding_mode_,
                out=out[np.newaxis],
                n_threads=n_threads,
            )

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        return [f"c{channel}" for channel in range(self.n_features_out_)]

    @property
    def _n_groups(self) -> int:
        """Groups of the convolution: each has one channel per filter."""
        return self.n_channels_in_ // len(self.bank_.weight)

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the sizes of their results, as :mod:`dconv._block_features` describes."""
        check_finite(images)
        layout = Layout(self.bank_.kernel_size, self.strides_, self.padding_, self.output_padding_, self.dilation_)
        return [layout.output_size(size) for size in images.spatial_shapes]

    def _given_bank(self, ndim: int) -> FilterBank:
        """Return the filters that were given, checked."""
        bank = as_filter_bank(self.filters)
        if self.kernel_size is not None:
            raise ValueError(
                f"kernel_size={self.kernel_size!r} is for learnt filters, but filters are given, of "
                f"{bank.kernel_size} taps; leave out one of the two"
            )
        if len(bank.kernel_size) != ndim:
            raise ValueError(
                f"filters have {len(bank.kernel_size)} spatial axes (their shape is {bank.weight.shape}), but "
                f"ndim={ndim}; shape them (n_filters, *kernel, in_channels) or change ndim"
            )
        return bank

    def _checked_alpha(self) -> float:
        """Return `alpha`, checked also where filters are given: a slip is to be seen before it counts."""
        alpha = as_finite(self.alpha, "alpha")
        if alpha.ndim or alpha < 0:
            raise ValueError(f"alpha must be a number of at least 0, but got {self.alpha!r}")
        return float(alpha)

    def _learnt_kernel_size(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        if self.kernel_size is None:
            return tuple(2 * stride - stride % 2 for stride in strides)
        return as_tuple(self.kernel_size, len(strides), "kernel_size")

    def _learn(self, images: Images, targets: list[NDArray], layout: Layout, alpha: float) -> FilterBank:
        """Return the filters that turn images into targets."""
        n_weights = math.prod(layout.kernel_size) * images.n_channels
        if n_weights > MAX_WEIGHTS:
            raise ValueError(
                f"kernel_size={layout.kernel_size} with images of {images.n_channels} channel(s) makes {n_weights} "
                f"weights for each channel of y, but at most {MAX_WEIGHTS} can be learnt; lower kernel_size or stride"
            )
        equations = NormalEquations(layout, self.padding_mode, images.n_channels, targets[0].shape[-1])
        for image, target in zip(images.arrays, targets, strict=True):
            equations.add(image, target)
        return filter_bank(equations.solve(alpha))


def _check_fit(bank: FilterBank, n_channels: int) -> None:
    """Check that images have one channel per filter, or several times so many where filters have one channel."""
    n_filters, in_channels = len(bank.weight), bank.weight.shape[-1]
    if n_channels != n_filters and (in_channels > 1 or n_channels % n_filters):
        raise ValueError(
            f"filters are {n_filters} of in_channels={in_channels}, so images must have {n_filters} channel(s)"
            f"{' or a multiple' if in_channels == 1 else ''}, one per filter, but they have {n_channels}"
        )


def _as_targets(y: Any, images: Images, sizes: Sequence[tuple[int, ...]], layout: Layout) -> list[NDArray]:
    """Return the images to learn from, each (*size, channels)."""
    if y is None:
        raise ValueError("y is missing: filters=None learns the filters from y, the images that X is to become")
    if images.kind == "image":
        targets = [as_array(y, "y")]
    elif isinstance(y, list | tuple) or (isinstance(y, np.ndarray) and y.ndim):
        targets = [as_array(each, f"y[{index}]") for index, each in enumerate(y)]
    else:
        raise TypeError(f"y must be a list or an array of images, as X is a {images.kind}, but got {y!r:.60}")
    if len(targets) != len(images.arrays):
        raise ValueError(f"y has {len(targets)} image(s), but X has {len(images.arrays)}; pass one y per image")
    for index, (target, spatial, size) in enumerate(zip(targets, images.spatial_shapes, sizes, strict=True)):
        name = images.describe(index, "y")
        real_dtype(target, name)
        if target.shape[: len(size)] != size or target.ndim > len(size) + 1 or target.size == 0:
            largest = layout.largest_output_size(spatial)
            more = f", or up to {largest} with a larger output_padding" if largest != size else ""
            raise ValueError(
                f"{name} has shape {target.shape}, but an image of {spatial} pixels becomes {size}{more}: {name} must "
                f"have that spatial shape, and may have an axis of channels after it{images.hint()}"
            )
        if not (float(target.min()) >= -LARGEST and float(target.max()) <= LARGEST):  # NaN is both
            raise ValueError(
                f"{name} holds values that are not finite or beyond {LARGEST:g}; fill such pixels, or rescale the image"
            )
        targets[index] = target if target.ndim > len(size) else target[..., np.newaxis]
    counts = [target.shape[-1] for target in targets]
    if len(set(counts)) > 1:
        raise ValueError(f"all images of y must have the same number of channels, but they have {sorted(set(counts))}")
    return targets
