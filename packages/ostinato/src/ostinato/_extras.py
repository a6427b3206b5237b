"""Optional dependencies are imported where they are used.

If one is missing, the error names the command that installs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def install(*requirements: str) -> str:
    """The one command that installs requirements such as `ostinato[torch]`.

    Example:
        >>> install("ostinato[torch]")
        "pip install 'ostinato[torch]'"
    """
    return "pip install " + " ".join(f"'{each}'" for each in requirements)


@contextmanager
def needs(requirement: str, *packages: str) -> Iterator[None]:
    """A context for imports: if one of `packages` is missing, the error says what to install.

    Errors of other imports pass through unchanged.

    Args:
        requirement: a distribution with the extra that installs the packages.
        packages: names of top-level modules.

    Raises:
        ModuleNotFoundError: one of `packages` is not installed.

    Example:
        >>> with needs("ostinato[torch]", "no_torch"):
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
            f"this part of ostinato needs {package}: {install(requirement)}", name=package
        ) from error
