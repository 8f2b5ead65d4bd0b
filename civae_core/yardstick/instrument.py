"""A trained yardstick: what it reads from images, and how well."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from civae_core.attributes import LARGEST, Attribute, is_attribute_name
from civae_core.data.images import LARGEST_SIDE
from civae_core.model.distributions import DiagonalNormal
from civae_core.reading import parse_json
from civae_core.yardstick.networks import AttributeScorer, LatentSpace

SMALLEST_SIDE = 8
"""Smallest side, in pixels, of the images that a scorer accepts."""

Quality = dict[str, dict[str, float]]
"""By attribute: accuracy, auc, worst_group_accuracy and n if it is binary; r2, mae and n if it is continuous."""


@dataclass(frozen=True)
class Reading:
    """What a yardstick reads from a batch of images, in float32."""

    outputs_BA: Tensor
    """One number per attribute of the yardstick: a logit if binary, a standardised value if continuous."""
    features_BF: Tensor
    """Features from which the scorer predicts the attributes."""
    latent: DiagonalNormal
    """The posterior of an unconditional VAE."""


@dataclass(frozen=True)
class YardstickCard:
    """Metadata stored with the weights."""

    attributes: tuple[Attribute, ...]
    """Attributes that could be learned, in the order of the table."""
    size: int
    channels: int
    data: dict[str, str]
    """Name and fingerprint of the prepared data."""
    roles: dict[str, list[str]]
    """Attribute names by role, on which the balancing of training depends."""
    images: int
    seed: int
    photos: Quality
    """Quality on held-out photographs."""
    blurred: Quality
    """Quality on the same photographs, blurred as a reconstruction may be."""
    reconstructions: dict[str, Quality] = field(default_factory=dict)
    """Quality on the reconstructions (τ = 0) of models that it was tested on, by run."""

    def to_json(self) -> str:
        values = {**self.__dict__, "attributes": [attribute.to_dict() for attribute in self.attributes]}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "YardstickCard":
        """Parse what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the text is damaged.
        """
        values: dict[str, Any] = parse_json(text)
        attributes = tuple(Attribute.from_dict(entry) for entry in values.pop("attributes"))
        made = cls(attributes=attributes, **values)
        _require_sense(made)
        return made


def _require_sense(card: YardstickCard) -> None:
    """Raise a ValueError for a card that fits no scorer; it may come from an untrusted file."""
    for key, low, high in (
        ("size", SMALLEST_SIDE, LARGEST_SIDE),
        ("images", 0, LARGEST),
        ("seed", -LARGEST, LARGEST),
    ):
        value = getattr(card, key)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{key} is not a valid number")
    names = [attribute.name for attribute in card.attributes]
    if card.channels not in (1, 3) or not names or len(set(names)) < len(names):
        raise ValueError("its channels or attributes make no sense")
    if type(card.data) is not dict or {"name", "fingerprint"} - card.data.keys():
        raise ValueError("it does not say what it was trained on")
    if not all(isinstance(text, str) for text in card.data.values()):
        raise ValueError("it does not say what it was trained on")
    if type(card.roles) is not dict or "treatments" not in card.roles:
        raise ValueError("it does not say which roles it was balanced for")
    for roles in card.roles.values():
        if type(roles) is not list or not all(map(is_attribute_name, roles)):
            raise ValueError("a role is not a list of attributes")
    if type(card.reconstructions) is not dict:
        raise ValueError("its reconstructions are not listed by run")
    for quality in (card.photos, card.blurred, *card.reconstructions.values()):
        _require_quality(quality)


def _require_quality(quality: Any) -> None:
    if type(quality) is not dict or not all(type(found) is dict for found in quality.values()):
        raise ValueError("a quality is not listed by attribute")
    for found in quality.values():
        for name, value in found.items():
            if type(value) not in (int, float) or not abs(value) <= LARGEST:
                raise ValueError(f"{name} is not a valid number")
        if "n" not in found:
            raise ValueError("a quality lacks its number of images")


class Networks(nn.Module):
    """The scorer and the latent space as one module with one state."""

    def __init__(self, size: int, channels: int, attributes: int) -> None:
        super().__init__()
        self.scorer = AttributeScorer(size, channels, attributes)
        self.latent = LatentSpace(size, channels)


@dataclass(frozen=True)
class Yardstick:
    """Networks in evaluation mode on one device, with their card."""

    networks: Networks
    card: YardstickCard
    path: Path | None = None
    known_latents: dict[tuple[str, bytes], DiagonalNormal] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Posteriors of real images, by data and rows, cached for repeated comparisons with the same images."""

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        return self.card.attributes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, which names the yardstick in reports."""
        digest = sha256()
        for name, tensor in sorted(self.networks.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """Its name in reports."""
        return f"scorer {self.fingerprint[:8]}"

    @property
    def device(self) -> torch.device:
        return next(self.networks.parameters()).device

    def index(self, name: str) -> int:
        """Column of an attribute in `Reading.outputs_BA`.

        Raises:
            KeyError: the scorer has not learned it.
        """
        for position, attribute in enumerate(self.attributes):
            if attribute.name == name:
                return position
        raise KeyError(name)

    @torch.no_grad()
    def read(self, y_BCHW: Tensor) -> Reading:
        """Read images, floats [B,C,S,S] on the yardstick's device; values outside [0,1] are clamped first."""
        y_BCHW = y_BCHW.float().clamp(0.0, 1.0)
        outputs_BA, features_BF = self.networks.scorer(y_BCHW)
        return Reading(outputs_BA.float(), features_BF.float(), self.networks.latent.encode(y_BCHW))
