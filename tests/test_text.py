"""CharEncoder against scikit-learn's encoders and the Unicode tables, and in a pipeline that labels characters."""

import unicodedata

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import murmurhash3_32

from dconv.features import AtrousFeatures
from dconv.segmentation import PixelClassifier
from dconv.text import CharEncoder

TEXT = 'def f(x):\n\treturn "Größe_1" # ünits — €5 ≠ 我 «q»\r\n'


def names_of(encoder, text):
    """Return the names of the channels that are 1 at each sample."""
    names = encoder.get_feature_names_out()
    return [[str(name) for name in names[row == 1]] for row in encoder.transform(text)]


def test_one_hot_equals_that_of_scikit_learn():
    encoder = CharEncoder("one-hot").fit([TEXT, "xyz"])
    characters = np.array(list(TEXT + "xyz"))[:, np.newaxis]
    expected = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(characters)
    assert encoder.characters_ == "".join(expected.categories_[0])
    for text in (TEXT, "unseen: QWERTY§"):
        actual = encoder.transform(text)
        assert actual.dtype == np.uint8
        np.testing.assert_array_equal(actual, expected.transform(np.array(list(text))[:, np.newaxis]))
    assert list(encoder.get_feature_names_out()) == [repr(each) for each in encoder.characters_]


