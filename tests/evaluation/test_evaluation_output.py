"""Where an evaluation is written: beside the page, into the run, and never only half."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from civae_core.data import PreparedData
from civae_core.errors import CivaeError
from civae_core.evaluation.evaluate import Evaluation, evaluate
from civae_core.evaluation.output import report_folder, write_evaluation
from civae_core.model.stored import StoredModel


@pytest.fixture
def evaluation(faces: PreparedData, make_stored: Callable[..., StoredModel]) -> Evaluation:
    return evaluate([make_stored()], faces, limit=4)


def test_numbers_lie_beside_the_page(evaluation: Evaluation, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    numbers = write_evaluation(evaluation, page)
    assert numbers == tmp_path / "new" / "evaluation.json"
    assert json.loads(numbers.read_text(encoding="utf-8")) == evaluation.numbers
    assert sorted(path.name for path in page.parent.iterdir()) == ["evaluation.json", "page.html"]


def test_the_page_is_whole_in_itself_and_shows_the_overlap(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=(?!"data:)|url\(|@import|<script|<link""", html)
    assert "data:image/png;base64," in html
    assert "<h2>Overlap for Young" in html
    assert evaluation.numbers["overlap"]["Young"]["verdict"] in unescape(html)
    assert "relative effect error" in html and "do(Young=flip)" in html


def test_a_folder_that_cannot_be_written_is_named(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CivaeError, match=r"cannot write .*file/evaluation\.json") as caught:
        write_evaluation(evaluation, tmp_path / "file" / "report.html")
    assert caught.value.exit_code == 1


def test_a_run_is_reported_in_whichever_part_of_it_is_named(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "young"
    step = run / "checkpoints" / "step-000000100"
    step.mkdir(parents=True)
    (step / "model.safetensors").touch()
    for part in (run, step, step / "model.safetensors", run / "checkpoints" / "last"):
        assert report_folder(part) == run


def test_a_model_on_its_own_is_reported_beside_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()  # of something else, further up
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "best.safetensors").touch()
    assert report_folder(folder / "best.safetensors") == folder
    assert report_folder(folder) == folder
