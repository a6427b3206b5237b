"""What only a run shows, for the documentation's site: an extension of griffe, which reads sources.

`hyperparameters.declare` makes the defaults of fields, and `hyperparameters.documented` a part of
docstrings.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

MADE = re.compile(r"declare\(|[A-Z]\w*\.\w+$|[A-Z_]+$")


def made(cls: griffe.Object) -> Any:
    """The class itself."""
    return getattr(importlib.import_module(cls.module.path), cls.name)


class Docstrings(griffe.Extension):
    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Show the defaults of a dataclass, not the expressions that make them."""
        if "dataclass" not in cls.labels or "__init__" not in cls.members:
            return
        for parameter in cls.members["__init__"].parameters:
            if MADE.match(str(parameter.default)):
                default = inspect.signature(made(cls)).parameters[parameter.name].default
                parameter.default = repr(default)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        text = obj.docstring.value
        if obj.is_class and "{hyperparameters}" in text:
            text = inspect.getdoc(made(obj)) or ""
        # Griffe shows as code what follows "Examples:", and only that.
        text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
        text = re.sub(r"^Example: (.+)$", r"Examples:\n    \1\n", text, flags=re.MULTILINE)
        obj.docstring.value = text
