"""The table of innermost loops of microkernel.h, for the Cython files that call them."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

ctypedef fused real_t:
    float
    double


cdef extern from "feature_rows.h" nogil:
    ctypedef struct dconv_feature_rows:
        void (*weighted)(const float *x, const Py_ssize_t *offsets, const float *weight, Py_ssize_t n_taps, float *out,
                         Py_ssize_t n) noexcept nogil
        void (*products)(const float *const *parts, Py_ssize_t n_parts, const Py_ssize_t *offsets,
                         const float *weight, Py_ssize_t n_taps, float *out, Py_ssize_t out_step,
                         Py_ssize_t n) noexcept nogil
        void (*difference)(const float *a, const float *b, float *out, Py_ssize_t n) noexcept nogil
        void (*mixed)(const float *const *parts, Py_ssize_t n_parts, const float *weight, float *const *out,
                      Py_ssize_t n_out, Py_ssize_t n) noexcept nogil
        void (*moments)(const float *mean, const float *variance, const Py_ssize_t *offsets, const float *weight,
                        Py_ssize_t n_taps, float *out_mean, float *out_variance, Py_ssize_t n) noexcept nogil
        void (*root)(float *x, Py_ssize_t n) noexcept nogil
        void (*magnitude)(const float *const *parts, Py_ssize_t n_parts, float *out, Py_ssize_t n) noexcept nogil
        void (*eigenvalues)(const float *const *parts, Py_ssize_t size, float *const *out, Py_ssize_t n) noexcept nogil
        void (*extrema)(const float *x, const Py_ssize_t *offsets, Py_ssize_t n_taps, float *out_max, float *out_min,
                        Py_ssize_t n) noexcept nogil
        void (*lines)(const float *const *parts, Py_ssize_t n_parts, const Py_ssize_t *offsets, const float *weight,
                      Py_ssize_t n_directions, float *const *out, Py_ssize_t n) noexcept nogil
        void (*above)(const float *a, const float *b, float *out, Py_ssize_t n) noexcept nogil
        void (*changes)(const float *marks, float *out, Py_ssize_t n) noexcept nogil
        void (*window_sums)(const float *marks, Py_ssize_t window, float weight, float *out,
                            Py_ssize_t n) noexcept nogil
        void (*interleave)(const float *planes, Py_ssize_t plane_step, Py_ssize_t n_planes, float *out,
                           Py_ssize_t out_step, Py_ssize_t n) noexcept nogil


cdef extern from "activation_rows.h" nogil:
    enum:
        DCONV_RUN_UNIT
        DCONV_NOTHING
        DCONV_SOFTMAX
        DCONV_ODDS
    void dconv_fetch(const float *x, Py_ssize_t n)
    ctypedef struct dconv_activation_rows:
        void (*exponential)(float *x, Py_ssize_t n) noexcept nogil
        void (*logistic)(float *x, Py_ssize_t n) noexcept nogil
        void (*tanh)(float *x, Py_ssize_t n) noexcept nogil
        void (*pair)(float *x, float *other, Py_ssize_t n) noexcept nogil
        void (*centred)(const float *x, const float *centre, Py_ssize_t period, Py_ssize_t n, float *h) noexcept nogil
        void (*clipped)(const float *x, const float *centre, const float *scale, Py_ssize_t period, Py_ssize_t n,
                        float *h) noexcept nogil
        void (*prepared)(const float *x, const double *centre, const double *scale, int squares, Py_ssize_t n_channels,
                         Py_ssize_t n_pixels, double *h, Py_ssize_t row) noexcept nogil
        void (*squared)(double *x, Py_ssize_t n) noexcept nogil
        void (*planes_f32)(const float *h, Py_ssize_t n_outputs, Py_ssize_t n_pixels, int common, double floor,
                           float *planes, Py_ssize_t step) noexcept nogil
        void (*planes_f64)(const double *h, Py_ssize_t n_outputs, Py_ssize_t n_pixels, int common, double floor,
                           float *planes, Py_ssize_t step) noexcept nogil
        void (*normalised)(float *planes, Py_ssize_t n_outputs, Py_ssize_t n_pixels, Py_ssize_t step) noexcept nogil
        int (*finite)(const float *x, Py_ssize_t n) noexcept nogil


cdef extern from "crf_rows.h" nogil:
    enum:
        DCONV_CRF_GROUP
        DCONV_CRF_STAGE
        DCONV_CRF_MAX_FEATURES
        DCONV_CRF_REMAINDERS
    ctypedef struct dconv_crf_run:
        const uint16_t *ids
        const float *weights
        Py_ssize_t n_entries
        Py_ssize_t n_pixels
        Py_ssize_t n_classes
        Py_ssize_t row
        const float *unary
        Py_ssize_t unary_step
        Py_ssize_t unary_ahead
        const float *values
        float *sums
        float *q
        float *change
        float *scratch
    ctypedef struct dconv_crf_corners:
        uint16_t *slots
        uint64_t *keys
        float *sums
        Py_ssize_t n
        int bits
    ctypedef struct dconv_crf_points:
        Py_ssize_t d
        const float *planes
        const float *origin
        uint64_t base
        const uint64_t *strides
        Py_ssize_t n_points
        Py_ssize_t first_row
    ctypedef struct dconv_crf_rows:
        Py_ssize_t width
        void (*embed)(const dconv_crf_points *points, dconv_crf_corners *corners, uint16_t *ids, float *weights,
                      Py_ssize_t step) noexcept nogil
        void (*clear)(dconv_crf_corners *corners) noexcept nogil
        void (*normalize)(float *weights, const uint16_t *ids, Py_ssize_t n_groups, Py_ssize_t n_entries,
                          Py_ssize_t step, const float *values, float slice_factor, float factor) noexcept nogil
        void (*log2)(const float *x, float smallest, float *out, Py_ssize_t n) noexcept nogil
        void (*pass_two)(const dconv_crf_run *run) noexcept nogil
        void (*pass_few)(const dconv_crf_run *run) noexcept nogil
        void (*pass_all)(const dconv_crf_run *run) noexcept nogil
        void (*fetch)(const float *values, const int32_t *vertices, Py_ssize_t n, Py_ssize_t row,
                      float *out) noexcept nogil
        void (*gather)(const float *sums, const int32_t *list, Py_ssize_t length, Py_ssize_t row,
                       float *values) noexcept nogil
        void (*blur)(const int32_t *chains, Py_ssize_t n, Py_ssize_t row, float *values) noexcept nogil
        void (*mix)(const float *matrix, Py_ssize_t n_classes, Py_ssize_t row, Py_ssize_t n, float *values,
                    float *scratch) noexcept nogil


cdef extern from "tree_rows.h" nogil:
    ctypedef struct dconv_tree_node:
        int32_t threshold
        int32_t link
    ctypedef struct dconv_trees:
        Py_ssize_t n_trees
        Py_ssize_t n_features
        const int32_t *words
        const int32_t *kinds
        const int32_t *feature
        const int32_t *right_from
        const int32_t *kept
        const int32_t *entries
        const dconv_tree_node *nodes
        const int32_t *node_starts
        const uint8_t *node_kinds
        Py_ssize_t feature_bits
        const uint32_t *sets
        Py_ssize_t n_categorical
        const int32_t *categorical
        const int32_t *category_starts
        const int32_t *category_keys
        const int32_t *category_codes
        const float *values
        Py_ssize_t width
        const int32_t *columns
        Py_ssize_t n_sums
    ctypedef struct dconv_tree_rows:
        void (*add)(const dconv_trees *trees, const float *rows, Py_ssize_t n_pixels, Py_ssize_t groups_in_block,
                    int32_t *keys, double *sums) noexcept nogil


cdef extern from "rocket_rows.h" nogil:
    enum:
        DCONV_ROCKET_TERMS
    ctypedef struct dconv_rocket_rows:
        void (*sum)(const float *const *terms, Py_ssize_t n_channels, float *out, Py_ssize_t n) noexcept nogil
        void (*count)(const float *const *terms, Py_ssize_t n_channels, const float *thresholds,
                      Py_ssize_t n_thresholds, int32_t *counts, float *scratch, Py_ssize_t n) noexcept nogil
        void (*share)(const int32_t *counts, Py_ssize_t n_thresholds, Py_ssize_t n_responses,
                      float *out) noexcept nogil
        void (*share_lane)(const int32_t *counts, Py_ssize_t lane, Py_ssize_t n_thresholds, Py_ssize_t n_responses,
                           float *out) noexcept nogil


cdef extern from "winograd_rows.h" nogil:
    enum:
        DCONV_WINOGRAD_UNIT
    ctypedef struct dconv_winograd_rows:
        void (*forward)(const float *const *samples, Py_ssize_t n_channels, float *v, Py_ssize_t v_step) noexcept nogil
        void (*inverse)(const float *m, Py_ssize_t m_step, const float *bias, Py_ssize_t n_filters, float *const *out,
                        int relu) noexcept nogil


cdef extern from "microkernel.h" nogil:
    enum:
        DCONV_RELU
        DCONV_STREAM
        DCONV_SHARED_TILE
    ctypedef struct dconv_microkernel:
        const char *name
        Py_ssize_t block_f32
        Py_ssize_t block_f64
        int shares_f32
        int shares_f64
        Py_ssize_t lanes_f32
        Py_ssize_t lanes_f64
        void (*conv_row_f32)(const float *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
                             Py_ssize_t n_run, Py_ssize_t apart, const float *weight, const float *bias,
                             Py_ssize_t n_filters, float *out, Py_ssize_t out_step, Py_ssize_t n_pixels,
                             int finish) noexcept nogil
        void (*conv_row_f64)(const double *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
                             Py_ssize_t n_run, Py_ssize_t apart, const double *weight, const double *bias,
                             Py_ssize_t n_filters, double *out, Py_ssize_t out_step, Py_ssize_t n_pixels,
                             int finish) noexcept nogil
        void (*dot_row_f32)(const float *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
                            const float *weight, const float *bias, Py_ssize_t n_filters, float *out,
                            Py_ssize_t out_step, Py_ssize_t n_pixels, int finish) noexcept nogil
        void (*dot_row_f64)(const double *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
                            const double *weight, const double *bias, Py_ssize_t n_filters, double *out,
                            Py_ssize_t out_step, Py_ssize_t n_pixels, int finish) noexcept nogil
        void (*lanewise_row_f32)(const float *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
                                 Py_ssize_t n_run, Py_ssize_t apart, const float *weight, Py_ssize_t weight_step,
                                 const float *bias, Py_ssize_t n_lanes, float *out, Py_ssize_t out_step,
                                 Py_ssize_t n_pixels, int finish) noexcept nogil
        void (*lanewise_row_f64)(const double *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
                                 Py_ssize_t n_run, Py_ssize_t apart, const double *weight, Py_ssize_t weight_step,
                                 const double *bias, Py_ssize_t n_lanes, double *out, Py_ssize_t out_step,
                                 Py_ssize_t n_pixels, int finish) noexcept nogil
        void (*shared_row_f32)(const float *x, Py_ssize_t x_step, Py_ssize_t share_step, Py_ssize_t n_shares,
                               const Py_ssize_t *offsets, Py_ssize_t n_taps, const float *weight, const float *bias,
                               Py_ssize_t n_filters, float *out, Py_ssize_t out_step, Py_ssize_t n_vectors,
                               int finish) noexcept nogil
        void (*shared_row_f64)(const double *x, Py_ssize_t x_step, Py_ssize_t share_step, Py_ssize_t n_shares,
                               const Py_ssize_t *offsets, Py_ssize_t n_taps, const double *weight, const double *bias,
                               Py_ssize_t n_filters, double *out, Py_ssize_t out_step, Py_ssize_t n_vectors,
                               int finish) noexcept nogil
        dconv_feature_rows rows
        dconv_activation_rows activations
        dconv_crf_rows crf
        dconv_tree_rows trees
        dconv_rocket_rows rocket
        dconv_winograd_rows winograd


cdef const dconv_microkernel *get_level(str level) except NULL


# One call for both types; the branch is decided when the caller is compiled.

cdef inline void conv_row(
    const dconv_microkernel *kernel, const real_t *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
    Py_ssize_t n_run, Py_ssize_t apart, const real_t *weight, const real_t *bias, Py_ssize_t n_filters, real_t *out,
    Py_ssize_t out_step, Py_ssize_t n_pixels, int finish,
) noexcept nogil:
    if real_t is float:
        kernel.conv_row_f32(x, x_step, offsets, n_taps, n_run, apart, weight, bias, n_filters, out, out_step, n_pixels,
                            finish)
    else:
        kernel.conv_row_f64(x, x_step, offsets, n_taps, n_run, apart, weight, bias, n_filters, out, out_step, n_pixels,
                            finish)


cdef inline void dot_row(
    const dconv_microkernel *kernel, const real_t *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
    const real_t *weight, const real_t *bias, Py_ssize_t n_filters, real_t *out, Py_ssize_t out_step,
    Py_ssize_t n_pixels, int finish,
) noexcept nogil:
    if real_t is float:
        kernel.dot_row_f32(x, x_step, offsets, n_taps, weight, bias, n_filters, out, out_step, n_pixels, finish)
    else:
        kernel.dot_row_f64(x, x_step, offsets, n_taps, weight, bias, n_filters, out, out_step, n_pixels, finish)


cdef inline void lanewise_row(
    const dconv_microkernel *kernel, const real_t *x, Py_ssize_t x_step, const Py_ssize_t *offsets, Py_ssize_t n_taps,
    Py_ssize_t n_run, Py_ssize_t apart, const real_t *weight, Py_ssize_t weight_step, const real_t *bias,
    Py_ssize_t n_lanes, real_t *out, Py_ssize_t out_step, Py_ssize_t n_pixels, int finish,
) noexcept nogil:
    if real_t is float:
        kernel.lanewise_row_f32(x, x_step, offsets, n_taps, n_run, apart, weight, weight_step, bias, n_lanes, out,
                                out_step, n_pixels, finish)
    else:
        kernel.lanewise_row_f64(x, x_step, offsets, n_taps, n_run, apart, weight, weight_step, bias, n_lanes, out,
                                out_step, n_pixels, finish)


cdef inline void shared_row(
    const dconv_microkernel *kernel, const real_t *x, Py_ssize_t x_step, Py_ssize_t share_step, Py_ssize_t n_shares,
    const Py_ssize_t *offsets, Py_ssize_t n_taps, const real_t *weight, const real_t *bias, Py_ssize_t n_filters,
    real_t *out, Py_ssize_t out_step, Py_ssize_t n_vectors, int finish,
) noexcept nogil:
    if real_t is float:
        kernel.shared_row_f32(x, x_step, share_step, n_shares, offsets, n_taps, weight, bias, n_filters, out, out_step,
                              n_vectors, finish)
    else:
        kernel.shared_row_f64(x, x_step, share_step, n_shares, offsets, n_taps, weight, bias, n_filters, out, out_step,
                              n_vectors, finish)
