"""Builds by compilers without OpenMP: they succeed, and say so; what they build says so too, and runs on one thread."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import reference
from processes import output
from tolerance import assert_close, term_scale

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ["setup.py", "pyproject.toml", "README.md", "LICENSE"]
COMPILER = os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason=f"no setup.py in {ROOT}: not run from a checkout"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("Cython", "setuptools")),
        reason='what builds the package is not installed (pip install "Cython>=3.1" "setuptools>=77")',
    ),
    pytest.mark.skipif(
        os.name != "posix" or shutil.which(shlex.split(COMPILER)[0]) is None,
        reason="needs a compiler that a shell script can stand in for",
    ),
]

# Optimising is most of a compiler's work, and changes nothing here.
FAST = f"""#!/bin/sh
exec {COMPILER} "$@" -O0
"""
REFUSES = f"""#!/bin/sh
case " $* " in *" -fopenmp "*) echo "unknown option -fopenmp" >&2; exit 1 ;; esac
exec {COMPILER} "$@" -O0
"""
# As where libgomp can be linked with but is missing, or another one, when the program starts.
PROBE_FAILS = f"""#!/bin/sh
{COMPILER} "$@" -O0 || exit 1
for argument; do
    case "$previous $argument" in "-o "*/probe) printf '#!/bin/sh\\nexit 1\\n' > "$argument" ;; esac
    previous=$argument
done
"""
SAYS_SO = "built no working OpenMP program, so the kernels will run on one thread"

# The convolution is large enough for a build with OpenMP to use every thread that it may.
PROGRAM = """
import os, sys, threading
import numpy as np
import dconv

rng = np.random.default_rng(0)
x, weight = rng.normal(size=(1, 300, 300, 8)).astype("f4"), rng.normal(size=(16, 3, 3, 8)).astype("f4")
system = "/proc/self/task"
before = len(os.listdir(system)) if os.path.isdir(system) else None
one = dconv.conv(x, weight, dilation=2, n_threads=1)
four = dconv.conv(x, weight, dilation=2, n_threads=4)
assert before is None or len(os.listdir(system)) == before
assert np.array_equal(one, four)
small = dconv.conv(x[:, :9, :12], weight, dilation=2)
np.savez(sys.argv[1], x=x[:, :9, :12], weight=weight, out=small)

image, labels = x[0, ..., 0], np.zeros((300, 300), int)
labels[10:20], labels[30:40] = 1, 2
for n_jobs in (1, 2):  # estimators have Python's threads all the same
    assert dconv.PixelClassifier(n_jobs=n_jobs, random_state=0).fit(image, labels).predict(image).shape == image.shape
dconv.show_config()
print(dconv.__file__)
"""


def build(folder, compiler, **environment):
    """Build dconv in `folder` with a shell script as the compiler; return what the build printed."""
    script = folder / "compiler"
    script.write_text(compiler, "utf-8")
    script.chmod(0o755)
    for name in SOURCES:
        shutil.copy2(ROOT / name, folder)
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", ".*")
    shutil.copytree(ROOT / "dconv", folder / "dconv", ignore=ignored)
    inherited = {name: value for name, value in os.environ.items() if name != "DCONV_NO_OPENMP"}
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        env={**inherited, "CC": str(script), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("compiler", "environment", "says_so"),
    [
        pytest.param(FAST, {"DCONV_NO_OPENMP": "1"}, False, id="asked for without"),
        pytest.param(REFUSES, {}, True, id="compiler refuses"),
        pytest.param(PROBE_FAILS, {}, True, id="program does not run"),
    ],
)
def test_without_openmp(compiler, environment, says_so, tmp_path):
    printed = build(tmp_path, compiler, **environment)
    assert (SAYS_SO in printed) == says_so
    config = output(PROGRAM, tmp_path / "results.npz", PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1")
    assert config.endswith(str(tmp_path / "dconv" / "__init__.py"))
    assert re.search(r"^OpenMP: +no, kernels run on one thread$", config, flags=re.M)
    with np.load(tmp_path / "results.npz") as results:
        x, weight, out = results["x"], results["weight"], results["out"]
    expected = reference.conv(x, weight, stride=(1, 1), padding=((0, 0),) * 2, dilation=(2, 2))
    assert_close(out, expected, weight[0].size, term_scale(x, weight))
