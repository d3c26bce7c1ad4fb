"""Models in files, without pickle: what is written, and what is refused when it is read."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted

from dconv._block_features import spacing_of
from dconv._caller_warnings import warn_caller
from dconv._context_bank import ContextFeatures
from dconv._definition import definition_of, difference, hash_of
from dconv._pyramid_bank import PyramidBank
from dconv._threads import scikit_learn_alone
from dconv._trusted import check_trees, is_trusted
from dconv._whole_files import whole
from dconv.context import ContextClassifier
from dconv.detection import ObjectDetector
from dconv.features import AtrousFeatures
from dconv.segmentation import PixelClassifier

FORMAT = 1  # of the files, raised when older versions of dconv cannot read new ones
_HEADER = "dconv.json"  # beside the members that skops writes
_LONGEST_HEADER = 1 << 26  # bytes


def save(estimator: PixelClassifier | ObjectDetector, path: str | os.PathLike) -> None:
    """Write a fitted classifier of pixels, or detector of objects, to a file that is read without running code from it.

    The file is a zip archive as :mod:`skops.io` writes it, with a header that says which versions wrote it, what its
    features are and what it was trained for.

    Parameters
    ----------
    estimator : PixelClassifier, ContextClassifier or ObjectDetector
        Fitted. Its parts are dconv's own or scikit-learn's.
    path : str or path-like
        The file, by custom with the ending ``.dconv``. One that is there is replaced once the new one is whole.

    Raises
    ------
    ImportError
        If skops, which the extra ``dconv[save]`` installs, is not there.
    NotFittedError
        If `fit` has not been called.
    TypeError
        If `estimator` is of another kind, or holds parts that `load` would refuse, which are named.

    See Also
    --------
    dconv.load : Reads it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from sklearn.naive_bayes import GaussianNB
    >>> import dconv
    >>> image = np.zeros((64, 64))
    >>> image[:, 32:] = 1
    >>> scribbles = np.zeros((64, 64), int)
    >>> scribbles[10:50, 10], scribbles[10:50, 50] = 1, 2
    >>> model = dconv.PixelClassifier(classifier=GaussianNB()).fit(image, scribbles)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dconv.save(model, Path(folder) / "edges.dconv")
    ...     again = dconv.load(Path(folder) / "edges.dconv")
    >>> np.array_equal(again.predict_proba(image), model.predict_proba(image))
    True
    """
    if not isinstance(estimator, PixelClassifier | ObjectDetector):
        raise TypeError(
            f"save takes a fitted PixelClassifier, ContextClassifier or ObjectDetector, got {type(estimator).__name__}"
            "; other estimators can be written with skops.io.dump"
        )
    skops_io = import_skops()
    check_is_fitted(estimator)
    with _alone():
        data = skops_io.dumps(estimator, compression=zipfile.ZIP_DEFLATED)
        strangers = _strangers(skops_io.get_untrusted_types(data=data))
    if strangers:
        raise TypeError(
            f"{type(estimator).__name__} holds {', '.join(strangers)}, which load would refuse: only objects of dconv "
            "and scikit-learn are trusted; use parts of these, or pickle where you trust the file"
        )
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_HEADER, json.dumps(_header_of(estimator), indent=1))
    with whole(Path(path)) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load(path: str | os.PathLike) -> Any:
    """Return the pixel classifier or object detector that :func:`save` wrote to a file.

    Nothing in a file is run: it can only hold objects of dconv and scikit-learn, and trees are checked before they are
    used. A file from an unknown sender can still take much memory or time.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    estimator : PixelClassifier, ContextClassifier or ObjectDetector
        Fitted.

    Raises
    ------
    ImportError
        If skops, which the extra ``dconv[save]`` installs, is not there.
    OSError
        If the file cannot be read.
    ValueError
        If the file is truncated or damaged, no model of dconv, or written in a newer format; if it holds types that
        are not trusted, which are named; if its features have another meaning in this version of dconv, with what
        differs.

    Warns
    -----
    InconsistentVersionWarning
        If another version of scikit-learn wrote the file: its answers may differ.

    See Also
    --------
    dconv.save : Writes it, with an example.

    Examples
    --------
    >>> import tempfile
    >>> import dconv
    >>> with tempfile.NamedTemporaryFile(suffix=".dconv") as file:
    ...     dconv.load(file.name)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ... is no model of dconv, or damaged: File is not a zip file
    """
    skops_io = import_skops()
    path = Path(path)
    data = path.read_bytes()
    header = _parse_header(path, data)
    try:
        with _alone():
            types = skops_io.get_untrusted_types(data=data)
        strangers = _strangers(types)
    except Exception as error:  # whatever a damaged file leads to
        raise _damaged(path, error) from error
    if strangers:
        raise ValueError(
            f"{path} holds {', '.join(strangers)}, which is not of dconv or scikit-learn and could run code of its "
            "own; it has not been loaded"
        )
    _warn_of_version(header)
    try:
        with _alone(), warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)  # the one above is for all parts
            estimator = skops_io.loads(data, trusted=types)
        if not isinstance(estimator, PixelClassifier | ObjectDetector):
            raise ValueError(f"it holds a {type(estimator).__name__}")
        check_is_fitted(estimator)
        of_pixels = _of_pixels(estimator)
        _mend(of_pixels)
        check_trees(estimator)
        found = _definition(of_pixels)
    except Exception as error:
        raise _damaged(path, error) from error
    wrong = difference(header["features"], found) or _other_context(of_pixels)
    if wrong is not None:
        raise ValueError(
            f"{path} was written by dconv {header['versions']['dconv']} for features that this version does not "
            f"compute: {wrong}; fit the model again, or use that version"
        )
    return estimator


def _alone() -> AbstractContextManager[None]:
    """Return what lets one thread at a time into skops.

    NumPy reads the headers of arrays by `ast`, which loses count of its depth in CPython 3.11 if threads take turns in
    it.
    """
    return scikit_learn_alone()


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """Return what a file says of itself, without loading the model: format, versions, training, features.

    Raises
    ------
    OSError, ValueError
        As for :func:`load`.
    """
    path = Path(path)
    return _parse_header(path, path.read_bytes())


def import_skops() -> Any:
    """Return :mod:`skops.io`, or raise an ImportError that says how to get it."""
    try:
        with _alone():
            import skops.io
    except ImportError:
        raise ImportError('models are read and written by skops; install it with: pip install "dconv[save]"') from None
    return skops.io


def _of_pixels(estimator: Any) -> Any:
    """Return the fitted pixel classifier that an estimator is, or has."""
    if not isinstance(estimator, ObjectDetector):
        return estimator
    segmenter, weight = estimator.segmenter_, estimator.class_weight_
    if not isinstance(segmenter, PixelClassifier):
        raise ValueError(f"its segmenter is a {type(segmenter).__name__}")
    check_is_fitted(segmenter)
    if len(segmenter.classes_) != len(weight):
        raise ValueError(f"it has {len(weight)} weights for {len(segmenter.classes_)} classes")
    return segmenter


def _header_of(whole_estimator: Any) -> dict[str, Any]:
    """Return what a file says of itself."""
    from dconv import __version__

    estimator = _of_pixels(whole_estimator)
    definition = _definition(estimator)
    agreement = estimator.distillation_agreement_
    losses = getattr(estimator.classifier_, "log_loss_", None)
    counts = getattr(estimator, "n_pixels_per_class_", None)  # not there in files of older versions, loaded and saved
    return {
        "format": FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"dconv": __version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__},
        "training": {
            "estimator": type(whole_estimator).__name__,
            "classifier": type(estimator.classifier_).__name__,
            "classes": [int(label) for label in estimator.classes_],
            "n_pixels_per_class": None if counts is None else [int(count) for count in counts],
            "ignore_label": estimator.ignore_label_,
            "ndim": estimator.ndim_,
            "channel_axis": estimator.channel_axis_,
            "n_channels": int(estimator.n_channels_in_),
            "n_features": int(estimator.n_features_),
            "n_stages": int(getattr(estimator, "n_stages_", 1)),
            "held_out_log_loss": None if losses is None else {str(name): float(loss) for name, loss in losses.items()},
            "student": estimator.student_ is not None,
            "agreement": None if agreement is None else [float(each) for each in agreement],
            "refined": estimator.refine_ is not None,
        },
        "features": definition,
        "feature_hash": hash_of(definition),
    }


def _definition(estimator: Any) -> dict:
    return definition_of(
        estimator.features_,
        int(estimator.n_features_),
        int(estimator.n_channels_in_),
        estimator.ndim_,
        estimator.channel_axis_,
    )


def _strangers(types: list[str]) -> list[str]:
    """Return those of the types in a file, which skops does not trust, that are not trusted here either."""
    return [name for name in types if not is_trusted(name)]


def _parse_header(path: Path, data: bytes) -> dict[str, Any]:
    """Return the header of a file, which is checked as far as it is used."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.getinfo(_HEADER).file_size > _LONGEST_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(archive.read(_HEADER))
        if not isinstance(header["format"], int):
            raise TypeError("its format is no number")
        if header["format"] <= FORMAT:
            for part in ("versions", "training", "features"):
                dict(header[part])
            str(header["versions"]["dconv"]), str(header["versions"]["scikit-learn"])
            if header["feature_hash"] != hash_of(header["features"]):
                raise ValueError("feature_hash is not that of the features")
    except Exception as error:
        raise _damaged(path, error) from error
    if header["format"] > FORMAT:
        raise ValueError(
            f"{path} is written in format {header['format']}, but this version of dconv reads formats up to {FORMAT}; "
            "use a newer one"
        )
    return header


