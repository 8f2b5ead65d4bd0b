"""Sheets, strips and effect maps: geometry, colours, marks and files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from civae_core.errors import CivaeError
from civae_core.figures.effects import effect_grid, effect_map
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import as_uint8, png_bytes, to_picture, write_png
from civae_core.figures.strips import strip
from civae_core.figures.text import WARNING_INK, Typesetter


def plain(count: int, colour: tuple[int, int, int], size: int = 32) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(count, 3, size, size)


def pixels_of(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == colour).all(axis=2).sum())


def test_floats_are_clamped_and_rounded_to_bytes() -> None:
    floats = torch.tensor([-0.5, 0.0, 0.5, 1.0, 7.0, torch.nan])
    assert as_uint8(floats).tolist() == [0, 0, 128, 255, 255, 0]
    with pytest.raises(TypeError, match="int64"):
        as_uint8(torch.zeros(2, dtype=torch.int64))


def test_arrays_are_drawn_as_tensors_are() -> None:
    floats = np.array([-0.5, 0.0, 0.5, 1.0, 7.0, np.nan, np.inf, -np.inf], dtype=np.float32)
    assert as_uint8(floats).tolist() == as_uint8(torch.from_numpy(floats)).tolist()
    assert as_uint8(torch.tensor([0.2], dtype=torch.bfloat16)).tolist() == [51]
    image_CHW = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    for channels in (1, 3):
        array, tensor = image_CHW[:channels], torch.from_numpy(image_CHW[:channels])
        assert to_picture(array).tobytes() == to_picture(tensor).tobytes()
        columns = [image_grid([("a", images)]) for images in (array[None], tensor[None])]
        assert columns[0].tobytes() == columns[1].tobytes()


def test_grid_shows_every_cell_magnified() -> None:
    sheet = image_grid([("red", plain(3, (255, 0, 0))), ("green", plain(3, (0, 255, 0)))], ["a", "b", "c"])
    assert pixels_of(sheet, (255, 0, 0)) == pixels_of(sheet, (0, 255, 0)) == 3 * 128 * 128
    small = image_grid([("red", plain(3, (255, 0, 0)))], scale=1)
    assert pixels_of(small, (255, 0, 0)) == 3 * 32 * 32
    assert pixels_of(small, (255, 255, 255)) > 0


def test_grid_takes_grey_floats_and_keeps_large_images() -> None:
    sheet = image_grid([("grey", torch.full((1, 1, 200, 200), 0.2))])
    assert pixels_of(sheet, (51, 51, 51)) == 200 * 200


def test_long_titles_are_broken_and_a_wide_word_widens_its_column() -> None:
    images = plain(1, (0, 0, 0), 16)
    short, long = (
        image_grid([("a", images)], scale=4),
        image_grid([("several words in a title", images)], scale=4),
    )
    assert long.height > short.height
    assert image_grid([("unbreakable-" * 4, images)], scale=4).width > short.width
    assert all(Typesetter().width(line) <= 80 for line in Typesetter().broken("several words in a title", 80))


def test_grid_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="'truth'"):
        image_grid([("original", plain(2, (0, 0, 0))), ("truth", plain(3, (0, 0, 0)))])
    with pytest.raises(ValueError, match="1 row labels for 2 rows"):
        image_grid([("original", plain(2, (0, 0, 0)))], ["only one"])
    with pytest.raises(ValueError, match="2 marks for 1 columns"):
        image_grid([("original", plain(2, (0, 0, 0)))], marks=[True, False])
    with pytest.raises(ValueError, match="at least one column"):
        image_grid([])


def test_strip_marks_doses_outside_the_training_range() -> None:
    images, labels = plain(3, (10, 20, 30)), ["Young=0", "Young=1", "Young=3"]
    inside = strip(images, labels)
    marked = strip(images, labels, [False, False, True], title="face.png")
    assert pixels_of(inside, WARNING_INK) == 0
    assert pixels_of(marked, WARNING_INK) > 500
    assert pixels_of(inside, (10, 20, 30)) == pixels_of(marked, (10, 20, 30)) == 3 * 128 * 128
    assert marked.height > inside.height  # the note that explains the frame
    longer = strip(images, labels, [False, False, True], beyond="as at the nearest dose that was ever seen")
    assert longer.width > strip(images, labels, [False, False, True]).width, "the note says what it is told"
    with pytest.raises(ValueError, match="3 images, 2 labels"):
        strip(images, labels[:2])


def test_effect_map_is_blue_white_red() -> None:
    delta = torch.zeros(1, 3, 1, 3)
    delta[..., 0], delta[..., 2] = -0.2, 0.1
    colours = effect_map(delta, limit=0.1)[0, :, 0].T.tolist()
    (blue, white, red) = colours
    assert blue[2] > blue[0] and red[0] > red[2]
    assert white == [255, 255, 255]
    assert np.array_equal(effect_map(delta), effect_map(delta.numpy(), limit=0.2))
    assert effect_map(torch.zeros(1, 3, 2, 2)).min() == 255


def test_effect_grid_shares_one_scale() -> None:
    weak, strong = torch.full((1, 3, 32, 32), 0.1), torch.full((1, 3, 32, 32), 0.4)
    sheet = effect_grid([("weak", weak), ("strong", strong)], ["face"])
    full, quarter = (tuple(effect_map(delta, 0.4)[0, :, 0, 0].tolist()) for delta in (strong, weak))
    assert pixels_of(sheet, full) >= 128 * 128  # type: ignore[arg-type]
    assert pixels_of(sheet, quarter) >= 128 * 128  # type: ignore[arg-type]


def test_png_files_are_whole_and_their_folder_named_when_it_is_not_writable(tmp_path: Path) -> None:
    picture = image_grid([("red", plain(1, (255, 0, 0)))])
    write_png(tmp_path / "deep" / "grid.png", picture)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["grid.png"]
    assert Image.open(tmp_path / "deep" / "grid.png").size == picture.size
    assert png_bytes(picture).startswith(b"\x89PNG")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CivaeError, match="cannot write"):
        write_png(tmp_path / "file" / "grid.png", picture)
