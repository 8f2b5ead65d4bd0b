"""Measure how reliably faces are found and brought to CelebA's template, on aligned portraits of your own.

Each portrait (178 × 218 pixels, as in CelebA) is tried twice: as it is, where the square found should be the centred
one; and pasted into a canvas of 1600 × 1200 pixels, enlarged 1 to 1.8 times and rotated by up to 25°, where the
square should be found at the place of pasting. Distances are those of the square's farthest corner, as a share of its
side. The last line gives the medians of the landmarks, which `civae_core.align.template` takes as CelebA's.

    python benchmarks/find_faces.py FOLDER
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from civae_core.align.aligner import Aligner
from civae_core.align.mtcnn import FaceFinder
from civae_core.celeba import HEIGHT, WIDTH
from civae_core.data.images import Preprocessing
from civae_core.errors import DataError
from civae_core.native.placement import Placement

CELEBA = Preprocessing(size=64, crop=150, crop_of=178)
CANVAS = (1600, 1200)


def pasted(portrait: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, complex, complex]:
    """A canvas with the portrait in it, and complex (turn, shift) such that canvas = turn · portrait + shift."""
    scale, degrees = rng.uniform(1, 1.8), rng.uniform(-25, 25)
    large = portrait.resize([round(side * scale) for side in portrait.size], Image.Resampling.LANCZOS)
    turned = large.convert("RGBA").rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    canvas = Image.new("RGBA", CANVAS, (*rng.integers(60, 200, 3).tolist(), 255))
    x, y = (int(rng.integers(0, whole - part)) for whole, part in zip(canvas.size, turned.size, strict=True))
    canvas.alpha_composite(turned, (x, y))
    turn = scale * complex(math.cos(math.radians(degrees)), -math.sin(math.radians(degrees)))
    centre = complex(x + turned.width / 2, y + turned.height / 2)
    return canvas.convert("RGB"), turn, centre - turn * complex(portrait.width / 2, portrait.height / 2)


def distance(found: Placement, wanted: list[complex], side: float) -> float:
    """Distance of the farthest corner from where it should be, as a share of the side."""
    return max(abs(complex(*at) - to) for at, to in zip(found.corners(), wanted, strict=True)) / side


def said(title: str, distances: list[float], count: int) -> None:
    """Print how many faces were found and how far off their squares are."""
    quantiles = ", ".join(f"{q:.3f}" for q in np.quantile(distances, [0.5, 0.95, 1]))
    print(f"{title}: found {len(distances)} of {count}; off by {quantiles} of the side (median, 95 %, most)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0, help="portraits to leave out, in the order of names")
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()

    files = sorted(options.folder.glob("*.jpg"))[options.first :][: options.count]
    aligner = Aligner(CELEBA, "largest", only_where_needed=False)
    as_needed = Aligner(CELEBA, "largest", only_where_needed=True)
    finder, rng = FaceFinder(), np.random.default_rng(0)
    square = Placement.of_crop(CELEBA, WIDTH, HEIGHT)
    corners = [complex(*corner) for corner in square.corners()]
    plain: list[float] = []
    canvases: list[float] = []
    landmarks, left_alone, seconds = [], 0, 0.0
    for file in files:
        with Image.open(file) as opened:
            portrait = opened.convert("RGB")
        started = time.process_time()
        faces = finder.find(portrait)
        seconds += time.process_time() - started
        if faces:
            landmarks.append(faces[0].landmarks_52)
            plain.append(distance(aligner.views(file)[0].placement, corners, square.side))
            left_alone += not as_needed.views(file)
        canvas, turn, shift = pasted(portrait, rng)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "canvas.png"
            canvas.save(path, compress_level=1)
            try:
                (view,) = aligner.views(path)
            except DataError:
                continue
        wanted = [turn * corner + shift for corner in corners]
        canvases.append(distance(view.placement, wanted, abs(turn) * square.side))
    said("as they are", plain, len(files))
    print(
        f"  {left_alone} are left alone by --align auto; {1000 * seconds / len(files):.0f} ms of one core each"
    )
    said("in canvases", canvases, len(files))
    print("median landmarks", np.median(landmarks, axis=0).round(1).tolist())


if __name__ == "__main__":
    main()
