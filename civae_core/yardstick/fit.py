"""Training of a yardstick, in a minute or two."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.batches import ShuffledOrder
from civae_core.data.labelled import evenly_spread
from civae_core.progress import progress
from civae_core.randomness import generator_for, seed_for
from civae_core.yardstick.balance import balanced_weights, learnable
from civae_core.yardstick.instrument import Networks, Quality, Yardstick, YardstickCard
from civae_core.yardstick.networks import LATENT
from civae_core.yardstick.quality import read_outputs, score_quality

log = logging.getLogger(__name__)

IMAGES = 30_000
BATCH = 32
_LEARNING_RATE, _WEIGHT_DECAY = 4e-3, 0.05
_WARM_UP = 0.1
_STRONGEST_BLUR = 0.03
"""Largest σ of the blur in training, as a share of the image's side: 2 pixels of 64."""
_TESTED_BLUR = 0.016
_NOISE = 0.03
_MOST_TESTED = 2_000


def train_yardstick(
    data: PreparedData,
    roles: AttributeRoles,
    *,
    images: int = IMAGES,
    seed: int = 0,
    device: torch.device,
) -> Yardstick:
    """Trains scorer and latent space on the train split, and tries the scorer on the valid split.

    Half of the images are blurred and made noisy, so that a reconstruction's blur does not pass for an attribute.

    Args:
        roles: decide what each attribute is balanced against.
        images: images shown in training.
        seed: of weights, order and augmentation; none of them is shared with the training of a model.

    Raises:
        DataError: no attribute can be learned, or there are no images to train on.
    """
    rows_N, tested_N = _split(data)
    columns = learnable(data.attributes, data.table_NA[rows_N])
    attributes = [data.attributes[column] for column in columns]
    labels_NA = data.table_NA[rows_N][:, columns]
    weights_NA = balanced_weights(labels_NA, attributes, roles)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "yardstick weights"))
        networks = Networks(data.size, data.channels, len(attributes)).to(device)
    is_binary_A = torch.tensor([attribute.kind == "binary" for attribute in attributes], device=device)
    targets_NA = _targets(labels_NA, attributes)
    _train(networks, data, rows_N, targets_NA, weights_NA, is_binary_A, images, seed, device)
    networks.eval().requires_grad_(False)
    card = YardstickCard(
        attributes=tuple(attributes),
        size=data.size,
        channels=data.channels,
        data={"name": data.name, "fingerprint": data.fingerprint},
        roles=names_by_role(roles),
        images=images,
        seed=seed,
        photos={},
        blurred={},
    )
    trained = Yardstick(networks, card)
    photos = try_on(trained, data, tested_N, roles, device)
    blurred_photos = try_on(trained, data, tested_N, roles, device, blur=_TESTED_BLUR)
    return replace(trained, card=replace(card, photos=photos, blurred=blurred_photos))


def try_on(
    yardstick: Yardstick,
    data: PreparedData,
    rows_N: Tensor,
    roles: AttributeRoles,
    device: torch.device,
    blur: float = 0.0,
) -> Quality:
    """The scorer's quality on photographs, sharp or blurred by a σ that is a share of their side."""

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(rows_N), BATCH):
            y_BCHW = data.images(rows_N[start : start + BATCH]).to(device).float() / 255
            yield blurred(y_BCHW, blur * data.size) if blur else y_BCHW

    labels_NA = torch.stack([data.column(a.name)[rows_N] for a in yardstick.attributes], dim=1)
    first = roles.treatments[0] if roles.treatments else None
    arms_N = data.column(first.name)[rows_N] if first and first.kind == "binary" else None
    return score_quality(read_outputs(yardstick, batches()), labels_NA, yardstick.attributes, arms_N)


def names_by_role(roles: AttributeRoles) -> dict[str, list[str]]:
    """Names of treatments and descendants; the other attributes are all treated alike."""
    return {
        "treatments": [attribute.name for attribute in roles.treatments],
        "descendants": [attribute.name for attribute in roles.descendants],
    }


