"""What every estimator on images promises, as checks that take a case; `test_contract.py` runs them all.

scikit-learn's own `check_estimator` cannot stand in for this suite: it feeds tables of samples, and it returns early,
having tested almost nothing, for an estimator whose tags say that it takes images. Passing it proves nothing.
"""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags

from dconv import layers
from dconv.backbone import AtrousBackbone
from dconv.combined import FeatureImageUnion, make_features
from dconv.context import ContextClassifier
from dconv.custom import CustomFeatures
from dconv.features import AtrousFeatures
from dconv.filters import bilinear_upsampling, gaussian
from dconv.position import PixelPosition
from dconv.pyramid import AtrousPyramid
from dconv.segmentation import PixelClassifier
from dconv.transformers import DilatedConv
from dconv.transposed import TransposedConv

SIZES = {1: (120,), 2: (34, 40), 3: (18, 17, 19)}


@dataclass(frozen=True)
class Case:
    """An estimator with the kind of images it is tested on: `ndim` spatial axes, grey (None) or `n_channels`.

    What it returns is `factor` times larger than an image; `any_size` tells that no image is too small for it.
    """

    name: str
    build: Callable[..., BaseEstimator]
    ndim: int
    n_channels: int | None
    factor: int = 1
    any_size: bool = False

    def __str__(self) -> str:
        return f"{self.name}-{self.ndim}d-{'grey' if self.n_channels is None else 'colour'}"

    def estimator(self, **parameters: Any) -> BaseEstimator:
        """Return an unfitted estimator."""
        channel_axis = None if self.n_channels is None else -1
        return self.build(**{"ndim": self.ndim, "channel_axis": channel_axis, **parameters})

    def image(self, seed: int = 0, grow: int = 0) -> np.ndarray:
        """Return an image of whole numbers from 0 to 255, which every dtype holds exactly; float32."""
        shape = tuple(size + grow for size in SIZES[self.ndim])
        channels = () if self.n_channels is None else (self.n_channels,)
        return np.random.default_rng(seed).integers(0, 256, size=(*shape, *channels)).astype(np.float32)

    def labels(self, image: np.ndarray) -> np.ndarray:
        """Return label images with classes 1 and 2 and many unlabelled pixels."""
        grey = image if self.n_channels is None else image[..., 0]
        return np.where(grey > 192, 2, np.where(grey < 64, 1, 0))

    def fit(self, estimator: BaseEstimator, X: Any) -> BaseEstimator:
        """Fit to images, with labels made from them where the estimator learns from labels."""
        if not is_classifier(estimator):
            return estimator.fit(X)
        return estimator.fit(X, [self.labels(image) for image in X] if isinstance(X, list) else self.labels(X))

    def fitted(self, **parameters: Any) -> BaseEstimator:
        """Return an estimator fitted to `self.image()`."""
        return self.fit(self.estimator(**parameters), self.image())

    @property
    def method(self) -> str:
        """The method that turns images into results."""
        return "predict_proba" if is_classifier(self.estimator()) else "transform"

    def apply(self, estimator: BaseEstimator, X: Any) -> Any:
        """Return what the estimator makes of images."""
        return getattr(estimator, self.method)(X)


def atrous_features(**parameters: Any) -> AtrousFeatures:
    """Return the default bank, of few levels."""
    return AtrousFeatures(n_levels=2, **parameters)


def pyramid_features(**parameters: Any) -> AtrousFeatures:
    """Return the same bank on halved levels."""
    return AtrousFeatures(n_levels=2, scheme="pyramid", **parameters)


def twice(image: np.ndarray) -> np.ndarray:
    """Return a feature of grey images that needs no neighbour."""
    return 2 * image


def first_channels(image: np.ndarray, axis: int) -> np.ndarray:
    """Return two features of images in colour that need no neighbour."""
    return np.stack([image.take(0, axis), image.take(-1, axis)], axis=-1)


def custom_features(channel_axis: int | None = None, **parameters: Any) -> CustomFeatures:
    """Return features that a function computes block by block."""
    function = twice if channel_axis is None else partial(first_channels, axis=channel_axis)
    return CustomFeatures(function, halo=1, channel_axis=channel_axis, **parameters)


