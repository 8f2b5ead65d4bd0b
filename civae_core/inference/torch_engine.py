"""The torch engine, on any device: the reference, from whose functions the ONNX graphs are traced."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.counterfactual import PREDICTIONS, Abduction, abduct
from civae_core.draws import decode_prior
from civae_core.engine.base import Abducted, Array, Predicted
from civae_core.model.calibrated import Calibration
from civae_core.model.familiar import Familiarity
from civae_core.model.stored import StoredModel


class TorchEngine:
    """A model read from disk, on its device; see `Engine` for the methods."""

    def __init__(self, stored: StoredModel) -> None:
        self.stored, self.model = stored, stored.model
        self.device = next(stored.model.parameters()).device

    @property
    def name(self) -> str:
        return f"torch on {self.device}"

    @property
    def roles(self) -> AttributeRoles:
        return self.stored.card.roles

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        return self.stored.card.preprocessing

    @property
    def subjects(self) -> Sequence[Sequence[float]]:
        return self.stored.card.subjects

    @property
    def latent(self) -> int:
        return self.model.latent

    @property
    def calibration(self) -> Calibration:
        return self.stored.card.calibration

    @property
    def familiarity(self) -> Familiarity | None:
        return self.stored.card.familiarity

    @torch.no_grad()
    def guess(self, y_BCHW: Array) -> Array | None:
        return None if self.model.predictor is None else _array(self.model.predictor(self._tensor(y_BCHW)))

    def abduct(self, y_BCHW: Array, x_BX: Array, t_BT: Array) -> Abducted:
        found = abduct(self.model, self._tensor(y_BCHW), self._tensor(x_BX), self._tensor(t_BT))
        return Abducted(_array(found.reconstruction.mean_BCHW), found)

    def predict(self, abducted: Abducted, t_new_BT: Array, *, noise: float, strength: float) -> Predicted:
        abduction: Abduction = abducted.state
        predict = PREDICTIONS[self.stored.card.config.objective]
        found = predict(self.model, abduction, self._tensor(t_new_BT), noise=noise, strength=strength)
        return Predicted(_array(found.image_BCHW), _array(found.mean_BCHW), _array(found.effect_BCHW))

    def draw(self, x_BX: Array, t_BT: Array, noise_BZ: Array, own_BT: Array | None = None) -> Array:
        x, t, noise = (self._tensor(values) for values in (x_BX, t_BT, noise_BZ))
        own = None if own_BT is None else self._tensor(own_BT)
        return _array(decode_prior(self.model, x, t, noise, own))

    def _tensor(self, values: Array) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


def _array(values: Tensor) -> Array:
    return values.float().cpu().numpy()
