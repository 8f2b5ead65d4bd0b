"""Images from the prior: a seed is a draw of noise, and what is stated is honoured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from civae_core.errors import UsageError
from civae_core.inference import sampling
from civae_core.inference.sampling import sample_images
from civae_core.model.stored import StoredModel, load_model


@pytest.fixture(scope="module")
def stored(trained: Path) -> StoredModel:
    return load_model(trained)


def test_the_same_seed_is_the_same_image(stored: StoredModel) -> None:
    first, labels = sample_images(stored, [7, 8, 7], [{}] * 3)
    again, _ = sample_images(stored, [8], [{}])
    assert first.shape == (3, 3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert (again[0].int() - first[1].int()).abs().max() <= 1, "whatever is sampled beside it"
    assert labels[0] == labels[2]
    assert list(labels[0]) == ["Young", "Male", "Skin_Tone"]


def test_stated_attributes_are_honoured_and_the_others_are_a_subject_s(stored: StoredModel) -> None:
    seeds = list(range(40))
    _, labels = sample_images(stored, seeds, [{"Young": 0.0, "Male": 1.0}] * len(seeds))
    assert all((label["Young"], label["Male"]) == (0.0, 1.0) for label in labels)
    subjects = stored.card.subjects
    tones = {round(row[2], 4) for row in subjects if row[1] == 1.0}
    assert {round(label["Skin_Tone"], 4) for label in labels} <= tones, "of subjects that agree"
    assert len({label["Skin_Tone"] for label in labels}) > 5


def test_treatments_intervene_they_select_nobody(stored: StoredModel) -> None:
    seeds = list(range(40))
    drawn = {value: sample_images(stored, seeds, [{"Young": value}] * 40) for value in (0.0, 1.0, 2.5)}
    _, unset = sample_images(stored, seeds, [{}] * 40)
    for value, (_, labels) in drawn.items():
        assert labels == [label | {"Young": value} for label in unset], "nothing but the treatment differs"
    assert {label["Young"] for label in unset} == {0.0, 1.0}, "left alone, it is the subject's own"
    own = [index for index, label in enumerate(unset) if label["Young"] == 1.0]
    unset_images, _ = sample_images(stored, seeds, [{}] * 40)
    assert torch.equal(drawn[1.0][0][own], unset_images[own]), "set to what it is, it changes no pixel"
    assert not torch.equal(drawn[0.0][0], drawn[1.0][0])


def test_one_seed_under_several_treatments_is_one_subject(stored: StoredModel) -> None:
    stated = [{"Young": value, "Male": 0.0, "Skin_Tone": 0.3} for value in (0.0, 1.0, 2.5)]
    images, labels = sample_images(stored, [5, 5, 5], stated)
    assert labels == stated
    assert not torch.equal(images[0], images[1])
    noise = (images[0].int() - sample_images(stored, [6], stated[:1])[0][0].int()).abs().float().mean()
    assert (images[0].int() - images[1].int()).abs().float().mean() < noise, "the seed matters more"


def test_a_combination_that_no_subject_has_can_still_be_drawn(stored: StoredModel) -> None:
    card = replace(stored.card, subjects=[[1.0, 0.0, 0.5], [1.0, 0.0, 0.25]])
    lonely = replace(stored, card=card)
    _, labels = sample_images(lonely, [0, 1, 2], [{"Young": 0.0, "Male": 1.0}] * 3)
    assert all((label["Young"], label["Male"]) == (0.0, 1.0) for label in labels)
    assert {label["Skin_Tone"] for label in labels} <= {0.5, 0.25}


def test_many_seeds_go_in_batches(stored: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = sample_images(stored, range(7), [{}] * 7)
    monkeypatch.setattr(sampling, "BATCH", 3)
    parts, _ = sample_images(stored, range(7), [{}] * 7)
    assert (whole.int() - parts.int()).abs().max() <= 1


def test_values_under_which_no_picture_comes_out_are_refused(stored: StoredModel) -> None:
    with pytest.raises(UsageError, match="no picture comes out under the stated values"):
        sample_images(stored, [0, 1], [{}, {"Skin_Tone": 1e38}])
