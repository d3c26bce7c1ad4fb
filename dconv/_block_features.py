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
`_fit_images(images)`, which is `fit` with images that know which of their pixels hold data, and may have to be read
piece by piece; or `_fit_labelled(images, masks, targets)` in its place, which is given the labelled pixels too, as
PixelSets, and their labels, or None, and `_learns_from_labels`, which tells before it is fitted whether they make a
difference; with it goes `_relearnt(images, masks, targets)`, which returns a copy of the fitted transformer that has
learnt from other labels of the same images, and is as it was in all that does not depend on labels; each of its
features means what it did, or it raises. It may have `_cheaper()`, which returns after fit a transformer without those
of its features that cost most, and the numbers of those left, or None. `spacing_` is how far apart pixels are, in
units of the finest, or None. `_cacheable` is False if features may change though the transformer's attributes do not.
Every other transformer is given whole images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dconv._intensity import BY_ITSELF
from dconv._lazy_arrays import engine_of
from dconv._nodata import as_given, valid_pixels, whole
from dconv._pixels import Block, PixelSet, pixel_set, take
from dconv._receptive import Margin
from dconv._regions import Region, is_lazy, plan_regions, read_around, run_regions
from dconv._validation import FLOAT32_MAX, FLOAT64_MAX, Images, as_images, as_labels, check_finite

Bands = Iterator[tuple[Block, np.ndarray]]


class Reader(NamedTuple):
    """Images that can be worked on together, and how to read the features of their blocks, C-contiguous float32."""

    numbers: Sequence[int]  # of the images
    n_features: int
    read: Callable[[int, Block], np.ndarray]  # of image, block
    bands: Callable[[int, Block], Bands]  # of the same, in parts of which each may overwrite the one before
    halo: Margin  # that its features see around a block
    over: Callable[[int, Block], Any]  # of image, box: the reader for the blocks in it, which reads its pixels now
    prepared: Callable[[int], Any]  # what computes the features of an image, "passthrough" if it is features


def block_readers(features: Any, images: Images, channel_axis: int | None) -> Iterator[Reader]:
    """Yield the readers of all images.

    `features` is a fitted transformer, or "passthrough" for images that are feature images. Block transformers make
    one group of all images; others one group per image, so that only one feature image exists at a time.
    """
    everything = range(len(images.arrays))
    if isinstance(features, str):
        yield _feature_image_reader(dict(enumerate(images.arrays)))
    elif hasattr(_for_number(features, 0), "_transform_block"):
        yield _block_reader(features, PreparedImages(features, images.arrays))
    else:
        for index in everything:
            yield _feature_image_reader({index: _transform_whole(features, images, index, channel_axis)})


def _for_number(features: Any, number: int) -> Any:
    """Return the transformer of an image: there is one of all, unless features are held out from images."""
    return features._for_number(number) if hasattr(features, "_for_number") else features


def prepared_for(features: Any, image: Any) -> Any:
    """Return what computes the features of the blocks of one image, which is seen as a whole where that is needed."""
    return features._for_image(image) if hasattr(features, "_for_image") else features


class PreparedImages(Mapping):
    """What :func:`prepared_for` returns for each of several images, and the image, by its number: found out when it is
    asked for, as an image of which no feature is wanted need not be seen as a whole.
    """

    def __init__(self, features: Any, images: Sequence[Any]) -> None:
        self._features, self._images = features, images
        self._found: dict[int, Any] = {}
        self._locks = [threading.Lock() for _ in images]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        with self._locks[index]:
            if index not in self._found:
                self._found[index] = prepared_for(_for_number(self._features, index), self._images[index])
            return self._found[index], self._images[index]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._images)))

    def __len__(self) -> int:
        return len(self._images)


def spacing_of(features: Any) -> tuple[float, ...] | None:
    """Return how far apart pixels are along each axis, in units of the finest, None if alike or not told."""
    return getattr(features, "spacing_", None)


def sees_whole_image(features: Any) -> bool:
    """Tell whether a transformer, or any in it, has to see an image as a whole before it computes blocks of it."""
    inner = [*getattr(features, "parts_", ()), *([features.inner_] if hasattr(features, "inner_") else [])]
    own = getattr(features, "normalize_", None) in BY_ITSELF or getattr(features, "_pool", False)
    return own or any(map(sees_whole_image, inner))


def reader_of_one(prepared: Any, image: Any) -> Reader:
    """Return the reader of one image, number 0, from what :func:`prepared_for` returned, or "passthrough"."""
    return readers_of({0: (prepared, image)})


