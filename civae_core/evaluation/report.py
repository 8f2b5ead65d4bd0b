"""The evaluation as one self-contained HTML page that needs neither network nor explanation."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from civae_core.evaluation.columns import (
    ABSENT,
    METHODS,
    as_value,
    best_methods,
    columns_present,
    do_text,
    ordered,
)
from civae_core.figures.pictures import png_bytes

_TEMPLATE = "report.html.j2"


def render_evaluation(
    evaluation: Mapping[str, Any],
    pictures: Sequence[tuple[str, Image.Image]],
    overlap: Mapping[str, Any] | None,
) -> str:
    """The page's HTML.

    Args:
        evaluation: the dictionary of `evaluate --json`. Beside the keys of that schema, `treatment`,
            `covariates` and `descendants` (names or lists of names) and `do` (a mapping) say what was asked.
            Absent keys leave their part out; unknown ones are passed over.
        pictures: caption and picture, embedded in this order.
        overlap: `OverlapReport.to_dict()` of the treatment, or a mapping from each treatment's name to one.
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
        overlaps=[_overlap(report) for report in _reports(overlap)],
        pictures=[
            {
                "caption": caption,
                "data": base64.b64encode(png_bytes(picture)).decode(),
                "width": picture.width,
            }
            for caption, picture in pictures
        ],
        methods=[{"name": name, "meaning": METHODS.get(name, "")} for name in ordered(methods)],
        rows=_rows(methods),
        others=[
            {"do": do_text(other["do"]), "n": other["n"], "rows": _rows(other["methods"])}
            for other in evaluation.get("other_interventions", ())
        ],
        leaks=_nested_rows(methods, "leak", decimals=2),
        effects=_effectiveness(methods),
        columns=columns_present(methods),
        absent=ABSENT,
    )


def _asked(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of each line of the page's first table."""
    lines = []
    if evaluation.get("do"):
        changes = ", ".join(f"{name} → {_value_text(value)}" for name, value in evaluation["do"].items())
        lines.append(("intervention", changes))
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
    scores = [f"{name} {value.text(2)}" for name, value in found.items() if value and name != "copy"]
    if not scores:
        return None
    return (
        f"Relative effect error: {', '.join(scores)}. "
        "0 is a perfect counterfactual; 1 is what returning the input unchanged scores."
    )


def _rows(methods: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for column in columns_present(methods):
        best = best_methods(methods, column)
        cells = [
            _cell(methods[name].get(column.key), column.decimals, name in best) for name in ordered(methods)
        ]
        rows.append({"title": column.title, "better": column.better, "cells": cells})
    return rows


def _nested_rows(methods: Mapping[str, Any], key: str, decimals: int) -> list[dict[str, Any]]:
    """Rows of an entry that maps attributes to numbers; the attribute with the largest one first."""
    attributes: dict[str, float] = {}
    for entry in methods.values():
        for attribute, number in (entry.get(key) or {}).items():
            value = as_value(number)
            if value is not None:
                attributes[attribute] = max(attributes.get(attribute, 0.0), abs(value.mean))
    return [
        {
            "title": attribute,
            "better": "",
            "cells": [
                _cell((methods[name].get(key) or {}).get(attribute), decimals) for name in ordered(methods)
            ],
        }
        for attribute in sorted(attributes, key=lambda attribute: -attributes[attribute])
    ]


def _effectiveness(methods: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows `treatment: accuracy | F1 | AUC` of the independent scorer."""
    names = ordered(methods)
    keys = list(
        dict.fromkeys(
            (treatment, measure)
            for name in names
            for treatment, scores in (methods[name].get("effectiveness") or {}).items()
            for measure in scores
        )
    )
    rows = []
    for treatment, measure in keys:
        entries = [
            (methods[name].get("effectiveness") or {}).get(treatment, {}).get(measure) for name in names
        ]
        cells = [_cell(entry, 2) for entry in entries]
        rows.append({"title": f"{treatment}: {measure}", "better": "higher", "cells": cells})
    return rows


def _cell(entry: object, decimals: int, best: bool = False) -> dict[str, Any]:
    value = as_value(entry)
    if value is None:
        return {"text": ABSENT, "interval": "", "best": False}
    return {"text": value.text(decimals), "interval": value.interval_text(decimals), "best": best}


def _reports(overlap: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if not overlap:
        return []
    return [overlap] if "verdict" in overlap else list(overlap.values())


def _overlap(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of an overlap report.

    Bars are shares of their own arm, since arms differ in size; the tallest bar of both is 100.
    """
    histogram = report.get("histogram") or {}
    shares = {arm: [count / max(sum(counts), 1) for count in counts] for arm, counts in histogram.items()}
    tallest = max((share for bars in shares.values() for share in bars), default=0.0) or 1.0
    return {
        "treatment": report.get("treatment", ""),
        "level": report.get("level", "unknown"),
        "verdict": report["verdict"],
        "arms": [
            {
                "name": arm,
                "bars": [
                    {"count": count, "height": 100.0 * share / tallest}
                    for count, share in zip(histogram[arm], bars, strict=True)
                ],
            }
            for arm, bars in shares.items()
        ],
        "balance": [
            {
                "covariate": row["covariate"],
                "before": _cell(row.get("before"), 2)["text"],
                "after": _cell(row.get("after"), 2)["text"],
            }
            for row in report.get("balance") or []
        ],
        "measure": report.get("balance_measure", ""),
    }
