"""Age in years: the same people as with Young, an assignment with a known density, and truth at every dose."""

import itertools

import pytest
import torch

from civae_core.errors import UsageError
from civae_core.synthetic import AGE_ATTRIBUTES, AGE_ROLES, IN_YEARS, FaceProcess, Subjects
from civae_core.synthetic.cohorts import people

NAMES = [a.name for a in AGE_ATTRIBUTES]
DOSES = (-400.0, 0.0, 18.0, 20.0, 26.0, 33.0, 41.0, 50.0, 62.0, 71.0, 80.0, 95.0, 120.0, 400.0)


def column(subjects: Subjects, name: str) -> torch.Tensor:
    return subjects.attributes_NA[:, NAMES.index(name)]


def in_years(overlap: float = 0.5, seed: int = 0, size: int = 32) -> FaceProcess:
    return FaceProcess(overlap=overlap, seed=seed, size=size, ageing=IN_YEARS)


@pytest.fixture(scope="module")
def crowd() -> Subjects:
    return in_years().subjects(0, 20_000)


@pytest.mark.parametrize("overlap", [1.0, 0.5, 0.1])
def test_they_are_the_people_of_the_process_in_two_classes(overlap: float) -> None:
    years, classes = in_years(overlap, seed=4), FaceProcess(overlap=overlap, seed=4, size=32)
    aged, known = years.subjects(0, 3_000), classes.subjects(0, 3_000)
    assert torch.equal(aged.noise_NK, known.noise_NK)
    for name, value in known.roots.items():
        if name != "Young":
            assert torch.equal(aged.roots[name], value), name
    # A uniform number within rounding of the threshold may fall on either side of it.
    assert (column(aged, "Young") == known.roots["Young"]).float().mean() > 0.999


def test_at_20_and_at_80_they_look_as_young_and_as_old() -> None:
    years, classes = in_years(seed=2), FaceProcess(seed=2, size=32)
    aged, known = years.subjects(0, 64), classes.subjects(0, 64)
    for age, young in ((20.0, 1.0), (-3.0, 1.0), (80.0, 0.0)):
        shown = years.render(aged.under({"Age": age}))
        assert torch.equal(shown, classes.render(known.under({"Young": young}))), age


@pytest.mark.parametrize("overlap", [1.0, 0.5, 0.2])
def test_ages_follow_the_density_that_is_stated(overlap: float) -> None:
    process = in_years(overlap)
    drawn = process.subjects(0, 20_000)
    for male in (0.0, 1.0):
        alike = torch.ones(len(drawn), dtype=torch.bool)
        for name, value in {"Male": male, "Smiling": 0.0, "Eyeglasses": 0.0, "Blond_Hair": 0.0}.items():
            alike &= drawn.roots[name] == value
        some = drawn[alike]
        ages_M = torch.linspace(18.0, 85.0, 4_001)
        first = {name: value[:1].expand(len(ages_M)) for name, value in some.roots.items()}
        density_M = process.treatment_density({**first, "Age": ages_M}).double()
        assert torch.trapezoid(density_M, ages_M.double()) == pytest.approx(1.0, abs=2e-3)
        below_M = torch.cumulative_trapezoid(density_M, ages_M.double())
        assert below_M[(ages_M[1:] < 45.0).sum() - 1] == pytest.approx(
            float(process.propensity(first)[0]), abs=5e-3
        )
        found_M = (some.roots["Age"][:, None] <= ages_M[1:]).double().mean(0)
        # Kolmogorov–Smirnov: 1.63/√n is passed by one sample of a hundred.
        assert (found_M - below_M).abs().max() < 1.63 / len(some) ** 0.5


def test_no_age_beyond_18_to_85_is_ever_assigned(crowd: Subjects) -> None:
    process = in_years()
    beyond = {**crowd.roots, "Age": torch.full((len(crowd),), 85.5)}
    assert (process.treatment_density(beyond) == 0).all()
    assert crowd.roots["Age"].min() >= 18.0
    assert crowd.roots["Age"].max() <= 85.0


def test_two_classes_state_their_probability() -> None:
    process = FaceProcess(overlap=0.3)
    some = process.subjects(0, 500)
    p_young, young = process.propensity(some.roots), some.roots["Young"]
    expected = torch.where(young > 0, p_young, 1 - p_young)
    torch.testing.assert_close(process.treatment_density(some.roots), expected)


