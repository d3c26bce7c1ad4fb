/* The mean-field pass over rows of classes, WIDTH floats at a time.
 *
 * STAGE pixels pass through three stages in the L1 cache: slice (z = unary + sum of weight * row of the corner), softmax,
 * and splat (row of the corner += weight * q). With one group at a time each stage would wait for the last results of the
 * one before: CPUs do not look so far ahead as to begin the next group meanwhile. Vectors of a row that are taken together,
 * up to BLOCK, stay in registers while the corners run. Included once per width.
 */
#define BLOCK 4
#define GROUP DCONV_CRF_GROUP
#define STAGE DCONV_CRF_STAGE

/* z[l] = unary[l] + sum_k weights[k, l] * values[ids[k, l]], n vectors of each row from vector `first` on, for a group of
 * which `count` pixels exist. `inside`, if not NULL: the lanes of the last vector that are classes; the others, which lie in
 * the next pixel, are made impossible. An image row of unaries is soon read, and too short for a CPU to see that it goes on
 * in the next row of the tile: `ahead`. */
INLINE void LANED(slice)(const ptrdiff_t n, ptrdiff_t first, const ptrdiff_t row, const ptrdiff_t n_entries,
                         const float *values, const uint16_t *ids, const float *weights, const float *unary,
                         ptrdiff_t unary_step, ptrdiff_t ahead, ptrdiff_t count, const lanes_int *inside, float *z) {
    for (ptrdiff_t l = 0; l < GROUP; l++, unary += l < count ? unary_step : 0) {
        lanes sum[BLOCK];
        UNROLL for (ptrdiff_t v = 0; v < n; v++) {
            sum[v] = load(unary + (first + v) * WIDTH);
            FETCH(unary + ahead + (first + v) * WIDTH);
        }
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

/* sums[ids[k, l]] += weights[k, l] * (z[l] - base[l]), `base` being NULL where there is nothing to subtract. */
INLINE void LANED(splat)(const ptrdiff_t n, ptrdiff_t first, const ptrdiff_t row, const ptrdiff_t n_entries,
                         float *sums, const uint16_t *ids, const float *weights, const float *z, const float *base) {
    for (ptrdiff_t l = 0; l < GROUP; l++) {
        lanes q[BLOCK];
        UNROLL for (ptrdiff_t v = 0; v < n; v++) q[v] = load(z + l * row + (first + v) * WIDTH);
        if (base) {
            UNROLL for (ptrdiff_t v = 0; v < n; v++) q[v] -= base[l];
        }
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
    float *const z = run->scratch, *const scaled = z + STAGE * row, inverse[STAGE], base[STAGE];
    int32_t classes[WIDTH];
    lanes_int mask;
    for (ptrdiff_t i = 0; i < WIDTH; i++) classes[i] = -(row - WIDTH + i < run->n_classes);
    memcpy(&mask, classes, sizeof mask);
    const lanes_int *inside = !relative && run->n_classes < row ? &mask : NULL;
    for (ptrdiff_t begin = 0; begin < run->n_pixels; begin += STAGE) {
        const ptrdiff_t n = run->n_pixels - begin < STAGE ? run->n_pixels - begin : STAGE;
        for (ptrdiff_t pixel = 0; pixel < n; pixel += GROUP) {
            const uint16_t *ids = run->ids + (begin + pixel) * n_entries;
            const float *weights = run->weights + (begin + pixel) * n_entries;
            const float *unary = run->unary + (begin + pixel) * run->unary_step;
            const ptrdiff_t count = n - pixel < GROUP ? n - pixel : GROUP;
            float *part = z + pixel * row;
#define SLICE(n, first, inside) \
    LANED(slice)(n, first, row, n_entries, values, ids, weights, unary, run->unary_step, run->unary_ahead, count, inside, part)
            for (ptrdiff_t v = 0; v < whole; v += BLOCK) SLICE(BLOCK, v, NULL);
            switch (rest) {
                case 1: SLICE(1, whole, inside); break;
                case 2: SLICE(2, whole, inside); break;
                case 3: SLICE(3, whole, inside); break;
                default: SLICE(BLOCK, whole, inside);
            }
#undef SLICE
        }
        for (ptrdiff_t pixel = 0; pixel < n; pixel += GROUP) {
            if (relative) softmax_few(z + pixel * row, base + pixel);
            else LANED(softmax)(n_vectors, row, z + pixel * row, inverse + pixel);
        }
        for (ptrdiff_t pixel = 0; run->q && pixel < n; pixel++) {
            float *q = run->q + (begin + pixel) * run->n_classes;
            const float *part = z + pixel * row;
            if (relative) {
                LANED(finish)(base + pixel, 1, 1, q, run->change);
                LANED(finish)(part, 1, run->n_classes - 1, q + 1, run->change);
            } else {
                LANED(finish)(part, inverse[pixel], run->n_classes, q, run->change);
            }
        }
        for (ptrdiff_t pixel = 0; run->sums && pixel < n; pixel += GROUP) {
            const uint16_t *ids = run->ids + (begin + pixel) * n_entries;
            const float *weights = run->weights + (begin + pixel) * n_entries, *part = z + pixel * row;
            const float *minus = relative ? base + pixel : NULL;
            if (!relative) {
                for (ptrdiff_t k = 0; k < n_entries; k++)
                    for (ptrdiff_t l = 0; l < GROUP; l++)
                        scaled[k * GROUP + l] = weights[k * GROUP + l] * inverse[pixel + l];
                weights = scaled;
            }
#define SPLAT(n, first) LANED(splat)(n, first, row, n_entries, run->sums, ids, weights, part, minus)
            for (ptrdiff_t v = 0; v < whole; v += BLOCK) SPLAT(BLOCK, v);
            switch (rest) {
                case 1: SPLAT(1, whole); break;
                case 2: SPLAT(2, whole); break;
                case 3: SPLAT(3, whole); break;
                default: SPLAT(BLOCK, whole);
            }
#undef SPLAT
        }
    }
}
#undef BLOCK
#undef GROUP
#undef STAGE
