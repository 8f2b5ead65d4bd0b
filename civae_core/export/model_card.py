"""The Markdown model card of a published model: what a stranger must know before using it."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from civae_core import __version__
from civae_core.attributes import Attribute
from civae_core.data.sources.faces import BUILT_IN
from civae_core.export.card_facts import (
    Facts,
    leak_facts,
    measured_facts,
    overlap_facts,
    part_of,
    reading_facts,
)
from civae_core.model.stored import ModelCard

LIMITS = """\
- Answers are **estimated under assumptions**: that the covariates hold whatever treatment and picture have in common,
  and that every combination of them occurs. They are not known of any single photograph.
- What a treatment changes is what it changed in the training data. Who was photographed, how, and who wrote the
  labels is part of it.
- Attributes that are not stated are predicted from the picture, and may be wrong; the output says which, and how sure
  the prediction is.
- Beyond what training saw, a binary treatment is extrapolated, and a dose is answered as at the nearest one seen.
  The output says so (`in_range`).
- Not for decisions about people, for identifying them, or for passing an answer off as a photograph."""


def write_card(
    card: ModelCard,
    evaluation: Mapping[str, Any] | None,
    *,
    title: str,
    licence: str,
    data_licence: str | None,
) -> str:
    """Compose the card, with the front matter that model hubs read.

    Args:
        evaluation: an evaluation of this very model, as written by `civae evaluate`; None if there is none.
        title: the card's heading.
        licence: licence of the weights, as abbreviated on hubs.
        data_licence: licence of the training images; None if nobody has stated it, which the card then says.
    """
    method = part_of(evaluation, "methods", card.config.objective)
    size = card.preprocessing["size"]
    question = (
        f"How would this picture have looked if its subject's {_listed(card.roles.treatments)} were different, "
        f"everything that it does not cause unchanged? A β-Intact-VAE for {size}×{size} images, trained with civae."
    )
    parts = [
        _front_matter(licence),
        f"# {_text(title)}",
        question,
        "## Use",
        _use(card),
        "## Data",
        _data(card, data_licence),
        "## Roles of the attributes",
        _roles(card),
        *(
            _part(facts)
            for facts in (
                overlap_facts(evaluation),
                measured_facts(evaluation, method),
                leak_facts(method),
                reading_facts(card.config.objective, evaluation),
            )
        ),
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _part(facts: Facts) -> str:
    table = _table(facts.head, facts.rows) if facts.rows else ""
    return "\n\n".join(part for part in (f"## {facts.title}", _text(facts.about), table) if part)


def _front_matter(licence: str) -> str:
    tags = ("civae", "counterfactual", "causal-inference", "vae", "fairness")
    lines = [f"license: {licence}", "library_name: civae", "pipeline_tag: image-to-image", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])


def _use(card: ModelCard) -> str:
    treatment = card.roles.treatments[0]
    value = "flip" if treatment.kind == "binary" else f"{treatment.high:g}"
    command = f"civae counterfactual photo.jpg --model FOLDER --treat '{treatment.name}={value}'"
    about = f"FOLDER is the folder of this file. Written by civae {__version__}."
    return f"```console\n{command}\n```\n\n{about}"


def _data(card: ModelCard, data_licence: str | None) -> str:
    name = card.data["name"]
    if data_licence is None and name in BUILT_IN:
        data_licence = "none needed: the faces are rendered by civae, and show nobody"
    licence = data_licence or (
        "**not stated**. Find out before you use or share this model: many sets of faces allow research only"
    )
    rows = [
        ("training images", name),
        ("fingerprint of the prepared data", f"`{card.data['fingerprint']}`"),
        ("licence of the images", licence),
        ("images shown in training", _shown(card)),
        ("a picture becomes", _format(card.preprocessing)),
    ]
    kept = (
        f"The weights' file holds the attribute values of {len(card.subjects)} training subjects, without names or "
        "pictures: samples are drawn for them."
    )
    return _table(("", ""), rows) + "\n\n" + kept


def _shown(card: ModelCard) -> str:
    if card.photographs is None:
        return f"{card.images_seen:,}"
    times = card.images_seen / card.photographs
    return f"{card.images_seen:,}: each of {card.photographs:,} some {times:,.3g} times"


def _format(preprocessing: Mapping[str, Any]) -> str:
    """How the model sees a picture: `64 × 64 RGB, from a centred square of 150 pixels …`."""
    size, colours = preprocessing["size"], "grey" if preprocessing["channels"] == 1 else "RGB"
    crop, of = preprocessing.get("crop"), preprocessing.get("crop_of")
    square = f"a centred square of {crop} pixels" if crop else "its largest centred square"
    return f"{size} × {size} {colours}, from {square}" + (
        f" where the short side has {of}" if crop and of else ""
    )


def _roles(card: ModelCard) -> str:
    roles = card.roles
    rows = [
        ("treatment", _listed(roles.treatments), "what is set to another value"),
        ("covariates", _listed(roles.covariates), "not changed by it, conditioned on"),
        ("descendants", _listed(roles.descendants), "changed by it, allowed to move"),
        ("held out", _listed(roles.held_out), "never an input, watched for leaks"),
    ]
    ranges = [
        (a.name, a.kind, f"{a.low:g} to {a.high:g}", "treatment" if a in roles.treatments else "covariate")
        for a in roles.inputs
    ]
    head = ("input", "kind", "seen in training", "role")
    return _table(("role", "attributes", ""), rows) + "\n\n" + _table(head, ranges)


def _listed(attributes: Sequence[Attribute]) -> str:
    return ", ".join(attribute.name for attribute in attributes) or "–"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(value: object) -> str:
    """Escape text for a Markdown table cell, whatever a column of somebody's table was called."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")
