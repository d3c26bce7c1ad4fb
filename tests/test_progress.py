"""The progress bar: silent when it should be, counting from any thread, with tqdm and without."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dconv import _progress
from dconv._progress import progress_bar


@pytest.fixture(params=["tqdm", "line"])
def kind(request, monkeypatch):
    if request.param == "tqdm":
        pytest.importorskip("tqdm", reason="tqdm is not installed (pip install dconv[progress])")
    else:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # importing it fails
    return request.param


@pytest.mark.parametrize("verbose", [0, False])
def test_is_silent_unless_verbose(kind, verbose, monkeypatch, capsys):
    monkeypatch.setattr(_progress, "DELAY", 0)
    step = progress_bar("work", 2, verbose)
    step()
    step()
    assert capsys.readouterr() == ("", "")


def test_is_silent_for_what_is_soon_over(kind, capsys):
    step = progress_bar("work", 2, 1)
    step()
    step()
    assert capsys.readouterr() == ("", "")


def test_counts_the_steps_of_all_threads(kind, monkeypatch, capsys):
    monkeypatch.setattr(_progress, "DELAY", 0)
    step = progress_bar("work", 100, True)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: step(), range(100)))
    shown = "".join(capsys.readouterr())
    assert "work" in shown
    assert ("100/100" if kind == "tqdm" else "block 100 of 100") in shown
    assert shown.endswith("\n")  # the line is done with
