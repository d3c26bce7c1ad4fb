"""How many threads, in which process, at which CPU level.

What happens once per process (OpenMP's start, the choice of the level, a fork) is tested in processes of its own.
"""

import importlib.metadata
import importlib.util
import multiprocessing
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from images import BANK, make_images
from processes import output, start
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits

import dconv
from dconv import _threads
from dconv._kernels import _dispatch

needs_openmp = pytest.mark.skipif(not _dispatch.HAS_OPENMP, reason="this build has no OpenMP")
needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork processes"
)
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")

# The convolution is large enough for `dconv.conv` to use every thread that it may.
SETUP = """
import os
import numpy as np
import dconv
from dconv import _threads

rng = np.random.default_rng(0)
x = rng.normal(size=(1, 300, 300, 8)).astype(np.float32)
weight = rng.normal(size=(16, 3, 3, 8)).astype(np.float32)

def work(n_threads=None):
    return dconv.conv(x, weight, padding=4, dilation=4, padding_mode="reflect", n_threads=n_threads)
"""

TORCH = """
import torch
torch.set_num_threads(2)
torch.nn.functional.conv2d(torch.ones(1, 8, 200, 200), torch.ones(16, 8, 3, 3))
"""
PARENTS = [
    pytest.param("", id="dconv alone"),
    pytest.param(
        TORCH,
        id="torch in the parent",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (pip install dconv[peers])"
        ),
    ),
]


# --- the rules of n_threads and n_jobs ---


def test_none_is_the_default():
    assert _threads.effective_n_threads() == (_threads.default_n_threads() if _dispatch.HAS_OPENMP else 1)
    assert _threads.effective_n_jobs() == _threads.default_n_threads() >= 1


@needs_openmp
@pytest.mark.parametrize("count", [1, 2, 7, np.int64(3)])
def test_n_threads_is_taken_as_it_is(count):
    assert _threads.effective_n_threads(count) == count
    assert type(_threads.effective_n_threads(count)) is int


def test_negative_n_jobs_count_from_the_default():
    default = _threads.default_n_threads()
    assert [_threads.effective_n_jobs(count) for count in (1, 5, np.int32(2))] == [1, 5, 2]
    assert _threads.effective_n_jobs(-1) == default
    assert _threads.effective_n_jobs(-2) == max(1, default - 1)
    assert _threads.effective_n_jobs(-default - 5) == 1


@pytest.mark.parametrize("count", [True, 1.0, "2", [2]])
def test_counts_are_ints(count):
    with pytest.raises(TypeError, match="n_threads must be None or an int"):
        _threads.effective_n_threads(count)
    with pytest.raises(TypeError, match="n_jobs must be None or an int"):
        _threads.effective_n_jobs(count)


def test_counts_out_of_range():
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        _threads.effective_n_jobs(0)
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"n_threads must be at least 1, got {count}"):
            _threads.effective_n_threads(count)


def test_public_calls_refuse_bad_counts():
    x, weight = np.ones((1, 5, 5, 1)), np.ones((1, 3, 3, 1))
    with pytest.raises(ValueError, match="n_threads must be at least 1, got 0"):
        dconv.conv(x, weight, n_threads=0)
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        dconv.AtrousFeatures(1, n_jobs=0).fit(x[0, ..., 0])
    with pytest.raises(TypeError, match=r"n_jobs must be None or an int, got 1\.5"):
        dconv.DilatedConv(weight, n_jobs=1.5).fit(x[0, ..., 0])
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        dconv.PixelClassifier(n_jobs=0).fit(x[0, ..., 0], np.eye(5, dtype=int))


# --- tasks ---


@pytest.mark.parametrize("n_jobs", [1, 3, 50])
def test_tasks_all_run_once(n_jobs):
    seen = []
    _threads.run_tasks(seen.append, iter(range(20)), n_jobs)
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("error", [IndexError, KeyboardInterrupt])
def test_errors_of_tasks_are_not_those_of_their_queue(n_jobs, error):
    def work(number):
        raise error(f"task {number}")

    with pytest.raises(error, match="task 0"):
        _threads.run_tasks(work, range(1), n_jobs)
    with pytest.raises(error, match="task"):
        _threads.run_tasks(work, range(10), n_jobs)