def test_overlap_says_how_far_covariates_decide() -> None:
    explained = []
    for overlap in (1.0, 0.5, 0.2, 0.05):
        drawn = in_years(overlap).subjects(0, 8_000)
        age, male = drawn.roots["Age"], drawn.roots["Male"] > 0
        within = torch.where(male, age - age[male].mean(), age - age[~male].mean())
        explained.append(1.0 - float(within.var() / age.var()))
    assert explained[0] < 0.01
    assert all(second > first + 0.05 for first, second in itertools.pairwise(explained))
    assert explained[-1] > 0.95


def test_randomised_ages_are_even_and_independent() -> None:
    fair = in_years().subjects(0, 20_000, randomised=True)
    age = fair.roots["Age"]
    for share in (0.1, 0.5, 0.9):
        assert torch.quantile(age, share).item() == pytest.approx(18 + 67 * share, abs=1.0)
    for name in ("Male", "Smiling", "Eyeglasses", "Blond_Hair", "Blue_Eyes", "Skin_Tone"):
        pair = torch.stack([age, fair.roots[name]])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 0.03, name


def test_doing_age_moves_its_descendants_only(crowd: Subjects) -> None:
    few = crowd[:2_000]
    older = few.under({"Age": few.roots["Age"] + 25.0})
    changed = {name for name in NAMES if not torch.equal(column(few, name), column(older, name))}
    assert changed == {"Age", "Gray_Hair", "Receding_Hairline", "Wrinkles", "Young"}
    assert {a.name for a in AGE_ROLES.descendants} == changed - {"Age"}
    assert torch.equal(few.under({"Age": few.roots["Age"]}).attributes_NA, few.attributes_NA)


def test_every_consequence_grows_with_every_year(crowd: Subjects) -> None:
    few = crowd[:500]
    for younger, older in itertools.pairwise(few.under({"Age": dose}) for dose in DOSES):
        for name in ("Gray_Hair", "Receding_Hairline", "Wrinkles"):
            assert (older.levels[name] >= younger.levels[name]).all(), name
            assert (column(older, name) >= column(younger, name)).all(), name
    middle, later = few.under({"Age": 45.0}).levels, few.under({"Age": 46.0}).levels
    assert (later["Gray_Hair"] > middle["Gray_Hair"]).all()
    assert (later["Wrinkles"] > middle["Wrinkles"]).all()


def test_the_labels_are_rare_in_the_young_and_usual_in_the_old(crowd: Subjects) -> None:
    age, man = column(crowd, "Age"), column(crowd, "Male") > 0
    for name, among in {"Gray_Hair": age > 0, "Wrinkles": age > 0, "Receding_Hairline": man}.items():
        assert column(crowd, name)[among & (age < 30)].sum() == 0, name
        assert column(crowd, name)[among & (age > 70)].mean() > 0.95, name
    assert torch.equal(column(crowd, "Young"), (age < 45).float())


def test_hair_greys_pixel_by_pixel_without_turning_back() -> None:
    """Where only hair colour changes, each channel of each pixel moves in one direction from dose to dose."""
    process = in_years(size=64)
    woman = process.subjects(0, 24, randomised=True).under({"Male": 0.0})
    photos = torch.stack([process.render(woman.under({"Age": dose})) for dose in DOSES]).int()
    steps = photos.diff(dim=0)
    hair = slice(2, 14)  # rows above every forehead: hair and backdrop
    there_and_back = (steps > 0).any(0) & (steps < 0).any(0)
    assert not there_and_back[:, :, hair].any()
    assert (steps[:, :, :, hair] != 0).any(dim=(0, 2, 3, 4)).all()


def test_age_is_set_by_a_number_and_young_not_at_all() -> None:
    subjects = in_years().subjects(0, 4)
    with pytest.raises(UsageError, match="only a binary attribute can be flipped"):
        subjects.under({"Age": "flip"})
    with pytest.raises(UsageError, match="unknown attribute 'Young'"):
        subjects.under({"Young": 0.0})


def test_subjects_keep_their_ageing_wherever_they_go() -> None:
    process = in_years(seed=9)
    cohort = people(process, range(300), 200)
    assert torch.equal(cohort[:200].attributes_NA, process.subjects(0, 200).attributes_NA)
    assert torch.equal(cohort[200:].attributes_NA, process.subjects(200, 100, randomised=True).attributes_NA)
    assert cohort.to("cpu")[3:5].under({"Male": "flip"}).ageing == IN_YEARS
