/* The row loops of feature_rows.h at one CPU level. microkernel.c includes this once it has defined the vectors.
 *
 * Loops without taps are left to the compiler, which vectorises them; their n is a multiple of every vector, so that no
 * scalar remainder runs, which could round otherwise. Loops with taps keep several vectors of pixels in registers while
 * the taps run, which compilers do not find by themselves.
 */
#include <math.h>
#include <stdint.h>

#define FL LANES(float)
/* Vectors of pixels in a loop with taps: several, so that their sums do not wait for each other. */
#define VECTORS (FL > 8 ? 2 : 4)
#define EACH_VECTOR UNROLL for (int v = 0; v < (int)VECTORS; v++)

#if DCONV_VECTOR_BYTES
typedef int32_t mask_f32 __attribute__((vector_size(DCONV_VECTOR_BYTES)));
/* C has no ?: for vectors, but compilers turn this into compare and blend. Looping over the lanes instead doubled the
 * time of `lines`: where registers are short, GCC takes such vectors apart. */
INLINE vec_f32 select_f32(mask_f32 mask, vec_f32 a, vec_f32 b) {
    return (vec_f32)(((mask_f32)a & mask) | ((mask_f32)b & ~mask));
}
/* a > b ? a : b, also of zeros and NaN. GCC compares and blends for it even where one instruction does it. */
#if defined(__AVX512F__) && DCONV_VECTOR_BYTES == 64
INLINE vec_f32 max_f32(vec_f32 a, vec_f32 b) { return (vec_f32)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec_f32 min_f32(vec_f32 a, vec_f32 b) { return (vec_f32)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__) && DCONV_VECTOR_BYTES == 32
INLINE vec_f32 max_f32(vec_f32 a, vec_f32 b) { return (vec_f32)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vec_f32 min_f32(vec_f32 a, vec_f32 b) { return (vec_f32)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE vec_f32 max_f32(vec_f32 a, vec_f32 b) { return select_f32(a > b, a, b); }
INLINE vec_f32 min_f32(vec_f32 a, vec_f32 b) { return select_f32(a < b, a, b); }
#endif
INLINE vec_f32 minus_f32(vec_f32 a, vec_f32 b) { return a - b; }
INLINE vec_f32 times_f32(float a, vec_f32 b) { return a * b; }
#else
INLINE vec_f32 max_f32(vec_f32 a, vec_f32 b) {
    EACH_LANE(float) a.lane[l] = a.lane[l] > b.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}
INLINE vec_f32 min_f32(vec_f32 a, vec_f32 b) {
    EACH_LANE(float) a.lane[l] = a.lane[l] < b.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}
INLINE vec_f32 minus_f32(vec_f32 a, vec_f32 b) {
    EACH_LANE(float) a.lane[l] -= b.lane[l];
    return a;
}
INLINE vec_f32 times_f32(float a, vec_f32 b) {
    EACH_LANE(float) b.lane[l] *= a;
    return b;
}
#endif

INLINE ptrdiff_t whole_vectors(ptrdiff_t n) { return (n + DCONV_ROW_UNIT - 1) & ~(ptrdiff_t)(DCONV_ROW_UNIT - 1); }

INLINE void weighted(const float *restrict x, const ptrdiff_t *restrict offsets, const float *restrict weight,
                     ptrdiff_t n_taps, float *restrict out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += VECTORS * FL) {
        vec_f32 sum[VECTORS] = {0};
        for (ptrdiff_t k = 0; k < n_taps; k++) {
            const float *tap = x + i + offsets[k];
            EACH_VECTOR sum[v] = scale_add_f32(weight[k], load_f32(tap + v * FL), sum[v]);
        }
        EACH_VECTOR store_f32(out + i + v * FL, sum[v]);
    }
}

/* The numbers of taps that 2-D has are known to the compiler: beginning and ending a loop over two takes longer than
 * they do. */
static void weighted_row(const float *x, const ptrdiff_t *offsets, const float *weight, ptrdiff_t n_taps, float *out,
                         ptrdiff_t n) {
    switch (n_taps) {
    case 2: weighted(x, offsets, weight, 2, out, n); break;
    case 3: weighted(x, offsets, weight, 3, out, n); break;
    case 5: weighted(x, offsets, weight, 5, out, n); break;
    default: weighted(x, offsets, weight, n_taps, out, n);
    }
}

/* `n_parts` is a constant where this is inlined. Of three parts fewer pixels at once: the sums are six. */
#define MOST_PRODUCTS 6
INLINE void products(const float *const *parts, int n_parts, const ptrdiff_t *restrict offsets,
                     const float *restrict weight, ptrdiff_t n_taps, float *restrict out, ptrdiff_t out_step,
                     ptrdiff_t n) {
    const int vectors = n_parts == 3 ? 1 : 2, n_products = n_parts * (n_parts + 1) / 2;
    for (ptrdiff_t i = 0; i < n; i += vectors * FL) {
        UNROLL for (int v = 0; v < vectors; v++) {
            vec_f32 sum[MOST_PRODUCTS] = {0};
            for (ptrdiff_t k = 0; k < n_taps; k++) {
                const ptrdiff_t tap = i + v * FL + offsets[k];
                vec_f32 x[3], weighted_x[3];
                UNROLL for (int a = 0; a < n_parts; a++) {
                    x[a] = load_f32(parts[a] + tap);
                    weighted_x[a] = times_f32(weight[k], x[a]);
                    sum[a] = multiply_add_f32(weighted_x[a], x[a], sum[a]);
                }
                UNROLL for (int a = 0, p = n_parts; a < n_parts; a++) {
                    UNROLL for (int b = a + 1; b < n_parts; b++, p++) {
                        sum[p] = multiply_add_f32(weighted_x[a], x[b], sum[p]);
                    }
                }
            }
            UNROLL for (int p = 0; p < n_products; p++) store_f32(out + p * out_step + i + v * FL, sum[p]);
        }
    }
}

static void products_row(const float *const *parts, ptrdiff_t n_parts, const ptrdiff_t *offsets, const float *weight,
                         ptrdiff_t n_taps, float *out, ptrdiff_t out_step, ptrdiff_t n) {
    if (n_parts == 1) products(parts, 1, offsets, weight, n_taps, out, out_step, n);
    if (n_parts == 2) products(parts, 2, offsets, weight, n_taps, out, out_step, n);
    if (n_parts == 3) products(parts, 3, offsets, weight, n_taps, out, out_step, n);
}

static void difference_row(const float *restrict a, const float *restrict b, float *restrict out, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) out[i] = a[i] - b[i];
}

/* `spreads` is a constant where this is inlined. A branch on `variance` in the loop parted some multiplications
 * from their additions: they were rounded twice in some vectors and once in others. */
INLINE void moments(const float *restrict mean, const float *restrict variance, int spreads,
                    const ptrdiff_t *restrict offsets, const float *restrict weight, ptrdiff_t n_taps,
                    float *restrict out_mean, float *restrict out_variance, ptrdiff_t n) {
    const vec_f32 zero = {0};
    for (ptrdiff_t i = 0; i < n; i += VECTORS * FL) {
        vec_f32 centre[VECTORS] = {0}, spread[VECTORS] = {0};
        for (ptrdiff_t k = 0; k < n_taps; k++) {
            const float *tap = mean + i + offsets[k];
            EACH_VECTOR centre[v] = scale_add_f32(weight[k], load_f32(tap + v * FL), centre[v]);
        }
        for (ptrdiff_t k = 0; k < n_taps; k++) {
            const ptrdiff_t tap = i + offsets[k];
            EACH_VECTOR {
                const vec_f32 apart = minus_f32(load_f32(mean + tap + v * FL), centre[v]);
                const vec_f32 inner = spreads ? load_f32(variance + tap + v * FL) : zero;
                spread[v] = scale_add_f32(weight[k], multiply_add_f32(apart, apart, inner), spread[v]);
            }
        }
        EACH_VECTOR store_f32(out_mean + i + v * FL, centre[v]);
        EACH_VECTOR store_f32(out_variance + i + v * FL, spread[v]);
    }
}

static void moments_row(const float *mean, const float *variance, const ptrdiff_t *offsets, const float *weight,
                        ptrdiff_t n_taps, float *out_mean, float *out_variance, ptrdiff_t n) {
    if (variance) {
        moments(mean, variance, 1, offsets, weight, n_taps, out_mean, out_variance, n);
    } else {
        moments(mean, NULL, 0, offsets, weight, n_taps, out_mean, out_variance, n);
    }
}

static void root_row(float *restrict x, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = sqrtf(x[i] > 0 ? x[i] : 0);
}

/* That pointers are restrict counts for parameters only, so rows are handed over one by one. */
static void magnitude_1_row(const float *restrict a, float *restrict out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) out[i] = fabsf(a[i]);
}

