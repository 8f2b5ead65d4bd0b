"""What an evaluation's numbers are called, which way is better, and what they mean in plain words.

One list behind the terminal's table and the report, so that they cannot disagree.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """One number of a method's entry in the evaluation."""

    key: str
    title: str
    better: Literal["lower", "higher"]
    decimals: int
    meaning: str
    headline: bool = False
    """Whether a short table shows the interval too."""


@dataclass(frozen=True)
class Value:
    """A number with its interval, where one is known."""

    mean: float
    lo: float | None = None
    hi: float | None = None

    def text(self, decimals: int) -> str:
        return _rounded(self.mean, decimals)

    def interval_text(self, decimals: int, between: str = " – ") -> str:
        """`0.18 – 0.24`, or nothing."""
        if self.lo is None or self.hi is None:
            return ""
        return f"{_rounded(self.lo, decimals)}{between}{_rounded(self.hi, decimals)}"


def _rounded(number: float, decimals: int) -> str:
    """Fixed decimals, without the sign of a number that rounds to zero."""
    text = f"{number:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


_COUNTERFACTUAL = (
    Column(
        "relative_effect_error",
        "relative effect error",
        "lower",
        2,
        "squared error of the counterfactual over the pixels that the true change touches, divided by the size of "
        "that change: 0 is perfect, 1 is what returning the input unchanged scores",
        headline=True,
    ),
    Column(
        "relative_effect_error_mean_image",
        "relative effect error, noise 0",
        "lower",
        2,
        "the same without the picture's own fine detail put back (noise 0): what the model's blurry mean image knows",
        headline=True,
    ),
    Column(
        "ate_error",
        "average effect error",
        "lower",
        2,
        "distance between the estimated and the true average effect image of raising the treatment, divided by the "
        "size of the true one",
    ),
    Column(
        "psnr_counterfactual",
        "PSNR of counterfactuals (dB)",
        "higher",
        1,
        "closeness of the whole counterfactual picture to the truth in decibels; mostly about what should not change",
    ),
    Column(
        "ssim_counterfactual",
        "SSIM of counterfactuals",
        "higher",
        3,
        "structural similarity of the counterfactual to the truth; 1 is identical",
    ),
    Column(
        "mse_off_effect",
        "error off the effect",
        "lower",
        5,
        "mean squared error where the true change touches nothing: damage done elsewhere",
    ),
    Column(
        "pehe",
        "individual effect error (PEHE)",
        "lower",
        4,
        "root mean squared error of the individual effect, per pixel and channel on a scale of 0 to 1",
    ),
)
_RECONSTRUCTION = (
    Column(
        "psnr_reconstruction",
        "PSNR of reconstructions (dB)",
        "higher",
        1,
        "closeness of the model's mean image (noise 0) to the input, in decibels",
        headline=True,
    ),
    Column(
        "ssim_reconstruction",
        "SSIM of reconstructions",
        "higher",
        3,
        "structural similarity of the model's mean image to the input; 1 is identical",
    ),
    Column(
        "bits_per_dim",
        "bits per dimension",
        "lower",
        2,
        "bound on the bits that the model needs per pixel and channel of an 8-bit image",
    ),
)

METHODS = {
    "copy": "the input returned unchanged",
    "cvae": "the same network with the prior N(0, I)",
    "original": "the original project's objective and inference",
    "ours": "learned prior, latent and pixel noise abducted",
}
"""Methods in the order of tables; others follow as they come."""


def columns_present(methods: Mapping[str, Mapping[str, Any]]) -> list[Column]:
    """The known columns for which at least one method has a number."""
    known = (*_COUNTERFACTUAL, *_RECONSTRUCTION)
    return [c for c in known if any(as_value(entry.get(c.key)) is not None for entry in methods.values())]


def do_text(do: Mapping[str, Any]) -> str:
    """An intervention as `Young=flip, Age=70`."""
    return ", ".join(f"{name}={v if isinstance(v, str) else f'{v:g}'}" for name, v in do.items())


def ordered(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Method names, the baselines first."""
    return [name for name in METHODS if name in methods] + [name for name in methods if name not in METHODS]


def as_value(entry: object) -> Value | None:
    """A number or a {"mean", "lo", "hi"} as a Value; anything else, and what is not finite, is absent."""
    if isinstance(entry, Mapping):
        mean = as_value(entry.get("mean"))
        lo, hi = as_value(entry.get("lo")), as_value(entry.get("hi"))
        if mean is None:
            return None
        return Value(mean.mean, lo.mean if lo else None, hi.mean if hi else None)
    if isinstance(entry, bool) or not isinstance(entry, int | float) or not math.isfinite(entry):
        return None
    return Value(float(entry))


def best_methods(methods: Mapping[str, Mapping[str, Any]], column: Column) -> set[str]:
    """The methods with the best mean; not the copy, which is trivially best at what it does not attempt."""
    values = {name: as_value(entry.get(column.key)) for name, entry in methods.items() if name != "copy"}
    means = {name: value.mean for name, value in values.items() if value is not None}
    if len(means) < 2:
        return set()
    best = min(means.values()) if column.better == "lower" else max(means.values())
    return {name for name, mean in means.items() if mean == best}
