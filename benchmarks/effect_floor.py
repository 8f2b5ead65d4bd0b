"""Estimate how much of the effect on the built-in faces cannot be known from the photograph.

The true counterfactual uses the subject's own noise: how far this person will grey, or which colour the hair under
the grey once had. The photograph does not show it, so the best answer is the mean over that noise, and its relative
effect error is the lowest that any method can expect on average over subjects; on a few subjects a method may be
lucky. Hair colour is not wholly hidden (brows keep some of it), so the second line is an upper bound on its floor.

The mean is over a finite number of draws. The error that this adds, the variance over the draws divided by their
number, is subtracted. Brackets are 95 % bootstrap intervals over subjects.

    python benchmarks/effect_floor.py
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from civae_core.evaluation.bootstrap import bootstrap_ratio
from civae_core.evaluation.metrics import effect_terms
from civae_core.synthetic import FaceProcess, Subjects
from civae_core.synthetic.noise import SOURCES

HIDDEN_WHILE_YOUNG = ("grays", "gray_tone", "recedes", "wrinkles")
HIDDEN_BY_GREY = ("hair_colour",)
HELD_OUT = 1_000_000
"""Subjects from this number on are in no prepared data."""


def mean_over(
    process: FaceProcess, subjects: Subjects, sources: tuple[str, ...], draws: int
) -> tuple[Tensor, Tensor]:
    """Mean picture over fresh draws of some noise, with all else fixed, and its sampling variance, both [N,3,S,S].

    Args:
        draws: at least 2.
    """
    generator = torch.Generator().manual_seed(0)
    total, squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(draws):
        noise_NK = subjects.noise_NK.clone()
        for source in sources:
            noise_NK[:, SOURCES.index(source)] = torch.rand(len(noise_NK), generator=generator)
        image_NCHW = process.render(replace(subjects, noise_NK=noise_NK)).double() / 255
        total, squares = total + image_NCHW, squares + image_NCHW.square()
    mean_NCHW = total / draws
    return mean_NCHW, (squares / draws - mean_NCHW.square()).clamp(min=0) / (draws - 1)


def floor(
    process: FaceProcess, subjects: Subjects, sources: tuple[str, ...], draws: int
) -> tuple[Tensor, Tensor]:
    """Squared error of the best answer, and size of the true effect, both [N]."""
    flipped = subjects.under({"Young": "flip"})
    y_NCHW, truth_NCHW = (process.render(s).double() / 255 for s in (subjects, flipped))
    mean_NCHW, variance_NCHW = mean_over(process, flipped, sources, draws)
    terms = effect_terms(y_NCHW, mean_NCHW, truth_NCHW)
    # An answer that is off by √variance has exactly the error that the finite number of draws adds.
    added = effect_terms(y_NCHW, truth_NCHW + variance_NCHW.sqrt(), truth_NCHW)
    return terms.error_N - added.error_N, terms.size_N


def told(error_N: Tensor, size_N: Tensor) -> str:
    """Ratio and interval as text, such as `0.0258 [0.0210, 0.0310]`."""
    return f"{bootstrap_ratio(error_N, size_N):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=512)
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    if options.draws < 2:
        parser.error(f"--draws {options.draws}: a variance over draws needs at least 2")

    process = FaceProcess(size=options.size)
    subjects = process.subjects(HELD_OUT, options.subjects, randomised=True)
    young_N = subjects.roots["Young"] == 1
    parts = [
        ("young → old", young_N, HIDDEN_WHILE_YOUNG),
        ("old → young", ~young_N, HIDDEN_BY_GREY),
    ]
    terms = []
    for title, chosen_N, sources in parts:
        terms.append(floor(process, subjects[chosen_N.nonzero()[:, 0]], sources, options.draws))
        print(f"{title}: relative effect error {told(*terms[-1])} without knowing {', '.join(sources)}")
    print(f"both: {told(*(torch.cat(parts) for parts in zip(*terms, strict=True)))}")


if __name__ == "__main__":
    main()
