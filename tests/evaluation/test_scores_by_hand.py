"""What an evaluation says of a model, written out from its encoder, decoder and prior."""

from collections.abc import Callable

import pytest
import torch

from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation import scores
from civae_core.evaluation.bootstrap import bootstrap_mean
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.metrics import bits_per_dim, psnr, ssim
from civae_core.evaluation.realism import Extractor, RunningMoments, frechet_distance
from civae_core.evaluation.samples import sample_scores
from civae_core.evaluation.scores import reconstruction_scores
from civae_core.model.stored import StoredModel
from civae_core.randomness import generator_for

MakeStored = Callable[..., StoredModel]
CPU = torch.device("cpu")


def test_reconstructions_are_of_the_posteriors_mean_and_bits_of_one_draw_for_each_image(
    make_stored: MakeStored, faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "BATCH", 4)
    stored = make_stored()
    model, chosen = stored.model, labelled_rows(faces, stored.card.roles, "test")[:7]
    found = reconstruction_scores(TrainedModel("ours", stored), faces, chosen, CPU, seed=3)
    y_BCHW, x_BX, t_BT = chosen.read(faces, CPU)
    posterior, mean_BZ = model.encode(y_BCHW, x_BX, t_BT).central()
    mean_BCHW = model.decode(mean_BZ, t_BT, x_BX).mean_BCHW.clamp(0, 1)
    noise_BZ = torch.cat(
        [
            torch.randn(count, model.latent, generator=generator_for(3, "evaluate", start))
            for start, count in ((0, 4), (4, 3))
        ]
    )
    z_BZ = posterior.mean_BZ + posterior.std_BZ * noise_BZ
    nll_B = model.decode(z_BZ, t_BT, x_BX).negative_log_likelihood(y_BCHW)
    nats_B = nll_B + posterior.kl(model.prior_of(x_BX, t_BT).at(z_BZ))
    assert nats_B.std() > 0.1, "else it would not show whose they are"
    for name, values_B in {
        "psnr_reconstruction": psnr(mean_BCHW, y_BCHW),
        "ssim_reconstruction": ssim(mean_BCHW, y_BCHW),
        "bits_per_dim": bits_per_dim(nats_B, y_BCHW[0].numel()),
    }.items():
        assert found[name] == pytest.approx(bootstrap_mean(values_B, seed=3).to_dict(), rel=1e-5), name


def test_pictures_from_the_prior_are_of_its_subjects_own_treatment(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    stored = make_stored()
    model, chosen = stored.model, labelled_rows(faces, stored.card.roles, "train")[:24]
    quarters = Extractor("quarters", lambda y: torch.nn.functional.avg_pool2d(y, 16).flatten(1))
    found = sample_scores(TrainedModel("ours", stored), faces, chosen, CPU, 3, quarters)["samples"]["fid"]
    y_BCHW, x_BX, t_BT = chosen[1::2].read(faces, CPU)
    eta_NZ = torch.randn(24, model.latent, generator=generator_for(3, "samples-prior"))
    _, central_BZ = model.encode(y_BCHW, x_BX, t_BT).central()

    def distance(z_BZ: torch.Tensor) -> float:
        moments_of_both = []
        for image_BCHW in (model.decode(z_BZ, t_BT, x_BX).mean_BCHW, chosen[0::2].read(faces, CPU)[0]):
            moments_of_both.append(RunningMoments())
            moments_of_both[-1].add(quarters.features(image_BCHW.clamp(0, 1)))
        return frechet_distance(*moments_of_both)

    prior, _ = model.prior_of(x_BX, t_BT).central()
    assert found["prior"] == pytest.approx(distance(prior.mean_BZ + prior.std_BZ * eta_NZ[1::2]), rel=1e-4)
    assert found["reconstruction"] == pytest.approx(distance(central_BZ), rel=1e-4)
