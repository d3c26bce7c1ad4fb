/* The table of row loops of the feature bank, filled once per CPU level (feature_rows_loops.h); a part of the table of
 * microkernel.h.
 *
 * A row is n neighbouring pixels of a plane, float32. A tap k of pixel i is read at x[i + offsets[k]]: dilation and the
 * rows beside this one are all in the offsets. Rows are computed in whole vectors, so that a pixel takes the same
 * instructions wherever its row ends, and no bit depends on how an image is cut into tiles. Therefore every row written
 * must have room for n rounded up to DCONV_ROW_UNIT floats, and as many must be readable at every tap. Rows read and
 * rows written must not overlap, but for `root`.
 */
#ifndef DCONV_FEATURE_ROWS_H
#define DCONV_FEATURE_ROWS_H

#include <stddef.h>

enum {
    DCONV_ROW_UNIT = 32, /* floats; a multiple of what any loop works on together */
    DCONV_LINE_TAPS = 7  /* taps along a line: known to the compiler, the loop over them takes no branch */
};

typedef struct {
    /* out[i] = sum_k weight[k] * x[i + offsets[k]] */
    void (*weighted)(const float *x, const ptrdiff_t *offsets, const float *weight, ptrdiff_t n_taps, float *out,
                     ptrdiff_t n);
    /* out[p * out_step + i] = sum_k weight[k] * a[i + offsets[k]] * b[i + offsets[k]] for all pairs (a, b) of 1 to 3
     * parts: the diagonal, then the upper triangle row by row */
    void (*products)(const float *const *parts, ptrdiff_t n_parts, const ptrdiff_t *offsets, const float *weight,
                     ptrdiff_t n_taps, float *out, ptrdiff_t out_step, ptrdiff_t n);
    /* out[i] = a[i] - b[i] */
    void (*difference)(const float *a, const float *b, float *out, ptrdiff_t n);
    /* out[o][i] = sum_c weight[o, c] * parts[c][i], for 3 parts or 6 */
    void (*mixed)(const float *const *parts, ptrdiff_t n_parts, const float *weight, float *const *out, ptrdiff_t n_out,
                  ptrdiff_t n);
    /* Weighted mean and variance over taps that are themselves means with a variance, of zero if `variance` is NULL;
     * the weights add up to 1:
     *   out_mean[i] = sum_k weight[k] * mean[i + offsets[k]]
     *   out_variance[i] = sum_k weight[k] * (variance[i + offsets[k]] + (mean[i + offsets[k]] - out_mean[i])^2) */
    void (*moments)(const float *mean, const float *variance, const ptrdiff_t *offsets, const float *weight,
                    ptrdiff_t n_taps, float *out_mean, float *out_variance, ptrdiff_t n);
    /* x[i] = sqrt(max(x[i], 0)) */
    void (*root)(float *x, ptrdiff_t n);
    /* out[i] = sqrt(sum_c parts[c][i]^2), for 1 to 3 parts */
    void (*magnitude)(const float *const *parts, ptrdiff_t n_parts, float *out, ptrdiff_t n);
    /* Eigenvalues, descending, of symmetric matrices of `size` 1 to 3. parts: the diagonal, then the upper triangle row
     * by row. */
    void (*eigenvalues)(const float *const *parts, ptrdiff_t size, float *const *out, ptrdiff_t n);
    /* Largest and smallest of the taps, minus x[i]. */
    void (*extrema)(const float *x, const ptrdiff_t *offsets, ptrdiff_t n_taps, float *out_max, float *out_min,
                    ptrdiff_t n);
    /* out: max, min and mean over directions o of sum_c weight[o, c] * sum_k parts[o, c][i + offsets[o, k]]; a single
     * part has the weight 1 */
    void (*lines)(const float *const *parts, ptrdiff_t n_parts, const ptrdiff_t *offsets, const float *weight,
                  ptrdiff_t n_directions, float *const *out, ptrdiff_t n);
    /* out[i] = 1 where a[i] is larger than b[i], by more than rounding explains where both were smoothed; else 0 */
    void (*above)(const float *a, const float *b, float *out, ptrdiff_t n);
    /* out[i] = 1 where marks[i] and marks[i + 1] differ, else 0; marks are 0 or 1 */
    void (*changes)(const float *marks, float *out, ptrdiff_t n);
    /* out[i] = weight * sum_{k < window} marks[i + k]; marks are 0 or 1, so every sum is exact. Exactly n are written. */
    void (*window_sums)(const float *marks, ptrdiff_t window, float weight, float *out, ptrdiff_t n);
    /* out[i * out_step + f] = planes[f * plane_step + i]; here exactly n pixels are read and written. */
    void (*interleave)(const float *planes, ptrdiff_t plane_step, ptrdiff_t n_planes, float *out, ptrdiff_t out_step,
                       ptrdiff_t n);
} dconv_feature_rows;

#endif
