/* The innermost loops at one CPU level: DCONV_LEVEL names it, DCONV_VECTOR_BYTES is the width of its vectors.
 * Compiled once per level by setup.py. The loops are in microkernel_loops.h, included for float and for double.
 */
#include "microkernel.h"

#include <stdint.h>
#include <string.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME_(level) #level
#define NAME(level) NAME_(level)

#if defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 32")
#define UNROLL_TAPS _Pragma("GCC unroll 2") /* 2 % faster than not at all; more gains nothing */
#define INLINE static inline __attribute__((always_inline))
#else
#define UNROLL
#define UNROLL_TAPS
#define INLINE static inline
#endif

/* Keep a vector that several multiply-adds use in a register: GCC would load it again for each. */
#if defined(__GNUC__) && defined(__x86_64__) && DCONV_VECTOR_BYTES > 0 && DCONV_VECTOR_BYTES <= 32
#define KEEP(v) __asm__("" : "+x"(v))
#elif defined(__GNUC__) && defined(__AVX512F__) && DCONV_VECTOR_BYTES == 64
#define KEEP(v) __asm__("" : "+v"(v))
#else
#define KEEP(v)
#endif

/* Fetch the cache line at this address, which need not exist, to be written; or to be read, into the L2 cache. */
#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch((const void *)(address), 1)
#define FETCH(address) __builtin_prefetch((const void *)(address), 0, 2)
#else
#define PREFETCH(address) (void)(address)
#define FETCH(address) (void)(address)
#endif

/* Vectors written past the caches, in whole cache lines: nobody reads them soon, and a line need not be fetched before it
 * is written, which takes as long as writing it. The fence makes them visible to who waits for this thread. */
#if defined(__GNUC__) && defined(__x86_64__) && DCONV_VECTOR_BYTES >= 32
#include <immintrin.h>
#define CAN_STREAM 1
#define STREAM_FENCE() _mm_sfence()
INLINE void stream_bytes(void *p, const void *v, size_t size) {
#if defined(__AVX512F__)
    if (size == 64) {
        _mm512_stream_si512((__m512i *)p, _mm512_loadu_si512(v));
        return;
    }
#endif
    for (size_t i = 0; i + 32 <= size; i += 32) {
        _mm256_stream_si256((__m256i *)((char *)p + i), _mm256_loadu_si256((const __m256i *)((const char *)v + i)));
    }
}
#else
#define CAN_STREAM 0
#define STREAM_FENCE() (void)0
#define stream_bytes memcpy
#endif

/* Whether the numbers of a vector can be permuted by one instruction: SSE has none, and of clang it cannot be asked. */
#if defined(__GNUC__) && !defined(__clang__) && DCONV_VECTOR_BYTES >= 32
#define CAN_SHARE 1
#else
#define CAN_SHARE 0
#endif

/* A vector is GCC's and clang's vector extension, or for other compilers a struct of lanes and loops over them,
 * which they may vectorise or not. The loops see only these words; S tells the type and width. */
#if DCONV_VECTOR_BYTES
/* With a and b side by side, add the lower to the upper half of every 2 * half lanes. */
#if defined(__clang__)
#define DEFINE_ADD_HALVES_(T, S)                                                                                     \
    INLINE vec_##S add_halves_##S(vec_##S a, vec_##S b, ptrdiff_t half) {                                            \
        vec_##S sum;                                                                                                 \
        for (ptrdiff_t l = 0; l < LANES(T); l++) {                                                                   \
            const ptrdiff_t lower = l / half * 2 * half + l % half, upper = lower + half;                            \
            sum[l] = lower < LANES(T) ? a[lower] + a[upper] : b[lower - LANES(T)] + b[upper - LANES(T)];             \
        }                                                                                                            \
        return sum;                                                                                                  \
    }
#else /* GCC needs to be told that these are two shuffles */
#define DEFINE_ADD_HALVES_(T, S)                                                                                     \
    INLINE vec_##S add_halves_##S(vec_##S a, vec_##S b, ptrdiff_t half) {                                            \
        __typeof__(a == b) lower, upper; /* vectors of integers */                                                   \
        UNROLL for (ptrdiff_t l = 0; l < LANES(T); l++) {                                                            \
            lower[l] = l / half * 2 * half + l % half;                                                               \
            upper[l] = lower[l] + half;                                                                              \
        }                                                                                                            \
        return __builtin_shuffle(a, b, lower) + __builtin_shuffle(a, b, upper);                                      \
    }
