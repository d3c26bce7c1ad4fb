"""Networks: affine maps of a pixel's features with activations between, in float64, before they are compiled.

A linear classifier is a network of one layer, a perceptron one of several, a quadratic discriminant one of two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dconv._affine import Affine, SoftClip, then
from dconv._kernels._network import IDENTITY
from dconv._predictor import NotCompilable


@dataclass(frozen=True)
class Layer:
    """An affine map and one of the activations of dconv/_kernels/_network.pyx."""

    affine: Affine
    activation: int = IDENTITY


@dataclass(frozen=True)
class Network:
    """Layers that a pixel passes, one after another."""

    layers: tuple[Layer, ...]
    normalise: bool = False  # divide what the last layer gives by its sum, as after SOFTMAX must be
    clip: SoftClip | None = None  # what features pass before the first layer
    squares: bool = False  # the first layer sees the centred features and beside them their squares, in float64
    double: bool = False  # compute in float64
    wide: bool = False  # compute in float64 where nothing is known of the features: so does the classifier
    floor: float = -np.inf  # with a normalised LOGISTIC: a pixel whose largest score is smaller is left undecided

    @property
    def n_features(self) -> int:
        return self.layers[0].affine.weight.shape[1] // (2 if self.squares else 1)

    @property
    def n_outputs(self) -> int:
        return len(self.layers[-1].affine.bias)

    def after(self, step: Affine | SoftClip) -> Network:
        """Return the network that takes what `step` takes."""
        if self.clip is not None:
            raise NotCompilable("a step in front of a soft clip cannot be folded into it")
        if isinstance(step, SoftClip):
            if self.squares:
                raise NotCompilable("a soft clip cannot be folded into squares of features")
            return replace(self, clip=step)
        affine = step
        first, *others = self.layers
        if self.squares:
            return replace(self, layers=(replace(first, affine=_squares_after(affine, first.affine)), *others))
        return replace(self, layers=(Layer(affine), *self.layers))

    def merged(self) -> tuple[Layer, ...]:
        """Return the layers, those without an activation folded into the next one.

        Not where that takes more multiply-adds: a projection from 98 to 10 features in front of 64 units is cheaper
        as it is.
        """
        merged: list[Layer] = []
        for layer in self.layers:
            if merged and merged[-1].activation == IDENTITY:
                both = then(merged[-1].affine, layer.affine)
                if both.weight.size <= merged[-1].affine.weight.size + layer.affine.weight.size:
                    merged[-1] = Layer(both, layer.activation)
                    continue
            merged.append(layer)
        return tuple(merged)


def _squares_after(affine: Affine, quadratic: Affine) -> Affine:
    """Return a map of centred features and their squares of what `affine` gives, as one of what it takes.

    It may scale and select features, but not mix them.
    """
    used = affine.weight != 0
    if (used.sum(axis=1) != 1).any() or (used.sum(axis=0) > 1).any():
        raise NotCompilable("a projection cannot be folded into squares of features")
    n = len(affine.bias)
    linear, square = quadratic.weight[:, :n], quadratic.weight[:, n:]
    weight = np.hstack([linear @ affine.weight, square @ affine.weight**2])
    inverse = np.divide(1, affine.weight, out=np.zeros_like(affine.weight), where=used).T
    moved = (0 if quadratic.centre is None else quadratic.centre) - affine.bias
    return Affine(weight, quadratic.bias, (0 if affine.centre is None else affine.centre) + inverse @ moved)
