"""Write population answers as one labelled sheet, as arrays, and as a record for each group."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from civae_core.assignments import do_text
from civae_core.attributes import AttributeRoles, answered_beyond, beyond_training
from civae_core.figures.effects import effect_limit, effect_map, with_scale
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import Images, Picture, at_most, write_png
from civae_core.files import atomic_file
from civae_core.model.stored import save_tensors
from civae_core.population.effects import POSTERIOR, PRIOR, TRUTH, MeanPair, PopulationEffects

METADATA = "civae_effects"
"""Metadata key of the arrays: a JSON object with, among others, the groups' labels in the arrays' order."""
_LARGEST = 128
_ORIGIN = {POSTERIOR: "from photographs", PRIOR: "from the prior", TRUTH: "true"}


def assumptions(roles: AttributeRoles) -> str:
    """The assumptions behind an effect estimated by a model, in one sentence."""
    treatments = " or ".join(a.name for a in roles.treatments)
    covariates = ", ".join(a.name for a in roles.covariates)
    return (
        f"estimated under these assumptions: nothing but {covariates or 'chance'} affects both the picture and "
        f"{treatments}, and the model describes such pictures well"
    )


def write_effects(found: PopulationEffects, out: Path, roles: AttributeRoles) -> list[dict[str, Any]]:
    """Write the sheet and the arrays, named after the intervention; return one record per group.

    Args:
        out: an existing folder.

    Raises:
        CivaeError: the folder cannot be written.
    """
    do = dict(found.subjects.do)
    values = {name: value for name, value in do.items() if isinstance(value, float)}
    beyond = [
        f"{text}: {answered_beyond([a.name], [a])}"
        for a in roles.treatments
        for text in beyond_training(values, [a])
    ]
    notes = [assumptions(roles), *beyond]
    # Ten digits are more than a 32-bit float has: whatever differs for the model has files of its own.
    sheet = Picture(do_text(do, "_", digits=10), do_text(do), notes[0], _sheet(found, notes))
    picture, arrays = out / f"{sheet.name}.png", out / f"{sheet.name}.safetensors"
    write_png(picture, sheet.image)
    described = {
        "treat": do,
        "groups": [group.label for group in found.groups],
        "n": [group.count for group in found.groups],
        "assumptions": notes[0],
    }
    with atomic_file(arrays) as temporary:
        save_tensors(temporary, _arrays(found), {METADATA: json.dumps(described, ensure_ascii=False)})
    shared = {"treat": do, "in_range": not beyond, "output": str(picture), "arrays": str(arrays)}
    return [record | shared for record in _records(found)]


def _records(found: PopulationEffects) -> list[dict[str, Any]]:
    """One record per group: size of the mean effect by source, and its error against the truth where known."""
    records = []
    for g, group in enumerate(found.groups):
        record: dict[str, Any] = {"group": group.label, "n": group.count}
        for source, pair in found.means.items():
            record[source] = {"size": pair.size(g)}
            if source in found.errors and found.errors[source].known([g]):
                record[source]["error"] = found.errors[source].mean([g])
        records.append(record)
    return records


def _arrays(found: PopulationEffects) -> dict[str, Tensor]:
    """`posterior.before`, `posterior.after`, `posterior.effect` and so on, float32 [G,C,S,S]."""
    return {
        f"{source}.{part}": images_GCHW
        for source, pair in found.means.items()
        for part, images_GCHW in (
            ("before", pair.before_GCHW),
            ("after", pair.after_GCHW),
            ("effect", pair.effect_GCHW),
        )
    }


def _sheet(found: PopulationEffects, notes: list[str]) -> Image.Image:
    """One row per group; for each source the means before and after, and the effect, all on one colour scale."""
    effects = {source: at_most(pair.effect_GCHW, _LARGEST) for source, pair in found.means.items()}
    limit = effect_limit(*effects.values())
    columns: list[tuple[str, Images]] = []
    for source, pair in found.means.items():
        columns += [(title, at_most(images, _LARGEST)) for title, images in _pictures(found, source, pair)]
        raising = f" of raising {name}" if (name := _flipped(found)) else ""
        columns.append((f"effect{raising}, {_ORIGIN[source]}", effect_map(effects[source], limit)))
    labels = [f"{group.label}\n{group.count:,} images" for group in found.groups]
    return with_scale(image_grid(columns, labels), limit, notes)


def _pictures(found: PopulationEffects, source: str, pair: MeanPair) -> list[tuple[str, Tensor]]:
    flipped, do = _flipped(found), do_text(found.subjects.do)
    titles = (
        (f"mean with lower {flipped}", f"mean with higher {flipped}")
        if flipped
        else ("mean as they are", f"mean under do({do})")
    )
    both = [
        (f"{title}, {_ORIGIN[source]}", images)
        for title, images in zip(titles, (pair.before_GCHW, pair.after_GCHW), strict=True)
    ]
    # The photographs' columns already show the subjects as they are.
    is_shown = source == TRUTH and not flipped and POSTERIOR in found.means
    return both[1:] if is_shown else both


def _flipped(found: PopulationEffects) -> str | None:
    """The flipped treatment, which is then the only one; None without a flip."""
    return next((name for name, value in found.subjects.do.items() if value == "flip"), None)
