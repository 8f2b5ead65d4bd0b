"""Questions as batches: the right picture, truth and direction for every item, also where a subject comes twice."""

import pytest
import torch

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread, labelled_rows
from civae_core.errors import DataError
from civae_core.evaluation.question import KnownTruth, Question, ask, direction

CPU = torch.device("cpu")


def test_a_subject_may_be_asked_about_several_times(faces: PreparedData) -> None:
    roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male"])
    question = ask(faces, roles, labelled_rows(faces, roles, "test"))[0]
    assert question.truth is not None
    items = torch.tensor([4, 0, 4, 4])
    truth = KnownTruth(question.truth.truth, question.truth.places_N[items])
    repeated = Question(question.chosen[items], torch.tensor([[0.0], [0.0], [1.0], [0.5]]), {}, truth)
    asked = repeated.batch(faces, slice(0, 4), CPU)
    assert torch.equal(asked.rows_B, faces.rows("test")[items])
    assert torch.equal(asked.y_BCHW, faces.images(asked.rows_B).float() / 255)
    assert torch.equal(asked.y_BCHW[0], asked.y_BCHW[2]) and not torch.equal(asked.y_BCHW[0], asked.y_BCHW[1])
    assert torch.equal(asked.t_BT[:, 0], faces.column("Young")[asked.rows_B])
    expected = [places.tolist().index(int(row)) for row in asked.rows_B for places in (faces.truth[0].rows,)]
    assert asked.truth_BCHW is not None
    assert torch.equal(asked.truth_BCHW, faces.truth[0].images(torch.tensor(expected)).float() / 255)
    assert asked.direction_B.tolist() == torch.sign(repeated.t_new_NT - asked.t_BT)[:, 0].tolist()
    last = repeated.batch(faces, slice(3, 99), CPU)
    assert last.t_new_BT.tolist() == [[0.5]] and len(last.y_BCHW) == 1


def test_who_has_the_intended_treatment_already_is_not_asked_about(made_old: PreparedData) -> None:
    roles = AttributeRoles.assign(made_old.attributes, ["Young"], ["Male"])
    chosen = labelled_rows(made_old, roles, "test")
    young_N = chosen.t_NT[:, 0] == 1
    assert 4 < int(young_N.sum()) < len(chosen) - 4
    (question,) = ask(made_old, roles, chosen)
    assert question.do == {"Young": 0.0}
    assert torch.equal(question.chosen.rows_N, chosen.rows_N[young_N])
    assert torch.equal(question.everyone.rows_N, chosen.rows_N), "the old are what the young are to look like"
    asked = question.batch(made_old, slice(None), CPU)
    assert set(asked.direction_B.tolist()) == {-1.0} and asked.truth_BCHW is not None
    places = [made_old.truth[0].rows.tolist().index(row) for row in asked.rows_B.tolist()]
    assert torch.equal(asked.truth_BCHW, made_old.truth[0].images(torch.tensor(places)).float() / 255)
    (few,) = ask(made_old, roles, chosen, limit=4)
    assert len(few.chosen) == len(few.everyone) == 4 and few.chosen.t_NT.unique().tolist() == [1.0]
    assert few.chosen.rows_N[0] == question.chosen.rows_N[0]
    assert few.chosen.rows_N[-1] == question.chosen.rows_N[-1], "spread over those who are changed"


def test_what_changes_nobody_is_no_question(made_old: PreparedData) -> None:
    roles = AttributeRoles.assign(made_old.attributes, ["Young"], ["Male"])
    chosen = labelled_rows(made_old, roles, "test")
    old = chosen[chosen.t_NT[:, 0] == 0]
    (question,) = ask(made_old, roles, old)
    assert question.do == {"Young": "flip"} and question.truth is None and len(question.chosen) == len(old)
    tone = AttributeRoles.assign(made_old.attributes, ["Skin_Tone"], ["Male"])
    darkest = LabelledRows(old.rows_N, old.x_NX, torch.full_like(old.t_NT, tone.treatments[0].high))
    with pytest.raises(DataError, match=rf"changes none of the {len(old)} images, which all have it already"):
        ask(made_old, tone, darkest)


def test_the_first_treatment_that_changes_gives_the_direction() -> None:
    t_BT = torch.tensor([[0.0, 5.0], [1.0, 5.0], [1.0, 5.0], [0.0, 5.0]])
    t_new_BT = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 9.0], [0.0, 5.0]])
    assert direction(t_BT, t_new_BT).tolist() == [1.0, -1.0, -1.0, 0.0]


def test_a_part_of_a_question_keeps_its_truth_and_who_it_is_asked_among(
    made_old: PreparedData,
) -> None:
    roles = AttributeRoles.assign(made_old.attributes, ["Young"], ["Male"])
    (question,) = ask(made_old, roles, labelled_rows(made_old, roles, "test"))
    part = question.subset(3)
    items = evenly_spread(len(question.chosen), 3)
    assert part.everyone is question.everyone and part.do == question.do
    whole, found = question.batch(made_old, items, CPU), part.batch(made_old, slice(None), CPU)
    assert whole.truth_BCHW is not None and found.truth_BCHW is not None
    assert torch.equal(found.rows_B, whole.rows_B) and torch.equal(found.t_new_BT, whole.t_new_BT)
    assert torch.equal(found.truth_BCHW, whole.truth_BCHW)
