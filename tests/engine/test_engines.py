"""Engines: which one is taken, what is refused, and that all answer alike."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from civae_core.engine.base import Engine
from civae_core.engine.card import CARD, WEIGHTS
from civae_core.engine.onnx_engine import OnnxEngine
from civae_core.errors import DataError, UsageError
from civae_core.inference import engines
from civae_core.inference.engines import open_engine
from civae_core.inference.torch_engine import TorchEngine
from civae_core.model.stored import load_model, read_tensors, save_model


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "nvidia_driver", lambda: None)


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def retrained(folder: Path) -> None:
    """Puts another model in the place of the one that was exported."""
    stored = load_model(folder)
    with torch.no_grad():
        next(stored.model.parameters()).add_(0.5)
    save_model(stored.model, stored.card, stored.path)


def answers(engine: Engine, count: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(count)
    channels, size = engine.preprocessing["channels"], engine.preprocessing["size"]
    y_BCHW = generator.random((count, channels, size, size), dtype=np.float32)
    subjects_BA = np.array(engine.subjects[:count], dtype=np.float32)
    t_BT, x_BX = np.split(subjects_BA, [len(engine.roles.treatments)], axis=1)
    guesses_BA = engine.guess(y_BCHW)
    assert guesses_BA is not None
    abducted = engine.abduct(y_BCHW, x_BX, t_BT)
    found = engine.predict(abducted, 1 - t_BT, noise=0.6, strength=1.5)
    noise_BZ = generator.standard_normal((count, engine.latent), dtype=np.float32)
    drawn = [engine.draw(x_BX, t_BT, noise_BZ), engine.draw(x_BX, t_BT, noise_BZ, 1 - t_BT)]
    return [guesses_BA, abducted.reconstruction_BCHW, *vars(found).values(), *drawn]


@pytest.mark.parametrize("count", [1, 2, 8, 19])
def test_all_engines_answer_alike(exported: Path, count: int) -> None:
    fast, reference = open_engine(exported, "onnx"), open_engine(exported, "torch")
    assert isinstance(fast, OnnxEngine) and isinstance(reference, TorchEngine)
    for found, wanted in zip(answers(fast, count), answers(reference, count), strict=True):
        assert found.dtype == wanted.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    for fact in ("roles", "preprocessing", "latent", "subjects", "calibration", "familiarity"):
        assert getattr(fast, fact) == getattr(reference, fact) is not None, fact


def test_auto_takes_the_export_unless_a_gpu_or_a_device_asks_for_torch(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_engine(exported), OnnxEngine)
    assert isinstance(open_engine(exported / "model.safetensors", device="cpu"), OnnxEngine)
    with pytest.raises(UsageError, match="--device cuda:9"):
        open_engine(exported, device="cuda:9")
    monkeypatch.setattr(engines, "nvidia_driver", lambda: "550.1")
    assert isinstance(open_engine(exported), TorchEngine)
    assert isinstance(open_engine(exported, "onnx"), OnnxEngine)


def test_auto_is_torch_without_an_export_or_without_onnx_runtime(
    exported: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_engine(trained), TorchEngine)
    for module in (engines, __import__("civae_core.engine.onnx_engine", fromlist=["x"])):
        monkeypatch.setattr(module, "is_installed", lambda: False)
    assert isinstance(open_engine(exported), TorchEngine)
    with pytest.raises(UsageError, match="ONNX Runtime is not installed") as caught:
        open_engine(exported, "onnx")
    assert "'onnxruntime>=" in (caught.value.hint or "")


def test_an_export_of_an_earlier_model_is_never_used(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    retrained(copied)
    with pytest.raises(DataError, match="this export does not match") as caught:
        open_engine(copied, "onnx")
    assert f"civae export {copied / 'model.safetensors'}" in (caught.value.hint or "")
    with caplog.at_level(logging.WARNING, logger="civae_core"):
        assert isinstance(open_engine(copied), TorchEngine)
    assert "this export does not match" in caplog.text and "using torch instead" in caplog.text


@pytest.mark.parametrize("name", [WEIGHTS, "predict.onnx"])
def test_changed_and_missing_files_are_named(copied: Path, name: str) -> None:
    file = copied / "model-onnx" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} does not match its checksum"):
        open_engine(copied, "onnx")
    file.unlink()
    with pytest.raises(DataError, match=f"{name}: No such file"):
        open_engine(copied, "onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "written in format 99, this version reads up to 2"),
        ({"graphs": {"abduct": {"file": "../../x"}}}, "damaged ONNX export"),
        ({"model": None}, "damaged ONNX export"),
        ({"model": {"familiarity": {"limit": -1}}}, "damaged ONNX export"),
        (None, "damaged ONNX export"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(
    copied: Path, change: dict[str, object] | None, message: str
) -> None:
    card = copied / "model-onnx" / CARD
    values = json.loads(card.read_text())
    card.write_text("{" if change is None else json.dumps(values | change))
    with pytest.raises(DataError, match=message):
        open_engine(copied, "onnx")


def test_a_card_cannot_name_files_outside_its_folder(copied: Path) -> None:
    card = copied / "model-onnx" / CARD
    values = json.loads(card.read_text())
    values["graphs"]["abduct"]["file"] = "../model.safetensors"
    values["graphs"]["abduct"]["sha256"] = values["model_sha256"]
    card.write_text(json.dumps(values))
    with pytest.raises(DataError, match="which is not a file in the folder"):
        open_engine(copied, "onnx")


def test_an_export_can_be_named_itself_and_travel_alone(copied: Path, tmp_path: Path) -> None:
    folder = copied / "model-onnx"
    assert isinstance(open_engine(folder), OnnxEngine)
    with pytest.raises(UsageError, match="which torch cannot run"):
        open_engine(folder, "torch")
    alone = Path(shutil.copytree(folder, tmp_path / "alone"))
    retrained(copied)
    assert isinstance(open_engine(alone), OnnxEngine)
    with pytest.raises(DataError, match="this export does not match"):
        open_engine(folder)


def test_what_cannot_be_followed_is_refused(exported: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--engine tensorflow: unknown engine"):
        open_engine(exported, "tensorflow")
    with pytest.raises(UsageError, match="--device cuda: the onnx engine runs only on the CPU"):
        open_engine(exported, "onnx", "cuda")
    with pytest.raises(DataError, match="has no ONNX export") as caught:
        open_engine(trained, "onnx")
    assert f"civae export {trained}" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no such run"):
        open_engine(tmp_path / "nowhere", "onnx")


def test_the_export_holds_the_weights_of_its_model(exported: Path) -> None:
    """A quick check that nothing was rounded: large tensors are stored in the shared file exactly as in the model."""
    numbers = (exported / "model-onnx" / WEIGHTS).read_bytes()
    tensors = read_tensors(exported / "model.safetensors")
    large = {name: value for name, value in tensors.items() if value.numel() > 4096}
    assert len(large) > 5
    for name, value in large.items():
        assert value.numpy().tobytes() in numbers, name
