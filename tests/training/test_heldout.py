"""What a run is validated on: which images, and what their counterfactuals are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from civae_core.config.schema import Config
from civae_core.counterfactual import Prediction, abduct, predict, predict_as_original
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.model import familiar
from civae_core.model.familiar import Familiarity
from civae_core.model.stored import load_model
from civae_core.objective import negative_elbo
from civae_core.randomness import generator_for
from civae_core.training import heldout
from civae_core.training.heldout import HeldOut
from civae_core.training.loop import train
from civae_core.training.run_folder import RunFolder
from civae_core.training.setup import assign_roles, validation_split

MakeConfig = Callable[..., Config]


def held_out(faces: PreparedData, config: Config, count: int) -> HeldOut:
    roles = assign_roles(config, faces)
    chosen = labelled_rows(faces, roles, "valid")[:count]
    return HeldOut(faces, chosen, roles, config, torch.device("cpu"))


def test_images_are_spread_over_the_split(faces: PreparedData, tiny_config: MakeConfig) -> None:
    rows = faces.rows("valid")
    found = held_out(faces, tiny_config({"train.validate_images": 4}), len(rows))
    assert (len(found.validated), len(found.shown)) == (4, heldout.GRID_ROWS)
    for chosen in (found.validated, found.shown):
        assert (chosen.rows_N[0], chosen.rows_N[-1]) == (rows[0], rows[-1])


def test_what_is_measured_in_parts_is_the_same_up_to_the_order_of_sums(
    faces: PreparedData, tiny_config: MakeConfig, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heldout, "BATCH", 6)
    monkeypatch.setattr(heldout, "fit_familiarity", lambda errors, _: errors)
    config, cpu = tiny_config({"train.validate_images": 16}), torch.device("cpu")
    roles = assign_roles(config, faces)
    chosen = labelled_rows(faces, roles, "valid")
    model = load_model(trained).model
    sizes: list[int] = []
    assert model.predictor is not None
    for network in (model.encoder, model.decoder, model.predictor):
        network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))

    def measured(at_once: int | None) -> tuple[dict[str, float], Any, Any]:
        sizes.clear()
        held = HeldOut(faces, chosen, roles, config, cpu, at_once=at_once)
        return held.loss(model), held.calibration(model), held.familiarity(model)

    whole = measured(None)
    assert max(sizes) == 6
    assert measured(100)[0] == whole[0]
    loss, calibration, familiarity = measured(4)
    assert max(sizes) == 4
    assert loss == pytest.approx(whole[0], rel=1e-5)
    assert familiarity == pytest.approx(whole[2], rel=1e-4)
    assert calibration.temperatures == pytest.approx(whole[1].temperatures, rel=1e-4)
    assert calibration.spreads == pytest.approx(whole[1].spreads, rel=1e-4)


@pytest.mark.parametrize("treatment", ["Young", "Skin_Tone"])
def test_a_single_image_is_still_shown_changed(
    faces: PreparedData,
    tiny_config: MakeConfig,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    treatment: str,
) -> None:
    config = tiny_config({"data.treatment": [treatment], "data.covariates": ["Male"]})
    found = held_out(faces, config, 1)
    (attribute,) = found.roles.treatments
    for t in (attribute.low, attribute.high):
        (new,) = heldout._other_end(attribute, torch.tensor([t])).tolist()
        assert new == pytest.approx(attribute.low + attribute.high - t, abs=1e-6)
    if treatment == "Young":
        sheets: list[list[tuple[str, torch.Tensor]]] = []
        monkeypatch.setattr(heldout, "image_grid", lambda columns: sheets.append(columns))
        monkeypatch.setattr(heldout, "write_png", lambda *_: None)
        ours = held_out(faces, tiny_config(), 1)
        ours.save_grid(load_model(trained).model, RunFolder(tmp_path), 0)
        columns = dict(sheets[0])
        assert not torch.equal(columns["Young changed, τ=1"], columns["original"])


@pytest.mark.parametrize(("objective", "predicts"), [("intact", predict), ("original", predict_as_original)])
def test_a_sample_grid_shows_what_the_objective_predicts_without_and_with_pixel_noise(
    faces: PreparedData,
    tiny_config: MakeConfig,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    predicts: Callable[..., Prediction],
) -> None:
    sheets: list[list[tuple[str, torch.Tensor]]] = []
    monkeypatch.setattr(heldout, "image_grid", lambda columns: sheets.append(columns))
    monkeypatch.setattr(heldout, "write_png", lambda *_: None)
    model, found = load_model(trained).model, held_out(faces, tiny_config({"objective": objective}), 8)
    found.save_grid(model, RunFolder(tmp_path), 0)
    columns = dict(sheets[0])
    y, x, t = found.shown.read(faces, torch.device("cpu"))
    abduction = abduct(model, y, x, t)
    wanted = {
        "original": y,
        "reconstruction": abduction.reconstruction.mean_BCHW,
        "Young changed, τ=0": predicts(model, abduction, 1 - t, noise=0.0).image_BCHW,
        "Young changed, τ=1": predicts(model, abduction, 1 - t, noise=1.0).image_BCHW,
    }
    assert list(columns) == list(wanted)
    for name, image_BCHW in wanted.items():
        assert torch.equal(columns[name], image_BCHW), name


@torch.no_grad()
def test_the_validation_loss_is_the_mean_over_single_images_at_full_beta(
    faces: PreparedData, tiny_config: MakeConfig, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference handles images one by one, with the noise that each had in its batch."""
    monkeypatch.setattr(heldout, "BATCH", 7)
    model = load_model(trained).model
    found = held_out(faces, tiny_config({"loss.beta_warmup": 64, "loss.beta": 3.0}), 16)
    assert len(found.validated) == 16, "the last batch is smaller"
    noise_NZ = torch.cat(
        [
            torch.randn(min(7, 16 - start), model.latent, generator=generator_for(0, "validation", start))
            for start in (0, 7, 14)
        ]
    )
    y, x, t = found.validated.read(faces, torch.device("cpu"))
    terms = []
    for i in range(16):
        one = slice(i, i + 1)
        output = model(y[one], x[one], t[one], noise_NZ[one])
        terms.append(negative_elbo(y[one], output, 3.0))
    means = {
        "valid_loss": torch.stack([term.loss for term in terms]).mean().item(),
        "valid_kl": torch.stack([term.kl for term in terms]).mean().item(),
        "valid_mse": torch.stack([term.squared_error for term in terms]).mean().item(),
    }
    assert found.loss(model) == pytest.approx(means, rel=1e-5)


