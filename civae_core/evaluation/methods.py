"""What is compared: a trained model with its own inference, copying the input, and the truth itself."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from civae_core.counterfactual import PREDICTIONS, abduct
from civae_core.errors import UsageError
from civae_core.evaluation.asked import Answer, Asked
from civae_core.model.stored import StoredModel


class CopyInput:
    """Returns the input: what every method must beat."""

    name = "copy"

    def answer(self, asked: Asked) -> Answer:
        return Answer(asked.y_BCHW, asked.y_BCHW, asked.y_BCHW)


class TrueCounterfactual:
    """Returns the truth: what the instruments say of a faultless answer, which no method need surpass."""

    name = "truth"

    def answer(self, asked: Asked) -> Answer:
        if asked.truth_BCHW is None:
            raise ValueError("the truth of these images is not known")
        return Answer(asked.truth_BCHW, asked.truth_BCHW, asked.y_BCHW)


class TrainedModel:
    """A run: its posterior's mean, and (M5), (M6) or the original project's inference."""

    def __init__(self, name: str, stored: StoredModel) -> None:
        self.name = name
        self.stored = stored

    @torch.no_grad()
    def answer(self, asked: Asked) -> Answer:
        model = self.stored.model
        abduction = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT)
        result = PREDICTIONS[self.stored.card.config.objective](model, abduction, asked.t_new_BT)
        return Answer(result.image_BCHW, result.mean_BCHW, abduction.reconstruction.mean_BCHW)

    @torch.no_grad()
    def reconstruct(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> Tensor:
        """f(z,t) at the posterior's mean (τ = 0), [B,C,S,S]."""
        return abduct(self.stored.model, y_BCHW, x_BX, t_BT).reconstruction.mean_BCHW

    @torch.no_grad()
    def negative_elbo(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor, noise_BZ: Tensor) -> Tensor:
        """−ELBO (M4 at β = 1) in nats per image [B], at one draw from the posterior."""
        model = self.stored.model
        posterior = model.encode(y_BCHW, x_BX, t_BT)
        nll_B = model.decode(posterior.sample(noise_BZ), t_BT, x_BX).negative_log_likelihood(y_BCHW)
        return nll_B + posterior.kl(model.prior_of(x_BX, t_BT))


MEANINGS = {
    "copy": "the input returned unchanged",
    "cvae": "the same network with the prior N(0, I)",
    "original": "the original project's objective and inference",
    "ours": "learned prior, latent and pixel noise abducted",
    "truth": "the true counterfactual itself: what the instruments say of a faultless answer",
}
"""Methods in the order of tables; others stand before the truth."""


def ordered(methods: Iterable[str]) -> list[str]:
    """Method names: the baselines first, the truth last."""
    names = list(methods)
    others = [name for name in names if name not in MEANINGS]
    known = [name for name in MEANINGS if name in names]
    return [*(n for n in known if n != "truth"), *others, *(n for n in known if n == "truth")]


OBJECTIVE_NAMES = {"intact": "ours", "cvae": "cvae", "original": "original"}


def name_methods(models: Sequence[StoredModel]) -> list[TrainedModel]:
    """Models under the names of their objectives; runs with equal objectives are told apart by their folders.

    Raises:
        UsageError: a model was trained for other roles or another image format than the first one.
    """
    wanted = _question_of(models[0])
    named: dict[str, StoredModel] = {}
    for stored in models:
        for what, value in _question_of(stored).items():
            if value != wanted[what]:
                raise UsageError(
                    f"{stored.path}: its {what} is {value}, but {wanted[what]} in {models[0].path}",
                    hint="compare models trained for the same question",
                )
        objective = OBJECTIVE_NAMES[stored.card.config.objective]
        name = objective if objective not in named else f"{objective} ({_folder_name(stored)})"
        named[name if name not in named else f"{objective} ({stored.path})"] = stored
    return [TrainedModel(name, stored) for name, stored in named.items()]


def _question_of(stored: StoredModel) -> dict[str, str]:
    """What two models must share to be compared, in words."""
    roles, form = stored.card.roles, stored.card.preprocessing
    return {
        "treatment": ", ".join(a.name for a in roles.treatments),
        "list of covariates": ", ".join(a.name for a in roles.covariates) or "empty",
        "image format": f"{form['channels']}×{form['size']}×{form['size']}",
    }


def _folder_name(stored: StoredModel) -> str:
    parts = [part for part in stored.path.parent.parts if part not in ("checkpoints", "last", "best")]
    return parts[-1] if parts else str(stored.path)
