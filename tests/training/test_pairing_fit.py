"""The last step of training: noises paired by contours, once, to the same bits however often it was stopped."""

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.config import Config
from civae_core.counterfactual import Abduction, abduct, predict
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.errors import PreemptedError
from civae_core.model import IntactVAE
from civae_core.model.stored import read_card
from civae_core.model_paths import find_model_file
from civae_core.penalties.arms import other_arm
from civae_core.training import heldout, loop, pairing
from civae_core.training.bookkeeping import Bookkeeper
from civae_core.training.loop import train
from civae_core.training.pairing import fit_pairing, pairing_loss, seen_as_asked
from civae_core.training.preview import preview

SHORT = {"train.images": 96, "train.batch_size": 16, "train.validate_images": 4, "train.checkpoint_every": 48}
SHORT |= {"train.pairing_images": None}  # as many as it trained on
MakeConfig = Callable[..., Config]


pytestmark = pytest.mark.usefixtures("no_sample_grids")


def rotation(run: Path) -> Tensor:
    """The parameters of a run's rotation, which must be equal in its average and its training weights."""
    last = run / "checkpoints" / "last"
    averaged = load_file(last / "model.safetensors")["pairing.free_TLL"]
    assert torch.equal(averaged, load_file(last / "state.safetensors")["model.pairing.free_TLL"])
    return averaged


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_contours_teach_the_rotation_and_nothing_else(
    make_model: Callable[..., IntactVAE],
    photos: Callable[..., tuple[Tensor, ...]],
    roles: AttributeRoles,
) -> None:
    y, x, t = photos(16)
    model = make_model(perturbed=True, latent=12, place_latents=4)
    assert model.pairing is not None
    model.pairing.forget()
    t_new, _ = other_arm(t, roles.treatments)
    angles = model.pairing.free_TLL.requires_grad_()
    optimizer = torch.optim.Adam([angles], 0.05)
    losses = []
    for _ in range(25):
        loss_B = pairing_loss(model, y, x, t, t_new)
        assert loss_B.shape == (16,)
        optimizer.zero_grad()
        loss_B.mean().backward()
        optimizer.step()
        losses.append(loss_B.mean().item())
    assert min(losses[-5:]) < 0.98 * losses[0]


def test_gradients_are_computed_as_precisely_as_the_rotation(
    make_model: Callable[..., IntactVAE],
    photos: Callable[..., tuple[Tensor, ...]],
    roles: AttributeRoles,
) -> None:
    y, x, t = photos(4)
    model = make_model(perturbed=True, latent=12, place_latents=4)
    model.eval().requires_grad_(False)
    assert model.pairing is not None
    products: list[str] = []
    angles = model.pairing.free_TLL.requires_grad_()
    angles.register_hook(lambda _: products.append(torch.get_float32_matmul_precision()))
    torch.set_float32_matmul_precision("high")
    try:
        pairing._add_gradients(model, [(y, x, t, other_arm(t, roles.treatments)[0])])
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(products) == {"highest"}


def test_a_fit_brings_contours_together_and_moves_the_rotation_alone(
    make_model: Callable[..., IntactVAE], faces: PreparedData, in_full: None
) -> None:
    face_roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male", "Skin_Tone"], ["Gray_Hair"])
    model = make_model(perturbed=True, assigned=face_roles, size=faces.size)
    model.eval().requires_grad_(False)
    assert model.pairing is not None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = labelled_rows(faces, face_roles, "train")
    settings: dict[str, Any] = {
        "images": 40 * pairing.BATCH,
        "device": torch.device("cpu"),
        "stopped": lambda _: 0,
    }
    fitted = fit_pairing(model, faces, rows, face_roles, seed=0, **settings)
    assert fitted is not None
    assert fitted.after < fitted.before
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert moved == ["pairing.free_TLL"]
    assert not model.pairing.free_TLL.requires_grad

    angles = []
    for seed in (0, 0, 1):
        fit_pairing(model, faces, rows, face_roles, seed=seed, **settings | {"images": 4 * pairing.BATCH})
        angles.append(model.pairing.free_TLL.clone())
    assert torch.equal(angles[0], angles[1]), "it begins again, wherever the last one ended"
    assert not torch.equal(angles[0], angles[2])


