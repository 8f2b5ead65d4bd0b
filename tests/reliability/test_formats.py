"""Files of every format that was ever written are still read, as they were meant then; newer ones are refused.

The files under `formats` were written by the versions of their time: the built-in faces at 32 px (`prepare-data
synthetic:faces --n 24`), and runs of 16 images on them with the smallest of networks, of which the last checkpoint is
kept. What they must give was computed by those versions too. The ONNX export was written by the version that first
answered through one; that of format 2 by the first whose draws turn noise, of the model of format 3 with a rotation
that shows.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from run_contents import lines_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from civae_core.config.schema import Config
from civae_core.counterfactual import abduct, predict
from civae_core.data import PreparedData
from civae_core.draws import decode_prior
from civae_core.engine.onnx_engine import OnnxEngine
from civae_core.errors import DataError
from civae_core.model.stored import load_model
from civae_core.training.loop import train
from civae_core.yardstick import load_yardstick

FORMATS = Path(__file__).parent / "formats"
MEANS = {
    1: [0.521629273891449, 0.5224738121032715, 0.5228073000907898, 0.5220035314559937],
    2: [0.5216293334960938, 0.5224742293357849, 0.5228071808815002, 0.5220033526420593],
    3: [0.5216293334960938, 0.5224742293357849, 0.5228071808815002, 0.5220033526420593],
    4: [0.5062853097915649, 0.5050758719444275, 0.504393994808197, 0.5062901973724365],
    5: [0.4470965564250946, 0.6297287344932556, 0.3627220392227173, 0.3474479615688324],
}
"""Means of the reconstructions of the first four faces, by the format of the checkpoint."""
CHANGED = {
    1: [0.5020709, 0.5312429, 0.4812108, 0.4711690],
    2: [0.5019328, 0.5317045, 0.4842035, 0.4711637],
    3: [0.5019328, 0.5317045, 0.4842036, 0.4711638],
    4: [0.4578251, 0.6261171, 0.3685378, 0.3428223],
    5: [0.5265444, 0.4908782, 0.5007882, 0.5124319],
}
"""The same for their counterfactuals; format 2 masks latent noise, and format 5 looks, here with a width of .02."""
FAR = 1e6
"""A treatment, up or down, so far off that even the models of formats 1 to 3, which learned next to nothing, answer
to it. Under 0 or 1 each of their counterfactuals is the photograph."""
READ = [
    [0.01674681, 0.08370956, -0.09294112],
    [-0.04668009, 0.05107225, -0.01929540],
    [0.04602715, 0.06930189, -0.09227294],
    [0.04262986, 0.09030072, -0.09363000],
]
"""Outputs of the scorer of format 1 for their Male, Smiling and Skin_Tone; its weights are a pattern, not learned."""

DRAWN = {"own": [0.5236585, 0.5216376], "turned": [0.5215209, 0.5218512]}
"""Mean values of two people drawn under t = 1 by the export of format 2, with 1 and with 0 as their own treatment."""


@pytest.fixture
def data() -> PreparedData:
    opened = PreparedData.open(FORMATS / "data-1")
    opened.verify()
    return opened


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())


def config_of(checkpoint: Path, images: int) -> Config:
    """The config of the checkpoint, for a longer training, on the data beside it."""
    values = load_model(checkpoint).card.config.model_dump()
    values["data"]["path"] = str(FORMATS / "data-1")
    values["train"]["images"] = images
    return Config.model_validate(values)


def test_prepared_data_of_format_1(data: PreparedData) -> None:
    assert (len(data), data.size, data.channels) == (24, 32, 3)
    assert int(data.images(torch.arange(24)).sum()) == 9379631
    assert data.fingerprint == "4a3af414d5014c006298764193fac3c25eb20a8c20d201b616cb24a9f8201cd4"
    (truth,) = data.truth
    assert (truth.name, truth.do) == ("Young=flip", {"Young": "flip"})


@pytest.mark.parametrize("number", list(MEANS))
def test_models_answer_as_when_they_were_written(number: int, data: PreparedData) -> None:
    file = FORMATS / f"checkpoint-{number}" / "model.safetensors"
    assert json.loads(metadata(file)["civae"])["format"] == number
    y_BCHW = data.images(torch.arange(4)).float() / 255
    t_BT, x_BX = (data.column(name)[:4, None].float() for name in ("Young", "Male"))
    model = load_model(file).model
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    found = abduction.reconstruction.mean_BCHW
    assert found.mean(dim=(1, 2, 3)).tolist() == pytest.approx(MEANS[number], abs=1e-5)
    changed = predict(model, abduction, FAR * (1 - 2 * t_BT) if number <= 3 else 1 - t_BT).image_BCHW
    assert changed.mean(dim=(1, 2, 3)).tolist() == pytest.approx(CHANGED[number], abs=1e-5)


@pytest.mark.parametrize(("number", "width"), [(3, None), (4, None), (5, 0.02)])
def test_looks_are_masked_from_format_5_on(number: int, width: float | None) -> None:
    stored = load_model(FORMATS / f"checkpoint-{number}" / "model.safetensors")
    assert stored.model.looks_mask_width == stored.card.config.model.looks_mask_width == width


def test_grids_that_placed_layers_are_no_longer_read(tmp_path: Path) -> None:
    stored = load_model(FORMATS / "checkpoint-4" / "model.safetensors")
    assert (stored.card.config.model.grids, stored.card.config.model.decoder) == ((8, 16), "layered")
    file = FORMATS / "checkpoint-4" / "model.safetensors"
    card = json.loads(metadata(file)["civae"]) | {"format": 3}
    older = tmp_path / "model.safetensors"
    save_file(load_file(file), older, metadata={"civae": json.dumps(card)})
    with pytest.raises(DataError, match=r"written in format 3, whose grids of latents placed layers"):
        load_model(older)


@pytest.mark.parametrize(("number", "angle"), [(1, None), (2, None), (3, -4.5361e-07)])
def test_noises_are_paired_from_format_3_on(number: int, angle: float | None) -> None:
    stored = load_model(FORMATS / f"checkpoint-{number}" / "model.safetensors")
    assert stored.card.paired == (angle is not None) == (stored.model.pairing is not None)
    if stored.model.pairing is not None:
        assert float(stored.model.pairing.free_TLL[0, 0, 1]) == pytest.approx(angle, rel=1e-4)


def test_a_scorer_of_format_1_reads_what_it_read(data: PreparedData) -> None:
    file = FORMATS / "scorer-1.safetensors"
    assert metadata(file)["civae_yardstick_format"] == "1"
    scorer = load_yardstick(file)
    assert [attribute.name for attribute in scorer.attributes] == ["Male", "Smiling", "Skin_Tone"]
    assert scorer.card.data["fingerprint"] == data.fingerprint
    found_BA = scorer.read(data.images(torch.arange(4)).float() / 255).outputs_BA
    torch.testing.assert_close(found_BA, torch.tensor(READ), rtol=0, atol=1e-5)


def test_an_onnx_export_of_format_1_answers_as_the_model_beside_it(data: PreparedData) -> None:
    pytest.importorskip("onnxruntime")
    file = FORMATS / "checkpoint-1" / "model.safetensors"
    engine = OnnxEngine.open(file.with_name("model-onnx"), file)
    assert json.loads((engine.folder / "card.json").read_text())["format"] == 1
    y_BCHW = data.images(torch.arange(4)).float() / 255
    t_BT, x_BX = (data.column(name)[:4, None].float() for name in ("Young", "Male"))
    model = load_model(file).model
    with torch.no_grad():
        wanted = predict(model, abduct(model, y_BCHW, x_BX, t_BT), 1 - t_BT)
    abducted = engine.abduct(y_BCHW.numpy(), x_BX.numpy(), t_BT.numpy())
    found = engine.predict(abducted, 1 - t_BT.numpy(), noise=1, strength=1)
    assert abducted.reconstruction_BCHW.mean(axis=(1, 2, 3)).tolist() == pytest.approx(MEANS[1], abs=1e-5)
    assert found.image_BCHW == pytest.approx(wanted.image_BCHW.numpy(), abs=1e-4)


def test_an_onnx_export_of_format_2_turns_noise_as_the_model_beside_it() -> None:
    pytest.importorskip("onnxruntime")
    file = FORMATS / "export-2" / "model.safetensors"
    engine = OnnxEngine.open(file.with_name("model-onnx"), file)
    assert json.loads((engine.folder / "card.json").read_text())["format"] == 2
    model = load_model(file).model
    x_BX, t_BT = torch.tensor([[0.0], [1.0]]), torch.ones(2, 1)
    eta_BZ = torch.linspace(-2, 2, 2 * model.latent).reshape(2, -1)
    for own, own_BT in (("own", t_BT), ("turned", 1 - t_BT)):
        drawn_BCHW = engine.draw(x_BX.numpy(), t_BT.numpy(), eta_BZ.numpy(), own_BT.numpy())
        assert drawn_BCHW == pytest.approx(decode_prior(model, x_BX, t_BT, eta_BZ, own_BT).numpy(), abs=1e-4)
        assert drawn_BCHW.mean(axis=(1, 2, 3)).tolist() == pytest.approx(DRAWN[own], abs=1e-5)


@pytest.mark.parametrize("number", [1, 2])
def test_training_goes_on_from_them(number: int, tmp_path: Path) -> None:
    checkpoint = FORMATS / f"checkpoint-{number}"
    state = json.loads(metadata(checkpoint / "state.safetensors")["civae_state"])
    assert state.get("format", 1) == number
    started = train(config_of(checkpoint, 24), tmp_path / "new", device="cpu", resume=str(checkpoint))
    assert (started.images_seen, started.finished) == (24, True)

    # As a run of its own, whose metrics a kill left longer than its checkpoint knows.
    own = tmp_path / "own" / "checkpoints" / "step-000000016"
    shutil.copytree(checkpoint, own)
    (tmp_path / "own" / "env.json").write_text("{}")
    counted = state["counters"].get("metrics_lines", 3)
    written = [{"images": images, "lr": 1.0} for images in (8, 16, 16, 24)]
    if number == 2:
        written.insert(0, {"images": 4})
        assert counted == 4
    (tmp_path / "own" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    assert train(config_of(checkpoint, 24), tmp_path / "own", device="cpu").finished
    assert lines_of(tmp_path / "own")[:counted] == written[:counted]
    assert [line["images"] for line in lines_of(tmp_path / "own")[counted:]] == [24, 24]
    for name in ("model.safetensors", "state.safetensors"):
        one, other = (load_file(tmp_path / run / "checkpoints" / "last" / name) for run in ("new", "own"))
        assert all(torch.equal(one[key], other[key]) for key in one if key != "tally")


def test_a_state_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(FORMATS / "checkpoint-2", tmp_path / "newer"))
    file = copy / "state.safetensors"
    values = json.loads(metadata(file)["civae_state"]) | {"format": 99}
    save_file(load_file(file), file, metadata={"civae_state": json.dumps(values)})
    with pytest.raises(
        DataError, match=r"state.safetensors: written in format 99, this version reads up to \d"
    ):
        train(config_of(copy, 24), tmp_path / "run", device="cpu", resume=str(copy))
    assert not (tmp_path / "run").exists()