def combined_features(ndim: int, channel_axis: int | None = None, **parameters: Any) -> FeatureImageUnion:
    """Return a bank of one filter, positions, and what a function computes."""
    parts = dilated_conv(ndim), PixelPosition(), custom_features(channel_axis)
    return make_features(*parts, ndim=ndim, channel_axis=channel_axis, **parameters)


def backbone(ndim: int, **parameters: Any) -> AtrousBackbone:
    """Return a net of two convolutions and a pooling on the first and the last channel, which wants four pixels."""
    rng, rank = np.random.default_rng(0), min(ndim, 3)
    net = [
        layers.Convolution(rng.normal(size=(6, *(3,) * rank, 2)), padding=1),
        layers.ReLU(),
        layers.MaxPool(2),
        layers.Convolution(rng.normal(size=(4, *(2,) * rank, 6)), stride=2),
    ]
    return AtrousBackbone(net, output_stride=2, taps=[0, 3], channels=(0, -1), ndim=ndim, **parameters)


def pyramid(ndim: int, **parameters: Any) -> AtrousPyramid:
    """Return branches over a bank of one filter."""
    inner = DilatedConv(gaussian(0.8, ndim=min(ndim, 3)), dilation=(1, 2))
    return AtrousPyramid(inner, dilations=(2, 5), n_components=3, random_state=0, ndim=ndim, **parameters)


def dilated_conv(ndim: int, **parameters: Any) -> DilatedConv:
    """Return a bank of one filter at two dilations."""
    return DilatedConv(gaussian(0.8, ndim=ndim), dilation=(1, 2), ndim=ndim, **parameters)


def pixel_classifier(**parameters: Any) -> PixelClassifier:
    """Return a pixel classifier that has both parts nested and is fast."""
    classifier = ExtraTreesClassifier(5, max_leaf_nodes=16, random_state=0)
    return PixelClassifier(AtrousFeatures(n_levels=2), classifier, random_state=0, **parameters)


def context_classifier(ndim: int, **parameters: Any) -> ContextClassifier:
    """Return a cascade of two stages that is fast."""
    classifier = ExtraTreesClassifier(4, max_leaf_nodes=16, random_state=0)
    bank = DilatedConv(gaussian(0.8, ndim=ndim), dilation=(1, 2), ndim=ndim)
    return ContextClassifier(bank, classifier, random_state=0, cv=2, ndim=ndim, **parameters)


def transposed_conv(ndim: int, **parameters: Any) -> TransposedConv:
    """Return bilinear upsampling."""
    return TransposedConv(bilinear_upsampling(2, ndim=ndim), ndim=ndim, **parameters)


CASES = [
    Case(build.__name__, build, ndim, n_channels, factor, any_size)
    for build, factor, any_size in (
        (atrous_features, 1, False),
        (pyramid_features, 1, False),
        (backbone, 1, False),
        (pyramid, 1, False),
        (dilated_conv, 1, False),
        (custom_features, 1, True),
        (combined_features, 1, False),
        (transposed_conv, 2, True),
        (pixel_classifier, 1, False),
        (context_classifier, 1, False),
    )
    for ndim in (1, 2, 3)
    for n_channels in (None, 3)
]


def assert_same(actual: Any, expected: Any) -> None:
    """Check that two results are of one kind and dtype and equal to the last bit."""
    assert type(actual) is type(expected)
    if isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
        return
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


# --- scikit-learn's conventions ---


def check_clone_is_unfitted_and_equal(case: Case) -> None:
    fitted = case.fitted()
    copy = clone(fitted)
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert_same(case.apply(case.fit(copy, case.image()), case.image(1)), case.apply(fitted, case.image(1)))


def check_parameters_are_kept_and_can_be_set(case: Case) -> None:
    estimator = case.estimator()
    for name, value in estimator.get_params(deep=False).items():
        assert getattr(estimator, name) is value
    before = {name: repr(value) for name, value in estimator.get_params().items()}
    case.fit(estimator, case.image())
    assert {name: repr(value) for name, value in estimator.get_params().items()} == before
    assert estimator.set_params(n_jobs=1) is estimator
    assert estimator.get_params()["n_jobs"] == 1
    with pytest.raises(ValueError, match="no_such_parameter"):
        estimator.set_params(no_such_parameter=1)


def check_representations(case: Case) -> None:
    estimator = case.estimator()
    for state in (estimator, case.fit(clone(estimator), case.image())):
        assert type(estimator).__name__ in repr(state)
        assert type(estimator).__name__ in state._repr_html_()


