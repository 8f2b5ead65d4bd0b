"""Fits the pairing of latent noises to a trained model, and writes the model that has it.

    python benchmarks/fit_pairing.py RUN OUT.safetensors [--data DATA] [--steps 400]

Any model with `prior: xt` will do. Its weights stay; learned is the rotation R of (M6) under which counterfactuals of
training images keep the contours of their reconstruction (`civae_core.penalties.pairing`), by Adam at a rate of 0.005
and 32 images a step. No true counterfactual is seen. `civae evaluate OUT.safetensors` scores what comes of it.

Prints one JSON object a line: steps done, and the mean difference of contours since the last line.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation.evaluate import default_data
from civae_core.files import atomic_file
from civae_core.model import IntactVAE
from civae_core.model.stored import ModelCard, StoredModel, load_model, save_model
from civae_core.penalties.pairing import pairing_loss
from civae_core.randomness import generator_for

BATCH, RATE = 32, 0.005


def with_pairing(stored: StoredModel) -> tuple[IntactVAE, ModelCard]:
    """The same weights in a model that pairs noises, as yet by the identity, and its card."""
    settings = stored.card.config
    paired = settings.model.model_copy(update={"pairing": "contours"})
    card = replace(stored.card, config=settings.model_copy(update={"model": paired}))
    model = card.build().eval()
    weights = {k: v for k, v in stored.model.state_dict().items() if not k.startswith("pairing.")}
    model.load_state_dict(weights, strict=False)
    return model, card


def fit(model: IntactVAE, data: PreparedData, roles: AttributeRoles, steps: int) -> None:
    assert model.pairing is not None
    chosen = labelled_rows(data, roles, "train")
    optimizer = torch.optim.Adam(model.pairing.parameters(), RATE)
    generator = generator_for(0, "pairing")
    noise_BZ = torch.zeros(BATCH, model.latent)
    total = 0.0
    for step in range(1, steps + 1):
        rows = torch.randint(len(chosen), (BATCH,), generator=generator)
        y_BCHW, x_BX, t_BT = chosen[rows].read(data, torch.device("cpu"))
        with torch.no_grad():
            output = model(y_BCHW, x_BX, t_BT, noise_BZ)
        z_BZ = output.posterior.mean_BZ
        loss = pairing_loss(model, output, x_BX, t_BT, z_BZ, roles.treatments, share=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if step % 50 == 0:
            print(json.dumps({"steps": step, "difference_of_contours": round(total / 50, 5)}), flush=True)
            total = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, help="prepared images; left out, those it was trained on")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    stored = load_model(options.run, torch.device("cpu"))
    model, card = with_pairing(stored)
    if model.pairing is None:
        parser.error(f"{options.run}: its prior or its network leaves no noise to pair (see model.pairing)")
    data = default_data(stored) if options.data is None else PreparedData.open(options.data)
    fit(model, data, card.roles, options.steps)
    with atomic_file(options.out) as unfinished:
        save_model(model, card, unfinished)


if __name__ == "__main__":
    main()
