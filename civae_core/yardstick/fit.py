"""Training of a yardstick, which takes a minute or two."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.order import ShuffledOrder
from civae_core.progress import progress
from civae_core.randomness import generator_for, seed_for
from civae_core.training.optimizers import AdamW
from civae_core.training.schedules import learning_rate
from civae_core.yardstick.balance import balanced_weights, learnable, warn_of_association
from civae_core.yardstick.degrade import degraded, mirrored
from civae_core.yardstick.instrument import Networks, Yardstick, YardstickCard
from civae_core.yardstick.networks import LATENT
from civae_core.yardstick.trial import quality_on_photos, split_rows

IMAGES = 24_000


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of training a yardstick. They are part of the cache key, so a change trains a new one."""

    batch: int = 32
    peak_lr: float = 4e-3
    weight_decay: float = 0.05
    warm_up: float = 0.1
    """Share of the training over which the learning rate rises."""
    strongest_blur: float = 0.03
    """Largest σ of the blur of training images, as a share of the image's side: 2 pixels of 64."""
    noise: float = 0.03
    """Largest standard deviation of the noise on the same images."""
    largest_gradient: float = 1.0
    """Norm to which the gradient of each network is clipped."""
    weight_cap: float = 20.0
    """Largest weight of an image for an attribute, as a multiple of the mean weight."""


RECIPE = Recipe()
TESTED_BLUR = 0.5 * RECIPE.strongest_blur
"""σ of the blur, as a share of the side, in the blurred photographs that the scorer is tested on."""


@dataclass(frozen=True)
class _Lessons:
    """The scorer's training data: rows of the table, with a target and a weight for each attribute [N, A]."""

    rows_N: Tensor
    targets_NA: Tensor
    weights_NA: Tensor
    is_binary_A: Tensor


def train_yardstick(
    data: PreparedData,
    roles: AttributeRoles,
    *,
    images: int = IMAGES,
    seed: int = 0,
    device: torch.device,
) -> Yardstick:
    """Train the scorer and the latent space on the train split, and test the scorer on the valid split.

    Half of the images shown to the scorer are blurred and noisy, so that it does not take a reconstruction's blur for
    an attribute.

    Args:
        roles: attribute roles, which decide what each attribute is balanced against.
        images: number of images shown in training, rounded up to whole batches.
        seed: seed of weights, order and augmentation; training a model with the same seed draws other numbers.

    Raises:
        DataError: no attribute can be learned, or there are no images to train on.
    """
    rows_N, tested_N = split_rows(data)
    columns = learnable(data.attributes, data.table_NA[rows_N])
    attributes = tuple(data.attributes[column] for column in columns)
    labels_NA = data.table_NA[rows_N][:, columns]
    weights_NA = balanced_weights(labels_NA, attributes, roles, RECIPE.weight_cap)
    warn_of_association(labels_NA, weights_NA, attributes, roles)
    lessons = _Lessons(
        rows_N,
        targets(labels_NA, attributes),
        weights_NA,
        torch.tensor([attribute.kind == "binary" for attribute in attributes]),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "yardstick weights"))
        networks = Networks(data.size, data.channels, len(attributes)).to(device)
    # A third faster on a CPU; undone afterwards, so that a fresh yardstick computes exactly as one loaded from file.
    networks.train().to(memory_format=torch.channels_last)
    _train(networks, data, lessons, images, seed, device)
    networks.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    card = YardstickCard(
        attributes=attributes,
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
    photos = quality_on_photos(trained, data, tested_N)
    soft = quality_on_photos(trained, data, tested_N, blur=TESTED_BLUR)
    return replace(trained, card=replace(card, photos=photos, blurred=soft))


def names_by_role(roles: AttributeRoles) -> dict[str, list[str]]:
    """Names of treatments and descendants; balancing treats all other attributes alike."""
    return {
        "treatments": [attribute.name for attribute in roles.treatments],
        "descendants": [attribute.name for attribute in roles.descendants],
    }


def targets(labels_NA: Tensor, attributes: tuple[Attribute, ...]) -> Tensor:
    """Training targets [N, A]: 0 or 1 if binary, standardised if continuous; 0 where missing."""
    targets_NA = labels_NA.clone()
    for column, attribute in enumerate(attributes):
        if attribute.kind == "continuous":
            shift, scale = attribute.shift_and_scale
            targets_NA[:, column] = (targets_NA[:, column] - shift) / scale
    return targets_NA.nan_to_num(0.0)


def scorer_loss(outputs_BA: Tensor, targets_BA: Tensor, weights_BA: Tensor, is_binary_A: Tensor) -> Tensor:
    """Weighted mean over [B, A]: cross-entropy for binary attributes, half the squared error for continuous ones."""
    entropy_BA = F.binary_cross_entropy_with_logits(outputs_BA, targets_BA.clamp(0, 1), reduction="none")
    squares_BA = 0.5 * (outputs_BA - targets_BA).square()
    return (weights_BA * torch.where(is_binary_A, entropy_BA, squares_BA)).mean()


def _train(
    networks: Networks, data: PreparedData, lessons: _Lessons, images: int, seed: int, device: torch.device
) -> None:
    batch, total = RECIPE.batch, -(-images // RECIPE.batch) * RECIPE.batch
    optimiser = AdamW(networks.parameters(), RECIPE.peak_lr, weight_decay=RECIPE.weight_decay)
    order = ShuffledOrder(len(lessons.rows_N), seed_for(seed, "yardstick order"))
    is_binary_A = lessons.is_binary_A.to(device)
    with progress("train the scorer", total) as bar:
        for seen in range(0, total, batch):
            items_B = order.items(seen, batch)
            y_BCHW = data.images(lessons.rows_N[items_B]).to(device).float() / 255
            y_BCHW = mirrored(y_BCHW, seed, seen)
            worse_BCHW = degraded(
                y_BCHW, seed, seen, strongest_blur=RECIPE.strongest_blur, noise=RECIPE.noise
            )
            outputs_BA, _ = networks.scorer(worse_BCHW)
            targets_BA, weights_BA = lessons.targets_NA[items_B], lessons.weights_NA[items_B]
            loss = scorer_loss(outputs_BA, targets_BA.to(device), weights_BA.to(device), is_binary_A)
            noise_BZ = torch.randn(batch, LATENT, generator=generator_for(seed, "yardstick latent", seen))
            # The two losses share no parameters, and Adam is insensitive to their scales.
            (loss + networks.latent.loss(y_BCHW, noise_BZ.to(device))).backward()
            for part in (networks.scorer, networks.latent):
                torch.nn.utils.clip_grad_norm_(part.parameters(), RECIPE.largest_gradient)
            optimiser.param_groups[0]["lr"] = learning_rate(
                seen, peak=RECIPE.peak_lr, warmup=int(RECIPE.warm_up * total), total=total, decay="cosine"
            )
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            bar.advance(batch)
