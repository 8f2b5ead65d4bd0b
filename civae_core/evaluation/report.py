"""The evaluation as one self-contained HTML page that needs neither network nor explanation."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from civae_core.evaluation.measures import (
    NOT_COMPETING,
    Measure,
    best_methods,
    measures_present,
    sections_present,
)
from civae_core.evaluation.naming import MEANINGS, ordered
from civae_core.evaluation.question import do_text
from civae_core.evaluation.values import ABSENT, Value, as_value
from civae_core.figures.pictures import Picture, png_bytes

_TEMPLATE = "report.html.j2"


def render_evaluation(
    evaluation: Mapping[str, Any],
    pictures: Sequence[Picture],
) -> str:
    """The page's HTML.

    Args:
        evaluation: the dictionary of `evaluate --json`. Beside the keys of that schema, `treatment`,
            `covariates` and `descendants` (names or lists of names) and `do` (a mapping) say what was asked.
            Absent keys leave their part out; unknown ones are passed over.
        pictures: embedded in this order.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    methods = evaluation.get("methods", {})
    return environment.get_template(_TEMPLATE).render(
        asked=_asked(evaluation),
        headline=_headline(methods),
        overlaps=[_overlap(report) for report in (evaluation.get("overlap") or {}).values()],
        pictures=[
            {
                "title": picture.title,
                "caption": picture.caption,
                "data": base64.b64encode(png_bytes(picture.image)).decode(),
                "width": picture.image.width,
            }
            for picture in pictures
        ],
        methods=[{"name": name, "meaning": MEANINGS.get(name, "")} for name in ordered(methods)],
        sections=_sections(methods),
        others=[
            {"do": do_text(other["do"]), "n": other["n"], "sections": _sections(other["methods"])}
            for other in evaluation.get("other_interventions", ())
        ],
        groups=_groups(methods),
        scorer=_scorer(evaluation.get("scorer")),
        glossary=_glossary(evaluation),
        absent=ABSENT,
    )


def _asked(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of each line of the page's first table."""
    lines = []
    methods = evaluation.get("methods", {})
    if evaluation.get("do"):
        changes = ", ".join(f"{name} → {_value_text(value)}" for name, value in evaluation["do"].items())
        lines.append(("intervention", changes))
    scorer, realism = evaluation.get("scorer") or {}, _first(methods, "realism")
    if scorer:
        lines.append(("judged by", str(scorer["name"])))
    if realism:
        counts = f"{realism['n']:,} counterfactuals against {realism['n_reference']:,} training images"
        lines.append(("FID and KID", f"features of {realism['extractor']}; {counts}"))
    for key, label in (
        ("treatment", "treatment (what is changed)"),
        ("covariates", "covariates (context that is kept)"),
        ("descendants", "descendants (allowed to follow)"),
        ("data", "data"),
        ("split", "split"),
        ("n", "images"),
        ("noise", "pixel noise re-applied (0 none, 1 all)"),
        ("seed", "seed"),
    ):
        value = evaluation.get(key)
        if value is not None and value != []:
            lines.append((label, _value_text(value)))
    return lines


def _first(methods: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The first method's entry of that name, or an empty one."""
    return next((entry[key] for entry in methods.values() if entry.get(key)), {})


def _value_text(value: object) -> str:
    if value == "flip":
        return "the other value"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence):
        return ", ".join(map(_value_text, value))
    return str(value)


def _headline(methods: Mapping[str, Any]) -> str | None:
    """The main result in a sentence, if the truth was known."""
    found = {name: as_value(methods[name].get("relative_effect_error")) for name in ordered(methods)}
    scores = [
        f"{name} {value.text(2)}" for name, value in found.items() if value and name not in NOT_COMPETING
    ]
    if not scores:
        return None
    return (
        f"Relative effect error: {', '.join(scores)}. "
        "0 is a perfect counterfactual; 1 is what returning the input unchanged scores."
    )


def _sections(methods: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "title": section.title,
            "intro": section.intro,
            "rows": [_row(measure, methods) for measure in section.measures],
        }
        for section in sections_present(methods)
    ]


def _row(measure: Measure, methods: Mapping[str, Any]) -> dict[str, Any]:
    best = best_methods(methods, measure)
    cells = [_cell(measure.value(methods[name]), measure.decimals, name in best) for name in ordered(methods)]
    return {"title": measure.title, "better": f"{measure.better} is better", "cells": cells}


def _cell(value: Value | None, decimals: int, best: bool = False) -> dict[str, Any]:
    if value is None:
        return {"text": ABSENT, "small": [], "best": False}
    runs = f"{value.runs} runs" if value.runs > 1 else ""
    small = [text for text in (value.note, value.interval_text(decimals), runs) if text]
    return {"text": value.text(decimals), "small": small, "best": best}


def _groups(methods: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each competing method's groups by relative effect error (without a truth: effectiveness), the worst first."""
    tables = []
    for name in ordered(methods):
        found = methods[name].get("subgroups") or {}
        measure = next((m for m in ("relative_effect_error", "effectiveness") if m in found), None)
        if measure is None or name in NOT_COMPETING:
            continue
        worst_is_large = measure == "relative_effect_error"
        groups = sorted(
            found[measure].get("groups", ()), key=lambda group: group["mean"], reverse=worst_is_large
        )
        rows = [
            {"group": g["group"], "n": g["n"], "cell": _cell(as_value({**g, "group": ""}), 2)} for g in groups
        ]
        tables.append({"method": name, "measure": measure.replace("_", " "), "rows": rows})
    return tables


def _scorer(scorer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """How well the independent network tells each attribute: on photographs, and on each model's reconstructions."""
    if not scorer:
        return []
    sources = {"photographs": scorer.get("photos", {})} | scorer.get("reconstructions", {})
    names = list(dict.fromkeys(name for quality in sources.values() for name in quality))
    return [
        {
            "attribute": name,
            "cells": [
                {"source": source, "text": _quality(quality.get(name) or {})}
                for source, quality in sources.items()
            ],
        }
        for name in names
    ]


def _quality(found: Mapping[str, Any]) -> str:
    """`0.97 (AUC 0.99, worst group 0.93)`; of a continuous attribute `R² 0.9`."""
    values = {key: value for key in found if (value := as_value(found[key])) is not None}
    if "accuracy" in values:
        extra = {"auc": "AUC", "worst_group_accuracy": "worst group"}
        more = ", ".join(f"{label} {values[key].text(2)}" for key, label in extra.items() if key in values)
        return values["accuracy"].text(2) + (f" ({more})" if more else "")
    return f"R² {values['r2'].text(2)}" if "r2" in values else ABSENT


def _glossary(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Each measure's meaning once, in the order of the tables."""
    tables = [evaluation, *evaluation.get("other_interventions", ())]
    shown = [m for table in tables for m in measures_present(table.get("methods", {}))]
    return [
        {"title": title, "meaning": meaning} for title, meaning in {m.title: m.meaning for m in shown}.items()
    ]


def _overlap(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of an overlap report; its histogram is among the pictures."""
    return {
        "treatment": report.get("treatment", ""),
        "level": report.get("level", "unknown"),
        "verdict": report["verdict"],
        "balance": [
            {
                "covariate": row["covariate"],
                "before": _cell(as_value(row.get("before")), 2)["text"],
                "after": _cell(as_value(row.get("after")), 2)["text"],
            }
            for row in report.get("balance") or []
        ],
        "measure": report.get("balance_measure", ""),
    }
