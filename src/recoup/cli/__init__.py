"""The command line: each command in a module of its own, each imported when it is called."""

from recoup.cli.app import app, main

__all__ = ["app", "main"]
