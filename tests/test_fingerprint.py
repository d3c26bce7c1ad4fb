"""A hash of a model: of its values, and of nothing else."""

import os
import pickle
import sys

import numpy as np
import pytest
from images import BANK, TREES, make_image, scribble
from processes import output
from sklearn.base import clone
from sklearn.neural_network import MLPClassifier

import dconv
from dconv import AtrousFeatures, PixelClassifier
from dconv._fingerprint import fingerprint

IMAGE, LABELS = make_image()
SCRIBBLES = scribble(LABELS)
PARTS = [TREES, MLPClassifier((5,), max_iter=2000, random_state=0)]
ELSEWHERE = """
from test_fingerprint import PARTS, hash_of, fitted
print(*[hash_of(fitted(part)) for part in PARTS])
"""


def fitted(classifier, features=None, **options):
    features = AtrousFeatures(2, normalize="training") if features is None else features
    return PixelClassifier(features, clone(classifier), **options).fit(IMAGE, SCRIBBLES)


def hash_of(model):
    return fingerprint(model.features_, model.classifier_, model.classes_)


def test_the_same_in_another_process():
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    for seed in ("1", "2"):
        found = output(ELSEWHERE, PYTHONPATH=path, PYTHONHASHSEED=seed)
        assert found.split() == [hash_of(fitted(part)) for part in PARTS]


@pytest.mark.parametrize("classifier", PARTS, ids=lambda part: type(part).__name__)
def test_the_same_from_a_file(tmp_path, classifier):
    model = fitted(classifier)
    assert hash_of(pickle.loads(pickle.dumps(model))) == hash_of(model)
    pytest.importorskip("skops", reason="models are written by skops")
    dconv.save(model, tmp_path / "m")
    assert hash_of(dconv.load(tmp_path / "m")) == hash_of(model)


def test_the_same_with_other_threads():
    assert hash_of(fitted(TREES, n_jobs=2, verbose=0)) == hash_of(fitted(TREES))
    assert hash_of(fitted(clone(TREES).set_params(n_jobs=2, verbose=0))) == hash_of(fitted(TREES))


def test_another_for_everything_else():
    models = [
        fitted(TREES),
        fitted(PARTS[1]),
        fitted(clone(TREES).set_params(random_state=1)),
        fitted(TREES, BANK),
        fitted(TREES, AtrousFeatures(2)),
        fitted(TREES, AtrousFeatures(2, normalize="training", padding_mode="edge")),
        fitted(TREES, AtrousFeatures(2, normalize="training", scheme="pyramid")),
        PixelClassifier(AtrousFeatures(2, normalize="training"), TREES).fit(IMAGE + 1, SCRIBBLES),
        PixelClassifier(AtrousFeatures(2, normalize="training"), TREES).fit(IMAGE, 2 * SCRIBBLES),
    ]
    assert len({hash_of(model) for model in models}) == len(models)
    model = pickle.loads(pickle.dumps(models[1]))
    model.classifier_.coefs_[0][0, 0] = np.nextafter(model.classifier_.coefs_[0][0, 0], 1)
    assert hash_of(model) != hash_of(models[1])


def test_values_and_not_places():
    word = "ab"
    assert fingerprint([word, word]) == fingerprint([word, "".join(["a", "b"])])
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a", "b"}) == fingerprint({"b", "a"})
    array = np.arange(6.0).reshape(2, 3)
    assert fingerprint(array) == fingerprint(np.asfortranarray(array))
    different = [
        0,
        0.0,
        False,
        None,
        "0",
        b"0",
        [0],
        (0,),
        {0},
        {0: 0},
        np.zeros(1),
        np.zeros(1, int),
        np.zeros((1, 1)),
    ]
    different += [[[0], 0], [[0, 0]], np.float32(0), np.dtype("f4"), int, len]
    assert len({fingerprint(thing) for thing in different}) == len(different)
    loop: list = []
    loop.append(loop)
    assert fingerprint(loop) != fingerprint([[]])


def test_what_lies_between_fields_is_of_no_account():
    dtype = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"]}, align=True)
    raw = np.zeros(2 * dtype.itemsize, np.uint8)
    clean = raw.view(dtype)
    dirty = np.where(np.arange(len(raw)) % dtype.itemsize == 1, 7, raw).astype(np.uint8).view(dtype)
    assert clean.tobytes() != dirty.tobytes()
    assert fingerprint(clean) == fingerprint(dirty)
