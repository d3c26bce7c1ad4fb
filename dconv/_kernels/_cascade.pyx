"""The row programs of the a trous feature bank: float32, rank-generic, no borders.

    separable         out[c] = (kernels[c, 0] x kernels[c, 1] x kernels[c, 2]) * x, taps `steps` pixels apart
    copy, difference  x; a - b
    magnitude         sqrt(sum_a g_a^2)
    eigenvalues       of the symmetric matrix at every pixel
    structure_tensor  square roots of the eigenvalues of B * (g_a g_b)
    deviation         sqrt(B * x^2 - (B * x)^2)
    extrema           max and min over neighbours, minus the pixel
    lines             max, min and mean over directions u of the mean along u of trace(H) - u' H u
    shares            of the samples in a window along the row at which a > b, or of their neighbours where that changes

Letters: B a smoothing kernel, g the gradient, H the Hessian, * correlation. Planes are (n, i0, i1, i2); 1-D and 2-D
arrive as 3-D with leading axes of size 1, along which kernels are the single tap 1. Rows (the axis i2) are contiguous.
A window is planes with the place in them at which a block begins: taps reach out of the block, into the margin that the
caller has read or computed, and whole vectors reach behind the rows, as far as feature_rows.h says.

Loop order: rows (i0, i1) of the block, and for a row all features of it one after another, which are then interleaved
into the result. So a row of all features waits in the L2 cache, and nothing else is written but the planes that
`separable` makes. Of these as many slabs are held as features look at, in a ring: a slab is a row in 1-D and 2-D and a
plane in 3-D, and the one that comes next takes the place of the one that is no longer seen. In a row come first the taps
across rows, into scratch, then the taps along it: a smoothing costs 5 + 5 taps in 2-D and 25 + 5 in 3-D. All of it runs
on the calling thread; callers work on several blocks of an image at once.
"""

import numpy as np

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
    MAX_PLACES = 16 * DCONV_LINE_TAPS  # of taps of lines, in as many directions, and of neighbours
    MAX_PARTS = 6
    SCRATCH_ROWS = 1 + MAX_PARTS
    FLOAT = sizeof(float)


cdef struct Rows:
    # The rows of planes: row (i0, i1) of the block is number (i + leads) modulo sizes of those that are held.
    float *data
    Py_ssize_t plane  # floats from one to the next
    Py_ssize_t steps[2]  # likewise of rows
    Py_ssize_t leads[2]
    Py_ssize_t sizes[2]


cdef struct Taps:
    Py_ssize_t n
    Py_ssize_t reach  # in pixels along the row
    Py_ssize_t places[MAX_TAPS * 3]  # in rows, rows and pixels
    float weight[MAX_TAPS]


cdef struct Task:
    # What is computed of a row of the block. Each kind of task uses some of these.
    void (*compute)(const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch,
                    Py_ssize_t room) noexcept nogil
    Rows a, b
    Taps across, along
    Py_ssize_t n_parts, n_places
    const Py_ssize_t *places
    const float *weight
    Py_ssize_t radius
    bint of_changes
    Py_ssize_t n  # pixels of the row
    float *out  # a row for each feature
    Py_ssize_t out_step
    # Of what `separable` makes:
    Rows made
    Py_ssize_t ahead  # slabs that it is made before the features of a slab
    Py_ssize_t around  # rows before and behind those of the block in a slab of 3-D
    Py_ssize_t next  # slab


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
    if not is_one(&task.across):
        find(&task.a, i, j, task.across.places, task.across.n, offsets)
        rows.weighted(row - task.along.reach, offsets, task.across.weight, task.across.n, scratch,
                      task.n + 2 * task.along.reach)
        row = scratch + task.along.reach
    find(&task.a, i, j, task.along.places, task.along.n, offsets)
    rows.weighted(row, offsets, task.along.weight, task.along.n, row_at(&task.made, 0, i, j), task.n)


