"""What is known about the machine, and what env.json says of its GPUs."""

import subprocess
from types import SimpleNamespace

import pytest
import torch

from civae_core import machine
from civae_core.training.run_folder import environment


def test_there_is_a_core() -> None:
    assert machine.available_cores() >= 1


def test_cores_are_counted_where_no_affinity_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(machine.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 7)
    assert machine.available_cores() == 7


def test_the_driver_is_what_nvidia_smi_says_of_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(
        machine.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="550.54.15\n550.54.15\n")
    )
    assert machine.nvidia_driver() == "550.54.15"


def test_without_a_working_nvidia_smi_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    assert machine.nvidia_driver() is None

    def broken(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(machine.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(machine.subprocess, "run", broken)
    assert machine.nvidia_driver() is None


def test_the_environment_names_gpus_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr("civae_core.training.run_folder.nvidia_driver", lambda: "550.54.15")
    facts = environment()
    assert (facts["gpus"], facts["driver"]) == (["Some GPU"], "550.54.15")
