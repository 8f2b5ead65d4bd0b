"""Do people from the prior look like the data, and does the prior lie where the posterior puts people? (METHOD 6)

There are two kinds of scores, because a bad model can do well in either one alone:

- Latents. The aggregate posterior E_y q(z|x,y,t), with its noise η standardised under p(z|x,t) (M5), would be N(0,I)
  if prior and posterior agreed. Where it is not, z drawn from the prior is one that the decoder never learned.
- Images. All candidates are compared with photographs of *other* people, and have the same attributes: draws from the
  prior; reconstructions, whose distance is due to the decoder; and photographs, whose distance is due to chance.
"""

import math
from typing import Any

import torch
from torch import Tensor

from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread
from civae_core.draws import decode_prior
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.realism import Extractor, RunningMoments, frechet_distance, kernel_distance
from civae_core.randomness import generator_for

MOST_IMAGES = 4_000
FEWEST_IMAGES = 20
"""With fewer images there is no entry."""
BATCH = 64
PAIRS_AT_ONCE = 250_000
"""Pairs of draws that are compared at a time: all at once would take hundreds of MiB."""


@torch.no_grad()
def sample_scores(
    method: TrainedModel,
    data: PreparedData,
    chosen: LabelledRows,
    device: torch.device,
    seed: int,
    extractor: Extractor | None,
    truncation: float = 1.0,
) -> dict[str, Any]:
    """A model's entry `samples`; empty with fewer than 20 images.

    `kl_by_scale` is KL(q‖p) in nats per image for each scale of z, by the scale's side; a scale at 0 has collapsed.
    `kl_aggregate` and `mmd_aggregate` are those of `aggregate_gap`; `mmd_of_prior` is the latter for as many draws
    from the prior itself. With an extractor, `fid` and `kid` say how far `prior`, `reconstruction` and `photograph`
    are from other photographs; `extractor`, `n_pictures` and `n_reference` come with them.

    Args:
        chosen: held-out rows; every second one gives a photograph for the others to be compared with.
        truncation: ψ, the factor by which η is scaled in draws from the prior.
    """
    sizes = method.stored.card.config.model.sizes
    chosen = chosen[evenly_spread(len(chosen), min(len(chosen), MOST_IMAGES))]
    if len(chosen) < FEWEST_IMAGES:
        return {}
    noise_NZ, drawn_NZ = (
        torch.randn(len(chosen), method.stored.model.latent, generator=generator_for(seed, name))
        for name in ("samples-posterior", "samples-prior")
    )
    eta_NZ, kl_Z = _posterior_draws(method, data, chosen, device, noise_NZ)
    gap = aggregate_gap(eta_NZ)
    entry: dict[str, Any] = {
        "n": len(chosen),
        "truncation": truncation,
        "kl_by_scale": {
            str(side): float(kl.sum())
            for side, kl in zip(sizes, kl_Z.split(list(sizes.values())), strict=True)
        },
        "kl_aggregate": gap["kl"],
        "mmd_aggregate": gap["mmd"],
        "mmd_of_prior": aggregate_gap(drawn_NZ)["mmd"],
    }
    if extractor is not None:
        entry |= _distances(method, data, chosen, device, seed, extractor, truncation * drawn_NZ)
    return {"samples": entry}


