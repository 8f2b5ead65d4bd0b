"""What TensorBoard and Weights & Biases are told of a run, and that they never cost it anything."""

import io
import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from civae_core.config import load_config
from civae_core.config.load import ConfigError
from civae_core.config.schema import Config
from civae_core.data.batches import TrainingBatches
from civae_core.errors import DivergedError, PreemptedError
from civae_core.training import trackers
from civae_core.training.heldout import HeldOut
from civae_core.training.loop import train
from civae_core.training.run_folder import RunFolder
from civae_core.training.trackers import Trackers, tracked

MakeConfig = Callable[..., Config]

SHORT = {
    "train.images": 64,
    "train.batch_size": 16,
    "train.validate_images": 4,
    "train.log_every": 16,
    "train.checkpoint_every": 32,
    "train.sample_every": 32,
    "model.pairing": "none",
}


@pytest.fixture(autouse=True)
def small_sample_grids(monkeypatch: pytest.MonkeyPatch, one_pixel: bytes) -> None:
    """Drawing them takes longer than training here."""

    def save_grid(_self: HeldOut, _model: object, folder: RunFolder, images_seen: int) -> Path:
        path = folder.samples / f"step-{images_seen:09d}.png"
        path.write_bytes(one_pixel)
        return path

    monkeypatch.setattr(HeldOut, "save_grid", save_grid)


@pytest.fixture(scope="session")
def one_pixel() -> bytes:
    from PIL import Image

    written = io.BytesIO()
    Image.new("RGB", (1, 1), "red").save(written, "PNG")
    return written.getvalue()


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def numbers_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Pairs of images seen and value in metrics.jsonl, by key."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines_of(run):
        for key in line.keys() - {"images"}:
            found.setdefault(key, []).append((line["images"], line[key]))
    return found


class Killed(BaseException):
    pass


