"""Write one answer as one PNG file, with as many channels as the model has."""

from pathlib import Path

from civae_core.figures.pictures import Images, to_picture, write_png


def write_image(path: Path, image_CHW: Images, description: str | None = None) -> None:
    """Write an image, uint8 or float in [0, 1], as a grey PNG if C is 1 and as a colour PNG if it is 3.

    Args:
        description: a line about the image that is stored in the file.

    Raises:
        CivaeError: the folder cannot be written, or the disk is full.
    """
    picture = to_picture(image_CHW)
    write_png(path, picture.convert("L") if image_CHW.shape[0] == 1 else picture, description)
