"""Mean field of the fully connected CRF (Kraehenbuehl and Koltun 2011), as a message over the lattices of _lattice.pyx.

    unary_rows   what is known of each pixel alone, in base 2 and in the form that the pass reads
    pass_tiles   Q = softmax(unary + sliced messages), then splat Q: sums of every tile row
    gather_rows  tile rows -> vertices
    blur_rows    vertices, along one axis of every lattice after another
    mix_rows     vertices: messages of classes to classes

Letters: Q the distribution over classes at every pixel, `row` the floats that a pixel's classes take in a lattice: 1 for
two classes, whose only freedom is Q1 - Q0; 4 for three to five, Qi - Q0; else one a class, padded to whole vectors.

Each step is parallel over what it writes: tiles, vertices, chains. A tile row is one tile's, so nothing is shared, and
`gather_rows` adds the tiles of a vertex in their order.
"""

from cython.parallel cimport parallel, prange, threadid
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint16_t
from libc.string cimport memset

from dconv._kernels._dispatch cimport DCONV_CRF_GROUP, DCONV_CRF_STAGE, dconv_crf_rows, dconv_crf_run, get_level

CHUNK = 512  # pixels converted together
STAGE = DCONV_CRF_STAGE  # pixels passed together
OVERREAD = 16  # floats that must be readable behind the unary of a whole row of classes

cdef enum:
    VERTICES = 1024  # worked on by one thread at a time

cdef float LOG2_E = 1.4426950408889634

ctypedef void (*run_pass)(const dconv_crf_run *run) noexcept nogil


def row_width(Py_ssize_t n_classes, bint relative, str level=None):
    """Return how many floats a lattice holds for so many classes; `relative`: only differences of messages matter."""
    cdef Py_ssize_t width = get_level(level).crf.width
    if relative and n_classes <= 5:
        return 1 if n_classes == 2 else 4
    return (n_classes + width - 1) // width * width


cdef int64_t convert_chunk(
    const dconv_crf_rows *rows, const float *values, Py_ssize_t n_pixels, Py_ssize_t n_classes, bint are_probabilities,
    float floor, float tolerance, float *buffer, float *out, Py_ssize_t out_step, bint relative,
) noexcept nogil:
    """Write the unary of some pixels; return the first one whose values cannot be used, or -1."""
    cdef Py_ssize_t pixel, c
    cdef const float *each = values
    cdef float total, least, most
    for pixel in range(n_pixels):
        total, least, most = 0, 0, 0
        for c in range(n_classes):
            total += each[c]
            least = min(least, each[c])
            most = max(most, each[c])
        if are_probabilities and not (least >= 0 and fabs(total - 1) <= tolerance):
            return pixel
        if not are_probabilities and not (fabs(total) <= 1e18 and least >= -1e18 and most <= 1e18):
            return pixel
        each += n_classes
    if not relative:
        buffer = out
    if are_probabilities:
        rows.log2(values, floor, buffer, n_pixels * n_classes)
    else:
        for c in range(n_pixels * n_classes):
            buffer[c] = values[c] * -LOG2_E
    if not relative:
        return -1
    for pixel in range(n_pixels):
        for c in range(1, n_classes):
            out[c - 1] = buffer[c] - buffer[0]
        for c in range(n_classes - 1, out_step):
            out[c] = <float>-1e30  # no class
        out += out_step
        buffer += n_classes
    return -1


