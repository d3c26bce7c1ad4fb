"""Compiled classifiers answer what the classifiers do; rows do not depend on tiles or threads; what cannot, says so."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC
from tiles import NAMES, answer, assert_same_labels, check_parity, compile_method, fitted, make_tile, own_answer

from dconv import RegularizedDiscriminantAnalysis, predictors
from dconv._predictor import check_tile

LOGISTIC = LogisticRegression(max_iter=300)
VOTE = VotingClassifier(
    [("linear", make_pipeline(StandardScaler(), LOGISTIC)), ("bayes", GaussianNB()), ("none", "drop")],
    voting="soft",
    weights=[2, 1, 5],
)
COMPOSED = [
    make_pipeline(LOGISTIC),
    make_pipeline("passthrough", None, StandardScaler(), "passthrough", LOGISTIC),
    make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), LOGISTIC)),
    make_pipeline(StandardScaler(), VOTE),
    make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC(), cv=2)),
    make_pipeline(StandardScaler(), OneVsRestClassifier(LOGISTIC)),
    CalibratedClassifierCV(LinearSVC(), cv=3),
    CalibratedClassifierCV(GaussianNB(), cv=2),
    CalibratedClassifierCV(make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=20)), cv=2, ensemble=False),
    VOTE,
    VotingClassifier([("a", LOGISTIC), ("b", GaussianNB())], voting="soft"),
    OneVsRestClassifier(LOGISTIC),
    OneVsRestClassifier(LinearSVC()),
    OneVsRestClassifier(GaussianNB()),
    GridSearchCV(LOGISTIC, {"C": [0.1, 1]}, cv=2),
    RandomizedSearchCV(make_pipeline(StandardScaler(), LOGISTIC), {"logisticregression__C": [0.1, 1]}, n_iter=2, cv=2),
]
# One of every way through the kernel: float32 in place and centred, vectors of channels and of filters, float64.
KINDS = {
    "in place": LOGISTIC,
    "centred": make_pipeline(StandardScaler(), LOGISTIC),
    "float64": LinearDiscriminantAnalysis(),
    "one against the rest": SGDClassifier(loss="log_loss", random_state=0),
    "squares": GaussianNB(),
    "quadratic": QuadraticDiscriminantAnalysis(),
    "perceptron": MLPClassifier((20, 9), max_iter=20, random_state=0),
    "tanh": MLPClassifier((40,), activation="tanh", max_iter=20, random_state=0),
    "scores": RidgeClassifier(),
    "vote": VOTE,
    "calibrated": CalibratedClassifierCV(LinearSVC(), cv=2),
    "one for each class": OneVsRestClassifier(LOGISTIC),
}


def compile_any(classifier):
    return compile_method(classifier, "predict_proba" if hasattr(classifier, "predict_proba") else "decision_function")


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("classifier", COMPOSED, ids=lambda classifier: type(classifier).__name__)
def test_composed(classifier, n_classes):
    x, y = make_tile(n_classes)
    check_parity(fitted(classifier, x, y), x)


def test_frozen():
    x, y = make_tile(3)
    frozen = FrozenEstimator(fitted(LOGISTIC, x, y))
    check_parity(frozen, x)
    check_parity(CalibratedClassifierCV(frozen).fit(x, y), x)


@pytest.mark.parametrize(
    "labels", [NAMES, np.array([3, -1, 8, 40, 2, 0, 5]), np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5])]
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_labels_keep_their_kind(labels, n_classes):
    if labels.dtype.kind == "f":
        labels = labels.astype(np.int8)  # scikit-learn takes fractions for a regression
    x, y = make_tile(n_classes, labels=labels)
    classifier = fitted(LOGISTIC, x, y)
    for method in ("predict_proba", "decision_function"):
        assert_same_labels(compile_method(classifier, method), classifier, x)


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_their_tile(kind, n_classes):
    x, y = make_tile(n_classes, n=1500)
    compiled = compile_any(fitted(KINDS[kind], x, y))
    whole = answer(compiled, x)
    for size in (1, 5, 23, 191, 193, 1000):
        pieces = [answer(compiled, x[start : start + size]) for start in range(0, 230 if size < 20 else len(x), size)]
        got = np.concatenate(pieces)
        np.testing.assert_array_equal(got, whole[: len(got)])
    np.testing.assert_array_equal(answer(compiled, np.ascontiguousarray(x[::-1])), whole[::-1])
    assert answer(compiled, x[:0]).shape == (0, whole.shape[1])


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_a_predictor(kind):
    x, y = make_tile(5, n=3000)
    compiled = compile_any(fitted(KINDS[kind], x, y))
    whole = answer(compiled, x)
    starts = range(0, len(x), 100)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            tiles = list(pool.map(lambda start: answer(compiled, x[start : start + 100]), starts))
            np.testing.assert_array_equal(np.concatenate(tiles), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_pickled(kind):
    x, y = make_tile(3)
    compiled = compile_any(fitted(KINDS[kind], x, y))
    restored = pickle.loads(pickle.dumps(compiled))
    np.testing.assert_array_equal(answer(restored, x), answer(compiled, x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(kind, value):
    x, y = make_tile(3)
    compiled = compile_any(fitted(KINDS[kind], x, y))
    whole = answer(compiled, x)
    x[77, 3] = value
    spoilt = answer(compiled, x)
    if np.isnan(value):
        assert np.isnan(spoilt[77]).any()
    np.testing.assert_array_equal(np.delete(spoilt, 77, axis=0), np.delete(whole, 77, axis=0))


def test_inputs_are_left_alone():
    x, y = make_tile(3)
    compiled = compile_any(fitted(KINDS["centred"], x, y))
    kept = x.copy()
    x.flags.writeable = False
    answer(compiled, x)
    np.testing.assert_array_equal(x, kept)


def test_later_fits_do_not_reach_a_predictor():
    x, y = make_tile(3)
    classifier = fitted(KINDS["perceptron"], x, y)
    compiled = compile_any(classifier)
    before = answer(compiled, x)
    for weight in classifier.coefs_:
        weight *= 2
    np.testing.assert_array_equal(answer(compiled, x), before)


def test_probabilities_add_up_to_one_far_away():
    x, y = make_tile(3)
    for kind in KINDS.keys() - {"scores"}:
        probabilities = answer(compile_any(fitted(KINDS[kind], x, y)), 1e4 * x)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


# --- what cannot be compiled ---


class Reversed(LogisticRegression):
    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


@pytest.mark.parametrize(
    ("classifier", "why"),
    [
        (KNeighborsClassifier(3), "predict_proba of KNeighborsClassifier cannot be compiled: there is no compiler"),
        (Reversed(), "there is no compiler for this class"),
        (make_pipeline(StandardScaler(), KNeighborsClassifier(3)), "KNeighborsClassifier"),
        (make_pipeline(PolynomialFeatures(), LOGISTIC), "PolynomialFeatures .* not known to be a map"),
        (SGDClassifier(loss="hinge"), "no predict_proba with loss='hinge'"),
        (LinearSVC(), "predict_proba of LinearSVC"),
        (VotingClassifier([("a", LOGISTIC)], voting="hard"), "voting='hard'"),
        (VotingClassifier([("a", LOGISTIC), ("b", KNeighborsClassifier(3))], voting="soft"), "KNeighborsClassifier"),
        (CalibratedClassifierCV(LOGISTIC, method="isotonic", cv=2), "its method is 'isotonic'"),
        (GridSearchCV(LOGISTIC, {"C": [1, 2]}, cv=2, refit=False), "it has no best_estimator_"),
    ],
)
def test_refused(classifier, why):
    x, y = make_tile(2)
    model = fitted(classifier, x, y)
    if isinstance(classifier, GridSearchCV):
        with pytest.raises(predictors.NotCompilable, match=why):
            predictors._compile(model, "predict_proba")
        return
    with pytest.raises(predictors.NotCompilable, match=why):
        predictors.compile_predictor(model)
    assert predictors.compiled_or_none(model, "predict_proba") is None


def test_not_fitted():
    for compile_it in (predictors.compile_predictor, predictors.compile_scorer):
        with pytest.raises(NotFittedError):
            compile_it(LogisticRegression())


@pytest.mark.parametrize("classifier", [OneVsRestClassifier(LOGISTIC), MLPClassifier((5,), max_iter=5)])
def test_several_labels_at_once_are_refused(classifier):
    x, _ = make_tile(3)
    many = np.stack([x[:, 0] > 0, x[:, 1] > 0, x[:, 2] > 0], axis=1).astype(int)
    with pytest.raises(predictors.NotCompilable):
        predictors.compile_predictor(fitted(classifier, x, many))
    with pytest.raises(predictors.NotCompilable, match="multilabel"):
        predictors.compile_scorer(fitted(RidgeClassifier(), x, many))


@pytest.mark.parametrize(
    ("classifier", "name"),
    [
        (LOGISTIC, "coef_"),
        (GaussianNB(), "theta_"),
        (QuadraticDiscriminantAnalysis(), "rotations_"),
        (RegularizedDiscriminantAnalysis(), "axes_"),
        (VOTE, "estimators_"),
    ]
    + [(MLPClassifier((5,), max_iter=5), name) for name in ("coefs_", "out_activation_", "_label_binarizer")],
)
def test_what_is_missing_or_of_another_shape_is_refused(classifier, name):
    x, y = make_tile(3)
    model = fitted(classifier, x, y)
    found = getattr(model, name)
    if isinstance(found, np.ndarray):
        for broken in (found[:, :-1], np.full_like(found, np.nan), "text"):
            setattr(model, name, broken)
            assert predictors.compiled_or_none(model, "predict_proba") is None
    delattr(model, name)
    with pytest.raises(predictors.NotCompilable, match=f"has no {name}"):
        predictors._compile(model, "predict_proba")


def test_sparse_coefficients_are_refused():
    x, y = make_tile(3)
    with pytest.raises(predictors.NotCompilable, match="coef_ is no array of numbers"):
        predictors.compile_predictor(fitted(LOGISTIC, x, y).sparsify())


def test_compiled_or_none():
    x, y = make_tile(3)
    assert isinstance(predictors.compiled_or_none(fitted(LOGISTIC, x, y), "predict"), predictors.Scorer)
    assert isinstance(predictors.compiled_or_none(fitted(GaussianNB(), x, y), "predict"), predictors.Predictor)
    assert isinstance(predictors.compiled_or_none(fitted(Perceptron(), x, y), "predict"), predictors.Scorer)
    assert predictors.compiled_or_none(fitted(Perceptron(), x, y), "predict_proba") is None
    assert predictors.compiled_or_none(fitted(KNeighborsClassifier(), x, y), "predict") is None


def test_wrong_tiles():
    x, y = make_tile(3)
    compiled = compile_any(fitted(LOGISTIC, x, y))
    out = np.zeros((len(x), 3), np.float32)
    for tile, target, message in [
        (x.astype(np.float64), out, "tile must be C-contiguous float32 .* got float64"),
        (np.asfortranarray(x), out, "tile must be C-contiguous"),
        (x[:, :5].copy(), out, r"tile must .* of shape \(400, 13\), got float32 of shape \(400, 5\)"),
        (x, out[:-1], r"out must .* of shape \(400, 3\)"),
        (x, out.astype(np.float64), "out must be C-contiguous float32"),
    ]:
        with pytest.raises(ValueError, match=message):
            compiled.predict_proba(tile, target)
    check_tile(x, 13, out, 3)
    with pytest.raises(TypeError, match="compiled must be what compile_predictor or compile_scorer gave, got None"):
        predictors.predict(None, x)
    with pytest.raises(TypeError, match=r"tile must be an array of shape \(n_pixels, n_features\), got \[\]"):
        predictors.predict(compiled, [])


def test_own_float32_answers():
    """Where features are scaled, what the classifier says of float32 rows is as close."""
    x, y = make_tile(5)
    for kind, classifier in KINDS.items():
        model = fitted(classifier, x, y)
        method = "predict_proba" if hasattr(model, "predict_proba") else "decision_function"
        np.testing.assert_allclose(answer(compile_any(model), x), own_answer(model, method, x), atol=1e-5, err_msg=kind)


def test_trees_are_no_part_of_a_fold():
    x, y = make_tile(3)
    model = fitted(make_pipeline(StandardScaler(), ExtraTreesClassifier(3, random_state=0)), x, y)
    assert predictors.compiled_or_none(model, "predict_proba") is None