def die_at(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends training without a word, once, when the batch after so many images is about to be made."""
    real = TrainingBatches.at

    def at(batches: TrainingBatches, images_seen: int) -> Any:
        if images_seen == images:
            monkeypatch.setattr(TrainingBatches, "at", real)
            raise Killed
        return real(batches, images_seen)

    monkeypatch.setattr(TrainingBatches, "at", at)


# --- TensorBoard, whose files are read as it reads them


def in_tensorboard(run: Path) -> Any:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return read.Reload()


def shown_in(read: Any) -> dict[str, list[tuple[int, float]]]:
    return {
        tag: [(event.step, pytest.approx(event.value, rel=1e-6)) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_tensorboard_shows_what_a_run_measured_once_however_it_went(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun without the tracker, continued with it, killed after a line that no checkpoint has, and continued."""
    pytest.importorskip("tensorboard")
    run, config = tmp_path / "run", tiny_config(SHORT | {"train.trackers": ["tensorboard"]})
    train(tiny_config(SHORT | {"train.trackers": []}), run, device="cpu", stop_at=16)
    die_at(48, monkeypatch)
    with pytest.raises(Killed):
        train(config, run, device="cpu")
    assert lines_of(run)[-1]["images"] == 48
    train(config, run, device="cpu")
    read, measured = in_tensorboard(run), numbers_of(run)
    assert shown_in(read) == {
        key: [(images, value) for images, value in values if images > 16] for key, values in measured.items()
    }
    assert [image.step for image in read.Images("samples")] == [32, 64]
    assert "hparams" in read.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name
    (told,) = read.Tensors("config/text_summary")[-1].tensor_proto.string_val
    assert b"log_every: 16" in told


def test_tensorboard_shows_a_setback_as_words(tiny_config: MakeConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = RunFolder(tmp_path)
    with tracked(tiny_config({"train.trackers": "tensorboard"}), folder, 0, wanted=True):
        folder.record({"images": 32, "event": "diverged", "back_to": 16, "rate_factor": 0.25})
        folder.record({"images": 48, "loss": float("nan")})
    read = in_tensorboard(tmp_path)
    assert read.Tags()["scalars"] == ["loss"]
    (event,) = read.Tensors("events/text_summary")
    assert event.step == 32 and b'"event": "diverged", "back_to": 16' in event.tensor_proto.string_val[0]


# --- Weights & Biases, by a stand-in of what its documentation says of it


class Wandb(SimpleNamespace):
    """The module `wandb`, which writes down what it is told."""

    Error = type("Error", (Exception,), {})

    def __init__(self) -> None:
        super().__init__(
            runs=[], refuses=None, torn_down=0, offline=True, Image=lambda path: ("picture", path)
        )

    def Settings(self, **given: Any) -> dict[str, Any]:
        return given

    def teardown(self) -> None:
        self.torn_down += 1

    def init(self, **given: Any) -> "WandbRun":
        assert not sys.stdin.isatty(), "it would ask for a key"
        if self.refuses and given.get("mode") != "offline":
            raise self.Error(self.refuses)
        self.runs.append(WandbRun(given, self.offline))
        return self.runs[-1]


class WandbRun:
    def __init__(self, given: dict[str, Any], offline: bool) -> None:
        self.given, self.offline, self.dir, self.url = (
            given,
            offline,
            f"{given['dir']}/wandb/a/files",
            "https://w",
        )
        self.config, self.logged, self.ended = WandbConfig(), [], []

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        assert (name, step_metric) in (("images", None), ("*", "images"))

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def mark_preempting(self) -> None:
        self.ended.append("preempting")

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


class WandbConfig(dict):
    def update(self, values: Mapping[str, Any], *, allow_val_change: bool) -> None:  # type: ignore[override]
        assert allow_val_change
        super().update(values)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(trackers, "missing", lambda _name: [])
    for name in ("WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_a_run_that_goes_on_goes_on_in_its_wandb_run_without_repeats(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Wandb
) -> None:
    run, config = tmp_path / "young", tiny_config(SHORT | {"train.trackers": ["wandb"]})
    die_at(48, monkeypatch)
    with pytest.raises(Killed):
        train(config, run, device="cpu")
    train(config, run, device="cpu")
    first, second = wandb.runs
    assert first.given["id"] == second.given["id"] == (run / "wandb-id.txt").read_text().strip()
    assert (first.given["name"], second.given["name"]) == ("young", None), "it may have been renamed there"
    assert first.given["project"] == "civae" and first.given["dir"] == str(run)
    assert first.config["train.log_every"] == 16 and first.config["data.treatment"] == ["Young"]
    told = [values for values in first.logged + second.logged if "samples" not in values]
    for values in (*told, *(measured := lines_of(run))):
        values.pop("images_per_second", None)
    assert told == measured, "each line once, that at 48 too"
    assert [values["images"] for values in first.logged + second.logged if "samples" in values] == [32, 64]
    assert first.ended == [1] and second.ended == [0]
    assert sys.stdin.isatty(), "given back"
    train(config, run, device="cpu")
    assert wandb.runs == [first, second], "nothing was left to do"


def test_what_follows_a_setback_is_told_as_metrics_jsonl_tells_it(
    tiny_config: MakeConfig, tmp_path: Path, wandb: Wandb
) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "wandb-id.txt").write_text("abc\n")
    folder.measured.dropped_to = 64
    with tracked(tiny_config({"train.trackers": ["wandb"]}), folder, 0, wanted=True):
        for images, more in ((48, {}), (64, {"event": "diverged"}), (32, {})):
            folder.record({"images": images, **more})
    assert [values["images"] for values in wandb.runs[0].logged] == [64, 32]


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (PreemptedError("stopped"), ["preempting", 75]),
        (DivergedError("diverged"), [4]),
        (ValueError("a mistake"), [1]),
    ],
)
def test_wandb_is_told_how_a_run_ended(
    tiny_config: MakeConfig, tmp_path: Path, wandb: Wandb, error: Exception, ended: list[object]
) -> None:
    with (
        pytest.raises(type(error)),
        tracked(tiny_config({"train.trackers": ["wandb"]}), RunFolder(tmp_path), 0, wanted=True),
    ):
        raise error
    assert wandb.runs[0].ended == ended