#endif
/* The numbers at p[index[l]], all within the vector at p, which is read whole. */
#if defined(__clang__)
#define DEFINE_PICK_(T, S)                                                                                           \
    INLINE vec_##S pick_##S(const T *p, index_##S index) {                                                           \
        vec_##S picked;                                                                                              \
        for (ptrdiff_t l = 0; l < LANES(T); l++) picked[l] = p[index[l]];                                            \
        return picked;                                                                                               \
    }
#else
#define DEFINE_PICK_(T, S)                                                                                           \
    INLINE vec_##S pick_##S(const T *p, index_##S index) { return __builtin_shuffle(load_##S(p), index); }
#endif
#define DEFINE_INDEX_(T, S)                                                                                          \
    typedef __typeof__((vec_##S){0} < (vec_##S){0}) index_##S;                                                       \
    INLINE index_##S index_of_##S(const ptrdiff_t *places) {                                                         \
        index_##S index;                                                                                             \
        for (ptrdiff_t l = 0; l < LANES(T); l++) index[l] = places[l];                                               \
        return index;                                                                                                \
    }                                                                                                                \
    DEFINE_PICK_(T, S)
#define LANES(T) ((ptrdiff_t)(DCONV_VECTOR_BYTES / sizeof(T)))
#define DEFINE_VECTOR_(T, S, BYTES)                                                                                  \
    typedef T vec_##S __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));                            \
    INLINE vec_##S load_##S(const T *p) { return *(const vec_##S *)p; }                                              \
    INLINE void store_##S(T *p, vec_##S v) { *(vec_##S *)p = v; }                                                    \
    INLINE void stream_##S(T *p, vec_##S v) { stream_bytes(p, &v, sizeof v); }                                       \
    INLINE vec_##S spread_##S(T a) { return a - (vec_##S){0}; } /* of -0, too */                                    \
    INLINE vec_##S add_##S(vec_##S a, vec_##S b) { return a + b; }                                                   \
    INLINE vec_##S multiply_add_##S(vec_##S a, vec_##S b, vec_##S c) { return a * b + c; }                           \
    INLINE vec_##S scale_add_##S(T a, vec_##S b, vec_##S c) { return a * b + c; }                                    \
    INLINE vec_##S relu_##S(vec_##S v) { /* NaN is not negative */                                                   \
        const __typeof__(v < v) negative = v < (T)0;                                                                 \
        return (vec_##S)(~negative & (__typeof__(v < v))v);                                                          \
    }                                                                                                                \
    DEFINE_PUT(T, S)
#else
#define LANES(T) ((ptrdiff_t)(32 / sizeof(T)))
#define EACH_LANE(T) for (ptrdiff_t l = 0; l < LANES(T); l++)
#define DEFINE_ADD_HALVES_(T, S)                                                                                     \
    INLINE vec_##S add_halves_##S(vec_##S a, vec_##S b, ptrdiff_t half) {                                            \
        T both[64 / sizeof(T)];                                                                                      \
        store_##S(both, a);                                                                                          \
        store_##S(both + LANES(T), b);                                                                               \
        EACH_LANE(T) {                                                                                               \
            const ptrdiff_t lower = l / half * 2 * half + l % half;                                                  \
            a.lane[l] = both[lower] + both[lower + half];                                                            \
        }                                                                                                            \
        return a;                                                                                                    \
    }
#define DEFINE_INDEX_(T, S)                                                                                          \
    typedef struct {                                                                                                 \
        ptrdiff_t lane[32 / sizeof(T)];                                                                              \
    } index_##S;                                                                                                     \
    INLINE index_##S index_of_##S(const ptrdiff_t *places) {                                                         \
        index_##S index;                                                                                             \
        memcpy(&index, places, sizeof index);                                                                        \
        return index;                                                                                                \
    }                                                                                                                \
    INLINE vec_##S pick_##S(const T *p, index_##S index) {                                                           \
        vec_##S picked;                                                                                              \
        EACH_LANE(T) picked.lane[l] = p[index.lane[l]];                                                              \
        return picked;                                                                                               \
    }
