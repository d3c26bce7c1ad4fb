"""What a fitted classifier answers, as functions that several threads can call at once.

A classifier that :mod:`dconv.predictors` can compile answers in its compiled form, from all threads at once. Any other
is called by one thread at a time (:func:`dconv._threads.scikit_learn_alone` says why), while others
compute features. Many bring threads of their own (BLAS, OpenMP), which then do not compete.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.special
from sklearn import config_context, get_config
from sklearn.pipeline import Pipeline

from dconv._kernels._network import all_finite
from dconv._threads import scikit_learn_alone
from dconv.predictors import Predictor, Scorer, answer_of, compiled_or_none, predict

Respond = Callable[[np.ndarray], np.ndarray]  # float32 rows of shape (n_pixels, n_features) -> answers


def response_of(classifier: Any, method: str) -> Respond:
    """Return `method` ("predict", "predict_proba", ...) of a fitted classifier, safe to call from several threads.

    The answers are those of the classifier itself, in float32 where it is compiled. "predict_entropy" is made from
    "predict_proba". The scikit-learn configuration is that of the thread here.
    """
    return _response_of(classifier, method, get_config())


def _response_of(classifier: Any, method: str, config: dict[str, Any]) -> Respond:
    if method == "predict_entropy":
        proba = _response_of(classifier, "predict_proba", config)
        return lambda rows: entropy_of(proba(rows))
    compiled, own = compiled_or_none(classifier, method), partial(_own_response, classifier, method, config)
    return own() if compiled is None else partial(_compiled_answers, compiled, method, own)


class Responder:
    """What :func:`response_of` returns, made when it is first called: it can be sent to other processes."""

    def __init__(self, classifier: Any, method: str) -> None:
        self._classifier, self._method = classifier, method
        self._respond: Respond | None = None
        self._making = threading.Lock()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        with self._making:
            if self._respond is None:
                self._respond = response_of(self._classifier, self._method)
        return self._respond(rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Responder, (self._classifier, self._method)


def _compiled_answers(
    compiled: Predictor | Scorer, method: str, own: Callable[[], Respond], rows: np.ndarray
) -> np.ndarray:
    rows = np.ascontiguousarray(rows, np.float32)
    if not all_finite(rows):
        return own()(rows)  # which refuses such values, or knows what they mean
    if method == "predict":
        return predict(compiled, rows)
    answer = answer_of(compiled, rows)
    return answer[:, 0] if method == "decision_function" and answer.shape[1] == 1 else answer


def _own_response(classifier: Any, method: str, config: dict[str, Any]) -> Respond:
    """Return a method of the classifier itself."""
    if isinstance(classifier, Pipeline) and len(classifier.steps) > 1:
        prepare = _one_at_a_time(classifier[:-1].transform, config)
        respond = _response_of(classifier[-1], method, config)
        return lambda rows: respond(prepare(rows))
    respond = _one_at_a_time(getattr(classifier, method), config)
    if method == "predict":
        return lambda rows: np.asarray(respond(rows)).reshape(len(rows))  # CatBoost's labels are in a column
    return respond


def with_prior(respond: Respond, factors: np.ndarray, method: str, classes: np.ndarray) -> Respond:
    """Return `method` of what `respond` says of probabilities, corrected."""

    possible = (factors > 0).astype(np.float32)

    def corrected(rows: np.ndarray) -> np.ndarray:
        probabilities = respond(rows) * factors
        total = probabilities.sum(axis=1, keepdims=True)
        np.divide(probabilities, total, out=probabilities, where=total > 0)
        # Where the classifier is sure of a class that cannot be, all that can are alike.
        probabilities[total[:, 0] == 0] = possible / possible.sum()
        if method == "predict":
            return classes.take(probabilities.argmax(axis=1))
        return entropy_of(probabilities) if method == "predict_entropy" else probabilities

    return corrected


def entropy_of(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of each row, in bits."""
    return scipy.special.entr(probabilities).sum(axis=-1) / np.log(2)


def _one_at_a_time(function: Respond, config: dict[str, Any]) -> Respond:
    """Return `function` for one thread at a time, run with a scikit-learn configuration."""

    def alone(rows: np.ndarray) -> np.ndarray:
        with scikit_learn_alone(), config_context(**config):
            return function(rows)

    return alone