def readers_of(prepared: Mapping[int, tuple[Any, Any]]) -> Reader:
    """Return the reader of images by their numbers, each with what :func:`prepared_for` returned, or "passthrough"."""
    features, _ = next(iter(prepared.values()))
    if isinstance(features, str):
        return _feature_image_reader({index: image for index, (_, image) in prepared.items()})
    return _block_reader(features, prepared)


def sees_other_end(features: Any) -> bool:
    """Tell whether features at one end of an image see the other, which no halo says."""
    if hasattr(features, "parts_"):
        return any(sees_other_end(part) for part in features.parts_)
    if hasattr(features, "inner_"):
        return sees_other_end(features.inner_)
    mode = getattr(getattr(features, "_bank", None), "padding_mode", getattr(features, "padding_mode_", None))
    return mode == "circular"


def _block_reader(features: Any, prepared: Mapping[int, tuple[Any, Any]]) -> Reader:
    """Return a reader that computes the features of blocks, each image by the transformer prepared for it."""
    read = partial(_read_block, prepared)

    def over(index: int, box: Block) -> Reader:
        of_image, image = prepared[index]
        if not is_lazy(image):
            return reader
        return _block_reader(features, {index: (of_image, read_around(image, box, features.halo_))})

    reader = Reader(
        list(prepared),
        features.n_features_out_,
        read,
        partial(_read_bands, prepared),
        features.halo_,
        over,
        lambda index: prepared[index][0],
    )
    return reader


def halo_of(features: Any, ndim: int) -> Margin:
    """Return the pixels that fitted features, block by block or "passthrough", see around their own on each axis."""
    return ((0, 0),) * ndim if isinstance(features, str) else features.halo_


def _feature_image_reader(arrays: Mapping[int, Any]) -> Reader:
    """Return a reader of images that are features."""
    image = next(iter(arrays.values()))
    halo = ((0, 0),) * (image.ndim - 1)
    read = partial(_read_feature_image, arrays)

    def over(index: int, box: Block) -> Reader:
        return (
            _feature_image_reader({index: read_around(arrays[index], box, halo)}) if is_lazy(arrays[index]) else reader
        )

    reader = Reader(list(arrays), image.shape[-1], read, partial(_one_band, read), halo, over, lambda _: "passthrough")
    return reader


def _one_band(read: Callable[[int, Block], np.ndarray], index: int, block: Block) -> Bands:
    """Return a block as the only part of itself."""
    return iter([(block, read(index, block))])


def images_for(features: Any, X: Any, ndim: int, channel_axis: int | None, name: str = "X") -> Images:
    """Return what `features`, a transformer or "passthrough", is to work on: the images that argument `name` is."""
    if isinstance(features, str):
        remedy = f'features="passthrough" needs features on an axis of their own, as in {name}[..., numpy.newaxis]'
        return as_images(X, ndim, channel_axis, name=name, grey_remedy=remedy)
    return as_images(X, ndim, channel_axis, name=name)


def fit_features(
    features: Any,
    X: Any,
    images: Images,
    channel_axis: int | None,
    masks: Sequence[PixelSet] | None = None,
    targets: np.ndarray | None = None,
) -> None:
    """Fit a transformer and check, before it transforms, that it can give every pixel its features.

    `images` are those of `X`, maybe with pixels filled that hold no data; `masks` and `targets` say which pixels are
    labelled and how.
    """
    by_blocks = hasattr(features, "_check_images")
    if not by_blocks:
        check_images(features, images)  # first, as its fit may be work
    if not isinstance(features, str):
        fit_to_images(features, X, images, channel_axis, masks, targets)
    if by_blocks:
        check_images(features, images)  # which a fitted one alone can tell


def fit_to_images(
    features: Any,
    X: Any,
    images: Images,
    channel_axis: int | None,
    masks: Sequence[PixelSet] | None = None,
    targets: np.ndarray | None = None,
) -> None:
    """Fit a transformer to images, which are those of `X` as they are to be seen; None for an `X` that is not there.

    Only `_fit_images` and `_fit_labelled` can tell pixels that were filled, and leave images that are read when they
    are sliced where they are: a transformer of another library is given all of them.
    """
    if hasattr(features, "_fit_labelled"):
        features._fit_labelled(images, masks, targets)
    elif hasattr(features, "_fit_images"):
        features._fit_images(images)
    elif X is None or any(valid_pixels(image) is not None or is_lazy(image) for image in images.arrays):
        features.fit(as_given(images, channel_axis))
    else:
        features.fit(X)


def learns_from_labels(features: Any) -> bool:
    """Tell whether the fit of a transformer, or "passthrough", is another with labels."""
    return getattr(features, "_learns_from_labels", False)


