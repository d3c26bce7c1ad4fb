"""The plane operations of the a trous feature bank: float32, rank-generic, no borders.

    separable         out[c] = (kernels[c, 0] x kernels[c, 1] x kernels[c, 2]) * x, taps `steps` pixels apart
    magnitude         sqrt(sum_a g_a^2)
    eigenvalues       of the symmetric matrix at every pixel
    structure_tensor  square roots of the eigenvalues of B * (g_a g_b)
    deviation         sqrt(B * x^2 - (B * x)^2)
    extrema           max and min over neighbours, minus the pixel
    lines             max, min and mean over directions u of the mean along u of trace(H) - u' H u
    shares            of the samples in a window along the row at which a > b, or of their neighbours where that changes
    interleave        planes to features last

Letters: B a smoothing kernel, g the gradient, H the Hessian, * correlation. Planes are (n, i0, i1, i2); 1-D and 2-D
arrive as 3-D with leading axes of size 1, along which kernels are the single tap 1. Rows (the axis i2) are contiguous.
Every input is a view that begins at the pixel where `out` begins: taps reach out of that view, into the margin that the
caller has read or computed, and whole vectors reach behind the rows, as far as feature_rows.h says. `scratch` holds
rows as long as the longest of the input.

Loop order: rows (i0, i1), and in a row first the taps across rows, into `scratch`, then the taps along it. So a
smoothing costs 5 + 5 taps in 2-D and 25 + 5 in 3-D, and nothing but the planes asked for leaves the L1 cache. All of it
runs on the calling thread; callers work on several blocks of an image at once.
"""

from dconv._kernels._dispatch cimport dconv_feature_rows, get_level

cdef extern from "feature_rows.h":
    enum:
        DCONV_ROW_UNIT
        DCONV_LINE_TAPS

ROW_UNIT = DCONV_ROW_UNIT  # floats that rows are rounded up to
LINE_TAPS = DCONV_LINE_TAPS  # of `lines`

cdef enum:
    SIZE = 5  # taps of a kernel along one axis; shorter kernels have zeros at their ends
    MAX_TAPS = SIZE * SIZE
    FLOAT = sizeof(float)

cdef float[SIZE] ONE = [0, 0, 1, 0, 0]


cdef struct Taps:
    # The taps of the product of two kernels, zero weights left out.
    Py_ssize_t n
    Py_ssize_t reach  # largest offset
    Py_ssize_t offsets[MAX_TAPS]
    float weight[MAX_TAPS]


