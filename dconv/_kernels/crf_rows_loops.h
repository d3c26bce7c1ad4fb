/* The row loops of crf_rows.h at one CPU level. microkernel.c includes this; the loops come from the files below, at the
 * widths that this level has: 8 lanes, or 4, or 1.
 */
#define JOIN_WIDTH_(x, width) x##_##width
#define JOIN_WIDTH(x, width) JOIN_WIDTH_(x, width)
#define LANED(x) JOIN_WIDTH(x, WIDTH)

/* 16 lanes would pad most numbers of classes with more zeros than they save. */
#if DCONV_VECTOR_BYTES >= 32
#define WIDE 8
#elif DCONV_VECTOR_BYTES
#define WIDE 4
#else
#define WIDE 1
#endif

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (lanes_int){__VA_ARGS__})
#endif

/* Loops over the entries of the usual kernels, of grey and RGB images, are unrolled. */
#define BY_ENTRIES(f, n_vectors, relative)                                                                           \
    switch (run->n_entries) {                                                                                        \
        case 7: f(run, n_vectors, 7, relative); break;                                                               \
        case 9: f(run, n_vectors, 9, relative); break;                                                               \
        default: f(run, n_vectors, run->n_entries, relative);                                                        \
    }

#define WIDTH 1
#include "crf_lanes.h"
#include "crf_vertex_loops.h"
#if WIDE > 1
#undef WIDTH
#define WIDTH 4
#include "crf_lanes.h"
#include "crf_vertex_loops.h"
#endif
#if WIDE > 4
#undef WIDTH
#define WIDTH 8
#include "crf_lanes.h"
#include "crf_vertex_loops.h"
#endif
#include "crf_embed_loops.h"
#include "crf_few_loops.h"

/* Few classes are sliced and splat by 4, and else widely. */
#if WIDE > 4
#undef WIDTH
#define WIDTH 4
#endif
#include "crf_pass_loops.h"
static void pass_few(const dconv_crf_run *run) { BY_ENTRIES(LANED(pass), 4 / WIDTH, 1); }
#if WIDE > 4
#undef WIDTH
#define WIDTH 8
#include "crf_pass_loops.h"
#endif

static void pass_all(const dconv_crf_run *run) {
    switch (run->row / WIDTH) {
        case 1: BY_ENTRIES(LANED(pass), 1, 0); break;
        case 2: BY_ENTRIES(LANED(pass), 2, 0); break;
        case 3: BY_ENTRIES(LANED(pass), 3, 0); break;
        case 4: BY_ENTRIES(LANED(pass), 4, 0); break;
        default: LANED(pass)(run, run->row / WIDTH, run->n_entries, 0);
    }
}

INLINE void pass_halves(const dconv_crf_run *run, const ptrdiff_t n_entries) {
    float first[DCONV_CRF_STAGE], second[DCONV_CRF_STAGE], z[DCONV_CRF_STAGE];
    for (ptrdiff_t begin = 0; begin < run->n_pixels; begin += DCONV_CRF_STAGE) {
        const ptrdiff_t n = run->n_pixels - begin < DCONV_CRF_STAGE ? run->n_pixels - begin : DCONV_CRF_STAGE;
        const uint16_t *const ids = run->ids + begin * n_entries;
        const float *const weights = run->weights + begin * n_entries, *const unary = run->unary + begin;
        for (ptrdiff_t l = 0; l < DCONV_CRF_STAGE; l++) z[l] = unary[l < n ? l : n - 1];
        for (ptrdiff_t pixel = 0; run->values && pixel < n; pixel += DCONV_CRF_GROUP) {
            for (ptrdiff_t l = 0; l < DCONV_CRF_GROUP; l++) {
                const ptrdiff_t start = pixel * n_entries + l;
                float sum = z[pixel + l];
                UNROLL for (ptrdiff_t k = 0; k < n_entries; k++)
                    sum += weights[start + k * DCONV_CRF_GROUP] * run->values[ids[start + k * DCONV_CRF_GROUP]];
                z[pixel + l] = sum;
            }
        }
        for (ptrdiff_t l = 0; l < n; l += WIDTH) {
            const lanes each = load(z + l);
            const lanes_int positive = MASK(each > (lanes){0});
            const lanes power = exp2_lanes(select(positive, -each, each)), inverse = 1.0f / (power + 1.0f);
            const lanes q = select(positive, inverse, power * inverse);
            store(first + l, select(positive, power * inverse, inverse));
            store(second + l, q);
            store(z + l, q * 2.0f - 1.0f);
        }
        if (run->q) {
            float *q = run->q + 2 * begin;
            for (ptrdiff_t l = 0; l < n; l++) {
                if (run->change) *run->change = fmaxf(*run->change, fabsf(q[2 * l + 1] - second[l]));
                q[2 * l] = first[l]; /* not 1 - second, which has few digits where it is small */
                q[2 * l + 1] = second[l];
            }
        }
        for (ptrdiff_t pixel = 0; run->sums && pixel < n; pixel += DCONV_CRF_GROUP) {
            for (ptrdiff_t l = 0; l < DCONV_CRF_GROUP; l++) {
                const ptrdiff_t start = pixel * n_entries + l;
                UNROLL for (ptrdiff_t k = 0; k < n_entries; k++)
                    run->sums[ids[start + k * DCONV_CRF_GROUP]] += weights[start + k * DCONV_CRF_GROUP] * z[pixel + l];
            }
        }
    }
}

static void pass_two(const dconv_crf_run *run) {
    switch (run->n_entries) {
        case 7: pass_halves(run, 7); break;
        case 9: pass_halves(run, 9); break;
        default: pass_halves(run, run->n_entries);
    }
}

#if WIDE > 4
#define BY_ROW(f, row) ((row) == 1 ? JOIN_WIDTH(f, 1) : (row) == 4 ? JOIN_WIDTH(f, 4) : JOIN_WIDTH(f, 8))
#elif WIDE > 1
#define BY_ROW(f, row) ((row) == 1 ? JOIN_WIDTH(f, 1) : JOIN_WIDTH(f, 4))
#else
#define BY_ROW(f, row) JOIN_WIDTH(f, 1)
#endif

static void fetch(const float *values, const int32_t *vertices, ptrdiff_t n, ptrdiff_t row, float *out) {
    BY_ROW(fetch, row)(values, vertices, n, row, out);
}

static void gather(const float *sums, const int32_t *list, ptrdiff_t length, ptrdiff_t row, float *values) {
    BY_ROW(gather, row)(sums, list, length, row, values);
}

static void blur(const int32_t *chains, ptrdiff_t length, ptrdiff_t row, float *values) {
    BY_ROW(blur, row)(chains, length, row, values);
}

static void mix(const float *matrix, ptrdiff_t n_classes, ptrdiff_t row, ptrdiff_t n, float *values, float *scratch) {
    for (float *each = values; each < values + n * row; each += row) {
        for (ptrdiff_t c = 0; c < row; c += WIDTH) {
            lanes sum = {0};
            for (ptrdiff_t m = 0; m < n_classes; m++) sum += load(matrix + m * row + c) * each[m];
            store(scratch + c, sum);
        }
        memcpy(each, scratch, (size_t)row * sizeof *each);
    }
}

#define CRF_ROWS                                                                                                     \
    {.width = WIDE, .embed = embed, .clear = clear, .normalize = normalize, .log2 = LANED(log2), .pass_two = pass_two, .pass_few = pass_few,          \
     .pass_all = pass_all, .fetch = fetch, .gather = gather, .blur = blur, .mix = mix}
