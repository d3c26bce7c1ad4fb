"""Dilated convolution over 1 to 3 axes, channels last, no borders.

    out[n, o, g*F + f] = bias[g*F + f] + sum_{k, c} weight[g*F + f, k, c] * x[n, o*stride + k*dilation, g*C + c]

Letters: n image, o output pixel (o0, o1, o2), k kernel position, g group, F filters and C channels per group.
1-D and 2-D arrive as 3-D with leading axes of size 1. Dilation, kernel positions and channels arrive as one table of
offsets into x (in elements); x may have any strides, out is contiguous in its last axis.

Parallel over pieces of output rows (n, o0, o1, piece of o2): each is written by one thread. Within a piece: groups,
blocks of filters, pixels, and innermost the taps (microkernel.h). A piece is so short that the rows of x it reads
stay in the L2 cache while the blocks of filters pass over them.
"""

from cython.parallel cimport prange

from dconv._kernels._dispatch cimport conv_row, dconv_microkernel, dot_row, get_level, lanewise_row, real_t


cdef struct Rows:
    # How output rows are cut into pieces and where a piece begins. Strides are in elements.
    Py_ssize_t n1, n2, piece, n_pieces
    Py_ssize_t x_strides[4]  # of n, and of one step of o0, o1, o2
    Py_ssize_t out_strides[4]


cdef inline Py_ssize_t locate(const Rows *rows, const Py_ssize_t *strides, Py_ssize_t task) noexcept nogil:
    """Return the offset of the first pixel of piece `task`: rows run fastest, so that a thread walks down a column
    of pieces and finds most input rows of one piece in its L2 cache from the piece above.
    """
    cdef Py_ssize_t column = task // rows.n2
    return (
        task % rows.n2 * strides[2]
        + column % rows.n_pieces * rows.piece * strides[3]
        + column // rows.n_pieces % rows.n1 * strides[1]
        + column // rows.n_pieces // rows.n1 * strides[0]
    )


cdef Rows plan_rows(
    const Py_ssize_t *x_strides, const Py_ssize_t *out_strides, const Py_ssize_t *out_shape, Py_ssize_t itemsize,
    tuple strides, Py_ssize_t piece,
):
    """Return the rows of `out` in pieces; memoryview strides are in bytes, `strides` are the convolution's."""
    cdef Rows rows
    cdef int axis
    rows.n1, rows.n2, rows.piece = out_shape[1], out_shape[2], piece
    rows.n_pieces = (out_shape[3] + piece - 1) // piece
    for axis in range(4):
        rows.x_strides[axis] = x_strides[axis] // itemsize * (strides[axis - 1] if axis else 1)
        rows.out_strides[axis] = out_strides[axis] // itemsize
    return rows


