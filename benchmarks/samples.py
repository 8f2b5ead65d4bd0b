"""Compare people from a run's prior, at several truncations, with its reconstructions and with photographs.

    python benchmarks/samples.py RUN [--data DATA] [--truncation 1,0.85,0.7,0.5] [--images 2000]

Prints one JSON object per truncation: FID and KID between the pictures and photographs of other people, on features
of the attribute scorer that `civae evaluate` would use, and how far the aggregate posterior is from the prior, which
does not depend on the truncation.
"""

import argparse
import json
from pathlib import Path

import torch

from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread, labelled_rows
from civae_core.evaluation.evaluate import default_data
from civae_core.evaluation.instruments import choose_instruments
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.samples import sample_scores
from civae_core.model.stored import load_model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="prepared data [default: the run's own]")
    parser.add_argument("--truncation", default="1,0.85,0.7,0.5", help="numbers, joined by commas")
    parser.add_argument(
        "--images", type=int, default=2_000, help="held-out images, half of them to compare with"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    stored, device = load_model(given.run), torch.device("cpu")
    data = default_data(stored) if given.data is None else PreparedData.open(given.data)
    extractor = choose_instruments(data, stored.card.roles, device).extractor
    chosen = labelled_rows(data, stored.card.roles, "test")
    chosen = chosen[evenly_spread(len(chosen), min(given.images, len(chosen)))]
    method = TrainedModel("ours", stored)
    for text in given.truncation.split(","):
        found = sample_scores(method, data, chosen, device, given.seed, extractor, float(text))
        print(json.dumps(found["samples"]), flush=True)


if __name__ == "__main__":
    main()
