"""Write a model's answers as pictures, with JSON records."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from civae_core.assignments import do_text
from civae_core.attributes import Attribute, answered_beyond
from civae_core.data.images import Preprocessing
from civae_core.errors import UsageError
from civae_core.figures.pictures import write_png
from civae_core.files import make_folder
from civae_core.inference.edit import Edit, EditedPicture
from civae_core.inference.png import write_image
from civae_core.native.carry import apply_effect, effect_of
from civae_core.native.photo import Photo, read_native, write_native
from civae_core.native.placement import Placement


class EditWriter:
    """Writes edited pictures as PNG files and yields one record per file.

    Args:
        folder: created with the first picture; repeating a question overwrites its earlier answers.
        noise, strength: the values that the pictures were made with, for the records.
        strip: write one labelled strip per picture instead of one file per intervention.
        native: the model's preprocessing; if given, answers are photographs at their original size.
        treatments: treatments of the model that answered.

    Raises:
        UsageError: `strip` and `native` are combined.
    """

    def __init__(
        self,
        folder: Path,
        *,
        noise: float,
        strength: float,
        strip: bool,
        native: Preprocessing | None = None,
        treatments: Sequence[Attribute],
    ) -> None:
        if strip and native:
            raise UsageError(
                "--strip and --native cannot be combined", hint="omit one: a strip has the model's size"
            )
        self.folder, self.noise, self.strength, self.strip = folder, noise, strength, strip
        self.native, self.treatments = native, treatments
        self.left_range: set[str] = set()
        self._stems: dict[str, str] = {}

    def write(self, edited: EditedPicture) -> Iterator[dict[str, Any]]:
        """Write one picture and yield its records, in the order of its interventions; a strip has one record.

        Raises:
            CivaeError: the folder cannot be written.
            DataError: the photograph cannot be edited at its original size.
        """
        photo = read_native(edited.picture.file) if self.native and edited.picture.file else None
        if not self._stems:
            make_folder(self.folder)
        stem = self._unique_stem(edited)
        for edit in edited.edits:
            self.left_range.update(edit.beyond)
        if self.strip:
            path = self.folder / f"{stem}__strip{self._mark}.png"
            write_png(path, self._strip_of(edited), self._account(edited, edited.edits))
            values = {name: [edit.treat[name] for edit in edited.edits] for name in edited.edits[0].treat}
            yield self._record(edited, path, values, all(edit.in_range for edit in edited.edits))
            return
        for edit in edited.edits:
            path = self.folder / f"{stem}__{_file_part(edit)}{self._mark}.png"
            said = self._account(edited, [edit])
            if photo and self.native:
                write_native(path, carried(photo, edited, edit, self.native), said)
            else:
                write_image(path, edit.image_CHW, said)
            yield self._record(edited, path, edit.treat, edit.in_range)

    def _account(self, edited: EditedPicture, edits: Sequence[Edit]) -> str:
        return account(edited, edits, self.noise, self.strength)

    def _record(
        self, edited: EditedPicture, path: Path, treat: dict[str, Any], in_range: bool
    ) -> dict[str, Any]:
        record = {
            "input": edited.picture.name,
            "output": str(path),
            "treat": treat,
            "factual": edited.factual,
            "predicted": edited.predicted,
            "noise": self.noise,
            "in_range": in_range,
        }
        if edited.picture.view:
            record["face"] = list(edited.picture.view.face)
        if edited.spreads:
            record["predicted_sd"] = dict(edited.spreads)
        if edited.unsure.names:
            record["unsure"] = list(edited.unsure.names)
        if edited.unsure.averaged:
            record["combinations"] = edited.unsure.combinations
        if edited.unfamiliar is not None:
            record["unfamiliar"] = float(f"{edited.unfamiliar:.4g}")
        return record if self.strength == 1 else record | {"strength": self.strength}

    @property
    def _mark(self) -> str:
        """File name suffix for non-default settings, so that no file passes for the default answer or replaces it."""
        found = _unusual(self.noise, self.strength)
        unusual = "".join(f"__{name}={value:.10g}" for name, value in found.items())
        return unusual + ("__native" if self.native else "")

    def _strip_of(self, edited: EditedPicture) -> Image.Image:
        from civae_core.figures.strips import strip  # imported here because it brings in fonts

        images = [edited.picture.pixels_CHW, edited.reconstruction_CHW]
        labels, marks = ["original", "reconstruction"], [False, False]
        for edit in edited.edits:
            images.append(edit.image_CHW)
            labels.append(_described(edit))
            marks.append(not edit.in_range)
        names = {name for edit in edited.edits for name in edit.beyond}
        beyond = answered_beyond(names, self.treatments)
        return strip(np.stack(images), labels, marks, title=self._conditions(edited), beyond=beyond)

    def _conditions(self, edited: EditedPicture) -> str | None:
        """Non-default settings and caveats that a reader of the picture must know."""
        said = []
        if self.noise != 1:
            said.append(f"noise τ = {self.noise:.10g}")
        if self.strength != 1:
            said.append(f"strength = {self.strength:.10g} (1 is the model's estimate)")
        said += _mean_over(edited) + _unlike_training(edited)
        return ", ".join(said) or None

    def _unique_stem(self, edited: EditedPicture) -> str:
        """The picture's own stem, numbered if another picture of this call has the same one."""
        stem, number = edited.picture.stem, 1
        while self._stems.setdefault(stem, edited.picture.name) != edited.picture.name:
            number += 1
            stem = f"{edited.picture.stem}-{number}"
        return stem


