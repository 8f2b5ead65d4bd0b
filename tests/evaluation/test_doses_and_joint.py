"""The questions of continuous and of joint truths, from the prepared data to the numbers of the evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from civae_core.attributes import AttributeRoles
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.resolve import SourceOptions, open_source
from civae_core.evaluation.evaluate import evaluate
from civae_core.evaluation.question import Question, ask
from civae_core.model import IntactVAE
from civae_core.model.stored import ModelCard, StoredModel

JOINT = ["Young=flip,Male=flip", "Young=flip", "Young=0,Smiling=1", "Male=flip"]
MakeModel = Callable[[PreparedData, list[str], list[str]], StoredModel]


def prepared(source: str, truths: list[str], out: Path) -> PreparedData:
    options = SourceOptions(size=32, count=60, seed=3, overlap=1.0, truths=truths)
    return prepare(open_source(source, options), out, workers=1, max_bad=MaxBad.parse("0")).data


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepared("synthetic:faces", JOINT, tmp_path_factory.mktemp("joint") / "faces")


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    truths = ["Age=20:80:3", "Age=70,Male=flip"]
    return prepared("synthetic:faces-age", truths, tmp_path_factory.mktemp("aged") / "faces")


@pytest.fixture
def untrained(make_config: Callable[..., Config], make_model: Callable[..., IntactVAE]) -> MakeModel:
    """A model for some treatments and covariates of prepared data, as if read from disk."""

    def make(data: PreparedData, treatments: list[str], covariates: list[str]) -> StoredModel:
        roles = AttributeRoles.assign(data.attributes, treatments, covariates)
        identity = {"name": data.name, "path": str(data.path), "fingerprint": data.fingerprint}
        card = ModelCard(make_config(), roles, dict(data.preprocessing), 100, identity, [])
        network = make_model(size=32, perturbed=True, assigned=roles).requires_grad_(False)
        return StoredModel(network, card, Path("run/checkpoints/step-1/model.safetensors"))

    return make


def questions(data: PreparedData, treatments: list[str], covariates: list[str]) -> list[Question]:
    roles = AttributeRoles.assign(data.attributes, treatments, covariates)
    return ask(data, roles, labelled_rows(data, roles, "test"))


def entries(evaluation: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What was asked, with the methods' scores."""
    others = [(other["do"], other["methods"]) for other in evaluation["other_interventions"]]
    return [(evaluation["do"], evaluation["methods"]), *others]


def test_a_model_is_asked_what_sets_its_treatments_and_nothing_else(joint: PreparedData) -> None:
    both = questions(joint, ["Young", "Male"], ["Smiling"])
    assert [question.do for question in both] == [
        {"Young": "flip", "Male": "flip"},
        {"Young": "flip"},
        {"Male": "flip"},
    ]
    assert [q.do for q in questions(joint, ["Young"], ["Male"])] == [{"Young": "flip"}]
    assert [q.do for q in questions(joint, ["Male", "Smiling"], ["Young"]) if q.truth] == [{"Male": "flip"}]


def test_a_joint_question_changes_both_in_every_subject(joint: PreparedData) -> None:
    for treatments in (["Young", "Male"], ["Male", "Young"]):
        together = questions(joint, treatments, ["Smiling"])[0]
        assert torch.equal(together.t_new_NT, 1 - together.chosen.t_NT)
    alone = questions(joint, ["Male", "Young"], ["Smiling"])[1]
    assert torch.equal(alone.t_new_NT - alone.chosen.t_NT != 0, torch.tensor([[False, True]]).expand(6, 2))


def test_joint_answers_are_held_against_the_joint_truth(joint: PreparedData, untrained: MakeModel) -> None:
    model = untrained(joint, ["Young", "Male"], ["Smiling", "Skin_Tone"])
    found = evaluate([model], joint, pictures=False).numbers
    asked = [do for do, _ in entries(found)]
    assert asked == [{"Young": "flip", "Male": "flip"}, {"Young": "flip"}, {"Male": "flip"}]
    by_name = {truth.name: truth for truth in joint.truth}
    for do, scores in entries(found):
        assert set(scores) == {"copy", "ours"}
        assert "dose_response" not in scores["ours"], "one dose makes no sweep"
        assert scores["copy"]["relative_effect_error"]["mean"] == pytest.approx(1.0)
        truth = by_name[",".join(f"{name}={value}" for name, value in do.items())]
        places = torch.isin(truth.rows, joint.rows("test")).nonzero()[:, 0]
        effect = (truth.images(places).double() - joint.images(truth.rows[places]).double()) / 255
        assert scores["copy"]["pehe"]["mean"] == pytest.approx(effect.square().mean().sqrt().item(), rel=1e-5)


def test_every_dose_is_a_question_of_its_own(aged: PreparedData, untrained: MakeModel) -> None:
    model = untrained(aged, ["Age"], ["Male", "Skin_Tone"])
    found = evaluate([model], aged, pictures=False).numbers
    assert [do for do, _ in entries(found)] == [{"Age": 20.0}, {"Age": 50.0}, {"Age": 80.0}]
    for _, scores in entries(found):
        for method in ("copy", "ours"):
            assert scores[method]["relative_effect_error"]["mean"] > 0
            assert scores[method]["ate_error"] > 0
        assert scores["copy"]["ate_error"] == pytest.approx(1.0)
    assert found["overlap"]["Age"]["kind"] == "continuous"
    response = found["methods"]["ours"]["dose_response"]["Age"]
    assert set(response) >= {"monotone", "monotone_beyond", "pixels_in_order", "response_error", "curve"}
    assert "dose_response" not in found["methods"]["copy"]


def test_age_and_sex_can_be_asked_together(aged: PreparedData, untrained: MakeModel) -> None:
    model = untrained(aged, ["Male", "Age"], ["Skin_Tone"])
    found = evaluate([model], aged, pictures=False).numbers
    assert [do for do, _ in entries(found)][-1] == {"Age": 70.0, "Male": "flip"}
    assert questions(aged, ["Male", "Age"], [])[-1].t_new_NT[:, 1].unique().tolist() == [70.0]
