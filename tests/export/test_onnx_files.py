"""ONNX graphs: equal to torch's functions, whole or absent, each number stored once, refused when they are wrong."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config import Config
from civae_core.config.schema import Objective
from civae_core.counterfactual import abduct, predict, predict_as_original
from civae_core.data.images import Preprocessing
from civae_core.draws import decode_prior
from civae_core.engine.card import CARD, WEIGHTS, read_card
from civae_core.engine.onnx_engine import OnnxEngine
from civae_core.errors import CivaeError, UsageError
from civae_core.export import onnx_files
from civae_core.export.check import examples
from civae_core.export.graphs import Function, functions_of
from civae_core.export.onnx_files import TOLERANCE, export_onnx, trace
from civae_core.files import sha256_of
from civae_core.model import IntactVAE
from civae_core.model.stored import ModelCard, StoredModel, save_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("quick_exporter")

AGE = Attribute("Age", "continuous", 20.0, 80.0, 45.0, 15.0)
ROLES = AttributeRoles(
    treatments=(Attribute("Young", "binary"), AGE), covariates=(Attribute("Male", "binary"),)
)
FUNCTIONS = ("abduct", "predict", "draw", "predictor")
"""The functions that answers need; the networks on their own take as long again, and one test covers them."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """A small model with both masks, inverted blocks, a per-pixel σ, two treatments and perturbed weights.

    Its pairing rotates noises far. `exported` has what this model lacks: places read off contours, and layers.
    """
    config = Config.model_validate(
        {
            "data": {"path": "d", "treatment": ["Young", "Age"], "covariates": ["Male"]},
            "model": {
                "latent": 6,
                "width": 8,
                "stages": [1],
                "prior_hidden": 16,
                "sigma": "pixel",
                "decoder": "direct",
                "block": "inverted",
                "mask_width": 0.3,
            },
        }
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = IntactVAE(config.model, ROLES, size=16, channels=3).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        assert model.pairing is not None
        model.pairing.free_TLL.normal_()
    subjects = [[float(i % 2), 20.0 + 6 * i, float(i % 3 == 0)] for i in range(11)]
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    card = ModelCard(
        config,
        ROLES,
        Preprocessing(16).to_dict(),
        0,
        {"name": "n", "path": "p", "fingerprint": "f"},
        subjects,
    )
    save_model(model, card, file)
    return StoredModel(model, card, file)


@pytest.fixture(scope="module")
def exported(stored: StoredModel) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_files, "functions_of", _those_that_answer)
        folder, _ = export_onnx(stored)
    return folder


def _those_that_answer(model: IntactVAE, objective: Objective) -> dict[str, Function]:
    return {name: f for name, f in functions_of(model, objective).items() if name in FUNCTIONS}


def arrays(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Photographs, covariates, treatments and others: some equal, some beyond training."""
    generator = torch.Generator().manual_seed(seed)
    y_BCHW = torch.rand(count, 3, 16, 16, generator=generator)
    t_BT = torch.stack([torch.arange(count) % 2, 30.0 + 5 * torch.arange(count)], dim=1).float()
    t_new_BT = t_BT.clone()
    t_new_BT[::2] = torch.tensor([0.5, 300.0])
    return y_BCHW, (torch.arange(count) % 3 == 0).float()[:, None], t_BT, t_new_BT


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(("noise", "strength"), [(1.0, 1.0), (0.0, 1.0), (0.5, 2.5)])
def test_counterfactuals_equal_torch_s(
    stored: StoredModel, exported: Path, count: int, noise: float, strength: float
) -> None:
    y_BCHW, x_BX, t_BT, t_new_BT = arrays(count)
    engine = OnnxEngine.open(exported, stored.path)
    abduction = abduct(stored.model, y_BCHW, x_BX, t_BT)
    wanted = predict(stored.model, abduction, t_new_BT, noise=noise, strength=strength)
    abducted = engine.abduct(y_BCHW.numpy(), x_BX.numpy(), t_BT.numpy())
    found = engine.predict(abducted, t_new_BT.numpy(), noise=noise, strength=strength)
    np.testing.assert_allclose(
        abducted.reconstruction_BCHW, abduction.reconstruction.mean_BCHW, atol=TOLERANCE
    )
    np.testing.assert_allclose(found.image_BCHW, wanted.image_BCHW, atol=TOLERANCE)
    np.testing.assert_allclose(found.mean_BCHW, wanted.mean_BCHW, atol=TOLERANCE)
    np.testing.assert_allclose(found.effect_BCHW, wanted.effect_BCHW, atol=TOLERANCE)
    assert np.abs(found.effect_BCHW[0]).max() > 100 * TOLERANCE, "or equality would say little"
    if (noise, strength, count) == (1.0, 1.0, 4):
        np.testing.assert_allclose(found.image_BCHW[1], y_BCHW[1], atol=1e-6, err_msg="null intervention")


