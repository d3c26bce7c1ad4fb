"""Linear classifiers, perceptrons and normal distributions compiled: solvers, steps in front, badly scaled features."""

import numpy as np
import pytest
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from tiles import answer, check_parity, fitted, make_tile, own_answer

from dconv import RegularizedDiscriminantAnalysis, predictors

CLASSIFIERS = [
    *(LogisticRegression(solver=solver, max_iter=300) for solver in ("lbfgs", "newton-cg", "newton-cholesky", "saga")),
    LogisticRegression(fit_intercept=False, max_iter=300),
    LogisticRegressionCV(Cs=2, cv=2, max_iter=300, tol=1e-2),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(loss="modified_huber", random_state=0),
    SGDClassifier(loss="hinge", fit_intercept=False, random_state=0),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1),
    GaussianNB(),
    GaussianNB(var_smoothing=1e-2),
    QuadraticDiscriminantAnalysis(),
    QuadraticDiscriminantAnalysis(reg_param=0.1),
    RegularizedDiscriminantAnalysis(),
    RidgeClassifier(),
    RidgeClassifier(fit_intercept=False),
    RidgeClassifierCV(),
    LinearSVC(max_iter=300),
    LinearSVC(fit_intercept=False, max_iter=300),
    Perceptron(random_state=0),
]
PERCEPTRONS = [
    MLPClassifier(units, activation=activation, max_iter=15, random_state=0)
    for activation in ("relu", "tanh", "logistic", "identity")
    for units in ((33,), (20, 9))
]


def described(classifier):
    return str(classifier).replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("classifier", [*CLASSIFIERS, *PERCEPTRONS], ids=described)
def test_parity(classifier, n_classes):
    x, y = make_tile(n_classes)
    check_parity(fitted(classifier, x, y), x)


@pytest.mark.parametrize("n_features", [1, 3, 8, 66, 98])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("classifier", [CLASSIFIERS[0], GaussianNB(), PERCEPTRONS[0]], ids=described)
def test_numbers_of_features(classifier, n_classes, n_features):
    x, y = make_tile(n_classes, n_features)
    check_parity(fitted(classifier, x, y), x)
    check_parity(fitted(make_pipeline(StandardScaler(), classifier), x, y), x)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_liblinear_fits_classes_one_by_one(n_classes):
    x, y = make_tile(n_classes)
    try:
        model = fitted(LogisticRegression(solver="liblinear"), x, y)
    except ValueError as error:
        pytest.skip(f"this scikit-learn does not: {error}")
    check_parity(model, x)


