"""What a run left behind, in a form in which two runs can be compared."""

import json
from pathlib import Path
from typing import Any

from civae_core.files import sha256_of


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without the timings, which differ from run to run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timed = ("images_per_second", "pairing_seconds")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def left_by(run: Path) -> dict[str, Any]:
    """Metrics, and every file and link of the checkpoints."""
    files = sorted((run / "checkpoints").rglob("*"))
    found: dict[str, Any] = {"metrics": lines_of(run)}
    for path in files:
        if path.is_symlink():
            found[path.name] = str(path.readlink())
        elif path.is_file():
            found[f"{path.parent.name}/{path.name}"] = sha256_of(path)
    return found
