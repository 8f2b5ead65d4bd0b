"""The whole pipeline on the built-in faces: prepare, train ours and two baselines, evaluate all against the truth."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from civae_core.config import Config, DataConfig, ModelConfig, TrainConfig
from civae_core.config.schema import Objective
from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.data.sources.resolve import LARGEST_FACE, SMALLEST_FACE
from civae_core.data.workspace import named_by_command
from civae_core.errors import UsageError
from civae_core.evaluation.evaluate import evaluate
from civae_core.evaluation.instruments import choose_instruments
from civae_core.evaluation.naming import OBJECTIVE_NAMES
from civae_core.evaluation.output import write_evaluation
from civae_core.figures.pictures import write_png
from civae_core.file_names import REPORT_PAGE
from civae_core.machine import available_cores
from civae_core.model.stored import load_model
from civae_core.synthetic import ROLES
from civae_core.training.device import choose_device
from civae_core.training.loop import train
from civae_core.training.stopping import stopping_after

log = logging.getLogger(__name__)

FACES = 10_000
IMAGES = 24_000
SIZE = 64
OVERLAP = 0.5
OBJECTIVES = {name: cast(Objective, objective) for objective, name in OBJECTIVE_NAMES.items()}
"""Training objective of each model, by its name."""
NETWORK = ModelConfig(width=16, stages=[1, 2, 4, 8], pairing="none")
"""Noises are not paired: pairing uses contours, which so short a training leaves blurred, and measured worse
(docs/noises.md)."""
TRUTHS = [TruthSpec("Young=flip", {"Young": "flip"})]


@dataclass(frozen=True)
class Quickstart:
    """The results of `quickstart`, and the files that hold them."""

    numbers: dict[str, Any]
    picture: Path
    report: Path
    evaluation: Path


def quickstart(
    out: Path,
    *,
    faces: int = FACES,
    images: int = IMAGES,
    size: int = SIZE,
    device: str = "auto",
) -> Quickstart:
    """Run all steps in `out`; steps completed before, also by a run that was stopped, are not repeated.

    Args:
        faces: number of built-in faces to make, including held-out ones.
        images: number of images that each model is shown in training.
        size: side of the images in pixels.

    Raises:
        UsageError: an unsuitable size or an unavailable device; raised before anything is written.
        PreemptedError, InterruptedRunError: a signal asked to stop while a model was trained; finished work is kept.
        CivaeError: as in the steps.
    """
    choose_device(device)
    stride = 2 ** len(NETWORK.stages)
    if size % stride or not SMALLEST_FACE <= size <= LARGEST_FACE:
        raise UsageError(
            f"--size {size}: must be a multiple of {stride} from {SMALLEST_FACE} to {LARGEST_FACE}",
            hint="use 64, which the settings are made for",
        )
    log.info("1/5 making %s faces of %d px", f"{faces:,}", size)
    source = faces_source(count=faces, seed=0, overlap=OVERLAP, truths=TRUTHS, size=size, channels=3)
    with named_by_command():
        data = prepare(source, out / "data", workers=available_cores(), max_bad=MaxBad("0", count=0)).data
    for step, name in enumerate(OBJECTIVES, start=2):
        log.info("%d/5 training %s", step, name)
        with stopping_after():
            train(quickstart_config(name, out / "data", images), out / name, device=device)
    log.info("5/5 evaluating against the true counterfactuals")
    return _evaluate(out, data, images, device)


def quickstart_config(method: str, data: Path, images: int = IMAGES) -> Config:
    """The config of `ours` (configs/quickstart.yml), or of a baseline with the same widths and budget.

    `cvae` has the prior N(0,I), β = 1 and no weights; `original` has the lab prototype's objective, decoder and
    inference.
    """
    return Config(
        objective=OBJECTIVES[method],
        data=DataConfig(
            path=str(data),
            treatment=[a.name for a in ROLES.treatments],
            covariates=[a.name for a in ROLES.covariates],
            descendants=[a.name for a in ROLES.descendants],
        ),
        model=NETWORK,
        train=TrainConfig(
            images=images,
            batch_size=16,
            lr=2e-3,
            lr_warmup=1_000,
            ema_halflife=1_000,
            log_every=1_000,
            checkpoint_every=6_000,
            sample_every=6_000,
            validate_images=256,
        ),
    )


def _evaluate(out: Path, data: PreparedData, images: int, device: str) -> Quickstart:
    chosen = choose_device(device)
    models = [load_model(out / name, chosen) for name in OBJECTIVES]
    # The scorer is trained on as many images as the models.
    instruments = choose_instruments(data, models[0].card.roles, chosen, scorer_images=images)
    found = evaluate(models, data, instruments=instruments)
    report, picture = out / REPORT_PAGE, out / "faces.png"
    numbers = write_evaluation(found, report)
    write_png(picture, found.pictures[0].image)
    return Quickstart(found.numbers, picture, report, numbers)
