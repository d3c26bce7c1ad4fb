"""Builds without OpenMP, and what setup.py decides for systems other than this one.

Builds take place in a copy of the sources, so that nothing in the checkout is touched.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from processes import output

import dconv
from dconv._kernels import _dispatch

ROOT = Path(__file__).resolve().parents[1]

pytest.importorskip("Cython", minversion="3.1", reason="building needs Cython")
pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools")
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="there are no sources to build")

needs_gcc = pytest.mark.skipif(
    os.name != "posix" or shutil.which("gcc") is None, reason="these builds use gcc, through scripts for sh"
)


def write_compiler(path, rule):
    """Write a script that is gcc, except that it fails where `rule`, lines of sh about an argument $a, says so."""
    path.write_text(f'#!/bin/sh\nall="$*"\nfor a in "$@"; do\n{rule}\ndone\nexec gcc "$@"\n')
    path.chmod(0o755)
    return str(path)


WITHOUT_OPENMP = 'case "$a" in *openmp*) echo "unknown option $a" >&2; exit 1;; esac'

# --- builds ---


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a copy of the sources, with nothing that is built."""
    folder = tmp_path_factory.mktemp("build") / "sources"
    built = shutil.ignore_patterns("*.so", "*.pyd", "_*.c", "__pycache__", ".ruff_cache")
    shutil.copytree(ROOT / "dconv", folder / "dconv", ignore=built)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module", params=["asked for", "missing"])
