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


class MissingPackageError(ModuleNotFoundError):
    """A package is not installed; the message has the command that installs it.

    Attributes:
        requirements: what the command installs.
    """

    def __init__(self, package: str, *requirements: str) -> None:
        super().__init__(
            f"this part of ostinato needs {package}: {install(*requirements)}", name=package
        )
        self.requirements = requirements


@contextmanager
def needs(requirement: str, *packages: str) -> Iterator[None]:
    """A context for imports: if one of `packages` is missing, the error says what to install.

    Errors of other imports pass through unchanged.

    Args:
        requirement: a distribution with the extra that installs the packages.
        packages: names of top-level modules.

    Raises:
        MissingPackageError: one of `packages` is not installed.

    Example:
        >>> with needs("ostinato[torch]", "no_torch"):  # doctest: +ELLIPSIS
        ...     import no_torch
        Traceback (most recent call last):
        ...
        ostinato._extras.MissingPackageError: this part ... pip install 'ostinato[torch]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in packages:
            raise
        raise MissingPackageError(package, requirement) from error
