"""civae counterfactual --native: photographs of their own size come out, untouched where nothing changes."""

from pathlib import Path

import numpy as np
import pytest
from asking import civae, records
from PIL import Image, ImageOps

from civae_core.align.mtcnn import is_installed
from civae_core.data import PreparedData

STATED = ("--attr", "Young=1", "--attr", "Male=1")


@pytest.fixture
def photo(faces: PreparedData, tmp_path: Path) -> Path:
    """A portrait of 200 × 260 pixels, stored on its side with an EXIF orientation."""
    face_HWC = faces.images(faces.rows("test")[:1])[0].permute(1, 2, 0).contiguous().numpy()
    large = Image.fromarray(face_HWC).resize((200, 200), Image.Resampling.BICUBIC)
    portrait = Image.new("RGB", (200, 260), "teal")
    portrait.paste(large, (0, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "phone.jpg"
    portrait.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    return path


def upright(path: Path | str) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(path)))


def test_a_sweep_writes_photographs_of_the_inputs_size(trained: Path, photo: Path, tmp_path: Path) -> None:
    arguments = (photo, "--model", trained, "--treat", "Young=0:1:3", *STATED)
    code, stdout, stderr = civae(*arguments, "--native", "--out", tmp_path / "out")
    assert (code, stderr) == (0, "")
    small = records(civae(*arguments, "--out", tmp_path / "out")[1])
    found = records(stdout)
    for record, other in zip(found, small, strict=True):
        assert record.keys() == other.keys(), "the keys are those of the model's size"
        assert record | {"output": ""} == other | {"output": ""}
        assert record["output"] != other["output"], "neither replaces the other"
    original = upright(photo)
    assert original.shape == (260, 200, 3)
    out = [upright(record["output"]) for record in found]
    assert all(image.shape == (260, 200, 3) for image in out)
    assert [np.array_equal(image, original) for image in out] == [False, False, True], "Young=1 is so already"
    for image in out:
        assert np.array_equal(image[:30], original[:30]) and np.array_equal(image[230:], original[230:])


def test_what_comes_out_shows_the_models_answer(trained: Path, photo: Path, tmp_path: Path) -> None:
    """Shrunk to the model's size, the photograph equals the picture that is written without --native."""
    arguments = (photo, "--model", trained, "--treat", "Young=0", *STATED, "--strength", 3)
    (small,) = records(civae(*arguments, "--out", tmp_path / "out")[1])
    (large,) = records(civae(*arguments, "--native", "--out", tmp_path / "out")[1])
    answer = np.asarray(Image.open(small["output"])).astype(int)
    image, before = (
        np.asarray(
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.LANCZOS, box=(0, 30, 200, 230))
        ).astype(int)
        for pixels in (upright(large["output"]), upright(photo))
    )
    inside = slice(4, 28)  # above and below the effect fades
    assert np.abs(image - answer)[inside].mean() < 0.15 * np.abs(before - answer)[inside].mean()


