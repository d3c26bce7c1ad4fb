"""Files take the place of others when they are whole, and of nothing else."""

import contextlib
import os

import pytest

from dconv._whole_files import whole


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("before")
    with whole(path) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    with contextlib.suppress(ZeroDivisionError), whole(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "after"
    assert os.listdir(tmp_path) == ["a.png"]


def test_folders_are_not_replaced(tmp_path):
    """Nor is what they hold deleted."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "work").write_text("of a week")
    with pytest.raises(IsADirectoryError, match="is a folder, which is not replaced"), whole(tmp_path / "results"):
        pytest.fail("it was begun")
    assert (tmp_path / "results" / "work").read_text() == "of a week"


def test_folders_that_do_not_exist_are_told(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"a folder that does not exist: .*nowhere.m'"),
        whole(tmp_path / "nowhere" / "m"),
    ):
        pytest.fail("it was begun")
