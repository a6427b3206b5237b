"""Optional dependencies: imported where they are used, and named with the command that installs
them when they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str, *packages: str) -> Iterator[None]:
    """Around imports: a missing one of `packages` becomes an error that says what to install.

    Raises:
        ModuleNotFoundError: one of `packages` is not installed. Other failing imports stay as they
            are.

    Example:
        >>> with needs("torch", "no_torch"):
        ...     import no_torch
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: this part of ostinato needs no_torch: pip install 'ostinato[torch]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in packages:
            raise
        raise ModuleNotFoundError(
            f"this part of ostinato needs {package}: pip install 'ostinato[{extra}]'",
            name=package,
        ) from error
