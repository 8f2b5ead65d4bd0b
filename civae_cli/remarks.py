"""What `civae counterfactual` says beside its pictures: of the first few answers at once, of all in the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from civae_cli.terminal import Terminal
from civae_core.errors import CivaeError, DataError

if TYPE_CHECKING:
    from civae_core.inference.edit import EditedPicture

_TOLD = 3
"""Pictures of which the same doubt is told one by one; of a folder of thousands nobody reads more."""


class Remarks:
    """Doubts about answers, and pictures that none could be given of."""

    def __init__(self, voice: Terminal, pictures: int, *, largest: bool) -> None:
        """
        Args:
            pictures: how many are asked about.
            largest: whether of several faces the largest is taken unasked.
        """
        self._voice, self._pictures, self._largest = voice, pictures, largest
        self._answered = self._unsure = self._unchanged = 0
        self._faceless: list[str] = []
        self._unfamiliar: list[tuple[str, float]] = []
        self.failures: list[DataError] = []

    def answer(self, found: "EditedPicture") -> None:
        """Takes an answer, and says at once what is doubtful about this picture alone."""
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
        """Takes a picture that could not be used, and says so where there are others."""
        self.failures.append(error)
        if self._pictures > 1:
            self._voice.warn(f"skipped {error.message}")

    def sum_up(self) -> None:
        """Says what holds of several answers."""
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
        """
        Args:
            written: how many pictures are.

        Raises:
            DataError: a picture could not be used: its own error, or of several how many.
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
    """What to do about several pictures: what is to be done about each, if that is the same."""
    hints = {failure.hint for failure in failures}
    same = hints.pop() if len(hints) == 1 else None
    return same or "repair these pictures, or omit them; the lines above say what is wrong with each"
