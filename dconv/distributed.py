"""The same predictions on dask arrays: on threads, processes or the workers of a cluster, as dask is told."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dconv._block_features import check_images, reader_of_one, sees_whole_image
from dconv._boxes import grown, sizes
from dconv._fingerprint import fingerprint
from dconv._intensity import Intensity, intensity_from, rows_summed, sums_of_rows
from dconv._lazy_images import Window
from dconv._prediction import BoxAnswers
from dconv._receptive import Margin
from dconv._validation import Images, check_finite, real_dtype
from dconv.features import AtrousFeatures
from dconv.segmentation import PixelClassifier
from dconv.tiling import check_blockwise

__all__ = ["predict"]

_BAND_BYTES = 1 << 26  # of rows that are summed together on one worker
_KEPT = 4  # compiled models

_compiled: dict[tuple[str, str], BoxAnswers] = {}
_lock = threading.Lock()


def predict(estimator: PixelClassifier, x: Any, proba: bool = False) -> Any:
    """Return the labels or probabilities of dask images, a lazy dask array.

    The result is that of ``estimator.predict(numpy.asarray(x))`` to the last bit, on machines of one CPU level. Nothing
    is computed before the result is. The model is one node of the graph, which every worker gets once and compiles
    once; each block is worked on by one thread.

    Parameters
    ----------
    estimator : PixelClassifier or ContextClassifier
        Fitted, and without `refine`, as a CRF joins all pixels of an image.
    x : dask.array.Array
        One image of the kind seen at fit, or a batch of them along a further first axis.
    proba : bool, default=False
        Whether to return probabilities, and not labels.

    Returns
    -------
    answers : dask.array.Array of shape (*spatial) or (*spatial, n_classes), with (n_images,) in front for a batch
        In the dtype of ``estimator.classes_``, or float32. Its chunks are those of `x`, merged along an axis where one
        is smaller than what features see beyond it.

    Raises
    ------
    ImportError
        If dask, which the extra ``dconv[dask]`` installs, is not there.
    NotFittedError
        If `fit` has not been called.
    TypeError, ValueError
        If an argument cannot be used. Values that are not finite are told when they are computed with.

    See Also
    --------
    dconv.predict_blocks : The same on one machine without dask, continued where it was killed.

    Notes
    -----
    Of a model that normalizes each image by itself, the mean and the deviation of the image are computed first, on the
    workers, for which its chunks are joined to bands of rows. With ``padding_mode="circular"`` an image must be one
    chunk, as features at one end see the other.

    Examples
    --------
    >>> import numpy as np
    >>> import dask.array as da
    >>> from sklearn.naive_bayes import GaussianNB
    >>> import dconv
    >>> from dconv import distributed
    >>> image = np.zeros((256, 256))
    >>> image[:, 128:] = 1
    >>> scribbles = np.zeros((256, 256), int)
    >>> scribbles[10:50, 10], scribbles[10:50, 200] = 1, 2
    >>> model = dconv.PixelClassifier(classifier=GaussianNB()).fit(image, scribbles)
    >>> labels = distributed.predict(model, da.from_array(image, chunks=128))
    >>> labels.chunks, labels.dtype
    (((128, 128), (128, 128)), dtype('int64'))
    >>> np.array_equal(labels.compute(scheduler="threads"), model.predict(image))
    True
    """
    da = _import_dask_array()
    check_blockwise(estimator, proba)
    features = estimator.features_
    if type(features) is not AtrousFeatures and sees_whole_image(features):
        raise ValueError(
            f"features of {type(features).__name__} see each image as a whole first, to normalize it or for its means, "
            "which workers that have chunks of it cannot; use normalize=None and pool=False, or predict_blocks"
        )
    if not isinstance(x, da.Array):
        raise TypeError(f"x must be a dask array, got {type(x).__name__}; dask.array.from_array makes one of an array")
    real_dtype(x, "x")
    n_axes = estimator.ndim_ + (estimator.channel_axis_ is not None)
    if x.ndim not in (n_axes, n_axes + 1):
        raise ValueError(
            f"x has {x.ndim} axes {x.shape}, but the estimator was fitted with ndim={estimator.ndim_} and "
            f"channel_axis={estimator.channel_axis_}, by which an image has {n_axes} axes and a batch {n_axes + 1}"
        )
    if any(math.isnan(size) for size in x.shape):
        raise ValueError(f"x has shape {x.shape}, some of it unknown; call x.compute_chunk_sizes() first")
    if x.ndim == n_axes + 1:
        if len(x) == 0:
            raise ValueError(f"x has shape {x.shape}: a batch of no images")
        return da.stack([_predict_image(estimator, image, proba) for image in x])
    return _predict_image(estimator, x, proba)


def _import_dask_array() -> Any:
    try:
        import dask.array
    except ImportError:
        raise ImportError('dask arrays need dask; install it with: pip install "dconv[dask]"') from None
    return dask.array


def _predict_image(estimator: Any, x: Any, proba: bool) -> Any:
    """Return the answers for one image, which has been checked but for its sizes."""
    import dask
    import dask.array as da

    axis, method = estimator.channel_axis_, "predict_proba" if proba else "predict"
    x = x[..., np.newaxis] if axis is None else da.moveaxis(x, axis, -1)
    _check_sizes(estimator, x.shape)
    # One node of the graph for all blocks, with a name that tells workers whether they have compiled it already.
    name = fingerprint(type(estimator), vars(estimator))
    model = dask.delayed(estimator, name=f"dconv-model-{name}", traverse=False)
    margin = estimator._box_answers(method).margin
    x = x.rechunk({**_merged(x.chunks[:-1], margin), x.ndim - 1: -1})
    _check_not_circular(estimator, x)
    features = estimator.features_
    intensity = _intensity_of(x) if getattr(features, "normalize_", None) == "image" else None
    bounds = tuple(tuple(int(n) for n in np.cumsum((0, *chunks))) for chunks in x.chunks[:-1])
    dtype = np.dtype(np.float32) if proba else estimator.classes_.dtype
    shape = (len(estimator.classes_),) if proba else ()
    # Where there is one chunk nothing lies beyond it.
    depth = {a: margin[a] if len(x.chunks[a]) > 1 else 0 for a in range(x.ndim - 1)}
    seen = da.overlap.overlap(x, depth={**depth, x.ndim - 1: 0}, boundary="none", allow_rechunk=False)
    return da.map_blocks(
        _answer_block,
        seen,
        model,
        intensity,
        name_of_model=name,
        method=method,
        shape=x.shape,
        bounds=bounds,
        out=(shape, dtype),
        chunks=x.chunks[:-1] + ((shape,) if proba else ()),
        drop_axis=[] if proba else [x.ndim - 1],
        dtype=dtype,
        meta=np.empty((0,) * (x.ndim - 1 + len(shape)), dtype),
    )


def _answer_block(
    pixels: np.ndarray,
    model: Any,
    intensity: Intensity | None,
    *,
    name_of_model: str,
    method: str,
    shape: tuple[int, ...],
    bounds: Sequence[Sequence[int]],
    out: tuple[tuple[int, ...], np.dtype],
    block_id: tuple[int, ...],
) -> np.ndarray:
    """Return the answers for a block of an image of `shape`, from its pixels and those around it."""
    box = tuple(slice(ends[i], ends[i + 1]) for i, ends in zip(block_id, bounds, strict=False))
    answers = _compiled_once(model, name_of_model, method)
    region = grown(box, answers.margin, 1, shape[:-1])
    try:
        check_finite(Images([pixels], "image"))
    except ValueError as error:
        starts = [part.start for part in region]
        raise ValueError(f"block of x that begins at {starts}, its first pixel being (0, ...): {error}") from error
    features = model.features_ if intensity is None else model.features_._for_intensity(intensity)
    window = Window(shape, region, pixels, None)
    found = np.empty(sizes(box) + out[0], out[1])
    answers.write(reader_of_one(features, window), window, box, found, 1)
    return found


def _compiled_once(model: Any, name: str, method: str) -> BoxAnswers:
    """Return how a model answers, which every process compiles once."""
    with _lock:
        key = name, method
        if key not in _compiled:
            while len(_compiled) >= _KEPT:
                del _compiled[next(iter(_compiled))]
            _compiled[key] = model._box_answers(method)
        return _compiled[key]


def _check_sizes(estimator: Any, shape: tuple[int, ...]) -> None:
    """Check what can be known of an image before its pixels are."""
    check_is_fitted(estimator)
    if 0 in shape:
        raise ValueError(f"x has shape {shape}: an axis of size 0 holds no pixels")
    if shape[-1] != estimator.n_channels_in_:
        raise ValueError(
            f"x has {shape[-1]} channel(s) per image, but {type(estimator).__name__} was fitted with "
            f"{estimator.n_channels_in_}; pass images of the kind seen at fit"
        )
    check_images(estimator.features_, Images([np.broadcast_to(np.uint8(0), shape)], "image"))


def _check_not_circular(estimator: Any, x: Any) -> None:
    features = estimator.features_
    mode = getattr(getattr(features, "_bank", None), "padding_mode", getattr(features, "padding_mode_", None))
    if mode == "circular" and max(x.numblocks) > 1:
        raise ValueError(
            f'features with padding_mode="circular" see the other end of an image, which here has {x.numblocks} '
            "chunks; rechunk x to one, or use predict_blocks"
        )


def _merged(chunks: Sequence[Sequence[int]], margin: Margin) -> dict[int, tuple[int, ...]]:
    """Return the chunks along each spatial axis, merged until none is smaller than what is seen beyond."""
    merged = {}
    for axis, (along, pair) in enumerate(zip(chunks, margin, strict=True)):
        joined: list[int] = []
        for chunk in along:
            if joined and joined[-1] < max(pair):
                joined[-1] += chunk
            else:
                joined.append(chunk)
        if len(joined) > 1 and joined[-1] < max(pair):
            last = joined.pop()
            joined[-1] += last
        merged[axis] = tuple(joined)
    return merged


def _intensity_of(x: Any) -> Any:
    """Return the intensity of an image as a delayed value, the same to the last bit as of the image in memory."""
    import dask

    n_rows = rows_summed(x.shape)
    row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
    band = max(1, _BAND_BYTES // (n_rows * row_bytes)) * n_rows
    rows = x.rechunk({0: min(band, len(x)), **dict.fromkeys(range(1, x.ndim), -1)})
    first = dask.delayed(_as_float64)(x[(0,) * (x.ndim - 1)])
    sums = [dask.delayed(sums_of_rows)(part, first, n_rows) for part in rows.to_delayed().ravel()]
    return dask.delayed(_joined)(sums, first, math.prod(x.shape[:-1]))


def _as_float64(pixel: np.ndarray) -> np.ndarray:
    return np.asarray(pixel, np.float64)


def _joined(sums: Sequence[list[list[float]]], first: np.ndarray, n_pixels: int) -> Intensity:
    return intensity_from([each for part in sums for each in part], first, n_pixels)