def test_one_hot_keeps_the_most_frequent():
    encoder = CharEncoder("one-hot", n_channels=3).fit(["bbbb", "zzz", "aa", "yy", "x"])
    assert encoder.characters_ == "abz"  # of those that are as frequent the first
    np.testing.assert_array_equal(encoder.transform("xzb"), [[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert CharEncoder("one-hot", n_channels=100).fit("ab").n_channels_out_ == 2


def test_hash():
    encoder = CharEncoder("hash", n_channels=7).fit(TEXT)
    encoded = encoder.transform(TEXT)
    assert encoded.shape == (len(TEXT), 7)
    np.testing.assert_array_equal(encoded.sum(axis=1), 1)
    expected = [murmurhash3_32(ord(each), positive=True) % 7 for each in TEXT]
    np.testing.assert_array_equal(encoded.argmax(axis=1), expected)
    assert CharEncoder("hash").fit(TEXT).get_feature_names_out().tolist() == [f"hash_{i}" for i in range(16)]


def test_classes_follow_the_unicode_categories():
    encoder = CharEncoder().fit("a")
    letters = {"Ll": "lowercase", "Lu": "uppercase", "Lt": "uppercase", "Pc": "connector", "Pd": "dash"}
    letters |= {"Ps": "open", "Pe": "close", "Pi": "quote", "Pf": "quote", "Zs": "space"}
    groups = {"L": "letter", "M": "letter", "N": "number", "P": "point", "S": "symbol", "Z": "line_break", "C": "other"}
    text = "".join(map(chr, [*range(0x3000), 0xD800, 0x6211, 0x1F600, 0x10FFFF]))
    breaks = {each for each in text if len(f"a{each}b".splitlines()) == 2}
    special = dict.fromkeys(breaks, "line_break") | dict.fromkeys("\"'`", "quote") | {"\t": "space"}
    for character, names in zip(text, names_of(encoder, text), strict=True):
        category = unicodedata.category(character)
        assert names == [special.get(character, letters.get(category, groups[category[0]]))], hex(ord(character))


def test_own_characters_keep_their_class():
    encoder = CharEncoder(own_characters="#'").fit("a")
    assert names_of(encoder, "a#'") == [["lowercase"], ["point", repr("#")], ["quote", repr("'")]]
    hashed = CharEncoder("hash", n_channels=4, own_characters="#").fit("a").transform("a#")
    assert hashed.sum(axis=1).tolist() == [1, 2]
    assert hashed[:, 4].tolist() == [0, 1]


@pytest.mark.parametrize("method", ["class", "one-hot", "hash"])
def test_bytes(method):
    encoder = CharEncoder(method, unit="byte").fit(TEXT)
    raw = TEXT.encode()
    encoded = encoder.transform(TEXT)
    assert encoded.shape == (len(raw), encoder.n_channels_out_)
    for same in (raw, bytearray(raw)):
        np.testing.assert_array_equal(encoder.transform(same), encoded)
    if method == "one-hot":
        assert encoder.characters_ == bytes(sorted(set(raw)))
        assert encoder.get_feature_names_out()[0] == repr(b"\t")
    if method == "class":
        ascii_part = np.frombuffer(raw, np.uint8) < 128
        expected = CharEncoder().fit("a").transform(TEXT.encode("ascii", "ignore").decode())
        np.testing.assert_array_equal(encoded[ascii_part], expected)
        assert (encoded[~ascii_part].argmax(axis=1) == list(encoder.get_feature_names_out()).index("other")).all()


def test_one_text_or_several():
    encoder = CharEncoder().fit(TEXT)
    one, several = encoder.transform(TEXT), encoder.transform([TEXT, "ab"])
    assert isinstance(several, list)
    np.testing.assert_array_equal(several[0], one)
    for same in ((TEXT, "ab"), np.array([TEXT, "ab"]), np.array([TEXT, "ab"], object), iter([TEXT, "ab"])):
        again = encoder.transform(same)
        assert [len(each) for each in again] == [len(TEXT), 2]


def test_conventions_of_scikit_learn():
    encoder = CharEncoder("one-hot", n_channels=5)
    copy = clone(encoder.fit(TEXT))
    assert copy.get_params() == encoder.get_params()
    with pytest.raises(NotFittedError):
        copy.transform(TEXT)
    with pytest.raises(NotFittedError):
        copy.get_feature_names_out()
    tags = encoder.__sklearn_tags__()
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    encoder.set_params(method="hash").fit(TEXT)
    assert not hasattr(encoder, "characters_")
    encoder.set_params(n_channels=9)  # what was in force at fit stays so
    assert encoder.transform(TEXT).shape == (len(TEXT), 5)


def test_pipeline_labels_characters():
    rng = np.random.default_rng(0)
    texts = [
        "".join(rng.choice(list("ab 12"), size=n)) + "#" + "".join(rng.choice(list("ab 12"), 60)) for n in (60, 80)
    ]
    labels = [np.where(np.arange(len(text)) < text.index("#"), 1, 2) for text in texts]
    bank = AtrousFeatures(4, groups=(), color_groups=["level", "slope"], ndim=1)
    trees = ExtraTreesClassifier(20, random_state=0)
    model = make_pipeline(CharEncoder(own_characters="#"), PixelClassifier(bank, trees, channel_axis=-1))
    answers = model.fit(texts, labels).predict(texts)
    assert [answer.shape for answer in answers] == [label.shape for label in labels]
    assert np.mean(np.concatenate(answers) == np.concatenate(labels)) > 0.8
    np.testing.assert_array_equal(model.predict(texts[0]), answers[0])


@pytest.mark.parametrize(
    ("parameters", "X", "error", "message"),
    [
        ({"method": "onehot"}, "a", ValueError, "method must be one of 'class', 'one-hot', 'hash', got 'onehot'"),
        ({"method": None}, "a", ValueError, "method must be one of"),
        ({"unit": "word"}, "a", ValueError, "unit must be one of 'character', 'byte', got 'word'"),
        ({"n_channels": 5}, "a", ValueError, "n_channels=5 is for method='one-hot' and 'hash'"),
        ({"method": "hash", "n_channels": 0}, "a", ValueError, "n_channels must be at least 1, but got 0"),
        ({"method": "hash", "n_channels": 2.5}, "a", TypeError, "n_channels must be None or an int, got 2.5"),
        ({"method": "one-hot", "own_characters": "#"}, "a", ValueError, "leave out own_characters"),
        ({"own_characters": ["#"]}, "a", TypeError, "own_characters must be a str"),
        ({"own_characters": "##"}, "a", ValueError, "holds a character twice: '##'"),
        ({"own_characters": "§", "unit": "byte"}, "a", ValueError, "own_characters must be ASCII with unit='byte'"),
        ({}, b"a", TypeError, "X is bytes, but unit='character' takes str: decode it, or use unit='byte'"),
        ({}, ["a", b"a"], TypeError, r"X\[1\] is bytes"),
        ({}, "", ValueError, "X is an empty text"),
        ({}, ["a", ""], ValueError, r"X\[1\] is an empty text"),
        ({}, [], ValueError, "X is empty"),
        ({}, 5, TypeError, "X must be a text or a sequence of texts, got 5"),
        ({}, ["a", 5], TypeError, r"X\[1\] must be a text, str or bytes, got 5"),
        ({}, [["a"]], TypeError, r"X\[0\] must be a text, str or bytes, got \['a'\]"),
    ],
)
def test_bad_input(parameters, X, error, message):
    with pytest.raises(error, match=message):
        CharEncoder(**parameters).fit(X)
