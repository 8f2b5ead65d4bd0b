"""A run's folder: what it holds, whom it belongs to, and what --resume means."""

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from civae_core import __version__
from civae_core.config import load_config
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.faces import faces_source
from civae_core.errors import CivaeError, UsageError
from civae_core.training import run_folder
from civae_core.training.loop import train
from civae_core.training.run_folder import FREE_TO_CHANGE, RunFolder, environment, flat

MakeConfig = Callable[..., Config]

SHORT = {"train.images": 64, "train.batch_size": 16, "train.validate_images": 4, "train.checkpoint_every": 32}


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A finished run of one's own, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_holds_what_it_was_told_and_where_it_ran(
    trained: Path, tiny_config: MakeConfig, faces: PreparedData
) -> None:
    assert load_config([trained / "config.yml"]) == tiny_config()
    facts = json.loads((trained / "env.json").read_text(encoding="utf-8"))
    assert facts["civae"] == __version__
    assert facts["torch"] == torch.__version__
    assert facts["data"] == faces.fingerprint
    assert facts["device"].startswith("cpu")
    assert facts["started_from"] is None
    assert {"python", "platform", "host", "threads", "world_size", "git"} <= facts.keys()


def test_sample_grids_are_pictures(trained: Path) -> None:
    (grid,) = (trained / "samples").glob("*.png")
    assert grid.name == "step-000000512.png"
    with Image.open(grid) as picture:
        assert picture.width > 4 * 32
        assert picture.height > 8 * 32


