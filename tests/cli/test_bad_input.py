"""Bad input to every command: exit code, a message that names flag or file and value, a hint, and nothing written.

Errors of `prepare-data` on images and tables are in test_prepare_data.py, all of the config's in tests/config.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.data import PreparedData

CONFIG = """\
data:
  path: {data}
  treatment: Young
  covariates: [Male, Skin_Tone]
model:
  latent: 16
  width: 8
  stages: [1, 2, 4]
train:
  images: 64
"""


@dataclass(frozen=True)
class Place:
    """A folder with prepared data `data`, a run `run`, a config `train.yml` and a photo `photo.jpg` to spoil."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def config(self, old: str = "", new: str = "") -> Path:
        file = self.path / "train.yml"
        text = CONFIG.format(data=self.path / "data")
        assert old in text
        file.write_text(text.replace(old, new) if old else text, encoding="utf-8")
        return file

    def contents(self) -> dict[str, tuple[int, int]]:
        """Every file and folder below, with its size and time."""
        found = [Path(root) / name for root, folders, files in os.walk(self.path) for name in folders + files]
        return {
            str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) if not path.is_dir() else (0, 0)
            for path in found
        }


@pytest.fixture
def place(faces: PreparedData, trained: Path, tmp_path: Path) -> Place:
    shutil.copytree(faces.path, tmp_path / "data")
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    made = Place(tmp_path)
    made.config()
    image_CHW = faces.images(faces.rows("test")[:1])[0]
    Image.fromarray(image_CHW.permute(1, 2, 0).contiguous().numpy()).resize((96, 96)).save(
        tmp_path / "photo.jpg", quality=95
    )
    return made


Arguments = list[object]


# Configs.


def train(place: Place, *more: object) -> Arguments:
    return ["train", "--config", place / "train.yml", "--out", place / "new", *more]


def unknown_key(place: Place) -> Arguments:
    place.config("  images: 64", "  imagse: 64")
    return train(place)


def repeated_key(place: Place) -> Arguments:
    place.config("  width: 8\n", "  width: 8\n  latent: 8\n")
    return train(place)


def wrong_type(place: Place) -> Arguments:
    place.config("images: 64", "images: sixty")
    return train(place)


def treatment_and_covariate(place: Place) -> Arguments:
    place.config("[Male, Skin_Tone]", "[Male, Young]")
    return train(place)


def no_such_column(place: Place) -> Arguments:
    place.config("treatment: Young", "treatment: Jung")
    return train(place)


# Pictures.


def counterfactual(place: Place, *more: object, treat: str = "Young=0") -> Arguments:
    return ["counterfactual", *more, "--treat", treat, "--model", place / "run", "--out", place / "new"]


def truncated_jpeg(place: Place) -> Arguments:
    os.truncate(place / "photo.jpg", 900)
    return counterfactual(place, place / "photo.jpg")


def text_named_jpg(place: Place) -> Arguments:
    (place / "photo.jpg").write_text("Dear diary")
    return counterfactual(place, place / "photo.jpg")


def empty_folder(place: Place) -> Arguments:
    (place / "hollow").mkdir()
    return counterfactual(place, place / "hollow")


