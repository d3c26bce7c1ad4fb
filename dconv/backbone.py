"""AtrousBackbone: a convolutional net that someone trained, run densely, as features of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int, as_ndim, as_tuple
from dconv._base import FeatureImageTransformer
from dconv._hole_algorithm import DenseNet, dense_net, halo_of
from dconv._map_tiles import Preparation, TiledMaps, compute_maps, write_features
from dconv._net_cost import BackboneCost, cost_of
from dconv._net_run import run_net
from dconv._pixels import blocks_of
from dconv._threads import effective_n_jobs, effective_n_threads, run_tasks
from dconv._validation import (
    LARGEST,
    Images,
    as_array,
    as_axes,
    as_images,
    check_finite,
    check_min_size,
)

_MEGAPIXEL = {1: (1_000_000,), 2: (1000, 1000), 3: (100, 100, 100)}


class AtrousBackbone(FeatureImageTransformer):
    """Turn images into the maps of a trained convolutional net, made dense by the hole algorithm.

    A net for classification strides: its last maps have one sample for 16 or 32 pixels. Beyond `output_stride` this
    runs every stride as 1 and moves the taps of all later layers apart instead ("a trous"). The weights stay as they
    were trained, and so do the values where the strided net has some; between them there are now more [1]_. The maps of
    the layers in `taps` are brought to full size by bilinear interpolation, a transposed convolution.

    Parameters
    ----------
    layers : list of layers
        The net from its input on, of :class:`dconv.layers.Convolution`, :class:`dconv.layers.ReLU`,
        :class:`dconv.layers.MaxPool` and :class:`dconv.layers.AveragePool`; :mod:`dconv.layers` reads them from
        PyTorch, ONNX, Keras and plain arrays.
    output_stride : int or sequence of int, one per spatial axis, default=8
        Pixels between the samples of the densest net that is still wanted: layers stride until that many pixels have
        been strided over. 1 is a sample for every pixel; what all layers stride over, or more, is the net as trained.
    taps : list of str or int, or None, default=None
        Names or places of the layers whose outputs are the features; None is the last layer. Layers behind the last of
        them are not run.
    channels : sequence of int or None, default=None
        Which channel of the image is each channel of the net's input: ``(2, 1, 0)`` for a net of blue, green, red,
        ``(0, 0, 0)`` for a grey image. None takes them as they are.
    mean, std : float or sequence of float, default=0.0 and 1.0
        Subtracted from the input of the net and what it is then divided by, for all its channels or each.
    tile_memory : int, default=2**30
        Bytes that maps may take while they are computed. Larger images are worked on in tiles, each with as much
        around it as the net sees, and no smaller than that; and so many bytes of maps are kept at most, those of one
        tile at least, while a classifier goes from block to block.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images.
    n_jobs : int or None, default=None
        Number of threads. None and -1 are as many as there are physical cores for this process, or what
        ``OMP_NUM_THREADS`` says, as in joblib's worker processes; 1 in joblib's threads.

    Attributes
    ----------
    taps_ : tuple of str
        Names of the layers whose outputs are the features, in the order of the net.
    strides_ : tuple of tuple of int
        Pixels between samples of the map of each tap, per spatial axis.
    ndim_, channel_axis_ : int, int or None
        `ndim` and `channel_axis` as they were at fit; changes of parameters take effect at the next `fit`.
    n_channels_in_ : int
        Channels of the images seen at fit.
    n_features_out_ : int
        Number of features of a pixel: the channels of all taps, named ``<layer>_<channel>``.
    halo_ : tuple of (int, int)
        Pixels that the features see left and right of their own, per spatial axis: the farthest that any sees.
    receptive_field_ : tuple of int
        Pixels from the first to the last that the features see, per spatial axis: ``left + 1 + right``.

    See Also
    --------
    dconv.make_features : The backbone beside the bank of :class:`dconv.AtrousFeatures`.
    dconv.layers : The layers, and what reads them.

    Notes
    -----
    With layers of strides ``s_l`` that stride over ``j`` pixels together, layer `l` keeps of its stride what
    ``output_stride / j`` has room for, and the rest ``h`` multiplies dilation and padding of all layers behind it; so
    a map of ``n`` samples becomes one of ``m``, ``n = ceil(m / h)``, and sample ``h * i`` of it is sample ``i`` of the
    strided net's, to the last bit. With ``output_stride=1`` an image that is moved by a pixel has moved features, but
    for what sees the border, and within the rounding of float32.

    Layers of 3 x 3 kernels without stride or groups, with 32 channels and 32 filters at least, both multiples of 16,
    are computed by Winograd's minimal filtering [3]_ [4]_: 16 multiplications for 36, and half the time. Their outputs
    differ from those of :func:`dconv.conv` by rounding, about one part in a million, and are as exact; none is made of
    a sample that its kernel does not cover. The transformed weights take 16 / 9 of the memory of the weights, as long
    as a layer lives, once it has been run.

    Zeros of the padding are a part of the net: they stand around every map, as in training. So unlike those of the
    other transformers features near a border are not those of an image that goes on.

    A sample lies in the middle of what it sees, and a pixel has what lies between the samples around it; one that lies
    before the first or after the last has theirs. Features are float32, and do not depend, to the last bit, on the
    number of threads and the tiles and blocks that an image is cut into.

    References
    ----------
    .. [1] L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy and A. L. Yuille, "Semantic image segmentation with deep
       convolutional nets and fully connected CRFs", ICLR 2015, arXiv:1412.7062.
    .. [2] M. Holschneider, R. Kronland-Martinet, J. Morlet and P. Tchamitchian, "A real-time algorithm for signal
       analysis with the help of the wavelet transform", 1990, doi:10.1007/978-3-642-75988-8_28.
    .. [3] S. Winograd, "Arithmetic complexity of computations", 1980, doi:10.1137/1.9781611970364.
    .. [4] A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, arXiv:1509.09308.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import AtrousBackbone, layers
    >>> rng = np.random.default_rng(0)
    >>> net = [
    ...     layers.Convolution(rng.normal(size=(8, 3, 3, 1)), padding=1, name="conv1"),
    ...     layers.ReLU(),
    ...     layers.MaxPool(2),
    ...     layers.Convolution(rng.normal(size=(16, 3, 3, 8)), padding=1, name="conv2"),
    ... ]
    >>> backbone = AtrousBackbone(net, output_stride=1, taps=["conv1", "conv2"])
    >>> backbone.fit_transform(np.eye(40)).shape
    (40, 40, 24)
    >>> backbone.get_feature_names_out()[[0, 8]].tolist()
    ['conv1_0', 'conv2_0']
    >>> backbone.halo_, backbone.strides_
    (((4, 4), (4, 4)), ((1, 1), (1, 1)))
    >>> backbone.cost((40, 40)).multiplications
    1867392
    """

    def __init__(
        self,
        layers: Sequence[Any],
        *,
        output_stride: Any = 8,
        taps: Sequence[str | int] | None = None,
        channels: Sequence[int] | None = None,
        mean: Any = 0.0,
        std: Any = 1.0,
        tile_memory: int = 2**30,
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.layers = layers
        self.output_stride = output_stride
        self.taps = taps
        self.channels = channels
        self.mean = mean
        self.std = std
        self.tile_memory = tile_memory
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the net against images; nothing is learnt from them.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : Any, default=None
            Not used.

        Returns
        -------
        self : AtrousBackbone

        Raises
        ------
        TypeError
            If a parameter or the images have the wrong type.
        ValueError
            If layers do not fit each other, `ndim` or the channels of the images, strides do not make `output_stride`,
            a tap is unknown, or images have the wrong rank, values that are not finite or beyond 1e18, or fewer pixels
            than the net needs to have an output.
        """
        effective_n_jobs(self.n_jobs)
        ndim, channel_axis = as_axes(self.ndim, self.channel_axis)
        tile_memory = as_int(self.tile_memory, "tile_memory", 1)
        net = dense_net(self.layers, self.output_stride, self.taps, ndim)
        images = as_images(X, ndim, channel_axis)
        preparation = _preparation(self.channels, self.mean, self.std, net, images.n_channels)
        _check_images(images, net)
        self._net, self._preparation, self._tile_memory = net, preparation, tile_memory
        self.ndim_, self.channel_axis_ = ndim, channel_axis
        self.n_channels_in_ = images.n_channels
        self.taps_ = tuple(tap.name for tap in net.taps)
        self.strides_ = tuple(tap.stride for tap in net.taps)
        self.n_features_out_ = sum(tap.n_channels for tap in net.taps)
        self.halo_ = halo_of(net)
        self.receptive_field_ = tuple(left + 1 + right for left, right in self.halo_)
        return self

    def _write(self, images: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Write the features of images, as :class:`~dconv._base.FeatureImageTransformer` describes."""
        n_jobs = effective_n_jobs(self.n_jobs)
        for image, out in zip(images, outputs, strict=True):
            tiled = self._tiled_maps(image)
            for tile in tiled.tiles:  # one after another, each on all threads
                sizes = tuple(part.stop - part.start for part in tile)
                blocks = [
                    tuple(slice(a.start + b.start, a.stop + b.start) for a, b in zip(block, tile, strict=True))
                    for block in blocks_of(sizes, self.n_features_out_)
                ]

                def work(block: tuple[slice, ...], image: Any = image, out: Any = out, tiled: Any = tiled) -> None:
                    tiled.write(image, block, out[block])

                run_tasks(work, blocks, n_jobs)

    def maps(self, X: ArrayLike) -> dict[str, np.ndarray] | list[dict[str, np.ndarray]]:
        """Return the maps of all taps as the net has them, before they are brought to full size.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, with the channels seen at fit.

        Returns
        -------
        maps : dict of str to ndarray of shape (*samples, channels), or list of dict
            float32; one dict for one image, else a list of them. Whole images are computed, whatever `tile_memory`.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If the images cannot be used, as in :meth:`fit`.
        """
        images = self._images_as_fitted(X)
        self._check_images(images)
        found = [self._whole_maps(image, self._n_threads()) for image in images.arrays]
        return found[0] if images.kind == "image" else found

    def cost(self, shape: Any = None) -> BackboneCost:
        """Return what an image will take, before anything is run; no `fit` is needed.

        Parameters
        ----------
        shape : int, sequence of int or None, default=None
            Pixels of the image along each axis; None is a megapixel: 1000 x 1000, or 1000000 or 100 x 100 x 100.

        Returns
        -------
        cost : BackboneCost
            Multiplications, bytes of memory and what each layer takes; a table where it is printed.

        Raises
        ------
        TypeError, ValueError
            If a parameter cannot be used, as in :meth:`fit`, or the image is too small for the net.
        """
        ndim = as_ndim(self.ndim)
        net = dense_net(self.layers, self.output_stride, self.taps, ndim)
        sizes = _MEGAPIXEL[ndim] if shape is None else as_tuple(shape, ndim, "shape", 1)
        _check_images(Images([np.broadcast_to(np.uint8(0), (*sizes, 1))], "image"), net)
        return cost_of(net, sizes, as_int(self.tile_memory, "tile_memory", 1), self._n_threads())

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        return [f"{tap.name}_{channel}" for tap in self._net.taps for channel in range(tap.n_channels)]

    def _feature_keys(self) -> list[tuple[str, str, str]]:
        """Return plane, group and scale of every feature: a layer is a group, its stride a scale."""
        strides = ["x".join(map(str, s if len(set(s)) > 1 else s[:1])) for s in self.strides_]
        return [
            ("backbone", tap.name, f"s{stride}")
            for tap, stride in zip(self._net.taps, strides, strict=True)
            for _ in range(tap.n_channels)
        ]

    def _n_threads(self) -> int:
        """Return the threads of the net's kernels: one in a forked child, whatever `n_jobs` says."""
        return effective_n_threads(effective_n_jobs(self.n_jobs))

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the spatial shapes of their features, as :mod:`dconv._block_features` describes."""
        _check_images(images, self._net)
        return images.spatial_shapes

    def _tiled_maps(self, image: Any) -> TiledMaps:
        return TiledMaps(self._net, self._preparation, image.shape[:-1], self._tile_memory, self._n_threads())

    def _for_image(self, image: Any) -> Self:
        """Return the transformer for the blocks of one image, as described in :mod:`dconv._block_features`."""
        transformer = copy(self)
        transformer._tiles = self._tiled_maps(image)
        return transformer

    def _transform_block(self, image: Any, block: tuple[slice, ...]) -> np.ndarray:
        """Return the features of one block, as described in :mod:`dconv._block_features`."""
        out = np.empty((*(part.stop - part.start for part in block), self.n_features_out_), np.float32)
        tiles: TiledMaps | None = getattr(self, "_tiles", None)
        if tiles is None:  # nobody said that other blocks of this image follow
            write_features(self._net, compute_maps(self._net, self._preparation, image, block, 1), block, out)
        else:
            tiles.write(image, block, out)
        return out

    def _whole_maps(self, image: Any, n_threads: int) -> dict[str, np.ndarray]:
        size = image.shape[:-1]
        wanted = {tap.step: tuple((0, n) for n in self._net.sizes(size)[tap.step + 1]) for tap in self._net.taps}
        source = self._preparation.read(image, self._net.parts(wanted, size)[0].input)
        found = run_net(self._net, source, size, wanted, n_threads)
        return {tap.name: found[tap.step] for tap in self._net.taps}


def _check_images(images: Images, net: DenseNet) -> None:
    """Check that images are finite and large enough for every layer to have an output."""
    check_finite(images)
    check_min_size(images, net.least_size(), "the net has no output for smaller ones: leave out such images")


def _preparation(channels: Any, mean: Any, std: Any, net: DenseNet, n_channels: int) -> Preparation:
    """Return how images of `n_channels` become the input of a net."""
    if channels is None:
        if n_channels != net.n_channels:
            hint = (
                "channels=(0, 0, 0) gives it a grey image"
                if (n_channels, net.n_channels) == (1, 3)
                else ("channels says which of the image's it is to have")
            )
            raise ValueError(
                f"the net takes {net.n_channels} channel(s), as its first Convolution says, but X has {n_channels}; "
                f"{hint}, or pass channel_axis if an axis of X holds channels"
            )
        places = tuple(range(n_channels))
    else:
        places = as_tuple(channels, net.n_channels, "channels", -n_channels, each="channels of the net's input")
        if max(places) >= n_channels:
            raise ValueError(f"channels={channels!r} has {max(places)}, but X has {n_channels} channel(s)")
    factor = _per_channel(std, "std", net.n_channels)
    if (factor < np.finfo(np.float32).tiny).any():
        raise ValueError(f"std must be positive, and no less than float32 can divide by, got {std!r}")
    return Preparation(places, _per_channel(mean, "mean", net.n_channels), (1 / factor).astype(np.float32))


def _per_channel(value: Any, name: str, n_channels: int) -> np.ndarray:
    array = as_array(value, name)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise TypeError(f"{name} must be a finite number or one for each channel of the net, got {value!r}")
    if array.shape not in ((), (n_channels,)):
        raise ValueError(
            f"{name} must be one number or {n_channels}, one for each channel of the net's input, got {value!r}"
        )
    if (np.abs(array.astype(np.float64)) > LARGEST).any():
        raise ValueError(f"{name} must not be beyond {LARGEST:g}, as images must not, got {value!r}")
    return np.broadcast_to(array, (n_channels,)).astype(np.float32)
