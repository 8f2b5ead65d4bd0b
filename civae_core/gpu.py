"""What the machine says of its NVIDIA GPUs, without torch."""

import shutil
import subprocess


def nvidia_driver() -> str | None:
    """The driver's version, asked of nvidia-smi, which knows it even where torch has no CUDA."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.split("\n")[0].strip() or None
