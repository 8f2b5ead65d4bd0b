"""The structural causal model: frequencies, do(), and that subject i is always the same person."""

import itertools

import pytest
import torch

from civae_core.errors import UsageError
from civae_core.synthetic import ATTRIBUTES, ROLES, FaceProcess, Subjects

NAMES = [a.name for a in ATTRIBUTES]


def column(subjects: Subjects, name: str) -> torch.Tensor:
    return subjects.attributes_NA[:, NAMES.index(name)]


@pytest.fixture(scope="module")
def crowd() -> Subjects:
    return FaceProcess(overlap=0.5).subjects(0, 20_000)


@pytest.fixture(scope="module")
def fair_crowd() -> Subjects:
    return FaceProcess(overlap=0.5).subjects(0, 20_000, randomised=True)


def odds_of_young(subjects: Subjects, male: float) -> float:
    young = column(subjects, "Young")[column(subjects, "Male") == male].mean().item()
    return young / (1.0 - young)


def correlation(subjects: Subjects, first: str, second: str) -> float:
    pair = torch.stack([column(subjects, first), column(subjects, second)])
    return torch.corrcoef(pair)[0, 1].item()


def test_age_and_sex_are_tied_as_in_celeba(crowd: Subjects) -> None:
    assert odds_of_young(crowd, male=0.0) == pytest.approx(7.0, abs=0.8)
    assert odds_of_young(crowd, male=1.0) == pytest.approx(1.7, abs=0.15)


def test_hair_and_eye_colour_are_tied_without_a_cause(crowd: Subjects) -> None:
    blond, blue = column(crowd, "Blond_Hair") > 0, column(crowd, "Blue_Eyes")
    assert blue[blond].mean().item() == pytest.approx(0.75, abs=0.03)
    assert blue[~blond].mean().item() == pytest.approx(0.15, abs=0.02)
    # No cause: setting the one leaves the other alone.
    dyed = crowd.under({"Blond_Hair": "flip"})
    assert torch.equal(column(dyed, "Blue_Eyes"), blue)


def test_randomised_subjects_fill_every_cell(fair_crowd: Subjects) -> None:
    roots = ["Young", "Male", "Smiling", "Eyeglasses", "Blond_Hair", "Blue_Eyes", "Skin_Tone"]
    for i, first in enumerate(roots):
        for second in roots[i + 1 :]:
            assert abs(correlation(fair_crowd, first, second)) < 0.03, (first, second)
    for name in ("Young", "Male"):
        assert column(fair_crowd, name).mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("overlap", "spread"), [(1.0, (0.0, 1e-6)), (0.5, (0.05, 0.2)), (0.1, (0.35, 0.5)), (0.0, (0.35, 0.5))]
)
def test_overlap_sets_how_far_covariates_decide(overlap: float, spread: tuple[float, float]) -> None:
    process = FaceProcess(overlap=overlap)
    p_young = process.propensity(process.subjects(0, 4_000).roots)
    assert spread[0] <= p_young.std().item() <= spread[1]


def test_consequences_follow_their_causes(crowd: Subjects) -> None:
    woman, young = column(crowd, "Male") == 0, column(crowd, "Young") == 1
    assert column(crowd, "Beard")[woman].sum() == 0
    assert column(crowd, "Beard")[~woman].mean().item() == pytest.approx(0.45, abs=0.03)
    assert column(crowd, "Receding_Hairline")[woman | young].sum() == 0
    for name in ("Gray_Hair", "Wrinkles"):
        assert column(crowd, name)[young].sum() == 0
        assert 0.75 < column(crowd, name)[~young].mean().item() < 0.95


def test_doing_young_moves_its_descendants_only(crowd: Subjects) -> None:
    few = crowd[:2_000]
    old = few.under({"Young": 0.0})
    changed = {name for name in NAMES if not torch.equal(column(few, name), column(old, name))}
    assert changed == {"Young", "Gray_Hair", "Receding_Hairline", "Wrinkles"}
    assert {a.name for a in ROLES.descendants} == changed - {"Young"}
    assert torch.equal(old.under({"Young": few.roots["Young"]}).attributes_NA, few.attributes_NA)


def test_doing_male_moves_beard_and_hairline_only(crowd: Subjects) -> None:
    few = crowd[:2_000]
    other = few.under({"Male": "flip"})
    changed = {name for name in NAMES if not torch.equal(column(few, name), column(other, name))}
    assert changed == {"Male", "Beard", "Receding_Hairline"}


def test_effects_are_monotone_in_the_dose(crowd: Subjects) -> None:
    few = crowd[:1_000]
    doses = [few.under({"Young": dose}).levels for dose in (1.5, 1.0, 0.7, 0.3, 0.0, -0.5, -3.0)]
    for younger, older in itertools.pairwise(doses):
        for name in ("Gray_Hair", "Receding_Hairline", "Wrinkles"):
            assert (older[name] >= younger[name]).all(), name
    assert all((level == 0).all() for name, level in doses[1].items() if name != "Beard")


def test_a_subject_is_the_same_whoever_asks() -> None:
    process = FaceProcess(seed=3)
    many = process.subjects(0, 700)
    for start, count in ((0, 1), (255, 2), (256, 256), (699, 1), (300, 13)):
        some = process.subjects(start, count)
        assert len(some) == count
        assert torch.equal(some.noise_NK, many.noise_NK[start : start + count])
        assert torch.equal(some.attributes_NA, many.attributes_NA[start : start + count])


def test_seeds_and_streams_are_other_people() -> None:
    first, second = FaceProcess(seed=0).subjects(0, 512), FaceProcess(seed=1).subjects(0, 512)
    fair = FaceProcess(seed=0).subjects(0, 512, randomised=True)
    rows = torch.cat([first.noise_NK, second.noise_NK, fair.noise_NK])
    assert len(rows.unique(dim=0)) == 3 * 512


def test_no_subjects_is_an_answer() -> None:
    process = FaceProcess(size=32)
    nobody = process.subjects(10, 0)
    assert nobody.attributes_NA.shape == (0, len(ATTRIBUTES))
    assert process.render(nobody).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    "settings", [{"overlap": 1.5}, {"overlap": -0.1}, {"size": 16}, {"size": 512}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(UsageError, match=f"{name}: {value}"):
        FaceProcess(**settings)  # type: ignore[arg-type]


def test_impossible_interventions_are_refused() -> None:
    subjects = FaceProcess().subjects(0, 4)
    with pytest.raises(UsageError, match="did you mean Young"):
        subjects.under({"Yuong": 0.0})
    with pytest.raises(UsageError, match="only a binary attribute can be flipped"):
        subjects.under({"Skin_Tone": "flip"})
    with pytest.raises(UsageError, match="neither a number nor 'flip'"):
        subjects.under({"Young": "older"})
    with pytest.raises(UsageError, match="3,"):
        subjects.under({"Young": torch.zeros(3)})
    # A consequence is computed, not set.
    with pytest.raises(UsageError, match="unknown attribute 'Gray_Hair'"):
        subjects.under({"Gray_Hair": 1.0})
