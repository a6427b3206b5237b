"""A pytest plugin: a test suite of another package, with its modules and functions accelerated.

    python -m pytest -p accelerated SUITE

Each module goes through `accelerate(loops=True)` when it is first called, and each test function
through `loop(calls=True)`, so that the functions that it calls run their loops natively, too.
"""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch

import ostinato
from ostinato.loops.functions import loops_in
from ostinato.loops.modules import callers_of
from ostinato.loops.running.site import Site

_plain_call = torch.nn.Module.__call__
_sites: dict[int, Site] = {}  # with the sites, so that no id is that of another one
_modules: list[torch.nn.Module] = []


def _accelerated_call(self: torch.nn.Module, *arguments: Any, **named: Any) -> Any:
    if not callers_of(self):
        ostinato.accelerate(self, loops=True)
        _modules.append(self)
    return _plain_call(self, *arguments, **named)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Run a test below a caller, and count the loops that it ran."""
    function = pyfuncitem.obj
    if isinstance(function, types.MethodType):
        fast = ostinato.loop(function.__func__, calls=True)
        pyfuncitem.obj = types.MethodType(fast, function.__self__)
    else:
        fast = pyfuncitem.obj = ostinato.loop(function, calls=True)
    torch.nn.Module.__call__ = _accelerated_call  # type: ignore[method-assign]
    try:
        return (yield)
    finally:
        torch.nn.Module.__call__ = _plain_call  # type: ignore[method-assign]
        callers = [caller for module in _modules for caller in callers_of(module)]
        found = [*loops_in(fast), *[site for caller in callers for site in caller]]
        _sites.update({id(site): site for site in found if site.native is not None})
        _modules.clear()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many loops ran, by their places in the text."""
    native = {(s.file, s.source.line) for s in _sites.values() if s.been_native}
    over = {(s.file, s.source.line) for s in _sites.values() if s.over_tensors}
    terminalreporter.write_line(f"ostinato: {len(native)} loops native of {len(over | native)}")
