"""What the lattices of a CRF will take, said before it is taken."""

from __future__ import annotations

import os

from dconv._caller_warnings import warn_caller
from dconv._crf_embedding import Features

_HARDLY_SHARED = 0.5  # corners of a lattice per corner of a pixel: two pixels to a vertex


def available_memory() -> int | None:
    """Return the bytes of memory that this machine has, None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, other systems may lack the names
        return None


def check_memory(n_bytes: int, what: str, remedy: str = "cut the image into parts") -> None:
    """Check that this machine has `n_bytes` at all, which an allocation does not: Linux promises more than it has."""
    available = available_memory()
    if available is not None and n_bytes > available:
        raise MemoryError(
            f"{what} takes about {n_bytes / 1e9:.3g} GB, this machine has {available / 1e9:.3g}; {remedy}"
        )


def warn_if_too_fine(kernel: Features, n_vertices: int, n_pixels: int) -> None:
    """Warn if hardly two pixels share a vertex of a lattice, which so costs much and changes little."""
    corners = n_pixels * (kernel.n_features + 1)
    if n_pixels > 1 and n_vertices > _HARDLY_SHARED * corners:
        warn_caller(
            f"{kernel.name} is so narrow that hardly two pixels are alike: {n_pixels} pixels have {n_vertices} "
            f"vertices in its lattice, which takes long and smooths little; {kernel.remedy}"
        )
