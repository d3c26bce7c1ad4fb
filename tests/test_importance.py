"""Which features matter: on images made such that it is known."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.inspection import permutation_importance
from sklearn.metrics import log_loss
from sklearn.naive_bayes import GaussianNB

from dconv import (
    AdaptiveVote,
    AtrousContext,
    AtrousFeatures,
    ContextClassifier,
    DenseCRF,
    DilatedConv,
    PixelClassifier,
    PixelPosition,
    group_importance,
    importance,
    make_features,
    select_features,
)
from dconv.filters import gaussian

TREES = ExtraTreesClassifier(20, max_leaf_nodes=32, random_state=0)


def scene(seed, shape=(80, 90)):
    """Return noise whose local spread tells two classes, and nothing else does."""
    rng = np.random.default_rng(seed)
    labels = 1 + (ndimage.gaussian_filter(rng.normal(size=shape), 10) > 0)
    return (rng.normal(size=shape) * np.where(labels == 2, 4, 1)).astype(np.float32), labels


X, Y = map(list, zip(*(scene(seed) for seed in range(4)), strict=True))
BANK = AtrousFeatures(3, groups=["level", "gradient", "std"])


def test_the_group_that_tells_comes_first():
    model = PixelClassifier(BANK, TREES, max_samples=300, random_state=0).fit(X[:2], Y[:2])
    importance = group_importance(model, X[2:], Y[2:], random_state=0)
    assert importance.names[0] == "std"
    assert set(importance.names) == {"level", "gradient", "std"}
    assert importance.mean[0] > 10 * importance.std[0]
    assert (np.diff(importance.mean) <= 0).all()


def test_names_of_groups():
    model = PixelClassifier(BANK, TREES, max_samples=50, random_state=0).fit(X[:2], Y[:2])

    def names(by):
        return set(group_importance(model, X[2:], Y[2:], by=by, max_samples=50, n_repeats=1).names)

    assert names("scale") == {"d1", "d2", "d4", "d8"}
    assert names("plane") == {"intensity"}
    assert names(("plane", "scale")) == {"intensity_d1", "intensity_d2", "intensity_d4", "intensity_d8"}
    joined = make_features(BANK, PixelPosition(), DilatedConv(gaussian(1.0)))
    model = PixelClassifier(joined, TREES, max_samples=50, random_state=0).fit(X[:2], Y[:2])
    assert names("group") == {"level", "gradient", "std", "pixelposition", "dilatedconv"}
    assert "atrousfeatures__intensity" in names("plane")


def test_a_student_is_asked_with_the_features_that_it_sees(monkeypatch):
    monkeypatch.setattr("dconv._distillation.MIN_AGREEMENT", 0)
    bank = AtrousFeatures(2, groups=["level", "std", "lines"])
    model = PixelClassifier(bank, TREES, distill=True, random_state=0).fit(X[:2], Y[:2])
    assert model.student_features_.n_features_out_ < model.n_features_
    importance = group_importance(model, X[2:], Y[2:], random_state=0)
    assert importance.names == ["std", "level"]
    assert importance.mean[0] > 0.1


def test_single_columns_are_permuted_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 3, size=(60, 50))
    image = rng.normal(size=(60, 50, 3)) + np.array([2.0, 0.5, 0.0]) * (labels[..., np.newaxis] - 1)
    model = PixelClassifier("passthrough", GaussianNB()).fit(image, labels)
    ours = group_importance(model, image, labels, n_repeats=30, max_samples=None, random_state=0)
    theirs = permutation_importance(
        model.classifier_, image.reshape(-1, 3), labels.ravel(), scoring="neg_log_loss", n_repeats=30, random_state=1
    )
    expected = dict(zip(["feature_0", "feature_1", "feature_2"], theirs.importances_mean, strict=True))
    for name, mean in zip(ours.names, ours.mean, strict=True):
        assert mean == pytest.approx(expected[name], rel=0.05, abs=1e-3)


def test_colour_and_priors():
    """The classifier itself is looked at: a prior that users expect elsewhere changes nothing."""
    images = [np.stack([x, x[::-1], x], axis=-1) for x in X]
    answers = []
    for prior in (None, [0.01, 0.99]):
        model = PixelClassifier(AtrousFeatures(2), TREES, channel_axis=-1, class_prior=prior, random_state=0)
        model.fit(images[:2], Y[:2])
        answers.append(group_importance(model, images[2:], Y[2:], by="plane", random_state=0))
    assert set(answers[0].names) == {"intensity", "red_green", "yellow_blue"}
    assert answers[0].names == answers[1].names
    np.testing.assert_array_equal(answers[0].mean, answers[1].mean)


def test_selection_keeps_what_tells_and_is_as_good():
    model = PixelClassifier(AtrousFeatures(3), TREES, max_samples=200, random_state=0)
    selection = select_features(model, X[:3], Y[:3], tolerance=0.05, random_state=0)
    kept = selection.estimator.features
    assert selection.log_loss[-1] <= selection.log_loss[0] * 1.05
    assert len(selection.dropped) == len(selection.cost) - 1 == len(selection.log_loss) - 1
    assert (np.diff(selection.cost) < 0).all()
    assert selection.cost[0] == 1
    assert selection.cost[-1] < 0.6
    assert not hasattr(selection.estimator, "classifier_")

    def loss(estimator):
        probabilities = estimator.fit(X[:3], Y[:3]).predict_proba(X[3])
        return log_loss(Y[3].ravel(), probabilities.reshape(-1, 2))

    assert loss(selection.estimator) < loss(model) + 0.03
    assert selection.estimator.n_features_ < model.n_features_
    assert kept.groups != ["level"]  # which tells nothing


def test_cost_decides_between_groups_that_tell_the_same():
    aware, unaware = (
        select_features(
            PixelClassifier(AtrousFeatures(2, groups=["std", "lines"]), TREES, max_samples=200, random_state=0),
            X[:3], Y[:3], cost_aware=cost_aware, tolerance=10.0, random_state=0,
        )
        for cost_aware in (True, False)
    )  # fmt: skip
    assert aware.dropped[0] == "lines"
    assert aware.cost[1] <= unaware.cost[1]


@pytest.mark.parametrize(
    ("cost_aware", "tolerance", "dropped"),
    [
        (True, 0.0, []),
        (True, 0.06, ["lines"]),
        (True, 0.2, ["lines", "level", "extrema"]),
        (False, 0.06, ["level", "extrema"]),
        (False, 0.2, ["level", "extrema", "lines"]),
    ],
)
def test_order_and_end_of_selection_by_known_losses(monkeypatch, cost_aware, tolerance, dropped):
    of_group = {"level": 0.02, "extrema": 0.03, "lines": 0.05, "std": 5.0}
    selection = selected_by(monkeypatch, of_group, cost_aware=cost_aware, tolerance=tolerance)
    assert selection.dropped == dropped
    assert selection.log_loss == pytest.approx(1 + np.cumsum([0, *(of_group[name] for name in dropped)]))


def test_of_what_gains_by_being_left_out_the_costliest_goes_first(monkeypatch):
    gains = {"level": -0.02, "extrema": -0.03, "lines": -0.02, "std": 5.0}
    assert selected_by(monkeypatch, gains).dropped == ["lines", "extrema", "level"]
    assert selected_by(monkeypatch, gains, cost_aware=False).dropped[0] == "extrema"


@pytest.mark.parametrize(("tolerance", "dropped"), [(0.2, ["lines"]), (0.3, ["lines", "level"])])
def test_what_was_gained_is_not_given_up(monkeypatch, tolerance, dropped):
    """Without lines the log loss is 0.5; without level besides 0.62, which is above 0.5 * 1.2."""
    of_group = {"lines": -0.5, "level": 0.12, "std": 0.4, "extrema": 0.4}
    assert selected_by(monkeypatch, of_group, tolerance=tolerance).dropped == dropped


def selected_by(monkeypatch, of_group, **options):
    """Return a selection where the log loss is 1, and so much more without each group."""
    bank = AtrousFeatures(1, groups=list(of_group)).fit(X[0])
    groups = np.array([group for _, group, _ in bank._feature_keys()])

    def loss(self, columns):
        return 1 + sum(more for group, more in of_group.items() if group not in groups[columns])

    monkeypatch.setattr(importance._Judge, "loss", loss)
    return select_features(PixelClassifier(bank, GaussianNB(), max_samples=50), X[:2], Y[:2], cv=2, **options)


@pytest.mark.parametrize("cv", [2, 4])
def test_folds_are_as_many_as_told(monkeypatch, cv):
    seen = []

    def loss(self, columns):
        seen.append(len(self.folds))
        return float(len(seen))  # nothing is better than all

    monkeypatch.setattr(importance._Judge, "loss", loss)
    select_features(PixelClassifier(BANK, GaussianNB(), max_samples=50), X, Y, cv=cv, random_state=0)
    assert set(seen) == {cv}


def test_context_of_the_default_stays_around_the_smaller_bank(monkeypatch):
    """Where labels are many, the default is a bank and its context."""
    monkeypatch.setattr(importance._Judge, "loss", lambda self, columns: 1.0 + (len(columns) < 60))
    few = [np.where(np.random.default_rng(0).random(y.shape) < 0.3, y, 0) for y in Y[:2]]
    for labels, kind in ((Y[:2], AtrousContext), (few, AtrousFeatures)):
        selection = select_features(PixelClassifier(classifier=GaussianNB()), X[:2], labels, random_state=0)
        assert type(selection.estimator.features) is kind
        assert len(selection.dropped) == 1
        kept = getattr(selection.estimator.features, "inner", selection.estimator.features)
        assert kept.normalize == "auto"
        assert selection.dropped[0] not in kept.groups
    selection = select_features(PixelClassifier(AtrousFeatures(), GaussianNB()), X[:2], Y[:2], random_state=0)
    assert type(selection.estimator.features) is AtrousFeatures  # as it was given


@pytest.mark.parametrize(("n_repeats", "max_samples"), [(1, 30), (4, 70)])
def test_as_many_pixels_and_repetitions_as_told(monkeypatch, n_repeats, max_samples):
    model = PixelClassifier(BANK, TREES, max_samples=50, random_state=0).fit(X[:2], Y[:2])
    seen, loss = [], importance._log_loss
    monkeypatch.setattr(importance, "_log_loss", lambda *args: seen.append(len(args[0])) or loss(*args))
    group_importance(model, X[2:], Y[2:], n_repeats=n_repeats, max_samples=max_samples)
    assert seen == [2 * 2 * max_samples] * (1 + 3 * n_repeats)


def test_colour_that_tells_nothing_is_dropped():
    rng = np.random.default_rng(0)
    images = [np.stack([x + 0.3 * rng.normal(size=x.shape) for _ in range(3)], axis=-1) for x in X[:3]]
    model = PixelClassifier(AtrousFeatures(2, groups=["level", "std"]), TREES, max_samples=200, channel_axis=-1)
    selection = select_features(model, images, Y[:3], tolerance=0.05, random_state=0)
    assert "color level" in selection.dropped
    assert "std" not in selection.dropped


def test_pixels_without_data_do_not_count():
    valid = np.indices(X[0].shape)[1] % 11 > 0
    holed = [np.where(valid, x, np.nan) for x in X]
    model = PixelClassifier(BANK, TREES, max_samples=200, nodata=0, random_state=0).fit(holed[:2], Y[:2])
    by_nan = group_importance(model, holed[2:], Y[2:], random_state=0)
    by_mask = group_importance(model, X[2:], Y[2:], mask=[valid, valid], random_state=0)
    assert by_nan.names == by_mask.names
    np.testing.assert_array_equal(by_nan.mean, by_mask.mean)
    chosen = [
        select_features(model, images, Y[:2], mask=mask, cv=2, random_state=0).dropped
        for images, mask in ((holed[:2], None), (X[:2], [valid, valid]))
    ]
    assert chosen[0] == chosen[1]


def test_colour_alone_is_not_dropped():
    images = [np.stack([x, x[::-1], x], axis=-1) for x in X[:2]]
    bank = AtrousFeatures(2, groups=[], color_groups=["level", "std"])
    model = PixelClassifier(bank, TREES, max_samples=50, channel_axis=-1)
    selection = select_features(model, images, Y[:2], tolerance=100.0, cv=2, random_state=0)
    assert len(selection.estimator.features.color_groups) == 1
    assert selection.estimator.features.n_levels == 1


def test_of_volumes_selection_judges_by_their_classifier(monkeypatch):
    voting, fit = [], AdaptiveVote.fit

    def watch(self, X, y, sample_weight=None, *, groups=None):
        voting.append(self.discriminant is not None)
        return fit(self, X, y, sample_weight, groups=groups)

    monkeypatch.setattr(AdaptiveVote, "fit", watch)
    volume = np.random.default_rng(0).normal(size=(12, 12, 12))
    select_features(PixelClassifier(AtrousFeatures(1, groups=["level", "std"], ndim=3)), volume, 1 + (volume > 0))
    assert voting
    assert all(voting)


def test_selection_knows_that_brightness_has_fewer_groups():
    rng = np.random.default_rng(5)
    images = rng.normal(5, 1, (4, 24, 24, 3))
    images[..., 12:, :] += 2
    labels = np.broadcast_to(1 + (np.arange(24) >= 12), (4, 24, 24))
    bank = AtrousFeatures(2, groups=["level", "std"], normalize="both")
    model = PixelClassifier(bank, TREES, max_samples=100, channel_axis=-1, random_state=0)
    selection = select_features(model, images, labels)
    assert selection.estimator.features.normalize == "both"
    fitted = selection.estimator.fit(images, labels)
    assert set(fitted.features_.get_feature_names_out()) < set(
        bank.set_params(channel_axis=-1).fit(images).get_feature_names_out()
    )


def test_two_banks_are_told_apart():
    model = PixelClassifier(make_features(BANK, BANK), TREES, max_samples=50, random_state=0).fit(X[:2], Y[:2])
    names = group_importance(model, X[2:], Y[2:], n_repeats=1).names
    assert len(names) == 6
    assert "atrousfeatures-2__std" in names


def test_refused():
    model = PixelClassifier(BANK, TREES, max_samples=20, random_state=0).fit(X[:2], Y[:2])
    with pytest.raises(ValueError, match="by must be one or several of 'plane', 'group', 'scale', got 'family'"):
        group_importance(model, X[2], Y[2], by="family")
    with pytest.raises(ValueError, match="by must be one or several of"):
        group_importance(model, X[2], Y[2], by=5)
    with pytest.raises(ValueError, match=r"by must be one or several of .* got array"):
        group_importance(model, X[2], Y[2], by=np.ones(2))
    with pytest.raises(TypeError, match="cost_aware must be True or False, got 'no'"):
        select_features(PixelClassifier(BANK, TREES), X, Y, cost_aware="no")
    with pytest.raises(ValueError, match="n_repeats"):
        group_importance(model, X[2], Y[2], n_repeats=0)
    with pytest.raises(ValueError, match=r"labels \[5\], which the classifier does not know"):
        group_importance(model, X[2], np.where(Y[2] == 1, 5, Y[2]))
    with pytest.raises(TypeError, match="PixelClassifier of one stage"):
        group_importance(ContextClassifier(BANK, TREES), X, Y)
    with pytest.raises(ValueError, match="refine=None"):
        select_features(PixelClassifier(refine=DenseCRF()), X, Y)
    with pytest.raises(TypeError, match="but features is DilatedConv"):
        select_features(PixelClassifier(DilatedConv(gaussian(1.0)), TREES), X, Y)
    with pytest.raises(ValueError, match="tolerance must be a finite number"):
        select_features(PixelClassifier(BANK, TREES), X, Y, tolerance=-1)
    few = np.zeros_like(Y[0])
    few[0, :2] = 1, 2
    with pytest.raises(ValueError, match="cannot be dealt to folds"):
        select_features(PixelClassifier(BANK, TREES), X[0], few)
