"""The evaluation as one self-contained HTML page that needs no network access and no explanation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from civae_core.assignments import do_text
from civae_core.evaluation.measures import NOT_COMPETING
from civae_core.evaluation.naming import MEANINGS, ordered
from civae_core.evaluation.paged import page_cell, page_glossary, page_sections
from civae_core.evaluation.predictor_tables import predictor_tables
from civae_core.evaluation.values import ABSENT, as_value
from civae_core.figures.pages import render_page
from civae_core.figures.pictures import Picture, inlined
from civae_core.inference.plausible import SURE

_TEMPLATE = Path(__file__).with_name("report.html.j2")


def render_evaluation(
    evaluation: Mapping[str, Any],
    pictures: Sequence[Picture],
) -> str:
    """Render the page as HTML.

    Args:
        evaluation: the dictionary of `evaluate --json`. `treatment`, `covariates` and `descendants` (names or lists
            of names) and `do` (a mapping) say what was asked. Parts of the page whose keys are absent are left out;
            unknown keys are ignored.
        pictures: embedded in this order.
    """
    methods = evaluation.get("methods", {})
    others = evaluation.get("other_interventions", ())
    return render_page(
        _TEMPLATE,
        asked=_asked(evaluation),
        headline=_headline(methods),
        overlaps=[_overlap(report) for report in (evaluation.get("overlap") or {}).values()],
        pictures=[
            {
                "title": picture.title,
                "caption": picture.caption,
                "address": inlined(picture.image),
                "width": picture.image.width,
            }
            for picture in pictures
        ],
        methods=[{"name": name, "meaning": MEANINGS.get(name, "")} for name in ordered(methods)],
        sections=page_sections(methods),
        others=[
            {"do": do_text(other["do"]), "n": other["n"], "sections": page_sections(other["methods"])}
            for other in others
        ],
        groups=_groups(methods),
        scorer=_scorer(evaluation.get("scorer")),
        predictors=predictor_tables(evaluation.get("predictor")),
        glossary=page_glossary([methods, *(other["methods"] for other in others)]),
        sure=SURE,
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
    """The main result in one sentence; None if the truth is not known."""
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


def _groups(methods: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each competing method's groups, worst first, by relative effect error or, without a truth, effectiveness."""
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
            {"group": g["group"], "n": g["n"], "cell": page_cell(as_value({**g, "group": ""}), 2)}
            for g in groups
        ]
        tables.append({"method": name, "measure": measure.replace("_", " "), "rows": rows})
    return tables


def _scorer(scorer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """How well the independent scorer reads each attribute of photographs and of each model's reconstructions."""
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
    """`0.97 (AUC 0.99, worst group 0.93)`; for a continuous attribute `R² 0.9`."""
    values = {key: value for key in found if (value := as_value(found[key])) is not None}
    if "accuracy" in values:
        extra = {"auc": "AUC", "worst_group_accuracy": "worst group"}
        more = ", ".join(f"{label} {values[key].text(2)}" for key, label in extra.items() if key in values)
        return values["accuracy"].text(2) + (f" ({more})" if more else "")
    return f"R² {values['r2'].text(2)}" if "r2" in values else ABSENT


def _overlap(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says about an overlap report; its histogram is among the pictures."""
    return {
        "treatment": report.get("treatment", ""),
        "level": report.get("level", "unknown"),
        "verdict": report["verdict"],
        "balance": [
            {
                "covariate": row["covariate"],
                "before": page_cell(as_value(row.get("before")), 2)["text"],
                "after": page_cell(as_value(row.get("after")), 2)["text"],
            }
            for row in report.get("balance") or []
        ],
        "measure": report.get("balance_measure", ""),
    }
