"""Let the tests see the package that is installed, wherever they are started, and say so clearly if there is none.

In a clone whose dconv was installed by `pip install .`, the folder dconv/ has no compiled kernels. `pytest` looks past
it, because only tests/ is put on the path; `python -m pytest` and `python -c` put the current folder first and would
import it. An editable install or `setup.py build_ext --inplace` leaves kernels there, and then it is what is tested.
"""

import importlib.util
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

if not any((ROOT / "dconv" / "_kernels" / f"_dispatch{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
    os.environ["PYTHONSAFEPATH"] = "1"  # nor may the processes that tests start look into the current folder
    if importlib.util.find_spec("dconv") is None:
        pytest.exit(f'dconv is not installed in {sys.prefix}; run there: pip install ".[test]"', returncode=1)

# A busy machine draws examples slowly, which is no fault of a test.
settings.register_profile("any speed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")
