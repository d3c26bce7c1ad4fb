"""MiniRocket's features: how many responses of two-valued kernels lie above thresholds (Dempster et al. 2021).

    response[p] = sum over nine taps of weight[tap] * x[p + dilation * tap], weight -1 or (three of them) 2
                = sum_tap -x[p + dilation * tap] + sum over three taps of 3 * x[p + dilation * tap]
    share_responses   the share of all responses above each threshold, of every image
    write_responses   the responses themselves, of which thresholds are quantiles

Letters: d dilation, k kernel, q thresholds of a kernel at a dilation, p pixel, c channel. A series is an image of one
row. With several channels a kernel at a dilation sees the sum over some of them.

A plane is one channel with zeros around it, row after row, so that what lies between two rows serves the end of the
one and the beginning of the other: a tap is an offset, and all rows of an image are one row to the loops. Responses
between its rows are made -infinity, which is above no threshold. Half of the kernels see the whole plane, the others
only where no tap reaches out of the image, or the whole plane if there is no such place.

Where there are as many images of one size as lanes in a vector, they are interleaved: a lane is an image. Then every
tap is aligned, no vector is cut short by the end of a row, and no lanes are added up in the end: a sixth faster for
series of 4096 samples and a half for 128. Otherwise lanes are neighbouring pixels of one image.

Loop order: tiles of a plane, which stay in the L1 cache with all that taps reach; in a tile the sum of the nine taps
once, then every kernel, for which three additions a response remain. Parallel over groups of images and dilations: a
task writes features of its own.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from dconv._kernels._dispatch cimport DCONV_ROCKET_TERMS, dconv_microkernel, get_level

cdef extern from "feature_rows.h":
    enum:
        DCONV_ROW_UNIT

cdef enum:
    TAPS = 9
    HIGH = DCONV_ROCKET_TERMS - 1  # taps whose weight is 2
    MOST = 9  # channels that a kernel sees
    MOST_TERMS = DCONV_ROCKET_TERMS * MOST
    TILE_FLOATS = 1024  # a multiple of DCONV_ROW_UNIT

TILE = TILE_FLOATS
MOST_CHANNELS = MOST

cdef float[TAPS] MINUS_ONE = [-1, -1, -1, -1, -1, -1, -1, -1, -1]


cdef struct Layout:
    # Images of one size at one dilation. Pairs are (rows, columns), all else is in floats.
    Py_ssize_t[2] size  # of an image, and of what is counted as if it was: small images are continued by zeros
    Py_ssize_t[2] region
    Py_ssize_t[2] reach  # of the taps
    Py_ssize_t width  # of a pixel: images that are interleaved
    Py_ssize_t stride  # from row to row
    Py_ssize_t first  # pixel
    Py_ssize_t plane  # with what loops read behind the last pixel
    Py_ssize_t[TAPS] offsets


cdef Layout lay_out(
    const int64_t *size, const int64_t *least, const Py_ssize_t *taps, Py_ssize_t dilation, Py_ssize_t width
) noexcept nogil:
    """Return the layout of images of this size, or of `least`, where they are smaller."""
    cdef Layout it
    cdef Py_ssize_t a, k
    for a in range(2):
        it.size[a] = size[a]
        it.region[a] = max(size[a], least[a])
        it.reach[a] = dilation * (least[a] // 2)
    it.width = width
    it.stride = (it.region[1] + it.reach[1]) * width
    it.first = it.reach[0] * it.stride + it.reach[1] * width
    it.plane = 2 * it.first + it.region[0] * it.stride + DCONV_ROW_UNIT
    for k in range(TAPS):
        it.offsets[k] = dilation * (taps[2 * k] * it.stride + taps[2 * k + 1] * width)
    return it


def plane_floats(
    Py_ssize_t rows, Py_ssize_t columns, const int64_t[::1] least, const Py_ssize_t[:, ::1] taps, Py_ssize_t dilation,
    Py_ssize_t width,
):
    """Return how many floats a plane of such images takes, or of smaller ones, or at a lower dilation."""
    cdef int64_t[2] size = [rows, columns]
    return lay_out(size, &least[0], &taps[0, 0], dilation, width).plane


cdef void fill_planes(
    const Layout *it, const float *samples, Py_ssize_t n_channels, Py_ssize_t n, float *planes
) noexcept nogil:
    """Write two planes for each of `n` channels: x, and 3 x; of one image, whose place in a pixel `planes` begins at."""
    cdef Py_ssize_t c, i, j
    cdef float *plane
    cdef const float *row
    for c in range(n):
        for i in range(it.size[0]):
            plane = planes + 2 * c * it.plane + it.first + i * it.stride
            row = samples + i * it.size[1] * n_channels + c
            for j in range(it.size[1]):
                plane[j * it.width] = row[j * n_channels]
                plane[it.plane + j * it.width] = 3 * row[j * n_channels]


cdef void sum_taps(
    const dconv_microkernel *level, const Layout *it, const float *plane, Py_ssize_t columns, Py_ssize_t start,
    Py_ssize_t stop, float *out,
) noexcept nogil:
    """Write -1 times all taps of the floats start to stop of a region that begins at `plane`, of so many columns.

    What lies there between rows, or behind the last one up to a whole unit, becomes -infinity.
    """
    cdef Py_ssize_t i, j, length = columns * it.width
    cdef Py_ssize_t end = start + (stop - start + DCONV_ROW_UNIT - 1) // DCONV_ROW_UNIT * DCONV_ROW_UNIT
    level.rows.weighted(plane + start, it.offsets, MINUS_ONE, TAPS, out, stop - start)
    for i in range(start // it.stride, end // it.stride + 1):
        for j in range(max(i * it.stride + length, start), min((i + 1) * it.stride, end)):
            out[j - start] = -INFINITY
    for j in range(stop, end):
        out[j - start] = -INFINITY


cdef void gather_terms(
    const Layout *it, const float *sums, const float *plane, const Py_ssize_t *channels, Py_ssize_t n_channels,
    const Py_ssize_t *high, const float **terms,
) noexcept nogil:
    """List the rows that add up to the responses of a kernel."""
    cdef Py_ssize_t c, k
    for c in range(n_channels):
        terms[DCONV_ROCKET_TERMS * c] = sums + channels[c] * TILE_FLOATS
        for k in range(HIGH):
            terms[DCONV_ROCKET_TERMS * c + 1 + k] = plane + (2 * channels[c] + 1) * it.plane + it.offsets[high[k]]


cdef struct Kernels:
    # What all tasks share: kernels as the three taps whose weight is 2, and what is special at one dilation.
    Py_ssize_t n
    const Py_ssize_t *high  # (n, HIGH)
    const Py_ssize_t *channels  # of kernel k: channels[first_channel[k]:first_channel[k + 1]]
    const Py_ssize_t *first_channel
    const float *thresholds  # (n, q)
    Py_ssize_t q


cdef void count_region(
    const dconv_microkernel *level, const Layout *it, const Kernels *kernels, Py_ssize_t parity,
    const Py_ssize_t *region, Py_ssize_t n_channels, const float *planes, float *rows, int32_t *counts,
) noexcept nogil:
    """Count the responses of every other kernel from `parity` on, in a region whose first pixel is at `planes`."""
    cdef Py_ssize_t end = (region[0] - 1) * it.stride + region[1] * it.width, start, stop, tile, c, k, n_seen
    cdef Py_ssize_t lanes = level.lanes_f32
    cdef const float *terms[MOST_TERMS]
    cdef float *sums = rows + TILE_FLOATS
    for tile in range((end + TILE_FLOATS - 1) // TILE_FLOATS):
        start = tile * TILE_FLOATS
        stop = min(start + TILE_FLOATS, end)
        for c in range(n_channels):
            sum_taps(level, it, planes + 2 * c * it.plane, region[1], start, stop, sums + c * TILE_FLOATS)
        for k in range(parity, kernels.n, 2):
            n_seen = kernels.first_channel[k + 1] - kernels.first_channel[k]
            gather_terms(it, sums, planes + start, kernels.channels + kernels.first_channel[k], n_seen,
                         kernels.high + k * HIGH, terms)
            level.rocket.count(terms, n_seen, kernels.thresholds + k * kernels.q, kernels.q,
                               counts + k * kernels.q * lanes, rows, stop - start)


cdef void write_shares(
    const dconv_microkernel *level, const Kernels *kernels, bint interleaved, Py_ssize_t lane, Py_ssize_t parity,
    Py_ssize_t n_responses, const int32_t *counts, float *out,
) noexcept nogil:
    """Write the features of every other kernel from `parity` on to the features (n, q) of one image."""
    cdef Py_ssize_t k
    for k in range(parity, kernels.n, 2):
        if interleaved:
            level.rocket.share_lane(counts + k * kernels.q * level.lanes_f32, lane, kernels.q, n_responses,
                                    out + k * kernels.q)
        else:
            level.rocket.share(counts + k * kernels.q * level.lanes_f32, kernels.q, n_responses, out + k * kernels.q)


cdef void share_of_group(
    const dconv_microkernel *level, const Layout it, const Kernels kernels, Py_ssize_t whole, const float *samples,
    const int64_t *places, Py_ssize_t n_images, Py_ssize_t n_channels, float *planes, float *rows, int32_t *counts,
    float *out, Py_ssize_t out_step,
) noexcept nogil:
    """Write the features of some images at one dilation; every other kernel from `whole` on sees all of an image."""
    cdef Py_ssize_t[2] inner = [it.region[0] - 2 * it.reach[0], it.region[1] - 2 * it.reach[1]]
    cdef Py_ssize_t l, begin = it.first + it.reach[0] * it.stride + it.reach[1] * it.width
    if inner[0] <= 0 or inner[1] <= 0:
        inner[0], inner[1], begin = it.region[0], it.region[1], it.first
    memset(planes, 0, 2 * n_channels * it.plane * sizeof(float))
    for l in range(n_images):
        fill_planes(&it, samples + places[4 * l] * n_channels, n_channels, n_channels, planes + l)
    memset(counts, 0, kernels.n * kernels.q * level.lanes_f32 * sizeof(int32_t))
    count_region(level, &it, &kernels, whole, it.region, n_channels, planes + it.first, rows, counts)
    count_region(level, &it, &kernels, 1 - whole, inner, n_channels, planes + begin, rows, counts)
    for l in range(n_images):
        write_shares(level, &kernels, it.width > 1, l, whole, it.region[0] * it.region[1], counts,
                     out + places[4 * l + 3] * out_step)
        write_shares(level, &kernels, it.width > 1, l, 1 - whole, inner[0] * inner[1], counts,
                     out + places[4 * l + 3] * out_step)


def share_responses(
    const float[:, ::1] samples,  # IN (samples, channels): one image after another
    const int64_t[:, ::1] places,  # IN (images, 4): first sample, rows, columns, and the row of `out`
    const int64_t[:, ::1] groups,  # IN (groups, 3): first and number of images of one size; 1 or, to interleave, lanes
    const int64_t[::1] least,  # IN (2,): rows and columns of a kernel; smaller images are continued by zeros
    const Py_ssize_t[:, ::1] taps,  # IN (TAPS, 2): row and column, from the middle one
    const Py_ssize_t[:, ::1] kernels,  # IN (k, HIGH): the taps whose weight is 2
    const Py_ssize_t[::1] dilations,  # IN (d,)
    const Py_ssize_t[::1] first_feature,  # IN (d + 1,): where the features of each dilation begin
    const Py_ssize_t[::1] channels,  # IN: what kernels see, one after another
    const Py_ssize_t[::1] first_channel,  # IN (d * k + 1,): where those of each begin
    const float[::1] thresholds,  # IN (features,)
    float[:, ::1] out,  # OUT (images, features)
    float[:, ::1] planes,  # scratch (threads, 2 planes for each channel)
    float[:, ::1] rows,  # scratch (threads, 1 + channels tiles)
    int32_t[:, ::1] counts,  # scratch (threads, most features of a dilation * lanes)
    int n_threads,
    str level=None,
):
    """Write the features of images, ordered by dilation, then kernel, then threshold."""
    cdef const dconv_microkernel *loops = get_level(level)
    cdef Py_ssize_t n_dilations = dilations.shape[0], n_kernels = kernels.shape[0], task, g, s, d
    for task in prange(groups.shape[0] * n_dilations, nogil=True, schedule="dynamic", num_threads=n_threads):
        g, d = task // n_dilations, task % n_dilations
        s = groups[g, 0]
        share_of_group(
            loops, lay_out(&places[s, 1], &least[0], &taps[0, 0], dilations[d], groups[g, 2]),
            Kernels(n_kernels, &kernels[0, 0], &channels[0], &first_channel[d * n_kernels],
                    &thresholds[first_feature[d]], (first_feature[d + 1] - first_feature[d]) // n_kernels),
            d % 2, &samples[0, 0], &places[s, 0], groups[g, 1], samples.shape[1], &planes[threadid(), 0],
            &rows[threadid(), 0], &counts[threadid(), 0], &out[0, first_feature[d]], out.shape[1],
        )


cdef void responses_of_one(
    const dconv_microkernel *level, const Layout it, const float *samples, Py_ssize_t n_channels,
    const Py_ssize_t *high, const Py_ssize_t *channels, Py_ssize_t n_seen, float *planes, float *rows, float *out,
) noexcept nogil:
    """Write the responses of one kernel to one image, (rows, columns)."""
    cdef Py_ssize_t end = (it.region[0] - 1) * it.stride + it.region[1], start, stop, tile, c, p
    cdef Py_ssize_t[MOST] own
    cdef const float *terms[MOST_TERMS]
    cdef float *sums = rows + TILE_FLOATS
    memset(planes, 0, 2 * n_seen * it.plane * sizeof(float))
    for c in range(n_seen):  # the planes of other channels are not needed
        fill_planes(&it, samples + channels[c], n_channels, 1, planes + 2 * c * it.plane)
        own[c] = c
    for tile in range((end + TILE_FLOATS - 1) // TILE_FLOATS):
        start = tile * TILE_FLOATS
        stop = min(start + TILE_FLOATS, end)
        for c in range(n_seen):
            sum_taps(level, &it, planes + 2 * c * it.plane + it.first, it.region[1], start, stop,
                     sums + c * TILE_FLOATS)
        gather_terms(&it, sums, planes + it.first + start, own, n_seen, high, terms)
        level.rocket.sum(terms, n_seen, rows, stop - start)
        for p in range(start, stop):
            if p % it.stride < it.region[1]:
                out[p // it.stride * it.region[1] + p % it.stride] = rows[p - start]


def write_responses(
    const float[:, ::1] samples,  # IN (samples, channels): one image after another
    const int64_t[:, ::1] places,  # IN (k, 4): first sample, rows, columns of the image that each kernel sees
    const int64_t[::1] least,  # IN (2,): rows and columns of a kernel; smaller images are continued by zeros
    const Py_ssize_t[:, ::1] taps,  # IN (TAPS, 2): row and column, from the middle one
    const Py_ssize_t[:, ::1] kernels,  # IN (k, HIGH): the taps whose weight is 2
    Py_ssize_t dilation,
    const Py_ssize_t[::1] channels,  # IN: what kernels see, one after another
    const Py_ssize_t[::1] first_channel,  # IN (k + 1,): where those of each begin
    float[:, ::1] out,  # OUT (k, most pixels)
    float[:, ::1] planes,  # scratch (threads, 2 planes for each channel that a kernel sees)
    float[:, ::1] rows,  # scratch (threads, 1 + channels that a kernel sees tiles)
    int n_threads,
    str level=None,
):
    """Write the responses of each kernel to one image of its own, row after row."""
    cdef const dconv_microkernel *loops = get_level(level)
    cdef Py_ssize_t k
    for k in prange(kernels.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        responses_of_one(
            loops, lay_out(&places[k, 1], &least[0], &taps[0, 0], dilation, 1), &samples[places[k, 0], 0],
            samples.shape[1], &kernels[k, 0], &channels[first_channel[k]], first_channel[k + 1] - first_channel[k],
            &planes[threadid(), 0], &rows[threadid(), 0], &out[k, 0],
        )
