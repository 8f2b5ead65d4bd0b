"""The settings of quickstart: the same in Python and as a config file; a baseline that differs by its objective."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from civae_core.config import Config, load_config
from civae_core.errors import CivaeError, InterruptedRunError, PreemptedError, UsageError
from civae_core.quickstart import quickstart, quickstart_config
from civae_core.training.stopping import stop_on_signals

FILE = Path(__file__).parents[1] / "configs" / "quickstart.yml"
DATA = Path("quickstart/data")


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in section.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


def differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    first, second = flat(one.model_dump()), flat(other.model_dump())
    return {key: (first[key], second[key]) for key in first if first[key] != second[key]}


def test_the_config_file_says_what_quickstart_does() -> None:
    differing = differences(load_config([FILE]), quickstart_config("ours", DATA))
    assert differing == {}, "configs/quickstart.yml on the left, civae_core/quickstart.py on the right"


def test_the_baseline_has_the_same_network_data_and_budget() -> None:
    differing = differences(quickstart_config("ours", DATA), quickstart_config("cvae", DATA))
    assert differing.keys() <= {"objective", "model.prior", "loss.beta", "loss.weights"}
    baseline = quickstart_config("cvae", DATA)
    assert (baseline.objective, baseline.model.prior) == ("cvae", "standard")
    assert (baseline.loss.beta, baseline.loss.weights) == (1.0, "none")


def test_the_original_way_has_the_same_widths_data_and_budget() -> None:
    differing = differences(quickstart_config("ours", DATA), quickstart_config("original", DATA))
    allowed = {
        "objective",
        *(f"model.{key}" for key in ("prior", "decoder", "sigma", "sigma_init", "place_latents")),
    }
    masks = {"model.noise_mask", "model.latent_mask_width"}
    assert differing.keys() <= allowed | masks | {"loss.beta", "loss.weights"}
    assert quickstart_config("original", DATA).objective == "original"


@pytest.mark.parametrize("size", [16, 40, 272])
def test_a_size_that_does_not_suit_is_refused_before_anything_is_written(tmp_path: Path, size: int) -> None:
    with pytest.raises(UsageError, match=f"--size {size}: must be a multiple of") as caught:
        quickstart(tmp_path / "out", size=size)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_faces_are_made_on_every_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def prepare(*_: object, workers: int, **__: object) -> None:
        asked.append(workers)
        raise InterruptedError

    monkeypatch.setattr("civae_core.quickstart.prepare", prepare)
    monkeypatch.setattr("civae_core.quickstart.available_cores", lambda: 7)
    with pytest.raises(InterruptedError):
        quickstart(tmp_path / "out", device="cpu")
    assert asked == [7]


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, PreemptedError), (signal.SIGINT, InterruptedRunError)]
)
def test_a_signal_that_a_training_leaves_unheeded_ends_quickstart_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[CivaeError]
) -> None:
    """As training does in its last step."""
    trained = []

    def train(config: Config, run: Path, **_: object) -> None:
        with stop_on_signals():
            os.kill(os.getpid(), number)
        trained.append(run.name)

    monkeypatch.setattr("civae_core.quickstart.prepare", lambda *_, **__: SimpleNamespace(data=None))
    monkeypatch.setattr("civae_core.quickstart.train", train)
    with pytest.raises(kind, match="finished work is kept"):
        quickstart(tmp_path / "out", device="cpu")
    assert trained == ["ours"]


def test_faces_half_made_otherwise_are_refused_with_a_hint_that_helps(tmp_path: Path) -> None:
    plan = tmp_path / "out" / "data" / ".partial" / "plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text('{"preparation": "another"}')
    with pytest.raises(UsageError) as caught:
        quickstart(tmp_path / "out", faces=100, size=32, device="cpu")
    folder = tmp_path / "out" / "data"
    assert caught.value.message == f"{folder} holds another, unfinished preparation"
    assert caught.value.hint == f"name another --out, or delete {folder}"
