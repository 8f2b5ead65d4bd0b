"""Rows of answering: counterfactuals of one photograph and of many, and how long commands take to start."""

import sys
import tempfile
from pathlib import Path

from benchmarks.engines import counterfactual_command, question
from benchmarks.performance.bench import Bench, civae_command, run_quietly
from benchmarks.performance.measure import Call, Goal, Row, compared, interleaved, not_measured
from civae_core.inference.engines import open_engine

ANSWER, START = "counterfactuals", "start-up"
TORCH, ONNX = "torch", "ONNX Runtime"
NOTHING = "python -c pass"


def answer_rows(bench: Bench) -> list[Row]:
    """Abduction and prediction in one process, by both engines in turn on the same arrays."""
    why = bench.lacks_export
    slow = open_engine(bench.run, "torch", "cpu")
    engines = {TORCH: slow} if why else {TORCH: slow, ONNX: open_engine(bench.run, "onnx")}
    asked = {count: question(slow, count) for count in (1, bench.scale.batch)}
    ways: dict[str, Call] = {
        _name(engine, count): lambda answer=answer, of=of: answer(of)  # type: ignore[misc]
        for count, answer in asked.items()
        for engine, of in engines.items()
    }
    times = interleaved(ways, bench.scale.plan)
    one, many = (_name(TORCH, count) for count in asked)
    rows = [
        Row(ANSWER, many, one, times[many], times[one], items=bench.scale.batch, baseline_items=1),
    ]
    for count in asked:
        name, baseline = _name(ONNX, count), _name(TORCH, count)
        goal = Goal(ratio=1.3) if count > 1 else None
        if why:
            rows += not_measured(ANSWER, [name], baseline, why)
        else:
            both = {n: times[n] for n in (baseline, name)}
            rows += compared(ANSWER, both, baseline, items=count, goal=goal)
    return rows


def start_rows(bench: Bench) -> list[Row]:
    """Commands in processes of their own: help, completion, and from the shell to a picture."""
    completing = {"_CIVAE_COMPLETE": "complete_bash", "COMP_WORDS": "civae tr", "COMP_CWORD": "1"}
    ways: dict[str, Call] = {
        NOTHING: lambda: run_quietly([sys.executable, "-c", "pass"]),
        "civae --help": lambda: run_quietly(civae_command("--help")),
        "civae export --help": lambda: run_quietly(civae_command("export", "--help")),
        "completion of civae tr": lambda: run_quietly(civae_command(), **completing),
        'python -c "import torch"': lambda: run_quietly([sys.executable, "-c", "import torch"]),
    }
    times = interleaved(ways, bench.scale.start_plan)
    rows = [
        row
        for name in times
        for row in compared(
            START,
            {NOTHING: times[NOTHING], name: times[name]},
            NOTHING,
            unit="starts",
            goal=Goal(seconds=0.25) if "civae" in name else None,
        )
    ]
    return rows + _picture_rows(bench)


def _picture_rows(bench: Bench) -> list[Row]:
    name, baseline = f"one photograph's picture, {ONNX}", f"one photograph's picture, {TORCH}"
    if why := bench.lacks_export:
        return not_measured(START, [name], baseline, why)
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Call] = {
            label: lambda engine=engine: run_quietly(  # type: ignore[misc]
                counterfactual_command(bench.run, bench.photos[0], "Young=flip", engine, Path(folder))
            )
            for label, engine in ((baseline, "torch"), (name, "onnx"))
        }
        times = interleaved(ways, bench.scale.start_plan)
    return compared(START, times, baseline, unit="starts", goal=Goal(seconds=1.0))


def _name(engine: str, count: int) -> str:
    return f"{'one photograph' if count == 1 else f'{count} at once'}, {engine}"