def test_tasks_run_side_by_side():
    barrier = threading.Barrier(3, timeout=60)  # breaks unless three tasks wait at it together
    _threads.run_tasks(lambda _: barrier.wait(), range(6), 3)
    assert not barrier.broken


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_first_error_cancels_what_has_not_started(n_jobs):
    started = []

    def work(number):
        started.append(number)
        if number == 0:
            raise RuntimeError("the first task")
        time.sleep(0.01)

    with pytest.raises(RuntimeError, match="the first task"):
        _threads.run_tasks(work, range(1000), n_jobs)
    assert len(started) < 1000


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_estimators_run_tasks_on_n_jobs_threads(monkeypatch, n_jobs):
    pools = []

    def record(n_threads):
        pools.append(n_threads)
        return ThreadPoolExecutor(n_threads)

    monkeypatch.setattr(_threads, "ThreadPoolExecutor", record)
    X, y = make_images()  # a task for each of four images, at least
    features = dconv.AtrousFeatures(2, n_jobs=n_jobs).fit(X)
    segmenter = dconv.PixelClassifier(BANK, LinearDiscriminantAnalysis(), n_jobs=n_jobs)
    calls = {
        "transform": lambda: features.transform(X),
        "fit": lambda: segmenter.fit(X, y),
        "predict": lambda: segmenter.predict(X),
        "predict_proba": lambda: segmenter.predict_proba(X),
        "decision_function": lambda: segmenter.decision_function(X),
        "score": lambda: segmenter.score(X, y),
    }
    for name, call in calls.items():
        pools.clear()
        call()
        assert pools == ([n_jobs] if n_jobs > 1 else []), name


# --- limits from outside ---


def test_default_is_the_physical_cores():
    cores = joblib.cpu_count(only_physical_cores=True)
    assert output(SETUP + "print(_threads.default_n_threads())") == str(cores)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_default_respects_affinity():
    pin = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert output(pin + SETUP + "print(_threads.default_n_threads())") == "1"


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("3", 3), ("2,4", 2)])
def test_environment_is_respected(value, expected):
    program = SETUP + "print(_threads.default_n_threads(), *map(_threads.effective_n_jobs, (None, -1)))"
    assert output(program, OMP_NUM_THREADS=value) == f"{expected} {expected} {expected}"


def test_environment_set_after_the_import_is_respected():
    """OpenMP itself has read it by then."""
    program = SETUP + "os.environ['OMP_NUM_THREADS'] = '1'; print(_threads.default_n_threads())"
    assert output(program) == "1"