static void magnitude_2_row(const float *restrict a, const float *restrict b, float *restrict out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) out[i] = sqrtf(a[i] * a[i] + b[i] * b[i]);
}

static void magnitude_3_row(const float *restrict a, const float *restrict b, const float *restrict c,
                            float *restrict out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) out[i] = sqrtf(a[i] * a[i] + b[i] * b[i] + c[i] * c[i]);
}

static void magnitude_row(const float *const *parts, ptrdiff_t n_parts, float *out, ptrdiff_t n) {
    n = whole_vectors(n);
    if (n_parts == 1) magnitude_1_row(parts[0], out, n);
    if (n_parts == 2) magnitude_2_row(parts[0], parts[1], out, n);
    if (n_parts == 3) magnitude_3_row(parts[0], parts[1], parts[2], out, n);
}

/* The parts of a structure tensor are squares of the image's values already, and squared once more they leave the range of
 * float32 on images in small units or large ones. So they are scaled before by a power of two, which rounds nothing: that
 * of the larger one, within the range in which its inverse is a normal number, too. */
static void eigenvalues_2_row(const float *restrict xx, const float *restrict yy, const float *restrict xy,
                              float *restrict high, float *restrict low, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const float mean = 0.5f * xx[i] + 0.5f * yy[i], half = 0.5f * xx[i] - 0.5f * yy[i], off = xy[i];
        const float larger = fabsf(half) > fabsf(off) ? fabsf(half) : fabsf(off);
        int32_t bits;
        float up, down;
        memcpy(&bits, &larger, sizeof bits);
        bits &= 0x7f800000;
        bits = bits < 0x00800000 ? 0x00800000 : bits;
        bits = bits > 0x7e000000 ? 0x7e000000 : bits;
        const int32_t inverse = 0x7f000000 - bits;
        memcpy(&down, &bits, sizeof down);
        memcpy(&up, &inverse, sizeof up);
        const float radius = down * sqrtf(half * up * (half * up) + off * up * (off * up));
        high[i] = mean + radius;
        low[i] = mean - radius;
    }
}

