"""Objects from probabilities: which pixels are one object, and a table of all objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dconv._axes import as_int, as_ndim, as_tuple
from dconv._blocks import choose_block_shape
from dconv._blocks import split as blocks_over
from dconv._components import label_blocks, split_components
from dconv._object_maps import Maps, as_maps
from dconv._object_table import Rows, as_table, check_as_frame
from dconv._pixels import Block
from dconv._splitting import split_regions

_BLOCK_PIXELS = 1 << 22  # whose labels, classes and coordinates take some 300 MB


class Objects(NamedTuple):
    """What :func:`find_objects` returns.

    Attributes
    ----------
    table : DataFrame or dict of str to ndarray
        One row for each object.
    labels : array of int, of shape (*spatial)
        The `label` of the object that each pixel belongs to, 0 for none.
    """

    table: Any
    labels: Any


def find_objects(
    probabilities: ArrayLike,
    *,
    threshold: float = 0.5,
    min_size: int = 1,
    split: str = "watershed",
    neck: float = 0.8,
    connectivity: int = 1,
    class_names: Sequence[str] | None = None,
    background: int | Sequence[int] | None = 0,
    ndim: int = 2,
    as_frame: bool | str = "auto",
    block_shape: int | Sequence[int] | None = None,
    out: Any = None,
) -> Objects:
    """Return the objects that class probabilities show, as a table and as a label image.

    Pixels that are probably of one class and connected are one object, unless a neck parts them.

    Parameters
    ----------
    probabilities : array_like of shape (*spatial) or (*spatial, n_classes)
        Between 0 and 1: the probability of an object at each pixel, or that of each class, as `predict_proba` gives
        it. Also what is read by slices, such as an array of Zarr or a memory map: it is read block by block.
    threshold : float, default=0.5
        A pixel is of an object if its most probable class of objects has at least this probability.
    min_size : int, default=1
        Objects of fewer pixels are left out, and none are split into such.
    split : {"watershed", "none"}, default="watershed"
        How objects that touch are taken apart: by a watershed on the distance to what is outside, or not at all.
    neck : float, default=0.8
        For "watershed": two bodies are two objects if what joins them is at most this share as wide as the narrower of
        them. Smaller values split less.
    connectivity : int, default=1
        Pixels are connected whose places differ by 1 along at most so many axes: 1 for sides, 2 for corners as well.
    class_names : sequence of str, default=None
        One for each class on the last axis; the table then has a column of them.
    background : int, sequence of int or None, default=0
        The classes that have no objects. A single map has none.
    ndim : {1, 2, 3}, default=2
        Number of spatial axes.
    as_frame : bool or "auto", default="auto"
        Whether the table is a DataFrame of pandas, or a dict of arrays. "auto": a DataFrame if pandas is installed.
    block_shape : int or sequence of int, default=None
        Pixels of a block along each axis. None is about 4 million pixels, in whole chunks of `out` or
        `probabilities`. It does not change what is found.
    out : array of int, of shape (*spatial), default=None
        Where the label image goes, and what is read meanwhile: an array of NumPy or Zarr, or a memory map. What is in
        it is of no use if an error is raised. None is a new array, int32.

    Returns
    -------
    objects : Objects
        The table, with these columns, and the label image. Objects are numbered by their first pixels in row order.

        - ``label``, ``class``: number of the object from 1, and its class on the last axis
        - ``class_name``: if `class_names` are given
        - ``mean_probability``, ``max_probability``: of its class, over its pixels
        - ``area``: number of pixels
        - ``centroid-0``, ...: mean of the pixels' indices, along each axis
        - ``bbox-0``, ...: first index along each axis, and then the one after the last along each axis; as in
          :func:`skimage.measure.regionprops_table`

        Where nothing is found the table has these columns and no row.

    Raises
    ------
    TypeError, ValueError
        If an argument cannot be used. That probabilities lie between 0 and 1 is checked as they are read.

    See Also
    --------
    dconv.ObjectDetector : Learns which pixels are borders between objects, which takes more of them apart.
    dconv.metrics.object_f1_score : How many objects are right.

    Notes
    -----
    Each connected region is split by itself, by the watershed [1]_ of its distance transform, so what is found does not
    depend on the blocks. A region that crosses borders of blocks is read once more in its box, which takes memory if it
    is large.

    References
    ----------
    .. [1] P. Soille and L. Vincent, "Determining watersheds in digital pictures via flooding simulations", Proc. SPIE
       1360, 1990. doi:10.1117/12.24211

    Examples
    --------
    >>> import numpy as np
    >>> from dconv import find_objects
    >>> row, column = np.indices((40, 60))
    >>> discs = [(row - 20) ** 2 + (column - middle) ** 2 < 100 for middle in (15, 31)]  # they overlap
    >>> probability = 0.9 * (discs[0] | discs[1]) + 0.6 * ((row - 20) ** 2 + (column - 52) ** 2 < 25)
    >>> table, labels = find_objects(probability, min_size=10, as_frame=False)
    >>> table["label"], table["bbox-0"], table["mean_probability"].round(2)
    (array([1, 2, 3]), array([11, 11, 16]), array([0.9, 0.9, 0.6]))
    >>> labels[20, [15, 31, 45, 52]]
    array([1, 2, 0, 3], dtype=int32)
    """
    ndim = as_ndim(ndim)
    maps = as_maps(probabilities, ndim, background, class_names)
    threshold, neck = as_share(threshold, "threshold"), as_share(neck, "neck")
    min_size, connectivity = as_int(min_size, "min_size", 1), as_connectivity(connectivity, ndim)
    check_split(split)
    check_as_frame(as_frame)
    labels = np.empty(maps.shape, np.int32) if out is None else out
    _check_out(labels, maps)
    blocks = list(blocks_over(maps.shape, _block_shape(block_shape, maps, labels)))
    parts = None if split == "none" else partial(split_regions, neck=neck, min_size=min_size, connectivity=connectivity)

    component, class_of = label_blocks(lambda block: maps.read(block, threshold)[0], blocks, connectivity, labels)
    n = split_components(component, class_of, blocks, labels, parts)
    columns = measure_objects(maps, threshold, blocks, labels, n, min_size)
    return Objects(as_table(columns, as_frame), labels)


def measure_objects(
    maps: Maps, threshold: float, blocks: Sequence[Block], labels: Any, n: int, min_size: int
) -> dict[str, np.ndarray]:
    """Return the columns of the table, and number the objects in `labels` as there."""
    rows = Rows(n, maps.shape)
    for block in blocks:
        rows.add(block, np.asarray(labels[block]), *maps.read(block, threshold))
    kept = rows.kept(min_size)
    new = np.zeros(n + 1, np.int64)
    new[kept] = np.arange(1, len(kept) + 1)
    for block in blocks:
        labels[block] = new[np.asarray(labels[block])]
    return rows.table(kept, maps.names)


def as_share(value: Any, name: str) -> float:
    """Return `value`, which must be a number above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, but got {value}")
    return float(value)


