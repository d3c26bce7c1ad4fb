"""Other libraries that answer as a fitted forest does: ONNX Runtime and the Extension for Scikit-learn of Intel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import machine  # noqa: F401  first: it mends the environment before NumPy is imported
import numpy as np

Call = Callable[[], np.ndarray]


def onnx_call(classifier: Any, x: np.ndarray, y: np.ndarray, n_threads: int) -> Call:
    """Return what asks ONNX Runtime, which is given the very trees of `classifier`, for the probabilities of rows."""
    import onnxruntime
    from skl2onnx import to_onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = to_onnx(classifier, x[:1], options={id(classifier): {"zipmap": False}})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(["probabilities"], {name: x})[0]


def intelex_call(classifier: Any, x: np.ndarray, y: np.ndarray, n_threads: int) -> Call:
    """Return what asks a forest of scikit-learn-intelex, which learns its own trees from `x` and `y`, likewise."""
    import sklearnex.ensemble

    forest = getattr(sklearnex.ensemble, type(classifier).__name__)(**classifier.get_params())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forest.fit(x[: len(y)], y)
    return lambda: forest.predict_proba(x)


PEERS: dict[str, tuple[str, Callable[..., Call]]] = {
    "onnxruntime": ("onnxruntime skl2onnx", onnx_call),
    "intelex": ("scikit-learn-intelex", intelex_call),
}


def peer_calls(classifier: Any, x: np.ndarray, y: np.ndarray, n_threads: int) -> tuple[dict[str, Call], dict[str, str]]:
    """Return {peer: callable} for all rows of `x`, and for those that cannot answer why; `y` is of the first rows."""
    calls, missing = {}, {}
    for name, (packages, make) in PEERS.items():
        try:
            calls[name] = make(classifier, x, y, n_threads)
        except ImportError:
            missing[name] = f"not installed: pip install {packages}"
    return calls, missing
