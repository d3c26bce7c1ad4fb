"""What a classifier is to learn: images with labels, checked and brought together, before any feature is computed."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import has_fit_parameter

from dconv._block_features import images_for
from dconv._going_on import learn_more
from dconv._lazy_arrays import Derived
from dconv._nodata import fill_nodata, valid_pixels
from dconv._parts import check_may_look_ahead
from dconv._pixels import PixelSet, Rules, cells_of_pixels, choose_pixels, labelled, take, take_weights
from dconv._priors import class_weights, prior_factors
from dconv._sample_weight import weight_parameter
from dconv._threads import scikit_learn_alone
from dconv._validation import Images, as_labels, as_weights

_REGIONS = 16  # that one image is cut into, about


class Lesson(NamedTuple):
    """Pixels to learn from: masks of the images, and the label of each, image after image in row-major order."""

    images: Images
    masks: list[PixelSet]
    targets: np.ndarray
    weighting: dict[str, np.ndarray]  # for the classifier's fit: weights under their name, if there are any
    grouping: dict[str, np.ndarray]  # likewise groups, if it takes them
    prior_factors: np.ndarray | None = None  # what probabilities are multiplied with to have the prior

    def teach(self, classifier: Any, rows: np.ndarray, which: Any = ...) -> None:
        """Fit `classifier` to the features of the pixels, or of those that `which` chooses."""
        more = {name: values[which] for name, values in (self.weighting | self.grouping).items()}
        # Forests fit on threads of their own, which can leave the user's warning filters changed.
        with scikit_learn_alone(), warnings.catch_warnings():
            classifier.fit(rows[which], self.targets[which], **more)

    def teach_more(self, classifier: Any, rows: np.ndarray, classes: np.ndarray | None) -> None:
        """Let `classifier` go on learning; `classes` are all that it will ever learn, None but for the first time.

        Of a Pipeline the last step goes on; those in front stay as the first time has fitted them.
        """
        first = classes is not None
        more: dict[str, Any] = {"classes": classes} if first else {}
        if self.weighting:
            (more["sample_weight"],) = self.weighting.values()
        with scikit_learn_alone(), warnings.catch_warnings():
            learn_more(classifier, rows, self.targets, first, **more)

    def __str__(self) -> str:
        classes, counts = np.unique(self.targets, return_counts=True)
        listed = ", ".join(f"{count} of label {label}" for label, count in zip(classes, counts, strict=True))
        return f"pixels to learn from in {len(self.images.arrays)} image(s): {listed}"


def new_lesson(
    X: Any,
    y: Any,
    sample_weight: Any,
    mask: Any,
    features: Any,
    classifier: Any,
    ndim: int,
    channel_axis: int | None,
    rules: Rules,
    random_state: np.random.RandomState,
) -> Lesson:
    """Return the lesson that `classifier` is to learn from images, label images, weights and masks of pixels."""
    if rules.nodata is not None:
        check_may_look_ahead(features, f"nodata={rules.nodata}, which fills gaps from both sides,")
    images = fill_nodata(images_for(features, X, ndim, channel_axis), mask, rules.nodata)
    labels = as_labels(y, images)
    weights = as_weights(sample_weight, images)
    known = [with_label(*pair, rules.ignore_label) for pair in zip(images.arrays, labels, strict=True)]
    masks = choose_pixels(labels, known, rules.max_samples, rules.sample, random_state)
    targets = take(labels, masks)
    if not len(targets):
        raise ValueError(no_label_message(rules.ignore_label))
    check_nodata(rules.nodata, targets)
    weighting = {} if weights is None else {weight_parameter(classifier): take_weights(weights, masks)}
    grouping = {"groups": groups_of(masks)} if has_fit_parameter(classifier, "groups") else {}
    factors = None
    if rules.class_prior is not None:
        classes = np.unique(targets)
        learnt, all_of_it = (class_weights(labels, which, weights, classes) for which in (masks, known))
        factors = prior_factors(rules.class_prior, learnt, all_of_it)
    return Lesson(images, masks, targets, weighting, grouping, factors)


def with_label(image: Any, labels: Any, ignore_label: int | None) -> Derived:
    """Return which pixels of an image have a label that counts, and data."""
    return Derived(partial(labelled, ignore_label), tuple(labels.shape), labels, valid_pixels(image))


def check_nodata(nodata: int | None, targets: np.ndarray) -> None:
    """Check that labels such as `targets` can say of a pixel that it holds no data."""
    if nodata is None:
        return
    if (targets == nodata).any():
        raise ValueError(f"nodata={nodata} is the label of a class in y; choose another one for pixels without data")
    if targets.dtype.kind == "b" or not np.iinfo(targets.dtype).min <= nodata <= np.iinfo(targets.dtype).max:
        raise ValueError(
            f"labels in y are {targets.dtype}, which cannot hold nodata={nodata}; choose another value, or pass "
            "y.astype(int)"
        )


def groups_of(masks: list[PixelSet]) -> np.ndarray:
    """Return for every pixel to learn from which group it is alike with: its image, or of a single one its region."""
    if len(masks) > 1:
        return np.repeat(np.arange(len(masks)), [mask.n_pixels for mask in masks])
    (mask,) = masks
    per_axis = round(_REGIONS ** (1 / mask.ndim))
    return np.ravel_multi_index(cells_of_pixels(mask, per_axis), (per_axis,) * mask.ndim)


def check_two_classes(targets: np.ndarray, ignore_label: int | None) -> None:
    """Check that there is something to tell apart."""
    first = targets[0]
    if (targets == first).all():
        hint = f"; {ignore_label} is ignored: pass ignore_label=None if {ignore_label} is a class"
        raise ValueError(
            f"only label {first} is in y, but a classifier needs two classes{'' if ignore_label is None else hint}"
        )


def no_label_message(ignore_label: int | None) -> str:
    """Return what to say of label images in which every pixel is ignored."""
    return (
        f"y holds no labelled pixel: every value is ignore_label={ignore_label}; label some pixels, or pass "
        f"ignore_label=None if {ignore_label} is a class"
    )
