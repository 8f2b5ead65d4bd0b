"""civae info: what a path holds, as a readable card."""

import re
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from civae_cli.completion import complete_path
from civae_cli.options import JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import terminal
from civae_core.errors import escaped
from civae_core.reading import finite_number

_WIDTH, _COLUMN = 100, 60
"""Characters of a line of prose, and of the longest cell of a table."""


def info(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Prepared data, a run, a checkpoint, a model.safetensors or a scorer's file.",
            autocompletion=complete_path,
        ),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all prepared data and compare it with its checksums.")
    ] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Describe prepared data, a run, a checkpoint, a model file or a scorer made by `train-scorer`.

    For a model, shows its card: data, roles, overlap, measured errors and leaks, how well it reads labels, and
    limits. The figures are those of `civae evaluate`, if exactly this model was evaluated.

    \b
    Examples:
      civae info runs/young
      civae info data/celeba-64 --verify
      civae info runs/young/checkpoints/best --json
    """
    from civae_core.inspection import inspect

    voice = terminal(quiet, verbose, json)
    facts = inspect(path, verify=verify)
    voice.result(facts, card(facts))


def card(facts: dict[str, Any]) -> str:
    """The facts of `inspect` as aligned lines."""
    rows = {"data": _data_rows, "scorer": _scorer_rows}.get(facts["kind"], _model_rows)(facts)
    width = max(len(name) for name, _ in rows)
    lines = [escaped(f"{name:<{width}}  {text}") for name, text in rows if text]
    if "config" in facts:
        lines += ["", model_card(facts)]
    return "\n".join(lines)


def model_card(facts: dict[str, Any]) -> str:
    """What a stranger must know about a model, as in its card for a hub: overlap, errors, leaks, labels, limits."""
    from civae_core.export.card_facts import (
        leak_facts,
        measured_facts,
        overlap_facts,
        part_of,
        reading_facts,
    )
    from civae_core.export.model_card import LIMITS

    evaluation, objective = facts["evaluation"], facts["objective"]
    method = part_of(evaluation, "methods", objective)
    parts = [_paragraph(f"no figures: {facts['not_evaluated']}")] if evaluation is None else []
    if evaluation is not None:
        found = (
            overlap_facts(evaluation),
            measured_facts(evaluation, method),
            leak_facts(method),
            reading_facts(objective, evaluation),
        )
        parts += [
            _titled(part.title, part.about, [part.head, *part.rows] if part.rows else []) for part in found
        ]
    parts.append(
        "limits\n" + "\n".join(_paragraph(f"- {line}", "  ", "    ") for line in _plain(LIMITS).split("\n- "))
    )
    return "\n\n".join(parts)


def _titled(title: str, about: str, table: list[tuple[str, ...]]) -> str:
    """A heading, its text, and a table in columns; a last cell that is too long for a column goes below its row."""
    lines = [title.lower(), *([_paragraph(_plain(about), "  ")] if about else [])]
    short = [row if len(row[-1]) <= _COLUMN else row[:-1] for row in table]
    count = max((len(row) for row in short[1:]), default=0)
    short[:1] = [row[:count] for row in short[:1]]
    widths = [max(len(row[place]) for row in short if place < len(row)) for place in range(count)]
    for row, whole in zip(short, table, strict=True):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        lines.append("  " + "  ".join(cells).rstrip())
        if len(whole[-1]) > _COLUMN:
            lines.append(_paragraph(whole[-1], "    "))
    return "\n".join(lines)


def _plain(markdown: str) -> str:
    return re.sub(r"\n  ", " ", re.sub(r"[*`]|^- ", "", markdown))


def _paragraph(text: str, indent: str = "", later: str | None = None) -> str:
    further = indent if later is None else later
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=further)


def _data_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    splits = ", ".join(f"{name} {count:,}" for name, count in facts["splits"].items())
    rows = [
        ("prepared data", f"{facts['name']} in {facts['path']}"),
        ("images", f"{facts['images']:,} ({splits})"),
        ("rejected", f"{facts['rejected']:,}, listed in report.json" if facts["rejected"] else ""),
        ("format", _format(facts["preprocessing"])),
        ("on disk", f"{facts['bytes'] / 1e6:,.1f} MB"),
        ("fingerprint", facts["fingerprint"][:16]),
    ]
    rows += [("true counterfactuals", f"{t['name']} ({t['images']:,} images)") for t in facts["truth"]]
    for number, attribute in enumerate(facts["attributes"]):
        rows.append(("attributes" if number == 0 else "", _attribute(attribute)))
    return rows


def _attribute(attribute: dict[str, Any]) -> str:
    if attribute["kind"] == "binary":
        return f"{attribute['name']} (binary, {attribute['mean']:.0%} of the training split)"
    low, high, mean = attribute["low"], attribute["high"], attribute["mean"]
    return f"{attribute['name']} (continuous, {low:g} to {high:g}, mean {mean:.3g})"


def _model_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    config, roles = facts["config"], facts["roles"]
    model = config["model"]
    network = (
        f"{facts['weights']:,} weights, {_latents(model)} latent dimensions, "
        f"width {model['width']} × {model['stages']}, {model['norm']} norm"
    )
    rows = [
        (facts["kind"], facts["path"]),
        ("trained", f"{facts['images_seen']:,} of {facts['images_planned']:,} images{_times(facts)}"),
        ("objective", f"{facts['objective']}, prior {model['prior']}, β {config['loss']['beta']:g}"),
        *((name, ", ".join(names)) for name, names in roles.items()),
        ("images", _format(facts["preprocessing"])),
        ("network", network),
        ("data", f"{facts['data'].get('name', '?')} ({facts['data'].get('fingerprint', '')[:16]})"),
        ("reconstructs", _familiarity(facts.get("familiarity"))),
    ]
    if facts["kind"] == "run":
        best = facts.get("best")
        rows.append(("checkpoints", ", ".join(facts["checkpoints"]) + (f" (best: {best})" if best else "")))
        if "overfit" in facts:
            from civae_core.overfitting import Overfit

            told = Overfit(**facts["overfit"]).describe()
            rows.append(("overfitted", f"{told}; checkpoints/best was saved before that"))
        if facts["last_metrics"]:
            numbers = {name: finite_number(value) for name, value in facts["last_metrics"].items()}
            shown = (f"{name} {number:.6g}" for name, number in numbers.items() if number is not None)
            rows.append(("last metrics", ", ".join(shown)))
    return [(name.replace("_", " "), text) for name, text in rows]


def _times(facts: dict[str, Any]) -> str:
    """How often each training image was shown, if the model knows how many there were."""
    if "photographs" not in facts:
        return ""
    return (
        f", each of {facts['photographs']:,} shown {facts['images_seen'] / facts['photographs']:,.3g} times"
    )


def _latents(model: dict[str, Any]) -> str:
    """Dimensions of z: `64` or, with several scales, `64 + 4·4² + 4·8²`."""
    grids = (model["scales"] or [])[1:]
    return " + ".join([str(model["latent"]), *(f"{model['scale_latents']}·{side}²" for side in grids)])


def _scorer_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from civae_core.yardstick.table import quality_text

    rows = [
        ("scorer", f"{facts['name']} in {facts['path']}"),
        ("fingerprint", facts["fingerprint"][:16]),
        ("trained", f"on {facts['images']:,} images, seed {facts['seed']}"),
        ("data", f"{facts['data']['name']} ({facts['data']['fingerprint'][:16]})"),
        *((name, ", ".join(names)) for name, names in facts["roles"].items()),
        ("images", _size(facts["preprocessing"])),
        ("network", f"{facts['weights']:,} weights"),
    ]
    rows.append(("reads correctly", "share, and AUC; of a continuous attribute R²"))
    tried = {"photographs": facts["photos"], "blurred": facts["blurred"], **facts["reconstructions"]}
    for number, attribute in enumerate(facts["attributes"]):
        found = "; ".join(
            f"{source} {quality_text(quality[attribute['name']])}"
            for source, quality in tried.items()
            if quality.get(attribute["name"])
        )
        name = f"{attribute['name']} ({attribute['kind']})"
        rows.append(("judges" if number == 0 else "", f"{name}: {found}" if found else name))
    return rows


def _familiarity(known: dict[str, Any] | None) -> str:
    if known is None:
        return ""
    return (
        f"{known['level']:.0%} of images with a mean squared error up to {known['limit']:.3g}, half up to "
        f"{known['median']:.3g} ({known['images']:,} of {known['split']})"
    )


def _size(preprocessing: dict[str, Any]) -> str:
    colour = "grey" if preprocessing["channels"] == 1 else "RGB"
    return f"{preprocessing['size']} × {preprocessing['size']} {colour}"


def _format(preprocessing: dict[str, Any]) -> str:
    crop = preprocessing.get("crop")
    return _size(preprocessing) + (f", from a centre crop of {crop}" if crop else ", no crop")
