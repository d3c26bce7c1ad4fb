"""How far two ways of adding up the same products may differ."""

import numpy as np


def term_scale(x, weight, bias=None):
    """Return a bound on the sum of the absolute values of what any output of a convolution adds up."""
    if np.size(x) == 0:
        return 0.0
    per_filter = np.abs(np.asarray(weight, np.float64)).sum(axis=tuple(range(1, np.ndim(weight))))
    largest = 0.0 if bias is None else float(np.max(np.abs(bias)))
    return float(np.max(np.abs(np.asarray(x, np.float64)))) * float(per_filter.max()) + largest


def assert_close(actual, expected, n_taps, scale):
    """Check that sums of `n_taps` products, and perhaps a bias, agree within what rounding in actual's dtype allows.

    Each of n + 1 roundings of a sum of n terms errs by half a unit in the last place of at most `scale`, the sum of
    the absolute terms (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Both sides may err.
    NaN and infinity must stand at the same places.
    """
    bound = (n_taps + 2) * float(np.finfo(actual.dtype).eps) * scale
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=0, atol=bound)
