"""What a pixel classifier is to learn of objects: which pixels are background, inside of one, or at its border."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from dconv._pixels import Block
from dconv._validation import Images, as_array, check_integers, real_dtype

UNKNOWN, BACKGROUND, INSIDE, BORDER = range(4)


class Example(NamedTuple):
    """The objects of one image."""

    instances: np.ndarray  # int, of shape (*spatial): 0 background, -1 unknown, else the number of an object
    areas: np.ndarray


def as_examples(y: Any, images: Images) -> list[Example]:
    """Return the objects of images, from label images of instances or from boxes.

    Raises
    ------
    TypeError, ValueError
        If they are neither, or there is no object in any image, or nothing but objects.
    """
    if images.kind != "image" and not hasattr(y, "__len__"):
        raise TypeError(f"y must hold the objects of each image of X, one after another, got {y!r:.60}")
    if images.kind != "image" and len(y) != len(images.arrays):
        raise ValueError(f"y has {len(y)} item(s), but X has {len(images.arrays)}; pass the objects of each image")
    items = [y] if images.kind == "image" else list(y)
    examples = []
    for index, (item, shape) in enumerate(zip(items, images.spatial_shapes, strict=True)):
        name = images.describe(index, "y")
        array = as_array(item, name, "-1")
        if array.shape == shape:
            if array.dtype == bool:
                raise TypeError(
                    f"{name} is bool, which tells where objects are and not which is which; number them, for instance "
                    "by skimage.measure.label"
                )
            check_integers(array, name)
            instances = np.where(array < 0, -1, _renumbered(array))
        elif array.size == 0 or array.shape[1:] == (2 * len(shape),):
            instances = _ellipses(_as_boxes(array.reshape(-1, 2 * len(shape)), shape, name), shape)
        else:
            raise ValueError(
                f"{name} has shape {array.shape}, but for an image of spatial shape {shape} it is either a label image "
                f"of that shape or boxes of shape (n_boxes, {2 * len(shape)}){images.hint()}"
            )
        examples.append(Example(instances, np.bincount(instances[instances > 0], minlength=1)[1:]))
    if not any((example.areas > 0).any() for example in examples):
        raise ValueError("y holds no object in any image; 0 is the background, and objects are numbered from 1")
    if not any((example.instances == 0).any() for example in examples):
        raise ValueError("y holds no pixel of the background, which is 0, in any image")
    return examples


def labels_of(example: Example, border_width: float) -> np.ndarray:
    """Return the label image to learn from: border is what something else is within `border_width` of."""
    instances = example.instances
    labels = np.where(instances == 0, BACKGROUND, np.where(instances > 0, INSIDE, UNKNOWN)).astype(np.uint8)
    for number, box in enumerate(ndimage.find_objects(np.maximum(instances, 0)), 1):
        if box is None:
            continue
        box = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, size))
            for part, size in zip(box, instances.shape, strict=True)
        )
        own = instances[box] == number
        if not own.all():
            labels[box][own & (ndimage.distance_transform_edt(own) <= border_width)] = BORDER
    return labels


def _renumbered(array: np.ndarray) -> np.ndarray:
    """Return the numbers of objects from 1 without gaps, 0 where there is none."""
    numbers, dense = np.unique(np.maximum(array, 0) if array.dtype.kind == "i" else array, return_inverse=True)
    return dense.reshape(array.shape).astype(np.int64) + int(numbers[0] != 0)


def _as_boxes(boxes: np.ndarray, shape: tuple[int, ...], name: str) -> list[Block]:
    """Return boxes as slices."""
    real_dtype(boxes, name)
    starts, stops = boxes[:, : len(shape)], boxes[:, len(shape) :]
    good = ((starts >= 0) & (starts < stops) & (stops <= np.array(shape))).all(axis=1)  # False also for NaN
    if not good.all():
        wrong = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"{name}[{wrong}] is the box {boxes[wrong].tolist()}, but in an image of spatial shape {shape} boxes are "
            "first indices along all axes and then those after the last, 0 <= first < last <= size"
        )
    return [
        tuple(slice(int(np.floor(a)), int(np.ceil(b))) for a, b in zip(start, stop, strict=True))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _ellipses(boxes: list[Block], shape: tuple[int, ...]) -> np.ndarray:
    """Return the instances that boxes are taken to hold: ellipses that fill them. The corners are not known.

    Where boxes overlap the smaller one lies in front.
    """
    instances = np.zeros(shape, np.int64)
    order = sorted(range(len(boxes)), key=lambda i: -np.prod([part.stop - part.start for part in boxes[i]]))
    for number, index in enumerate(order, 1):
        box = boxes[index]
        sizes = [part.stop - part.start for part in box]
        places = np.ogrid[tuple(slice(0, size) for size in sizes)]
        radius = sum(((place + 0.5) / size * 2 - 1) ** 2 for place, size in zip(places, sizes, strict=True))
        inside = np.broadcast_to(radius <= 1, sizes)
        corners = ~inside & (instances[box] == 0)
        instances[box] = np.where(inside, number, np.where(corners, -1, instances[box]))
    return instances