cdef Taps make_taps(
    const float *weight0, const float *weight1, Py_ssize_t step0, Py_ssize_t step1
) noexcept nogil:
    """Return the taps of two kernels of SIZE weights, which are `step0` and `step1` floats apart."""
    cdef Taps taps
    cdef Py_ssize_t i, j
    taps.n = taps.reach = 0
    for i in range(SIZE):
        for j in range(SIZE):
            if weight0[i] * weight1[j] != 0:
                taps.weight[taps.n] = weight0[i] * weight1[j]
                taps.offsets[taps.n] = (i - SIZE // 2) * step0 + (j - SIZE // 2) * step1
                taps.reach = max(taps.reach, taps.offsets[taps.n])
                taps.n += 1
    return taps


cdef Taps taps_across(
    const float[:, ::1] kernel, const Py_ssize_t *strides, const Py_ssize_t[::1] steps
) noexcept nogil:
    """Return the taps of `kernel` (3, SIZE) that lie in different rows of planes with these strides, in bytes."""
    return make_taps(&kernel[0, 0], &kernel[1, 0], strides[1] // FLOAT * steps[0], strides[2] // FLOAT * steps[1])


cdef Taps taps_along(const float[:, ::1] kernel, const Py_ssize_t[::1] steps) noexcept nogil:
    """Return the taps of `kernel` along a row."""
    return make_taps(ONE, &kernel[2, 0], 0, steps[2])


def separable(
    const float[:, :, :, :] x,  # IN (1, i0, i1, i2)
    const float[:, :, ::1] kernels,  # IN (n, 3, SIZE)
    const Py_ssize_t[::1] steps,  # IN (3,), in pixels
    float[:, :, :, :] out,  # OUT (n, i0, i1, i2)
    float[:, ::1] scratch,  # 1 row
    str level=None,
):
    """Write the correlation of `x` with each of `kernels`, the product of one kernel per axis."""
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t c, i, j, n = out.shape[3]
    cdef Taps across, along
    cdef const float *row
    with nogil:
        for c in range(out.shape[0]):
            across, along = taps_across(kernels[c], x.strides, steps), taps_along(kernels[c], steps)
            for i in range(out.shape[1]):
                for j in range(out.shape[2]):
                    row = &x[0, i, j, 0]
                    if across.reach > 0:
                        rows.weighted(row - along.reach, across.offsets, across.weight, across.n, &scratch[0, 0],
                                      n + 2 * along.reach)
                        row = &scratch[0, along.reach]
                    rows.weighted(row, along.offsets, along.weight, along.n, &out[c, i, j, 0], n)


def magnitude(
    const float[:, :, :, :] gradient,  # IN (axes, i0, i1, i2)
    float[:, :, :, :] out,  # OUT (1, i0, i1, i2)
    str level=None,
):
    """Write the Euclidean norm of `gradient`."""
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t a, i, j
    cdef const float *parts[3]
    with nogil:
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for a in range(gradient.shape[0]):
                    parts[a] = &gradient[a, i, j, 0]
                rows.magnitude(parts, gradient.shape[0], &out[0, i, j, 0], out.shape[3])


def eigenvalues(
    const float[:, :, :, :] matrix,  # IN (parts, i0, i1, i2): the diagonal, then the upper triangle row by row
    float[:, :, :, :] out,  # OUT (axes, i0, i1, i2)
    str level=None,
):
    """Write the eigenvalues of `matrix` in descending order."""
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t c, i, j
    cdef const float *parts[6]
    cdef float *values[3]
    with nogil:
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for c in range(matrix.shape[0]):
                    parts[c] = &matrix[c, i, j, 0]
                for c in range(out.shape[0]):
                    values[c] = &out[c, i, j, 0]
                rows.eigenvalues(parts, out.shape[0], values, out.shape[3])


def structure_tensor(
    const float[:, :, :, :] gradient,  # IN (axes, i0, i1, i2)
    const float[:, ::1] smoothing,  # IN (3, SIZE)
    const Py_ssize_t[::1] steps,  # IN (3,), in pixels
    float[:, :, :, :] out,  # OUT (axes, i0, i1, i2)
    float[:, ::1] scratch,  # 1 row, and 1 for each part of the tensor
    str level=None,
):
    """Write the square roots of the eigenvalues, in descending order, of the smoothed products of `gradient`."""
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t i, j, a, b, part, n_parts, n_axes = gradient.shape[0], n = out.shape[3]
    cdef Py_ssize_t first[6]
    cdef Py_ssize_t second[6]
    cdef const float *parts[6]
    cdef float *values[3]
    cdef Taps across, along
    with nogil:
        across, along = taps_across(smoothing, gradient.strides, steps), taps_along(smoothing, steps)
        for a in range(n_axes):
            first[a] = second[a] = a
        n_parts = n_axes
        for a in range(n_axes):
            for b in range(a + 1, n_axes):
                first[n_parts], second[n_parts] = a, b
                n_parts += 1
        for part in range(n_parts):
            parts[part] = &scratch[1 + part, 0]
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for part in range(n_parts):
                    rows.products(&gradient[first[part], i, j, 0] - along.reach,
                                  &gradient[second[part], i, j, 0] - along.reach, across.offsets, across.weight,
                                  across.n, &scratch[0, 0], n + 2 * along.reach)
                    rows.weighted(&scratch[0, along.reach], along.offsets, along.weight, along.n,
                                  &scratch[1 + part, 0], n)
                for a in range(n_axes):
                    values[a] = &out[a, i, j, 0]
                rows.eigenvalues(parts, n_axes, values, n)
                for a in range(n_axes):
                    rows.root(values[a], n)


def deviation(
    const float[:, :, :, :] x,  # IN (1, i0, i1, i2)
    const float[:, ::1] smoothing,  # IN (3, SIZE)
    const Py_ssize_t[::1] steps,  # IN (3,), in pixels
    float[:, :, :, :] out,  # OUT (1, i0, i1, i2)
    float[:, ::1] scratch,  # 3 rows
    str level=None,
):
    """Write the standard deviation around every pixel, with the weights of `smoothing`.

    The variance is that across rows, averaged along the row, plus that of the means along the row. So nothing large is
    subtracted from something large, as in the formula above, which leaves no digit on a 16-bit image.
    """
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t i, j, n = out.shape[3]
    cdef Taps across, along
    cdef const float *mean
    cdef const float *variance
    with nogil:
        across, along = taps_across(smoothing, x.strides, steps), taps_along(smoothing, steps)
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                mean, variance = &x[0, i, j, 0], NULL
                if across.reach > 0:
                    rows.moments(mean - along.reach, NULL, across.offsets, across.weight, across.n, &scratch[0, 0],
                                 &scratch[1, 0], n + 2 * along.reach)
                    mean, variance = &scratch[0, along.reach], &scratch[1, along.reach]
                rows.moments(mean, variance, along.offsets, along.weight, along.n, &scratch[2, 0], &out[0, i, j, 0], n)
                rows.root(&out[0, i, j, 0], n)


def extrema(
    const float[:, :, :, :] x,  # IN (1, i0, i1, i2)
    const Py_ssize_t[::1] offsets,  # IN (neighbours,), in floats
    float[:, :, :, :] out,  # OUT (2, i0, i1, i2)
    str level=None,
):
    """Write the maximum and the minimum of the neighbours of every pixel, minus the pixel."""
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t i, j
    with nogil:
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                rows.extrema(&x[0, i, j, 0], &offsets[0], offsets.shape[0], &out[0, i, j, 0], &out[1, i, j, 0],
                             out.shape[3])


def lines(
    const float[:, :, :, :] hessian,  # IN (parts, i0, i1, i2)
    const Py_ssize_t[:, ::1] offsets,  # IN (directions, LINE_TAPS), in floats
    const float[:, ::1] weight,  # IN (directions, parts)
    float[:, :, :, :] out,  # OUT (3, i0, i1, i2)
    str level=None,
):
    """Write maximum, minimum and mean over directions of the weighted parts of `hessian`, summed over taps."""
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t c, i, j, n_parts = hessian.shape[0]
    cdef const float *parts[6]
    cdef float *targets[3]
    with nogil:
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for c in range(n_parts):
                    parts[c] = &hessian[c, i, j, 0]
                for c in range(3):
                    targets[c] = &out[c, i, j, 0]
                rows.lines(parts, n_parts, &offsets[0, 0], &weight[0, 0], offsets.shape[0], targets, out.shape[3])


def shares(
    const float[:, :, :, :] a,  # IN (1, i0, i1, i2)
    const float[:, :, :, :] b,  # IN (1, i0, i1, i2)
    Py_ssize_t radius,  # IN, in pixels along the row, at least 1
    bint of_changes,  # IN
    float weight,  # IN, of one in the window
    float[:, :, :, :] out,  # OUT (1, i0, i1, i2)
    float[:, ::1] scratch,  # 2 rows
    str level=None,
):
    """Write the weighted number of pixels up to `radius` from each along its row at which `a` is larger than `b`.

    `of_changes` counts the pairs of neighbours, both in that window, at one of which it is and at the other not.
    """
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t i, j, n = out.shape[3], window = 2 * radius + 1
    with nogil:
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                rows.above(&a[0, i, j, 0] - radius, &b[0, i, j, 0] - radius, &scratch[0, 0], n + window - 1)
                if of_changes:
                    rows.changes(&scratch[0, 0], &scratch[1, 0], n + window - 2)
                    rows.window_sums(&scratch[1, 0], window - 1, weight, &out[0, i, j, 0], n)
                else:
                    rows.window_sums(&scratch[0, 0], window, weight, &out[0, i, j, 0], n)


def interleave(
    const float[:, :, :, :] planes,  # IN (features, i0, i1, i2)
    float[:, :, :, :] out,  # OUT (i0, i1, i2, features)
    str level=None,
):
    """Write `planes` to `out`, whose last axis is contiguous."""
    cdef const dconv_feature_rows *rows = &get_level(level).rows
    cdef Py_ssize_t i, j, plane_step = planes.strides[0] // FLOAT, out_step = out.strides[2] // FLOAT
    with nogil:
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                rows.interleave(&planes[0, i, j, 0], plane_step, planes.shape[0], &out[i, j, 0, 0], out_step,
                                out.shape[2])
