"""civae config: each sub-command's output, and a bad file's message and exit code."""

import json
import subprocess
import sys
from pathlib import Path

import yaml
from typer.testing import CliRunner, Result

from civae_cli.app import app

MINIMAL = "data:\n  path: d\n  treatment: Young\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["config", *arguments])


def test_init_prints_a_config_that_validates(tmp_path: Path) -> None:
    result = run("init")
    assert result.exit_code == 0
    path = tmp_path / "train.yml"
    path.write_text(result.stdout, encoding="utf-8")
    checked = run("validate", str(path))
    assert (checked.exit_code, checked.stdout, checked.stderr) == (0, "", "the config is valid\n")


def test_show_resolves_files_and_sets(tmp_path: Path) -> None:
    path = tmp_path / "train.yml"
    path.write_text(MINIMAL, encoding="utf-8")
    result = run("show", "--config", str(path), "--set", "train.lr=1e-4")
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["model"]["prior"] == "xt"
    as_json = run("show", str(path), "--set", "train.lr=1e-4", "--json")
    assert json.loads(as_json.stdout)["train"]["lr"] == 1e-4
    assert len(as_json.stdout.splitlines()) == 1


def test_output_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "é.yml"
    path.write_text("data: {path: 日本, treatment: [Jung]}\n", encoding="utf-8")
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "civae_cli", "config", "show", str(path)]
    shown = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert "path: 日本" in shown.stdout.decode("utf-8")


def test_validate_reports_every_problem_with_exit_2(tmp_path: Path) -> None:
    path = tmp_path / "train.yml"
    path.write_text(MINIMAL + "train:\n  lrr: 1\n  images: many\n", encoding="utf-8")
    result = run("validate", str(path))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: 2 problems in the config\n"
        f"{path}:5:3: train.lrr: unknown key (did you mean train.lr?)\n"
        f"{path}:6:11: train.images: should be a whole number, not 'many'\n"
        "\nhint: `civae config init` prints every key with its meaning and default\n"
    )


def test_schema_is_json() -> None:
    described = json.loads(run("schema").stdout)
    assert described["properties"]["train"]
    assert json.loads(run("schema", "--json").stdout) == described


def test_convert_prints_yaml_that_validates(tmp_path: Path) -> None:
    old, new = tmp_path / "config.yml", tmp_path / "new.yml"
    old.write_text("norm_type: bn\nkl_scale: 0.0001\ntreatment:\n  Young: 39\n", encoding="utf-8")
    result = run("convert", str(old), "--images-per-epoch", "600")
    assert result.exit_code == 0
    new.write_text(result.stdout, encoding="utf-8")
    assert run("validate", str(new)).exit_code == 0
    as_json = json.loads(run("convert", str(old), "--json").stdout)
    assert as_json["config"]["data"]["treatment"] == ["Young"]
    assert as_json["remarks"]


def test_convert_refuses_what_is_not_the_originals(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(MINIMAL, encoding="utf-8")
    result = run("convert", str(path))
    assert result.exit_code == 2
    assert "none of the original project's keys" in result.stderr
