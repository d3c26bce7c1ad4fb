"""DenseCRF gives what pydensecrf gives, on photographs, with scalars and with matrices, whose signs differ there."""

import numpy as np
import pytest
from skimage import data, transform

from dconv import DenseCRF

densecrf = pytest.importorskip("pydensecrf.densecrf", reason='needs pydensecrf: pip install "dconv[peers]"')


def photograph(name, shape):
    """Return an RGB photograph of a shape with height * width divisible by 4: pydensecrf is wrong otherwise."""
    assert shape[0] * shape[1] % 4 == 0
    resized = transform.resize(getattr(data, name)()[..., :3], shape, anti_aliasing=True)
    return np.ascontiguousarray((255 * resized).round().astype(np.uint8))


def probabilities_of(image, n_classes, seed=0):
    """Return soft classes by colour, from pixels drawn as their centres."""
    colors = image.reshape(-1, 3).astype(float)
    centers = colors[np.random.default_rng(seed).choice(len(colors), n_classes, replace=False)]
    distance = ((colors[:, np.newaxis] - centers) ** 2).sum(axis=-1) / (2 * 40**2)
    power = np.exp(distance.min(axis=1, keepdims=True) - distance)
    return (power / power.sum(axis=1, keepdims=True)).reshape(*image.shape[:2], n_classes)


def pydensecrf(image, probabilities, *, gaussian=3, bilateral=10, n_iter=10):
    """Return its result on clipped probabilities."""
    height, width, n_classes = probabilities.shape
    crf = densecrf.DenseCRF2D(width, height, n_classes)
    unary = -np.log(np.clip(probabilities, 1e-5, 1)).reshape(-1, n_classes).T
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    crf.addPairwiseGaussian(sxy=3, compat=gaussian)
    if bilateral is not None:
        crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=bilateral)
    return np.array(crf.inference(n_iter)).T.reshape(probabilities.shape)


@pytest.mark.parametrize("n_classes", [2, 5, 21])
@pytest.mark.parametrize(("name", "shape"), [("astronaut", (256, 300)), ("coffee", (240, 250)), ("rocket", (190, 330))])
def test_photographs(name, shape, n_classes):
    image = photograph(name, shape)
    probabilities = probabilities_of(image, n_classes)
    expected = pydensecrf(image, probabilities)
    actual = DenseCRF().refine(image, probabilities)
    assert np.abs(actual - expected).max() <= 1e-4
    differs = actual.argmax(axis=-1) != expected.argmax(axis=-1)
    first, second = np.sort(expected, axis=-1)[..., :-3:-1][differs].T
    assert np.all(first - second < 2e-5)  # a tie, up to rounding
    assert differs.sum() <= 1


def test_compatibility_matrix_is_of_costs_there_too():
    image = photograph("chelsea", (100, 120))
    probabilities = probabilities_of(image, 4)
    costs = np.float32([[0, 1, 2, 1], [1, 0, 1, 3], [2, 1, 0, 1], [1, 3, 1, 0]])
    expected = pydensecrf(image, probabilities, gaussian=3 * costs, bilateral=10 * costs)
    actual = DenseCRF(compatibility=costs).refine(image, probabilities)
    assert np.abs(actual - expected).max() <= 1e-4


def test_spatial_kernel_alone():
    image = photograph("chelsea", (100, 120))
    probabilities = probabilities_of(image, 3)
    expected = pydensecrf(image, probabilities, bilateral=None)
    assert np.abs(DenseCRF().refine(None, probabilities) - expected).max() <= 1e-4


def test_volume_with_kernels_of_its_own():
    rng = np.random.default_rng(0)
    volume = np.cumsum(rng.normal(size=(8, 20, 30)), axis=2).astype(np.float32)
    probabilities = rng.dirichlet(np.ones(3), size=volume.shape).astype(np.float32)
    # On a grid, whole widths put pixels on the borders of simplices, where rounding says which corners there are.
    widths = (1.3, 2.1, 3.7)
    places = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"))
    scaled = [places[axis] / widths[axis] for axis in (2, 1, 0)]  # in our order: the last axis first
    crf = densecrf.DenseCRF(volume.size, 3)
    unary = -np.log(np.clip(probabilities, 1e-5, 1)).reshape(-1, 3).T
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    for features, compat in ((scaled, 2), ([*scaled, volume / 4], 4)):
        crf.addPairwiseEnergy(np.stack(features).reshape(len(features), -1).astype(np.float32), compat=compat)
    expected = np.array(crf.inference(5)).T.reshape(probabilities.shape)
    actual = DenseCRF(
        n_iter=5,
        spatial_weight=2,
        spatial_sigma=widths,
        appearance_weight=4,
        appearance_sigma=widths,
        color_sigma=4,
        ndim=3,
    ).refine(volume, probabilities)
    assert np.abs(actual - expected).max() <= 1e-4
