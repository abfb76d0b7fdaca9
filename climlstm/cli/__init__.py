"""The command line: parse, call one public function, print.

A module for each part of a run; commands.py lists them, process.py runs them.
"""

from climlstm.cli.commands import app
from climlstm.cli.process import main

__all__ = ["app", "main"]
