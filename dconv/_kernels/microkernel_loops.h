/* The loops of microkernel.h for one real type; microkernel.c includes this with REAL and SUFFIX defined. */

#define FN(name) JOIN(name, SUFFIX)
#define VEC FN(vec)
#define L LANES(REAL)

#define HALF JOIN(SUFFIX, half)
#define QUARTER JOIN(SUFFIX, quarter)

DEFINE_VECTOR(REAL, SUFFIX, DCONV_VECTOR_BYTES)
DEFINE_ADD_HALVES(REAL, SUFFIX)
DEFINE_INDEX(REAL, SUFFIX)
#if DCONV_VECTOR_BYTES >= 32
DEFINE_VECTOR(REAL, HALF, DCONV_VECTOR_BYTES / 2)
#endif
#if DCONV_VECTOR_BYTES >= 64
DEFINE_VECTOR(REAL, QUARTER, DCONV_VECTOR_BYTES / 4)
#endif

/* Return `finish` with DCONV_STREAM only if rows of `n` numbers, `step` apart, are whole cache lines. */
INLINE int FN(finish_for)(int finish, const REAL *out, ptrdiff_t step, ptrdiff_t n) {
    const size_t begins = (size_t)(uintptr_t)out | (size_t)step * sizeof(REAL) | (size_t)n * sizeof(REAL);
    return CAN_STREAM && begins % 64 == 0 ? finish : finish & ~DCONV_STREAM;
}

/* A tile: PX neighbouring pixels x NV vectors of filters stay in registers while the taps run. Each tap costs NV
 * loads of weights and PX broadcasts for PX * NV multiply-adds. The accumulators must not spill (read the assembly
 * after a change): a tile that spills is slower than none. Pixels are reached from every fourth one, in steps that
 * addresses can hold: a pointer each would not fit in the integer registers. Taking taps in chunks whose weights stay in
 * the L1 cache was slower than streaming the weights from L2. With few taps a tile would wait for the lines that it
 * writes to arrive from memory: asked for two tiles ahead they are there, 5 to 14 % faster; tiles of one vector gained
 * nothing, and lines that are streamed do not arrive. V is the type of vector. */
#define DEFINE_TILE(name, PX, NV, V)                                                                                 \
    INLINE void FN(name)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *restrict offsets, ptrdiff_t n_taps,       \
                         const REAL *restrict weight, const REAL *restrict bias, ptrdiff_t n_filters,                \
                         REAL *restrict out, ptrdiff_t out_step, int finish) {                                       \
        JOIN(vec, V) acc[PX][NV] = {0};                                                                              \
        const ptrdiff_t step = x_step * (ptrdiff_t)sizeof(REAL);                                                     \
        const REAL *fourth[(PX + 3) / 4];                                                                            \
        UNROLL for (int p = 0; p < PX; p += 4) fourth[p / 4] = x + p * x_step;                                       \
        if (NV > 1 && !(finish & DCONV_STREAM)) {                                                                    \
            UNROLL for (int p = 0; p < PX; p++) PREFETCH((uintptr_t)out + (2 * PX + p) * out_step * sizeof(REAL));   \
        }                                                                                                            \
        UNROLL_TAPS for (ptrdiff_t k = 0; k < n_taps; k++) {                                                         \
            const ptrdiff_t tap = offsets[k];                                                                        \
            JOIN(vec, V) w[NV];                                                                                      \
            UNROLL for (int v = 0; v < NV; v++) {                                                                    \
                w[v] = JOIN(load, V)(weight + (k * NV + v) * L);                                                     \
                KEEP(w[v]);                                                                                          \
            }                                                                                                        \
            UNROLL for (int p = 0; p < PX; p++) {                                                                    \
                const REAL *pixel = (const REAL *)((const char *)(fourth[p / 4] + tap) + p % 4 * step);              \
                UNROLL for (int v = 0; v < NV; v++) acc[p][v] = JOIN(scale_add, V)(*pixel, w[v], acc[p][v]);         \
            }                                                                                                        \
        }                                                                                                            \
        FINISH_TILE(PX, NV, V)                                                                                       \
    }

/* A tile of one vector does a load for each multiply-add, and others of offsets and weights, but a core does no more of
 * the one than of the other. So taps are taken in their runs, N at a time that lie APART pixels from each other: a pixel
 * is loaded and spread over a vector once for all the results that it is a tap of (AVX-512, of 180 GFLOP/s: 142 to 180).
 * Tiles of two vectors do two multiply-adds a load, and gained nothing. */
