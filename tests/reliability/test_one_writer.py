"""Two processes aimed at one run, or at one folder of prepared data: one works, the other is told."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from acting_reader import ActingReader
from run_contents import left_by, lines_of

from civae_core.config.schema import Config
from civae_core.data import pack
from civae_core.data import prepare as prepare_module
from civae_core.data.manifest import shard_name
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import Batch, Reader
from civae_core.data.sources.faces import faces_source
from civae_core.errors import CivaeError
from civae_core.locks import LOCK_NAME, held
from civae_core.training import preparation
from civae_core.training.heldout import HeldOut
from civae_core.training.loop import train
from civae_core.training.preview import preview
from civae_core.training.run_folder import RunFolder

MakeConfig = Callable[..., Config]
Amid = Callable[[int, Callable[[], object]], None]
NO_BAD = MaxBad("0", count=0)


def test_a_run_that_is_being_trained_is_refused_and_not_disturbed(
    short_config: MakeConfig, tmp_path: Path, amid: Amid
) -> None:
    train(short_config(), tmp_path / "whole", device="cpu")
    run, refused = tmp_path / "run", []

    def second() -> None:
        for attempt in (train, preview):
            with pytest.raises(CivaeError, match=f"{run}: process {os.getpid()} on ") as caught:
                attempt(short_config(), run, device="cpu")
            refused.append(caught.value.exit_code)

    amid(48, second)
    train(short_config(), run, device="cpu")
    assert refused == [1, 1]
    assert left_by(run) == left_by(tmp_path / "whole")
    assert not (run / LOCK_NAME).exists()


def test_a_run_that_another_trained_since_it_was_looked_at_is_not_gone_back_on(
    short_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see an empty folder; one is so slow that the other has finished before it locks the folder."""
    run, real = tmp_path / "run", preparation.make_batches

    def slowly(*arguments: object) -> object:
        monkeypatch.setattr(preparation, "make_batches", real)
        train(short_config(), run, device="cpu")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(preparation, "make_batches", slowly)
    with pytest.raises(CivaeError, match="another process has just trained this run") as caught:
        train(short_config(), run, device="cpu")
    assert "same command again" in (caught.value.hint or "")
    before = left_by(run)
    assert train(short_config(), run, device="cpu").finished
    assert left_by(run) == before


@pytest.mark.parametrize("due", ["log_every", "sample_every", "checkpoint_every"])
def test_a_run_that_was_taken_over_is_written_no_more(
    short_config: MakeConfig, tmp_path: Path, amid: Amid, monkeypatch: pytest.MonkeyPatch, due: str
) -> None:
    """Whichever of its files is the next to be due; until then, each is written."""
    run = tmp_path / "run"
    never = {"train__log_every": 96, "train__sample_every": 96, "train__checkpoint_every": 96}

    def save_grid(_: HeldOut, model: object, folder: RunFolder, images_seen: int) -> Path:
        path = folder.samples / f"{images_seen}.png"
        path.touch()
        return path

    def taken() -> None:
        (run / LOCK_NAME).write_text("{}")

    monkeypatch.setattr(HeldOut, "save_grid", save_grid)
    amid(48, taken)
    with pytest.raises(CivaeError, match=r"its \.civae-lock was removed or replaced") as caught:
        train(short_config(**never | {f"train__{due}": 32}), run, device="cpu")
    assert caught.value.exit_code == 1
    lines = lines_of(run) if (run / "metrics.jsonl").exists() else []
    # A checkpoint comes with a line of its validation.
    assert [line["images"] for line in lines] == ([] if due == "sample_every" else [32])
    samples = [path.name for path in (run / "samples").iterdir()]
    assert samples == (["32.png"] if due == "sample_every" else [])
    checkpoints = [path.name for path in (run / "checkpoints").glob("step-*")]
    assert checkpoints == (["step-000000032"] if due == "checkpoint_every" else [])
    assert (run / LOCK_NAME).read_text() == "{}"


def test_a_run_that_was_taken_over_is_not_saved_when_told_to_stop_either(
    short_config: MakeConfig, tmp_path: Path, amid: Amid
) -> None:
    """That checkpoint is not validated, so no line of metrics comes before it."""
    run = tmp_path / "run"

    def taken_and_told() -> None:
        (run / LOCK_NAME).write_text("{}")
        signal.raise_signal(signal.SIGTERM)

    amid(48, taken_and_told)
    with pytest.raises(CivaeError, match=r"its \.civae-lock was removed or replaced"):
        train(short_config(train__log_every=96, train__checkpoint_every=96), run, device="cpu")
    assert list((run / "checkpoints").iterdir()) == []
    assert (run / LOCK_NAME).read_text() == "{}"


@dataclass(frozen=True)
class Reentrant:
    """Prepares into the same folder while it is being prepared."""

    reader: Reader
    out: Path

    def read(self, rows: range) -> Batch:
        source = faces_source(count=128, seed=0, overlap=0.5, truths=[], size=32, channels=3)
        for overwrite in (False, True):
            with pytest.raises(CivaeError, match=f"{self.out}: process {os.getpid()} on "):
                prepare(source, self.out, workers=1, max_bad=NO_BAD, overwrite=overwrite)
        return self.reader.read(rows)


def test_data_that_are_being_prepared_are_refused_and_not_disturbed(tmp_path: Path) -> None:
    source = faces_source(count=128, seed=0, overlap=0.5, truths=[], size=32, channels=3)
    whole = prepare(source, tmp_path / "whole", workers=1, max_bad=NO_BAD)
    object.__setattr__(source, "reader", Reentrant(source.reader, tmp_path / "out"))
    made = prepare(source, tmp_path / "out", workers=1, max_bad=NO_BAD)
    assert made.fresh and made.data.fingerprint == whole.data.fingerprint
    with held(tmp_path / "out"):
        assert not prepare(source, tmp_path / "out", workers=1, max_bad=NO_BAD).fresh, (
            "it is whole: no need to write"
        )


def test_data_whose_folder_was_taken_over_are_written_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(pack, "CHUNK_BYTES", 64 * 3 * 32**2)
    source = faces_source(count=256, seed=0, overlap=0.5, truths=[], size=32, channels=3)
    object.__setattr__(
        source, "reader", ActingReader(source.reader, lambda: (out / LOCK_NAME).write_text("{}"))
    )
    with pytest.raises(CivaeError, match=r"its \.civae-lock was removed or replaced") as caught:
        prepare(source, out, workers=1, max_bad=NO_BAD)
    assert caught.value.exit_code == 1
    assert not (out / "dataset.yml").exists() and not (out / shard_name(0)).exists()
    assert (out / LOCK_NAME).read_text() == "{}"


def test_data_whose_folder_is_taken_over_at_the_very_end_are_not_declared_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", prepare_module.write_report

    def robbed(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        (out / LOCK_NAME).write_text("{}")

    monkeypatch.setattr(prepare_module, "write_report", robbed)
    source = faces_source(count=128, seed=0, overlap=0.5, truths=[], size=32, channels=3)
    with pytest.raises(CivaeError, match=r"its \.civae-lock was removed or replaced"):
        prepare(source, out, workers=1, max_bad=NO_BAD)
    assert not (out / "dataset.yml").exists()
