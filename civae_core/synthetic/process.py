"""Faces with a known causal process (METHOD section 5): who is photographed, and what age does to them.

Stage 1, roots. Male, Smiling, Eyeglasses, Blond_Hair, Blue_Eyes and Skin_Tone are drawn jointly. Their associations
say who was photographed, not what causes what: blond people more often have blue eyes, men more often wear
glasses and smile less. The treatment Young is assigned last, given the covariates x, by

    logit P(Young=1 | x) = c + s · (score(x) − c),    s = 1/overlap − 1

so overlap = 1 is a randomised experiment, 0.5 is like CelebA (women about 7 young to 1 old, men about 1.7 to 1) and
towards 0 the covariates nearly decide. Pose, light, backdrop, clothes and the person's own shape are unlabelled.

Stage 2, consequences. Structural equations with exogenous noise that was drawn once:

    Male          → Beard, hair length, jaw, brows, lips
    Young (& Male)→ Gray_Hair (everybody), Receding_Hairline (men), Wrinkles (everybody)

`Subjects.under` is do(): it sets roots, holds the noise and all other roots, and so recomputes the consequences of
the same subject. Labels of consequences are thresholds of continuous levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles, require_name
from civae_core.errors import UsageError
from civae_core.synthetic import noise
from civae_core.synthetic.renderer import render

ROOTS: tuple[str, ...] = (
    "Young",
    "Male",
    "Smiling",
    "Eyeglasses",
    "Blond_Hair",
    "Blue_Eyes",
    "Skin_Tone",
)

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("Young", "binary"),
    Attribute("Male", "binary"),
    Attribute("Smiling", "binary"),
    Attribute("Eyeglasses", "binary"),
    Attribute("Blond_Hair", "binary"),
    Attribute("Blue_Eyes", "binary"),
    Attribute("Skin_Tone", "continuous", mean=0.42, std=0.24),
    Attribute("Beard", "binary"),
    Attribute("Gray_Hair", "binary"),
    Attribute("Receding_Hairline", "binary"),
    Attribute("Wrinkles", "binary"),
)

ROLES = AttributeRoles.assign(
    ATTRIBUTES,
    treatments=["Young"],
    covariates=["Male", "Smiling", "Eyeglasses", "Blond_Hair", "Blue_Eyes", "Skin_Tone"],
    descendants=["Gray_Hair", "Receding_Hairline", "Wrinkles"],
)
"""The roles for treatment Young. Beard is held out: it goes with Male, and age does not cause it.

For treatment Male the descendants would be Beard and Receding_Hairline.
"""

_BINARY_ROOTS = frozenset(a.name for a in ATTRIBUTES if a.kind == "binary" and a.name in ROOTS)

# Who is photographed: P(root = 1), (women, men) or (not blond, blond).
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

    noise_NK float32 [N, K], uniforms of `noise.SOURCES`; roots: name → float32 [N].
    """

    noise_NK: Tensor
    roots: Mapping[str, Tensor]

    def __len__(self) -> int:
        return self.noise_NK.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Subjects":
        """The subjects at `rows`: a slice, an int64 tensor [M] or a bool tensor [N]."""
        return Subjects(self.noise_NK[rows], {name: value[rows] for name, value in self.roots.items()})

    def to(self, device: torch.device | str) -> "Subjects":
        """The same subjects on another device, where they are then rendered."""
        return Subjects(self.noise_NK.to(device), {name: v.to(device) for name, v in self.roots.items()})

    def under(self, do: Mapping[str, float | Tensor | str]) -> "Subjects":
        """The same subjects under do(): given roots are set, all noise and all other roots stay.

        A value is a number, a tensor [N], or "flip" for the other value of a binary root. Any real dose is allowed;
        what it does to the face is monotone, and clamped where a face could not follow.

        Raises:
            UsageError: not a root, a value of another kind, or a tensor of another length.
        """
        roots = dict(self.roots)
        for name, value in do.items():
            require_name(name, ROOTS, "do")
            roots[name] = self._dose(name, value)
        return replace(self, roots=roots)

    def _dose(self, name: str, value: float | Tensor | str) -> Tensor:
        factual = self.roots[name]
        if isinstance(value, str):
            if value != "flip":
                raise UsageError(f"do({name}): {value!r} is neither a number nor 'flip'")
            if name not in _BINARY_ROOTS:
                raise UsageError(f"do({name}): only a binary attribute can be flipped", hint="give a number")
            return 1.0 - factual
        if isinstance(value, Tensor) and value.dim() > 0:
            if value.shape != factual.shape:
                raise UsageError(f"do({name}): {tuple(value.shape)} values for {len(self)} subjects")
            return value.to(factual)
        return torch.full_like(factual, float(value))

    @cached_property
    def levels(self) -> dict[str, Tensor]:
        """What the roots cause, as continuous levels [N]: 0 is none, 1 is full; age can push some beyond 1.

        old = 1 − Young is clamped to [0, 1.5]; every level is non-decreasing in it. Only additions, products and
        comparisons, so a subject's levels do not depend on the batch.
        """
        own = self._own
        old = (1.0 - self.roots["Young"]).clamp(0.0, 1.5)
        male = self.roots["Male"].clamp(0.0, 1.0)
        # How far a person will respond cannot be read off the young face, so no method can know it. The spread is
        # kept narrow: what cannot be known bounds the error of every method from below.
        grays = 0.80 + 0.25 * own("grays")
        recedes = 0.45 + 0.60 * own("recedes")
        wrinkles = 0.55 + 0.50 * own("wrinkles")
        bearded = (own("beard") < 0.45).to(old.dtype)
        return {
            "Beard": male * bearded * (0.70 + 0.30 * own("beard_density")),
            "Gray_Hair": (old * grays).clamp(max=1.0),
            "Receding_Hairline": (male * old * recedes).clamp(max=1.25),
            "Wrinkles": old * wrinkles,
        }

    @cached_property
    def attributes_NA(self) -> Tensor:
        """The table's rows, float32 [N, len(ATTRIBUTES)]: roots as they are, consequences as 0/1 labels."""
        labels = {name: (level > _LABEL_ABOVE[name]).float() for name, level in self.levels.items()}
        return torch.stack([{**self.roots, **labels}[a.name].float() for a in ATTRIBUTES], dim=1)

    def _own(self, source: str) -> Tensor:
        return noise.column(self.noise_NK, source)


