"""Measure how much of the effect error arises because the latent noise means different things in the two arms.

    python benchmarks/noise_pairing.py RUN [--data DATA] [--images 400]

(M4) determines the distribution of η in each arm, but not which η of one arm corresponds to which η of the other. The
truth of the valid split, which real data lacks, shows it. The true counterfactual is encoded as well, and the effect
errors with several codes in place of η are compared:

    as it is   η, as in (M6) without masks
    rotated    η under the rotation, one for each arm, that brings it nearest to the counterfactual's own code
    mapped     a small network's prediction of that code from η, x and t
    right      the counterfactual's own code; the error that remains is the decoder's blur

Rotation and network are fitted on the other faces of the split. Prints one JSON object per line: relative effect
error (0 is perfect, 1 is copying the input) without and with the pixel mask, and mean squared change of the images.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.counterfactual import abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation.asked import Asked
from civae_core.evaluation.evaluate import default_data
from civae_core.evaluation.metrics import effect_terms
from civae_core.evaluation.question import ask
from civae_core.model import IntactVAE
from civae_core.model.stored import load_model
from civae_core.noise_mask import noise_mask

STEPS = 2_000


def rotated(eta_NZ: Tensor, own_NZ: Tensor, new_NZ: Tensor) -> Tensor:
    """`new_NZ` under the rotation that brings `eta_NZ` nearest to `own_NZ` (orthogonal Procrustes)."""
    u, _, v = torch.linalg.svd(eta_NZ.T @ own_NZ)
    return new_NZ @ (u @ v)


def fitted_map(inputs_NI: Tensor, eta_NZ: Tensor, own_NZ: Tensor) -> nn.Module:
    """Fit a network whose output, added to η, predicts the counterfactual's own code."""
    torch.manual_seed(0)
    size = eta_NZ.shape[1]
    layers = [nn.Linear(inputs_NI.shape[1], 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU()]
    network = nn.Sequential(*layers, nn.Linear(256, size))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(STEPS):
        rows = torch.randint(0, len(eta_NZ), (128,))
        loss = F.mse_loss(eta_NZ[rows] + network(inputs_NI[rows]), own_NZ[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def noises(model: IntactVAE, asked: Asked) -> tuple[Tensor, Tensor]:
    """η [N,Z] of the images under the factual treatment, and of their true counterfactuals under the intended one."""
    assert asked.truth_BCHW is not None
    own = abduct(model, asked.truth_BCHW, asked.x_BX, asked.t_new_BT)
    return abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT).eta_BZ, own.eta_BZ


@torch.no_grad()
def score(model: IntactVAE, asked: Asked, eta_NZ: Tensor) -> dict[str, float]:
    """Errors of the counterfactuals whose latent noise is `eta_NZ`."""
    assert asked.truth_BCHW is not None
    abduction = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT)
    z_NZ = model.prior_of(asked.x_BX, asked.t_new_BT).sample(eta_NZ)
    mean_NCHW = model.decode(z_NZ, asked.t_new_BT, asked.x_BX).mean_BCHW
    effect_NCHW = mean_NCHW - abduction.reconstruction.mean_BCHW
    scores = {}
    for kind in ("none", "fade"):
        m = noise_mask(effect_NCHW, kind, model.mask_width)  # type: ignore[arg-type]
        estimate_NCHW = (mean_NCHW + m * abduction.residual_BCHW).clamp(0, 1)
        terms = effect_terms(asked.y_BCHW, estimate_NCHW, asked.truth_BCHW)
        scores[f"error_{kind}"] = round((terms.error_N.sum() / terms.size_N.sum()).item(), 4)
    return {**scores, "change": round(effect_NCHW.square().mean().item(), 5)}


def compare(model: IntactVAE, fit: Asked, tried: Asked) -> None:
    (eta_NZ, own_NZ), (new_NZ, right_NZ) = noises(model, fit), noises(model, tried)
    turned_NZ = torch.empty_like(new_NZ)
    for value in fit.t_BT.unique():
        here_N, there_N = fit.t_BT[:, 0] == value, tried.t_BT[:, 0] == value
        turned_NZ[there_N] = rotated(eta_NZ[here_N], own_NZ[here_N], new_NZ[there_N])

    def inputs(asked: Asked, noise_NZ: Tensor) -> Tensor:
        return torch.cat([noise_NZ, model.standardise_x(asked.x_BX), model.standardise_t(asked.t_BT)], dim=1)

    guess = fitted_map(inputs(fit, eta_NZ), eta_NZ, own_NZ)
    mapped_NZ = new_NZ + guess(inputs(tried, new_NZ)).detach()
    found = {"as it is": new_NZ, "rotated": turned_NZ, "mapped": mapped_NZ, "right": right_NZ}
    for name, noise_NZ in found.items():
        print(json.dumps({"noise": name, **score(model, tried, noise_NZ)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="prepared images [default: those it was trained on]")
    parser.add_argument(
        "--images", type=int, default=400, help="scored; the others of the split are fitted on"
    )
    options = parser.parse_args()
    stored = load_model(options.run, torch.device("cpu"))
    roles = stored.card.roles
    if len(roles.treatments) != 1 or roles.treatments[0].kind != "binary":
        parser.error("a pairing of two arms needs one binary treatment")
    data = default_data(stored) if options.data is None else PreparedData.open(options.data)
    question = next((q for q in ask(data, roles, labelled_rows(data, roles, "valid")) if q.truth), None)
    if question is None:
        parser.error(f"{data.path} has no true counterfactuals")
    count = len(question.chosen)
    images = min(options.images, count // 2)
    parts = (slice(images, count), slice(images))
    compare(stored.model, *(question.batch(data, part, torch.device("cpu")) for part in parts))


if __name__ == "__main__":
    main()
