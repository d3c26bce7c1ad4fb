import re

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from dconv import (
    AdaptiveVote,
    AtrousContext,
    AtrousFeatures,
    AtrousPyramid,
    MiniRocket,
    PerceptronClassifier,
    PixelClassifier,
    default_classifier,
    filters,
)
from dconv._random_state import as_random_state

IMAGE = np.random.default_rng(0).normal(size=(16, 16))
LABELS = 1 + np.indices(IMAGE.shape)[1] // 8
BANK = AtrousFeatures(2)


def test_seeds_and_states():
    assert as_random_state(3).randint(1000) == np.random.RandomState(3).randint(1000)
    assert as_random_state(np.uint8(3)).randint(1000) == np.random.RandomState(3).randint(1000)
    state = np.random.RandomState(0)
    assert as_random_state(state) is state
    assert as_random_state(None) is as_random_state(None)


@pytest.mark.parametrize(
    ("value", "error"),
    [(-1, ValueError), (2**32, ValueError), ("0", TypeError), (0.5, TypeError), (np.random.default_rng(0), TypeError)],
)
def test_others_are_named(value, error):
    message = "random_state must be None, an int from 0 to 2**32 - 1 or a numpy.random.RandomState, got "
    with pytest.raises(error, match=re.escape(f"{message}{value!r:.60}")):
        as_random_state(value)


def test_a_generator_gives_a_seed():
    with pytest.raises(TypeError, match=re.escape("take a seed from it, as by int(rng.integers(2**32))")):
        as_random_state(np.random.default_rng(0))


@pytest.mark.parametrize(
    "run",
    [
        lambda seed: PixelClassifier(BANK, GaussianNB(), random_state=seed).fit(IMAGE, LABELS),
        lambda seed: AtrousContext(BANK, random_state=seed).fit(IMAGE, LABELS),
        lambda seed: AtrousPyramid(BANK, projection="gaussian", random_state=seed).fit(IMAGE),
        lambda seed: MiniRocket(random_state=seed).fit(IMAGE),
        lambda seed: PerceptronClassifier(random_state=seed).fit(IMAGE, LABELS[0]),
        lambda seed: AdaptiveVote(GaussianNB(), GaussianNB(), random_state=seed).fit(IMAGE, LABELS[0]),
        lambda seed: default_classifier(random_state=seed),
        lambda seed: filters.random_normal(2, 3, random_state=seed),
        lambda seed: filters.pca_patches([IMAGE], 2, 3, random_state=seed),
        lambda seed: filters.kmeans_patches([IMAGE], 2, 3, random_state=seed),
    ],
)
def test_everything_that_draws_names_it(run):
    with pytest.raises(ValueError, match="random_state must be None, an int"):
        run(-1)
