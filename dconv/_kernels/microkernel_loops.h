/* The loops of microkernel.h for one real type; microkernel.c includes this with REAL and SUFFIX defined. */

#define FN(name) JOIN(name, SUFFIX)
#define VEC FN(vec)
#define L LANES(REAL)

DEFINE_VECTOR(REAL, SUFFIX)

/* Write one vector of a filter block, of which only the first `n` lanes are filters. */
INLINE void FN(put)(REAL *out, VEC v, ptrdiff_t n) {
    if (n >= L) {
        FN(store)(out, v);
    } else {
        REAL lane[LANES(REAL)];
        FN(store)(lane, v);
        for (ptrdiff_t l = 0; l < n; l++) out[l] = lane[l];
    }
}

/* A tile: PX neighbouring pixels x NV vectors of filters stay in registers while the taps run. Each tap costs NV
 * loads of weights and PX broadcasts for PX * NV multiply-adds. The accumulators must not spill (read the assembly
 * after a change): a tile that spills is slower than none. Taking taps in chunks whose weights stay in the L1 cache was
 * slower than streaming the weights from L2. With few taps a tile would wait for the lines that it writes to arrive from
 * memory: asked for two tiles ahead they are there, 5 to 14 % faster; tiles of one vector gained nothing. */
#define DEFINE_TILE(name, PX, NV)                                                                                    \
    INLINE void FN(name)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *restrict offsets, ptrdiff_t n_taps,       \
                         const REAL *restrict weight, const REAL *restrict bias, ptrdiff_t n_filters,                \
                         REAL *restrict out, ptrdiff_t out_step) {                                                   \
        VEC acc[PX][NV] = {0};                                                                                       \
        const REAL *pixel[PX]; /* one register each, so that a tap's address takes no arithmetic */                  \
        UNROLL for (int p = 0; p < PX; p++) pixel[p] = x + p * x_step;                                               \
        UNROLL for (int p = 0; p < PX && NV > 1; p++) {                                                              \
            PREFETCH((uintptr_t)out + (2 * PX + p) * out_step * sizeof(REAL));                                       \
        }                                                                                                            \
        UNROLL_TAPS for (ptrdiff_t k = 0; k < n_taps; k++) {                                                         \
            const ptrdiff_t tap = offsets[k];                                                                        \
            VEC w[NV];                                                                                               \
            UNROLL for (int v = 0; v < NV; v++) w[v] = FN(load)(weight + (k * NV + v) * L);                          \
            UNROLL for (int p = 0; p < PX; p++) {                                                                    \
                UNROLL for (int v = 0; v < NV; v++) acc[p][v] = FN(scale_add)(pixel[p][tap], w[v], acc[p][v]);       \
            }                                                                                                        \
        }                                                                                                            \
        if (bias) {                                                                                                  \
            UNROLL for (int v = 0; v < NV; v++) {                                                                    \
                const VEC b = FN(load)(bias + v * L);                                                                \
                UNROLL for (int p = 0; p < PX; p++) acc[p][v] = FN(add)(acc[p][v], b);                               \
            }                                                                                                        \
        }                                                                                                            \
        UNROLL for (int p = 0; p < PX; p++) {                                                                        \
            UNROLL for (int v = 0; v < NV; v++) FN(put)(out + p * out_step + v * L, acc[p][v], n_filters - v * L);   \
        }                                                                                                            \
    }

/* 6 x 2 accumulators, the weights and a broadcast pixel fill the 16 vector registers of SSE and AVX2. With one vector of
 * filters the pixel pointers are scarcer: 8 fit in the integer registers, and 12 were a fifth slower. */
DEFINE_TILE(tile_wide, 6, 2)
DEFINE_TILE(tile_wide_1, 1, 2)
DEFINE_TILE(tile_narrow, 8, 1)
DEFINE_TILE(tile_narrow_1, 1, 1)

/* All pixels of a row for one block of filters. The last pixels are a tile moved back to end with the row: it computes
 * a few pixels again, to the same bits, which is cheaper than going pixel by pixel. */
