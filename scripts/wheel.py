"""What a built wheel weighs: the code, and the data sets beside it.

    python -m build && python scripts/wheel.py dist/*.whl

It ends with 1 if a part is larger than docs/datasets.md promises, or something is missing.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

DATA = "ostinato/datasets/files/"
MOST = {"code": 5_000_000, "data sets": 14_000_000}  # bytes in the wheel, compressed
WANTED = ("ostinato/__init__.py", "ostinato/_native.", f"{DATA}mnist/", f"{DATA}vowels/",
          f"{DATA}austen/")  # fmt: skip


def sizes(wheel: Path) -> dict[str, int]:
    """The compressed bytes of each part."""
    found = dict.fromkeys(MOST, 0)
    with zipfile.ZipFile(wheel) as file:
        for entry in file.infolist():
            part = "data sets" if entry.filename.startswith(DATA) else "code"
            found[part] += entry.compress_size
    return found


def problems(wheel: Path) -> list[str]:
    """What is too large, or is not there."""
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    missing = [name for name in WANTED if not any(each.startswith(name) for each in names)]
    return [f"there is no {name}" for name in missing] + [
        f"{part}: {size:,} bytes; wanted at most {MOST[part]:,}"
        for part, size in sizes(wheel).items()
        if size > MOST[part]
    ]


def main(wheels: list[str]) -> int:
    if not wheels:
        print("usage: python scripts/wheel.py dist/*.whl", file=sys.stderr)
        return 2
    found = 0
    for wheel in map(Path, wheels):
        shown = ", ".join(f"{part} {size / 1e6:.1f} MB" for part, size in sizes(wheel).items())
        print(f"{wheel.name}: {shown}")
        for problem in problems(wheel):
            print(f"  {problem}")
            found = 1
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
