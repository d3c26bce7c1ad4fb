"""Boosted trees of LightGBM, XGBoost and CatBoost compiled from their dumps, against the libraries themselves."""

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from dconv._kernels._dispatch import supported_levels
from images import BANK, make_images
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tiles import answer, check_parity, compile_method, make_tile, own_answer

from dconv import PixelClassifier, predictors, save
from dconv._booster_predictors import in_preorder, probes
from dconv._fitted_trees import FittedTrees, SymmetricTree
from dconv._kernels import _trees
from dconv._packed_trees import pack
from dconv._tree_predictors import add_trees

CODES = np.arange(7)  # XGBoost takes no other labels than 0, 1, ...
FAMILIES = ["lightgbm", "xgboost", "catboost"]


def make_classifier(family, **options):
    """Return a small classifier, of one thread, that says nothing; skip where its library is missing."""
    library = pytest.importorskip(family)
    if family == "lightgbm":
        return library.LGBMClassifier(**{"n_estimators": 4, "n_jobs": 1, "verbose": -1, "random_state": 0} | options)
    if family == "xgboost":
        return library.XGBClassifier(**{"n_estimators": 4, "n_jobs": 1, "random_state": 0} | options)
    quiet = {"verbose": False, "allow_writing_files": False, "thread_count": 1, "random_seed": 0}
    return library.CatBoostClassifier(**quiet | {"n_estimators": 4} | options)


def trees_of(family, classifier):
    """Return the trees that are read from a fitted classifier."""
    module = __import__(f"dconv._{family}_predictors", fromlist=[family])
    return getattr(module, f"{family}_trees")(classifier)[0]


def refused(classifier, why):
    """Check that a classifier is refused, and that pixels still get its own answers."""
    with pytest.raises(predictors.NotCompilable, match=why):
        predictors.compile_predictor(classifier)
    assert predictors.compiled_or_none(classifier, "predict_proba") is None


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("lightgbm", {}),
        ("lightgbm", {"num_leaves": 100, "min_child_samples": 2}),  # heads with tails
        ("lightgbm", {"boosting_type": "dart"}),
        ("lightgbm", {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}),
        ("lightgbm", {"sigmoid": 0.7}),
        ("lightgbm", {"class_weight": "balanced", "reg_lambda": 3.0}),
        ("xgboost", {}),
        ("xgboost", {"max_depth": 12, "min_child_weight": 0}),
        ("xgboost", {"booster": "dart", "rate_drop": 0.5}),
        ("xgboost", {"num_parallel_tree": 3, "subsample": 0.5}),
        ("xgboost", {"base_score": 0.3, "grow_policy": "lossguide", "max_leaves": 9}),
        ("catboost", {}),
        ("catboost", {"depth": 1}),
        ("catboost", {"depth": 8}),
        ("catboost", {"boost_from_average": True}),
        ("catboost", {"grow_policy": "Depthwise"}),
        ("catboost", {"grow_policy": "Lossguide", "max_leaves": 90, "depth": 9}),
    ],
    ids=str,
)
def test_parity(family, options, n_classes):
    if n_classes > 2 and "boost_from_average" in options:
        pytest.skip("CatBoost takes it for two classes only")
    x, y = make_tile(n_classes, n=700, labels=CODES if family == "xgboost" else CODES + 3)
    classifier = make_classifier(family, **options).fit(x[:500], y[:500])
    check_parity(classifier, x, ties=0.5)


@pytest.mark.parametrize("family", ["lightgbm", "catboost"])
def test_labels_that_are_names(family):
    x, y = make_tile(3, n=300)
    check_parity(make_classifier(family).fit(x, y), x, methods=["predict_proba"], ties=0.5)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("lightgbm", {"objective": "multiclassova", "sigmoid": 2.0}),
        ("xgboost", {"objective": "multi:softmax"}),
        ("catboost", {"loss_function": "MultiClassOneVsAll"}),
    ],
)
def test_other_objectives(family, options):
    x, y = make_tile(3, labels=CODES)
    check_parity(make_classifier(family, **options).fit(x, y), x, methods=["predict_proba"], ties=0.5)


