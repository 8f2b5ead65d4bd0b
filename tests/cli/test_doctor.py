"""civae doctor: what a machine offers, what it lacks, and what civae requires."""

import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner, Result

from civae_cli.app import app
from civae_core import diagnosis

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_doctor_looks_for_all_that_the_project_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]}
    assert {*diagnosis.REQUIRED, *diagnosis.SLOW, *diagnosis.FASTER} == required


def test_doctor_finds_this_machine_usable() -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert "--device auto" in result.stdout
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["problems"] == []
    assert facts["packages"]["torch"]
    assert facts["auto"]["device"]


def test_doctor_names_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "REQUIRED", {"nonsense": "no_such_module_at_all"})
    result = run("doctor", "-q")
    assert result.exit_code == 1
    assert "nonsense cannot be imported" in result.stdout
    assert result.stderr.startswith("error: nonsense cannot be imported: No module named")
    assert re.search(r"\n\nhint: .*pip install --force-reinstall nonsense\n$", result.stderr)


def test_a_device_that_fails_has_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(torch.nn.functional, "conv2d", fail)
    assert diagnosis.diagnose()["remedies"][0].endswith("pip install --force-reinstall torch")
    monkeypatch.setattr("civae_core.training.device.choose_device", lambda _: torch.device("meta"))
    facts = diagnosis.diagnose()
    assert facts["problems"] == ["meta cannot compute: no kernel image is available"]
    assert facts["remedies"][0].startswith("add --device cpu to commands")


def test_doctor_warns_of_a_full_disk_a_slow_package_and_a_gpu_that_torch_cannot_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    monkeypatch.setattr(diagnosis, "nvidia_driver", lambda: "550.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(diagnosis, "FASTER", {"no-such-package": "all takes longer"})
    advice = diagnosis.diagnose()["advice"]
    assert "no-such-package is not installed: all takes longer" in advice
    assert "only 1.0 GB is free in this folder" in advice
    assert any("550.1" in text and "sees no GPU" in text for text in advice)


def test_a_package_that_is_only_looked_for_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "REQUIRED", {})
    monkeypatch.setattr(diagnosis, "SLOW", {"nonsense": "no_such_module_at_all"})
    facts = diagnosis.diagnose()
    assert facts["problems"] == ["nonsense is not installed"]
    assert facts["remedies"][0].endswith("pip install nonsense")
