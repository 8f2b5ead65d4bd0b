"""The figures of an evaluation's report: sweeps, mean effects, what the latents hold, overlap and calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.balance.diagnostics import EXTREME
from civae_core.counterfactual import PREDICTIONS, abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread
from civae_core.evaluation.average_effects import FROM_PRIOR, average_effects, decode_prior, effect_groups
from civae_core.evaluation.calibration import calibration
from civae_core.evaluation.latents import ArmPosteriors, divergence, posterior_kl, posteriors_by_arm, traverse
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question, do_text
from civae_core.figures.calibration import reliability_plot
from civae_core.figures.effects import effect_grid
from civae_core.figures.grids import image_grid
from civae_core.figures.overlap import propensity_histogram
from civae_core.figures.pictures import Picture
from civae_core.figures.ridges import Arm, RidgePanel, ridge_plot
from civae_core.figures.strips import sweep_sheet
from civae_core.randomness import generator_for

SWEEP_SUBJECTS, SWEEP_DOSES = 4, 7
_BEYOND = {"binary": 0.5, "continuous": 0.15}
"""How far a sweep leaves the range seen in training, as a share of it."""
EFFECT_IMAGES, EFFECT_COVARIATES = 512, 3
RIDGE_SUBJECTS, RIDGES = 2, 8
TRAVERSED, TRAVERSAL = 6, 7
PRIOR_DRAWS = 3


def illustrate(
    methods: Sequence[TrainedModel],
    data: PreparedData,
    question: Question,
    overlap: Mapping[str, Any],
    device: torch.device,
    seed: int,
) -> list[Picture]:
    """All figures that models and data support, in the order of a report; the first method is the one in question.

    Args:
        overlap: overlap reports by treatment.
    """
    first = methods[0]
    few = _subset(question, SWEEP_SUBJECTS)
    return [
        *propensity_figures(overlap),
        *(sweep_figure(first, data, few, place, device) for place in range(len(_treatments(first)))),
        *mean_effect_figures(methods, data, _subset(question, EFFECT_IMAGES), device, seed),
        ridge_figure(first, data, _subset(question, RIDGE_SUBJECTS), device),
        traversal_figure(first, data, question, device),
        prior_figure(first, question, device, seed),
        *calibration_figures(first, data, question, device),
    ]


def propensity_figures(overlap: Mapping[str, Any]) -> list[Picture]:
    """A histogram of the propensity by arm for each binary treatment."""
    return [
        Picture(
            f"propensity_{name}",
            f"Who has which {name}?",
            f"Training images by how probable {name} = 1 was for their subject, judged by the covariates. "
            "Where only one of the two sides has bars, there is nobody to compare with, and the answer "
            "rests on the model alone.",
            propensity_histogram(report, EXTREME),
        )
        for name, report in overlap.items()
        if report.get("histogram")
    ]


def doses(attribute: Attribute, count: int = SWEEP_DOSES) -> list[float]:
    """Values of a treatment from below to above the range seen in training, evenly spaced."""
    reach = _BEYOND[attribute.kind] * (attribute.high - attribute.low)
    values: list[float] = torch.linspace(
        attribute.low - reach, attribute.high + reach, count, dtype=torch.float64
    ).tolist()
    return values


def sweep_figure(
    method: TrainedModel, data: PreparedData, question: Question, place: int, device: torch.device
) -> Picture:
    """Each subject of the question at several doses of one treatment, at τ = 1."""
    attribute = _treatments(method)[place]
    values = doses(attribute)
    images_SKCHW = sweep_images(method, data, question, place, values, device)
    old = question.chosen.t_NT[:, place].tolist()
    return Picture(
        f"sweep_{attribute.name}",
        f"Doses of {attribute.name}",
        f"Held-out subjects as they would look under other values of {attribute.name}, by {method.name} "
        "(noise τ = 1). Framed values lie outside of what training saw: there the model extrapolates.",
        sweep_sheet(
            images_SKCHW,
            [f"{value:.3g}" for value in values],
            [not attribute.in_range(value) for value in values],
            [f"is {value:.3g}" for value in old],
        ),
    )


def sweep_images(
    method: TrainedModel,
    data: PreparedData,
    question: Question,
    place: int,
    values: Sequence[float],
    device: torch.device,
) -> Tensor:
    """Counterfactuals [S,K,C,H,W] of S subjects with treatment `place` at K values, the other treatments factual."""
    asked = question.batch(data, slice(None), device)
    abduction = abduct(method.stored.model, asked.y_BCHW, asked.x_BX, asked.t_BT)
    predict = PREDICTIONS[method.stored.card.config.objective]
    images = []
    for value in values:
        t_new_BT = asked.t_BT.clone()
        t_new_BT[:, place] = value
        images.append(predict(method.stored.model, abduction, t_new_BT).image_BCHW.clamp(0, 1))
    return torch.stack(images, dim=1).cpu()


def mean_effect_figures(
    methods: Sequence[TrainedModel], data: PreparedData, question: Question, device: torch.device, seed: int
) -> list[Picture]:
    """Mean effect images of everyone (ATE) and by covariate (CATE); none where nobody is changed."""
    groups = effect_groups(question, methods[0].stored.card.roles.covariates, EFFECT_COVARIATES)
    if not groups[0].count:
        return []
    columns = average_effects(methods, data, question, groups, device, seed)
    names = ", ".join(question.do)
    return [
        Picture(
            "mean_effects",
            f"What raising {names} does on average",
            f"Mean change of the picture when {names} is raised, over everyone and within groups of "
            "subjects, under one scale of colours. A column of a method should look like the truth, if "
            f"that is shown. '{FROM_PRIOR}' needs no photograph: the subjects are drawn from the model's "
            "prior. Estimated under the model's assumptions.",
            effect_grid(list(columns.items()), [f"{g.label}\n{g.count} images" for g in groups]),
        )
    ]


def ridge_figure(
    method: TrainedModel, data: PreparedData, question: Question, device: torch.device
) -> Picture:
    """Posteriors of subjects under the factual and the intended dose, each from its own image."""
    asked = question.batch(data, slice(None), device)
    factual, intended = posteriors_by_arm(method, asked)
    apart_Z = divergence(factual.posterior, intended.posterior).mean(dim=0)
    shown = apart_Z.argsort(descending=True)[:RIDGES].tolist()
    known = question.truth is not None
    other = "the true counterfactual" if known else "the model's counterfactual"
    panels = []
    for s in range(len(question.chosen)):
        arms = [
            _arm(method, factual, s, "the photograph"),
            _arm(method, intended, s, other),
        ]
        lower, higher = arms if float(asked.direction_B[s]) >= 0 else arms[::-1]
        panels.append(RidgePanel(f"subject {s + 1}", lower, higher))
    return Picture(
        "ridges",
        "One subject's latent code under both doses",
        f"The posteriors of the {len(shown)} latent dimensions that differ most between the two doses. The "
        f"encoder is given each dose's own image ({other} for the dose that was not observed) and its own "
        "treatment. Dotted: the prior at that dose. Where the filled curves lie on each other, the code "
        "has nothing to do with the treatment.",
        ridge_plot(
            panels, shown, [f"{float(apart_Z[d]):.{0 if apart_Z[d] >= 10 else 1}f} nats" for d in shown]
        ),
    )


def traversal_figure(
    method: TrainedModel, data: PreparedData, question: Question, device: torch.device
) -> Picture:
    """What the dimensions that carry most information paint, one after the other, for one subject."""
    model = method.stored.model
    chosen = question.chosen[evenly_spread(len(question.chosen), EFFECT_IMAGES)]
    kl_Z = posterior_kl(model, data, chosen, device)
    shown = kl_Z.argsort(descending=True)[:TRAVERSED].tolist()
    asked = question.batch(data, slice(0, 1), device)
    abduction = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT)
    values_K = torch.linspace(-3.0, 3.0, TRAVERSAL)
    rows = torch.stack([traverse(model, abduction, d, values_K).clamp(0, 1).cpu() for d in shown])
    columns = [(f"η = {value:+g}", rows[:, k]) for k, value in enumerate(values_K.tolist())]
    return Picture(
        "traversals",
        "What the latent dimensions hold",
        "One subject with a single latent dimension moved from −3 to +3 standard deviations of the prior "
        f"(noise τ = 0). Shown are the {len(shown)} dimensions that carry most information about the "
        "photographs, in nats.",
        image_grid(columns, [f"z{d}\n{float(kl_Z[d]):.2f} nats" for d in shown]),
    )


def prior_figure(method: TrainedModel, question: Question, device: torch.device, seed: int) -> Picture:
    """Subjects drawn from the prior under both values of the treatment and of the first binary covariate."""
    model, roles = method.stored.model, method.stored.card.roles
    treatment = next((a for a in roles.treatments if a.name in question.do), roles.treatments[0])
    covariate = next((a for a in roles.covariates if a.kind == "binary"), None)
    eta_BZ = torch.randn(PRIOR_DRAWS, model.latent, generator=generator_for(seed, "prior-figure")).to(device)
    x_X = question.chosen.x_NX.median(dim=0).values if roles.covariates else torch.zeros(0)
    t_T = question.chosen.t_NT.median(dim=0).values
    columns = []
    for x in (None,) if covariate is None else (0.0, 1.0):
        for t in (treatment.low, treatment.high):
            x_BX, t_BT = x_X.repeat(PRIOR_DRAWS, 1), t_T.repeat(PRIOR_DRAWS, 1)
            t_BT[:, roles.treatments.index(treatment)] = t
            title = f"{treatment.name} {t:.3g}"
            if covariate is not None and x is not None:
                x_BX[:, roles.covariates.index(covariate)] = x
                title = f"{covariate.name} {x:g}, {title}"
            columns.append(
                (title, decode_prior(model, x_BX.to(device), t_BT.to(device), eta_BZ).clamp(0, 1).cpu())
            )
    return Picture(
        "prior",
        "Subjects from the prior",
        "People that never were, drawn from the model's prior. Each row keeps its latent noise; columns "
        "set the attributes that their titles name, all others are those of a median subject.",
        image_grid(columns, [f"draw {n + 1}" for n in range(PRIOR_DRAWS)]),
    )


def calibration_figures(
    method: TrainedModel, data: PreparedData, question: Question, device: torch.device
) -> list[Picture]:
    """Reliability of the model's attribute predictor; none without one."""
    found = calibration(method.stored.model, method.stored.card.roles.inputs, data, question.chosen, device)
    if not found:
        return []
    return [
        Picture(
            "calibration",
            "Does the attribute predictor mean its probabilities?",
            "For photographs without labels the model fills in attributes. Dots on the diagonal mean that "
            "an attribute which is predicted with, say, 70 % is there in 70 % of such photographs. Larger "
            "dots stand for more images.",
            reliability_plot(found),
        )
    ]


def _treatments(method: TrainedModel) -> tuple[Attribute, ...]:
    return method.stored.card.roles.treatments


def _subset(question: Question, count: int) -> Question:
    items = evenly_spread(len(question.chosen), count)
    truth = None
    if question.truth is not None:
        truth = type(question.truth)(question.truth.truth, question.truth.places_N[items])
    return Question(question.chosen[items], question.t_new_NT[items], question.do, truth)


def _arm(method: TrainedModel, arm: ArmPosteriors, s: int, origin: str) -> Arm:
    doses_text = do_text(
        {a.name: value for a, value in zip(_treatments(method), arm.t_BT[s].tolist(), strict=True)}
    )
    return Arm(
        label=doses_text.replace("=", " = "),
        origin=origin,
        image_CHW=arm.image_BCHW[s].cpu(),
        mean_Z=arm.posterior.mean_BZ[s].cpu(),
        std_Z=arm.posterior.std_BZ[s].cpu(),
        prior_mean_Z=arm.prior.mean_BZ[s].cpu(),
        prior_std_Z=arm.prior.std_BZ[s].cpu(),
    )
