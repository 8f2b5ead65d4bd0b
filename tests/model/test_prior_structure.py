"""How the prior joins x and t: freely, additively, or with an interaction of rank 2."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from civae_core.model import DiagonalNormal, IntactVAE
from civae_core.model.prior import RANK, JoinedParts

MakeModel = Callable[..., IntactVAE]


def table(model: IntactVAE) -> Tensor:
    """h and log k of 5 kinds of people by 4 doses: [5, 4, 2Z]."""
    generator = torch.Generator().manual_seed(0)
    x_5X = torch.stack(
        [torch.tensor([0.0, 1, 0, 1, 0]), 40 + 10 * torch.randn(5, generator=generator)], dim=1
    )
    doses = torch.tensor([0.0, 0.3, 1.0, 1.7])
    priors = [model.prior_of(x_5X, torch.full((5, 1), float(dose))) for dose in doses]
    return torch.stack([torch.cat([p.mean_BZ, p.log_std_BZ], dim=1) for p in priors], dim=1).detach()


def interaction(table_XTP: Tensor) -> Tensor:
    """What is left of a table once its row means and column means are taken out."""
    return (
        table_XTP
        - table_XTP.mean(dim=0, keepdim=True)
        - table_XTP.mean(dim=1, keepdim=True)
        + table_XTP.mean(dim=(0, 1), keepdim=True)
    )


def test_additive_parts_have_no_interaction_and_free_ones_have(make_model: MakeModel) -> None:
    additive = table(make_model(perturbed=True, prior_structure="additive"))
    assert interaction(additive).abs().max() < 1e-6
    assert additive.std(dim=0).min() > 1e-3, "x matters"
    assert additive.std(dim=1).min() > 1e-3, "t matters"
    assert interaction(table(make_model(perturbed=True))).abs().max() > 1e-3


def test_a_low_rank_interaction_has_that_rank(make_model: MakeModel) -> None:
    left_XTP = interaction(table(make_model(perturbed=True, prior_structure="low_rank")))
    singular = torch.linalg.svdvals(left_XTP.flatten(1).double())
    assert singular[RANK - 1] > 1e-3
    assert singular[RANK] < 1e-3 * singular[RANK - 1]


@pytest.mark.parametrize("structure", ["additive", "low_rank"])
def test_every_structure_starts_at_the_standard_normal_and_all_of_it_learns(
    make_model: MakeModel, structure: str
) -> None:
    model = make_model(prior_structure=structure)
    x, t = torch.tensor([[0.0, 30.0], [1.0, 50.0], [1.0, 20.0]]), torch.tensor([[0.0], [1.0], [0.0]])
    start = model.prior_of(x, t)
    assert not start.mean_BZ.any()
    assert not start.log_std_BZ.any()
    before = {name: p.detach().clone() for name, p in model.prior.named_parameters()}
    optimizer = torch.optim.SGD(model.prior.parameters(), lr=0.1)
    target = DiagonalNormal(torch.randn(3, 4), torch.zeros(3, 4))
    for _ in range(3):
        optimizer.zero_grad()
        target.kl(model.prior_of(x, t)).mean().backward()
        optimizer.step()
    still = [name for name, p in model.prior.named_parameters() if torch.equal(before[name], p)]
    assert still == []


def test_an_empty_cell_gets_the_effect_of_the_cells_that_were_seen(make_model: MakeModel) -> None:
    """Three of four cells are fitted; in the fourth, an additive prior gives the sum of the two effects."""
    torch.manual_seed(0)
    model = make_model(prior_structure="additive")
    x = torch.tensor([[0.0, 40.0], [0.0, 40.0], [1.0, 40.0], [1.0, 40.0]])
    t = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    means = torch.tensor([[0.0], [1.0], [2.0], [3.0]]).expand(4, 4)
    optimizer = torch.optim.Adam(model.prior.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        (model.prior_of(x[:3], t[:3]).mean_BZ - means[:3]).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(model.prior_of(x, t).mean_BZ.detach(), means, atol=0.05, rtol=0)


def test_with_nothing_to_join_the_network_is_the_free_one(make_model: MakeModel) -> None:
    for prior in ("x", "standard"):
        model = make_model(prior=prior, prior_structure="additive")
        assert not isinstance(model.prior.layers, JoinedParts)
