"""Draw the pictures of docs/pictures.md: who is in the data, and abduct, act, predict on held-out built-in faces.

    python benchmarks/method_pictures.py RUN --out docs [--data DATA]

RUN is a run on `synthetic:faces` with the treatment Young, such as the quickstart's. Writes overlap.png and
abduction.png.

    python benchmarks/method_pictures.py RUN --pairing --out docs

RUN has paired its latent noises. Writes pairing.png: its answers without and with the pairing.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from civae_core.counterfactual import abduct, predict
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation.evaluate import default_data
from civae_core.evaluation.question import ask
from civae_core.figures.effects import effect_map
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import write_png
from civae_core.model.stored import StoredModel, load_model
from civae_core.noise_mask import noise_mask


def who_is_there(data: PreparedData, each: int = 3) -> Image.Image:
    """The first faces of each combination of Male and Young in the training split, under its share of the split."""
    rows_N = data.rows("train")
    male_N, young_N = data.column("Male")[rows_N], data.column("Young")[rows_N]
    columns = []
    for name, male in (("women", 0), ("men", 1)):
        for word, young in (("young", 1), ("old", 0)):
            found_N = rows_N[(male_N == male) & (young_N == young)]
            columns.append((f"{word} {name}: {len(found_N) / len(rows_N):.0%}", data.images(found_N[:each])))
    return image_grid(columns)


def step_by_step(stored: StoredModel, data: PreparedData, subjects: list[int]) -> Image.Image:
    """Both noises of (M5) and every part of (M6) for some subjects of the test split, with the treatment flipped."""
    model = stored.model
    question = ask(data, stored.card.roles, labelled_rows(data, stored.card.roles, "test"))[0]
    asked = question.batch(data, torch.tensor(subjects), torch.device("cpu"))
    found = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT)
    answer = predict(model, found, asked.t_new_BT)
    kept_B1HW = noise_mask(answer.effect_BCHW, model.noise_mask, model.mask_width)
    columns: list[tuple[str, Tensor]] = [
        ("photograph y", asked.y_BCHW),
        ("f(z,t): what the model knows of it", found.reconstruction.mean_BCHW),
        ("e: the rest, twice as strong", 0.5 + 2 * found.residual_BCHW),
        ("f(z',t'): the same noise, another t", answer.mean_BCHW),
        ("effect: brighter red, darker blue", torch.from_numpy(effect_map(answer.effect_BCHW)) / 255),
        ("m: where e is kept (white)", kept_B1HW),
        ("answer y'", answer.image_BCHW),
    ]
    if asked.truth_BCHW is not None:
        columns.append(("truth", asked.truth_BCHW))
    return image_grid([(title, images.clamp(0, 1)) for title, images in columns])


def without_and_with_pairing(stored: StoredModel, data: PreparedData) -> Image.Image:
    """Answers with unpaired and with paired latent noises, for men with and without beards and for women.

    The model loses its pairing.
    """
    model = stored.model
    assert model.pairing is not None
    rows = labelled_rows(data, stored.card.roles, "test")
    question = ask(data, stored.card.roles, rows)[0]
    beard_B, male_B, young_B = (data.column(name)[rows.rows_N] for name in ("Beard", "Male", "Young"))
    kinds = (
        (beard_B == 1) & (young_B == 1),
        (beard_B == 1) & (young_B == 0),
        (beard_B == 0) & (male_B == 1),
        male_B == 0,
    )
    chosen = torch.cat([kind_B.nonzero()[:2, 0] for kind_B in kinds])
    asked = question.batch(data, chosen, torch.device("cpu"))
    found = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT)
    paired = predict(model, found, asked.t_new_BT).image_BCHW
    model.pairing.forget()
    unpaired = predict(model, found, asked.t_new_BT).image_BCHW
    columns = [("photograph", asked.y_BCHW), ("noises as they come", unpaired), ("noises paired", paired)]
    if asked.truth_BCHW is not None:
        columns.append(("truth", asked.truth_BCHW))
    return image_grid([(title, images.clamp(0, 1)) for title, images in columns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="prepared data [default: what the model was trained on]")
    parser.add_argument("--subjects", type=int, nargs="+", default=[3, 4, 10, 12])
    parser.add_argument("--pairing", action="store_true", help="write pairing.png instead of the others")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    stored = load_model(arguments.run)
    data = default_data(stored) if arguments.data is None else PreparedData.open(arguments.data)
    if arguments.pairing:
        write_png(arguments.out / "pairing.png", without_and_with_pairing(stored, data))
        return
    write_png(arguments.out / "overlap.png", who_is_there(data))
    write_png(arguments.out / "abduction.png", step_by_step(stored, data, arguments.subjects))


if __name__ == "__main__":
    main()