def check_pickle(case: Case) -> None:
    fitted = case.fitted()
    assert_same(case.apply(pickle.loads(pickle.dumps(fitted)), case.image(1)), case.apply(fitted, case.image(1)))


def check_refit_equals_fresh_fit(case: Case) -> None:
    refitted = case.fit(case.fit(case.estimator(), [case.image(5, grow=3), case.image(6)]), case.image())
    assert_same(case.apply(refitted, case.image(1)), case.apply(case.fitted(), case.image(1)))


def check_tags_say_images(case: Case) -> None:
    tags = get_tags(case.estimator())
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert (tags.classifier_tags is not None) == (case.method == "predict_proba")
    assert (tags.transformer_tags is not None) == (case.method == "transform")


def check_set_output_refuses_data_frames(case: Case) -> None:
    if case.method != "transform":
        assert not hasattr(case.estimator(), "set_output")
        return
    estimator = case.estimator()
    assert estimator.set_output(transform="default") is estimator
    assert estimator.set_output(transform=None) is estimator
    with pytest.raises(ValueError, match=r"cannot return transform='pandas'.*reshape\(-1"):
        estimator.set_output(transform="pandas")
    expected = case.fit(estimator, case.image()).transform(case.image())
    with sklearn.config_context(transform_output="pandas"):
        assert_same(case.estimator().fit_transform(case.image()), expected)


# --- images in, images out ---


def check_kind_in_kind_out(case: Case) -> None:
    fitted = case.fitted()
    images = [case.image(1), case.image(2)]
    single = [case.apply(fitted, image) for image in images]
    spatial = tuple(case.factor * size for size in images[0].shape[: case.ndim])
    assert single[0].dtype == np.float32
    assert single[0].shape[:-1] == spatial
    assert_same(case.apply(fitted, images), single)
    assert_same(case.apply(fitted, np.stack(images)), np.stack(single))
    ragged = case.image(3, grow=2)
    assert_same(case.apply(fitted, [images[0], ragged]), [single[0], case.apply(fitted, ragged)])


def check_fit_on_image_batch_and_list_agree(case: Case) -> None:
    images = [case.image(1), case.image(2)]
    from_list = case.fit(case.estimator(), images)
    from_batch = case.fit(case.estimator(), np.stack(images))
    assert_same(case.apply(from_batch, case.image(3)), case.apply(from_list, case.image(3)))
    from_one = case.fit(case.estimator(), images[:1])
    assert_same(case.apply(case.fit(case.estimator(), images[0]), images[1]), case.apply(from_one, images[1]))


def check_threads_change_no_bit(case: Case) -> None:
    X = [case.image(1), case.image(2)]
    expected = case.apply(case.fitted(n_jobs=1), X)
    with mock.patch("dconv._conv_run._MULTIPLY_ADDS_PER_THREAD", 1):  # or `conv` finds such images too small to share
        assert_same(case.apply(case.fitted(n_jobs=3), X), expected)


def check_memory_layout_does_not_matter(case: Case, folder: Any) -> None:
    fitted, image = case.fitted(), case.image(1)
    expected = case.apply(fitted, image)
    from_plain = case.apply(case.fit(case.estimator(), image), image)
    np.save(folder / "image.npy", image)
    read_only = image.copy()
    read_only.flags.writeable = False
    reverse = (slice(None, None, -1),) * image.ndim
    spaced = np.zeros([2 * size for size in image.shape], image.dtype)
    spaced[(slice(None, None, 2),) * image.ndim] = image
    for variant in (
        np.load(folder / "image.npy", mmap_mode="r"),
        read_only,
        np.asfortranarray(image),
        image[reverse].copy()[reverse],  # negative strides
        spaced[(slice(None, None, 2),) * image.ndim],
        image.astype(image.dtype.newbyteorder()),
    ):
        assert_same(case.apply(fitted, variant), expected)
        assert_same(case.apply(case.fit(case.estimator(), variant), image), from_plain)


def check_dtypes_give_the_same_values(case: Case) -> None:
    fitted, image = case.fitted(), case.image(1)
    expected = case.apply(fitted, image)
    for dtype in (np.uint8, np.int16, np.uint16, np.int64, np.float16, np.float64):
        assert_same(case.apply(fitted, image.astype(dtype)), expected)


