"""CharEncoder: texts as series with channels, so that what labels series labels characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, murmurhash3_32
from sklearn.utils.validation import check_is_fitted

from dconv._axes import as_int

_METHODS = ("class", "one-hot", "hash")
_UNITS = ("character", "byte")
_N_HASHED = 16

_LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # those of str.splitlines
_QUOTES = "\"'`"
# Channels of method "class" by the general categories of Unicode, which the line breaks, quotes and the tab leave.
_CLASSES: dict[str, tuple[str, ...]] = {
    "lowercase": ("Ll",),
    "uppercase": ("Lu", "Lt"),
    "letter": ("Lm", "Lo", "Mn", "Mc", "Me"),  # of scripts without case, and marks on letters
    "number": ("Nd", "Nl", "No"),
    "connector": ("Pc",),
    "dash": ("Pd",),
    "open": ("Ps",),
    "close": ("Pe",),
    "quote": ("Pi", "Pf"),
    "point": ("Po",),
    "symbol": ("Sm", "Sc", "Sk", "So"),
    "space": ("Zs",),
    "line_break": ("Zl", "Zp"),
    "other": ("Cc", "Cf", "Cs", "Co", "Cn"),
}
_CLASS_NAMES = tuple(_CLASSES)
_CLASS_OF_CATEGORY = {category: name for name, categories in _CLASSES.items() for category in categories}


class CharEncoder(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Turn texts into series with channels, one sample for each character or byte.

    What labels series then labels text: ``PixelClassifier(AtrousFeatures(groups=(), ndim=1), channel_axis=-1)`` says of
    each character what it belongs to.

    Parameters
    ----------
    method : {"class", "one-hot", "hash"}, default="class"
        Which channels there are; one of them is 1 at each sample, the others are 0.

        - ``"class"``: 14 classes of characters by their general category in Unicode: lowercase, uppercase, other
          letters, numbers, connectors (the underscore), dashes, opening and closing brackets, quotes, other
          punctuation, symbols, spaces (and the tab), line breaks, and others
        - ``"one-hot"``: the characters seen at `fit`; where others are, all channels are 0
        - ``"hash"``: each character has one of `n_channels`, which some share
    unit : {"character", "byte"}, default="character"
        What makes a sample: a character of a str (a code point), or a byte, of bytes or of a str in UTF-8. Bytes from
        128 on, parts of characters beyond ASCII, are of the class "other".
    n_channels : int or None, default=None
        Of "one-hot", at most so many channels, for the characters most frequent at `fit`; None is all of them. Of
        "hash" the number of channels; None is 16. "class" takes None only.
    own_characters : str, default=""
        Characters that have a channel of their own besides, as those that mean something in a language. They keep their
        channel among those of `method`. Not with "one-hot", where all have.

    Attributes
    ----------
    characters_ : str or bytes
        Of "one-hot", what the channels stand for, in order.
    n_channels_out_ : int
        Number of channels.

    See Also
    --------
    dconv.AtrousFeatures : Features of series, of each channel.
    dconv.PixelClassifier : Labels every sample.

    Notes
    -----
    Channels are those of an image in dconv, on the last axis. Their mean tells nothing, since one of them is 1
    everywhere: ``AtrousFeatures(groups=())`` leaves it out.

    "hash" is MurmurHash3 of the code point or byte, modulo `n_channels`: the same on every machine [1]_.

    References
    ----------
    .. [1] K. Weinberger et al., "Feature hashing for large scale multitask learning", ICML 2009.
       doi:10.1145/1553374.1553516

    Examples
    --------
    >>> from dconv import CharEncoder
    >>> encoder = CharEncoder(own_characters="#").fit("x = 1  # one")
    >>> channels = encoder.transform("y = 22  # two")
    >>> channels.shape, channels.dtype
    ((13, 15), dtype('uint8'))
    >>> names = encoder.get_feature_names_out()
    >>> [str(names[row.argmax()]) for row in channels[:5]]
    ['lowercase', 'space', 'symbol', 'space', 'number']
    """

    def __init__(
        self,
        method: str = "class",
        *,
        unit: str = "character",
        n_channels: int | None = None,
        own_characters: str = "",
    ) -> None:
        self.method = method
        self.unit = unit
        self.n_channels = n_channels
        self.own_characters = own_characters

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters, and for "one-hot" see which characters there are.

        Parameters
        ----------
        X : str, bytes, or sequence of them
            One text or several.
        y : Any, default=None
            Not used.

        Returns
        -------
        self : CharEncoder

        Raises
        ------
        TypeError
            If a parameter has the wrong type, or `X` holds anything but texts, or bytes where characters are wanted.
        ValueError
            If a parameter is out of range, or a text is empty.
        """
        method, unit = _one_of(self.method, _METHODS, "method"), _one_of(self.unit, _UNITS, "unit")
        n_channels = (
            None if self.n_channels is None else as_int(self.n_channels, "n_channels", 1, rule="None or an int")
        )
        if method == "class" and n_channels is not None:
            raise ValueError(
                f"n_channels={n_channels} is for method='one-hot' and 'hash'; 'class' has {len(_CLASSES)} channels and "
                "takes None"
            )
        own = _checked_own(self.own_characters, method, unit)
        texts, _ = _as_codes(X, unit)
        known = np.zeros(0, np.uint32)
        if method == "one-hot":
            known, counts = np.unique(np.concatenate(texts), return_counts=True)
            if n_channels is not None:
                known = np.sort(known[np.argsort(-counts, kind="stable")[:n_channels]])
            self.characters_ = _characters(known, unit)
        elif hasattr(self, "characters_"):
            del self.characters_  # of a fit with another method
        self._method, self._unit, self._own, self._known = method, unit, own, known
        n_of_method = {"class": len(_CLASSES), "one-hot": len(known), "hash": n_channels or _N_HASHED}[method]
        self.n_channels_out_ = n_of_method + len(own)
        return self

    def transform(self, X: Any) -> np.ndarray | list[np.ndarray]:
        """Return the channels of every character.

        Parameters
        ----------
        X : str, bytes, or sequence of them
            One text or several.

        Returns
        -------
        channels : ndarray of shape (length, n_channels_out_), or a list of them if `X` holds several texts
            uint8, 0 and 1.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        TypeError, ValueError
            If texts cannot be used, as in :meth:`fit`.
        """
        check_is_fitted(self)
        texts, is_one = _as_codes(X, self._unit)
        encoded = [self._channels(codes) for codes in texts]
        return encoded[0] if is_one else encoded

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the name of every channel: of its class or hash, or the character in quotes.

        Parameters
        ----------
        input_features : Any, default=None
            Not used; characters have no names.

        Returns
        -------
        names : ndarray of str objects of shape (n_channels_out_,)

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self)
        n_of_method = self.n_channels_out_ - len(self._own)
        names = {
            "class": list(_CLASS_NAMES),
            "one-hot": [repr(_characters(code, self._unit)) for code in self._known[:, np.newaxis]],
            "hash": [f"hash_{index}" for index in range(n_of_method)],
        }[self._method]
        return np.array([*names, *(repr(_characters(code, self._unit)) for code in self._own[:, np.newaxis])], object)

    def _channels(self, codes: np.ndarray) -> np.ndarray:
        """Return the channels of one text."""
        channels = np.zeros((len(codes), self.n_channels_out_), np.uint8)
        n_of_method = self.n_channels_out_ - len(self._own)
        unique, which = np.unique(codes, return_inverse=True)
        if self._method == "one-hot":
            place = np.minimum(np.searchsorted(self._known, unique), len(self._known) - 1)
            of_unique = np.where(self._known[place] == unique, place, -1)
        elif self._method == "hash":
            of_unique = murmurhash3_32(unique.astype(np.int32), positive=True) % n_of_method
        else:
            of_unique = np.array([_class_of(int(code), self._unit) for code in unique])
        channel = of_unique[which]
        known = np.flatnonzero(channel >= 0)
        channels[known, channel[known]] = 1
        channels[:, n_of_method:] = codes[:, np.newaxis] == self._own
        return channels


def _class_of(code: int, unit: str) -> int:
    """Return the number of the class of a character or byte."""
    character = chr(code)
    if unit == "byte" and code > 127:
        name = "other"
    elif character in _LINE_BREAKS:
        name = "line_break"
    elif character in _QUOTES:
        name = "quote"
    else:
        name = "space" if character == "\t" else _CLASS_OF_CATEGORY[unicodedata.category(character)]
    return _CLASS_NAMES.index(name)


def _one_of(value: Any, choices: tuple[str, ...], name: str) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def _checked_own(own_characters: Any, method: str, unit: str) -> np.ndarray:
    """Return the codes of characters with channels of their own."""
    if not isinstance(own_characters, str):
        raise TypeError(f"own_characters must be a str, got {own_characters!r}; join them, as in '#@'")
    if method == "one-hot" and own_characters:
        raise ValueError("with method='one-hot' all characters have a channel of their own; leave out own_characters")
    if len(set(own_characters)) < len(own_characters):
        raise ValueError(f"own_characters holds a character twice: {own_characters!r}")
    if unit == "byte" and not own_characters.isascii():
        raise ValueError(f"own_characters must be ASCII with unit='byte', where others are several: {own_characters!r}")
    return _codes(own_characters, unit)


def _as_codes(X: Any, unit: str) -> tuple[list[np.ndarray], bool]:
    """Return the codes of all texts, and whether `X` is a single one."""
    is_one = isinstance(X, str | bytes | bytearray)
    if not is_one and not isinstance(X, Iterable):
        raise TypeError(f"X must be a text or a sequence of texts, got {X!r:.60}")
    texts = [X] if is_one else list(X)
    if not texts:
        raise ValueError("X is empty; pass at least one text")
    for index, text in enumerate(texts):
        name = "X" if is_one else f"X[{index}]"
        if not isinstance(text, str | bytes | bytearray):
            raise TypeError(f"{name} must be a text, str or bytes, got {text!r:.60}")
        if unit == "character" and not isinstance(text, str):
            raise TypeError(f"{name} is bytes, but unit='character' takes str: decode it, or use unit='byte'")
        if not text:
            raise ValueError(f"{name} is an empty text, which has no sample; leave it out")
    return [_codes(text, unit) for text in texts], is_one


def _codes(text: str | bytes | bytearray, unit: str) -> np.ndarray:
    """Return the code points or bytes of a text, uint32; lone surrogates, as of undecodable bytes, stay."""
    if unit == "character":
        assert isinstance(text, str)
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    return np.frombuffer(raw, np.uint8).astype(np.uint32)


def _characters(codes: np.ndarray, unit: str) -> str | bytes:
    """Return what codes stand for."""
    return bytes(codes.tolist()) if unit == "byte" else "".join(map(chr, codes.tolist()))
