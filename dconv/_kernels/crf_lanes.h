/* Vectors of WIDTH floats for the loops of the CRF: 8 or 4, or 1, which is a plain float and needs no extension of C.
 * Included once per width, with LANED(x) giving every name its suffix. A mask is all ones (-1) where it holds, else 0.
 */
#define lanes LANED(lanes)
#define lanes_plain LANED(lanes_plain)
#define lanes_int LANED(lanes_int)
#define lanes_unsigned LANED(lanes_unsigned)
#define as_bits LANED(as_bits)
#define as_real LANED(as_real)
#define to_int LANED(to_int)
#define to_real LANED(to_real)
#define load LANED(load)
#define store LANED(store)
#define select LANED(select)
#define larger LANED(larger)
#define nearest LANED(nearest)
#define exp2_lanes LANED(exp2_lanes)
#define log2_lanes LANED(log2_lanes)
#define sums_of LANED(sums_of)
#define maxima_of LANED(maxima_of)

#undef MASK
#if WIDTH == 1
typedef float lanes;
typedef int32_t lanes_int;
typedef uint32_t lanes_unsigned;
INLINE lanes_int as_bits(lanes x) {
    lanes_int i;
    memcpy(&i, &x, sizeof i);
    return i;
}
INLINE lanes as_real(lanes_int i) {
    lanes x;
    memcpy(&x, &i, sizeof x);
    return x;
}
INLINE lanes_int to_int(lanes x) { return (lanes_int)x; }
INLINE lanes to_real(lanes_int i) { return (lanes)i; }
#define MASK(comparison) (-(comparison))
#else
typedef float lanes __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef float lanes_plain __attribute__((vector_size(4 * WIDTH))); /* what the compiler's own functions take */
typedef int32_t lanes_int __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint32_t lanes_unsigned __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
INLINE lanes_int as_bits(lanes x) { return (lanes_int)x; }
INLINE lanes as_real(lanes_int i) { return (lanes)i; }
INLINE lanes_int to_int(lanes x) { return __builtin_convertvector(x, lanes_int); }
INLINE lanes to_real(lanes_int i) { return __builtin_convertvector(i, lanes); }
#define MASK(comparison) (comparison)
#endif

/* Not memcpy, which GCC takes apart into halves, and waits for them. */
INLINE lanes load(const float *p) { return *(const lanes *)p; }
INLINE void store(float *p, lanes x) { *(lanes *)p = x; }
INLINE lanes select(lanes_int mask, lanes a, lanes b) { return as_real((as_bits(a) & mask) | (as_bits(b) & ~mask)); }
/* One instruction of x86, which GCC does not find. */
INLINE lanes larger(lanes a, lanes b) {
#if WIDTH == 8 && defined(__AVX__)
    return (lanes)__builtin_ia32_maxps256((lanes_plain)a, (lanes_plain)b);
#elif WIDTH == 4 && defined(__SSE__)
    return (lanes)__builtin_ia32_maxps((lanes_plain)a, (lanes_plain)b);
#else
    return select(MASK(a > b), a, b);
#endif
}

/* To the nearest integer, for |x| < 2^22: adding 1.5 * 2^23 leaves no bit for a fraction. */
#define ROUNDER 12582912.0f
INLINE lanes nearest(lanes x) { return (x + ROUNDER) - ROUNDER; }

/* 2^x for x <= 127, relative error 2e-7. Below -80 it is 2^-80: probabilities so small change nothing, and with smaller
 * ones products with small weights would be denormal numbers, which take CPUs many times longer. */
INLINE lanes exp2_lanes(lanes x) {
    x = larger(x, (lanes){0} - 80.0f);
    const lanes shifted = x + ROUNDER, f = x - (shifted - ROUNDER);
    lanes p = f * 1.3264727e-3f + 9.6715126e-3f; /* the least relative error that this degree allows */
    p = p * f + 5.5507337e-2f;
    p = p * f + 2.4022242e-1f;
    p = p * f + 6.9314698e-1f;
    p = p * f + 1.0f;
    /* The rounded x stands in the low bits of `shifted`; moved to the exponent, all others fall off. */
    return as_real((lanes_int)((lanes_unsigned)as_bits(p) + ((lanes_unsigned)as_bits(shifted) << 23)));
}

/* log2(x) for normal x > 0, absolute error 1e-7 and the rounding of the result: x = 2^e m with m from sqrt(1/2) to sqrt(2),
 * and log(m) = 2 artanh((m - 1) / (m + 1)). */
INLINE lanes log2_lanes(lanes x) {
    const lanes_int exponent = (as_bits(x) - 0x3f3504f3) >> 23;
    const lanes m = as_real((lanes_int)((lanes_unsigned)as_bits(x) - ((lanes_unsigned)exponent << 23)));
    const lanes t = (m - 1.0f) / (m + 1.0f), s = t * t;
    lanes p = s * 0.32059890f + 0.41219859f; /* 2 / (9 log 2), 2 / (7 log 2), ... */
    p = p * s + 0.57707802f;
    p = p * s + 0.96179669f;
    p = p * s + 2.8853901f;
    return p * t + to_real(exponent);
}

/* Sum and maximum of each of WIDTH vectors, in one: neighbours are paired, then pairs, then, in 8 lanes, the halves. */
#if WIDTH == 1
INLINE lanes sums_of(lanes *x) { return x[0]; }
INLINE lanes maxima_of(lanes *x) { return x[0]; }
#else
#if WIDTH == 8
#define EVEN(a, b) SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14)
#define ODD(a, b) SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15)
#define LOWER(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define UPPER(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#else
#define EVEN(a, b) SHUFFLE(a, b, 0, 2, 4, 6)
#define ODD(a, b) SHUFFLE(a, b, 1, 3, 5, 7)
#define LOWER(a, b) (a)
#define UPPER(a, b) (a)
#endif
#define DEFINE_FOLD(name, JOIN)                                                                                      \
    INLINE lanes name(lanes *x) {                                                                                    \
        UNROLL for (int n = WIDTH; n > WIDTH / 4; n /= 2)                                                            \
            UNROLL for (int i = 0; i < n / 2; i++)                                                                   \
                x[i] = JOIN(EVEN(x[2 * i], x[2 * i + 1]), ODD(x[2 * i], x[2 * i + 1]));                              \
        if (WIDTH == 8) x[0] = JOIN(LOWER(x[0], x[1]), UPPER(x[0], x[1]));                                           \
        return x[0];                                                                                                 \
    }
#define PLUS(a, b) ((a) + (b))
DEFINE_FOLD(sums_of, PLUS)
DEFINE_FOLD(maxima_of, larger)
#undef DEFINE_FOLD
#undef PLUS
#undef EVEN
#undef ODD
#undef LOWER
#undef UPPER
#endif
