/* The table of activations of a network, filled once per CPU level (activation_rows_loops.h); a part of the table of
 * microkernel.h.
 *
 * Each works on n numbers in place, in whole vectors, so that a number takes the same instructions wherever its row
 * ends. Therefore there must be room for n rounded up to DCONV_ROW_UNIT floats. NaN stays NaN.
 */
#ifndef DCONV_ACTIVATION_ROWS_H
#define DCONV_ACTIVATION_ROWS_H

#include <stddef.h>

typedef struct {
    /* max(x, 0) */
    void (*relu)(float *x, ptrdiff_t n);
    /* e^x, within 2 units in the last place; below -87 and above 88 it is what it is there */
    void (*exponential)(float *x, ptrdiff_t n);
    /* 1 / (1 + e^-x) */
    void (*logistic)(float *x, ptrdiff_t n);
    /* tanh(x), within 2e-7: of small x the relative error is larger */
    void (*tanh)(float *x, ptrdiff_t n);
    /* x / sqrt(1 + x^2) */
    void (*soft_clip)(float *x, ptrdiff_t n);
    /* h[p * row + c] = x[p * n_channels + c] - centre[c], times scale[c] unless `scale` is NULL, and zeros behind them;
     * nothing behind the last row is written. */
    void (*centred)(const float *x, const float *centre, const float *scale, ptrdiff_t n_channels, ptrdiff_t n_pixels,
                    ptrdiff_t row, float *h);
    /* Whether none of n numbers, no more of which are read, is infinite or NaN. */
    int (*finite)(const float *x, ptrdiff_t n);
} dconv_activation_rows;

#endif