#define DEFINE_RUN_TILE(N, APART, name, PX, V)                                                                       \
    INLINE void FN(RUN_TILE(name, N, APART))(                                                                        \
        const REAL *x, ptrdiff_t x_step, const ptrdiff_t *restrict offsets, ptrdiff_t n_taps,                        \
        const REAL *restrict weight, const REAL *restrict bias, ptrdiff_t n_filters, REAL *restrict out,             \
        ptrdiff_t out_step, int finish) {                                                                            \
        JOIN(vec, V) acc[PX][1] = {0};                                                                               \
        const ptrdiff_t step = x_step * (ptrdiff_t)sizeof(REAL);                                                     \
        for (ptrdiff_t k = 0; k < n_taps; k += N) {                                                                  \
            const char *fourth = (const char *)(x + offsets[k]);                                                     \
            JOIN(vec, V) w[N];                                                                                       \
            UNROLL for (int t = 0; t < N; t++) {                                                                     \
                w[t] = JOIN(load, V)(weight + (k + t) * L);                                                          \
                KEEP(w[t]);                                                                                          \
            }                                                                                                        \
            UNROLL for (int p = 0; p < PX + (N - 1) * APART; p++) {                                                  \
                JOIN(vec, V) pixel = JOIN(spread, V)(*(const REAL *)(fourth + p % 4 * step));                        \
                KEEP(pixel);                                                                                         \
                if (p % 4 == 3) fourth += 4 * step;                                                                  \
                UNROLL for (int t = 0; t < N; t++) {                                                                 \
                    const int result = p - t * APART;                                                                \
                    if (result < 0 || result >= PX) continue;                                                        \
                    acc[result][0] = JOIN(multiply_add, V)(pixel, w[t], acc[result][0]);                             \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
        FINISH_TILE(PX, 1, V)                                                                                        \
    }
#define RUN_TILE(name, N, APART) JOIN(name, run_##N##_##APART)

#define FINISH_TILE(PX, NV, V)                                                                                       \
        if (bias) {                                                                                                  \
            UNROLL for (int v = 0; v < NV; v++) {                                                                    \
                const JOIN(vec, V) b = JOIN(load, V)(bias + v * L);                                                  \
                UNROLL for (int p = 0; p < PX; p++) acc[p][v] = JOIN(add, V)(acc[p][v], b);                          \
            }                                                                                                        \
        }                                                                                                            \
        if (finish & DCONV_RELU) {                                                                                   \
            UNROLL for (int p = 0; p < PX; p++) {                                                                    \
                UNROLL for (int v = 0; v < NV; v++) acc[p][v] = JOIN(relu, V)(acc[p][v]);                            \
            }                                                                                                        \
        }                                                                                                            \
        if (finish & DCONV_STREAM) {                                                                                 \
            UNROLL for (int p = 0; p < PX; p++) {                                                                    \
                UNROLL for (int v = 0; v < NV; v++) JOIN(stream, V)(out + p * out_step + v * L, acc[p][v]);          \
            }                                                                                                        \
            return;                                                                                                  \
        }                                                                                                            \
        UNROLL for (int p = 0; p < PX; p++) {                                                                        \
            UNROLL for (int v = 0; v < NV; v++) {                                                                    \
                JOIN(put, V)(out + p * out_step + v * L, acc[p][v], n_filters - v * L);                              \
            }                                                                                                        \
        }

/* DO(N, APART, ...) for each kind of run that has a tile: of N taps along a row, or a multiple of it, APART pixels apart.
 * Pairs are for phases of transposed convolutions. More would not fit in the registers, or lie so far apart that the
 * results of a tile share nothing. */
#if DCONV_VECTOR_BYTES >= 64
#define EACH_RUN(DO, ...)                                                                                            \
    EACH_SHORT_RUN(DO, __VA_ARGS__) DO(5, 1, __VA_ARGS__) DO(5, 2, __VA_ARGS__) DO(7, 1, __VA_ARGS__)
#elif DCONV_VECTOR_BYTES >= 32
#define EACH_RUN EACH_SHORT_RUN
#else
#define EACH_RUN NO_RUN
#endif
#define EACH_SHORT_RUN(DO, ...)                                                                                      \
    DO(3, 1, __VA_ARGS__) DO(3, 2, __VA_ARGS__) DO(3, 4, __VA_ARGS__) DO(3, 8, __VA_ARGS__) DO(2, 1, __VA_ARGS__)    \
    DO(2, 2, __VA_ARGS__)
#define NO_RUN(DO, ...)

#define TILE(tile)                                                                                                   \
    FN(tile)(x + p * x_step, x_step, offsets, n_taps, weight, bias, n_filters, out + p * out_step, out_step, finish)
#define WALK(tile, PX)                                                                                               \
    for (; n_pixels - p > PX - 4 && n_pixels >= PX; p += PX) {                                                       \
        if (p > n_pixels - PX) p = n_pixels - PX;                                                                    \
        TILE(tile);                                                                                                  \
    }
#define WALK_RUN(N, APART, name, PX, V)                                                                              \
    if (n_run % N == 0 && apart == APART) WALK(RUN_TILE(name, N, APART), PX)

/* All pixels of a row for one block of filters, by the tile of its runs of taps if it has one. What is left after the last
 * whole tile is one moved back to end with the row, or some of four pixels: they compute a few pixels again, to the same
 * bits, which is cheaper than going pixel by pixel. */
#define DEFINE_BLOCK(name, PX, NV, V, RUNS)                                                                          \
    DEFINE_TILE(JOIN(name, tile), PX, NV, V)                                                                         \
    DEFINE_TILE(JOIN(name, tile_4), 4, NV, V)                                                                        \
    DEFINE_TILE(JOIN(name, tile_1), 1, NV, V)                                                                        \
    RUNS(DEFINE_RUN_TILE, name, PX, V)                                                                               \
    static void FN(name)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,                \
                         ptrdiff_t n_run, ptrdiff_t apart, const REAL *weight, const REAL *bias,                     \
                         ptrdiff_t n_filters, REAL *out, ptrdiff_t out_step, ptrdiff_t n_pixels, int finish) {       \
        ptrdiff_t p = 0;                                                                                             \
        RUNS(WALK_RUN, name, PX, V)                                                                                  \
        WALK(JOIN(name, tile), PX)                                                                                   \
        for (; n_pixels > p && n_pixels >= 4; p += 4) {                                                              \
            if (p > n_pixels - 4) p = n_pixels - 4;                                                                  \
            TILE(JOIN(name, tile_4));                                                                                \
        }                                                                                                            \
        for (; n_pixels > p; p++) TILE(JOIN(name, tile_1));                                                          \
    }

/* 6 x 2 accumulators, two vectors of weights and a broadcast pixel fill the 16 vector registers of SSE and AVX2. AVX-512
 * has 32, but with few taps a tile of 12 lost 5 to 20 %: it writes 24 lines in one go, more than a core has buffers for.
 * With many taps it gained 3 to 15 %, as weights pass by half as often. */
DEFINE_BLOCK(block_wide, 6, 2, SUFFIX, NO_RUN)
#if DCONV_VECTOR_BYTES >= 64
#define LONG_TAPS 256
DEFINE_BLOCK(block_long, 12, 2, SUFFIX, NO_RUN)
#endif
/* The filters that are left, up to a vector of them; of parts of a vector more run side by side, and nothing is computed
 * for filters that do not exist. */
DEFINE_BLOCK(block_narrow, 12, 1, SUFFIX, EACH_RUN)
#if DCONV_VECTOR_BYTES >= 32
DEFINE_BLOCK(block_half, 12, 1, HALF, EACH_RUN)
#endif
#if DCONV_VECTOR_BYTES >= 64
DEFINE_BLOCK(block_quarter, 12, 1, QUARTER, NO_RUN)
#endif

static void FN(conv_row)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,
                         ptrdiff_t n_run, ptrdiff_t apart, const REAL *weight, const REAL *bias, ptrdiff_t n_filters,
                         REAL *out, ptrdiff_t out_step, ptrdiff_t n_pixels, int finish) {
    finish = FN(finish_for)(finish, out, out_step, n_filters);
    for (ptrdiff_t f = 0; f < n_filters; f += 2 * L) {
        const ptrdiff_t left = n_filters - f;
        const REAL *b = bias ? bias + f : NULL;
#define ROW(block) FN(block)(x, x_step, offsets, n_taps, n_run, apart, weight, b, left, out + f, out_step, n_pixels, finish)
        if (left > L) {
#if DCONV_VECTOR_BYTES >= 64
            if (n_taps >= LONG_TAPS) {
                ROW(block_long);
            } else
#endif
                ROW(block_wide);
#if DCONV_VECTOR_BYTES >= 64
        } else if (left <= L / 4) {
            ROW(block_quarter);
#endif
#if DCONV_VECTOR_BYTES >= 32
        } else if (left <= L / 2) {
            ROW(block_half);
#endif
        } else {
            ROW(block_narrow);
        }
#undef ROW
        weight += n_taps * 2 * L;
    }
    if (finish & DCONV_STREAM) STREAM_FENCE();
}

/* Write the sums of the lanes of 12 vectors, each by halves: its lower half is added to its upper half, and so on. Halves
 * of two vectors are added at once; a last one without a partner is its own. Bounds are spelled out so that all loops
 * unroll, or the accumulators would live in memory. */
INLINE void FN(sum_lanes)(VEC *v, REAL *restrict sum) {
    UNROLL for (int level = 0; level < 4; level++) {
        const ptrdiff_t half = L >> (level + 1);
        UNROLL for (int i = 0; i < 6; i++) {
            const int last = ((12 + (1 << level) - 1) >> level) - 1; /* vector that is left from the level before */
            if (half > 0 && 2 * i <= last) v[i] = FN(add_halves)(v[2 * i], v[2 * i < last ? 2 * i + 1 : last], half);
        }
    }
    UNROLL for (int i = 0; i < 6; i++) {
        if (i * L < 12) FN(store)(sum + i * L, v[i]);
    }
}

/* Few filters leave the lanes of a filter block idle: here lanes are channels, and are summed at the end. PX pixels x
 * NF filters; each tap, a vector of channels, costs PX + NF loads for PX * NF multiply-adds. */
#define DEFINE_DOT_TILE(NF, PX)                                                                                      \
    INLINE void FN(dot_tile_##NF)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *restrict offsets,                \
                                  ptrdiff_t n_taps, const REAL *restrict weight, const REAL *restrict bias,          \
                                  REAL *restrict out, ptrdiff_t out_step, ptrdiff_t n_pixels, int finish) {          \
        VEC acc[12] = {0};                                                                                           \
        const REAL *pixel[PX]; /* those past the end read the last once more, and are not written */                 \
        UNROLL for (int p = 0; p < PX; p++) pixel[p] = x + (p < n_pixels ? p : n_pixels - 1) * x_step;               \
        for (ptrdiff_t k = 0; k < n_taps; k++) {                                                                     \
            const ptrdiff_t tap = offsets[k];                                                                        \
            VEC w[NF];                                                                                               \
            UNROLL for (int f = 0; f < NF; f++) w[f] = FN(load)(weight + (f * n_taps + k) * L);                      \
            UNROLL for (int p = 0; p < PX; p++) {                                                                    \
                VEC v = FN(load)(pixel[p] + tap);                                                                    \
                KEEP(v);                                                                                             \
                UNROLL for (int f = 0; f < NF; f++) acc[p * NF + f] = FN(multiply_add)(v, w[f], acc[p * NF + f]);    \
            }                                                                                                        \
        }                                                                                                            \
        REAL sum[16];                                                                                                \
        FN(sum_lanes)(acc, sum);                                                                                     \
        if (bias) {                                                                                                  \
            UNROLL for (int i = 0; i < PX * NF; i++) sum[i] += bias[i % NF];                                         \
        }                                                                                                            \
        if (finish & DCONV_RELU) {                                                                                   \
            UNROLL for (int i = 0; i < PX * NF; i++) sum[i] = sum[i] < 0 ? 0 : sum[i];                               \
        }                                                                                                            \
        for (int p = 0; p < PX && p < n_pixels; p++) {                                                               \
            for (int f = 0; f < NF; f++) out[p * out_step + f] = sum[p * NF + f];                                    \
        }                                                                                                            \
    }

DEFINE_DOT_TILE(1, 8)
DEFINE_DOT_TILE(2, 6)
DEFINE_DOT_TILE(3, 4)
DEFINE_DOT_TILE(4, 3)

static void FN(dot_row)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,
                        const REAL *weight, const REAL *bias, ptrdiff_t n_filters, REAL *out, ptrdiff_t out_step,
                        ptrdiff_t n_pixels, int finish) {
#define DOT_PIXELS(NF, PX)                                                                                           \
    for (ptrdiff_t p = 0; p < n_pixels; p += PX) {                                                                   \
        FN(dot_tile_##NF)(x + p * x_step, x_step, offsets, n_taps, weight, bias, out + p * out_step, out_step,       \
                          n_pixels - p, finish);                                                                     \
    }
    while (n_filters > 0) {
        const ptrdiff_t n = n_filters < 4 ? n_filters : 4;
        if (n == 1) DOT_PIXELS(1, 8)
        if (n == 2) DOT_PIXELS(2, 6)
        if (n == 3) DOT_PIXELS(3, 4)
        if (n == 4) DOT_PIXELS(4, 3)
        n_filters -= n;
        weight += n * n_taps * L;
        out += n;
        if (bias) bias += n;
    }
#undef DOT_PIXELS
}

