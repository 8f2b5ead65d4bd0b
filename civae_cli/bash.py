"""Completion in bash, which splits into several words what is one value of our options."""

import contextlib
import io
import os
import re
from collections.abc import Callable

BASH = "complete_bash"
VARIABLE = "_CIVAE_COMPLETE"
"""Set by the shell's script while it asks for completions; its value says which shell asks."""
BREAKS = "=:"
"""Characters at which bash splits words; it replaces only the piece after the last of them."""


def join_pieces(words: list[str], cursor: int) -> list[str]:
    """The words up to the cursor as they were typed: bash passes `Young=0:1` as `Young`, `=`, `0`, `:` and `1`.

    Args:
        words: the command line's, starting with the program's name; an empty last word may be missing.
        cursor: index of the word that is being typed.
    """
    joined: list[str] = []
    open_end = False
    for number, word in enumerate([*words, ""][: cursor + 1]):
        is_break = bool(word) and not word.strip(BREAKS)
        if number > 1 and (is_break or open_end):
            joined[-1] += word
        else:
            joined.append(word)
        open_end = is_break and number < cursor
    return joined


def answers_bash(run: Callable[[], None]) -> bool:
    """Answer bash if it asks for completions, with only the last piece of `name=value`.

    Returns:
        whether bash asked, and so has its answer.
    """
    if os.environ.get(VARIABLE) != BASH:
        return False
    line = os.environ.get("COMP_WORDS", "")
    words = line.split("\n") if "\n" in line else line.split(" ")
    typed = join_pieces(words, int(os.environ.get("COMP_CWORD", "0")))
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(typed), str(len(typed) - 1)
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer), contextlib.suppress(SystemExit):
        run()
    word = re.sub(r"^--[^=]*=", "", typed[-1])
    kept = max(word.rfind(character) for character in BREAKS) + 1
    for found in filter(None, answer.getvalue().splitlines()):
        print(found[kept:])
    return True
