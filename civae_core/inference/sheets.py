"""Sheets of prior samples: many seeds side by side, or one subject over a grid of attribute values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from civae_core.assignments import do_text, parse_treatments
from civae_core.attributes import beyond_training
from civae_core.engine.base import Array, Engine
from civae_core.errors import UsageError
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import write_png
from civae_core.files import make_folder
from civae_core.inference.png import write_image
from civae_core.inference.sampling import drawn_subjects, sample_images

MOST_SEEDS = 10_000
MOST_COLUMNS = 16


def parse_seeds(text: str) -> list[int]:
    """Parse text such as `0-7,12` into a list of seeds.

    Raises:
        UsageError: the text is not a list of numbers and ranges, or names too many seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--seeds {text}: {part.strip()!r} is not a seed", hint="for example 0-7,12")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or len(seeds) + high - low >= MOST_SEEDS or high >= 2**63:
            raise UsageError(
                f"--seeds {text}: {part.strip()!r} is an empty or too long range",
                hint=f"put the smaller number first, as in 0-7,12, and give at most {MOST_SEEDS:,} seeds in all",
            )
        seeds.extend(range(low, high + 1))
    return seeds


@dataclass(frozen=True)
class Grid:
    """The attribute values that a sheet varies."""

    text: str
    """As typed."""
    axes: dict[str, list[float]]
    """Values of one or two attributes, in the order written: along the columns, then down the rows."""


def parse_grid(text: str, names: Sequence[str]) -> Grid:
    """Parse text such as `Young=0:1:5,Male=0:1:2`.

    Args:
        names: the known attributes.

    Raises:
        UsageError: the text does not name one or two of them, or a value is not a number.
    """
    cells = parse_treatments(text.split(","), names, flag="--grid")
    axes = {name: list(dict.fromkeys(cell[name] for cell in cells)) for name in cells[0]}
    if len(axes) > 2 or any("flip" in values for values in axes.values()):
        raise UsageError(
            f"--grid {text}: needs one or two attributes with numbers",
            hint="for example Young=0:1:5,Male=0:1:2",
        )
    return Grid(text, {name: [float(value) for value in values] for name, values in axes.items()})


def write_samples(
    engine: Engine,
    folder: Path,
    seeds: Sequence[int],
    stated: Mapping[str, float],
    truncation: float = 1.0,
) -> list[dict[str, Any]]:
    """Write a PNG per seed and, last, samples.png with all; return the records. Arguments as in `sample_images`."""
    images_NCHW, labels = sample_images(engine, seeds, [stated] * len(seeds), truncation)
    make_folder(folder)
    records: list[dict[str, Any]] = []
    for seed, image_CHW, values in zip(seeds, images_NCHW, labels, strict=True):
        path = folder / f"seed-{seed:05d}.png"
        said = _account(engine, [f"seed {seed}", do_text(values, digits=10)], [values], truncation)
        write_image(path, image_CHW, said)
        records.append({"output": str(path), "seed": seed, "attributes": values, "truncation": truncation})
    path = folder / "samples.png"
    said = _account(engine, [f"a sheet of {len(seeds)}", do_text(stated, digits=10)], [stated], truncation)
    write_png(path, _sheet(images_NCHW), said)
    records.append(
        {"output": str(path), "seeds": list(seeds), "stated": dict(stated), "truncation": truncation}
    )
    return records


def write_grids(
    engine: Engine,
    folder: Path,
    seeds: Sequence[int],
    stated: Mapping[str, float],
    grid: Grid,
    truncation: float = 1.0,
) -> list[dict[str, Any]]:
    """Write a sheet per seed: one subject, the first attribute of `grid` along the columns, the second down the rows.

    Raises:
        UsageError: no finite image results under some of the values.
        CivaeError: the folder cannot be written.
    """
    names, across = list(grid.axes), next(iter(grid.axes.values()))
    down = grid.axes[names[1]] if len(names) == 2 else [None]
    shown = [stated, *({name: value} for name, axis in grid.axes.items() for value in axis)]
    records: list[dict[str, Any]] = []
    for seed in seeds:
        # One subject for all cells: drawn per cell, each value of a covariate would choose among subjects with it.
        subjects_NA = np.repeat(drawn_subjects(engine, [seed], [stated]), len(down), axis=0)
        columns = []
        for value in across:
            cells = [
                {**stated, names[0]: value} | ({names[1]: other} if other is not None else {})
                for other in down
            ]
            images_NCHW, _ = sample_images(engine, [seed] * len(down), cells, truncation, subjects_NA)
            columns.append((f"{names[0]}={value:g}", images_NCHW))
        row_labels = [f"{names[1]}={other:g}" for other in down if other is not None]
        make_folder(folder)
        path = folder / f"grid-seed-{seed:05d}.png"
        what = [f"seed {seed}", grid.text, do_text(stated, digits=10)]
        write_png(path, image_grid(columns, row_labels or None), _account(engine, what, shown, truncation))
        records.append(
            {
                "output": str(path),
                "seed": seed,
                "grid": grid.text,
                "stated": dict(stated),
                "truncation": truncation,
            }
        )
    return records


def _account(
    engine: Engine, what: Sequence[str], shown: Sequence[Mapping[str, float]], truncation: float
) -> str:
    """The description of pictures from the prior that is stored in their file, since they look like photographs.

    Args:
        what: seeds and attributes; empty texts are left out.
        shown: the values of attributes in the pictures, of which some may be beyond what training saw.
    """
    beyond = dict.fromkeys(text for values in shown for text in beyond_training(values, engine.roles.inputs))
    said = [text for text in what if text]
    said += [f"truncation={truncation:.10g}"] if truncation != 1 else []
    said += beyond or ["within what training saw"]
    return f"Drawn by civae from the prior: {', '.join(said)}; not a photograph"


def _sheet(images_NCHW: Array) -> Image.Image:
    """Arrange all images in a near-square sheet; blank cells fill the last row."""
    width = min(math.ceil(math.sqrt(len(images_NCHW))), MOST_COLUMNS)
    rows = math.ceil(len(images_NCHW) / width)
    blanks = np.full((rows * width - len(images_NCHW), *images_NCHW.shape[1:]), 255, dtype=np.uint8)
    cells = np.concatenate([images_NCHW, blanks]).reshape(rows, width, *images_NCHW.shape[1:])
    return image_grid([("", cells[:, column]) for column in range(width)])
