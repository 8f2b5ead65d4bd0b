"""What processes of their own say: as the terminal of the one that starts them would, with the name of their cell."""

import copy
import logging
from dataclasses import dataclass

_LOGGER = "civae_core"


@dataclass(frozen=True)
class Terminal:
    """How a process shows messages; those that it starts get this pickled."""

    logged: int
    """The level from which on there are messages; a run's log.txt has them all."""
    shown: int
    """The level from which on the terminal shows them."""
    formatter: logging.Formatter


def terminal_here() -> Terminal:
    """How this process shows messages; where nothing is set up, warnings alone, as logging itself does."""
    logger = logging.getLogger(_LOGGER)
    nothing = logging.Handler(logging.WARNING)
    handler = min(logger.handlers, key=lambda handler: handler.level, default=nothing)
    return Terminal(logger.getEffectiveLevel(), handler.level, handler.formatter or logging.Formatter())


def speak_as(terminal: Terminal, name: str) -> None:
    """Shows this process's messages on stderr as `terminal` would, each after `name`."""
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
