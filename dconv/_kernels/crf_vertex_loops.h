/* What is done to the rows of lattice vertices, WIDTH floats at a time. Included once per width. */
#define BLOCK 4

/* f, of up to BLOCK vectors of a row at a time, which begin at float c. */
#define BY_BLOCKS(f, ...)                                                                                            \
    for (ptrdiff_t c = 0; c < row; c += BLOCK * WIDTH) {                                                             \
        switch (row / WIDTH - c / WIDTH) {                                                                           \
            case 1: LANED(f)(1, __VA_ARGS__); break;                                                                 \
            case 2: LANED(f)(2, __VA_ARGS__); break;                                                                 \
            case 3: LANED(f)(3, __VA_ARGS__); break;                                                                 \
            default: LANED(f)(BLOCK, __VA_ARGS__);                                                                   \
        }                                                                                                            \
    }

/* Copy the rows of `n` vertices side by side. */
static void LANED(fetch)(const float *values, const int32_t *vertices, ptrdiff_t n, ptrdiff_t row, float *out) {
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t c = 0; c < row; c += WIDTH) store(out + i * row + c, load(values + (size_t)vertices[i] * row + c));
}

/* Chains and lists of rows are short and of any length. What ends them is counted in by a factor of 0, as no CPU foresees
 * such branches. */
INLINE void LANED(gather_block)(const ptrdiff_t n, const float *sums, const int32_t *list, ptrdiff_t length, ptrdiff_t row,
                                float *values) {
    lanes sum[BLOCK];
    float keep = 0;
    UNROLL for (ptrdiff_t v = 0; v < n; v++) sum[v] = (lanes){0};
    for (ptrdiff_t i = 0; i < length; i++) {
        const int32_t last = list[i] >> 31;
        const float *part = sums + (size_t)(list[i] ^ last) * row;
        UNROLL for (ptrdiff_t v = 0; v < n; v++) {
            sum[v] = sum[v] * keep + load(part + v * WIDTH);
            store(values + v * WIDTH, sum[v]);
        }
        values += row & last;
        keep = (float)(1 + last);
    }
}

static void LANED(gather)(const float *sums, const int32_t *list, ptrdiff_t length, ptrdiff_t row, float *values) {
    BY_BLOCKS(gather_block, sums + c, list, length, row, values + c)
}

INLINE void LANED(blur_block)(const ptrdiff_t n, const int32_t *chains, ptrdiff_t length, ptrdiff_t row, float *values) {
    lanes before[BLOCK], here[BLOCK];
    float *place = values + (size_t)chains[0] * row;
    UNROLL for (ptrdiff_t v = 0; v < n; v++) before[v] = (lanes){0}, here[v] = load(place + v * WIDTH);
    for (ptrdiff_t i = 1; i < length; i++) {
        const float goes_on = (float)(1 + (chains[i - 1] >> 31));
        float *other = values + (size_t)(chains[i] ^ chains[i] >> 31) * row;
        UNROLL for (ptrdiff_t v = 0; v < n; v++) {
            const lanes after = load(other + v * WIDTH);
            store(place + v * WIDTH, (after * goes_on + before[v]) * 0.5f + here[v]);
            before[v] = here[v] * goes_on;
            here[v] = after;
        }
        place = other;
    }
    UNROLL for (ptrdiff_t v = 0; v < n; v++) store(place + v * WIDTH, before[v] * 0.5f + here[v]);
}

static void LANED(blur)(const int32_t *chains, ptrdiff_t length, ptrdiff_t row, float *values) {
    BY_BLOCKS(blur_block, chains, length, row, values + c)
}
#undef BLOCK
#undef BY_BLOCKS
