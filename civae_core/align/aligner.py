"""Choose the squares of a photograph that a model is shown: its faces, or the centred square if it has none."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from civae_core.align.choice import Align
from civae_core.align.cut import cut_square
from civae_core.align.mtcnn import Face, FaceFinder, is_installed
from civae_core.align.template import is_aligned, place_face
from civae_core.celeba import WIDTH
from civae_core.data.images import Preprocessing, source_name, whole_picture
from civae_core.errors import DataError, UsageError
from civae_core.native.placement import Placement

__all__ = ["FACELESS", "Aligner", "Look", "View", "aligner_for", "lacks_aligner"]

FACELESS = "no face found; the centred square is used as it is"
"""Message if `auto` looked for faces and found none."""


@dataclass(frozen=True)
class View:
    """A face as shown to the model."""

    pixels_CHW: np.ndarray
    """uint8 [C,S,S]."""
    placement: Placement
    face: tuple[int, int, int, int]
    """Left, top, right and bottom of its box in the upright photograph."""
    number: int
    """Number of the face, counted from left to right, starting at 1."""
    of: int
    """Number of faces in the photograph."""


@dataclass(frozen=True)
class Look:
    """What was found in a photograph."""

    views: list[View]
    """The chosen faces; empty if the centred square will do."""
    faceless: bool
    """Whether faces were searched for and none was found."""


class Aligner:
    """Finds faces and crops them as a model needs them.

    Args:
        preprocessing: the model's preprocessing.
        faces: `largest`, `all`, or the number of one face, counted from left to right.
        only_where_needed: leave photographs alone that are already aligned or have no face.

    Raises:
        UsageError: the extra is not installed, or `faces` is none of these.
    """

    def __init__(self, preprocessing: Preprocessing, faces: str, *, only_where_needed: bool) -> None:
        if faces not in ("largest", "all") and not (faces.isdecimal() and int(faces) > 0):
            raise UsageError(
                f"--face {faces}: expected largest, all or a number from 1",
                hint="--face 2 takes the second face from the left; the default is the largest",
            )
        self.preprocessing, self.faces, self.only_where_needed = preprocessing, faces, only_where_needed
        self._finder = FaceFinder()

    def views(self, source: Path | bytes) -> list[View]:
        """The views found by `look`."""
        return self.look(source).views

    def look(self, source: Path | bytes) -> Look:
        """The chosen faces of a photograph, given by its path or its content.

        Raises:
            DataError: there is no face, or not the one asked for; or the photograph cannot be read.
        """
        image = whole_picture(source)
        found = self._finder.find(image)
        if not found and self.only_where_needed:
            return Look([], faceless=True)
        if not found:
            raise DataError(
                f"{source_name(source)}: no face found",
                hint="--align never uses the centred square as it is",
            )
        crop = Placement.of_crop(self.preprocessing, *image.size)
        views = []
        for number, face in self._chosen(found, source_name(source)):
            placement = place_face(face.landmarks_52, self.preprocessing, *image.size)
            if self.only_where_needed and is_aligned(placement, crop):
                return Look([], faceless=False)
            square = cut_square(image, placement, self.preprocessing.size)
            values = np.asarray(square.convert("L" if self.preprocessing.channels == 1 else "RGB"))
            pixels_CHW = values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))
            left, top, right, bottom = (round(side) for side in face.box)
            views.append(View(pixels_CHW, placement, (left, top, right, bottom), number, len(found)))
        return Look(views, faceless=False)

    def _chosen(self, found: list[Face], name: str) -> list[tuple[int, Face]]:
        """The faces asked for, with their numbers from left to right."""
        ordered = list(enumerate(sorted(found, key=lambda face: face.box[0]), start=1))
        if self.faces == "all":
            return ordered
        if self.faces == "largest":
            return [max(ordered, key=lambda entry: entry[1].size)]
        if int(self.faces) > len(ordered):
            raise DataError(
                f"{name}: --face {self.faces}, but only {len(ordered)} found",
                hint="faces are counted from the left",
            )
        return [ordered[int(self.faces) - 1]]


def aligner_for(preprocessing: Preprocessing, align: Align, faces: str) -> Aligner | None:
    """The aligner that `--align` and `--face` ask for; None stands for the centred square of every photograph.

    `auto` looks for faces if the model was trained on CelebA's portraits, whose faces are all in one place, and the
    extra is installed; or if `faces` is not `largest`.

    Raises:
        UsageError: as for `Aligner`, or `faces` is given with `never`.
    """
    if align == Align.NEVER:
        if faces != "largest":
            raise UsageError(
                f"--face {faces} and --align never cannot be combined",
                hint=f"omit one of them: --face {faces} alone looks for faces",
            )
        return None
    if align == Align.AUTO and faces == "largest" and not (_of_portraits(preprocessing) and is_installed()):
        return None
    return Aligner(preprocessing, faces, only_where_needed=align == Align.AUTO and faces == "largest")


def lacks_aligner(preprocessing: Preprocessing) -> bool:
    """Whether `auto` would look for faces if the extra were installed."""
    return _of_portraits(preprocessing) and not is_installed()


def _of_portraits(preprocessing: Preprocessing) -> bool:
    """Whether the model was trained on CelebA's aligned portraits, or images prepared likewise."""
    return preprocessing.crop_of == WIDTH
