"""Faces with a known causal process (docs/method.md): who is photographed, and what age does to them.

Stage 1, roots. Male, Smiling, Eyeglasses, Blond_Hair, Blue_Eyes and Skin_Tone are drawn jointly. Their associations
reflect who was photographed and are not causal: blond people more often have blue eyes, men more often wear glasses
and smile less. The treatment Young is assigned last, given the covariates x, by

    logit P(Young=1 | x) = c + s · (score(x) − c),    s = 1/overlap − 1

so overlap = 1 is a randomised experiment, 0.5 is like CelebA (women about 7 young to 1 old, men about 1.7 to 1), and
towards 0 the covariates nearly determine Young. Pose, light, backdrop, clothes and the shape of the face are not
labelled. With age in years, the treatment is Age instead, and Young is a label for people below 45 (see `ageing`).

Stage 2, consequences. Structural equations with each subject's exogenous noise, drawn once:

    Male          → Beard, hair length, jaw, brows, lips
    Young (& Male)→ Gray_Hair (everybody), Receding_Hairline (men), Wrinkles (everybody)

`Subjects.under` is do(): it sets roots and keeps the noise and all other roots, from which the same subject's
consequences are then recomputed. The labels of consequences are thresholded continuous levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles, require_name
from civae_core.errors import UsageError
from civae_core.synthetic import noise
from civae_core.synthetic.ageing import IN_TWO_CLASSES, IN_YEARS, Ageing
from civae_core.synthetic.renderer import render

_COVARIATES: tuple[Attribute, ...] = (
    Attribute("Male", "binary"),
    Attribute("Smiling", "binary"),
    Attribute("Eyeglasses", "binary"),
    Attribute("Blond_Hair", "binary"),
    Attribute("Blue_Eyes", "binary"),
    Attribute("Skin_Tone", "continuous", mean=0.42, std=0.24),
)

_CONSEQUENCES: tuple[Attribute, ...] = (
    Attribute("Beard", "binary"),
    Attribute("Gray_Hair", "binary"),
    Attribute("Receding_Hairline", "binary"),
    Attribute("Wrinkles", "binary"),
)


def roots_of(ageing: Ageing) -> tuple[Attribute, ...]:
    """The attributes that do() can set, age first."""
    return (ageing.root, *_COVARIATES)


ATTRIBUTES: tuple[Attribute, ...] = (*roots_of(IN_TWO_CLASSES), *_CONSEQUENCES)
"""The table's columns if age is represented by Young."""
AGE_ATTRIBUTES: tuple[Attribute, ...] = (
    *roots_of(IN_YEARS),
    *_CONSEQUENCES,
    Attribute("Young", "binary"),
)
"""The table's columns if age is in years."""

ROLES = AttributeRoles.assign(
    ATTRIBUTES,
    treatments=["Young"],
    covariates=[a.name for a in _COVARIATES],
    descendants=["Gray_Hair", "Receding_Hairline", "Wrinkles"],
)
"""The roles for treatment Young. Beard is held out: Male causes it, and age does not.

For treatment Male the descendants would be Beard and Receding_Hairline.
"""
AGE_ROLES = AttributeRoles.assign(
    AGE_ATTRIBUTES,
    treatments=["Age"],
    covariates=[a.name for a in _COVARIATES],
    descendants=["Gray_Hair", "Receding_Hairline", "Wrinkles", "Young"],
)
"""The roles for treatment Age."""


def attributes_of(ageing: Ageing) -> tuple[Attribute, ...]:
    """The table's columns."""
    return ATTRIBUTES if ageing == IN_TWO_CLASSES else AGE_ATTRIBUTES


def roles_of(ageing: Ageing) -> AttributeRoles:
    """The roles with age as the treatment."""
    return ROLES if ageing == IN_TWO_CLASSES else AGE_ROLES


# Who is photographed: P(root = 1), as (women, men) or (not blond, blond).
_P_MALE = 0.42
_P_SMILING = (0.54, 0.42)
_P_EYEGLASSES = (0.08, 0.18)
_P_BLOND = (0.32, 0.20)
_P_BLUE_EYES = (0.15, 0.75)
_P_LIGHT_GROUP = (0.35, 0.90)
# Skin_Tone is uniform within a group: (low, high) for the two groups.
_SKIN_LIGHT = (0.05, 0.45)
_SKIN_OTHER = (0.20, 0.95)

# Treatment assignment, on the logit scale.
_LOGIT_C = 1.25
_SCORE = {"Male": -1.38, "Eyeglasses": -0.60, "Smiling": 0.10, "Blond_Hair": 0.15}
_SCORE_BASE = 1.93
_STEEPEST = 20.0


