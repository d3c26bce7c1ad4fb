"""A stack of 1 x 1 convolutions with activations between them, over the pixels of a tile: linear models, perceptrons.

    h[0] = x - centre, with squares=True beside its own square, with a scale clip((x - centre) * scale),
           clip(x) being x / sqrt(1 + x^2)
    h[l + 1, p, f] = activation_l(bias_l[f] + sum_c weight_l[f, c] * h[l, p, c])
    out = the last h, with normalise=True divided by its sum over f; after PAIR (1 - h, h)

Letters: p pixel, f filter (unit), c channel, F and C how many of them a layer has. All is computed in real_t, but the
last activation in float: badly conditioned models can be computed in double.

Loop order: pieces of pixels so short that what a layer writes is still in the L1 or L2 cache when the next one reads
it; in a piece the layers; in a layer the loops of microkernel.h. All of it runs on the calling thread, without the
GIL: callers work on several tiles at once. A pixel takes the same instructions wherever a piece or a tile ends.
"""

from libc.math cimport sqrt

from dconv._kernels._dispatch cimport DCONV_RELU, DCONV_RUN_UNIT, conv_row, dconv_microkernel, dot_row, get_level, real_t

cdef extern from "feature_rows.h":
    enum:
        DCONV_ROW_UNIT

ROW_UNIT = DCONV_ROW_UNIT  # numbers that scratch is rounded up to
RUN_UNIT = DCONV_RUN_UNIT  # numbers of pixels in a row that are prepared together

# Activations. EXPONENTIAL is e^(x - m) with m the largest of the pixel: normalised it is the softmax. RAMP is
# (x + 1) / 2 within 0 and 1. PAIR is the softmax of two classes, from one filter: the score of the second less that of
# the first. These three can only be the last, SQUARE cannot, and only SQUARE and IDENTITY come before the last in double.
IDENTITY, RELU, LOGISTIC, TANH, SQUARE, EXPONENTIAL, RAMP, PAIR = range(8)
cdef enum:
    _IDENTITY
    _RELU
    _LOGISTIC
    _TANH
    _SQUARE
    _EXPONENTIAL
    _RAMP
    _PAIR


cdef struct Layer:
    # A row of `layers`.
    Py_ssize_t n_filters
    Py_ssize_t n_taps  # vectors of channels or channels
    Py_ssize_t n_channels  # of h before it, which of h[0] may be more than it has
    Py_ssize_t of_vectors  # 1: taps are vectors of channels (dot_row), 0: channels (conv_row)
    Py_ssize_t weight, bias  # where they begin
    Py_ssize_t activation


cdef void prepare_floats(
    const dconv_microkernel *kernel, const float *x, const float *centre, const float *scale, Py_ssize_t period,
    Py_ssize_t n, float *h,
) noexcept nogil:
    """Write `n` numbers of h[0]; with a scale they are clipped."""
    if scale == NULL:
        kernel.activations.centred(x, centre, period, n, h)
    else:
        kernel.activations.clipped(x, centre, scale, period, n, h)


cdef void prepare(
    const dconv_microkernel *kernel, const float *x, const real_t *centre, const real_t *scale, Py_ssize_t period,
    Py_ssize_t n_channels, bint squares, Py_ssize_t n_pixels, Py_ssize_t row, real_t *h,
) noexcept nogil:
    """Write h[0], in rows of `row` numbers that end with zeros; with a scale it is clipped."""
    cdef Py_ssize_t pixel, c
    if real_t is float and row == n_channels:
        prepare_floats(kernel, x, centre, scale, period, n_pixels * n_channels, h)
        return
    for pixel in range(n_pixels):
        if real_t is float and not squares:
            prepare_floats(kernel, x, centre, scale, period, n_channels, h)
        else:
            for c in range(n_channels):
                h[c] = x[c] - centre[c]
            if scale != NULL:
                for c in range(n_channels):
                    h[c] *= scale[c]
                    h[c] = h[c] / sqrt(1 + h[c] * h[c])
        if squares:
            for c in range(n_channels):
                h[n_channels + c] = h[c] * h[c]
        for c in range(2 * n_channels if squares else n_channels, row):
            h[c] = 0
        h += row
        x += n_channels


