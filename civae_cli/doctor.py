"""civae doctor: what this machine offers and what is missing."""

from typing import Any

from civae_cli.options import JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import terminal
from civae_core.errors import CivaeError


def doctor(json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> None:
    """Check this machine: packages, devices, disk.

    Says what `--device auto` would choose, and exits with code 1 if something essential is broken.

    \b
    Examples:
      civae doctor
      civae doctor --json
    """
    from civae_core.diagnosis import diagnose

    voice = terminal(quiet, verbose, json)
    facts = diagnose()
    voice.result(facts, card(facts))
    if facts["problems"]:
        raise CivaeError("; ".join(facts["problems"]), hint="; ".join(dict.fromkeys(facts["remedies"])))


def card(facts: dict[str, Any]) -> str:
    """The facts of `diagnose` as aligned lines, problems last."""
    rows = [
        ("civae", facts["civae"]),
        ("python", f"{facts['python']} on {facts['platform']}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in facts["packages"].items())),
        (
            "processors",
            f"{facts['cpus']}" + (f", torch uses {facts['threads']}" if "threads" in facts else ""),
        ),
        ("free disk", f"{facts['free_bytes'] / 1e9:,.1f} GB in this folder"),
    ]
    if "auto" in facts:
        rows.append(("CUDA", _cuda(facts)))
        rows += [(f"cuda:{index}", _gpu(gpu)) for index, gpu in enumerate(facts["gpus"])]
        rows.append(("MPS", "available" if facts["mps"] else "not available"))
        auto = facts["auto"]
        layout = ", channels_last" if auto["channels_last"] else ""
        rows.append(("--device auto", f"{auto['device']}, {auto['precision']}{layout}"))
    for extra, found in facts["extras"].items():
        state = f"missing; {found['install']}" if found["install"] else "installed"
        rows.append((f"extra {extra}", f"{found['for']}: {state}"))
    rows += [("advice", text) for text in facts["advice"]]
    rows += [("problem", text) for text in facts["problems"]]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _cuda(facts: dict[str, Any]) -> str:
    built = f"torch is built for {facts['cuda']}" if facts["cuda"] else "torch is built without it"
    driver = f", driver {facts['nvidia_driver']}" if facts["nvidia_driver"] else ", no NVIDIA driver found"
    return f"{built}{driver}, {len(facts['gpus'])} device{'' if len(facts['gpus']) == 1 else 's'}"


def _gpu(gpu: dict[str, Any]) -> str:
    memory = f"{gpu['memory_bytes'] / 2**30:.0f} GiB"
    bf16 = "bf16" if gpu["bf16"] else "no bf16"
    return f"{gpu['name']}, {memory}, compute capability {gpu['capability']}, {bf16}"
