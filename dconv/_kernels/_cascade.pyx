"""The row programs of the a trous feature bank: float32, rank-generic, no borders. _row_tasks.pyx has what is computed
of a row, this file the order in which it is done.

Planes are (n, i0, i1, i2); 1-D and 2-D arrive as 3-D with leading axes of size 1, along which kernels are the single
tap 1. Rows (the axis i2) are contiguous. A window is planes with the place in them at which a block begins: taps reach
out of the block, into the margin that the caller has read or computed, and whole vectors reach behind the rows, as far
as feature_rows.h says.

Loop order: rows (i0, i1) of the block, and for a row all features of it one after another, which are then interleaved
into the result. So a row of all features waits in the L2 cache, and nothing else is written but the planes that
`separable` and `turned` make. Of these as many slabs are held as features look at, in a ring: a slab is a row in 1-D and
2-D and a plane in 3-D, and the one that comes next takes the place of the one that is no longer seen. What is made of one
row of a plane is made together, and sums across rows that several kernels share are summed once. All of it runs on the
calling thread; callers work on several blocks of an image at once.
"""

import numpy as np

from dconv import _memory
from dconv._kernels._dispatch cimport dconv_feature_rows, get_level
from dconv._kernels._row_tasks cimport (
    SCRATCH_ROWS,
    SIZE,
    Rows,
    Task,
    compute_copy,
    compute_deviation,
    compute_difference,
    compute_eigenvalues,
    compute_extrema,
    compute_lines,
    compute_magnitude,
    compute_separable,
    compute_shares,
    compute_structure_tensor,
    compute_turned,
    set_taps,
)

cdef extern from "feature_rows.h":
    enum:
        DCONV_ROW_UNIT
        DCONV_LINE_TAPS

ROW_UNIT = DCONV_ROW_UNIT  # floats that rows are rounded up to
LINE_TAPS = DCONV_LINE_TAPS  # of `lines`

cdef enum:
    FLOAT = sizeof(float)


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

    def plane(self, Py_ssize_t index):
        """Return the window on one of the planes."""
        return Window(self.planes[index : index + 1], self.leads)


