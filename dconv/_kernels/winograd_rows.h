/* The table of the transforms of Winograd's minimal filtering F(2x2, 3x3), filled once per CPU level
 * (winograd_rows_loops.h); a part of the table of microkernel.h.
 *
 * Two neighbouring outputs of a kernel of 3 taps g see 4 samples d, and need 4 products instead of 6:
 *
 *     m0 = (d0 - d2) g0                     m1 = (d1 + d2) (g0 + g1 + g2) / 2
 *     m3 = (d1 - d3) g2                     m2 = (d2 - d1) (g0 - g1 + g2) / 2
 *     out0 = m0 + m1 + m2                   out1 = m1 - m2 - m3
 *
 * and so for both axes 16 instead of 36. out0 is made of d0, d1, d2 alone, and out1 of d1, d2, d3: no output sees, by a
 * bit or a NaN, a sample that its kernel does not cover.
 */
#ifndef DCONV_WINOGRAD_ROWS_H
#define DCONV_WINOGRAD_ROWS_H

#include <stddef.h>

enum { DCONV_WINOGRAD_UNIT = 16 }; /* floats: channels and filters are multiples of the widest vector of all levels */

typedef struct {
    /* v[i * v_step + c], i = 0 ... 15: the factors of 4 x 4 samples, each of whose channels `samples` points to. */
    void (*forward)(const float *const *samples, ptrdiff_t n_channels, float *v, ptrdiff_t v_step);
    /* out[o][f], o = 0 ... 3: the 2 x 2 outputs of the products m[i * m_step + f], plus bias[f] (may be NULL), what is
     * negative as 0 if `relu`. */
    void (*inverse)(const float *m, ptrdiff_t m_step, const float *bias, ptrdiff_t n_filters, float *const *out, int relu);
} dconv_winograd_rows;

#endif