def as_connectivity(connectivity: Any, ndim: int) -> int:
    """Return `connectivity`, which must be from 1 to the number of spatial axes."""
    value = as_int(connectivity, "connectivity", 1)
    if value > ndim:
        raise ValueError(f"connectivity={value} joins pixels along {value} axes at once, but ndim={ndim}")
    return value


def check_split(split: object) -> None:
    """Check that `split` is a way to split."""
    if not isinstance(split, str) or split not in ("watershed", "none"):
        raise ValueError(f'split must be "watershed" or "none", got {split!r}')


def _check_out(out: Any, maps: Maps) -> None:
    """Check that `out` can take the labels, before anything is computed."""
    if not all(hasattr(out, name) for name in ("shape", "dtype", "__getitem__", "__setitem__")):
        raise TypeError(f"out must be an array that can be read and written by slices, got {type(out).__name__}")
    if tuple(out.shape) != maps.shape or np.dtype(out.dtype).kind not in "iu" or np.dtype(out.dtype).itemsize < 4:
        raise ValueError(
            f"out must have shape {maps.shape} and integers of 32 bits or more, got {tuple(out.shape)} and {out.dtype}"
        )
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("out is read-only; pass an array that can be written, or a copy of it")
    if isinstance(out, np.ndarray) and isinstance(maps.array, np.ndarray) and np.may_share_memory(out, maps.array):
        raise ValueError("out must not overlap probabilities in memory, because these are read while out is written")


def _block_shape(block_shape: Any, maps: Maps, labels: Any) -> tuple[int, ...]:
    if block_shape is not None:
        return as_tuple(block_shape, len(maps.shape), "block_shape")
    chunks = getattr(labels, "chunks", None) or getattr(maps.array, "chunks", None)
    shape = choose_block_shape(maps.shape, _BLOCK_PIXELS)
    if chunks is None:
        return shape
    # Dask says the sizes of all chunks along each axis.
    widths = [int(max(chunk) if isinstance(chunk, tuple) else chunk) for chunk in chunks[: len(shape)]]
    return tuple(width * math.ceil(size / width) for size, width in zip(shape, widths, strict=True))