@dataclass(frozen=True)
class Subjects:
    """N people: their exogenous noise, and the values of their roots (factual, or as set by do()).

    noise_NK: float32 [N, K], uniforms in the order of `noise.SOURCES`. roots: name → float32 [N], including the root
    of `ageing`.
    """

    noise_NK: Tensor
    roots: Mapping[str, Tensor]
    ageing: Ageing = IN_TWO_CLASSES

    def __len__(self) -> int:
        return self.noise_NK.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Subjects":
        """The subjects at `rows`: a slice, an int64 tensor [M] or a bool tensor [N]."""
        roots = {name: value[rows] for name, value in self.roots.items()}
        return replace(self, noise_NK=self.noise_NK[rows], roots=roots)

    def to(self, device: torch.device | str) -> "Subjects":
        """The same subjects on another device, on which they will be rendered."""
        roots = {name: value.to(device) for name, value in self.roots.items()}
        return replace(self, noise_NK=self.noise_NK.to(device), roots=roots)

    def under(self, do: Mapping[str, float | Tensor | str]) -> "Subjects":
        """The same subjects under do(): the given roots are set; all noise and all other roots are kept.

        A value is a number, a tensor [N], or "flip" for the other value of a binary root. Any real dose is allowed;
        its effect on the face is monotone, and clamped to what a face can show.

        Raises:
            UsageError: a name is not a root, a value is of the wrong kind, or a tensor has the wrong length.
        """
        roots = dict(self.roots)
        for name, value in do.items():
            require_name(name, self.roots, "do")
            roots[name] = self._dose(name, value)
        return replace(self, roots=roots)

    def _dose(self, name: str, value: float | Tensor | str) -> Tensor:
        factual = self.roots[name]
        if isinstance(value, str):
            if value != "flip":
                raise UsageError(
                    f"do({name}): {value!r} is neither a number nor 'flip'",
                    hint="for example 0, 1.5 or 'flip'",
                )
            if name in {a.name for a in roots_of(self.ageing) if a.kind == "continuous"}:
                raise UsageError(f"do({name}): only a binary attribute can be flipped", hint="give a number")
            return 1.0 - factual
        if isinstance(value, Tensor) and value.dim() > 0:
            if value.shape != factual.shape:
                raise UsageError(
                    f"do({name}): {tuple(value.shape)} values for {len(self)} subjects",
                    hint="give one number for all, or one for each",
                )
            return value.to(factual)
        return torch.full_like(factual, float(value))

    @cached_property
    def levels(self) -> dict[str, Tensor]:
        """Consequences of the roots, as continuous levels [N]: 0 is none, 1 is full; age can push some beyond 1.

        Every level is non-decreasing in age. Only sums, products, quotients and comparisons are used, so a subject's
        levels do not depend on the batch.
        """
        own = self._own
        age = self.ageing.progress(self.roots[self.ageing.root.name])
        male = self.roots["Male"].clamp(0.0, 1.0)
        # How strongly a person will age cannot be seen in the young face, so no method can know it, and its spread
        # bounds the error of every method from below. The spread is therefore kept narrow.
        grays = 0.80 + 0.25 * own("grays")
        recedes = 0.45 + 0.60 * own("recedes")
        wrinkles = 0.55 + 0.50 * own("wrinkles")
        bearded = (own("beard") < 0.45).to(male.dtype)
        return {
            "Beard": male * bearded * (0.70 + 0.30 * own("beard_density")),
            "Gray_Hair": (age.gray * grays).clamp(max=1.0),
            "Receding_Hairline": (male * age.recession * recedes).clamp(max=1.25),
            "Wrinkles": age.wrinkles * wrinkles,
        }

    @cached_property
    def attributes_NA(self) -> Tensor:
        """The table's rows, float32 [N, A] in the order of `attributes_of`: roots, and 0/1 labels of consequences."""
        above = {"Beard": _BEARD_ABOVE, **self.ageing.label_above}
        labels = {name: (level > above[name]).float() for name, level in self.levels.items()}
        columns = {**self.roots, **labels, **self.ageing.labels(self.roots[self.ageing.root.name])}
        return torch.stack([columns[a.name].float() for a in attributes_of(self.ageing)], dim=1)

    def _own(self, source: str) -> Tensor:
        return noise.column(self.noise_NK, source)


_BEARD_ABOVE = 0.35


