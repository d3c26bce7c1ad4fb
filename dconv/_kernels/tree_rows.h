/* Sums over the trees of an ensemble for many pixels, filled once per CPU level (tree_rows_loops.h); a part of the table
 * of microkernel.h.
 *
 * Everything a tree compares is an integer. The key of a float is its bits, as a signed integer that is in the order of
 * the floats; so all levels agree bitwise, and a step of a walk costs no trip through the floating-point unit:
 *
 *     key(-inf) < key(x) < key(inf) < KEY_MISSING = key(NaN), and key(-0.0) = key(0.0)
 *
 * A tree is evaluated in two parts, the head for all pixels of a group side by side, the tail for one after another.
 *
 * Head: the tests nearest the root, at most some words of 32 exits. An exit is a leaf, or a node of the tail; exits are
 * numbered from left to right. A pixel starts with all bits set; every test that it fails (which sends it right)
 * clears the exits left of the test; the lowest bit that is left is its exit (Lucchese et al., QuickScorer,
 * doi:10.1145/2766462.2767733; there one pixel after another, here a pixel is a lane of a vector).
 *
 * Tail: what lies below the head, as nodes of 8 bytes; the left child of a node is the next node. Several pixels walk
 * at the same time, without a branch on what they find: a leaf is a node from which every step leads to itself.
 */
#ifndef DCONV_TREE_ROWS_H
#define DCONV_TREE_ROWS_H

#include <stddef.h>
#include <stdint.h>

enum {
    DCONV_TREE_GROUP = 64, /* pixels in a group */
    DCONV_TREE_EXITS = 32, /* exits in a word */
    DCONV_TREE_SET = 8,    /* words of a set of categories */
    DCONV_NO_CATEGORY = 255, /* of missing and of unknown values */
    DCONV_AT_LEAF = -1
};

/* What a node does: numbers above the threshold go right, and missing ones go right or left; or a set of categories
 * goes right, which is how the threshold is read then. */
enum { DCONV_MISSING_RIGHT, DCONV_MISSING_LEFT, DCONV_CATEGORICAL };

typedef struct {
    int32_t threshold; /* a key, or the number of a set; of a leaf: where its values are */
    int32_t link;      /* (nodes to the right child - 1) << feature_bits | feature; -1 << feature_bits | n_features
                        * for a leaf: at the place n_features every pixel has KEY_MISSING */
} dconv_tree_node;

typedef struct {
    ptrdiff_t n_trees, n_features;
    const int32_t *words; /* (n_trees + 1) tree t has the words words[t] ... words[t + 1] - 1 */
    const int32_t *kinds; /* (3 * n_words + 1) where the tests of each kind of each word begin: DCONV_MISSING_LEFT,
                           * DCONV_MISSING_RIGHT, DCONV_CATEGORICAL */
    const int32_t *feature;       /* (n_tests) */
    const int32_t *right_from;    /* (n_tests) the smallest key that goes right, so the threshold + 1; or a set's number */
    const int32_t *kept;          /* (n_tests) the exits of the word that a failed test leaves: not those to its left */
    const int32_t *entries;       /* (32 * n_words) the node at which the walk from an exit begins, or DCONV_AT_LEAF */
    const dconv_tree_node *nodes; /* (n_nodes) of the tails of all trees */
    const int32_t *node_starts;   /* (n_trees + 1) where those of each tree begin */
    const uint8_t *node_kinds;    /* (n_nodes) read only where there are missing values or categories */
    ptrdiff_t feature_bits;
    const uint32_t *sets; /* (n_sets, DCONV_TREE_SET) bit c: category c goes right */
    /* Features whose values are categories: those of feature categorical[c] have the ascending keys
     * category_keys[category_starts[c]] and so on, and the codes beside them. Other values are DCONV_NO_CATEGORY. */
    ptrdiff_t n_categorical;
    const int32_t *categorical, *category_starts, *category_keys, *category_codes;
    /* Values of leaf i: values[i * width]. Leaves come in the order of exits, those of tails behind them. */
    const float *values;
    ptrdiff_t width;        /* 1, or a multiple of 4 */
    const int32_t *columns; /* (n_trees) which sums the values of tree t are added to, from the first */
    ptrdiff_t n_sums;
} dconv_trees;

typedef struct {
    /* sums[p * n_sums + columns[t] + j] += values of the leaf of pixel p in tree t, for all t in order.
     * Rows are (n_pixels, n_features). Tree after tree passes over groups_in_block groups of pixels; `keys` has room for
     * so many times (n_features + 1) * DCONV_TREE_GROUP. */
    void (*add)(const dconv_trees *trees, const float *rows, ptrdiff_t n_pixels, ptrdiff_t groups_in_block,
                int32_t *keys, double *sums);
} dconv_tree_rows;

#endif
