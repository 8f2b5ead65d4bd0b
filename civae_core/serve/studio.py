"""The models of a page, and their answers about a photograph, independent of HTTP.

A photograph is abducted once for each model and each set of stated attributes (M5); every further question only
predicts (M6).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from civae_core.align.aligner import FACELESS, Look, aligner_for
from civae_core.align.mtcnn import is_installed as finds_faces
from civae_core.assignments import Intervention
from civae_core.attributes import Attribute, cautions, with_care
from civae_core.data.images import Preprocessing, decode
from civae_core.engine.base import Array, Engine
from civae_core.errors import DataError, UsageError
from civae_core.figures.effects import effect_limit, effect_map
from civae_core.figures.pictures import inlined, to_picture
from civae_core.inference.edit import EditedPicture, abduct_pictures, edit_abducted
from civae_core.inference.labels import describe_unsure
from civae_core.inference.output import account, carried
from civae_core.inference.pictures import Picture
from civae_core.model.familiar import describe_unfamiliar
from civae_core.native.photo import Photo, png_of, read_native
from civae_core.serve.limits import Limits
from civae_core.serve.question import Question, of_model
from civae_core.serve.sittings import Abducted, Sitting, Subject

BEYOND = 0.5
"""How far a slider extends beyond the training range at either end, as a share of that range."""
MOST_FREE = 4
"""Number of treatments moved to either end independently of each other to find a scale for effects."""
THIS = "this picture"
"""What notes call the photograph, which has no name here."""


@dataclass(frozen=True)
class ServedModel:
    """A model under the name that the page shows."""

    name: str
    engine: Engine

    @property
    def shape(self) -> Preprocessing:
        """The model's preprocessing of photographs."""
        return Preprocessing.from_dict(self.engine.preprocessing)


class Studio:
    """Answers questions about photographs.

    Args:
        models: one or more; the page compares any two of them.
        examples: prepared pictures of the first model's size; other models accept them if theirs is the same.
        limits: upper limits of the page; None uses the defaults.
    """

    def __init__(
        self, models: Sequence[ServedModel], examples: Sequence[Picture] = (), limits: Limits | None = None
    ) -> None:
        self.models, self.examples, self.limits = tuple(models), tuple(examples), limits or Limits()

    def warm_up(self) -> None:
        """Ask each model once, so that the first visitor does not wait for what is loaded on first use."""
        for model in self.models:
            shape, inputs = model.shape, model.engine.roles.inputs
            grey_CHW = np.full((shape.channels, shape.size, shape.size), 128, dtype=np.uint8)
            stated = {a.name: a.shift_and_scale[0] for a in inputs}
            model.engine.guess(grey_CHW[None].astype(np.float32) / 255)
            kept = abduct_pictures(model.engine, [Picture("grey", "grey", grey_CHW)], stated)
            edit_abducted(kept, [{inputs[0].name: inputs[0].high}])

    def described(self) -> dict[str, Any]:
        """Everything the page must know before there is a photograph."""
        return {
            "models": [_described(model) for model in self.models],
            "examples": len(self.examples),
            "finds_faces": finds_faces(),
            "upload_bytes": self.limits.upload_bytes,
            "kept_minutes": round(self.limits.photo_seconds / 60),
        }

    def sit(self, sitting: Sitting) -> dict[str, Any]:
        """Show a photograph to the first model, to check that it can be used; return how many faces it has, and more.

        Raises:
            DataError: it is not a picture, is damaged or too large, or has no face although one is required.
        """
        view = self.subject(sitting, 0).picture.view
        return {
            "faces": view.of if view else 0,
            "aligned": view is not None,
            "native": sitting.example is None,
        }

    def subject(self, sitting: Sitting, number: int) -> Subject:
        """The photograph as shown to a model.

        Raises:
            UsageError: there is no model of that number, or the example has another size.
            DataError: as for `sit`.
        """
        if number >= len(self.models):
            raise UsageError(
                f"models: there is no model {number}", hint=f"there are {len(self.models)}, numbered from 0"
            )
        if number not in sitting.subjects:
            sitting.subjects[number] = Subject(
                _picture(sitting, self.models[number], self.limits.upload_pixels)
            )
            sitting.count()
        return sitting.subjects[number]

    def answer(self, sitting: Sitting, question: Question) -> dict[str, Any]:
        """Pictures and findings of each model that was asked, with effects on one common scale.

        Raises:
            UsageError: an attribute is unknown to all models, or is neither stated nor predictable; or no finite
                image results under some value.
            DataError: as for `sit`.
        """
        edited = [self._edited(sitting, question, number) for number in question.models]
        limit = max(kept.limit for kept, _ in edited)
        return {
            "limit": limit,
            "answers": [
                {"model": number} | _answer(self.models[number], found, limit)
                for number, (_, found) in zip(question.models, edited, strict=True)
            ],
        }

    def download(self, sitting: Sitting, question: Question) -> bytes:
        """The counterfactual of the first model that was asked, as a PNG that contains a description of itself.

        Raises:
            UsageError: as for `answer`, or the native size of an example is requested.
            DataError: as for `answer`, or the photograph cannot be edited at its original size.
        """
        number = question.models[0]
        _, found = self._edited(sitting, question, number)
        said = account(found, found.edits, question.noise, 1.0)
        if not question.native:
            return png_of(Photo(found.edits[0].image_CHW.transpose(1, 2, 0)), said)
        if sitting.example is not None:
            raise UsageError(
                "an example is prepared data, which has no photograph in its own size",
                hint="download it in the model's size, or choose a photograph of your own",
            )
        shape = self.models[number].shape
        return png_of(carried(read_native(sitting.data), found, found.edits[0], shape), said)

    def _edited(self, sitting: Sitting, question: Question, number: int) -> tuple[Abducted, EditedPicture]:
        subject = self.subject(sitting, number)
        engine, asked = self.models[number].engine, [self.models[n].engine.roles for n in question.models]
        treatments = {a.name: a for roles in asked for a in roles.treatments}
        inputs = {a.name: a for roles in asked for a in roles.inputs}
        stated = of_model(question.attr, engine.roles.inputs, inputs, "attr")
        treat = of_model(question.treat, engine.roles.treatments, treatments, "treat")
        kept = subject.abducted(stated, lambda picture, values: _abducted(engine, picture, values))
        sitting.count()
        (found,) = edit_abducted(kept.pictures, [{**treat}], noise=question.noise, changes=True)
        if isinstance(found, DataError):
            raise found
        return kept, found