def test_forest_of_xgboost():
    xgboost = pytest.importorskip("xgboost")
    x, y = make_tile(3, labels=CODES)
    check_parity(xgboost.XGBRFClassifier(n_estimators=5, n_jobs=1).fit(x, y), x, ties=0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_best_iteration_of_early_stopping(family):
    x, y = make_tile(2, n=900, labels=CODES)
    extra = {"xgboost": {"early_stopping_rounds": 3}, "catboost": {"early_stopping_rounds": 3}}.get(family, {})
    classifier = make_classifier(family, n_estimators=60, learning_rate=0.9, **extra)
    more = {}
    if family == "lightgbm":
        more["callbacks"] = [pytest.importorskip("lightgbm").early_stopping(3, verbose=False)]
        more |= {"eval_X": x[300:600], "eval_y": y[300:600]}
    else:
        more |= {"eval_set": [(x[300:600], y[300:600])], "verbose": False}
    classifier.fit(x[:300], y[:300], **more)
    n_used = len(trees_of(family, classifier).trees)
    assert 0 < n_used < 50
    check_parity(classifier, x, ties=0.5)


# --- the same leaf ---


def near_thresholds(found):
    """Return many rows of float32 numbers that are thresholds, or next to them on either side."""
    rows = np.concatenate([probes(found) for _ in range(3)])
    random_state = np.random.RandomState(1)
    for column in rows.T:
        values = np.unique(column)
        values = np.concatenate([values, np.nextafter(values, np.float32(np.inf)), np.nextafter(values, -values - 1)])
        column[:] = random_state.choice(values, len(column))
    return rows


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_same_side_of_every_threshold(family, n_classes):
    # Whole numbers, and few of them: thresholds lie on values, where "<" and "<=" differ.
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (600, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int) + (n_classes > 2) * (x[:, 3] > 0)
    classifier = make_classifier(family, n_estimators=20).fit(x, y)
    found = trees_of(family, classifier)
    exactly = np.concatenate([probes(found), near_thresholds(found), x, np.float32([[0, -0.0, 1e-45, -1e-45, 1, -1]])])
    expected = classifier.predict_proba(exactly)
    np.testing.assert_allclose(answer(compile_method(classifier, "predict_proba"), exactly), expected, atol=1e-5)


def test_numbers_next_to_zero_are_zero_to_lightgbm():
    x = np.random.default_rng(0).choice(np.float32([-1, -1e-35, 0, 1e-35, 1]), (400, 2))
    classifier = make_classifier("lightgbm", min_child_samples=1).fit(x, (x[:, 0] > 0) ^ (x[:, 1] < 0))
    near = np.float32([-1e-34, -1e-35, -1e-36, -1e-45, -0.0, 0, 1e-45, 1e-36, 1e-35, 1e-34])
    near = np.concatenate([near, np.nextafter(near, np.float32(1)), np.nextafter(near, np.float32(-1))])
    rows = np.stack(np.meshgrid(near, near), axis=-1).reshape(-1, 2)
    got = answer(compile_method(classifier, "predict_proba"), rows)
    np.testing.assert_allclose(got, classifier.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("spoilt_at_fit", [False, True])
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("lightgbm", {}),
        ("xgboost", {}),
        ("catboost", {}),
        ("catboost", {"nan_mode": "Max"}),
        ("catboost", {"nan_mode": "Max", "grow_policy": "Depthwise"}),
    ],
    ids=str,
)
def test_missing_values(family, options, spoilt_at_fit):
    rng = np.random.default_rng(0)
    x, y = make_tile(3, n=900, labels=CODES)
    spoilt = np.where(rng.random(x.shape) < 0.2, np.float32(np.nan), x)
    classifier = make_classifier(family, n_estimators=10, **options).fit(spoilt if spoilt_at_fit else x, y)
    for rows in (x, spoilt):
        got = answer(compile_method(classifier, "predict_proba"), rows)
        np.testing.assert_allclose(got, classifier.predict_proba(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("n_tests", [0, 1, 4, 5, 6, 8])
def test_symmetric_trees_by_definition(n_tests, level):
    rng = np.random.default_rng(n_tests)
    kinds = rng.choice([_trees.MISSING_LEFT, _trees.MISSING_RIGHT], n_tests)
    features, thresholds = rng.integers(0, 3, n_tests), rng.integers(-2, 3, n_tests).astype(float)
    tree = SymmetricTree(features, thresholds, kinds, np.arange(1.0, 1 + (1 << n_tests))[:, np.newaxis])
    rows = rng.choice(np.float32([-2, -1, 0, 1, 2, 3, np.nan]), (300, 3))
    sums = np.zeros((len(rows), 1))
    add_trees(pack(FittedTrees([tree], 3, np.zeros(1))), rows, sums, level)
    for row, got in zip(rows, sums[:, 0], strict=True):
        leaf = 0
        for bit, (feature, threshold, kind) in enumerate(zip(features, thresholds, kinds, strict=True)):
            missing = np.isnan(row[feature])
            goes_right = kind == _trees.MISSING_RIGHT if missing else row[feature] > threshold
            leaf += int(goes_right) << bit
        assert got == 1 + leaf


def test_nested_trees_in_preorder():
    tree = ("a", ("b", ("c", None), ("d", None)), ("e", None))
    nodes, left, right = in_preorder(tree, lambda node: None if node[1] is None else node[1:])
    assert [node[0] for node in nodes] == ["a", "b", "c", "d", "e"]
    assert left.tolist() == [1, 2, -1, -1, -1]
    assert right.tolist() == [4, 3, -1, -1, -1]


# --- what is left to the classifier itself ---


@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        ("lightgbm", {"zero_as_missing": True}, "to it zeros are missing"),
        ("lightgbm", {"linear_tree": True}, "its leaves are linear models"),
        ("lightgbm", {"objective": "cross_entropy"}, "its objective is 'cross_entropy'"),
        ("lightgbm", {"objective": lambda y, score: (score - y, np.ones_like(y))}, "its objective is 'custom'"),
        ("lightgbm", {"pred_early_stop": True, "pred_early_stop_margin": 0.01, "pred_early_stop_freq": 1}, "differ by"),
        ("xgboost", {"missing": -1.0}, "to it -1.0 is missing"),
        ("xgboost", {"booster": "gblinear"}, "it is no ensemble of trees"),
        ("xgboost", {"objective": "binary:hinge"}, "its objective is 'binary:hinge'"),
        ("catboost", {"depth": 9}, "its trees are 9 levels deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the same in every process, for pytest-xdist
)
def test_refused(family, options, why):
    x, y = make_tile(2, labels=CODES)
    x[::3, 2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = make_classifier(family, n_estimators=20, **options).fit(x, y)
        refused(classifier, why)


def test_leaves_of_several_values_are_refused():
    x, y = make_tile(3, labels=CODES)
    classifier = make_classifier("xgboost", multi_strategy="multi_output_tree", tree_method="hist").fit(x, y)
    refused(classifier, "its leaves have a value for each class")


@pytest.mark.parametrize("family", FAMILIES)
def test_categories_are_refused(family):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 9, 400)
    frame = pandas.DataFrame({"a": rng.normal(size=400), "b": pandas.Categorical(codes)})
    options = {"xgboost": {"enable_categorical": True}, "catboost": {"cat_features": ["b"]}}.get(family, {})
    classifier = make_classifier(family, **options).fit(frame, (codes % 3 == 0).astype(int))
    why = "it has features that are no numbers" if family == "catboost" else "it splits by categories"
    with pytest.raises(predictors.NotCompilable, match=why):
        predictors.compile_predictor(classifier)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dump_that_means_something_else_is_refused(family, monkeypatch):
    x, y = make_tile(2, labels=CODES)
    classifier = make_classifier(family).fit(x, y)
    own = type(classifier).predict_proba
    monkeypatch.setattr(type(classifier), "predict_proba", lambda self, X: own(self, X)[:, ::-1])
    refused(classifier, r"its answers differ by 0\.\d+ from those of its dump")


@pytest.mark.parametrize(
    ("family", "owner", "method"),
    [("lightgbm", "Booster", "dump_model"), ("xgboost", "Booster", "save_raw"), ("catboost", "CatBoost", "save_model")],
)
def test_a_dump_that_is_not_as_expected_is_refused(family, owner, method, monkeypatch):
    x, y = make_tile(2, labels=CODES)
    classifier = make_classifier(family).fit(x, y)

    def empty(self, path=None, format=None):
        if family == "catboost":
            Path(path).write_text("{}")
        return {"lightgbm": {}, "xgboost": b"{}"}.get(family)

    monkeypatch.setattr(getattr(pytest.importorskip(family), owner), method, empty)
    refused(classifier, r"its dump is not as it is read here \(KeyError")


@pytest.mark.parametrize("family", FAMILIES)
def test_subclasses_are_refused(family):
    x, y = make_tile(2, labels=CODES)
    classifier = make_classifier(family)

    class Other(type(classifier)):
        pass

    Other.__init__ = type(classifier).__init__
    refused(Other(**classifier.get_params()).fit(x, y), "there is no compiler for this class")


# --- within dconv ---


@pytest.mark.parametrize("family", FAMILIES)
def test_composed(family):
    x, y = make_tile(3, labels=CODES)
    for classifier in (
        make_pipeline("passthrough", make_classifier(family)),
        CalibratedClassifierCV(make_classifier(family), cv=2),
        VotingClassifier([("boosted", make_classifier(family)), ("linear", LogisticRegression())], voting="soft"),
    ):
        check_parity(classifier.fit(x, y), x, methods=["predict_proba"], ties=0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_pickled_and_bitwise_at_every_level(family):
    x, y = make_tile(3, labels=CODES)
    compiled = predictors.compile_predictor(make_classifier(family).fit(x, y))
    whole = answer(compiled, x)
    np.testing.assert_array_equal(answer(pickle.loads(pickle.dumps(compiled)), x), whole)
    for level in supported_levels():
        sums = np.zeros((len(x), compiled._packed.n_sums))
        add_trees(compiled._packed, x, sums, level)
        np.testing.assert_allclose(sums[:, :3] + compiled._baseline, compiled._sums(x, whole, 3)[:, :3], rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_pixels(family, n_classes):
    X, y = make_images()
    if n_classes == 3:
        pairs = zip(X, y, strict=True)
        y = [np.where((labels > 0) & (image > np.quantile(image, 0.8)), 3, labels) for image, labels in pairs]
    y = [labels.astype(int) - (family == "xgboost") for labels in y]  # of which -1 is no label there
    options = {"ignore_label": -1} if family == "xgboost" else {}
    segmenter = PixelClassifier(BANK, make_classifier(family), **options).fit(X, y)
    assert predictors.compiled_or_none(segmenter.classifier_, "predict") is not None
    features = BANK.fit(X[0]).transform(X[0]).reshape(-1, 2)
    expected = own_answer(segmenter.classifier_, "predict_proba", features)
    np.testing.assert_allclose(segmenter.predict_proba(X[0]).reshape(-1, n_classes), expected, rtol=0, atol=1e-5)
    labels = segmenter.predict(X[0])
    assert labels.shape == X[0].shape
    apart = np.abs(np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0]) > 1e-4
    np.testing.assert_array_equal(labels.ravel()[apart], segmenter.classes_[expected.argmax(axis=1)][apart])


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_of_a_classifier_that_is_not_compiled(family):
    X, y = make_images()
    options = {"lightgbm": {"zero_as_missing": True}, "xgboost": {"missing": -1.0}, "catboost": {"depth": 9}}[family]
    bright = [image > np.quantile(image, 0.8) for image in X]
    y = [np.where((labels > 0) & mask, 2, labels.astype(int) - 1) for labels, mask in zip(y, bright, strict=True)]
    segmenter = PixelClassifier(BANK, make_classifier(family, **options), ignore_label=-1).fit(X, y)
    assert predictors.compiled_or_none(segmenter.classifier_, "predict") is None
    features = BANK.fit(X[0]).transform(X[0]).reshape(-1, 2)
    own = segmenter.classifier_.predict_proba(features).reshape(*X[0].shape, 3)
    np.testing.assert_allclose(segmenter.predict_proba(X[0]), own, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(segmenter.predict(X[0]), own.argmax(axis=-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_files_refuse_them_by_name(family, tmp_path):
    pytest.importorskip("skops")
    X, y = make_images()
    y = [labels.astype(int) - 1 for labels in y]
    segmenter = PixelClassifier(BANK, make_classifier(family), ignore_label=-1).fit(X, y)
    with pytest.raises(TypeError, match=rf"holds [\w., ]*{family}\.[\w., ]*, which load would refuse"):
        save(segmenter, tmp_path / "model.dconv")
    assert not list(tmp_path.iterdir())


def test_nothing_is_imported_that_is_not_asked_for():
    code = "import dconv, dconv.predictors, sys; print({'lightgbm', 'xgboost', 'catboost'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
