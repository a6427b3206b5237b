"""Optional dependencies are imported where they are used.

If one is missing, the error names the command that installs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def install(extra: str) -> str:
    """The command that installs an extra: from a checkout, since no index has ostinato yet."""
    return f"pip install '.[{extra}]' in a checkout of ostinato"


@contextmanager
def needs(extra: str, *packages: str) -> Iterator[None]:
    """A context for imports: if one of `packages` is missing, the error says what to install.

    Errors of other imports pass through unchanged.

    Args:
        extra: the extra of ostinato that installs the packages.
        packages: names of top-level modules.

    Raises:
        ModuleNotFoundError: one of `packages` is not installed.

    Example:
        >>> with needs("torch", "no_torch"):  # doctest: +ELLIPSIS
        ...     import no_torch
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: this part of ostinato needs no_torch: pip install '.[torch]' in ...
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in packages:
            raise
        raise ModuleNotFoundError(
            f"this part of ostinato needs {package}: {install(extra)}",
            name=package,
        ) from error
