"""Arrays that answers are written to, block by block: their chunks, their place, their room on the disk."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dconv._axes import as_tuple
from dconv._blocks import choose_block_shape
from dconv._pixels import BLOCK_PIXELS
from dconv._receptive import Margin

_BLOCK_PIXELS = 1 << 21  # as many pieces as keep several threads busy, and the halo is a small part of it in 2-D
_BLOCK_BYTES = 1 << 27  # of source, with the halo, that is read for one block


def check_output(out: Any, shape: tuple[int, ...], dtype: np.dtype, classes: np.ndarray | None) -> None:
    """Check that `out` has this shape and can hold answers of `dtype`; `classes` are the labels, if these are written.

    Raises
    ------
    TypeError, ValueError
        If not.
    """
    if not all(hasattr(out, name) for name in ("shape", "dtype", "__setitem__")):
        raise TypeError(f"out must be an array that can be written to by slices, got {type(out).__name__}")
    if tuple(out.shape) != shape:
        raise ValueError(f"out has shape {tuple(out.shape)}, but the answers have shape {shape}")
    own = np.dtype(out.dtype)
    if classes is None:
        if own.kind != "f":
            raise ValueError(f"out has dtype {own}, but probabilities need a floating one; use float32")
    elif own.kind not in "iuf" or not np.array_equal(classes.astype(own).astype(classes.dtype), classes):
        raise ValueError(f"out has dtype {own}, which cannot hold the classes {classes.tolist()}; use {dtype}")
    if getattr(getattr(out, "flags", None), "writeable", True) is False:
        raise ValueError('out is read-only; open it for writing, as a memory map with mode="r+"')


def journal_path(out: Any) -> Path | None:
    """Return where the journal of an output lies: beside the file or folder that holds it, None if none does."""
    name = None
    if isinstance(out, np.memmap) and out.filename is not None:
        name = str(out.filename)
    root = getattr(getattr(out, "store", None), "root", None)  # of a local store of Zarr
    if isinstance(root, str | Path):
        inner = str(getattr(out, "path", "")).strip("/").replace("/", ".")
        name = f"{root}.{inner}" if inner else str(root)
    if _is_hdf5(out) and Path(out.file.filename).is_file():  # not what is in memory
        inner = str(out.name or "").strip("/").replace("/", ".")
        name = f"{out.file.filename}.{inner}"
    return None if name is None else Path(f"{name}.dconv-journal")


def check_apart(source: Any, out: Any) -> None:
    """Check that answers are not written over the image: a block is read with what lies around it, and later again."""
    here = isinstance(source, np.ndarray) and isinstance(out, np.ndarray)
    place = journal_path(out)
    same_file = place is not None and place == journal_path(source)
    if same_file and isinstance(source, np.memmap) and isinstance(out, np.memmap):
        same_file = source.offset == out.offset  # a file may hold several arrays
    if source is out or same_file or (here and np.shares_memory(source, out)):
        raise ValueError(
            "out is the source, or shares memory with it, and would be written while it is read; pass another"
        )


def settle(out: Any) -> None:
    """See to it that what was written is in the file, and the file is whole, where it keeps things back."""
    if _is_hdf5(out):
        out.file.flush()


def _is_hdf5(out: Any) -> bool:
    return type(out).__module__.partition(".")[0] == "h5py"


def make_room(out: Any) -> None:
    """Take the room of a memory map on the disk now: a map that is written to when there is none kills the process.

    Raises
    ------
    OSError
        If there is not enough.
    """
    if not (isinstance(out, np.memmap) and out.filename is not None and hasattr(os, "posix_fallocate")):
        return
    with open(out.filename, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return  # what this file system has no word for
            raise OSError(
                error.errno, f"the disk has no room for the {size} bytes of out: {error.strerror}", str(out.filename)
            ) from error


def block_shape_for(
    block_shape: Any, out: Any, shape: tuple[int, ...], margin: Margin, n_bytes: int
) -> tuple[int, ...]:
    """Return the shape of blocks, whole chunks of `out`, each of which so is written by one.

    Parameters
    ----------
    block_shape : None, int or sequence of int
        What the user wants.
    out : array
        Its chunks, or shards, are seen.
    shape : tuple of int
        Spatial shape of the image.
    margin : sequence of (left, right)
        Pixels that are read around a block.
    n_bytes : int
        Of one pixel of the source.

    Raises
    ------
    TypeError, ValueError
        If `block_shape` is no positive size per axis, or cuts chunks.
    """
    chunks = _chunks(out, len(shape))
    if block_shape is not None:
        wanted = as_tuple(block_shape, len(shape), "block_shape")
        fits = [w % chunk == 0 or w >= size for w, chunk, size in zip(wanted, chunks, shape, strict=True)]
        if not all(fits):
            whole = tuple(-(-w // chunk) * chunk for w, chunk in zip(wanted, chunks, strict=True))
            raise ValueError(
                f"block_shape={tuple(wanted)} cuts the chunks {chunks} of out, each of which must be written by one "
                f"block; use block_shape={whole}"
            )
        return tuple(min(w, size) for w, size in zip(wanted, shape, strict=True))
    n_pixels = _BLOCK_PIXELS
    while True:
        block = choose_block_shape(shape, n_pixels)
        block = tuple(-(-side // chunk) * chunk for side, chunk in zip(block, chunks, strict=True))
        read = math.prod(side + left + right for side, (left, right) in zip(block, margin, strict=True)) * n_bytes
        small = read <= _BLOCK_BYTES and math.prod(block) <= 2 * _BLOCK_PIXELS
        if small or math.prod(block) <= BLOCK_PIXELS or block == chunks:  # smaller ones would be all halo
            return block
        n_pixels //= 2


def _chunks(out: Any, n_axes: int) -> tuple[int, ...]:
    """Return the pixels of `out` along each spatial axis that are stored together."""
    for name in ("shards", "chunks"):
        chunks: Sequence[int] | None = getattr(out, name, None)
        if isinstance(chunks, tuple) and len(chunks) >= n_axes and all(isinstance(c, int | np.integer) for c in chunks):
            return tuple(int(chunk) for chunk in chunks[:n_axes])
    return (1,) * n_axes
