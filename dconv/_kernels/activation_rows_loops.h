/* The activations of activation_rows.h at one CPU level. microkernel.c includes this after feature_rows_loops.h.
 *
 * The loops are left to the compiler, which vectorises them: they have no branch and no call.
 */
#include <math.h>

/* e^x = 2^n * e^r with n whole and |r| <= ln(2) / 2, where seven terms of the series leave an error of 5e-9. */
INLINE float exponential(float x) {
    const float to_whole = 12582912.0f; /* 1.5 * 2^23: adding it leaves no room for a fraction, the last bits are n */
    x = x < -87.0f ? -87.0f : x;        /* so that 2^n is a normal number */
    x = x > 88.0f ? 88.0f : x;
    const float shifted = x * 1.44269504f + to_whole, n = shifted - to_whole;
    /* ln(2) in two parts: the first has so few bits that n times it is exact */
    const float r = (x - n * (355.0f / 512)) - n * (float)(0.69314718055994531 - 355.0 / 512);
    float sum = 1.0f / 5040;
    sum = sum * r + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 1.0f / 2;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    uint32_t bits;
    float power;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u; /* n as the exponent of a float */
    memcpy(&power, &bits, sizeof power);
    return sum * power;
}

static void exponential_row(float *restrict x, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = exponential(x[i]);
}

static void logistic_row(float *restrict x, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = 1.0f / (1.0f + exponential(-x[i]));
}

static void tanh_row(float *restrict x, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = 1.0f - 2.0f / (1.0f + exponential(2.0f * x[i]));
}

/* Of the two that sum to 1 the smaller is computed and not subtracted: it keeps all its digits. */
static void pair_rows(float *restrict x, float *restrict other, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) {
        const float odds = exponential(x[i] < 0 ? x[i] : -x[i]), larger = 1.0f / (1.0f + odds), smaller = odds * larger;
        other[i] = x[i] < 0 ? larger : smaller;
        x[i] = x[i] < 0 ? smaller : larger;
    }
}

/* What is worked on at once: a vector, or where there is none a number. */
#if DCONV_VECTOR_BYTES
typedef vec_f32 run;
typedef mask_f32 run_bits;
INLINE run bounded(run x, float bound) {
    const vec_f32 zero = {0};
    return min_f32(zero + bound, max_f32(zero - bound, x)); /* NaN stays what it is, as it comes second */
}
#else
typedef float run;
typedef int32_t run_bits;
INLINE run bounded(run x, float bound) { return x < -bound ? -bound : x > bound ? bound : x; }
#endif

/* 1 / sqrt(x) of a normal number. The bits of a float are about its logarithm, so halving and negating them gives 3 % of
 * it, and three steps of Newton's method all digits but the last: a third of the time of a division and a square root. */
INLINE run inverse_root(run x) {
    run_bits bits;
    run y;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x5f375a86 - (bits >> 1);
    memcpy(&y, &bits, sizeof y);
    const run half = 0.5f * x;
    UNROLL for (int step = 0; step < 3; step++) y = y * (1.5f - half * y * y);
    return y;
}

INLINE void prepare_run(const float *from, const float *centre, const float *scale, float *to) {
    for (size_t l = 0; l < DCONV_RUN_UNIT; l += sizeof(run) / sizeof(float)) {
        run v, middle, factor;
        memcpy(&v, from + l, sizeof v);
        memcpy(&middle, centre + l, sizeof v);
        v = v - middle;
        if (scale) {
            memcpy(&factor, scale + l, sizeof v);
            v = bounded(v * factor, 1e9f); /* beyond, it is 1 to the last bit, and its square must stay finite */
            v = v * inverse_root(1.0f + v * v);
        }
        memcpy(to + l, &v, sizeof v);
    }
}

/* The channels of a pixel are seldom whole vectors. So pixels are one run of numbers, and centres and scales a table of
 * as many pixels as are whole vectors: half the time of a loop over each pixel's channels. `scale` is a constant where
 * this is inlined. */
INLINE void prepare(const float *x, const float *centre, const float *scale, ptrdiff_t period, ptrdiff_t n, float *h) {
    ptrdiff_t i = 0, place = 0;
    for (; n - i >= DCONV_RUN_UNIT; i += DCONV_RUN_UNIT) {
        prepare_run(x + i, centre + place, scale ? scale + place : NULL, h + i);
        place = place + DCONV_RUN_UNIT < period ? place + DCONV_RUN_UNIT : 0;
    }
    if (i < n) {
        float last[DCONV_RUN_UNIT] = {0};
        memcpy(last, x + i, (n - i) * sizeof *x);
        prepare_run(last, centre + place, scale ? scale + place : NULL, last);
        memcpy(h + i, last, (n - i) * sizeof *h);
    }
}

static void centred_row(const float *x, const float *centre, ptrdiff_t period, ptrdiff_t n, float *h) {
    prepare(x, centre, NULL, period, n, h);
}

static void clipped_row(const float *x, const float *centre, const float *scale, ptrdiff_t period, ptrdiff_t n,
                        float *h) {
    prepare(x, centre, scale, period, n, h);
}

