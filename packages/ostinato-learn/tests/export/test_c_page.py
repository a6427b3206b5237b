"""The programs on the page docs/export.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from c_examples import STRICT, checked_run, needs_gcc
from onnx_models import classifier

from ostinato.engine import native
from ostinato_learn.export.c import export_c

PAGE = Path(__file__).parents[4] / "docs" / "export.md"


PROGRAMS = {
    "gesture": (lambda: classifier(F=3, C=4), r"0\.\d{3}\n"),
}


@needs_gcc
@pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine")
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_on_the_page_run(name, tmp_path):
    make, says = PROGRAMS[name]
    export_c(make(), tmp_path / f"{name}.c")
    programs = re.findall(r"```c\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (program,) = [p for p in programs if f'"{name}.h"' in p]
    (tmp_path / "main.c").write_text(program)
    checked_run("gcc", *STRICT, "main.c", f"{name}.c", "-o", "main", "-lm", cwd=tmp_path)
    assert re.fullmatch(says, checked_run("./main", cwd=tmp_path))
