/* The activations of activation_rows.h at one CPU level. microkernel.c includes this after feature_rows_loops.h.
 *
 * The loops are left to the compiler, which vectorises them: they have no branch and no call.
 */

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

static void relu_row(float *restrict x, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = x[i] < 0 ? 0 : x[i];
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

/* 1 / sqrt(x) of a normal number. The bits of a float are about its logarithm, so halving and negating them gives 3 % of
 * it, and three steps of Newton's method all digits but the last: a third of the time of a division and a square root. */
INLINE float inverse_root(float x) {
    uint32_t bits;
    float y;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x5f375a86u - (bits >> 1);
    memcpy(&y, &bits, sizeof y);
    const float half = 0.5f * x;
    UNROLL for (int step = 0; step < 3; step++) y = y * (1.5f - half * y * y);
    return y;
}

static void soft_clip_row(float *restrict x, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) {
        float far = x[i]; /* beyond 1e9 it is 1 to the last bit, and its square must stay finite */
        far = far < -1e9f ? -1e9f : far;
        far = far > 1e9f ? 1e9f : far;
        x[i] = far * inverse_root(1.0f + far * far);
    }
}

static void centred_rows(const float *restrict x, const float *restrict centre, const float *restrict scale,
                         ptrdiff_t n_channels, ptrdiff_t n_pixels, ptrdiff_t row, float *restrict h) {
    for (ptrdiff_t p = 0; p < n_pixels; p++, x += n_channels, h += row) {
        if (scale) {
            for (ptrdiff_t c = 0; c < n_channels; c++) h[c] = (x[c] - centre[c]) * scale[c];
        } else {
            for (ptrdiff_t c = 0; c < n_channels; c++) h[c] = x[c] - centre[c];
        }
        for (ptrdiff_t c = n_channels; c < row; c++) h[c] = 0;
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
    {.relu = relu_row,                                                                                               \
     .exponential = exponential_row,                                                                                 \
     .logistic = logistic_row,                                                                                       \
     .tanh = tanh_row,                                                                                               \
     .soft_clip = soft_clip_row,                                                                                     \
     .centred = centred_rows,                                                                                        \
     .finite = finite_row}
