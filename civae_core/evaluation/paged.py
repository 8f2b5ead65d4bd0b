"""Measured numbers in the form that the tables of a page expect (`numbers.html.j2`)."""

from collections.abc import Iterable, Mapping
from typing import Any

from civae_core.evaluation.measures import Measure, best_methods, measures_present, sections_present
from civae_core.evaluation.naming import ordered
from civae_core.evaluation.values import ABSENT, Value

Methods = Mapping[str, Mapping[str, Any]]
"""Entries by method, as in `evaluate --json`."""


def page_sections(methods: Methods) -> list[dict[str, Any]]:
    """The sections of measures for which some method has a number; the cells of a row are in the columns' order."""
    return [
        {
            "title": section.title,
            "intro": section.intro,
            "rows": [_row(measure, methods) for measure in section.measures],
        }
        for section in sections_present(methods)
    ]


def page_cell(value: Value | None, decimals: int, best: bool = False) -> dict[str, Any]:
    """A number with its small print: what it belongs to, its interval, and the number of runs it is the mean of."""
    if value is None:
        return {"text": ABSENT, "small": [], "best": False}
    runs = f"{value.runs} runs" if value.runs > 1 else ""
    small = [text for text in (value.note, value.interval_text(decimals), runs) if text]
    return {"text": value.text(decimals), "small": small, "best": best}


def page_glossary(tables: Iterable[Methods]) -> list[dict[str, str]]:
    """Each meaning once, in the order of the tables, however many attributes or tables it applies to."""
    titles: dict[str, dict[str, None]] = {}
    for methods in tables:
        for measure in measures_present(methods):
            titles.setdefault(measure.meaning, {})[measure.title] = None
    return [{"title": _joined(list(names)), "meaning": meaning} for meaning, names in titles.items()]


def _row(measure: Measure, methods: Methods) -> dict[str, Any]:
    best = best_methods(methods, measure)
    cells = [
        page_cell(measure.value(methods[name]), measure.decimals, name in best) for name in ordered(methods)
    ]
    return {"title": measure.title, "better": measure.better, "cells": cells}


def _joined(titles: list[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{titles[0]}, and {len(titles) - 1} more"
