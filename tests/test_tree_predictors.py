"""Trees compiled: the same leaf as the classifier's own, its probabilities, missing values, categories, CPU levels."""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dconv._kernels._dispatch import supported_levels
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from tiles import answer, assert_same_labels, check_parity, compile_method, fitted, make_tile, own_answer

from dconv import _tree_predictors, predictors
from dconv._fitted_trees import forest_trees, histogram_boosting_trees
from dconv._packed_trees import pack, round_down
from dconv._responses import response_of
from dconv._tree_predictors import add_trees

FOREST = RandomForestClassifier(7, random_state=0)
HISTOGRAM = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=3, random_state=0)
# One of every way through the kernel: whole trees, heads with tails, one value a leaf or several, links.
KINDS = {
    "forest": FOREST,
    "extra trees of 64 leaves": ExtraTreesClassifier(7, max_leaf_nodes=64, random_state=0),
    "tree": DecisionTreeClassifier(random_state=0),
    "gradient boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    "histogram": HISTOGRAM,
}
CLASSIFIERS = [
    *KINDS.values(),
    ExtraTreeClassifier(random_state=0),
    DecisionTreeClassifier(min_samples_leaf=9, criterion="entropy"),
    RandomForestClassifier(5, class_weight="balanced", min_samples_leaf=4, random_state=0),
    RandomForestClassifier(5, class_weight="balanced_subsample", max_depth=7, random_state=0),
    ExtraTreesClassifier(5, bootstrap=True, max_samples=0.5, random_state=0),
    GradientBoostingClassifier(n_estimators=5, init="zero", random_state=0),
    GradientBoostingClassifier(n_estimators=5, init=DummyClassifier(strategy="prior"), random_state=0),
    GradientBoostingClassifier(n_estimators=5, subsample=0.5, max_leaf_nodes=9, random_state=0),
    GradientBoostingClassifier(n_estimators=3, max_depth=9, random_state=0),
    HistGradientBoostingClassifier(max_iter=5, class_weight="balanced", max_depth=3),
    HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=None, min_samples_leaf=2, l2_regularization=1),
]


def with_leaf_numbers(found, leaf_numbers):
    """Return trees that each add the number of the node a row ends in to a sum of their own."""
    trees = [
        dataclasses.replace(tree, values=np.asarray(numbers, np.float64)[:, np.newaxis], column=column)
        for column, (tree, numbers) in enumerate(zip(found.trees, leaf_numbers, strict=True))
    ]
    return dataclasses.replace(found, trees=trees, baseline=np.zeros(len(trees)))


def leaves(found, x, level=None, **options):
    """Return the node of each tree that each row ends in."""
    packed = pack(with_leaf_numbers(found, [np.arange(len(tree.left)) for tree in found.trees]), **options)
    sums = np.zeros((len(x), len(found.trees)))
    add_trees(packed, x, sums, level)
    return sums


def near_thresholds(found, n_features, rng):
    """Return rows of thresholds rounded to float32 either way, and of their neighbours."""
    columns = [[] for _ in range(n_features)]
    for tree in found.trees:
        for feature, threshold in zip(tree.feature[~tree.is_leaf], tree.threshold[~tree.is_leaf], strict=True):
            columns[feature].append(threshold)
    rows = np.zeros((4500, n_features), np.float32)  # more than a block of pixels, and no whole one
    for column, thresholds in enumerate(columns):
        near = np.array([*thresholds, 0.0]).astype(np.float32)
        values = np.concatenate([near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))])
        rows[:, column] = rng.choice(np.append(values, np.float32([0, -0.0, 1e-45, 1e30, -1e30])), len(rows))
    return rows


@pytest.mark.parametrize("level", supported_levels())
@pytest.mark.parametrize("max_leaf_nodes", [2, 3, 31, 32, 33, 64, 65, None])
@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
def test_same_leaf_as_apply(kind, max_leaf_nodes, level):
    x, y = make_tile(3, n=1200)
    forest = kind(5, max_leaf_nodes=max_leaf_nodes, random_state=0).fit(x, y)
    found = forest_trees(forest)
    for rows in (x, near_thresholds(found, x.shape[1], np.random.default_rng(0))):
        np.testing.assert_array_equal(leaves(found, rows, level), forest.apply(rows))


