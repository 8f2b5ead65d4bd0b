"""The figures of an evaluation's report: sweeps, mean effects, latent dimensions, overlap and calibration."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import Attribute, answered_beyond
from civae_core.balance.diagnostics import EXTREME
from civae_core.counterfactual import PREDICTIONS, abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread
from civae_core.draws import decode_prior
from civae_core.evaluation.average_effects import FROM_PRIOR, average_effects, effect_groups
from civae_core.evaluation.calibration import calibration
from civae_core.evaluation.latents import ArmPosteriors, divergence, posterior_kl, posteriors_by_arm, traverse
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question
from civae_core.figures.calibration import FEWEST, reliability_plot
from civae_core.figures.effects import effect_grid
from civae_core.figures.grids import image_grid
from civae_core.figures.overlap import propensity_histogram
from civae_core.figures.pictures import Picture, at_most
from civae_core.figures.ridges import Arm, RidgePanel, ridge_plot
from civae_core.figures.strips import sweep_sheet
from civae_core.randomness import generator_for

SWEEP_SUBJECTS = 4
_BEYOND = {"binary": 0.5, "continuous": 0.15}
"""How far a sweep goes beyond the range seen in training, as a share of that range."""
EFFECT_IMAGES, EFFECT_COVARIATES = 512, 5
RIDGE_SUBJECTS, RIDGES = 2, 8
TRAVERSED, TRAVERSAL = 6, 7
PRIOR_DRAWS = 4
_LARGEST = 128
"""Largest side of an image in a sheet, in pixels; larger ones are reduced, because a page holds hundreds of them."""


def illustrate(
    methods: Sequence[TrainedModel],
    data: PreparedData,
    question: Question,
    overlap: Mapping[str, Any],
    device: torch.device,
    seed: int,
) -> list[Picture]:
    """All figures that models and data support, in the order of the report; the first method is the one in question.

    Args:
        overlap: overlap reports by treatment.
    """
    first = methods[0]
    return [
        *propensity_figures(overlap),
        *(sweep_figure(first, data, question, place, device) for place in range(len(_treatments(first)))),
        *mean_effect_figures(methods, data, question.subset(EFFECT_IMAGES), device, seed),
        *ridge_figures(first, data, question, device),
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


def doses(attribute: Attribute) -> list[float]:
    """Seven values of a treatment: five evenly spaced over the range seen in training, and one beyond each end."""
    reach = _BEYOND[attribute.kind] * (attribute.high - attribute.low)
    inside: list[float] = torch.linspace(attribute.low, attribute.high, 5, dtype=torch.float64).tolist()
    return [attribute.low - reach, *inside, attribute.high + reach]


def sweep_figure(
    method: TrainedModel, data: PreparedData, question: Question, place: int, device: torch.device
) -> Picture:
    """Some subjects of both arms beside their counterfactuals at several doses of one treatment, at τ = 1."""
    attribute = _treatments(method)[place]
    values = doses(attribute)
    everyone = question.everyone
    few = everyone[of_both_arms(everyone.t_NT[:, place], attribute, SWEEP_SUBJECTS)]
    counterfactual_SKCHW = sweep_images(method, data, few, place, values, device)
    photograph_SCHW, _, _ = few.read(data, torch.device("cpu"))
    images_SKCHW = torch.cat([photograph_SCHW[:, None], counterfactual_SKCHW], dim=1)
    outside = (
        "extrapolates; what lies between 0 and 1 is interpolated"
        if attribute.kind == "binary"
        else "answers as at the nearest dose that it saw"
    )
    return Picture(
        f"sweep_{attribute.name}",
        f"Doses of {attribute.name}",
        f"Held-out photographs, and how their subjects would look under other values of {attribute.name}, by "
        f"{method.name} (noise τ = 1: at a subject's own value the photograph comes back). Framed values lie "
        f"outside of what training saw: there the model {outside}.",
        sweep_sheet(
            _shown(images_SKCHW),
            ["photograph", *(f"{attribute.name} = {value:.3g}" for value in values)],
            [False, *(not attribute.in_range(value) for value in values)],
            [f"{attribute.name}\n= {value:.3g}" for value in few.t_NT[:, place].tolist()],
            beyond=answered_beyond([attribute.name], [attribute]),
        ),
    )


def of_both_arms(t_N: Tensor, attribute: Attribute, count: int) -> Tensor:
    """Indices of at most `count` subjects, alternately below and above the middle of the treatment's range.

    If one half has too few, the other makes up for it.
    """
    middle = (attribute.low + attribute.high) / 2
    low, high = (t_N < middle).nonzero()[:, 0], (t_N >= middle).nonzero()[:, 0]
    of_low = min(len(low), max(count - count // 2, count - len(high)))
    of_high = min(len(high), count - of_low)
    picked_low, picked_high = low[evenly_spread(len(low), of_low)], high[evenly_spread(len(high), of_high)]
    in_turn = [half[k] for k in range(count) for half in (picked_low, picked_high) if k < len(half)]
    return torch.stack(in_turn)


def sweep_images(
    method: TrainedModel,
    data: PreparedData,
    chosen: LabelledRows,
    place: int,
    values: Sequence[float],
    device: torch.device,
) -> Tensor:
    """Counterfactuals [S,K,C,H,W] of S subjects at K values of treatment `place`, with other treatments factual."""
    y_BCHW, x_BX, t_BT = chosen.read(data, device)
    abduction = abduct(method.stored.model, y_BCHW, x_BX, t_BT)
    predict = PREDICTIONS[method.stored.card.config.objective]
    images = []
    for value in values:
        t_new_BT = t_BT.clone()
        t_new_BT[:, place] = value
        images.append(predict(method.stored.model, abduction, t_new_BT).image_BCHW.clamp(0, 1))
    return torch.stack(images, dim=1).cpu()


def mean_effect_figures(
    methods: Sequence[TrainedModel], data: PreparedData, question: Question, device: torch.device, seed: int
) -> list[Picture]:
    """Mean effect images over everyone (ATE) and by covariate (CATE); none if nobody's treatment changes."""
    groups = effect_groups(question, methods[0].stored.card.roles.covariates, EFFECT_COVARIATES)
    if not groups[0].count:
        return []
    columns = average_effects(methods, data, question, groups, device, seed)
    first, names = methods[0].name, ", ".join(question.do)
    titles = {FROM_PRIOR: f"{first}, {FROM_PRIOR}"}
    return [
        Picture(
            "mean_effects",
            f"What raising {names} does on average",
            f"Mean change of the picture when {names} is raised, over everyone and within groups of "
            "subjects, under one scale of colours, in shares of the way from black to white. A column of a "
            f"method should look like the truth, if that is shown. '{FROM_PRIOR}' needs no photograph: the "
            f"subjects are drawn from the prior of {first}. Estimated under the models' assumptions.",
            effect_grid(
                [(titles.get(name, name), at_most(effect, _LARGEST)) for name, effect in columns.items()],
                [f"{g.label}\n{g.count:,} images" for g in groups],
            ),
        )
    ]


