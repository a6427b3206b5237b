"""The examples of docs/transforms.md with other people's packages, against the Python loop."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ostinato import _scan

PAGE = Path(__file__).parents[4] / "docs" / "transforms.md"
EXAMPLES = dict(re.findall(r"^```python\n# (\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S))
RESULTS = {"opacus": "per_sample", "torchopt": "meta", "curvlinops": "product"}


def test_each_is_here():
    assert EXAMPLES.keys() == RESULTS.keys()


@pytest.mark.packages
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", RESULTS)
def test_an_example(package: str, monkeypatch):
    pytest.importorskip(package)

    def result() -> torch.Tensor:
        torch.manual_seed(0)
        scope: dict[str, Any] = {}
        exec(compile(EXAMPLES[package], package, "exec"), scope)
        found: torch.Tensor = scope[RESULTS[package]]
        return found.detach()

    with monkeypatch.context() as by_the_loop:
        by_the_loop.setenv("OSTINATO_ENGINE", "eager")
        expected = result()
    monkeypatch.setattr(_scan, "eager_scan", None)
    torch.testing.assert_close(result(), expected, rtol=1e-4, atol=1e-5)
