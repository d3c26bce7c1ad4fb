"""The context of class probabilities against AtrousFeatures and a slow definition, in blocks and on small images."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from dconv._context_bank import ContextFeatures
from dconv.features import AtrousFeatures
from dconv.filters import filter_bank

SHAPES = {1: (150,), 2: (40, 53), 3: (14, 13, 15)}
LEVELS = {1: (0, 2, 4, 6), 2: (0, 2, 4, 6), 3: (0, 1, 2, 3)}
NEIGHBOURS_OF = {1: (3, 5, 6), 2: (3, 5, 6), 3: (2, 3)}
FAR_LEVELS, FAR_NEIGHBOURS_OF = (6,), (5, 6)  # of two classes, but in 3-D


def probabilities_of(shape, n_classes, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(n_classes), shape).astype(np.float32)


# Numbers of axes and the spacing of pixels
SPACINGS = [(1, None), (2, None), (3, None), (2, (1.0, 3.0)), (3, (2.0, 1.0, 1.0)), (3, (1.0, 1.5, 11.0))]


def context_of(probabilities, spacing=None):
    ndim, n_classes = probabilities.ndim - 1, probabilities.shape[-1]
    block = tuple(slice(0, size) for size in probabilities.shape[:-1])
    return ContextFeatures(ndim, n_classes, spacing)._transform_block(probabilities, block)


def neighbour_steps(ndim):
    steps = [step for step in itertools.product((-1, 0, 1), repeat=ndim) if any(step)]
    return [step for step in steps if ndim < 3 or np.abs(step).sum() == 1]


def step_at(level, spacing=1.0):
    """Return the dilation of a level in pixels that are so far apart: the nearest whole number."""
    return int(np.ceil(2**level / spacing - 0.5))


def operator(size, level, shift, spacing):
    """Return the matrix that smooths an axis to a level, and takes the value so many places further on."""
    far = 200
    rows = np.pad(np.eye(size), ((far, far), (0, 0)), mode="reflect")  # the axis continued without end
    for index in range(level):
        step = step_at(index, spacing)
        if step == 0:
            continue
        taps = np.zeros(4 * step + 1)
        taps[::step] = np.array([1, 4, 6, 4, 1]) / 16
        rows = correlate1d(rows, taps, axis=0, mode="constant")
    return rows[far + shift : far + shift + size]


def levels_and_neighbours(plane, levels, neighbours_of, spacing):
    """Return smooth levels of a plane, and the neighbours of some: one column of pixels each."""
    apart = spacing or (1.0,) * plane.ndim
    wanted = [(level, (0,) * plane.ndim) for level in levels]
    for level in neighbours_of:
        steps = np.array([step_at(level, each) for each in apart])
        wanted += [(level, steps * np.array(step)) for step in neighbour_steps(plane.ndim)]
    columns = []
    for level, shifts in wanted:
        column = plane.astype(float)
        for axis, shift in enumerate(shifts):
            matrix = operator(plane.shape[axis], level, shift, apart[axis])
            column = np.moveaxis(np.tensordot(matrix, column, (1, axis)), 0, axis)
        columns.append(column)
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize(("ndim", "spacing"), SPACINGS)
def test_of_two_classes_it_is_the_bank_on_the_second_and_what_is_far_away(ndim, spacing):
    probabilities = probabilities_of(SHAPES[ndim], 2)
    steps = neighbour_steps(ndim)
    weight = np.zeros((len(steps), *(3,) * ndim, 1))
    for index, step in enumerate(steps):
        weight[(index, *(np.array(step) + 1), 0)] = 1
    second = "curvature" if ndim == 1 else "hessian"  # the same, by its name
    groups = ["level", "gradient", second, "std", "extrema"] + ["lines"] * (ndim > 1)
    n_levels = 3 if ndim == 3 else 5
    bank = AtrousFeatures(n_levels, groups=groups, filters=filter_bank(weight), spacing=spacing, ndim=ndim)
    near = bank.fit_transform(probabilities[..., 1])
    got = context_of(probabilities, spacing)
    np.testing.assert_array_equal(got[..., : near.shape[-1]], near)
    if ndim == 3:
        assert got.shape == near.shape
    else:
        far = levels_and_neighbours(probabilities[..., 1], FAR_LEVELS, FAR_NEIGHBOURS_OF, spacing)
        np.testing.assert_allclose(got[..., near.shape[-1] :], far, atol=2e-6)


@pytest.mark.parametrize(("ndim", "spacing"), SPACINGS)
def test_of_more_classes_it_is_levels_and_neighbours(ndim, spacing):
    probabilities = probabilities_of(SHAPES[ndim], 3)
    planes = np.moveaxis(probabilities, -1, 0)
    expected = [levels_and_neighbours(plane, LEVELS[ndim], NEIGHBOURS_OF[ndim], spacing) for plane in planes]
    np.testing.assert_allclose(context_of(probabilities, spacing), np.concatenate(expected, axis=-1), atol=2e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((300,), None), ((20, 260), None), ((1, 70), None), ((3, 4), None), ((9, 8, 7), None), ((30, 24, 6), (1, 1, 3.0))],
)
def test_blocks_see_as_far_as_the_halo_says_and_change_no_bit(shape, spacing, n_classes):
    probabilities = probabilities_of(shape, n_classes)
    context = ContextFeatures(len(shape), n_classes, spacing)
    whole = context_of(probabilities, spacing)
    block = tuple(slice(size // 2, size // 2 + max(1, size // 5)) for size in shape)
    np.testing.assert_array_equal(context._transform_block(probabilities, block), whole[block])
    into = np.empty((*(part.stop - part.start for part in block), context.n_features_out_ + 3), np.float32)
    context.fill(probabilities, block, into[..., 3:])
    np.testing.assert_array_equal(into[..., 3:], whole[block])
    # From a window with a halo around the block, cut off where the image ends
    window = [
        slice(max(part.start - left, 0), min(part.stop + right, size))
        for part, (left, right), size in zip(block, context.halo_, shape, strict=True)
    ]
    moved = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(block, window, strict=True))
    np.testing.assert_array_equal(context._transform_block(probabilities[tuple(window)], moved), whole[block])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_halo_is_exact(n_classes):
    context = ContextFeatures(1, n_classes)
    ((left, right),) = context.halo_
    probabilities = probabilities_of((501,), n_classes)
    before = context_of(probabilities)
    changed = probabilities.copy()
    changed[250] += 100  # which no rounding swallows, though the outermost taps are small
    differs = np.flatnonzero((context_of(changed) != before).any(axis=-1))
    assert (differs.min(), differs.max()) == (250 - right, 250 + left)
