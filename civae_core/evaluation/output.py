"""Write an evaluation to files: the numbers as JSON, and a page for people."""

from pathlib import Path

from civae_core.errors import UsageError
from civae_core.evaluation.evaluate import Evaluation
from civae_core.evaluation.report import render_evaluation
from civae_core.figures.pictures import write_png
from civae_core.file_names import EVALUATION, REPORT_PAGE
from civae_core.files import make_folder, write_json, write_text


def prepare_output(page: Path, figures: Path | None = None) -> None:
    """Make the folders for `write_evaluation`; called before the work, since they may not be writable.

    Raises:
        UsageError: the page is a folder, or has the name of the numbers' file beside it.
        CivaeError: a folder cannot be written.
    """
    if page.is_dir():
        raise UsageError(f"--report {page}: is a folder", hint=f"name a page, as in {page / REPORT_PAGE}")
    if page.name == EVALUATION:
        raise UsageError(
            f"--report {page}: the numbers are written there", hint="name a page, as in report.html"
        )
    for folder in (page.parent, *([figures] if figures else [])):
        make_folder(folder)


def write_evaluation(evaluation: Evaluation, page: Path, figures: Path | None = None) -> Path:
    """Write the report to `page` and evaluation.json beside it; return the latter's path.

    The numbers are written last, and even if writing the page fails.

    Args:
        figures: a folder in which to save the report's pictures as PNG files, too.

    Raises:
        CivaeError: the folder cannot be written.
    """
    numbers = page.with_name(EVALUATION)
    try:
        write_text(page, render_evaluation(evaluation.numbers, evaluation.pictures))
        if figures is not None:
            for picture in evaluation.pictures:
                write_png(figures / f"{picture.name}.png", picture.image)
    finally:
        write_json(numbers, evaluation.numbers)
    return numbers


def report_folder(model: Path) -> Path:
    """The folder for the report: the run's own, also where one of its checkpoints or files was named."""
    if (model / "checkpoints").is_dir():
        return model
    for folder in (model, *model.parents):
        if folder.name == "checkpoints":
            return folder.parent
    return model if model.is_dir() else model.parent
