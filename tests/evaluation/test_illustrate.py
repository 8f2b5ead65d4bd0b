"""The report's figures: what they are drawn from, against loops and independent references."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.calibration import calibration_curve
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.counterfactual import abduct, predict
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread, labelled_rows
from civae_core.draws import decode_prior
from civae_core.evaluation import average_effects as effects_module
from civae_core.evaluation import illustrate as module
from civae_core.evaluation.average_effects import PriorNoise, average_effects, effect_groups
from civae_core.evaluation.calibration import calibration, reliability
from civae_core.evaluation.evaluate import overlap_by_treatment
from civae_core.evaluation.illustrate import (
    doses,
    illustrate,
    of_both_arms,
    prior_images,
    ridge_figures,
    sweep_figure,
    sweep_images,
)
from civae_core.evaluation.latents import divergence, posterior_kl, posteriors_by_arm, traverse
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question, ask
from civae_core.figures.ridges import RidgePanel
from civae_core.model.stored import StoredModel
from civae_core.randomness import generator_for

MakeStored = Callable[..., StoredModel]
CPU = torch.device("cpu")


def question_of(stored: StoredModel, faces: PreparedData, split: str = "test") -> Question:
    roles = stored.card.roles
    return ask(faces, roles, labelled_rows(faces, roles, split))[0]  # type: ignore[arg-type]


def test_all_figures_are_there_and_named(make_stored: MakeStored, faces: PreparedData) -> None:
    stored = make_stored()
    overlap = overlap_by_treatment(faces, stored.card.roles)
    methods = [TrainedModel("ours", stored), TrainedModel("cvae", make_stored("cvae"))]
    found = illustrate(methods, faces, question_of(stored, faces), overlap, CPU, seed=0)
    assert [picture.name for picture in found] == [
        "propensity_Young", "sweep_Young", "mean_effects", "ridges", "traversals", "prior", "calibration"
    ]  # fmt: skip
    assert all(picture.title and len(picture.caption) > 40 and picture.image.width > 200 for picture in found)
    again = illustrate(methods, faces, question_of(stored, faces), overlap, CPU, seed=0)
    assert [p.image.tobytes() for p in again] == [p.image.tobytes() for p in found]


def test_several_and_continuous_treatments_without_covariates_truth_or_predictor(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    stored = make_stored(treatments=("Skin_Tone", "Male"), covariates=(), predictor=False)
    overlap = overlap_by_treatment(faces, stored.card.roles)
    methods = [TrainedModel("ours", stored)]
    found = illustrate(methods, faces, question_of(stored, faces), overlap, CPU, seed=0)
    assert [picture.name for picture in found] == [
        "propensity_Male", "sweep_Skin_Tone", "sweep_Male", "mean_effects", "ridges", "traversals", "prior"
    ]  # fmt: skip
    doses_of_skin, of_male = found[1].caption, found[2].caption
    assert "answers as at the nearest dose" in doses_of_skin and "extrapolates" not in doses_of_skin
    assert "there the model extrapolates" in of_male
    ridges = next(picture for picture in found if picture.name == "ridges")
    assert "the model's counterfactual" in ridges.caption


def test_doses_reach_beyond_training_on_both_sides() -> None:
    assert doses(Attribute("Young", "binary")) == pytest.approx([-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5])
    age = Attribute("Age", "continuous", low=20.0, high=60.0)
    assert doses(age) == pytest.approx([14.0, 20.0, 30.0, 40.0, 50.0, 60.0, 66.0])
    assert [age.in_range(value) for value in doses(age)] == [False, True, True, True, True, True, False]


def test_the_sweep_shows_both_arms_and_frames_the_doses_beyond_training(
    make_stored: MakeStored, faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, Any] = {}

    def keep(
        images: Tensor, labels: list[str], marks: list[bool], row_labels: list[str], *, beyond: str
    ) -> Image.Image:
        assert beyond == "extrapolation"
        shown.update(images=images, labels=labels, marks=marks, rows=row_labels)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(module, "sweep_sheet", keep)
    stored = make_stored()
    question = question_of(stored, faces)
    sweep_figure(TrainedModel("ours", stored), faces, question, 0, CPU)
    assert shown["labels"][:3] == ["photograph", "Young = -0.5", "Young = 0"]
    assert shown["marks"] == [False, True, False, False, False, False, False, True]
    assert shown["rows"] == ["Young\n= 0", "Young\n= 1"] * 2
    # At τ = 1 a subject's own dose gives the photograph back: Young = 0 is the third column, Young = 1 the seventh.
    torch.testing.assert_close(shown["images"][0, 2], shown["images"][0, 0])
    torch.testing.assert_close(shown["images"][1, 6], shown["images"][1, 0])
    assert not torch.allclose(shown["images"][0, 6], shown["images"][0, 0], atol=1e-3)


@pytest.mark.parametrize(("low", "high", "expected"), [(9, 9, 2), (1, 9, 1), (9, 1, 3), (0, 9, 0), (1, 1, 1)])
def test_subjects_come_from_both_arms_where_there_are_enough(low: int, high: int, expected: int) -> None:
    t_N = torch.cat([torch.zeros(low), torch.ones(high)])
    places = of_both_arms(t_N, Attribute("Young", "binary"), 4)
    assert len(places.unique()) == len(places) == min(4, low + high)
    assert int((t_N[places] == 0).sum()) == expected


def test_the_prior_grid_keeps_the_subject_and_its_noise_and_sets_the_cells_attributes(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    stored = make_stored(covariates=("Male", "Skin_Tone"))
    question = question_of(stored, faces)
    (young, male, skin) = stored.card.roles.inputs
    cells = prior_images(TrainedModel("ours", stored), question, [young, male], CPU, seed=3)
    assert [title for title, _ in cells] == [
        "Young = 0\nMale = 0", "Young = 0\nMale = 1", "Young = 1\nMale = 0", "Young = 1\nMale = 1"
    ]  # fmt: skip
    eta_BZ = torch.randn(4, stored.model.latent, generator=generator_for(3, "prior-figure"))
    few = question.chosen[evenly_spread(len(question.chosen), 4)]
    x_BX = torch.stack([torch.ones(4), few.x_NX[:, 1]], dim=1)
    prior = stored.model.prior_of(x_BX, torch.zeros(4, 1))
    turned_BZ = stored.model.paired(eta_BZ, few.t_NT, torch.zeros(4, 1))
    assert not torch.allclose(turned_BZ, eta_BZ, atol=1e-3), "some were photographed under Young = 1"
    z_BZ = prior.mean_BZ + prior.std_BZ * turned_BZ
    torch.testing.assert_close(cells[1][1], stored.model.decode(z_BZ, torch.zeros(4, 1), x_BX).mean_BCHW)
    titles = [title for title, _ in prior_images(TrainedModel("ours", stored), question, [skin], CPU, 0)]
    assert titles == [f"Skin_Tone = {v:.3g}" for v in (skin.low, (skin.low + skin.high) / 2, skin.high)]


def test_ridges_show_a_subject_of_either_arm_with_the_lower_dose_first(
    make_stored: MakeStored, faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    def keep(panels: list[RidgePanel], dimensions: list[int], notes: list[str]) -> Image.Image:
        shown.extend([panels, dimensions, notes])
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(module, "ridge_plot", keep)
    stored = make_stored()
    question = question_of(stored, faces)
    assert len(ridge_figures(TrainedModel("ours", stored), faces, question, CPU)) == 1
    panels, dimensions, notes = shown
    assert [(p.lower.label, p.lower.origin) for p in panels] == [
        ("Young = 0", "the photograph"), ("Young = 0", "the true counterfactual")
    ]  # fmt: skip
    assert [p.higher.origin for p in panels] == ["the true counterfactual", "the photograph"]
    first = int((question.chosen.t_NT[:, 0] == 0).nonzero()[0, 0])
    asked = question.batch(faces, slice(first, first + 1), CPU)
    assert asked.truth_BCHW is not None
    own = stored.model.encode(asked.truth_BCHW, asked.x_BX, asked.t_new_BT)
    torch.testing.assert_close(panels[0].higher.mean_Z, own.mean_BZ[0])
    torch.testing.assert_close(panels[0].higher.std_Z, own.std_BZ[0])
    torch.testing.assert_close(
        panels[0].lower.prior_mean_Z, stored.model.prior_of(asked.x_BX, asked.t_BT).mean_BZ[0]
    )
    sizes = [float(note.removesuffix(" nats")) for note in notes]
    assert sizes == sorted(sizes, reverse=True) and len(set(dimensions)) == stored.model.latent


def test_nobody_moved_gives_neither_ridges_nor_mean_effects(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    stored = make_stored()
    asked = question_of(stored, faces)
    still = replace(asked, t_new_NT=asked.chosen.t_NT)
    found = illustrate([TrainedModel("ours", stored)], faces, still, {}, CPU, seed=0)
    assert [picture.name for picture in found] == ["sweep_Young", "traversals", "prior", "calibration"]


def test_effects_from_the_prior_are_those_of_raising_the_dose_with_one_noise(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    stored = make_stored()
    question = question_of(stored, faces)
    groups = effect_groups(question, (), 3)
    found = average_effects([TrainedModel("ours", stored)], faces, question, groups, CPU, seed=5)[
        "from prior"
    ]
    count = len(question.chosen)
    (eta_NZ,) = PriorNoise(stored.model, seed=5).next(count)
    total = torch.zeros(3, 32, 32)
    for i in range(count):
        x_BX = question.chosen.x_NX[i : i + 1]
        images = []
        for dose in (0.0, 1.0):
            t_BT = torch.full((1, 1), dose)
            prior = stored.model.prior_of(x_BX, t_BT)
            z_BZ = prior.mean_BZ + prior.std_BZ * eta_NZ[i]
            images.append(stored.model.decode(z_BZ, t_BT, x_BX).mean_BCHW[0].clamp(0, 1))
        total += images[1] - images[0]
    torch.testing.assert_close(found[0], total / count, rtol=1e-3, atol=1e-5)


def test_a_sweep_is_what_prediction_gives_for_each_dose(make_stored: MakeStored, faces: PreparedData) -> None:
    stored = make_stored()
    question = question_of(stored, faces)
    images_SKCHW = sweep_images(TrainedModel("ours", stored), faces, question.chosen, 0, [-0.5, 1.0], CPU)
    asked = question.batch(faces, slice(None), CPU)
    abduction = abduct(stored.model, asked.y_BCHW, asked.x_BX, asked.t_BT)
    expected = predict(stored.model, abduction, torch.full_like(asked.t_BT, -0.5)).image_BCHW.clamp(0, 1)
    torch.testing.assert_close(images_SKCHW[:, 0], expected)


def test_mean_effects_agree_with_a_loop_whatever_the_batch(
    make_stored: MakeStored, faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_stored()
    question = question_of(stored, faces)
    groups = effect_groups(question, stored.card.roles.covariates, 3)
    assert [group.label for group in groups] == ["everyone", "Male = 0", "Male = 1"]
    monkeypatch.setattr(effects_module, "BATCH", 7)
    method = TrainedModel("ours", stored)
    found = average_effects([method], faces, question, groups, CPU, seed=0)
    assert list(found) == ["ours", "from prior", "truth"]
    male_N = question.chosen.x_NX[:, 0]
    expected = {"ours": [], "truth": []}
    for i in range(len(question.chosen)):
        asked = question.batch(faces, slice(i, i + 1), CPU)
        sign = 1.0 if float(asked.t_new_BT[0, 0]) > float(asked.t_BT[0, 0]) else -1.0
        answered = method.answer(asked).with_noise_BCHW.clamp(0, 1)
        expected["ours"].append(sign * (answered - asked.y_BCHW)[0])
        expected["truth"].append(sign * (asked.truth_BCHW - asked.y_BCHW)[0])
    for name, effects in expected.items():
        effect_NCHW = torch.stack(effects)
        torch.testing.assert_close(found[name][0], effect_NCHW.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[name][2], effect_NCHW[male_N == 1].mean(0), rtol=1e-4, atol=1e-5)


def test_the_encoder_is_given_each_doses_own_image(make_stored: MakeStored, faces: PreparedData) -> None:
    stored = make_stored()
    question = question_of(stored, faces)
    asked = question.batch(faces, slice(0, 3), CPU)
    assert asked.truth_BCHW is not None
    factual, intended = posteriors_by_arm(TrainedModel("ours", stored), asked)
    own = stored.model.encode(asked.truth_BCHW, asked.x_BX, asked.t_new_BT)
    torch.testing.assert_close(intended.posterior.mean_BZ, own.mean_BZ)
    torch.testing.assert_close(
        factual.posterior.mean_BZ, stored.model.encode(asked.y_BCHW, asked.x_BX, asked.t_BT).mean_BZ
    )
    wrong = stored.model.encode(asked.y_BCHW, asked.x_BX, asked.t_new_BT)
    assert not torch.allclose(intended.posterior.mean_BZ, wrong.mean_BZ, atol=1e-3)
    assert divergence(own, own).abs().max() == 0 and (divergence(own, wrong) >= 0).all()


def test_information_by_dimension_sums_to_the_kl_and_traversals_pass_through_the_subject(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    stored = make_stored()
    question = question_of(stored, faces)
    y_NCHW, x_NX, t_NT = question.chosen.read(faces, CPU)
    whole = stored.model.encode(y_NCHW, x_NX, t_NT).kl(stored.model.prior_of(x_NX, t_NT)).mean()
    found_Z = posterior_kl(stored.model, faces, question.chosen, CPU)
    assert float(found_Z.sum()) == pytest.approx(float(whole), rel=1e-4)
    abduction = abduct(stored.model, y_NCHW[:1], x_NX[:1], t_NT[:1])
    at_own = traverse(stored.model, abduction, 2, abduction.eta_BZ[0, 2:3])
    torch.testing.assert_close(at_own, abduction.reconstruction.mean_BCHW, rtol=1e-4, atol=1e-5)
    eta_BZ = torch.zeros(1, stored.model.latent)
    prior = stored.model.prior_of(x_NX[:1], t_NT[:1])
    torch.testing.assert_close(
        decode_prior(stored.model, x_NX[:1], t_NT[:1], eta_BZ),
        stored.model.decode(prior.mean_BZ, t_NT[:1], x_NX[:1]).mean_BCHW,
    )


def test_calibration_agrees_with_sklearn() -> None:
    generator = torch.Generator().manual_seed(0)
    probability_N = torch.rand(500, generator=generator, dtype=torch.float64)
    label_N = (torch.rand(500, generator=generator) < probability_N**2).double()
    found = reliability("Young", probability_N, label_N)
    frequency, confidence = calibration_curve(label_N.numpy(), probability_N.numpy(), n_bins=10)
    assert found.frequency_K == pytest.approx(frequency.tolist())
    assert found.confidence_K == pytest.approx(confidence.tolist())
    assert found.centre_K == pytest.approx([0.05 + k / 10 for k in range(10)])
    weights = np.array(found.count_K) / 500
    assert found.error == pytest.approx(float((weights * np.abs(frequency - confidence)).sum()))
    assert all(low <= f <= high for f, (low, high) in zip(found.frequency_K, found.interval_K, strict=True))
    with pytest.raises(ValueError, match="at least one image"):
        reliability("Young", probability_N[:0], label_N[:0])


def test_only_binary_inputs_of_a_model_with_a_predictor_are_calibrated(
    make_stored: MakeStored, faces: PreparedData
) -> None:
    stored = make_stored(covariates=("Male", "Skin_Tone"))
    chosen = question_of(stored, faces).chosen
    inputs = stored.card.roles.inputs
    assert [r.name for r in calibration(stored.model, inputs, faces, chosen, CPU)] == ["Young", "Male"]
    without = make_stored(covariates=("Male",), predictor=False)
    assert calibration(without.model, without.card.roles.inputs, faces, chosen, CPU) == []
