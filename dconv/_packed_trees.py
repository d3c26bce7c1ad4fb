"""Trees laid out for the kernel as tree_rows.h wants them: heads that work on many pixels at once, tails to walk in."""

from __future__ import annotations

import functools
import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from dconv._fitted_trees import FittedTrees, SymmetricTree, Tree
from dconv._kernels import _dispatch, _trees
from dconv._predictor import NotCompilable

# A head spares its pixels the first steps of the walk, which all of them take, at a cost that grows with its tests.
# In ns for a pixel and a tree, of 100 random and extra trees that fit in the cache, of depth 25 and 40: 27 and 37
# without a head, 20 and 29 with 16 exits, 17 and 24 with 64, 18 and 26 with 128. A whole tree of 64 leaves takes 5.
# With the masks of AVX-512 a test costs less: 100 trees of 156 leaves take 9.9 with heads of 64 exits and 8.1 as
# heads alone (11.0 with AVX2); for trees of 4,000 and 12,000 nodes the size of the head makes no difference.
MAX_WHOLE = 64
MAX_WHOLE_OF_MASKS = 256
HEAD_EXITS = 64
_KIND_ORDER = {_trees.MISSING_LEFT: 0, _trees.MISSING_RIGHT: 1, _trees.CATEGORICAL: 2}


def round_down(threshold: np.ndarray) -> np.ndarray:
    """Return the largest float32 numbers that are not above `threshold`: the same float32 numbers lie above them."""
    with np.errstate(over="ignore"):
        near = threshold.astype(np.float32)
        return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def as_keys(values: np.ndarray) -> np.ndarray:
    """Return the keys of float32 numbers that are not NaN: int32 in the same order."""
    bits = values.astype(np.float32).view(np.int32)
    magnitude = bits & np.int32(0x7FFFFFFF)
    return np.where(bits < 0, -magnitude, magnitude)


@dataclass(frozen=True)
class Head:
    """The nodes of a tree nearest its root: exits from left to right, and tests with the exits left of them."""

    exits: list[int]
    tests: list[tuple[int, int, int]]  # node, first exit of its left subtree, first behind them


def make_head(tree: Tree, max_whole: int, n_exits: int) -> Head:
    """Return all of a tree of at most `max_whole` leaves, else its most visited nodes."""
    leaf, left, right, count = tree.is_leaf, tree.left.tolist(), tree.right.tolist(), tree.count.tolist()
    whole = leaf.sum() <= max_whole
    is_leaf = leaf.tolist()
    opened = {node for node in range(len(is_leaf)) if not is_leaf[node]} if whole else set()
    queue = [] if whole else [(-count[0], 0)]
    while queue and len(opened) < n_exits - 1:
        _, node = heapq.heappop(queue)
        opened.add(node)
        for child in (left[node], right[node]):
            if not is_leaf[child]:
                heapq.heappush(queue, (-count[child], child))
    head = Head([], [])
    pending: list[tuple[int, int]] = [(0, -1)]  # node, its first exit if its left subtree is done, else -1
    while pending:
        node, first = pending.pop()
        if node not in opened:
            head.exits.append(node)
        elif first < 0:
            pending += [(right[node], -1), (node, len(head.exits)), (left[node], -1)]
        else:
            head.tests.append((node, first, len(head.exits)))
    return head


def preorder(tree: Tree) -> np.ndarray:
    """Return the nodes of a tree in the order in which the left child of a node follows it."""
    nodes = np.arange(len(tree.left))
    if np.array_equal(tree.left[~tree.is_leaf], nodes[~tree.is_leaf] + 1):
        return nodes  # as trees without a limit to their leaves grow
    left, right = tree.left.tolist(), tree.right.tolist()
    order, pending = [], [0]
    while pending:
        node = pending.pop()
        order.append(node)
        if left[node] >= 0:
            pending += [right[node], left[node]]
    return np.array(order)