def carried(photo: Photo, edited: EditedPicture, edit: Edit, preprocessing: Preprocessing) -> Photo:
    """The photograph at its original size with an edit applied; `preprocessing` is that of the model's input.

    Raises:
        AssertionError: the edit has no `change_CHW`.
    """
    assert edit.change_CHW is not None
    effect = effect_of(edited.picture.pixels_CHW, edit.change_CHW)
    view = edited.picture.view
    placement = view.placement if view else Placement.of_crop(preprocessing, *photo.size)
    return apply_effect(photo, placement, effect)


def account(edited: EditedPicture, edits: Sequence[Edit], noise: float, strength: float) -> str:
    """The description of one or several answers that is stored in their file, which looks like a photograph.

    Args:
        edits: interventions on the same treatments, at least one; a strip shows several.
    """
    factual = {name: edited.factual[name] for name in edits[0].treat}
    treats = " | ".join(map(_described, edits))
    said = [f"{treats} instead of {do_text(factual, digits=10)}" if factual else "nothing changed"]
    said += [f"{name}={value:.10g}" for name, value in ({"noise": noise} | _unusual(noise, strength)).items()]
    if factual:
        beyond = dict.fromkeys([*(name for edit in edits for name in edit.beyond), *edited.beyond])
        said.append(f"{', '.join(beyond)} beyond what training saw" if beyond else "within what training saw")
    said += _mean_over(edited) + _unlike_training(edited)
    return f"Counterfactual estimated by civae: {', '.join(said)}; not a photograph"


def _unusual(noise: float, strength: float) -> dict[str, float]:
    """Noise and strength if they differ from the default of 1."""
    return {name: value for name, value in (("noise", noise), ("strength", strength)) if value != 1}


def _mean_over(edited: EditedPicture) -> list[str]:
    """A phrase on what was averaged over; empty if nothing was."""
    over = edited.unsure.averaged
    return [f"mean over what {', '.join(over)} may be"] if over else []


def _unlike_training(edited: EditedPicture) -> list[str]:
    """A phrase saying that the model reconstructs the picture badly; empty if it does not."""
    return [] if edited.unfamiliar is None else ["a picture unlike those of training"]


def _described(edit: Edit, between: str = ", ") -> str:
    # Ten digits are more than a 32-bit float has: whatever differs for the model has a file of its own.
    return do_text(edit.treat, between, digits=10)


def _file_part(edit: Edit) -> str:
    """The intervention as part of a file name; a column named `Hair/Colour` must not lead out of the folder."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "-", _described(edit, between="_"))
