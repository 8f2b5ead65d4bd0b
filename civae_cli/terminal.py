"""What a command says: data on stdout, everything else on stderr."""

import json as json_module
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from civae_core.progress import is_first_process, set_quiet

if TYPE_CHECKING:
    from rich.table import Table


class Terminal:
    """A command's voice. Of several processes started by torchrun, only the first one prints."""

    def __init__(self, quiet: bool, verbose: bool, as_json: bool) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.as_json = as_json
        self.speaks = is_first_process()

    def say(self, message: str) -> None:
        """Print a remark on stderr; -q silences it."""
        if self.speaks and not self.quiet:
            print(message, file=sys.stderr)

    def warn(self, message: str) -> None:
        """Print a warning on stderr, with -q too."""
        if self.speaks:
            print(f"{paint('warning', 'yellow')}: {message}", file=sys.stderr)

    def data(self, text: str) -> None:
        """Print a result on stdout."""
        if self.speaks:
            print(text, flush=True)

    def json(self, value: Any) -> None:
        """Print a result on stdout as one line of JSON; bytes of file names that are no UTF-8 are escaped."""
        text = json_module.dumps(value, ensure_ascii=False, allow_nan=False)
        self.data(text.encode("utf-8", "backslashreplace").decode())

    def result(self, value: Any, text: str) -> None:
        """Print the command's result: `value` with --json, else `text`."""
        if self.as_json:
            self.json(value)
        else:
            self.data(text)

    def table(self, table: "Table") -> None:
        """Print a table on stderr; -q silences it."""
        if self.speaks and not self.quiet:
            from rich.console import Console

            Console(stderr=True).print(table)


class _StderrHandler(logging.Handler):
    """Looks up stderr for each message, because a progress bar replaces it while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.levelno <= logging.DEBUG:
            text += "\n" + self.formatException(record.exc_info)
        if record.levelno == logging.INFO:
            return text
        label = record.levelname.lower()
        return f"{paint(label, 'yellow') if record.levelno == logging.WARNING else label}: {text}"


def terminal(quiet: bool = False, verbose: bool = False, json: bool = False) -> Terminal:
    """Set up logging and progress for one command, and return its voice.

    Args:
        quiet: print only warnings, errors and the result.
        verbose: print debug messages too; overrides `quiet`.
        json: print the result as one JSON object.
    """
    made = Terminal(quiet and not verbose, verbose, json)
    logger = logging.getLogger("civae_core")
    for handler in [h for h in logger.handlers if isinstance(h, _StderrHandler)]:
        logger.removeHandler(handler)
    handler = _StderrHandler()
    handler.setFormatter(_PlainFormatter())
    logger.addHandler(handler)
    if not made.speaks:
        handler.setLevel(logging.ERROR)  # the first process gives the same warnings
    elif made.quiet:
        handler.setLevel(logging.WARNING)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    set_quiet(made.quiet)
    return made


_CODES = {"red": "31", "yellow": "33", "bold": "1"}


def paint(text: str, colour: str) -> str:
    """Colour a word for stderr, if stderr is a terminal that wants colours."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"
