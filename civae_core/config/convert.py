"""Translates the original project's config.yml into a config of ours.

The original minimises, for images y₁ in [−1,1] with C·H·W values and a latent vector of Z dimensions,

    L₁ = mean (y₁ − f₁)² + kl_scale · mean KL,     means over the C·H·W values, and over the Z dimensions.

With y = (y₁ + 1)/2 in [0,1] all differences halve, so the first term is 4/(C·H·W) · Σ (y − f)². Ours (M4) is

    L = Σ (y − f)² / (2σ²) + β · Σ KL + constant,  sums over values and dimensions, in nats per image.

At σ² = 1/8 the factor 1/(2σ²) is 4, so C·H·W · L₁ = L − constant exactly if β = kl_scale · C·H·W / Z. The gradients
then differ by the factor C·H·W alone, and Adam takes the same steps.
"""

import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from civae_core import celeba
from civae_core.config.dump import to_yaml
from civae_core.config.load import ORIGINAL_KEYS, ConfigError, nested, read_file
from civae_core.config.problems import validate
from civae_core.config.schema import ORIGINAL_SIGMA, Config
from civae_core.config.yaml import Document, Problem

_CHANNELS = 3
_MOST = 10**9
"""Maximum of any count; a larger one is taken for a typing error."""

# The values shipped with the original's repository, assumed for keys that a file leaves out.
_SHIPPED: dict[str, Any] = {
    "norm_type": "bn",
    "nepoch": 10,
    "image_size": 128,
    "ch_multi": 32,
    "num_res_blocks": 1,
    "latent_channels": 128,
    "save_interval": 3000,
    "block_widths": "1, 2, 4, 8",
    "lr": 3e-4,
    "kl_scale": 1e-4,
    "deep_model": 0,
    "batch_size": 32,
    "model_labels": {},
}
_ELSEWHERE = {
    "data_dir": "`civae prepare-data` reads the images once; training reads what it wrote",
    "dataset_root": "`civae prepare-data` reads the images once; training reads what it wrote",
    "save_dir": "give `civae train --out RUN`",
    "model_name": "give `civae train --out RUN`",
    "gpu_index": "give `civae train --device cuda:N`; by default, a GPU is used if there is one",
    "device_index": "give `civae train --device cuda:N`; by default, a GPU is used if there is one",
    "load_checkpoint": "running the same `civae train` again resumes; checkpoints of the original cannot be read",
    "feature_scale": "there is no perceptual loss here",
    "labels": "attributes are given by name; no table of indices is needed",
}


@dataclass(frozen=True)
class Converted:
    """A config of ours, with remarks on what was assumed, changed or lost."""

    config: Config
    text: str
    """YAML with the remarks as comments."""
    remarks: tuple[str, ...]


def beta_of(kl_scale: float, image_size: int, latent: int, channels: int = _CHANNELS) -> float:
    """The β in nats per image equivalent to the original's `kl_scale` at σ² = 1/8 (see the module docstring)."""
    return kl_scale * channels * image_size**2 / latent


def convert_file(path: Path, images_per_epoch: int = celeba.TRAINING_IMAGES) -> Converted:
    """Translate a config file of the original project.

    Args:
        path: the original's config.yml.
        images_per_epoch: size of the original's training set, to convert epochs to images.

    Raises:
        ConfigError: the file cannot be read, is not of the original project, or holds invalid values.
    """
    document = read_file(path)
    if not document.problems and not ORIGINAL_KEYS & document.tree.keys():
        message = "has none of the original project's keys (norm_type, nepoch, kl_scale, …)"
        document.problems.append(Problem(document.values.get(()), "", message))
    if document.problems:
        raise ConfigError(document.problems, hint="`civae config validate` checks a config of civae's own")
    old = _Old(document)
    converted = _translate(old, path.name, images_per_epoch)
    if old.problems or converted is None:
        raise ConfigError(old.problems, hint="correct the original file, then convert it again")
    return converted


