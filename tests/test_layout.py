"""The map in the README is the tree: it lists every module, and a module imports only from those above it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAP = re.findall(r"^      (\w+)(?:\.py|/) ", (ROOT / "README.md").read_text("utf-8"), flags=re.M)
MODULES = sorted(path.stem for path in (ROOT / "dconv").glob("*.py") if path.stem != "__init__")


def imported(module: str) -> set[str]:
    """Return the modules of dconv that a module imports when it is imported itself."""
    found = set()
    for node in ast.parse((ROOT / "dconv" / f"{module}.py").read_text("utf-8")).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {f"{name}.__init__".split(".")[1] for name in names if name.split(".")[0] == "dconv"}
    return found


def test_map_lists_every_module():
    assert sorted(MAP) == sorted([*MODULES, "_kernels"])


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_upwards(module):
    above = MAP[: MAP.index(module)]
    assert imported(module) <= set(above)
