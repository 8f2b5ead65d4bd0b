"""Penalties that ask about another treatment: which one, what is predicted there, and where each of them is zero."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from civae_core.attributes import Attribute
from civae_core.counterfactual import abduct, predict
from civae_core.model import DiagonalNormal, IntactVAE
from civae_core.noise_mask import latent_mask
from civae_core.penalties.arm_balance import arm_balance
from civae_core.penalties.arms import Counterfactual, counterfactual_of, other_arm
from civae_core.penalties.guidance import guidance
from civae_core.penalties.reencode import reencode
from civae_core.penalties.surprise import Surprise

YOUNG, MALE = Attribute("Young", "binary"), Attribute("Male", "binary")
AGE = Attribute("Age", "continuous", low=0.0, high=100.0, mean=40.0, std=10.0)
MakeModel = Callable[..., IntactVAE]
Photos = Callable[..., tuple[Tensor, Tensor, Tensor]]


def test_one_binary_treatment_flips() -> None:
    t = torch.tensor([[0.0], [1.0], [1.0]])
    new, asked = other_arm(t, [YOUNG])
    assert torch.equal(new, 1 - t)
    assert asked.all()


def test_of_several_each_changes_alone_and_then_all_together() -> None:
    t = torch.tensor([[0.0, 20.0], [1.0, 30.0], [1.0, 40.0], [0.0, 50.0]])
    new, asked = other_arm(t, [YOUNG, AGE])
    assert new.tolist() == [[1.0, 20.0], [1.0, 20.0], [0.0, 30.0], [1.0, 50.0]]
    assert asked.tolist() == [[True, False], [False, True], [True, True], [True, False]]


def made_by(model: IntactVAE, y: Tensor, x: Tensor, t: Tensor, noise: Tensor) -> Counterfactual:
    output = model(y, x, t, noise)
    return counterfactual_of(model, x, *other_arm(t, [YOUNG]), output.posterior, output.prior, noise)


@pytest.mark.parametrize("pairing", ["none", "contours"])
@pytest.mark.parametrize(("prior", "width"), [("xt", None), ("xt", 0.1), ("x", 0.1), ("standard", None)])
def test_the_counterfactual_is_that_of_inference_while_noises_are_unpaired(
    make_model: MakeModel, photos: Photos, prior: str, width: float | None, pairing: str
) -> None:
    masks = {"latent_mask_width": width, "looks_mask_width": None}
    model, (y, x, t) = make_model(perturbed=True, prior=prior, **masks, pairing=pairing), photos()
    if model.pairing is not None:
        model.pairing.forget()
    noise = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    made = made_by(model, y, x, t, noise)
    expected = predict(model, abduct(model, y, x, t, noise), 1 - t, noise=0.0)
    torch.testing.assert_close(made.mean_BCHW, expected.mean_BCHW)
    new, likeliest = model.prior_of(x, 1 - t), abduct(model, y, x, t)
    kept = latent_mask(likeliest.prior, new, width)
    assert bool(kept.min() < 0.9) == (prior == "xt" and width is not None)
    torch.testing.assert_close(made.latent.mean_BZ, new.sample(kept * likeliest.eta_BZ))
    # Its variance is that of many draws whose noise is carried whole.
    draws, generator = [], torch.Generator().manual_seed(1)
    many_y, many_x, many_t = (part.repeat(100, *[1] * (part.ndim - 1)) for part in (y, x, t))
    for _ in range(10):
        noise_BZ = torch.randn(400, 4, generator=generator)
        draws.append(abduct(model, many_y, many_x, many_t, noise_BZ).eta_BZ.unflatten(0, (100, 4)))
    spread = torch.cat(draws).std(dim=0)
    torch.testing.assert_close(made.latent.std_BZ, new.std_BZ * spread, rtol=0.15, atol=1e-4)


def test_arm_balance_is_both_divergences_and_zero_where_the_prior_knows_no_t(
    make_model: MakeModel, photos: Photos
) -> None:
    _, x, t = photos()
    model = make_model(perturbed=True, prior="xt")
    here, there = model.prior_of(x, t), model.prior_of(x, 1 - t)
    p, q = Normal(here.mean_BZ, here.std_BZ), Normal(there.mean_BZ, there.std_BZ)
    expected = (kl_divergence(p, q) + kl_divergence(q, p)).sum(dim=1) / 2
    torch.testing.assert_close(arm_balance(here, there), expected)
    assert expected.min() > 0
    balanced = make_model(perturbed=True, prior="x")
    assert torch.equal(arm_balance(balanced.prior_of(x, t), balanced.prior_of(x, 1 - t)), torch.zeros(4))


def test_arm_balance_steps_bring_the_arms_together_and_leave_x(make_model: MakeModel, photos: Photos) -> None:
    _, x, t = photos(12)
    model = make_model(perturbed=True, prior="xt", decoder="direct")

    def apart(one: DiagonalNormal, other: DiagonalNormal) -> float:
        return (one.mean_BZ - other.mean_BZ).norm().item()

    def now() -> tuple[float, float]:
        here = model.prior_of(x, t)
        shuffled = model.prior_of(x.roll(1, 0), t)
        return apart(here, model.prior_of(x, 1 - t)), apart(here, shuffled)

    (arms_before, people_before), optimizer = now(), torch.optim.Adam(model.prior.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        arm_balance(model.prior_of(x, t), model.prior_of(x, 1 - t)).mean().backward()
        optimizer.step()
    arms_after, people_after = now()
    assert arms_after < 0.2 * arms_before
    assert people_after / people_before > 2 * arms_after / arms_before


class Reads:
    """An encoder that returns a given posterior for any image."""

    def __init__(self, posterior: DiagonalNormal) -> None:
        self.posterior, self.seen_t = posterior, torch.empty(0)

    def encode(self, y: Tensor, x: Tensor, t: Tensor) -> DiagonalNormal:
        self.seen_t = t
        return self.posterior


def test_reencode_is_zero_at_a_perfect_reader_who_is_told_the_new_treatment(
    make_model: MakeModel, photos: Photos
) -> None:
    model, (y, x, t) = make_model(perturbed=True), photos()
    made = made_by(model, y, x, t, torch.zeros(4, 4))
    perfect = Reads(made.latent)
    torch.testing.assert_close(reencode(cast(IntactVAE, perfect), x, made), torch.zeros(4))
    assert torch.equal(perfect.seen_t, 1 - t)
    moved = DiagonalNormal(made.latent.mean_BZ + made.latent.std_BZ, made.latent.log_std_BZ)
    torch.testing.assert_close(
        reencode(cast(IntactVAE, Reads(moved)), x, made),
        torch.full((4,), 4 / 2),
        msg="½ per latent dimension",
    )


def test_reencode_steps_make_the_encoder_read_its_own_counterfactuals(
    make_model: MakeModel, photos: Photos
) -> None:
    model, (y, x, t) = make_model(perturbed=True), photos()
    optimizer, found = torch.optim.Adam(model.encoder.parameters(), lr=2e-3), []
    for _ in range(15):
        optimizer.zero_grad()
        nats = reencode(model, x, made_by(model, y, x, t, torch.zeros(4, 4))).mean()
        nats.backward()
        optimizer.step()
        found.append(nats.item())
    assert 0 < found[-1] < 0.5 * found[0]


INPUTS = Surprise([YOUNG, MALE, AGE])


class Pixels(nn.Module):
    """A predictor whose outputs are an image's first pixels, times a weight of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, y_BCHW: Tensor) -> Tensor:
        return self.weight * y_BCHW.flatten(1)[:, :3]


