/* The table of innermost loops, filled once per CPU level (microkernel.c) and chosen at import (_dispatch.pyx).
 *
 * Letters: K taps (a tap is one kernel position of one input channel), F filters, L lanes of a vector.
 * A tap k of the output pixel p is read at x[p * x_step + offsets[k]]: dilation, borders, strides and channels are
 * all in the offsets, and the loops know of none of them. Every output adds its taps in the order k = 0 ... K - 1,
 * then its bias; so neither tiles nor threads nor the choice of loop can change a bit of it.
 * Taps come in runs of n_run (K is a multiple of it), each `apart` pixels from the one before in its run:
 * offsets[k + 1] = offsets[k] + apart * x_step. Where nothing is known of them n_run is 1.
 */
#ifndef DCONV_MICROKERNEL_H
#define DCONV_MICROKERNEL_H

#include "activation_rows.h"
#include "crf_rows.h"
#include "feature_rows.h"
#include "rocket_rows.h"
#include "tree_rows.h"
#include "winograd_rows.h"

#include <stddef.h>

#if defined(_MSC_VER) && !defined(__clang__)
#define restrict __restrict
#endif

/* How results are written: what is negative as 0; and past the caches, which is done where a row of them is whole cache
 * lines and the level can, and is for large results only. */
enum { DCONV_RELU = 1, DCONV_STREAM = 2 };

/* Fewer vectors than these shared_row computes by conv_row, one result after another. */
enum { DCONV_SHARED_TILE = 8 };

#define DCONV_DECLARE_LOOPS(T, SUFFIX)                                                                               \
    /* Filters in a packed block: the widest tile holds this many beside each other. */                              \
    ptrdiff_t block_##SUFFIX;                                                                                        \
    /* Whether shared_row is fast: whether the numbers of a vector can be permuted at once. */                       \
    int shares_##SUFFIX;                                                                                             \
    /* Filters in a vector: what is left of F after whole blocks is padded to a multiple of this. */                 \
    ptrdiff_t lanes_##SUFFIX;                                                                                        \
    /* out[p * out_step + f] = bias[f] + sum_k weight[k, f] * x[p * x_step + offsets[k]]                             \
     * weight is packed: blocks of filters one after another, each [K][block], the last [K][lanes] if that is        \
     * enough. bias (F padded to lanes) may be NULL. */                                                              \
    void (*conv_row_##SUFFIX)(const T *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,              \
                              ptrdiff_t n_run, ptrdiff_t apart, const T *weight, const T *bias, ptrdiff_t n_filters, \
                              T *out, ptrdiff_t out_step, ptrdiff_t n_pixels, int finish);                           \
    /* The same for few filters and many channels: a tap is a vector of channels, weight is [F][K][lanes]. A sum is  \
     * taken over the taps, then over the lanes. */                                                                  \
    void (*dot_row_##SUFFIX)(const T *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,               \
                             const T *weight, const T *bias, ptrdiff_t n_filters, T *out, ptrdiff_t out_step,        \
                             ptrdiff_t n_pixels, int finish);                                                        \
    /* out[p * out_step + l] = bias[l] + sum_k weight[k * weight_step + l] * x[p * x_step + offsets[k] + l]:         \
     * a filter of its own for every lane l, which is depthwise convolution. */                                      \
    void (*lanewise_row_##SUFFIX)(const T *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,          \
                                  ptrdiff_t n_run, ptrdiff_t apart, const T *weight, ptrdiff_t weight_step,          \
                                  const T *bias, ptrdiff_t n_lanes, T *out, ptrdiff_t out_step, ptrdiff_t n_pixels,  \
                                  int finish);                                                                       \
    /* out[v * out_step + s * F + f] = bias[s * F + f]                                                               \
     *     + sum_k weight[k * lanes + s * F + f] * x[v * x_step + s * share_step + offsets[k]]:                      \
     * vectors of F filters for each of `n_shares` pixels or groups. n_shares * F and (n_shares - 1) * share_step + 1\
     * are at most `lanes`. Half a vector beyond weight and bias may be read. The weight of one pixel's filters is   \
     * one for conv_row, too. */                                                                                     \
    void (*shared_row_##SUFFIX)(const T *x, ptrdiff_t x_step, ptrdiff_t share_step, ptrdiff_t n_shares,              \
                                const ptrdiff_t *offsets, ptrdiff_t n_taps, const T *weight, const T *bias,          \
                                ptrdiff_t n_filters, T *out, ptrdiff_t out_step, ptrdiff_t n_vectors, int finish);

typedef struct {
    const char *name;
    DCONV_DECLARE_LOOPS(float, f32)
    DCONV_DECLARE_LOOPS(double, f64)
    dconv_feature_rows rows;
    dconv_activation_rows activations;
    dconv_crf_rows crf;
    dconv_tree_rows trees;
    dconv_rocket_rows rocket;
    dconv_winograd_rows winograd;
} dconv_microkernel;

#endif
