"""One optimiser step: devices, precisions, skipped steps, synchronisations, and what it may not touch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learners import COUNT, LEVERS, MakeLearner, assert_same, batch, state_of, train
from torch import Tensor
from torch import distributed as dist

from civae_core.data.batches import Batch
from civae_core.training import learner as learner_module
from civae_core.training.learner import METRICS


@pytest.mark.parametrize("network", ["residual", "original"])
@pytest.mark.parametrize("objective", ["intact", "cvae", "original"])
def test_steps_lower_the_loss(make_learner: MakeLearner, objective: str, network: str) -> None:
    learner = make_learner(objective=objective, model={"network": network})
    same, losses = batch(), []
    for step in range(25):
        learner.step(same, step * COUNT)
        means, skipped, _ = learner.tally.read()
        learner.tally.restart()
        assert skipped == 0
        losses.append(means["mse"])
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("prior", ["xt", "x"])
def test_a_learned_prior_is_learned(make_learner: MakeLearner, prior: str) -> None:
    learner = make_learner(model={"prior": prior})
    before = {name: p.detach().clone() for name, p in learner.model.prior.named_parameters()}
    train(learner, 5)
    assert all(not torch.equal(before[name], p) for name, p in learner.model.prior.named_parameters())


@pytest.mark.usefixtures("fused_on_meta")
@pytest.mark.parametrize(
    ("objective", "network", "norm", "sigma", "loss"),
    [
        ("intact", "residual", "group", "scalar", {}),
        ("intact", "residual", "batch", "pixel", {}),
        ("intact", "residual", "group", "scalar", LEVERS | {"free_bits": 0.1}),
        ("intact", "original", "group", "pixel", LEVERS | {"free_bits": 0.1}),
        ("original", "residual", "group", "fixed", {}),
        ("original", "residual", "batch", "fixed", {}),
        ("original", "original", "batch", "fixed", {}),
    ],
)
def test_a_whole_step_makes_no_tensor_on_another_device(
    make_learner: MakeLearner, objective: str, network: str, norm: str, sigma: str, loss: dict[str, float]
) -> None:
    model = {"network": network, "norm": norm, "sigma": sigma}
    learner = make_learner("meta", objective=objective, model=model, loss=loss)
    for step in range(2):
        learner.step(batch(step, "meta"), step * COUNT)
    learner.tally.restart()
    tensors = [
        *learner.model.state_dict().values(),
        *learner.average.state_dict().values(),
        *learner.critics.state_dict().values(),
        *(value for value in vars(learner.tally).values() if isinstance(value, Tensor)),
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.usefixtures("fused_on_meta")
def test_the_meta_device_does_catch_a_stray_tensor(make_learner: MakeLearner) -> None:
    stray = replace(batch(device="meta"), weights_B=torch.ones(COUNT))
    with pytest.raises((RuntimeError, NotImplementedError), match="device"):
        make_learner("meta").step(stray, 0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_half_precision_trains_finite_float32_weights(
    make_learner: MakeLearner, precision: str, norm: str
) -> None:
    learner = make_learner(precision=precision, model={"norm": norm})
    before = state_of(learner)
    train(learner, 8)
    after = state_of(learner)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert all(p.dtype == torch.float32 for p in learner.model.parameters())
    assert not torch.equal(before["encoder.looks.stem.weight"], after["encoder.looks.stem.weight"])
    means, skipped, in_a_row = learner.tally.read()
    # fp16's loss scale starts high and finds its place by skipping; after that it must go on.
    assert in_a_row == 0
    assert skipped == 0 or precision == "fp16"
    assert set(means) == set(METRICS)


DETAIL = {"scales": [1, 4, 8], "scale_latents": 2, "decoder": "layered", "pairing": "none"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_weight_below_fine_detail_is_told_its_gradient(
    make_learner: MakeLearner, precision: str
) -> None:
    """The image that grids are read off is decoded first; casts of weights cached there must not lack gradients."""
    learner = make_learner(precision=precision, model=DETAIL)
    noise_BZ = torch.randn(COUNT, learner.config.model.dimensions, generator=torch.Generator().manual_seed(0))
    learner.step(replace(batch(), noise_BZ=noise_BZ), 0)
    learned = learner.optimizer.state
    assert [name for name, p in learner.model.named_parameters() if p not in learned] == []


def test_every_sigma_learns_faster_and_does_not_decay(make_learner: MakeLearner) -> None:
    learner = make_learner(model=DETAIL)
    sigmas = {p for name, p in learner.model.named_parameters() if name.endswith("log_sigma")}
    (group,) = (group for group in learner.optimizer.param_groups if group["lr_factor"] > 1)
    assert set(group["params"]) == sigmas and len(sigmas) == 2 and group["weight_decay"] == 0


def test_the_loss_scale_finds_its_place_and_is_taken_out_of_the_gradient(make_learner: MakeLearner) -> None:
    half, full = make_learner(precision="fp16"), make_learner()
    half.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    for _ in range(20):
        half.step(batch(), 0)
        if half.tally.read()[0]:
            break
    assert half.tally.read()[1] > 0
    assert half.scaler.get_scale() < 2.0**24
    full.step(batch(), 0)
    a, b = half.tally.read()[0], full.tally.read()[0]
    for name in ("loss", "kl", "mse", "grad_norm", "predictor_loss"):
        assert a[name] == pytest.approx(b[name], rel=0.02), name


def poisoned(seed: int = 0) -> Batch:
    made = batch(seed)
    made.y_BCHW[0, 0, 0, 0] = torch.nan
    return made


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_step_with_a_non_finite_gradient_changes_nothing_and_is_counted(
    make_learner: MakeLearner, precision: str, norm: str
) -> None:
    learner = make_learner(precision=precision, model={"norm": norm})
    train(learner, 6)
    before, (_, skipped_before, in_a_row_before) = state_of(learner), learner.tally.read()
    for _ in range(2):
        learner.step(poisoned(), 6 * COUNT)
    assert_same(before, state_of(learner))
    means, skipped, in_a_row = learner.tally.read()
    # A loss scale of fp16 that is still being found may have skipped the step before, too.
    assert (skipped - skipped_before, in_a_row - in_a_row_before) == (2, 2)
    assert all(value - value == 0 for value in means.values())

    train(learner, 2, start=8)
    after = state_of(learner)
    assert not torch.equal(before["encoder.looks.stem.weight"], after["encoder.looks.stem.weight"])
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert all(tensor.isfinite().all() for tensor in learner.average.state_dict().values())
    assert learner.tally.read()[2] == 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_device_whose_optimiser_ignores_the_flag_is_not_asked_to_step(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    assert learner_module.IGNORING_FOUND_INF == ("mps",)
    monkeypatch.setattr(learner_module, "IGNORING_FOUND_INF", ("cpu",))
    learner = make_learner(precision=precision)
    step = learner.optimizer.step

    def step_all_the_same() -> None:
        learner.optimizer.found_inf = None  # type: ignore[attr-defined]
        step()

    monkeypatch.setattr(learner.optimizer, "step", step_all_the_same)
    train(learner, 6)
    before, scale, in_a_row = state_of(learner), learner.scaler.get_scale(), learner.tally.read()[2]
    learner.step(poisoned(), 6 * COUNT)
    assert_same(before, state_of(learner))
    assert learner.tally.read()[2] == in_a_row + 1
    assert precision == "fp32" or learner.scaler.get_scale() < scale
    train(learner, 6, start=7)
    after = state_of(learner)
    assert not torch.equal(before["encoder.looks.stem.weight"], after["encoder.looks.stem.weight"])
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_a_non_finite_predictor_gradient_skips_the_step_too(make_learner: MakeLearner) -> None:
    learner = make_learner()
    train(learner, 2)
    before = state_of(learner)
    assert learner.model.predictor is not None
    hook = learner.model.predictor.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    learner.step(batch(), 2 * COUNT)
    hook.remove()
    assert_same(before, state_of(learner))
    assert learner.tally.read()[1] == 1


def test_the_very_first_step_may_be_bad(make_learner: MakeLearner) -> None:
    learner, untouched = make_learner(), make_learner()
    learner.step(poisoned(), 0)
    assert_same(learner.model.state_dict(), untouched.model.state_dict())
    learner.step(batch(), 0)
    untouched.step(batch(), 0)
    assert_same(state_of(learner), state_of(untouched))


def test_restart_keeps_the_count_of_steps_skipped_in_a_row(make_learner: MakeLearner) -> None:
    learner = make_learner()
    learner.step(poisoned(), 0)
    learner.tally.restart()
    learner.step(poisoned(), 0)
    assert learner.tally.read() == ({}, 1, 2)


@pytest.mark.parametrize("limit", [1e-3, 1e6])
def test_the_predictor_beside_the_model_changes_no_other_weight(
    make_learner: MakeLearner, limit: float
) -> None:
    train_settings = {"grad_clip": limit}
    with_it = make_learner(model={"predictor": True}, train=train_settings)
    without = make_learner(model={"predictor": False}, train=train_settings)
    train(with_it, 5)
    train(without, 5)
    shared = {n: t for n, t in state_of(with_it).items() if not n.startswith("predictor.")}
    assert_same(shared, state_of(without))
    averages = {n: t for n, t in with_it.average.state_dict().items() if not n.startswith("predictor.")}
    assert_same(averages, without.average.state_dict())


def test_two_learners_take_the_same_steps_bit_for_bit(make_learner: MakeLearner) -> None:
    first, second = make_learner(train={"grad_clip": 1e-2}), make_learner(train={"grad_clip": 1e-2})
    train(first, 4)
    train(second, 4)
    assert_same(state_of(first), state_of(second))


def test_channels_last_computes_the_same(make_learner: MakeLearner) -> None:
    plain, last = make_learner(), make_learner(channels_last=True)
    train(plain, 2)
    train(last, 2)
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(last.model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_the_gradients_norm_is_reported_before_clipping_and_clipped_after(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(train={"grad_clip": 0.01})
    norms: list[Tensor] = []
    update = learner._update

    def spy(bad: Tensor) -> None:
        model = learner.model
        for part in ([model.encoder, model.decoder, model.prior], [model.predictor]):
            gradients = [p.grad.flatten() for m in part if m for p in m.parameters() if p.grad is not None]
            norms.append(torch.cat(gradients).norm())
        update(bad)

    monkeypatch.setattr(learner, "_update", spy)
    learner.step(batch(), 0)
    torch.testing.assert_close(torch.stack(norms), torch.full((2,), 0.01), rtol=1e-3, atol=0)
    assert learner.tally.read()[0]["grad_norm"] > 1


def test_the_average_follows_its_half_life(make_learner: MakeLearner) -> None:
    learner = make_learner(train={"ema_halflife": 1e9, "batch_size": COUNT})
    name = "encoder.looks.stem.weight"
    start = learner.average.state_dict()[name].clone()
    learner.step(batch(), 10_000)
    decay = 0.5 ** (COUNT / (0.05 * 10_000))
    expected = decay * start + (1 - decay) * learner.model.state_dict()[name]
    torch.testing.assert_close(learner.average.state_dict()[name], expected)
    without = make_learner(train={"ema_halflife": 0}, model={"norm": "batch"})
    train(without, 3)
    assert_same(without.model.state_dict(), without.average.state_dict())
    assert not any(p.requires_grad for p in without.average.parameters())


def test_schedules_are_read_at_the_images_seen(make_learner: MakeLearner) -> None:
    learner = make_learner(
        train={"lr": 1e-3, "lr_warmup": 100, "lr_decay": "none"}, loss={"beta_warmup": 100}
    )
    learner.step(batch(), 49)
    assert [group["lr"] for group in learner.optimizer.param_groups] == pytest.approx([5e-4, 5e-4, 5e-3])
    means = learner.tally.read()[0]
    assert means["loss"] == pytest.approx(means["reconstruction"] + 5.0 * 0.49 * means["kl"], rel=1e-5)


def test_weights_of_images_reach_the_gradient(make_learner: MakeLearner) -> None:
    """Replacing an image of weight zero by another makes no difference to the VAE."""
    first, second = make_learner(model={"predictor": False}), make_learner(model={"predictor": False})
    weights_B = torch.tensor([0.0, 1.2, 1.2, 1.2, 1.2, 1.2])
    other = batch()
    other.y_BCHW[0] = 1 - other.y_BCHW[0]
    first.step(replace(batch(), weights_B=weights_B), 0)
    second.step(replace(other, weights_B=weights_B), 0)
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], tensor, msg=name)


def test_only_matrices_and_kernels_decay(make_learner: MakeLearner) -> None:
    learner = make_learner(train={"weight_decay": 0.3})
    decayed, plain, sigma = learner.optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"], sigma["weight_decay"]) == (0.3, 0.0, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in plain["params"])
    assert len(sigma["params"]) == 1


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("objective", "sigma", "loss"),
    [
        ("intact", "scalar", {}),
        ("intact", "pixel", {}),
        ("intact", "scalar", LEVERS),
        ("cvae", "channel", {}),
        ("original", "fixed", {}),
    ],
)
def test_every_objective_runs_distributed_and_steps_as_alone(
    make_learner: MakeLearner, objective: str, sigma: str, loss: dict[str, float]
) -> None:
    """DistributedDataParallel waits for the gradient of every trainable parameter; a missing one is an error."""
    alone, wrapped = (make_learner(objective=objective, model={"sigma": sigma}, loss=loss) for _ in range(2))
    wrapped.wrap(compiled=False, distributed=True)
    train(alone, 3)
    train(wrapped, 3)
    for name, parameter in alone.named_parameters().items():
        torch.testing.assert_close(wrapped.named_parameters()[name], parameter, msg=name)
