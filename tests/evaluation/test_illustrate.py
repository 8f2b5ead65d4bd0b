"""The report's figures: what they are drawn from, against loops and independent references."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from civae_core.attributes import Attribute
from civae_core.counterfactual import abduct, predict
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation import average_effects as effects_module
from civae_core.evaluation.average_effects import average_effects, decode_prior, effect_groups
from civae_core.evaluation.calibration import calibration, reliability, wilson_interval
from civae_core.evaluation.evaluate import overlap_by_treatment
from civae_core.evaluation.illustrate import doses, illustrate, sweep_images
from civae_core.evaluation.latents import divergence, posterior_kl, posteriors_by_arm, traverse
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question, ask
from civae_core.model.stored import StoredModel

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
    ridges = next(picture for picture in found if picture.name == "ridges")
    assert "the model's counterfactual" in ridges.caption


def test_doses_reach_beyond_training_on_both_sides() -> None:
    assert doses(Attribute("Young", "binary"), 5) == pytest.approx([-0.5, 0.0, 0.5, 1.0, 1.5])
    age = Attribute("Age", "continuous", low=20.0, high=60.0)
    assert doses(age)[0] == pytest.approx(14.0) and doses(age)[-1] == pytest.approx(66.0)
    assert [age.in_range(value) for value in doses(age)] == [False, True, True, True, True, True, False]


def test_a_sweep_is_what_prediction_gives_for_each_dose(make_stored: MakeStored, faces: PreparedData) -> None:
    stored = make_stored()
    question = question_of(stored, faces)
    images_SKCHW = sweep_images(TrainedModel("ours", stored), faces, question, 0, [-0.5, 1.0], CPU)
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
    weights = np.array(found.count_K) / 500
    assert found.error == pytest.approx(float((weights * np.abs(frequency - confidence)).sum()))
    assert all(low <= f <= high for f, (low, high) in zip(found.frequency_K, found.interval_K, strict=True))
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
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
