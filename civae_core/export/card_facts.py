"""What an evaluation says about a model, as titled tables for model cards, on a hub and in the terminal.

The evaluation may come from a stranger: whatever is missing or malformed counts as not measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from civae_core.assignments import do_text
from civae_core.evaluation.naming import OBJECTIVE_NAMES
from civae_core.evaluation.values import as_value, at_path
from civae_core.reading import finite_number


@dataclass(frozen=True)
class Facts:
    """One part of a card."""

    title: str
    about: str
    """What the table shows or, if there is no table, why."""
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()


def overlap_facts(evaluation: Mapping[str, Any] | None) -> Facts:
    """How far the arms of each treatment overlap."""
    title = "Overlap"
    found = _group(evaluation, "overlap")
    if not found:
        return Facts(
            title, "Not reported: `civae evaluate` measures how far the arms of a treatment overlap."
        )
    rows = [
        (
            name,
            *(number(at_path(entry, [key])) for key in ("auc", "share_extreme", "effective_sample_share")),
            str(at_path(entry, ["verdict"]) or ""),
        )
        for name, entry in found.items()
    ]
    head = ("treatment", "AUC of the propensity", "share beyond .05 to .95", "effective sample", "verdict")
    return Facts(title, "", head, rows)


def measured_facts(evaluation: Mapping[str, Any] | None, method: Mapping[str, Any]) -> Facts:
    """Errors and effectiveness, with their intervals; means over runs if several were evaluated."""
    title = "Measured"
    if evaluation is None or not method:
        return Facts(title, "Nothing yet: there is no evaluation of this model. `civae evaluate` makes one.")
    names = {
        "relative_effect_error": "relative effect error (0 perfect, 1 copying the picture)",
        "relative_effect_error_mean_image": "the same, without the picture's fine detail (τ = 0)",
        "ate_error": "relative error of the mean effect",
        "psnr_counterfactual": "PSNR against the true counterfactual, dB",
        "psnr_reconstruction": "PSNR of the reconstruction, dB",
    }
    values = {text: method[key] for key, text in names.items() if key in method}
    for treatment, scores in _group(method, "effectiveness").items():
        if isinstance(scores, Mapping) and "accuracy" in scores:
            text = f"answers that an independent scorer finds as intended, {treatment}"
            values[text] = scores["accuracy"]
    do = _group(evaluation, "do")
    # A stranger's file may hold anything.
    asked = do_text(
        {name: str(value) if finite_number(value) is None else value for name, value in do.items()}
    )
    about = (
        f"{evaluation.get('n', '?')} images of {evaluation.get('data', '?')}, split "
        f"{evaluation.get('split', '?')}, under {asked} with τ = {evaluation.get('noise', '?')}; "
        f"means with 95 % bootstrap intervals over images, {_trained(values.values()) or 'one training run'}."
    )
    rows = [(text, interval(value)) for text, value in values.items()]
    return Facts(title, about, ("figure", ""), rows)


def leak_facts(method: Mapping[str, Any]) -> Facts:
    """Changes that an independent scorer sees in attributes that should not change."""
    found = _group(method, "leak")
    if not found:
        return Facts("Leak", "Not measured.")
    against = "what the true counterfactual moves" if method.get("leak_reference") == "truth" else "no change"
    about = (
        "How far the treatment moves an independent scorer's mean logit of attributes that it should leave alone, "
        f"against {against}; 0 is ideal."
    )
    if runs := _trained(found.values()):
        about += f" Shifts are {runs}."
    rows = [(name, interval(value)) for name, value in found.items()]
    return Facts("Leak", about, ("attribute", "shift of the mean logit"), rows)


def reading_facts(objective: str, evaluation: Mapping[str, Any] | None) -> Facts:
    """How well the model's own predictor reads labels that are not stated, and how calibrated it is."""
    title = "Labels that are not stated"
    found = part_of(evaluation, "predictor", objective)
    if not found:
        return Facts(title, "How well they are predicted was not measured.")
    rows = [
        (
            name,
            number(entry.get("accuracy", entry.get("r2"))),
            number(entry.get("ece")),
            number(entry.get("ece_by_chance")),
        )
        for name, entry in found.items()
        if isinstance(entry, Mapping)
    ]
    about = (
        "A small network predicts them. Share of held-out images read correctly (of a continuous attribute R²), and "
        "how far its probabilities are off (expected calibration error), beside what chance alone would give."
    )
    return Facts(title, about, ("attribute", "read correctly", "calibration error", "by chance"), rows)


def part_of(evaluation: Mapping[str, Any] | None, part: str, objective: str) -> Mapping[str, Any]:
    """The entry on the model itself in the part `methods` or `predictor` of an evaluation; empty if there is none."""
    return _group(evaluation, part, OBJECTIVE_NAMES[objective])


def _group(entry: object, *path: str) -> Mapping[str, Any]:
    found = at_path(entry, path)
    return found if isinstance(found, Mapping) else {}


def _trained(values: Iterable[object]) -> str:
    """A phrase on the runs that such numbers are averaged over; empty if they are the model's own."""
    runs = max((known.runs for value in values if (known := as_value(value))), default=1)
    if runs == 1:
        return ""
    return f"averaged over {runs} training runs (± their standard deviation): this model's and those of other seeds"


def interval(value: Any) -> str:
    """A mean as text, with its spread over runs and its interval where available."""
    known = as_value(value)
    if known is None:
        return number(None)
    text = number(known.mean) + ("" if known.sd is None else f" ± {number(known.sd)}")
    if known.lo is None or known.hi is None:
        return text
    return f"{text} ({number(known.lo)} to {number(known.hi)})"


def number(value: Any) -> str:
    """A number with three significant digits, or a dash if it is not known."""
    known = finite_number(value)
    return "–" if known is None else f"{known:.3g}"
