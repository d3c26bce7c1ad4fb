"""The bank on a pyramid: equal to the a trous bank on the samples of its levels, interpolated between them."""

import numpy as np
import pytest
import scipy.ndimage
from reference_features import random_image

from dconv._blocks import PADDING_MODES
from dconv.features import AtrousFeatures
from dconv.filters import derivatives


def banks(image, n_levels, **parameters):
    """Return the fitted a trous bank and pyramid."""
    return (AtrousFeatures(n_levels, scheme=scheme, **parameters).fit(image) for scheme in ("atrous", "pyramid"))


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(("ndim", "channels"), [(1, None), (2, None), (2, 3), (3, None)])
def test_equals_the_atrous_bank_on_the_samples(ndim, channels, mode):
    shape = {1: (203,), 2: (61, 50), 3: (19, 18, 21)}[ndim]
    image = random_image(shape if channels is None else (*shape, channels))
    n_levels = 2 if ndim == 3 else 3
    axis = None if channels is None else -1
    parameters = {"ndim": ndim, "channel_axis": axis, "padding_mode": mode, "filters": derivatives(1, ndim=ndim)}
    atrous, pyramid = banks(image, n_levels, **parameters)
    dense, sparse = atrous.transform(image), pyramid.transform(image)
    assert sparse.shape == dense.shape
    names = pyramid.get_feature_names_out()
    assert [name.replace("_s", "_d") for name in names] == [
        name.replace("_s", "_d") for name in atrous.get_feature_names_out()
    ]
    for index, name in enumerate(names):
        scale = int(name.rsplit("_s", 1)[1])
        stride = min(scale, 2 ** (n_levels - 1))  # the level after the last is sampled as the last
        if scale > 1 and any(part in name for part in ("_line_", "_crossings_", "_ppv_", "_activity_")):
            continue  # these look at the samples that there are
        on_samples = (slice(None, None, stride),) * ndim
        np.testing.assert_allclose(sparse[on_samples][..., index], dense[on_samples][..., index], rtol=0, atol=1e-5)


def test_is_linear_between_the_samples():
    image = random_image((41, 33))
    pyramid = AtrousFeatures(3, scheme="pyramid").fit(image)
    features = pyramid.transform(image)
    for index, name in enumerate(pyramid.get_feature_names_out()):
        stride = min(int(name.rsplit("_s", 1)[1]), 4)
        samples = features[::stride, ::stride, index].astype(np.float64)
        places = np.mgrid[:41, :33] / stride
        expected = scipy.ndimage.map_coordinates(samples, places, order=1, mode="nearest")
        np.testing.assert_allclose(features[..., index], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"groups": ["level"]}, {"groups": ["lines"]}, {"groups": [], "filters": np.ones((1, 2, 5, 1))}],
)
def test_halo_is_that_of_the_pixel_that_sees_farthest(parameters):
    bank = AtrousFeatures(3, scheme="pyramid", **parameters).fit(np.zeros((40, 40)))
    for axis, (left, right) in enumerate(bank.halo_):
        farthest = [0, 0]
        for place in range(60, 64):  # an impulse at every phase of the coarsest level
            image = np.zeros((125, 125), np.float32)
            image[place, place] = 1e6
            changed = np.any(bank.transform(image) != 0, axis=(-1, 1 - axis))
            seen = np.flatnonzero(changed) - place
            farthest = [max(farthest[0], seen.max()), max(farthest[1], -seen.min())]
        assert farthest == [left, right]


def test_color_alone():
    image = random_image((30, 30, 3))
    atrous, pyramid = banks(image, 2, groups=[], color_groups=["level"], channel_axis=-1)
    np.testing.assert_allclose(pyramid.transform(image)[::2, ::2], atrous.transform(image)[::2, ::2], atol=1e-6)


@pytest.mark.parametrize("scheme", ["Atrous", "pool", None, True, 1, ["pyramid"]])
def test_unknown_scheme(scheme):
    with pytest.raises(ValueError, match="scheme must be one of 'atrous', 'pyramid'"):
        AtrousFeatures(scheme=scheme).fit(np.zeros((40, 40)))
