"""The data that an evaluation passes around: what a method is asked, what it answers, what the instruments see.

    question → Asked → method → Answer → yardstick → Seen → tallies → entries of the evaluation

Each step handles one batch. Everything measured over images is a `Tally`: it takes in batches and keeps only one
value per image, or sums, so memory stays flat however many images there are.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from civae_core.yardstick import Reading, Yardstick


@dataclass(frozen=True)
class Asked:
    """A batch of subjects under an intervention; images are floats in [0,1], attributes in raw units."""

    rows_B: Tensor
    """Rows of the prepared data."""
    y_BCHW: Tensor
    x_BX: Tensor
    t_BT: Tensor
    t_new_BT: Tensor
    direction_B: Tensor
    """+1 where the first treatment that changes is raised, −1 where it is lowered, 0 where none changes."""
    truth_BCHW: Tensor | None = None
    """The true counterfactual y*, where it is known."""
    seen: Reading | None = None
    """What the yardstick sees in y, if there is one."""
    seen_truth: Reading | None = None
    """What the yardstick sees in y*."""


@dataclass(frozen=True)
class Answer:
    """A method's images for one batch [B,C,S,S], floats near [0,1]; None for those that it cannot provide."""

    with_noise_BCHW: Tensor
    """The counterfactual at τ = 1; for another program, its counterfactual."""
    mean_BCHW: Tensor | None = None
    """The counterfactual at τ = 0."""
    reconstruction_BCHW: Tensor | None = None
    """f(z,t), the counterpart of `mean_BCHW` without intervention (τ = 0)."""


@dataclass(frozen=True)
class Seen:
    """What the yardstick sees in an answer; None where the answer has no such image."""

    with_noise: Reading
    mean: Reading | None
    reconstruction: Reading | None


class Method(Protocol):
    """Anything that turns images with factual and intended treatments into counterfactuals."""

    @property
    def name(self) -> str: ...

    def answer(self, asked: Asked) -> Answer: ...


class Tally(Protocol):
    """Collects one kind of score of one method over the batches of a question."""

    def add(self, asked: Asked, answer: Answer, seen: Seen | None) -> None: ...

    def per_image(self) -> dict[str, Tensor]:
        """Values [N] by name, in the order of the images; names without values are absent."""
        ...

    def summary(self, seed: int) -> dict[str, Any]:
        """The method's entries in `evaluate --json`; what cannot be determined is absent."""
        ...


def look(yardstick: Yardstick | None, answer: Answer) -> Seen | None:
    """The yardstick's readings of an answer; None without a yardstick."""
    if yardstick is None:
        return None

    def read(images_BCHW: Tensor | None) -> Reading | None:
        return None if images_BCHW is None else yardstick.read(images_BCHW)

    return Seen(
        yardstick.read(answer.with_noise_BCHW), read(answer.mean_BCHW), read(answer.reconstruction_BCHW)
    )
