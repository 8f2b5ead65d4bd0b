"""What is compared: the copy, the truth, and inference by objective."""

from collections.abc import Callable

import pytest
import torch

from civae_core.counterfactual import counterfactual
from civae_core.evaluation.asked import Asked
from civae_core.evaluation.methods import CopyInput, TrainedModel, TrueCounterfactual
from civae_core.evaluation.question import direction
from civae_core.model.stored import StoredModel
from civae_core.objective import negative_elbo

MakeStored = Callable[..., StoredModel]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """y_BCHW, x_BX, t_BT and t' of five images."""
    generator = torch.Generator().manual_seed(3)
    y_BCHW = torch.rand(5, 3, 32, 32, generator=generator)
    t_BT = torch.tensor([[0.0], [1.0], [1.0], [0.0], [1.0]])
    return y_BCHW, torch.tensor([[0.0], [1.0], [0.0], [1.0], [1.0]]), t_BT, 1 - t_BT


def asked_of(batch: tuple[torch.Tensor, ...], truth_BCHW: torch.Tensor | None = None) -> Asked:
    y_BCHW, x_BX, t_BT, t_new_BT = batch
    return Asked(torch.arange(5), y_BCHW, x_BX, t_BT, t_new_BT, direction(t_BT, t_new_BT), truth_BCHW)


def test_the_truth_is_returned_only_where_it_is_known(batch: tuple[torch.Tensor, ...]) -> None:
    answer = TrueCounterfactual().answer(asked_of(batch, 1 - batch[0]))
    assert torch.equal(answer.with_noise_BCHW, 1 - batch[0])
    with pytest.raises(ValueError, match="not known"):
        TrueCounterfactual().answer(asked_of(batch))


def test_the_copy_changes_nothing(batch: tuple[torch.Tensor, ...]) -> None:
    answer = CopyInput().answer(asked_of(batch))
    for image_BCHW in (answer.reconstruction_BCHW, answer.with_noise_BCHW, answer.mean_BCHW):
        assert torch.equal(image_BCHW, batch[0])


@pytest.mark.parametrize("objective", ["intact", "cvae", "original"])
def test_each_objective_answers_with_its_own_inference(
    make_stored: MakeStored, batch: tuple[torch.Tensor, ...], objective: str
) -> None:
    stored = make_stored(objective)
    answer = TrainedModel("any", stored).answer(asked_of(batch))
    wanted = counterfactual(stored.model, *batch, objective=objective)
    torch.testing.assert_close(answer.with_noise_BCHW, wanted.image_BCHW)
    torch.testing.assert_close(answer.mean_BCHW, wanted.mean_BCHW)
    same = TrainedModel("any", stored).answer(asked_of((*batch[:3], batch[2])))
    torch.testing.assert_close(same.mean_BCHW, answer.reconstruction_BCHW)


def test_the_bound_is_the_objective_at_beta_1(
    make_stored: MakeStored, batch: tuple[torch.Tensor, ...]
) -> None:
    stored = make_stored()
    noise_BZ = torch.randn(5, stored.model.latent, generator=torch.Generator().manual_seed(0))
    nats_B = TrainedModel("any", stored).negative_elbo(*batch[:3], noise_BZ)
    terms = negative_elbo(batch[0], stored.model(*batch[:3], noise_BZ), beta=1.0)
    assert nats_B.shape == (5,)
    torch.testing.assert_close(nats_B.mean(), terms.loss)
