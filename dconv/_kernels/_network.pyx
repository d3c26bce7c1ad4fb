"""A stack of 1 x 1 convolutions with activations between them, over the pixels of a tile: linear models, perceptrons.

    h[0] = x - centre, with squares=True beside its own square, with a scale clip((x - centre) * scale),
           clip(x) being x / sqrt(1 + x^2)
    h[l + 1, p, f] = activation_l(bias_l[f] + sum_c weight_l[f, c] * h[l, p, c])
    out = the last h, with normalise=True divided by its sum over f

Letters: p pixel, f filter (unit), c channel, F and C how many of them a layer has. All is computed in real_t, but the
last activation in float: badly conditioned models can be computed in double.

Loop order: pieces of pixels so short that what a layer writes is still in the L1 or L2 cache when the next one reads
it; in a piece the layers; in a layer the loops of microkernel.h. The first layer takes a piece in steps, so that h[0] is
still in the L1 cache, and asks at each for rows that come later, for which a linear classifier else waits as long as it
computes. All of it runs on the calling thread, without the GIL: callers work on several tiles at once. A pixel takes
the same instructions wherever a step, a piece or a tile ends.
"""

from dconv._kernels._dispatch cimport (
    DCONV_NOTHING, DCONV_ODDS, DCONV_RELU, DCONV_RUN_UNIT, DCONV_SOFTMAX, conv_row, dconv_fetch, dconv_microkernel,
    dot_row, get_level, real_t,
)

cdef extern from "feature_rows.h":
    enum:
        DCONV_ROW_UNIT

ROW_UNIT = DCONV_ROW_UNIT  # numbers that scratch is rounded up to
RUN_UNIT = DCONV_RUN_UNIT  # numbers of pixels in a row that are prepared together

# Pixels in a step of the first layer, whole tiles of its loops; that of one filter has 8. The more rows are asked for at
# once, the longer the loops wait: steps of 24 took up to a fifth longer. Twice to eight times as far ahead was the same.
cdef enum:
    _STEP = 12
    _STEP_OF_ONE = 8
    _AHEAD = 24

# Activations. SOFTMAX is of all classes, from the scores of all but the first, less that of the first. RAMP is
# (x + 1) / 2 within 0 and 1. These two can only be the last, SQUARE cannot, and is for double, where only it and IDENTITY
# come before the last.
IDENTITY, RELU, LOGISTIC, TANH, SQUARE, SOFTMAX, RAMP = range(7)
cdef enum:
    _IDENTITY
    _RELU
    _LOGISTIC
    _TANH
    _SQUARE
    _SOFTMAX
    _RAMP


cdef struct Layer:
    # A row of `layers`.
    Py_ssize_t n_filters
    Py_ssize_t n_taps  # vectors of channels or channels
    Py_ssize_t n_channels  # of h before it; a row of h[0] in double may end with zeros
    Py_ssize_t of_vectors  # 1: taps are vectors of channels (dot_row), 0: channels (conv_row)
    Py_ssize_t weight, bias  # where they begin
    Py_ssize_t activation


cdef void prepare(
    const dconv_microkernel *kernel, const float *x, const real_t *centre, const real_t *scale, Py_ssize_t period,
    Py_ssize_t n_channels, bint squares, Py_ssize_t n_pixels, real_t *h, Py_ssize_t row,
) noexcept nogil:
    """Write h[0], in double in rows of `row` numbers; with a scale it is clipped."""
    if real_t is double:
        kernel.activations.prepared(x, centre, scale, squares, n_channels, n_pixels, h, row)
    elif scale == NULL:
        kernel.activations.centred(x, centre, period, n_pixels * n_channels, h)
    else:
        kernel.activations.clipped(x, centre, scale, period, n_pixels * n_channels, h)


cdef void compute(
    const dconv_microkernel *kernel, const Layer *layer, const Py_ssize_t *offsets, const real_t *weights,
    const real_t *biases, const real_t *h, Py_ssize_t n_pixels, real_t *out,
) noexcept nogil:
    """Write what a layer gives before its activation, or if that is RELU with it."""
    cdef int fused = DCONV_RELU if layer.activation == _RELU else 0
    if layer.of_vectors:
        dot_row(kernel, h, layer.n_channels, offsets, layer.n_taps, weights + layer.weight, biases + layer.bias,
                layer.n_filters, out, layer.n_filters, n_pixels, fused)
    else:
        conv_row(kernel, h, layer.n_channels, offsets, layer.n_taps, 1, 0, weights + layer.weight, biases + layer.bias,
                 layer.n_filters, out, layer.n_filters, n_pixels, fused)


