"""Single answers as files: grey stays grey."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from civae_core.inference.png import write_image


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_file_has_the_image_s_channels(tmp_path: Path, channels: int, mode: str) -> None:
    image_CHW = torch.arange(channels * 6, dtype=torch.uint8).reshape(channels, 2, 3)
    write_image(tmp_path / "image.png", image_CHW)
    with Image.open(tmp_path / "image.png") as picture:
        assert picture.mode == mode
        shown = np.asarray(picture).reshape(2, 3, channels)
    np.testing.assert_array_equal(shown, image_CHW.permute(1, 2, 0).numpy())


def test_a_file_holds_its_description_and_no_other_pixels(tmp_path: Path) -> None:
    image_CHW = torch.arange(18, dtype=torch.uint8).reshape(3, 2, 3)
    write_image(tmp_path / "plain.png", image_CHW)
    write_image(tmp_path / "told.png", image_CHW, "a note: β")
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "told.png") as told:
        assert ("Description" in plain.info, told.info["Description"]) == (False, "a note: β")
        np.testing.assert_array_equal(np.asarray(plain), np.asarray(told))
