"""How much of the effect on the built-in faces cannot be known from the photograph.

The true counterfactual uses the subject's own noise: how far this person will grey, which colour the hair under the
grey once had. Nothing in the picture shows it, so the best answer is the mean over that noise, and its relative
effect error bounds every method from below. Hair colour is not wholly hidden (brows keep some of it), so the second
line is an upper bound of its floor.

    python benchmarks/effect_floor.py
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from civae_core.evaluation.metrics import effect_terms
from civae_core.synthetic import FaceProcess, Subjects
from civae_core.synthetic.noise import SOURCES

HIDDEN_WHILE_YOUNG = ("grays", "gray_tone", "recedes", "wrinkles")
HIDDEN_BY_GREY = ("hair_colour",)
HELD_OUT = 1_000_000
"""Subjects from here on belong to no prepared data."""


def mean_over(process: FaceProcess, subjects: Subjects, sources: tuple[str, ...], draws: int) -> Tensor:
    """The mean picture [N,3,S,S] over fresh draws of some noise, all else held."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for _ in range(draws):
        noise_NK = subjects.noise_NK.clone()
        for source in sources:
            noise_NK[:, SOURCES.index(source)] = torch.rand(len(noise_NK), generator=generator)
        total = total + process.render(replace(subjects, noise_NK=noise_NK)).float() / 255
    return total / draws


def floor(
    process: FaceProcess, subjects: Subjects, sources: tuple[str, ...], draws: int
) -> tuple[float, float]:
    """Sums over the set: squared error of the best answer, and size of the true effect."""
    flipped = subjects.under({"Young": "flip"})
    y_NCHW, truth_NCHW = (process.render(s).float() / 255 for s in (subjects, flipped))
    terms = effect_terms(y_NCHW, mean_over(process, flipped, sources, draws), truth_NCHW)
    return terms.error_N.sum().item(), terms.size_N.sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=512)
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()

    process = FaceProcess(size=options.size)
    subjects = process.subjects(HELD_OUT, options.subjects, randomised=True)
    young_N = subjects.roots["Young"] == 1
    parts = [
        ("young → old", young_N, HIDDEN_WHILE_YOUNG),
        ("old → young", ~young_N, HIDDEN_BY_GREY),
    ]
    errors, sizes = 0.0, 0.0
    for title, chosen_N, sources in parts:
        error, size = floor(process, subjects[chosen_N.nonzero()[:, 0]], sources, options.draws)
        print(f"{title}: relative effect error {error / size:.3f} without knowing {', '.join(sources)}")
        errors, sizes = errors + error, sizes + size
    print(f"both: {errors / sizes:.3f}")


if __name__ == "__main__":
    main()