@dataclass
class _Old:
    """The original's values, checked as they are read."""

    document: Document
    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = self.document.tree
        return tree

    def get(self, key: str, fits: Callable[[Any], bool], expected: str) -> Any:
        """The value of `key`; the shipped value if it is missing or does not fit, which is recorded."""
        if key not in self.tree:
            if key != "batch_size":
                self.remarks.append(
                    f"{key}: not given; assumed {_SHIPPED[key]}, as shipped with the original"
                )
            return _SHIPPED[key]
        value = self.tree[key]
        if not fits(value):
            self.problem(key, f"should be {expected}, not {value!r}")
            return _SHIPPED[key]
        return value

    def problem(self, key: str, message: str) -> None:
        self.problems.append(Problem(self.document.values.get((key,)), key, message))

    def count(self, key: str) -> int:
        return int(
            self.get(key, lambda v: type(v) is int and 0 < v <= _MOST, f"a whole number from 1 to {_MOST:,}")
        )

    def number(self, key: str, *, positive: bool) -> float:
        def fits(value: Any) -> bool:
            is_number = type(value) in (int, float) and math.isfinite(value)
            return is_number and (value > 0 if positive else value >= 0)

        return float(self.get(key, fits, "a number above 0" if positive else "a number of at least 0"))


def _translate(old: _Old, name: str, images_per_epoch: int) -> Converted | None:
    size, latent = old.count("image_size"), old.count("latent_channels")
    kl_scale, batch = old.number("kl_scale", positive=False), old.count("batch_size")
    epochs, interval = old.count("nepoch"), old.count("save_interval")
    norm = old.get("norm_type", lambda v: v in ("bn", "gn"), "bn or gn")
    deep = bool(old.get("deep_model", lambda v: v in (0, 1), "0 or 1"))
    stages = _widths(old)
    data = _roles(old)
    settings: dict[str, Any] = {
        "objective": "intact",
        "data": {"path": f"data/celeba-{size}", **data},
        "model": {
            "network": "original",
            "latent": latent,
            "width": old.count("ch_multi"),
            "stages": stages,
            "blocks": old.count("num_res_blocks"),
            **({"deep": True} if deep else {}),
            "norm": {"bn": "batch", "gn": "group"}[norm],
            "activation": "elu",
            "sigma": "fixed",
            "sigma_init": ORIGINAL_SIGMA,
        },
        "loss": {"beta": float(f"{beta_of(kl_scale, size, latent):.8g}")},
        "train": {
            "images": epochs * images_per_epoch,
            "batch_size": batch,
            "lr": old.number("lr", positive=True),
            "checkpoint_every": interval * batch,
            "sample_every": interval * batch,
        },
    }
    comments = {
        "objective": "the original trained against N(0,I): its learned prior got no gradient; to reproduce "
        "that, write `objective: original` and put kl_scale into loss.beta",
        "data.path": f"civae prepare-data CELEBA --out data/celeba-{size} --size {size}",
        "model.network": "the original's encoder and decoder; civae's own network is the default, and "
        "`civae config init` shows its keys",
        "model.blocks": "num_res_blocks: at the lowest resolution",
        "model.deep": "deep_model: one more block at each resolution" if deep else "",
        "model.activation": "fixed in the original's code",
        "model.sigma": "the original's squared error fixes σ² at 1/8; leave both out to learn σ",
        "loss.beta": f"kl_scale {kl_scale:g} × {_CHANNELS}·{size}·{size} values / {latent} latent dimensions",
        "train.images": f"nepoch {epochs} × {images_per_epoch:,} training images",
        "train.batch_size": "a flag of the original, 32 unless given" if "batch_size" not in old.tree else "",
        "train.checkpoint_every": f"save_interval {interval} steps × {batch} images",
    }
    _note_the_rest(old)
    if old.problems:
        return None
    # Values beyond the limits of our schema are reported under our key, at the start of the original's file.
    config, too_much = validate(nested((), settings, old.document.values[()]))
    if config is None:
        old.problems += too_much
        return None
    text = _render(settings, comments, name, old.remarks)
    return Converted(config, text, (*old.remarks, *(f"{k}: {v}" for k, v in comments.items() if v)))


