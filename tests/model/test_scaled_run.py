"""A run whose z has several scales goes through everything that a run of one vector does."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.errors import DataError
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.latents import posterior_kl, posteriors_by_arm
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.model_scores import model_scores
from civae_core.evaluation.question import ask
from civae_core.export.graphs import functions_of
from civae_core.model import IntactVAE
from civae_core.model.stored import StoredModel, load_model, save_model
from civae_core.training.loop import train as run_training

CPU = torch.device("cpu")
SCALES = {
    "model.stages": [1, 2, 4],
    "model.scales": [1, 4, 8],
    "model.scale_latents": 2,
    "train.images": 128,
    "train.checkpoint_every": 64,
}
DIMENSIONS = 16 + 2 * 16 + 2 * 64


@pytest.fixture(scope="module")
def scaled_run(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every penalty on, so that each of them is used on a z of several scales."""
    out = tmp_path_factory.mktemp("scaled") / "run"
    on = dict.fromkeys(("adversary", "hsic", "arm_balance", "reencode", "guidance", "free_bits"), 0.01)
    config = tiny_config(SCALES | {f"loss.{name}": weight for name, weight in on.items()})
    run_training(config, out, device="cpu")
    return out


@pytest.fixture(scope="module")
def stored(scaled_run: Path) -> StoredModel:
    return load_model(scaled_run)


def civae(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_it_trains_and_says_what_it_is(scaled_run: Path, stored: StoredModel) -> None:
    lines = [json.loads(line) for line in (scaled_run / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert any("valid_kl" in line for line in lines)
    assert stored.model.latent == DIMENSIONS
    assert "16 + 2·4² + 2·8² latent dimensions" in " ".join(civae("info", scaled_run).split())


def test_a_file_that_has_other_scales_than_its_card_is_refused(stored: StoredModel, tmp_path: Path) -> None:
    config = stored.card.config
    other = config.model_copy(update={"model": config.model.model_copy(update={"scales": [1, 4]})})
    save_model(stored.model, replace(stored.card, config=other), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"does not fit the model: decoder\.detail"):
        load_model(tmp_path)


def test_it_answers_photographs_and_draws_people(
    scaled_run: Path, faces: PreparedData, tmp_path: Path
) -> None:
    image = f"{faces.path}#test[0]"
    shared = ("--model", scaled_run, "--out", tmp_path, "--json")
    found = civae("counterfactual", image, "--treat", "Young=flip", *shared)
    assert (tmp_path / Path(json.loads(found)["results"][0]["output"]).name).is_file()
    records = json.loads(civae("sample", scaled_run, "--n", 2, "--out", tmp_path / "s", "--json"))["results"]
    assert len(records) == 3


def test_it_is_evaluated(stored: StoredModel, faces: PreparedData) -> None:
    roles = stored.card.roles
    chosen = labelled_rows(faces, roles, "test")
    question = ask(faces, roles, chosen)[0]
    method = TrainedModel("ours", stored)
    found = model_scores(method, faces, question, CPU, 0, Instruments())
    for key in ("psnr_reconstruction", "bits_per_dim", "composition", "reversibility", "samples"):
        assert key in found, key
    assert list(found["samples"]["kl_by_scale"]) == ["1", "4", "8"]
    kl_Z = posterior_kl(stored.model, faces, chosen, CPU)
    assert kl_Z.shape == (DIMENSIONS,) and (kl_Z > -1e-6).all()
    one, other = posteriors_by_arm(method, question.batch(faces, slice(0, 4), CPU))
    z_BZ = one.posterior.mean_BZ
    again = stored.model.prior_of(question.batch(faces, slice(0, 4), CPU).x_BX, one.t_BT).at(z_BZ)
    assert torch.equal(one.prior.mean_BZ, again.mean_BZ)
    assert one.posterior.mean_BZ.shape == other.prior.log_std_BZ.shape == (4, DIMENSIONS)


@pytest.mark.usefixtures("quick_exporter")
def test_its_graphs_take_a_z_of_all_scales(
    make_model: Callable[..., IntactVAE], photos: Callable[..., tuple[torch.Tensor, ...]]
) -> None:
    """Traces only draws from the prior; `civae export` compares every graph of a whole export with torch."""
    runtime = pytest.importorskip("onnxruntime")
    from civae_core.export.onnx_files import trace

    model = make_model(perturbed=True, scales=[1, 4, 8], scale_latents=2, predictor=False)
    functions = functions_of(model.requires_grad_(False), "intact")
    assert functions["prior"].inputs == ("x", "t", "z")

    def tensors(count: int) -> dict[str, torch.Tensor]:
        _, x_BX, t_BT = photos(count)
        noise_BZ = torch.randn(count, model.latent, generator=torch.Generator().manual_seed(count))
        return {"x": x_BX, "t": t_BT, "noise_z": noise_BZ, "t_own": 1 - t_BT}

    graph = trace(functions["draw"], tuple(tensors(3).values())).SerializeToString()
    session = runtime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    asked = tensors(5)
    (found,) = session.run(None, {name: value.numpy() for name, value in asked.items()})
    (wanted,) = functions["draw"](*asked.values())
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