def test_without_a_valid_split_others_are_watched_and_it_is_said(
    faces: PreparedData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert validation_split(faces) == "valid" and not caplog.records
    whole = PreparedData.rows
    absent = {"valid"}
    monkeypatch.setattr(
        PreparedData, "rows", lambda self, split: whole(self, split)[: 0 if split in absent else None]
    )
    assert validation_split(faces) == "test"
    assert "the valid split has no images; the validation loss is that of test images" in caplog.text
    absent.add("test")
    assert validation_split(faces) == "train"


def test_every_checkpoint_knows_how_well_held_out_images_are_reconstructed(
    faces: PreparedData, tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(familiar, "LEVEL", 0.9)
    monkeypatch.setattr(heldout, "BATCH", 7)
    train(tiny_config({"train.validate_images": 30}), tmp_path / "run", device="cpu")
    checkpoints = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    found = [load_model(checkpoint) for checkpoint in checkpoints]
    chosen = labelled_rows(faces, found[0].card.roles, "valid")
    assert len(chosen) == 30 and len(found) == 2
    rows = chosen.rows_N
    y_BCHW = faces.images(rows).float() / 255
    x_BX, t_BT = (
        torch.stack([faces.column(name)[rows] for name in names], dim=1)
        for names in (["Male", "Skin_Tone"], ["Young"])
    )
    for stored in found:
        z_BZ = stored.model.encode(y_BCHW, x_BX, t_BT).mean_BZ
        mean_BCHW = stored.model.decode(z_BZ, t_BT, x_BX).mean_BCHW
        errors = (mean_BCHW - y_BCHW).square().mean(dim=(1, 2, 3)).sort().values.tolist()
        known = stored.card.familiarity
        assert known is not None
        assert known == Familiarity(known.median, known.limit, 0.9, 30, "valid")
        assert (known.median, known.limit) == pytest.approx(
            ((errors[14] + errors[15]) / 2, errors[27]), rel=1e-4
        )
    assert found[0].card.familiarity != found[1].card.familiarity


def test_images_that_a_model_learned_from_or_few_of_them_set_no_limit(
    faces: PreparedData, tiny_config: MakeConfig, trained: Path
) -> None:
    stored = load_model(trained)
    assert stored.card.familiarity is None, "16 images"
    roles, config = stored.card.roles, tiny_config({"train.validate_images": 100})
    chosen = labelled_rows(faces, roles, "train")
    for split, known in (("valid", True), ("train", False)):
        held = HeldOut(faces, chosen, roles, config, torch.device("cpu"), split)  # type: ignore[arg-type]
        assert (held.familiarity(stored.model) is not None) == known
