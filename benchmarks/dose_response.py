"""Measure how a model responds to increasing doses of a treatment, within the training range and beyond it.

    python benchmarks/dose_response.py RUN [--split test] [--limit 256] [--scorer FILE]

The data of RUN must have the truth at two or more doses of a treatment (configs/faces-age.yml). Prints the entry that
`civae_core.evaluation.doses.dose_scores` describes, which compares with that truth, for the model and for copying
the input.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from civae_core.data.labelled import labelled_rows
from civae_core.evaluation.doses import MOST_IMAGES, dose_scores, known_doses
from civae_core.evaluation.evaluate import default_data
from civae_core.evaluation.methods import CopyInput, TrainedModel
from civae_core.model.stored import load_model
from civae_core.progress import set_quiet
from civae_core.yardstick.stored import load_yardstick


def text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['mean']:.3f} [{value['lo']:.3f}, {value['hi']:.3f}]"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", choices=["train", "valid", "test"], default="test")
    parser.add_argument("--limit", type=int, default=MOST_IMAGES)
    parser.add_argument("--scorer", type=Path)
    args = parser.parse_args()
    set_quiet(True)
    stored = load_model(args.run)
    data, roles = default_data(stored), stored.card.roles
    scorer = None if args.scorer is None else load_yardstick(args.scorer)
    found = known_doses(data, roles, labelled_rows(data, roles, args.split), args.limit)
    if not found:
        parser.error(f"{data.path} has no known truth at two doses of a treatment of {args.run}")
    for known in found:
        for method in (TrainedModel("model", stored), CopyInput()):
            entry = dose_scores(method, known, data, torch.device("cpu"), 0, scorer)
            curve = entry.pop("curve", {})
            print(f"{known.treatment.name}, {method.name}")
            for name, value in entry.items():
                print(f"  {name:17s} {text(value)}")
            for dose, point in curve.items():
                print(f"  {dose:>9s}  " + "  ".join(f"{name} {text(v)}" for name, v in point.items()))


if __name__ == "__main__":
    main()
