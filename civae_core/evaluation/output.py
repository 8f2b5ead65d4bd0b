"""Where an evaluation is written: numbers as JSON, and a page for people."""

from pathlib import Path

from civae_core.evaluation.evaluate import Evaluation
from civae_core.evaluation.report import render_evaluation
from civae_core.figures.pictures import write_png
from civae_core.files import write_json, write_text


def write_evaluation(evaluation: Evaluation, page: Path, figures: Path | None = None) -> Path:
    """Writes the report to `page` and evaluation.json beside it; returns the latter's path.

    Args:
        figures: a folder for the report's pictures as PNG files, too.

    Raises:
        CivaeError: the folder cannot be written.
    """
    numbers = page.with_name("evaluation.json")
    write_text(page, render_evaluation(evaluation.numbers, evaluation.pictures))
    write_json(numbers, evaluation.numbers)
    if figures is not None:
        for picture in evaluation.pictures:
            write_png(figures / f"{picture.name}.png", picture.image)
    return numbers


def report_folder(model: Path) -> Path:
    """The folder to report in: a run itself, also where one of its checkpoints or files was named."""
    if (model / "checkpoints").is_dir():
        return model
    for folder in (model, *model.parents):
        if folder.name == "checkpoints":
            return folder.parent
    return model if model.is_dir() else model.parent