@pytest.mark.parametrize("value", ["many", "0", "-2", "", " ,4"])
def test_nonsense_in_the_environment_is_ignored(value, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    expected = _threads.default_n_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert _threads.default_n_threads() == expected


@needs_openmp
def test_threadpoolctl_limit_is_respected_and_ends():
    before = _threads.default_n_threads()
    with threadpool_limits(1):
        assert _threads.default_n_threads() == _threads.effective_n_jobs() == _threads.effective_n_jobs(-1) == 1
    assert _threads.default_n_threads() == before


COUNT = """
def started(call):
    "Return how many threads of this process a call leaves behind: OpenMP keeps its team."
    before = len(os.listdir("/proc/self/task"))
    call()
    return len(os.listdir("/proc/self/task")) - before
"""


@needs_openmp
@needs_proc
@pytest.mark.parametrize(
    ("call", "environment", "expected"),
    [
        ("work(4)", {}, 3),
        ("work(1)", {"OMP_NUM_THREADS": "4"}, 0),
        ("work()", {"OMP_NUM_THREADS": "4"}, 3),
        ("work()", {"OMP_NUM_THREADS": "1"}, 0),
        ("[work(3), work(2), work(3)]", {}, 2),
        ("dconv.conv(x[:, :20, :20], weight, n_threads=4)", {}, 0),  # too small to share
    ],
)
def test_threads_of_the_system(call, environment, expected):
    assert output(SETUP + COUNT + f"print(started(lambda: {call}))", **environment) == str(expected)


@needs_openmp
@needs_proc
def test_threadpoolctl_limits_the_threads_of_the_system():
    program = "from threadpoolctl import threadpool_limits\n" + SETUP + COUNT
    assert output(program + "with threadpool_limits(1): print(started(work))", OMP_NUM_THREADS="4") == "0"


@needs_openmp
def test_n_threads_is_of_one_call():
    program = SETUP + "before = _threads.default_n_threads(); work(5); print(_threads.default_n_threads() == before)"
    assert output(program) == "True"


# --- other processes ---

FORKED = """
import multiprocessing

def child(n_threads):
    return _threads.default_n_threads(), _threads.effective_n_threads(n_threads), work(n_threads)

expected = work(2)
with multiprocessing.get_context("fork").Pool(2) as pool:
    results = pool.map(child, [2, None, 2, 1], chunksize=1)
for default, threads, result in results:
    assert default == threads == 1
    np.testing.assert_array_equal(result, expected)
np.testing.assert_array_equal(work(2), expected)
print("the children finished")
"""


@needs_fork
@pytest.mark.parametrize("parent", PARENTS)
def test_conv_in_forked_children(parent):
    assert output(parent + SETUP + FORKED) == "the children finished"


FORKED_ESTIMATORS = """
import multiprocessing
from sklearn.ensemble import ExtraTreesClassifier

image = x[0, ..., 0]
scribbles = np.zeros(image.shape, int)
scribbles[10:20, 10:60], scribbles[100:110, 10:60] = 1, 2
features = dconv.AtrousFeatures(2, n_jobs=2).fit(image)
model = dconv.PixelClassifier(features, ExtraTreesClassifier(4, random_state=0), n_jobs=2)

weights = [np.random.default_rng(0).normal(size=(32, 3, 3, channels)) for channels in (1, 32)]
net = dconv.AtrousBackbone(dconv.layers.from_arrays([(each, None) for each in weights]), n_jobs=2).fit(image)

def child(_):
    maps = net.transform(image), net.maps(image)["relu3"]
    return features.transform(image), fitted.predict(image), model.fit(image, scribbles).predict_proba(image), *maps

work(2)
fitted = model.fit(image, scribbles)
expected = features.transform(image), fitted.predict(image), fitted.predict_proba(image), *[net.transform(image)] * 2
with multiprocessing.get_context("fork").Pool(2) as pool:
    for results in pool.map(child, range(2), chunksize=1):
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, wanted)
print("the children finished")
"""


@needs_fork
@pytest.mark.parametrize("parent", PARENTS)
def test_estimators_in_forked_children(parent):
    assert output(parent + SETUP + FORKED_ESTIMATORS) == "the children finished"


FORKED_WHILE_FITTING = """
import multiprocessing, threading
from sklearn.linear_model import LogisticRegression

image = np.pad(np.ones((20, 40)), ((0, 20), (0, 0)))
model = dconv.PixelClassifier(dconv.AtrousFeatures(2), LogisticRegression())
fitting, forked = threading.Event(), threading.Event()

def fit():
    with _threads.scikit_learn_alone():
        fitting.set()
        forked.wait()

def child():
    labels = (image > 0).astype(int) + 1
    assert (model.fit(image, labels).predict(image) == labels).mean() > 0.9

thread = threading.Thread(target=fit)
thread.start()
fitting.wait()
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(60)
code = process.exitcode
process.kill()
forked.set()
thread.join()
assert code == 0, code
print("the child finished")
"""


@needs_fork
def test_fork_while_another_thread_fits():
    assert output(SETUP + FORKED_WHILE_FITTING) == "the child finished"


WORKERS = """
import joblib

def worker(n_threads):
    return _threads.default_n_threads(), _threads.effective_n_jobs(-1), work(n_threads)

expected = work(2)
for share in (None, 3):
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=share):
        results = joblib.Parallel()(joblib.delayed(worker)(n) for n in (None, 2, None, 1))
    for default, jobs, result in results:
        assert default == jobs == (share or max(1, joblib.cpu_count() // 2)), (share, default, jobs)
        np.testing.assert_array_equal(result, expected)
print("the workers finished")
"""


@pytest.mark.parametrize("parent", PARENTS)
def test_joblibs_workers_share_the_cores(parent):
    assert output(parent + SETUP + WORKERS) == "the workers finished"


THREADS = """
import joblib

def worker(_):
    return _threads.default_n_threads(), _threads.effective_n_jobs(-1), _threads.effective_n_jobs(2)

def workers(**options):
    return joblib.Parallel(**options)(joblib.delayed(worker)(n) for n in range(2))

alone = worker(0)
assert workers(n_jobs=2, backend="threading") == [(1, 1, 2)] * 2
assert workers(n_jobs=1) == [alone] * 2
with joblib.parallel_config(backend="threading", n_jobs=2):
    assert worker(0) == alone
    assert workers() == [(1, 1, 2)] * 2
print("the workers finished")
"""


def test_joblibs_threads_share_the_cores():
    assert output(SETUP + THREADS) == "the workers finished"


# --- CPU levels ---

LEVEL = "from dconv._kernels import _dispatch; print(_dispatch.active_level())"


def test_best_level_is_the_default():
    best = _dispatch.supported_levels()[-1]
    assert output(LEVEL) == output(LEVEL, DCONV_CPU="") == best


@pytest.mark.parametrize("level", _dispatch.supported_levels())
def test_level_is_forced(level):
    assert output(LEVEL, DCONV_CPU=level) == level


def refusal(name, reason, supported):
    choices = ", ".join(level for level in supported if level != "plain")
    return f"DCONV_CPU={name!r} asks for a level {reason}; choose one of: {choices}"


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx", " baseline", "baseline,avx2"])
def test_unknown_level_is_refused(name):
    message = refusal(name, "which is no CPU level of this build", _dispatch.supported_levels())
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        _dispatch.choose_level(name)


def test_unknown_level_stops_the_import():
    done = start("import dconv", DCONV_CPU="sse9")
    assert done.returncode != 0
    assert refusal("sse9", "which is no CPU level of this build", _dispatch.supported_levels()) in done.stderr


def test_level_that_a_cpu_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(_dispatch, "supported_levels", lambda: ("plain",))
    with pytest.raises(ValueError, match=re.escape(refusal("baseline", "which this CPU does not run", ()))):
        _dispatch.choose_level("baseline")
    assert _dispatch.choose_level(None) == "plain"


@pytest.mark.skipif(_dispatch.supported_levels() == _dispatch.built_levels(), reason="this CPU runs every level")
def test_level_that_this_cpu_lacks_stops_the_import():
    name = _dispatch.built_levels()[-1]
    done = start("import dconv", DCONV_CPU=name)
    assert done.returncode != 0
    assert refusal(name, "which this CPU does not run", _dispatch.supported_levels()) in done.stderr


def test_levels_start_with_those_that_every_cpu_runs():
    built, supported = _dispatch.built_levels(), _dispatch.supported_levels()
    assert built[: len(supported)] == supported
    assert supported[:2] == ("plain", "baseline")


def test_show_config(capsys):
    dconv.show_config()
    version, built, supported, active, openmp, threads = capsys.readouterr().out.splitlines()
    assert version == f"dconv {importlib.metadata.version('dconv')}"
    assert built.split(": ")[1].strip().split(", ") == list(_dispatch.built_levels())
    assert supported.split(": ")[1].strip().split(", ") == list(_dispatch.supported_levels())
    assert active.split()[2] == _dispatch.active_level()
    assert openmp.split()[1].rstrip(",") == ("yes" if _dispatch.HAS_OPENMP else "no")
    assert threads.split()[-1] == str(_threads.default_n_threads())


@pytest.mark.parametrize(("has", "says"), [(True, "yes"), (False, "no, kernels run on one thread")])
def test_show_config_tells_what_openmp_means(monkeypatch, capsys, has, says):
    monkeypatch.setattr(_dispatch, "HAS_OPENMP", has)
    dconv.show_config()
    assert f"\nOpenMP:               {says}\n" in capsys.readouterr().out
