/* The mean-field pass over rows of classes, WIDTH floats at a time.
 *
 * Eight pixels pass through three stages in the L1 cache: slice (z = unary + sum of weight * row of the corner), softmax,
 * and splat (row of the corner += weight * q). Vectors of a row that are taken together, up to BLOCK, stay in registers
 * while the corners run. Included once per width.
 */
#define BLOCK 4
#define GROUP DCONV_CRF_GROUP

/* z[l] = unary[l] + sum_k weights[k, l] * values[ids[k, l]], n vectors of each row from vector `first` on. `inside`, if not
 * NULL: the lanes of the last vector that are classes; the others, which lie in the next pixel, are made impossible. */
INLINE void LANED(slice)(const ptrdiff_t n, ptrdiff_t first, const ptrdiff_t row, const ptrdiff_t n_entries,
                         const float *values, const uint16_t *ids, const float *weights, const float *const *unary, const lanes_int *inside, float *z) {
    for (ptrdiff_t l = 0; l < GROUP; l++) {
        lanes sum[BLOCK];
        UNROLL for (ptrdiff_t v = 0; v < n; v++) sum[v] = load(unary[l] + (first + v) * WIDTH);
        if (values) {
            UNROLL for (ptrdiff_t k = 0; k < n_entries; k++) {
                const float *value = values + (size_t)ids[k * GROUP + l] * row + first * WIDTH;
                const float weight = weights[k * GROUP + l];
                UNROLL for (ptrdiff_t v = 0; v < n; v++) sum[v] += weight * load(value + v * WIDTH);
            }
        }
        if (inside) sum[n - 1] = select(*inside, sum[n - 1], (lanes){0} - 1e30f);
        UNROLL for (ptrdiff_t v = 0; v < n; v++) store(z + l * row + (first + v) * WIDTH, sum[v]);
    }
}

INLINE void LANED(splat)(const ptrdiff_t n, ptrdiff_t first, const ptrdiff_t row, const ptrdiff_t n_entries,
                         float *sums, const uint16_t *ids,
                         const float *weights, const float *z) {
    for (ptrdiff_t l = 0; l < GROUP; l++) {
        lanes q[BLOCK];
        UNROLL for (ptrdiff_t v = 0; v < n; v++) q[v] = load(z + l * row + (first + v) * WIDTH);
        UNROLL for (ptrdiff_t k = 0; k < n_entries; k++) {
            float *sum = sums + (size_t)ids[k * GROUP + l] * row + first * WIDTH;
            const float weight = weights[k * GROUP + l];
            UNROLL for (ptrdiff_t v = 0; v < n; v++) store(sum + v * WIDTH, load(sum + v * WIDTH) + weight * q[v]);
        }
    }
}

/* Softmax of GROUP rows of n vectors but for the division, whose reciprocal goes to `inverse`. */
INLINE void LANED(softmax)(const ptrdiff_t n, ptrdiff_t row, float *z, float *inverse) {
    for (ptrdiff_t l = 0; l < GROUP; l += WIDTH) {
        lanes each[WIDTH];
        float shift[WIDTH];
        UNROLL for (ptrdiff_t i = 0; i < WIDTH; i++) {
            each[i] = load(z + (l + i) * row);
            for (ptrdiff_t v = 1; v < n; v++) each[i] = larger(each[i], load(z + (l + i) * row + v * WIDTH));
        }
        store(shift, maxima_of(each));
        UNROLL for (ptrdiff_t i = 0; i < WIDTH; i++) {
            float *place = z + (l + i) * row;
            for (ptrdiff_t v = 0; v < n; v++) {
                const lanes power = exp2_lanes(load(place + v * WIDTH) - shift[i]);
                store(place + v * WIDTH, power);
                if (v) each[i] += power;
                else each[i] = power;
            }
        }
        store(inverse + l, 1.0f / sums_of(each));
    }
}