@pytest.mark.parametrize("exits", [1, 2, 33, 64, 100])
def test_heads_of_any_size(exits):
    x, y = make_tile(2, n=1200)
    forest = fitted(FOREST, x, y)
    for max_whole in (1, 1000):
        got = leaves(forest_trees(forest), x, max_whole=max_whole, head_exits=exits)
        np.testing.assert_array_equal(got, forest.apply(x))


def test_thresholds_are_rounded_down():
    threshold = np.array([0.1, -0.1, 0.5, 1e300, -1e300, 1e-60, -1e-60, np.inf, -np.inf])
    below = round_down(threshold)
    assert below.dtype == np.float32
    assert (below <= threshold).all()
    with np.errstate(over="ignore"):
        above = np.nextafter(below, np.float32(np.inf))
    assert (above.astype(np.float64) > threshold)[:-2].all()


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: str(c).replace("\n", "").replace(" ", ""))
def test_parity(classifier, n_classes):
    x, y = make_tile(n_classes, n=700)
    check_parity(fitted(classifier, x[:300], y[:300]), x, ties=0.5)


@pytest.mark.parametrize("n_features", [1, 2, 66])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_features(kind, n_features):
    x, y = make_tile(3, n_features)
    check_parity(fitted(KINDS[kind], x, y), x)


def test_exponential_loss():
    x, y = make_tile(2)
    check_parity(fitted(GradientBoostingClassifier(loss="exponential", n_estimators=9, random_state=0), x, y), x)


