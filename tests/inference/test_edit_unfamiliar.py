"""Pictures that a model cannot reconstruct are told by how far they are beyond the limit, at no cost."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from civae_core.data import PreparedData
from civae_core.errors import DataError
from civae_core.inference import edit, plausible
from civae_core.inference.edit import EditedPicture, edit_pictures
from civae_core.inference.pictures import Picture
from civae_core.inference.torch_engine import TorchEngine
from civae_core.model.familiar import Familiarity
from civae_core.model.stored import load_model


def engine_with(trained: Path, limit: float | None) -> TorchEngine:
    stored = load_model(trained)
    known = None if limit is None else Familiarity(limit / 2, limit, 0.99, 256, "valid")
    return TorchEngine(replace(stored, card=replace(stored.card, familiarity=known)))


@pytest.fixture
def pictures(faces: PreparedData) -> list[Picture]:
    """Four held-out faces of which nothing is known, and one picture of noise."""
    images = list(faces.images(faces.rows("test")[:4]).numpy())
    images.append(np.random.default_rng(0).integers(0, 256, images[0].shape, dtype=np.uint8))
    return [Picture(f"{number}.png", str(number), pixels) for number, pixels in enumerate(images)]


def edited(engine: TorchEngine, pictures: list[Picture], **stated: float) -> list[EditedPicture]:
    results = list(edit_pictures(engine, pictures, [{"Young": 0.0}], stated=stated))
    assert not [result for result in results if isinstance(result, DataError)]
    return results  # type: ignore[return-value]


def errors_of(engine: TorchEngine, results: list[EditedPicture]) -> list[float]:
    """Reconstruction error of each picture, by torch alone, under the labels that its answer rests on."""
    errors = []
    for result in results:
        y_BCHW = torch.from_numpy(result.picture.pixels_CHW)[None].float() / 255
        t, *x = (torch.tensor([[value]]) for value in result.factual.values())
        z_BZ = engine.model.encode(y_BCHW, torch.cat(x, dim=1), t).mean_BZ
        mean_BCHW = engine.model.decode(z_BZ, t, torch.cat(x, dim=1)).mean_BCHW
        errors.append(float((mean_BCHW - y_BCHW).square().mean()))
    return errors


def test_the_factor_is_that_of_the_pictures_own_error(
    trained: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plausible, "SURE", 0.5)
    monkeypatch.setattr(edit, "BATCH", 2)
    unknown = engine_with(trained, None)
    errors = errors_of(unknown, edited(unknown, pictures))
    assert [result.unfamiliar for result in edited(unknown, pictures)] == [None] * 5
    faces, noise = errors[:4], errors[4]
    assert noise > max(faces)
    limit = (noise * max(faces)) ** 0.5
    found = edited(engine_with(trained, limit), pictures)
    assert [result.unfamiliar for result in found[:4]] == [None] * 4
    assert found[4].unfamiliar == pytest.approx(noise / limit, rel=1e-4)
    lower = [result.unfamiliar for result in edited(engine_with(trained, min(faces) / 2), pictures)]
    assert lower == pytest.approx([error / (min(faces) / 2) for error in errors], rel=1e-4)


def test_of_an_unsure_picture_the_mean_reconstruction_counts(trained: Path, pictures: list[Picture]) -> None:
    engine = engine_with(trained, 1e-6)
    (result,) = edited(engine, pictures[:1], Young=1.0, Skin_Tone=0.5)
    assert result.unsure.averaged == ("Male",), "the fixture's model is unsure of it"
    p = result.predicted["Male"]
    assert p is not None
    y_CHW = result.picture.pixels_CHW.astype(np.float32) / 255
    t_BT = np.array([[1.0]], dtype=np.float32)
    man, woman = (
        engine.abduct(y_CHW[None], np.array([[male, 0.5]], dtype=np.float32), t_BT).reconstruction_BCHW[0]
        for male in (1.0, 0.0)
    )
    error = np.square(p * man + (1 - p) * woman - y_CHW).mean()
    assert result.unfamiliar == pytest.approx(error / 1e-6, rel=1e-3)


def test_it_costs_no_further_look_at_the_picture(
    trained: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for limit in (None, 1e-6):
        engine, calls = engine_with(trained, limit), []
        for part in (engine.model.encoder, engine.model.decoder):
            part.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        edited(engine, pictures)
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0
