"""The `plato` command: one module a command, or a family of commands.

What only asks a server imports neither torch nor Ray; a test keeps it so.
"""

from plato.cli.commands import app, main

__all__ = ["app", "main"]
