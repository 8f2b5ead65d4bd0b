"""Steps before the training loop: assign roles, build the model and its card, fit weights, make batches."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles, shortest
from civae_core.balance import effective_sample_size, training_weights
from civae_core.balance.imbalance import LITTLE_IMBALANCE, imbalance, largest, largest_text
from civae_core.config import Config
from civae_core.config.effects import within_parts
from civae_core.data import PreparedData
from civae_core.data.batches import Batch, TrainingBatches
from civae_core.data.labelled import LabelledRows, evenly_spread, labelled_rows, partly_labelled_rows
from civae_core.data.splits import Split
from civae_core.model import IntactVAE
from civae_core.model.stored import ModelCard
from civae_core.overfitting import too_long
from civae_core.randomness import seed_for
from civae_core.training.device import Compute
from civae_core.training.distributed import Processes
from civae_core.training.feed import Fed, Feed, lane_of

log = logging.getLogger(__name__)

SUBJECTS_KEPT = 512
"""Training subjects whose attributes (never images) are stored with a model, to sample from."""


def assign_roles(config: Config, data: PreparedData) -> AttributeRoles:
    """Assign the config's roles to the table's attributes.

    Raises:
        UsageError: the config names a column that the table lacks; the message says why, if it was left out.
    """
    chosen = config.data
    return data.assign(chosen.treatment, chosen.covariates, chosen.descendants)


def validation_split(data: PreparedData) -> Split:
    """The split on which training is validated: valid or, with a warning, test or else train."""
    if len(data.rows("valid")):
        return "valid"
    instead: Split = "test" if len(data.rows("test")) else "train"
    log.warning(
        "%s: the valid split has no images; the validation loss is that of %s images", data.path, instead
    )
    return instead


def make_model(config: Config, roles: AttributeRoles, data: PreparedData) -> IntactVAE:
    """Make the network, with weights drawn from the config's seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.train.seed, "weights"))
        return IntactVAE(config.model, roles, data.size, data.channels)


def make_card(
    config: Config, roles: AttributeRoles, data: PreparedData, batches: TrainingBatches
) -> ModelCard:
    """Make the card that is stored beside the weights, with no images seen yet."""
    identity = {"name": data.name, "path": str(data.path), "fingerprint": data.fingerprint}
    subjects = _some_subjects(torch.cat([batches.t_NT, batches.x_NX], dim=1))
    count = len(batches.rows_N)
    return ModelCard(config, roles, data.preprocessing, 0, identity, subjects, photographs=count)


def make_batches(
    config: Config, roles: AttributeRoles, data: PreparedData, compute: Compute, processes: Processes
) -> TrainingBatches:
    """Make batches of the training split, with propensity weights (METHOD 4.1).

    Warns of far too many epochs, and of settings for which it matters that a batch is computed in parts
    (`train.accumulate`) or shared by processes.

    Raises:
        DataError: the split has no labelled image.
        UsageError: the weights are not available for this kind of treatment.
    """
    for warning in within_parts(config, processes.world_size):
        log.warning("%s", warning)
    chosen = labelled_rows(data, roles, "train", warn=False)
    if text := too_long(config.train.images, len(chosen.rows_N)):
        log.warning("%s", text)
    kinds = [attribute.kind for attribute in roles.treatments]
    weights_N = training_weights(chosen.x_NX, chosen.t_NT, kinds, config.loss.weights, config.loss.weight_cap)
    if config.loss.weights != "none":
        share = effective_sample_size(weights_N) / len(weights_N)
        log.info("weights: %s, effective sample size %.0f %%", config.loss.weights, 100 * share)
        if share < 0.2:
            log.warning("little overlap: few images carry most of the weight; see the data's report.html")
        for text in _left_apart(roles, chosen, weights_N):
            log.warning("%s", text)
    return TrainingBatches(
        data,
        chosen.rows_N,
        chosen.x_NX,
        chosen.t_NT,
        weights_N,
        batch_size=config.train.batch_size,
        latent=config.model.dimensions,
        flip=config.data.flip,
        cache=config.data.cache,
        shuffle=config.data.shuffle,
        seed=config.train.seed,
        device=compute.device,
        channels_last=compute.channels_last,
        rank=processes.rank,
        world_size=processes.world_size,
    )