cdef void activate(const dconv_microkernel *kernel, Py_ssize_t activation, float *h, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if activation == _LOGISTIC:
        kernel.activations.logistic(h, n)
    elif activation == _TANH:
        kernel.activations.tanh(h, n)
    elif activation == _SOFTMAX:
        kernel.activations.exponential(h, n)
    elif activation == _RAMP:
        for i in range(n):
            h[i] = <float>0.5 * (1 + (-1 if h[i] < -1 else 1 if h[i] > 1 else h[i]))


cdef void activate_hidden(
    const dconv_microkernel *kernel, Py_ssize_t activation, real_t *h, Py_ssize_t n
) noexcept nogil:
    if real_t is float:
        activate(kernel, activation, h, n)
    elif activation == _SQUARE:
        kernel.activations.squared(h, n)


cdef void finish(
    const dconv_microkernel *kernel, Py_ssize_t activation, bint normalise, double floor, const real_t *h,
    Py_ssize_t n_outputs, Py_ssize_t n_pixels, float *planes, float *out,
) noexcept nogil:
    """Write the result of what the last layer gives."""
    cdef Py_ssize_t step = (n_pixels + DCONV_ROW_UNIT - 1) // DCONV_ROW_UNIT * DCONV_ROW_UNIT
    cdef int common = DCONV_NOTHING
    if activation == _SOFTMAX and n_outputs > 1:
        common = DCONV_SOFTMAX
    elif normalise and activation == _LOGISTIC:
        common = DCONV_ODDS
    if real_t is float:
        kernel.activations.planes_f32(h, n_outputs, n_pixels, common, floor, planes, step)
    else:
        kernel.activations.planes_f64(h, n_outputs, n_pixels, common, floor, planes, step)
    if activation == _SOFTMAX and n_outputs == 1:
        kernel.activations.pair(planes, planes + step, n_pixels)
        pair_up(planes + step, planes, n_pixels, out)
        return
    if activation == _SOFTMAX:
        n_outputs += 1
    activate(kernel, activation, planes, n_outputs * step)
    if normalise:
        kernel.activations.normalised(planes, n_outputs, n_pixels, step)
    kernel.rows.interleave(planes, step, n_outputs, out, n_outputs, n_pixels)


cdef void pair_up(const float *first, const float *second, Py_ssize_t n, float *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[2 * i] = first[i]
        out[2 * i + 1] = second[i]


def network_rows(
    const float[:, ::1] x,  # IN (n, channels)
    const real_t[::1] centre,  # IN (channels of so many pixels as fill RUN_UNITs); None, for float only: h[0] is x itself
    bint squares,  # for double only
    const real_t[::1] scale,  # IN (likewise); None, or with a centre and without squares: clip
    const Py_ssize_t[:, ::1] layers,  # IN (layers, fields of Layer)
    const real_t[::1] weights,  # IN all layers one after another, each packed as in microkernel.h
    const real_t[::1] biases,  # IN all layers, each F padded to whole vectors
    const Py_ssize_t[:, ::1] offsets,  # IN (layers, the most taps): channels where the taps of a layer begin
    bint normalise,  # as after SOFTMAX it must be
    double floor,  # with a normalised LOGISTIC: below it all is zero to the classifier
    float[:, ::1] out,  # OUT (n, F of the last layer; after SOFTMAX one more)
    real_t[:, ::1] scratch,  # (2, piece * numbers a pixel in the widest h, rounded up to ROW_UNIT)
    float[::1] planes,  # (piece * columns of `out`)
    Py_ssize_t piece,  # pixels, a multiple of ROW_UNIT
    str level=None,
):
    """Write the network's answer for every pixel of `x`; see the head of this file."""
    cdef const dconv_microkernel *kernel = get_level(level)
    cdef Py_ssize_t n_pixels = x.shape[0], n_channels = x.shape[1], n_layers = layers.shape[0]
    cdef Py_ssize_t step = _STEP_OF_ONE if layers[0, 0] == 1 else _STEP
    cdef Py_ssize_t start = 0, first = 0, n, m, index, ahead
    cdef bint from_scratch = centre is not None
    cdef const real_t *scales = NULL if scale is None else &scale[0]
    cdef const real_t *h = NULL
    cdef real_t *target = NULL
    cdef const Layer *layer = NULL
    with nogil:
        while start < n_pixels:
            n = min(piece, n_pixels - start)
            layer = <const Layer *>&layers[0, 0]
            first = 0
            while first < n:
                m = min(step, n - first)
                ahead = start + first + _AHEAD
                if ahead < n_pixels:
                    dconv_fetch(&x[ahead, 0], min(step, n_pixels - ahead) * n_channels)
                if from_scratch:
                    prepare(kernel, &x[start + first, 0], &centre[0], scales, centre.shape[0], n_channels, squares, m,
                            &scratch[0, 0], layer.n_channels)
                    h = &scratch[0, 0]
                elif real_t is float:
                    h = &x[start + first, 0]
                compute(kernel, layer, &offsets[0, 0], &weights[0], &biases[0], h, m,
                        &scratch[1, first * layer.n_filters])
                first += m
            h = &scratch[1, 0]
            for index in range(1, n_layers):
                activate_hidden(kernel, layer.activation, &scratch[index % 2, 0], n * layer.n_filters)
                layer = <const Layer *>&layers[index, 0]
                target = &scratch[(index + 1) % 2, 0]
                compute(kernel, layer, &offsets[index, 0], &weights[0], &biases[0], h, n, target)
                h = target
            finish(kernel, layer.activation, normalise, floor, h, layer.n_filters, n, &planes[0], &out[start, 0])
            start += n


def all_finite(const float[:, ::1] rows, str level=None):
    """Tell whether no number is infinite or NaN: a pass that costs less than a sum, and no mask."""
    cdef const dconv_microkernel *kernel = get_level(level)
    cdef bint finite = True
    if rows.size:
        with nogil:
            finite = kernel.activations.finite(&rows[0, 0], rows.shape[0] * rows.shape[1])
    return finite
