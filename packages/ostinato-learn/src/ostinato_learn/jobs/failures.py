"""The exceptions that end a command, and the exit code and message of every exception."""

from __future__ import annotations

import sys
import traceback
from importlib.util import find_spec

from ostinato.internal import MissingPackageError, install
from ostinato_learn.interrupt import Terminated

OK, FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

# The packages of the torch extra, by the names under which they are imported.
TORCH_EXTRA = {"torch", "sklearn", "joblib", "tqdm", "matplotlib"}


class Failure(Exception):  # noqa: N818  it ends a command, it need not be an error
    """Ends the command with a message on stderr, which says what to do."""

    exit_code = 1


class BadInput(Failure):
    """A flag, a configuration or a file cannot be used: exit status 2."""

    exit_code = 2


class AlreadyReported(Failure):
    """Ends the command without a message: another process has shown it."""

    def __init__(self, exit_code: int = Failure.exit_code):
        super().__init__()
        self.exit_code = exit_code


class Interrupted(Failure):
    """The command was interrupted by Ctrl-C or SIGTERM, as `by` says or `exit_code`."""

    exit_code = 130

    def __init__(self, message: str, by: BaseException | None = None, exit_code: int = exit_code):
        super().__init__(message)
        self.exit_code = by.exit_code if isinstance(by, Terminated) else exit_code


def explained(error: Exception) -> tuple[int, str | None]:
    """Exit code and message; no message for a bug: its traceback is shown instead."""
    if isinstance(error, AlreadyReported):
        return error.exit_code, ""
    if isinstance(error, Failure):
        return error.exit_code, f"ostinato: {error}"
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # Typer's usage errors
        command = getattr(getattr(error, "ctx", None), "command_path", "ostinato")
        message = error.format_message().replace(": Value error, ", ": ", 1)  # Typer's prefix
        return error.exit_code, f"{command}: {message}\n(see {command} --help)"
    if isinstance(error, MissingPackageError):
        return BAD_INPUT, f"ostinato: {error}"
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in TORCH_EXTRA:
        return BAD_INPUT, (
            f"ostinato: this needs {error.name}, which is not installed; "
            f"get it with: {install('ostinato-learn[torch]')}"
        )
    if isinstance(error, OSError) and error.strerror:
        files = " -> ".join(str(f) for f in (error.filename, error.filename2) if f is not None)
        bad_name = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
        code = BAD_INPUT if isinstance(error, bad_name) else FAILED
        return code, f"ostinato: {files + ': ' if files else ''}{error.strerror}"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):  # PyTorch's
        return FAILED, "ostinato: the memory is full; a smaller network or batch takes less"
    if isinstance(error, ValueError) and _raised_by_ostinato(error):
        return BAD_INPUT, f"ostinato: {error}"
    return FAILED, None


def all_missing(error: ImportError, extra: str) -> ImportError:
    """An error whose command installs an extra that the whole command needs, too, if it is missing.

    Args:
        extra: "torch", or "tune", which includes it.
    """
    package = (error.name or "").split(".")[0]
    first = error.requirements if isinstance(error, MissingPackageError) else ()
    packages = TORCH_EXTRA | {"optuna"} if extra == "tune" else TORCH_EXTRA
    if (not first and package not in packages) or all(map(_is_installed, packages)):
        return error
    return MissingPackageError(package, *dict.fromkeys([*first, f"ostinato-learn[{extra}]"]))


def _is_installed(package: str) -> bool:
    return sys.modules.get(package, package) is not None and find_spec(package) is not None


def _raised_by_ostinato(error: Exception) -> bool:
    """Whether one of our own checks raised it: a ValueError from another package is a bug."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return frames[-1][0].f_globals.get("__name__", "").startswith(("ostinato.", "ostinato_learn."))
