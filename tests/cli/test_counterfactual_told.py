"""civae counterfactual: what it says where an answer would surprise whoever asked."""

from pathlib import Path

import numpy as np
import pytest
from asking import civae, pixels, records
from PIL import Image

from civae_core.align import aligner
from civae_core.align.mtcnn import Face
from civae_core.align.template import LANDMARKS_52

STATED = ("--attr", "Male=1", "--attr", "Skin_Tone=0.25")


class Finder:
    """Finds the faces that it is given."""

    faces: tuple[Face, ...] = ()

    def find(self, photo: Image.Image) -> list[Face]:
        return list(self.faces)


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> type[Finder]:
    """A stand-in for the detector, with a model that counts as trained on CelebA's portraits."""
    monkeypatch.setattr(aligner, "FaceFinder", Finder)
    monkeypatch.setattr(aligner, "is_installed", lambda: True)
    monkeypatch.setattr(aligner, "_of_portraits", lambda preprocessing: True)
    monkeypatch.setattr(Finder, "faces", ())
    return Finder


@pytest.mark.usefixtures("sure")
def test_a_photograph_that_is_predicted_to_be_so_already_comes_back_and_says_why(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    photo = photo_files / "0.png"
    arguments = (photo, "--model", trained, *STATED, "--align", "never", "--out", tmp_path / "out")
    (record,) = records(civae(*arguments, "--treat", "Young=flip")[1])
    is_, other = record["factual"]["Young"], record["treat"]["Young"]
    code, stdout, stderr = civae(*arguments, "--treat", f"Young={is_:g}")
    (record,) = records(stdout)
    assert code == 0 and np.array_equal(pixels(record["output"]), pixels(photo))
    assert f"warning: {photo}: Young is predicted to be {is_:g} already, so nothing is changed" in stderr
    assert "--attr Young=…" in stderr
    assert "already" not in civae(*arguments, "--treat", f"Young={other:g}")[2]
    assert "already" not in civae(*arguments, "--treat", f"Young={is_:g}", "--attr", f"Young={is_:g}")[2]


@pytest.mark.usefixtures("sure")
def test_of_many_such_photographs_three_are_named(trained: Path, photo_files: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4, 5):
        (photo_files / f"{number}.png").write_bytes((photo_files / "0.png").read_bytes())
    arguments = (photo_files, "--model", trained, *STATED, "--align", "never", "--out", tmp_path / "out")
    (record, *_) = records(civae(*arguments, "--treat", "Young=flip")[1])
    stderr = civae(*arguments, "--treat", f"Young={record['factual']['Young']:g}")[2]
    assert stderr.count("so nothing is changed") == 3
    assert "nothing is changed in 3 more pictures" in stderr


def test_no_face_is_told_of_once(
    trained: Path, photo_files: Path, tmp_path: Path, finder: type[Finder]
) -> None:
    arguments = (photo_files, "--model", trained, *STATED, "--attr", "Young=1", "--treat", "Young=0")
    code, stdout, stderr = civae(*arguments, "--out", tmp_path / "out")
    assert code == 0 and len(records(stdout)) == 3, "the centred squares are answered"
    said = f"warning: {photo_files / '0.png'}, and 2 more: no face found; the centred square is used as it is"
    assert said in stderr and stderr.count("no face found") == 1
    assert "no face found" not in civae(*arguments, "--align", "never", "--out", tmp_path / "out")[2]


def test_warnings_name_the_face_that_they_are_about(
    trained: Path, tmp_path: Path, finder: type[Finder], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [(40.0, 60.0, 140.0, 180.0), (340.0, 60.0, 440.0, 180.0)]
    faces = tuple(Face(0.99, box, LANDMARKS_52 + np.array([box[0] - 40, 0.0])) for box in boxes)
    monkeypatch.setattr(finder, "faces", faces)
    Image.new("RGB", (600, 300), "teal").save(tmp_path / "two.png")
    arguments = (tmp_path / "two.png", "--model", trained, "--treat", "Young=0", "--face", "all")
    stderr = civae(*arguments, "--out", tmp_path / "out")[2]
    assert "two.png, face 1: unsure of" in stderr and "two.png, face 2: unsure of" in stderr
