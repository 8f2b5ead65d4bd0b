"""From exceptions to messages and exit codes, in one place for all commands."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from civae_cli.plain import taking_plain_values
from civae_cli.usage import describe
from civae_core.errors import CivaeError, InterruptedRunError, PreemptedError, UsageError
from civae_core.os_errors import hint_on
from civae_core.out_of_memory import is_out_of_memory

INTERRUPTED = 130
_CONTINUING = {"quickstart", "prepare-data", "train", "benchmark"}
"""Commands that go on where they stopped if they are run again."""
_STARTING_OVER = {"--overwrite", "--dry-run", "never", "--resume=never"}
"""Words with which they do not."""

# What Typer itself raises to end a command, whichever Click it is built on.
_CONTROL_FLOW: tuple[type[BaseException], ...] = (
    typer.Exit,
    typer.Abort,
    *(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"),
)


class CivaeGroup(TyperGroup):
    """Runs a command and reports how it failed, with a traceback only with -v."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _in_our_words():
            return super().make_context(*args, **kwargs)

    def get_params(self, ctx: Any) -> list[Any]:
        return taking_plain_values(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        words = _remaining_arguments(ctx)
        verbose = wants_traceback(words)
        try:
            with _in_our_words():
                result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except _CONTROL_FLOW:
            raise
        except CivaeError as error:
            stopped = isinstance(error, PreemptedError | InterruptedRunError)
            report(error.message, error.hint, verbose, is_error=not stopped)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            report("interrupted", _hint_on_interruption(words), verbose)
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:
            _discard_stdout()
            raise typer.Exit(1) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            hint = hint_on(error) or (None if verbose else "run it again with -v to see the traceback")
            report(f"{where}{error.strerror or error}", hint, verbose)
            # No disk holds a name that is too long, so it was given to the command.
            raise typer.Exit(UsageError.exit_code if error.errno == errno.ENAMETOOLONG else 1) from error
        except Exception as error:
            if is_out_of_memory(error):
                hint = "use smaller batches or smaller images, or another --device"
                report(f"out of memory: {_first_line(error)}".rstrip(": "), hint, verbose)
            else:
                summary = f"internal error: {type(error).__name__}: {_first_line(error)}".rstrip(": ")
                report(summary, None if verbose else "run it again with -v and report the traceback", verbose)
            raise typer.Exit(1) from error


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Make parsing errors look like all others, except for the one that only shows a group's help."""
    try:
        yield
    except _CONTROL_FLOW as error:
        if hasattr(error, "format_message") and type(error).__name__ != "NoArgsIsHelpError":
            message, hint = describe(error)
            error.show = lambda file=None: report(message, hint, False)  # type: ignore[attr-defined]
        raise


def report(message: str, hint: str | None, verbose: bool, is_error: bool = True) -> None:
    """Print `error: …` and, after a blank line, `hint: …` on stderr; with -v the traceback comes first.

    A run that stopped because it was asked to is no error, and its message has no label.
    """
    from civae_cli.terminal import paint  # which imports logging; `--help` need not wait for that

    if verbose:
        traceback.print_exc(file=sys.stderr)
    print(f"{paint('error', 'red')}: {message}" if is_error else message, file=sys.stderr)
    if hint:
        print(f"\n{paint('hint', 'bold')}: {hint}", file=sys.stderr)


def wants_traceback(arguments: Sequence[str]) -> bool:
    """Whether -v, --verbose, or a bundle of short flags with v, is among the arguments."""
    return any(a == "--verbose" or re.fullmatch(r"-[a-z]*v[a-z]*", a) for a in arguments)


def _remaining_arguments(ctx: Any) -> list[str]:
    return [*getattr(ctx, "_protected_args", ()), *ctx.args]


def _hint_on_interruption(words: Sequence[str]) -> str | None:
    """What to do after Ctrl-C, from the command and its arguments; None where it would have to start again."""
    continues = _CONTINUING.intersection(words[:1]) and not _STARTING_OVER.intersection(words)
    return "run the same command again to continue" if continues else None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


def _discard_stdout() -> None:
    """Keep the interpreter from complaining, when it flushes at exit, that the reader of our output has gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
