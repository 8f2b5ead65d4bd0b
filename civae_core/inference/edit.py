"""Counterfactuals of many pictures, a batch at a time, each with the labels that it rests on.

`edit_pictures` answers once. To ask several questions about the same pictures, keep the result of `abduct_pictures`
and pass it to `edit_abducted` with each question, which then only predicts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from civae_core.act import acted
from civae_core.assignments import Intervention, do_text
from civae_core.attributes import AttributeRoles, shortest
from civae_core.engine.base import Abducted, Array, Engine
from civae_core.errors import DataError, UsageError
from civae_core.figures.pictures import as_uint8
from civae_core.inference.labels import Labels, Unsure, fill_labels
from civae_core.inference.pictures import Picture
from civae_core.model.familiar import reconstruction_errors

BATCH = 32
MOST_BYTES = 2**26
"""Bytes of finished pictures held at once: a long sweep takes fewer photographs at a time."""


@dataclass(frozen=True)
class Edit:
    """One picture under one intervention."""

    treat: dict[str, float]
    """The values set, in raw units; a flip appears as the resulting value."""
    image_CHW: Array
    """uint8 [C,S,S]."""
    beyond: tuple[str, ...]
    """Treatments set to a value outside the training range."""
    change_CHW: Array | None = None
    """float32 [C,S,S], y' − y before it is clamped and rounded to an image; None if not requested."""
    effect_CHW: Array | None = None
    """float32 [C,S,S], Δ = f(z', t') − f(z, t), without pixel noise; None if not requested."""

    @property
    def in_range(self) -> bool:
        """Whether every value set lies within the training range."""
        return not self.beyond


@dataclass(frozen=True)
class EditedPicture:
    """A picture with its edits and the labels they rest on."""

    picture: Picture
    factual: dict[str, float]
    predicted: dict[str, float | None]
    reconstruction_CHW: Array
    """uint8 [C,S,S], the decoder's reconstruction of the picture."""
    edits: list[Edit]
    spreads: Mapping[str, float]
    """Standard deviations of the predicted continuous attributes, in raw units, where known."""
    unsure: Unsure
    """What the predictor was unsure of; images are then means over the plausible values of covariates."""
    unfamiliar: float | None = None
    """Factor (above 1) by which its reconstruction error exceeds that of nearly all held-out images, else None."""
    beyond: tuple[str, ...] = ()
    """Attributes of which a value outside the training range was stated as the factual one."""


@dataclass(frozen=True)
class AbductedPictures:
    """Pictures with their labels and abducted noises, from which any number of predictions can be made."""

    engine: Engine
    pictures: Sequence[Picture]
    stated: Mapping[str, float]
    """Factual values that hold for every picture, in raw units."""
    y_BCHW: Array
    labels: Labels
    parts: list[tuple[Array, Abducted]]
    """R combinations of covariates for B pictures, in chunks: their pictures' rows, and what was abducted."""
    reconstruction_BCHW: Array

    @property
    def unfamiliar(self) -> list[float | None]:
        """`EditedPicture.unfamiliar` of each picture."""
        known = self.engine.familiarity
        if known is None:
            return [None] * len(self.pictures)
        errors_B = reconstruction_errors(self.y_BCHW, self.reconstruction_BCHW)
        return [known.excess(error) for error in errors_B.tolist()]