def ridge_figures(
    method: TrainedModel, data: PreparedData, question: Question, device: torch.device
) -> list[Picture]:
    """Posteriors of one subject per arm under both doses, each from its own image; none if no dose changes."""
    moved = (question.t_new_NT != question.chosen.t_NT).any(dim=1).nonzero()[:, 0]
    if not len(moved):
        return []
    place = int((question.t_new_NT != question.chosen.t_NT).any(dim=0).int().argmax())
    old_M = question.chosen.t_NT[moved, place]
    items = moved[of_both_arms(old_M, _treatments(method)[place], RIDGE_SUBJECTS)]
    asked = question.batch(data, items, device)
    factual, intended = posteriors_by_arm(method, asked)
    apart_Z = divergence(factual.posterior, intended.posterior).mean(dim=0)
    shown = apart_Z.argsort(descending=True)[:RIDGES].tolist()
    other = "the true counterfactual" if question.truth is not None else "the model's counterfactual"
    panels = []
    for s in range(len(items)):
        named = [k for k in range(asked.t_BT.shape[1]) if asked.t_BT[s, k] != asked.t_new_BT[s, k]]
        arms = [
            _arm(method, factual, s, named, "the photograph"),
            _arm(method, intended, s, named, other),
        ]
        lower, higher = arms if float(asked.direction_B[s]) >= 0 else arms[::-1]
        panels.append(RidgePanel(f"subject {s + 1}", lower, higher))
    return [
        Picture(
            "ridges",
            "One subject's latent code under both doses",
            f"What {method.name} believes about the {len(shown)} latent dimensions that differ most between the "
            f"two doses, after seeing each dose's own image ({other} for the dose that was not observed) with "
            "its own treatment. Dotted: what it expects of such a subject before seeing an image, its prior at "
            "that dose. Only place and width count, for all curves are drawn equally high. Under each name: "
            "how far the two beliefs are apart (mean of both KL divergences). Where the filled curves lie on "
            "each other, that part of the code has nothing to do with the treatment.",
            ridge_plot(panels, shown, [f"{float(apart_Z[d]):.3g} nats" for d in shown]),
        )
    ]


