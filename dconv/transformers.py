"""Transformers that apply a bank of filters to images."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from dconv import shapes
from dconv._base import FeatureImageTransformer
from dconv._blocks import check_padding_mode, read_block
from dconv._threads import effective_n_jobs
from dconv._validation import (
    Images,
    as_images,
    check_finite,
    check_min_size,
    check_n_channels,
    check_ndim,
)
from dconv.filters import FilterBank, filter_bank
from dconv.functional import conv


def _keeps_the_grid(self: DilatedConv) -> bool:
    """Tell whether every pixel has its own features, so that they can be computed block by block."""
    return self.padding == "same" and set(self.strides_) == {1}


class DilatedConv(FeatureImageTransformer):
    """Turn images into the responses of a bank of filters, at one or several dilations.

    Parameters
    ----------
    filters : FilterBank or array_like of shape (n_filters, *kernel, in_channels)
        A family of :mod:`dconv.filters`, or weights for cross-correlation. Filters of one channel are applied to
        every channel of an image.
    dilation : int or tuple, default=1
        Distance in pixels between neighbouring taps, on all spatial axes. A tuple holds several dilations, each an
        int or a tuple of one int per spatial axis, and the responses at all of them are returned.
    stride : int or tuple of int, one per spatial axis, default=1
        Distance in pixels between neighbouring outputs.
    padding : "same", "valid", int or tuple, default="same"
        As in :func:`dconv.conv`. With several dilations only "same" gives outputs of one size.
    padding_mode : {"reflect", "symmetric", "edge", "circular", "zeros"}, default="reflect"
        What an image continues with beyond its border, as in :func:`dconv.conv`.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes, in images and filters.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images.
    n_jobs : int or None, default=None
        Number of threads; None or -1 is the number of physical cores.

    Attributes
    ----------
    bank_ : FilterBank
        The filters, checked and named.
    dilations_ : tuple of tuple of int
        Every dilation, per spatial axis.
    strides_ : tuple of int
        The stride per spatial axis.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Number of dilations times filters, and times channels if every channel is filtered by itself.
    halo_ : tuple of (int, int)
        Pixels that a response sees left and right of its own, per spatial axis, with ``padding="same"``.

    See Also
    --------
    dconv.conv : The operation itself, on arrays.
    dconv.AtrousFeatures : A ready multi-scale bank.

    Notes
    -----
    Features are ordered by dilation, then channel (if filtered one by one), then filter. Computing one pixel of them
    takes ``n_features_out_ * prod(kernel) * in_channels`` multiply-adds, whatever the dilation.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import DilatedConv
    >>> from dconv.filters import derivatives
    >>> image = np.add.outer(np.arange(8.0), np.zeros(8))  # rises by 1 from row to row
    >>> conv = DilatedConv(derivatives(1), dilation=(1, 2))
    >>> features = conv.fit_transform(image)
    >>> features.shape, features[4, 4]
    ((8, 8, 4), array([1., 0., 2., 0.], dtype=float32))
    >>> conv.get_feature_names_out()
    array(['d0_d1', 'd1_d1', 'd0_d2', 'd1_d2'], dtype=object)
    """

    def __init__(
        self,
        filters: Any,
        *,
        dilation: Any = 1,
        stride: Any = 1,
        padding: Any = "same",
        padding_mode: str = "reflect",
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.filters = filters
        self.dilation = dilation
        self.stride = stride
        self.padding = padding
        self.padding_mode = padding_mode
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the filters against images; nothing is learnt from them.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : Any, default=None
            Not used.

        Returns
        -------
        self : DilatedConv
        """
        effective_n_jobs(self.n_jobs)
        check_ndim(self.ndim, self.channel_axis)
        check_padding_mode(self.padding_mode)
        bank = filter_bank(*self.filters) if isinstance(self.filters, FilterBank) else filter_bank(self.filters)
        if len(bank.kernel_size) != self.ndim:
            raise ValueError(
                f"filters have {len(bank.kernel_size)} spatial axes (their shape is {bank.weight.shape}), but "
                f"ndim={self.ndim}; shape them (n_filters, *kernel, in_channels) or change ndim"
            )
        several = self.dilation if isinstance(self.dilation, tuple | list) else (self.dilation,)
        if not several:
            raise ValueError("dilation is an empty tuple; give at least one dilation")
        dilations = tuple(shapes.as_tuple(dilation, self.ndim, "dilation") for dilation in several)
        strides = shapes.as_tuple(self.stride, self.ndim, "stride")
        images = as_images(X, self.ndim, self.channel_axis)
        if bank.weight.shape[-1] not in (1, images.n_channels):
            raise ValueError(
                f"filters have in_channels={bank.weight.shape[-1]}, but images have {images.n_channels} channel(s); "
                "give filters as many channels as the images, or 1 to apply them to every channel"
            )
        self.bank_, self.dilations_, self.strides_ = bank, dilations, strides
        self.n_channels_in_ = images.n_channels
        self.n_features_out_ = len(dilations) * len(bank.names) * self._n_groups
        reach = [self._reach(dilation) for dilation in dilations]
        self.halo_ = tuple(tuple(map(max, zip(*pairs, strict=True))) for pairs in zip(*reach, strict=True))
        self._check_images(images)
        return self

    def transform(self, X: ArrayLike) -> np.ndarray | list[np.ndarray]:
        """Return the responses of all filters.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, with the channels seen at fit.

        Returns
        -------
        features : ndarray of shape (*spatial, n_features_out_), with (n_images,) in front for a batch, or list
            float32, in the form of `X`.
        """
        check_is_fitted(self)
        images = as_images(X, self.ndim, self.channel_axis)
        check_n_channels(images, self.n_channels_in_, self)
        sizes = self._check_images(images)
        n_threads = effective_n_jobs(self.n_jobs)
        result, outputs = images.allocate([(*size, self.n_features_out_) for size in sizes], np.float32)
        for image, out in zip(images.arrays, outputs, strict=True):
            sources = [image] * len(self.dilations_)
            self._respond(sources, out, stride=self.strides_, padding=self.padding, n_threads=n_threads)
        return result

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the name of every feature: ``<filter>_c<channel>_d<dilation>``.

        The channel is named where every channel is filtered by itself; a dilation that differs between axes is
        written as in "d1x2".

        Parameters
        ----------
        input_features : Any, default=None
            Not used; pixels have no names.

        Returns
        -------
        names : ndarray of str objects of shape (n_features_out_,)
        """
        check_is_fitted(self)
        channels = [f"_c{channel}" for channel in range(self._n_groups)] if self._n_groups > 1 else [""]
        steps = ["x".join(map(str, d if len(set(d)) > 1 else d[:1])) for d in self.dilations_]
        names = [f"{name}{channel}_d{step}" for step in steps for channel in channels for name in self.bank_.names]
        return np.array(names, dtype=object)

    @property
    def _n_groups(self) -> int:
        """Groups of the convolution: filters of one channel treat every channel by itself."""
        return self.n_channels_in_ if self.bank_.weight.shape[-1] == 1 else 1

    def _reach(self, dilation: tuple[int, ...]) -> Any:
        """Return the pixels that a response sees left and right of its own, one pair per spatial axis."""
        return shapes.halo([shapes.Layer(self.bank_.kernel_size, dilation=dilation)])

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check that images are finite and as large as the filters, and return the spatial sizes of their features."""
        check_finite(images)
        spans = [shapes.span(self.bank_.kernel_size, dilation) for dilation in self.dilations_]
        widest = tuple(map(max, zip(*spans, strict=True)))
        why = f"the filters span {widest} pixels at dilation={self.dilation!r}: lower it, or leave out such images"
        check_min_size(images, widest, why)
        return [self._output_size(spatial) for spatial in images.spatial_shapes]

    def _output_size(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        sizes = {
            shapes.conv_shape(
                spatial, self.bank_.kernel_size, stride=self.strides_, padding=self.padding, dilation=dilation
            )
            for dilation in self.dilations_
        }
        if len(sizes) > 1:
            raise ValueError(
                f"dilation={self.dilation!r} with padding={self.padding!r} gives outputs of different sizes "
                f"{sorted(sizes)}; use padding='same' or one dilation"
            )
        return sizes.pop()

    def _respond(self, sources: list[np.ndarray], out: np.ndarray, **options: Any) -> None:
        """Write the responses to `out`; each dilation has its source, an image or a block of one."""
        weight = np.tile(self.bank_.weight, (self._n_groups, *(1,) * (self.ndim + 1)))
        width = len(weight)
        for index, (source, dilation) in enumerate(zip(sources, self.dilations_, strict=True)):
            x = np.asarray(source, np.float32)[np.newaxis]
            keywords = {"dilation": dilation, "groups": self._n_groups, "padding_mode": self.padding_mode, **options}
            if len(sources) == 1:
                conv(x, weight, out=out[np.newaxis], **keywords)
            else:
                out[..., index * width : (index + 1) * width] = conv(x, weight, **keywords)[0]

    @available_if(_keeps_the_grid)
    def _transform_block(self, image: np.ndarray, block: tuple[slice, ...]) -> np.ndarray:
        """Return the features of one block, as described in :mod:`dconv._block_features`."""
        sources = []
        for dilation in self.dilations_:
            reach = self._reach(dilation)
            start = [part.start - left for part, (left, _) in zip(block, reach, strict=True)]
            stop = [part.stop + right for part, (_, right) in zip(block, reach, strict=True)]
            sources.append(read_block(image, start, stop, self.padding_mode))
        out = np.empty((*(part.stop - part.start for part in block), self.n_features_out_), np.float32)
        self._respond(sources, out, padding=0, n_threads=1)
        return out
