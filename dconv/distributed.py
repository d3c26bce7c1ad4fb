"""Fit and predict on dask arrays: on threads, processes or the workers of a cluster, as dask is told."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dconv._block_features import check_images, reader_of_one, sees_other_end, sees_whole_image
from dconv._boxes import grown, sizes
from dconv._dask_engine import DaskArray, check_dtype, image_of_box
from dconv._dask_statistics import Filling, filling_of, intensity_of
from dconv._fingerprint import fingerprint
from dconv._intensity import BY_ITSELF, Intensity
from dconv._nodata import REACH, Infilled, valid_of, valid_pixels
from dconv._prediction import BoxAnswers
from dconv._receptive import Margin
from dconv._validation import Images, as_array, check_finite, real_dtype
from dconv.features import AtrousFeatures
from dconv.segmentation import PixelClassifier
from dconv.tiling import check_blockwise

__all__ = ["fit", "predict"]

_KEPT = 4  # compiled models

_compiled: dict[tuple[str, str], BoxAnswers] = {}
_lock = threading.Lock()


def fit(
    estimator: PixelClassifier, images: Any, labels: Any, sample_weight: Any = None, *, mask: Any = None
) -> PixelClassifier:
    """Fit an estimator to dask images; what is brought here are features of labelled pixels.

    The result is that of ``estimator.fit`` on the same images in memory, to the last bit of every feature, on machines
    of one CPU level. Labels are looked at, brightness is summed and features are computed where the chunks are, by
    tasks of one thread; the classifier is fitted here.

    Parameters
    ----------
    estimator : PixelClassifier or ContextClassifier
        Fitted in place. Its features must be computed block by block, as those of dconv are, and not be circular.
    images : dask.array.Array or list of dask.array.Array
        One image, a batch along a further first axis, or a list of images of different sizes. A list may hold NumPy
        arrays too, which stay here.
    labels : dask.array.Array, ndarray, or list of them
        A label image of the spatial shape of each image, in the same form.
    sample_weight, mask : dask.array.Array, ndarray, or list of them, default=None
        As for :meth:`dconv.PixelClassifier.fit`.

    Returns
    -------
    estimator : PixelClassifier or ContextClassifier
        The same.

    Raises
    ------
    ImportError
        If dask, which the extra ``dconv[dask]`` installs, is not there.
    TypeError, ValueError
        If an argument cannot be used; values of images that cannot be are told where they lie.

    See Also
    --------
    dconv.PixelClassifier.fit : The same on one machine; it reads dask arrays too, but brings the pixels here.

    Notes
    -----
    Each chunk that holds labels is one task, which needs what lies around the labels; chunks without labels are read
    for the statistics alone: not at all if the images are not normalized and hold integers. Where there are only a few
    labels, give them as NumPy arrays. Images must have a chunk size that is known, and should be stored or persisted:
    they are computed as often as they are gone through, up to four times.

    A student of `distill` learns from pixels all over the images, whose features are brought here too, 60,000 at most.

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
    >>> model = dconv.PixelClassifier(classifier=GaussianNB())
    >>> model = distributed.fit(model, da.from_array(image, chunks=128), scribbles)
    >>> model.predict(image)[100, [0, 255]]
    array([1, 2])
    """
    da = _import_dask_array()
    if not isinstance(estimator, PixelClassifier):
        raise TypeError(f"estimator must be a PixelClassifier or ContextClassifier, got {type(estimator).__name__}")
    several = images if isinstance(images, list | tuple) else [images]
    if not len(several):
        raise ValueError("images is an empty list; pass at least one dask array")
    if not any(isinstance(image, da.Array) for image in several):
        raise TypeError(
            f"images must be a dask array or a list that holds some, got {type(several[0]).__name__}; estimator.fit "
            "takes arrays of other kinds, and dask.array.from_array makes one of them"
        )
    if estimator.distill and estimator.nodata is not None:
        raise ValueError(
            "distill needs to know where all images hold data, which with nodata would bring them here; fit with "
            "distill=False or nodata=None"
        )
    more: list[Any] = [
        None if maps is None else _where_it_lies(maps, name)
        for maps, name in ((labels, "y"), (sample_weight, "sample_weight"), (mask, "mask"))
    ]
    try:
        return estimator.fit(_where_it_lies(images, "X"), more[0], more[1], mask=more[2])
    except (OSError, TypeError, ValueError) as error:
        error.add_note("In distributed.fit `images` are what is called X, and `labels` what is called y.")
        raise


def _where_it_lies(arrays: Any, name: str) -> Any:
    """Return arrays of which those of dask are worked on where they lie."""
    import dask.array as da

    if isinstance(arrays, list | tuple):
        return [_where_it_lies(each, f"{name}[{index}]") for index, each in enumerate(arrays)]
    if not isinstance(arrays, da.Array):
        return arrays
    if any(math.isnan(size) for size in arrays.shape):
        raise ValueError(f"{name} has shape {arrays.shape}, some of it unknown; call compute_chunk_sizes() first")
    return DaskArray(arrays, name)


def predict(estimator: PixelClassifier, x: Any, proba: bool = False, *, mask: Any = None) -> Any:
    """Return the labels or probabilities of dask images, a lazy dask array.

    The result is that of ``estimator.predict(numpy.asarray(x))`` to the last bit, on machines of one CPU level, but for
    `refine`. Nothing is computed before the result is. The model is one node of the graph, which every worker gets once
    and compiles once; each block is worked on by one thread.

    Parameters
    ----------
    estimator : PixelClassifier or ContextClassifier
        Fitted. With `refine` each chunk is refined together with the pixels around it, as in `predict_blocks`.
    x : dask.array.Array
        One image of the kind seen at fit, or a batch of them along a further first axis.
    proba : bool, default=False
        Whether to return probabilities, and not labels.
    mask : dask.array.Array or ndarray of bool of shape (*spatial), default=None
        True where a pixel holds data, with (n_images,) in front for a batch; for an estimator with `nodata`.

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
    workers, for which its chunks are joined to bands of rows. So are how many pixels hold data, and their mean, of
    images that `nodata` lets hold NaN, or with `mask`. With ``padding_mode="circular"`` an image must be one
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
    mask = None if mask is None else _as_mask(mask, estimator, x)
    if x.ndim == n_axes + 1:
        if len(x) == 0:
            raise ValueError(f"x has shape {x.shape}: a batch of no images")
        masks = [None] * len(x) if mask is None else mask
        return da.stack([_predict_image(estimator, *pair, proba) for pair in zip(x, masks, strict=True)])
    return _predict_image(estimator, x, mask, proba)


