"""The command ``imagegate``.

A program: imports everything, and nothing imports it.
"""

from imagegate.cli.commands import main

__all__ = ["main"]
