"""What is computed of one row of a block: tasks, and the rows of planes that they read and write."""

from dconv._kernels._dispatch cimport dconv_feature_rows

cdef enum:
    SIZE = 5  # taps of a kernel along one axis; shorter kernels have zeros at their ends
    MAX_TAPS = SIZE * SIZE
    MAX_PARTS = 6
    SCRATCH_ROWS = 2 * MAX_PARTS


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
    # Of what makes planes:
    const Rows *planes  # of `lines` and `turned`: those of each direction
    Rows made
    Py_ssize_t ahead  # slabs that it is made before the features of a slab
    Py_ssize_t around  # rows before and behind those of the block in a slab of 3-D
    Py_ssize_t next  # slab
    const Task *follower  # what is computed of the same row then
    Py_ssize_t reach  # in pixels along the row, of it and its followers
    Py_ssize_t across_row  # of the scratch, where the sums across rows are
    bint sums_across  # or whether a task before has summed them


cdef void set_taps(
    Taps *taps, const float *weight0, const float *weight1, const float *weight2, const Py_ssize_t *steps
) noexcept nogil
cdef void compute_separable(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_turned(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_copy(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_difference(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_magnitude(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_eigenvalues(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_structure_tensor(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_deviation(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_extrema(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_lines(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
cdef void compute_shares(
    const Task *task, const dconv_feature_rows *rows, Py_ssize_t i, Py_ssize_t j, float *scratch, Py_ssize_t room
) noexcept nogil
