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
            value |= here & as_bits(rest[i]);
            axis |= here & ((lanes_int){0} + (int32_t)i);
        }
        sorted[r] = as_real(value);
        *(lanes_int *)(axes + r * DCONV_CRF_GROUP) = axis;
    }
    store(weights, sorted[d] - sorted[0] + 1.0f);
    for (ptrdiff_t r = 1; r <= d; r++) store(weights + r * DCONV_CRF_GROUP, sorted[d - r] - sorted[d - r + 1]);
}

#define NO_KEY UINT64_MAX
#define FIRST_BITS 13 /* of a tile's table; it grows fourfold before a quarter of it is full */

/* Multiples of 2^64 / golden ratio spread evenly over their high bits. */
INLINE size_t slot_of(uint64_t key, int bits) { return (size_t)((key * 0x9E3779B97F4A7C15u) >> (64 - bits)); }

/* Make a table of 2^bits slots of the corners known. */
static void spread(dconv_crf_corners *corners, int bits) {
    const size_t mask = ((size_t)1 << bits) - 1;
    corners->bits = bits;
    memset(corners->slots, 0, (mask + 1) * sizeof *corners->slots);
    for (ptrdiff_t number = 1; number <= corners->n; number++) {
        size_t slot = slot_of(corners->keys[number], bits);
        while (corners->slots[slot]) slot = (slot + 1) & mask;
        corners->slots[slot] = (uint16_t)number;
    }
}

static void clear(dconv_crf_corners *corners) {
    corners->n = 0;
    corners->keys[0] = NO_KEY;
    spread(corners, FIRST_BITS);
}

/* Return the number of a corner that is not in the slot where it belongs; a new one gets the next. */
static ptrdiff_t number_beyond(dconv_crf_corners *corners, uint64_t key, size_t slot) {
    const size_t mask = ((size_t)1 << corners->bits) - 1;
    while (corners->slots[slot]) {
        slot = (slot + 1) & mask;
        if (corners->keys[corners->slots[slot]] == key) return corners->slots[slot];
    }
    const ptrdiff_t number = ++corners->n;
    corners->keys[number] = key;
    corners->sums[number] = 0;
    corners->slots[slot] = (uint16_t)number;
    return number;
}

/* Write the ids of a group. `digits` are those of the keys of its corners 0, and `strides` theirs, both times
 * DCONV_CRF_REMAINDERS. The table has room for all. Neighbours share corners, but to ask for it costs more, by branches
 * that no CPU foresees; nearly all keys are in the first slot looked at. */
INLINE void number_corners(const ptrdiff_t d, dconv_crf_corners *corners, const uint64_t *digits, const uint64_t *strides,
                           const int32_t *axes, ptrdiff_t first_row, ptrdiff_t count, uint16_t *restrict ids,
                           float *restrict weights) {
    const int bits = corners->bits;
    const uint64_t *const keys = corners->keys;
    const uint16_t *const slots = corners->slots;
    float *const sums = corners->sums;
    for (ptrdiff_t l = 0; l < count; l++) {
        uint64_t digit = digits[l];
        UNROLL for (ptrdiff_t r = 0; r <= d; r++) {
            if (r) digit -= strides[axes[(d + 1 - r) * DCONV_CRF_GROUP + l]];
            const uint64_t key = digit + (uint64_t)r;
            const size_t slot = slot_of(key, bits);
            ptrdiff_t number = slots[slot];
            if (keys[number] != key) number = number_beyond(corners, key, slot);
            ids[r * DCONV_CRF_GROUP + l] = (uint16_t)(first_row + number - 1);
            sums[number] += weights[r * DCONV_CRF_GROUP + l];
        }
    }
    for (ptrdiff_t l = count; l < DCONV_CRF_GROUP; l++)
        for (ptrdiff_t r = 0; r <= d; r++)
            ids[r * DCONV_CRF_GROUP + l] = 0, weights[r * DCONV_CRF_GROUP + l] = 0;
}

