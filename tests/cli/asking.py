"""Calls `civae counterfactual` in tests, and reads what it gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app


def civae(*arguments: object, stdin: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["counterfactual", *map(str, arguments)], input=stdin)
    return result.exit_code, result.stdout, result.stderr


def records(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))
