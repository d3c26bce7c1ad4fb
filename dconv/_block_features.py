"""Features of blocks of images, from any transformer.

A *block transformer* computes the features of one block by itself. Beside `fit` and `transform` it has, after fit,
`halo_` (the samples that its features see left and right of a pixel, per spatial axis), `n_features_out_`, and::

    _transform_block(image, block) -> features

`image` is one image (*spatial, channels) of any real dtype, maybe a memory map; `block` is a tuple of slices with
start and stop; `features` is C-contiguous float32 of shape (*block, n_features), equal bit for bit to that block of
``transform(image)``. It works on the calling thread alone and does not hold the GIL while it does.
It may have ``_transform_bands(image, block)``, which yields parts of the block, each with its features, that together
are those of ``_transform_block``; the features of a part need not stay when the next is asked for. It may have
``_for_image(image)``, which returns the block transformer to use for the blocks of this image, if features depend on
the image as a whole. It may have `_check_images(images)`, which raises if images cannot be transformed, because of
values that features cannot take or of their size, and returns the spatial shapes of their features. It may have
`_fit_images(images)`, which is `fit` with images that know which of their pixels hold data. `spacing_` is how far apart
pixels are, in units of the finest, or None. `_cacheable` is False if features may change though the transformer's
attributes do not. Every other transformer is given whole images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dconv._nodata import as_given, valid_pixels, whole
from dconv._pixels import Block, masked_blocks, rows_in_block
from dconv._threads import run_tasks
from dconv._validation import FLOAT32_MAX, FLOAT64_MAX, Images, as_images, check_finite

Bands = Iterator[tuple[Block, np.ndarray]]


class Reader(NamedTuple):
    """Images that can be worked on together, and how to read the features of their blocks, C-contiguous float32."""

    numbers: Sequence[int]  # of the images
    n_features: int
    read: Callable[[int, Block], np.ndarray]  # of image, block
    bands: Callable[[int, Block], Bands]  # of the same, in parts of which each may overwrite the one before


def block_readers(features: Any, images: Images, channel_axis: int | None) -> Iterator[Reader]:
    """Yield the readers of all images.

    `features` is a fitted transformer, or "passthrough" for images that are feature images. Block transformers make
    one group of all images; others one group per image, so that only one feature image exists at a time.
    """
    everything = range(len(images.arrays))
    if isinstance(features, str):
        yield _whole_blocks(everything, images.n_channels, partial(_read_feature_image, images.arrays))
    elif hasattr(features, "_transform_block"):
        yield _block_reader(features, [(prepared_for(features, image), image) for image in images.arrays])
    else:
        for index in everything:
            feature_image = _transform_whole(features, images, index, channel_axis)
            yield _whole_blocks((index,), feature_image.shape[-1], partial(_read_feature_image, {index: feature_image}))


def prepared_for(features: Any, image: Any) -> Any:
    """Return what computes the features of the blocks of one image, which is seen as a whole where that is needed."""
    return features._for_image(image) if hasattr(features, "_for_image") else features


def spacing_of(features: Any) -> tuple[float, ...] | None:
    """Return how far apart pixels are along each axis, in units of the finest, None if alike or not told."""
    return getattr(features, "spacing_", None)


def sees_whole_image(features: Any) -> bool:
    """Tell whether a transformer, or any in it, has to see an image as a whole before it computes blocks of it."""
    inner = [*getattr(features, "parts_", ()), *([features.inner_] if hasattr(features, "inner_") else [])]
    own = getattr(features, "normalize_", None) == "image" or getattr(features, "_pool", False)
    return own or any(map(sees_whole_image, inner))


def reader_of_one(prepared: Any, image: Any) -> Reader:
    """Return the reader of one image, number 0, from what :func:`prepared_for` returned, or "passthrough"."""
    if isinstance(prepared, str):
        return _whole_blocks((0,), image.shape[-1], partial(_read_feature_image, [image]))
    return _block_reader(prepared, [(prepared, image)])


def _block_reader(features: Any, prepared: Sequence[tuple[Any, Any]]) -> Reader:
    """Return a reader that computes the features of blocks, each image by the transformer prepared for it."""
    numbers, read = range(len(prepared)), partial(_read_block, prepared)
    if hasattr(features, "_transform_bands"):
        return Reader(numbers, features.n_features_out_, read, partial(_read_bands, prepared))
    return _whole_blocks(numbers, features.n_features_out_, read)


def _whole_blocks(numbers: Sequence[int], n_features: int, read: Callable[[int, Block], np.ndarray]) -> Reader:
    """Return a reader that knows no parts of blocks."""
    return Reader(numbers, n_features, read, lambda index, block: iter([(block, read(index, block))]))


def images_for(features: Any, X: Any, ndim: int, channel_axis: int | None) -> Images:
    """Return what `features`, a transformer or "passthrough", is to work on."""
    if isinstance(features, str):
        remedy = 'features="passthrough" needs features on an axis of their own, as in X[..., numpy.newaxis]'
        return as_images(X, ndim, channel_axis, grey_remedy=remedy)
    return as_images(X, ndim, channel_axis)


def fit_features(
    features: Any,
    X: Any,
    images: Images,
    channel_axis: int | None,
    masks: Sequence[np.ndarray] | None = None,
    targets: np.ndarray | None = None,
) -> None:
    """Fit a transformer and check, before it transforms, that it can give every pixel its features.

    `images` are those of `X`, maybe with pixels filled that hold no data; `masks` and `targets` say which pixels are
    labelled and how.
    """
    by_blocks = hasattr(features, "_check_images")
    if not by_blocks:
        check_images(features, images)  # first, as its fit may be work
    if hasattr(features, "_fit_labelled"):
        features._fit_labelled(images, masks, targets)
    elif not isinstance(features, str):
        fit_to_images(features, X, images, channel_axis)
    if by_blocks:
        check_images(features, images)  # which a fitted one alone can tell


def fit_to_images(features: Any, X: Any, images: Images, channel_axis: int | None) -> None:
    """Fit a transformer to images, filled where they have no data, which only `_fit_images` can tell apart."""
    if all(valid_pixels(image) is None for image in images.arrays):
        features.fit(X)
    elif hasattr(features, "_fit_images"):
        features._fit_images(images)
    else:
        features.fit(as_given(images, channel_axis))


def check_images(features: Any, images: Images) -> None:
    """Check, before any work, that a fitted transformer can give every pixel of `images` its features."""
    if isinstance(features, str):
        check_finite(images, FLOAT32_MAX)
    elif hasattr(features, "_check_images"):
        for index, spatial in enumerate(features._check_images(images)):
            _check_grid(features, images, index, spatial)
    else:
        check_finite(images, FLOAT64_MAX)  # what the transformer makes of large values is its own affair


def gather_rows(
    features: Any, images: Images, channel_axis: int | None, masks: Sequence[np.ndarray], n_jobs: int
) -> np.ndarray:
    """Return the features of the masked pixels, float32 of shape (n_pixels, n_features): image after image, and in
    an image in row-major order, whatever the blocks and threads.
    """
    positions = [np.flatnonzero(mask) for mask in masks]
    bounds = np.cumsum([0, *map(len, positions)])
    rows: Any = None  # allocated once the first reader tells how many features there are
    for reader in block_readers(features, images, channel_axis):
        if rows is None:
            rows = np.empty((bounds[-1], reader.n_features), np.float32)
        tasks = [(i, block) for i in reader.numbers for block in masked_blocks(masks[i], reader.n_features)]

        def work(task: tuple[int, Block], reader: Reader = reader, rows: np.ndarray = rows) -> None:
            index, block = task
            place = bounds[index] + rows_in_block(positions[index], masks[index], block)
            rows[place] = reader.read(index, block)[masks[index][block]]

        run_tasks(work, tasks, n_jobs)
    return rows


def _read_feature_image(arrays: Any, index: int, block: Block) -> np.ndarray:
    return np.ascontiguousarray(arrays[index][block], np.float32)


def _read_block(prepared: Sequence[tuple[Any, np.ndarray]], index: int, block: Block) -> np.ndarray:
    features, image = prepared[index]
    return features._transform_block(image, block)


def _read_bands(prepared: Sequence[tuple[Any, np.ndarray]], index: int, block: Block) -> Bands:
    features, image = prepared[index]
    return features._transform_bands(image, block)


def _transform_whole(features: Any, images: Images, index: int, channel_axis: int | None) -> np.ndarray:
    """Return the feature image of one image, which the transformer gets with its axes as the user has them."""
    image, spatial = whole(images.arrays[index]), images.spatial_shapes[index]
    image = image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis)
    feature_image = np.asarray(features.transform(image))
    if feature_image.ndim != len(spatial) + 1:
        raise ValueError(
            f"{type(features).__name__}.transform returned shape {feature_image.shape} for {images.describe(index)}, "
            f"but pixels are classified by features of shape {(*spatial, 'n_features')}"
        )
    _check_grid(features, images, index, feature_image.shape[:-1])
    return feature_image


def _check_grid(features: Any, images: Images, index: int, spatial: tuple[int, ...]) -> None:
    """Check that a feature image with these sizes has one place for every pixel of image `index`."""
    if spatial != images.spatial_shapes[index]:
        raise ValueError(
            f"{type(features).__name__}.transform gives features of spatial shape {spatial} for "
            f"{images.describe(index)} of {images.spatial_shapes[index]}, but pixels are classified one by one; "
            "a bank of filters needs stride=1 and padding='same'"
        )
