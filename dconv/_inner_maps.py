"""What transformers have in common that make features of the maps of an inner one: block by block, its maps first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from dconv import _memory
from dconv._base import FeatureImageTransformer
from dconv._block_features import check_images, fit_to_images
from dconv._boxes import sizes
from dconv._pixels import Block, PixelSet, blocks_of
from dconv._threads import effective_n_jobs, run_tasks
from dconv._validation import Images


def fit_inner(
    inner: Any, images: Images, channel_axis: int | None, masks: Sequence[PixelSet] | None, targets: np.ndarray | None
) -> None:
    """Fit what makes the maps, "passthrough" or a transformer that works block by block; refuse others."""
    if not isinstance(inner, str):
        fit_to_images(inner, None, images, channel_axis, masks, targets)
        if not hasattr(inner, "_transform_block"):
            raise ValueError(
                f"inner must work block by block, but {type(inner).__name__} computes whole images; use CustomFeatures "
                "with a halo, or a bank of filters with stride=1 and padding='same'"
            )
    check_images(inner, images)


class InnerMapsTransformer(FeatureImageTransformer):
    """A transformer with a fitted `inner_` that makes `_n_maps` maps, which are its first features."""

    inner_: Any
    n_jobs: int | None
    _n_maps: int

    def _write(self, images: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Write the features of images, as :class:`~dconv._base.FeatureImageTransformer` describes."""
        n_jobs = effective_n_jobs(self.n_jobs)
        for image, out in zip(images, outputs, strict=True):
            prepared = self._for_image(image)

            def work(block: Block, prepared: Any = prepared, image: Any = image, out: Any = out) -> None:
                prepared._fill(image, block, out[block])

            run_tasks(work, list(blocks_of(image.shape[:-1], self.n_features_out_, n_jobs)), n_jobs)

    def _map_names(self) -> list[str]:
        """Return the names of the maps."""
        if isinstance(self.inner_, str):
            return [f"channel_{index}" for index in range(self._n_maps)]
        return [str(name) for name in self.inner_.get_feature_names_out()]

    def _map_keys(self) -> list[tuple[str, str, str]]:
        """Return plane, group and scale of the maps."""
        if hasattr(self.inner_, "_feature_keys"):
            return list(self.inner_._feature_keys())
        return [("maps", "maps", "maps")] * self._n_maps

    def _check_images(self, images: Images) -> list[tuple[int, ...]]:
        """Check images, and return the spatial shapes of their features, as :mod:`dconv._block_features` describes."""
        check_images(self.inner_, images)
        return images.spatial_shapes

    def _for_image(self, image: Any) -> Self:
        """Return the transformer for the blocks of one image, as described in :mod:`dconv._block_features`."""
        raise NotImplementedError

    def _transform_block(self, image: Any, block: Block) -> np.ndarray:
        """Return the features of one block, as described in :mod:`dconv._block_features`."""
        out = _memory.empty((*sizes(block), self.n_features_out_), np.dtype(np.float32))
        self._fill(image, block, out)
        return out

    def _fill(self, image: Any, block: Block, out: np.ndarray) -> None:
        """Write the features of a block to `out` (*block, n_features_out_)."""
        raise NotImplementedError
