"""The examples in docstrings run: in the package that is installed, which a checkout without kernels is not."""

import doctest
import importlib
import pkgutil

import pytest

import dconv

MODULES = ["dconv", *(f"dconv.{module.name}" for module in pkgutil.iter_modules(dconv.__path__) if not module.ispkg)]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_public_names_have_examples():
    finder = doctest.DocTestFinder()
    public = [getattr(dconv, name) for name in dconv.__all__ if callable(getattr(dconv, name))]
    assert all(any(test.examples for test in finder.find(thing)) for thing in public)
