/* The table of innermost loops of the fully connected CRF, filled once per CPU level (crf_rows_loops.h); a part of the
 * table of microkernel.h.
 *
 * Pixels come in groups of DCONV_CRF_GROUP neighbours of one image row. The last group of a row may hold fewer; the
 * weights of what it lacks are 0. A pixel has one entry for each corner of its simplex in each lattice: an id, which is
 * the row of the tile's table that stands for this corner, and a weight. Both are stored as (groups, entries, GROUP).
 */
#ifndef DCONV_CRF_ROWS_H
#define DCONV_CRF_ROWS_H

#include <stddef.h>
#include <stdint.h>

enum {
    DCONV_CRF_GROUP = 8,
    DCONV_CRF_STAGE = 64, /* pixels that a pass takes through one stage before the next */
    DCONV_CRF_MAX_FEATURES = 30, /* of a lattice: bounds what lives on the stack */
    DCONV_CRF_REMAINDERS = 32    /* that keys can tell: more than features, and a power of 2 */
};

/* One run of a mean-field pass: `n_pixels` neighbours of an image row, of which the first begins a group. */
typedef struct {
    const uint16_t *ids;
    const float *weights;
    ptrdiff_t n_entries;
    ptrdiff_t n_pixels;
    ptrdiff_t n_classes;
    ptrdiff_t row;        /* floats in a row of `values` and of `sums` */
    const float *unary;   /* log2 of what the classifier says, `unary_step` floats a pixel, readable up to `row` */
    ptrdiff_t unary_step;
    ptrdiff_t unary_ahead; /* floats from the unary of a pixel to that of one passed soon, which is fetched in advance */
    const float *values;  /* IN: filtered messages of the tile's lattice rows; NULL: softmax of the unary alone */
    float *sums;          /* INOUT: the new distribution is splat here; NULL: not wanted */
    float *q;             /* OUT: the new distribution, n_classes floats a pixel; NULL: not wanted. May be `unary`. */
    float *change;        /* INOUT: largest change of `q` so far; NULL: not wanted, and what `q` held is not read */
    float *scratch;       /* DCONV_CRF_STAGE rows, and DCONV_CRF_GROUP floats for each entry */
} dconv_crf_run;

/* The corners that the points of one tile have in one lattice, numbered from 1, in a table of 2^bits slots with open
 * addressing. Its slots of 2 bytes fit the L1 cache. */
typedef struct {
    uint16_t *slots; /* numbers, 0 where it is free */
    uint64_t *keys;  /* by number; that of number 0 is no key */
    float *sums;     /* likewise: of the weights of each corner */
    ptrdiff_t n;
    int bits;
} dconv_crf_corners;

/* Features of points, and what their keys are made of; see crf_embed_loops.h. */
typedef struct {
    ptrdiff_t d;
    const float *planes; /* scaled features, one plane of GROUP * n_groups points each; what a group lacks is any number */
    const float *origin; /* d + 1 elevated coordinates to add, */
    uint64_t base;       /* and what to add to keys */
    const uint64_t *strides; /* d + 1 */
    ptrdiff_t n_points;
    ptrdiff_t first_row; /* to add to ids */
} dconv_crf_points;

typedef struct {
    ptrdiff_t width; /* rows of all classes are a multiple of so many floats */
    /* Ids and weights of points, the entries of groups being `step` apart; new corners are added to `corners`. */
    void (*embed)(const dconv_crf_points *points, dconv_crf_corners *corners, uint16_t *ids, float *weights,
                  ptrdiff_t step);
    /* Make the table of no corners. */
    void (*clear)(dconv_crf_corners *corners);
    /* Multiply `n_entries` of each group by factor / sqrt(slice_factor * their sum of weight * value + 1e-20); groups are
     * `step` apart. */
    void (*normalize)(float *weights, const uint16_t *ids, ptrdiff_t n_groups, ptrdiff_t n_entries, ptrdiff_t step,
                      const float *values, float slice_factor, float factor);
    /* out[i] = log2(max(x[i], smallest)) */
    void (*log2)(const float *x, float smallest, float *out, ptrdiff_t n);
    /* The pass over one run, by what a row holds:
     * two: Q1 - Q0, and the unary u1 - u0;
     * few: Qi - Q0 for i from 1 in rows of 4, and the unary ui - u0, where there is no class i -1e30;
     * all: Qi for all i, zeros behind them. */
    void (*pass_two)(const dconv_crf_run *run);
    void (*pass_few)(const dconv_crf_run *run);
    void (*pass_all)(const dconv_crf_run *run);
    /* out[i] = values[vertices[i]], rows of `row` floats */
    void (*fetch)(const float *values, const int32_t *vertices, ptrdiff_t n, ptrdiff_t row, float *out);
    /* values[v] = sum of those rows of `sums` that `list` names for it, vertex after vertex; the last of each as ~row */
    void (*gather)(const float *sums, const int32_t *list, ptrdiff_t length, ptrdiff_t row, float *values);
    /* v + 0.5 (before + after) along chains of vertices, in place; the last of a chain is stored as ~vertex */
    void (*blur)(const int32_t *chains, ptrdiff_t n, ptrdiff_t row, float *values);
    /* values[v] = sum_m values[v, m] * matrix[m], for `n` rows; matrix (n_classes, row) */
    void (*mix)(const float *matrix, ptrdiff_t n_classes, ptrdiff_t row, ptrdiff_t n, float *values, float *scratch);
} dconv_crf_rows;

#endif
