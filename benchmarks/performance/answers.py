"""Rows for answers: counterfactuals of one photograph and of many, and how long commands take to start."""

import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.engines import counterfactual_command, question
from benchmarks.performance.bench import QUICK_ONLY, Bench, compile_as_installed, run_civae, run_quietly
from benchmarks.performance.measure import Call, Goal, Row, compared, interleaved, not_measured
from civae_core.inference.engines import open_engine

ANSWER, START = "counterfactuals", "start-up"
TORCH, ONNX = "torch", "ONNX Runtime"
NOTHING, IMPORT = "python -c pass", 'python -c "import torch"'
PROMPT = ("civae --help", "completion of civae tr")
"""What should respond at once."""


def answer_rows(bench: Bench) -> list[Row]:
    """Rows for abduction and prediction in one process, by both engines in turn on the same arrays."""
    why = bench.lacks_export
    slow = open_engine(bench.run, "torch", "cpu")
    engines = {TORCH: slow} if why else {TORCH: slow, ONNX: open_engine(bench.run, "onnx")}
    asked = {count: question(slow, count) for count in (1, bench.scale.batch)}
    ways: dict[str, Call] = {
        _name(engine, count): partial(answer, of)
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
    """Rows for commands in separate processes: help, completion, and from the shell to a picture."""
    compile_as_installed()
    completing = {"_CIVAE_COMPLETE": "complete_bash", "COMP_WORDS": "civae tr", "COMP_CWORD": "1"}
    ways: dict[str, Call] = {
        NOTHING: partial(run_quietly, [sys.executable, "-c", "pass"]),
        "civae --help": partial(run_civae, "--help"),
        "completion of civae tr": partial(run_civae, **completing),
        "civae export --help": partial(run_civae, "export", "--help"),
        IMPORT: partial(run_quietly, [sys.executable, "-c", "import torch"]),
    }
    left_out = [] if bench.scale.slow else [IMPORT]
    times = interleaved(
        {name: way for name, way in ways.items() if name not in left_out}, bench.scale.start_plan
    )
    rows = not_measured(START, left_out, NOTHING, QUICK_ONLY)
    for name in list(times)[1:]:
        goal = Goal(seconds=0.25) if name in PROMPT else None
        shown = {NOTHING: times[NOTHING], name: times[name]}
        rows += compared(START, shown, NOTHING, unit="starts", goal=goal)
    return rows + _picture_rows(bench)


def _picture_rows(bench: Bench) -> list[Row]:
    name, baseline = f"one photograph's picture, {ONNX}", f"one photograph's picture, {TORCH}"
    if why := bench.lacks_export:
        return not_measured(START, [name], baseline, why)
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Call] = {
            label: partial(
                run_quietly,
                counterfactual_command(bench.run, bench.photos[0], "Young=flip", engine, Path(folder)),
            )
            for label, engine in ((baseline, "torch"), (name, "onnx"))
        }
        times = interleaved(ways, bench.scale.start_plan)
    return compared(START, times, baseline, unit="starts", goal=Goal(seconds=1.0))


def _name(engine: str, count: int) -> str:
    return f"{'one photograph' if count == 1 else f'{count} at once'}, {engine}"