def make_partly_batches(
    config: Config,
    roles: AttributeRoles,
    data: PreparedData,
    compute: Compute,
    processes: Processes,
    full: TrainingBatches,
) -> TrainingBatches | None:
    """Make batches of the training images that lack some labels but not all, for the attribute predictor.

    An epoch of these batches takes as many steps as one of the `full` batches, but they are never larger. If that is
    less than one image per step, a single image comes with some of the steps (`partly_at`). The log says how many
    images lack labels and what becomes of them. None if there are no such images, or no predictor.
    """
    partly = partly_labelled_rows(data, roles, "train")
    lacking = len(data.rows("train")) - len(full.rows_N)
    if lacking:
        log.warning(
            "%s", _fate_of_lacking(roles, lacking, len(partly), len(full.rows_N), config.model.predictor)
        )
    if not len(partly) or not config.model.predictor:
        return None
    share = len(partly) / len(full.rows_N)
    return TrainingBatches(
        data,
        partly.rows_N,
        partly.x_NX,
        partly.t_NT,
        torch.ones(len(partly)),
        batch_size=min(max(round(full.batch_size * share), 1), full.batch_size),
        latent=1,
        flip=config.data.flip,
        cache=config.data.cache,
        shuffle=config.data.shuffle,
        seed=seed_for(config.train.seed, "partly labelled"),
        device=compute.device,
        channels_last=compute.channels_last,
        rank=processes.rank,
        world_size=processes.world_size,
    )


def partly_at(partly: TrainingBatches | None, images_seen: int, full: TrainingBatches) -> Batch | None:
    """This process's share of the partly labelled images for the step at `images_seen`; None if it has none."""
    if partly is None:
        return None
    step, every = images_seen // full.batch_size, 1
    if partly.batch_size == 1:
        every = max(round(len(full.rows_N) / (len(partly.rows_N) * full.batch_size)), 1)
    if step % every:
        return None
    batch = partly.at(step // every * partly.batch_size)
    return batch if len(batch) else None


def make_feed(batches: TrainingBatches, partly: TrainingBatches | None, compute: Compute) -> Feed:
    """Make a run's feed: each batch with this process's share of the partly labelled images."""

    def make(images_seen: int) -> Fed:
        return Fed(batches.at(images_seen), partly_at(partly, images_seen, batches))

    return Feed(make, lane_of(compute.device))


def _left_apart(roles: AttributeRoles, chosen: LabelledRows, weights_N: Tensor) -> Iterator[str]:
    """Yield a sentence for each treatment with which a covariate is still associated after weighting."""
    names = [covariate.name for covariate in roles.covariates]
    x_NX, w_N = chosen.x_NX.double(), weights_N.double()
    for column, treatment in enumerate(roles.treatments):
        t_N = chosen.t_NT[:, column].double()
        if t_N.unique().numel() < 2:
            continue
        worst = largest(names, imbalance(x_NX, t_N, w_N, treatment.kind))
        if worst is not None and worst[1] > LITTLE_IMBALANCE:
            yield (
                f"little overlap: the weights do not balance the covariates of {treatment.name} "
                f"({largest_text(treatment.kind, *worst)}); see the data's report.html"
            )


def _fate_of_lacking(roles: AttributeRoles, lacking: int, partly: int, full: int, predictor: bool) -> str:
    names = ", ".join(a.name for a in roles.inputs)
    share = f"{lacking:,} of {lacking + full:,} training images"
    said = f"{share} lack a label for {names}: effects are learned from the others"
    if predictor and partly:
        said += (
            f"; the attribute predictor also learns the labels that {partly:,} of the incomplete ones have"
        )
    return said + ("" if predictor else " (model.predictor is off)")


def _some_subjects(a_NA: Tensor) -> list[list[float]]:
    rows: list[list[float]] = a_NA[evenly_spread(len(a_NA), SUBJECTS_KEPT)].tolist()
    return [[shortest(value) for value in row] for row in rows]
