"""Windows of an image side by side (im2col), and their sum back into an image (col2im): strided copies.

    unfold  columns[n, o, k, c] = x[n, samples(o, k), c], or 0 where samples(o, k) is -1
    fold    x[n, i, c] = sum over o, k with low + o * step + k * spacing == i of columns[n, o, k, c]

Letters: n image, o place of a window (o0, o1, o2), k position in it (k0, k1, k2), i pixel, c channel. 1-D and 2-D arrive
as 3-D with leading axes of size 1. All arrays are C-contiguous, so of a window whose positions are neighbours, a row k2
of all channels is one run of numbers in x as well as in the columns.

Parallel over pieces of rows of what is written, (n, o0, o1, piece of o2) or (n, i0, i1, piece of i2): each number is
written by one thread, and `fold` adds in one order, windows from first to last, whatever the pieces.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memcpy, memset

from dconv._kernels._dispatch cimport real_t

OVERREAD = 16  # elements that must be readable behind `zeros`

cdef enum:
    CHUNK = 16  # bytes: what every CPU copies in one go


cdef struct Windows:
    # Sizes of all axes, and how windows lie along the last: what all pieces share. Lengths are in elements.
    Py_ssize_t size[3]
    Py_ssize_t n_windows[3]
    Py_ssize_t n_taps[3]
    Py_ssize_t low[3]
    Py_ssize_t step[3]
    Py_ssize_t spacing[3]
    Py_ssize_t n_channels, piece, n_pieces


cdef Windows make_windows(const Py_ssize_t[:, ::1] axes, Py_ssize_t n_channels, Py_ssize_t piece) noexcept:
    cdef Windows windows
    cdef Py_ssize_t axis
    for axis in range(3):
        windows.size[axis], windows.n_windows[axis] = axes[axis, 0], axes[axis, 1]
        windows.n_taps[axis], windows.low[axis] = axes[axis, 2], axes[axis, 3]
        windows.step[axis], windows.spacing[axis] = axes[axis, 4], axes[axis, 5]
    windows.n_channels, windows.piece, windows.n_pieces = n_channels, piece, 0
    return windows


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """Return a / b rounded up, or something below 1 if it is negative."""
    return (a + b - 1) // b


cdef inline void copy_runs(
    const char *const *runs, Py_ssize_t n_runs, Py_ssize_t run, Py_ssize_t step, Py_ssize_t n_windows, Py_ssize_t chunk,
    Py_ssize_t n_chunks, char *target,
) noexcept nogil:
    """Copy `n_runs` runs of `run` bytes of each of some windows, `step` bytes apart, to `target`, one after another.

    What is copied is rounded up to whole chunks: copies of a size that the compiler knows are single instructions.
    """
    cdef Py_ssize_t window, index, i
    cdef const char *source
    for window in range(n_windows):
        for index in range(n_runs):
            source = runs[index] + window * step
            for i in range(n_chunks):
                memcpy(target + i * chunk, source + i * chunk, chunk)
            target += run


cdef void copy_window(
    const Windows *windows, const real_t *const *rows, const Py_ssize_t *samples, Py_ssize_t window, real_t *target
) noexcept nogil:
    """Copy one window and not a byte more.

    `rows` are rows of x, NULL for zeros; `samples` are the pixels of each, NULL where the window lies inside x.
    """
    cdef Py_ssize_t row, k, c, sample, n_channels = windows.n_channels
    for row in range(windows.n_taps[0] * windows.n_taps[1]):
        for k in range(windows.n_taps[2]):
            sample = windows.low[2] + window * windows.step[2] + k * windows.spacing[2]
            if samples != NULL:
                sample = samples[k]
            for c in range(n_channels):
                target[c] = 0 if rows[row] == NULL or sample < 0 else rows[row][sample * n_channels + c]
            target += n_channels


cdef void unfold_piece(
    const Windows *windows, Py_ssize_t task, const real_t *x, const real_t *x_end, const Py_ssize_t *samples0,
    const Py_ssize_t *samples1, const Py_ssize_t *outside, Py_ssize_t first_inside, Py_ssize_t stop_inside,
    const real_t *zeros, const real_t **pointers, real_t *columns,
) noexcept nogil:
    """Write the columns of one piece; `pointers` is memory for one to each row and one to each run of a window."""
    cdef Py_ssize_t n_channels = windows.n_channels, n_taps = windows.n_taps[2]
    cdef Py_ssize_t n_rows = windows.n_taps[0] * windows.n_taps[1], column = n_rows * n_taps * n_channels
    cdef Py_ssize_t row_task = task // windows.n_pieces, begin = task % windows.n_pieces * windows.piece
    cdef Py_ssize_t o1 = row_task % windows.n_windows[1], o0 = row_task // windows.n_windows[1] % windows.n_windows[0]
    cdef Py_ssize_t end = min(begin + windows.piece, windows.n_windows[2]), window, k, k0, k1, i0, i1, row, room
    cdef Py_ssize_t first = min(max(begin, first_inside), end), step = windows.step[2] * n_channels
    # The last of a piece is copied exactly, since what follows it may be another thread's.
    cdef Py_ssize_t stop = min(stop_inside, end - 1)
    cdef Py_ssize_t run = n_taps * n_channels, n_runs = 1, size = sizeof(real_t)
    cdef const real_t **runs = pointers + n_rows  # of window `first`
    cdef const real_t *start
    x += row_task // (windows.n_windows[1] * windows.n_windows[0]) * (
        windows.size[0] * windows.size[1] * windows.size[2] * n_channels
    )
    columns += row_task * windows.n_windows[2] * column
    if windows.spacing[2] != 1:
        run, n_runs = n_channels, n_taps
    row = 0
    for k0 in range(windows.n_taps[0]):
        i0 = samples0[o0 * windows.n_taps[0] + k0]
        for k1 in range(windows.n_taps[1]):
            i1 = samples1[o1 * windows.n_taps[1] + k1]
            pointers[row], start = NULL, zeros
            if i0 >= 0 and i1 >= 0:
                pointers[row] = x + (i0 * windows.size[1] + i1) * windows.size[2] * n_channels
                start = pointers[row] + (windows.low[2] + first * windows.step[2]) * n_channels
                # A chunk may reach behind the last run of a row, and that must be in x too.
                room = x_end - start - (n_runs - 1) * windows.spacing[2] * n_channels - run - CHUNK // size
                stop = min(stop, first + (room // step + 1 if room >= 0 else 0))
            for k in range(n_runs):
                runs[row * n_runs + k] = start + k * windows.spacing[2] * n_channels
            row += 1
    stop = max(stop, first)
    for window in range(begin, first):
        copy_window(windows, pointers, outside + window * n_taps, window, columns + window * column)
    cdef const char *const *sources = <const char *const *>runs
    cdef char *target = <char *>(columns + first * column)
    if run * size == 4:
        copy_runs(sources, n_rows * n_runs, run * size, step * size, stop - first, 4, 1, target)
    elif run * size == 8:
        copy_runs(sources, n_rows * n_runs, run * size, step * size, stop - first, 8, 1, target)
    elif run * size <= CHUNK:
        copy_runs(sources, n_rows * n_runs, run * size, step * size, stop - first, CHUNK, 1, target)
    else:
        copy_runs(sources, n_rows * n_runs, run * size, step * size, stop - first, CHUNK, ceil_div(run * size, CHUNK), target)
    outside -= (stop_inside - first_inside) * n_taps
    for window in range(stop, end):
        copy_window(windows, pointers, NULL if window < stop_inside else outside + window * n_taps, window,
                    columns + window * column)


def unfold(
    const real_t[:, :, :, :, ::1] x,  # IN (n, i0, i1, i2, c)
    const Py_ssize_t[:, ::1] axes,  # IN (3, fields: size, windows, taps, low, step, spacing)
    const Py_ssize_t[:, ::1] samples0,  # IN (o0, k0)
    const Py_ssize_t[:, ::1] samples1,  # IN (o1, k1)
    const Py_ssize_t[:, ::1] outside,  # IN (windows along the last axis that do not lie inside x, k2)
    Py_ssize_t first_inside,  # the first window along the last axis that lies inside x
    Py_ssize_t stop_inside,  # the one after the last
    real_t[::1] columns,  # OUT (n * o0 * o1 * o2 * k0 * k1 * k2 * c,)
    Py_ssize_t piece,  # windows in a piece of a row
    const real_t[::1] zeros,  # IN, read in place of a row outside x: as many numbers, and OVERREAD
    Py_ssize_t[:, ::1] pointers,  # (threads, k0 * k1 * (k2 + 1)), memory
    int n_threads,
):
    """Write all windows of `x` to `columns`."""
    cdef Windows windows = make_windows(axes, x.shape[4], piece)
    windows.n_pieces = ceil_div(windows.n_windows[2], piece)
    cdef Py_ssize_t task, n_tasks = x.shape[0] * windows.n_windows[0] * windows.n_windows[1] * windows.n_pieces
    cdef const real_t *start = &x[0, 0, 0, 0, 0]
    for task in prange(n_tasks, nogil=True, schedule="static", num_threads=n_threads):
        unfold_piece(
            &windows, task, start, start + x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3] * x.shape[4],
            &samples0[0, 0], &samples1[0, 0], &outside[0, 0], first_inside, stop_inside, &zeros[0],
            <const real_t **>&pointers[threadid(), 0], &columns[0],
        )


cdef void fold_piece(const Windows *windows, Py_ssize_t task, const real_t *columns, real_t *x) noexcept nogil:
    """Write one piece of a row of x."""
    cdef Py_ssize_t n_channels = windows.n_channels
    cdef Py_ssize_t column = windows.n_taps[0] * windows.n_taps[1] * windows.n_taps[2] * n_channels
    cdef Py_ssize_t row_task = task // windows.n_pieces, begin = task % windows.n_pieces * windows.piece
    cdef Py_ssize_t i1 = row_task % windows.size[1], i0 = row_task // windows.size[1] % windows.size[0]
    cdef Py_ssize_t end = min(begin + windows.piece, windows.size[2])
    cdef Py_ssize_t k0, k1, k2, o0, o1, o2, first, stop, place, c
    cdef const real_t *source
    cdef real_t *target
    columns += row_task // (windows.size[1] * windows.size[0]) * (
        windows.n_windows[0] * windows.n_windows[1] * windows.n_windows[2] * column
    )
    x += row_task * windows.size[2] * n_channels
    memset(x + begin * n_channels, 0, (end - begin) * n_channels * sizeof(real_t))
    # Positions backwards, so that every pixel adds the windows from first to last.
    for k0 in range(windows.n_taps[0] - 1, -1, -1):
        place = i0 - windows.low[0] - k0 * windows.spacing[0]
        o0 = place // windows.step[0]
        if place < 0 or o0 * windows.step[0] != place or o0 >= windows.n_windows[0]:
            continue
        for k1 in range(windows.n_taps[1] - 1, -1, -1):
            place = i1 - windows.low[1] - k1 * windows.spacing[1]
            o1 = place // windows.step[1]
            if place < 0 or o1 * windows.step[1] != place or o1 >= windows.n_windows[1]:
                continue
            for k2 in range(windows.n_taps[2] - 1, -1, -1):
                place = windows.low[2] + k2 * windows.spacing[2]  # of this position of the first window
                first = max(ceil_div(begin - place, windows.step[2]), 0)
                stop = min(ceil_div(end - place, windows.step[2]), windows.n_windows[2])
                source = columns + (
                    ((o0 * windows.n_windows[1] + o1) * windows.n_windows[2] + first) * column
                    + ((k0 * windows.n_taps[1] + k1) * windows.n_taps[2] + k2) * n_channels
                )
                target = x + (place + first * windows.step[2]) * n_channels
                for o2 in range(stop - first):
                    for c in range(n_channels):
                        target[c] += source[c]
                    source += column
                    target += windows.step[2] * n_channels


def fold(
    const real_t[::1] columns,  # IN (n * o0 * o1 * o2 * k0 * k1 * k2 * c,)
    const Py_ssize_t[:, ::1] axes,  # IN (3, fields: size, windows, taps, low, step, spacing)
    real_t[:, :, :, :, ::1] x,  # OUT (n, i0, i1, i2, c)
    Py_ssize_t piece,  # pixels in a piece of a row
    int n_threads,
):
    """Write the sum of all windows to `x`; what lies outside of it is left out."""
    cdef Windows windows = make_windows(axes, x.shape[4], piece)
    windows.n_pieces = ceil_div(windows.size[2], piece)
    cdef Py_ssize_t task, n_tasks = x.shape[0] * windows.size[0] * windows.size[1] * windows.n_pieces
    for task in prange(n_tasks, nogil=True, schedule="static", num_threads=n_threads):
        fold_piece(&windows, task, &columns[0], &x[0, 0, 0, 0, 0])