def _as_mask(mask: Any, estimator: Any, x: Any) -> Any:
    """Return a mask of images `x` as a dask array."""
    import dask.array as da

    if estimator.nodata_ is None:
        raise ValueError("mask tells which pixels hold data, but the estimator was fitted with nodata=None")
    mask = mask if isinstance(mask, da.Array) else da.from_array(as_array(mask, "mask", "False"))
    shape = list(x.shape)
    if estimator.channel_axis_ is not None:
        first = x.ndim - estimator.ndim_ - 1  # of the axes of one image
        del shape[first + estimator.channel_axis_ % (estimator.ndim_ + 1)]
    if mask.shape != tuple(shape):
        raise ValueError(f"mask has shape {mask.shape}, but the images have the spatial shape {tuple(shape)}")
    if mask.dtype != bool:
        raise TypeError(f"mask must be boolean, True where a pixel holds data, got dtype {mask.dtype}")
    return mask


def _import_dask_array() -> Any:
    try:
        import dask.array
    except ImportError:
        raise ImportError('dask arrays need dask; install it with: pip install "dconv[dask]"') from None
    return dask.array


def _predict_image(estimator: Any, x: Any, mask: Any, proba: bool) -> Any:
    """Return the answers for one image, which has been checked but for its sizes."""
    import dask
    import dask.array as da

    axis, method = estimator.channel_axis_, "predict_proba" if proba else "predict"
    x = x[..., np.newaxis] if axis is None else da.moveaxis(x, axis, -1)
    _check_sizes(estimator, x.shape)
    # One node of the graph for all blocks, with a name that tells workers whether they have compiled it already.
    name = fingerprint(type(estimator), vars(estimator))
    model = dask.delayed(estimator, name=f"dconv-model-{name}", traverse=False)
    may_miss = estimator.nodata_ is not None and (mask is not None or x.dtype.kind == "f")
    margin = estimator._box_answers(method).margin
    if may_miss:
        margin = tuple((left + REACH, right + REACH) for left, right in margin)
    x = x.rechunk({**_merged(x.chunks[:-1], margin), x.ndim - 1: -1})
    mask = None if mask is None else mask.rechunk(x.chunks[:-1])
    _check_not_circular(estimator, x)
    filling = filling_of(x, mask) if may_miss else None
    normalized = getattr(estimator.features_, "normalize_", None) in BY_ITSELF
    intensity = intensity_of(x, mask, filling) if normalized else None
    bounds = tuple(tuple(int(n) for n in np.cumsum((0, *chunks))) for chunks in x.chunks[:-1])
    dtype = np.dtype(np.float32) if proba else estimator.classes_.dtype
    shape = (len(estimator.classes_),) if proba else ()
    # Where there is one chunk nothing lies beyond it.
    depth = {a: margin[a] if len(x.chunks[a]) > 1 else 0 for a in range(x.ndim - 1)}

    def with_surroundings(array: Any) -> Any:
        along = {**depth, array.ndim - 1: 0}
        return da.overlap.overlap(array, depth=along, boundary="none", allow_rechunk=False)

    return da.map_blocks(
        _answer_block,
        with_surroundings(x),
        None if mask is None else with_surroundings(mask[..., np.newaxis]),
        model,
        intensity,
        filling,
        name_of_model=name,
        method=method,
        shape=x.shape,
        told=x.dtype,
        margin=margin,
        bounds=bounds,
        out=(shape, dtype),
        chunks=x.chunks[:-1] + ((shape,) if proba else ()),
        drop_axis=[] if proba else [x.ndim - 1],
        dtype=dtype,
        meta=np.empty((0,) * (x.ndim - 1 + len(shape)), dtype),
    )