def check_channel_axis_moves_channels_only(case: Case) -> None:
    if case.n_channels is None:
        return
    first = case.estimator(channel_axis=0)
    image, other = case.image(), case.image(1)
    X = np.moveaxis(image, -1, 0)
    first = first.fit(X, case.labels(image)) if is_classifier(first) else first.fit(X)
    assert_same(case.apply(first, np.moveaxis(other, -1, 0)), case.apply(case.fitted(), other))


def check_input_is_not_modified(case: Case) -> None:
    image = case.image()
    before = image.copy()
    result = case.apply(case.fit(case.estimator(), image), image)
    np.testing.assert_array_equal(image, before)
    assert not np.may_share_memory(result, image)


def check_concurrent_use_equals_serial(case: Case) -> None:
    fitted = case.fitted()
    images = [case.image(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        concurrent = list(pool.map(lambda image: case.apply(fitted, image), images))
    assert_same(concurrent, [case.apply(fitted, image) for image in images])


# --- bad input ---


def check_unfitted_use(case: Case) -> None:
    with pytest.raises(NotFittedError, match=type(case.estimator()).__name__):
        case.apply(case.estimator(), case.image())


def check_wrong_channel_count(case: Case) -> None:
    channel_axis = -1  # a grey image is fitted as an image of one channel, so that there is a number to be wrong
    image = case.image() if case.n_channels else case.image()[..., np.newaxis]
    labelled = case.estimator(channel_axis=channel_axis)
    fitted = labelled.fit(image, case.labels(image[..., 0] if case.n_channels is None else image))
    n_channels = image.shape[-1]
    with pytest.raises(ValueError, match=rf"{n_channels + 1} channel.* fitted with {n_channels}"):
        case.apply(fitted, np.concatenate([image, image[..., :1]], axis=-1))


def check_wrong_rank(case: Case) -> None:
    flat = np.zeros(7) if case.ndim > 1 or case.n_channels else np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=f"X has {flat.ndim} axes.*ndim={case.ndim}"):
        case.fit(case.estimator(), flat) if case.method == "transform" else case.estimator().fit(flat, flat.astype(int))
    with pytest.raises(ValueError, match=f"X has {flat.ndim} axes.*ndim={case.ndim}"):
        case.apply(case.fitted(), flat)


def check_unusable_values(case: Case) -> None:
    fitted, image = case.fitted(), case.image()
    labels = case.labels(image)
    for value in (np.nan, np.inf):
        bad = image.copy()
        bad.flat[-1] = value
        with pytest.raises(ValueError, match=f"X holds {value}.*finite"):
            case.estimator().fit(bad, labels)
        with pytest.raises(ValueError, match=r"X\[1\] holds " + str(value)):
            case.apply(fitted, [image, bad])
    for dtype in (complex, object, "U3"):
        with pytest.raises(TypeError, match="X must hold real numbers, got dtype"):
            case.estimator().fit(image.astype(dtype), labels)
        with pytest.raises(TypeError, match="X must hold real numbers, got dtype"):
            case.apply(fitted, image.astype(dtype))


def check_image_smaller_than_filters(case: Case) -> None:
    fitted = case.fitted()
    small = case.image()[(slice(0, 2),) * case.ndim]
    if case.any_size:
        assert case.apply(fitted, small).shape[:-1] == (2 * case.factor,) * case.ndim
        return
    labels = np.indices(small.shape[: case.ndim])[0] + 1
    pattern = r"X has spatial shape \(2,.*: axis 0 has 2 pixels, but at least \d+ are needed"
    with pytest.raises(ValueError, match=pattern):
        case.estimator().fit(small, labels)
    with pytest.raises(ValueError, match=pattern):
        case.apply(fitted, small)


def check_bad_parameters(case: Case) -> None:
    X, y = case.image(), case.labels(case.image())
    with pytest.raises(ValueError, match="ndim must be 1, 2 or 3"):
        case.estimator(ndim=4).fit(X, y)
    with pytest.raises(ValueError, match="channel_axis=9 is not an axis"):
        case.estimator(channel_axis=9).fit(X, y)
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        case.estimator(n_jobs=0).fit(X, y)
    with pytest.raises(TypeError, match="n_jobs must be None or an int, got 'two'"):
        case.estimator(n_jobs="two").fit(X, y)


CHECKS = [function for name, function in sorted(globals().items()) if name.startswith("check_")]
