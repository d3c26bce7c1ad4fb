"""Classifiers made of classifiers compiled, where their parts can be: pipelines, searches, votes, calibrations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline

from dconv._affine import Affine, SoftClip, map_of, then
from dconv._fitted import attribute, calibrations, classes, finite, refuse
from dconv._kernels._network import LOGISTIC, SOFTMAX
from dconv._network import Layer, Network
from dconv._network_run import compile_network
from dconv._predictor import NotCompilable, Predictor, Scorer, check_tile
from dconv.perceptron import PerceptronClassifier
from dconv.voting import AdaptiveVote

# Compiles a part: a classifier and the method that is wanted of it, "predict_proba" or "decision_function".
Compile = Callable[[Any, str], Any]


def _after(part: Any, step: Affine | SoftClip) -> Any:
    """Return a compiled part behind a step of a Pipeline."""
    if not hasattr(part, "after"):
        raise NotCompilable("a step can be folded into linear classifiers and networks only")
    return part.after(step)


def _pipeline(pipeline: Pipeline, method: str, compile_part: Compile) -> Any:
    steps: list[Affine | SoftClip] = []
    for _, step in pipeline.steps[:-1]:
        if step not in (None, "passthrough"):
            found = map_of(step)
            if steps and isinstance(found, Affine) and isinstance(steps[-1], Affine):
                steps[-1] = then(steps[-1], found)
            else:
                steps.append(found)
    return functools.reduce(_after, reversed(steps), compile_part(pipeline.steps[-1][1], method))


def _found(search: Any, method: str, compile_part: Compile) -> Any:
    return compile_part(attribute(search, "best_estimator_"), method)


def _frozen(frozen: FrozenEstimator, method: str, compile_part: Compile) -> Any:
    return compile_part(attribute(frozen, "estimator"), method)


def _network_of(classifier: PerceptronClassifier, method: str, compile_part: Compile) -> Any:
    return compile_part(attribute(classifier, "network_"), method)


class MeanPredictor:
    """The weighted mean of the probabilities of several predictors."""

    def __init__(self, classes: np.ndarray, parts: Sequence[Predictor], weights: np.ndarray) -> None:
        self.classes_, self.n_features_in_ = classes, parts[0].n_features_in_
        self._parts, self._weights = parts, (weights / weights.sum()).astype(np.float32)

    def predict_proba(self, tile: np.ndarray, out: np.ndarray) -> None:
        check_tile(tile, self.n_features_in_, out, len(self.classes_))
        part_out = np.empty_like(out)
        out[...] = 0
        for part, weight in zip(self._parts, self._weights, strict=True):
            part.predict_proba(tile, part_out)
            part_out *= weight
            out += part_out

    def after(self, step: Affine | SoftClip) -> Self:
        return type(self)(self.classes_, [_after(part, step) for part in self._parts], self._weights)


def _voting(classifier: VotingClassifier, method: str, compile_part: Compile) -> MeanPredictor:
    if classifier.voting != "soft" or method != "predict_proba":
        raise refuse(classifier, f"it has no {method} with voting={classifier.voting!r}")
    found, parts = classes(classifier), attribute(classifier, "estimators_")
    kept = [index for index, (_, part) in enumerate(classifier.estimators) if part != "drop"]
    weights = np.ones(len(parts))
    if classifier.weights is not None:
        weights = finite(classifier, "weights", classifier.weights, (len(classifier.estimators),))[kept]
    for part in parts:
        if not np.array_equal(classes(part), np.arange(len(found))):  # it is fitted on numbers of classes
            raise refuse(classifier, "a part of it knows other classes")
    return MeanPredictor(found, [compile_part(part, method) for part in parts], weights)


def _adaptive(vote: AdaptiveVote, method: str, compile_part: Compile) -> MeanPredictor:
    found, members = classes(vote), list(attribute(vote, "members_").values())
    if method != "predict_proba" or any(not np.array_equal(classes(member), found) for member in members):
        raise refuse(vote, f"it has no {method}, or a member of it knows other classes")
    return MeanPredictor(found, [compile_part(member, method) for member in members], np.ones(len(members)))


class CalibratedPredictor:
    """Probabilities from the scores, or the probabilities, of another classifier."""

    def __init__(self, classes: np.ndarray, base: Predictor | Scorer, calibration: Network) -> None:
        self.classes_, self.n_features_in_ = classes, base.n_features_in_
        self._base, self._calibration, self._run = base, calibration, compile_network(calibration)
        self._respond = base.decision_function if isinstance(base, Scorer) else base.predict_proba

    def predict_proba(self, tile: np.ndarray, out: np.ndarray) -> None:
        check_tile(tile, self.n_features_in_, out, len(self.classes_))
        scores = np.empty((len(tile), self._calibration.n_features), np.float32)
        self._respond(tile, scores)
        self._run(scores, out)

    def after(self, step: Affine | SoftClip) -> Self:
        return type(self)(self.classes_, _after(self._base, step), self._calibration)

    def __reduce__(self) -> tuple:
        return type(self), (self.classes_, self._base, self._calibration)


def _calibrated(classifier: CalibratedClassifierCV, method: str, compile_part: Compile) -> MeanPredictor:
    found, parts = classes(classifier), []
    for estimator, sigmoids in calibrations(classifier):
        if not np.array_equal(classes(estimator), found):
            raise refuse(classifier, "a part of it has not seen all classes")
        of_scores = hasattr(estimator, "decision_function")
        slope, intercept = -np.array(sigmoids).T
        if len(found) == 2:  # the sigmoid is of the second class
            n_scores = 1 if of_scores else 2
            weight = np.zeros((2, n_scores))
            weight[1, -1:], bias, activation = slope, np.append(0, intercept), SOFTMAX
        else:
            weight, bias, activation = np.diag(slope), intercept, LOGISTIC
        calibration = Network((Layer(Affine(weight, bias), activation),), normalise=True)
        base = compile_part(estimator, "decision_function" if of_scores else method)
        parts.append(CalibratedPredictor(found, base, calibration))
    return MeanPredictor(found, parts, np.ones(len(parts)))


class OneVsRestPredictor:
    """The probabilities that each of several predictors of two classes gives to its second one, normalised."""

    def __init__(self, classes: np.ndarray, parts: Sequence[Predictor]) -> None:
        self.classes_, self.n_features_in_, self._parts = classes, parts[0].n_features_in_, parts

    def predict_proba(self, tile: np.ndarray, out: np.ndarray) -> None:
        check_tile(tile, self.n_features_in_, out, len(self.classes_))
        if len(self._parts) == 1:
            self._parts[0].predict_proba(tile, out)
            return
        both, total = np.empty((len(tile), 2), np.float32), np.zeros(len(tile), np.float32)
        for index, part in enumerate(self._parts):
            part.predict_proba(tile, both)
            out[:, index] = both[:, 1]
            total += both[:, 1]  # class after class: a sum over an axis takes another order for other shapes
        total[total == 0] = 1
        out /= total[:, np.newaxis]

    def after(self, step: Affine | SoftClip) -> Self:
        return type(self)(self.classes_, [_after(part, step) for part in self._parts])


class OneVsRestScorer:
    """The scores that each of several scorers of two classes gives to its second one."""

    def __init__(self, classes: np.ndarray, parts: Sequence[Scorer]) -> None:
        self.classes_, self.n_features_in_ = classes, parts[0].n_features_in_
        self.n_scores, self._parts = len(parts), parts

    def decision_function(self, tile: np.ndarray, out: np.ndarray) -> None:
        check_tile(tile, self.n_features_in_, out, self.n_scores)
        score = np.empty((len(tile), 1), np.float32)
        for index, part in enumerate(self._parts):
            part.decision_function(tile, score)
            out[:, index] = score[:, 0]

    def after(self, step: Affine | SoftClip) -> Self:
        return type(self)(self.classes_, [_after(part, step) for part in self._parts])


def _one_vs_rest(
    classifier: OneVsRestClassifier, method: str, compile_part: Compile
) -> OneVsRestPredictor | OneVsRestScorer:
    found, estimators = classes(classifier), attribute(classifier, "estimators_")
    if attribute(classifier, "multilabel_") or len(estimators) != (1 if len(found) == 2 else len(found)):
        raise refuse(classifier, "it does not have one part for each class")
    parts = [compile_part(estimator, method) for estimator in estimators]
    if any(len(part.classes_) != 2 for part in parts):
        raise refuse(classifier, "a part of it does not tell two classes apart")
    return OneVsRestPredictor(found, parts) if method == "predict_proba" else OneVsRestScorer(found, parts)


COMPILERS: dict[type, Callable[[Any, str, Compile], Any]] = {
    AdaptiveVote: _adaptive,
    CalibratedClassifierCV: _calibrated,
    FrozenEstimator: _frozen,
    GridSearchCV: _found,
    OneVsRestClassifier: _one_vs_rest,
    PerceptronClassifier: _network_of,
    Pipeline: _pipeline,
    RandomizedSearchCV: _found,
    VotingClassifier: _voting,
}
