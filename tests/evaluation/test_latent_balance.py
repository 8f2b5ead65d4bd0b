"""Balance of z: codes that tell the treatment, codes that only follow the covariates, and analytic divergences."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from civae_core.counterfactual import abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, labelled_rows
from civae_core.evaluation import latent_balance as module
from civae_core.evaluation.latent_balance import abducted_noise, kl_between_arms, latent_balance
from civae_core.evaluation.methods import TrainedModel
from civae_core.model.stored import StoredModel

MakeStored = Callable[..., StoredModel]
CPU = torch.device("cpu")


def toy(count: int = 4000) -> tuple[Tensor, Tensor, Tensor]:
    """Confounded x and t, and noise of two dimensions."""
    generator = torch.Generator().manual_seed(0)
    x_NX = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    t_N = (torch.rand(count, generator=generator) < torch.sigmoid(2 * x_NX[:, 0])).double()
    return x_NX, t_N, torch.randn(count, 2, generator=generator, dtype=torch.float64)


def test_a_code_that_follows_the_covariates_only_is_balanced() -> None:
    x_NX, t_N, noise_NZ = toy()
    assert kl_between_arms(noise_NZ + 3 * x_NX, x_NX, t_N) == pytest.approx(0.0, abs=0.01)


def test_the_divergence_is_the_analytic_one() -> None:
    x_NX, t_N, noise_NZ = toy()
    eta_NZ = x_NX + noise_NZ
    eta_NZ[:, 0] += 0.8 * t_N  # a mean apart by 0.8 sd: ½·0.64 nats either way
    assert kl_between_arms(eta_NZ, x_NX, t_N) == pytest.approx(0.32, abs=0.04)
    wider_NZ = noise_NZ * torch.where(t_N == 1, 2.0, 1.0)[:, None]
    assert kl_between_arms(wider_NZ, x_NX, t_N) == pytest.approx(2 * 0.5 * ((4 + 0.25) / 2 - 1), rel=0.1)


@pytest.mark.parametrize(("zeros", "ones", "covariates"), [(40, 40, 2), (40, 40, 10), (30, 200, 0)])
def test_chance_differences_of_small_sets_are_taken_off(zeros: int, ones: int, covariates: int) -> None:
    found, count = [], zeros + ones
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        x_NX = torch.randn(count, covariates, generator=generator, dtype=torch.float64)
        eta_NZ = torch.randn(count, 16, generator=generator, dtype=torch.float64) + x_NX.sum(1, keepdim=True)
        found.append(kl_between_arms(eta_NZ, x_NX, (torch.arange(count) < ones).double()))
    found_S = torch.tensor(found)
    error = float(found_S.std()) / 300**0.5
    assert float(found_S.mean()) == pytest.approx(0.0, abs=3 * error)
    assert error < 0.05 and float(found_S.min()) < 0, "a balanced code may score below 0"


def test_too_few_images_for_the_covariates_are_refused() -> None:
    x_NX = torch.randn(40, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"arm 0 has too few images \(20\) for 18 covariates"):
        kl_between_arms(x_NX, x_NX, (torch.arange(40) % 2).double())


def test_the_entry_tells_a_leaking_code_from_a_balanced_one(
    make_stored: MakeStored, faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_stored()
    chosen = labelled_rows(faces, stored.card.roles, "train")
    t_N1 = chosen.t_NT.double()
    method = TrainedModel("ours", stored)

    def entry(leaking: float) -> dict[str, float]:
        generator = torch.Generator().manual_seed(1)
        noise_NZ = torch.randn(len(chosen), 3, generator=generator, dtype=torch.float64)
        monkeypatch.setattr(module, "abducted_noise", lambda *_: noise_NZ + leaking * t_N1)
        found: dict[str, float] = latent_balance(method, faces, chosen, 0, CPU, seed=0)["balance"]
        return found

    balanced, leaking = entry(0.0), entry(3.0)
    assert balanced["auc_x"] == leaking["auc_x"] > 0.55, "Male tells something of Young in these faces"
    assert abs(balanced["difference"]) < 0.06 and balanced["kl_between_arms"] < 0.2
    assert leaking["auc_x_and_z"] > 0.97 and leaking["difference"] > 0.3 and leaking["kl_between_arms"] > 10
    assert latent_balance(method, faces, chosen[:20], 0, CPU, seed=0) == {}
    many = replace(chosen, x_NX=torch.zeros(len(chosen), int(min(t_N1.sum(), (1 - t_N1).sum())) - 29))
    assert latent_balance(method, faces, many, 0, CPU, seed=0) == {}, "hardly more images than covariates"


@pytest.mark.parametrize("leaking", [0.0, 1.0])
def test_a_treatment_by_interaction_hides_no_leak_and_makes_none(
    make_stored: MakeStored, faces: PreparedData, monkeypatch: pytest.MonkeyPatch, leaking: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    x_NX = (torch.rand(2000, 2, generator=generator) < 0.5).float()
    agree_N = (x_NX[:, 0] == x_NX[:, 1]).float()
    t_N = torch.where(torch.rand(2000, generator=generator) < 0.8, agree_N, 1 - agree_N)
    eta_NZ = torch.randn(2000, 16, generator=generator)
    eta_NZ[:, 0] += leaking * t_N
    monkeypatch.setattr(module, "abducted_noise", lambda *_: eta_NZ)
    chosen = LabelledRows(torch.arange(2000), x_NX, t_N[:, None])
    found = latent_balance(TrainedModel("ours", make_stored()), faces, chosen, 0, CPU, seed=0)["balance"]
    assert found["auc_x"] == pytest.approx(0.8, abs=0.03)
    if leaking:
        assert found["difference"] > 0.05
    else:
        assert abs(found["difference"]) < 0.02


def test_the_noise_is_that_of_abduction(make_stored: MakeStored, faces: PreparedData) -> None:
    stored = make_stored()
    chosen = labelled_rows(faces, stored.card.roles, "train")[:70]
    y_NCHW, x_NX, t_NT = chosen.read(faces, CPU)
    expected_NZ = abduct(stored.model, y_NCHW, x_NX, t_NT).eta_BZ
    torch.testing.assert_close(abducted_noise(TrainedModel("ours", stored), faces, chosen, CPU), expected_NZ)