def test_the_command_can_be_given_to_a_shell_again(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["civae", "train", "--out", "my runs/it's", "--set", "data.treatment=[Young, Male]", ""]
    monkeypatch.setattr(sys, "argv", given)
    RunFolder(tmp_path).write_description(tiny_config(), {})
    assert shlex.split((tmp_path / "command.txt").read_text(encoding="utf-8")) == given


def test_names_that_are_not_utf8_are_kept(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run describes data in such a folder, which JSON, YAML and the command itself lead back to."""
    data = os.fsdecode(b"data/\xe9")
    config, folder = tiny_config({"data.path": data}), RunFolder(tmp_path)
    monkeypatch.setattr(sys, "argv", ["civae", "train", "--data", data])
    # pytest-xdist cannot report this name.
    monkeypatch.setattr(logging.getLogger("civae_core"), "propagate", False)
    with folder.logged():
        folder.write_description(config, {"started_from": data})
        folder.open_log()
        run_folder.log.warning("training on %s", data)
    assert (tmp_path / "command.txt").read_bytes() == b"civae train --data 'data/\xe9'\n"
    assert load_config([tmp_path / "config.yml"]) == config
    assert folder.origin() == data
    assert "training on data/\\udce9" in (tmp_path / "log.txt").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_git_revision_is_the_source_s_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        command = ["git", *who, *words]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "nothing of ours")
    source = tmp_path / "run_folder.py"
    source.write_text("one\n", encoding="utf-8")
    monkeypatch.setattr(run_folder, "__file__", str(source))
    assert environment()["git"] is None, "it lies in somebody else's repository"
    git("add", ".")
    git("commit", "-m", "source")
    assert environment()["git"] == git("rev-parse", "HEAD")
    source.write_text("two\n", encoding="utf-8")
    assert environment()["git"] == git("rev-parse", "HEAD") + "+changes"


@pytest.mark.usefixtures("no_sample_grids")
def test_a_finished_run_does_nothing_more(tiny_config: MakeConfig, finished: Path) -> None:
    before = contents(finished / "checkpoints")
    metrics = (finished / "metrics.jsonl").read_bytes()
    result = train(tiny_config(), finished, device="cpu")
    assert (result.images_seen, result.finished) == (512, True)
    assert contents(finished / "checkpoints") == before
    assert (finished / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.usefixtures("no_sample_grids")
def test_more_images_continue_a_finished_run(
    tiny_config: MakeConfig, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(tiny_config({"train.images": 544}), finished, device="cpu")
    assert (result.images_seen, result.finished) == (544, True)
    assert "the learning rate's decay changes with it" in caplog.text
    assert load_config([finished / "config.yml"]).train.images == 544


def test_another_config_is_refused_key_by_key(tiny_config: MakeConfig, finished: Path) -> None:
    before = contents(finished)
    changed = tiny_config({"train.lr": 5e-4, "model.latent": 8, "train.keep": 9})
    with pytest.raises(UsageError) as caught:
        train(changed, finished, device="cpu")
    assert "train.lr (0.001 → 0.0005)" in caught.value.message
    assert "model.latent (16 → 8)" in caught.value.message
    assert "train.keep" not in caught.value.message, "which is free to change"
    assert contents(finished) == before


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_only_what_the_docs_name_may_differ_when_a_run_goes_on(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    folder, config = RunFolder(tmp_path), tiny_config()
    folder.write_description(config, {})
    refused = []
    for key in flat(config.model_dump()):
        section, _, name = key.rpartition(".")
        # Not validated: any difference will do.
        changes: dict[str, Any] = {name: "something else"}
        if section:
            changes = {section: getattr(config, section).model_copy(update=changes)}
        try:
            folder.require_same(config.model_copy(update=changes))
        except UsageError as error:
            assert f"different config: {key} (" in error.message
            refused.append(key)
    assert len(refused) > 50
    assert set(flat(config.model_dump())) - set(refused) == FREE_TO_CHANGE

    page = (Path(__file__).parents[2] / "docs" / "running.md").read_text(encoding="utf-8")
    promise = page.partition("Only these may differ when it is continued: ")[2].partition(
        "Any other difference"
    )[0]
    assert set(re.findall(r"`([a-z_.]+)`", promise)) == FREE_TO_CHANGE


def test_a_run_on_other_data_is_refused(tiny_config: MakeConfig, finished: Path, tmp_path: Path) -> None:
    source = faces_source(count=20, seed=1, overlap=0.5, truths=[], size=32, channels=3)
    prepare(source, tmp_path / "data", workers=1, max_bad=MaxBad.parse("0"))
    with pytest.raises(
        UsageError, match=r"data.path: .*data holds other images than those .*run was trained on"
    ):
        train(tiny_config({"data.path": str(tmp_path / "data")}), finished, device="cpu")


def test_a_folder_of_something_else_is_refused_untouched(tiny_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("anybody: has one\n")
    (tmp_path / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"is neither empty nor a run \(it holds thesis.tex\)") as caught:
        train(tiny_config(SHORT), tmp_path, device="cpu")
    assert caught.value.exit_code == 2
    assert contents(tmp_path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"config.yml", "thesis.tex"}


def test_notes_in_a_run_do_not_keep_it_from_going_on(tiny_config: MakeConfig, finished: Path) -> None:
    (finished / "slurm-1234.out").write_text("requeued")
    assert train(tiny_config(), finished, device="cpu").finished
    assert (finished / "slurm-1234.out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tiny_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        train(tiny_config(SHORT), tmp_path / "run", device="cpu")


def test_a_folder_that_cannot_be_made_is_a_runtime_failure(tiny_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(CivaeError, match=r"cannot write .*file/run.*: Not a directory") as caught:
        train(tiny_config(SHORT), tmp_path / "file" / "run", device="cpu")
    assert caught.value.exit_code == 1


def test_an_unwritable_place_is_a_runtime_failure(tiny_config: MakeConfig) -> None:
    with pytest.raises(CivaeError, match=r"cannot write /proc/run") as caught:
        train(tiny_config(SHORT), Path("/proc/run"), device="cpu")
    assert caught.value.exit_code == 1


def test_a_line_that_a_full_disk_cut_short_is_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim(images=0)
    folder.record({"images": 1, "loss": float("inf")})
    with folder.metrics.open("a") as file:
        file.write('{"images": 2, "lo')
    folder.claim(images=1)
    folder.record({"images": 2, "loss": 0.5})
    lines = folder.metrics.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"images": 1, "loss": None}, {"images": 2, "loss": 0.5}]


def test_must_insists_on_a_checkpoint(tiny_config: MakeConfig, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--resume must: .*new has no checkpoint"):
        train(tiny_config(), tmp_path / "new", device="cpu", resume="must")
    assert not (tmp_path / "new").exists()
    assert train(tiny_config(), finished, device="cpu", resume="must").finished


def test_never_refuses_one(tiny_config: MakeConfig, finished: Path) -> None:
    before = contents(finished)
    with pytest.raises(UsageError, match=r"--resume never: .*run already holds a run"):
        train(tiny_config(), finished, device="cpu", resume="never")
    assert contents(finished) == before


@pytest.mark.usefixtures("no_sample_grids")
@pytest.mark.parametrize("place", ["", "checkpoints/best", "checkpoints/step-000000256"])
def test_a_path_starts_from_that_checkpoint(
    tiny_config: MakeConfig, trained: Path, tmp_path: Path, place: str
) -> None:
    before = contents(trained)
    source = trained / place
    start = int(place.rpartition("-")[2]) if "step" in place else 512
    config = tiny_config({"train.images": start + 64, "train.lr": 1e-4})
    half = train(config, tmp_path / "run", device="cpu", resume=str(source), stop_at=start + 32)
    assert half.images_seen == start + 32
    assert contents(trained) == before
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {p.name for p in checkpoints.iterdir()} == {"last", "best", f"step-{start + 32:09d}"}
    again = train(config, tmp_path / "run", device="cpu", resume=str(source))
    assert again.finished, "the same command goes on with the run that it began"
    assert json.loads((tmp_path / "run" / "env.json").read_text())["started_from"] == str(source)
    with pytest.raises(UsageError, match="already holds a run that did not start from it"):
        train(config, tmp_path / "run", device="cpu", resume=str(tmp_path))


def test_a_path_without_a_checkpoint_is_refused(tiny_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--resume .*nowhere: no such run or checkpoint folder"):
        train(tiny_config(), tmp_path / "run", device="cpu", resume=str(tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()
