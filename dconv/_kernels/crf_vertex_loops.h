/* What is done to the rows of lattice vertices, WIDTH floats at a time. Included once per width. */
#define BLOCK 4

/* Copy the rows of `n` vertices side by side. */
static void LANED(fetch)(const float *values, const int32_t *vertices, ptrdiff_t n, ptrdiff_t row, float *out) {
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t c = 0; c < row; c += WIDTH) store(out + i * row + c, load(values + (size_t)vertices[i] * row + c));
}

static void LANED(gather)(const float *sums, const int32_t *list, const int64_t *first, ptrdiff_t row, ptrdiff_t begin,
                          ptrdiff_t end, float *values) {
    for (ptrdiff_t v = begin; v < end; v++) {
        for (ptrdiff_t c = 0; c < row; c += WIDTH) {
            lanes sum = load(sums + (size_t)list[first[v]] * row + c);
            for (int64_t k = first[v] + 1; k < first[v + 1]; k++) sum += load(sums + (size_t)list[k] * row + c);
            store(values + (size_t)v * row + c, sum);
        }
    }
}

INLINE void LANED(blur_block)(const ptrdiff_t n, const int32_t *chains, ptrdiff_t length, ptrdiff_t row, float *values) {
    for (ptrdiff_t i = 0; i < length; i++) {
        lanes before[BLOCK], here[BLOCK];
        float *place = values + (size_t)chains[i] * row;
        UNROLL for (ptrdiff_t v = 0; v < n; v++) before[v] = (lanes){0}, here[v] = load(place + v * WIDTH);
        for (int32_t next = 0; next >= 0;) {
            next = chains[++i];
            float *other = values + (size_t)(next < 0 ? ~next : next) * row;
            UNROLL for (ptrdiff_t v = 0; v < n; v++) {
                const lanes after = load(other + v * WIDTH);
                store(place + v * WIDTH, (before[v] + after) * 0.5f + here[v]);
                before[v] = here[v];
                here[v] = after;
            }
            place = other;
        }
        UNROLL for (ptrdiff_t v = 0; v < n; v++) store(place + v * WIDTH, before[v] * 0.5f + here[v]);
    }
}

static void LANED(blur)(const int32_t *chains, ptrdiff_t length, ptrdiff_t row, float *values) {
    for (ptrdiff_t c = 0; c < row; c += BLOCK * WIDTH) {
        switch (row / WIDTH - c / WIDTH) {
            case 1: LANED(blur_block)(1, chains, length, row, values + c); break;
            case 2: LANED(blur_block)(2, chains, length, row, values + c); break;
            case 3: LANED(blur_block)(3, chains, length, row, values + c); break;
            default: LANED(blur_block)(BLOCK, chains, length, row, values + c);
        }
    }
}
#undef BLOCK