def _described(model: ServedModel) -> dict[str, Any]:
    roles = model.engine.roles
    return {
        "name": model.name,
        "size": model.shape.size,
        "grey": model.shape.channels == 1,
        "engine": model.engine.name,
        "treatments": [_slider(a) for a in roles.treatments],
        "covariates": [_slider(a) for a in roles.covariates],
        "descendants": [a.name for a in roles.descendants],
    }


def _slider(attribute: Attribute) -> dict[str, Any]:
    """The attribute with the ends of its slider, which extends beyond the training range on both sides."""
    margin = BEYOND * ((attribute.high - attribute.low) or 1.0)
    return {
        "name": attribute.name,
        "kind": attribute.kind,
        "low": attribute.low,
        "high": attribute.high,
        "from": attribute.low - margin,
        "to": attribute.high + margin,
    }


def _picture(sitting: Sitting, model: ServedModel, most_pixels: int) -> Picture:
    """The photograph's largest or chosen face, or its centred square, at the model's size."""
    shape = model.shape
    if sitting.example is not None:
        has, wants = sitting.example.pixels_CHW.shape, (shape.channels, shape.size, shape.size)
        if has != wants:
            raise UsageError(
                f"the examples are {has[1]} pixels wide, {model.name} takes {wants[1]}",
                hint="choose a photograph of your own",
            )
        return sitting.example
    pixels_CHW = decode(sitting.data, shape, most_pixels)
    aligner = aligner_for(shape, sitting.align, sitting.face)
    look = aligner.look(sitting.data) if aligner else Look([], faceless=False)
    view = look.views[0] if look.views else None
    shown_CHW = view.pixels_CHW if view else pixels_CHW
    return Picture("image", "image", shown_CHW, view=view, faceless=look.faceless)


def _abducted(engine: Engine, picture: Picture, stated: Mapping[str, float]) -> Abducted:
    """Abduct, and find a scale for effects: the largest one with sliders at the ends of the training range."""
    kept = abduct_pictures(engine, [picture], stated)
    ends = _ends(engine.roles.treatments)
    (found,) = edit_abducted(kept, ends, noise=0.0, changes=True)
    if isinstance(found, DataError):
        raise found
    return Abducted(kept, effect_limit(*(_effect(found, number)[None] for number in range(len(ends)))))


def _ends(treatments: Sequence[Attribute]) -> list[Intervention]:
    """Each treatment alone at each end of its training range, and all together at every combination of ends.

    With more than `MOST_FREE` treatments, some move to the same end together.
    """
    alone: list[Intervention] = [{a.name: value} for a in treatments for value in (a.low, a.high)]
    free = min(len(treatments), MOST_FREE)
    if free < 2:
        return alone
    return alone + [
        {a.name: (a.low, a.high)[ends[i % free]] for i, a in enumerate(treatments)}
        for ends in itertools.product((0, 1), repeat=free)
    ]


def _effect(found: EditedPicture, number: int = 0) -> Array:
    effect_CHW = found.edits[number].effect_CHW
    assert effect_CHW is not None
    return effect_CHW


def _answer(model: ServedModel, found: EditedPicture, limit: float) -> dict[str, Any]:
    (edit,) = found.edits
    roles = model.engine.roles
    difference_CHW = np.abs(edit.image_CHW.astype(np.int16) - found.picture.pixels_CHW)
    notes = describe_unsure(THIS, found.unsure, found.predicted)
    stated = {n: v for n, v in found.factual.items() if n not in found.predicted}
    notes += cautions(stated, roles)
    if found.picture.faceless:
        notes.append(FACELESS)
    if found.unfamiliar is not None:
        notes.append(describe_unfamiliar([(THIS, found.unfamiliar)], 1))
    if edit.beyond:
        notes.append(
            f"{', '.join(edit.beyond)} set beyond what training saw; {with_care(edit.beyond, roles.treatments)}"
        )
    return {
        "original": _inline(found.picture.pixels_CHW),
        "image": _inline(edit.image_CHW),
        "effect": _inline(effect_map(_effect(found)[None], limit)[0]),
        "treat": edit.treat,
        "factual": found.factual,
        "predicted": found.predicted,
        "spreads": dict(found.spreads),
        "beyond": list(edit.beyond),
        "notes": notes,
        "unfamiliar": found.unfamiliar is not None,
        "largest_difference": int(difference_CHW.max()),
        "mean_difference": round(float(difference_CHW.mean()), 2),
    }


def _inline(image_CHW: Array) -> str:
    return inlined(to_picture(image_CHW))
