"""SoftClipScaler against its definition, and compiled in front of classifiers."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from dconv import SoftClipScaler
from dconv._network import Network
from dconv._network_run import compile_network
from dconv.predictors import NotCompilable, compile_predictor

rng = np.random.default_rng(0)
X = (rng.standard_t(1.5, size=(700, 9)) * np.logspace(-3, 4, 9) + 30).astype(np.float32)
Y = np.digitize((X - 30) @ np.array([1e3, 100, 0, 0, 0, 0, 0, 0, 1e-4]), [-2, 2])


def define(x, limit):
    q25, median, q75 = np.nanpercentile(X.astype(float), [25, 50, 75], axis=0)
    z = (x - median) / ((q75 - q25) / 1.3489795)
    return z / np.sqrt(1 + (z / limit) ** 2)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_checks():
    check_estimator(SoftClipScaler())


@pytest.mark.parametrize("limit", [0.5, 5, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_definition(dtype, limit):
    scaled = SoftClipScaler(limit).fit(X).transform(X.astype(dtype))
    assert scaled.dtype == dtype
    np.testing.assert_allclose(
        scaled, define(X.astype(float), limit), rtol=1e-4 if dtype == np.float32 else 1e-6, atol=1e-4
    )
    assert np.abs(scaled).max() <= limit


def test_far_values_reach_the_limit_and_missing_ones_stay():
    scaler = SoftClipScaler(2).fit(X)
    x = np.full((1, 9), 3e38, np.float32)
    np.testing.assert_array_equal(scaler.transform(np.vstack([x, -x])), np.vstack([x > 0, x > 0]) * [[2], [-2]])
    assert np.isnan(scaler.transform(x * np.nan)).all()
    holes = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    np.testing.assert_allclose(SoftClipScaler().fit(holes).center_, np.nanmedian(holes, axis=0))


def test_constant_features_become_zero():
    assert (SoftClipScaler().fit_transform(np.full((5, 2), 7.0)) == 0).all()


@pytest.mark.parametrize(
    ("limit", "error"),
    [(0, ValueError), (-1, ValueError), (np.inf, ValueError), (np.nan, ValueError), ("5", TypeError)],
)
def test_limits_are_checked(limit, error):
    with pytest.raises(error, match="limit must be"):
        SoftClipScaler(limit).fit(X)


@pytest.mark.parametrize("limit", [1, 5])
@pytest.mark.parametrize(
    "steps",
    [
        (StandardScaler(), MLPClassifier((20,), max_iter=20, random_state=0)),
        (MLPClassifier((7, 5), max_iter=20, random_state=0),),
        (LogisticRegression(),),
        (StandardScaler(), LogisticRegression()),
    ],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_is_compiled_with_what_follows(steps, limit):
    pipeline = make_pipeline(SoftClipScaler(limit), *steps).fit(X, Y)
    predictor = compile_predictor(pipeline)
    tile = np.vstack([X, np.full((1, 9), 1e30, np.float32), np.full((1, 9), -3e38, np.float32)])
    out = np.empty((len(tile), 3), np.float32)
    predictor.predict_proba(tile, out)
    np.testing.assert_allclose(out, pipeline.predict_proba(tile), atol=1e-5)


def test_what_cannot_be_folded_is_not_compiled():
    for steps in ([StandardScaler(), SoftClipScaler(), LogisticRegression()], [SoftClipScaler(), GaussianNB()]):
        pipeline = make_pipeline(*steps).fit(X, Y)
        with pytest.raises(NotCompilable, match="soft clip"):
            compile_predictor(pipeline)


def test_every_level_clips_alike():
    from dconv._kernels._dispatch import supported_levels

    from dconv._affine import Affine, SoftClip
    from dconv._network import Layer

    clip = SoftClip(np.arange(9.0), np.logspace(-3, 4, 9), 5.0)
    network = Network((Layer(Affine(np.eye(9), np.zeros(9))),), clip=clip)
    z = (X.astype(float) - clip.centre) / clip.scale
    for level in supported_levels():
        for double in (False, True):
            out = np.empty((len(X), 9), np.float32)
            compile_network(Network(network.layers, clip=clip, double=double), level)(X, out)
            np.testing.assert_allclose(out, z / np.sqrt(1 + (z / 5) ** 2), rtol=1e-5, atol=1e-5)
