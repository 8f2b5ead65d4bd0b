"""Errors that are shown to the user, each with its exit code.

A message names the flag, key or file and its value, without a full stop; a hint says what to do next.
"""

_LONGEST_LINE = 600


def printable(text: str) -> str:
    """Make text that may quote an untrusted file safe to print: no control characters, no endless lines.

    Control characters are escaped, because some of them would command the terminal; line breaks are kept.
    """
    return "\n".join(_printable_line(line) for line in text.split("\n"))


def _printable_line(line: str) -> str:
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE // 2]} … {line[-_LONGEST_LINE // 3 :]}"
    return escaped(line)


def escaped(line: str) -> str:
    """Escape the control characters of one line, whatever its length."""
    if line.isprintable():
        return line
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in line
    )


def flag_as_typed(flag: str, value: object) -> str:
    """A flag for messages, as in `--crop 150`: alone if it takes no value, with the first value of several."""
    if isinstance(value, list | tuple):
        value = value[0] if value else True
    return flag if isinstance(value, bool) else f"{flag} {value}"


class CivaeError(Exception):
    """A failure that a user can understand; the base class itself is a runtime failure."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        self.hint = None if hint is None else printable(hint)


class UsageError(CivaeError):
    """A command line or config that cannot be carried out as written."""

    exit_code = 2


class DataError(CivaeError):
    """Bad data: an unreadable table, image, prepared folder or checkpoint."""

    exit_code = 3


class DivergedError(CivaeError):
    """Training produced non-finite losses for too long."""

    exit_code = 4


class PreemptedError(CivaeError):
    """Stopped by SIGTERM or SIGUSR1 after saving; running the same command again continues."""

    exit_code = 75


class InterruptedRunError(CivaeError):
    """Stopped by Ctrl-C after saving; running the same command again continues."""

    exit_code = 130
