"""Collect the cells of several `civae benchmark` folders in one small file, and print the tables of docs/levers.md.

    python benchmarks/kept_cells.py docs/levers.json [FOLDER…] [--config configs/levers.yml]
    python benchmarks/kept_cells.py docs/levers.json --stacked cvae original best
    python benchmarks/kept_cells.py docs/headline.json [FOLDER…] --config configs/headline.yml --upright

Cells of the folders replace those with the same data, method and seed in the file. Prints a row for each method of
the config, in its order: the relative effect error at each overlap, and further measures at the last overlap, as mean
± sd over seeds, with a dash where nothing was trained. With `--upright`, prints a row for each measure, and a column
for each overlap and method that has a cell, with the number of its seeds. With `--stacked`, prints a column for each
of the methods named, and a row for each overlap and measure.
"""

import argparse
import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from civae_core.files import write_text

Kept = dict[str, dict[str, list[dict[str, Any]]]]
"""Entries by data set and method, one for each seed: as in `evaluate --json`, with its `seed`."""

MEASURES = (
    "relative_effect_error",
    "relative_effect_error_mean_image",
    "mse_off_effect",
    "ate_error",
    "ate_error_prior",
    "cate_error",
    "cate_error_prior",
    "effectiveness",
    "leak",
    "leak_accuracy",
    "worst_leak",
    "minimality",
    "realism",
    "subgroups",
    "psnr_reconstruction",
    "balance",
)
Shown = dict[str, tuple[int, Callable[[dict[str, Any]], float]]]
"""Number of decimals of each measure, and a function that reads its value from an entry."""
COLUMNS: Shown = {
    "as intended": (2, lambda entry: _only(entry["effectiveness"])["accuracy"]["mean"]),
    "worst leak (sd)": (2, lambda entry: abs(entry["worst_leak"]["mean"])),
    "worst group": (2, lambda entry: entry["subgroups"]["relative_effect_error"]["worst"]["mean"]),
    "off the effect": (4, lambda entry: entry["mse_off_effect"]["mean"]),
    "reconstruction (dB)": (1, lambda entry: entry["psnr_reconstruction"]["mean"]),
}


def rows_of(covariates: Sequence[str]) -> Shown:
    """Rows of the tables of measures: leaks into any attribute and into the first covariate, changes of accuracy."""

    def changes(entry: dict[str, Any], *, of_covariates: bool) -> list[float]:
        of = entry["leak_accuracy"].items()
        return [100 * value["mean"] for name, value in of if (name in covariates) == of_covariates]

    return {
        "relative effect error": (3, lambda entry: entry["relative_effect_error"]["mean"]),
        "average effect error": (3, lambda entry: entry["ate_error"]),
        "as intended": (3, COLUMNS["as intended"][1]),
        "largest leak of a run (logit)": (2, lambda e: max(abs(v["mean"]) for v in e["leak"].values())),
        f"leak into {covariates[0]} (logit)": (2, lambda entry: entry["leak"][covariates[0]]["mean"]),
        "worst leak (sd)": COLUMNS["worst leak (sd)"],
        "covariate seen right, largest loss (points)": (1, lambda e: min(changes(e, of_covariates=True))),
        "other attribute, the same": (1, lambda e: min(changes(e, of_covariates=False))),
        "worst group": COLUMNS["worst group"],
        "off the effect": COLUMNS["off the effect"],
        "reconstruction (dB)": COLUMNS["reconstruction (dB)"],
        "AUC of the treatment gained from z": (2, lambda entry: entry["balance"]["difference"]),
    }


def cells_of(folder: Path) -> Kept:
    """Rounded entries of a benchmark folder's evaluated runs, without those of copying the input and of the truth."""
    found: Kept = {}
    for file in sorted(folder.glob("runs/*/*/evaluation.json")):
        named = re.fullmatch(r"(.+)-seed(\d+)", file.parent.name)
        if named is None:
            continue
        methods = json.loads(file.read_text(encoding="utf-8"))["methods"]
        (entry,) = (entry for name, entry in methods.items() if name not in ("copy", "truth"))
        kept = {"seed": int(named[2])} | {key: _rounded(entry[key]) for key in MEASURES if key in entry}
        found.setdefault(file.parents[1].name, {}).setdefault(named[1], []).append(kept)
    return found


