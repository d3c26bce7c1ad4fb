"""Build the Cython extensions; the micro-kernel once per CPU level. Everything else is in pyproject.toml."""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

KERNELS = Path("dconv", "_kernels")
MSVC = sys.platform == "win32" and "GCC" not in sys.version

# Contracting a*b + c into one rounding is wanted (twice the speed); reordering sums (-ffast-math) is not: every
# output adds its taps in one fixed order, so that tiles and thread counts cannot change a bit. Python's own flags ask
# for what debuggers read, a quarter of the time and most of the size; -g0 takes that back.
COMMON_FLAGS = (
    ["/O2", "/fp:precise", "/std:c11"]
    if MSVC
    else [
        *("-std=c11", "-O3", "-g0", "-ffp-contract=fast"),
        *("-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"),
    ]
)

# Processes that Cython starts would run this file again where they do not fork.
CYTHON_PROCESSES = (os.cpu_count() or 1) if sys.platform == "linux" and sys.version_info < (3, 14) else 0

OPENMP_PROBE = """
#include <omp.h>
int main(void) {
    int n = 0;
    #pragma omp parallel for num_threads(2) reduction(+ : n)
    for (int i = 0; i < 100; i++) n += omp_get_max_threads() > 0;
    return n == 100 ? 0 : 1;
}
"""

NO_OPENMP_MESSAGE = """
dconv: the compiler built no working OpenMP program, so the kernels will run on one thread.
  Linux:   install your compiler's OpenMP runtime (Debian: libgomp1; conda: llvm-openmp)
  macOS:   brew install libomp, then with P=$(brew --prefix libomp) set CPPFLAGS=-I$P/include LDFLAGS=-L$P/lib
  anyhow:  set DCONV_NO_OPENMP=1 to build without it and without this message
"""


def family(machine: str) -> str:
    """Return one name for a CPU family that systems name differently: Windows says AMD64, Linux aarch64."""
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(machine.lower(), machine.lower())


def target_machine() -> str:
    """Return the CPU family that the build is *for*: cross builds set it through the platform tag or, on macOS,
    ARCHFLAGS; "several" if it is for more than one.
    """
    tag = os.environ.get("_PYTHON_HOST_PLATFORM", sysconfig.get_platform()).lower()
    flags = os.environ.get("ARCHFLAGS", "") if sys.platform == "darwin" else ""
    named = flags if "-arch" in flags else tag
    if "universal2" in named or ("x86_64" in named and "arm64" in named):
        return "several"
    found = [name for name in ("arm64", "aarch64", "x86_64", "amd64") if name in named]
    return family(found[0] if found else platform.machine())


def cpu_levels() -> list[tuple[str, int, list[str]]]:
    """Return (name, bytes in a vector, compiler flags) of every level, slowest first.

    "plain" uses no vector extension: it is what compilers without them get, and it is built everywhere so that it
    is tested everywhere.
    """
    if MSVC:
        levels = [("plain", 0, []), ("baseline", 0, [])]
        extra = [("avx2", 0, ["/arch:AVX2"]), ("avx512", 0, ["/arch:AVX512"])]
    else:
        levels = [("plain", 0, []), ("baseline", 16, [])]
        extra = [
            ("avx2", 32, ["-mavx2", "-mfma"]),
            (
                "avx512",
                64,
                ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
            ),
        ]
    return levels + (extra if target_machine() == "x86_64" else [])


def openmp_candidates() -> list[tuple[list[str], list[str]]]:
    """Return (compile flags, link flags) to try, in order."""
    if os.environ.get("DCONV_NO_OPENMP"):
        return []
    if MSVC:
        return [(["/openmp"], [])]
    if sys.platform == "darwin":
        return [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), (["-fopenmp"], ["-fopenmp"])]
    return [(["-fopenmp"], ["-fopenmp"])]


class BuildExt(build_ext):
    """Find OpenMP by running a program that uses it, and link every CPU level of the micro-kernel into `_dispatch`."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()  # compilers run side by side: the build takes minutes

    def build_extensions(self):
        compile_flags, link_flags = self.find_openmp()
        for extension in self.extensions:
            extension.extra_compile_args += [*COMMON_FLAGS, *compile_flags]
            extension.extra_link_args += link_flags
        super().build_extensions()

    def find_openmp(self):
        """Return the first OpenMP flags whose program compiles, links and runs, else none."""
        for compile_flags, link_flags in openmp_candidates():
            if self.openmp_works(compile_flags, link_flags):
                return compile_flags, link_flags
        if not os.environ.get("DCONV_NO_OPENMP"):
            print(NO_OPENMP_MESSAGE, file=sys.stderr)
        return [], []

    def openmp_works(self, compile_flags, link_flags):
        # setuptools links programs, unlike extensions, without LDFLAGS: the way to libomp on macOS.
        search_flags = [] if MSVC else shlex.split(os.environ.get("LDFLAGS", ""))
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(OPENMP_PROBE)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=compile_flags)
                self.compiler.link_executable(
                    objects, "probe", output_dir=folder, extra_postargs=[*search_flags, *link_flags]
                )
                if target_machine() not in (family(platform.machine()), "several"):
                    return True  # a cross build cannot run what it builds
                subprocess.run([str(Path(folder, "probe" + (".exe" if MSVC else "")))], check=True, timeout=30)
            except Exception:  # every compiler fails in its own way; each means "no"
                return False
        return True

    def build_extension(self, ext):
        if ext.name.endswith("._dispatch"):
            with ThreadPoolExecutor(self.parallel) as pool:
                for objects in pool.map(self.compile_level, cpu_levels()):
                    ext.extra_objects += objects
            ext.depends.append(str(KERNELS / "microkernel.c"))
            ext.define_macros += [(f"DCONV_HAVE_{name.upper()}", "1") for name, _, _ in cpu_levels()]
        super().build_extension(ext)

    def compile_level(self, level):
        """Return the object files of the micro-kernel for one CPU level, which are made if there is something new."""
        name, vector_bytes, flags = level
        sources, folder = [str(KERNELS / "microkernel.c")], str(Path(self.build_temp, name))
        made = self.compiler.object_filenames(sources, output_dir=folder)
        seen = [*sources, *map(str, KERNELS.glob("*.h")), "setup.py"]
        if not self.force and not any(newer_group(seen, each) for each in made):
            return made
        return self.compiler.compile(
            sources,
            output_dir=folder,
            macros=[("DCONV_LEVEL", name), ("DCONV_VECTOR_BYTES", str(vector_bytes))],
            include_dirs=[str(KERNELS)],
            extra_postargs=[*COMMON_FLAGS, *flags],
            depends=[str(path) for path in KERNELS.glob("*.h")],
        )


setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=cythonize(
        [
            Extension(
                f"dconv._kernels.{path.stem}",
                [path.as_posix()],
                include_dirs=[KERNELS.as_posix(), np.get_include()],
                depends=[header.as_posix() for header in KERNELS.glob("*.h")],
            )
            for path in sorted(KERNELS.glob("*.pyx"))
        ],
        nthreads=CYTHON_PROCESSES,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": True,
        },
    ),
)
