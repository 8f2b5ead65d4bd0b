"""Where the time of a training step goes, and what share of the machine's peak arithmetic the step reaches."""

from functools import partial
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.performance.bench import CPU, Bench
from benchmarks.performance.measure import Call, interleaved, spread
from civae_core.training.device import AUTOCAST_DTYPES, Compute, choose_device

SECTION = "one training step"
LARGEST, PROFILED = 5, 3


def step_costs(bench: Bench) -> dict[str, Any]:
    """Arithmetic of our training step, as training would run it, and the operators that take most of its time.

    The peak for comparison is the fastest product of large matrices in the same number format, timed in turn with the
    step: what this machine achieves, whatever its processor's name promises.
    """
    device = choose_device("cuda") if torch.cuda.is_available() else CPU
    compute = Compute.choose(device)
    step = bench.step("ours", compute)
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    gflop = counter.get_total_flops() / 1e9
    side = bench.scale.matrix
    a, b = torch.randn(2, side, side, device=device, dtype=AUTOCAST_DTYPES.get(compute.precision)).unbind()
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = interleaved({"step": step, "product": partial(torch.mm, a, b)}, bench.scale.plan, finish)
    speeds = [gflop / seconds for seconds in times["step"]]
    peak = 2 * side**3 / 1e9 / min(times["product"])
    return {
        "network": "ours",
        "images": bench.scale.batch,
        "computed": compute.describe(),
        "seconds": times["step"],
        "gflop": gflop,
        "gflops": spread(speeds),
        "peak_gflops": peak,
        "peak_from": f"product of two {side} × {side} matrices",
        "share_of_peak": spread([speed / peak for speed in speeds]),
        "largest": _largest(step, device),
    }


def _largest(step: Call, device: torch.device) -> list[dict[str, Any]]:
    """The operators that take most time themselves, without the operators that they call."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        for _ in range(PROFILED):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [event for event in found.key_averages() if event.device_type == kind]
    took = {e.key: (e.self_device_time_total if on_gpu else e.self_cpu_time_total, e.count) for e in events}
    total = sum(time for time, _ in took.values())
    ranked = sorted(took.items(), key=lambda item: -item[1][0])[:LARGEST]
    return [
        {
            "operator": name,
            "milliseconds": time / 1e3 / PROFILED,
            "share": time / total,
            "calls": count // PROFILED,
        }
        for name, (time, count) in ranked
    ]
