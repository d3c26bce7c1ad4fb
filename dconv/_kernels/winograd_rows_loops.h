/* The transforms of winograd_rows.h at one CPU level. microkernel.c includes this once it has defined the vectors. They
 * only add and subtract, so that every level rounds alike.
 */

#if DCONV_VECTOR_BYTES
INLINE vec_f32 subtract_f32(vec_f32 a, vec_f32 b) { return a - b; }
#else
INLINE vec_f32 subtract_f32(vec_f32 a, vec_f32 b) {
    EACH_LANE(float) a.lane[l] -= b.lane[l];
    return a;
}
#endif

/* Four samples in a line, as the four factors need them. */
INLINE void forward_line(vec_f32 *v, ptrdiff_t step) {
    const vec_f32 a = v[0], b = v[step], c = v[2 * step], d = v[3 * step];
    v[0] = subtract_f32(a, c);
    v[step] = add_f32(b, c);
    v[2 * step] = subtract_f32(c, b);
    v[3 * step] = subtract_f32(b, d);
}

static void winograd_forward(const float *const *samples, ptrdiff_t n_channels, float *restrict v, ptrdiff_t v_step) {
    for (ptrdiff_t c = 0; c < n_channels; c += LANES(float)) {
        vec_f32 tile[16];
        UNROLL for (int i = 0; i < 16; i++) tile[i] = load_f32(samples[i] + c);
        UNROLL for (int j = 0; j < 4; j++) forward_line(tile + j, 4);
        UNROLL for (int i = 0; i < 4; i++) forward_line(tile + 4 * i, 1);
        UNROLL for (int i = 0; i < 16; i++) store_f32(v + i * v_step + c, tile[i]);
    }
}

static void winograd_inverse(const float *restrict m, ptrdiff_t m_step, const float *restrict bias, ptrdiff_t n_filters,
                             float *const *out, int relu) {
    for (ptrdiff_t f = 0; f < n_filters; f += LANES(float)) {
        vec_f32 sums[8], tile[4];
        UNROLL for (int j = 0; j < 4; j++) {
            const vec_f32 b = load_f32(m + (4 + j) * m_step + f), c = load_f32(m + (8 + j) * m_step + f);
            sums[j] = add_f32(add_f32(load_f32(m + j * m_step + f), b), c);
            sums[4 + j] = subtract_f32(subtract_f32(b, c), load_f32(m + (12 + j) * m_step + f));
        }
        UNROLL for (int i = 0; i < 2; i++) {
            const vec_f32 *s = sums + 4 * i;
            tile[2 * i] = add_f32(add_f32(s[0], s[1]), s[2]);
            tile[2 * i + 1] = subtract_f32(subtract_f32(s[1], s[2]), s[3]);
        }
        UNROLL for (int i = 0; i < 4; i++) {
            if (bias) tile[i] = add_f32(tile[i], load_f32(bias + f));
            if (relu) tile[i] = relu_f32(tile[i]);
            store_f32(out[i] + f, tile[i]);
        }
    }
}

#define WINOGRAD_ROWS {.forward = winograd_forward, .inverse = winograd_inverse}