@pytest.mark.parametrize("kind", KINDS)
def test_sample_weights(kind):
    x, y = make_tile(3)
    weights = np.random.default_rng(0).gamma(1, size=len(x)) * (np.arange(len(x)) % 5 > 0)
    check_parity(KINDS[kind].fit(x, y, sample_weight=weights), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_constant_features_make_trees_of_one_leaf(kind, n_classes):
    x, y = make_tile(n_classes)
    model = fitted(KINDS[kind], np.ones_like(x), y)
    for method in ("predict_proba", "decision_function"):
        if hasattr(model, method):
            expected = own_answer(model, method, x)
            np.testing.assert_allclose(answer(compile_method(model, method), x), expected, atol=1e-6)


# --- missing values and categories ---


def spoil(x, rng):
    return np.where(rng.random(x.shape) < 0.2, np.float32(np.nan), x)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("level", supported_levels())
def test_missing_values_go_to_the_same_leaf(level, n_classes):
    rng = np.random.default_rng(0)
    x, y = make_tile(n_classes, n=1200)
    spoilt = spoil(x, rng)
    for forest in (FOREST, RandomForestClassifier(5, max_leaf_nodes=30, random_state=0)):
        model = fitted(forest, spoilt, y)
        for rows in (x, spoilt, spoil(x, rng)):
            np.testing.assert_array_equal(leaves(forest_trees(model), rows, level), model.apply(rows))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", ["forest", "tree", "histogram"])
def test_missing_values(kind, n_classes):
    rng = np.random.default_rng(1)
    x, y = make_tile(n_classes, n=1200)
    spoilt = spoil(x, rng)
    model = fitted(KINDS[kind], spoilt, y)
    check_parity(model, x)
    check_parity(model, spoilt)
    without = fitted(KINDS[kind], x, y)
    if kind == "histogram":  # takes missing values that it has not seen
        check_parity(without, spoilt)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(
            response_of(model, "predict_proba")(spoilt), model.predict_proba(spoilt), rtol=0, atol=1e-7
        )


def test_missing_values_spoil_no_other_row():
    x, y = make_tile(3, n=300)
    for classifier in KINDS.values():
        compiled = predictors.compile_predictor(fitted(classifier, x, y))
        whole = answer(compiled, x)
        spoilt = x.copy()
        spoilt[77] = np.nan
        got = answer(compiled, spoilt)
        np.testing.assert_array_equal(np.delete(got, 77, axis=0), np.delete(whole, 77, axis=0))


def make_categories(n_classes, n, rng, missing):
    """Return rows of which columns 1, 4 and 5 are categories that tell the classes apart, and labels."""
    x, y = make_tile(n_classes, 7, n)
    for column, values in ((1, np.arange(40)), (4, np.array([-3.0, 0.5, 2, 1e6])), (5, np.arange(200))):
        codes = rng.integers(0, len(values), n)
        x[:, column] = values[codes]
        y = np.where(codes % 3 == 0, y, np.roll(y, column))
    if missing:
        x[rng.random(x.shape) < 0.1] = np.nan
    return x, y


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("max_leaf_nodes", [4, 31, None])
def test_categories(max_leaf_nodes, n_classes, missing):
    rng = np.random.default_rng(0)
    x, y = make_categories(n_classes, 3000, rng, missing)
    model = HistGradientBoostingClassifier(
        max_iter=5, max_leaf_nodes=max_leaf_nodes, categorical_features=[1, 4, 5], min_samples_leaf=5, random_state=0
    ).fit(x, y)
    found = histogram_boosting_trees(model)
    assert sum(len(tree.right_sets) for tree in found.trees) > 5
    unknown = x.copy()
    strange = rng.choice([1000.0, -1, 0.25, 255, 256, np.nan], (len(x), 3))
    unknown[:, [1, 4, 5]] = np.where(rng.random(strange.shape) < 0.3, strange, x[:, [1, 4, 5]])
    for rows in (x, unknown):
        for method in ("predict_proba", "decision_function"):
            expected = own_answer(model, method, rows.astype(np.float64))
            np.testing.assert_allclose(answer(compile_method(model, method), rows), expected, rtol=0, atol=1e-5)
    for level in supported_levels():
        np.testing.assert_array_equal(leaves(found, unknown, level), leaves(found, unknown))


def test_categories_that_are_no_numbers_are_refused():
    pandas = pytest.importorskip("pandas")
    x, y = make_tile(2, 3)
    frame = pandas.DataFrame(x, columns=["a", "b", "c"]).assign(d=pandas.Categorical(y))
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(frame, y)
    with pytest.raises(predictors.NotCompilable, match="the categories of feature 3 are no numbers"):
        predictors.compile_predictor(model)


# --- tiles, threads, levels ---


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_tiles_or_threads(kind, n_classes):
    x, y = make_tile(n_classes, n=4500)
    compiled = predictors.compile_predictor(fitted(KINDS[kind], x[:1500], y[:1500]))
    whole = answer(compiled, x)
    for size in (1, 63, 64, 65, 513):
        pieces = [answer(compiled, x[start : start + size]) for start in range(0, 200 if size == 1 else len(x), size)]
        got = np.concatenate(pieces)
        np.testing.assert_array_equal(got, whole[: len(got)])
    assert answer(compiled, x[:0]).shape == (0, n_classes)
    with ThreadPoolExecutor(4) as pool:
        tiles = list(pool.map(lambda start: answer(compiled, x[start : start + 100]), list(range(0, 4500, 100)) * 5))
    np.testing.assert_array_equal(np.concatenate(tiles), np.tile(whole, (5, 1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_levels_agree_bitwise(kind, n_classes):
    x, y = make_tile(n_classes, n=700)
    compiled = predictors.compile_predictor(fitted(KINDS[kind], x, y))
    sums = []
    for level in supported_levels():
        sums.append(np.zeros((len(x), compiled._packed.n_sums)))
        add_trees(compiled._packed, x, sums[-1], level)
        np.testing.assert_array_equal(sums[-1], sums[0])


@pytest.mark.parametrize("kind", KINDS)
def test_pickled(kind):
    x, y = make_tile(3)
    compiled = predictors.compile_predictor(fitted(KINDS[kind], x, y))
    np.testing.assert_array_equal(answer(pickle.loads(pickle.dumps(compiled)), x), answer(compiled, x))


def test_a_forest_is_packed_once_for_each_fit(monkeypatch):
    """Who predicts frame after frame does not wait for it; a forest with other trees is another one."""
    packed = []
    monkeypatch.setattr(_tree_predictors, "pack", lambda trees: packed.append(trees) or pack(trees))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)).astype(np.float32), rng.integers(0, 3, 200)
    forest = RandomForestClassifier(5, random_state=0, warm_start=True).fit(x, y)
    for change in (
        lambda: None,
        lambda: forest.set_params(n_estimators=8).fit(x, y),
        lambda: forest.set_params(warm_start=False).fit(x, y + 1),
        lambda: forest.estimators_.reverse(),
    ):
        change()
        for _ in range(2):
            compiled = predictors.compiled_or_none(forest, "predict_proba")
            np.testing.assert_allclose(answer(compiled, x), forest.predict_proba(x), atol=1e-6)
    assert len(packed) == 4


def test_wrong_tiles():
    x, y = make_tile(3)
    compiled = predictors.compile_predictor(fitted(FOREST, x, y))
    with pytest.raises(ValueError, match=r"tile must .* \(400, 13\)"):
        compiled.predict_proba(x[:, :5].copy(), np.empty((400, 3), np.float32))


# --- compositions ---


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "classifier",
    [
        make_pipeline("passthrough", FOREST),
        CalibratedClassifierCV(FOREST, cv=2),
        CalibratedClassifierCV(HISTOGRAM, cv=2),
        CalibratedClassifierCV(KINDS["gradient boosting"], cv=2),
        OneVsRestClassifier(FOREST),
        OneVsRestClassifier(HISTOGRAM),
        GridSearchCV(FOREST, {"max_leaf_nodes": [8, 70]}, cv=2),
        VotingClassifier(
            [
                ("network", make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=20, random_state=0))),
                ("forest", ExtraTreesClassifier(9, max_leaf_nodes=64, random_state=0)),
            ],
            voting="soft",
        ),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
def test_composed(classifier, n_classes):
    x, y = make_tile(n_classes, mean=3, scale=np.geomspace(0.1, 10, 13))
    check_parity(fitted(classifier, x, y), x)


@pytest.mark.parametrize("method", ["predict_proba", "predict"])
def test_steps_in_front_are_asked_themselves(method):
    x, y = make_tile(3, mean=3, scale=np.geomspace(0.1, 10, 13))
    vote = VotingClassifier([("linear", LogisticRegression(max_iter=300)), ("forest", FOREST)], voting="soft")
    for classifier in (FOREST, vote):
        model = fitted(make_pipeline(StandardScaler(), classifier), x, y)
        assert predictors.compiled_or_none(model, method) is None
        assert predictors.compiled_or_none(model[-1], method) is not None
        got, expected = response_of(model, method)(x), getattr(model, method)(x)
        if method == "predict":
            assert np.mean(got == expected) > 0.99  # but for ties
        else:
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


# --- what cannot be compiled ---


def test_labels_of_scores():
    x, y = make_tile(2)
    for kind in ("gradient boosting", "histogram"):
        model = fitted(KINDS[kind], x, y)
        scorer = predictors.compile_scorer(model)
        assert scorer.n_scores == 1
        assert_same_labels(scorer, model, x)


class Reversed(ExtraTreesClassifier):
    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


@pytest.mark.parametrize(
    ("classifier", "why"),
    [
        (Reversed(2), "no compiler for this class"),
        (GradientBoostingClassifier(n_estimators=2, init=LogisticRegression()), "it starts from LogisticRegression"),
        (
            GradientBoostingClassifier(n_estimators=2, init=DummyClassifier(strategy="stratified")),
            "it starts from DummyClassifier",
        ),
    ],
)
def test_refused(classifier, why):
    x, y = make_tile(2)
    with pytest.raises(predictors.NotCompilable, match=why):
        predictors.compile_predictor(fitted(classifier, x, y))


def test_several_outputs_and_one_class_are_refused():
    x, y = make_tile(2)
    for classifier in (FOREST, KINDS["tree"]):
        with pytest.raises(predictors.NotCompilable, match="it has 2 outputs"):
            predictors.compile_predictor(fitted(classifier, x, np.stack([y, y], axis=1)))
        with pytest.raises(predictors.NotCompilable, match="it tells no two classes apart"):
            predictors.compile_predictor(fitted(classifier, x, np.zeros(len(x), int)))


def test_trees_too_large_for_their_nodes():
    x, y = make_tile(2, n=2000)
    found = dataclasses.replace(forest_trees(fitted(FOREST, x, y)), n_features=1 << 28)
    with pytest.raises(predictors.NotCompilable, match=r"a tree of \d+ nodes on 268435456 features is too large"):
        pack(found, max_whole=64)


@pytest.mark.parametrize("name", ["_predictors", "_baseline_prediction", "is_categorical_"])
def test_what_is_missing_is_refused(name):
    x, y = make_tile(2)
    model = fitted(HISTOGRAM, x, y)
    delattr(model, name)
    with pytest.raises(predictors.NotCompilable, match=f"has no {name}"):
        predictors.compile_predictor(model)
