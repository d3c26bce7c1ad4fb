"""The examples in docstrings run: in the package that is installed, which a checkout without kernels is not."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import dconv

MODULES = ["dconv", *(f"dconv.{module.name}" for module in pkgutil.iter_modules(dconv.__path__) if not module.ispkg)]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    failed, attempted = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
    assert attempted == len(re.findall(r"^ *>>> ", inspect.getsource(module), flags=re.M))  # none was overlooked


def test_public_names_have_examples():
    finder = doctest.DocTestFinder()
    modules = (dconv, dconv.distributed, dconv.filters, dconv.layers, dconv.metrics, dconv.predictors, dconv.shapes)
    public = {f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in module.__all__}
    # Named tuples are shown by the functions that return or take them.
    things = {name: thing for name, thing in public.items() if callable(thing) and not hasattr(thing, "_fields")}
    assert len(things) > 20
    assert [name for name, thing in things.items() if not any(test.examples for test in finder.find(thing))] == []


def test_parameters_and_errors_of_public_functions_are_documented():
    modules = (dconv, dconv.distributed, dconv.filters, dconv.layers, dconv.metrics, dconv.predictors, dconv.shapes)
    for thing in (getattr(module, name) for module in modules for name in module.__all__):
        kept = inspect.isfunction(thing) or (inspect.isclass(thing) and hasattr(thing, "get_params"))
        if not kept or not inspect.signature(thing).parameters:
            continue
        document, name = inspect.getdoc(thing), thing.__name__
        section = re.search(r"^Parameters\n-+\n(.*?)(?=^[A-Z][a-z ]+\n-{3,})", document, flags=re.M | re.S)
        heads = re.findall(r"^(\S.*?)(?: :.*)?$", section[1], flags=re.M)
        assert set(inspect.signature(thing).parameters) <= set(re.findall(r"\w+", " ".join(heads))), name
        if inspect.isfunction(thing):
            assert re.search(r"^Raises\n-+$", document, flags=re.M), name