#include "microkernel_depthwise_loops.h"

/* Few filters, of one pixel or of one group of channels, leave most lanes idle: here several pixels or groups share a
 * vector. What their lanes read is picked out of one vector of x, at the cost of a multiply-add; of two vectors it cost
 * more than it gained. */
INLINE void FN(shared_tile)(const REAL *x, ptrdiff_t x_step, JOIN(index, SUFFIX) index, const ptrdiff_t *restrict offsets,
                            ptrdiff_t n_taps, const REAL *restrict weight, const REAL *restrict bias,
                            REAL *restrict out, ptrdiff_t out_step, ptrdiff_t n_lanes, int finish) {
    VEC acc[DCONV_SHARED_TILE] = {0};
    const REAL *vector[DCONV_SHARED_TILE];
    UNROLL for (int v = 0; v < DCONV_SHARED_TILE; v++) vector[v] = x + v * x_step;
    for (ptrdiff_t k = 0; k < n_taps; k++) {
        const VEC w = FN(load)(weight + k * L);
        UNROLL for (int v = 0; v < DCONV_SHARED_TILE; v++) {
            acc[v] = FN(multiply_add)(w, FN(pick)(vector[v] + offsets[k], index), acc[v]);
        }
    }
    UNROLL for (int v = 0; v < DCONV_SHARED_TILE; v++) {
        if (bias) acc[v] = FN(add)(acc[v], FN(load)(bias));
        if (finish & DCONV_RELU) acc[v] = FN(relu)(acc[v]);
        if (finish & DCONV_STREAM) {
            FN(stream)(out + v * out_step, acc[v]);
        } else {
            FN(put)(out + v * out_step, acc[v], n_lanes);
        }
    }
}

