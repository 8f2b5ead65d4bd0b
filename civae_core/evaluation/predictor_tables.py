"""The attribute predictor's quality as tables of the report, for binary attributes and for quantities."""

from collections.abc import Mapping
from typing import Any

from civae_core.evaluation.values import ABSENT, as_value

_BINARY = {
    "images": "n",
    "right": "accuracy",
    "AUC": "auc",
    "ECE": "ece",
    "by chance": "ece_by_chance",
    "log loss": "nll",
    "temperature": "temperature",
    "unsure": "unsure",
}
_QUANTITY = {
    "images": "n",
    "R²": "r2",
    "mean error": "mae",
    "predicted ±": "sd",
    "within 1.96 ±": "within_95",
    "log loss": "nll",
}
_SHARES = {"accuracy", "unsure", "within_95"}


def predictor_tables(predictor: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """One table per model and kind of attribute: its title, its columns, and a row of texts for each attribute.

    Args:
        predictor: the entry `predictor` of `evaluate --json`.
    """
    tables = []
    for model, quality in (predictor or {}).items():
        for columns, kind in ((_BINARY, "accuracy"), (_QUANTITY, "mae")):
            of_kind = {name: found for name, found in quality.items() if kind in found}
            if of_kind:
                rows = [
                    {"attribute": name, "cells": [_cell(found, key) for key in columns.values()]}
                    for name, found in of_kind.items()
                ]
                tables.append({"title": model, "columns": list(columns), "rows": rows})
    return tables


def _cell(found: Mapping[str, Any], key: str) -> str:
    """A number and, in brackets, its value before calibration where that differs."""
    value = as_value(found.get(key))
    if value is None:
        return ABSENT
    if key == "n":
        return f"{value.mean:,.0f}"
    if key in _SHARES:
        return f"{100 * value.mean:.1f} %"
    before = as_value(found.get(f"{key}_uncalibrated"))
    digits = 3 if key in ("ece", "ece_by_chance", "nll", "auc") else 2
    text = value.text(digits) if key != "mae" and key != "sd" else f"{value.mean:.3g}"
    return text if before is None or before.text(digits) == text else f"{text} ({before.text(digits)})"