def _widths(old: _Old) -> list[int]:
    """Parse `block_widths`: text such as `1, 2, 4, 8`, a list, or a single number."""
    value = old.tree.get("block_widths", _SHIPPED["block_widths"])
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        widths = [int(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        widths = []
    if not widths or min(widths) < 1:
        old.problem("block_widths", f"should be whole numbers such as 1, 2, 4, 8, not {value!r}")
        return [1]
    return widths


def _roles(old: _Old) -> dict[str, list[str]]:
    """Treatment, covariates and descendants; labels that the treatment causes cannot remain covariates."""
    treatments = _names(old, "treatment")
    if not treatments:
        if not any(problem.key == "treatment" for problem in old.problems):
            old.problem("treatment", "needs an attribute, by name or CelebA index")
        return {}
    for dropped in treatments[1:]:
        old.remarks.append(f"treatment: {dropped} dropped; the original used only the first")
    treatment = treatments[0]
    caused = celeba.CAUSED_BY.get(treatment, frozenset())
    labels = [name for name in _names(old, "model_labels") if name != treatment]
    descendants = [name for name in labels if name in caused]
    if descendants:
        old.remarks.append(
            f"model_labels: {treatment} itself changes {', '.join(descendants)}; as model inputs they would "
            "hide its effect, so they are now descendants"
        )
    return {
        "treatment": [treatment],
        "covariates": [name for name in labels if name not in caused],
        "descendants": descendants,
    }


def _names(old: _Old, key: str) -> list[str]:
    """Attribute names from a mapping name → CelebA index, a list of names or indices, a name, or an index."""
    value = old.tree.get(key)
    pairs: list[tuple[Any, Any]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        items = value if isinstance(value, list) else [] if value is None else [value]
        pairs = [(None, item) if type(item) is int else (item, None) for item in items]
    names: list[str] = []
    for name, index in pairs:
        if index is not None and (type(index) is not int or not 0 <= index < len(celeba.ATTRIBUTES)):
            old.problem(key, f"should give CelebA indices from 0 to 39, not {index!r}")
            continue
        if index is not None and name not in (None, celeba.ATTRIBUTES[index]):
            old.remarks.append(f"{key}: {name} was given index {index}, which is {celeba.ATTRIBUTES[index]}")
        found = celeba.ATTRIBUTES[index] if index is not None else name
        if not isinstance(found, str):
            old.problem(key, f"should name attributes, not {found!r}")
        elif found not in names:
            names.append(found)
    return names


def _note_the_rest(old: _Old) -> None:
    for key in old.tree:
        if key in _ELSEWHERE:
            old.remarks.append(f"{key}: {_ELSEWHERE[key]}")
        elif key not in _SHIPPED and key != "treatment":
            old.remarks.append(f"{key}: not a key of the original that civae knows; dropped")
    old.remarks.append(
        "what the original fixed in its training code (Adam without decay or warm-up, no averaging of weights, no "
        "attribute predictor) is left at civae's defaults; configs/original-128.yml has the original's settings"
    )


def _render(settings: dict[str, Any], comments: dict[str, str], name: str, remarks: list[str]) -> str:
    lines = [f"# Converted from {name} of the original project.", "#"]
    for remark in remarks:
        lines += textwrap.wrap(
            remark, 98, initial_indent="# - ", subsequent_indent="#   ", break_on_hyphens=False
        )

    def add(indent: str, dotted: str, key: str, value: Any) -> None:
        if comments.get(dotted):
            comment = indent + "# "
            lines.extend(
                textwrap.wrap(comments[dotted], 98, initial_indent=comment, subsequent_indent=comment)
            )
        lines.extend(indent + line for line in to_yaml({key: value}).splitlines())

    for section, values in settings.items():
        lines.append("")
        if isinstance(values, dict):
            lines.append(f"{section}:")
            for key, value in values.items():
                add("  ", f"{section}.{key}", key, value)
        else:
            add("", section, section, values)
    return "\n".join(lines) + "\n"
