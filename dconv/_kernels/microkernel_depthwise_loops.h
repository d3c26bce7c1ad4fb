/* lanewise_row of microkernel.h for one real type; microkernel_loops.h includes this between its own loops. */

/* NV vectors of lanes at PX pixels, each lane with weights of its own: NV + PX * NV loads for PX * NV multiply-adds. */
#define DEFINE_LANE_TILE(name, PX, NV)                                                                               \
    INLINE void FN(name)(const REAL *restrict x, ptrdiff_t x_step, const ptrdiff_t *restrict offsets,                \
                         ptrdiff_t n_taps, const REAL *restrict weight, ptrdiff_t weight_step,                       \
                         const REAL *restrict bias, REAL *restrict out, ptrdiff_t out_step, int finish) {            \
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
                if (finish & DCONV_RELU) acc[p][v] = FN(relu)(acc[p][v]);                                            \
                if (finish & DCONV_STREAM) {                                                                         \
                    FN(stream)(out + p * out_step + v * L, acc[p][v]);                                               \
                } else {                                                                                             \
                    FN(store)(out + p * out_step + v * L, acc[p][v]);                                                \
                }                                                                                                    \
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
                                    ptrdiff_t out_step, ptrdiff_t n_pixels, int finish) {                            \
        for (ptrdiff_t p = 0; p < n_pixels && n_pixels < PX; p++) {                                                  \
            FN(lane_tile_1x##NV)(x + p * x_step, x_step, offsets, n_taps, weight, weight_step, bias,                 \
                                 out + p * out_step, out_step, finish);                                              \
        }                                                                                                            \
        for (ptrdiff_t p = 0; p < n_pixels && n_pixels >= PX; p += PX) {                                             \
            if (p > n_pixels - PX) p = n_pixels - PX; /* ends with the row, as in DEFINE_BLOCK */                    \
            FN(lane_tile_##PX##x##NV)(x + p * x_step, x_step, offsets, n_taps, weight, weight_step, bias,            \
                                      out + p * out_step, out_step, finish);                                         \
        }                                                                                                            \
    }

DEFINE_LANE_BLOCK(3, 4)
DEFINE_LANE_BLOCK(6, 2)
DEFINE_LANE_BLOCK(12, 1)

/* Taps that lie APART pixels from each other along the row, N_RUN at a time: each vector of x is loaded once for all the
 * results of the tile that it belongs to, of which it is another tap. Vectors of x seldom begin cache lines, so that loads
 * are dear. Of more than two vectors of lanes it gained nothing: those wait for memory. */