def guided(photo: list[float], made: Tensor, young: float, asked: bool = True) -> Tensor:
    """Guidance of one counterfactual predicted to be `made`; the photo is predicted and labelled to be `photo`."""
    t, x = torch.tensor([[young]]), torch.tensor([[float(photo[1] > 0), 40 + 10 * photo[2]]])
    image_BCHW = made.reshape(1, 1, 1, 3)
    latent = DiagonalNormal(torch.zeros(1, 1), torch.zeros(1, 1))
    counterfactual = Counterfactual(
        1 - t if asked else t, torch.tensor([[asked]]), latent, latent.mean_BZ, image_BCHW
    )
    return guidance(Pixels(), counterfactual, torch.tensor([photo]), t, x, INPUTS)


def test_guidance_is_zero_where_t_is_as_plain_as_usual_and_x_reads_as_before() -> None:
    assert guided([-2.0, 1.3, 0.4], torch.tensor([2.0, 1.3, 0.4]), 0.0).item() == pytest.approx(0, abs=1e-6)
    assert guided([2.0, -1.3, 0.4], torch.tensor([-2.0, -1.3, 0.4]), 1.0).item() == pytest.approx(0, abs=1e-6)


def test_guidance_asks_for_t_up_to_the_usual_and_no_further() -> None:
    for logit, wanted in ((-2.0, True), (1.0, True), (2.1, False), (9.0, False)):
        made = torch.tensor([logit, 1.3, 0.4], requires_grad=True)
        guided([-2.0, 1.3, 0.4], made, 0.0).backward()
        assert made.grad is not None
        assert (made.grad[0].item() < 0) == wanted, "a step down the gradient raises the logit of t' = 1"
    nats = guided([-2.0, 1.3, 0.4], torch.tensor([-2.0, 1.3, 0.4]), 0.0).item()
    assert nats == pytest.approx(2.0, rel=1e-5), "softplus(2) − softplus(−2)"


def test_guidance_holds_what_was_not_asked_for_to_its_own_reading() -> None:
    made = torch.tensor([2.0, 0.3, 1.4], requires_grad=True)
    value = guided([-2.0, 1.3, 0.4], made, 0.0)
    p, q = torch.sigmoid(torch.tensor(1.3)), torch.sigmoid(torch.tensor(0.3))
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert value.item() == pytest.approx(kl.item() + 0.5, rel=1e-5)
    value.backward()
    assert made.grad is not None
    assert made.grad[1] < 0 < made.grad[2]
    # A treatment that was not asked to change is held too.
    assert guided([-2.0, 1.3, 0.4], torch.tensor([2.0, 1.3, 0.4]), 0.0, asked=False).item() > 1


def test_guidance_teaches_the_predictor_nothing() -> None:
    predictor, t = Pixels(), torch.tensor([[0.0]])
    image = torch.zeros(1, 1, 1, 3, requires_grad=True)
    latent = DiagonalNormal(torch.zeros(1, 1), torch.zeros(1, 1))
    made = Counterfactual(1 - t, torch.tensor([[True]]), latent, latent.mean_BZ, image)
    photo = predictor(torch.tensor([-2.0, 1.3, 0.4]).reshape(1, 1, 1, 3))
    value = guidance(predictor, made, photo, t, torch.tensor([[1.0, 44.0]]), INPUTS)
    value.sum().backward()
    assert image.grad is not None
    assert predictor.weight.grad is None
