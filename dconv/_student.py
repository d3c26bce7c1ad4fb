"""The small network that learns from probabilities, and not from labels: trained here, used as scikit-learn's.

What is minimised is the cross-entropy between the wanted probabilities and the network's, by Adam on batches of rows in
random order. Its rate falls to zero, step by step: a network that stops while the rate is high has the noise of its
last batches in it, which costs its ranking of pixels more than the features that it does without. Rows have noise added
each time they are seen, so that the network says the like of rows beside them: on images that it has not seen, and of
teachers that learnt from few labels, it does better so than by answering exactly as the teacher does.

References: D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980, 2014; C. M. Bishop,
"Training with noise is equivalent to Tikhonov regularization", Neural Computation 7(1), 1995,
doi:10.1162/neco.1995.7.1.108; X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
networks", AISTATS 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.special import expit, softmax
from sklearn.neural_network import MLPClassifier

_EPOCHS = 15  # 40 gained nothing that could be seen in average precision
_LEAST_STEPS = 2000  # few rows are gone through more often
_BATCH = 256
_RATE = 2e-3
_DECAYS = 0.9, 0.999  # of the means of gradients and of their squares
_SMALLEST = 1e-8  # root of a mean square that is divided by
_NOISE = np.float32(0.2)  # standard deviation

Layers = list[tuple[np.ndarray, np.ndarray]]  # weight (inputs, outputs) and bias of each


def train(
    rows: np.ndarray,
    wanted: np.ndarray,
    classes: np.ndarray,
    hidden: Sequence[int],
    random_state: np.random.RandomState,
) -> MLPClassifier:
    """Return a perceptron with `hidden` units a layer that answers float32 `rows`, about 0 and of about 1, with the
    probabilities `wanted` (n_rows, n_classes).
    """
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    network = MLPClassifier(tuple(hidden), random_state=seed)
    # A step with each class once builds what belongs to a fitted network; then its weights are replaced.
    network.partial_fit(np.resize(rows[:1], (len(classes), rows.shape[1])), classes, classes=classes)
    rng = np.random.default_rng(seed)  # its normal numbers take a fifth of the time of a RandomState's
    layers = _descend(rows, wanted[:, 1:] if len(classes) == 2 else wanted, hidden, rng)
    network.coefs_, network.intercepts_ = ([each.copy() for each in part] for part in zip(*layers, strict=True))
    return network


def _descend(rows: np.ndarray, wanted: np.ndarray, hidden: Sequence[int], rng: np.random.Generator) -> Layers:
    """Return the layers of a network whose last one gives logits; one column of `wanted` is of two classes."""
    sizes = [rows.shape[1], *hidden, wanted.shape[1]]
    # Of all layers one after another: so a step is few operations.
    parameters, gradient, mean, square, change = np.zeros((5, sum((a + 1) * b for a, b in pairwise(sizes))), np.float32)
    layers, of_layers = _layers(parameters, sizes), _layers(gradient, sizes)
    for weight, bias in layers:
        bound = np.sqrt((2 if weight is layers[-1][0] else 6) / sum(weight.shape))
        for each in (weight, bias):
            each[...] = rng.uniform(-bound, bound, each.shape)
    n_batches = -(-len(rows) // _BATCH)
    n_epochs = max(_EPOCHS, -(-_LEAST_STEPS // n_batches))
    step, n_steps = 0, n_epochs * n_batches
    for _ in range(n_epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), _BATCH):
            batch = order[start : start + _BATCH]
            noisy = rng.standard_normal((len(batch), sizes[0]), np.float32)
            noisy *= _NOISE
            noisy += rows[batch]
            _differentiate(noisy, wanted[batch], layers, of_layers)
            mean += (1 - _DECAYS[0]) * (gradient - mean)
            gradient *= gradient
            square += (1 - _DECAYS[1]) * (gradient - square)
            step += 1
            unbiased = [1 - decay**step for decay in _DECAYS]
            np.sqrt(square / unbiased[1], out=change)
            np.divide(mean, change + _SMALLEST, out=change)
            change *= _RATE * (1 - (step - 1) / n_steps) / unbiased[0]
            parameters -= change
    return layers


def _layers(flat: np.ndarray, sizes: Sequence[int]) -> Layers:
    """Return the numbers of a network with layers of these sizes, inputs first, layer by layer."""
    layers: Layers = []
    for a, b in pairwise(sizes):
        weight, bias, flat = np.split(flat, [a * b, (a + 1) * b])
        layers.append((weight.reshape(a, b), bias))
    return layers


def _differentiate(rows: np.ndarray, wanted: np.ndarray, layers: Layers, gradient: Layers) -> None:
    """Write the gradient of the mean cross-entropy of a batch to `gradient`."""
    outputs = [rows]
    for number, (weight, bias) in enumerate(layers):
        output = outputs[-1] @ weight
        output += bias
        if number < len(layers) - 1:
            np.maximum(output, 0, out=output)
        outputs.append(output)
    logits = outputs.pop()
    back = (expit(logits) if wanted.shape[1] == 1 else softmax(logits, axis=1)) - wanted
    back /= len(rows)
    for (weight, _), (of_weight, of_bias), inputs in zip(
        reversed(layers), reversed(gradient), reversed(outputs), strict=True
    ):
        np.matmul(inputs.T, back, out=of_weight)
        back.sum(axis=0, out=of_bias)
        if inputs is not rows:
            back = back @ weight.T
            back *= inputs > 0
