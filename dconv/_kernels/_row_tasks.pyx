"""What is computed of one row of a block, for every kind of task of a row program.

    separable         out = (kernels[0] x kernels[1] x kernels[2]) * x, taps `steps` pixels apart
    turned            trace(H) - u' H u for several directions u, by weights of the parts of H
    copy, difference  x; a - b
    magnitude         sqrt(sum_a g_a^2)
    eigenvalues       of the symmetric matrix at every pixel
    structure_tensor  square roots of the eigenvalues of B * (g_a g_b)
    deviation         sqrt(B * x^2 - (B * x)^2)
    extrema           max and min over neighbours, minus the pixel
    lines             max, min and mean over directions u of the mean along u of trace(H) - u' H u
    shares            of the samples in a window along the row at which a > b, or of their neighbours where that changes

Letters: B a smoothing kernel, g the gradient, H the Hessian, * correlation. Of taps come first those across rows, into
scratch, then those along the row: a smoothing costs 5 + 5 taps in 2-D and 25 + 5 in 3-D.
"""

from libc.string cimport memcpy

from dconv._kernels._dispatch cimport dconv_feature_rows

cdef extern from "feature_rows.h":
    enum:
        DCONV_LINE_TAPS

cdef enum:
    MAX_DIRECTIONS = 16  # of lines
    MAX_PLACES = MAX_DIRECTIONS * DCONV_LINE_TAPS  # of their taps, and of neighbours


cdef inline Py_ssize_t number_of(const Rows *rows, int axis, Py_ssize_t i) noexcept nogil:
    return (i + rows.leads[axis]) % rows.sizes[axis]