cdef void activate(const dconv_microkernel *kernel, Py_ssize_t activation, float *h, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if activation == _LOGISTIC:
        kernel.activations.logistic(h, n)
    elif activation == _TANH:
        kernel.activations.tanh(h, n)
    elif activation == _EXPONENTIAL:
        kernel.activations.exponential(h, n)
    elif activation == _RAMP:
        for i in range(n):
            h[i] = <float>0.5 * (1 + (-1 if h[i] < -1 else 1 if h[i] > 1 else h[i]))


cdef void activate_hidden(const dconv_microkernel *kernel, Py_ssize_t activation, real_t *h, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if activation == _SQUARE:
        for i in range(n):
            h[i] *= h[i]
    elif real_t is float:
        activate(kernel, activation, h, n)


cdef void as_float(
    const real_t *h, Py_ssize_t n_filters, bint exponential, bint odds, double floor, Py_ssize_t n_pixels, float *last
) noexcept nogil:
    """Write what the last layer gives, less what each pixel may have in common because a normalisation takes it out.

    With `exponential` that is the largest. With `odds` what the largest is below -20, where logistic(x) is e^x to the
    last bit: all would be zero in float. The classifier itself has zeros below `floor`, and then prefers nothing.
    """
    cdef Py_ssize_t pixel, f
    cdef real_t largest, common, factor
    for pixel in range(n_pixels):
        common, factor = 0, 1
        if exponential or odds:
            largest = h[0]
            for f in range(1, n_filters):
                largest = h[f] if h[f] > largest else largest
            if exponential:
                common = largest
            elif largest < -20:
                common = largest + 20
                factor = 0 if largest < floor else 1
        for f in range(n_filters):
            last[f] = <float>((h[f] - common) * factor)
        h += n_filters
        last += n_filters


cdef void finish(const float *last, Py_ssize_t n_filters, bint normalise, Py_ssize_t n_pixels, float *out) noexcept nogil:
    """Write the result. A pixel whose sum is zero prefers nothing: all its numbers become equal."""
    cdef Py_ssize_t pixel, f
    cdef float total, factor = 1
    for pixel in range(n_pixels):
        total = 0
        if normalise:
            for f in range(n_filters):
                total += last[f]
            factor = 1 / total
        for f in range(n_filters):
            out[f] = <float>1 / n_filters if normalise and total == 0 else last[f] * factor
        last += n_filters
        out += n_filters


cdef void finish_pair(
    const dconv_microkernel *kernel, float *last, float *others, Py_ssize_t n_pixels, float *out
) noexcept nogil:
    """Write the probabilities of two classes; `last` are scores, `others` has room for as many."""
    cdef Py_ssize_t pixel
    kernel.activations.pair(last, others, n_pixels)
    for pixel in range(n_pixels):
        out[2 * pixel] = others[pixel]
        out[2 * pixel + 1] = last[pixel]


def network_rows(
    const float[:, ::1] x,  # IN (n, channels)
    const real_t[::1] centre,  # IN (channels of so many pixels as fill RUN_UNITs); None, for float only: h[0] is x itself
    bint squares,
    const real_t[::1] scale,  # IN (likewise); None, or with a centre and without squares: clip
    const Py_ssize_t[:, ::1] layers,  # IN (layers, fields of Layer)
    const real_t[::1] weights,  # IN all layers one after another, each packed as in microkernel.h
    const real_t[::1] biases,  # IN all layers, each F padded to whole vectors
    const Py_ssize_t[:, ::1] offsets,  # IN (layers, the most taps): channels where the taps of a layer begin
    bint normalise,
    double floor,  # with a normalised LOGISTIC: below it all is zero to the classifier
    float[:, ::1] out,  # OUT (n, F of the last layer; after PAIR 2)
    real_t[:, ::1] scratch,  # (2, piece * numbers a pixel in the widest h, rounded up to ROW_UNIT)
    float[:, ::1] last,  # (2, piece * F of the last layer, likewise)
    Py_ssize_t piece,  # pixels
    str level=None,
):
    """Write the network's answer for every pixel of `x`; see the head of this file."""
    cdef const dconv_microkernel *kernel = get_level(level)
    cdef Py_ssize_t n_pixels = x.shape[0], n_layers = layers.shape[0], n_out
    cdef Py_ssize_t start = 0, n, index
    cdef int fused
    cdef bint from_scratch = centre is not None
    cdef const real_t *scales = NULL if scale is None else &scale[0]
    cdef const real_t *h = NULL
    cdef real_t *target = NULL
    cdef const Layer *first = <const Layer *>&layers[0, 0]
    cdef const Layer *layer = first
    cdef Py_ssize_t activation = layer[n_layers - 1].activation
    n_out = layer[n_layers - 1].n_filters
    with nogil:
        while start < n_pixels:
            n = min(piece, n_pixels - start)
            if from_scratch:
                prepare(kernel, &x[start, 0], &centre[0], scales, centre.shape[0], x.shape[1], squares, n,
                        first.n_channels, &scratch[0, 0])
                h = &scratch[0, 0]
            elif real_t is float:
                h = &x[start, 0]
            for index in range(n_layers):
                layer = <const Layer *>&layers[index, 0]
                target = &scratch[(index + 1) % 2, 0]
                fused = DCONV_RELU if layer.activation == _RELU else 0
                if layer.of_vectors:
                    dot_row(kernel, h, layer.n_channels, &offsets[index, 0], layer.n_taps, &weights[layer.weight],
                            &biases[layer.bias], layer.n_filters, target, layer.n_filters, n, fused)
                else:
                    conv_row(kernel, h, layer.n_channels, &offsets[index, 0], layer.n_taps, 1, 0, &weights[layer.weight],
                             &biases[layer.bias], layer.n_filters, target, layer.n_filters, n, fused)
                if index < n_layers - 1:
                    activate_hidden(kernel, layer.activation, target, n * layer.n_filters)
                h = target
            as_float(h, n_out, activation == _EXPONENTIAL, normalise and activation == _LOGISTIC, floor, n, &last[0, 0])
            if activation == _PAIR:
                finish_pair(kernel, &last[0, 0], &last[1, 0], n, &out[start, 0])
            else:
                activate(kernel, activation, &last[0, 0], n * n_out)
                finish(&last[0, 0], n_out, normalise, n, &out[start, 0])
            start += n


def all_finite(const float[:, ::1] rows, str level=None):
    """Tell whether no number is infinite or NaN: a pass that costs less than a sum, and no mask."""
    cdef const dconv_microkernel *kernel = get_level(level)
    cdef bint finite = True
    if rows.size:
        with nogil:
            finite = kernel.activations.finite(&rows[0, 0], rows.shape[0] * rows.shape[1])
    return finite