def blurred(y_BCHW: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels with mirrored edges, for σ up to a fifth of the side."""
    radius = min(max(round(3 * sigma), 1), y_BCHW.shape[-1] - 1)
    offset_K = torch.arange(-radius, radius + 1, device=y_BCHW.device, dtype=y_BCHW.dtype)
    window_K = (-0.5 * (offset_K / sigma).square()).exp()
    window_K = window_K / window_K.sum()
    channels = y_BCHW.shape[1]
    padded_BCHW = F.pad(y_BCHW, (radius, radius, radius, radius), mode="reflect")
    rows_BCHW = F.conv2d(padded_BCHW, window_K.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows_BCHW, window_K.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def _split(data: PreparedData) -> tuple[Tensor, Tensor]:
    """Rows to train on, and held-out rows to try the scorer on: never those of the test split."""
    train_N, valid_N = data.rows("train"), data.rows("valid")
    if not len(train_N):
        train_N = valid_N
        valid_N = valid_N[:0]
    if not len(valid_N):
        log.warning("%s: no valid split; the scorer is tried on a tenth of the images set aside", data.path)
        aside_N = torch.zeros(len(train_N), dtype=torch.bool)
        aside_N[::10] = True
        train_N, valid_N = train_N[~aside_N], train_N[aside_N]
    return train_N, valid_N[evenly_spread(len(valid_N), _MOST_TESTED)]


def _targets(labels_NA: Tensor, attributes: list[Attribute]) -> Tensor:
    """Labels as the scorer's outputs are compared with: 0/1, or standardised."""
    targets_NA = labels_NA.nan_to_num(0.0)
    for column, attribute in enumerate(attributes):
        if attribute.kind == "continuous":
            shift, scale = attribute.shift_and_scale
            targets_NA[:, column] = (targets_NA[:, column] - shift) / scale
    return targets_NA


def _train(
    networks: Networks,
    data: PreparedData,
    rows_N: Tensor,
    targets_NA: Tensor,
    weights_NA: Tensor,
    is_binary_A: Tensor,
    images: int,
    seed: int,
    device: torch.device,
) -> None:
    steps = max(images // BATCH, 1)
    optimiser = torch.optim.AdamW(networks.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, steps, pct_start=_WARM_UP)
    order = ShuffledOrder(len(rows_N), seed_for(seed, "yardstick order"))
    networks.train()
    with progress("train the scorer", steps * BATCH) as bar:
        for step in range(steps):
            items_B = order.items(step * BATCH, BATCH)
            y_BCHW = data.images(rows_N[items_B]).to(device).float() / 255
            noise = generator_for(seed, "yardstick noise", step)
            y_BCHW = _mirrored(y_BCHW, noise)
            outputs_BA, _ = networks.scorer(_degraded(y_BCHW, noise))
            loss = _scorer_loss(
                outputs_BA, targets_NA[items_B].to(device), weights_NA[items_B].to(device), is_binary_A
            )
            noise_BZ = torch.randn(BATCH, LATENT, generator=noise).to(device)
            # No parameter belongs to both losses, and Adam does not mind their scales.
            (loss + networks.latent.loss(y_BCHW, noise_BZ)).backward()
            torch.nn.utils.clip_grad_norm_(networks.scorer.parameters(), 1.0)
            torch.nn.utils.clip_grad_norm_(networks.latent.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
            bar.advance(BATCH)


def _scorer_loss(outputs_BA: Tensor, targets_BA: Tensor, weights_BA: Tensor, is_binary_A: Tensor) -> Tensor:
    """Weighted cross-entropy of binary and squared error of continuous attributes, the mean over attributes."""
    entropy_BA = F.binary_cross_entropy_with_logits(outputs_BA, targets_BA.clamp(0, 1), reduction="none")
    squares_BA = 0.5 * (outputs_BA - targets_BA).square()
    return (weights_BA * torch.where(is_binary_A, entropy_BA, squares_BA)).mean()


def _mirrored(y_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    flips_B = (torch.rand(len(y_BCHW), generator=generator) < 0.5).to(y_BCHW.device)
    return torch.where(flips_B[:, None, None, None], y_BCHW.flip(3), y_BCHW)


def _degraded(y_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """The same images, the first half of them blurred by one random σ and with a little noise."""
    half = len(y_BCHW) // 2
    sigma = max(float(torch.rand((), generator=generator)) * _STRONGEST_BLUR * y_BCHW.shape[-1], 0.2)
    noise_BCHW = torch.randn(y_BCHW[:half].shape, generator=generator).to(y_BCHW.device)
    worse_BCHW = blurred(y_BCHW[:half], sigma) + _NOISE * noise_BCHW
    return torch.cat([worse_BCHW.clamp(0, 1), y_BCHW[half:]])
