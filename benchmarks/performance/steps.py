"""Rows for the training step: two networks, number formats, layouts and compilers, on the CPU and on a GPU."""

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.performance.bench import CPU, NETWORKS, QUICK_ONLY, ROOT, Bench, Compiled
from benchmarks.performance.machine import NO_GPU
from benchmarks.performance.measure import Call, Goal, Row, compared, interleaved, not_measured
from civae_core.training.device import Compute, Precision, choose_device

STEP, GPU_STEP, TOGETHER = "training step", "training step, GPU", "several processes"
LABELS = {"ours": "ours", "original": "the original's preset"}
Way = tuple[str, Precision, bool, Compiled]
"""Name, precision, whether channels come last, and how it is compiled."""
BASE: Way = ("fp32", "fp32", False, False)
CPU_WAYS: tuple[Way, ...] = (
    ("bf16", "bf16", False, False),
    ("fp32, channels_last", "fp32", True, False),
    ("bf16, channels_last", "bf16", True, False),
)
COMPILED_WAYS: tuple[Way, ...] = (("fp32, compiled", "fp32", False, True),)
GPU_WAYS: tuple[Way, ...] = (
    ("bf16", "bf16", False, False),
    ("fp16", "fp16", False, False),
    ("bf16, channels_last", "bf16", True, False),
    ("bf16, channels_last, compiled", "bf16", True, True),
    ("bf16, channels_last, CUDA graphs", "bf16", True, "graphs"),
)
NO_BF16 = "no bf16 arithmetic in this processor; one row tells what it costs"
SMALL_SHARE = Goal(ratio=50.0)
"""Input takes at most 2 % of a step if a batch is made 50 times as fast as a step."""


def step_rows(bench: Bench) -> list[Row]:
    """Rows for both networks' steps on the CPU, timed in turn with each other and with the making of a batch."""
    steps: dict[str, Call] = {}
    failed: dict[str, str] = {}
    ways = (BASE, *CPU_WAYS, *(COMPILED_WAYS if bench.scale.slow else ()))
    for network in NETWORKS:
        for way in ways:
            if way[1] == "bf16" and (network, way) != ("ours", CPU_WAYS[0]) and not has_bf16():
                failed[_name(network, way)] = NO_BF16
            else:
                _add(bench, network, CPU, way, steps, failed)
    input_ = "a batch made: gathered, floats, mirrored"
    batches = bench.batches(Compute.choose(CPU))
    times = interleaved(steps | {input_: partial(batches.at, 0)}, bench.scale.plan)
    count = bench.scale.batch
    rows = _rows(STEP, ways, times, failed, count)
    if not bench.scale.slow:
        for network in NETWORKS:
            names = [_name(network, way) for way in COMPILED_WAYS]
            rows += not_measured(STEP, names, _name(network, BASE), QUICK_ONLY)
    ours, original = (_name(network, BASE) for network in NETWORKS)
    both = {name: times[name] for name in (ours, original)}
    rows += compared(STEP, both, original, items=count)
    return rows + compared(
        STEP, {name: times[name] for name in (ours, input_)}, ours, items=count, goal=SMALL_SHARE
    )


def has_bf16() -> bool:
    """Whether this processor computes in bf16 itself; emulating it takes many times as long."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def gpu_step_rows(bench: Bench) -> list[Row]:
    """Rows for the steps on a GPU, synchronised before and after; also in fp16 and with CUDA graphs."""
    ways = (BASE, *GPU_WAYS)
    if not torch.cuda.is_available():
        return [
            row
            for network in NETWORKS
            for row in not_measured(
                GPU_STEP, [_name(network, way) for way in GPU_WAYS], _name(network, BASE), NO_GPU
            )
        ]
    steps: dict[str, Call] = {}
    failed: dict[str, str] = {}
    for network in NETWORKS:
        for way in ways:
            _add(bench, network, choose_device("cuda"), way, steps, failed)
    times = interleaved(steps, bench.scale.plan, torch.cuda.synchronize)
    return _rows(GPU_STEP, ways, times, failed, bench.scale.batch)


def together_rows(bench: Bench) -> list[Row]:
    """The row of DistributedDataParallel: two processes against two that train side by side, by ddp_overhead.py."""
    name, baseline = "two processes, gradients exchanged", "two processes, each for itself"
    if not bench.scale.slow:
        return not_measured(TOGETHER, [name], baseline, QUICK_ONLY)
    script = ROOT / "benchmarks" / "ddp_overhead.py"
    command = [sys.executable, str(script), "--steps", "3", "--rounds", "5", "--json"]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    rounds = found["rounds"]
    return [
        Row(
            TOGETHER,
            name,
            baseline,
            [times["together"] for times in rounds],
            [times["beside"] for times in rounds],
            items=found["settings"]["processes"] * found["settings"]["batch"] * found["settings"]["steps"],
        )
    ]


def _add(
    bench: Bench, network: str, device: torch.device, way: Way, steps: dict[str, Call], failed: dict[str, str]
) -> None:
    """Try a step and add it to `steps`, or the reason why it is impossible to `failed`."""
    _, precision, channels_last, compiled = way
    try:
        step = bench.step(network, Compute.choose(device, precision, channels_last), compiled)
        step()
    except RuntimeError as error:  # raised by compilers and devices that lack something
        if way == BASE:
            raise
        failed[_name(network, way)] = str(error).strip().partition("\n")[0] or type(error).__name__
    else:
        steps[_name(network, way)] = step


def _rows(
    section: str, ways: Sequence[Way], times: dict[str, list[float]], failed: dict[str, str], items: int
) -> list[Row]:
    rows: list[Row] = []
    for network in NETWORKS:
        base = _name(network, BASE)
        for name in map(partial(_name, network), ways):
            if name in failed:
                rows += not_measured(section, [name], base, failed[name])
            elif name != base:
                rows += compared(section, {base: times[base], name: times[name]}, base, items=items)
    return rows


def _name(network: str, way: Way) -> str:
    return f"{LABELS[network]}, {way[0]}"
