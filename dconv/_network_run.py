"""Networks as functions of tiles, and the predictors and scorers that they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np

from dconv import _memory
from dconv._affine import Affine, SoftClip
from dconv._kernels import _network as kernel
from dconv._network import Network
from dconv._network_tables import tables_of
from dconv._predictor import check_tile

# Pixels that pass through all layers together: what a layer of 100 units writes for them is 75 KiB, which stays in the
# L2 cache. Between 48 and 384 pixels no difference could be measured; with 24 beginning a layer takes 5 % of the time,
# with 768 the layers leave the cache. Tiles may therefore be of any size; a call takes 6 microseconds, which no longer
# show from 2048 pixels on. The kernel wants a multiple of ROW_UNIT.
_PIECE = 192

Run = Callable[[np.ndarray, np.ndarray], None]  # tile (n, features), out (n, outputs)


def compile_network(network: Network, level: str | None = None) -> Run:
    """Return `network` as a function of tiles that several threads may call at once.

    `level` is a CPU level of :func:`dconv._kernels._dispatch.supported_levels`; None is the active one.
    """
    centre, scale, layers, weights, biases, offsets = tables_of(network, level)
    size, n_planes = _whole(_PIECE * int(layers[:, [0, 2]].max())), _PIECE * network.n_outputs

    def run(tile: np.ndarray, out: np.ndarray) -> None:
        scratch, planes = _memory.empty((2, size), weights.dtype), _memory.empty((n_planes,), np.dtype(np.float32))
        kernel.network_rows(
            tile, centre, network.squares, scale, layers, weights, biases, offsets, network.normalise, network.floor,
            out, scratch, planes, _PIECE, level,
        )  # fmt: skip

    return run


def _whole(size: int) -> int:
    """Return how many numbers scratch for `size` must have: the kernel works on whole vectors."""
    return -(-size // kernel.ROW_UNIT) * kernel.ROW_UNIT


class _Compiled:
    """A network with the classes that its answers are for."""

    def __init__(self, classes: np.ndarray, network: Network) -> None:
        self.classes_, self.n_features_in_ = classes, network.n_features
        self._network, self._run = network, compile_network(network)

    def _answer(self, tile: np.ndarray, out: np.ndarray) -> None:
        check_tile(tile, self.n_features_in_, out, self._network.n_outputs)
        self._run(tile, out)

    def after(self, step: Affine | SoftClip) -> Self:
        """Return the same of what `step` gives."""
        return type(self)(self.classes_, self._network.after(step))

    def __reduce__(self) -> tuple:
        return type(self), (self.classes_, self._network)  # packed anew: another CPU may have other vectors


class NetworkPredictor(_Compiled):
    """A network that gives probabilities: a :class:`dconv._predictor.Predictor`."""

    def predict_proba(self, tile: np.ndarray, out: np.ndarray) -> None:
        self._answer(tile, out)


class NetworkScorer(_Compiled):
    """A network that gives scores: a :class:`dconv._predictor.Scorer`."""

    def __init__(self, classes: np.ndarray, network: Network) -> None:
        super().__init__(classes, network)
        self.n_scores = network.n_outputs

    def decision_function(self, tile: np.ndarray, out: np.ndarray) -> None:
        self._answer(tile, out)
