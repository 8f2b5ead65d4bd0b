"""Does more of a treatment do more? A model's response to a sweep of doses, compared with the truth's (METHOD 6).

Suppose that the data knows the same subjects under several doses of one treatment. Among those within the range of
training, u = y*(highest) − y*(lowest) is the direction in which the treatment moves a subject's image. The response
to a dose d is how far it moves the model's image along u,

    r(d) = ⟨y'(d) − y'(lowest), u⟩ / ‖u‖²

so the truth goes from 0 at the lowest of those doses to 1 at the highest. The sweep continues beyond the range of
training, where a model should neither turn back nor leave the range of possible colours.

Doing nothing is monotone in every dose. To give it no credit, a response counts as monotone only if it also rises in
the truth's direction by at least a tenth of the truth's effect.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread
from civae_core.evaluation.asked import Asked, Method
from civae_core.evaluation.bootstrap import bootstrap_mean, bootstrap_ratio, share_interval
from civae_core.evaluation.question import KnownTruth, direction, find_rows
from civae_core.progress import progress
from civae_core.yardstick import Yardstick

BATCH = 64
MOST_IMAGES = 256
"""Kept small, because a sweep takes about ten counterfactuals of each image."""
BEYOND = (-0.5, -0.25, 1.25, 1.5)
"""Doses outside the range of training, as positions relative to it (0 is its low end, 1 its high end)."""
SLACK = 0.03
"""How far a response may fall between two doses and still count as monotone, in units of the truth's whole effect.

For one in a hundred of the built-in faces, even the truth falls further: u points from the lowest dose to the
highest, and the path between two doses may bend away from it."""
SLACK_BEYOND = 0.1
"""The same where a dose lies beyond the range of training. There u no longer points along the whole change: for
example, a hairline that recedes further takes grey hair with it."""
LEAST_RISE = 0.1
"""How far a response must rise in all to count as monotone, in the same units."""
SMALLEST_EFFECT = 10 / 255
"""Pixel values that the truth changes by less than this in all say nothing about order."""
STEP_SLACK = 2 / 255
"""How far a pixel value may move back between two doses: about the rounding error of two images."""


@dataclass(frozen=True)
class KnownDoses:
    """Subjects whose true images the data knows at several doses of one treatment."""

    treatment: Attribute
    place: int
    """Index of the treatment among the model's treatments."""
    doses: tuple[float, ...]
    """Ascending; at least two of them lie within the range of training."""
    truths: tuple[KnownTruth, ...]
    """For each dose, the image of every chosen row."""
    chosen: LabelledRows

    @property
    def inside(self) -> list[int]:
        """Indices of the doses that lie within the range of training."""
        return [number for number, dose in enumerate(self.doses) if self.treatment.in_range(dose)]

    @property
    def sweep(self) -> tuple[float, ...]:
        """The known doses and some beyond the range of training, ascending."""
        low, high = self.treatment.low, self.treatment.high
        beyond = (low + position * (high - low) for position in BEYOND)
        return tuple(sorted({*self.doses, *beyond}))


def known_doses(
    data: PreparedData, roles: AttributeRoles, chosen: LabelledRows, limit: int = MOST_IMAGES
) -> list[KnownDoses]:
    """The known doses of each treatment with two or more in the range of training, on the rows that have them all."""
    found = []
    for place, treatment in enumerate(roles.treatments):
        truths = {
            float(value): truth
            for truth in data.truth
            for value in [truth.do.get(treatment.name)]
            if len(truth.do) == 1 and isinstance(value, float | int)
        }
        doses = sorted(truths)
        if sum(treatment.in_range(dose) for dose in doses) < 2:
            continue
        places = [find_rows(truths[dose].rows, chosen.rows_N) for dose in doses]
        items = (torch.stack(places) >= 0).all(dim=0).nonzero()[:, 0]
        if not len(items):
            continue
        items = items[evenly_spread(len(items), limit)]
        known = tuple(KnownTruth(truths[d], p[items]) for d, p in zip(doses, places, strict=True))
        found.append(KnownDoses(treatment, place, tuple(doses), known, chosen[items]))
    return found


