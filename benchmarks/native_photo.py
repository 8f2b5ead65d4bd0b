"""Measure how accurately an effect is carried to a photograph's own pixels, and what that costs.

Built-in faces are rendered at 512 pixels with their true counterfactuals and shown to the model at its own size. The
effect is then carried back: repeated, interpolated, and along the photograph's edges, as `counterfactual --native`
does. The first effect is the true one at the model's size, which shows how the ways of carrying differ; with a RUN,
the second is the one that its model estimates, given the factual labels. Finally, time and memory are measured on a
photograph of 12 megapixels.

    python benchmarks/native_photo.py [RUN]
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from civae_core.counterfactual import counterfactual
from civae_core.data.images import Preprocessing, decode
from civae_core.model.stored import load_model
from civae_core.native.carry import apply_effect, effect_of
from civae_core.native.photo import Photo, png_of, read_native, write_native
from civae_core.native.placement import Placement
from civae_core.synthetic import ATTRIBUTES, FaceProcess, Subjects
from civae_core.synthetic.renderer import render

HELD_OUT = 1_000_000
"""Subjects from this number on are in no prepared data."""
LARGE = 512

Carrier = Callable[[Photo, np.ndarray, np.ndarray], np.ndarray]


def resized(filter_: Image.Resampling) -> Carrier:
    """A carrier that enlarges the effect with Pillow and adds it."""

    def carry(photo: Photo, image_CSS: np.ndarray, change_CSS: np.ndarray) -> np.ndarray:
        planes = [np.asarray(Image.fromarray(plane).resize(photo.size, filter_)) for plane in change_CSS]
        return np.clip(photo.pixels_HWC + np.rint(255 * np.stack(planes, axis=-1)), 0, 255)

    return carry


def carried(follow_edges: bool) -> Carrier:
    """The carrier of `--native`; without `follow_edges` it only interpolates."""

    def carry(photo: Photo, image_CSS: np.ndarray, change_CSS: np.ndarray) -> np.ndarray:
        placement = Placement.of_crop(Preprocessing(size=image_CSS.shape[-1]), *photo.size)
        effect = effect_of(image_CSS, change_CSS, follow_edges=follow_edges)
        return apply_effect(photo, placement, effect).pixels_HWC

    return carry


CARRIERS = {
    "nearest": resized(Image.Resampling.NEAREST),
    "bilinear": resized(Image.Resampling.BILINEAR),
    "cubic": carried(follow_edges=False),
    "along edges": carried(follow_edges=True),
}


def photos_of(subjects: Subjects) -> list[Photo]:
    """The subjects' photographs at 512 pixels."""
    images = render(subjects.noise_NK, subjects.roots, subjects.levels, LARGE)
    return [Photo(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in images]


def compare(
    title: str, photos: list[Photo], truths: list[Photo], small: list[np.ndarray], changes: list[np.ndarray]
) -> None:
    """Print a line for each carrier: the relative effect error where the truth changes, and the error elsewhere."""
    print(title)
    for name, carry in CARRIERS.items():
        relative, elsewhere = [], []
        for photo, truth, image_CSS, change_CSS in zip(photos, truths, small, changes, strict=True):
            found, true = carry(photo, image_CSS, change_CSS) / 255, truth.pixels_HWC / 255
            moved_HW = (photo.pixels_HWC != truth.pixels_HWC).any(axis=-1)
            error_HW = ((found - true) ** 2).sum(axis=-1)
            size_HW = ((photo.pixels_HWC / 255 - true) ** 2).sum(axis=-1)
            relative.append(error_HW[moved_HW].sum() / size_HW[moved_HW].sum())
            elsewhere.append(error_HW[~moved_HW].mean() / 3)
        off = f"mean squared error elsewhere {np.mean(elsewhere):.2e}"
        print(f"  {name:12s} relative effect error {np.mean(relative):.4f}   {off}")


def changes_by(run: Path, subjects: Subjects, small: list[np.ndarray]) -> list[np.ndarray]:
    """y' − y by a run's model, with each subject's treatment flipped and the labels known."""
    stored = load_model(run)
    names, roles = [a.name for a in ATTRIBUTES], stored.card.roles
    x_BX, t_BT = (
        subjects.attributes_NA.float()[:, [names.index(a.name) for a in group]]
        for group in (roles.covariates, roles.treatments)
    )
    y_BCHW = torch.from_numpy(np.stack(small)).float() / 255
    objective = stored.card.config.objective
    result = counterfactual(stored.model, y_BCHW, x_BX, t_BT, 1 - t_BT, objective=objective)
    return list((result.image_BCHW - y_BCHW).numpy())


def save_large(photo: Photo, path: Path) -> None:
    """Save a JPEG of 4000 × 3000 pixels with the grain of a sensor."""
    large = Image.fromarray(photo.pixels_HWC).resize((4000, 3000), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 3, (3000, 4000, 1))
    Image.fromarray(np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8)).save(path, quality=92)


def time_large_photo(path: Path, change_CSS: np.ndarray, size: int) -> None:
    """Print the seconds that each step takes on a photograph, and the peak memory of the process."""
    marks = [time.perf_counter()]
    image_CSS = decode(path, Preprocessing(size=size))
    read = read_native(path)
    marks.append(time.perf_counter())
    placement = Placement.of_crop(Preprocessing(size=size), *read.size)
    out = apply_effect(read, placement, effect_of(image_CSS, change_CSS))
    marks.append(time.perf_counter())
    write_native(path.with_suffix(".png"), out, "benchmark")
    marks.append(time.perf_counter())
    steps = np.diff(marks)
    print(f"{path.name}: read {steps[0]:.2f} s, carry {steps[1]:.2f} s, write {steps[2]:.2f} s")
    unit = 2**30 if sys.platform == "darwin" else 2**20
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, help="a run on synthetic:faces with treatment Young")
    parser.add_argument("--subjects", type=int, default=40)
    options = parser.parse_args()

    size = load_model(options.run).card.preprocessing["size"] if options.run else 64
    subjects = FaceProcess(seed=5).subjects(HELD_OUT, options.subjects, randomised=True)
    photos, truths = photos_of(subjects), photos_of(subjects.under({"Young": "flip"}))
    small, small_truths = (
        [decode(png_of(photo, ""), Preprocessing(size=size)) for photo in group] for group in (photos, truths)
    )
    true_changes = [
        (truth.astype(np.float32) - image) / 255 for truth, image in zip(small_truths, small, strict=True)
    ]
    compare(f"true effect of {size} pixels", photos, truths, small, true_changes)
    if options.run:
        title = f"effect estimated by {options.run}"
        compare(title, photos, truths, small, changes_by(options.run, subjects, small))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "4000x3000.jpg"
        save_large(photos[0], path)
        # In a separate process, whose peak memory is that of one photograph.
        timed = get_context("spawn").Process(target=time_large_photo, args=(path, true_changes[0], size))
        timed.start()
        timed.join()


if __name__ == "__main__":
    main()
