/* The row loops of rocket_rows.h at one CPU level. microkernel.c includes this once it has defined the vectors. */

/* Thresholds that are compared together: beside a response, 16 registers hold seven of them and their counts. */
#define TOGETHER 7
#define TERMS DCONV_ROCKET_TERMS
#if defined(__GNUC__)
#define UNROLL_RESPONSES _Pragma("GCC unroll 4") /* a tenth faster than not at all */
#else
#define UNROLL_RESPONSES
#endif

#if DCONV_VECTOR_BYTES
INLINE vec_i32 above_f32(vec_f32 a, vec_f32 b) { return (vec_i32)(a > b); }
INLINE vec_f32 every_f32(float value) { return (vec_f32){0} + value; }
#else
INLINE vec_i32 above_f32(vec_f32 a, vec_f32 b) {
    vec_i32 mask;
    EACH_LANE(float) mask.lane[l] = -(a.lane[l] > b.lane[l]);
    return mask;
}
INLINE vec_f32 every_f32(float value) {
    vec_f32 v;
    EACH_LANE(float) v.lane[l] = value;
    return v;
}
#endif

/* n_terms is a constant where this is inlined. */
INLINE vec_f32 sum_at(const float *const *terms, ptrdiff_t n_terms, ptrdiff_t i) {
    vec_f32 sum = load_f32(terms[0] + i);
    UNROLL for (ptrdiff_t k = 1; k < n_terms; k++) sum = add_f32(sum, load_f32(terms[k] + i));
    return sum;
}

static void rocket_sum(const float *const *terms, ptrdiff_t n_channels, float *out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += FL) {
        vec_f32 sum = sum_at(terms, TERMS, i);
        for (ptrdiff_t c = 1; c < n_channels; c++) sum = add_f32(sum, sum_at(terms + c * TERMS, TERMS, i));
        store_f32(out + i, sum);
    }
}

/* For the terms of a channel, or one term. n_terms and n_thresholds are constants where this is inlined, so that all is in registers. */
INLINE void count_together(const float *const *terms, ptrdiff_t n_terms, const float *thresholds,
                           ptrdiff_t n_thresholds, int32_t *restrict counts, ptrdiff_t n) {
    const float *row[TERMS];
    vec_f32 threshold[TOGETHER];
    vec_i32 count[TOGETHER];
    for (ptrdiff_t k = 0; k < n_terms; k++) row[k] = terms[k];
    UNROLL for (ptrdiff_t j = 0; j < n_thresholds; j++) {
        threshold[j] = every_f32(thresholds[j]);
        count[j] = load_i32(counts + j * IL);
    }
    UNROLL_RESPONSES for (ptrdiff_t i = 0; i < n; i += FL) {
        const vec_f32 response = sum_at(row, n_terms, i);
        UNROLL for (ptrdiff_t j = 0; j < n_thresholds; j++) {
            count[j] = add_i32(count[j], above_f32(response, threshold[j]));
        }
    }
    UNROLL for (ptrdiff_t j = 0; j < n_thresholds; j++) store_i32(counts + j * IL, count[j]);
}

INLINE void count_up_to_seven(const float *const *terms, ptrdiff_t n_terms, const float *thresholds,
                              ptrdiff_t n_thresholds, int32_t *counts, ptrdiff_t n) {
    switch (n_thresholds) {
    case 1: count_together(terms, n_terms, thresholds, 1, counts, n); break;
    case 2: count_together(terms, n_terms, thresholds, 2, counts, n); break;
    case 3: count_together(terms, n_terms, thresholds, 3, counts, n); break;
    case 4: count_together(terms, n_terms, thresholds, 4, counts, n); break;
    case 5: count_together(terms, n_terms, thresholds, 5, counts, n); break;
    case 6: count_together(terms, n_terms, thresholds, 6, counts, n); break;
    default: count_together(terms, n_terms, thresholds, TOGETHER, counts, n);
    }
}

static void rocket_count(const float *const *terms, ptrdiff_t n_channels, const float *thresholds, ptrdiff_t n_thresholds,
                         int32_t *counts, float *scratch, ptrdiff_t n) {
    if (n_channels == 1 && n_thresholds <= TOGETHER) { /* what is summed need not go through memory */
        count_up_to_seven(terms, TERMS, thresholds, n_thresholds, counts, n);
        return;
    }
    const float *const row[1] = {scratch};
    rocket_sum(terms, n_channels, scratch, n);
    for (ptrdiff_t j = 0; j < n_thresholds; j += TOGETHER) {
        const ptrdiff_t left = n_thresholds - j;
        count_up_to_seven(row, 1, thresholds + j, left < TOGETHER ? left : TOGETHER, counts + j * IL, n);
    }
}

static void rocket_share(const int32_t *restrict counts, ptrdiff_t n_thresholds, ptrdiff_t n_responses,
                         float *restrict out) {
    for (ptrdiff_t j = 0; j < n_thresholds; j++) {
        int32_t total = 0;
        for (ptrdiff_t l = 0; l < IL; l++) total -= counts[j * IL + l];
        out[j] = (float)(total / (double)n_responses);
    }
}

static void rocket_share_lane(const int32_t *restrict counts, ptrdiff_t lane, ptrdiff_t n_thresholds,
                              ptrdiff_t n_responses, float *restrict out) {
    for (ptrdiff_t j = 0; j < n_thresholds; j++) out[j] = (float)(-counts[j * IL + lane] / (double)n_responses);
}

#define ROCKET_ROWS {.sum = rocket_sum, .count = rocket_count, .share = rocket_share, .share_lane = rocket_share_lane}
