"""A benchmark's results as one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from civae_core.assignments import do_text
from civae_core.config.dump import to_yaml
from civae_core.evaluation.naming import MEANINGS, ordered
from civae_core.evaluation.paged import page_glossary, page_sections
from civae_core.figures.pages import render_page

_TEMPLATE = Path(__file__).with_name("report.html.j2")


def render_benchmark(results: Mapping[str, Any], figure_svg: str | None) -> str:
    """The page's HTML.

    Args:
        results: the content of benchmark.json.
        figure_svg: the figure of error against overlap as an SVG document, if there is one.
    """
    cells = results["cells"]
    budgets = {method["config"]["train"]["images"] for method in results["methods"].values()}
    return render_page(
        _TEMPLATE,
        figure=None if figure_svg is None else Markup(figure_svg[figure_svg.index("<svg") :]),
        runs=len(cells),
        runs_done=sum(cell["status"] == "done" for cell in cells),
        seeds=", ".join(map(str, results["seeds"])),
        images=" or ".join(f"{budget:,}" for budget in sorted(budgets)),
        methods=[
            {"name": name, "meaning": meaning_of(method["config"]), "changes": _changes(method["changes"])}
            for name, method in results["methods"].items()
        ],
        data=[_data_set(data, results["summary"][data["name"]]) for data in results["data"]],
        unfinished=[
            {
                "name": f"{cell['data']}/{cell['method']}-seed{cell['seed']}",
                "failed": cell["status"] == "failed",
                "why": cell.get("error", "not trained yet"),
            }
            for cell in cells
            if cell["status"] != "done"
        ],
        glossary=page_glossary(results["summary"].values()),
    )


def meaning_of(config: Mapping[str, Any]) -> str:
    """Describe a method by its settings rather than by its name, which is arbitrary."""
    if config["objective"] != "intact":
        return MEANINGS[config["objective"]]
    prior = {"xt": "learned prior p(z|x,t)", "x": "balanced prior p(z|x)", "standard": "prior N(0, I)"}
    weights = {
        "none": "no weights",
        "inverse": "inverse-propensity weights",
        "overlap": "overlap weights",
    }
    settings = [prior[config["model"]["prior"]], weights[config["loss"]["weights"]]]
    return ", ".join([*settings, "latent and pixel noise abducted"])


def _data_set(data: Mapping[str, Any], methods: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": data["name"],
        "balance": data["balance"],
        "asked": _asked(data["asked"]),
        "methods": [{"name": name, "meaning": ""} for name in ordered(methods)],
        "sections": page_sections(methods),
    }


def _asked(asked: Mapping[str, Any]) -> str:
    if not asked:
        return ""
    text = f"{asked['n']:,} {asked['split']} images"
    return text + (f", do({do_text(asked['do'])})" if asked.get("do") else "")


def _changes(changes: Mapping[str, Any]) -> str:
    """A method's changes to the base on one line, as in `loss.weights: none, model.prior: x`."""
    parts = []
    for section, values in changes.items():
        entries = values.items() if isinstance(values, Mapping) else [("", values)]
        for key, value in entries:
            parts.append(to_yaml({f"{section}.{key}" if key else section: value}).strip())
    return ", ".join(parts)
