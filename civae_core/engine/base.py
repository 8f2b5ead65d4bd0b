"""What answering needs of a model: the same few functions on NumPy arrays, whatever computes them.

Legend of shape suffixes as in `civae_core.model.intact_vae`: B batch, C colour channels, H and W pixels, Z latent
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
    """What an engine keeps of photographs between abduction and prediction (M5)."""

    reconstruction_BCHW: Array
    """f(z, t): the decoder's account of the photographs."""
    state: Any
    """The engine's own form of the rest."""


@dataclass(frozen=True)
class Predicted:
    """Counterfactual images and their parts (M6), as of `civae_core.counterfactual.Prediction`."""

    image_BCHW: Array
    mean_BCHW: Array
    effect_BCHW: Array


class Engine(Protocol):
    """A trained model that answers; `civae_core.counterfactual` says what each function computes."""

    @property
    def name(self) -> str:
        """`torch` or `onnx`, and where it computes."""

    @property
    def roles(self) -> AttributeRoles: ...

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """How a photograph is brought to the model: crop, size, channels."""

    @property
    def subjects(self) -> Sequence[Sequence[float]]:
        """Treatments and covariates of some training subjects, for sampling; in the order of `roles.inputs`."""

    @property
    def latent(self) -> int:
        """Z."""

    @property
    def calibration(self) -> Calibration:
        """How the outputs of `guess` are to be read."""

    @property
    def familiarity(self) -> Familiarity | None:
        """How well held-out images are reconstructed, None if nobody knows."""

    def guess(self, y_BCHW: Array) -> Array | None:
        """The attribute predictor's outputs [B,A]; None of a model without one."""

    def abduct(self, y_BCHW: Array, x_BX: Array, t_BT: Array) -> Abducted:
        """Both noises of (M5), at the posterior's mean, under the factual treatment."""

    def predict(self, abducted: Abducted, t_new_BT: Array, *, noise: float, strength: float) -> Predicted:
        """The images under the treatment t' (M6), by the inference that belongs to the model's objective."""

    def draw(self, x_BX: Array, t_BT: Array, noise_BZ: Array, own_BT: Array | None = None) -> Array:
        """Decoder means [B,C,S,S] of z ~ p(z|x,t), given standard normal noise (`civae_core.draws`).

        Args:
            own_BT: the treatments under which the noise is the subjects'; None where t is their own. Under another
                t they stay who they are.
        """
