"""Permutohedral lattices over an image (Adams, Baek and Davis 2010): which corners each pixel has, and who is beside whom.

    embed_tiles   pixel -> ids and weights of its d + 1 corners; corners are numbered anew in every tile
    merge_tiles   ids of tiles -> vertices of the lattice, in the order of tiles
    find_chains   vertices in a row along one axis of the lattice, one chain after another
    list_rows     vertex -> all tile rows that stand for it
    normalize     weights *= sqrt(strength / K1), K1 being the filtered image of ones

Letters: d features, K entries of a pixel (the corners of all its lattices), i pixel along an axis, t tile. A corner is
known by a key of 64 bits: its d first digits in mixed radix, times 32, plus the remainder that all its coordinates
share. Where that takes more bits, each digit is multiplied by a random number of 64 bits instead, and two of 1e7 vertices
take the same key with a probability of 1e-4. Either way the next corner of a simplex and the neighbours of a vertex lie at constant differences of keys.

Why tiles: a tile of 64 x 64 pixels of a photograph has one or two thousand corners, so that its hash table and all sums
stay in the L1 or L2 cache, and an id fits 16 bits. Tiles are embedded in parallel, each by one thread, and merged one
after another. So numbers never depend on threads, and neither does any order of summing.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memset

from dconv._kernels._dispatch cimport (
    DCONV_CRF_GROUP,
    DCONV_CRF_MAX_FEATURES,
    DCONV_CRF_REMAINDERS,
    dconv_crf_corners,
    dconv_crf_points,
    dconv_crf_rows,
    get_level,
)

GROUP = DCONV_CRF_GROUP  # pixels whose entries are stored together
MAX_FEATURES = DCONV_CRF_MAX_FEATURES
REMAINDERS = DCONV_CRF_REMAINDERS  # that keys can tell

cdef uint64_t MIXER = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: multiples of it spread evenly over their high bits


cdef Py_ssize_t embed_tile(
    const dconv_crf_rows *rows, dconv_crf_points points, dconv_crf_corners corners, const float *channels,
    const Py_ssize_t *sizes, const Py_ssize_t *box, Py_ssize_t n_axes, const float *factors, uint16_t *ids,
    float *weights, Py_ssize_t n_entries, float *planes,
) noexcept nogil:
    """Write ids and weights of the pixels of one tile, in one lattice; return how many corners there are."""
    cdef Py_ssize_t n_channels = sizes[3], i0, i1, l, c, width = box[5] - box[4]
    cdef Py_ssize_t n_groups = (width + DCONV_CRF_GROUP - 1) // DCONV_CRF_GROUP, step = n_groups * DCONV_CRF_GROUP
    cdef const float *pixel
    cdef float *plane
    rows.clear(&corners)
    points.planes, points.n_points = planes, width
    for l in range(step * points.d):  # what a group lacks at the end of a row
        planes[l] = 0
    if n_axes > 0:
        for l in range(width):
            planes[l] = l * factors[0]
    for i0 in range(box[0], box[1]):
        for i1 in range(box[2], box[3]):
            if n_axes > 1:
                for l in range(width):
                    planes[step + l] = (i1 - box[2]) * factors[1]
            if n_axes > 2:
                for l in range(width):
                    planes[2 * step + l] = (i0 - box[0]) * factors[2]
            pixel = channels + ((i0 * sizes[1] + i1) * sizes[2] + box[4]) * n_channels
            for c in range(n_channels):
                plane = planes + (n_axes + c) * step
                for l in range(width):
                    plane[l] = pixel[l * n_channels + c] * factors[n_axes + c]
            rows.embed(&points, &corners, ids, weights, n_entries * DCONV_CRF_GROUP)
            ids += n_groups * n_entries * DCONV_CRF_GROUP
            weights += n_groups * n_entries * DCONV_CRF_GROUP
    return corners.n


def embed_tiles(
    const float[:, :, :, ::1] channels,  # IN (i0, i1, i2, channels): a part of the image
    const Py_ssize_t[:, ::1] boxes,  # IN (tiles, 6): start and stop of each axis, in `channels`
    Py_ssize_t n_axes,  # spatial features: that many axes, the last first
    const float[::1] factors,  # IN (d,): of pixels from the start of the tile, then of channels
    const float[:, ::1] origins,  # IN (tiles, d + 1): elevated coordinates to add,
    const uint64_t[::1] bases,  # IN (tiles,): and what to add to keys
    const uint64_t[::1] strides,  # IN (d + 1,): of the digits of keys, 0 for the last
    const int64_t[::1] first_groups,  # IN (tiles,)
    const int64_t[::1] first_rows,  # IN (tiles,): rows of the tile that other lattices have
    Py_ssize_t first_entry,
    uint16_t[:, :, ::1] ids,  # OUT (groups, entries, GROUP)
    float[:, :, ::1] weights,  # OUT likewise
    uint64_t[:, ::1] keys,  # OUT (tiles, 1 + most corners): from column 1 on
    float[:, ::1] ones,  # OUT likewise: sums of the weights
    int64_t[::1] counts,  # OUT (tiles,): corners
    uint16_t[:, ::1] slots,  # scratch (threads, slots)
    float[:, ::1] planes,  # scratch (threads, d rows of a tile)
    int n_threads,
    str level=None,
):
    """Embed some tiles in one lattice."""
    cdef const dconv_crf_rows *rows = &get_level(level).crf
    cdef Py_ssize_t t, n_channels = channels.shape[3]
    cdef Py_ssize_t[4] sizes = [channels.shape[0], channels.shape[1], channels.shape[2], n_channels]
    cdef const float *pixels = &channels[0, 0, 0, 0] if n_channels > 0 else NULL
    for t in prange(boxes.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        counts[t] = embed_tile(
            rows,
            dconv_crf_points(
                factors.shape[0], NULL, &origins[t, 0], bases[t], &strides[0], 0, first_rows[t]
            ),
            dconv_crf_corners(&slots[threadid(), 0], &keys[t, 0], &ones[t, 0], 0, 0),
            pixels, sizes, &boxes[t, 0], n_axes, &factors[0], &ids[first_groups[t], first_entry, 0],
            &weights[first_groups[t], first_entry, 0], ids.shape[1], &planes[threadid(), 0],
        )


cdef inline Py_ssize_t slot_of(
    uint64_t key, const int32_t *slots, int bits, const uint64_t *vertex_keys
) noexcept nogil:
    """Return the slot of a vertex, or the free one where it belongs: slots hold numbers, -1 if free."""
    cdef Py_ssize_t mask = (<Py_ssize_t>1 << bits) - 1, slot = <Py_ssize_t>((key * MIXER) >> (64 - bits))
    while slots[slot] >= 0 and vertex_keys[slots[slot]] != key:
        slot = (slot + 1) & mask
    return slot


cdef int bits_of(Py_ssize_t n_slots) noexcept nogil:
    """Return b of n_slots = 2^b."""
    cdef int bits = 0
    while (<Py_ssize_t>1 << bits) < n_slots:
        bits += 1
    return bits


def merge_tiles(
    const uint64_t[:, ::1] keys,  # IN (tiles, 1 + most corners): from column 1 on
    const float[:, ::1] ones,  # IN likewise
    const int64_t[::1] counts,  # IN (tiles,): corners
    const int64_t[::1] first_rows,  # IN (tiles,): where they go
    int32_t[::1] vertices,  # OUT (rows,)
    float[::1] sums,  # OUT (rows,): what is in `ones`
    int32_t[::1] slots,  # INOUT (2^bits,)
    uint64_t[::1] vertex_keys,  # INOUT
    Py_ssize_t n_vertices,
):
    """Give the corners of tiles their vertices, new ones the next; return how many there are. There is room for all."""
    cdef Py_ssize_t t, number, slot, row, n = n_vertices
    cdef int bits = bits_of(slots.shape[0])
    with nogil:
        for t in range(counts.shape[0]):
            for number in range(1, counts[t] + 1):
                slot = slot_of(keys[t, number], &slots[0], bits, &vertex_keys[0])
                if slots[slot] < 0:
                    slots[slot], vertex_keys[n] = <int32_t>n, keys[t, number]
                    n += 1
                row = first_rows[t] + number - 1
                vertices[row], sums[row] = slots[slot], ones[t, number]
    return n


def fill_slots(int32_t[::1] slots, const uint64_t[::1] vertex_keys, Py_ssize_t n_vertices):
    """Enter vertices into a table of free slots."""
    cdef Py_ssize_t v
    cdef int bits = bits_of(slots.shape[0])
    with nogil:
        for v in range(n_vertices):
            slots[slot_of(vertex_keys[v], &slots[0], bits, &vertex_keys[0])] = <int32_t>v


cdef Py_ssize_t chains_along(
    const uint64_t *vertex_keys, Py_ssize_t n_vertices, const int32_t *slots, int bits, const uint8_t *remainders,
    const uint64_t *strides, Py_ssize_t d, Py_ssize_t axis, int32_t *chains, int32_t *after, uint8_t *has_before,
    int64_t *cuts, Py_ssize_t n_pieces,
) noexcept nogil:
    """List the chains along one axis, and return their length."""
    cdef Py_ssize_t v, a, n = 0, piece = 1
    cdef uint64_t total = 0, step, wrap
    cdef int32_t here
    for a in range(d):
        total += strides[a]
    step = strides[axis] * DCONV_CRF_REMAINDERS - 1  # the remainder falls by 1, and the axis' own digit grows
    wrap = (strides[axis] - total) * DCONV_CRF_REMAINDERS + <uint64_t>d  # from 0 to d: all other digits fall
    memset(has_before, 0, n_vertices)
    for v in range(n_vertices):
        after[v] = slots[slot_of(vertex_keys[v] + (step if remainders[v] > 0 else wrap), slots, bits, vertex_keys)]
        if after[v] >= 0:
            has_before[after[v]] = 1
    for v in range(n_vertices):
        if has_before[v] or after[v] < 0:
            continue
        here = <int32_t>v
        while after[here] >= 0:
            chains[n], here = here, after[here]
            n += 1
        chains[n] = ~here
        n += 1
        if n * n_pieces >= piece * n_vertices:
            cuts[piece] = n
            piece += 1
    for a in range(piece, n_pieces + 1):
        cuts[a] = n
    cuts[0] = 0
    return n


def find_chains(
    const uint64_t[::1] vertex_keys,  # IN (vertices,)
    const int32_t[::1] slots,  # IN (2^bits,)
    const uint8_t[::1] remainders,  # IN (vertices,): of their coordinates
    const uint64_t[::1] strides,  # IN (d + 1,)
    int32_t[:, ::1] chains,  # OUT (d + 1, vertices): along each axis, the first so many as `lengths` says
    int64_t[::1] lengths,  # OUT (d + 1,)
    int64_t[:, ::1] cuts,  # OUT (d + 1, pieces + 1): ends of pieces of about one length, the last repeated
    int32_t[:, ::1] after,  # scratch (threads, vertices)
    uint8_t[:, ::1] has_before,  # scratch likewise
    int n_threads,
):
    """List vertices that follow each other along the axes of the lattice; the last of a chain as ~vertex.

    The next one has 1 less in all coordinates but d more in that of the axis. Vertices without neighbours are left out:
    the blur does not change them.
    """
    cdef Py_ssize_t axis
    cdef int bits = bits_of(slots.shape[0])
    for axis in prange(strides.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        lengths[axis] = chains_along(
            &vertex_keys[0], vertex_keys.shape[0], &slots[0], bits, &remainders[0], &strides[0], strides.shape[0] - 1,
            axis, &chains[axis, 0], &after[threadid(), 0], &has_before[threadid(), 0], &cuts[axis, 0],
            cuts.shape[1] - 1,
        )


def list_rows(
    const int32_t[::1] vertex_of_row,  # IN (rows,)
    int64_t[::1] first,  # OUT (vertices + 1,), zeros
    int32_t[::1] rows,  # OUT (rows,)
):
    """List the tile rows of vertex v, in order, as rows[first[v]:first[v + 1]], the last as ~row."""
    cdef Py_ssize_t row, v
    with nogil:
        for row in range(vertex_of_row.shape[0]):
            first[vertex_of_row[row] + 1] += 1
        for v in range(first.shape[0] - 1):
            first[v + 1] += first[v]
        for row in range(vertex_of_row.shape[0] - 1, -1, -1):  # backwards, each counts its end down to its begin
            v = vertex_of_row[row] + 1
            first[v] -= 1
            rows[first[v]] = <int32_t>row
        for v in range(first.shape[0] - 1):
            first[v] = first[v + 1]
        first[first.shape[0] - 1] = rows.shape[0]
        for v in range(1, first.shape[0]):
            rows[first[v] - 1] = ~rows[first[v] - 1]


def normalize(
    float[:, :, ::1] weights,  # INOUT (groups, entries, GROUP)
    const uint16_t[:, :, ::1] ids,  # IN likewise
    const int64_t[::1] first_groups,  # IN (tiles + 1,)
    const int64_t[::1] first_rows,  # IN (tiles + 1,)
    const int32_t[::1] vertex_of_row,  # IN (rows,)
    const float[::1] values,  # IN (vertices,): sums of weights, blurred
    Py_ssize_t first_entry,
    Py_ssize_t stop_entry,
    float slice_factor,
    float factor,
    float[:, ::1] local,  # scratch (threads, most rows of a tile)
    int n_threads,
    str level=None,
):
    """Multiply the entries of one lattice by factor / sqrt(K1 + 1e-20), K1 being `values` sliced times `slice_factor`."""
    cdef const dconv_crf_rows *rows = &get_level(level).crf
    cdef Py_ssize_t t
    for t in prange(first_groups.shape[0] - 1, nogil=True, schedule="static", num_threads=n_threads):
        rows.fetch(&values[0], &vertex_of_row[first_rows[t]], first_rows[t + 1] - first_rows[t], 1, &local[threadid(), 0])
        rows.normalize(
            &weights[first_groups[t], first_entry, 0], &ids[first_groups[t], first_entry, 0],
            first_groups[t + 1] - first_groups[t], stop_entry - first_entry, ids.shape[1] * DCONV_CRF_GROUP,
            &local[threadid(), 0], slice_factor, factor,
        )
