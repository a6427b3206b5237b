"""The program on the page docs/export.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from c_examples import STRICT, checked_run, needs_gcc
from onnx_models import classifier

from ostinato.engine import native
from ostinato.export.c import export_c

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


@needs_gcc
@pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine")
def test_the_program_on_the_page_runs(tmp_path):
    export_c(classifier(F=3, C=4), tmp_path / "gesture.c")
    (program,) = re.findall(r"```c\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "main.c").write_text(program)
    checked_run("gcc", *STRICT, "main.c", "gesture.c", "-o", "main", "-lm", cwd=tmp_path)
    assert re.fullmatch(r"0\.\d{3}\n", checked_run("./main", cwd=tmp_path))