/* The eigenvalues are q + 2 p c: q is the mean of the diagonal, p the scale, and c the roots of 4 c^3 - 3 c = r, which
 * are cos((arccos(r) + 2 pi j) / 3). For r >= 0 the largest root lies in [0.866, 1], where three steps of Newton's
 * method from a straight line give all digits without a trigonometric function; the other two follow from it. For
 * r < 0 all roots change sign. In double too: near r = 1, where two eigenvalues meet, half of the digits are lost. */
static void eigenvalues_3_row(const float *restrict xx, const float *restrict yy, const float *restrict zz,
                              const float *restrict xy, const float *restrict xz, const float *restrict yz,
                              float *restrict high, float *restrict middle, float *restrict low, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const double d = xy[i], e = xz[i], f = yz[i], q = ((double)xx[i] + yy[i] + zz[i]) / 3;
        const double a = xx[i] - q, b = yy[i] - q, c = zz[i] - q;
        const double square = (a * a + b * b + c * c + 2 * (d * d + e * e + f * f)) / 6, p = sqrt(square);
        const double half_det = 0.5 * (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e));
        const double cube = square * p, ratio = cube > 0 ? fabs(half_det) / cube : 0, r = ratio < 1 ? ratio : 1;
        double root = 0.8660254037844386 + 0.1339745962155614 * r;
        UNROLL for (int step = 0; step < 3; step++) {
            root -= (root * (4 * root * root - 3) - r) / (12 * root * root - 3);
        }
        const double rest = 1 - root * root, apart = 0.8660254037844386 * sqrt(rest > 0 ? rest : 0);
        const double first = half_det < 0 ? 0.5 * root + apart : root;
        const double last = half_det < 0 ? -root : -0.5 * root - apart;
        high[i] = (float)(q + 2 * p * first);
        middle[i] = (float)(q - 2 * p * (first + last)); /* the roots add up to 0 */
        low[i] = (float)(q + 2 * p * last);
    }
}