def unary_rows(
    const float[:, ::1] values,  # IN (pixels, classes): probabilities or energies
    bint are_probabilities,
    float floor,  # of probabilities
    float tolerance,  # of their sum
    bint relative,  # to class 0
    float[:, ::1] out,  # OUT (pixels, classes, or 1 or 4)
    int64_t[::1] bad,  # OUT (chunks,): first pixel that cannot be used, or -1
    float[:, ::1] scratch,  # (threads, CHUNK pixels)
    int n_threads,
    str level=None,
):
    """Write log2 of probabilities, or energies in base 2, as they are or as `row_width` says."""
    cdef const dconv_crf_rows *rows = &get_level(level).crf
    cdef Py_ssize_t chunk, n_pixels = values.shape[0], size = CHUNK, begin
    for chunk in prange(bad.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        begin = chunk * size
        bad[chunk] = convert_chunk(
            rows, &values[begin, 0], min(size, n_pixels - begin), values.shape[1], are_probabilities, floor, tolerance,
            &scratch[threadid(), 0], &out[begin, 0], out.shape[1], relative,
        )


cdef void pass_tile(
    const dconv_crf_rows *rows, run_pass work, dconv_crf_run run, const Py_ssize_t *sizes, const Py_ssize_t *box, Py_ssize_t first_group,
    Py_ssize_t first_row, Py_ssize_t n_rows, const int32_t *vertices, const float *values, float *local, float *change, float *scratch,
) noexcept nogil:
    """Pass over one tile; `run` comes with the arrays of the whole image, `vertices` are the tile's."""
    cdef Py_ssize_t i0, i1, pixel, row = run.row, width = box[5] - box[4]
    cdef Py_ssize_t n_entries = (width + DCONV_CRF_GROUP - 1) // DCONV_CRF_GROUP * DCONV_CRF_GROUP * run.n_entries
    cdef const float *unary = run.unary
    cdef float *q = run.q
    run.n_pixels, run.change, run.scratch = width, change, scratch
    run.ids += first_group * DCONV_CRF_GROUP * run.n_entries
    run.weights += first_group * DCONV_CRF_GROUP * run.n_entries
    if values != NULL:
        run.values = local
        rows.fetch(values, vertices, n_rows, row, local)
    if run.sums != NULL:
        run.sums += first_row * row
        memset(run.sums, 0, <size_t>(n_rows * row) * sizeof(float))
    for i0 in range(box[0], box[1]):
        for i1 in range(box[2], box[3]):
            pixel = (i0 * sizes[1] + i1) * sizes[2] + box[4]
            run.unary = unary + pixel * run.unary_step
            if q != NULL:
                run.q = q + pixel * run.n_classes
            work(&run)
            run.ids += n_entries
            run.weights += n_entries


def pass_tiles(
    const Py_ssize_t[::1] sizes,  # IN (3,): of the image
    const Py_ssize_t[:, ::1] boxes,  # IN (tiles, 6): start and stop of each axis
    const uint16_t[:, :, ::1] ids,  # IN (groups, entries, GROUP)
    const float[:, :, ::1] weights,  # IN likewise
    const int64_t[::1] first_groups,  # IN (tiles + 1,)
    const int64_t[::1] first_rows,  # IN (tiles + 1,)
    const int32_t[::1] vertex_of_row,  # IN (rows,)
    const float[:, ::1] unary,  # IN (pixels, classes, or 1 or 4)
    const float[:, ::1] values,  # IN (vertices, row); or None, then the result is the softmax of the unary alone
    float[:, ::1] sums,  # OUT (rows, row); or None, then nothing is splat
    float[:, ::1] q,  # OUT (pixels, classes) or None; may be `unary`
    float[::1] changes,  # INOUT (tiles,): largest change of `q` so far; or None, then what `q` holds is not read
    Py_ssize_t n_classes,
    Py_ssize_t row,
    bint relative,
    float[:, ::1] local,  # scratch (threads, most rows of a tile * row)
    float[:, ::1] scratch,  # scratch (threads, STAGE * row + GROUP * entries)
    int n_threads,
    str level=None,
):
    """Update the distribution of every pixel from the messages in `values`, and splat it into `sums`."""
    cdef const dconv_crf_rows *rows = &get_level(level).crf
    cdef run_pass work = rows.pass_all if not relative or n_classes > 5 else (
        rows.pass_two if n_classes == 2 else rows.pass_few)
    cdef const float *vertex_values = NULL
    cdef float *change = NULL
    cdef dconv_crf_run run
    cdef Py_ssize_t t
    run.ids, run.weights, run.n_entries = &ids[0, 0, 0], &weights[0, 0, 0], ids.shape[1]
    run.n_classes, run.row, run.unary, run.unary_step = n_classes, row, &unary[0, 0], unary.shape[1]
    run.unary_ahead = sizes[2] * run.unary_step
    run.values, run.sums, run.q = NULL, NULL, NULL
    if values is not None:
        vertex_values = &values[0, 0]
    if sums is not None:
        run.sums = &sums[0, 0]
    if q is not None:
        run.q = &q[0, 0]
    if changes is not None:
        change = &changes[0]
    for t in prange(boxes.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        pass_tile(
            rows, work, run, &sizes[0], &boxes[t, 0], first_groups[t], first_rows[t], first_rows[t + 1] - first_rows[t],
            &vertex_of_row[first_rows[t]], vertex_values, &local[threadid(), 0],
            NULL if change == NULL else change + t, &scratch[threadid(), 0],
        )


def gather_rows(
    const float[:, ::1] sums,  # IN (rows, row)
    const int32_t[::1] rows_of_vertices,  # IN (rows,): the last of each vertex as ~row
    const int64_t[::1] first,  # IN (vertices + 1,)
    float[:, ::1] values,  # OUT (vertices, row)
    int n_threads,
    str level=None,
):
    """Add up the tile rows of every vertex."""
    cdef const dconv_crf_rows *rows = &get_level(level).crf
    cdef Py_ssize_t block, begin, n = values.shape[0], row = values.shape[1]
    for block in prange((n + VERTICES - 1) // VERTICES, nogil=True, schedule="static", num_threads=n_threads):
        begin = block * VERTICES
        rows.gather(&sums[0, 0], &rows_of_vertices[first[begin]], first[min(n, begin + VERTICES)] - first[begin], row,
                    &values[begin, 0])


def blur_rows(
    const int32_t[::1] chains,  # IN: of all lattices and axes
    const int64_t[:, ::1] pieces,  # IN (pieces, 3): begin and end in `chains`, and the lattice's first vertex
    const int64_t[::1] stages,  # IN (stages + 1,): where the pieces of every stage begin
    float[:, ::1] values,  # INOUT (vertices, row)
    int n_threads,
    str level=None,
):
    """Add to each vertex half of its two neighbours along an axis, one axis after another.

    Pieces consist of whole chains. Those of one stage can be blurred together, and all threads wait for its end. Pieces side
    by side are of one part of the image, and a thread takes such: two that write the same cache lines wait for each other.
    """
    cdef const dconv_crf_rows *rows = &get_level(level).crf
    cdef Py_ssize_t stage, piece, begin, end
    with nogil, parallel(num_threads=n_threads):
        for stage in range(stages.shape[0] - 1):
            begin, end = stages[stage], stages[stage + 1]
            for piece in prange(begin, end, schedule="static"):
                rows.blur(&chains[0] + pieces[piece, 0], pieces[piece, 1] - pieces[piece, 0], values.shape[1],
                          &values[0, 0] + pieces[piece, 2] * values.shape[1])


def mix_rows(
    const float[:, ::1] matrix,  # IN (classes, row)
    float[:, ::1] values,  # INOUT (vertices, row): of one lattice
    float[:, ::1] scratch,  # scratch (threads, row)
    int n_threads,
    str level=None,
):
    """Multiply the messages of every vertex by `matrix`, from the right."""
    cdef const dconv_crf_rows *rows = &get_level(level).crf
    cdef Py_ssize_t block, n = values.shape[0], row = values.shape[1]
    for block in prange((n + VERTICES - 1) // VERTICES, nogil=True, schedule="static", num_threads=n_threads):
        rows.mix(&matrix[0, 0], matrix.shape[0], row, min(VERTICES, n - block * VERTICES), &values[block * VERTICES, 0],
                 &scratch[threadid(), 0])