def test_a_fit_in_parts_asks_the_same_of_the_same_images(
    make_model: Callable[..., IntactVAE], faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two treatments, which of them changes depends on the place in the step, never in the part."""
    face_roles = AttributeRoles.assign(faces.attributes, ["Young", "Skin_Tone"], ["Male"], ["Gray_Hair"])
    model = make_model(perturbed=True, assigned=face_roles, size=faces.size).eval().requires_grad_(False)
    assert model.pairing is not None
    rows = labelled_rows(faces, face_roles, "train")
    loss, see, cpu = pairing_loss, seen_as_asked, torch.device("cpu")

    def fit(at_once: int | None) -> tuple[list[int], list[Tensor], Tensor, float]:
        sizes: list[int] = []
        given: list[tuple[Tensor, ...]] = []

        def noting_loss(model: IntactVAE, *part: Tensor) -> Tensor:
            given.append(part)
            sizes.append(len(part[0]))
            return loss(model, *part)

        def noting_see(model: IntactVAE, abduction: Abduction, *asked: Any) -> Tensor:
            given.append((abduction.y_BCHW, abduction.x_BX, abduction.t_BT, asked[0]))
            sizes.append(len(abduction.t_BT))
            return see(model, abduction, *asked)

        monkeypatch.setattr(pairing, "pairing_loss", noting_loss)
        monkeypatch.setattr(pairing, "seen_as_asked", noting_see)
        fitted = fit_pairing(
            model,
            faces,
            rows,
            face_roles,
            images=2 * pairing.BATCH,
            seed=0,
            device=cpu,
            stopped=lambda _: 0,
            at_once=at_once,
        )
        assert fitted is not None and model.pairing is not None
        columns = [torch.cat(values) for values in zip(*given, strict=True)]
        return sizes, columns, model.pairing.free_TLL.clone(), fitted.before

    sizes, whole, angles, before = fit(None)
    assert set(sizes) == {pairing.BATCH}
    assert torch.equal(fit(2 * pairing.BATCH)[2], angles)
    sizes, parts, near, before_in_parts = fit(5)
    assert set(sizes) == {5, pairing.BATCH - 5}
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert before_in_parts == pytest.approx(before, rel=1e-5)
    torch.testing.assert_close(near, angles, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(("accumulate", "at_once"), [(1, None), (8, 2)])
def test_a_run_in_parts_also_pairs_and_validates_in_parts(
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accumulate: int,
    at_once: int | None,
) -> None:
    asked: list[int | None] = []
    measured: list[int] = []
    save = Bookkeeper.save

    def noting_save(books: Bookkeeper, *, validate: bool) -> None:
        measured.append(books.held_out.at_once)
        save(books, validate=validate)

    monkeypatch.setattr(loop, "fit_pairing", lambda *_, at_once, **__: asked.append(at_once))
    monkeypatch.setattr(Bookkeeper, "save", noting_save)
    train(
        tiny_config(SHORT | {"train.images": 16, "train.accumulate": accumulate}),
        tmp_path / "run",
        device="cpu",
    )
    assert asked == [at_once]
    assert measured == [at_once or heldout.BATCH]


def test_a_rotation_that_became_non_finite_is_not_kept(
    make_model: Callable[..., IntactVAE],
    faces: PreparedData,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    face_roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male", "Skin_Tone"], ["Gray_Hair"])
    model = make_model(perturbed=True, assigned=face_roles, size=faces.size).eval().requires_grad_(False)
    assert model.pairing is not None
    real = pairing.pairing_loss
    monkeypatch.setattr(pairing, "pairing_loss", lambda *args: real(*args) * torch.nan)
    rows = labelled_rows(faces, face_roles, "train")
    cpu = torch.device("cpu")
    fit_pairing(model, faces, rows, face_roles, images=pairing.BATCH, seed=0, device=cpu, stopped=lambda _: 0)
    assert not model.pairing.free_TLL.any()
    assert "non-finite" in caplog.text


def test_a_rotation_that_takes_the_effect_is_not_kept(
    make_model: Callable[..., IntactVAE],
    faces: PreparedData,
    in_full: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    face_roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male", "Skin_Tone"], ["Gray_Hair"])
    model = make_model(perturbed=True, assigned=face_roles, size=faces.size).eval().requires_grad_(False)
    assert model.pairing is not None
    lost = 0

    def seen(model: IntactVAE, abduction: Abduction, *_: Any) -> Tensor:
        """Without a rotation all counterfactuals are as asked, with one all but `lost` of each batch."""
        assert model.pairing is not None
        return torch.arange(len(abduction.t_BT)) >= (lost if model.pairing.free_TLL.any() else 0)

    monkeypatch.setattr(pairing, "seen_as_asked", seen)
    settings: dict[str, Any] = {
        "images": 2 * pairing.BATCH,
        "device": torch.device("cpu"),
        "stopped": lambda _: 0,
    }
    rows = labelled_rows(faces, face_roles, "train")
    fit_pairing(model, faces, rows, face_roles, seed=0, **settings)
    assert model.pairing.free_TLL.any() and "left unpaired" not in caplog.text
    lost = 1
    fit_pairing(model, faces, rows, face_roles, seed=0, **settings)
    assert not model.pairing.free_TLL.any()
    assert (
        "noises 248 of 256 counterfactuals look as asked, without pairing 256: the noises are left unpaired"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("lost", "won", "is_kept"),
    [(0, 0, True), (3, 2, True), (4, 0, True), (5, 0, False), (20, 10, True), (20, 9, False), (0, 9, True)],
)
def test_a_rotation_is_dropped_if_more_is_lost_than_chance_would_take(
    make_model: Callable[..., IntactVAE],
    photos: Callable[..., tuple[Tensor, Tensor, Tensor]],
    roles: AttributeRoles,
    monkeypatch: pytest.MonkeyPatch,
    lost: int,
    won: int,
    is_kept: bool,
) -> None:
    """Only photographs as asked either with or without the rotation count; chance: two standard deviations."""
    model = make_model(perturbed=True).requires_grad_(False)
    assert model.pairing is not None
    angles = model.pairing.free_TLL.clone()
    assert angles.any()

    def seen(model: IntactVAE, abduction: Abduction, *_: Any) -> Tensor:
        assert model.pairing is not None
        position_B = torch.arange(len(abduction.t_BT))
        is_lost_B, is_won_B = position_B < lost, (position_B >= lost) & (position_B < lost + won)
        return ~is_lost_B if model.pairing.free_TLL.any() else ~is_won_B

    monkeypatch.setattr(pairing, "seen_as_asked", seen)
    y, x, t = photos(32)
    pairing._forget_if_it_takes_the_effect(model, [(y, x, t, 1 - t)], roles.treatments)
    assert torch.equal(model.pairing.free_TLL, angles if is_kept else torch.zeros_like(angles))


def test_it_is_said_where_nothing_checks_the_rotation(
    make_model: Callable[..., IntactVAE], faces: PreparedData, in_full: None, caplog: pytest.LogCaptureFixture
) -> None:
    face_roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male", "Skin_Tone"], ["Gray_Hair"])
    model = make_model(perturbed=True, assigned=face_roles, size=faces.size, predictor=False)
    rows, settings = labelled_rows(faces, face_roles, "train"), {"device": torch.device("cpu"), "seed": 0}
    with caplog.at_level(logging.INFO):
        fit_pairing(
            model.eval().requires_grad_(False),
            faces,
            rows,
            face_roles,
            images=pairing.BATCH,
            stopped=lambda _: 0,
            **settings,
        )
    assert "paired without a check" in caplog.text


def test_the_predictor_reads_what_was_asked_of_each_image(
    make_model: Callable[..., IntactVAE],
    photos: Callable[..., tuple[Tensor, ...]],
    roles: AttributeRoles,
) -> None:
    y, x, t = photos(16)
    model = make_model(perturbed=True).eval()
    assert model.predictor is not None
    t_new, _ = other_arm(t, roles.treatments)
    binary = [j for j, treatment in enumerate(roles.treatments) if treatment.kind == "binary"]
    always = torch.zeros(16, model.predictor.head.out_features)
    always[:, binary] = torch.where(t_new[:, binary] > 0.5, 1.0, -1.0)
    with torch.no_grad():
        for flipped in (None, 3):
            told = always.clone()
            if flipped is not None:
                told[flipped] *= -1
            looked_at: list[Tensor] = []
            model.predictor.forward = lambda image, told=told, at=looked_at: at.append(image) or told
            wanted, abduction = (
                torch.arange(16) != (-1 if flipped is None else flipped),
                abduct(model, y, x, t),
            )
            assert torch.equal(seen_as_asked(model, abduction, t_new, roles.treatments), wanted)
            (image,) = looked_at
            assert torch.equal(image, predict(model, abduction, t_new).image_BCHW)
            assert not torch.allclose(image, y, atol=1e-3), "which is not the photograph"


def test_a_run_ends_with_noises_paired_and_says_so(tiny_config: MakeConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tiny_config(SHORT)
    train(config, run, device="cpu", stop_at=48)
    assert not rotation(run).any()
    assert read_card(find_model_file(run)).lacks_pairing
    train(config, run, device="cpu")
    assert rotation(run).any()
    assert not read_card(find_model_file(run)).lacks_pairing
    line = lines_of(run)[-1]
    assert line.keys() == {"images", "pairing_loss_before", "pairing_loss", "pairing_seconds"}

    file = run / "checkpoints" / "last" / "model.safetensors"
    written = file.stat().st_mtime_ns
    train(config, run, device="cpu")
    assert file.stat().st_mtime_ns == written, "what is done is not done again"


@pytest.mark.parametrize("changes", [{"model.pairing": "none"}, {"model.prior": "x"}, {"objective": "cvae"}])
def test_where_nothing_can_be_paired_training_ends_without(
    tiny_config: MakeConfig, tmp_path: Path, changes: dict[str, str]
) -> None:
    train(tiny_config(SHORT | changes), tmp_path / "run", device="cpu")
    assert "pairing.free_TLL" not in load_file(
        tmp_path / "run" / "checkpoints" / "last" / "model.safetensors"
    )
    assert not any("pairing_loss" in line for line in lines_of(tmp_path / "run"))
    assert not read_card(find_model_file(tmp_path / "run")).lacks_pairing


def test_pairing_that_was_stopped_is_begun_again_to_the_same_bits(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(SHORT)
    train(config, tmp_path / "whole", device="cpu")
    real = loop.fit_pairing

    def told_to_stop_amid(*args: Any, stopped: Callable[[int], int], **more: Any) -> Any:
        def stopped_after_one(step: int) -> int:
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return stopped(step)

        return real(*args, stopped=stopped_after_one, **more)

    monkeypatch.setattr(loop, "fit_pairing", told_to_stop_amid)
    with pytest.raises(PreemptedError, match="stopped at 96 images, after saving"):
        train(config, tmp_path / "run", device="cpu")
    assert not rotation(tmp_path / "run").any()
    assert read_card(find_model_file(tmp_path / "run")).lacks_pairing
    monkeypatch.setattr(loop, "fit_pairing", real)
    assert (
        "96 are done, then pairing noises on 96\n"
        in preview(config, tmp_path / "run", device="cpu").describe()
    )
    caplog.set_level(logging.INFO, "civae_core")
    assert train(config, tmp_path / "run", device="cpu").finished
    assert "nothing to do" not in caplog.text and "pairing latent noises" in caplog.text
    caplog.clear()
    assert train(config, tmp_path / "run", device="cpu").finished
    assert "nothing to do: 96 images are done" in caplog.text
    assert torch.equal(rotation(tmp_path / "run"), rotation(tmp_path / "whole"))


def test_a_run_that_goes_on_for_longer_forgets_its_pairing_till_the_end(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    short = tiny_config(SHORT | {"train.lr_decay": "none"})
    long = tiny_config(SHORT | {"train.lr_decay": "none", "train.images": 192})
    train(short, tmp_path / "run", device="cpu")
    train(long, tmp_path / "run", device="cpu", stop_at=144)
    assert not rotation(tmp_path / "run").any()
    assert read_card(find_model_file(tmp_path / "run")).lacks_pairing
    train(long, tmp_path / "run", device="cpu")
    train(long, tmp_path / "whole", device="cpu")
    assert torch.equal(rotation(tmp_path / "run"), rotation(tmp_path / "whole"))
