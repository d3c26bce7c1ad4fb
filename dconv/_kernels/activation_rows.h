/* The table of what a network does beside its layers, filled once per CPU level (activation_rows_loops.h); a part of
 * the table of microkernel.h.
 *
 * Activations work on n numbers in place, in whole vectors, so that a number takes the same instructions wherever its
 * row ends. Therefore there must be room for n rounded up to DCONV_ROW_UNIT floats. NaN stays NaN.
 */
#ifndef DCONV_ACTIVATION_ROWS_H
#define DCONV_ACTIVATION_ROWS_H

#include <stddef.h>

enum { DCONV_RUN_UNIT = 16 }; /* floats; a multiple of any vector */

/* What the outputs of a pixel have in common and a normalisation takes out, before it can be too large or too small for
 * a float: nothing; the largest of them and of 0, which is one more output, the first; what the largest is below -20,
 * where logistic(x) is e^x to the last bit. */
enum { DCONV_NOTHING, DCONV_SOFTMAX, DCONV_ODDS };

/* Ask for n numbers, which need not exist, in the L1 cache. */
static inline void dconv_fetch(const float *x, ptrdiff_t n) {
#if defined(__GNUC__)
    for (ptrdiff_t i = 0; i < n; i += 16) __builtin_prefetch(x + i, 0, 3);
#else
    (void)x, (void)n;
#endif
}

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
    /* In double, of pixels of so many channels, to rows of `row` numbers that end with zeros. With `squares`, which have
     * no scale, those of each pixel follow it. */
    void (*prepared)(const float *x, const double *centre, const double *scale, int squares, ptrdiff_t n_channels,
                     ptrdiff_t n_pixels, double *h, ptrdiff_t row);
    /* x becomes its square, of n numbers and no more */
    void (*squared)(double *x, ptrdiff_t n);
    /* planes[f * step + p] = h[p * n_outputs + f] less what is in `common`; with DCONV_SOFTMAX a plane later. Pixels are
     * rounded up to whole RUN_UNITs, zeros at the end; step is at least so many. With DCONV_ODDS the classifier itself
     * has zeros where the largest is below `floor`, and such a pixel prefers nothing. */
    void (*planes_f32)(const float *h, ptrdiff_t n_outputs, ptrdiff_t n_pixels, int common, double floor, float *planes,
                       ptrdiff_t step);
    void (*planes_f64)(const double *h, ptrdiff_t n_outputs, ptrdiff_t n_pixels, int common, double floor, float *planes,
                       ptrdiff_t step);
    /* Each number divided by the sum of its pixel's; where that is zero, all become equal. Pixels as above. */
    void (*normalised)(float *planes, ptrdiff_t n_outputs, ptrdiff_t n_pixels, ptrdiff_t step);
    /* Whether none of n numbers, no more of which are read, is infinite or NaN. */
    int (*finite)(const float *x, ptrdiff_t n);
} dconv_activation_rows;

#endif
