"""The command line. Neither torch nor numpy is imported before a command needs it."""

from ostinato_learn.cli.app import main

__all__ = ["main"]
