"""What training and answers import: torch, but neither its compiler nor packages that only evaluations need."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from civae_core.config import dump_config
from civae_core.config.schema import Config
from civae_core.data import PreparedData

COMPILER = "torch._dynamo"
EVALUATIONS_ONLY = ("torchvision", "torchmetrics", "torch_fidelity", "scipy", "sklearn")

RUN_ALL = """
import json, sys
from civae_cli.app import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as ended:
        assert ended.code in (0, None), arguments
print("IMPORTED", *sorted(name for name in sys.modules if "." not in name or name == sys.argv[2]))
"""


def test_training_sampling_and_counterfactuals_import_no_package_of_evaluations(
    faces: PreparedData, trained: Path, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config, photo = tmp_path / "c.yml", tmp_path / "me.png"
    config.write_text(dump_config(tiny_config({"train.images": 32})), encoding="utf-8")
    Image.fromarray(faces.images(faces.rows("test")[:1])[0].permute(1, 2, 0).contiguous().numpy()).save(photo)
    commands = [
        ["train", "--config", str(config), "--out", str(tmp_path / "run"), "--device", "cpu"],
        ["sample", str(trained), "--n", "2", "--engine", "torch", "--out", str(tmp_path / "sampled")],
        ["counterfactual", str(photo), "--model", str(trained), "--treat", "Young=0", "--engine", "torch"],
    ]
    commands[-1] += ["--out", str(tmp_path / "answered")]
    command = [sys.executable, "-c", RUN_ALL, json.dumps(commands), COMPILER]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert {"IMPORTED", "torch", "civae_core"} <= imported
    assert imported.isdisjoint((COMPILER, *EVALUATIONS_ONLY))
    assert (tmp_path / "run" / "checkpoints" / "last").exists()
    assert list((tmp_path / "answered").iterdir())