def _answer_block(
    pixels: np.ndarray,
    mask: np.ndarray | None,
    model: Any,
    intensity: Intensity | None,
    filling: Filling | None,
    *,
    name_of_model: str,
    method: str,
    shape: tuple[int, ...],
    told: np.dtype,
    margin: Margin,
    bounds: Sequence[Sequence[int]],
    out: tuple[tuple[int, ...], np.dtype],
    block_id: tuple[int, ...],
) -> np.ndarray:
    """Return the answers for a block of an image of `shape`, from its pixels and those around it, said to be `told`."""
    check_dtype(pixels, told, "x")
    box = tuple(slice(ends[i], ends[i + 1]) for i, ends in zip(block_id, bounds, strict=False))
    answers = _compiled_once(model, name_of_model, method)
    region = grown(box, margin, 1, shape[:-1])
    missing = filling is not None and filling[0] < math.prod(shape[:-1])
    holes = None if mask is None else mask[..., 0]
    window = image_of_box(shape, region, pixels, holes, filling if missing else None)
    try:
        check_finite(Images([_as_image_of_its_own(window, pixels, holes)], "image"))
    except ValueError as error:
        starts = [part.start for part in region]
        raise ValueError(f"block of x that begins at {starts}, its first pixel being (0, ...): {error}") from error
    features = model._features_seen(exact=False)
    features = features if intensity is None else features._for_intensity(intensity)
    found = np.empty(sizes(box) + out[0], out[1])
    answers.write(reader_of_one(features, window), window, box, found, 1)
    valid = valid_pixels(window)
    if valid is not None:
        found[~valid[box]] = model.nodata_ if method == "predict" else np.nan
    return found


def _as_image_of_its_own(window: Any, pixels: np.ndarray, mask: np.ndarray | None) -> Any:
    """Return the pixels that were read, filled as the window is."""
    return pixels if valid_pixels(window) is None else Infilled(pixels, valid_of(pixels, mask), 0, window.mean)


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
    if sees_other_end(estimator.features_) and max(x.numblocks) > 1:
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