cdef void compute_copy(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t part, k
    cdef const float *row
    for part in range(task.n_parts):
        row = row_at(&task.a, part, i, j)
        for k in range(task.n):
            task.out[part * task.out_step + k] = row[k]


cdef void compute_difference(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t k
    cdef const float *a = row_at(&task.a, 0, i, j)
    cdef const float *b = row_at(&task.b, 0, i, j)
    for k in range(task.n):
        task.out[k] = a[k] - b[k]


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
    cdef Py_ssize_t along[MAX_TAPS]
    cdef const float *parts[MAX_PARTS]
    cdef float *values[3]
    cdef Py_ssize_t first[MAX_PARTS]
    cdef Py_ssize_t second[MAX_PARTS]
    cdef float *product
    cdef Py_ssize_t a, b, part, n_products = task.n_parts, reach = task.along.reach
    for a in range(task.n_parts):  # the diagonal, then the upper triangle
        first[a] = second[a] = a
        for b in range(a + 1, task.n_parts):
            first[n_products], second[n_products] = a, b
            n_products += 1
    find(&task.a, i, j, task.across.places, task.across.n, offsets)
    find(&task.a, i, j, task.along.places, task.along.n, along)
    for part in range(n_products):
        product = scratch + (1 + part) * room
        rows.products(row_at(&task.a, first[part], i, j) - reach, row_at(&task.a, second[part], i, j) - reach, offsets,
                      task.across.weight, task.across.n, scratch, task.n + 2 * reach)
        rows.weighted(scratch + reach, along, task.along.weight, task.along.n, product, task.n)
        parts[part] = product
    for a in range(task.n_parts):
        values[a] = task.out + a * task.out_step
    rows.eigenvalues(parts, task.n_parts, values, task.n)
    for a in range(task.n_parts):
        rows.root(values[a], task.n)


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
    cdef const float *parts[MAX_PARTS]
    cdef float *targets[3]
    cdef Py_ssize_t part
    find(&task.a, i, j, task.places, task.n_places, offsets)
    for part in range(task.n_parts):
        parts[part] = row_at(&task.a, part, i, j)
    for part in range(3):
        targets[part] = task.out + part * task.out_step
    rows.lines(parts, task.n_parts, offsets, task.weight, task.n_places // DCONV_LINE_TAPS, targets, task.n)


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


cdef class Window:
    """Planes (n, i0, i1, i2) and the place in them, maybe before or behind what is held, at which a block begins."""

    cdef Rows rows
    cdef readonly object planes
    cdef readonly tuple leads

    def __init__(self, float[:, :, :, :] planes, tuple leads):
        self.planes, self.leads = np.asarray(planes), leads
        self.rows.data = &planes[0, 0, 0, 0] + <Py_ssize_t>leads[2]
        self.rows.plane = planes.strides[0] // FLOAT
        for axis in range(2):
            self.rows.steps[axis], self.rows.sizes[axis] = planes.strides[1 + axis] // FLOAT, planes.shape[1 + axis]
            self.rows.leads[axis] = leads[axis]


cdef class Program:
    """What is computed of the rows of a block, row by row.

    Each method adds something to it; `first` is the number of the feature, or of the first of several.
    """

    cdef const dconv_feature_rows *rows
    cdef Py_ssize_t shape[3]
    cdef Py_ssize_t axis, pitch, longest, n_features
    cdef float[::1] features
    cdef float[:, ::1] scratch
    cdef list sources, tasks, kept

    def __init__(self, shape, Py_ssize_t axis, Py_ssize_t n_features, str level=None):
        """`shape` is that of the block; slabs lie along `axis`, 0 in 3-D, else 1."""
        self.rows = &get_level(level).rows
        self.shape[0], self.shape[1], self.shape[2] = shape
        self.axis, self.n_features, self.longest = axis, n_features, 0
        # An odd number of cache lines, as rows a power of two apart would compete for a few sets of the cache.
        self.pitch = (self.shape[2] + DCONV_ROW_UNIT - 1) // DCONV_ROW_UNIT * DCONV_ROW_UNIT + DCONV_ROW_UNIT // 2
        self.features = np.empty(n_features * self.pitch + DCONV_ROW_UNIT, np.float32)
        self.scratch = None  # until it is known how much of it is needed
        self.sources, self.tasks, self.kept = [], [], []

    cdef Task *add(self, list to, Window a, Py_ssize_t first) except NULL:
        memory = np.zeros(sizeof(Task), np.uint8)
        cdef unsigned char[::1] view = memory
        cdef Task *task = <Task *>&view[0]
        task.a, task.n, task.out_step = a.rows, self.shape[2], self.pitch
        if first < self.n_features:
            task.out = &self.features[first * self.pitch]
        to.append(memory)
        self.kept.append(a)
        return task

    cdef void reserve(self, Py_ssize_t n):
        self.longest = max(self.longest, n)

    def separable(
        self,
        Window x,
        const float[:, :, ::1] kernels,  # (n, 3, SIZE)
        const Py_ssize_t[::1] steps,  # (3,), in pixels
        Window made,  # of n planes
        tuple around=(0, 0, 0),  # pixels beyond the block, per axis
    ):
        """Make planes, correlations of `x` with each of `kernels`, the product of one kernel per axis."""
        cdef Task *task
        cdef Py_ssize_t c
        for c in range(kernels.shape[0]):
            task = self.add(self.sources, x, self.n_features)
            task.compute, task.made = compute_separable, made.rows
            task.made.data += c * made.rows.plane - <Py_ssize_t>around[2]
            task.a.data -= <Py_ssize_t>around[2]
            task.n += 2 * <Py_ssize_t>around[2]
            task.ahead, task.around = around[self.axis], around[1] if self.axis == 0 else 0
            task.next = -task.ahead
            set_taps(&task.across, &kernels[c, 0, 0], &kernels[c, 1, 0], NULL, &steps[0])
            set_taps(&task.along, NULL, NULL, &kernels[c, 2, 0], &steps[0])
            self.reserve(task.n + 2 * task.along.reach)
        self.kept.append(made)

    def copy(self, Window x, Py_ssize_t n_parts, Py_ssize_t first):
        cdef Task *task = self.add(self.tasks, x, first)
        task.compute, task.n_parts = compute_copy, n_parts

    def difference(self, Window a, Window b, Py_ssize_t first):
        cdef Task *task = self.add(self.tasks, a, first)
        task.compute, task.b = compute_difference, b.rows
        self.kept.append(b)

    def magnitude(self, Window gradient, Py_ssize_t n_parts, Py_ssize_t first):
        """Write the Euclidean norm of the parts."""
        cdef Task *task = self.add(self.tasks, gradient, first)
        task.compute, task.n_parts = compute_magnitude, n_parts

    def eigenvalues(self, Window matrix, Py_ssize_t n_parts, Py_ssize_t first):
        """Write eigenvalues in descending order, of a matrix whose parts are its diagonal, then the upper triangle row by
        row.
        """
        cdef Task *task = self.add(self.tasks, matrix, first)
        task.compute, task.n_parts = compute_eigenvalues, n_parts

    def structure_tensor(
        self,
        Window gradient,
        Py_ssize_t n_parts,
        const float[:, ::1] smoothing,  # (3, SIZE)
        const Py_ssize_t[::1] steps,  # (3,), in pixels
        Py_ssize_t first,
    ):
        """Write the square roots of the eigenvalues, in descending order, of the smoothed products of the parts."""
        cdef Task *task = self.add(self.tasks, gradient, first)
        task.compute, task.n_parts = compute_structure_tensor, n_parts
        self.smooth(task, smoothing, steps)

    def deviation(
        self, Window x, const float[:, ::1] smoothing, const Py_ssize_t[::1] steps, Py_ssize_t first
    ):
        """Write the standard deviation around every pixel, with the weights of `smoothing`."""
        cdef Task *task = self.add(self.tasks, x, first)
        task.compute = compute_deviation
        self.smooth(task, smoothing, steps)

    cdef void smooth(self, Task *task, const float[:, ::1] smoothing, const Py_ssize_t[::1] steps):
        set_taps(&task.across, &smoothing[0, 0], &smoothing[1, 0], NULL, &steps[0])
        set_taps(&task.along, NULL, NULL, &smoothing[2, 0], &steps[0])
        self.reserve(task.n + 2 * task.along.reach)

    def extrema(self, Window x, const Py_ssize_t[:, ::1] neighbours, Py_ssize_t first):
        """Write the maximum and the minimum of the neighbours of every pixel, minus the pixel."""
        cdef Task *task = self.add(self.tasks, x, first)
        task.compute, task.places, task.n_places = compute_extrema, &neighbours[0, 0], neighbours.shape[0]
        self.kept.append(neighbours)

    def lines(
        self,
        Window hessian,
        const Py_ssize_t[:, :, ::1] places,  # (directions, LINE_TAPS, 3), in pixels
        const float[:, ::1] weight,  # (directions, parts)
        Py_ssize_t first,
    ):
        """Write maximum, minimum and mean over directions of the weighted parts, summed over taps."""
        cdef Task *task = self.add(self.tasks, hessian, first)
        task.compute, task.n_parts = compute_lines, weight.shape[1]
        task.places, task.n_places = &places[0, 0, 0], places.shape[0] * DCONV_LINE_TAPS
        task.weight = &weight[0, 0]
        self.kept += [places, weight]

    def shares(
        self, Window a, Window b, Py_ssize_t radius, bint of_changes, float weight, Py_ssize_t first
    ):
        """Write the weighted number of pixels up to `radius`, at least 1, from each along its row at which `a` is larger.

        `of_changes` counts the pairs of neighbours, both in that window, at one of which it is and at the other not.
        """
        cdef Task *task = self.add(self.tasks, a, first)
        task.compute, task.b, task.radius, task.of_changes = compute_shares, b.rows, radius, of_changes
        task.across.weight[0] = weight
        self.reserve(task.n + 2 * radius + 1)
        self.kept.append(b)

    def run(self, Py_ssize_t low, Py_ssize_t high, float[:, :, :, :] out):
        """Compute the slabs from `low`, where the last call ended, to `high`; write their features to `out`, which is of
        them alone, (i0, i1, i2, features), if there are any.
        """
        cdef Py_ssize_t[::1] sources = addresses(self.sources), tasks = addresses(self.tasks)
        cdef Py_ssize_t slab, row, t, i, j, n_rows = self.shape[1] if self.axis == 0 else 1
        cdef Py_ssize_t out_step = 0 if out is None else out.strides[2] // FLOAT
        cdef Py_ssize_t room = self.longest + DCONV_ROW_UNIT
        cdef Task *task
        if self.scratch is None:
            self.scratch = np.empty((SCRATCH_ROWS, room), np.float32)
        cdef float *scratch = &self.scratch[0, 0]
        with nogil:
            for slab in range(low, high):
                for t in range(sources.shape[0]):
                    task = <Task *>sources[t]
                    while task.next <= slab + task.ahead:
                        for row in range(-task.around, n_rows + task.around):
                            if self.axis == 0:
                                task.compute(task, self.rows, task.next, row, scratch, room)
                            else:
                                task.compute(task, self.rows, row, task.next, scratch, room)
                        task.next += 1
                for row in range(n_rows if self.n_features > 0 else 0):
                    for t in range(tasks.shape[0]):
                        task = <Task *>tasks[t]
                        if self.axis == 0:
                            task.compute(task, self.rows, slab, row, scratch, room)
                        else:
                            task.compute(task, self.rows, row, slab, scratch, room)
                    if self.axis == 0:
                        i, j = slab - low, row
                    else:
                        i, j = row, slab - low
                    self.rows.interleave(&self.features[0], self.pitch, self.n_features, &out[i, j, 0, 0], out_step,
                                         self.shape[2])


cdef Py_ssize_t[::1] addresses(list tasks):
    return np.array([task.ctypes.data for task in tasks], np.intp)