cdef class Program:
    """What is computed of the rows of a block, row by row.

    Each method adds something to it; `first` is the number of the feature, or of the first of several.
    """

    cdef const dconv_feature_rows *rows
    cdef Py_ssize_t shape[3]
    cdef Py_ssize_t axis, pitch, longest, n_features, farthest
    cdef float[::1] features
    cdef float[:, ::1] scratch
    cdef list sources, followers, tasks, kept
    cdef Task *last  # that makes planes
    cdef Py_ssize_t[::1] source_places, task_places  # where they are in memory, once all have been added

    def __init__(self, shape, Py_ssize_t axis, Py_ssize_t n_features, str level=None):
        """`shape` is that of the block; slabs lie along `axis`, 0 in 3-D, else 1."""
        self.rows = &get_level(level).rows
        self.shape[0], self.shape[1], self.shape[2] = shape
        self.axis, self.n_features, self.longest, self.farthest = axis, n_features, 0, 0
        # An odd number of cache lines, as rows a power of two apart would compete for a few sets of the cache.
        self.pitch = (self.shape[2] + DCONV_ROW_UNIT - 1) // DCONV_ROW_UNIT * DCONV_ROW_UNIT + DCONV_ROW_UNIT // 2
        self.features = _memory.empty((n_features * self.pitch + DCONV_ROW_UNIT,), np.dtype(np.float32))
        self.scratch = None  # until it is known how much of it is needed
        self.sources, self.followers, self.tasks, self.kept = [], [], [], []

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
        list made,  # windows: on a plane for each kernel
        tuple around=(0, 0, 0),  # pixels beyond the block, per axis
    ):
        """Make planes, correlations of `x` with each of `kernels`, the product of one kernel per axis."""
        cdef Task *task
        cdef Task *head = NULL
        cdef Task *before = NULL
        cdef Window target
        cdef Py_ssize_t c, reach = reach_along(kernels) * steps[2]
        across = list(map(bytes, np.ascontiguousarray(np.asarray(kernels)[:, :2]).reshape(len(kernels), -1)))
        different = list(dict.fromkeys(across))  # sums across rows: each is summed once
        for c in range(kernels.shape[0]):
            target = made[c]
            task = self.add(self.sources if head == NULL else self.followers, x, self.n_features)
            task.compute, task.made, task.reach = compute_separable, target.rows, reach
            self.widen(task, around)
            task.made.data -= <Py_ssize_t>around[2]
            set_taps(&task.across, &kernels[c, 0, 0], &kernels[c, 1, 0], NULL, &steps[0])
            set_taps(&task.along, NULL, NULL, &kernels[c, 2, 0], &steps[0])
            task.across_row, task.sums_across = different.index(across[c]), across[c] not in across[:c]
            self.reserve(task.n + 2 * reach)
            if head == NULL:
                head = task
            else:
                before.follower = task
            before = task
        self.last = before
        self.kept.append(made)

    def turned(
        self,
        Window hessian,
        const float[:, ::1] weight,  # (directions, parts)
        list made,  # windows: on a plane for each direction
        tuple around,  # as for `separable`, which has just been called and made `hessian`
    ):
        """Make planes, the parts of `hessian` weighted for each direction."""
        cdef Task *task = self.add(self.followers, hessian, self.n_features)
        task.compute, task.n_parts, task.n_places = compute_turned, weight.shape[1], weight.shape[0]
        task.weight, task.planes = &weight[0, 0], self.rows_of(made, <Py_ssize_t>around[2])
        self.widen(task, around)
        self.last.follower, self.last = task, task
        self.kept.append(weight)

    cdef void widen(self, Task *task, tuple around):
        """Let a task make what is `around` the block, too."""
        task.a.data -= <Py_ssize_t>around[2]
        task.n += 2 * <Py_ssize_t>around[2]
        task.ahead, task.around = around[self.axis], around[1] if self.axis == 0 else 0
        task.next = -task.ahead
        self.farthest = max(self.farthest, task.ahead)

    cdef const Rows *rows_of(self, list windows, Py_ssize_t before):
        """Return the rows of windows one after another, each from `before` pixels before its block on."""
        memory = np.zeros(len(windows) * sizeof(Rows), np.uint8)
        cdef unsigned char[::1] view = memory
        cdef Rows *rows = <Rows *>&view[0]
        cdef Window window
        for number, window in enumerate(windows):
            rows[<Py_ssize_t>number] = window.rows
            rows[<Py_ssize_t>number].data -= before
        self.kept += [memory, windows]
        return rows

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
        list parts,  # windows: on a plane for each direction, as `turned` makes them, or one on the Hessian
        const Py_ssize_t[:, :, ::1] places,  # (directions, LINE_TAPS, 3), in pixels
        const float[:, ::1] weight,  # (directions, parts), of the Hessian
        Py_ssize_t first,
    ):
        """Write maximum, minimum and mean over directions of the weighted parts, summed over taps."""
        cdef Task *task = self.add(self.tasks, parts[0], first)
        task.compute, task.n_parts, task.weight = compute_lines, weight.shape[1], &weight[0, 0]
        task.places, task.n_places = &places[0, 0, 0], places.shape[0] * DCONV_LINE_TAPS
        if len(parts) > 1:
            task.n_parts, task.planes = 1, self.rows_of(parts, 0)
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
        cdef Py_ssize_t slab, row, t, i, j, begin = low, n_rows = self.shape[1] if self.axis == 0 else 1
        cdef Py_ssize_t out_step = 0 if out is None else out.strides[2] // FLOAT
        cdef Py_ssize_t room = (self.longest // DCONV_ROW_UNIT + 2) * DCONV_ROW_UNIT
        cdef Task *task
        cdef const Task *part
        if self.scratch is None:
            self.scratch = _memory.empty((SCRATCH_ROWS, room), np.dtype(np.float32))
            begin -= 2 * self.farthest  # what is made from what is made follows it row by row from its first row on
            self.source_places, self.task_places = addresses(self.sources), addresses(self.tasks)
        cdef Py_ssize_t[::1] sources = self.source_places, tasks = self.task_places
        cdef float *scratch = &self.scratch[0, 0]
        with nogil:
            for slab in range(begin, high):
                for t in range(sources.shape[0]):
                    task = <Task *>sources[t]
                    while task.next <= slab + task.ahead:
                        for row in range(-task.around, n_rows + task.around):
                            part = task
                            while part != NULL:
                                if self.axis == 0:
                                    part.compute(part, self.rows, task.next, row, scratch, room)
                                else:
                                    part.compute(part, self.rows, row, task.next, scratch, room)
                                part = part.follower
                        task.next += 1
                for row in range(n_rows if slab >= low and self.n_features > 0 else 0):
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


def reach_along(kernels):
    """Return how many taps any kernel looks to both sides along the row."""
    used = np.flatnonzero(np.any(kernels, axis=0)[2])
    return int(abs(used - SIZE // 2).max(initial=0))


cdef Py_ssize_t[::1] addresses(list tasks):
    return np.array([task.ctypes.data for task in tasks], np.intp)