static void eigenvalues_row(const float *const *parts, ptrdiff_t size, float *const *out, ptrdiff_t n) {
    n = whole_vectors(n);
    if (size == 3) {
        eigenvalues_3_row(parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], out[0], out[1], out[2], n);
    } else if (size == 2) {
        eigenvalues_2_row(parts[0], parts[1], parts[2], out[0], out[1], n);
    } else {
        memcpy(out[0], parts[0], (size_t)n * sizeof(float));
    }
}

static void extrema_row(const float *restrict x, const ptrdiff_t *restrict offsets, ptrdiff_t n_taps,
                        float *restrict out_max, float *restrict out_min, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += VECTORS * FL) {
        vec_f32 high[VECTORS], low[VECTORS];
        EACH_VECTOR high[v] = low[v] = load_f32(x + i + offsets[0] + v * FL);
        for (ptrdiff_t k = 1; k < n_taps; k++) {
            const float *tap = x + i + offsets[k];
            EACH_VECTOR {
                const vec_f32 neighbour = load_f32(tap + v * FL);
                high[v] = max_f32(high[v], neighbour);
                low[v] = min_f32(low[v], neighbour);
            }
        }
        EACH_VECTOR store_f32(out_max + i + v * FL, minus_f32(high[v], load_f32(x + i + v * FL)));
        EACH_VECTOR store_f32(out_min + i + v * FL, minus_f32(low[v], load_f32(x + i + v * FL)));
    }
}

/* `n_parts` is a constant where this is inlined. Each part is read once for all directions: those of one pixel wait in
 * registers, and so does what has been summed. */
INLINE void mixed(const float *const *parts, int n_parts, const float *restrict weight, float *const *out,
                  ptrdiff_t n_out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += FL) {
        vec_f32 part[6];
        UNROLL for (int c = 0; c < n_parts; c++) part[c] = load_f32(parts[c] + i);
        for (ptrdiff_t o = 0; o < n_out; o++) {
            vec_f32 sum = times_f32(weight[o * n_parts], part[0]);
            UNROLL for (int c = 1; c < n_parts; c++) sum = scale_add_f32(weight[o * n_parts + c], part[c], sum);
            store_f32(out[o] + i, sum);
        }
    }
}

static void mixed_row(const float *const *parts, ptrdiff_t n_parts, const float *weight, float *const *out,
                      ptrdiff_t n_out, ptrdiff_t n) {
    n = whole_vectors(n);
    if (n_parts == 3) mixed(parts, 3, weight, out, n_out, n);
    if (n_parts == 6) mixed(parts, 6, weight, out, n_out, n);
}

