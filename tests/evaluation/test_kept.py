"""What is kept of every image: all of it, in order, and in so few pieces that the memory of batches is used again."""

import gc

import pytest
import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation import realism, scores
from civae_core.evaluation.asked import Answer, Asked
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.methods import CopyInput
from civae_core.evaluation.question import ask
from civae_core.evaluation.realism import of_yardstick
from civae_core.evaluation.scores import counterfactual_scores
from civae_core.evaluation.tallies import tally_maker
from civae_core.yardstick import Yardstick, YardstickCard
from civae_core.yardstick.instrument import Networks

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch", [7, 4_096, 10_000])
def test_rows_come_out_as_they_went_in(batch: int) -> None:
    rows_NK = torch.arange(20_000).reshape(10_000, 2)
    kept = KeptRows()
    for part in rows_NK.split(batch):
        kept.add(part)
    assert len(kept) == 10_000 and torch.equal(kept.all, rows_NK) and kept.all.dtype == torch.int64
    kept.keep_every(2)
    kept.add(rows_NK[:1])
    assert len(kept) == 5_001 and torch.equal(kept.all, torch.cat([rows_NK[::2], rows_NK[:1]]))


def test_before_the_first_there_are_none() -> None:
    kept = KeptRows()
    assert len(kept) == len(kept.all) == 0
    kept.add(torch.zeros(0, 3))
    assert kept.all.shape == (0, 3)


def test_between_batches_not_one_tensor_more_is_held(
    faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor kept from each batch would keep the memory of large ones from being used again."""
    monkeypatch.setattr(scores, "BATCH", 2)
    monkeypatch.setattr(realism, "MOST_REFERENCES", 8)
    roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male"], ["Gray_Hair"])
    yardstick = untrained(faces, roles)
    (question,) = ask(faces, roles, labelled_rows(faces, roles, "test")[:8])
    instruments = Instruments(yardstick, of_yardstick(yardstick))
    held = []

    class Counted(CopyInput):
        def answer(self, asked: Asked) -> Answer:
            held.append(sum(type(found) is Tensor for found in gc.get_objects()))
            return super().answer(asked)

    found = counterfactual_scores(
        [Counted()],
        faces,
        question,
        tally_maker(question, faces, roles, instruments, CPU),
        yardstick=yardstick,
        device=CPU,
        seed=0,
    )
    kinds = {"psnr_counterfactual", "effectiveness", "leak", "descendants", "minimality", "realism"}
    assert kinds <= set(found["copy"].entries)
    assert len(held) == 4 and len(set(held[1:])) == 1, f"tensors before each batch: {held}"


def untrained(data: PreparedData, roles: AttributeRoles) -> Yardstick:
    """An untrained scorer of all attributes of the data."""
    card = YardstickCard(
        attributes=data.attributes,
        size=data.size,
        channels=data.channels,
        data={"name": data.name, "fingerprint": data.fingerprint},
        roles={"treatments": [a.name for a in roles.treatments]},
        images=0,
        seed=0,
        photos={},
        blurred={},
    )
    return Yardstick(Networks(data.size, data.channels, len(data.attributes)).eval(), card)