#define SLIDE 8 /* pixels: more did not fit, or gained nothing */
#define DEFINE_SLIDE_TILE(N_RUN, APART)                                                                              \
    INLINE void FN(slide_tile_##N_RUN##_##APART)(                                                                    \
        const REAL *restrict x, ptrdiff_t x_step, const ptrdiff_t *restrict offsets, ptrdiff_t n_taps,               \
        const REAL *restrict weight, ptrdiff_t weight_step, const REAL *restrict bias, REAL *restrict out,           \
        ptrdiff_t out_step, int finish) {                                                                            \
        VEC acc[SLIDE] = {0};                                                                                        \
        for (ptrdiff_t k = 0; k < n_taps; k += N_RUN) {                                                              \
            const REAL *at = x + offsets[k];                                                                         \
            VEC w[N_RUN];                                                                                            \
            UNROLL for (int t = 0; t < N_RUN; t++) {                                                                 \
                w[t] = FN(load)(weight + (k + t) * weight_step);                                                     \
                KEEP(w[t]);                                                                                          \
            }                                                                                                        \
            UNROLL for (int p = 0; p < SLIDE + (N_RUN - 1) * APART; p++) {                                           \
                VEC v = FN(load)(at);                                                                                \
                KEEP(v);                                                                                             \
                at += x_step;                                                                                        \
                UNROLL for (int t = 0; t < N_RUN; t++) {                                                             \
                    const int result = p - t * APART;                                                                \
                    if (result >= 0 && result < SLIDE) acc[result] = FN(multiply_add)(w[t], v, acc[result]);         \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
        UNROLL for (int p = 0; p < SLIDE; p++) {                                                                     \
            if (bias) acc[p] = FN(add)(acc[p], FN(load)(bias));                                                      \
            if (finish & DCONV_RELU) acc[p] = FN(relu)(acc[p]);                                                      \
            if (finish & DCONV_STREAM) {                                                                             \
                FN(stream)(out + p * out_step, acc[p]);                                                              \
            } else {                                                                                                 \
                FN(store)(out + p * out_step, acc[p]);                                                               \
            }                                                                                                        \
        }                                                                                                            \
    }

#define EACH_SLIDE(DO) DO(3, 1) DO(3, 2) DO(3, 4) DO(5, 1) DO(5, 2) DO(7, 1)
EACH_SLIDE(DEFINE_SLIDE_TILE)

/* Compute a row, of at least a tile and a vector of lanes, and return 1, or 0 if there is no tile for its runs of taps. */
static int FN(slide_row)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,
                         ptrdiff_t n_run, ptrdiff_t apart, const REAL *weight, ptrdiff_t weight_step,
                         const REAL *bias, ptrdiff_t n_lanes, REAL *out, ptrdiff_t out_step, ptrdiff_t n_pixels,
                         int finish) {
#define SLIDE_RUNS(N, APART)                                                                                         \
    if (n_run % N == 0 && apart == APART) {                                                                          \
        for (ptrdiff_t p = 0; p < n_pixels; p += SLIDE) {                                                            \
            if (p > n_pixels - SLIDE) p = n_pixels - SLIDE; /* ends with the row, as in DEFINE_BLOCK */              \
            for (ptrdiff_t l = 0; l < n_lanes; l += L) {                                                             \
                if (l > n_lanes - L) l = n_lanes - L; /* and with the lanes */                                       \
                FN(slide_tile_##N##_##APART)(x + p * x_step + l, x_step, offsets, n_taps, weight + l, weight_step,   \
                                             bias ? bias + l : NULL, out + p * out_step + l, out_step, finish);      \
            }                                                                                                        \
        }                                                                                                            \
        return 1;                                                                                                    \
    }
    EACH_SLIDE(SLIDE_RUNS)
    return 0;
#undef SLIDE_RUNS
}

/* Many lanes are walked for three pixels at a time, so that x and out are read and written in order; few lanes, which are
 * one block or two, for the whole row: each measured faster than the other. */
static void FN(lanewise_row)(const REAL *x, ptrdiff_t x_step, const ptrdiff_t *offsets, ptrdiff_t n_taps,
                             ptrdiff_t n_run, ptrdiff_t apart, const REAL *weight, ptrdiff_t weight_step,
                             const REAL *bias, ptrdiff_t n_lanes, REAL *out, ptrdiff_t out_step, ptrdiff_t n_pixels,
                             int finish) {
    finish = FN(finish_for)(finish, out, out_step, n_lanes);
    const int slid = n_lanes >= L && n_lanes <= 2 * L && n_pixels >= SLIDE
                     && FN(slide_row)(x, x_step, offsets, n_taps, n_run, apart, weight, weight_step, bias, n_lanes, out,
                                      out_step, n_pixels, finish);
    const ptrdiff_t step = n_lanes > 4 * L && n_pixels > 3 ? 3 : n_pixels;
    for (ptrdiff_t p = slid ? n_pixels : 0; p < n_pixels; p += step) {
        if (p > n_pixels - step) p = n_pixels - step; /* ends with the row, as in DEFINE_BLOCK */
        const REAL *xp = x + p * x_step;
        REAL *op = out + p * out_step;
        ptrdiff_t l = 0;
        while (l < n_lanes && n_lanes >= L) {
            const ptrdiff_t left = n_lanes - l;
            if (left < L) l = n_lanes - L; /* the last vector ends with the lanes, likewise */
            const REAL *b = bias ? bias + l : NULL;
#define LANE_BLOCK(n)                                                                                                \
    FN(lane_block_##n)(xp + l, x_step, offsets, n_taps, weight + l, weight_step, b, op + l, out_step, step, finish)
            if (left >= 4 * L) {
                LANE_BLOCK(4);
                l += 4 * L;
            } else if (left >= 2 * L) {
                LANE_BLOCK(2);
                l += 2 * L;
            } else {
                LANE_BLOCK(1);
                l += L;
            }
        }
        for (; l < n_lanes; l++) { /* less than a vector in all: one by one */
            for (ptrdiff_t q = 0; q < step; q++) {
                REAL sum = 0;
                for (ptrdiff_t k = 0; k < n_taps; k++) sum += weight[k * weight_step + l] * xp[q * x_step + offsets[k] + l];
                if (bias) sum += bias[l];
                op[q * out_step + l] = finish & DCONV_RELU && sum < 0 ? 0 : sum;
            }
        }
#undef LANE_BLOCK
    }
    if (finish & DCONV_STREAM) STREAM_FENCE();
}

#undef SLIDE
#undef EACH_SLIDE