def merged(old: Kept, new: Kept) -> Kept:
    """Merge both; a new entry replaces an old one with the same data, method and seed."""
    result = {data: dict(methods) for data, methods in old.items()}
    for data, methods in new.items():
        for name, entries in methods.items():
            seeds = {entry["seed"] for entry in entries}
            others = [entry for entry in result.get(data, {}).get(name, []) if entry["seed"] not in seeds]
            result.setdefault(data, {})[name] = sorted([*others, *entries], key=lambda entry: entry["seed"])
    return result


def table(kept: Kept, methods: Sequence[str], datasets: Sequence[str]) -> str:
    """A Markdown table with a row for each method that has a cell."""
    last = datasets[-1]
    heads = [_head(data) for data in datasets]
    lines = [
        "| | "
        + " | ".join([f"overlap {heads[0]}", *heads[1:], *(f"{c}, {heads[-1]}" for c in COLUMNS)])
        + " |"
    ]
    lines.append("|---" * (1 + len(datasets) + len(COLUMNS)) + "|")
    for name in methods:
        of = {data: kept.get(data, {}).get(name, []) for data in datasets}
        if not any(of.values()):
            continue
        cells = [_spread([e["relative_effect_error"]["mean"] for e in of[data]], 3) for data in datasets]
        cells += [_spread([read(e) for e in of[last]], decimals) for decimals, read in COLUMNS.values()]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def upright(kept: Kept, methods: Sequence[str], datasets: Sequence[str], covariates: Sequence[str]) -> str:
    """A Markdown table with a row for each measure and a column for each data set and method that has a cell."""
    of = {(data, name): kept.get(data, {}).get(name, []) for data in datasets for name in methods}
    cells = {place: entries for place, entries in of.items() if entries}
    heads = [f"{name}, {_head(data)} ({len(entries)})" for (data, name), entries in cells.items()]
    lines = [f"| overlap | {' | '.join(heads)} |", "|---" * (1 + len(cells)) + "|"]
    for measure, (decimals, read) in rows_of(covariates).items():
        shown = [_spread([read(entry) for entry in entries], decimals) for entries in cells.values()]
        lines.append(f"| {measure} | {' | '.join(shown)} |")
    return "\n".join(lines)


def stacked(kept: Kept, methods: Sequence[str], datasets: Sequence[str], covariates: Sequence[str]) -> str:
    """A Markdown table with a column for each method, and a row for each data set and measure."""
    lines = [f"| overlap | | {' | '.join(methods)} |", "|---" * (2 + len(methods)) + "|"]
    for data in datasets:
        entries_of = [kept.get(data, {}).get(name, []) for name in methods]
        for number, (measure, (decimals, read)) in enumerate(rows_of(covariates).items()):
            shown = [_spread([read(entry) for entry in entries], decimals) for entries in entries_of]
            lines.append(f"| {'' if number else _head(data)} | {measure} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _head(data: str) -> str:
    return data.removeprefix("overlap-").rstrip("0").rstrip(".").lstrip("0")


def _only(values: dict[str, Any]) -> Any:
    (value,) = values.values()
    return value


def _spread(values: Sequence[float], decimals: int) -> str:
    if not values:
        return "–"
    shown = [statistics.mean(values), *([statistics.stdev(values)] if len(values) > 1 else [])]
    return " ± ".join(
        re.sub(r"^(-?)0\.", r"\1.", f"{value:.{decimals}f}").replace("-", "−") for value in shown
    )


def _rounded(value: Any) -> Any:
    """The value without lists, which are of all groups of people: the worst is beside them."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items() if not isinstance(inner, list)}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kept", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--config", type=Path, default=Path("configs/levers.yml"))
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--upright", action="store_true")
    shape.add_argument("--stacked", nargs="+", metavar="METHOD")
    given = parser.parse_args()
    kept: Kept = json.loads(given.kept.read_text(encoding="utf-8")) if given.kept.exists() else {}
    for folder in given.folders:
        kept = merged(kept, cells_of(folder))
    if given.folders:
        write_text(given.kept, json.dumps(kept, ensure_ascii=False) + "\n")
    config = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    datasets = [f"overlap-{overlap}" for overlap in config["faces"]["overlap"]]
    methods = list(config["methods"])
    if unknown := set(given.stacked or []) - set(methods):
        parser.error(f"no method of {given.config}: {', '.join(sorted(unknown))}")
    covariates = config["base"]["data"]["covariates"]
    if given.upright:
        print(upright(kept, methods, datasets, covariates))
    elif given.stacked:
        print(stacked(kept, given.stacked, datasets, covariates))
    else:
        print(table(kept, methods, datasets))


if __name__ == "__main__":
    main()
