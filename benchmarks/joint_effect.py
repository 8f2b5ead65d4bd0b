"""Is do(Young, Male) one answer or two edits pasted together? Compare a model of both treatments with the truth.

    python benchmarks/joint_effect.py RUN [--split test] [--limit 500]

RUN needs two or more treatments, and data with the truth for setting two of them together and each of them alone
(configs/faces-joint.yml). Prints the relative effect error against the joint truth (copy = 1), with 95 % intervals
over subjects:

    at once   the model's answer to both
    pasted    y + (y'_1 − y) + (y'_2 − y): the effects of its answers to each alone, added
    in turn   its answer to the second treatment, about the picture that its answer to the first gave
    truths    the two true pictures, pasted in the same way: what adding costs even if each effect is known

The last column covers the subjects in whom the two truly interact most: the tenth with the largest error of `truths`.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread, labelled_rows
from civae_core.evaluation.asked import Asked
from civae_core.evaluation.bootstrap import bootstrap_ratio
from civae_core.evaluation.evaluate import default_data
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.metrics import effect_terms
from civae_core.evaluation.question import Question, ask, direction
from civae_core.model.stored import load_model

BATCH = 64


def triples(questions: list[Question]) -> list[tuple[Question, Question, Question]]:
    """Each joint question of two treatments, with the two that set one of them alike for the same subjects."""
    found = []
    for both in questions:
        alone = [q for q in questions if len(q.do) == 1 and q.do.items() <= both.do.items()]
        same = all(q.chosen.rows_N.equal(both.chosen.rows_N) for q in alone)
        if len(both.do) == 2 and len(alone) == 2 and same:
            found.append((both, alone[0], alone[1]))
    return found


def pasted(y_BCHW: Tensor, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
    return y_BCHW + (first_BCHW - y_BCHW) + (second_BCHW - y_BCHW)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", choices=["train", "valid", "test"], default="test")
    parser.add_argument("--limit", type=int, default=500)
    args = parser.parse_args()
    stored = load_model(args.run)
    data, roles, model = default_data(stored), stored.card.roles, TrainedModel("model", stored)
    rows = labelled_rows(data, roles, args.split)
    found = triples(ask(data, roles, rows[evenly_spread(len(rows), args.limit)]))
    if not found:
        parser.error(f"{data.path} has no joint truth together with both single ones for the same subjects")
    for both, first, second in found:
        report(both, first, second, model, data)


def report(
    both: Question, first: Question, second: Question, model: TrainedModel, data: PreparedData
) -> None:
    errors: dict[str, list[Tensor]] = {}
    for items in torch.arange(len(both.chosen)).split(BATCH):
        asked, *alone = [q.batch(data, items, torch.device("cpu")) for q in (both, first, second)]
        truth_BCHW, (one, two) = asked.truth_BCHW, alone
        assert truth_BCHW is not None and one.truth_BCHW is not None and two.truth_BCHW is not None
        answer_one, answer_two = (model.answer(q).with_noise_BCHW.clamp(0, 1) for q in alone)
        # The second step starts from the first one's result: its picture, with its treatments as the factual ones.
        then = Asked(
            asked.rows_B,
            answer_one,
            asked.x_BX,
            one.t_new_BT,
            asked.t_new_BT,
            direction(one.t_new_BT, asked.t_new_BT),
        )
        answers = {
            "at once": model.answer(asked).with_noise_BCHW,
            "pasted": pasted(asked.y_BCHW, answer_one, answer_two),
            "in turn": model.answer(then).with_noise_BCHW,
            "truths": pasted(asked.y_BCHW, one.truth_BCHW, two.truth_BCHW),
        }
        for name, answer_BCHW in answers.items():
            terms = effect_terms(asked.y_BCHW, answer_BCHW.clamp(0, 1), truth_BCHW)
            errors.setdefault(name, []).append(terms.error_N)
        errors.setdefault("size", []).append(terms.size_N)
    by_name = {name: torch.cat(parts) for name, parts in errors.items()}
    size_N = by_name.pop("size")
    interact_N = by_name["truths"] / size_N.clamp(min=1e-9)
    most_N = interact_N >= interact_N.quantile(0.9)
    print(f"do({', '.join(f'{k}={v}' for k, v in both.do.items())}), {len(size_N)} subjects")
    for name, error_N in by_name.items():
        everyone = bootstrap_ratio(error_N, size_N)
        some = bootstrap_ratio(error_N[most_N], size_N[most_N])
        print(f"{name:8s} {everyone:.3f}   {some:.3f}")


if __name__ == "__main__":
    main()