def only_bad_pictures(place: Place) -> Arguments:
    os.truncate(place / "photo.jpg", 900)
    (place / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(place / "photo.jpg", place / "photos" / name)
    return counterfactual(place, place / "photos")


# Models and prepared data.


def model_file(place: Place) -> Path:
    return (place / "run" / "checkpoints" / "last" / "model.safetensors").resolve()


def truncated_model(place: Place) -> Arguments:
    os.truncate(model_file(place), 5000)
    return counterfactual(place, place / "photo.jpg")


def foreign_model(place: Place) -> Arguments:
    save_file({"weight": torch.zeros(3)}, model_file(place))
    return ["sample", place / "run", "--out", place / "new"]


def text_as_model(place: Place) -> Arguments:
    return ["evaluate", place / "train.yml"]


def folder_without_model(place: Place) -> Arguments:
    return ["evaluate", place / "data"]


def model_of_another_shape(place: Place) -> Arguments:
    with safe_open(model_file(place), framework="pt") as opened:
        card = json.loads(opened.metadata()["civae"])
    card["config"]["model"]["latent"] = 8
    save_file(load_file(model_file(place)), model_file(place), {"civae": json.dumps(card)})
    return counterfactual(place, place / "photo.jpg")


def newer_model(place: Place) -> Arguments:
    save_file({"weight": torch.zeros(3)}, model_file(place), {"civae": json.dumps({"format": 99})})
    return counterfactual(place, place / "photo.jpg")


def truncated_data(place: Place) -> Arguments:
    os.truncate(place / "data" / "images-00000.safetensors", 100_000)
    return train(place)


def truncated_data_to_edit(place: Place) -> Arguments:
    os.truncate(place / "data" / "attributes.safetensors", 1_000)
    return counterfactual(place, f"{place / 'data'}#test[0]")


def foreign_data(place: Place) -> Arguments:
    shard = place / "data" / "images-00000.safetensors"
    size = shard.stat().st_size
    save_file({"weight": torch.zeros(3)}, shard)
    with shard.open("ab") as file:
        file.truncate(size)
    return ["evaluate", place / "run", "--data", place / "data"]


def not_prepared_data(place: Place) -> Arguments:
    return ["evaluate", place / "run", "--data", place / "run"]


def selection_outside(place: Place) -> Arguments:
    return counterfactual(place, f"{place / 'data'}#test[20:400]")


# Treatments.


def unknown_treatment(place: Place) -> Arguments:
    return counterfactual(place, place / "photo.jpg", treat="Yuong=0")


def covariate_as_treatment(place: Place) -> Arguments:
    return counterfactual(place, place / "photo.jpg", treat="Male=0")


def no_number(place: Place) -> Arguments:
    return counterfactual(place, place / "photo.jpg", treat="Young=fliip")


def no_treatment(place: Place) -> Arguments:
    return ["counterfactual", place / "photo.jpg", "--model", place / "run", "--out", place / "new"]


def too_many(place: Place) -> Arguments:
    return counterfactual(place, place / "photo.jpg", treat="Young=0:1:5000")


def noise_beyond_1(place: Place) -> Arguments:
    return counterfactual(place, place / "photo.jpg", "--noise", 1.5)


# Output folders.


def someone_elses(place: Place) -> Path:
    (place / "mine").mkdir()
    (place / "mine" / "thesis.tex").write_text("years of work")
    return place / "mine"


def foreign_folder_to_train_in(place: Place) -> Arguments:
    return ["train", "--config", place / "train.yml", "--out", someone_elses(place)]


def foreign_folder_to_prepare_in(place: Place) -> Arguments:
    arguments = ["--n", 20, "--size", 32, "--workers", 1, "--overwrite"]
    return ["prepare-data", "synthetic:faces", "--out", someone_elses(place), *arguments]


def below_a_file(command: Callable[[Place], Arguments]) -> Callable[[Place], Arguments]:
    """The command with its output below a regular file; permissions would not stop a superuser."""

    def make(place: Place) -> Arguments:
        arguments = command(place)
        arguments[arguments.index("--out") + 1] = place / "photo.jpg" / "new"
        return arguments

    make.__name__ = f"{command.__name__}_below_a_file"
    return make


def edit(place: Place) -> Arguments:
    return counterfactual(place, place / "photo.jpg")


def draw(place: Place) -> Arguments:
    return ["sample", place / "run", "--n", 1, "--out", place / "new"]


def draw_grid(place: Place) -> Arguments:
    return [*draw(place), "--grid", "Young=0:1:2"]


def pack(place: Place) -> Arguments:
    return [
        "prepare-data",
        "synthetic:faces",
        "--n",
        20,
        "--size",
        32,
        "--workers",
        1,
        "--out",
        place / "new",
    ]


def report(place: Place) -> Arguments:
    return ["evaluate", place / "run", "--limit", 2, "--report", place / "photo.jpg" / "page.html"]


CASES: list[tuple[Callable[[Place], Arguments], int, str, str]] = [
    (
        unknown_key,
        2,
        "{}/train.yml:10:3: train.imagse: unknown key (did you mean train.images?)",
        "config init",
    ),
    (repeated_key, 2, "{}/train.yml:8:3: model.latent: repeated key (first at line 6)", "config init"),
    (wrong_type, 2, "{}/train.yml:10:11: train.images: should be a whole number, not 'sixty'", "config init"),
    (treatment_and_covariate, 2, "'Young' cannot be both in treatment and in covariates", "config init"),
    (no_such_column, 2, "data.treatment: unknown attribute 'Jung' (did you mean Young?)", "Young, "),
    (truncated_jpeg, 3, "{}/photo.jpg: damaged image (", ""),
    (text_named_jpg, 3, "{}/photo.jpg: not an image", "JPEG, PNG"),
    (empty_folder, 2, "{}/hollow: a folder without images", ".jpg, .jpeg"),
    (only_bad_pictures, 3, "error: none of 2 pictures could be used\n", ""),
    (truncated_model, 3, "/model.safetensors: not a readable safetensors file", "may be truncated"),
    (foreign_model, 3, "/model.safetensors: a safetensors file, but not a civae model", "civae info"),
    (text_as_model, 3, "{}/train.yml: not a readable safetensors file", "another kind"),
    (folder_without_model, 3, "{}/data: contains no model.safetensors and no checkpoints/last", "run folder"),
    (model_of_another_shape, 3, "does not fit the model: ", "another configuration"),
    (newer_model, 3, "/model.safetensors: written in format 99, this version reads up to 5", "update civae"),
    (
        truncated_data,
        3,
        "{}/data/images-00000.safetensors is truncated: 100,000 of at least",
        "or delete it and prepare it again",
    ),
    (
        truncated_data_to_edit,
        3,
        "{}/data/attributes.safetensors is truncated: 1,000",
        "or delete it and prepare it again",
    ),
    (foreign_data, 3, "{}/data/images-00000.safetensors", "civae wrote"),
    (not_prepared_data, 3, "{}/run", "prepare-data"),
    (selection_outside, 2, "{}/data#test[20:400] is outside the split", "test has 30 images"),
    (unknown_treatment, 2, "--treat Yuong=0: unknown attribute 'Yuong' (did you mean Young?)", "Young"),
    (covariate_as_treatment, 2, "--treat Male=0: unknown attribute 'Male'", "known attributes: Young"),
    (no_number, 2, "--treat Young=fliip: 'fliip' is not a number", "did you mean flip?"),
    (no_treatment, 2, "--treat is missing", "--treat Young=flip"),
    (too_many, 2, "--treat Young=0:1:5000: a sweep takes 2 to 1000 steps, not 5000", ""),
    (noise_beyond_1, 2, "error: --noise 1.5: should be less than or equal to 1", "counterfactual --help"),
    (foreign_folder_to_train_in, 2, "--out {}/mine: is neither empty nor a run", "new or empty folder"),
    (
        foreign_folder_to_prepare_in,
        2,
        "--out {}/mine is not empty and was not written by prepare-data",
        "new",
    ),
    (below_a_file(train), 1, "cannot write {}/photo.jpg/new", ""),
    (below_a_file(edit), 1, "cannot write {}/photo.jpg/new: Not a directory", ""),
    (below_a_file(draw), 1, "cannot write {}/photo.jpg/new: Not a directory", ""),
    (below_a_file(draw_grid), 1, "cannot write {}/photo.jpg/new: Not a directory", ""),
    (below_a_file(pack), 1, "cannot write {}/photo.jpg/new", ""),
    (report, 1, "cannot write {}/photo.jpg", ""),
]


@pytest.mark.parametrize(
    ("make", "code", "message", "hint"), CASES, ids=[make.__name__ for make, *_ in CASES]
)
def test_bad_input(
    place: Place, make: Callable[[Place], Arguments], code: int, message: str, hint: str
) -> None:
    arguments = make(place)
    before = place.contents()
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.stderr
    assert message.format(place.path) in result.stderr
    what_to_do = result.stderr.partition("\n\nhint: ")[2]
    assert what_to_do.strip() and hint in what_to_do
    assert result.stdout == ""
    assert "Traceback" not in result.stderr and "internal error" not in result.stderr
    assert place.contents() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("command", [train, edit, draw, report], ids=lambda command: command.__name__)
def test_a_device_that_is_not_there_is_refused_and_never_replaced(
    place: Place, command: Callable[[Place], Arguments]
) -> None:
    arguments = [*command(place), "--device", "cuda"]
    before = place.contents()
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 2 and result.stdout == ""
    assert (
        "error: --device cuda: this machine has no CUDA device\n\nhint: see `civae doctor`" in result.stderr
    )
    assert place.contents() == before


def test_training_does_not_go_on_from_a_checkpoint_of_another_shape(place: Place) -> None:
    place.config("latent: 16", "latent: 8")
    checkpoint = place / "run" / "checkpoints" / "last"
    place.config("images: 64", "images: 1024")
    result = CliRunner().invoke(app, [*map(str, train(place)), "--resume", str(checkpoint)])
    assert result.exit_code == 3, result.stderr
    assert "state.safetensors: does not fit the model: " in result.stderr
    assert "has shape [" in result.stderr and "the model's is [" in result.stderr
    assert "hint: it belongs to another configuration" in result.stderr and result.stdout == ""
    assert not (place / "new").exists()


def test_with_v_the_traceback_comes_first(place: Place) -> None:
    result = CliRunner().invoke(app, [*map(str, truncated_jpeg(place)), "-v"])
    assert result.exit_code == 3
    assert 0 <= result.stderr.find("Traceback (most recent call last):") < result.stderr.find("\nerror: ")