def serial(request, sources):
    """Return (why, path of a build without OpenMP, what the build printed)."""
    place = sources.parent / request.param.replace(" ", "_")
    place.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "DCONV_NO_OPENMP")}
    if request.param == "asked for":
        environment["DCONV_NO_OPENMP"] = "1"
    else:
        environment["CC"] = write_compiler(place / "cc", WITHOUT_OPENMP)
    command = [sys.executable, "setup.py", "build_ext", "--parallel", "2"]
    done = subprocess.run(
        [*command, "--build-lib", place / "lib", "--build-temp", place / "temp"],
        cwd=sources,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    shutil.copytree(
        sources / "dconv", place / "lib" / "dconv", ignore=shutil.ignore_patterns("*.c"), dirs_exist_ok=True
    )
    return request.param, place / "lib", done.stdout


def run_build(library, program, *arguments, **environment):
    """Return what a program prints that imports the dconv in `library`."""
    check = f"import dconv; assert dconv.__file__.startswith({str(library)!r}), dconv.__file__\n"
    environment = {"PYTHONPATH": str(library), "PYTHONSAFEPATH": "1", **environment}  # and not the current folder
    return output(check + program, *arguments, **environment)


@needs_gcc
@pytest.mark.slow
def test_message_says_what_to_do(serial):
    why, _, printed = serial
    assert ("dconv: the compiler built no working OpenMP program" in printed) == (why == "missing")
    for remedy in ("libgomp1", "brew install libomp", "DCONV_NO_OPENMP=1"):
        assert (remedy in printed) == (why == "missing")


@needs_gcc
@pytest.mark.slow
def test_build_says_that_it_is_serial(serial):
    printed = run_build(serial[1], "dconv.show_config()")
    assert "OpenMP:               no, kernels run on one thread" in printed
    assert f"CPU levels built:     {', '.join(_dispatch.built_levels())}" in printed
    program = "from dconv._kernels._dispatch import *; print(HAS_OPENMP, max_threads())"
    assert run_build(serial[1], program) == "False 1"


@needs_gcc
@pytest.mark.slow
def test_threads_of_a_serial_build(serial):
    """Kernels run on one thread, tasks of estimators on as many as elsewhere."""
    program = "from dconv._threads import *; print(effective_n_threads(4), effective_n_jobs(), effective_n_jobs(3))"
    assert run_build(serial[1], program, OMP_NUM_THREADS="2") == "1 2 3"


CONVOLVE = """
import sys
import numpy as np

arrays = np.load(sys.argv[1])
x, weight, depthwise = arrays["x"], arrays["weight"], arrays["depthwise"]
np.savez(
    sys.argv[2],
    dense=dconv.conv(x, weight, arrays["bias"], padding="same", dilation=3, padding_mode="reflect", n_threads=4),
    doubles=dconv.conv(x.astype(float), weight, stride=2, n_threads=4),
    few=dconv.conv(x, weight[:2], dilation=2, n_threads=4),
    depthwise=dconv.conv(x, depthwise, groups=16, padding=1, n_threads=4),
    features=dconv.AtrousFeatures(3, n_jobs=2).fit_transform(x[0, ..., 0]),
)
"""


@needs_gcc
@pytest.mark.slow
@pytest.mark.parametrize("level", _dispatch.supported_levels())
def test_serial_build_computes_the_same_bits(serial, level, tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"x": (1, 150, 160, 16), "weight": (20, 3, 3, 16), "bias": (20,), "depthwise": (16, 3, 3, 1)}
    np.savez(tmp_path / "in.npz", **{name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()})
    output("import dconv\n" + CONVOLVE, tmp_path / "in.npz", tmp_path / "tested.npz", DCONV_CPU=level)
    run_build(serial[1], CONVOLVE, tmp_path / "in.npz", tmp_path / "serial.npz", DCONV_CPU=level)
    with np.load(tmp_path / "tested.npz") as tested, np.load(tmp_path / "serial.npz") as serial_results:
        assert sorted(tested) == sorted(serial_results) == ["dense", "depthwise", "doubles", "features", "few"]
        for name in tested:
            np.testing.assert_array_equal(serial_results[name], tested[name], err_msg=name)


# --- setup.py's decisions ---


@pytest.fixture
def load_setup(monkeypatch):
    """Return a function that executes setup.py as on `system`, without building anything."""

    def load(system=sys.platform):
        monkeypatch.setattr("setuptools.setup", lambda **_: None)
        monkeypatch.setattr("Cython.Build.cythonize", lambda *_, **__: [])
        monkeypatch.chdir(ROOT)
        spec = importlib.util.spec_from_file_location("dconv_setup", ROOT / "setup.py")
        module = importlib.util.module_from_spec(spec)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", system)
            patch.setattr(sys, "version", "3.11 [MSC v.1940 64 bit (AMD64)]" if system == "win32" else sys.version)
            spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "platform", system)
        return module

    for name in ("ARCHFLAGS", "_PYTHON_HOST_PLATFORM", "DCONV_NO_OPENMP", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    yield load
    monkeypatch.undo()  # before pytest goes on in what it takes for another system


MACHINES = [
    # system, platform tag, ARCHFLAGS, machine that builds, machine that is built for
    ("linux", "linux-x86_64", "", "x86_64", "x86_64"),
    ("linux", "linux-aarch64", "", "aarch64", "arm64"),
    ("linux", "linux-riscv64", "", "riscv64", "riscv64"),
    ("win32", "win-amd64", "", "AMD64", "x86_64"),
    ("win32", "win-arm64", "", "ARM64", "arm64"),
    ("darwin", "macosx-11.0-arm64", "", "arm64", "arm64"),
    ("darwin", "macosx-11.0-arm64", "-arch arm64", "x86_64", "arm64"),
    ("darwin", "macosx-10.13-x86_64", "-arch x86_64", "arm64", "x86_64"),
    ("darwin", "macosx-10.13-universal2", "", "arm64", "several"),
    ("darwin", "macosx-10.13-universal2", "-arch arm64 -arch x86_64", "arm64", "several"),
    ("darwin", "macosx-10.13-universal2", "-arch x86_64", "x86_64", "x86_64"),
    ("darwin", "macosx-11.0-arm64", "-arch x86_64", "arm64", "x86_64"),
]


@pytest.mark.parametrize(("system", "tag", "flags", "machine", "expected"), MACHINES)
def test_machine_and_levels(load_setup, monkeypatch, system, tag, flags, machine, expected):
    setup = load_setup(system)
    monkeypatch.setattr("sysconfig.get_platform", lambda: tag)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setenv("ARCHFLAGS", flags)
    assert setup.target_machine() == expected
    levels = {name: vector_bytes for name, vector_bytes, _ in setup.cpu_levels()}
    vectors = [0, 0, 0, 0] if system == "win32" else [0, 16, 32, 64]
    names = ["plain", "baseline", "avx2", "avx512"][: 4 if expected == "x86_64" else 2]
    assert levels == dict(zip(names, vectors, strict=False))


def test_flags_are_those_of_the_compiler(load_setup):
    setup = load_setup("win32")
    flags = [*setup.COMMON_FLAGS, *(flag for _, _, flags in setup.cpu_levels() for flag in flags)]
    assert all(flag.startswith("/") for flag in flags)
    assert {"/std:c11", "/fp:precise"} <= set(flags)
    assert setup.openmp_candidates() == [(["/openmp"], [])]
    for system in ("linux", "darwin"):
        setup = load_setup(system)
        assert {"-std=c11", "-ffp-contract=fast"} <= set(setup.COMMON_FLAGS)
        assert not any("fast-math" in flag for flag in setup.COMMON_FLAGS)
    assert setup.openmp_candidates()[0] == (["-Xpreprocessor", "-fopenmp"], ["-lomp"])


def test_openmp_can_be_declined(load_setup, monkeypatch):
    setup = load_setup()
    assert setup.openmp_candidates() != []
    monkeypatch.setenv("DCONV_NO_OPENMP", "1")
    assert setup.openmp_candidates() == []


def test_a_level_is_compiled_again_only_if_there_is_something_new(load_setup, tmp_path):
    """As setuptools does it for extensions: building twice, as pip does with extras, takes no second minute."""
    setup, made = load_setup(), tmp_path / "microkernel.o"
    compiled = []

    def compile_sources(sources, output_dir, **options):
        compiled.append(output_dir)
        made.write_text("object")
        return [str(made)]

    compiler = SimpleNamespace(object_filenames=lambda sources, output_dir: [str(made)], compile=compile_sources)
    build = SimpleNamespace(force=False, build_temp=str(tmp_path), compiler=compiler)
    for force, age, expected in ((False, None, 1), (False, None, 1), (False, 0, 2), (True, None, 3)):
        if age is not None:
            os.utime(made, (age, age))
        build.force = force
        assert setup.BuildExt.compile_level(build, setup.cpu_levels()[1]) == [str(made)]
        assert len(compiled) == expected
    assert compiled[0] == str(tmp_path / "baseline")


@needs_gcc
@pytest.mark.skipif(not (ROOT / ".ci" / "gcc").exists(), reason="there is no continuous integration here")
def test_the_compiler_of_continuous_integration_remembers(tmp_path):
    """And compiles anew what has other options, or other headers."""
    known, log, header, source = (tmp_path / name for name in ("known", "log", "answer.h", "program.c"))
    known.mkdir()
    gcc = os.environ.get("REAL_GCC", shutil.which("gcc"))  # within that very run the first gcc is the wrapper itself
    (tmp_path / "cc").write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {gcc} "$@"\n')
    (tmp_path / "cc").chmod(0o755)
    source.write_text('#include "answer.h"\nint main(void) { return ANSWER + MORE; }\n')
    environment = {**os.environ, "REAL_GCC": str(tmp_path / "cc"), "COMPILED": str(known)}

    def answer(number, more):
        header.write_text(f"#define ANSWER {number}\n")
        wrapper, made = str(ROOT / ".ci" / "gcc"), str(tmp_path / "program.o")
        subprocess.run([wrapper, f"-DMORE={more}", "-c", str(source), "-o", made], env=environment, check=True)
        subprocess.run([wrapper, made, "-o", str(tmp_path / "program")], env=environment, check=True)
        return subprocess.run([tmp_path / "program"], check=False).returncode

    assert [answer(3, 1), answer(3, 1), answer(3, 2), answer(5, 1), answer(3, 1)] == [4, 4, 5, 6, 4]
    assert sum(" -c " in line for line in log.read_text().splitlines()) == 3
    source.write_text("no program")
    broken = [str(ROOT / ".ci" / "gcc"), "-c", str(source), "-o", str(tmp_path / "program.o")]
    assert subprocess.run(broken, env=environment, capture_output=True, check=False).returncode != 0


def probe(setup):
    """Return the OpenMP flags that setup.py finds with the compiler in CC."""
    from setuptools import Distribution

    command = setup.BuildExt(Distribution({"name": "probe", "ext_modules": []}))
    command.finalize_options()
    command.extensions = []
    flags = []
    command.build_extensions = lambda: flags.append(command.find_openmp())
    command.extensions = [object()]  # `run` sets the compiler up only where there is something to build
    command.run()
    return flags[0]


@needs_gcc
@pytest.mark.skipif(not _dispatch.HAS_OPENMP, reason="this build found no OpenMP")
def test_openmp_is_looked_for_with_the_users_linker_flags(load_setup, monkeypatch, tmp_path):
    """libomp of Homebrew lies where LDFLAGS says."""
    needs_flag = 'case "$all" in *-c*) ;; *-L/of/libomp*) ;; *) exit 1;; esac'
    monkeypatch.setenv("CC", write_compiler(tmp_path / "cc", needs_flag))
    assert probe(load_setup()) == ([], [])
    monkeypatch.setenv("LDFLAGS", "-L/of/libomp")
    assert probe(load_setup())[0] == ["-fopenmp"]


@needs_gcc
@pytest.mark.skipif(not _dispatch.HAS_OPENMP, reason="this build found no OpenMP")
def test_openmp_that_does_not_run_is_not_taken(load_setup, monkeypatch, tmp_path, capfd):
    """A library that is found when linking can be missing when the program runs."""
    fails = tmp_path / "fails.c"
    fails.write_text("int main(void) { return 1; }")
    link = f'case "$all" in *-c*) ;; *) exec gcc {fails} -o "$(echo "$all" | sed "s/.*-o \\([^ ]*\\).*/\\1/")";; esac'
    monkeypatch.setenv("CC", write_compiler(tmp_path / "cc", link))
    assert probe(load_setup()) == ([], [])
    assert "DCONV_NO_OPENMP=1" in capfd.readouterr().err


def test_version_is_one():
    """It stands in the package and in pyproject.toml."""
    assert f'\nversion = "{dconv.__version__}"\n' in (ROOT / "pyproject.toml").read_text("utf-8")