def dose_scores(
    method: Method,
    known: KnownDoses,
    data: PreparedData,
    device: torch.device,
    seed: int,
    yardstick: Yardstick | None = None,
) -> dict[str, Any]:
    """Score how a method's images (τ = 1) respond to a sweep of doses.

    - `monotone`: share of subjects whose response never falls from one dose to the next by more than 3 % of the
      truth's whole effect, and rises by at least 10 % of it in all; `true_monotone`: the same share for the truth;
      `monotone_beyond`: `monotone` over the whole sweep, where falls of up to 10 % are allowed beyond the range of
      training;
    - `pixels_in_order`: the corresponding share of pixel values (in each channel), among those that the truth only
      raises or only lowers from dose to dose;
    - `reach`: the response at the highest dose, where the truth's is 1;
    - `response_error`: mean |r(d) − r*(d)| over the doses above the lowest;
    - `finite`: share of subjects whose images are finite at every dose;
    - `curve`, by dose: `response`; `true_response`, where it is known; `in_range`, whether the dose is in the range
      of training; and `clipped`, the share of values outside [0, 1] by more than the rounding of an image;
    - with a scorer that knows a continuous treatment: in the curve `seen`, the mean value that it sees, and
      `seen_truth`, the same for the truth; and `seen_correlation` of value and dose, over subjects and doses.

    Doses are the known ones within the range of training unless stated otherwise. Everything but `true_monotone`,
    `finite`, `clipped`, `in_range` and `seen_correlation` has an interval over subjects. Copying the input scores 0
    in `monotone`, `pixels_in_order` and `reach`. Subjects whose images are not finite count as not monotone and are
    left out of the rest; subjects that the truth does not change are left out altogether.
    """
    gathered: dict[str, list[Tensor]] = {}
    with progress(f"evaluate doses of {known.treatment.name} with {method.name}", len(known.chosen)) as bar:
        for items in torch.arange(len(known.chosen)).split(BATCH):
            for name, values in _batch(method, known, items, data, device, yardstick).items():
                gathered.setdefault(name, []).append(values.cpu())
            bar.advance(len(items))
    return _entry(known, {name: torch.cat(parts) for name, parts in gathered.items()}, seed)


@torch.no_grad()
def _batch(
    method: Method,
    known: KnownDoses,
    items: Tensor,
    data: PreparedData,
    device: torch.device,
    yardstick: Yardstick | None,
) -> dict[str, Tensor]:
    """Values per subject: [n], or [n, D] over the doses of the sweep; for the truth [n, K] over the known doses."""
    chosen, inside = known.chosen[items], known.inside
    if yardstick is not None and not _can_see(yardstick, known.treatment):
        yardstick = None
    y_BCHW, x_BX, t_BT = chosen.read(data, device)
    truth_BKCHW = torch.stack([truth.images(items).to(device) for truth in known.truths], dim=1)
    whole_BN = (truth_BKCHW[:, inside[-1]] - truth_BKCHW[:, inside[0]]).flatten(1).cpu().double()
    size_B = whole_BN.square().sum(1)

    def along(picture_BCHW: Tensor) -> Tensor:
        return (picture_BCHW.flatten(1).cpu().double() * whole_BN).sum(1) / size_B

    pictures, clipped, seen = [], [], []
    for dose in known.sweep:
        t_new_BT = t_BT.clone()
        t_new_BT[:, known.place] = dose
        asked = Asked(chosen.rows_N, y_BCHW, x_BX, t_BT, t_new_BT, direction(t_BT, t_new_BT))
        raw_BCHW = method.answer(asked).with_noise_BCHW
        outside = (raw_BCHW < -0.5 / 255) | (raw_BCHW > 1 + 0.5 / 255)
        clipped.append(outside.flatten(1).cpu().double().mean(1))
        pictures.append(raw_BCHW.clamp(0.0, 1.0))
        if yardstick is not None:
            seen.append(_seen(yardstick, known.treatment, pictures[-1]))
    answers_BDCHW = torch.stack(pictures, dim=1)
    places = [known.sweep.index(known.doses[number]) for number in inside]
    in_order_B, ordered_B = _pixels_in_order(answers_BDCHW[:, places], truth_BKCHW[:, inside])
    found = {
        "size": size_B,
        "finite": answers_BDCHW.flatten(1).isfinite().all(1),
        "response": torch.stack([along(picture) for picture in pictures], dim=1),
        "true_response": torch.stack([along(picture) for picture in truth_BKCHW.unbind(1)], dim=1),
        "in_order": in_order_B,
        "ordered": ordered_B,
        "clipped": torch.stack(clipped, dim=1),
    }
    if yardstick is not None:
        seen_truth = [_seen(yardstick, known.treatment, p) for p in truth_BKCHW.unbind(1)]
        found |= {"seen": torch.stack(seen, dim=1), "seen_truth": torch.stack(seen_truth, dim=1)}
    return found


