"""Measure how often `counterfactual` says `unfamiliar`: of held-out images, of spoiled ones, and of other pictures.

The images are from the test split of the data that the run was trained on. Their labels are not used: as for
photographs from outside, the predictor fills them in.

    python benchmarks/unfamiliar.py RUN [--photos FOLDER]
"""

import argparse
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from civae_core.engine.base import Engine
from civae_core.evaluation.evaluate import default_data
from civae_core.figures.pictures import to_picture
from civae_core.inference.edit import BATCH, abduct_pictures
from civae_core.inference.pictures import Picture, Pictures
from civae_core.inference.torch_engine import TorchEngine
from civae_core.model.stored import load_model

Spoil = Callable[[Image.Image], Image.Image]


def shifted(share: float) -> Spoil:
    """Shift downwards by a share of the side; what leaves at the bottom comes in at the top."""
    return lambda image: Image.fromarray(np.roll(np.asarray(image), round(share * image.height), axis=0))


def turned(degrees: float) -> Spoil:
    """Rotate about the centre, over the colour of the top left corner."""
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=image.getpixel((0, 0)))


def enlarged(factor: float) -> Spoil:
    """Enlarge the centre of the picture to the size of the whole."""

    def spoil(image: Image.Image) -> Image.Image:
        edge = image.width * (1 - 1 / factor) / 2
        box = (edge, edge, image.width - edge, image.height - edge)
        return image.resize(image.size, Image.Resampling.BICUBIC, box=box)

    return spoil


def compressed(quality: int) -> Spoil:
    """Write to a JPEG file of the given quality and read it back."""

    def spoil(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return spoil


SPOILED: dict[str, Spoil] = {
    "as they are": lambda image: image,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "at 40 % of their brightness": lambda image: image.point(lambda value: value * 0.4),
    "blurred by 1.5 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "JPEG of quality 20": compressed(20),
    "shifted by 1/16": shifted(1 / 16),
    "shifted by 1/8": shifted(1 / 8),
    "turned by 20°": turned(20),
    "enlarged 1.25 times": enlarged(1.25),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "negative": lambda image: image.point(lambda value: 255 - value),
}


def as_picture(image: Image.Image, name: str) -> Picture:
    """A picture without known attributes."""
    return Picture(name, name, np.asarray(image).transpose(2, 0, 1).copy())


def said(kind: str, engine: Engine, pictures: Iterator[Picture]) -> None:
    """Print one line: how many pictures are beyond the limit, and by which factors (least, median, largest)."""
    found: list[float | None] = []
    while batch := list(islice(pictures, BATCH)):
        found += abduct_pictures(engine, batch, {}).unfamiliar
    beyond = [factor for factor in found if factor is not None]
    factors = ", ".join(f"{value:.2f}" for value in np.quantile(beyond, [0, 0.5, 1])) if beyond else "–"
    share = len(beyond) / max(len(found), 1)
    print(f"{kind:<30} {len(beyond):>4} of {len(found):>4} ({share:>6.1%})  factors {factors}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--photos", type=Path, help="a folder of photographs of another kind")
    parser.add_argument("--n", type=int, default=1000, help="held-out images; a tenth of them is spoiled")
    options = parser.parse_args(arguments)
    stored = load_model(options.run)
    known = stored.card.familiarity
    if known is None or stored.card.preprocessing["channels"] != 3:
        parser.error(f"{options.run}: stores no errors of held-out images, or is grey")
    print(f"{known.images} {known.split} images: median {known.median:.5f}, limit {known.limit:.5f}")
    engine, data = TorchEngine(stored), default_data(stored)
    rows = data.rows("test")[: options.n]
    for kind, spoil in SPOILED.items():
        chosen = rows if kind == "as they are" else rows[: max(1, options.n // 10)]
        images = (to_picture(data.images(row[None])[0].float() / 255) for row in chosen)
        said(kind, engine, (as_picture(spoil(image), kind) for image in images))
    rng, size = np.random.default_rng(0), data.size
    flat = (np.full((3, size, size), rng.integers(0, 256, (3, 1, 1)), dtype=np.uint8) for _ in range(50))
    noise = (rng.integers(0, 256, (3, size, size), dtype=np.uint8) for _ in range(50))
    for kind, arrays in (("one colour", flat), ("noise", noise)):
        said(kind, engine, (Picture(kind, kind, pixels_CHW) for pixels_CHW in arrays))
    if options.photos:
        found = Pictures([str(options.photos)], engine.preprocessing)
        said("photographs", engine, (entry for entry in found if isinstance(entry, Picture)))


if __name__ == "__main__":
    main()