#define DEFINE_BLOCK(name, tile, tile_1, PX)                                                                         \
    static void FN(name)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,                \
                         const REAL *weight, const REAL *bias, ptrdiff_t n_filters, REAL *out, ptrdiff_t out_step,   \
                         ptrdiff_t n_pixels) {                                                                       \
        for (ptrdiff_t p = 0; p < n_pixels && n_pixels < PX; p++) {                                                  \
            FN(tile_1)(x + p * x_step, x_step, offsets, n_taps, weight, bias, n_filters, out + p * out_step,         \
                       out_step);                                                                                    \
        }                                                                                                            \
        for (ptrdiff_t p = 0; p < n_pixels && n_pixels >= PX; p += PX) {                                             \
            if (p > n_pixels - PX) p = n_pixels - PX;                                                                \
            FN(tile)(x + p * x_step, x_step, offsets, n_taps, weight, bias, n_filters, out + p * out_step, out_step);\
        }                                                                                                            \
    }

DEFINE_BLOCK(block_wide, tile_wide, tile_wide_1, 6)
DEFINE_BLOCK(block_narrow, tile_narrow, tile_narrow_1, 8)

static void FN(conv_row)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,
                         const REAL *weight, const REAL *bias, ptrdiff_t n_filters, REAL *out, ptrdiff_t out_step,
                         ptrdiff_t n_pixels) {
    for (ptrdiff_t f = 0; f < n_filters; f += 2 * L) {
        const ptrdiff_t left = n_filters - f;
        const REAL *b = bias ? bias + f : NULL;
        if (left > L) {
            FN(block_wide)(x, x_step, offsets, n_taps, weight, b, left, out + f, out_step, n_pixels);
        } else {
            FN(block_narrow)(x, x_step, offsets, n_taps, weight, b, left, out + f, out_step, n_pixels);
        }
        weight += n_taps * 2 * L;
    }
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
                                  REAL *restrict out, ptrdiff_t out_step, ptrdiff_t n_pixels) {                      \
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
        for (int p = 0; p < PX && p < n_pixels; p++) {                                                               \
            for (int f = 0; f < NF; f++) out[p * out_step + f] = bias ? sum[p * NF + f] + bias[f] : sum[p * NF + f]; \
        }                                                                                                            \
    }

DEFINE_DOT_TILE(1, 8)
DEFINE_DOT_TILE(2, 6)
DEFINE_DOT_TILE(3, 4)
DEFINE_DOT_TILE(4, 3)

