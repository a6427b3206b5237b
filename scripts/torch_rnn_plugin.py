"""A pytest plugin: PyTorch's own tests with ostinato's recurrent layers in place of torch.nn's.

torch_rnn_tests.py uses it. To use it alone, in the folder `test` of PyTorch's sources:

    PYTHONPATH=…/scripts python -m pytest --noconftest -p torch_rnn_plugin --ostinato test_nn.py

With --ostinato the six classes are replaced before any test is imported. At the end the plugin
prints how many calls of the layers the native engine played: without such calls the tests would
prove nothing. --outcomes FILE writes the outcome of each test and the counts as JSON.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import ostinato
from ostinato import _scan
from ostinato.nn import cells, layers

CLASSES = ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"]
NAMESPACES = [torch.nn, torch.nn.modules, torch.nn.modules.rnn]
# A test has several phases; its outcome is the one of them that stands last here.
WORST_LAST = ["passed", "skipped", "xfailed", "failed"]

# Names that the tests of PyTorch 2.4 to 2.6 import from torch.testing, and that later versions of
# torch.testing have under other names.
HELPERS = "torch.testing._internal."
FORMER_NAMES = {
    (f"{HELPERS}common_utils", "skipIfMps"): lambda module: module.skipIfMPS,
    (f"{HELPERS}common_nn", "new_module_tests"): lambda module: module.get_new_module_tests(),
    (f"{HELPERS}common_cuda", "tf32_is_not_fp32"): lambda module: torch.cuda.is_tf32_supported,
    (f"{HELPERS}common_mkldnn", "bf32_on_and_off"): lambda module: module.reduced_f32_on_and_off,
}

outcomes: dict[str, str] = {}
calls: Counter[str] = Counter()  # forward calls of the layers, by what played them
_plays: Counter[str] = Counter()  # "scan": scans of layers; "engine": those that the engine played


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--ostinato", action="store_true", help="test ostinato's layers")
    parser.addoption("--outcomes", type=Path, metavar="FILE")


def pytest_configure(config: Any) -> None:
    if config.getoption("--ostinato"):
        count()
        for name in CLASSES:
            for namespace in NAMESPACES:
                setattr(namespace, name, getattr(ostinato.nn, name))
    for (module_name, name), former in FORMER_NAMES.items():
        module = importlib.import_module(module_name)
        if not hasattr(module, name):
            setattr(module, name, former(module))


def count() -> None:
    """Wrap every forward of ours to count what played it: the engine, scan's loop, or torch.nn."""
    cells.scan_layer = noted(cells.scan_layer, "scan")
    layers.scan_layer = noted(layers.scan_layer, "scan")
    _scan._by_the_engine = noted(_scan._by_the_engine, "engine")
    for name in CLASSES:
        cls = getattr(ostinato.nn, name)
        cls.forward = told(cls.forward)


def noted(f: Any, name: str) -> Any:
    """The function; its calls are counted in `_plays`."""

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = f(*args, **kwargs)
        _plays[name] += 1
        return result

    return wrapper


def told(forward: Any) -> Any:
    """The forward; its calls are counted in `calls`."""

    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = _plays.copy()
        result = forward(self, *args, **kwargs)
        n_scans = _plays["scan"] - before["scan"]
        if n_scans == 0:
            calls["torch"] += 1
        else:
            calls["engine" if _plays["engine"] - before["engine"] == n_scans else "loop"] += 1
        return result

    return wrapper


def pytest_runtest_logreport(report: Any) -> None:
    outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
    before = outcomes.get(report.nodeid, "passed")
    outcomes[report.nodeid] = max(before, outcome, key=WORST_LAST.index)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    if config.getoption("--ostinato"):
        terminalreporter.write_line(
            f"{calls.total()} calls of ostinato's layers: {calls['engine']} played by the native "
            f"engine, {calls['loop']} by scan's loop, {calls['torch']} by torch.nn"
        )
    path = config.getoption("--outcomes")
    if path is not None:
        text = json.dumps({"outcomes": outcomes, "calls": calls}, indent=1)
        path.write_text(text, encoding="utf-8")
