"""How the face process represents age, assigns it and lets it act: in two classes, or in years.

Both assign age from the same uniform noise u and the same logit of being young, so a given seed and overlap yield the
same people, equally young or old:

    in two classes   Young = 1 where u < P(Young=1 | x)
    in years         Age = 18 + 67·q,   logit q = logit u − logit P(Young=1 | x) + logit q₀

Young means younger than 45, the age at which q = q₀. P(Age ≤ a | x) is then a proportional-odds model: given x, every
age from 18 to 85 has a positive density, which is uniform if P(Young=1 | x) = q₀.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from civae_core.attributes import Attribute


@dataclass(frozen=True)
class Progress:
    """Progress of each consequence of age, [N]: 0 is none, 1 that of an old person; values go up to 1.5."""

    gray: Tensor
    recession: Tensor
    wrinkles: Tensor


class Ageing(Protocol):
    """A representation of age as a root of the process."""

    @property
    def root(self) -> Attribute:
        """The root attribute that represents age."""
        ...

    @property
    def label_above(self) -> dict[str, float]:
        """For each consequence, the level above which its label is 1."""
        ...

    def labels(self, value_N: Tensor) -> dict[str, Tensor]:
        """Further 0/1 labels [N] that are functions of the root's value alone."""
        ...

    def assign(self, u_N: Tensor, logit_young_N: Tensor) -> Tensor:
        """The root's values [N], assigned from uniform noise u and the logit of being young."""
        ...

    def randomise(self, u_N: Tensor) -> Tensor:
        """The root's values [N] if age is independent of everything else."""
        ...

    def density(self, value_N: Tensor, logit_young_N: Tensor) -> Tensor:
        """p(root | x) [N] at the given values under `assign`: a probability, or a density per year."""
        ...

    def progress(self, value_N: Tensor) -> Progress:
        """The consequences of age at any real value of the root; each is monotone in it."""
        ...


@dataclass(frozen=True)
class InTwoClasses:
    """Young, 1 or 0. At other values, old = 1 − Young is linear, clamped to [0, 1.5]."""

    @property
    def root(self) -> Attribute:
        return Attribute("Young", "binary")

    @property
    def label_above(self) -> dict[str, float]:
        return {"Gray_Hair": 0.85, "Receding_Hairline": 0.60, "Wrinkles": 0.65}

    def labels(self, value_N: Tensor) -> dict[str, Tensor]:
        return {}

    def assign(self, u_N: Tensor, logit_young_N: Tensor) -> Tensor:
        return (u_N < torch.sigmoid(logit_young_N)).float()

    def randomise(self, u_N: Tensor) -> Tensor:
        return (u_N < 0.5).float()

    def density(self, value_N: Tensor, logit_young_N: Tensor) -> Tensor:
        return torch.sigmoid(torch.where(value_N > 0.5, logit_young_N, -logit_young_N))

    def progress(self, value_N: Tensor) -> Progress:
        old_N = (1.0 - value_N).clamp(0.0, 1.5)
        return Progress(old_N, old_N, old_N)


@dataclass(frozen=True)
class InYears:
    """Age in years: 18 to 85 when assigned, any real number under do().

    Up to 20 nothing shows, and a subject looks as with Young=1; at 80, as with Young=0. Hair turns grey from 30 to
    70, fastest at 50. The hairline recedes from 20 on and the skin wrinkles from 25 on, both linearly, up to the
    limit of what a face can show (at about 110 years).
    """

    low: float = 18.0
    high: float = 85.0
    young_below: float = 45.0

    @property
    def root(self) -> Attribute:
        # Mean and standard deviation are those of training subjects at overlap 0.5.
        return Attribute("Age", "continuous", low=self.low, high=self.high, mean=34.4, std=17.1)

    @property
    def label_above(self) -> dict[str, float]:
        return {"Gray_Hair": 0.50, "Receding_Hairline": 0.35, "Wrinkles": 0.40}

    def labels(self, value_N: Tensor) -> dict[str, Tensor]:
        return {"Young": (value_N < self.young_below).float()}

    def assign(self, u_N: Tensor, logit_young_N: Tensor) -> Tensor:
        odds_N = u_N * self._tilt(logit_young_N)
        return self._age(odds_N / (1.0 - u_N + odds_N))

    def randomise(self, u_N: Tensor) -> Tensor:
        return self._age(u_N)

    def density(self, value_N: Tensor, logit_young_N: Tensor) -> Tensor:
        tilt_N, q_N = self._tilt(logit_young_N), (value_N - self.low) / self._span
        density_N = tilt_N / (q_N + (1.0 - q_N) * tilt_N).square() / self._span
        return torch.where((q_N >= 0.0) & (q_N <= 1.0), density_N, 0.0)

    def progress(self, value_N: Tensor) -> Progress:
        t_N = ((value_N - 30.0) / 40.0).clamp(0.0, 1.0)
        return Progress(
            gray=t_N * t_N * (3.0 - 2.0 * t_N),
            recession=((value_N - 20.0) / 60.0).clamp(0.0, 1.5),
            wrinkles=((value_N - 25.0) / 55.0).clamp(0.0, 1.5),
        )

    @property
    def _span(self) -> float:
        return self.high - self.low

    def _age(self, q_N: Tensor) -> Tensor:
        return self.low + self._span * q_N

    def _tilt(self, logit_young_N: Tensor) -> Tensor:
        """exp(logit q₀ − logit P(Young)), the odds ratio between these people's ages and uniform ones."""
        q0 = (self.young_below - self.low) / self._span
        return torch.exp(math.log(q0 / (1.0 - q0)) - logit_young_N)


IN_TWO_CLASSES: Final = InTwoClasses()
IN_YEARS: Final = InYears()
