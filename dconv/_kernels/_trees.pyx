"""Sums of leaf values over the trees of an ensemble, as tree_rows.h defines them.

    sums[p, columns[t] + j] += values[leaf of pixel p in tree t, j]

Loop order: blocks of pixels, in a block one tree after another, for a tree all groups of pixels of the block. So a tail
is read from memory once for all pixels of a block, while the tree before it is walked; heads are small, and without tails
blocks are, too, and their keys stay in the L2 cache. All of it runs on the calling thread; callers work on several tiles at once.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t

import numpy as np

from dconv._kernels._dispatch cimport dconv_tree_node, dconv_trees, get_level

cdef extern from "tree_rows.h":
    enum:
        DCONV_TREE_GROUP
        DCONV_TREE_EXITS
        DCONV_TREE_SET
        DCONV_NO_CATEGORY
        DCONV_AT_LEAF
        DCONV_MISSING_RIGHT
        DCONV_MISSING_LEFT
        DCONV_CATEGORICAL

GROUP = DCONV_TREE_GROUP  # pixels
EXITS = DCONV_TREE_EXITS  # in a word
SET_WORDS = DCONV_TREE_SET
NO_CATEGORY = DCONV_NO_CATEGORY
AT_LEAF = DCONV_AT_LEAF
MISSING_RIGHT = DCONV_MISSING_RIGHT
MISSING_LEFT = DCONV_MISSING_LEFT
CATEGORICAL = DCONV_CATEGORICAL


cdef class Trees:
    """The arrays of tree_rows.h, kept alive together with the struct that points to them; never changed after."""

    cdef dconv_trees trees
    cdef tuple arguments
    cdef readonly Py_ssize_t n_sums, n_nodes

    def __init__(
        self,
        Py_ssize_t n_features,
        Py_ssize_t feature_bits,
        Py_ssize_t n_sums,
        const int32_t[::1] words,
        const int32_t[::1] kinds,
        const int32_t[::1] feature,
        const int32_t[::1] right_from,
        const int32_t[::1] kept,
        const int32_t[::1] entries,
        const int32_t[:, ::1] nodes,  # (n_nodes, 2): threshold, link
        const int32_t[::1] node_starts,
        const uint8_t[::1] node_kinds,
        const uint32_t[:, ::1] sets,
        const int32_t[::1] categorical,
        const int32_t[::1] category_starts,
        const int32_t[::1] category_keys,
        const int32_t[::1] category_codes,
        const float[:, ::1] values,
        const int32_t[::1] columns,
    ):
        arrays = [words, kinds, feature, right_from, kept, entries, nodes, node_starts, node_kinds, sets, categorical,
                  category_starts, category_keys, category_codes, values, columns]
        self.arguments = (n_features, feature_bits, n_sums, *map(np.asarray, arrays))
        self.trees.n_trees, self.trees.n_features = columns.shape[0], n_features
        self.trees.words, self.trees.kinds = &words[0], &kinds[0]
        self.trees.feature, self.trees.right_from, self.trees.kept = &feature[0], &right_from[0], &kept[0]
        self.trees.entries, self.trees.node_starts = &entries[0], &node_starts[0]
        self.trees.nodes, self.trees.node_kinds = <const dconv_tree_node *>&nodes[0, 0], &node_kinds[0]
        self.trees.feature_bits, self.trees.sets = feature_bits, &sets[0, 0]
        self.trees.n_categorical, self.trees.categorical = categorical.shape[0], &categorical[0]
        self.trees.category_starts = &category_starts[0]
        self.trees.category_keys, self.trees.category_codes = &category_keys[0], &category_codes[0]
        self.trees.values, self.trees.width = &values[0, 0], values.shape[1]
        self.trees.columns, self.trees.n_sums = &columns[0], n_sums
        self.n_sums, self.n_nodes = n_sums, nodes.shape[0]

    def __reduce__(self):
        return Trees, self.arguments

    def add(
        self,
        const float[:, ::1] rows,  # IN (n_pixels, n_features)
        double[:, ::1] sums,  # OUT (n_pixels, n_sums)
        int32_t[:, ::1] keys,  # scratch (groups in a block, (n_features + 1) * GROUP)
        str level=None,
    ):
        """Add the values of every pixel's leaves to `sums`."""
        add = get_level(level).trees.add  # a pointer
        with nogil:
            add(&self.trees, &rows[0, 0], rows.shape[0], keys.shape[0], &keys[0, 0], &sums[0, 0])