class FaceProcess:
    """The face process for one seed, overlap, image size and representation of age; it has no other state.

    Args:
        overlap: 1 is randomised, 0.5 like CelebA, towards 0 nearly deterministic; values below 1/21 act as 1/21.
        seed: any non-negative integer; another seed gives other people.
        size: height and width of rendered images, 32 to 256.
        ageing: how age is represented: Young, or Age in years. The people, and who is young, are the same in both.

    Raises:
        UsageError: a setting is out of range.
    """

    def __init__(
        self, overlap: float = 0.5, seed: int = 0, size: int = 64, ageing: Ageing = IN_TWO_CLASSES
    ) -> None:
        if not 0.0 <= overlap <= 1.0:
            raise UsageError(f"overlap: {overlap} is not between 0 and 1", hint="0.5 is like CelebA")
        if not 32 <= size <= 256:
            raise UsageError(f"size: {size} is not between 32 and 256", hint="64 is usual")
        if seed < 0:
            raise UsageError(
                f"seed: {seed} is negative", hint="use 0 or more; another seed gives other people"
            )
        self.overlap = overlap
        self.seed = seed
        self.size = size
        self.ageing = ageing

    def subjects(self, start: int, count: int, randomised: bool = False) -> Subjects:
        """Subjects start … start + count − 1; subject i does not depend on which others are requested.

        With `randomised`, roots keep their marginal frequencies but lose their associations, except that Male and
        Young are fair coins and Age is uniform; every cell is then populated. These are other people than those with
        the same numbers without it.
        """
        if start < 0 or count < 0:
            raise UsageError(
                f"subjects: start {start} and count {count} must not be negative",
                hint="subjects are numbered from 0",
            )
        noise_NK = noise.draw(self.seed, int(randomised), start, count)
        roots = _roots(noise_NK, randomised)
        u_N = noise.column(noise_NK, "young")
        age = self.ageing.randomise(u_N) if randomised else self.ageing.assign(u_N, self._logit_young(roots))
        drawn = Subjects(noise_NK, {self.ageing.root.name: age, **roots}, self.ageing)
        first = start % noise.BLOCK
        return drawn[first : first + count]

    def propensity(self, roots: Mapping[str, Tensor]) -> Tensor:
        """The true P(Young=1 | x) [N] under which subjects that are not randomised are assigned."""
        return torch.sigmoid(self._logit_young(roots))

    def treatment_density(self, roots: Mapping[str, Tensor]) -> Tensor:
        """The true p(t | x) [N] at the age in `roots`: a probability for Young, a density per year for Age."""
        return self.ageing.density(roots[self.ageing.root.name], self._logit_young(roots))

    def _logit_young(self, roots: Mapping[str, Tensor]) -> Tensor:
        score = torch.full_like(roots["Male"], _SCORE_BASE)
        for name, weight in _SCORE.items():
            score = score + weight * roots[name]
        slope = min(1.0 / self.overlap - 1.0, _STEEPEST) if self.overlap > 0 else _STEEPEST
        return _LOGIT_C + slope * (score - _LOGIT_C)

    def render(self, subjects: Subjects) -> Tensor:
        """Render photographs of the subjects, uint8 [N, 3, size, size], on their device."""
        return render(subjects.noise_NK, subjects.roots, subjects.levels, self.size)


def _roots(noise_NK: Tensor, randomised: bool) -> dict[str, Tensor]:
    """The covariates [N], with the associations of who was photographed or, if `randomised`, without them."""

    def chance(source: str, p: float | Tensor) -> Tensor:
        return (noise.column(noise_NK, source) < p).float()

    def given(parent: Tensor, p: tuple[float, float], share: float) -> Tensor | float:
        if randomised:
            return (1.0 - share) * p[0] + share * p[1]
        return torch.where(parent > 0, p[1], p[0])

    p_blond = (1.0 - _P_MALE) * _P_BLOND[0] + _P_MALE * _P_BLOND[1]
    male = chance("male", 0.5 if randomised else _P_MALE)
    blond = chance("blond_hair", given(male, _P_BLOND, _P_MALE))
    light_group = chance("skin_group", given(blond, _P_LIGHT_GROUP, p_blond)) > 0
    tone = noise.column(noise_NK, "skin_tone")
    return {
        "Male": male,
        "Smiling": chance("smiling", given(male, _P_SMILING, _P_MALE)),
        "Eyeglasses": chance("eyeglasses", given(male, _P_EYEGLASSES, _P_MALE)),
        "Blond_Hair": blond,
        "Blue_Eyes": chance("blue_eyes", given(blond, _P_BLUE_EYES, p_blond)),
        "Skin_Tone": torch.where(light_group, _between(_SKIN_LIGHT, tone), _between(_SKIN_OTHER, tone)),
    }


def _between(bounds: tuple[float, float], u_N: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * u_N