def edit_pictures(
    engine: Engine,
    pictures: Iterable[Picture | DataError],
    interventions: Sequence[Intervention],
    *,
    stated: Mapping[str, float],
    noise: float = 1.0,
    strength: float = 1.0,
    changes: bool = False,
) -> Iterator[EditedPicture | DataError]:
    """Yield counterfactuals of each picture under each intervention (M5, M6), in the order of the pictures.

    Treatments that an intervention does not name keep their factual value. Where the predictor is unsure of a
    covariate, an image is the mean over its plausible values (see `civae_core.inference.plausible`). A picture that
    could not be read is passed on as its error. So is a picture whose own values, such as those from a table, are so
    far outside the training range that no finite image results.

    Args:
        stated: factual values that hold for every picture, in raw units.
        noise: τ of (M6).
        strength: factor of the effect; 1 is the model's estimate.
        changes: whether each edit also contains its change and its effect.

    Raises:
        UsageError: an attribute is neither known nor predictable, or a value shared by all pictures is so far outside
            the training range that no finite image results.
    """
    waiting = iter(pictures)
    shape = engine.preprocessing
    bytes_each = max(len(interventions), 1) * shape["channels"] * shape["size"] ** 2
    bytes_each *= 9 if changes else 1
    batch = min(BATCH, max(1, MOST_BYTES // bytes_each))
    while entries := list(islice(waiting, batch)):
        readable = [entry for entry in entries if isinstance(entry, Picture)]
        edited = iter(
            edit_abducted(
                abduct_pictures(engine, readable, stated),
                interventions,
                noise=noise,
                strength=strength,
                changes=changes,
            )
            if readable
            else ()
        )
        for entry in entries:
            yield next(edited) if isinstance(entry, Picture) else entry


def abduct_pictures(
    engine: Engine, pictures: Sequence[Picture], stated: Mapping[str, float]
) -> AbductedPictures:
    """Fill in labels, and abduct both noises of (M5) for all plausible combinations of covariates.

    Raises:
        UsageError: an attribute is neither known nor predictable.
    """
    y_BCHW = np.stack([picture.pixels_CHW for picture in pictures]).astype(np.float32) / 255
    labels = fill_labels(engine, y_BCHW, pictures, stated)
    # R combinations of covariates for B pictures; R = B if the predictor is sure of all of them.
    parts = [
        (row_R, engine.abduct(y_BCHW[row_R], x_RX, labels.t_BT[row_R]))
        for row_R, x_RX in labels.plausible.chunks(BATCH)
    ]
    reconstruction_BCHW = labels.plausible.mean(
        np.concatenate([part.reconstruction_BCHW for _, part in parts])
    )
    return AbductedPictures(engine, pictures, stated, y_BCHW, labels, parts, reconstruction_BCHW)


def edit_abducted(
    abducted: AbductedPictures,
    interventions: Sequence[Intervention],
    *,
    noise: float = 1.0,
    strength: float = 1.0,
    changes: bool = False,
) -> list[EditedPicture | DataError]:
    """Predict each picture under each intervention (M6); arguments, results and errors as in `edit_pictures`."""
    engine, pictures, labels = abducted.engine, abducted.pictures, abducted.labels
    roles, mean = engine.roles, labels.plausible.mean
    reconstructions, unfamiliar = as_uint8(abducted.reconstruction_BCHW), abducted.unfamiliar
    edits: list[list[Edit]] = [[] for _ in pictures]
    lost: dict[int, DataError] = {}
    for intervention in interventions:
        t_new_BT = acted(labels.t_BT, intervention, roles.treatments)
        found = [
            engine.predict(part, t_new_BT[row_R], noise=noise, strength=strength)
            for row_R, part in abducted.parts
        ]
        image_BCHW = mean(np.concatenate([part.image_BCHW for part in found]))
        for row, error in _without_image(image_BCHW, abducted, intervention):
            lost.setdefault(row, error)
        effect_BCHW = mean(np.concatenate([part.effect_BCHW for part in found])) if changes else None
        images = as_uint8(image_BCHW)
        for row, values in enumerate(t_new_BT.tolist()):
            named = dict(zip((a.name for a in roles.treatments), values, strict=True))
            treat = {name: shortest(named[name]) for name in intervention}
            beyond = [a.name for a in roles.treatments if a.name in treat and not a.in_range(named[a.name])]
            change_CHW = image_BCHW[row] - abducted.y_BCHW[row] if changes else None
            effect_CHW = None if effect_BCHW is None else effect_BCHW[row]
            edits[row].append(Edit(treat, images[row], tuple(beyond), change_CHW, effect_CHW))
    return [
        lost.get(row)
        or EditedPicture(
            picture,
            labels.factual(row, roles),
            labels.predicted[row],
            reconstructions[row],
            edits[row],
            labels.spreads[row],
            labels.unsure[row],
            unfamiliar[row],
            labels.beyond(row, roles),
        )
        for row, picture in enumerate(pictures)
    ]


def _without_image(
    image_BCHW: Array, abducted: AbductedPictures, intervention: Intervention
) -> Iterator[tuple[int, DataError]]:
    """Yield the rows, with errors, that have no finite image because of their own values.

    Raises:
        UsageError: a row has none because of a value that all pictures share.
    """
    roles, pictures, stated = abducted.engine.roles, abducted.pictures, abducted.stated
    shared = _farthest({**stated, **{n: v for n, v in intervention.items() if v != "flip"}}, roles)
    for row in np.flatnonzero(~np.isfinite(image_BCHW).all(axis=(1, 2, 3))).tolist():
        set_, factual = do_text(intervention), do_text(abducted.labels.factual(row, roles))
        message = (
            f"{pictures[row].name}: the model gives no finite image under {set_} with the factual {factual}"
        )
        own = {name: value for name, value in pictures[row].known.items() if name not in stated}
        hint = "choose values closer to what training saw"
        if _farthest(own, roles) <= shared:
            raise UsageError(message, hint=hint)
        yield row, DataError(message, hint=hint)


def _farthest(values: Mapping[str, Any], roles: AttributeRoles) -> float:
    """Largest distance of a value from its mean in training, in standard deviations; 0 if there are no values."""
    model = {a.name: a.shift_and_scale for a in roles.inputs if a.name in values}
    return max((abs(values[name] - shift) / scale for name, (shift, scale) in model.items()), default=0.0)
