"""The functions of a model that are exported, as torch modules from tensors to tensors.

Whole functions are exported, not only networks. (M5) and (M6) with their masks are therefore computed by the code of
`civae_core.counterfactual` alone, which is traced; there is no second implementation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from civae_core.config.schema import Objective
from civae_core.counterfactual import PREDICTIONS, Abduction, abduct
from civae_core.draws import decode_prior
from civae_core.engine.card import OWN
from civae_core.model import DiagonalNormal, IntactVAE, PixelNormal
from civae_core.model.detail import DetailedDecoder

ABDUCTED = ("prior_mean", "prior_log_std", "eta", "z", "reconstruction", "log_sigma", "residual")
"""Outputs of `abduct` and inputs of `predict`, in this order."""

STRUCTURE = ("structure",)
"""A further one, for decoders that paint fine detail on top of it."""

SINGLE = ("noise", "strength")
"""Inputs that are one number for the whole batch, τ and the factor of the effect; others have a row per image."""


class Function(nn.Module):
    """A function of the model and of tensors, wrapped as a module that holds the model.

    Args:
        inputs, outputs: names of the tensors, in order.
    """

    def __init__(
        self,
        model: IntactVAE,
        function: Callable[..., tuple[Tensor, ...]],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.model, self.function = model, function
        self.inputs, self.outputs = inputs, outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = self.function(self.model, *tensors)
        # A tensor returned as two outputs, such as the zeros of N(0,I), would get only one name in the graph.
        return tuple(o.clone() if any(o is other for other in found[:i]) else o for i, o in enumerate(found))


@dataclass(frozen=True)
class _Predict:
    """(M6), by the inference that belongs to an objective."""

    objective: Objective

    def __call__(
        self,
        model: IntactVAE,
        y_BCHW: Tensor,
        x_BX: Tensor,
        t_BT: Tensor,
        prior_mean_BZ: Tensor,
        prior_log_std_BZ: Tensor,
        eta_BZ: Tensor,
        z_BZ: Tensor,
        reconstruction_BCHW: Tensor,
        log_sigma: Tensor,
        residual_BCHW: Tensor,
        t_new_BT: Tensor,
        noise: Tensor,
        strength: Tensor,
        structure_BCHW: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        coarse = None if structure_BCHW is None else PixelNormal(structure_BCHW, log_sigma)
        abduction = Abduction(
            y_BCHW=y_BCHW,
            x_BX=x_BX,
            t_BT=t_BT,
            prior=DiagonalNormal(prior_mean_BZ, prior_log_std_BZ),
            eta_BZ=eta_BZ,
            z_BZ=z_BZ,
            reconstruction=PixelNormal(reconstruction_BCHW, log_sigma, coarse),
            residual_BCHW=residual_BCHW,
        )
        found = PREDICTIONS[self.objective](model, abduction, t_new_BT, noise=noise, strength=strength)
        return found.image_BCHW, found.mean_BCHW, found.effect_BCHW


def functions_of(model: IntactVAE, objective: Objective) -> dict[str, Function]:
    """All functions that answering needs, then the networks on their own for other programs.

        abduct     y, x, t → the noises of (M5) and what they rest on
        predict    y, x, t, the outputs of abduct, t_new, noise, strength → image, mean, effect (M6)
        draw       x, t, noise_z → image, the decoder's mean for a draw from the prior; if noises are paired, it also
                   takes t_own, the treatments under which the noise was drawn
        predictor  y → outputs [B,A]; absent if the model has no predictor
        encoder    y, x, t → mean, log_std of q(z|x,y,t) (M3), each scale given the means of the coarser ones
        decoder    z, t, x → mean, log_sigma of p(y|z,t,x) (M2)
        prior      x, t → mean, log_std of p(z|x,t) (M1); with several scales it also takes z, and each scale is
                   given the coarser ones of z

    Args:
        model: the model, in evaluation mode.
        objective: selects the inference of `predict`.
    """
    factual = ("y", "x", "t")
    detail = STRUCTURE if isinstance(model.decoder, DetailedDecoder) else ()
    made = {
        "abduct": Function(model, _abduct, factual, (*ABDUCTED, *detail)),
        "predict": Function(
            model,
            _Predict(objective),
            (*factual, *ABDUCTED, "t_new", *SINGLE, *detail),
            ("image", "mean", "effect"),
        ),
        "draw": Function(
            model, _draw, ("x", "t", "noise_z", *([OWN] if model.pairing is not None else [])), ("image",)
        ),
        "encoder": Function(model, _encode, factual, ("mean", "log_std")),
        "decoder": Function(model, _decode, ("z", "t", "x"), ("mean", "log_sigma")),
        "prior": Function(
            model, _prior, ("x", "t", "z") if model.scaled else ("x", "t"), ("mean", "log_std")
        ),
    }
    if model.predictor is not None:
        made["predictor"] = Function(model, _guess, ("y",), ("outputs",))
    return made


def _abduct(model: IntactVAE, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> tuple[Tensor, ...]:
    found = abduct(model, y_BCHW, x_BX, t_BT)
    likelihood = _with_rows(found.reconstruction)
    return (
        found.prior.mean_BZ,
        found.prior.log_std_BZ,
        found.eta_BZ,
        found.z_BZ,
        likelihood.mean_BCHW,
        likelihood.log_sigma,
        found.residual_BCHW,
        *([likelihood.structure_BCHW] if likelihood.coarse is not None else []),
    )


def _draw(
    model: IntactVAE, x_BX: Tensor, t_BT: Tensor, noise_BZ: Tensor, own_BT: Tensor | None = None
) -> tuple[Tensor, ...]:
    return (decode_prior(model, x_BX, t_BT, noise_BZ, own_BT),)


def _encode(model: IntactVAE, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> tuple[Tensor, ...]:
    posterior, _ = model.encode(y_BCHW, x_BX, t_BT).central()
    return posterior.mean_BZ, posterior.log_std_BZ


def _decode(model: IntactVAE, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> tuple[Tensor, ...]:
    likelihood = _with_rows(model.decode(z_BZ, t_BT, x_BX))
    return likelihood.mean_BCHW, likelihood.log_sigma


def _prior(model: IntactVAE, x_BX: Tensor, t_BT: Tensor, z_BZ: Tensor | None = None) -> tuple[Tensor, ...]:
    normal = model.prior_of(x_BX, t_BT)
    prior = normal.central()[0] if z_BZ is None else normal.at(z_BZ)
    return prior.mean_BZ, prior.log_std_BZ


def _guess(model: IntactVAE, y_BCHW: Tensor) -> tuple[Tensor, ...]:
    assert model.predictor is not None
    return (model.predictor(y_BCHW),)


def _with_rows(likelihood: PixelNormal) -> PixelNormal:
    """Expand log σ to one row per image, because a graph's output must not be one of its constants."""
    mean_BCHW = likelihood.mean_BCHW
    sizes = likelihood.log_sigma.shape[-3:]
    return replace(likelihood, log_sigma=likelihood.log_sigma.expand(mean_BCHW.shape[0], *sizes))