def traversal_figure(
    method: TrainedModel, data: PreparedData, question: Question, device: torch.device
) -> Picture:
    """How the most informative latent dimensions, one at a time, change the image of one subject."""
    model = method.stored.model
    chosen = question.everyone[evenly_spread(len(question.everyone), EFFECT_IMAGES)]
    kl_Z = posterior_kl(model, data, chosen, device)
    shown = kl_Z.argsort(descending=True)[:TRAVERSED].tolist()
    asked = question.batch(data, slice(0, 1), device)
    abduction = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT)
    values_K = torch.linspace(-3.0, 3.0, TRAVERSAL)
    rows_DKCHW = torch.stack([traverse(model, abduction, d, values_K).cpu() for d in shown])
    own_DCHW = abduction.reconstruction.mean_BCHW.cpu().expand(len(shown), -1, -1, -1)
    columns = [("reconstruction", own_DCHW)]
    columns += [
        (f"η = {value:+g}" if value else "η = 0", rows_DKCHW[:, k])
        for k, value in enumerate(values_K.tolist())
    ]
    labels = [f"z{d}\n{float(kl_Z[d]):.2f} nats\nη = {float(abduction.eta_BZ[0, d]):+.1f}" for d in shown]
    return Picture(
        "traversals",
        "What the latent dimensions hold",
        "One subject with a single latent dimension moved from −3 to +3 standard deviations of the prior, and all "
        "others as they are (noise τ = 0). Along a row only what that dimension holds should change. Shown are "
        f"the {len(shown)} dimensions that carry most information about the photographs, in nats; η at the left "
        "is the subject's own value.",
        image_grid([(title, _shown(images)) for title, images in columns], labels, _scale(data.size)),
    )


def prior_figure(method: TrainedModel, question: Question, device: torch.device, seed: int) -> Picture:
    """Images from the prior over values of the treatment and of a second attribute, one subject per row."""
    roles = method.stored.card.roles
    treatment = next((a for a in roles.treatments if a.name in question.do), roles.treatments[0])
    second = [a for a in roles.covariates if a.kind == "binary"] or [
        a for a in roles.treatments if a != treatment
    ]
    columns = prior_images(method, question, [treatment, *second[:1]], device, seed)
    return Picture(
        "prior",
        "Subjects from the prior",
        f"People who never existed, drawn from the prior of {method.name}. Each row keeps its latent noise, "
        "turned as counterfactuals turn it, and a held-out subject's attributes but for those that the columns set. "
        "From left to right only what these attributes bring about should change.",
        image_grid(
            [(title, _shown(images)) for title, images in columns],
            [f"draw {n + 1}" for n in range(len(columns[0][1]))],
            _scale(method.stored.model.size),
        ),
    )


