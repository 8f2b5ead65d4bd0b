"""The built-in faces in CelebA's folder layout, to exercise the CelebA code path without CelebA (docs/method.md).

    FOLDER/img_align_celeba/000001.jpg …     178 × 218
    FOLDER/list_attr_celeba.txt              a count, a header, then a row of −1/1 for each image
    FOLDER/list_eval_partition.txt           0 train, 1 valid, 2 test
    FOLDER/faces.json                        how they were drawn, which marks the folder as ours

The lists are written last, so that an interrupted tree is not mistaken for a complete one; repeating the same call
draws the missing images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from civae_core import __version__
from civae_core.errors import UsageError
from civae_core.files import atomic_file, describe_os_error, make_folder, write_json, write_text
from civae_core.progress import progress
from civae_core.reading import read_json
from civae_core.synthetic.cohorts import people, require_overlap, split_sizes
from civae_core.synthetic.portraits import render_portraits
from civae_core.synthetic.process import ATTRIBUTES, FaceProcess, Subjects

IMAGES, LABELS, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
COLUMNS: tuple[str, ...] = tuple(attribute.name for attribute in ATTRIBUTES if attribute.kind == "binary")
"""The columns of the attribute list; CelebA has no continuous attributes, so Skin_Tone is left out."""

JPEG_QUALITY = 95
_FACTS = "faces.json"
_CHUNK = 64  # portraits in memory at a time


@dataclass(frozen=True)
class CelebaTree:
    """The contents of a tree; `fresh` is False if it was already complete."""

    images: int
    splits: dict[str, int]
    fresh: bool


def write_celeba_tree(
    folder: Path, *, count: int, seed: int, overlap: float, overwrite: bool = False
) -> CelebaTree:
    """Write `count` faces: 80 % train, following the process; 10 % valid and 10 % test, randomised to fill all cells.

    Args:
        folder: a folder that is new, empty, or was written by an earlier call.
        seed: seed of the people.
        overlap: overlap of the `FaceProcess`, in (0, 1].
        overwrite: replace the faces of an earlier call, whatever its arguments.

    Raises:
        UsageError: the folder holds something else; fewer than 10 faces; an overlap outside (0, 1].
        CivaeError: the folder cannot be written.
    """
    require_overlap(overlap)
    sizes = split_sizes(count)
    splits = dict(zip(("train", "valid", "test"), sizes, strict=True))
    process = FaceProcess(overlap=overlap, seed=seed)
    facts = {"civae_faces": 1, "count": count, "seed": seed, "overlap": overlap, "quality": JPEG_QUALITY}
    if _claim(folder, facts, overwrite=overwrite):
        return CelebaTree(count, splits, fresh=False)
    labels = [str(count), " ".join(COLUMNS) + " "]
    with progress("draw", count) as bar:
        for first in range(0, count, _CHUNK):
            rows = range(first, min(first + _CHUNK, count))
            subjects = people(process, rows, sizes[0])
            labels += _label_rows(subjects, rows)
            _draw_missing(folder / IMAGES, subjects, rows)
            bar.advance(len(rows))
    parts = [part for part, size in enumerate(sizes) for _ in range(size)]
    partition = [f"{_file_name(row)} {part}" for row, part in enumerate(parts)]
    write_text(folder / PARTITION, "\n".join(partition) + "\n")
    write_text(folder / LABELS, "\n".join(labels) + "\n")
    return CelebaTree(count, splits, fresh=True)


def _draw_missing(images: Path, subjects: Subjects, rows: range) -> None:
    missing = [i for i, row in enumerate(rows) if not (images / _file_name(row)).exists()]
    if not missing:
        return
    portraits_NHW3 = render_portraits(subjects[torch.tensor(missing)]).permute(0, 2, 3, 1).numpy()
    for i, pixels_HW3 in zip(missing, portraits_NHW3, strict=True):
        with atomic_file(images / _file_name(rows[i])) as temporary:
            Image.fromarray(pixels_HW3).save(temporary, "JPEG", quality=JPEG_QUALITY)


def _label_rows(subjects: Subjects, rows: range) -> list[str]:
    names = [attribute.name for attribute in ATTRIBUTES]
    values_NA = subjects.attributes_NA[:, [names.index(name) for name in COLUMNS]]
    return [
        f"{_file_name(row)} " + " ".join(" 1" if value else "-1" for value in values)
        for row, values in zip(rows, values_NA.tolist(), strict=True)
    ]


def _file_name(row: int) -> str:
    return f"{row + 1:06d}.jpg"


def _claim(folder: Path, facts: dict[str, Any], *, overwrite: bool) -> bool:
    """Prepare the folder for these faces; returns True if it already holds all of them.

    Raises:
        UsageError: the folder holds something else.
        CivaeError: the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file", hint="name a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        before = _read_facts(folder)
        if before is None:
            raise UsageError(
                f"--out {folder} is not empty and not a tree of faces written by prepare-data",
                hint="name a new or empty folder",
            )
        if overwrite:
            _remove_ours(folder)
        elif before != facts:
            raise UsageError(
                f"--out {folder} already holds other faces",
                hint="choose another folder, or replace them with --overwrite",
            )
        elif (folder / LABELS).is_file() and (folder / PARTITION).is_file():
            return True
    make_folder(folder)
    write_json(folder / _FACTS, facts | {"civae": __version__})
    make_folder(folder / IMAGES)
    for path in (folder / IMAGES).glob(".*.jpg.*.tmp"):
        path.unlink(missing_ok=True)  # left by a call that was killed
    return False


def _read_facts(folder: Path) -> dict[str, Any] | None:
    """The arguments of the earlier call that wrote `folder`, or None if there was none."""
    try:
        facts = read_json(folder / _FACTS)
    except (OSError, ValueError):
        return None
    if not isinstance(facts, dict) or "civae_faces" not in facts:
        return None
    return {key: value for key, value in facts.items() if key != "civae"}


def _remove_ours(folder: Path) -> None:
    """Delete only what a call writes; the lists go first, so that no partial tree is mistaken for a complete one."""
    try:
        for name in (LABELS, PARTITION):
            (folder / name).unlink(missing_ok=True)
        for path in (folder / IMAGES).glob("[0-9]*.jpg"):
            path.unlink()
    except OSError as error:
        raise describe_os_error(error, folder) from error
