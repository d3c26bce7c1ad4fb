"""The README's code runs as it stands, and its commands are there for CI to run."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.fixture(scope="module")
def names() -> dict:
    """Return what the README's Python code defines."""
    namespace: dict = {}
    for block in blocks("python"):
        exec(compile(block, str(README), "exec"), namespace)
    return namespace


def test_code_segments_the_image(names):
    labels = names["labels"]
    assert labels.shape == names["image"].shape
    assert set(np.unique(labels)) == {1, 2}
    coins, between = [(52, 222), (125, 270), (195, 150), (265, 160), (265, 355)], [(30, 20), (52, 300), (190, 310)]
    assert not any(names["scribbles"][place] for place in coins + between)
    assert [labels[place] for place in coins] == [2] * 5
    assert [labels[place] for place in between] == [1] * 3
    assert names["probabilities"].shape == (*labels.shape, 2)


def test_code_classifies_series(names):
    assert names["accuracy"] > 0.9


def test_commands_come_first():
    install_and_run, install_and_test = blocks("bash")[:2]
    assert "examples/plot_pixel_classifier.py" in install_and_run
    assert "pytest" in install_and_test