/* Write the probabilities of n classes, which are `part` times `factor`, and keep the largest change. */
INLINE void LANED(finish)(const float *part, float factor, ptrdiff_t n, float *q, float *change) {
    float most = change ? *change : 0;
    for (ptrdiff_t c = 0; change && c < n; c++) most = fmaxf(most, fabsf(part[c] * factor - q[c]));
    for (ptrdiff_t c = 0; c < n; c++) q[c] = part[c] * factor;
    if (change) *change = most;
}

/* n_vectors is a constant where this is inlined, or more than BLOCK. */
INLINE void LANED(pass)(const dconv_crf_run *run, const ptrdiff_t n_vectors, const ptrdiff_t n_entries,
                        const int relative) {
    const ptrdiff_t row = n_vectors * WIDTH, whole = (n_vectors - 1) / BLOCK * BLOCK, rest = n_vectors - whole;
    const float *const values = run->values;
    float *const sums = run->sums, *const z = run->scratch, *const scaled = z + GROUP * row, inverse[GROUP], base[GROUP];
    int32_t classes[WIDTH];
    lanes_int mask;
    for (ptrdiff_t i = 0; i < WIDTH; i++) classes[i] = -(row - WIDTH + i < run->n_classes);
    memcpy(&mask, classes, sizeof mask);
    const lanes_int *inside = !relative && run->n_classes < row ? &mask : NULL;
    for (ptrdiff_t pixel = 0; pixel < run->n_pixels; pixel += GROUP) {
        const uint16_t *ids = run->ids + pixel * n_entries;
        const float *weights = run->weights + pixel * n_entries, *unary[GROUP];
        const ptrdiff_t count = run->n_pixels - pixel < GROUP ? run->n_pixels - pixel : GROUP;
        for (ptrdiff_t l = 0; l < GROUP; l++)
            unary[l] = run->unary + (pixel + (l < count ? l : count - 1)) * run->unary_step;
        for (ptrdiff_t v = 0; v < whole; v += BLOCK) LANED(slice)(BLOCK, v, row, n_entries, values, ids, weights, unary, NULL, z);
        switch (rest) {
            case 1: LANED(slice)(1, whole, row, n_entries, values, ids, weights, unary, inside, z); break;
            case 2: LANED(slice)(2, whole, row, n_entries, values, ids, weights, unary, inside, z); break;
            case 3: LANED(slice)(3, whole, row, n_entries, values, ids, weights, unary, inside, z); break;
            default: LANED(slice)(BLOCK, whole, row, n_entries, values, ids, weights, unary, inside, z);
        }
        if (relative) {
            if (run->q) {
                softmax_few(z, base, 0);
                for (ptrdiff_t l = 0; l < count; l++) {
                    float *q = run->q + (pixel + l) * run->n_classes;
                    LANED(finish)(base + l, 1, 1, q, run->change);
                    LANED(finish)(z + l * row, 1, run->n_classes - 1, q + 1, run->change);
                }
                for (ptrdiff_t i = 0; i < GROUP * row; i++) z[i] -= base[i / row];
            } else {
                softmax_few(z, base, 1);
            }
        } else {
            LANED(softmax)(n_vectors, row, z, inverse);
            for (ptrdiff_t l = 0; run->q && l < count; l++)
                LANED(finish)(z + l * row, inverse[l], run->n_classes, run->q + (pixel + l) * run->n_classes, run->change);
            for (ptrdiff_t k = 0; k < n_entries; k++)
                for (ptrdiff_t l = 0; l < GROUP; l++) scaled[k * GROUP + l] = weights[k * GROUP + l] * inverse[l];
            weights = scaled;
        }
        if (!sums) continue;
        for (ptrdiff_t v = 0; v < whole; v += BLOCK) LANED(splat)(BLOCK, v, row, n_entries, sums, ids, weights, z);
        switch (rest) {
            case 1: LANED(splat)(1, whole, row, n_entries, sums, ids, weights, z); break;
            case 2: LANED(splat)(2, whole, row, n_entries, sums, ids, weights, z); break;
            case 3: LANED(splat)(3, whole, row, n_entries, sums, ids, weights, z); break;
            default: LANED(splat)(BLOCK, whole, row, n_entries, sums, ids, weights, z);
        }
    }
}
#undef BLOCK
#undef GROUP
