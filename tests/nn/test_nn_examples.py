"""The examples in the docstrings of nn and in docs/layers.md run."""

import doctest
import importlib
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import ostinato.nn

MODULES = [f"ostinato.nn.{module.name}" for module in pkgutil.iter_modules(ostinato.nn.__path__)]
GUIDE = Path(__file__).parents[2] / "docs" / "layers.md"


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    importlib.import_module(name)
    assert doctest.testmod(sys.modules[name]).failed == 0


def test_guide():
    """One session, from top to bottom."""
    text = "\n".join(re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.M | re.S))
    parsed = doctest.DocTestParser().get_doctest(text, {}, GUIDE.name, None, 0)
    assert len(parsed.examples) > 20
    assert doctest.DocTestRunner().run(parsed).failed == 0
