"""Transformers that apply a bank of filters to images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.metaestimators import available_if

from dconv import shapes
from dconv._axes import as_tuple, items_of
from dconv._base import FeatureImageTransformer
from dconv._blocks import check_padding_mode, read_block
from dconv._filter_bank import as_filter_bank
from dconv._receptive import Margin, axis_halos
from dconv._threads import effective_n_jobs
from dconv._validation import Images, as_axes, as_images, check_finite, check_min_size
from dconv.functional import conv


def _keeps_the_grid(self: DilatedConv) -> bool:
    """Tell whether every pixel has its own features, so that they can be computed block by block."""
    return self.padding_ == "same" and set(self.strides_) == {1}


class DilatedConv(FeatureImageTransformer):
    """Turn images into the responses of a bank of filters, at one or several dilations.

    Parameters
    ----------
    filters : FilterBank or array_like of shape (n_filters, *kernel, in_channels)
        A family of :mod:`dconv.filters`, or weights for cross-correlation. Filters of one channel are applied to
        every channel of an image.
    dilation : int or sequence, default=1
        Distance in pixels between neighbouring taps, on all spatial axes. A sequence holds several dilations, all
        different, each an int or a sequence of one int per spatial axis, and the responses at all of them are
        returned: ``(1, 2)`` are two dilations, ``((1, 2),)`` is one that differs between axes.
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
        Number of threads. None and -1 are as many as there are physical cores for this process, or what
        ``OMP_NUM_THREADS`` says, as in joblib's worker processes; 1 in joblib's threads.

    Attributes
    ----------
    bank_ : FilterBank
        The filters, checked and named.
    dilations_ : tuple of tuple of int
        Every dilation, per spatial axis.
    strides_ : tuple of int
        The stride per spatial axis.
    padding_, padding_mode_, ndim_, channel_axis_
        These parameters as they were at fit; changes take effect at the next `fit`.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Number of dilations times filters, and times channels if every channel is filtered by itself. Named
        ``<filter>_d<dilation>``, ``<filter>_c<channel>_d<dilation>`` in the latter case, and with a dilation that
        differs between axes as in "d1x2".
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

        Raises
        ------
        TypeError
            If a parameter or the images have the wrong type.
        ValueError
            If a parameter is out of range, filters do not fit `ndim` or the channels, dilations are repeated, or images
            have the wrong rank, values that are not finite or beyond 1e18, or fewer pixels than the filters span.
        """
        return self._fit_images(as_images(X, *as_axes(self.ndim, self.channel_axis)))

    def _fit_images(self, images: Images) -> Self:
        """Fit to images, as :mod:`dconv._block_features` describes."""
        effective_n_jobs(self.n_jobs)
        ndim, channel_axis = as_axes(self.ndim, self.channel_axis)
        check_padding_mode(self.padding_mode)
        bank = as_filter_bank(self.filters)
        if len(bank.kernel_size) != ndim:
            raise ValueError(
                f"filters have {len(bank.kernel_size)} spatial axes (their shape is {bank.weight.shape}), but "
                f"ndim={ndim}; shape them (n_filters, *kernel, in_channels) or change ndim"
            )
        several = items_of(self.dilation)
        several = (self.dilation,) if several is None else several
        if not several:
            raise ValueError("dilation is an empty sequence; give at least one dilation")
        dilations = tuple(as_tuple(dilation, ndim, "dilation") for dilation in several)
        if len(set(dilations)) < len(dilations):
            raise ValueError(
                f"dilation={self.dilation!r} repeats a dilation; give each once, and one that differs between axes as "
                "((1, 2),)"
            )
        strides = as_tuple(self.stride, ndim, "stride")
        if bank.weight.shape[-1] not in (1, images.n_channels):
            raise ValueError(
                f"filters have in_channels={bank.weight.shape[-1]}, but images have {images.n_channels} channel(s); "
                "give filters as many channels as the images, or 1 to apply them to every channel"
            )
        self.bank_, self.dilations_, self.strides_ = bank, dilations, strides
        self.padding_, self.padding_mode_ = self.padding, self.padding_mode
        self.ndim_, self.channel_axis_ = ndim, channel_axis
        self.n_channels_in_ = images.n_channels
        self.n_features_out_ = len(dilations) * len(bank.names) * self._n_groups
        reach = [self._reach(dilation) for dilation in dilations]
        self.halo_ = tuple(
            (max(left for left, _ in pairs), max(right for _, right in pairs)) for pairs in zip(*reach, strict=True)
        )
        self._check_images(images)
        return self

    def _write(self, images: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Write the features of images, as :class:`~dconv._base.FeatureImageTransformer` describes."""
        n_threads = effective_n_jobs(self.n_jobs)
        for image, out in zip(images, outputs, strict=True):
            sources = [image] * len(self.dilations_)
            self._respond(sources, out, stride=self.strides_, padding=self.padding_, n_threads=n_threads)

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        channels = [f"_c{channel}" for channel in range(self._n_groups)] if self._n_groups > 1 else [""]
        steps = ["x".join(map(str, d if len(set(d)) > 1 else d[:1])) for d in self.dilations_]
        return [f"{name}{channel}_d{step}" for step in steps for channel in channels for name in self.bank_.names]

    @property
    def _n_groups(self) -> int:
        """Groups of the convolution: filters of one channel treat every channel by itself."""
        return self.n_channels_in_ if self.bank_.weight.shape[-1] == 1 else 1

    def _reach(self, dilation: tuple[int, ...]) -> Margin:
        """Return the pixels that a response sees left and right of its own, one pair per spatial axis."""
        return axis_halos([shapes.Layer(self.bank_.kernel_size, dilation=dilation)])

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the spatial shapes of their features, as :mod:`dconv._block_features` describes."""
        check_finite(images)
        spans = [shapes.span(self.bank_.kernel_size, dilation) for dilation in self.dilations_]
        widest = tuple(map(max, zip(*spans, strict=True)))
        remedy = "choose smaller filters" if widest == self.bank_.kernel_size else "lower dilation"
        check_min_size(images, widest, f"the filters span {widest} pixels: {remedy}, or leave out such images")
        return [self._output_size(spatial) for spatial in images.spatial_shapes]

    def _output_size(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        sizes = {
            shapes.conv_shape(
                spatial, self.bank_.kernel_size, stride=self.strides_, padding=self.padding_, dilation=dilation
            )
            for dilation in self.dilations_
        }
        if len(sizes) > 1:
            raise ValueError(
                f"dilation={self.dilation!r} with padding={self.padding_!r} gives outputs of different sizes "
                f"{sorted(sizes)}; use padding='same' or one dilation"
            )
        return sizes.pop()

    def _respond(self, sources: list[np.ndarray], out: np.ndarray, **options: Any) -> None:
        """Write the responses to `out`; each dilation has its source, an image or a block of one."""
        weight = np.tile(self.bank_.weight, (self._n_groups, *(1,) * (self.ndim_ + 1)))
        width = len(weight)
        for index, (source, dilation) in enumerate(zip(sources, self.dilations_, strict=True)):
            x = np.asarray(source, np.float32)[np.newaxis]
            keywords = {"dilation": dilation, "groups": self._n_groups, "padding_mode": self.padding_mode_, **options}
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
            sources.append(read_block(image, start, stop, self.padding_mode_))
        out = np.empty((*(part.stop - part.start for part in block), self.n_features_out_), np.float32)
        self._respond(sources, out, padding=0, n_threads=1)
        return out
