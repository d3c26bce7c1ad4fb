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
INLINE void LANED(slice)(const ptrdiff_t n, ptrdiff_t first, ptrdiff_t row, const dconv_crf_run *run, const uint16_t *ids,
                         const float *weights, const float *const *unary, const lanes_int *inside, float *z) {
    for (ptrdiff_t l = 0; l < GROUP; l++) {
        lanes sum[BLOCK];
        UNROLL for (ptrdiff_t v = 0; v < n; v++) sum[v] = load(unary[l] + (first + v) * WIDTH);
        if (run->values) {
            for (ptrdiff_t k = 0; k < run->n_entries; k++) {
                const float *value = run->values + (size_t)ids[k * GROUP + l] * row + first * WIDTH;
                const float weight = weights[k * GROUP + l];
                UNROLL for (ptrdiff_t v = 0; v < n; v++) sum[v] += weight * load(value + v * WIDTH);
            }
        }
        if (inside) sum[n - 1] = select(*inside, sum[n - 1], (lanes){0} - 1e30f);
        UNROLL for (ptrdiff_t v = 0; v < n; v++) store(z + l * row + (first + v) * WIDTH, sum[v]);
    }
}

INLINE void LANED(splat)(const ptrdiff_t n, ptrdiff_t first, ptrdiff_t row, const dconv_crf_run *run, const uint16_t *ids,
                         const float *weights, const float *z) {
    for (ptrdiff_t l = 0; l < GROUP; l++) {
        lanes q[BLOCK];
        UNROLL for (ptrdiff_t v = 0; v < n; v++) q[v] = load(z + l * row + (first + v) * WIDTH);
        for (ptrdiff_t k = 0; k < run->n_entries; k++) {
            float *sum = run->sums + (size_t)ids[k * GROUP + l] * row + first * WIDTH;
            const float weight = weights[k * GROUP + l];
            UNROLL for (ptrdiff_t v = 0; v < n; v++) store(sum + v * WIDTH, load(sum + v * WIDTH) + weight * q[v]);
        }
    }
}

/* Softmax of GROUP rows of n vectors but for the division, whose reciprocal goes to `inverse`. `base`: the rows are
 * relative to a class that they do not hold, and whose part goes to `base`. */
INLINE void LANED(softmax)(const ptrdiff_t n, ptrdiff_t row, float *z, float *inverse, float *base) {
    for (ptrdiff_t l = 0; l < GROUP; l += WIDTH) {
        lanes each[WIDTH];
        float shift[WIDTH];
        UNROLL for (ptrdiff_t i = 0; i < WIDTH; i++) {
            each[i] = load(z + (l + i) * row);
            for (ptrdiff_t v = 1; v < n; v++) each[i] = larger(each[i], load(z + (l + i) * row + v * WIDTH));
        }
        lanes maxima = maxima_of(each), sum = {0};
        if (base) {
            maxima = larger(maxima, (lanes){0});
            sum = exp2_lanes(-maxima);
            store(base + l, sum);
        }
        store(shift, maxima);
        UNROLL for (ptrdiff_t i = 0; i < WIDTH; i++) {
            float *place = z + (l + i) * row;
            for (ptrdiff_t v = 0; v < n; v++) {
                const lanes power = exp2_lanes(load(place + v * WIDTH) - shift[i]);
                store(place + v * WIDTH, power);
                if (v) each[i] += power;
                else each[i] = power;
            }
        }
        store(inverse + l, 1.0f / (sums_of(each) + sum));
    }
}

/* Write the distributions of `count` pixels, and keep the largest change. */
INLINE void LANED(finish)(const dconv_crf_run *run, ptrdiff_t row, ptrdiff_t count, const float *z, const float *inverse,
                          const float *base, float *q) {
    for (ptrdiff_t l = 0; l < count; l++) {
        float *out = q + l * run->n_classes;
        const float *in = z + l * row - (base ? 1 : 0);
        if (run->change) {
            float change = *run->change;
            for (ptrdiff_t c = 0; c < run->n_classes; c++) {
                const float one = (base && c == 0 ? base[l] : in[c]) * inverse[l] - out[c];
                change = one > change ? one : -one > change ? -one : change;
            }
            *run->change = change;
        }
        for (ptrdiff_t c = 0; c < run->n_classes; c++) out[c] = (base && c == 0 ? base[l] : in[c]) * inverse[l];
    }
}

/* n_vectors is a constant where this is inlined, or more than BLOCK. */
INLINE void LANED(pass)(const dconv_crf_run *run, const ptrdiff_t n_vectors, const int relative) {
    const ptrdiff_t row = n_vectors * WIDTH, whole = (n_vectors - 1) / BLOCK * BLOCK, rest = n_vectors - whole;
    float inverse[GROUP], parts[GROUP], *base = relative ? parts : NULL, *z = run->scratch, *scaled = z + GROUP * row;
    int32_t classes[WIDTH];
    lanes_int mask;
    for (ptrdiff_t i = 0; i < WIDTH; i++) classes[i] = -(row - WIDTH + i < run->n_classes);
    memcpy(&mask, classes, sizeof mask);
    const lanes_int *inside = !relative && run->n_classes < row ? &mask : NULL;
    for (ptrdiff_t pixel = 0; pixel < run->n_pixels; pixel += GROUP) {
        const uint16_t *ids = run->ids + pixel * run->n_entries;
        const float *weights = run->weights + pixel * run->n_entries, *unary[GROUP];
        const ptrdiff_t count = run->n_pixels - pixel < GROUP ? run->n_pixels - pixel : GROUP;
        for (ptrdiff_t l = 0; l < GROUP; l++)
            unary[l] = run->unary + (pixel + (l < count ? l : count - 1)) * run->unary_step;
        for (ptrdiff_t v = 0; v < whole; v += BLOCK) LANED(slice)(BLOCK, v, row, run, ids, weights, unary, NULL, z);
        switch (rest) {
            case 1: LANED(slice)(1, whole, row, run, ids, weights, unary, inside, z); break;
            case 2: LANED(slice)(2, whole, row, run, ids, weights, unary, inside, z); break;
            case 3: LANED(slice)(3, whole, row, run, ids, weights, unary, inside, z); break;
            default: LANED(slice)(BLOCK, whole, row, run, ids, weights, unary, inside, z);
        }
        LANED(softmax)(n_vectors, row, z, inverse, base);
        if (run->q) LANED(finish)(run, row, count, z, inverse, base, run->q + pixel * run->n_classes);
        if (!run->sums) continue;
        for (ptrdiff_t k = 0; k < run->n_entries; k++)
            for (ptrdiff_t l = 0; l < GROUP; l++) scaled[k * GROUP + l] = weights[k * GROUP + l] * inverse[l];
        if (relative)
            for (ptrdiff_t l = 0; l < GROUP; l++)
                for (ptrdiff_t v = 0; v < n_vectors; v++)
                    store(z + l * row + v * WIDTH, load(z + l * row + v * WIDTH) - base[l]);
        for (ptrdiff_t v = 0; v < whole; v += BLOCK) LANED(splat)(BLOCK, v, row, run, ids, scaled, z);
        switch (rest) {
            case 1: LANED(splat)(1, whole, row, run, ids, scaled, z); break;
            case 2: LANED(splat)(2, whole, row, run, ids, scaled, z); break;
            case 3: LANED(splat)(3, whole, row, run, ids, scaled, z); break;
            default: LANED(splat)(BLOCK, whole, row, run, ids, scaled, z);
        }
    }
}
#undef BLOCK
#undef GROUP
