"""A fully connected CRF on one image: lattices that are built once, and refine any number of times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int
from dconv._crf_embedding import Features
from dconv._crf_inference import Report, mean_field
from dconv._crf_input import (
    Pair,
    as_compatibility,
    as_kernels,
    as_pairs,
    check_callback,
    check_n_features,
    default_kernels,
    to_3d,
)
from dconv._crf_lattice import Lattice
from dconv._threads import effective_n_jobs, effective_n_threads
from dconv._validation import Kind

Callback = Callable[[int, float, np.ndarray], object]


class PreparedCRF:
    """A CRF on one image, made by :meth:`dconv.DenseCRF.prepare`: its lattices are built once.

    Attributes
    ----------
    n_vertices_ : int
        Vertices of all lattices: what the time of an iteration and memory grow with, beside the pixels.
    """

    def __init__(
        self,
        crf: Any,
        image: np.ndarray,
        kernels: list,
        index: int,
        kind: Kind,
        start: tuple[int, ...] = (),
    ) -> None:
        self._n_iter = as_int(crf.n_iter, "n_iter", 0)
        self._verbose = crf.verbose if isinstance(crf.verbose, bool) else as_int(crf.verbose, "verbose", 0)
        self._n_threads = effective_n_threads(effective_n_jobs(crf.n_jobs))
        self._spatial = image.shape[:-1]
        described = [
            (each, crf.compatibility, "compatibility")
            for each in default_kernels(crf, image, start or (0,) * (image.ndim - 1))
        ]
        described += [
            (each, compatibility, f"the compatibility of {each.name}")
            for each, compatibility in as_kernels(kernels, index, kind, len(self._spatial), self._spatial)
        ]
        described = [each for each in described if each[0].weight > 0]
        features = [each for each, _, _ in described]
        self._compatibilities = [(costs, name) for _, costs, name in described]
        check_n_features(features)
        if not features:  # iterations change nothing, and any lattice will do
            self._n_iter = 0
            features = [Features("no kernel", (1e3,) * len(self._spatial), to_3d(image[..., :0]), (), 1.0, "")]
            self._compatibilities = [(None, "")]
        sizes = (1,) * (3 - len(self._spatial)) + self._spatial
        self._lattice = Lattice(features, sizes, len(self._spatial), self._n_threads)
        self.n_vertices_ = self._lattice.first_vertices[-1]

    def refine(self, probabilities: ArrayLike, *, callback: Callback | None = None) -> np.ndarray:
        """Return refined probabilities, as :meth:`dconv.DenseCRF.refine` does.

        Parameters
        ----------
        probabilities : array_like of shape (*spatial, n_classes)
            Of the pixels of the image.
        callback : callable, default=None
            As there.

        Returns
        -------
        refined : ndarray of shape (*spatial, n_classes)
        """
        return self._run(self._pair(probabilities, "probabilities"), callback, True)

    def refine_unary(self, unary: ArrayLike, *, callback: Callback | None = None) -> np.ndarray:
        """Return refined probabilities from energies, as :meth:`dconv.DenseCRF.refine_unary` does.

        Parameters
        ----------
        unary : array_like of shape (*spatial, n_classes)
            Of the pixels of the image.
        callback : callable, default=None
            As there.

        Returns
        -------
        refined : ndarray of shape (*spatial, n_classes)
        """
        return self._run(self._pair(unary, "unary"), callback, False)

    def _pair(self, values: Any, name: str) -> Pair:
        ndim = len(self._spatial)
        kind, pairs = as_pairs(None, values, ndim, None, name)
        if kind != "image" or pairs[0].image.shape[:-1] != self._spatial:
            found = pairs[0].values.shape if kind == "image" else f"those of a {kind} of {len(pairs)} image(s)"
            raise ValueError(
                f"{name} must be those of the one image of prepare, of shape {self._spatial} and last an axis of "
                f"classes, but got {found}"
            )
        return pairs[0]

    def _run(self, pair: Pair, callback: Callback | None, are_probabilities: bool) -> np.ndarray:
        check_callback(callback)
        n_classes = pair.values.shape[-1]
        q = mean_field(
            self._lattice,
            pair.values.reshape(-1, n_classes),
            are_probabilities=are_probabilities,
            matrices=[as_compatibility(each, n_classes, name) for each, name in self._compatibilities],
            n_iter=self._n_iter,
            report=self._report(callback, pair),
            n_threads=self._n_threads,
            name=pair.name,
        )
        return q.reshape(pair.values.shape)

    def _report(self, callback: Callback | None, pair: Pair) -> Report | None:
        """Return what is called after every iteration, or None, which is faster."""
        if callback is None and not self._verbose:
            return None

        def report(iteration: int, change: float, q: np.ndarray) -> bool:
            if self._verbose:
                print(f"[DenseCRF] {pair.name}: iteration {iteration}, largest change {change:.2g}")
            return callback is not None and bool(callback(iteration, change, q.reshape(pair.values.shape)))

        return report