def _pixels_in_order(answers_BKCHW: Tensor, truth_BKCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Counts [n]: pixel values that follow the truth's order, and all that the truth moves in one direction only."""
    true_steps, steps = truth_BKCHW.diff(dim=1), answers_BKCHW.diff(dim=1)
    whole_BCHW = truth_BKCHW[:, -1] - truth_BKCHW[:, 0]
    way_B1CHW = whole_BCHW.sign()[:, None]
    ordered = (true_steps * way_B1CHW >= 0).all(1) & (whole_BCHW.abs() > SMALLEST_EFFECT)
    never_back = (steps * way_B1CHW >= -STEP_SLACK).all(1)
    moved_BCHW = (answers_BKCHW[:, -1] - answers_BKCHW[:, 0]) * way_B1CHW[:, 0]
    in_order = ordered & never_back & (moved_BCHW >= LEAST_RISE * whole_BCHW.abs())
    return in_order.flatten(1).cpu().double().sum(1), ordered.flatten(1).cpu().double().sum(1)


def _entry(known: KnownDoses, found: dict[str, Tensor], seed: int) -> dict[str, Any]:
    found = {name: values[found["size"] > 0] for name, values in found.items()}
    if not len(found["size"]):
        return {}
    inside = known.inside
    places = [known.sweep.index(known.doses[number]) for number in inside]
    finite_N = found["finite"]
    monotone_N = finite_N & _rises(found["response"][:, places])
    in_range_D = torch.tensor([known.treatment.in_range(dose) for dose in known.sweep])
    slack_S = torch.where(in_range_D[:-1] & in_range_D[1:], SLACK, SLACK_BEYOND)
    beyond_N = monotone_N & _rises(found["response"], slack_S)
    entry: dict[str, Any] = {
        "n": len(finite_N),
        "monotone": share_interval(monotone_N).to_dict(),
        "monotone_beyond": share_interval(beyond_N).to_dict(),
        "true_monotone": float(_rises(found["true_response"][:, inside]).double().mean()),
        "finite": float(finite_N.double().mean()),
    }
    if not finite_N.any():
        return entry
    sound = {name: values[finite_N].double() for name, values in found.items()}
    response_ND = sound["response"] - sound["response"][:, places[0], None]
    true_NK = sound["true_response"] - sound["true_response"][:, inside[0], None]
    if sound["ordered"].sum() > 0:
        in_order = bootstrap_ratio(sound["in_order"], sound["ordered"], seed=seed)
        entry["pixels_in_order"] = in_order.to_dict()
    error_N = (response_ND[:, places] - true_NK[:, inside])[:, 1:].abs().mean(1)
    entry |= {
        "reach": bootstrap_mean(response_ND[:, places[-1]], seed=seed).to_dict(),
        "response_error": bootstrap_mean(error_N, seed=seed).to_dict(),
        "curve": {
            f"{dose:g}": _point(known, dose, place, response_ND, true_NK, sound, seed)
            for place, dose in enumerate(known.sweep)
        },
    }
    if "seen" in sound:
        doses_K = torch.tensor([known.doses[number] for number in inside])
        correlation = _correlation(sound["seen"][:, places], doses_K.double())
        entry |= {} if correlation is None else {"seen_correlation": correlation}
    return entry


def _point(
    known: KnownDoses,
    dose: float,
    place: int,
    response_ND: Tensor,
    true_NK: Tensor,
    sound: dict[str, Tensor],
    seed: int,
) -> dict[str, Any]:
    point: dict[str, Any] = {
        "in_range": known.treatment.in_range(dose),
        "response": bootstrap_mean(response_ND[:, place], seed=seed).to_dict(),
        "clipped": float(sound["clipped"][:, place].mean()),
    }
    if "seen" in sound:
        point["seen"] = bootstrap_mean(sound["seen"][:, place], seed=seed).to_dict()
    if dose in known.doses:
        number = known.doses.index(dose)
        point["true_response"] = bootstrap_mean(true_NK[:, number], seed=seed).to_dict()
        if "seen_truth" in sound:
            point["seen_truth"] = bootstrap_mean(sound["seen_truth"][:, number], seed=seed).to_dict()
    return point


def _rises(response_NK: Tensor, slack: float | Tensor = SLACK) -> Tensor:
    """Bool [N]: the response never falls by more than `slack` from dose to dose, and rises by `LEAST_RISE` in all."""
    never_falls_N = (response_NK.diff(dim=1) >= -slack).all(dim=1)
    return never_falls_N & (response_NK[:, -1] - response_NK[:, 0] >= LEAST_RISE)


def _seen(yardstick: Yardstick, treatment: Attribute, picture_BCHW: Tensor) -> Tensor:
    """The value of a continuous treatment that the scorer sees in each image, in raw units."""
    column = yardstick.index(treatment.name)
    shift, scale = yardstick.attributes[column].shift_and_scale
    return yardstick.read(picture_BCHW).outputs_BA[:, column] * scale + shift


def _can_see(yardstick: Yardstick, treatment: Attribute) -> bool:
    return any(a.name == treatment.name and a.kind == "continuous" for a in yardstick.attributes)


def _correlation(seen_NK: Tensor, doses_K: Tensor) -> float | None:
    pair_2M = torch.stack([seen_NK.flatten(), doses_K.expand_as(seen_NK).flatten()])
    return float(torch.corrcoef(pair_2M)[0, 1]) if float(pair_2M.std(dim=1).min()) > 0.0 else None