@pytest.mark.skipif(not is_installed(), reason="the extra `align` is not installed")
def test_a_face_anywhere_in_a_photograph_is_found_and_changed_there(trained: Path, tmp_path: Path) -> None:
    """A photograph of scikit-image twice in a large canvas, once small and turned."""
    from skimage import data

    astronaut = Image.fromarray(data.astronaut()).crop((90, 0, 360, 250))
    canvas = Image.new("RGBA", (1000, 500), "seagreen")
    canvas.alpha_composite(
        astronaut.convert("RGBA").rotate(20, Image.Resampling.BICUBIC, expand=True), (40, 60)
    )
    canvas.alpha_composite(astronaut.resize((405, 375)).convert("RGBA"), (550, 80))
    canvas.convert("RGB").save(tmp_path / "two.png")
    stated = ("--attr", "Young=1", "--attr", "Male=0", "--attr", "Skin_Tone=0.4", "--strength", 5)
    arguments = (tmp_path / "two.png", "--model", trained, "--treat", "Young=0", *stated, "--native")
    aligned = (*arguments, "--align", "always", "--out", tmp_path / "out")

    code, stdout, stderr = civae(*aligned)
    (record,) = records(stdout)
    assert code == 0 and "largest of 2 faces" in stderr
    assert 550 < record["face"][0] < record["face"][2] < 955 and Path(record["output"]).stem.startswith(
        "two-face2"
    )
    original = upright(tmp_path / "two.png").astype(int)
    moved = np.abs(upright(record["output"]) - original).max(axis=-1)
    assert (moved[:, :450] == 0).all(), "the other face"
    assert (moved[100:400, 600:900] > 2).mean() > 0.3

    both = records(civae(*aligned, "--face", "all")[1])
    assert [Path(found["output"]).stem[:9] for found in both] == ["two-face1", "two-face2"]
    left = np.abs(upright(both[0]["output"]) - original).max(axis=-1)
    assert (left[:, 550:] == 0).all() and (left[100:350, 100:350] > 2).mean() > 0.3
    assert "face" not in records(civae(*arguments, "--align", "never", "--out", tmp_path / "out")[1])[0]
    code, _, stderr = civae(*aligned, "--face", "3")
    assert code == 3 and "--face 3, but only 2 found" in stderr


def test_the_file_says_what_it_is(trained: Path, photo: Path, tmp_path: Path) -> None:
    arguments = (photo, "--model", trained, "--treat", "Young=0", *STATED, "--strength", 2)
    (record,) = records(civae(*arguments, "--native", "--out", tmp_path / "out")[1])
    assert Path(record["output"]).name == "phone__Young=0__strength=2__native.png"
    note = Image.open(record["output"]).text["Description"]
    assert (
        note == "Counterfactual estimated by civae: Young=0 instead of Young=1, noise=1, strength=2, "
        "within what training saw; not a photograph"
    )


def test_a_photograph_that_cannot_be_kept_costs_only_itself(
    trained: Path, photo: Path, tmp_path: Path
) -> None:
    Image.new("CMYK", (40, 40)).save(tmp_path / "print.jpg")
    arguments = ("--model", trained, "--treat", "Young=0", "--out", tmp_path / "out", "--native")
    code, stdout, stderr = civae(tmp_path / "print.jpg", photo, *arguments)
    assert code == 3
    assert [record["input"] for record in records(stdout)] == [str(photo)]
    assert "CMYK" in stderr and "1 of 2 pictures" in stderr
    code, stdout, stderr = civae(tmp_path / "print.jpg", *arguments)
    assert (code, stdout) == (3, "")
    assert "print.jpg: CMYK pixels" in stderr and "hint: convert it to 8-bit RGB" in stderr


def test_what_does_not_go_with_it_is_refused(
    trained: Path, photo: Path, faces: PreparedData, tmp_path: Path
) -> None:
    arguments = ("--model", trained, "--treat", "Young=0", "--out", tmp_path / "out", "--native")
    code, _, stderr = civae(photo, *arguments, "--strip")
    assert code == 2 and "--strip and --native" in stderr
    code, _, stderr = civae(f"{faces.path}#test[0:2]", *arguments)
    assert code == 2 and "#test[0] is prepared data" in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not is_installed(), reason="the extra `align` is not installed")
def test_prepared_images_have_no_face_to_choose(
    trained: Path, photo: Path, faces: PreparedData, tmp_path: Path
) -> None:
    prepared = f"{faces.path}#test[0]"
    arguments = (prepared, "--model", trained, "--treat", "Young=0", "--out", tmp_path / "out")
    for choice in (("--align", "always"), ("--face", "7"), ("--face", "largest")):
        for pictures in ((), (photo,)):
            code, stdout, stderr = civae(*pictures, *arguments, *choice)
            assert (code, stdout) == (2, "")
            assert (
                f"error: {' '.join(choice)}: {prepared} is prepared data, which has no photograph" in stderr
            )
            assert "hint: name the photographs' own files" in stderr
    assert not (tmp_path / "out").exists()
    for choice in ((), ("--align", "auto"), ("--align", "never")):
        code, _, stderr = civae(*arguments, *choice)
        assert code == 0 and "prepared" not in stderr
