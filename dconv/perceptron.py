"""PerceptronClassifier: a multi-layer perceptron that few rows do not lead astray."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from dconv._axes import as_int, items_of
from dconv._random_state import as_random_state
from dconv._row_classifier import RowClassifier
from dconv._threads import scikit_learn_alone

_BATCH_SIZE = 200  # scikit-learn's own, or all rows if there are fewer
_FEW_ROWS = 1000  # to which the prior has its whole strength
_LEAST_BATCHES = 10  # of an epoch as `max_iter` counts: against a strong prior few changes of weights teach nothing


class PerceptronClassifier(RowClassifier):
    """scikit-learn's MLPClassifier, with a penalty on weights that suits the number of rows, and epochs that do.

    Its `alpha` is added to the loss of every batch, however many rows there are, so that the right one for some
    thousand rows is far too small for some hundred. Here the penalty is a prior, the stronger the more features there
    are, which up to 1000 rows have to live with and more overrule; but not without end, as rows are pixels, and of very
    many most are like others. Fewer rows are gone through more often, lest the weights are hardly changed.

    What few rows have taught is also less sure than the network says, above all of images that it has not seen. So its
    last layer is shrunk: where there are `n` rows of a class, logits are multiplied by ``n / (n + doubt)``. That
    changes no label, but how sure the network is, and so what it weighs beside others in a vote.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(64,)
        Units of each hidden layer; an int is one layer.
    weight_decay : float, default=0.004
        The strength of the prior of a feature: with `d` features half of ``weight_decay * d`` times the squared weights
        is added to the mean loss of rows, if they are 1000 or fewer. With `n` more that is multiplied by
        ``(1000 / n)**2``.
    alpha : float, default=0.3
        The least penalty: half of it times the squared weights is added to the loss of every batch of 200 rows. With
        few rows the prior is stronger, and a smaller `alpha` changes nothing.
    doubt : float, default=100.0
        Number of rows of a class, the mean of all classes, that halve the logits; 0 leaves them as they were learnt. A
        row of weight 2 is two, one of weight 0 none; smaller weights all together do not make rows fewer.
    max_iter : int, default=30
        Number of epochs, of 10 batches at least: of fewer than 1801 rows, which make fewer batches, there are as many
        more.
    random_state : int, RandomState instance or None, default=None
        Draws the first weights and the batches.

    Attributes
    ----------
    network_ : MLPClassifier
        The fitted network, its last layer shrunk.
    n_iter_ : int
        Epochs of the last call.
    classes_ : ndarray of shape (n_classes,)
        The labels seen at fit.
    n_features_in_ : int
        Number of features seen at fit.

    See Also
    --------
    dconv.default_classifier : Where it is used, on features scaled by SoftClipScaler.

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import PerceptronClassifier
    >>> x = np.random.default_rng(0).normal(size=(200, 4))
    >>> y = x[:, 0] > 0
    >>> few, many = (PerceptronClassifier(random_state=0).fit(np.tile(x, (n, 1)), np.tile(y, n)) for n in (1, 100))
    >>> few.network_.alpha, many.network_.alpha
    (3.2, 0.3)
    >>> few.n_iter_
    300
    """

    _n_rows: int  # of the largest call
    _n_seen: float  # rows by their weights, likewise
    _sureness: float  # what the last layer is multiplied by

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (64,),
        *,
        weight_decay: float = 0.004,
        alpha: float = 0.3,
        doubt: float = 100.0,
        max_iter: int = 30,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.weight_decay = weight_decay
        self.alpha = alpha
        self.doubt = doubt
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features, of about one scale.
        y : array_like of shape (n_samples,)
            Labels.
        sample_weight : array_like of shape (n_samples,), default=None
            Weights of rows.

        Returns
        -------
        self : PerceptronClassifier

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter cannot be used.
        """
        weighting = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self._learn(X, y, weighting, goes_on=False, classes=None)

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, classes: ArrayLike | None = None
    ) -> Self:
        """Go on training, for one epoch; after `fit`, or from the start.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features: of new rows, or better of old ones too, lest they are forgotten. The prior counts once for the
            rows of the largest call.
        y : array_like of shape (n_samples,)
            Labels.
        sample_weight : array_like of shape (n_samples,), default=None
            Weights of rows.
        classes : array_like of shape (n_classes,), default=None
            All labels that will ever be seen; only the first call needs them, and they cannot change.

        Returns
        -------
        self : PerceptronClassifier

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter cannot be used.
        """
        weighting = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self._learn(X, y, weighting, goes_on=True, classes=classes)

    def _learn(self, X: Any, y: Any, weighting: dict[str, Any], goes_on: bool, classes: Any) -> Self:
        for name in ("weight_decay", "alpha", "doubt"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
                raise ValueError(f"{name} must be a finite number, 0 or more, got {value!r}")
        as_int(self.max_iter, "max_iter", 1)
        as_random_state(self.random_state)
        layers = items_of(self.hidden_layer_sizes)  # None of one number, which scikit-learn takes for one layer
        for size in (self.hidden_layer_sizes,) if layers is None else layers:
            as_int(size, "hidden_layer_sizes", 1, rule="an int or a sequence of ints")
        first = not (goes_on and hasattr(self, "network_"))
        if first and goes_on and classes is None:
            raise ValueError("the first partial_fit needs classes: all labels that will ever be seen")
        # The number of epochs is a choice, and so no reason for a warning that the network has not converged. Matrices
        # this small are multiplied faster by one thread of BLAS: several wait for each other.
        with scikit_learn_alone(), threadpool_limits(1, "blas"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            rows, labels = validate_data(self, X, y, reset=first)
            check_classification_targets(labels)
            known = np.unique(labels) if classes is None else np.unique(np.asarray(classes))
            if first and len(known) < 2:
                owner = "y holds" if classes is None else "classes hold"
                raise ValueError(f"{owner} one class, {known[0]}, but a classifier needs two")
            before = known if first else self.network_.classes_
            if classes is not None and not np.array_equal(known, before):
                raise ValueError(
                    f"classes are {known.tolist()}, but {before.tolist()} at the first call; leave them out, or start "
                    "anew with a new classifier"
                )
            weighting = {name: _check_sample_weight(weights, rows) for name, weights in weighting.items()}
            batch = min(_BATCH_SIZE, len(rows))
            n_rows = len(rows) if first else max(len(rows), self._n_rows)
            n_batches = -(-len(rows) // batch)
            n_epochs = -(-self.max_iter * _LEAST_BATCHES // min(n_batches, _LEAST_BATCHES))
            network = self.network_ if not first else MLPClassifier(self.hidden_layer_sizes, max_iter=n_epochs)
            prior = float(self.weight_decay) * rows.shape[1] * min(1.0, (_FEW_ROWS / n_rows) ** 2)
            of_batch = batch * float(np.mean(weighting.get("sample_weight", 1.0)))  # what scikit-learn divides alpha by
            network.set_params(
                alpha=max(float(self.alpha), prior * of_batch),
                batch_size=batch,
                **({"random_state": self.random_state} if first else {}),
            )
            if not first:
                _scale_last_layer(network, 1 / self._sureness)
            try:
                if goes_on:
                    network.partial_fit(rows, labels, **weighting, **({"classes": known} if first else {}))
                else:
                    network.fit(rows, labels, **weighting)
            except ValueError:
                if not first:
                    _scale_last_layer(network, self._sureness)
                raise
            n_seen = max(_n_seen(rows, weighting), 0 if first else self._n_seen)
            per_class = n_seen / len(known)
            sureness = per_class / (per_class + float(self.doubt))
            _scale_last_layer(network, sureness)
        self.network_: Any = network
        self._n_rows, self._n_seen, self._sureness = n_rows, n_seen, sureness
        self.classes_, self.n_iter_ = network.classes_, network.n_iter_
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probabilities of classes.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ValueError
            If the rows are no finite numbers, or have other features than at fit.
        """
        check_is_fitted(self)
        with scikit_learn_alone():
            return self.network_.predict_proba(validate_data(self, X, reset=False))


def _n_seen(rows: np.ndarray, weighting: dict[str, Any]) -> float:
    """Return how many rows there are by their weights, whose scale is no matter unless they stand for repeated rows."""
    for weights in weighting.values():
        return max(float(weights.sum()), float(np.count_nonzero(weights)))
    return float(len(rows))


def _scale_last_layer(network: MLPClassifier, factor: float) -> None:
    """Multiply the logits of a network, in place, since its optimizer goes on with these arrays."""
    for parameters in (network.coefs_[-1], network.intercepts_[-1]):
        parameters *= factor
