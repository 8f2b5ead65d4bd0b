"""The machine on which figures were measured."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from civae_core.machine import available_cores, nvidia_driver

PACKAGES = ("torch", "numpy", "pillow", "simplejpeg", "cykooz-resizer", "onnxruntime")
NO_GPU = "no GPU"


def describe_machine() -> dict[str, Any]:
    """Processor, memory, devices and versions, and the load before the measurement."""
    return {
        "processor": processor(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else NO_GPU,
        "driver": nvidia_driver(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def processor() -> str:
    """The processor's name, or its architecture if the system does not give a name."""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
