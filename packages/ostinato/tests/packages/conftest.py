"""A tier of its own: `make test-packages`, or `pytest -m packages`."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The ordinary suites import nobody else's packages."""
    return True if config.option.markexpr != "packages" else None
