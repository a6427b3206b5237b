"""The examples in the docstrings of data and datasets, and in docs/datasets.md, run."""

import doctest
import importlib
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import ostinato.data
import ostinato.datasets

MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (ostinato.data, ostinato.datasets)
    for module in pkgutil.iter_modules(package.__path__)
]
GUIDE = Path(__file__).parents[2] / "docs" / "datasets.md"


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    importlib.import_module(name)
    assert doctest.testmod(sys.modules[name]).failed == 0  # a function may hide its module's name


@pytest.mark.parametrize("name", ["data.Batches", "data.Ragged", "data.as_sequences", "data.read",
                                  "data.Examples", "data.Roles", "data.Preparation",
                                  "data.read_examples", "data.stream_examples",
                                  "data.store_examples", "data.read_documents", "data.read_conll",
                                  "datasets.mnist", "datasets.vowels", "datasets.austen",
                                  "datasets.read_idx"])  # fmt: skip
def test_every_public_name_has_an_example(name):
    package, attribute = name.split(".")
    documented = getattr(importlib.import_module(f"ostinato.{package}"), attribute)
    assert ">>>" in documented.__doc__


def test_guide():
    examples = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) >= 2
    for i, example in enumerate(examples):
        parsed = doctest.DocTestParser().get_doctest(example, {}, f"{GUIDE.name}[{i}]", None, 0)
        assert parsed.examples
        assert doctest.DocTestRunner().run(parsed).failed == 0
