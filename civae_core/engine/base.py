"""The interface of engines: the few functions on NumPy arrays that answering needs, whatever computes them.

Shape suffixes are those of `civae_core.model.intact_vae`: B batch, C colour channels, H and W pixels, Z latent
dimensions, T treatments, X covariates, A all attributes (treatments first). Arrays are float32, images in [0,1],
attributes in raw units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from civae_core.attributes import AttributeRoles
from civae_core.model.calibrated import Calibration
from civae_core.model.familiar import Familiarity

Array = np.ndarray


@dataclass(frozen=True)
class Abducted:
    """What an engine keeps about photographs between abduction and prediction (M5)."""

    reconstruction_BCHW: Array
    """f(z, t): the decoder's reconstruction of the photographs."""
    state: Any
    """Everything else, in the engine's own form."""


@dataclass(frozen=True)
class Predicted:
    """Counterfactual images and their parts (M6), as in `civae_core.counterfactual.Prediction`."""

    image_BCHW: Array
    mean_BCHW: Array
    effect_BCHW: Array


class Engine(Protocol):
    """A trained model that answers; `civae_core.counterfactual` defines what each function computes."""

    @property
    def name(self) -> str:
        """`torch` or `onnx`, and the device it computes on."""

    @property
    def roles(self) -> AttributeRoles: ...

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """How a photograph becomes the model's input: crop, size, channels."""

    @property
    def subjects(self) -> Sequence[Sequence[float]]:
        """Treatments and covariates of some training subjects, for sampling; in the order of `roles.inputs`."""

    @property
    def latent(self) -> int:
        """Number of latent dimensions, Z."""

    @property
    def calibration(self) -> Calibration:
        """How to read the outputs of `guess`."""

    @property
    def familiarity(self) -> Familiarity | None:
        """How well held-out images are reconstructed; None if unknown."""

    def guess(self, y_BCHW: Array) -> Array | None:
        """The attribute predictor's outputs [B,A]; None if the model has no predictor."""

    def abduct(self, y_BCHW: Array, x_BX: Array, t_BT: Array) -> Abducted:
        """Abduct both noises of (M5) at the posterior's mean, under the factual treatment."""

    def predict(self, abducted: Abducted, t_new_BT: Array, *, noise: float, strength: float) -> Predicted:
        """Predict images under the treatment t' (M6), by the inference that belongs to the model's objective."""

    def draw(self, x_BX: Array, t_BT: Array, noise_BZ: Array, own_BT: Array | None = None) -> Array:
        """Decoder means [B,C,S,S] of z ~ p(z|x,t), given standard normal noise (`civae_core.draws`).

        Args:
            own_BT: the subjects' own treatments, under which their noise was drawn; None if these are `t_BT`. Under
                any other t they remain the same subjects.
        """