/* `n_parts` is 0 where a direction has one part, of weight 1, as a constant where this is inlined. */
INLINE void lines(const float *const *parts, ptrdiff_t n_parts, const ptrdiff_t *restrict offsets,
                  const float *restrict weight, ptrdiff_t n_directions, float *restrict out_max, float *restrict out_min,
                  float *restrict out_mean, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += VECTORS * FL) {
        vec_f32 high[VECTORS] = {0}, low[VECTORS] = {0}, sum[VECTORS] = {0}; /* GCC does not see that o = 0 sets them */
        for (ptrdiff_t o = 0; o < n_directions; o++) {
            vec_f32 response[VECTORS] = {0};
            for (ptrdiff_t c = 0; c < (n_parts ? n_parts : 1); c++) {
                const float w = n_parts ? weight[o * n_parts + c] : 1.0f;
                if (w == 0) continue; /* lines along an axis use few of the second derivatives */
                const float *part = parts[n_parts ? o * n_parts + c : o];
                vec_f32 along[VECTORS] = {0};
                UNROLL for (int k = 0; k < DCONV_LINE_TAPS; k++) {
                    const float *tap = part + i + offsets[o * DCONV_LINE_TAPS + k];
                    EACH_VECTOR along[v] = add_f32(along[v], load_f32(tap + v * FL));
                }
                EACH_VECTOR response[v] = n_parts ? scale_add_f32(w, along[v], response[v]) : along[v];
            }
            EACH_VECTOR high[v] = o ? max_f32(high[v], response[v]) : response[v];
            EACH_VECTOR low[v] = o ? min_f32(low[v], response[v]) : response[v];
            EACH_VECTOR sum[v] = add_f32(sum[v], response[v]);
        }
        EACH_VECTOR store_f32(out_max + i + v * FL, high[v]);
        EACH_VECTOR store_f32(out_min + i + v * FL, low[v]);
        EACH_VECTOR store_f32(out_mean + i + v * FL, times_f32(1.0f / (float)n_directions, sum[v]));
    }
}

static void lines_row(const float *const *parts, ptrdiff_t n_parts, const ptrdiff_t *offsets, const float *weight,
                      ptrdiff_t n_directions, float *const *out, ptrdiff_t n) {
    if (n_parts == 1) {
        lines(parts, 0, offsets, NULL, n_directions, out[0], out[1], out[2], n);
    } else {
        lines(parts, n_parts, offsets, weight, n_directions, out[0], out[1], out[2], n);
    }
}

/* Where a series stays the same, or the filters cancel, a difference of two smoothed values is a few roundings of 2^-24. */
static const float NEGLIGIBLE = 9.5367431640625e-7f; /* 2^-20 */

static void above_row(const float *restrict a, const float *restrict b, float *restrict out, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) out[i] = a[i] - b[i] > NEGLIGIBLE * fabsf(a[i]) ? 1.0f : 0.0f;
}

static void changes_row(const float *restrict marks, float *restrict out, ptrdiff_t n) {
    n = whole_vectors(n);
    for (ptrdiff_t i = 0; i < n; i++) out[i] = fabsf(marks[i + 1] - marks[i]);
}

/* Counted in integers: a sum of floats that runs along the row would wait for each addition, and integers do not round
 * however long the window is, so that no bit depends on where a row begins. */
static void window_sums_row(const float *restrict marks, ptrdiff_t window, float weight, float *restrict out,
                            ptrdiff_t n) {
    int32_t count = 0;
    for (ptrdiff_t k = 0; k < window - 1; k++) count += (int32_t)marks[k];
    for (ptrdiff_t i = 0; i < n; i++) {
        count += (int32_t)marks[i + window - 1];
        out[i] = weight * (float)count;
        count -= (int32_t)marks[i];
    }
}

/* out[p * out_step + f] = in[f * in_step + p] for p < 4, and f < 4 or FEATURES_AT_ONCE */
#if DCONV_VECTOR_BYTES && defined(__SSE__)
#include <immintrin.h>
/* V is a vector of quads: of pixels of one feature before, of features of one pixel behind. All blocks of 4 x 4 in four
 * vectors are transposed at once. */
#define DEFINE_TRANSPOSE(NAME, V, MM, LOAD)                                                                          \
    INLINE V NAME##_pairs(V a, V b, int high) {                                                                      \
        const __typeof__(MM##_castps_pd(a)) x = MM##_castps_pd(a), y = MM##_castps_pd(b);                            \
        return MM##_castpd_ps(high ? MM##_unpackhi_pd(x, y) : MM##_unpacklo_pd(x, y));                               \
    }                                                                                                                \
    INLINE void NAME(const float *restrict in, ptrdiff_t in_step, float *restrict out, ptrdiff_t out_step) {         \
        const V a = LOAD(in, in_step), b = LOAD(in + in_step, in_step);                                              \
        const V c = LOAD(in + 2 * in_step, in_step), d = LOAD(in + 3 * in_step, in_step);                            \
        const V ab_low = MM##_unpacklo_ps(a, b), ab_high = MM##_unpackhi_ps(a, b);                                   \
        const V cd_low = MM##_unpacklo_ps(c, d), cd_high = MM##_unpackhi_ps(c, d);                                   \
        MM##_storeu_ps(out, NAME##_pairs(ab_low, cd_low, 0));                                                        \
        MM##_storeu_ps(out + out_step, NAME##_pairs(ab_low, cd_low, 1));                                             \
        MM##_storeu_ps(out + 2 * out_step, NAME##_pairs(ab_high, cd_high, 0));                                       \
        MM##_storeu_ps(out + 3 * out_step, NAME##_pairs(ab_high, cd_high, 1));                                       \
    }
