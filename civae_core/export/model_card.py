"""The model card of a published model: what a stranger must know before using it, in Markdown."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from civae_core import __version__
from civae_core.attributes import Attribute
from civae_core.model.stored import ModelCard

SYNTHETIC = "synthetic:faces"
LIMITS = """\
- Answers are **estimated under assumptions**: that the covariates hold whatever treatment and picture have in common,
  and that every combination of them occurs. They are not known of any single photograph.
- What a treatment changes is what it changed in the training data. Who was photographed, how, and who wrote the
  labels is part of it.
- Attributes that are not stated are predicted from the picture, and may be wrong; the output says which, and how sure
  the prediction is.
- Values beyond what training saw are extrapolation. The output says so (`in_range`).
- Not for decisions about people, for identifying them, or for passing an answer off as a photograph."""


def write_card(
    card: ModelCard,
    evaluation: Mapping[str, Any] | None,
    *,
    title: str,
    licence: str,
    data_licence: str | None,
) -> str:
    """The card with the front matter that model hubs read.

    Args:
        evaluation: an evaluation of this very model, as `civae evaluate` writes it; None says that there is none.
        title: heading.
        licence: of the weights, as hubs abbreviate it.
        data_licence: of the training images; None where nobody has said it, which the card then says.
    """
    method = method_of(card, evaluation)
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
        "## Overlap",
        _overlap(evaluation),
        "## Measured",
        _measured(card, evaluation, method),
        "## Leak",
        _leak(evaluation, method),
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def method_of(card: ModelCard, evaluation: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The evaluation's figures of the model itself, not those of baselines; None where it has none."""
    if evaluation is None:
        return None
    name = "ours" if card.config.objective == "intact" else card.config.objective
    found: Mapping[str, Any] | None = evaluation.get("methods", {}).get(name)
    return found


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
    if data_licence is None and name == SYNTHETIC:
        data_licence = "none needed: the faces are rendered by civae, and show nobody"
    licence = data_licence or (
        "**not stated**. Find it out before you use or pass on this model: many sets of faces allow research only"
    )
    rows = [
        ("training images", name),
        ("fingerprint of the prepared data", f"`{card.data['fingerprint']}`"),
        ("licence of the images", licence),
        ("images shown in training", f"{card.images_seen:,}"),
        ("crop and size", ", ".join(f"{k} {v}" for k, v in card.preprocessing.items() if v is not None)),
    ]
    kept = (
        f"The weights' file holds the attribute values of {len(card.subjects)} training subjects, without names or "
        "pictures: samples are drawn for them."
    )
    return _table(("", ""), rows) + "\n\n" + kept


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


def _overlap(evaluation: Mapping[str, Any] | None) -> str:
    found = (evaluation or {}).get("overlap") or {}
    if not found:
        return "Not reported: `civae evaluate` measures how far the arms of a treatment overlap."
    rows = [
        (
            name,
            _number(entry.get("auc")),
            _number(entry.get("share_extreme")),
            _number(entry.get("effective_sample_share")),
            entry.get("verdict", ""),
        )
        for name, entry in found.items()
    ]
    head = ("treatment", "AUC of the propensity", "share beyond .05 to .95", "effective sample", "verdict")
    return _table(head, rows)


def _measured(card: ModelCard, evaluation: Mapping[str, Any] | None, method: Mapping[str, Any] | None) -> str:
    if evaluation is None or method is None:
        return "Nothing yet: there is no evaluation of this model. `civae evaluate` makes one."
    names = {
        "relative_effect_error": "relative effect error (0 perfect, 1 copying the picture)",
        "relative_effect_error_mean_image": "the same, without the picture's fine detail (τ = 0)",
        "ate_error": "relative error of the mean effect",
        "psnr_counterfactual": "PSNR against the true counterfactual, dB",
        "psnr_reconstruction": "PSNR of the reconstruction, dB",
    }
    rows = [(text, _interval(method[key])) for key, text in names.items() if key in method]
    for treatment, scores in method.get("effectiveness", {}).items():
        if isinstance(scores, Mapping) and "accuracy" in scores:
            text = f"answers that an independent scorer finds as intended, {treatment}"
            rows.append((text, _interval(scores["accuracy"])))
    asked = ", ".join(f"{name}={value}" for name, value in evaluation.get("do", {}).items())
    about = (
        f"{evaluation.get('n', '?')} images of {_text(evaluation.get('data', '?'))}, split "
        f"{_text(evaluation.get('split', '?'))}, under {_text(asked)} with τ = {evaluation.get('noise', '?')}; means "
        "with 95 % bootstrap intervals over images, one training run."
    )
    return about + "\n\n" + _table(("figure", ""), rows)


def _leak(evaluation: Mapping[str, Any] | None, method: Mapping[str, Any] | None) -> str:
    found = (method or {}).get("leak") or {}
    if not found:
        return "Not measured."
    against = (
        "what the true counterfactual moves"
        if (method or {}).get("leak_reference") == "truth"
        else "no change"
    )
    rows = [(name, _interval(value)) for name, value in found.items()]
    about = (
        "How far an independent scorer's mean logit of an attribute moves that the treatment should leave alone, "
        f"against {against}; 0 is ideal."
    )
    return about + "\n\n" + _table(("attribute", "shift of the mean logit"), rows)


def _interval(value: Any) -> str:
    if isinstance(value, Mapping) and "mean" in value:
        if "lo" in value and "hi" in value:
            return f"{_number(value['mean'])} ({_number(value['lo'])} to {_number(value['hi'])})"
        return _number(value["mean"])
    return _number(value)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"


def _listed(attributes: Sequence[Attribute]) -> str:
    return ", ".join(attribute.name for attribute in attributes) or "–"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(value: object) -> str:
    """Text that a table's cell can hold, whatever a column of somebody's table was called."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")
