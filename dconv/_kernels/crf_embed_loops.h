/* Where points lie in the permutohedral lattice (Adams, Baek and Davis 2010), WIDTH points at a time.
 *
 * A point with d features, scaled so that the blur has unit variance, is elevated to d + 1 coordinates that add up to 0.
 * Its simplex has d + 1 corners; corner r has coordinates that are all r modulo d + 1. So coordinate i of corner r is
 * (d + 1) * digit + r, with digit = quotient[i] - (rank[i] > d - r): going from corner r - 1 to r takes 1 from the digit of
 * axes[d + 1 - r], the axis whose rank that is. Keys of corners follow from that by one subtraction each.
 */
INLINE void LANED(embed_lanes)(const ptrdiff_t d, const float *planes, ptrdiff_t step, const float *origin,
                               int32_t *quotients, int32_t *axes, float *weights) {
    lanes rest[DCONV_CRF_MAX_FEATURES + 1], below = {0};
    lanes_int rank[DCONV_CRF_MAX_FEATURES + 1], quotient[DCONV_CRF_MAX_FEATURES + 1], total = {0};
    const float size = (float)(d + 1);
    for (ptrdiff_t i = d; i >= 0; i--) {
        const lanes feature = i ? load(planes + (i - 1) * step) : (lanes){0};
        const lanes elevated = below - feature * (float)i + origin[i], round = nearest(elevated * (1.0f / size));
        below += feature;
        rest[i] = elevated - round * size;
        quotient[i] = to_int(round);
        total += quotient[i];
    }
    /* The rank of an axis counts larger remainders. The rounded point has coordinates adding up to total * (d + 1), and
     * is moved to 0 along the axes where that costs least: those whose rank, with total added, leaves 0 to d. */
    for (ptrdiff_t i = 0; i <= d; i++) rank[i] = total;
    for (ptrdiff_t i = 0; i < d; i++) {
        for (ptrdiff_t j = i + 1; j <= d; j++) {
            const lanes_int less = MASK(rest[i] < rest[j]);
            rank[i] -= less;
            rank[j] += less + 1;
        }
    }
    for (ptrdiff_t i = 0; i <= d; i++) {
        const lanes_int up = MASK(rank[i] > (lanes_int){0} + (int32_t)d) - MASK(rank[i] < (lanes_int){0});
        rank[i] += up * (int32_t)(d + 1);
        quotient[i] += up;
        rest[i] = (rest[i] - to_real(up) * size) * (1.0f / size);
        *(lanes_int *)(quotients + i * DCONV_CRF_GROUP) = quotient[i];
    }
    lanes sorted[DCONV_CRF_MAX_FEATURES + 1];
    for (ptrdiff_t r = 0; r <= d; r++) {
        lanes_int value = {0}, axis = {0};
        for (ptrdiff_t i = 0; i <= d; i++) {
            const lanes_int here = MASK(rank[i] == (lanes_int){0} + (int32_t)r);
            value |= here & bits(rest[i]);
            axis |= here & ((lanes_int){0} + (int32_t)i);
        }
        sorted[r] = real(value);
        *(lanes_int *)(axes + r * DCONV_CRF_GROUP) = axis;
    }
    store(weights, sorted[d] - sorted[0] + 1.0f);
    for (ptrdiff_t r = 1; r <= d; r++) store(weights + r * DCONV_CRF_GROUP, sorted[d - r] - sorted[d - r + 1]);
}

#define EMBED(D)                                                                                                     \
    for (ptrdiff_t group = 0; group < n_groups; group++) {                                                           \
        const ptrdiff_t at = group * (d + 1) * DCONV_CRF_GROUP;                                                      \
        for (ptrdiff_t l = 0; l < DCONV_CRF_GROUP; l += WIDTH)                                                       \
            LANED(embed_lanes)(D, planes + group * DCONV_CRF_GROUP + l, step, origin, quotients + at + l,            \
                               axes + at + l, weights + group * weight_step + l);                                    \
    }                                                                                                                \
    break

/* Known numbers of features keep all coordinates in registers, and so are three times as fast. */
static void LANED(embed)(ptrdiff_t d, const float *planes, ptrdiff_t step, const float *origin, ptrdiff_t n_groups,
                         int32_t *quotients, int32_t *axes, float *weights, ptrdiff_t weight_step) {
    switch (d) {
        case 1: EMBED(1);
        case 2: EMBED(2);
        case 3: EMBED(3);
        case 4: EMBED(4);
        case 5: EMBED(5);
        case 6: EMBED(6);
        default: EMBED(d);
    }
}
#undef EMBED

static void LANED(log2)(const float *x, float smallest, float *out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += WIDTH) {
        if (i + WIDTH <= n) {
            store(out + i, log2_lanes(larger(load(x + i), (lanes){0} + smallest)));
        } else {
            float rest[WIDTH] = {0};
            memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);
            store(rest, log2_lanes(larger(load(rest), (lanes){0} + smallest)));
            memcpy(out + i, rest, (size_t)(n - i) * sizeof *x);
        }
    }
}