def test_wandb_that_cannot_be_reached_is_kept_offline(
    tiny_config: MakeConfig, tmp_path: Path, wandb: Wandb, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.refuses = "no route to it\nand a long story"
    config, folder = tiny_config({"train.trackers": ["wandb"]}), RunFolder(tmp_path)
    with caplog.at_level(logging.INFO), tracked(config, folder, 0, wanted=True):
        folder.record({"images": 16, "loss": 1.0})
    assert wandb.torn_down == 1 and wandb.runs[0].given["mode"] == "offline"
    assert wandb.runs[0].logged == [{"images": 16, "loss": 1.0}]
    assert "wandb continues offline: no route to it" in caplog.text and "long story" not in caplog.text
    assert f"wandb sync {tmp_path / 'wandb' / 'a'}" in caplog.text


# --- Both


class Breaking:
    """A tracker that takes some lines and then fails at everything."""

    def __init__(self, takes: int) -> None:
        self.takes = takes

    def line(self, values: Mapping[str, Any]) -> None:
        self.takes -= 1
        if self.takes < 0:
            raise OSError(28, "No space left on device")

    def picture(self, path: Path, images: int) -> None:
        raise AssertionError("it was left out before")

    def close(self, error: BaseException | None) -> None:
        raise RuntimeError("still broken")


def test_a_tracker_that_fails_is_left_out_and_costs_a_run_one_warning(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Wandb
) -> None:
    pytest.importorskip("tensorboard")
    run, config = tmp_path / "run", tiny_config(SHORT | {"train.trackers": ["wandb", "tensorboard"]})
    monkeypatch.setattr(trackers, "TensorBoard", lambda *_: Breaking(takes=1))
    assert train(config, run, device="cpu").finished
    warnings = [
        line for line in (run / "log.txt").read_text().splitlines() if " WARNING train.trackers" in line
    ]
    (warning,) = warnings
    assert warning.endswith(
        "tensorboard gets no further reports of this run: [Errno 28] No space left on device"
    )
    assert len([values for values in wandb.runs[0].logged if "loss" in values]) == 4, "the other goes on"


def test_a_tracker_that_cannot_be_opened_costs_a_run_one_warning(
    tiny_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file, where a folder would be")
    folder = RunFolder(tmp_path)
    with tracked(tiny_config({"train.trackers": ["tensorboard"]}), folder, 0, wanted=True) as opened:
        folder.record({"images": 16, "loss": 1.0})
        opened.picture(tmp_path / "none.png", 16)
    (warning,) = caplog.messages
    assert "tensorboard gets no further reports of this run: " in warning


def test_processes_that_write_nothing_open_no_tracker(tiny_config: MakeConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with tracked(tiny_config({"train.trackers": ["tensorboard"]}), folder, 0, wanted=False):
        folder.record({"images": 16, "loss": 1.0})
    assert not (tmp_path / "tensorboard").exists()
    assert folder.measured.followers == []


def test_trackers_are_named_from_a_list_without_repeats(tiny_config: MakeConfig, tmp_path: Path) -> None:
    base = tmp_path / "base.yml"
    base.write_text("data: {path: d, treatment: [Young]}\n")
    for given, held in (("wandb", ["wandb"]), ("[tensorboard, wandb]", ["tensorboard", "wandb"]), ("[]", [])):
        assert load_config([base], [f"train.trackers={given}"]).train.trackers == held
    for refused, why in (
        ("[wandb, wandb]", "'wandb' appears twice"),
        ("[mlflow]", "'tensorboard' or 'wandb'"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            load_config([base], [f"train.trackers={refused}"])
        assert "train.trackers" in str(caught.value)


def test_nothing_is_told_once_all_are_closed() -> None:
    told: list[str] = []
    recording = SimpleNamespace(
        line=lambda _: told.append("line"),
        picture=lambda *_: told.append("picture"),
        close=lambda _: told.append("close"),
    )
    opened = Trackers({"one": lambda: recording})
    opened.line({"images": 1})
    opened.close()
    opened.line({"images": 2})
    opened.picture(Path("grid.png"), 2)
    opened.close()
    assert told == ["line", "close"]
