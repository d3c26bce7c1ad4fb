"""AdaptiveVote: who votes, by held-out groups, and what comes out."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from dconv import (
    AdaptiveVote,
    AtrousFeatures,
    PerceptronClassifier,
    PixelClassifier,
    RegularizedDiscriminantAnalysis,
    SoftClipScaler,
    default_classifier,
)
from dconv._lesson import groups_of
from dconv._pixels import pixel_set
from dconv.voting import _best

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 4))
TREE, LINE = DecisionTreeClassifier(min_samples_leaf=10, random_state=0), LogisticRegression()
CORNERS = np.abs(X[:, 0]) > 0.7  # a tree can tell, a line cannot
HALVES = X @ [1, -1, 1, -1] > 0  # and the other way round


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_checks():
    weights = "repeated rows are dealt to other folds, on which another choice can be best"
    check_estimator(
        AdaptiveVote(TREE, LINE, random_state=0),
        expected_failed_checks={"check_sample_weight_equivalence_on_dense_data": weights},
    )


@pytest.mark.parametrize(("y", "expected"), [(CORNERS, ["forest"]), (HALVES, ["perceptron"])])
def test_the_better_one_votes(y, expected):
    vote = AdaptiveVote(TREE, LINE, random_state=0).fit(X, y)
    assert list(vote.members_) == expected
    alone = {"forest": TREE, "perceptron": LINE}[expected[0]].fit(X, y)
    np.testing.assert_array_equal(vote.predict_proba(X), alone.predict_proba(X))


def test_both_vote_where_the_mean_is_best():
    y = np.where(rng.random(300) < 0.5, CORNERS, HALVES)
    vote = AdaptiveVote(TREE, LINE, random_state=0).fit(X, y)
    assert min(vote.log_loss_, key=vote.log_loss_.get) == "mean"
    mean = (TREE.fit(X, y).predict_proba(X) + LINE.fit(X, y).predict_proba(X)) / 2
    np.testing.assert_allclose(vote.predict_proba(X), mean, rtol=1e-12)
    np.testing.assert_array_equal(vote.predict(X), mean[:, 1] > 0.5)


@pytest.mark.parametrize(("forest", "expected"), [(0.89, "forest"), (0.91, "mean"), (1.5, "mean")])
def test_a_member_has_to_be_clearly_better_than_the_mean(forest, expected):
    assert _best({"forest": forest, "perceptron": 1.2, "mean": 1.0}) == expected
    assert _best({"forest": 1.2, "perceptron": forest, "mean": 1.0}) == expected.replace("forest", "perceptron")


def test_losses_are_those_of_held_out_groups():
    groups = np.arange(300) % 7
    weights = rng.uniform(0.5, 2, 300)
    y = np.where(rng.random(300) < 0.7, HALVES, CORNERS).astype(int)
    vote = AdaptiveVote(TREE, LINE, n_folds=3, random_state=3).fit(X, y, weights, groups=groups)
    state = np.random.RandomState(3)
    rows = state.permutation(300)
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=state.randint(np.iinfo(np.int32).max))
    x, of_rows, w = X[rows], y[rows], weights[rows]
    found = {"forest": np.empty((300, 2)), "perceptron": np.empty((300, 2))}
    for learnt, held_out in folds.split(x, of_rows, groups[rows]):
        assert not set(groups[rows][learnt]) & set(groups[rows][held_out])
        for name, member in (("forest", TREE), ("perceptron", LINE)):
            member.fit(x[learnt], of_rows[learnt], sample_weight=w[learnt])
            found[name][held_out] = member.predict_proba(x[held_out])
    found["mean"] = (found["forest"] + found["perceptron"]) / 2
    for name, probabilities in found.items():
        assert vote.log_loss_[name] == pytest.approx(log_loss(of_rows, probabilities, sample_weight=w))


@pytest.mark.parametrize(
    ("y", "groups"),
    [
        (np.arange(300) == 7, None),  # one row of a class
        (np.arange(300) < 150, np.arange(300) // 150),  # a class in each group
    ],
)
def test_without_folds_both_vote(y, groups):
    vote = AdaptiveVote(TREE, LINE, random_state=0).fit(X, y, groups=groups)
    assert vote.log_loss_ is None
    assert list(vote.members_) == ["forest", "perceptron"]


def test_a_third_member_votes_or_is_chosen():
    members = [TREE, LINE, RegularizedDiscriminantAnalysis()]
    y = (np.square(X).sum(axis=1) > 3).astype(int)  # a sphere
    vote = AdaptiveVote(*members[:2], discriminant=members[2], n_folds=None).fit(X, y)
    assert list(vote.members_) == ["forest", "perceptron", "discriminant"]
    mean = np.mean([member.fit(X, y).predict_proba(X) for member in members], axis=0)
    np.testing.assert_allclose(vote.predict_proba(X), mean, rtol=1e-12)
    vote.set_params(n_folds=2, random_state=0).fit(X, y)
    assert list(vote.log_loss_) == ["forest", "perceptron", "discriminant", "mean"]
    assert list(vote.members_) == ["discriminant"]
    np.testing.assert_array_equal(vote.predict_proba(X), members[2].predict_proba(X))
    np.testing.assert_allclose(  # a sphere of other rows too, once it goes on
        vote.partial_fit(X + 1, y).predict_proba(X), members[2].fit(X + 1, y).predict_proba(X), rtol=1e-12
    )


def test_a_member_that_votes_goes_on_though_it_is_no_parameter_any_more():
    vote = AdaptiveVote(TREE, LINE, discriminant=GaussianNB(), n_folds=None).fit(X, HALVES)
    expected = vote.predict_proba(X)
    vote.set_params(discriminant=None).partial_fit(X, HALVES)
    np.testing.assert_array_equal(vote.predict_proba(X), expected)


def test_without_a_trial_both_vote():
    vote = AdaptiveVote(TREE, LINE, n_folds=None, random_state=0).fit(X, X.sum(axis=1) > 0)
    assert vote.log_loss_ is None
    assert list(vote.members_) == ["forest", "perceptron"]


@pytest.mark.parametrize(("size", "tried"), [(99, False), (100, True)])
def test_the_default_tries_who_votes_only_with_many_pixels(size, tried):
    image = rng.normal(size=(100, size))
    vote = PixelClassifier(AtrousFeatures(1, groups=("level",)), random_state=0).fit(image, 1 + (image > 0)).classifier_
    assert (vote.log_loss_ is not None) is tried
    assert (vote.forest.n_estimators, vote.forest.max_leaf_nodes) == ((50, 1024) if tried else (100, 64))


def test_weights_reach_a_pipeline():
    weights = np.where(np.arange(300) < 150, 1e-6, 1.0)
    y = HALVES ^ (np.arange(300) < 150)
    vote = AdaptiveVote(TREE, make_pipeline(StandardScaler(), LINE), random_state=0).fit(X, y, weights)
    assert np.mean(vote.predict(X)[150:] == y[150:]) > 0.95


def test_members_go_on_or_are_fitted_anew():
    y = np.where(rng.random(300) < 0.5, CORNERS, HALVES)
    weights = rng.uniform(0.5, 2, 300)
    line = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0))
    vote = AdaptiveVote(TREE, line, random_state=0).partial_fit(X[:200], y[:200], weights[:200], classes=[0, 1])
    assert list(vote.members_) == ["forest", "perceptron"]
    vote.partial_fit(X, y, weights)
    tree = clone(TREE).fit(X, y, weights)
    scaler = StandardScaler().fit(X[:200])
    sgd = SGDClassifier(loss="log_loss", random_state=0).fit(
        scaler.transform(X[:200]), y[:200], sample_weight=weights[:200]
    )
    sgd.partial_fit(scaler.transform(X), y, sample_weight=weights)
    mean = (tree.predict_proba(X) + sgd.predict_proba(scaler.transform(X))) / 2
    np.testing.assert_allclose(vote.predict_proba(X), mean, rtol=1e-9)


def test_going_on_with_other_classes_is_refused():
    labels = HALVES.astype(int)
    vote = AdaptiveVote(TREE, LINE, random_state=0)
    with pytest.raises(ValueError, match=r"y has no row of \[2\]"):
        vote.partial_fit(X, labels, classes=[0, 1, 2])
    vote.partial_fit(X, labels)
    for y, message in ((np.zeros(300, int), r"no row of \[1\]"), (labels + 1, r"no row of \[0\]")):
        with pytest.raises(ValueError, match=message):
            vote.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y has labels \[2\], but \[0, 1\]"):
        vote.partial_fit(X, np.where(np.arange(300) < 5, 2, labels))


def test_bad_parameters_are_refused():
    for n_folds in (1, 2.5, "two"):
        with pytest.raises((TypeError, ValueError), match="n_folds must be"):
            AdaptiveVote(TREE, LINE, n_folds=n_folds).fit(X, HALVES)
    with pytest.raises(ValueError, match="one class"):
        AdaptiveVote(TREE, LINE).fit(X, np.ones(300))
    for members, third, name in (
        ((LinearSVC(), LINE), None, "forest"),
        ((TREE, type(LINE)), None, "perceptron"),
        ((TREE, LINE), LinearSVC(), "discriminant"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be a classifier with predict_proba, got "):
            AdaptiveVote(*members, discriminant=third).fit(X, HALVES)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[300, 2\]"):
        AdaptiveVote(TREE, LINE).fit(X, HALVES, groups=[0, 1])


def test_groups_are_images_or_regions_of_one():
    masks = [np.ones((3, 4), bool), np.zeros((2, 2), bool), np.eye(3, dtype=bool)]
    np.testing.assert_array_equal(groups_of(list(map(pixel_set, masks))), [0] * 12 + [2] * 3)
    mask = np.zeros((40, 80), bool)
    mask[[0, 9, 10, 39], [0, 19, 19, 79]] = True
    np.testing.assert_array_equal(groups_of([pixel_set(mask)]), [0, 0, 4, 15])
    for shape, count in (((100,), 16), ((9, 9, 9), 27)):
        assert len(np.unique(groups_of([pixel_set(np.ones(shape, bool))]))) == count


def test_pixel_classifier_tells_it_the_groups(monkeypatch):
    seen = []
    fit = AdaptiveVote.fit

    def watch(self, X, y, sample_weight=None, *, groups=None):
        seen.append(groups)
        return fit(self, X, y, sample_weight, groups=groups)

    monkeypatch.setattr(AdaptiveVote, "fit", watch)
    image = rng.normal(size=(20, 30))
    labels = rng.integers(0, 3, (20, 30))
    vote = AdaptiveVote(ExtraTreesClassifier(5, random_state=0), LINE, random_state=0)
    segmenter = PixelClassifier(AtrousFeatures(2), vote).fit([image, image + 1], [labels, labels])
    np.testing.assert_array_equal(seen[0], np.repeat([0, 1], np.count_nonzero(labels)))
    assert segmenter.predict_proba(image).shape == (20, 30, 2)


def test_parts_of_the_default_are_those_that_were_measured():
    vote = default_classifier(random_state=0)
    assert type(vote.forest) is ExtraTreesClassifier
    assert [type(step) for step in vote.perceptron] == [SoftClipScaler, StandardScaler, PerceptronClassifier]
    assert vote.perceptron[0].limit == 5
    parameters = {"hidden_layer_sizes": (64,), "weight_decay": 0.004, "alpha": 0.3, "doubt": 100.0, "max_iter": 30}
    assert parameters.items() <= vote.perceptron[-1].get_params().items()
    few, many = (None, 100, 64, 1), (2, 50, 1024, 4)
    for n_rows, expected in ((None, few), (9_999, few), (10_000, many)):
        vote = default_classifier(n_rows=n_rows)
        forest = vote.forest
        assert (vote.n_folds, forest.n_estimators, forest.max_leaf_nodes, forest.min_samples_leaf) == expected
    for ndim, n_rows, voting in (
        (3, None, True),
        (3, 9_999, True),
        (3, 10_000, False),
        (2, None, False),
        (1, 9, False),
    ):
        third = default_classifier(n_rows=n_rows, ndim=ndim).discriminant
        assert (third is not None) is voting
        if voting:
            assert [type(step) for step in third] == [SoftClipScaler, StandardScaler, RegularizedDiscriminantAnalysis]
            assert third[-1].shrinkage == 0.3
    with pytest.raises(ValueError, match="ndim"):
        default_classifier(ndim=4)


def test_default_classifier_is_deterministic_and_the_default():
    image = rng.normal(size=(40, 50))
    labels = rng.integers(0, 3, (40, 50))
    one, other = (PixelClassifier(AtrousFeatures(2), random_state=0).fit(image, labels) for _ in range(2))
    assert isinstance(one.classifier_, AdaptiveVote)
    np.testing.assert_array_equal(one.predict_proba(image), other.predict_proba(image))
    assert str(default_classifier(random_state=1)) == str(default_classifier(random_state=1))
    assert str(default_classifier(random_state=1)) != str(default_classifier(random_state=2))


@pytest.mark.parametrize("n_rows", [0, -1, "many", 2.5, True])
def test_a_number_of_rows_that_cannot_be(n_rows):
    with pytest.raises((TypeError, ValueError), match="n_rows must be"):
        default_classifier(n_rows=n_rows)
