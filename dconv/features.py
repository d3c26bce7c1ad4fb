"""AtrousFeatures: a multi-scale bank of rotation-invariant features on the a trous pyramid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from dconv import _memory
from dconv._bank import Bank
from dconv._bank_plan import cheap_groups, check_bank_images, plan_bank
from dconv._base import FeatureImageTransformer
from dconv._blocks import choose_block_shape, split
from dconv._intensity import BY_ITSELF, Intensity, intensity_of
from dconv._threads import effective_n_jobs, run_tasks
from dconv._validation import Images, as_axes, as_images

_BLOCK_PIXELS = 1 << 18  # beyond this the halo is a small part of the work in 2-D ...
_BLOCK_HALOS = 2  # ... but 3-D wants blocks at least so many halos wide ...
_MIN_BLOCK_PIXELS, _MAX_BLOCK_PIXELS = 1 << 14, 1 << 20  # ... as long as the planes of a block fit in memory


class AtrousFeatures(FeatureImageTransformer):
    """Turn images into feature images: what surrounds every pixel, described at several scales.

    An image is smoothed step by step with a B3 spline whose taps move apart ("a trous", with holes), which gives a
    level for every dilation 1, 2, 4, ...; at each level the same few features are computed with taps that far apart.
    So the receptive field doubles from level to level at constant cost, and no resolution is lost.

    Parameters
    ----------
    n_levels : int, default=5
        Number of levels; level `s` has dilation ``2**s`` pixels.
    groups : sequence of str, "fast" or None, default=None
        Groups of features computed on the intensity, at every level. "fast" means level, wavelet, gradient, hessian and
        std, which take less than half of the time; of series (``ndim=1``) level, wavelet, slope, curvature, std and
        activity. None means all of them; of series those of "fast", extrema, zero_crossings and ppv:

        - ``"level"``: the level itself; and, once, the level after the last
        - ``"wavelet"``: the level minus the next one
        - ``"gradient"``: gradient magnitude
        - ``"slope"``: the derivative, with its sign; of series only
        - ``"hessian"``: eigenvalues of the Hessian, in descending order; not of series
        - ``"curvature"``: the second derivative; of series only
        - ``"structure_tensor"``: square roots of the eigenvalues of the structure tensor, in descending order
        - ``"std"``: standard deviation in the window of the next smoothing step
        - ``"extrema"``: maximum and minimum of the neighbours, minus the pixel
        - ``"lines"``: maximum, minimum and mean over directions of the response of a line filter; not of series
        - ``"zero_crossings"``: how often the wavelet and the slope change sign in a narrow and in a wide window around
          the sample; of series only
        - ``"ppv"``: at which share of the samples there they are positive (proportion of positive values); of series
          only
        - ``"activity"``: mean of the wavelet's absolute value there; of series only
    color_groups : sequence of str or None, default=None
        Groups computed on the colour planes of images with several channels, or on the channels of series; None means
        ``("level", "wavelet", "std")``, of series the default of `groups`; an empty sequence leaves them out.
    filters : FilterBank, array_like of shape (n_filters, *kernel, 1) or None, default=None
        Own filters, for example from :mod:`dconv.filters`, applied to every level of the intensity at its dilation.
        At coarse levels they may reach beyond the image, as the smoothing does: it goes on by `padding_mode`.
    color : {"auto", "opponent", "channels"}, default="auto"
        Which planes are made of several channels beside the intensity, their mean. ``"opponent"``: red-green
        ``(R - G) / sqrt(2)`` and yellow-blue ``(R + G - 2 B) / sqrt(6)``, for exactly three channels. ``"channels"``:
        each channel. ``"auto"``: opponent planes of three channels of images, else the channels. Where the mean of the
        channels of series means nothing, ``groups=()`` leaves it out.
    scheme : {"atrous", "pyramid"}, default="atrous"
        How scales are made. ``"atrous"``: every level has all pixels, and taps move apart. ``"pyramid"``: levels are
        halved from one to the next (convolution with stride 2), features are computed on the small levels with taps
        side by side, and brought back to full size by linear interpolation (transposed convolution); at the pixels
        whose coordinates are multiples of ``2**s`` they are those of ``"atrous"``, but for lines, zero crossings,
        PPV and activity, which look at the samples that there are, and own filters of even size. It loses fine
        boundaries, and is not faster: bringing features back takes as long as computing them at every pixel.
    normalize : {"image", "training", "both", "auto"} or None, default=None
        Whether the intensity of images becomes 0 in the mean, with a standard deviation of 1, and colours are divided
        by the latter too. ``"image"``: of each image by itself, so that one that is darker, or has less contrast, is
        as the others. ``"training"``: of those given to `fit` together. ``"both"``: each by itself, and beside it there
        is the intensity as it is, the plane "brightness" with level and std, if `color_groups` has these, which tells
        what kind of image it is.
        ``"auto"``: None unless those given to `fit` are grey, most at least; then ``"both"`` if there are 8 or more
        and their means deviate by more than their median contrast, or the logarithms of their contrasts by more than
        0.4; else ``"image"``. Where all are grey, though with several channels, colour is left out, but no channel of
        series. An image is grey if its colour has less than 1 % of the variance of the intensity, and all are if theirs
        has less than 10 % of it, and less than 0.1 % of the mean square of the intensity, as of grey things in
        photographs. The mean of a whole series is not known before its end: with `causal` "image" and "both" are
        refused, and "auto" does not choose them; of series it never chooses "both".
    spacing : sequence of float or None, default=None
        Distance between pixels along each spatial axis, in any unit, such as the voxel size of a volume; None if they
        are alike. A dilation of ``2**s`` is so many of the finest distance along every axis: taps are the nearest whole
        number of pixels apart, and where that is 0, along an axis of far coarser pixels, they fall together, so that
        nothing is smoothed along it and no derivative taken. Derivatives are per dilation, by the distance that the
        taps really have. Not with ``scheme="pyramid"``.
    padding_mode : {"reflect", "symmetric", "edge", "circular", "zeros"} or None, default=None
        What an image continues with beyond its border, as in :func:`dconv.conv`; zeros are so before `normalize`.
        None is "reflect", with `causal` "edge": there only "edge" and "zeros" do not look ahead.
    causal : bool, default=False
        Whether features of a series see nothing ahead of their sample, as a stream needs it: all taps lie at and before
        the sample. So each feature is the one without `causal` as many samples ago as that looks ahead, which
        `halo_` tells: ``(left, 0)``. With ``ndim=1`` only, and not with ``scheme="pyramid"``.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels; None for grey images.
    n_jobs : int or None, default=None
        Number of threads. None and -1 are as many as there are physical cores for this process, or what
        ``OMP_NUM_THREADS`` says, as in joblib's worker processes; 1 in joblib's threads.

    Attributes
    ----------
    ndim_, channel_axis_ : int, int or None
        `ndim` and `channel_axis` as they were at fit; changes of parameters take effect at the next `fit`.
    n_channels_in_ : int
        Channels of the images seen at fit.
    normalize_ : {"image", "training", "both"} or None
        How images are normalized: what `normalize` says, or what "auto" has found.
    spacing_ : tuple of float or None
        `spacing` in units of the finest; None if pixels are alike along all axes.
    n_features_out_ : int
        Number of features of a pixel: 66 for grey and 98 for RGB images by default, 86 for series, and
        11 more with brightness. Named ``<plane>_<feature>_d<dilation>``, or ``_s<stride>`` of a pyramid.
    halo_ : tuple of (int, int)
        Pixels that the features see left and right of their own, per spatial axis; exact. In a pyramid that depends
        on where a pixel lies between the samples, and this is the farthest that any sees.
    receptive_field_ : tuple of int
        Pixels from the first to the last that the features see, per spatial axis: ``left + 1 + right``.

    See Also
    --------
    dconv.DilatedConv : any filters at any dilations, without the pyramid.
    dconv.PixelClassifier : uses this bank by default, with ``normalize="auto"``.

    Notes
    -----
    With ``d = 2**s``, ``B_d`` the separable B3 spline ``[1, 4, 6, 4, 1] / 16`` with taps ``d`` apart and ``x_0`` the
    image, the levels are ``x_{s+1} = B_d x_s`` [1]_ [2]_. Derivatives, the gradient ``g`` and the Hessian ``H``, are
    separable too: ``[1, 2, 1] / 4`` (smoothing), ``[-1, 0, 1] / 2`` and ``[1, -2, 1]`` with taps ``d`` apart. At level
    ``s``:

    - wavelet ``x_s - x_{s+1}``; gradient ``|g|``; Hessian ``eig(H)``
    - structure tensor ``sqrt(eig(B_d (g g')))`` [3]_; std ``sqrt(B_d x_s^2 - (B_d x_s)^2)``
    - extrema ``max_k x_s(p + d k) - x_s(p)`` and min, over the ``3**ndim - 1`` neighbours ``k``
    - lines: for a direction ``u``, the second derivative across it, ``trace(H) - u' H u``, averaged over the pixels
      ``p + round(k d u)``, ``k = -3, ..., 3``; 8 directions in 2-D, the 13 to the neighbours in 3-D [4]_
    - of series, slope ``g``, curvature ``H``; activity the mean of ``|wavelet|`` over the ``2 r + 1`` samples
      ``p - r, ..., p + r``; PPV the share of these at which the wavelet, or the slope, is above 0 [6]_; zero crossings
      the number of pairs of neighbours among these of which one is and the other not, times ``d / (2 r)``: changes for
      each dilation. A difference below ``2**-20`` of the value is a rounding and not above 0. Windows are the same at
      all levels: with ``D`` the dilation of the last, ``r = D`` in the narrow and ``r = 4 D`` in the wide one, 16 and
      64 samples by default. Where what tells classes apart takes longer, take more levels

    With ``scheme="pyramid"`` [5]_ it is ``x_{s+1} = (B_1 x_s)`` at every second sample, and ``d = 1`` at every level.

    With `normalize` at its default nothing is learnt by `fit`, and images are not rescaled: ``2 * image`` has twice the
    features of `image`. Features are float32, ordered by plane, then level, then group in the order above; filters come
    last. They are those of the image continued without end by `padding_mode`, and do not depend, to the last bit, on
    the number of threads and the blocks that an image is cut into. In 2-D they take about 300 multiply-adds per pixel
    and level.

    A stream can be worked on in chunks, bit for bit as if it were whole: unless images are normalized by themselves,
    the features of samples ``a`` to ``b`` are those of ``x[a - left : b + right]`` without the first `left` and last
    `right`, with ``(left, right) = halo_[0]``.

    References
    ----------
    .. [1] J.-L. Starck, J. Fadili and F. Murtagh, "The undecimated wavelet decomposition and its reconstruction",
       IEEE Transactions on Image Processing 16(2), 2007. doi:10.1109/TIP.2006.887733
    .. [2] M. J. Shensa, "The discrete wavelet transform: wedding the a trous and Mallat algorithms", IEEE Transactions
       on Signal Processing 40(10), 1992. doi:10.1109/78.157290
    .. [3] J. Weickert, "Coherence-enhancing diffusion filtering", International Journal of Computer Vision 31(2), 1999.
       doi:10.1023/A:1008009714131
    .. [4] Y. Sato et al., "Three-dimensional multi-scale line filter for segmentation and visualization of curvilinear
       structures in medical images", Medical Image Analysis 2(2), 1998. doi:10.1016/S1361-8415(98)80009-1
    .. [5] P. J. Burt and E. H. Adelson, "The Laplacian pyramid as a compact image code", IEEE Transactions on
       Communications 31(4), 1983. doi:10.1109/TCOM.1983.1095851
    .. [6] A. Dempster, D. F. Schmidt and G. I. Webb, "MiniRocket: a very fast (almost) deterministic transform for time
       series classification", KDD 2021. doi:10.1145/3447548.3467231

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import AtrousFeatures
    >>> image = np.zeros((64, 64))
    >>> image[:, 32:] = 1  # an edge
    >>> bank = AtrousFeatures(n_levels=3, groups=["level", "gradient"])
    >>> features = bank.fit_transform(image)
    >>> features.shape
    (64, 64, 7)
    >>> bank.get_feature_names_out()[:3].tolist()
    ['intensity_level_d1', 'intensity_gradient_d1', 'intensity_level_d2']
    >>> features[40, 32, :2]
    array([1. , 0.5], dtype=float32)
    >>> bank.halo_, bank.receptive_field_
    (((14, 14), (14, 14)), (29, 29))

    A series, and the next chunk of it as a stream has it:

    >>> series = np.sin(np.arange(1000.0) ** 1.5 / 50)
    >>> bank = AtrousFeatures(n_levels=3, causal=True, ndim=1).fit(series)
    >>> features = bank.transform(series)
    >>> left, right = bank.halo_[0]
    >>> chunk = bank.transform(series[600 - left : 700])[left:]
    >>> right, np.array_equal(chunk, features[600:700])
    (0, True)
    """

    def __init__(
        self,
        n_levels: int = 5,
        *,
        groups: Sequence[str] | str | None = None,
        color_groups: Sequence[str] | None = None,
        filters: Any = None,
        color: str = "auto",
        scheme: str = "atrous",
        normalize: str | None = None,
        spacing: Sequence[float] | None = None,
        padding_mode: str | None = None,
        causal: bool = False,
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_levels = n_levels
        self.groups = groups
        self.color_groups = color_groups
        self.filters = filters
        self.color = color
        self.scheme = scheme
        self.normalize = normalize
        self.spacing = spacing
        self.padding_mode = padding_mode
        self.causal = causal
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the parameters against images, and see how bright these are if they are to be normalized.

        Parameters
        ----------
        X : array_like or list of array_like
            One image, a batch or a list of images, finite real numbers.
        y : Any, default=None
            Not used.

        Returns
        -------
        self : AtrousFeatures

        Raises
        ------
        TypeError
            If a parameter or the images have the wrong type.
        ValueError
            If a parameter is out of range, a group is unknown, no feature is left, two have the same name, or images
            have the wrong rank, values that are not finite or beyond 1e18, or fewer than ``2 * 2**(n_levels - 1) + 1``
            pixels along an axis (fewer where `spacing` says that they are farther apart; with `causal` 1 is enough).
        """
        return self._fit_images(as_images(X, *as_axes(self.ndim, self.channel_axis)))

    def _fit_images(self, images: Images) -> Self:
        """Fit to images, as :mod:`dconv._block_features` describes."""
        effective_n_jobs(self.n_jobs)
        ndim, channel_axis = as_axes(self.ndim, self.channel_axis)
        bank, normalize = plan_bank(
            images,
            n_levels=self.n_levels,
            groups=self.groups,
            color_groups=self.color_groups,
            filters=self.filters,
            color=self.color,
            scheme=self.scheme,
            normalize=self.normalize,
            spacing=self.spacing,
            padding_mode=self.padding_mode,
            causal=self.causal,
        )
        self.normalize_ = normalize
        self.ndim_, self.channel_axis_ = ndim, channel_axis
        self.n_channels_in_ = images.n_channels
        self._set_bank(bank)
        return self

    def _set_bank(self, bank: Bank) -> None:
        """Set what computes the features, and what follows from it."""
        self._bank, self.spacing_ = bank, bank.spacing
        self.n_features_out_ = bank.n_features
        self.halo_ = bank.halo()
        self.receptive_field_ = tuple(left + 1 + right for left, right in self.halo_)

    def _write(self, images: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Write the features of images, as :class:`~dconv._base.FeatureImageTransformer` describes."""
        n_jobs = effective_n_jobs(self.n_jobs)
        banks = [self._for_image(image)._bank for image in images]
        tasks = [
            (index, block) for index, image in enumerate(images) for block in self._blocks(image.shape[:-1], n_jobs)
        ]

        def work(task: tuple[int, tuple[slice, ...]]) -> None:
            index, block = task
            banks[index].fill(images[index], block, outputs[index][block])

        run_tasks(work, tasks, n_jobs)

    def _feature_names(self) -> Sequence[str]:
        """Return the name of every feature."""
        return self._bank.feature_names()

    def _feature_keys(self) -> list[tuple[str, str, str]]:
        """Return plane, group and scale of every feature."""
        return [(plane, group, scale) for plane, group, scale, _ in self._bank.feature_table()]

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the spatial shapes of their features, as :mod:`dconv._block_features` describes."""
        bank = self._bank
        check_bank_images(images, bank.n_levels, bank.spacing, bank.causal, "fit again with")
        return images.spatial_shapes

    def _for_image(self, image: np.ndarray) -> Self:
        """Return the transformer for the blocks of one image, as described in :mod:`dconv._block_features`."""
        return self._for_intensity(intensity_of(image)) if self.normalize_ in BY_ITSELF else self

    def _for_intensity(self, intensity: Intensity) -> Self:
        """Return the transformer for the blocks of images of this intensity."""
        transformer = copy(self)
        transformer._bank = self._bank._replace(scaling=intensity)
        return transformer

    def _cheaper(self) -> tuple[Self, np.ndarray] | None:
        """Return a transformer without the features that cost most, and which are left, as described in
        :mod:`dconv._block_features`. In 2-D; in 3-D it has not been tried.
        """
        planes = tuple(plane._replace(groups=cheap_groups(plane.groups)) for plane in self._bank.planes)
        if self.ndim_ != 2 or planes == self._bank.planes or not all(plane.groups for plane in planes):
            return None
        transformer = copy(self)
        for plane in planes:
            if plane.name == "intensity":
                transformer.groups = plane.groups
            elif plane.normalized:  # brightness has those of color_groups that it can use
                transformer.color_groups = plane.groups
        transformer._set_bank(self._bank._replace(planes=planes))
        names = set(transformer._bank.feature_names())
        return transformer, np.flatnonzero([name in names for name in self._bank.feature_names()])

    def _transform_block(self, image: np.ndarray, block: tuple[slice, ...]) -> np.ndarray:
        """Return the features of one block, as described in :mod:`dconv._block_features`."""
        shape = tuple(part.stop - part.start for part in block)
        out = _memory.empty((*shape, self.n_features_out_), np.dtype(np.float32))
        self._bank.fill(image, block, out)
        return out

    def _transform_bands(
        self, image: np.ndarray, block: tuple[slice, ...]
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yield the features of one block band by band, as described in :mod:`dconv._block_features`."""
        return self._bank.bands(image, block)

    def _blocks(self, shape: tuple[int, ...], n_jobs: int) -> list[tuple[slice, ...]]:
        """Return the blocks that an image is worked on in."""
        widest = max(left + right for left, right in self.halo_)
        n_pixels = max(_BLOCK_PIXELS, min((_BLOCK_HALOS * widest) ** self.ndim_, _MAX_BLOCK_PIXELS))
        share = math.ceil(math.prod(shape) / n_jobs)  # a small image is work for all threads too
        return list(split(shape, choose_block_shape(shape, min(n_pixels, max(share, _MIN_BLOCK_PIXELS)))))
