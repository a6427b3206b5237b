"""The exceptions that end a command, with their exit codes."""

from __future__ import annotations


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
    """The command was interrupted by Ctrl-C, or by SIGTERM if `exit_code` says so."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = exit_code):
        super().__init__(message)
        self.exit_code = exit_code
