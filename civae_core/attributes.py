"""Attributes and their roles: what is intervened on, conditioned on, allowed to change, or only observed.

This module imports no torch, so that the command line starts quickly when it only needs attribute names.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from civae_core.errors import DataError, UsageError

LONGEST_NAME = 200
LARGEST = 2.0**100
"""Largest absolute value; squaring or standardising larger ones could overflow a model's 32-bit floats."""


def is_attribute_name(name: object) -> bool:
    """Whether `name` can be shown, stored and typed: 1 to 200 characters, all of them printable."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()


@dataclass(frozen=True)
class Attribute:
    """One column of the attribute table.

    `low` and `high` bound the values seen in training; `mean` and `std` are those of the training split and
    standardise continuous attributes inside the model. Binary attributes are 0 or 1.
    """

    name: str
    kind: Literal["binary", "continuous"]
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.5
    std: float = 0.5

    @property
    def shift_and_scale(self) -> tuple[float, float]:
        """`(shift, scale)` with model value = (raw − shift) / scale; binary 0/1 becomes −1/+1."""
        return (0.5, 0.5) if self.kind == "binary" else (self.mean, self.std or 1.0)

    def in_range(self, value: float) -> bool:
        """Whether `value` lies in the range seen in training."""
        # The bounds went through float32 but the value was typed: 0.3 must match the table's 0.3.
        slack = 1e-6 * max(abs(self.low), abs(self.high))
        return self.low - slack <= value <= self.high + slack

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Attribute":
        """Rebuild what `to_dict` wrote, with checks, since it may come from an untrusted file.

        Raises:
            TypeError: a key is unknown or missing.
            ValueError: a value is of the wrong kind, or cannot be used for standardisation.
        """
        made = cls(**values)
        numbers = (made.low, made.high, made.mean, made.std)
        if not is_attribute_name(made.name) or made.kind not in ("binary", "continuous"):
            raise ValueError(f"{made.name!r}, {made.kind!r} is no attribute")
        if any(type(n) not in (int, float) or not abs(n) <= LARGEST for n in numbers) or made.std < 0:
            raise ValueError(f"attribute {made.name}: its statistics {numbers} make no sense")
        if made.std and max(map(abs, numbers)) > LARGEST * made.std:
            raise ValueError(f"attribute {made.name}: its spread {made.std} is too small for its values")
        return made


@dataclass(frozen=True)
class AttributeRoles:
    """The table's attributes split by role; the order of treatments and covariates is the model's input order."""

    treatments: tuple[Attribute, ...]
    covariates: tuple[Attribute, ...]
    descendants: tuple[Attribute, ...] = ()
    held_out: tuple[Attribute, ...] = ()

    @classmethod
    def assign(
        cls,
        table: Sequence[Attribute],
        treatments: Sequence[str],
        covariates: Sequence[str],
        descendants: Sequence[str] = (),
    ) -> "AttributeRoles":
        """Look the names up in the table; attributes that are not named are held out.

        Raises:
            UsageError: a name is not a column of the table; the message suggests the nearest one.
        """
        by_name = {attribute.name: attribute for attribute in table}

        def pick(names: Sequence[str], key: str) -> tuple[Attribute, ...]:
            for name in names:
                require_name(name, by_name, f"data.{key}")
            return tuple(by_name[name] for name in names)

        used = {*treatments, *covariates, *descendants}
        return cls(
            treatments=pick(treatments, "treatment"),
            covariates=pick(covariates, "covariates"),
            descendants=pick(descendants, "descendants"),
            held_out=tuple(attribute for attribute in table if attribute.name not in used),
        )

    @property
    def inputs(self) -> tuple[Attribute, ...]:
        """The model's inputs: treatments, then covariates."""
        return self.treatments + self.covariates

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        return {
            "treatments": [a.to_dict() for a in self.treatments],
            "covariates": [a.to_dict() for a in self.covariates],
            "descendants": [a.to_dict() for a in self.descendants],
            "held_out": [a.to_dict() for a in self.held_out],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Iterable[Mapping[str, Any]]]) -> "AttributeRoles":
        """Rebuild what `to_dict` wrote, with checks.

        Raises:
            TypeError, ValueError: as in `Attribute.from_dict`; ValueError also for an attribute with two roles.
        """
        made = cls(**{key: tuple(Attribute.from_dict(a) for a in group) for key, group in values.items()})
        names = [a.name for group in (made.inputs, made.descendants, made.held_out) for a in group]
        if len(set(names)) < len(names):
            raise ValueError("an attribute has two roles")
        return made


