"""What built wheels weigh, and what is in them.

    python scripts/wheel.py dist/*.whl

It ends with 1 if a wheel is larger than docs/datasets.md promises, or something is missing.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

PACKAGES = Path(__file__).parents[1] / "packages"
# The name of a distribution in its wheel's → the most bytes, what is there, what must not be.
EXPECTED: dict[str, tuple[int, list[str], list[str]]] = {
    "ostinato": (5_000_000, ["ostinato/__init__.py", "ostinato/_native."], ["datasets/", "cli/"]),
    "ostinato_learn": (2_000_000, ["ostinato_learn/cli/app.py"], [".so"]),
    "ostinato_datasets": (
        14_000_000,
        [f"ostinato_datasets/files/{name}/" for name in ("austen", "mnist", "vowels")],
        [".so"],
    ),
}


def problems(wheel: Path) -> list[str]:
    """What is too large, is not there, or should not be there."""
    most, wanted, unwanted = EXPECTED[wheel.name.partition("-")[0]]
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    found = [f"there is no {n}" for n in wanted if not any(each.startswith(n) for each in names)]
    # A build leaves out what .gitignore names, also where it is a folder of the sources.
    sources = PACKAGES / wheel.name.partition("-")[0].replace("_", "-") / "src"
    modules = {each.relative_to(sources).as_posix() for each in sources.rglob("*.py")}
    found += [f"there is no {each}" for each in sorted(modules - set(names))]
    # A build beside the sources, of another Python, would be packed as well.
    engines = [each for each in names if each.startswith("ostinato/_native.") and ".so" in each]
    if len(engines) > 1:
        found.append(f"there are several engines: {', '.join(engines)}")
    found += [f"{each} does not belong here" for each in names if any(u in each for u in unwanted)]
    if (size := wheel.stat().st_size) > most:
        found.append(f"{size:,} bytes; wanted at most {most:,}")
    return found


def main(wheels: list[str]) -> int:
    if not wheels:
        print("usage: python scripts/wheel.py dist/*.whl", file=sys.stderr)
        return 2
    found = 0
    for wheel in map(Path, wheels):
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        for problem in problems(wheel):
            print(f"  {problem}")
            found = 1
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
