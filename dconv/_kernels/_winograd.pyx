"""Convolution with 3 x 3 kernels by Winograd's minimal filtering F(2x2, 3x3), channels last: the loop over all tiles.

    v[i, t, c] = transform of the 4 x 4 samples of tile t          (winograd_rows.h: forward)
    m[i, t, f] = sum_c weight[i, c, f] * v[i, t, c],  i = 0 ... 15  (microkernel.h: conv_row)
    out        = transform of the 16 products of tile t, plus bias (winograd_rows.h: inverse)

Letters: t tile, C channels, F filters. A tile is 2 x 2 outputs whose places differ by the dilation, and samples of x as
far apart, so that a dilated layer is as many layers without dilation, one between the other. Samples outside of x are
zeros, and outputs outside of `out` are not written.

Parallel over blocks of tiles, each written by one thread. A block is so small that what it is transformed to stays in the
L2 cache while the filters pass over it, some at a time, and so large that weights are read from afar rarely.

S. Winograd, "Arithmetic complexity of computations", 1980, doi:10.1137/1.9781611970364; A. Lavin and S. Gray, "Fast
algorithms for convolutional neural networks", 2016, arXiv:1509.09308.
"""

from cython.parallel cimport prange, threadid

from dconv._kernels._dispatch cimport DCONV_WINOGRAD_UNIT, conv_row, dconv_microkernel, get_level

UNIT = DCONV_WINOGRAD_UNIT  # of channels and of filters


cdef struct Tiles:
    # Everything that all blocks share. Steps are in floats.
    const float *x
    const float *weight
    const float *bias
    float *out
    const Py_ssize_t *first[2]  # output of each row and column of tiles
    const Py_ssize_t *offsets
    const float *zeros
    Py_ssize_t n_columns, n_tiles, n_channels, n_filters, block, chunk
    Py_ssize_t sizes[2]  # of x
    Py_ssize_t steps[2]
    Py_ssize_t out_sizes[2]
    Py_ssize_t out_steps[2]
    Py_ssize_t low[2]  # sample of x that the first tap of output 0 reads
    Py_ssize_t spacing[2]
    Py_ssize_t weights_per_factor, v_row, v_step, m_step
    bint relu


