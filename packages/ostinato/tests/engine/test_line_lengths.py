"""Lines of the engine are as short as `.clang-format` says, comments too, which it leaves alone."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_lines_of_the_engine():
    limit = re.search(r"^ColumnLimit: (\d+)$", (ROOT / ".clang-format").read_text(), re.MULTILINE)
    assert limit
    files = [p for p in (ROOT / "native").rglob("*") if p.suffix in (".h", ".cc", ".def")]
    assert len(files) > 80
    longer = [
        f"{path.relative_to(ROOT)}:{i}"
        for path in files
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > int(limit[1])
    ]
    assert longer == []
