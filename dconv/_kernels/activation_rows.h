/* The table of activations of a network, filled once per CPU level (activation_rows_loops.h); a part of the table of
 * microkernel.h.
 *
 * Each works on n numbers in place, in whole vectors, so that a number takes the same instructions wherever its row
 * ends. Therefore there must be room for n rounded up to DCONV_ROW_UNIT floats. NaN stays NaN.
 */
#ifndef DCONV_ACTIVATION_ROWS_H
#define DCONV_ACTIVATION_ROWS_H

#include <stddef.h>

enum { DCONV_RUN_UNIT = 16 }; /* floats; a multiple of any vector */

typedef struct {
    /* e^x, within 2 units in the last place; below -87 and above 88 it is what it is there */
    void (*exponential)(float *x, ptrdiff_t n);
    /* 1 / (1 + e^-x) */
    void (*logistic)(float *x, ptrdiff_t n);
    /* tanh(x), within 2e-7: of small x the relative error is larger */
    void (*tanh)(float *x, ptrdiff_t n);
    /* x becomes 1 / (1 + e^-x), and `other`, which has as many numbers, 1 / (1 + e^x) */
    void (*pair)(float *x, float *other, ptrdiff_t n);
    /* h[i] = x[i] - centre[i % period], of n numbers and no more. The period is a multiple of DCONV_RUN_UNIT, or n is not
     * larger; the table has room for whole ones. */
    void (*centred)(const float *x, const float *centre, ptrdiff_t period, ptrdiff_t n, float *h);
    /* The same times scale[i % period], clipped: v / sqrt(1 + v^2). */
    void (*clipped)(const float *x, const float *centre, const float *scale, ptrdiff_t period, ptrdiff_t n, float *h);
    /* Whether none of n numbers, no more of which are read, is infinite or NaN. */
    int (*finite)(const float *x, ptrdiff_t n);
} dconv_activation_rows;

#endif
