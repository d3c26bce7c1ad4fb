"""Run a program in a fresh Python process, where threads, environment and CPU level start from nothing."""

import os
import signal
import subprocess
import sys

# What would decide the number of threads or the level, were it inherited from whoever runs the tests.
OURS = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "LOKY_MAX_CPU_COUNT", "DCONV_CPU", "PYTHONWARNINGS")


def start(program, *arguments, timeout=300, **environment):
    """Return the finished process of a Python program; kill it with all its children if it does not end in time.

    Output is decoded; `environment` is added to this process's own, less the variables above.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # the session of its own that it leads, and nothing else
            else:
                process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def output(program, *arguments, **options):
    """Return what a Python program prints; fail with its traceback if it does."""
    done = start(program, *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