#define LOAD_QUAD(in, step) _mm_loadu_ps(in)
DEFINE_TRANSPOSE(transpose_4, __m128, _mm, LOAD_QUAD)
/* Quads of every fourth feature are loaded beside each other, which takes no shuffle. */
#if DCONV_VECTOR_BYTES == 64 && defined(__AVX512F__)
#define FEATURES_AT_ONCE 16
INLINE __m512 load_4_quads(const float *in, ptrdiff_t step) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(in));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(in + 4 * step), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(in + 8 * step), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(in + 12 * step), 3);
}
DEFINE_TRANSPOSE(transpose_wide, __m512, _mm512, load_4_quads)
#elif DCONV_VECTOR_BYTES == 32
#define FEATURES_AT_ONCE 8
INLINE __m256 load_2_quads(const float *in, ptrdiff_t step) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in)), _mm_loadu_ps(in + 4 * step), 1);
}
DEFINE_TRANSPOSE(transpose_wide, __m256, _mm256, load_2_quads)
#else
#define FEATURES_AT_ONCE 4
#define transpose_wide transpose_4
#endif
#else
INLINE void transpose_4(const float *restrict in, ptrdiff_t in_step, float *restrict out, ptrdiff_t out_step) {
    for (int p = 0; p < 4; p++) {
        for (int f = 0; f < 4; f++) out[p * out_step + f] = in[f * in_step + p];
    }
}
#define transpose_wide transpose_4
#define FEATURES_AT_ONCE 4
#endif

/* Four pixels at a time, with all their features: so `out` is written in order, and the cache lines of the planes, of
 * sixteen pixels each, stay in the L1 cache until they are used up. */
static void interleave_row(const float *restrict planes, ptrdiff_t plane_step, ptrdiff_t n_planes, float *restrict out,
                           ptrdiff_t out_step, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += 4) {
        const ptrdiff_t pixels = n - i < 4 ? n - i : 4;
        const float *from = planes + i;
        float *to = out + i * out_step;
        ptrdiff_t f = 0;
        if (pixels == 4) {
            for (; f + FEATURES_AT_ONCE <= n_planes; f += FEATURES_AT_ONCE) {
                transpose_wide(from + f * plane_step, plane_step, to + f, out_step);
            }
            for (; f + 4 <= n_planes; f += 4) transpose_4(from + f * plane_step, plane_step, to + f, out_step);
            if (f < n_planes && n_planes >= 4) { /* the last four, some of them once more: two numbers alone take longer */
                f = n_planes - 4;
                transpose_4(from + f * plane_step, plane_step, to + f, out_step);
                f = n_planes;
            }
        }
        for (; f < n_planes; f++) {
            for (ptrdiff_t p = 0; p < pixels; p++) to[p * out_step + f] = from[f * plane_step + p];
        }
    }
}

#define FEATURE_ROWS                                                                                                 \
    {.weighted = weighted_row,                                                                                       \
     .products = products_row,                                                                                       \
     .difference = difference_row,                                                                                   \
     .mixed = mixed_row,                                                                                             \
     .moments = moments_row,                                                                                         \
     .root = root_row,                                                                                               \
     .magnitude = magnitude_row,                                                                                     \
     .eigenvalues = eigenvalues_row,                                                                                 \
     .extrema = extrema_row,                                                                                         \
     .lines = lines_row,                                                                                             \
     .above = above_row,                                                                                             \
     .changes = changes_row,                                                                                         \
     .window_sums = window_sums_row,                                                                                 \
     .interleave = interleave_row}
