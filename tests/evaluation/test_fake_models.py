"""Models whose faults are known: the truth, a copy, and painters of one attribute too many, through the whole chain.

Once with a scorer that makes no mistakes, so that every number is known; once with one that was really trained.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.evaluation.asked import Answer, Asked, Method
from civae_core.evaluation.descendants import DescendantTally
from civae_core.evaluation.effectiveness import EffectivenessTally
from civae_core.evaluation.leak import LeakTally, watched
from civae_core.evaluation.methods import CopyInput, TrueCounterfactual
from civae_core.evaluation.question import Question, ask
from civae_core.evaluation.scores import Scored, counterfactual_scores
from civae_core.evaluation.subgroups import groups_of, subgroup_scores
from civae_core.evaluation.tally import CounterfactualTally
from civae_core.model.distributions import standard_normal
from civae_core.synthetic import ATTRIBUTES, ROLES, FaceProcess
from civae_core.synthetic.cohorts import people, split_sizes
from civae_core.yardstick import Reading, Yardstick, load_yardstick, save_yardstick, train_yardstick

CPU = torch.device("cpu")
ZERO = {"mean": 0.0, "lo": 0.0, "hi": 0.0}
CERTAIN = 4.0
Value = Callable[[Asked], Tensor]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]


class Drawer:
    """Photographs the people of a set of built-in faces again, under other interventions."""

    def __init__(self, data: PreparedData, overlap: float, seed: int) -> None:
        count = len(data.table_NA)
        self._process = FaceProcess(overlap=overlap, seed=seed, size=data.size)
        self._everybody = people(self._process, range(count), split_sizes(count)[0])
        self.attributes_of: dict[bytes, Tensor] = {}
        """Who is on each picture that was drawn [A], by its bytes."""

    def draw(self, asked: Asked, do: dict[str, Tensor]) -> Tensor:
        """Images in [0,1] [B,C,S,S]."""
        subjects = self._everybody[asked.rows_B].under(do)
        images_BCHW = self._process.render(subjects)
        for image_CHW, row_A in zip(images_BCHW, subjects.attributes_NA, strict=True):
            self.attributes_of[image_CHW.numpy().tobytes()] = row_A
        return images_BCHW.float() / 255


class Painter:
    """Makes people young or old without fault, but also sets another attribute."""

    def __init__(self, drawer: Drawer, attribute: str, value: Value) -> None:
        self.name = f"paints {attribute}"
        self._drawer, self._attribute, self._value = drawer, attribute, value

    def answer(self, asked: Asked) -> Answer:
        do = {"Young": asked.t_new_BT[:, 0], self._attribute: self._value(asked)}
        return Answer(self._drawer.draw(asked, do))


class RightForWomen:
    """Returns the truth for women and the input for men."""

    name = "right for women"

    def answer(self, asked: Asked) -> Answer:
        assert asked.truth_BCHW is not None
        men_B = asked.x_BX[:, [a.name for a in ROLES.covariates].index("Male")] > 0.5
        return Answer(torch.where(men_B[:, None, None, None], asked.y_BCHW, asked.truth_BCHW))


def like_the_old(asked: Asked) -> Tensor:
    """1 for subjects made old, 0 for those made young: what a model paints that mistakes old for male."""
    return 1 - asked.t_new_BT[:, 0]


def like_the_young(asked: Asked) -> Tensor:
    return asked.t_new_BT[:, 0]


def question_of(data: PreparedData) -> Question:
    (question,) = ask(data, ROLES, labelled_rows(data, ROLES, "test"))
    return question


def scored(methods: Sequence[Method], data: PreparedData, yardstick: Yardstick) -> dict[str, Scored]:
    question = question_of(data)
    attributes = watched(ROLES, yardstick, question.do)
    labels_NA = torch.stack([data.column(attribute.name) for attribute in attributes], dim=1)

    def tallies() -> list[Any]:
        return [
            CounterfactualTally(),
            EffectivenessTally(yardstick, ROLES.treatments),
            LeakTally(yardstick, attributes, labels_NA),
            DescendantTally(yardstick, ROLES.descendants),
        ]

    return counterfactual_scores(methods, data, question, tallies, yardstick=yardstick, device=CPU, seed=0)


# A scorer that makes no mistakes.


class Oracle:
    """Recognises every face that was drawn, and so knows its attributes."""

    attributes: tuple[Attribute, ...] = ATTRIBUTES

    def __init__(self, drawer: Drawer) -> None:
        self._drawer = drawer

    def index(self, name: str) -> int:
        return [attribute.name for attribute in self.attributes].index(name)

    def read(self, y_BCHW: Tensor) -> Reading:
        pictures_BCHW = (y_BCHW * 255).round().to(torch.uint8)
        attributes_of = self._drawer.attributes_of
        known_BA = torch.stack([attributes_of[picture.numpy().tobytes()] for picture in pictures_BCHW])
        shift, scale = torch.tensor([a.shift_and_scale for a in self.attributes]).T
        strength_A = torch.tensor([CERTAIN if a.kind == "binary" else 1.0 for a in self.attributes])
        outputs_BA = strength_A * (known_BA - shift) / scale
        return Reading(outputs_BA, outputs_BA, standard_normal(len(y_BCHW), 1, like=outputs_BA))


@pytest.fixture(scope="module")
def drawer(faces: PreparedData) -> Drawer:
    """The people of `faces`, who were drawn as they are and as the truth has them."""
    drawer = Drawer(faces, overlap=0.5, seed=0)
    asked = question_of(faces).batch(faces, slice(None), CPU)
    assert torch.equal(drawer.draw(asked, {}), asked.y_BCHW), "the same people as in the prepared data"
    drawer.draw(asked, {"Young": asked.t_new_BT[:, 0]})
    return drawer


@pytest.fixture(scope="module")
def oracle(drawer: Drawer) -> Yardstick:
    return cast(Yardstick, Oracle(drawer))


def test_a_faultless_scorer_finds_no_fault_in_the_truth_and_no_effect_in_a_copy(
    faces: PreparedData, oracle: Yardstick
) -> None:
    found = scored([TrueCounterfactual(), CopyInput()], faces, oracle)
    truth, copy = found["truth"].entries, found["copy"].entries
    assert truth["relative_effect_error"] == ZERO
    assert copy["relative_effect_error"] == {"mean": 1.0, "lo": 1.0, "hi": 1.0}
    for entry, value in ((truth, 1.0), (copy, 0.0)):
        for key in ("effectiveness", "effectiveness_mean_image"):
            young = entry[key]["Young"]
            assert (young["accuracy"]["mean"], young["f1"], young["auc"]) == (value, value, value)
        assert entry["leak_reference"] == "truth"
        assert all(leak == ZERO for leak in (*entry["leak"].values(), *entry["leak_mean_image"].values()))
        assert all(change == 0.0 for change in entry["leak_auc"].values())
        assert entry["worst_leak"]["mean"] == entry["worst_leak_mean_image"]["mean"] == 0.0
    expected = {a.name for a in ROLES.covariates} | {"Beard"}
    assert set(truth["leak"]) == expected, "consequences of age are free to move"
    assert set(truth["descendants"]) == set(copy["descendants"]) == {a.name for a in ROLES.descendants}
    for name, followed in truth["descendants"].items():
        assert followed["shift"] == followed["true_shift"] and followed["shift"]["mean"] < 0, (
            "it comes with age"
        )
        assert copy["descendants"][name] == {"shift": ZERO, "true_shift": followed["true_shift"]}


@pytest.mark.parametrize("attribute", ["Smiling", "Eyeglasses", "Blond_Hair", "Blue_Eyes"])
def test_a_faultless_scorer_names_the_painted_attribute_and_no_other(
    attribute: str, faces: PreparedData, drawer: Drawer, oracle: Yardstick
) -> None:
    entries = _painted(attribute, like_the_old, faces, drawer, oracle)
    assert entries["effectiveness"]["Young"]["accuracy"]["mean"] == 1.0
    labels_N, t_N = (faces.column(name)[question_of(faces).chosen.rows_N] for name in (attribute, "Young"))
    # Who is made old (was young) gets the attribute, if without it; who is made young loses it.
    moved_N = torch.where(t_N > 0.5, 1 - labels_N, labels_N)
    expected = -2 * CERTAIN * float(moved_N.mean())
    assert expected < 0 and entries["leak"][attribute]["mean"] == pytest.approx(expected)
    assert entries["worst_leak"]["attribute"] == attribute
    spread = 2 * CERTAIN * float(labels_N.std(correction=0))
    assert entries["worst_leak"]["mean"] == pytest.approx(expected / spread)
    assert entries["leak_auc"][attribute] < -0.2
    others = {name: leak for name, leak in entries["leak"].items() if name != attribute}
    assert all(leak == ZERO for leak in others.values())


def test_what_the_painted_attribute_itself_causes_leaks_too(
    faces: PreparedData, drawer: Drawer, oracle: Yardstick
) -> None:
    entries = _painted("Male", like_the_old, faces, drawer, oracle)
    assert entries["worst_leak"]["attribute"] == "Male" and entries["worst_leak"]["mean"] < -0.5
    assert entries["leak"]["Beard"]["mean"] < 0, "men grow beards"
    assert entries["leak"]["Smiling"] == entries["leak"]["Skin_Tone"] == ZERO


def test_an_attribute_flipped_in_everybody_shows_in_the_auc(
    faces: PreparedData, drawer: Drawer, oracle: Yardstick
) -> None:
    """As many lose it as gain it: without a direction there is no mean shift."""

    def flipped(asked: Asked) -> Tensor:
        return 1 - asked.x_BX[:, [a.name for a in ROLES.covariates].index("Smiling")]

    entries = _painted("Smiling", flipped, faces, drawer, oracle)
    assert entries["leak_auc"] == {name: -1.0 if name == "Smiling" else 0.0 for name in entries["leak_auc"]}


def test_the_worst_group_is_the_one_that_is_not_served(faces: PreparedData, oracle: Yardstick) -> None:
    question = question_of(faces)
    chosen = question.chosen
    groups = groups_of(chosen.x_NX, chosen.t_NT, question.t_new_NT, ROLES, fewest=3)
    per_image = scored([RightForWomen()], faces, oracle)["right for women"].per_image
    found = subgroup_scores(per_image, groups, seed=0, fewest=3)["subgroups"]
    error = {row["group"]: row["mean"] for row in found["relative_effect_error"]["groups"]}
    effective = {row["group"]: row["mean"] for row in found["effectiveness"]["groups"]}
    for direction in ("0 → 1", "1 → 0"):
        assert error[f"Male=0, Young {direction}"] == 0.0 and effective[f"Male=0, Young {direction}"] == 1.0
        assert error[f"Male=1, Young {direction}"] == 1.0 and effective[f"Male=1, Young {direction}"] == 0.0
    assert found["relative_effect_error"]["gap"] == found["effectiveness"]["gap"] == 1.0
    assert found["leak"]["worst"]["mean"] == 0.0, "neither group is painted"


def _painted(
    attribute: str, value: Value, faces: PreparedData, drawer: Drawer, oracle: Yardstick
) -> dict[str, Any]:
    painter = Painter(drawer, attribute, value)
    return scored([painter], faces, oracle)[painter.name].entries


# A scorer that was really trained.

MANY, SEED = 1_200, 3
IMAGES = 2_000
"""Ten seconds of training: age, sex and the colours of skin and hair are learned, smiles and eyes are not."""


@pytest.fixture(scope="module")
def many(made_once: MadeOnce) -> PreparedData:
    def make(out: Path) -> None:
        truths = [TruthSpec("Young=flip", {"Young": "flip"})]
        source = faces_source(count=MANY, seed=SEED, overlap=1.0, truths=truths, size=32, channels=3)
        prepare(source, out, workers=1, max_bad=MaxBad.parse("0"))

    return PreparedData.open(made_once("many-faces", make))


@pytest.fixture(scope="module")
def trained_scorer(many: PreparedData, made_once: MadeOnce) -> Yardstick:
    def make(file: Path) -> None:
        save_yardstick(train_yardstick(many, ROLES, images=IMAGES, seed=1, device=CPU), file)

    return load_yardstick(made_once("many-faces-scorer", make))


def test_a_trained_scorer_judges_truth_and_copy_as_it_judges_photographs(
    many: PreparedData, trained_scorer: Yardstick
) -> None:
    found = scored([TrueCounterfactual(), CopyInput()], many, trained_scorer)
    truth, copy = found["truth"].entries, found["copy"].entries
    asked = question_of(many).batch(many, slice(None), CPU, trained_scorer)
    assert asked.seen is not None and asked.seen_truth is not None
    column = trained_scorer.index("Young")
    on_photos, on_truth = (
        float(((reading.outputs_BA[:, column] > 0) == (label_BT[:, 0] > 0.5)).float().mean())
        for reading, label_BT in ((asked.seen, asked.t_BT), (asked.seen_truth, asked.t_new_BT))
    )
    assert on_photos > 0.9, "else this test says nothing"
    accuracy = truth["effectiveness"]["Young"]["accuracy"]["mean"]
    assert accuracy == pytest.approx(on_truth) and accuracy == pytest.approx(on_photos, abs=0.05)
    copied = copy["effectiveness"]["Young"]["accuracy"]["mean"]
    assert copied == pytest.approx(1 - on_photos) and copied < 0.1
    assert truth["relative_effect_error"] == ZERO and copy["relative_effect_error"]["mean"] == 1.0
    assert all(leak == ZERO for leak in (*truth["leak"].values(), *truth["leak_mean_image"].values()))
    assert truth["worst_leak"]["mean"] == 0.0 and set(truth["leak_auc"].values()) == {0.0}
    assert any(shift["mean"] != 0.0 for shift in truth["shift"].values()), "its own blemish, no leak"


@pytest.mark.parametrize(
    ("attribute", "value", "sign"),
    [
        ("Blond_Hair", like_the_young, 1),  # the old are grey
        ("Skin_Tone", lambda asked: 0.1 + 0.7 * like_the_old(asked), -1),
    ],
)
def test_a_trained_scorer_names_the_painted_attribute_and_no_other(
    attribute: str, value: Value, sign: int, many: PreparedData, trained_scorer: Yardstick
) -> None:
    entries, leaks = _painted_and_judged(attribute, value, many, trained_scorer)
    worst = entries["worst_leak"]
    assert worst["attribute"] == attribute
    assert sign * worst["mean"] > 0.5 and worst["lo"] * worst["hi"] > 0
    others = {name: leak for name, leak in leaks.items() if name != attribute}
    assert max(map(abs, others.values())) < 0.5 * abs(worst["mean"]), others


def test_a_trained_scorer_sees_sex_painted_with_what_it_causes(
    many: PreparedData, trained_scorer: Yardstick
) -> None:
    entries, leaks = _painted_and_judged("Male", like_the_old, many, trained_scorer)
    assert entries["worst_leak"]["attribute"] in ("Male", "Beard")
    assert leaks["Male"] < -0.35 and entries["leak"]["Beard"]["hi"] < 0, "raising Young makes female"
    assert abs(leaks["Blond_Hair"]) < 0.2 and abs(leaks["Skin_Tone"]) < 0.2


def _painted_and_judged(
    attribute: str, value: Value, many: PreparedData, scorer: Yardstick
) -> tuple[dict[str, Any], dict[str, float]]:
    """The entries, and the standardised leaks of the attributes that the scorer can tell."""
    painter = Painter(Drawer(many, overlap=1.0, seed=SEED), attribute, value)
    found = scored([painter], many, scorer)[painter.name]
    assert found.entries["effectiveness"]["Young"]["accuracy"]["mean"] > 0.9, (
        "the intended effect is there too"
    )
    told = {name.removeprefix("leak.") for name in found.per_image if name.startswith("leak.")}
    assert {"Male", "Blond_Hair", "Skin_Tone"} <= told
    return found.entries, {name: found.entries["leak_standardised"][name]["mean"] for name in told}
