"""Model files whose card was changed after they were written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file


def with_card(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` edit the card of a model file, and write it back."""
    with safe_open(file, framework="pt") as opened:
        values = json.loads(opened.metadata()["civae"])
    change(values)
    save_file(load_file(file), file, metadata={"civae": json.dumps(values)})