def aggregate_gap(eta_NZ: Tensor) -> dict[str, float]:
    """How far draws of η are from N(0,I); for draws from N(0,I), both numbers are 0 on average, and may be below 0.

    kl    Σ_d KL( N(m_d, s_d²) ‖ N(0,1) ) in nats, with the draws' means and variances, less Z/N for chance
    mmd   E k(η,η') − 2 E k(η,n) + E k(n,n') for n ~ N(0,I), with k(a,b) = exp(−‖a−b‖²/2Z): the first term over pairs
          of different draws, the others in closed form

    Args:
        eta_NZ: draws, at least two.
    """
    eta_NZ = eta_NZ.double()
    count, latent = eta_NZ.shape
    mean_Z, variance_Z = eta_NZ.mean(dim=0), eta_NZ.var(dim=0).clamp(min=1e-12)
    kl = 0.5 * (mean_Z.square() + variance_Z - 1 - variance_Z.log()).sum() - latent / count
    # With ℓ² = Z, ∫ k(a,n) dn = (Z/(Z+1))^(Z/2) exp(−‖a‖²/2(Z+1)), and the mean of that over a is (Z/(Z+2))^(Z/2).
    squares_N = eta_NZ.square().sum(dim=1)
    rows = max(PAIRS_AT_ONCE // count, 1)
    sums = [
        torch.exp((rows_BZ @ eta_NZ.T - 0.5 * (squares_B[:, None] + squares_N)) / latent).sum()
        for rows_BZ, squares_B in zip(eta_NZ.split(rows), squares_N.split(rows), strict=True)
    ]
    within = (torch.stack(sums).sum() - count) / (count * (count - 1))
    across = math.exp(0.5 * latent * math.log(latent / (latent + 1))) * torch.exp(
        -0.5 * squares_N / (latent + 1)
    )
    prior = math.exp(0.5 * latent * math.log(latent / (latent + 2)))
    return {"kl": float(kl), "mmd": float(within - 2 * across.mean() + prior)}


def _posterior_draws(
    method: TrainedModel, data: PreparedData, chosen: LabelledRows, device: torch.device, noise_NZ: Tensor
) -> tuple[Tensor, Tensor]:
    """η [N,Z] of one posterior draw per image, and the mean KL(q‖p) of each dimension [Z] in nats."""
    model, eta = method.stored.model, KeptRows()
    kl_Z = torch.zeros(model.latent, dtype=torch.float64)
    for start in range(0, len(chosen), BATCH):
        rows = slice(start, start + BATCH)
        y_BCHW, x_BX, t_BT = chosen[rows].read(data, device)
        posterior, z_BZ = model.encode(y_BCHW, x_BX, t_BT).draw(noise_NZ[rows].to(device))
        prior = model.prior_of(x_BX, t_BT).at(z_BZ)
        eta.add(prior.standardise(z_BZ))
        kl_Z += posterior.kl_by_dimension(prior).cpu().double().sum(dim=0)
    return eta.all, kl_Z / len(chosen)


def _distances(
    method: TrainedModel,
    data: PreparedData,
    chosen: LabelledRows,
    device: torch.device,
    seed: int,
    extractor: Extractor,
    eta_NZ: Tensor,
) -> dict[str, Any]:
    """FID and KID between images for the odd rows and photographs of the even rows."""
    model, others, own = method.stored.model, chosen[0::2], chosen[1::2]
    eta_MZ = eta_NZ[1::2]
    kept = {kind: KeptRows() for kind in ("reference", "prior", "reconstruction", "photograph")}

    def see(kind: str, image_BCHW: Tensor) -> None:
        kept[kind].add(extractor.features(image_BCHW.clamp(0, 1)).float())

    for start in range(0, len(others), BATCH):
        rows = slice(start, start + BATCH)
        see("reference", others[rows].read(data, device)[0])
        if not len(own[rows]):  # with an odd number of rows, the last is for reference only
            continue
        y_BCHW, x_BX, t_BT = own[rows].read(data, device)
        see("prior", decode_prior(model, x_BX, t_BT, eta_MZ[rows].to(device)))
        see("reconstruction", method.reconstruct(y_BCHW, x_BX, t_BT))
        see("photograph", y_BCHW)
    found = {kind: features.all for kind, features in kept.items()}
    wanted = found.pop("reference")
    return {
        "fid": {kind: frechet_distance(_moments(f), _moments(wanted)) for kind, f in found.items()},
        "kid": {kind: kernel_distance(f, wanted, seed) for kind, f in found.items()},
        "extractor": extractor.name,
        "n_pictures": len(own),
        "n_reference": len(others),
    }


def _moments(features_NF: Tensor) -> RunningMoments:
    moments = RunningMoments()
    moments.add(features_NF)
    return moments