_LABEL_ABOVE = {"Beard": 0.35, "Gray_Hair": 0.85, "Receding_Hairline": 0.60, "Wrinkles": 0.65}


class FaceProcess:
    """The process at one seed, overlap and image size; it holds no state beyond these.

    Args:
        overlap: 1 randomised, 0.5 like CelebA, towards 0 nearly deterministic (0 itself means the steepest).
        seed: any non-negative integer; another seed is other people.
        size: height and width of rendered images, 32 to 256.

    Raises:
        UsageError: a setting out of its range.
    """

    def __init__(self, overlap: float = 0.5, seed: int = 0, size: int = 64) -> None:
        if not 0.0 <= overlap <= 1.0:
            raise UsageError(f"overlap: {overlap} is not within 0 to 1", hint="0.5 is like CelebA")
        if not 32 <= size <= 256:
            raise UsageError(f"size: {size} is not within 32 to 256")
        if seed < 0:
            raise UsageError(f"seed: {seed} is negative")
        self.overlap = overlap
        self.seed = seed
        self.size = size

    def subjects(self, start: int, count: int, randomised: bool = False) -> Subjects:
        """Subjects start … start + count − 1; subject i is the same whatever it is asked with.

        With `randomised`, roots keep their own frequencies but lose their associations, and Male and Young are fair
        coins, so that every cell is populated; these are other people than the same numbers without it.
        """
        if start < 0 or count < 0:
            raise UsageError(f"subjects: start {start} and count {count} must not be negative")
        noise_NK = noise.draw(self.seed, int(randomised), start, count)
        roots = _roots(noise_NK, randomised)
        young = noise.column(noise_NK, "young")
        p_young = torch.full_like(young, 0.5) if randomised else self.propensity(roots)
        drawn = Subjects(noise_NK, {"Young": (young < p_young).float(), **roots})
        first = start % noise.BLOCK
        return drawn[first : first + count]

    def propensity(self, roots: Mapping[str, Tensor]) -> Tensor:
        """The true P(Young=1 | x) [N] by which subjects that are not randomised are assigned."""
        score = torch.full_like(roots["Male"], _SCORE_BASE)
        for name, weight in _SCORE.items():
            score = score + weight * roots[name]
        slope = min(1.0 / self.overlap - 1.0, _STEEPEST) if self.overlap > 0 else _STEEPEST
        return torch.sigmoid(_LOGIT_C + slope * (score - _LOGIT_C))

    def render(self, subjects: Subjects) -> Tensor:
        """Their photographs, uint8 [N, 3, size, size], on the subjects' device."""
        return render(subjects.noise_NK, subjects.roots, subjects.levels, self.size)


def _roots(noise_NK: Tensor, randomised: bool) -> dict[str, Tensor]:
    """The covariates [N], with the associations of who was photographed or, `randomised`, without them."""

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