static void FN(dot_row)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,
                        const REAL *weight, const REAL *bias, ptrdiff_t n_filters, REAL *out, ptrdiff_t out_step,
                        ptrdiff_t n_pixels) {
#define DOT_PIXELS(NF, PX)                                                                                           \
    for (ptrdiff_t p = 0; p < n_pixels; p += PX) {                                                                   \
        FN(dot_tile_##NF)(x + p * x_step, x_step, offsets, n_taps, weight, bias, out + p * out_step, out_step,       \
                          n_pixels - p);                                                                             \
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

/* NV vectors of lanes at PX pixels, each lane with weights of its own: NV + PX * NV loads for PX * NV multiply-adds. */
#define DEFINE_LANE_TILE(name, PX, NV)                                                                               \
    INLINE void FN(name)(const REAL *restrict x, ptrdiff_t x_step, const ptrdiff_t *restrict offsets,                \
                         ptrdiff_t n_taps, const REAL *restrict weight, ptrdiff_t weight_step,                       \
                         const REAL *restrict bias, REAL *restrict out, ptrdiff_t out_step) {                        \
        VEC acc[PX][NV] = {0};                                                                                       \
        const REAL *pixel[PX];                                                                                       \
        UNROLL for (int p = 0; p < PX; p++) pixel[p] = x + p * x_step;                                               \
        for (ptrdiff_t k = 0; k < n_taps; k++) {                                                                     \
            const ptrdiff_t tap = offsets[k];                                                                        \
            UNROLL for (int v = 0; v < NV; v++) {                                                                    \
                const VEC w = FN(load)(weight + k * weight_step + v * L);                                            \
                UNROLL for (int p = 0; p < PX; p++) {                                                                \
                    acc[p][v] = FN(multiply_add)(w, FN(load)(pixel[p] + tap + v * L), acc[p][v]);                    \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
        UNROLL for (int p = 0; p < PX; p++) {                                                                        \
            UNROLL for (int v = 0; v < NV; v++) {                                                                    \
                if (bias) acc[p][v] = FN(add)(acc[p][v], FN(load)(bias + v * L));                                    \
                FN(store)(out + p * out_step + v * L, acc[p][v]);                                                    \
            }                                                                                                        \
        }                                                                                                            \
    }

/* Twelve accumulators. A tile takes as many of a pixel's lanes as it can, so that x is read in few streams, by whole
 * cache lines. */
#define DEFINE_LANE_BLOCK(PX, NV)                                                                                    \
    DEFINE_LANE_TILE(lane_tile_##PX##x##NV, PX, NV)                                                                  \
    DEFINE_LANE_TILE(lane_tile_1x##NV, 1, NV)                                                                        \
    static void FN(lane_block_##NV)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,     \
                                    const REAL *weight, ptrdiff_t weight_step, const REAL *bias, REAL *out,          \
                                    ptrdiff_t out_step, ptrdiff_t n_pixels) {                                        \
        for (ptrdiff_t p = 0; p < n_pixels && n_pixels < PX; p++) {                                                  \
            FN(lane_tile_1x##NV)(x + p * x_step, x_step, offsets, n_taps, weight, weight_step, bias,                 \
                                 out + p * out_step, out_step);                                                      \
        }                                                                                                            \
        for (ptrdiff_t p = 0; p < n_pixels && n_pixels >= PX; p += PX) {                                             \
            if (p > n_pixels - PX) p = n_pixels - PX; /* ends with the row, as in DEFINE_BLOCK */                    \
            FN(lane_tile_##PX##x##NV)(x + p * x_step, x_step, offsets, n_taps, weight, weight_step, bias,            \
                                      out + p * out_step, out_step);                                                 \
        }                                                                                                            \
    }

DEFINE_LANE_BLOCK(3, 4)
DEFINE_LANE_BLOCK(6, 2)
DEFINE_LANE_BLOCK(12, 1)

/* Many lanes are walked for three pixels at a time, so that x and out are read and written in order; few lanes, which are
 * one block or two, for the whole row: each measured faster than the other. */
static void FN(lanewise_row)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,
                             const REAL *weight, ptrdiff_t weight_step, const REAL *bias, ptrdiff_t n_lanes, REAL *out,
                             ptrdiff_t out_step, ptrdiff_t n_pixels) {
    const ptrdiff_t step = n_lanes > 4 * L && n_pixels > 3 ? 3 : n_pixels;
    for (ptrdiff_t p = 0; p < n_pixels; p += step) {
        if (p > n_pixels - step) p = n_pixels - step; /* ends with the row, as in DEFINE_BLOCK */
        const REAL *xp = x + p * x_step;
        REAL *op = out + p * out_step;
        ptrdiff_t l = 0;
        while (l < n_lanes && n_lanes >= L) {
            const ptrdiff_t left = n_lanes - l;
            if (left < L) l = n_lanes - L; /* the last vector ends with the lanes, likewise */
            const REAL *b = bias ? bias + l : NULL;
            if (left >= 4 * L) {
                FN(lane_block_4)(xp + l, x_step, offsets, n_taps, weight + l, weight_step, b, op + l, out_step, step);
                l += 4 * L;
            } else if (left >= 2 * L) {
                FN(lane_block_2)(xp + l, x_step, offsets, n_taps, weight + l, weight_step, b, op + l, out_step, step);
                l += 2 * L;
            } else {
                FN(lane_block_1)(xp + l, x_step, offsets, n_taps, weight + l, weight_step, b, op + l, out_step, step);
                l += L;
            }
        }
        for (; l < n_lanes; l++) { /* less than a vector in all: one by one */
            for (ptrdiff_t q = 0; q < step; q++) {
                REAL sum = 0;
                for (ptrdiff_t k = 0; k < n_taps; k++) sum += weight[k * weight_step + l] * xp[q * x_step + offsets[k] + l];
                op[q * out_step + l] = bias ? sum + bias[l] : sum;
            }
        }
    }
}

#undef FN
#undef VEC
#undef L