def conv_rows(
    const real_t[:, :, :, :, :] x,  # IN (n, i0, i1, i2, groups * C)
    const Py_ssize_t[::1] offsets,  # IN (taps of one group,), or with a run (kernel positions,)
    Py_ssize_t run,  # lanes are filters if 0, else the channels of a group: so many lie beside each other
    const real_t[:, ::1] weight,  # IN (groups, packed: see microkernel.h), or with a run (groups, F * taps)
    const real_t[:, ::1] bias,  # IN (groups, F padded to whole vectors) or None
    tuple strides,  # of the convolution, one per axis
    real_t[:, :, :, :, :] out,  # OUT (n, o0, o1, o2, groups * F), last axis contiguous
    Py_ssize_t piece,  # output pixels in a piece
    int n_threads,
    str level=None,
):
    """Write the convolution of `x` to `out`; see the head of this file."""
    if out.size == 0:
        return
    cdef const dconv_microkernel *kernel = get_level(level)
    cdef Rows rows = plan_rows(x.strides, out.strides, out.shape, sizeof(real_t), strides, piece)
    cdef Py_ssize_t n_groups = weight.shape[0], n_filters = out.shape[4] // n_groups, n_taps = offsets.shape[0]
    cdef Py_ssize_t channel_step = x.strides[4] // <Py_ssize_t>sizeof(real_t) * (x.shape[4] // n_groups)
    cdef Py_ssize_t n_tasks = out.shape[0] * rows.n1 * rows.n2 * rows.n_pieces
    cdef Py_ssize_t task, group, n_pixels
    cdef const real_t *source
    cdef const real_t *bias_row
    cdef real_t *target
    for task in prange(n_tasks, nogil=True, schedule="static", num_threads=n_threads):
        n_pixels = min(piece, out.shape[3] - task // rows.n2 % rows.n_pieces * piece)
        for group in range(n_groups):
            source = &x[0, 0, 0, 0, 0] + locate(&rows, rows.x_strides, task) + group * channel_step
            target = &out[0, 0, 0, 0, 0] + locate(&rows, rows.out_strides, task) + group * n_filters
            bias_row = NULL if bias is None else &bias[group, 0]
            if run:
                dot_row(kernel, source, rows.x_strides[3], &offsets[0], n_taps, run, &weight[group, 0], bias_row,
                        n_filters, target, rows.out_strides[3], n_pixels)
            else:
                conv_row(kernel, source, rows.x_strides[3], &offsets[0], n_taps, &weight[group, 0], bias_row,
                         n_filters, target, rows.out_strides[3], n_pixels)


def depthwise_rows(
    const real_t[:, :, :, :, :] x,  # IN (n, i0, i1, i2, C), last axis contiguous
    const Py_ssize_t[::1] offsets,  # IN (kernel positions,)
    const real_t[:, ::1] weight,  # IN (kernel positions, lanes): the C filters beside each other, again and again
    const real_t[::1] bias,  # IN (lanes,) or None
    tuple strides,
    real_t[:, :, :, :, :] out,  # OUT (n, o0, o1, o2, C), last axis contiguous
    Py_ssize_t piece,
    int n_threads,
    str level=None,
):
    """Write the depthwise convolution of `x` (groups = C = filters) to `out`.

    Where pixels lie beside each other in x and in out, channels and pixels are one run of samples, and `lanes` may be
    several pixels: then few channels, even a single one, fill whole vectors. Otherwise `lanes` must be C.
    """
    if out.size == 0:
        return
    cdef const dconv_microkernel *kernel = get_level(level)
    cdef Rows rows = plan_rows(x.strides, out.strides, out.shape, sizeof(real_t), strides, piece)
    cdef Py_ssize_t n_taps = offsets.shape[0], n_channels = out.shape[4], n_lanes = weight.shape[1]
    cdef Py_ssize_t pixels_per_step = n_lanes // n_channels
    cdef Py_ssize_t x_step = rows.x_strides[3] * pixels_per_step, out_step = rows.out_strides[3] * pixels_per_step
    cdef Py_ssize_t n_tasks = out.shape[0] * rows.n1 * rows.n2 * rows.n_pieces
    cdef Py_ssize_t task, n_steps, n_left, n_pixels
    cdef const real_t *bias_row = NULL if bias is None else &bias[0]
    cdef const real_t *source
    cdef real_t *target
    for task in prange(n_tasks, nogil=True, schedule="static", num_threads=n_threads):
        n_pixels = min(piece, out.shape[3] - task // rows.n2 % rows.n_pieces * piece)
        n_steps = n_pixels // pixels_per_step
        n_left = n_pixels % pixels_per_step * n_channels
        source = &x[0, 0, 0, 0, 0] + locate(&rows, rows.x_strides, task)
        target = &out[0, 0, 0, 0, 0] + locate(&rows, rows.out_strides, task)
        lanewise_row(kernel, source, x_step, &offsets[0], n_taps, &weight[0, 0], n_lanes, bias_row, n_lanes, target,
                     out_step, n_steps)
        if n_left:
            lanewise_row(kernel, source + n_steps * x_step, 0, &offsets[0], n_taps, &weight[0, 0], n_lanes, bias_row,
                         n_left, target + n_steps * out_step, 0, 1)
