"""Overfitted runs: the warnings before the training, at its end, and wherever such a run is used."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.config import dump_config
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.model_paths import find_model_file
from civae_core.overfitting import CLEARLY, Overfit, overfit_of, too_long

VALUES = 32 * 32 * 3
ENOUGH = CLEARLY * VALUES + 1


def run_with(trained: Path, folder: Path, *losses: float | None, best: int = 0) -> Path:
    """A copy of a run with a checkpoint for each validation loss; checkpoint number `best` is the best."""
    checkpoints = folder / "checkpoints"
    lines = []
    for number, loss in enumerate(losses):
        step = checkpoints / f"step-{64 * (number + 1):09d}"
        step.mkdir(parents=True)
        shutil.copy(find_model_file(trained), step)
        lines += [
            {"images": 64 * (number + 1), "loss": 1.0},
            {"images": 64 * (number + 1), "valid_loss": loss},
        ]
    for name, number in (("best", best), ("last", len(losses) - 1)):
        (checkpoints / name).symlink_to(f"step-{64 * (number + 1):09d}")
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    return folder


@pytest.fixture
def overfitted(trained: Path, tmp_path: Path) -> Path:
    return run_with(trained, tmp_path / "run", -100.0, -900.0, -900.0 + ENOUGH, best=1)


def test_a_loss_that_has_clearly_risen_is_found(overfitted: Path) -> None:
    assert overfit_of(overfitted) == Overfit(128, -900.0, 192, -900.0 + ENOUGH)
    assert overfit_of(overfitted / "checkpoints" / "last") is None, "who names a checkpoint has chosen"


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((-900.0, -900.0 + CLEARLY * VALUES - 1), 0),
        ((-100.0, -900.0), 1),
        ((-900.0,), 0),
        ((-900.0, None), 0),
    ],
    ids=["within noise", "the last is the best", "one checkpoint", "a loss that was not finite"],
)
def test_all_else_is_not(losses: tuple[float | None, ...], best: int, trained: Path, tmp_path: Path) -> None:
    assert overfit_of(run_with(trained, tmp_path / "run", *losses, best=best)) is None


def test_a_run_of_which_little_is_left_is_not_judged(overfitted: Path, tmp_path: Path) -> None:
    torn = (overfitted / "metrics.jsonl").read_text() + '{"images": 256, "valid_loss": 9'
    (overfitted / "metrics.jsonl").write_text(torn)
    assert overfit_of(overfitted) == Overfit(128, -900.0, 192, -900.0 + ENOUGH)
    (overfitted / "metrics.jsonl").unlink()
    assert overfit_of(overfitted) is None and overfit_of(tmp_path / "nowhere") is None


def test_who_asks_such_a_run_is_told_how_to_ask_its_best(
    overfitted: Path, faces: PreparedData, tmp_path: Path
) -> None:
    photo = tmp_path / "me.png"
    pixels_CHW = faces.images(faces.rows("test")[:1])[0]
    Image.fromarray(pixels_CHW.permute(1, 2, 0).contiguous().numpy()).save(photo)
    best = overfitted / "checkpoints" / "best"
    for command in (
        ["counterfactual", photo, "--treat", "Young=0", "--out", tmp_path / "out", "--model"],
        ["sample", "--n", "2", "--out", tmp_path / "drawn"],
        ["effects", "--treat", "Young=flip", "--limit", "4", "--draws", "1", "--out", tmp_path / "mean"],
        ["evaluate", "--scorer", "none", "--limit", "4", "--report", tmp_path / "report.html"],
        ["export", "--format", "hf", "--out", tmp_path / "hub"],
    ):
        words = [str(word) for word in command]
        for model, told in ((overfitted, True), (best, False)):
            done = CliRunner().invoke(app, [*words[:1], *words[1:], str(model)])
            assert done.exit_code == 0, (words, done.stderr)
            assert (f"{best} was saved before that" in done.stderr) is told, words


def test_the_card_of_a_run_says_so(overfitted: Path) -> None:
    shown = CliRunner().invoke(app, ["info", str(overfitted)]).stdout
    assert (
        "after 192 images, held-out ones are predicted worse than after 128 (valid_loss -868 against -900)"
        in shown
    )
    told = json.loads(CliRunner().invoke(app, ["info", str(overfitted), "--json"]).stdout)
    assert told["overfit"]["best_images"] == 128


@pytest.mark.parametrize(
    ("images", "photographs", "times", "instead"),
    [
        (500_000, 600, "833", 18_000),
        (60_001, 600, "100", 18_000),
        (60_000, 600, None, 0),
        (4_000_000, 162_770, None, 0),
    ],
)
def test_how_often_is_too_often(images: int, photographs: int, times: str | None, instead: int) -> None:
    found = too_long(images, photographs)
    if times is None:
        assert found is None
    else:
        assert found is not None and f"is shown {times} times" in found and f"train.images={instead}" in found


@pytest.mark.parametrize(("times", "told"), [(120, True), (90, False)])
def test_it_is_said_before_anything_is_trained(
    times: int, told: bool, faces: PreparedData, tiny_config: object, tmp_path: Path
) -> None:
    assert callable(tiny_config)
    count = len(faces.rows("train"))
    config: Config = tiny_config({"train.images": times * count})
    (tmp_path / "c.yml").write_text(dump_config(config), encoding="utf-8")
    words = ["train", "--config", str(tmp_path / "c.yml"), "--out", str(tmp_path / "run"), "--dry-run"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert ("are memorised" in done.stderr) is told
