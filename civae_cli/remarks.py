"""Remarks of `civae counterfactual` on its pictures: on the first few answers at once, on all of them at the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from civae_cli.terminal import Terminal
from civae_core.errors import CivaeError, DataError

if TYPE_CHECKING:
    from civae_core.inference.edit import EditedPicture

_TOLD = 3
"""How many pictures with the same doubt are named one by one; in a folder of thousands nobody reads more."""


class Remarks:
    """Doubts about answers, and pictures that could not be used."""

    def __init__(self, voice: Terminal, pictures: int, *, largest: bool) -> None:
        """
        Args:
            pictures: how many are asked about.
            largest: whether the largest of several faces is used, which is worth a warning.
        """
        self._voice, self._pictures, self._largest = voice, pictures, largest
        self._answered = self._unsure = self._unchanged = 0
        self._faceless: list[str] = []
        self._unfamiliar: list[tuple[str, float]] = []
        self.failures: list[DataError] = []

    def answer(self, found: "EditedPicture") -> None:
        """Record an answer, and say at once what is doubtful about this picture alone."""
        from civae_core.inference.labels import describe_unchanged, describe_unsure

        self._answered += 1
        picture, view = found.picture, found.picture.view
        if view and view.of > 1 and self._largest:
            self._voice.warn(
                f"{picture.name}: the largest of {view.of} faces is used; "
                f"choose others with --face all, or --face 1 to {view.of} from the left"
            )
        if picture.faceless:
            self._faceless.append(picture.name)
        if found.unfamiliar is not None:
            self._unfamiliar.append((picture.title, found.unfamiliar))
        unsure = describe_unsure(picture.title, found.unsure, found.predicted)
        unchanged = describe_unchanged(
            picture.title, [edit.treat for edit in found.edits], found.factual, found.predicted
        )
        self._unsure += bool(unsure)
        self._unchanged += bool(unchanged)
        for text in [
            *(unsure if self._unsure <= _TOLD else ()),
            *(unchanged if self._unchanged <= _TOLD else ()),
        ]:
            self._voice.warn(text)

    def failure(self, error: DataError) -> None:
        """Record a picture that could not be used, and say so if there are others."""
        self.failures.append(error)
        if self._pictures > 1:
            self._voice.warn(f"skipped {error.message}")

    def sum_up(self) -> None:
        """Print the remarks that concern several answers."""
        from civae_core.align.aligner import FACELESS
        from civae_core.model.familiar import HINT, describe_unfamiliar

        warn, say = self._voice.warn, self._voice.say
        if self._faceless:
            first, *others = self._faceless
            warn(f"{first}{f', and {len(others)} more' if others else ''}: {FACELESS}")
        if self._unsure > _TOLD:
            warn(f"unsure of {self._unsure - _TOLD} more pictures; see `unsure` in their records")
        if self._unchanged > _TOLD:
            warn(
                f"nothing is changed in {self._unchanged - _TOLD} more pictures: already predicted to be as asked"
            )
        if self._unsure:
            say("hint: state what you know with --attr NAME=VALUE or --attrs TABLE")
        if self._unfamiliar:
            warn(describe_unfamiliar(self._unfamiliar, self._answered))
            say(f"hint: {HINT}")

    def raise_failures(self, written: int) -> None:
        """Raise an error if pictures could not be used.

        Args:
            written: how many pictures were written.

        Raises:
            DataError: a picture could not be used; its own error if it was the only one asked about, else a count.
        """
        if not self.failures:
            return
        if self._pictures == 1:
            raise self.failures[0]
        if not written:
            raise DataError(f"none of {self._pictures} pictures could be used", hint=_way_out(self.failures))
        raise DataError(
            f"{len(self.failures)} of {self._pictures} pictures could not be used; the others were written",
            hint=_way_out(self.failures),
        )


def _way_out(failures: Sequence[CivaeError]) -> str:
    """What to do about several pictures: their common hint, or a general one if their hints differ."""
    hints = {failure.hint for failure in failures}
    same = hints.pop() if len(hints) == 1 else None
    return same or "repair these pictures, or omit them; the lines above say what is wrong with each"