@functools.cache
def symmetric_tests(n_levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tests of a symmetric tree: the level, word and kept exits of each.

    A failed test clears the exits whose number lacks its bit. Of those left after all tests the lowest has no bit but
    those of failed tests.
    """
    n_exits = 1 << n_levels
    exits = np.arange(max(n_exits, _trees.EXITS)).reshape(-1, _trees.EXITS)
    bits = np.int64(1) << np.arange(_trees.EXITS)
    rows = [
        (level, word, kept)
        for level in range(n_levels)
        for word, kept in enumerate(np.where(exits >> level & 1, bits, 0).sum(axis=1).tolist())
        if kept != 0xFFFFFFFF
    ]
    levels, words, masks = np.array(rows, np.int64).reshape(-1, 3).T
    return levels, words, masks


class _Layout:
    """The arrays of the kernel while they grow, tree by tree."""

    def __init__(self, fitted: FittedTrees, max_whole: int, head_exits: int) -> None:
        self.feature_bits = fitted.n_features.bit_length()
        self.n_features = fitted.n_features
        self.words, self.node_starts = [0], [0]
        self.n_nodes = self.n_values = 0
        self.tests: list[np.ndarray] = []  # (n, 5): word, place of the kind, feature, threshold, exits that are kept
        self.entries: list[np.ndarray] = []
        self.head_values: list[np.ndarray] = []
        self.nodes: list[np.ndarray] = []
        self.node_kinds: list[np.ndarray] = []
        self.tail_values: list[np.ndarray] = []
        self.sets: list[np.ndarray] = [np.zeros(_trees.SET_WORDS, np.uint32)]
        for tree in fitted.trees:
            if isinstance(tree, SymmetricTree):
                self.add_symmetric(tree)
            else:
                self.add(tree, make_head(tree, max_whole, head_exits))

    def add(self, tree: Tree, head: Head) -> None:
        thresholds = as_keys(round_down(tree.threshold))
        for node, bits in tree.right_sets.items():
            thresholds[node] = len(self.sets)
            self.sets.append(bits)
        first, n_words = self.words[-1], -(-len(head.exits) // _trees.EXITS)
        self.words.append(first + n_words)
        self.add_tests(tree, head, thresholds)
        exits = np.array(head.exits)
        entries = np.full(n_words * _trees.EXITS, _trees.AT_LEAF)
        values = np.zeros((n_words * _trees.EXITS, tree.values.shape[1]))
        values[: len(exits)] = tree.values[exits]  # of no use where an exit is no leaf
        goes_on = ~tree.is_leaf[exits]
        if goes_on.any():
            entries[: len(exits)][goes_on] = self.add_tail(tree, thresholds)[exits[goes_on]]
        self.node_starts.append(self.n_nodes)
        self.entries.append(entries)
        self.head_values.append(values)

    def add_symmetric(self, tree: SymmetricTree) -> None:
        """Add a tree as a head without a tail, with one test of each level for a word and not one of each node."""
        n_exits, width = tree.values.shape
        n_words = -(-n_exits // _trees.EXITS)
        levels, words, kept = symmetric_tests(len(tree.feature))
        kinds = np.array([_KIND_ORDER[int(kind)] for kind in tree.kind], np.int64)
        right_from = as_keys(round_down(tree.threshold)).astype(np.int64) + 1
        tests = [self.words[-1] + words, kinds[levels], tree.feature[levels], right_from[levels], kept]
        self.tests.append(np.stack(tests, axis=1).astype(np.int64))
        values = np.zeros((n_words * _trees.EXITS, width))
        values[:n_exits] = tree.values
        self.words.append(self.words[-1] + n_words)
        self.node_starts.append(self.n_nodes)
        self.entries.append(np.full(n_words * _trees.EXITS, _trees.AT_LEAF))
        self.head_values.append(values)

    def add_tests(self, tree: Tree, head: Head, thresholds: np.ndarray) -> None:
        first_word, exits = self.words[-2], _trees.EXITS
        rows = []
        for node, begin, end in head.tests:
            for word in range(begin // exits, (end - 1) // exits + 1):
                low, high = max(begin - word * exits, 0), min(end - word * exits, exits)
                kept = ~((1 << high) - (1 << low)) & 0xFFFFFFFF
                rows.append((first_word + word, _KIND_ORDER[int(tree.kind[node])], node, kept))
        words, kinds, nodes, masks = np.array(rows, np.int64).reshape(-1, 4).T
        right_from = thresholds[nodes] + (tree.kind[nodes] != _trees.CATEGORICAL)
        self.tests.append(np.stack([words, kinds, tree.feature[nodes], right_from, masks], axis=1))

    def add_tail(self, tree: Tree, thresholds: np.ndarray) -> np.ndarray:
        """Add all nodes of a tree, which costs no time where those of the head are not visited; return their places."""
        order, leaf = preorder(tree), tree.is_leaf
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        jump = np.where(leaf, 0, place[tree.right] - place) - 1
        if jump.max() >> (31 - self.feature_bits):
            raise NotCompilable(f"a tree of {len(order)} nodes on {self.n_features} features is too large")
        link = jump << self.feature_bits | np.where(leaf, self.n_features, tree.feature)
        # The leaves of a deep tree are pure, most of them: few different values, which stay in the cache.
        values, place_of_value = np.unique(tree.values[leaf], axis=0, return_inverse=True)
        leaf_places = np.zeros(len(order), np.int64)  # after the values of heads, which are not counted yet
        leaf_places[leaf] = self.n_values + place_of_value.ravel()
        nodes = np.stack([np.where(leaf, leaf_places, thresholds), link], axis=1)
        self.nodes.append(nodes[order])
        self.node_kinds.append(np.where(leaf, _trees.MISSING_RIGHT, tree.kind)[order])
        self.tail_values.append(values)
        self.n_values += len(values)
        first, self.n_nodes = self.n_nodes, self.n_nodes + len(order)
        return first + place


def pack(fitted: FittedTrees, max_whole: int | None = None, head_exits: int = HEAD_EXITS) -> _trees.Trees:
    """Return the trees of a classifier as the kernel wants them.

    Parameters
    ----------
    max_whole : int or None, default=None
        Trees of at most so many leaves are a head without a tail; None is what suits the active CPU level.
    head_exits : int
        Exits of the heads of other trees.
    """
    if max_whole is None:
        max_whole = MAX_WHOLE_OF_MASKS if _dispatch.active_level() == "avx512" else MAX_WHOLE
    layout = _Layout(fitted, max_whole, head_exits)
    n_words = layout.words[-1]
    tests = np.concatenate([*layout.tests, np.zeros((0, 5), np.int64)])
    tests = tests[np.lexsort((tests[:, 3], tests[:, 2], tests[:, 1], tests[:, 0]))]
    kinds = np.searchsorted(3 * tests[:, 0] + tests[:, 1], np.arange(3 * n_words + 1))
    leaves_before = n_words * _trees.EXITS
    nodes = np.concatenate([*layout.nodes, np.zeros((0, 2), np.int64)])
    nodes[:, 0] += np.where(nodes[:, 1] >> layout.feature_bits == -1, leaves_before, 0)
    values = np.concatenate([*layout.head_values, *layout.tail_values])
    width = values.shape[1]
    if width > 1:  # the kernel adds four at once
        values = np.pad(values, ((0, 0), (0, -width % 4)))
    categorical = sorted(fitted.categories)
    category_keys, category_codes = [], []
    for feature in categorical:
        values64 = fitted.categories[feature].astype(np.float64)
        codes = np.flatnonzero(values64 == values64.astype(np.float32))  # no pixel has another value
        category_codes.append(codes)
        category_keys.append(as_keys(values64[codes]))
    return _trees.Trees(
        fitted.n_features,
        layout.feature_bits,
        values.shape[1] if width > 1 else len(fitted.baseline),
        words=_int32(layout.words),
        kinds=_int32(kinds),
        feature=_int32(tests[:, 2]),
        right_from=_int32(tests[:, 3]),
        kept=tests[:, 4].astype(np.uint32).view(np.int32),
        entries=_int32(np.concatenate(layout.entries)),
        nodes=_int32(nodes),
        node_starts=_int32(layout.node_starts),
        node_kinds=np.concatenate([*layout.node_kinds, np.zeros(0)]).astype(np.uint8),
        sets=np.array(layout.sets, np.uint32),
        categorical=_int32(categorical),
        category_starts=_int32(np.cumsum([0, *map(len, category_keys)])),
        category_keys=_int32(np.concatenate([*category_keys, np.zeros(0)])),
        category_codes=_int32(np.concatenate([*category_codes, np.zeros(0)])),
        values=np.ascontiguousarray(values, np.float32),
        columns=_int32([tree.column for tree in fitted.trees]),
    )


def _int32(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, np.int32)