static void prepared_rows(const float *restrict x, const double *restrict centre, const double *restrict scale,
                          int squares, ptrdiff_t n_channels, ptrdiff_t n_pixels, double *restrict h, ptrdiff_t row) {
    for (ptrdiff_t p = 0; p < n_pixels; p++, x += n_channels, h += row) {
        for (ptrdiff_t c = 0; c < n_channels; c++) h[c] = x[c] - centre[c];
        if (scale) {
            for (ptrdiff_t c = 0; c < n_channels; c++) {
                const double v = h[c] * scale[c];
                h[c] = v / sqrt(1 + v * v);
            }
        }
        if (squares) {
            for (ptrdiff_t c = 0; c < n_channels; c++) h[n_channels + c] = h[c] * h[c];
        }
        for (ptrdiff_t c = squares ? 2 * n_channels : n_channels; c < row; c++) h[c] = 0;
    }
}

static void squared_row(double *restrict x, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) x[i] *= x[i];
}

/* The few outputs of a pixel fill no vector, and maxima, sums and divisions pixel by pixel took a quarter of the time of
 * a linear classifier. So outputs become planes, in which lanes are pixels. */
#define DEFINE_PLANES(T, S)                                                                                          \
    static void planes_##S(const T *restrict h, ptrdiff_t n_outputs, ptrdiff_t n_pixels, int common, double floor,   \
                           float *restrict planes, ptrdiff_t step) {                                                 \
        for (ptrdiff_t p = 0; p < n_pixels; p += DCONV_RUN_UNIT, h += DCONV_RUN_UNIT * n_outputs) {                  \
            const int n = n_pixels - p < DCONV_RUN_UNIT ? (int)(n_pixels - p) : DCONV_RUN_UNIT;                      \
            T less[DCONV_RUN_UNIT] = {0}, factor[DCONV_RUN_UNIT];                                                    \
            for (int l = 0; l < DCONV_RUN_UNIT; l++) factor[l] = 1;                                                  \
            if (common == DCONV_ODDS) {                                                                              \
                for (int l = 0; l < n; l++) less[l] = h[l * n_outputs];                                              \
            }                                                                                                        \
            if (common != DCONV_NOTHING) {                                                                           \
                for (ptrdiff_t f = 0; f < n_outputs; f++) {                                                          \
                    for (int l = 0; l < n; l++) {                                                                    \
                        const T v = h[l * n_outputs + f];                                                            \
                        less[l] = v > less[l] ? v : less[l];                                                         \
                    }                                                                                                \
                }                                                                                                    \
            }                                                                                                        \
            if (common == DCONV_ODDS) {                                                                              \
                for (int l = 0; l < n; l++) {                                                                        \
                    factor[l] = less[l] < -20 && less[l] < floor ? 0 : 1;                                            \
                    less[l] = less[l] < -20 ? less[l] + 20 : 0;                                                      \
                }                                                                                                    \
            }                                                                                                        \
            float *to = planes + p;                                                                                  \
            if (common == DCONV_SOFTMAX) {                                                                           \
                for (int l = 0; l < DCONV_RUN_UNIT; l++) to[l] = (float)-less[l];                                    \
                to += step;                                                                                          \
            }                                                                                                        \
            for (ptrdiff_t f = 0; f < n_outputs; f++, to += step) {                                                  \
                for (int l = 0; l < n; l++) to[l] = (float)((h[l * n_outputs + f] - less[l]) * factor[l]);           \
                for (int l = n; l < DCONV_RUN_UNIT; l++) to[l] = 0;                                                  \
            }                                                                                                        \
        }                                                                                                            \
    }
DEFINE_PLANES(float, f32)
DEFINE_PLANES(double, f64)

static void normalised_rows(float *restrict planes, ptrdiff_t n_outputs, ptrdiff_t n_pixels, ptrdiff_t step) {
    for (ptrdiff_t p = 0; p < n_pixels; p += DCONV_RUN_UNIT) {
        float *from = planes + p, total[DCONV_RUN_UNIT] = {0}, factor[DCONV_RUN_UNIT];
        for (ptrdiff_t f = 0; f < n_outputs; f++) {
            for (int l = 0; l < DCONV_RUN_UNIT; l++) total[l] += from[f * step + l];
        }
        for (int l = 0; l < DCONV_RUN_UNIT; l++) factor[l] = 1.0f / total[l];
        for (ptrdiff_t f = 0; f < n_outputs; f++) {
            for (int l = 0; l < DCONV_RUN_UNIT; l++) {
                const float share = from[f * step + l] * factor[l];
                from[f * step + l] = total[l] == 0 ? 1.0f / n_outputs : share;
            }
        }
    }
}

static int finite_row(const float *restrict x, ptrdiff_t n) {
    int32_t any = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        any |= -((bits & INT32_MAX) >= 0x7f800000);
    }
    return !any;
}

#define ACTIVATION_ROWS                                                                                              \
    {.exponential = exponential_row,                                                                                 \
     .logistic = logistic_row,                                                                                       \
     .tanh = tanh_row,                                                                                               \
     .pair = pair_rows,                                                                                              \
     .clipped = clipped_row,                                                                                         \
     .centred = centred_row,                                                                                         \
     .prepared = prepared_rows,                                                                                      \
     .squared = squared_row,                                                                                         \
     .planes_f32 = planes_f32,                                                                                       \
     .planes_f64 = planes_f64,                                                                                       \
     .normalised = normalised_rows,                                                                                  \
     .finite = finite_row}
