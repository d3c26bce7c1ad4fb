"""Convolution over 1 to 3 axes, channels last, with its borders: every loop of microkernel.h over all output rows.

    out[n, o, g*F + f] = bias[g*F + f] + sum_{k, c} weight[g*F + f, k, c] * x[n, low + o*step + k*spacing, g*C + c]

Letters: n image, o output pixel (o0, o1, o2), k kernel position, g group, F filters and C channels per group.
1-D and 2-D arrive as 3-D with leading axes of size 1. Spacing, kernel positions and channels arrive as one table of
offsets into x (in elements); x may have any strides, out is contiguous in its last axis. Along a row, o2, outputs may
belong to several phases, each with taps of its own, whose pixels take turns (transposed convolution).

Parallel over pieces of output rows (n, o0, o1, piece of o2): each is written by one thread. Within a piece: phases,
groups, blocks of filters, pixels, and innermost the taps (microkernel.h). A piece is so short that the rows of x it
reads stay in the L2 cache while the blocks of filters pass over them.

Pixels whose window lies inside x read it in place. For the others, near a border, the samples of their windows are
first copied, with what lies beyond the border, to a scratch of the thread, which has a table of offsets of its own:
so x is never padded as a whole, and all outputs add their taps in the same order.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memcpy, memset

from dconv._kernels._dispatch cimport (
    DCONV_RELU, DCONV_SHARED_TILE, DCONV_STREAM, conv_row, dconv_microkernel, dot_row, get_level, lanewise_row, real_t,
    shared_row,
)

# What lies side by side in the lanes of a vector.
FILTERS, CHANNELS, PIXELS, SHARED = 0, 1, 2, 3
cdef enum:
    _FILTERS = 0
    _CHANNELS = 1
    _PIXELS = 2
    _SHARED = 3  # filters of several pixels or of several groups
    # Pixels at a border are computed this many together, a multiple of the tile of 6: one by one they are four times
    # slower each, and copying the windows of more costs more than it saves.
    _BORDER_PIXELS = 12


cdef struct Axis:
    # How a spatial axis of x is read. Along rows, `low`, `n_taps` and `inside` are those of a phase instead.
    Py_ssize_t size, step, low, n_taps, spacing
    Py_ssize_t first_inside, stop_inside  # outputs whose windows lie inside x
    Py_ssize_t n_before  # entries of `border` for places before x
    const Py_ssize_t *border  # the sample at each place just before and just after x; NULL: zeros


cdef struct Phase:
    # Pixels first, first + out_step, ... of a row.
    Py_ssize_t first, count, low, n_taps, first_inside, stop_inside
    Py_ssize_t position  # of its first tap in the tables of offsets, in kernel positions


cdef struct Rows:
    # Everything that all pieces share. Strides and lengths are in elements.
    Axis axis[3]
    const Phase *phases
    Py_ssize_t n_phases, out_step, piece, n_pieces, n_rows0, n_rows1
    Py_ssize_t n_groups, n_channels, n_filters  # per group
    Py_ssize_t n_blocks  # of weights: as many as groups, but where groups share vectors or every lane is one
    Py_ssize_t x_strides[5]
    Py_ssize_t out_strides[4]
    const Py_ssize_t *x_offsets
    const Py_ssize_t *scratch_offsets
    Py_ssize_t scratch_row  # pixels
    int lanes
    Py_ssize_t n_beside  # with lanes of pixels: samples in one step of a row; shared: pixels or groups in a vector
    Py_ssize_t taps_per_position, weights_per_position, weights_per_block
    Py_ssize_t apart  # output pixels from a tap of a row to the next; 0: they do not follow each other, or not by pixels
    int finish  # how results are written, see microkernel.h


cdef inline Py_ssize_t sample_at(const Axis *axis, Py_ssize_t place) noexcept nogil:
    """Return which sample stands at `place`, counted from the first of x; -1 is a zero."""
    if 0 <= place < axis.size:
        return place
    if axis.border == NULL:
        return -1
    return axis.border[axis.n_before + (place if place < 0 else place - axis.size)]


cdef inline bint is_inside(const Axis *axis, Py_ssize_t output) noexcept nogil:
    return axis.first_inside <= output < axis.stop_inside


cdef void copy_row(
    const Rows *rows, const real_t *x, Py_ssize_t place, Py_ssize_t n_pixels, real_t *row
) noexcept nogil:
    """Copy `n_pixels` pixels from `place` on of a row of x, extended beyond its borders, to `row`."""
    cdef Py_ssize_t n_channels = rows.n_groups * rows.n_channels
    cdef Py_ssize_t step = rows.x_strides[3], channel_step = rows.x_strides[4]
    cdef Py_ssize_t pixel, channel, sample, n_inside
    cdef bint one_run = channel_step == 1 and step == n_channels
    pixel = 0
    while pixel < n_pixels:
        if one_run and 0 <= place + pixel < rows.axis[2].size:
            n_inside = min(n_pixels - pixel, rows.axis[2].size - place - pixel)
            memcpy(row + pixel * n_channels, x + (place + pixel) * step, n_inside * n_channels * sizeof(real_t))
            pixel += n_inside
            continue
        sample = sample_at(&rows.axis[2], place + pixel)
        for channel in range(n_channels):
            row[pixel * n_channels + channel] = 0 if sample < 0 else x[sample * step + channel * channel_step]
        pixel += 1


cdef void copy_windows(
    const Rows *rows, const real_t *x, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t place, Py_ssize_t n_pixels,
    real_t *scratch,
) noexcept nogil:
    """Copy the rows of x that output row (o0, o1) reads, `n_pixels` from `place` on, extended, to `scratch`."""
    cdef const Axis *axis0 = &rows.axis[0]
    cdef const Axis *axis1 = &rows.axis[1]
    cdef Py_ssize_t row_size = rows.scratch_row * rows.n_groups * rows.n_channels
    cdef Py_ssize_t k0, k1, i0, i1
    cdef real_t *row = scratch
    for k0 in range(axis0.n_taps):
        i0 = sample_at(axis0, axis0.low + o0 * axis0.step + k0 * axis0.spacing)
        for k1 in range(axis1.n_taps):
            i1 = sample_at(axis1, axis1.low + o1 * axis1.step + k1 * axis1.spacing)
            if i0 < 0 or i1 < 0:
                memset(row, 0, n_pixels * rows.n_groups * rows.n_channels * sizeof(real_t))
            else:
                copy_row(rows, x + i0 * rows.x_strides[1] + i1 * rows.x_strides[2], place, n_pixels, row)
            row += row_size


cdef void compute_depthwise(
    const dconv_microkernel *kernel, const Rows *rows, const real_t *window, Py_ssize_t pixel_step,
    const Py_ssize_t *offsets, Py_ssize_t n_taps, Py_ssize_t n_run, const real_t *weight, const real_t *bias,
    real_t *out, Py_ssize_t out_step, Py_ssize_t n_pixels,
) noexcept nogil:
    """Compute neighbours with lanes of pixels, a step of one or several at a time."""
    cdef Py_ssize_t per_step = rows.n_beside // rows.n_groups
    if per_step > 1:
        n_run = 1  # neighbouring taps are parts of a step apart
    cdef Py_ssize_t n_steps = n_pixels // per_step, n_left = n_pixels % per_step * rows.n_groups
    lanewise_row(kernel, window, pixel_step * per_step, offsets, n_taps, n_run, rows.apart, weight, rows.n_beside, bias,
                 rows.n_beside, out, out_step * per_step, n_steps, rows.finish)
    if n_left:
        lanewise_row(kernel, window + n_steps * per_step * pixel_step, 0, offsets, n_taps, 1, 0, weight, rows.n_beside,
                     bias, n_left, out + n_steps * per_step * out_step, 0, 1, rows.finish)


cdef void compute_shared(
    const dconv_microkernel *kernel, const Rows *rows, const real_t *window, Py_ssize_t pixel_step,
    const Py_ssize_t *offsets, Py_ssize_t n_taps, Py_ssize_t n_run, const real_t *weight, const real_t *bias,
    Py_ssize_t bias_step, real_t *out, Py_ssize_t out_step, Py_ssize_t n_pixels,
) noexcept nogil:
    """Compute neighbours with vectors that groups share or, of one group, pixels; too few of these by themselves."""
    cdef Py_ssize_t block, group, n_steps, n_done
    if rows.n_groups == 1:
        n_steps = n_pixels // rows.n_beside
        n_done = n_steps * rows.n_beside if n_steps >= DCONV_SHARED_TILE else 0
        shared_row(kernel, window, pixel_step * rows.n_beside, pixel_step, rows.n_beside, offsets, n_taps, weight, bias,
                   rows.n_filters, out, out_step * rows.n_beside, n_done // rows.n_beside, rows.finish)
        conv_row(kernel, window + n_done * pixel_step, pixel_step, offsets, n_taps, n_run, rows.apart, weight, bias,
                 rows.n_filters, out + n_done * out_step, out_step, n_pixels - n_done, rows.finish)
        return
    for block in range(rows.n_blocks):  # the last ends with the groups, and may compute some again
        group = min(block * rows.n_beside, rows.n_groups - rows.n_beside)
        shared_row(kernel, window + group * rows.n_channels, pixel_step, rows.n_channels, rows.n_beside, offsets, n_taps,
                   weight + block * rows.weights_per_block, bias, rows.n_filters, out + group * rows.n_filters, out_step,
                   n_pixels, rows.finish)
        if bias != NULL:
            bias += bias_step


cdef void compute_pixels(
    const dconv_microkernel *kernel, const Rows *rows, const Phase *phase, const real_t *window, Py_ssize_t pixel_step,
    Py_ssize_t channel_step, const Py_ssize_t *offsets, const real_t *weight, const real_t *bias,
    Py_ssize_t bias_step, real_t *out, Py_ssize_t n_pixels,
) noexcept nogil:
    """Compute `n_pixels` neighbours of one phase; `window` is where the first tap of the first of them lies."""
    cdef Py_ssize_t n_taps = rows.axis[0].n_taps * rows.axis[1].n_taps * phase.n_taps * rows.taps_per_position
    cdef Py_ssize_t n_run = phase.n_taps if rows.apart else 1
    cdef Py_ssize_t out_step = rows.out_step * rows.out_strides[3]
    cdef Py_ssize_t group
    offsets += phase.position * rows.taps_per_position
    weight += phase.position * rows.weights_per_position
    if rows.lanes == _PIXELS:
        compute_depthwise(kernel, rows, window, pixel_step, offsets, n_taps, n_run, weight, bias, out, out_step,
                          n_pixels)
        return
    if rows.lanes == _SHARED:
        compute_shared(kernel, rows, window, pixel_step, offsets, n_taps, n_run, weight, bias, bias_step, out, out_step,
                       n_pixels)
        return
    for group in range(rows.n_groups):
        if rows.lanes == _CHANNELS:
            dot_row(kernel, window, pixel_step, offsets, n_taps, weight, bias, rows.n_filters, out, out_step, n_pixels,
                    rows.finish)
        else:
            conv_row(kernel, window, pixel_step, offsets, n_taps, n_run, rows.apart, weight, bias, rows.n_filters, out,
                     out_step, n_pixels, rows.finish)
        window += rows.n_channels * channel_step
        weight += rows.weights_per_block
        out += rows.n_filters
        if bias != NULL:
            bias += bias_step


cdef void compute_copied(
    const dconv_microkernel *kernel, const Rows *rows, const Phase *phase, const real_t *x, Py_ssize_t o0,
    Py_ssize_t o1, Py_ssize_t first, Py_ssize_t stop, const real_t *weight, const real_t *bias, Py_ssize_t bias_step,
    real_t *out, real_t *scratch,
) noexcept nogil:
    """Compute pixels `first` to `stop` of a phase from a copy of their windows; `x` is the image, `out` the row."""
    cdef Py_ssize_t step = rows.axis[2].step, n_channels = rows.n_groups * rows.n_channels
    if first >= stop:
        return
    copy_windows(rows, x, o0, o1, phase.low + first * step,
                 (stop - 1 - first) * step + (phase.n_taps - 1) * rows.axis[2].spacing + 1, scratch)
    compute_pixels(kernel, rows, phase, scratch, step * n_channels, 1, rows.scratch_offsets, weight, bias, bias_step,
                   out + (phase.first + first * rows.out_step) * rows.out_strides[3], stop - first)


cdef inline Py_ssize_t whole_tiles(Py_ssize_t n_pixels) noexcept nogil:
    return (n_pixels + _BORDER_PIXELS - 1) // _BORDER_PIXELS * _BORDER_PIXELS


cdef void compute_piece(
    const dconv_microkernel *kernel, const Rows *rows, Py_ssize_t task, const real_t *x, const real_t *weight,
    const real_t *bias, Py_ssize_t bias_step, real_t *out, real_t *scratch,
) noexcept nogil:
    """Compute one piece of a row. Rows run fastest over tasks, so that a thread walks down a column of pieces and
    finds most rows of x that one piece reads in its L2 cache from the piece above.
    """
    cdef Py_ssize_t o1 = task % rows.n_rows1, column = task // rows.n_rows1
    cdef Py_ssize_t begin = column % rows.n_pieces * rows.piece, o0 = column // rows.n_pieces % rows.n_rows0
    cdef Py_ssize_t image = column // rows.n_pieces // rows.n_rows0
    cdef Py_ssize_t index, end, first, stop
    cdef const Phase *phase
    cdef bint rows_inside = is_inside(&rows.axis[0], o0) and is_inside(&rows.axis[1], o1)
    x += image * rows.x_strides[0]
    out += image * rows.out_strides[0] + o0 * rows.out_strides[1] + o1 * rows.out_strides[2]
    for index in range(rows.n_phases):
        phase = &rows.phases[index]
        end = min(begin + rows.piece, phase.count)
        if begin >= end:
            continue
        # The pixels read in place are first to stop; borders take from them what fills their last tile.
        first, stop = begin, begin
        if rows_inside or phase.n_taps == 0:
            first = min(max(phase.first_inside, begin), end)
            stop = min(max(phase.stop_inside, first), end)
            first = min(begin + whole_tiles(first - begin), end)
            stop = max(end - whole_tiles(end - stop), first)
        compute_copied(kernel, rows, phase, x, o0, o1, begin, first, weight, bias, bias_step, out, scratch)
        if first < stop:
            compute_pixels(
                kernel, rows, phase,
                x + (rows.axis[0].low + o0 * rows.axis[0].step) * rows.x_strides[1]
                + (rows.axis[1].low + o1 * rows.axis[1].step) * rows.x_strides[2]
                + (phase.low + first * rows.axis[2].step) * rows.x_strides[3],
                rows.axis[2].step * rows.x_strides[3], rows.x_strides[4], rows.x_offsets, weight, bias, bias_step,
                out + (phase.first + first * rows.out_step) * rows.out_strides[3], stop - first,
            )
        compute_copied(kernel, rows, phase, x, o0, o1, stop, end, weight, bias, bias_step, out, scratch)


def conv_rows(
    const real_t[:, :, :, :, :] x,  # IN (n, i0, i1, i2, groups * C)
    const real_t[:, ::1] weight,  # IN (blocks, packed: see microkernel.h); with lanes of pixels (1, positions * lanes)
    const real_t[:, ::1] bias,  # IN (blocks, F padded to whole vectors), with lanes of pixels (1, lanes); or None
    real_t[:, :, :, :, :] out,  # OUT (n, o0, o1, o2, groups * F), last axis contiguous
    const Py_ssize_t[:, ::1] axes,  # IN (3, fields of Axis up to stop_inside)
    tuple borders,  # three arrays (places before and after x,), or None for each: zeros
    const Py_ssize_t[:, ::1] phases,  # IN (phases, fields of Phase)
    const Py_ssize_t[:, ::1] offsets,  # IN (2, positions of all phases * offsets at each): in x, in scratch
    real_t[:, ::1] scratch,  # (threads, at least rows read * scratch_row * channels)
    Py_ssize_t scratch_row,  # pixels in a row of the scratch
    Py_ssize_t taps_per_position,  # offsets at each kernel position
    Py_ssize_t out_step,  # pixels from one of a phase to the next
    Py_ssize_t apart,  # output pixels from a tap to the next, where those of a row follow each other in the tables; or 0
    Py_ssize_t groups,
    int lanes,  # FILTERS, CHANNELS (a multiple of a vector per group, beside each other), PIXELS (depthwise) or SHARED
    Py_ssize_t n_beside,  # PIXELS: samples in a step of a row; SHARED: groups or, of one group, pixels in a vector
    Py_ssize_t piece,  # pixels of a phase in a piece
    int n_threads,
    str level=None,
    bint relu=False,
    bint stream=False,
):
    """Write the convolution of `x` to `out`, past the caches if `stream`, and make what is negative 0 if `relu`; see the
    head of this file.

    With lanes of pixels every channel is a group of one filter. Where pixels lie beside each other in x and in out,
    a step of a row may be several pixels, so that few channels, even a single one, fill whole vectors; otherwise it
    must be one pixel.
    """
    if out.size == 0:
        return
    cdef const dconv_microkernel *kernel = get_level(level)
    cdef Rows rows
    cdef const Py_ssize_t[::1] border
    cdef Py_ssize_t axis, task, n_tasks, n_positions, bias_step
    for axis in range(5):
        rows.x_strides[axis] = x.strides[axis] // <Py_ssize_t>sizeof(real_t)
    for axis in range(4):
        rows.out_strides[axis] = out.strides[axis] // <Py_ssize_t>sizeof(real_t)
    for axis in range(3):
        rows.axis[axis].size, rows.axis[axis].step, rows.axis[axis].low = axes[axis, 0], axes[axis, 1], axes[axis, 2]
        rows.axis[axis].n_taps, rows.axis[axis].spacing = axes[axis, 3], axes[axis, 4]
        rows.axis[axis].first_inside, rows.axis[axis].stop_inside = axes[axis, 5], axes[axis, 6]
        rows.axis[axis].n_before, rows.axis[axis].border = axes[axis, 7], NULL
        if borders[axis] is not None:
            border = borders[axis]
            if border.shape[0]:
                rows.axis[axis].border = &border[0]
    rows.phases, rows.n_phases, rows.out_step = <const Phase *>&phases[0, 0], phases.shape[0], out_step
    rows.piece, rows.n_pieces = piece, ((out.shape[3] + out_step - 1) // out_step + piece - 1) // piece
    rows.n_rows0, rows.n_rows1 = out.shape[1], out.shape[2]
    rows.lanes, rows.n_beside, rows.finish = lanes, n_beside, DCONV_RELU * relu | DCONV_STREAM * stream
    rows.n_groups, rows.n_blocks = groups, weight.shape[0]
    rows.n_channels, rows.n_filters = x.shape[4] // rows.n_groups, out.shape[4] // rows.n_groups
    rows.x_offsets = rows.scratch_offsets = NULL
    rows.taps_per_position, n_positions = taps_per_position, offsets.shape[1] // taps_per_position
    if offsets.shape[1]:
        rows.x_offsets, rows.scratch_offsets = &offsets[0, 0], &offsets[1, 0]
    rows.weights_per_block = weight.shape[1]
    rows.weights_per_position = weight.shape[1] // max(n_positions, 1)
    rows.scratch_row, rows.apart = scratch_row, apart
    cdef const real_t *first_bias = NULL
    bias_step = 0
    if bias is not None:
        first_bias, bias_step = &bias[0, 0], bias.shape[1]
    n_tasks = out.shape[0] * rows.n_rows0 * rows.n_rows1 * rows.n_pieces
    for task in prange(n_tasks, nogil=True, schedule="static", num_threads=n_threads):
        compute_piece(
            kernel, &rows, task, &x[0, 0, 0, 0, 0], &weight[0, 0], first_bias, bias_step,
            &out[0, 0, 0, 0, 0], &scratch[threadid(), 0],
        )