def relearnt(features: Any, images: Images, masks: Sequence[PixelSet], targets: np.ndarray) -> Any:
    """Return a fitted transformer, or "passthrough", as it is when other pixels of the same images are labelled."""
    return features._relearnt(images, masks, targets) if learns_from_labels(features) else features


def labelled_pixels(y: Any, images: Images) -> tuple[list[PixelSet], np.ndarray]:
    """Return which pixels label images label, for a transformer that is fitted by itself, and how: 0 is no label."""
    labels = as_labels(y, images)
    masks = [pixel_set(np.asarray(each) != 0) for each in labels]
    return masks, take(labels, masks)


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
    features: Any, images: Images, channel_axis: int | None, masks: Sequence[PixelSet], n_jobs: int
) -> np.ndarray:
    """Return the features of the masked pixels, float32 of shape (n_pixels, n_features): image after image, and in
    an image in row-major order, whatever the blocks and threads.
    """
    bounds = np.cumsum([0, *(mask.n_pixels for mask in masks)])
    rows: Any = None  # allocated once the first reader tells how many features there are
    for reader in block_readers(features, images, channel_axis):
        if rows is None:
            rows = np.empty((bounds[-1], reader.n_features), np.float32)
        regions = plan_regions(images.arrays, reader.numbers, reader.halo, reader.n_features, masks)
        engine = engine_of(*images.arrays)
        if engine is not None:
            there = [region for region in regions if engine_of(images.arrays[region.number]) is not None]
            regions = [region for region in regions if engine_of(images.arrays[region.number]) is None]
            for region, found in _gather_elsewhere(engine, features, reader, images, there, masks):
                rows[bounds[region.number] + masks[region.number].ranks(region.box)] = found

        def work(near: Reader, index: int, block: Block, rows: np.ndarray = rows) -> None:
            for places, found in _masked_rows(near, index, block, masks[index]):
                rows[bounds[index] + places] = found

        run_regions(reader, images.arrays, regions, work, n_jobs)
    return rows


def _gather_elsewhere(
    engine: Any,
    features: Any,
    reader: Reader,
    images: Images,
    regions: Sequence[Region],
    masks: Sequence[PixelSet],
) -> Iterator[tuple[Region, np.ndarray]]:
    """Yield regions of images that do not lie here, with the features of their masked pixels in row-major order."""
    if sees_other_end(features):
        raise ValueError(
            'features with padding_mode="circular" see the other end of an image, which chunks do not hold; use '
            "another padding_mode, or fit on one machine"
        )
    tasks = [
        (number, images.arrays[number], box, reader.halo, (blocks, masks[number].within(box)))
        for number, box, blocks in regions
    ]
    return zip(regions, engine.map_boxes(_rows_of_blocks, None, reader.prepared, tasks), strict=True)


def _rows_of_blocks(image: Any, common: None, prepared: Any, blocks: Sequence[Block], mask: PixelSet) -> np.ndarray:
    """Return the features of the masked pixels, which are those of some blocks, in row-major order."""
    reader = reader_of_one(prepared, image)
    rows = np.empty((mask.n_pixels, reader.n_features), np.float32)
    for block in blocks:
        for places, found in _masked_rows(reader, 0, block, mask):
            rows[places] = found
    return rows


def _masked_rows(reader: Reader, index: int, block: Block, mask: PixelSet) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the features of masked pixels of a block, and which of all masked pixels these are: band after band, as the
    features of a whole block would be a hundred times the memory of the few that are kept.
    """
    for band, rows in reader.bands(index, block):
        yield mask.ranks(band), rows[mask[band]]


def _read_feature_image(arrays: Any, index: int, block: Block) -> np.ndarray:
    return np.ascontiguousarray(arrays[index][block], np.float32)


def _read_block(prepared: Mapping[int, tuple[Any, Any]], index: int, block: Block) -> np.ndarray:
    features, image = prepared[index]
    return features._transform_block(image, block)


def _read_bands(prepared: Mapping[int, tuple[Any, Any]], index: int, block: Block) -> Bands:
    features, image = prepared[index]
    if hasattr(features, "_transform_bands"):
        return features._transform_bands(image, block)
    return iter([(block, features._transform_block(image, block))])


def _transform_whole(features: Any, images: Images, index: int, channel_axis: int | None) -> np.ndarray:
    """Return the feature image of one image, which the transformer gets with its axes as the user has them."""
    image, spatial = whole(images.arrays[index]), images.spatial_shapes[index]
    image = image[..., 0] if channel_axis is None else np.moveaxis(image, -1, channel_axis)
    feature_image = np.asarray(_for_number(features, index).transform(image))
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
