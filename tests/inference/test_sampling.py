"""Images from the prior: a seed is a subject and its noise, and what is stated is honoured."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from civae_core.errors import UsageError
from civae_core.figures.pictures import as_uint8
from civae_core.inference import sampling
from civae_core.inference.sampling import drawn_subjects, sample_images
from civae_core.inference.sheets import parse_grid, write_grids
from civae_core.inference.torch_engine import TorchEngine
from civae_core.model.stored import load_model
from civae_core.randomness import numpy_generator_for


@pytest.fixture(scope="module")
def engine(trained: Path) -> TorchEngine:
    return TorchEngine(load_model(trained))


@pytest.fixture
def turning(engine: TorchEngine) -> TorchEngine:
    """The same engine, with its noises rotated arbitrarily between arms."""
    model = deepcopy(engine.model)
    assert model.pairing is not None
    model.pairing.free_TLL.normal_(generator=torch.Generator().manual_seed(0))
    return TorchEngine(replace(engine.stored, model=model))


def test_the_same_seed_is_the_same_image(engine: TorchEngine) -> None:
    first, labels = sample_images(engine, [7, 8, 7], [{}] * 3)
    again, _ = sample_images(engine, [8], [{}])
    assert first.shape == (3, 3, 32, 32)
    assert first.dtype == np.uint8
    assert np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    assert np.abs(again[0].astype(int) - first[1].astype(int)).max() <= 1, "whatever is sampled beside it"
    assert labels[0] == labels[2]
    assert list(labels[0]) == ["Young", "Male", "Skin_Tone"]


def test_stated_attributes_are_honoured_and_the_others_are_a_subject_s(engine: TorchEngine) -> None:
    seeds = list(range(40))
    _, labels = sample_images(engine, seeds, [{"Young": 0.0, "Male": 1.0}] * len(seeds))
    assert all((label["Young"], label["Male"]) == (0.0, 1.0) for label in labels)
    subjects = engine.subjects
    tones = {row[2] for row in subjects if row[1] == 1.0}
    assert {label["Skin_Tone"] for label in labels} <= tones, "of subjects that agree"
    assert len({label["Skin_Tone"] for label in labels}) > 5


def test_treatments_intervene_they_select_nobody(engine: TorchEngine) -> None:
    seeds = list(range(40))
    drawn = {value: sample_images(engine, seeds, [{"Young": value}] * 40) for value in (0.0, 1.0, 2.5)}
    _, unset = sample_images(engine, seeds, [{}] * 40)
    for value, (_, labels) in drawn.items():
        assert labels == [label | {"Young": value} for label in unset], "nothing but the treatment differs"
    assert {label["Young"] for label in unset} == {0.0, 1.0}, "left alone, it is the subject's own"
    own = [index for index, label in enumerate(unset) if label["Young"] == 1.0]
    unset_images, _ = sample_images(engine, seeds, [{}] * 40)
    assert np.array_equal(drawn[1.0][0][own], unset_images[own]), "set to what it is, it changes no pixel"
    assert not np.array_equal(drawn[0.0][0], drawn[1.0][0])


def test_one_seed_under_several_treatments_is_one_subject(engine: TorchEngine) -> None:
    stated = [{"Young": value, "Male": 0.0, "Skin_Tone": 0.3} for value in (0.0, 1.0, 2.5)]
    images, labels = sample_images(engine, [5, 5, 5], stated)
    assert labels == stated
    assert not np.array_equal(images[0], images[1])
    noise = np.abs(images[0].astype(int) - sample_images(engine, [6], stated[:1])[0][0].astype(int)).mean()
    assert np.abs(images[0].astype(int) - images[1].astype(int)).mean() < noise, "the seed matters more"


def test_noise_is_drawn_under_the_subject_s_own_treatment_and_turned_to_the_one_that_is_set(
    engine: TorchEngine, turning: TorchEngine
) -> None:
    seeds = list(range(12))
    a_NA = drawn_subjects(turning, seeds, [{}] * 12)
    own_NT, x_NX = a_NA[:, :1], a_NA[:, 1:]
    noise_NZ = np.stack(
        [
            numpy_generator_for(s, "sample-noise").standard_normal(engine.latent, dtype=np.float32)
            for s in seeds
        ]
    )
    set_to_0, labels = sample_images(turning, seeds, [{"Young": 0.0}] * 12)
    assert {label["Young"] for label in labels} == {0.0} and len(np.unique(own_NT)) == 2
    wanted = as_uint8(turning.draw(x_NX, np.zeros_like(own_NT), noise_NZ, own_NT))
    assert np.abs(set_to_0.astype(int) - wanted.astype(int)).max() <= 1
    unturned, _ = sample_images(engine, seeds, [{"Young": 0.0}] * 12)
    moved = own_NT[:, 0] == 1.0
    assert (set_to_0[moved] != unturned[moved]).any() and np.array_equal(set_to_0[~moved], unturned[~moved])


def test_all_cells_of_a_grid_are_one_subject_s_and_nothing_else_is_decoded(
    turning: TorchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = next(s for s in range(20) if drawn_subjects(turning, [s], [{}])[0, 0] == 1.0)
    draw, given = turning.draw, []

    def noting(*arrays: np.ndarray) -> np.ndarray:
        given.append(arrays)
        return draw(*arrays)

    monkeypatch.setattr(turning, "draw", noting)
    grid = parse_grid("Young=0:1:3,Male=0:1:2", ["Young", "Male", "Skin_Tone"])
    write_grids(turning, tmp_path, [seed], {}, grid)
    assert len(given) == 3, "a column at a time"
    x_NX, t_NT, noise_NZ, own_NT = (np.concatenate(parts) for parts in zip(*given, strict=True))
    assert t_NT[:, 0].tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0] and x_NX[:, 0].tolist() == [0.0, 1.0] * 3
    assert (own_NT == 1.0).all() and len(np.unique(x_NX[:, 1])) == len(np.unique(noise_NZ, axis=0)) == 1


def test_a_combination_that_no_subject_has_can_still_be_drawn(engine: TorchEngine) -> None:
    card = replace(engine.stored.card, subjects=[[1.0, 0.0, 0.5], [1.0, 0.0, 0.25]])
    lonely = TorchEngine(replace(engine.stored, card=card))
    _, labels = sample_images(lonely, [0, 1, 2], [{"Young": 0.0, "Male": 1.0}] * 3)
    assert all((label["Young"], label["Male"]) == (0.0, 1.0) for label in labels)
    assert {label["Skin_Tone"] for label in labels} <= {0.5, 0.25}


def test_truncation_scales_the_latent_noise(engine: TorchEngine) -> None:
    seeds, stated = range(8), [{"Young": 1.0, "Male": 0.0, "Skin_Tone": 0.4}] * 8
    x_BX, t_BT = (np.array([row] * 8, dtype=np.float32) for row in ([0.0, 0.4], [1.0]))
    own_BT = drawn_subjects(engine, seeds, stated)[:, :1]
    noise_BZ = np.stack(
        [
            numpy_generator_for(s, "sample-noise").standard_normal(engine.latent, dtype=np.float32)
            for s in seeds
        ]
    )
    for psi in (0.0, 0.5, 1.0):
        found, _ = sample_images(engine, seeds, stated, psi)
        wanted = as_uint8(engine.draw(x_BX, t_BT, psi * noise_BZ, own_BT))
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    usual, _ = sample_images(engine, seeds, stated, 0.0)
    assert (usual == usual[:1]).all(), "without noise all who share their attributes are one"


def test_many_seeds_go_in_batches(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = sample_images(engine, range(7), [{}] * 7)
    monkeypatch.setattr(sampling, "BATCH", 3)
    parts, _ = sample_images(engine, range(7), [{}] * 7)
    assert np.abs(whole.astype(int) - parts.astype(int)).max() <= 1


def test_values_under_which_no_picture_comes_out_are_refused(engine: TorchEngine) -> None:
    with pytest.raises(UsageError, match="the model gives no finite image under the stated values"):
        sample_images(engine, [0, 1], [{}, {"Skin_Tone": 1e38}])
