"""Compare masks of the abducted noises (M6) by their error against the truth, on one trained run.

    python benchmarks/masks.py RUN [--data DATA] [--split valid] [--images 500]

Prints one JSON object per mask, with the relative effect error at τ = 1 and τ = 0 (0 is perfect, 1 is copying the
input) and the squared error per value at τ = 1 where the truth changes nothing. `fine` fades only the fine part of
the pixel noise and `coarse` only the rest. `learned` is a small gate fitted to the truth of other images; real data
has no truth, so the gate only bounds what a rule with the same inputs can reach. Choose a mask on the valid split.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from civae_core.config.schema import NoiseMask
from civae_core.counterfactual import Prediction, abduct, predict
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation.evaluate import default_data
from civae_core.evaluation.metrics import effect_terms
from civae_core.evaluation.question import Question, ask
from civae_core.model import IntactVAE
from civae_core.model.stored import StoredModel, load_model
from civae_core.noise_mask import noise_mask

PIXEL_WIDTHS = (0.02, 0.05, 0.08, 0.12, 0.2)
LATENT_WIDTHS = (None, 4.0, 3.0, 2.0, 1.5, 1.0)
LOOKS_WIDTHS = (None, 0.08, 0.16, 0.24, 0.4, 0.6)
KINDS: tuple[NoiseMask, ...] = ("none", "fade")
BATCH = 100


@dataclass(frozen=True)
class Answers:
    """Images y, their true counterfactuals, e, Δ and f(z',t') without any pixel mask, all [N,C,S,S]."""

    y: Tensor
    truth: Tensor
    noise: Tensor
    effect: Tensor
    mean: Tensor

    def __getitem__(self, rows: slice) -> "Answers":
        return Answers(self.y[rows], self.truth[rows], self.noise[rows], self.effect[rows], self.mean[rows])

    def score(self, masked_noise_NCHW: Tensor) -> dict[str, float]:
        """Errors of f(z',t') plus the masked noise."""
        terms = effect_terms(self.y, (self.mean + masked_noise_NCHW).clamp(0, 1), self.truth)
        still = effect_terms(self.y, self.mean.clamp(0, 1), self.truth)
        size = terms.size_N.sum()
        return {
            "relative_effect_error": round((terms.error_N.sum() / size).item(), 4),
            "without_noise": round((still.error_N.sum() / size).item(), 4),
            "off_effect_mse": round((terms.off_error_N.sum() / terms.off_count_N.sum()).item(), 6),
        }


@torch.no_grad()
def answers(
    model: IntactVAE,
    data: PreparedData,
    question: Question,
    latent_width: float | None = None,
    looks_width: float | None = None,
) -> Answers:
    """The parts of the model's answers to a question, with one mask of the latent noise and one of the looks."""
    model.noise_mask, model.latent_mask_width = "none", latent_width
    model.looks_mask_width = looks_width
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(question.chosen), BATCH):
        asked = question.batch(data, slice(start, start + BATCH), torch.device("cpu"))
        assert asked.truth_BCHW is not None
        abduction = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT)
        result: Prediction = predict(model, abduction, asked.t_new_BT)
        noise_BCHW = result.image_BCHW - result.mean_BCHW
        parts.append((asked.y_BCHW, asked.truth_BCHW, noise_BCHW, result.effect_BCHW, result.mean_BCHW))
    return Answers(*(torch.cat(column) for column in zip(*parts, strict=True)))


def largest_change(effect_NCHW: Tensor) -> Tensor:
    return effect_NCHW.abs().amax(dim=1, keepdim=True)


def clues(a: Answers) -> Tensor:
    """Inputs of the gate: signed and absolute effect and noise, and the size of the effect nearby."""
    size_N1HW = largest_change(a.effect)
    near = (F.max_pool2d(size_N1HW, 3, 1, 1), F.avg_pool2d(size_N1HW, 3, 1, 1))
    return torch.cat([a.effect, a.effect.abs(), a.noise, a.noise.abs(), *near], dim=1)


def fitted_gate(a: Answers, steps: int = 300) -> nn.Module:
    """Fit a gate in [0,1] per pixel that brings y' as near as possible to the truth on `a`."""
    torch.manual_seed(0)
    inputs = clues(a)
    layers = [nn.Conv2d(inputs.shape[1], 32, 1), nn.SiLU(), nn.Conv2d(32, 32, 1), nn.SiLU()]
    gate = nn.Sequential(*layers, nn.Conv2d(32, 1, 1), nn.Sigmoid())
    optimizer = torch.optim.Adam(gate.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randperm(len(a.y))[:32]
        estimate = a.mean[rows] + gate(inputs[rows]) * a.noise[rows]
        loss = 100 * F.mse_loss(estimate, a.truth[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return gate


def compare(stored: StoredModel, data: PreparedData, split: str, images: int) -> None:
    """Print a line for each mask."""
    chosen = labelled_rows(data, stored.card.roles, split)[: 2 * images]  # type: ignore[arg-type]
    question = next(q for q in ask(data, stored.card.roles, chosen) if q.truth is not None)
    images = min(images, len(question.chosen) // 2)
    own_width = stored.card.config.model.latent_mask_width
    latents = [{"latent_width": width} for width in LATENT_WIDTHS]
    looks = [{"latent_width": own_width, "looks_width": width} for width in LOOKS_WIDTHS]
    for widths in (*latents, *looks):
        a = answers(stored.model, data, question, **widths)[:images]
        for pixel in KINDS:
            m = noise_mask(a.effect, pixel, 0.08)
            print(json.dumps({"pixel": pixel, **widths, **a.score(m * a.noise)}))
    whole = answers(stored.model, data, question)
    a, other = whole[:images], whole[images:]
    blur = [2 * round(1.5 * a.y.shape[-1] / 32) + 1] * 2
    coarse = gaussian_blur(a.noise, blur, [a.y.shape[-1] / 32])
    for width in PIXEL_WIDTHS:
        m = noise_mask(a.effect, "fade", width)
        kinds = {
            "fade": m * a.noise,
            "fine": m * (a.noise - coarse) + coarse,
            "coarse": m * coarse + a.noise - coarse,
        }
        for kind, noise in kinds.items():
            print(json.dumps({"pixel": kind, "width": width, **a.score(noise)}))
    learned = fitted_gate(other)(clues(a)).detach()
    print(json.dumps({"pixel": "learned", **a.score(learned * a.noise)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="prepared images [default: those it was trained on]")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--images", type=int, default=500, help="scored; as many others fit the learned gate")
    options = parser.parse_args()
    stored = load_model(options.run, torch.device("cpu"))
    data = default_data(stored) if options.data is None else PreparedData.open(options.data)
    compare(stored, data, options.split, options.images)


if __name__ == "__main__":
    main()
