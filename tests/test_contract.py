"""Runs every check of `contract.py` on every estimator, in one, two and three dimensions, grey and colour."""

import inspect

import pytest
from contract import CASES, CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(case, check, tmp_path):
    check(case, tmp_path) if "folder" in inspect.signature(check).parameters else check(case)