#define DEFINE_VECTOR_(T, S, BYTES)                                                                                  \
    typedef struct {                                                                                                 \
        T lane[32 / sizeof(T)];                                                                                      \
    } vec_##S;                                                                                                       \
    INLINE vec_##S load_##S(const T *p) {                                                                            \
        vec_##S v;                                                                                                   \
        memcpy(&v, p, sizeof v);                                                                                     \
        return v;                                                                                                    \
    }                                                                                                                \
    INLINE void store_##S(T *p, vec_##S v) { memcpy(p, &v, sizeof v); }                                              \
    INLINE void stream_##S(T *p, vec_##S v) { stream_bytes(p, &v, sizeof v); }                                       \
    INLINE vec_##S spread_##S(T a) {                                                                                 \
        vec_##S v;                                                                                                   \
        EACH_LANE(T) v.lane[l] = a;                                                                                  \
        return v;                                                                                                    \
    }                                                                                                                \
    INLINE vec_##S add_##S(vec_##S a, vec_##S b) {                                                                   \
        EACH_LANE(T) a.lane[l] += b.lane[l];                                                                         \
        return a;                                                                                                    \
    }                                                                                                                \
    INLINE vec_##S multiply_add_##S(vec_##S a, vec_##S b, vec_##S c) {                                               \
        EACH_LANE(T) c.lane[l] += a.lane[l] * b.lane[l];                                                             \
        return c;                                                                                                    \
    }                                                                                                                \
    INLINE vec_##S scale_add_##S(T a, vec_##S b, vec_##S c) {                                                        \
        EACH_LANE(T) c.lane[l] += a * b.lane[l];                                                                     \
        return c;                                                                                                    \
    }                                                                                                                \
    INLINE vec_##S relu_##S(vec_##S v) {                                                                             \
        EACH_LANE(T) v.lane[l] = v.lane[l] < 0 ? 0 : v.lane[l];                                                      \
        return v;                                                                                                    \
    }                                                                                                                \
    DEFINE_PUT(T, S)
#endif
/* Write the first `n` lanes, or all if there are not more. */
#define DEFINE_PUT(T, S)                                                                                             \
    INLINE void put_##S(T *out, vec_##S v, ptrdiff_t n) {                                                            \
        const ptrdiff_t n_lanes = sizeof v / sizeof(T);                                                              \
        if (n >= n_lanes) {                                                                                          \
            store_##S(out, v);                                                                                       \
        } else { /* in pieces of 8, 4, 2 and 1 lanes, as n is their sum */                                           \
            T lanes[sizeof v / sizeof(T)], *lane = lanes;                                                            \
            store_##S(lane, v);                                                                                      \
            UNROLL for (ptrdiff_t half = n_lanes / 2; half > 0; half /= 2) {                                         \
                if (n & half) {                                                                                      \
                    memcpy(out, lane, half * sizeof(T));                                                             \
                    out += half;                                                                                     \
                    lane += half;                                                                                    \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
    }
/* These expand S before it is joined to a name. */
#define DEFINE_VECTOR(T, S, BYTES) DEFINE_VECTOR_(T, S, BYTES)
#define DEFINE_ADD_HALVES(T, S) DEFINE_ADD_HALVES_(T, S)
#define DEFINE_INDEX(T, S) DEFINE_INDEX_(T, S)

#define REAL float
#define SUFFIX f32
#include "microkernel_loops.h"
#undef REAL
#undef SUFFIX

#define REAL double
#define SUFFIX f64
#include "microkernel_loops.h"

#include "feature_rows_loops.h"
#include "activation_rows_loops.h"
#include "crf_rows_loops.h"
#include "tree_rows_loops.h"
#include "rocket_rows_loops.h"
#include "winograd_rows_loops.h"

#define ENTRIES(T, SUFFIX)                                                                                           \
    .block_##SUFFIX = 2 * LANES(T), .lanes_##SUFFIX = LANES(T), .conv_row_##SUFFIX = conv_row_##SUFFIX,              \
    .dot_row_##SUFFIX = dot_row_##SUFFIX, .lanewise_row_##SUFFIX = lanewise_row_##SUFFIX,           \
    .shares_##SUFFIX = CAN_SHARE, .shared_row_##SUFFIX = shared_row_##SUFFIX

const dconv_microkernel JOIN(dconv_microkernel, DCONV_LEVEL) = {
    .name = NAME(DCONV_LEVEL), ENTRIES(float, f32), ENTRIES(double, f64), .rows = FEATURE_ROWS,
    .activations = ACTIVATION_ROWS, .crf = CRF_ROWS, .trees = TREE_ROWS, .rocket = ROCKET_ROWS,
    .winograd = WINOGRAD_ROWS};
