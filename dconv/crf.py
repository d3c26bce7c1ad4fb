"""The fully connected CRF that pulls a segmentation to the edges of its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone

from dconv._crf_input import (
    as_compatibility,
    as_image,
    as_kernel_list,
    as_pairs,
    check_callback,
    color_sigma_of,
    part_overlap,
)
from dconv._crf_prepared import Callback, PreparedCRF
from dconv._crf_tune import Tuning, tune
from dconv._receptive import Margin
from dconv._validation import as_axes


class DenseCRF(BaseEstimator):
    """Refine the class probabilities of every pixel by a fully connected conditional random field.

    Every pixel is joined to every other one: the closer two are, and the closer and the more alike in colour, the more
    it costs to give them different classes. So noise and holes vanish and borders move to the edges of the image, as
    in the first DeepLab [3]_. Nothing is learnt; parameters are chosen, on labelled images best by :meth:`tune`.

    Parameters
    ----------
    n_iter : int, default=10
        Number of mean-field iterations.
    spatial_weight : float, default=3
        Weight of the spatial kernel, which removes small regions; 0 leaves it out.
    spatial_sigma : float or sequence of float, one per spatial axis, default=3
        Its width in pixels. Several say how anisotropic the spacing is.
    appearance_weight : float, default=10
        Weight of the appearance kernel, which joins pixels that are near and alike; 0 leaves it out, and so does an
        image without channels.
    appearance_sigma : float or sequence of float, one per spatial axis, default=80
        Its width in pixels.
    color_sigma : float, sequence of float, one per channel, or None, default=None
        Its width in values of the image. None is 13 if the image holds whole numbers from 0 to 255, as those of 8 bits
        do, in whatever dtype, and else a quarter of the standard deviation of its values, within channels. After a
        :class:`dconv.PixelClassifier` that of the images it was fitted to holds.
    compatibility : None or array_like of shape (n_classes, n_classes), default=None
        The cost of class i beside class j, symmetric, times the weight of a kernel. None is the Potts model: 0 for
        one class, 1 for two different ones, so ``1 - numpy.eye(n_classes)`` is the same.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    channel_axis : int or None, default=None
        Axis of one image that holds its channels. None: the last, where an image has one axis more than pixels have.
    n_jobs : int or None, default=None
        Number of threads. None and -1 are as many as there are physical cores for this process, or what
        ``OMP_NUM_THREADS`` says, as in joblib's worker processes; 1 in joblib's threads.
    verbose : int or bool, default=0
        1 prints the largest change of a probability after each iteration.

    See Also
    --------
    dconv.PixelClassifier : Where probabilities come from.

    Notes
    -----
    With unary energies u = -log p, kernels k with Gaussian matrices K, weights w and compatibility m, an iteration is

    ``Q_i = softmax_c(-u_ic - sum_k w_k sum_d m_cd sum_j (N K N)_ij Q_jd)``, N being ``1 / sqrt(K 1)``

    [1]_. The Gaussians are those of permutohedral lattices [2]_: a blur on the corners of simplices, in time that grows
    with the pixels, not with their square. On tiny images probabilities so differ from those with exact Gaussians by
    0.01 in the mean, and up to 0.1. The result is that of pydensecrf, up to rounding, which counts only where features
    lie on the border of two simplices, as those of a grid may in 3-D with whole widths. A matrix is of costs there as
    here, but a single number is what a class earns, as our weights are: ``compat=3`` is ``spatial_weight=3``.

    A result does not depend, by a bit, on the number of threads. Calls release the GIL.

    An image too large for memory is refined in blocks by :func:`dconv.predict_blocks` and
    :func:`dconv.distributed.predict`, of an estimator with `refine`. A block is refined together with the pixels
    around it, as many as three `appearance_sigma`, and ten `spatial_sigma` at least, on lattices that are parts of
    those of the whole image. What lies farther away is not seen; docs/scaling.md says how much that changes.

    A CRF can also hurt: objects thinner than `spatial_sigma`, or of the colour of what is around them, may vanish.

    References
    ----------
    .. [1] P. Kraehenbuehl and V. Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials",
       NIPS 2011, arXiv:1210.5644.
    .. [2] A. Adams, J. Baek and M. A. Davis, "Fast high-dimensional filtering using the permutohedral lattice",
       Eurographics 2010, doi:10.1111/j.1467-8659.2009.01645.x.
    .. [3] L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy and A. L. Yuille, "Semantic image segmentation with deep
       convolutional nets and fully connected CRFs", ICLR 2015, arXiv:1412.7062.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import DenseCRF
    >>> image = np.zeros((40, 40), np.uint8)
    >>> image[:, 20:] = 200
    >>> right = np.random.default_rng(0).uniform(0.2, 0.7, size=(40, 40))  # of both halves, with much noise,
    >>> right[:, 20:] += 0.1  # and the right one hardly brighter
    >>> probabilities = np.stack([1 - right, right], axis=-1)
    >>> refined = DenseCRF(n_iter=5).refine(image, probabilities)
    >>> truth = np.arange(40) >= 20
    >>> np.mean((right > 0.5) == truth).round(2), np.mean((refined[..., 1] > 0.5) == truth).round(2)
    (np.float64(0.6), np.float64(1.0))
    """

    def __init__(
        self,
        *,
        n_iter: int = 10,
        spatial_weight: float = 3,
        spatial_sigma: float | Sequence[float] = 3,
        appearance_weight: float = 10,
        appearance_sigma: float | Sequence[float] = 80,
        color_sigma: float | Sequence[float] | None = None,
        compatibility: ArrayLike | None = None,
        ndim: int = 2,
        channel_axis: int | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_iter = n_iter
        self.spatial_weight = spatial_weight
        self.spatial_sigma = spatial_sigma
        self.appearance_weight = appearance_weight
        self.appearance_sigma = appearance_sigma
        self.color_sigma = color_sigma
        self.compatibility = compatibility
        self.ndim = ndim
        self.channel_axis = channel_axis
        self.n_jobs = n_jobs
        self.verbose = verbose

    def refine(
        self,
        image: ArrayLike | None,
        probabilities: ArrayLike,
        *,
        kernels: Sequence = (),
        callback: Callback | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Return refined probabilities.

        Parameters
        ----------
        image : array_like, list of array_like or None
            One image, a batch or a list of images, real and finite, of any dtype and number of channels. None, or an
            image with an axis of no channels, leaves the spatial kernel alone.
        probabilities : array_like of shape (*spatial, n_classes), with (n_images,) in front for a batch, or list
            Of each pixel, adding up to 1 within 1e-3. What is below 1e-5 is taken for 1e-5.
        kernels : sequence of (features, weight) or (features, weight, compatibility), default=()
            More pairwise kernels: ``weight * exp(-|f_i - f_j|^2 / 2)`` for features f of shape (*spatial, n_features),
            divided by their widths; a batch or list of them where there are several images. `compatibility` is as in
            the class.
        callback : callable, default=None
            Called as ``callback(iteration, change, probabilities)`` after every iteration, from 1, with the largest
            change of a probability, and the probabilities, which it must copy to keep. What is true ends the
            iterations.

        Returns
        -------
        refined : ndarray of shape (*spatial, n_classes), with (n_images,) in front for a batch, or list
            float32, in the form of `probabilities`.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used.
        MemoryError
            If the machine has less memory than would be needed, before it is taken.
        """
        return self._refine(image, probabilities, kernels, callback, "probabilities")

    def refine_unary(
        self, image: ArrayLike | None, unary: ArrayLike, *, kernels: Sequence = (), callback: Callback | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Return refined probabilities from energies.

        Parameters
        ----------
        image : array_like, list of array_like or None
            As in :meth:`refine`.
        unary : array_like of shape (*spatial, n_classes), with (n_images,) in front for a batch, or list
            What each class costs at each pixel: -log of its probability, up to a number that may differ from pixel to
            pixel; so minus the scores of a classifier will do.
        kernels, callback
            As in :meth:`refine`.

        Returns
        -------
        refined : ndarray of shape (*spatial, n_classes), with (n_images,) in front for a batch, or list
            float32, in the form of `unary`.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As in :meth:`refine`.
        """
        return self._refine(image, unary, kernels, callback, "unary")

    def prepare(self, image: ArrayLike, *, kernels: Sequence = ()) -> PreparedCRF:
        """Return this CRF on one image: what is refined more than once on it is so in less time.

        Parameters
        ----------
        image : array_like
            One image, as in :meth:`refine`.
        kernels : sequence of tuple, default=()
            As in :meth:`refine`.

        Returns
        -------
        prepared : PreparedCRF
            Has the methods ``refine(probabilities)`` and ``refine_unary(unary)``. Later changes of parameters do not
            reach it.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As in :meth:`refine`.
        """
        ndim, channel_axis = as_axes(self.ndim, self.channel_axis)
        listed = as_kernel_list(kernels, None)
        return PreparedCRF(self, as_image(image, ndim, channel_axis, "image"), listed, 0, "image")

    def tune(
        self,
        images: ArrayLike | None,
        probabilities: ArrayLike,
        labels: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        ignore_label: int | None = 0,
        param_grid: Mapping[str, Sequence] | Sequence[Mapping[str, Sequence]] | None = None,
    ) -> Tuning:
        """Return the parameters that serve labelled images best; it may be best to use no CRF.

        Parameters
        ----------
        images, probabilities
            As in :meth:`refine`. Probabilities should be of images that their classifier has not learnt from, as by
            cross-validation: it is surer of others than it should be.
        labels : array_like of int or list of array_like
            A label image for each.
        classes : array_like of shape (n_classes,), default=None
            The label of each column of `probabilities`, such as ``PixelClassifier.classes_``. None takes those in
            `labels`, sorted.
        ignore_label : int or None, default=0
            The value in `labels` that means "not labelled"; None if every pixel counts.
        param_grid : dict or list of dict, default=None
            Lists of values by parameter, as for :class:`sklearn.model_selection.GridSearchCV`. None tries 24: two
            values of both weights and of `appearance_sigma`, and three of `color_sigma`: the default for all images
            together, and 5 / 13 and 30 / 13 of it.

        Returns
        -------
        tuning : Tuning
            A named tuple: `crf`, the best one, whose weights are 0 if none is; `score`, its mean intersection over
            union; `score_without`, that without a CRF; `results`, all parameters with scores, best first.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As in :meth:`refine`, and if labels do not fit.
        """
        return tune(self, images, probabilities, labels, classes, ignore_label, param_grid)

    def _for_images(self, images: Sequence[Any]) -> Self:
        """Return a copy that takes all images, channels last, as it does these together."""
        return (
            clone(self) if self.color_sigma is not None else clone(self).set_params(color_sigma=color_sigma_of(images))
        )

    def _part_overlap(self, ndim: int) -> Margin:
        """Return the pixels around a part of an image with which it is refined nearly as in the whole."""
        return part_overlap(self, ndim)

    def _refine_part(
        self, image: np.ndarray, probabilities: np.ndarray, start: tuple[int, ...], n_jobs: int
    ) -> np.ndarray:
        """Return the probabilities of a part, of shape (*spatial, n_classes), of an image that begins at `start`,
        refined on lattices that are parts of those of the whole. Channels are last.
        """
        ndim = probabilities.ndim - 1
        _, (pair,) = as_pairs(image, probabilities, ndim, -1, "probabilities")
        prepared = PreparedCRF(clone(self).set_params(n_jobs=n_jobs), pair.image, [], 0, "image", start)
        return prepared._run(pair, None, True)

    def _refine(
        self, image: Any, values: Any, kernels: Sequence, callback: Callback | None, name: str
    ) -> np.ndarray | list[np.ndarray]:
        ndim, channel_axis = as_axes(self.ndim, self.channel_axis)
        check_callback(callback)  # before lattices are built, too
        kind, pairs = as_pairs(image, values, ndim, channel_axis, name)
        for pair in pairs:
            as_compatibility(self.compatibility, pair.values.shape[-1], "compatibility")
        listed = as_kernel_list(kernels, None if kind == "image" else len(pairs))
        results = []
        for index, pair in enumerate(pairs):
            prepared = PreparedCRF(self, pair.image, listed, index, kind)
            results.append(prepared._run(pair, callback, name == "probabilities"))
        if kind == "batch":
            return np.stack(results)
        return results if kind == "list" else results[0]
