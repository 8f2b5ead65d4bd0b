"""What this machine offers, and whether anything that civae needs is missing or broken."""

import importlib
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from civae_core import __version__
from civae_core.extras import EXTRAS, PURPOSES, install, is_there, missing, pip
from civae_core.machine import available_cores, nvidia_driver

REQUIRED = {
    "torch": "torch",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "pydantic": "pydantic",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "typer": "typer",
    "rich": "rich",
}
SLOW = {"torchmetrics": "torchmetrics"}
"""Also required, but only located, not imported: importing it takes longer than all the rest."""
FASTER = {
    "simplejpeg": "reading JPEGs takes twice as long",
    "cykooz-resizer": "resizing photographs takes five times as long",
}
"""Optional packages that Pillow replaces, and what is slower without them."""
_LITTLE_SPACE = 2e9


def diagnose() -> dict[str, Any]:
    """Facts about the machine. `problems` make civae unusable; `advice` and missing extras do not.

    `remedies` say, for each of the problems in turn, what to do about it.
    """
    facts: dict[str, Any] = {
        "civae": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {},
        "cpus": available_cores(),
        "problems": [],
        "remedies": [],
        "advice": [],
    }
    for name, module in REQUIRED.items():
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:  # OSError: a shared library that does not load
            _note_problem(
                facts, f"{name} cannot be imported: {error}", f"{pip()} install --force-reinstall {name}"
            )
        else:
            facts["packages"][name] = _version(name)
    for name, module in SLOW.items():
        if is_there(module):
            facts["packages"][name] = _version(name)
        else:
            _note_problem(facts, f"{name} is not installed", f"{pip()} install {name}")
    facts["extras"] = {
        extra: {"for": PURPOSES[extra], "install": install(extra) if missing(extra) else None}
        for extra in EXTRAS
    }
    for package, slower in FASTER.items():
        if not is_there(package.replace("-", "_")):
            facts["advice"].append(f"{package} is not installed: {slower}")
    free = shutil.disk_usage(Path.cwd()).free
    facts["free_bytes"] = free
    if free < _LITTLE_SPACE:
        facts["advice"].append(f"only {free / 1e9:.1f} GB is free in this folder")
    if not os.access(Path.cwd(), os.W_OK):
        facts["advice"].append("this folder is not writable; choose an --out elsewhere")
    facts["nvidia_driver"] = nvidia_driver()
    if "torch" in facts["packages"]:
        _diagnose_torch(facts)
    return facts


def _diagnose_torch(facts: dict[str, Any]) -> None:
    import torch

    from civae_core.training.device import Compute, choose_device

    facts["threads"] = torch.get_num_threads()
    facts["cuda"] = torch.version.cuda
    facts["mps"] = torch.backends.mps.is_available()
    facts["gpus"] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            facts["gpus"].append(
                {
                    "name": properties.name,
                    "memory_bytes": properties.total_memory,
                    "capability": f"{properties.major}.{properties.minor}",
                    "bf16": properties.major >= 8,
                }
            )
    elif facts["nvidia_driver"]:
        built = f"for CUDA {facts['cuda']}" if facts["cuda"] else "without CUDA"
        facts["advice"].append(
            f"NVIDIA driver {facts['nvidia_driver']} is installed, but this torch, built {built}, sees no GPU"
        )
    device = choose_device("auto")
    compute = Compute.choose(device)
    facts["auto"] = {
        "device": str(device),
        "precision": compute.precision,
        "channels_last": compute.channels_last,
    }
    try:
        images = torch.ones(1, 3, 8, 8, device=device, requires_grad=True)
        torch.nn.functional.conv2d(images, torch.ones(4, 3, 3, 3, device=device)).sum().backward()
    except RuntimeError as error:
        remedy = "add --device cpu to commands, or install a torch that is built for this GPU and its driver"
        if device.type == "cpu":
            remedy = f"{pip()} install --force-reinstall torch"
        _note_problem(facts, f"{device} cannot compute: {str(error).splitlines()[0]}", remedy)


def _note_problem(facts: dict[str, Any], problem: str, remedy: str) -> None:
    facts["problems"].append(problem)
    facts["remedies"].append(remedy)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
