"""The forward pass of training: the model and the active penalties, in one module to wrap and compile."""

from dataclasses import dataclass

from torch import Tensor, nn

from civae_core.attributes import AttributeRoles
from civae_core.config.schema import LEVERS, LossConfig
from civae_core.model import IntactVAE, ModelOutput
from civae_core.penalties.adversary import Adversary, adversary_terms
from civae_core.penalties.arm_balance import arm_balance
from civae_core.penalties.arms import counterfactual_of, other_arm
from civae_core.penalties.assignment import Assignment, residual
from civae_core.penalties.guidance import guidance
from civae_core.penalties.hsic import conditional_hsic
from civae_core.penalties.reencode import reencode
from civae_core.penalties.surprise import Surprise

PENALTIES = tuple(name for name in LEVERS if name != "free_bits")
"""Keys of the loss section whose value is the weight of a penalty."""


@dataclass(frozen=True)
class PassResult:
    """The model's output, with the active penalties and the critics' own losses, [B] each."""

    output: ModelOutput
    penalties: dict[str, Tensor]
    """By config key: nats per image, not yet multiplied by the key's value or by image weights."""
    own_losses: dict[str, Tensor]
    """What the critics themselves minimise; its gradient reaches nothing else."""
    partly_PA: Tensor | None = None
    """The predictor's outputs on the images that only it learns from, if there are any."""


def penalties_on(loss: LossConfig) -> tuple[str, ...]:
    """Penalties whose weight is above zero."""
    return tuple(name for name in PENALTIES if getattr(loss, name) > 0)


def penalty_metrics(loss: LossConfig) -> tuple[str, ...]:
    """Names of the metrics that a pass adds: penalties, then the critics' own losses."""
    learned = ("assignment_loss",) if loss.adversary or loss.hsic else ()
    return penalties_on(loss) + learned + (("adversary_loss",) if loss.adversary else ())


def make_critics(loss: LossConfig, roles: AttributeRoles, latent: int) -> nn.ModuleDict:
    """Make the networks that the active penalties train for themselves; they are not part of the model."""
    critics = nn.ModuleDict()
    treatments, covariates = len(roles.treatments), len(roles.covariates)
    if loss.adversary or loss.hsic:
        critics["assignment"] = Assignment(treatments, covariates)
    if loss.adversary:
        critics["adversary"] = Adversary(latent, treatments, covariates)
    return critics


class TrainingPass(nn.Module):
    """Model and critics behind one forward; without penalties, it is the model's forward alone."""

    def __init__(
        self, model: IntactVAE, critics: nn.ModuleDict, loss: LossConfig, roles: AttributeRoles
    ) -> None:
        super().__init__()
        self.model, self.critics = model, critics
        self.roles = roles
        self.of_treatments, self.of_inputs = Surprise(roles.treatments), Surprise(roles.inputs)
        self.on = penalties_on(loss)

    def forward(
        self,
        y_BCHW: Tensor,
        x_BX: Tensor,
        t_BT: Tensor,
        noise_BZ: Tensor,
        weights_B: Tensor,
        partly_PCHW: Tensor | None = None,
    ) -> PassResult:
        """Run the pass on images in [0,1] with raw factual attributes, standard normal noise and image weights.

        `partly_PCHW` are images that lack labels; only the attribute predictor sees them.
        """
        output = self.model(y_BCHW, x_BX, t_BT, noise_BZ)
        about_noise, own_losses = self._judge_noise(output, x_BX, t_BT, noise_BZ, weights_B)
        penalties = about_noise | self._ask_other_arm(output, x_BX, t_BT, noise_BZ)
        partly_PA = None
        if partly_PCHW is not None and self.model.predictor is not None:
            partly_PA = self.model.predictor(partly_PCHW)
        return PassResult(output, penalties, own_losses, partly_PA)

    def _judge_noise(
        self, output: ModelOutput, x_BX: Tensor, t_BT: Tensor, noise_BZ: Tensor, weights_B: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Penalties on what the latent noise η tells about t beyond x, and the critics' own losses."""
        if "assignment" not in self.critics:
            return {}, {}
        eta_BZ = output.prior.standardise(output.posterior.sample(noise_BZ))
        standard_BX = self.model.standardise_x(x_BX)
        g_BT = self.critics["assignment"](standard_BX)
        penalties: dict[str, Tensor] = {}
        own_losses = {"assignment_loss": self.of_treatments(g_BT, t_BT).sum(dim=1)}
        if "adversary" in self.on:
            penalties["adversary"], own_losses["adversary_loss"] = adversary_terms(
                self.critics["adversary"], g_BT, eta_BZ, standard_BX, t_BT, self.of_treatments
            )
        if "hsic" in self.on:
            residual_BT = residual(g_BT, t_BT, self.of_treatments)
            penalties["hsic"] = conditional_hsic(eta_BZ, standard_BX, residual_BT, weights_B)
        return penalties, own_losses

    def _ask_other_arm(
        self, output: ModelOutput, x_BX: Tensor, t_BT: Tensor, noise_BZ: Tensor
    ) -> dict[str, Tensor]:
        """Penalties on how consistent the model's predictions for the other arm are."""
        penalties: dict[str, Tensor] = {}
        if not {"arm_balance", "reencode", "guidance"} & set(self.on):
            return penalties
        t_new_BT, asked_BT = other_arm(t_BT, self.roles.treatments)
        if "arm_balance" in self.on:
            elsewhere = self.model.prior_of(x_BX, t_new_BT).at(output.posterior.sample(noise_BZ))
            penalties["arm_balance"] = arm_balance(output.prior, elsewhere)
        if "reencode" not in self.on and "guidance" not in self.on:
            return penalties
        made = counterfactual_of(
            self.model, x_BX, t_new_BT, asked_BT, output.posterior, output.prior, noise_BZ
        )
        if "reencode" in self.on:
            penalties["reencode"] = reencode(self.model, x_BX, made)
        if "guidance" in self.on:
            assert self.model.predictor is not None
            assert output.predicted_BA is not None
            penalties["guidance"] = guidance(
                self.model.predictor, made, output.predicted_BA, t_BT, x_BX, self.of_inputs
            )
        return penalties