def _warn_of_version(header: dict[str, Any]) -> None:
    saved = header["versions"]["scikit-learn"]
    if saved != sklearn.__version__:
        warn_caller(
            InconsistentVersionWarning(
                estimator_name=header["training"].get("estimator", "PixelClassifier"),
                current_sklearn_version=sklearn.__version__,
                original_sklearn_version=saved,
            )
        )


def _mend(estimator: Any) -> None:
    """Make anew what skops reads as plain tuples: named tuples that derive from others."""
    _mend_features(estimator.features_)
    if hasattr(estimator, "student_features_"):
        _mend_features(estimator.student_features_)
    else:  # a file of an older version, whose students see all features
        estimator.student_features_ = estimator.features_
    if isinstance(estimator, ContextClassifier):
        spacing = spacing_of(estimator.features_)
        estimator._context = ContextFeatures(estimator.ndim_, len(estimator.classes_), spacing)


def _mend_features(features: Any) -> None:
    """Do so in a transformer and in all in it."""
    if isinstance(features, AtrousFeatures) and type(features._bank) is tuple:
        features._bank = PyramidBank(*features._bank)
    for part in (*getattr(features, "parts_", ()), getattr(features, "inner_", None)):
        if part is not None:
            _mend_features(part)


def _other_context(estimator: Any) -> str | None:
    """Return what differs between the context that a cascade has learnt from and that of this version, in words."""
    if not isinstance(estimator, ContextClassifier):
        return None
    before, after = estimator.n_context_features_, estimator._context.n_features_out_
    return None if before == after else f"context had {before} features and now has {after}"


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is no model of dconv, or damaged: {error}")