cdef inline float *row_at(const Rows *rows, Py_ssize_t plane, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
    return (rows.data + plane * rows.plane + number_of(rows, 0, i) * rows.steps[0]
            + number_of(rows, 1, j) * rows.steps[1])


cdef inline Py_ssize_t moved(Py_ssize_t number, Py_ssize_t by, Py_ssize_t size) noexcept nogil:
    """Return the number of a row of `size` in a ring; a division for every tap would take longer than the taps."""
    number += by
    return number + size if number < 0 else number - size if number >= size else number


cdef void find(
    const Rows *rows, Py_ssize_t i, Py_ssize_t j, const Py_ssize_t *places, Py_ssize_t n, Py_ssize_t *offsets
) noexcept nogil:
    """Write where taps at these places, in rows, rows and pixels, lie in memory from a row on, in floats."""
    cdef Py_ssize_t k, first = number_of(rows, 0, i), second = number_of(rows, 1, j)
    for k in range(n):
        offsets[k] = ((moved(first, places[3 * k], rows.sizes[0]) - first) * rows.steps[0]
                      + (moved(second, places[3 * k + 1], rows.sizes[1]) - second) * rows.steps[1] + places[3 * k + 2])


cdef void set_taps(
    Taps *taps, const float *weight0, const float *weight1, const float *weight2, const Py_ssize_t *steps
) noexcept nogil:
    """Set the taps of the product of kernels of SIZE weights, NULL for the tap 1, without those of weight 0."""
    cdef Py_ssize_t i, j, k
    cdef float weight
    taps.n = taps.reach = 0
    for i in range(SIZE):
        for j in range(SIZE):
            for k in range(SIZE):
                if (weight0 == NULL and i != SIZE // 2) or (weight1 == NULL and j != SIZE // 2) or (
                    weight2 == NULL and k != SIZE // 2
                ):
                    continue
                weight = (weight0[i] if weight0 else 1) * (weight1[j] if weight1 else 1) * (weight2[k] if weight2 else 1)
                if weight != 0:
                    taps.weight[taps.n] = weight
                    taps.places[3 * taps.n] = (i - SIZE // 2) * steps[0]
                    taps.places[3 * taps.n + 1] = (j - SIZE // 2) * steps[1]
                    taps.places[3 * taps.n + 2] = (k - SIZE // 2) * steps[2]
                    taps.reach = max(taps.reach, (k - SIZE // 2) * steps[2])
                    taps.n += 1


cdef bint is_one(const Taps *taps) noexcept nogil:
    """Tell whether nothing is summed."""
    return taps.n == 1 and taps.weight[0] == 1 and taps.places[0] == 0 and taps.places[1] == 0 and taps.places[2] == 0


cdef void compute_separable(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t offsets[MAX_TAPS]
    cdef const float *row = row_at(&task.a, 0, i, j)
    cdef float *sums = scratch + task.across_row * room
    if not is_one(&task.across):
        if task.sums_across:
            find(&task.a, i, j, task.across.places, task.across.n, offsets)
            rows.weighted(row - task.reach, offsets, task.across.weight, task.across.n, sums, task.n + 2 * task.reach)
        row = sums + task.reach
    find(&task.a, i, j, task.along.places, task.along.n, offsets)
    rows.weighted(row, offsets, task.along.weight, task.along.n, row_at(&task.made, 0, i, j), task.n)


cdef void compute_turned(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef const float *parts[MAX_PARTS]
    cdef float *targets[MAX_DIRECTIONS]
    cdef Py_ssize_t k
    for k in range(task.n_parts):
        parts[k] = row_at(&task.a, k, i, j)
    for k in range(task.n_places):
        targets[k] = row_at(&task.planes[k], 0, i, j)
    rows.mixed(parts, task.n_parts, task.weight, targets, task.n_places, task.n)


cdef void compute_copy(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t part
    for part in range(task.n_parts):
        memcpy(task.out + part * task.out_step, row_at(&task.a, part, i, j), task.n * sizeof(float))


cdef void compute_difference(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    rows.difference(row_at(&task.a, 0, i, j), row_at(&task.b, 0, i, j), task.out, task.n)


cdef void compute_magnitude(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef const float *parts[MAX_PARTS]
    cdef Py_ssize_t part
    for part in range(task.n_parts):
        parts[part] = row_at(&task.a, part, i, j)
    rows.magnitude(parts, task.n_parts, task.out, task.n)


cdef void compute_eigenvalues(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef const float *parts[MAX_PARTS]
    cdef float *values[3]
    cdef Py_ssize_t part, size = axes_of(task.n_parts)
    for part in range(task.n_parts):
        parts[part] = row_at(&task.a, part, i, j)
    for part in range(size):
        values[part] = task.out + part * task.out_step
    rows.eigenvalues(parts, size, values, task.n)


cdef Py_ssize_t axes_of(Py_ssize_t n_parts) noexcept nogil:
    """Return the size of the symmetric matrix of so many different parts."""
    return 1 if n_parts == 1 else 2 if n_parts == 3 else 3


cdef void compute_structure_tensor(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t offsets[MAX_TAPS]
    cdef const float *parts[MAX_PARTS]
    cdef float *values[3]
    cdef Py_ssize_t part, n_products = task.n_parts * (task.n_parts + 1) // 2, reach = task.along.reach
    cdef float *products = scratch + n_products * room
    for part in range(task.n_parts):
        parts[part] = row_at(&task.a, part, i, j) - reach
    find(&task.a, i, j, task.across.places, task.across.n, offsets)
    rows.products(parts, task.n_parts, offsets, task.across.weight, task.across.n, scratch, room, task.n + 2 * reach)
    find(&task.a, i, j, task.along.places, task.along.n, offsets)
    for part in range(n_products):
        rows.weighted(scratch + part * room + reach, offsets, task.along.weight, task.along.n, products + part * room,
                      task.n)
        parts[part] = products + part * room
    for part in range(task.n_parts):
        values[part] = task.out + part * task.out_step
    rows.eigenvalues(parts, task.n_parts, values, task.n)
    for part in range(task.n_parts):
        rows.root(values[part], task.n)


cdef void compute_deviation(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    """The variance is that across rows, averaged along the row, plus that of the means along the row. So nothing large
    is subtracted from something large, as in the formula above, which leaves no digit on a 16-bit image."""
    cdef Py_ssize_t offsets[MAX_TAPS]
    cdef Py_ssize_t reach = task.along.reach
    cdef const float *mean = row_at(&task.a, 0, i, j)
    cdef const float *variance = NULL
    if not is_one(&task.across):
        find(&task.a, i, j, task.across.places, task.across.n, offsets)
        rows.moments(mean - reach, NULL, offsets, task.across.weight, task.across.n, scratch, scratch + room,
                     task.n + 2 * reach)
        mean, variance = scratch + reach, scratch + room + reach
    find(&task.a, i, j, task.along.places, task.along.n, offsets)
    rows.moments(mean, variance, offsets, task.along.weight, task.along.n, scratch + 2 * room, task.out, task.n)
    rows.root(task.out, task.n)


cdef void compute_extrema(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t offsets[MAX_PLACES]
    find(&task.a, i, j, task.places, task.n_places, offsets)
    rows.extrema(row_at(&task.a, 0, i, j), offsets, task.n_places, task.out, task.out + task.out_step, task.n)


cdef void compute_lines(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t offsets[MAX_PLACES]
    cdef const float *parts[MAX_DIRECTIONS * MAX_PARTS]
    cdef float *targets[3]
    cdef Py_ssize_t part, o, n_directions = task.n_places // DCONV_LINE_TAPS
    cdef const Rows *of_direction
    for o in range(n_directions):
        of_direction = &task.planes[o] if task.planes else &task.a
        find(of_direction, i, j, task.places + 3 * DCONV_LINE_TAPS * o, DCONV_LINE_TAPS, offsets + DCONV_LINE_TAPS * o)
        for part in range(task.n_parts):
            parts[o * task.n_parts + part] = row_at(of_direction, part, i, j)
    for part in range(3):
        targets[part] = task.out + part * task.out_step
    rows.lines(parts, task.n_parts, offsets, task.weight, n_directions, targets, task.n)


cdef void compute_shares(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t window = 2 * task.radius + 1
    rows.above(row_at(&task.a, 0, i, j) - task.radius, row_at(&task.b, 0, i, j) - task.radius, scratch,
               task.n + window - 1)
    if task.of_changes:
        rows.changes(scratch, scratch + room, task.n + window - 2)
        rows.window_sums(scratch + room, window - 1, task.across.weight[0], task.out, task.n)
    else:
        rows.window_sums(scratch, window, task.across.weight[0], task.out, task.n)
