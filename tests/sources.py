"""Where the sources of the packages are, for tests that read them."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CORE = REPOSITORY / "packages" / "ostinato" / "src" / "ostinato"
LEARN = REPOSITORY / "packages" / "ostinato-learn" / "src" / "ostinato_learn"
DATASETS = REPOSITORY / "packages" / "ostinato-datasets" / "src" / "ostinato_datasets"
NATIVE = REPOSITORY / "packages" / "ostinato" / "native"


def sources() -> dict[str, str]:
    """Each Python file of the packages → its text; a file is named from its package's folder."""
    found = {}
    for root in (CORE, LEARN, DATASETS):
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root).as_posix()
            found[name if "/" in name else f"{root.name}/{name}"] = path.read_text("utf-8")
    return found