def prior_images(
    method: TrainedModel,
    question: Question,
    attributes: Sequence[Attribute],
    device: torch.device,
    seed: int,
) -> list[tuple[str, Tensor]]:
    """Titles and decoder means [N,C,S,S] for each combination of one or two attributes, the first varying slowest.

    A row is one subject throughout, whose noise is drawn under the held-out subject's own treatment.

    Args:
        attributes: inputs of the model; shown are both values of a binary one, and low, middle and high of others.
    """
    model, inputs = method.stored.model, method.stored.card.roles.inputs
    few = question.everyone[evenly_spread(len(question.everyone), PRIOR_DRAWS)]
    generator = generator_for(seed, "prior-figure")
    eta_BZ = torch.randn(len(few), model.latent, generator=generator).to(device)
    columns = []
    for values in itertools.product(*(_levels(a) for a in attributes)):
        a_BA = torch.cat([few.t_NT, few.x_NX], dim=1)
        for attribute, value in zip(attributes, values, strict=True):
            a_BA[:, inputs.index(attribute)] = value
        t_BT, x_BX = a_BA.to(device).tensor_split([few.t_NT.shape[1]], dim=1)
        title = "\n".join(f"{a.name} = {v:.3g}" for a, v in zip(attributes, values, strict=True))
        columns.append((title, decode_prior(model, x_BX, t_BT, eta_BZ, few.t_NT.to(device)).cpu()))
    return columns


def calibration_figures(
    method: TrainedModel, data: PreparedData, question: Question, device: torch.device
) -> list[Picture]:
    """Reliability of the model's attribute predictor; none if it has no predictor."""
    card = method.stored.card
    found = calibration(
        method.stored.model, card.roles.inputs, data, question.everyone, device, card.calibration
    )
    if not found:
        return []
    return [
        Picture(
            "calibration",
            "Does the attribute predictor mean its probabilities?",
            "For photographs without labels the model fills in attributes. Dots on the dashed diagonal mean that "
            "an attribute which is predicted with, say, 70 % is there in 70 % of such photographs; below it, the "
            "model claims too much. Bars are 95 % intervals; the numbers at the bottom count images, and "
            f"bins of fewer than {FEWEST} are grey. ECE, the expected calibration error, is the mean distance "
            "from the diagonal.",
            reliability_plot(found),
        )
    ]


def _treatments(method: TrainedModel) -> tuple[Attribute, ...]:
    return method.stored.card.roles.treatments


def _levels(attribute: Attribute) -> tuple[float, ...]:
    low, high = attribute.low, attribute.high
    return (0.0, 1.0) if attribute.kind == "binary" else (low, (low + high) / 2, high)


def _shown(images: Tensor) -> Tensor:
    """Images [..., C, H, W] as a sheet shows them: clamped to [0, 1] and not too large."""
    flat_NCHW = at_most(images.flatten(0, -4).clamp(0, 1), _LARGEST)
    return flat_NCHW.unflatten(0, images.shape[:-3])


def _scale(size: int) -> int:
    """Magnification for sheets of many columns: the smallest that makes a cell about a ninth of the page."""
    return max(1, -(-90 // size))


def _arm(method: TrainedModel, arm: ArmPosteriors, s: int, named: Sequence[int], origin: str) -> Arm:
    """Subject `s` of an arm; its label names the treatments with indices `named`."""
    return Arm(
        label=", ".join(f"{_treatments(method)[k].name} = {float(arm.t_BT[s, k]):.3g}" for k in named),
        origin=origin,
        image_CHW=arm.image_BCHW[s].cpu(),
        mean_Z=arm.posterior.mean_BZ[s].cpu(),
        std_Z=arm.posterior.std_BZ[s].cpu(),
        prior_mean_Z=arm.prior.mean_BZ[s].cpu(),
        prior_std_Z=arm.prior.std_BZ[s].cpu(),
    )
