"""Measure what everything costs, and write docs/performance.json and, from it, docs/performance.md.

    python -m benchmarks.performance [timing] [memory] [--section NAME] [--quick] [--out docs/performance]

`timing`, on an otherwise idle machine: preparing and loading images, training steps, counterfactuals, start-up, and
where the time of one step goes. `memory`, on any machine: what commands hold, on some data and on ten times as much.
The file keeps the figures of a part that is not measured, and with `--section` those of timing's other sections.
Prints what moved since the last committed figures. Run it from the repository's root; OMP_NUM_THREADS sets the number
of cores that torch may use.

`--quick` tries everything that takes only seconds on next to nothing, and needs `--out`: its figures mean nothing.
"""

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.performance import answers, compare, costs, images, memory, page, steps
from benchmarks.performance.bench import QUICK, ROOT, Bench, Scale
from benchmarks.performance.machine import describe_machine
from civae_core.files import write_json, write_text
from civae_core.progress import set_quiet

PARTS = ("timing", "memory")
TIMED = {
    images.PREPARATION: images.preparation_rows,
    images.LOADING: images.loading_rows,
    steps.STEP: steps.step_rows,
    steps.GPU_STEP: steps.gpu_step_rows,
    steps.TOGETHER: steps.together_rows,
    answers.ANSWER: answers.answer_rows,
    answers.START: answers.start_rows,
}
"""Function that measures the rows of each section of timing, in the order of the page."""
SECTIONS = (*TIMED, costs.SECTION)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="timing, memory, or both, which is the default"
    )
    parser.add_argument(
        "--section",
        action="append",
        default=[],
        choices=SECTIONS,
        metavar="NAME",
        help=f"time this section alone, repeatable: {', '.join(SECTIONS)}",
    )
    parser.add_argument("--quick", action="store_true", help="try everything on next to nothing")
    parser.add_argument("--out", type=Path, help="PATH.json and PATH.md [default: docs/performance]")
    parser.add_argument(
        "--work", type=Path, help="a folder for what is made on the way, and kept: memory goes on in it"
    )
    options = parser.parse_args()
    parts = options.parts or (["timing"] if options.section else list(PARTS))
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"{unknown[0]}: choose from {', '.join(PARTS)}")
    if options.section and "timing" not in parts:
        parser.error("--section: only timing has sections")
    if options.quick and options.out is None:
        parser.error("--quick needs --out: its figures do not belong in docs")
    out = options.out or ROOT / "docs" / "performance"
    set_quiet(True)
    file = out.with_suffix(".json")
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if options.section and "timing" not in kept:
        parser.error(f"--section: {file} has no other sections yet")
    with tempfile.TemporaryDirectory() as folder:
        numbers = measured(parts, options.work or Path(folder), options.quick, options.section)
    if options.section:
        numbers["timing"] = renewed(kept["timing"], numbers["timing"])
    numbers = {"schema": 1} | {part: (kept | numbers)[part] for part in PARTS if part in kept | numbers}
    write_json(file, numbers)
    write_text(out.with_suffix(".md"), page.as_page(numbers))
    if not options.quick:
        before = compare.committed()
        print("\n".join(compare.moved(before, numbers)) or "nothing moved" if before else compare.NOTHING)
    print(file)


def measured(parts: list[str], folder: Path, quick: bool, sections: list[str]) -> dict[str, Any]:
    """Measure the parts asked for, as the file holds them; of timing only `sections`, if there are any."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, QUICK if quick else Scale())
    found: dict[str, Any] = {}
    if "timing" in parts:
        found["timing"] = _described(quick)
        rows = []
        for measure in [TIMED[section] for section in sections or TIMED if section in TIMED]:
            _say(measure.__name__)
            rows += measure(bench)
        found["timing"]["rows"] = [row.to_json() for row in rows]
        if not sections or costs.SECTION in sections:
            _say(costs.step_costs.__name__)
            found["timing"]["profile"] = costs.step_costs(bench)
    if "memory" in parts:
        found["memory"] = _described(quick)
        _say(memory.step_memory_rows.__name__)
        held = memory.step_memory_rows(bench)
        _say(memory.growth_rows.__name__)
        held += memory.growth_rows(folder, memory.QUICK_SIZES if quick else memory.Sizes())
        found["memory"]["rows"] = [row.to_json() for row in held]
    return found


def renewed(kept: dict[str, Any], timing: dict[str, Any]) -> dict[str, Any]:
    """Replace sections of the kept times by those of `timing`, and note when and where these were measured.

    The date and machine of the whole stay. Sections measured elsewhere are still comparable, as they are ratios.
    """
    new = {row["section"] for row in timing["rows"]}
    rows = [row for row in kept["rows"] if row["section"] not in new] + timing["rows"]
    rows.sort(key=lambda row: list(TIMED).index(row["section"]))
    profile = {"profile": timing["profile"]} if "profile" in timing else {}
    when = {key: timing[key] for key in ("date", "machine")}
    apart = dict.fromkeys([*sorted(new), *([costs.SECTION] if profile else [])], when)
    quick = kept["quick"] or timing["quick"]
    return kept | profile | {"quick": quick, "rows": rows, "apart": kept.get("apart", {}) | apart}


def _described(quick: bool) -> dict[str, Any]:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": today, "quick": quick, "machine": describe_machine()}


def _say(what: str) -> None:
    print(what.removesuffix("_rows").replace("_", " "), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
