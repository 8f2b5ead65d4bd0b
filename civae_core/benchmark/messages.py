"""Log messages of worker processes, shown as the parent process shows its own, with the name of the cell."""

import copy
import logging
from dataclasses import dataclass

_LOGGER = "civae_core"


@dataclass(frozen=True)
class Terminal:
    """How a process shows log messages; pickled for the processes that it starts."""

    logged: int
    """Lowest level that is logged at all; a run's log.txt has all of these messages."""
    shown: int
    """Lowest level that the terminal shows."""
    formatter: logging.Formatter


def terminal_here() -> Terminal:
    """How this process shows messages; if logging is not set up, only warnings and above, as `logging` does."""
    logger = logging.getLogger(_LOGGER)
    nothing = logging.Handler(logging.WARNING)
    handler = min(logger.handlers, key=lambda handler: handler.level, default=nothing)
    return Terminal(logger.getEffectiveLevel(), handler.level, handler.formatter or logging.Formatter())


def speak_as(terminal: Terminal, name: str) -> None:
    """Show this process's messages on stderr as `terminal` would, each preceded by `name`."""
    handler = logging.StreamHandler()
    handler.setLevel(terminal.shown)
    handler.setFormatter(_Named(name, terminal.formatter))
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    logger.setLevel(terminal.logged)


class _Named(logging.Formatter):
    def __init__(self, name: str, formatter: logging.Formatter) -> None:
        super().__init__()
        self.name, self.formatter = name, formatter

    def format(self, record: logging.LogRecord) -> str:
        named = copy.copy(record)
        named.msg, named.args = f"{self.name}: {record.getMessage()}", None
        return self.formatter.format(named)
