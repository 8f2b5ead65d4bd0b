"""People from the prior: the gap between aggregate posterior and prior, and pictures held against photographs."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from civae_core.counterfactual import abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation import samples as module
from civae_core.evaluation.measures import sections_present
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.realism import Extractor, RunningMoments, frechet_distance
from civae_core.evaluation.samples import aggregate_gap, sample_scores
from civae_core.model.stored import StoredModel
from civae_core.randomness import generator_for

MakeStored = Callable[..., StoredModel]
CPU = torch.device("cpu")


def normals(count: int, latent: int, seed: int = 0) -> Tensor:
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_draws_of_the_prior_have_no_gap_on_average() -> None:
    gaps = [aggregate_gap(normals(60, 8, seed)) for seed in range(300)]
    for name, scale in (("kl", 0.05), ("mmd", 0.002)):
        found_S = torch.tensor([gap[name] for gap in gaps])
        error = float(found_S.std()) / 300**0.5
        assert error < scale
        assert abs(float(found_S.mean())) < 4 * error, name
        assert found_S.min() < 0


def test_the_divergence_of_moments_is_torchs() -> None:
    eta_NZ = 1.5 * normals(5_000, 3) + torch.tensor([0.0, 1.0, -2.0])
    mean_Z, std_Z = eta_NZ.mean(0), eta_NZ.std(0)
    zeros_Z = torch.zeros(3, dtype=torch.float64)
    expected = kl_divergence(Normal(mean_Z, std_Z), Normal(zeros_Z, zeros_Z + 1)).sum()
    assert aggregate_gap(eta_NZ)["kl"] == pytest.approx(float(expected) - 3 / 5_000)


def test_the_kernel_distance_is_that_of_many_draws() -> None:
    """Its closed form against an average over pairs."""
    eta_NZ, draws_MZ = 0.6 * normals(400, 4) + 0.3, normals(4_000, 4, seed=1)

    def mean_kernel(a: Tensor, b: Tensor, *, same: bool = False) -> float:
        kernel = torch.exp(-torch.cdist(a, b).square() / (2 * 4))
        return float((kernel.sum() - (len(a) if same else 0)) / (len(a) * (len(b) - (1 if same else 0))))

    expected = mean_kernel(eta_NZ, eta_NZ, same=True) - 2 * mean_kernel(eta_NZ, draws_MZ)
    expected += mean_kernel(draws_MZ, draws_MZ, same=True)
    assert aggregate_gap(eta_NZ)["mmd"] == pytest.approx(expected, abs=2e-3)
    assert expected > 0.02


def test_the_kernel_sees_dependences_that_the_moments_of_each_dimension_do_not() -> None:
    eta_NZ = normals(2_000, 2)
    eta_NZ[:, 1] = eta_NZ[:, 0]
    gap = aggregate_gap(eta_NZ)
    assert abs(gap["kl"]) < 0.02
    assert gap["mmd"] > 0.01


def flat(data: PreparedData) -> Extractor:
    """The mean colours of the four quarters of an image."""
    return Extractor("quarters", lambda y: torch.nn.functional.avg_pool2d(y, data.size // 2).flatten(1))


@pytest.mark.parametrize("scales", [None, [1, 8]])
def test_the_entry_is_of_a_posterior_draw_and_of_other_people_s_photographs(
    make_stored: MakeStored, faces: PreparedData, scales: list[int] | None
) -> None:
    stored = make_stored(scales=scales)
    method, extractor = TrainedModel("ours", stored), flat(faces)
    chosen = labelled_rows(faces, stored.card.roles, "train")[:41]
    found = sample_scores(method, faces, chosen, CPU, 3, extractor)["samples"]
    assert (found["n"], found["n_pictures"], found["n_reference"]) == (41, 20, 21)
    y_BCHW, x_BX, t_BT = chosen.read(faces, CPU)
    noise_BZ = torch.randn(41, stored.model.latent, generator=generator_for(3, "samples-posterior"))
    eta_BZ = abduct(stored.model, y_BCHW, x_BX, t_BT, noise_BZ).eta_BZ
    assert found["kl_aggregate"] == pytest.approx(aggregate_gap(eta_BZ)["kl"], rel=1e-4)
    output = stored.model(y_BCHW, x_BX, t_BT, noise_BZ)
    kl_Z = output.posterior.kl_by_dimension(output.prior).mean(dim=0)
    wanted = {"1": kl_Z[:4].sum()} | ({"8": kl_Z[4:].sum()} if scales else {})
    assert found["kl_by_scale"] == {side: pytest.approx(float(kl), rel=1e-4) for side, kl in wanted.items()}
    assert abs(found["mmd_of_prior"]) < abs(found["mmd_aggregate"])
    reference, own = RunningMoments(), RunningMoments()
    reference.add(extractor.features(y_BCHW[0::2]))
    own.add(extractor.features(y_BCHW[1::2]))
    assert found["fid"]["photograph"] == pytest.approx(frechet_distance(own, reference), rel=1e-4)
    for kind in ("prior", "reconstruction"):
        assert found["fid"][kind] > 2 * found["fid"]["photograph"], "an untrained network"
    assert found["fid"]["prior"] != found["fid"]["reconstruction"]


def test_truncation_scales_what_the_prior_draws_and_nothing_else(
    make_stored: MakeStored, faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_stored()
    method = TrainedModel("ours", stored)
    chosen = labelled_rows(faces, stored.card.roles, "train")[:30]
    drawn: dict[float, list[Tensor]] = {}
    decode = module.decode_prior
    found = {}
    for psi in (1.0, 0.5):
        seen = drawn.setdefault(psi, [])
        monkeypatch.setattr(
            module,
            "decode_prior",
            lambda m, x, t, eta, seen=seen: (seen.append(eta), decode(m, x, t, eta))[1],
        )
        found[psi] = sample_scores(method, faces, chosen, CPU, 0, flat(faces), psi)["samples"]
    torch.testing.assert_close(torch.cat(drawn[0.5]), 0.5 * torch.cat(drawn[1.0]))
    assert found[1.0]["fid"].pop("prior") != found[0.5]["fid"].pop("prior")
    for key in ("fid", "kl_aggregate", "mmd_aggregate", "mmd_of_prior"):
        assert found[1.0][key] == found[0.5][key], key


def test_without_an_extractor_the_codes_are_still_judged_and_few_images_say_nothing(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    method = TrainedModel("ours", make_stored())
    chosen = labelled_rows(faces, method.stored.card.roles, "train")
    found = sample_scores(method, faces, chosen[:20], CPU, 0, None)["samples"]
    assert "fid" not in found and found["kl_aggregate"] > 0
    assert sample_scores(method, faces, chosen[:19], CPU, 0, None) == {}


def test_they_have_a_section_of_their_own(make_stored: MakeStored, faces: PreparedData) -> None:
    method = TrainedModel("ours", make_stored())
    chosen = labelled_rows(faces, method.stored.card.roles, "train")[:30]
    entry = sample_scores(method, faces, chosen, CPU, 0, replace(flat(faces)))
    section = next(s for s in sections_present({"ours": entry}) if "prior look" in s.title)
    assert len(section.measures) == 8
