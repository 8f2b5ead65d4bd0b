"""Composition and reversibility against hand-written rounds, and the trivial case."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from civae_core.counterfactual import abduct, predict
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation import cycles
from civae_core.evaluation.asked import Asked
from civae_core.evaluation.cycles import cycle_scores
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.metrics import ssim
from civae_core.evaluation.question import Question, ask
from civae_core.model.stored import StoredModel

MakeStored = Callable[..., StoredModel]
CPU = torch.device("cpu")


def question_of(stored: StoredModel, faces: PreparedData) -> Question:
    roles = stored.card.roles
    return ask(faces, roles, labelled_rows(faces, roles, "test")[:6])[0]


@pytest.mark.usefixtures("in_full")
def test_rounds_agree_with_those_made_by_hand(make_stored: MakeStored, faces: PreparedData) -> None:
    stored = make_stored()
    question = question_of(stored, faces)
    found = cycle_scores(TrainedModel("ours", stored), faces, question, CPU, seed=0)
    asked, model = question.batch(faces, slice(None), CPU), stored.model
    for noise in (0.0, 1.0):
        back = null = asked.y_BCHW
        for cycle in range(1, 11):
            there = predict(model, abduct(model, back, asked.x_BX, asked.t_BT), asked.t_new_BT, noise=noise)
            away = abduct(model, there.image_BCHW.clamp(0, 1), asked.x_BX, asked.t_new_BT)
            back = predict(model, away, asked.t_BT, noise=noise).image_BCHW.clamp(0, 1)
            same = predict(model, abduct(model, null, asked.x_BX, asked.t_BT), asked.t_BT, noise=noise)
            null = same.image_BCHW.clamp(0, 1)
            if cycle in (1, 10):
                for name, image in (("reversibility", back), ("composition", null)):
                    entry = found[name][f"noise_{noise:g}"]
                    l1 = float((image - asked.y_BCHW).abs().mean())
                    assert entry[f"l1_{cycle}"]["mean"] == pytest.approx(l1, abs=1e-6)
                    assert f"lpips_{cycle}" not in entry, "nothing at hand measures it"
                    similarity = float(ssim(image, asked.y_BCHW).mean())
                    assert entry[f"ssim_{cycle}"]["mean"] == pytest.approx(similarity, abs=1e-5)


@pytest.mark.usefixtures("in_full")
def test_composition_at_noise_1_is_nothing_and_says_that_it_is_trivial(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    for objective in ("intact", "original"):
        stored = make_stored(objective)
        method = TrainedModel("any", stored)
        found = cycle_scores(method, faces, question_of(stored, faces), CPU, seed=0)["composition"]
        assert found["noise_1"]["trivial"] is True and "trivial" not in found["noise_0"]
        assert found["noise_1"]["l1_10"]["mean"] == pytest.approx(0.0, abs=1e-6)
        assert found["noise_0"]["l1_1"]["mean"] > 0.01


def test_of_many_subjects_some_take_part_that_are_evenly_spread(
    make_stored: MakeStored, faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycles, "MOST_IMAGES", 4)
    stored = make_stored()
    roles = stored.card.roles
    (whole,) = ask(faces, roles, labelled_rows(faces, roles, "test"))
    asked: list[int] = []
    batch = Question.batch

    def noted(self: Question, *of: Any) -> Asked:
        found = batch(self, *of)
        asked.extend(found.rows_B.tolist())
        return found

    monkeypatch.setattr(Question, "batch", noted)
    cycle_scores(TrainedModel("ours", stored), faces, whole, CPU, seed=0)
    places = torch.tensor([0, 10, 19, 29])
    assert len(whole.chosen) == 30 and set(asked) == set(whole.chosen.rows_N[places].tolist())


def test_perceptual_distances_are_taken_where_their_network_is_at_hand(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    def largest_difference(a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        return (a_BCHW - b_BCHW).abs().flatten(1).amax(dim=1)

    stored = make_stored()
    question = question_of(stored, faces)
    found = cycle_scores(TrainedModel("ours", stored), faces, question, CPU, 0, largest_difference)
    asked, model = question.batch(faces, slice(None), CPU), stored.model
    once = abduct(model, asked.y_BCHW, asked.x_BX, asked.t_BT).reconstruction.mean_BCHW.clamp(0, 1)
    expected = float(largest_difference(once, asked.y_BCHW).mean())
    assert found["composition"]["noise_0"]["lpips_1"]["mean"] == pytest.approx(expected, abs=1e-5)
    assert {"lpips_1", "lpips_10"} <= found["reversibility"]["noise_1"].keys()
