"""Every public function gives on eight threads at once what it gives alone, as free-threaded Python needs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dconv
from dconv import filters, metrics, shapes

IMAGE = np.random.default_rng(0).normal(size=(48, 40)).astype(np.float32)
LABELS = (IMAGE > 0).astype(int) + 1
SERIES = [IMAGE[..., np.newaxis]]
BANK = dconv.AtrousFeatures(n_levels=2).fit(IMAGE)
BLUR = dconv.DilatedConv(filters.gaussian(1.0), dilation=(1, 2)).fit(IMAGE)
SEGMENTER = dconv.PixelClassifier(dconv.AtrousFeatures(n_levels=2), random_state=0).fit(IMAGE, LABELS)
LAYERS = [shapes.Layer(3, dilation=2), shapes.Layer(3)]

CALLS = {
    "AtrousFeatures": lambda: BANK.transform(IMAGE),
    "DilatedConv": lambda: BLUR.transform(IMAGE),
    "PixelClassifier": lambda: SEGMENTER.predict_proba(IMAGE),
    "conv": lambda: dconv.conv(IMAGE[None, ..., None], np.ones((9, 3, 3, 1)), dilation=2, padding="same"),
    "filters.b3_spline": lambda: filters.b3_spline().weight,
    "filters.concatenate": lambda: filters.concatenate(filters.derivatives(1), filters.derivatives(2)).weight,
    "filters.derivatives": lambda: filters.derivatives(2).weight,
    "filters.directional": lambda: filters.directional([0.1, 0.7], 2).weight,
    "filters.filter_bank": lambda: filters.filter_bank(np.ones((1, 3, 3, 1))).weight,
    "filters.gabor": lambda: filters.gabor([0.1]).weight,
    "filters.gaussian": lambda: filters.gaussian(1.5).weight,
    "filters.kmeans_patches": lambda: filters.kmeans_patches(SERIES, 3, (3, 3), random_state=0).weight,
    "filters.laplacian": lambda: filters.laplacian().weight,
    "filters.pca_patches": lambda: filters.pca_patches(SERIES, 3, (3, 3), random_state=0).weight,
    "filters.random_normal": lambda: filters.random_normal(3, (3, 3), random_state=0).weight,
    "filters.two_valued": lambda: filters.two_valued().weight,
    "metrics.mean_iou_score": lambda: metrics.mean_iou_score(LABELS, LABELS[::-1]),
    "shapes.cascade_halo": lambda: shapes.cascade_halo(5, 4),
    "shapes.conv_input_sizes": lambda: [list(sizes) for sizes in shapes.conv_input_sizes((7, 9), 3, stride=2)],
    "shapes.conv_shape": lambda: shapes.conv_shape((20, 30), 3, dilation=2),
    "shapes.conv_transpose_shape": lambda: shapes.conv_transpose_shape((7, 9), 3, stride=2),
    "shapes.halo": lambda: shapes.halo(LAYERS),
    "shapes.jump": lambda: shapes.jump(LAYERS),
    "shapes.n_parameters": lambda: shapes.n_parameters(3, 8, 3),
    "shapes.normalize_padding": lambda: shapes.normalize_padding("same", 3, 2, 1, (20, 30)),
    "shapes.output_padding_for": lambda: shapes.output_padding_for((7, 9), (16, 20), 3, stride=2),
    "shapes.receptive_field": lambda: shapes.receptive_field(LAYERS),
    "shapes.span": lambda: shapes.span((3, 3), 2),
}
WITHOUT_RESULT = {"show_config", "filters.FilterBank", "shapes.Layer", "shapes.as_tuple"}


@pytest.mark.parametrize("name", CALLS)
def test_threads_do_not_disturb_each_other(name):
    alone = CALLS[name]()
    with ThreadPoolExecutor(8) as pool:
        for together in pool.map(lambda _: CALLS[name](), range(24)):
            np.testing.assert_array_equal(together, alone)


def test_every_public_function_has_a_call():
    modules = {name: getattr(dconv, name) for name in ("filters", "metrics", "shapes")}
    public = {f"{name}.{function}" for name, module in modules.items() for function in module.__all__}
    public |= set(dconv.__all__) - set(modules)
    assert public == (set(CALLS) | WITHOUT_RESULT) & public
    assert set(CALLS) <= public
