"""Sheets of held-out subjects with each method's answers, beside the truth where it is known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from civae_core.assignments import do_text
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread
from civae_core.evaluation.asked import Method
from civae_core.evaluation.question import Question
from civae_core.figures.effects import effect_grid
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import Picture

GRID_ROWS = 8


def answer_sheets(
    methods: Sequence[Method], data: PreparedData, question: Question, device: torch.device
) -> list[Picture]:
    """Captioned sheets of some subjects: the first method's answers, all methods' answers, and what they change."""
    rows = evenly_spread(len(question.chosen), GRID_ROWS)
    asked = question.batch(data, rows, device)
    y_BCHW = asked.y_BCHW
    answers = {method.name: method.answer(asked) for method in methods}
    first = answers[methods[0].name]
    before = [("photograph", y_BCHW)]
    if first.reconstruction_BCHW is not None:
        before.append(("reconstruction", first.reconstruction_BCHW))
    after = [] if asked.truth_BCHW is None else [("truth", asked.truth_BCHW)]
    labels = _row_labels(question, rows)
    sheet = image_grid([*before, ("counterfactual", first.with_noise_BCHW), *after], labels)
    do = do_text(question.do)
    suffix = do.replace("=", "-").replace(", ", "_").replace(" ", "-")
    suffix += "" if question.truth is not None or not data.truth else "_without-truth"
    pictures = [
        Picture(
            f"sheet_{suffix}",
            f"do({do})",
            f"Held-out images under do({do}); those of our models with their own fine detail re-applied (τ = 1).",
            sheet,
        )
    ]
    if len(methods) > 1:
        others = [(name, answer.with_noise_BCHW) for name, answer in answers.items()]
        all_methods = image_grid([before[0], *others, *after], labels)
        pictures.append(
            Picture(f"methods_{suffix}", f"do({do}), by method", f"do({do}) by each method.", all_methods)
        )
    changes = [(name, answer.with_noise_BCHW - y_BCHW) for name, answer in answers.items()]
    changes += [(name, images_BCHW - y_BCHW) for name, images_BCHW in after]
    pictures.append(
        Picture(
            f"changes_{suffix}",
            f"What do({do}) changes",
            f"do({do}): where, and how, the input is changed.",
            effect_grid(changes, labels),
        )
    )
    return pictures


def _row_labels(question: Question, rows: Tensor) -> list[str] | None:
    if len(question.do) != 1:
        return None
    (name,) = question.do
    old, new = question.chosen.t_NT[rows], question.t_new_NT[rows]
    index = int((old != new).any(dim=0).int().argmax())
    return [
        f"{name} {a:g} → {b:g}" for a, b in zip(old[:, index].tolist(), new[:, index].tolist(), strict=True)
    ]
