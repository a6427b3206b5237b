"""Print docs/api.md: every public name of the packages with the first line of its docstring.

python scripts/api_page.py > docs/api.md
"""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

import ostinato
import ostinato_learn

HEAD = """# API

Every public name, with the first sentence of its `help()`. This page is written by
`python scripts/api_page.py`.
"""


def first_line(name: str, value: Any) -> str:
    """The first sentence of a docstring, in one line of a table."""
    text = (inspect.getdoc(value) or "").split("\n\n")[0]
    if isinstance(value, (int, float, str, tuple, frozenset, dict)):
        return f"`{value!r}`" if len(repr(value)) < 60 else f"a {type(value).__name__}"
    assert text, f"{name} has no docstring"
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def table(prefix: str, module: ModuleType) -> str:
    rows = ["| name | |", "|---|---|"]
    for name in sorted(module.__all__, key=str.lower):
        value = getattr(module, name)
        if not inspect.ismodule(value) and name != "__version__":
            rows.append(f"| `{prefix}.{name}` | {first_line(f'{prefix}.{name}', value)} |")
    return "\n".join(rows)


def page() -> str:
    """The page as text."""
    modules = {}
    for package in (ostinato, ostinato_learn):
        modules[package.__name__] = package
        for name in package.__all__:
            if inspect.ismodule(getattr(package, name)):
                whole = f"{package.__name__}.{name}"
                modules[whole] = importlib.import_module(whole)
    parts = [HEAD]
    for name, module in modules.items():
        line = first_line(name, module)
        parts.append(f"## {name}\n\n{line}\n\n{table(name, module)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
