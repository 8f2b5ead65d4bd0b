"""What holds of every input, not only of those that somebody thought of: distances, schedules, orders of images."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from civae_core.assignments import Intervention
from civae_core.attributes import AttributeRoles
from civae_core.counterfactual import abduct, act, predict
from civae_core.data import PreparedData
from civae_core.data.batches import TrainingBatches
from civae_core.data.order import ShuffledOrder
from civae_core.evaluation.metrics import ms_ssim, psnr, ssim
from civae_core.model import IntactVAE
from civae_core.model.distributions import LOG_STD_MAX, LOG_STD_MIN, DiagonalNormal
from civae_core.training.schedules import beta, ema_decay, learning_rate

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(0, 10**12)


def normals(seed: int, spread: float, latent: int = 5) -> DiagonalNormal:
    generator = torch.Generator().manual_seed(seed)
    parameters_BP = spread * torch.randn(4, 2 * latent, generator=generator, dtype=torch.float64)
    mean_BZ, raw_BZ = parameters_BP.chunk(2, dim=1)
    return DiagonalNormal(mean_BZ, raw_BZ.clamp(LOG_STD_MIN, LOG_STD_MAX))


def images(seed: int, kind: str, size: int = 24) -> Tensor:
    """Three images in [0,1]: noise, nearly flat, flat, or only black and white."""
    noise_NCHW = torch.rand(
        3, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    match kind:
        case "faint":
            return 0.5 + 1e-4 * (noise_NCHW - 0.5)
        case "flat":
            return noise_NCHW[:, :, :1, :1].expand_as(noise_NCHW).contiguous()
        case "extreme":
            return noise_NCHW.round()
    return noise_NCHW


kinds = st.sampled_from(["noise", "faint", "flat", "extreme"])


@given(seed=seeds, other=seeds, spread=st.floats(0, 50, allow_subnormal=False))
def test_the_kl_is_not_negative_and_zero_only_of_a_distribution_from_itself(
    seed: int, other: int, spread: float
) -> None:
    p, q = normals(seed, spread), normals(other, spread)
    assert (p.kl_by_dimension(q) >= -1e-9).all()
    assert p.kl(p).abs().max() < 1e-9
    reference_BZ = torch.distributions.kl_divergence(
        torch.distributions.Normal(p.mean_BZ, p.std_BZ), torch.distributions.Normal(q.mean_BZ, q.std_BZ)
    )
    torch.testing.assert_close(p.kl(q), reference_BZ.sum(1), rtol=1e-6, atol=1e-6)


@given(seed=seeds, spread=st.floats(0, 20, allow_subnormal=False))
def test_the_noise_that_is_abducted_draws_the_same_latent_again(seed: int, spread: float) -> None:
    normal = normals(seed, spread)
    z_BZ = normal.sample(
        torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    torch.testing.assert_close(normal.sample(normal.standardise(z_BZ)), z_BZ)


@given(seed=seeds, other=seeds, kind=kinds, other_kind=kinds)
def test_ssim_is_symmetric_at_most_one_and_one_of_equal_images(
    seed: int, other: int, kind: str, other_kind: str
) -> None:
    a_NCHW, b_NCHW = images(seed, kind), images(other, other_kind)
    for measure in (ssim, ms_ssim):
        there_N, back_N = measure(a_NCHW, b_NCHW), measure(b_NCHW, a_NCHW)
        torch.testing.assert_close(there_N, back_N)
        assert (there_N <= 1 + 1e-9).all() and (there_N >= -1 - 1e-9).all()
        torch.testing.assert_close(measure(a_NCHW, a_NCHW), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(psnr(a_NCHW, b_NCHW), psnr(b_NCHW, a_NCHW))


@pytest.fixture(scope="module")
def models() -> dict[str, IntactVAE]:
    return {}


@given(
    prior=st.sampled_from(["xt", "x", "standard"]),
    sigma=st.sampled_from(["scalar", "pixel"]),
    decoder=st.sampled_from(["direct", "layered"]),
    strength=st.floats(0, 3, allow_subnormal=False),
    seed=st.integers(0, 100),
)
def test_a_null_intervention_returns_the_photo_whatever_the_model(
    models: dict[str, IntactVAE],
    make_model: Callable[..., IntactVAE],
    photos: Callable[..., tuple[Tensor, Tensor, Tensor]],
    roles: AttributeRoles,
    prior: str,
    sigma: str,
    decoder: str,
    strength: float,
    seed: int,
) -> None:
    key = f"{prior} {sigma} {decoder}"
    if key not in models:
        models[key] = make_model(prior=prior, sigma=sigma, decoder=decoder, perturbed=True)
    y_BCHW, x_BX, t_BT = photos(seed=seed)
    flip: Intervention = {"Young": "flip"}
    with torch.no_grad():
        abduction = abduct(models[key], y_BCHW, x_BX, t_BT)
        there_BT = act(t_BT, flip, roles.treatments)
        assert (there_BT != t_BT).all()
        t_new_BT = act(there_BT, flip, roles.treatments)
        same = predict(models[key], abduction, t_new_BT, noise=1.0, strength=strength)
        torch.testing.assert_close(same.image_BCHW, y_BCHW, rtol=0, atol=2e-5)
        plain = predict(models[key], abduction, t_new_BT, noise=0.0, strength=strength)
        torch.testing.assert_close(plain.image_BCHW, abduction.reconstruction.mean_BCHW, rtol=0, atol=2e-5)


# Schedules.


@given(
    images=counts,
    peak=st.floats(1e-8, 1e3, allow_subnormal=False),
    warmup=counts,
    total=st.integers(1, 10**12),
    decay=st.sampled_from(["cosine", "none"]),
)
def test_the_learning_rate_stays_between_zero_and_its_peak(
    images: int, peak: float, warmup: int, total: int, decay: str
) -> None:
    rate = learning_rate(images, peak=peak, warmup=warmup, total=total, decay=decay)  # type: ignore[arg-type]
    assert 0 <= rate <= peak
    if decay == "cosine":
        assert rate > 0 or images >= total * 0.999
        assert learning_rate(total + images, peak=peak, warmup=warmup, total=total, decay="cosine") == 0
    else:
        later = learning_rate(images + 1, peak=peak, warmup=warmup, total=total, decay="none")
        assert rate <= later


@given(images=counts, final=st.floats(0, 1e6, allow_subnormal=False), warmup=counts)
def test_beta_rises_to_its_final_value_and_no_further(images: int, final: float, warmup: int) -> None:
    value = beta(images, final=final, warmup=warmup)
    assert 0 <= value <= beta(images + 1, final=final, warmup=warmup) <= final
    assert beta(warmup, final=final, warmup=warmup) == final


@given(images=counts, halflife=st.floats(0, 1e12, allow_subnormal=False), batch=st.integers(1, 2**20))
def test_a_moving_average_keeps_a_share(images: int, halflife: float, batch: int) -> None:
    share = ema_decay(images, halflife=halflife, batch_size=batch)
    assert 0 <= share < 1 or (share == 1 and batch / halflife < 1e-15)
    assert math.isclose(share, 0.5 ** (batch / halflife)) if halflife and images > 20.1 * halflife else True


# The order of images.


@given(
    count=st.integers(1, 50),
    seed=st.integers(0, 2**63 - 1),
    start=st.integers(0, 500),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=5),
)
def test_every_epoch_is_a_permutation_however_it_is_cut(
    count: int, seed: int, start: int, cuts: list[int]
) -> None:
    order = ShuffledOrder(count, seed)
    whole = ShuffledOrder(count, seed).items(start, sum(cuts)).tolist()
    position, found = start, []
    for length in cuts:
        found += order.items(position, length).tolist()
        position += length
    assert found == whole
    first = -(-start // count) * count
    epoch = ShuffledOrder(count, seed).items(first, count).tolist()
    assert sorted(epoch) == list(range(count))


@given(
    world_size=st.integers(1, 9),
    batch_size=st.integers(1, 24),
    step=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_processes_share_out_each_batch_and_see_every_image_once_an_epoch(
    faces: PreparedData, world_size: int, batch_size: int, step: int, seed: int
) -> None:
    """Whatever the number of processes, together they take the batch that one alone would take."""
    count = 20
    index_N1 = torch.arange(count)[:, None].float()

    def batches(rank: int, world_size: int) -> TrainingBatches:
        return TrainingBatches(
            faces, torch.arange(count), index_N1, -index_N1, torch.ones(count), batch_size=batch_size, latent=3,
            flip=True, cache="mmap", seed=seed, device=torch.device("cpu"), rank=rank, world_size=world_size,
        )  # fmt: skip

    alone = batches(0, 1).at(step * batch_size)
    shares = [batches(rank, world_size).at(step * batch_size) for rank in range(world_size)]
    for name in ("y_BCHW", "x_BX", "t_BT", "weights_B", "noise_BZ"):
        together = torch.empty_like(getattr(alone, name))
        for rank, share in enumerate(shares):
            together[rank::world_size] = getattr(share, name)
        assert torch.equal(together, getattr(alone, name)), name
    taken = [batches(0, 1).at(n * batch_size).x_BX.flatten().tolist() for n in range(count)]
    epochs = [item for batch in taken for item in batch][: batch_size * count]
    for epoch in range(batch_size):
        assert sorted(epochs[epoch * count : (epoch + 1) * count]) == list(range(count))
