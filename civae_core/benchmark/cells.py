"""The cells of a benchmark: each is one method, trained with one seed on one data set, and scored on it."""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from civae_core import __version__
from civae_core.benchmark.load import Benchmark
from civae_core.config import Config
from civae_core.data import PreparedData
from civae_core.errors import UsageError
from civae_core.evaluation.evaluate import evaluate
from civae_core.evaluation.fingerprint import scoring_fingerprint
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.measures import NOT_COMPETING
from civae_core.evaluation.realism import extractor_for
from civae_core.file_names import EVALUATION
from civae_core.files import write_json
from civae_core.measured import lines_of, told_by
from civae_core.model.stored import load_model, read_card
from civae_core.model_paths import find_model_file
from civae_core.reading import finite_number, read_json
from civae_core.training.checkpoint import last_checkpoint
from civae_core.training.device import choose_device
from civae_core.training.loop import train
from civae_core.training.run_folder import RunFolder
from civae_core.training.stopping import stopping_after
from civae_core.yardstick import load_yardstick

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One training run of a benchmark, and its folder."""

    data: str
    method: str
    seed: int
    config: Config
    run: Path

    @property
    def name(self) -> str:
        return f"{self.data}/{self.method}-seed{self.seed}"


@dataclass(frozen=True)
class Scoring:
    """How every cell is scored."""

    limit: int | None = None
    """Score at most this many images."""
    scorer: Path | None = None
    """File of the independent networks; None scores without them."""
    fingerprint: str | None = None
    """Fingerprint of the scorer's weights."""
    extractor: str = "none"
    """Feature extractor for FID and KID: `none`, or as in `extractor_for`; never `auto`, whose choice may change."""


def plan_cells(benchmark: Benchmark, data: Iterable[tuple[str, Path]], out: Path) -> list[Cell]:
    """All cells in the order of work, starting with the first seed of every method on every data set.

    Args:
        data: name and folder of each data set.
        out: the benchmark's folder.
    """
    sets = list(data)
    return [
        Cell(name, method, seed, _config_of(config, path, seed), out / "runs" / name / f"{method}-seed{seed}")
        for seed in benchmark.seeds
        for name, path in sets
        for method, config in benchmark.methods.items()
    ]


def _config_of(config: Config, path: Path, seed: int) -> Config:
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"path": str(path)}),
            "train": config.train.model_copy(update={"seed": seed}),
        }
    )


def run_cell(cell: Cell, device: str, scoring: Scoring) -> None:
    """Train and score a cell, continuing from what is already done, and write evaluation.json into its run.

    Raises:
        CivaeError: as in training and evaluation.
        PreemptedError, InterruptedRunError: a signal asked to stop.
    """
    data = PreparedData.open(cell.config.data.path)
    if not is_trained(cell, data):
        with stopping_after():
            train(cell.config, cell.run, device=device)
    if kept_evaluation(cell, data, scoring) is not None:
        return
    began = time.monotonic()
    chosen = choose_device(device)
    yardstick = None if scoring.scorer is None else load_yardstick(scoring.scorer, chosen)
    extractor = None if scoring.extractor == "none" else extractor_for(scoring.extractor, yardstick, chosen)
    found = evaluate(
        [load_model(cell.run, chosen)],
        data,
        limit=scoring.limit,
        instruments=Instruments(yardstick, extractor),
        pictures=False,
    )
    numbers = {
        **found.numbers,
        "benchmark": {
            **_scored_how(cell, data, scoring),
            "seconds": round(trained_seconds(RunFolder(cell.run).metrics) + time.monotonic() - began, 1),
        },
    }
    write_json(cell.run / EVALUATION, numbers)


def is_trained(cell: Cell, data: PreparedData) -> bool:
    """Whether the cell's run is finished, on this data and with this config.

    Raises:
        UsageError: the folder holds a run with another config, on other data, or trained for longer.
    """
    folder = RunFolder(cell.run)
    checkpoint = last_checkpoint(folder.checkpoints)
    if checkpoint is None:
        return False
    folder.require_same(cell.config)
    card = read_card(find_model_file(checkpoint))
    if card.data["fingerprint"] != data.fingerprint:
        raise UsageError(
            f"{cell.run}: holds a run on images other than those of {data.path}", hint="name another --out"
        )
    settings = cell.config.train
    if card.images_seen >= settings.images + settings.batch_size:
        raise UsageError(
            f"{cell.run}: has seen {card.images_seen:,} images, more than train.images {settings.images:,}",
            hint="all cells share one budget: raise base.train.images, or name another --out",
        )
    return card.images_seen >= settings.images and not card.lacks_pairing


def trained_seconds(metrics: Path) -> float:
    """Total training time of a run in seconds, however often it was stopped, from the speeds in metrics.jsonl.

    A stretch that was repeated after a stop counts once. Without the file the time is 0.
    """
    speeds: dict[float, float] = {}
    pairing = 0.0
    for values in map(told_by, lines_of(metrics)):
        images, speed = (finite_number(values.get(key)) for key in ("images", "images_per_second"))
        if images is not None and speed is not None and speed > 0:
            speeds[images] = speed
        pairing = finite_number(values.get("pairing_seconds")) or pairing
    seconds, before = 0.0, 0.0
    for images, speed in sorted(speeds.items()):
        seconds += (images - before) / speed
        before = images
    return seconds + pairing


def kept_evaluation(cell: Cell, data: PreparedData, scoring: Scoring) -> dict[str, Any] | None:
    """The evaluation left by an earlier call, if it was made in the same way; else None."""
    try:
        numbers = read_json(cell.run / EVALUATION)
        known = numbers["benchmark"]
        same = all(known.get(key) == value for key, value in _scored_how(cell, data, scoring).items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # none yet, written by another command, or edited
    return dict(numbers) if same else None


def extractor_before(cells: Iterable[Cell]) -> str | None:
    """The extractor, `scorer` or `inception`, of the first cell that was scored with one; None if there is none."""
    for cell in cells:
        try:
            found = read_json(cell.run / EVALUATION)["benchmark"]["extractor"]
        except (OSError, ValueError, TypeError, KeyError):
            continue  # not scored yet, or edited
        if found in ("scorer", "inception"):
            return str(found)
    return None


def _scored_how(cell: Cell, data: PreparedData, scoring: Scoring) -> dict[str, Any]:
    return {
        "civae": __version__,
        "measures": scoring_fingerprint(),
        "images": cell.config.train.images,
        "data": data.fingerprint,
        "limit": scoring.limit,
        "scorer": scoring.fingerprint,
        "extractor": scoring.extractor,
    }


def own_entry(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of the one model that was evaluated, whatever its name in the evaluation."""
    (entry,) = (entry for name, entry in evaluation["methods"].items() if name not in NOT_COMPETING)
    return dict(entry)