INLINE void embed_points(const ptrdiff_t d, const dconv_crf_points *points, dconv_crf_corners *corners, uint16_t *ids,
                         float *weights, ptrdiff_t step) {
    const ptrdiff_t n_groups = (points->n_points + DCONV_CRF_GROUP - 1) / DCONV_CRF_GROUP;
    int32_t quotients[(DCONV_CRF_MAX_FEATURES + 1) * DCONV_CRF_GROUP];
    int32_t axes[(DCONV_CRF_MAX_FEATURES + 1) * DCONV_CRF_GROUP];
    uint64_t digits[DCONV_CRF_GROUP], strides[DCONV_CRF_MAX_FEATURES + 1];
    for (ptrdiff_t i = 0; i <= d; i++) strides[i] = points->strides[i] * DCONV_CRF_REMAINDERS;
    for (ptrdiff_t group = 0; group < n_groups; group++, ids += step, weights += step) {
        const float *planes = points->planes + group * DCONV_CRF_GROUP;
        const ptrdiff_t left = points->n_points - group * DCONV_CRF_GROUP;
        const ptrdiff_t count = left < DCONV_CRF_GROUP ? left : DCONV_CRF_GROUP;
        for (ptrdiff_t l = 0; l < DCONV_CRF_GROUP; l += WIDTH)
            LANED(embed_lanes)(d, planes + l, n_groups * DCONV_CRF_GROUP, points->origin, quotients + l, axes + l,
                               weights + l);
        if (corners->n + (d + 1) * DCONV_CRF_GROUP > (ptrdiff_t)1 << (corners->bits - 2))
            spread(corners, corners->bits + 2);
        for (ptrdiff_t l = 0; l < count; l++) {
            digits[l] = points->base * DCONV_CRF_REMAINDERS;
            for (ptrdiff_t a = 0; a < d; a++)
                digits[l] += (uint64_t)quotients[a * DCONV_CRF_GROUP + l] * strides[a];
        }
        number_corners(d, corners, digits, strides, axes, points->first_row, count, ids, weights);
    }
}

/* Known numbers of features keep all coordinates in registers, and so are three times as fast. */
static void embed(const dconv_crf_points *points, dconv_crf_corners *corners, uint16_t *ids, float *weights,
                  ptrdiff_t step) {
    switch (points->d) {
        case 2: embed_points(2, points, corners, ids, weights, step); break;
        case 3: embed_points(3, points, corners, ids, weights, step); break;
        case 4: embed_points(4, points, corners, ids, weights, step); break;
        case 5: embed_points(5, points, corners, ids, weights, step); break;
        case 6: embed_points(6, points, corners, ids, weights, step); break;
        default: embed_points(points->d, points, corners, ids, weights, step);
    }
}

static void normalize(float *weights, const uint16_t *ids, ptrdiff_t n_groups, ptrdiff_t n_entries, ptrdiff_t step,
                      const float *values, float slice_factor, float factor) {
    for (ptrdiff_t group = 0; group < n_groups; group++, weights += step, ids += step) {
        float scale[DCONV_CRF_GROUP] = {0};
        for (ptrdiff_t k = 0; k < n_entries * DCONV_CRF_GROUP; k += DCONV_CRF_GROUP)
            UNROLL for (ptrdiff_t l = 0; l < DCONV_CRF_GROUP; l++) scale[l] += weights[k + l] * values[ids[k + l]];
        for (ptrdiff_t l = 0; l < DCONV_CRF_GROUP; l++) scale[l] = factor / sqrtf(slice_factor * scale[l] + 1e-20f);
        for (ptrdiff_t k = 0; k < n_entries * DCONV_CRF_GROUP; k += DCONV_CRF_GROUP)
            for (ptrdiff_t l = 0; l < DCONV_CRF_GROUP; l++) weights[k + l] *= scale[l];
    }
}

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