cdef inline Py_ssize_t place_of(const Tiles *tiles, Py_ssize_t tile, int axis) noexcept nogil:
    """Return the place in `out` of the first output of a tile."""
    return tiles.first[axis][tile // tiles.n_columns if axis == 0 else tile % tiles.n_columns]


cdef void transform_tile(
    const dconv_microkernel *kernel, const Tiles *tiles, Py_ssize_t tile, float *v
) noexcept nogil:
    cdef const float *samples[16]
    cdef Py_ssize_t i, j, i0, i1
    cdef Py_ssize_t first0 = tiles.low[0] + place_of(tiles, tile, 0), first1 = tiles.low[1] + place_of(tiles, tile, 1)
    for i in range(4):
        i0 = first0 + i * tiles.spacing[0]
        for j in range(4):
            i1 = first1 + j * tiles.spacing[1]
            samples[4 * i + j] = tiles.zeros
            if 0 <= i0 < tiles.sizes[0] and 0 <= i1 < tiles.sizes[1]:
                samples[4 * i + j] = tiles.x + i0 * tiles.steps[0] + i1 * tiles.steps[1]
    kernel.winograd.forward(samples, tiles.n_channels, v, tiles.v_step)


cdef void finish_tile(
    const dconv_microkernel *kernel, const Tiles *tiles, Py_ssize_t tile, Py_ssize_t filter, Py_ssize_t n_filters,
    const float *m, float *nowhere,
) noexcept nogil:
    cdef float *out[4]
    cdef Py_ssize_t i, j, o0, o1
    for i in range(2):
        o0 = place_of(tiles, tile, 0) + i * tiles.spacing[0]
        for j in range(2):
            o1 = place_of(tiles, tile, 1) + j * tiles.spacing[1]
            out[2 * i + j] = nowhere
            if 0 <= o0 < tiles.out_sizes[0] and 0 <= o1 < tiles.out_sizes[1]:
                out[2 * i + j] = tiles.out + o0 * tiles.out_steps[0] + o1 * tiles.out_steps[1] + filter
    kernel.winograd.inverse(m, tiles.m_step, NULL if tiles.bias == NULL else tiles.bias + filter, n_filters, out,
                            tiles.relu)


cdef void compute_block(
    const dconv_microkernel *kernel, const Tiles *tiles, Py_ssize_t begin, float *scratch
) noexcept nogil:
    cdef Py_ssize_t n = min(tiles.block, tiles.n_tiles - begin)
    cdef Py_ssize_t tile, filter, n_filters, factor
    cdef float *v = scratch
    cdef float *m = v + 16 * tiles.v_step
    cdef float *nowhere = m + 16 * tiles.m_step
    for tile in range(n):
        transform_tile(kernel, tiles, begin + tile, v + tile * tiles.v_row)
    filter = 0
    while filter < tiles.n_filters:
        n_filters = min(tiles.chunk, tiles.n_filters - filter)
        for factor in range(16):
            conv_row[float](
                kernel, v + factor * tiles.v_step, tiles.v_row, tiles.offsets, tiles.n_channels, 1, 0,
                tiles.weight + factor * tiles.weights_per_factor + filter * tiles.n_channels, NULL, n_filters,
                m + factor * tiles.m_step, tiles.chunk, n, 0,
            )
        for tile in range(n):
            finish_tile(kernel, tiles, begin + tile, filter, n_filters, m + tile * tiles.chunk, nowhere)
        filter += tiles.chunk


def scratch_size(Py_ssize_t n_channels, Py_ssize_t block, Py_ssize_t chunk):
    """Return how many floats a thread needs for blocks of tiles and chunks of filters."""
    return 16 * _v_step(n_channels, block) + 16 * _m_step(block, chunk) + chunk


# A cache line between rows, and one more between factors: at powers of two all of a column would share a place in the
# cache.
cdef inline Py_ssize_t _v_row(Py_ssize_t n_channels) noexcept nogil:
    return n_channels + 16


cdef inline Py_ssize_t _v_step(Py_ssize_t n_channels, Py_ssize_t block) noexcept nogil:
    return block * _v_row(n_channels) + 16


cdef inline Py_ssize_t _m_step(Py_ssize_t block, Py_ssize_t chunk) noexcept nogil:
    return block * chunk + 16


def winograd_tiles(
    const float[:, :, :] x,  # IN (i0, i1, C), channels beside each other, a multiple of UNIT
    const float[:, ::1] weight,  # IN (16, packed: see conv_row in microkernel.h)
    const float[::1] bias,  # IN (F,), or None
    float[:, :, :] out,  # OUT (o0, o1, F), filters beside each other, likewise
    const Py_ssize_t[::1] rows,  # IN the first of the two outputs of every row of tiles; one of the two may be outside
    const Py_ssize_t[::1] columns,  # IN likewise
    tuple low,  # the sample of x that the first tap of output 0 reads, per axis
    tuple spacing,  # samples between taps, per axis
    const Py_ssize_t[::1] offsets,  # IN (C,) 0, 1, ...
    const float[::1] zeros,  # IN (C,)
    float[:, ::1] scratch,  # (threads, scratch_size(C, block, chunk))
    Py_ssize_t block,  # tiles
    Py_ssize_t chunk,  # filters: whole blocks of the micro-kernel
    int n_threads,
    str level=None,
    bint relu=False,
):
    """Write the convolution of `x` to `out`, and make what is negative 0 if `relu`; see the head of this file."""
    cdef const dconv_microkernel *kernel = get_level(level)
    cdef Tiles tiles
    cdef Py_ssize_t task, axis
    if out.size == 0:
        return
    tiles.x, tiles.weight, tiles.out = &x[0, 0, 0], &weight[0, 0], &out[0, 0, 0]
    tiles.bias = NULL
    if bias is not None:
        tiles.bias = &bias[0]
    tiles.first[0], tiles.first[1] = &rows[0], &columns[0]
    tiles.offsets, tiles.zeros = &offsets[0], &zeros[0]
    tiles.n_columns, tiles.n_tiles = columns.shape[0], rows.shape[0] * columns.shape[0]
    tiles.n_channels, tiles.n_filters, tiles.block, tiles.chunk = x.shape[2], out.shape[2], block, chunk
    for axis in range(2):
        tiles.sizes[axis], tiles.steps[axis] = x.shape[axis], x.strides[axis] // <Py_ssize_t>sizeof(float)
        tiles.out_sizes[axis], tiles.out_steps[axis] = out.shape[axis], out.strides[axis] // <Py_ssize_t>sizeof(float)
        tiles.low[axis], tiles.spacing[axis] = low[axis], spacing[axis]
    tiles.weights_per_factor, tiles.relu = weight.shape[1], relu
    tiles.v_row, tiles.v_step = _v_row(x.shape[2]), _v_step(x.shape[2], block)
    tiles.m_step = _m_step(block, chunk)
    for task in prange((tiles.n_tiles + block - 1) // block, nogil=True, schedule="static", num_threads=n_threads):
        compute_block(kernel, &tiles, task * block, &scratch[threadid(), 0])