@pytest.mark.parametrize("cores", [1, 3])
def test_images_shared_out_to_cores_come_back_in_their_order(
    stored: StoredModel, exported: Path, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    y_BCHW, x_BX, t_BT, t_new_BT = arrays(20)
    wanted = predict(stored.model, abduct(stored.model, y_BCHW, x_BX, t_BT), t_new_BT)
    engine = OnnxEngine.open(exported)
    found = engine.predict(
        engine.abduct(y_BCHW.numpy(), x_BX.numpy(), t_BT.numpy()), t_new_BT.numpy(), noise=1, strength=1
    )
    np.testing.assert_allclose(found.image_BCHW, wanted.image_BCHW, atol=TOLERANCE)
    assert np.abs(found.image_BCHW[0] - found.image_BCHW[10]).max() > 100 * TOLERANCE


def test_draws_and_guesses_equal_torch_s(stored: StoredModel, exported: Path) -> None:
    model = stored.model
    y_BCHW, x_BX, t_BT, own_BT = arrays(3)
    noise_BZ = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
    engine = OnnxEngine.open(exported)
    assert (engine.latent, engine.roles, engine.preprocessing) == (6, ROLES, stored.card.preprocessing)
    assert engine.subjects == stored.card.subjects
    given = (x_BX.numpy(), t_BT.numpy(), noise_BZ.numpy())
    drawn_BCHW = model.decode(model.prior_of(x_BX, t_BT).sample(noise_BZ), t_BT, x_BX).mean_BCHW
    np.testing.assert_allclose(engine.draw(*given), drawn_BCHW, atol=TOLERANCE)
    turned_BCHW = decode_prior(model, x_BX, t_BT, noise_BZ, own_BT)
    np.testing.assert_allclose(engine.draw(*given, own_BT.numpy()), turned_BCHW, atol=TOLERANCE)
    assert (turned_BCHW - drawn_BCHW).abs().max() > 100 * TOLERANCE
    assert model.predictor is not None
    np.testing.assert_allclose(engine.guess(y_BCHW.numpy()), model.predictor(y_BCHW), atol=TOLERANCE)


def test_an_export_of_format_1_draws_as_it_did(stored: StoredModel, exported: Path, tmp_path: Path) -> None:
    """The graph of format 1 had no input for the subjects' own treatment, and took t for it."""
    folder = Path(shutil.copytree(exported, tmp_path / "older"))
    graph = onnx.load(folder / "draw.onnx", load_external_data=False)
    for node in graph.graph.node:
        node.input[:] = ["t" if name == "t_own" else name for name in node.input]
    (own,) = [value for value in graph.graph.input if value.name == "t_own"]
    graph.graph.input.remove(own)
    onnx.save(graph, folder / "draw.onnx")
    values = json.loads((folder / CARD).read_text())
    assert values["format"] == 2
    draw = values["graphs"]["draw"]
    draw["sha256"] = sha256_of(folder / "draw.onnx")
    del draw["inputs"]["t_own"]
    (folder / CARD).write_text(json.dumps(values | {"format": 1}))
    _, x_BX, t_BT, own_BT = arrays(3)
    noise_BZ = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
    drawn_BCHW = decode_prior(stored.model, x_BX, t_BT, noise_BZ)
    found_BCHW = OnnxEngine.open(folder).draw(*(v.numpy() for v in (x_BX, t_BT, noise_BZ, own_BT)))
    np.testing.assert_allclose(found_BCHW, drawn_BCHW, atol=TOLERANCE)


def test_a_model_that_pairs_no_noises_is_drawn_from_by_the_graph_of_before(stored: StoredModel) -> None:
    unpaired = stored.card.config.model.model_copy(update={"pairing": "none"})
    model = IntactVAE(unpaired, ROLES, size=16, channels=3).eval()
    assert functions_of(model, "intact")["draw"].inputs == ("x", "t", "noise_z")


def test_each_number_is_stored_once_and_no_folder_of_this_machine_is(
    stored: StoredModel, exported: Path
) -> None:
    numbers = sum(tensor.numel() for tensor in stored.model.state_dict().values())
    assert (exported / WEIGHTS).stat().st_size < 1.1 * 4 * numbers
    for file in exported.glob("*.onnx"):
        graph = onnx.load(file, load_external_data=True)
        onnx.checker.check_model(graph, full_check=True)
        assert str(Path(onnx_files.__file__).parents[1]).encode() not in file.read_bytes()
        assert b"site-packages" not in file.read_bytes()
        assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_card_says_what_the_graphs_take_and_what_was_found(stored: StoredModel, exported: Path) -> None:
    card = read_card(exported)
    assert card.graphs.keys() == set(FUNCTIONS)
    assert card.graphs["abduct"].inputs == {"y": ["batch", 3, 16, 16], "x": ["batch", 1], "t": ["batch", 2]}
    assert card.graphs["predict"].inputs["noise"] == []
    assert all(0 < entry.largest_difference <= TOLERANCE for entry in card.graphs.values())
    assert card.model == json.loads(stored.card.to_json())
    assert [path.name for path in exported.parent.iterdir() if path.name.startswith(".")] == []


def test_the_original_s_inference_is_exported_as_it_is(stored: StoredModel) -> None:
    """The original gives t' to the encoder, so the graph must encode the photograph again."""
    function = functions_of(stored.model, "original")["predict"]
    given = examples(stored, 2)["predict"]
    image_BCHW = function(*(given[key] for key in function.inputs))[0]
    y_BCHW, x_BX, t_new_BT = given["y"], given["x"], given["t_new"]
    abduction = abduct(stored.model, y_BCHW, x_BX, given["t"])
    wanted = predict_as_original(stored.model, abduction, t_new_BT, noise=0.75, strength=1.25)
    assert torch.equal(image_BCHW, wanted.image_BCHW)


def test_the_networks_are_there_for_other_programs(stored: StoredModel) -> None:
    functions = functions_of(stored.model, "intact")
    y_BCHW, x_BX, t_BT, _ = arrays(2)
    posterior, _ = stored.model.encode(y_BCHW, x_BX, t_BT).central()
    assert torch.equal(functions["encoder"](y_BCHW, x_BX, t_BT)[1], posterior.log_std_BZ)
    mean_BCHW, log_sigma_BCHW = functions["decoder"](posterior.mean_BZ, t_BT, x_BX)
    likelihood = stored.model.decode(posterior.mean_BZ, t_BT, x_BX)
    assert torch.equal(mean_BCHW, likelihood.mean_BCHW) and torch.equal(log_sigma_BCHW, likelihood.log_sigma)
    graph = trace(functions["prior"], (x_BX, t_BT))
    assert [value.name for value in graph.graph.input] == ["x", "t"]
    assert [value.name for value in graph.graph.output] == ["mean", "log_std"]
    assert functions.keys() == {*FUNCTIONS, "encoder", "decoder", "prior"}


def test_the_original_s_network_is_exported_too(stored: StoredModel) -> None:
    """Encoder and decoder in one graph, against torch, at another batch size than it was traced with."""
    session = pytest.importorskip("onnxruntime").InferenceSession
    settings = {"network": "original", "latent": 6, "width": 8, "stages": [1, 2], "norm": "batch"}
    config = Config.model_validate(
        {
            "objective": "original",
            "data": {"path": "d", "treatment": ["Young", "Age"], "covariates": ["Male"]},
            "model": settings,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = IntactVAE(config.model, ROLES, size=16, channels=3).eval().requires_grad_(False)
    function = functions_of(model, "original")["predict"]
    same = StoredModel(model, replace(stored.card, config=config), stored.path)
    traced, asked = (examples(same, count)["predict"] for count in (2, 3))
    graph = trace(function, tuple(traced[key] for key in function.inputs))
    engine = session(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    taken = {given.name for given in engine.get_inputs()}
    found = engine.run(None, {key: asked[key].numpy() for key in function.inputs if key in taken})
    wanted = function(*(asked[key] for key in function.inputs))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)


def test_a_prior_whose_mean_and_spread_are_the_same_zeros_has_both_in_its_graph(stored: StoredModel) -> None:
    standard = stored.card.config.model.model_copy(update={"prior": "standard"})
    model = IntactVAE(standard, ROLES, size=16, channels=3).eval()
    _, x_BX, t_BT, _ = arrays(2)
    graph = trace(functions_of(model, "cvae")["prior"], (x_BX, t_BT))
    assert [value.name for value in graph.graph.output] == ["mean", "log_std"]
    assert {name for node in graph.graph.node for name in node.output} >= {"mean", "log_std"}


@pytest.mark.parametrize(("off", "shown"), [(2 * TOLERANCE, "0.0002"), (float("nan"), "nan")])
def test_graphs_that_answer_otherwise_are_not_written(
    off: float, shown: str, stored: StoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prior_twice(model: IntactVAE, objective: Objective) -> dict[str, Function]:
        prior = functions_of(model, objective)["prior"]
        return {"draw": prior, "prior": prior}

    traced: list[Function] = []

    def second_wrongly(function: Function, tensors: tuple[torch.Tensor, ...]) -> Any:
        traced.append(function)
        if len(traced) == 1:
            return trace(function, tensors)
        honest = function.function
        wrong = Function(
            function.model,
            lambda *given: tuple(out + off for out in honest(*given)),
            function.inputs,
            function.outputs,
        )
        return trace(wrong, tensors)

    monkeypatch.setattr(onnx_files, "functions_of", prior_twice)
    monkeypatch.setattr(onnx_files, "trace", second_wrongly)
    with pytest.raises(CivaeError, match=f"graph 'prior' differs from torch by {shown}"):
        export_onnx(stored, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_export_is_left_alone(stored: StoredModel, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="exists and is not an ONNX export"):
        export_onnx(stored, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / CARD).exists()


@pytest.mark.parametrize(
    ("name", "said"), [("notes.txt", "put there since: notes.txt"), ("card.json", "is not an ONNX")]
)
def test_an_export_with_a_file_of_somebody_else_is_left_alone(
    name: str, said: str, stored: StoredModel, exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "out"))
    (folder / name).write_text('{"name": "Ace of Spades"}')
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match=said):
        export_onnx(stored, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder whose name is not valid UTF-8."""
    folder = tmp_path / os.fsdecode(b"odd-\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("file names are UTF-8 on this disk")
    return folder


def test_an_export_is_written_where_a_name_is_not_utf_8(
    stored: StoredModel, odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "functions_of", lambda *of: {"prior": functions_of(*of)["prior"]})
    folder, card = export_onnx(stored, odd / "out")
    assert folder == odd / "out" and read_card(folder) == card


def test_an_export_answers_where_a_name_is_not_utf_8(exported: Path, odd: Path) -> None:
    y_BCHW, x_BX, t_BT, _ = (array.numpy() for array in arrays(1))
    folder = Path(shutil.copytree(exported, odd / "out"))
    found, wanted = (OnnxEngine.open(place).abduct(y_BCHW, x_BX, t_BT) for place in (folder, exported))
    assert np.array_equal(found.reconstruction_BCHW, wanted.reconstruction_BCHW)