def beyond_training(values: Mapping[str, float], attributes: Iterable[Attribute]) -> list[str]:
    """The values outside the range seen in training, each as in `Male=-1 (training saw 0 to 1)`.

    For a continuous treatment outside its range the model uses the nearest end of it (`IntactVAE.standardise_t`).
    """
    return [
        f"{a.name}={values[a.name]:g} (training saw {a.low:g} to {a.high:g})"
        for a in attributes
        if a.name in values and not a.in_range(values[a.name])
    ]


def with_care(names: Iterable[str], treatments: Iterable[Attribute]) -> str:
    """A caution about answers for which the treatments `names` were set outside the range seen in training."""
    held = [a.name for a in treatments if a.kind == "continuous" and a.name in set(names)]
    edge = f"{', '.join(held)} is answered as at the nearest dose seen in training; " if held else ""
    return f"{edge}interpret with care"


def cautions(values: Mapping[str, float], roles: AttributeRoles) -> list[str]:
    """The messages of `beyond_training` for a model's inputs, each with a caution about the answer."""
    return [
        f"{text}; {with_care([a.name], roles.treatments)}"
        for a in roles.inputs
        for text in beyond_training(values, [a])
    ]


def answered_beyond(names: Iterable[str], treatments: Iterable[Attribute]) -> str:
    """How the model handles treatments `names` set outside the range seen in training, in a caption's few words.

    A binary treatment is extrapolated along the line through its two values; a dose is held at the nearest one seen.
    """
    names = set(names)
    hows = {
        a.name: "as at the nearest dose" if a.kind == "continuous" else "extrapolation"
        for a in treatments
        if a.name in names
    }
    alike = len(set(hows.values())) == 1
    return "; ".join(dict.fromkeys(how if alike else f"{name}: {how}" for name, how in hows.items()))


def shortest(value: float) -> float:
    """The decimal with the fewest digits that is the same 32-bit float: 0.3 for a model's 0.30000001192…

    Values that differ in 32 bits stay different, however small their unit is. `value` is within the range of 32-bit
    floats.
    """
    import numpy as np  # imported here so that the command line starts quickly

    return float(str(np.float32(value)))


def require_name(name: str, known: Iterable[str], where: str) -> None:
    """Refuse an unknown attribute name.

    Raises:
        UsageError: the name is unknown; the message gives `where` and the nearest known name.
    """
    known = list(known)
    if name in known:
        return
    near = nearest(name, known)
    listed = ", ".join(known[:40]) + (", …" if len(known) > 40 else "")
    question = f" (did you mean {near}?)" if near else ""
    raise UsageError(f"{where}: unknown attribute {name!r}{question}", hint=f"known attributes: {listed}")


def require_same_kinds(inputs: Iterable[Attribute], table: Iterable[Attribute], where: str) -> None:
    """Refuse a table in which an input of a model is of another kind than in training, so that its values mean
    something else. Inputs that the table lacks are not looked at.

    Raises:
        DataError: an input is binary in one and continuous in the other; the message starts with `where`.
    """
    kinds = {attribute.name: attribute.kind for attribute in table}
    for a in inputs:
        found = kinds.get(a.name, a.kind)
        if found != a.kind:
            values = "0 or 1" if a.kind == "binary" else f"{a.low:g} to {a.high:g}"
            raise DataError(
                f"{where}: {a.name} is {found} there, but the model was trained with it as {a.kind}",
                hint=f"write {a.name} as in training ({values}), and prepare the data again",
            )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, ignoring case; None if none is close."""
    folded = {k.casefold(): k for k in known}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None