static void FN(shared_row)(const REAL *x, ptrdiff_t x_step, ptrdiff_t share_step, ptrdiff_t n_shares,
                           const ptrdiff_t *offsets, ptrdiff_t n_taps, const REAL *weight, const REAL *bias,
                           ptrdiff_t n_filters, REAL *out, ptrdiff_t out_step, ptrdiff_t n_vectors, int finish) {
    const ptrdiff_t n_lanes = n_shares * n_filters;
    /* A vector of x holds so much beyond what is needed of it; so the last ones are read from as much before. */
    const ptrdiff_t beyond = L - 1 - (n_shares - 1) * share_step;
    ptrdiff_t forward[64 / sizeof(REAL)], backward[64 / sizeof(REAL)];
    for (ptrdiff_t l = 0; l < L; l++) {
        forward[l] = l < n_lanes ? l / n_filters * share_step : 0;
        backward[l] = forward[l] + beyond;
    }
    const int whole = FN(finish_for)(finish, out, out_step, n_lanes);
    ptrdiff_t v = 0;
    for (; v < n_vectors && n_vectors >= DCONV_SHARED_TILE; v += DCONV_SHARED_TILE) {
        if (v > n_vectors - DCONV_SHARED_TILE) v = n_vectors - DCONV_SHARED_TILE; /* ends with the row, as in DEFINE_BLOCK */
        const int last = (n_vectors - DCONV_SHARED_TILE - v) * x_step < beyond;
        if (last && v * x_step < beyond) break;
        FN(shared_tile)(x + v * x_step - (last ? beyond : 0), x_step, FN(index_of)(last ? backward : forward), offsets,
                        n_taps, weight, bias, out + v * out_step, out_step, n_lanes, whole);
    }
    if (whole & DCONV_STREAM) STREAM_FENCE();
    for (; v < n_vectors; v++) { /* too few for that */
        for (ptrdiff_t s = 0; s < n_shares; s++) {
            FN(conv_row)(x + v * x_step + s * share_step, 0, offsets, n_taps, 1, 0, weight + s * n_filters,
                         bias ? bias + s * n_filters : NULL, n_filters, out + v * out_step + s * n_filters, 0, 1, finish);
        }
    }
}

#undef FN
#undef VEC
#undef L
#undef HALF
#undef QUARTER
