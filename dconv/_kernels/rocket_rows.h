/* The table of row loops of MiniRocket, filled once per CPU level (rocket_rows_loops.h); a part of the table of
 * microkernel.h.
 *
 * A response of a kernel is a sum of terms, each a row of floats: for every channel that it looks at, -1 times all nine
 * taps, which all kernels share, and 3 times each of the three taps whose weight is 2 and not -1. So no kernel
 * multiplies, and every level rounds alike. The first is -infinity where there is no response to be counted: the
 * sum is then above no threshold. Loops work on whole vectors: rows have room for n floats rounded up to DCONV_ROW_UNIT
 * (feature_rows.h), and up to there the first of each channel is -infinity.
 */
#ifndef DCONV_ROCKET_ROWS_H
#define DCONV_ROCKET_ROWS_H

#include <stddef.h>
#include <stdint.h>

enum { DCONV_ROCKET_TERMS = 4 }; /* of a channel */

typedef struct {
    /* out[i] = (terms[0][i] + ... + terms[3][i]) + (terms[4][i] + ... + terms[7][i]) + ..., four for each channel */
    void (*sum)(const float *const *terms, ptrdiff_t n_channels, float *out, ptrdiff_t n);
    /* Count the responses above each threshold. A threshold has a count for each lane of a vector, one threshold after
     * another; they are negative, as comparing gives -1. `scratch` has room for a row. */
    void (*count)(const float *const *terms, ptrdiff_t n_channels, const float *thresholds, ptrdiff_t n_thresholds,
                  int32_t *counts, float *scratch, ptrdiff_t n);
    /* out[j] = what all lanes of threshold j have counted / n_responses */
    void (*share)(const int32_t *counts, ptrdiff_t n_thresholds, ptrdiff_t n_responses, float *out);
    /* out[j] = what one lane of threshold j has counted / n_responses */
    void (*share_lane)(const int32_t *counts, ptrdiff_t lane, ptrdiff_t n_thresholds, ptrdiff_t n_responses, float *out);
} dconv_rocket_rows;

#endif
