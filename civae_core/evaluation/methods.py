"""The methods that are compared: a trained model with its own inference, copying the input, and the truth itself."""

import torch
from torch import Tensor

from civae_core.counterfactual import PREDICTIONS, abduct
from civae_core.evaluation.asked import Answer, Asked
from civae_core.model.stored import StoredModel


class CopyInput:
    """Returns the input: the baseline that every method must beat."""

    name = "copy"

    def answer(self, asked: Asked) -> Answer:
        return Answer(asked.y_BCHW, asked.y_BCHW, asked.y_BCHW)


class TrueCounterfactual:
    """Returns the truth: shows how the instruments judge a faultless answer, which no method need surpass."""

    name = "truth"

    def answer(self, asked: Asked) -> Answer:
        if asked.truth_BCHW is None:
            raise ValueError("the truth of these images is not known")
        return Answer(asked.truth_BCHW, asked.truth_BCHW, asked.y_BCHW)


class TrainedModel:
    """A trained run: answers at the posterior mean by (M5) and (M6), or by the original project's inference."""

    def __init__(self, name: str, stored: StoredModel, group: str | None = None) -> None:
        """`group` is the name shared by runs that differ only in their seed; by default it is `name`."""
        self.name = name
        self.stored = stored
        self.group = group or name

    @torch.no_grad()
    def answer(self, asked: Asked) -> Answer:
        model = self.stored.model
        abduction = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT)
        result = PREDICTIONS[self.stored.card.config.objective](model, abduction, asked.t_new_BT)
        return Answer(result.image_BCHW, result.mean_BCHW, abduction.reconstruction.mean_BCHW)

    @torch.no_grad()
    def reconstruct(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> Tensor:
        """f(z,t) at the posterior mean (τ = 0), [B,C,S,S]."""
        return abduct(self.stored.model, y_BCHW, x_BX, t_BT).reconstruction.mean_BCHW

    @torch.no_grad()
    def negative_elbo(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor, noise_BZ: Tensor) -> Tensor:
        """−ELBO (M4 at β = 1) in nats per image [B], with one draw from the posterior."""
        model = self.stored.model
        posterior, z_BZ = model.encode(y_BCHW, x_BX, t_BT).draw(noise_BZ)
        nll_B = model.decode(z_BZ, t_BT, x_BX).negative_log_likelihood(y_BCHW)
        return nll_B + posterior.kl(model.prior_of(x_BX, t_BT).at(z_BZ))