@pytest.mark.parametrize("multi_class", ["ovr", "multinomial"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_multi_class(multi_class, n_classes):
    if "multi_class" not in LogisticRegression().get_params():
        pytest.skip("this scikit-learn has no multi_class")
    x, y = make_tile(n_classes)
    check_parity(fitted(LogisticRegression(multi_class=multi_class, max_iter=300), x, y), x)


def test_fitted_on_float64():
    x, y = make_tile(3)
    for classifier in (*CLASSIFIERS, *PERCEPTRONS):
        check_parity(fitted(classifier, x.astype(np.float64), y), x)


# --- steps in front ---

STEPS = [
    (StandardScaler(),),
    (StandardScaler(with_mean=False),),
    (StandardScaler(with_std=False),),
    (StandardScaler(with_mean=False, with_std=False),),
    (RobustScaler(),),
    (RobustScaler(with_centering=False),),
    (RobustScaler(with_scaling=False, unit_variance=True),),
    (MinMaxScaler(),),
    (MinMaxScaler((-3, 5)), StandardScaler()),
    (MaxAbsScaler(),),
    (SelectKBest(k=7),),
    (SelectPercentile(percentile=60), StandardScaler()),
    (VarianceThreshold(0.1), MaxAbsScaler(), StandardScaler()),
    (StandardScaler(), SelectFromModel(LogisticRegression())),
    (StandardScaler(), RFE(LogisticRegression(), n_features_to_select=6)),
]
PROJECTIONS = [
    (PCA(6),),
    (StandardScaler(), PCA(5, whiten=True), StandardScaler()),
    (SelectKBest(k=9), PCA(whiten=True)),
    (IncrementalPCA(6),),
    (TruncatedSVD(6), StandardScaler()),
    (PCA(2), MinMaxScaler()),
]


@pytest.mark.parametrize("steps", [*STEPS, *PROJECTIONS], ids=str)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_steps_are_folded(steps, n_classes):
    x, y = make_tile(n_classes, mean=3, scale=np.geomspace(0.1, 10, 13))
    for classifier in (CLASSIFIERS[0], LinearSVC(), PERCEPTRONS[1], LinearDiscriminantAnalysis()):
        check_parity(fitted(make_pipeline(*steps, classifier), x, y), x)
    if steps in STEPS:
        check_parity(fitted(make_pipeline(*steps, GaussianNB()), x, y), x)
    for classifier in (QuadraticDiscriminantAnalysis(), RegularizedDiscriminantAnalysis()):
        check_parity(fitted(make_pipeline(*steps, classifier), x, y), x)


@pytest.mark.parametrize(
    "scaler", [MinMaxScaler(clip=True), *([MaxAbsScaler(clip=True)] if "clip" in MaxAbsScaler().get_params() else [])]
)
def test_clipping_is_not_affine(scaler):
    x, y = make_tile(2)
    with pytest.raises(predictors.NotCompilable, match="with clip=True it is not affine"):
        predictors.compile_predictor(fitted(make_pipeline(scaler, LogisticRegression()), x, y))


def test_projections_and_squares():
    x, y = make_tile(2)
    with pytest.raises(predictors.NotCompilable, match="a projection cannot be folded into squares"):
        predictors.compile_predictor(fitted(make_pipeline(PCA(), GaussianNB()), x, y))


# --- badly scaled features ---

BADLY_SCALED = {
    "far away": (30_000, 10),
    "of all sizes": (np.linspace(-1e3, 1e5, 13), np.geomspace(1e-2, 1e3, 13)),
    "tiny": (0, 1e-6),
    "huge": (0, 1e6),
}


@pytest.mark.parametrize("scaled", BADLY_SCALED)
@pytest.mark.parametrize("steps", [(StandardScaler(),), (RobustScaler(),), (SelectKBest(k=9), MinMaxScaler())], ids=str)
@pytest.mark.parametrize(
    "classifier",
    [CLASSIFIERS[0], SGDClassifier(loss="log_loss", random_state=0), LinearSVC(), GaussianNB(), *PERCEPTRONS[1:6:2]],
    ids=described,
)
def test_digits_are_not_lost_in_sums(classifier, steps, scaled):
    mean, scale = BADLY_SCALED[scaled]
    x, y = make_tile(3, mean=mean, scale=scale)
    check_parity(fitted(make_pipeline(*steps, classifier), x.astype(np.float64), y), x, tolerance=3e-6)


@pytest.mark.parametrize(
    "classifier",
    [LinearSVC(), LinearDiscriminantAnalysis(), QuadraticDiscriminantAnalysis(), GaussianNB()],
    ids=described,
)
def test_classifiers_of_float64_need_no_scaler(classifier):
    x, y = make_tile(3, mean=30_000, scale=10)
    check_parity(fitted(classifier, x.astype(np.float64), y), x, tolerance=3e-6)


def test_almost_collinear_features():
    x, y = make_tile(3)
    x[:, 1] = x[:, 0] + 1e-3 * x[:, 1]
    for classifier in (
        LinearDiscriminantAnalysis(),
        QuadraticDiscriminantAnalysis(reg_param=1e-3),
        make_pipeline(StandardScaler(), PCA(whiten=True), LogisticRegression(C=1e6, max_iter=1000)),
    ):
        check_parity(fitted(classifier, x.astype(np.float64), y), x)


@pytest.mark.parametrize("scale", [np.ones(13), np.geomspace(1e-1, 1e2, 13)], ids=["alike", "of all sizes"])
def test_two_classes_share_their_axes(scale):
    """Two quadratic discriminants take half as many axes, with two more for what is linear; pipelines fold them."""
    x, y = make_tile(2, scale=scale)
    for model in (QuadraticDiscriminantAnalysis(), make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis())):
        model = fitted(model, x.astype(np.float64), y)
        check_parity(model, x, tolerance=1e-6)
        discriminant = model[-1] if hasattr(model, "steps") else model
        assert predictors.compile_predictor(discriminant)._network.layers[0].affine.weight.shape == (15, 13)


@pytest.mark.parametrize("narrow", [1e-3, 1e-6])
def test_two_classes_of_unlike_widths_keep_their_own_axes(narrow):
    x, y = make_tile(2)
    x[1::2, :2] *= np.float32(narrow)  # along two axes one class is so much narrower that both together may lose digits
    model = fitted(QuadraticDiscriminantAnalysis(tol=0), x.astype(np.float64), y)
    check_parity(model, x, tolerance=1e-6)
    assert len(predictors.compile_predictor(model)._network.layers[0].affine.bias) == 26


def test_hidden_layers_refuse_what_float32_cannot_tell():
    x, y = make_tile(2)
    x[:, 1] = x[:, 0] * np.float32(1 + 1e-6)
    model = fitted(make_pipeline(PCA(whiten=True), PERCEPTRONS[0]), x.astype(np.float64), y)
    with pytest.raises(predictors.NotCompilable, match="more digits than float32 has"):
        predictors.compile_predictor(model)


# --- classes that all have no probability ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [5, 50, 5000])
def test_one_against_the_rest_far_below_zero(dtype, factor):
    """Where every class has a probability near 0, the relations count; where all underflow, all are equal."""
    x, y = make_tile(3)
    model = fitted(SGDClassifier(loss="log_loss", random_state=0), x.astype(dtype), y)
    model.coef_, model.intercept_ = (0.02 * model.coef_).astype(dtype), np.array([-3, -3.1, -3.2], dtype) * factor
    with np.errstate(invalid="ignore"):
        expected = own_answer(model, "predict_proba", x.astype(dtype))
    expected[np.isnan(expected)] = 1 / 3  # what an older scikit-learn has no answer for
    np.testing.assert_allclose(answer(predictors.compile_predictor(model), x), expected, rtol=0, atol=1e-4)


def test_huber_where_no_class_is_likely():
    x, y = make_tile(3)
    model = fitted(SGDClassifier(loss="modified_huber", random_state=0), x, y)
    model.intercept_ -= 1e6
    np.testing.assert_array_equal(answer(predictors.compile_predictor(model), x), np.float32(1 / 3))


def test_labels_where_probabilities_are_saturated():
    x, y = make_tile(5)
    model = fitted(SGDClassifier(loss="log_loss", random_state=0), x, y)
    model.coef_ *= 1000
    scorer = predictors.compile_scorer(model)
    np.testing.assert_array_equal(predictors.predict(scorer, x), model.predict(x))


def test_one_vs_rest_of_constant_parts_is_refused():
    x, y = make_tile(3)
    model = fitted(OneVsRestClassifier(LogisticRegression()), x, y)
    part = type("_ConstantPredictor", (), {})()  # what stands for a class that all or none of the rows have
    model.estimators_[0] = part
    assert predictors.compiled_or_none(model, "predict_proba") is None
