"""Questions as batches: the right picture, truth and direction for every item, also where a subject comes twice."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread, labelled_rows
from civae_core.errors import DataError
from civae_core.evaluation.question import KnownTruth, Question, ask, ask_split, direction, values_to_ask

CPU = torch.device("cpu")


def with_doses(data: PreparedData, labels_N: Tensor) -> tuple[PreparedData, AttributeRoles]:
    """The data with other labels of Skin_Tone, and the roles in which it is the treatment."""
    changed = PreparedData.open(data.path)
    changed.table_NA[:, [a.name for a in data.attributes].index("Skin_Tone")] = labels_N
    known_M = labels_N[data.rows("train")].nan_to_num()
    tone = Attribute("Skin_Tone", "continuous", float(known_M.min()), float(known_M.max()))
    return changed, AttributeRoles((tone,), ())


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
    data, tone = with_doses(made_old, torch.full((len(made_old),), 0.25))
    alike = labelled_rows(data, tone, "test")
    with pytest.raises(
        DataError,
        match=rf"do\(Skin_Tone=0.25\) changes none of the {len(alike)} images, which all have it already",
    ):
        ask(data, tone, alike)


def test_without_a_truth_each_treatment_is_asked_about_in_turn(faces: PreparedData) -> None:
    roles = AttributeRoles.assign(faces.attributes, ["Young", "Skin_Tone", "Male"], ["Smiling"])
    questions = ask(faces, roles, labelled_rows(faces, roles, "train"))
    assert [set(question.do) for question in questions] == [{"Young"}, {"Skin_Tone"}, {"Skin_Tone"}, {"Male"}]
    young, high, low, male = questions
    assert (young.do, male.do) == ({"Young": "flip"}, {"Male": "flip"})
    assert high.do["Skin_Tone"] > low.do["Skin_Tone"]  # type: ignore[operator]
    for question, column in ((young, 0), (high, 1), (low, 1), (male, 2)):
        assert question.truth is None
        changed_NT = question.t_new_NT != question.chosen.t_NT
        assert changed_NT[:, column].all() and int(changed_NT.sum()) == len(question.chosen)


def test_a_treatment_that_no_truth_sets_is_asked_about_after_those_with_one(faces: PreparedData) -> None:
    roles = AttributeRoles.assign(faces.attributes, ["Male", "Young"], [])
    young, male = ask(faces, roles, labelled_rows(faces, roles, "test"))
    assert young.do == {"Young": "flip"} and young.truth is not None
    assert male.do == {"Male": "flip"} and male.truth is None


def test_doses_are_asked_about_where_training_has_subjects(faces: PreparedData) -> None:
    ages_N = torch.linspace(20, 70, len(faces)).round()
    ages_N[faces.rows("train")[0]] = 4000
    ages_N[faces.rows("train")[1]] = torch.nan
    ages_N[faces.rows("test")] = 90
    data, roles = with_doses(faces, ages_N)
    (age,) = roles.treatments
    assert age.high == 4000
    high, low = values_to_ask(age, data)
    expected = ages_N[data.rows("train")].nanquantile(torch.tensor([0.9, 0.1])).tolist()
    assert [high, low] == pytest.approx(expected, abs=1)
    assert all(float(dose).is_integer() for dose in (high, low)), "as in the table"
    assert values_to_ask(replace(age, high=40.0), data) == [40.0, low], "the model saw none that are higher"


def test_doses_are_labels_of_training_so_that_who_has_one_is_not_asked(faces: PreparedData) -> None:
    fine_N = torch.rand(len(faces), generator=torch.Generator().manual_seed(0))
    data, roles = with_doses(faces, fine_N)
    assert set(values_to_ask(roles.treatments[0], data)) <= set(fine_N[data.rows("train")].tolist())
    thirds_N = torch.tensor([0, 3, *[1] * 9, *[2] * 9])[torch.arange(len(faces)) % 20] / 3
    data, roles = with_doses(faces, thirds_N)
    train_N = thirds_N[faces.rows("train")]
    for question, third in zip(ask(data, roles, labelled_rows(data, roles, "train")), (2, 1), strict=True):
        assert question.do == {"Skin_Tone": pytest.approx(third / 3)}
        others = int((train_N * 3).round().ne(third).sum())
        assert len(question.chosen) == others, "who has this dose already is not asked about"


def test_where_quantiles_say_nothing_the_ends_of_the_range_are_asked_about(faces: PreparedData) -> None:
    mostly_N = torch.zeros(len(faces))
    mostly_N[faces.rows("train")[:5]] = 7.0
    data, roles = with_doses(faces, mostly_N)
    assert values_to_ask(roles.treatments[0], data) == [7.0, 0.0]
    rare = labelled_rows(data, roles, "train")
    assert [len(question.chosen) for question in ask(data, roles, rare)] == [len(rare) - 5, 5]
    unknown_N = torch.full((len(faces),), torch.nan)
    data, _ = with_doses(faces, unknown_N)
    assert values_to_ask(Attribute("Skin_Tone", "continuous", low=1.0, high=3.0), data) == [3.0, 1.0]


def test_an_unlabelled_split_is_refused_with_the_name_of_one_that_can_be_scored(
    faces: PreparedData, caplog: pytest.LogCaptureFixture
) -> None:
    roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male"])
    data = PreparedData.open(faces.path)
    for empty, hint in (
        ("test", "score another split, with --split valid"),
        ("valid", "--split train scores images that models learn from"),
        ("train", "see the data's report.html"),
    ):
        data.table_NA[data.rows(empty)] = torch.nan  # type: ignore[arg-type]
        with pytest.raises(DataError, match="the test split has no image whose treatment and") as caught:
            ask_split(data, roles, "test")
        assert caught.value.hint is not None and hint in caught.value.hint
    assert not caplog.records


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
