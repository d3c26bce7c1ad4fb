/* Softmax of few classes: rows of 4, relative to a class that they do not hold. Pixels are turned from rows into columns,
 * so that nothing is added across lanes and 5 exponentials serve WIDTH pixels.
 */
#if WIDTH == 8
#define UNPACK_LOW(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define UNPACK_HIGH(a, b) SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define PAIRS_LOW(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define PAIRS_HIGH(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#if defined(__clang__) || __GNUC__ >= 12
#define JOIN_HALVES(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7)
#define LOWER_HALF(x) __builtin_shufflevector(x, x, 0, 1, 2, 3)
#define UPPER_HALF(x) __builtin_shufflevector(x, x, 4, 5, 6, 7)
#else
typedef union {
    lanes whole;
    lanes_4 half[2];
} halves;
#define JOIN_HALVES(a, b) ((halves){.half = {a, b}}).whole
#define LOWER_HALF(x) ((halves){.whole = x}).half[0]
#define UPPER_HALF(x) ((halves){.whole = x}).half[1]
#endif
#elif WIDTH == 4
#define UNPACK_LOW(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define UNPACK_HIGH(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#define PAIRS_LOW(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define PAIRS_HIGH(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
#endif

/* Turn 4 x 4 floats, in each half of 8 lanes by itself. */
INLINE void turn(lanes *x) {
#if WIDTH > 1
    const lanes a = UNPACK_LOW(x[0], x[1]), b = UNPACK_HIGH(x[0], x[1]);
    const lanes c = UNPACK_LOW(x[2], x[3]), d = UNPACK_HIGH(x[2], x[3]);
    x[0] = PAIRS_LOW(a, c);
    x[1] = PAIRS_HIGH(a, c);
    x[2] = PAIRS_LOW(b, d);
    x[3] = PAIRS_HIGH(b, d);
#else
    (void)x;
#endif
}

/* Vector i of 4 holds row i, and in 8 lanes row i + 4 behind it. */
INLINE void load_rows(const float *z, lanes *x) {
    UNROLL for (ptrdiff_t i = 0; i < 4; i++) {
#if WIDTH == 8
        x[i] = JOIN_HALVES(load_4(z + 4 * i), load_4(z + 4 * (i + 4)));
#else
        x[i] = load(z + i * WIDTH);
#endif
    }
}

INLINE void store_rows(float *z, const lanes *x) {
    UNROLL for (ptrdiff_t i = 0; i < 4; i++) {
#if WIDTH == 8
        store_4(z + 4 * i, LOWER_HALF(x[i]));
        store_4(z + 4 * (i + 4), UPPER_HALF(x[i]));
#else
        store(z + i * WIDTH, x[i]);
#endif
    }
}

/* z of each class but 0 becomes its probability, and that of class 0 goes to `base`: from a difference of the two a small
 * probability would come back with few digits, or below 0. */
INLINE void softmax_few(float *z, float *base) {
    for (ptrdiff_t l = 0; l < DCONV_CRF_GROUP; l += WIDTH) {
        const lanes zero = {0};
        lanes x[4];
        load_rows(z + 4 * l, x);
        turn(x);
        const lanes shift = larger(larger(larger(x[0], x[1]), larger(x[2], x[3])), zero);
        lanes first = exp2_lanes(zero - shift), sum = first;
        UNROLL for (int i = 0; i < 4; i++) {
            x[i] = exp2_lanes(x[i] - shift);
            sum += x[i];
        }
        const lanes inverse = 1.0f / sum;
        first *= inverse;
        store(base + l, first);
        UNROLL for (int i = 0; i < 4; i++) x[i] *= inverse;
        turn(x);
        store_rows(z + 4 * l, x);
    }
}
