"""Distillation: a small network that answers as a slow classifier does, and answers fast.

Few labels are not enough to train a network, but its teacher needs no labels to answer, and images are full of pixels:
the student learns from what the teacher says of many of them, probabilities and all.

References: G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015;
C. Bucila, R. Caruana, A. Niculescu-Mizil, "Model compression", KDD 2006, doi:10.1145/1150402.1150464.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from dconv._block_features import gather_rows, images_for
from dconv._caller_warnings import warn_caller
from dconv._nodata import fill_nodata, valid_pixels
from dconv._parts import check_probabilities
from dconv._pixels import PixelSet, blocks_of
from dconv._responses import Respond, response_of
from dconv._student import train
from dconv._threads import scikit_learn_alone
from dconv._validation import Images

N_PIXELS = 60_000  # that the student learns from: on images of three kinds more gained nothing
HELD_OUT = 0.1  # of them, on which it is compared with the teacher
_MAX_BLOCKS = 8  # that these pixels are drawn from, or one of each image: features are computed for whole blocks
_LAYERS = (48, 32)  # as good as 64 and 32, and 20 % faster

MIN_AGREEMENT = 0.95  # of labels: below it the student does not stand for its teacher
MAY_LOSE = 0.03  # of it below that, to see fewer features


class Agreement(NamedTuple):
    """How far a student agrees with its teacher on pixels that it did not learn from."""

    labels: float  # share of pixels that get the same label
    probabilities: float  # mean absolute difference


def as_distill(distill: Any, classifier: Any) -> bool:
    """Return whether a student of `classifier`, not fitted yet, is wanted."""
    if not isinstance(distill, bool) and not (isinstance(distill, str) and distill == "auto"):
        raise ValueError(f'distill must be True, False or "auto", got {distill!r}')
    if distill:
        check_probabilities(classifier, f"distill={distill!r} needs a classifier with probabilities to learn from")
    return bool(distill)


def draw_pixels(images: Images, n_features: int, random_state: np.random.RandomState) -> list[PixelSet]:
    """Return about `N_PIXELS` pixels, drawn from a few blocks of the images, each with the same share."""
    blocks = [
        (i, block)
        for i, shape in enumerate(images.spatial_shapes)
        for block in blocks_of(shape, n_features)
        if _n_valid(images.arrays[i], block)
    ]
    n_blocks = max(_MAX_BLOCKS, len(images.arrays))
    if len(blocks) > n_blocks:
        # Of every image the same number, as they may differ more among each other than within.
        order = random_state.permutation(len(blocks))
        rank = {}
        seen = np.zeros(len(images.arrays), int)
        for number in order:
            rank[number] = seen[blocks[number][0]]
            seen[blocks[number][0]] += 1
        blocks = [blocks[number] for number in sorted(order, key=rank.__getitem__)[:n_blocks]]
    total = sum(_n_valid(images.arrays[index], block) for index, block in blocks)
    share = min(1.0, N_PIXELS / max(1, total))
    places: list[list[np.ndarray]] = [[] for _ in images.arrays]
    for index, block in blocks:
        drawn = random_state.random_sample([part.stop - part.start for part in block]) < share
        valid = valid_pixels(images.arrays[index])
        if valid is not None:
            drawn &= valid[block]
        where = tuple(along + part.start for along, part in zip(np.nonzero(drawn), block, strict=True))
        places[index].append(np.ravel_multi_index(where, images.spatial_shapes[index]))
    return [
        PixelSet(shape, np.sort(np.concatenate([np.empty(0, np.intp), *of_image])))
        for shape, of_image in zip(images.spatial_shapes, places, strict=True)
    ]


def _n_valid(image: Any, block: Sequence[slice]) -> int:
    """Return how many pixels of a block hold data."""
    valid = valid_pixels(image)
    if valid is None:
        return int(np.prod([part.stop - part.start for part in block]))
    return int(np.count_nonzero(valid[tuple(block)]))


def distill(
    teacher: Any, rows: np.ndarray, random_state: np.random.RandomState, cheaper: np.ndarray | None = None
) -> tuple[Pipeline, Agreement, bool]:
    """Return a network that has learnt to answer as `teacher`, a fitted classifier, on float32 `rows`, how well, and
    whether it sees the features `cheaper` alone: so it does if that is enough, or all are hardly better.
    """
    respond = response_of(teacher, "predict_proba")
    wanted = np.concatenate([respond(part) for part in np.array_split(rows, max(1, len(rows) >> 14))])
    held_out = random_state.random_sample(len(rows)) < HELD_OUT
    held_out[np.argmax(~held_out)] = False  # whatever the draw, something is learnt from

    def learnt(rows: np.ndarray) -> tuple[Pipeline, Agreement]:
        student = _student(rows[~held_out], wanted[~held_out], teacher.classes_, random_state)
        return student, _agreement(response_of(student, "predict_proba"), rows[held_out], wanted[held_out])

    if cheaper is None:
        return *learnt(rows), False
    frugal, agreement = learnt(rows[:, cheaper])
    if agreement.labels >= MIN_AGREEMENT:
        return frugal, agreement, True
    student, best = learnt(rows)
    needs_all = best.labels >= min(MIN_AGREEMENT, agreement.labels + MAY_LOSE)
    return (student, best, False) if needs_all else (frugal, agreement, True)


def _student(
    rows: np.ndarray, wanted: np.ndarray, classes: np.ndarray, random_state: np.random.RandomState
) -> Pipeline:
    """Return a network that has learnt to answer `rows` with the probabilities `wanted`."""
    # Matrices this small are multiplied faster by one thread: two were nine times slower.
    with scikit_learn_alone(), threadpool_limits(1, "blas"):
        scaler = StandardScaler().fit(rows)
        return make_pipeline(scaler, train(scaler.transform(rows), wanted, classes, _LAYERS, random_state))


def _agreement(respond: Respond, rows: np.ndarray, wanted: np.ndarray) -> Agreement:
    if not len(rows):
        return Agreement(float("nan"), float("nan"))
    answers = respond(rows)
    same = answers.argmax(axis=1) == wanted.argmax(axis=1)
    return Agreement(float(same.mean()), float(np.abs(answers - wanted).mean()))


def trusted(distill: Any, student: Any, agreement: Agreement) -> Any:
    """Return the student, or with "auto" None if it does not answer as its teacher."""
    return student if agreement.labels >= MIN_AGREEMENT or distill is True else None


def warn_of_disagreement(distill: Any, agreements: Sequence[Agreement]) -> None:
    """Warn if a student, of all that there are, answers in spite of that."""
    labels = min((agreement.labels for agreement in agreements), default=1.0)
    if labels >= MIN_AGREEMENT or distill == "auto":
        return
    warn_caller(
        f"the student of distill=True gives {labels:.1%} of pixels the label that the classifier gives them, less than "
        f'{MIN_AGREEMENT:.0%}; pass more images as X_unlabeled, predict with exact=True, or use distill="auto" to '
        "fall back to the classifier"
    )


def unlabeled_images(
    distill: Any,
    features: Any,
    X_unlabeled: Any,
    images: Images,
    ndim: int,
    channel_axis: int | None,
    nodata: int | None,
) -> Images | None:
    """Return the images without labels that a student is to learn from, too, which must be of the kind of `images`."""
    if X_unlabeled is None:
        return None
    if not distill:
        raise ValueError("X_unlabeled is what a student learns from, but distill=False; pass distill=True")
    unlabeled = fill_nodata(images_for(features, X_unlabeled, ndim, channel_axis, "X_unlabeled"), None, nodata)
    if unlabeled.n_channels != images.n_channels:
        raise ValueError(f"X_unlabeled has {unlabeled.n_channels} channel(s), but X has {images.n_channels}")
    return unlabeled


class Practice(NamedTuple):
    """Pixels that students learn from: masks of groups of images, and the features of all, group after group."""

    groups: Sequence[Images]
    masks: list[list[PixelSet]]
    rows: np.ndarray


def draw_practice(
    features: Any, groups: Sequence[Images], channel_axis: int | None, random_state: np.random.RandomState, n_jobs: int
) -> Practice:
    """Return pixels drawn from groups of images."""
    masks, parts = [], []
    for images in groups:
        n_features = getattr(features, "n_features_out_", images.n_channels)
        masks.append(draw_pixels(images, n_features, random_state))
        parts.append(gather_rows(features, images, channel_axis, masks[-1], n_jobs))
    return Practice(groups, masks, np.concatenate(parts))
