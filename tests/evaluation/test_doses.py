"""Responses to a sweep of doses: of the truth, a copy, and methods that turn back, overshoot or break."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pretended import MPS, PretendedAppleGPU
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.resolve import SourceOptions, open_source
from civae_core.evaluation.asked import Answer, Asked
from civae_core.evaluation.doses import KnownDoses, dose_scores, known_doses
from civae_core.evaluation.methods import CopyInput
from civae_core.model.distributions import standard_normal
from civae_core.synthetic import AGE_ATTRIBUTES, AGE_ROLES, IN_YEARS, ROLES, FaceProcess
from civae_core.synthetic.cohorts import people, split_sizes
from civae_core.yardstick import Reading

CPU = torch.device("cpu")
COUNT, SEED = 100, 4
TRUTHS = ["Age=50", "Age=20", "Age=80", "Age=35", "Age=100", "Age=30,Male=1", "Male=flip"]


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    source = open_source(
        "synthetic:faces-age", SourceOptions(size=32, count=COUNT, seed=SEED, overlap=1.0, truths=TRUTHS)
    )
    out = tmp_path_factory.mktemp("aged") / "faces"
    return prepare(source, out, workers=1, max_bad=MaxBad.parse("0")).data


@pytest.fixture(scope="module")
def known(aged: PreparedData) -> KnownDoses:
    roles = AttributeRoles.assign(aged.attributes, ["Age"], [a.name for a in AGE_ROLES.covariates], ["Young"])
    (found,) = known_doses(aged, roles, labelled_rows(aged, roles, "test"))
    return found


class Redraw:
    """Draws each subject again, at the age that `age` returns for the one asked for; faultless if both are equal."""

    name = "redraw"

    def __init__(self, age: Callable[[Tensor], Tensor] = lambda age_B: age_B) -> None:
        self._process = FaceProcess(overlap=1.0, seed=SEED, size=32, ageing=IN_YEARS)
        self._everybody = people(self._process, range(COUNT), split_sizes(COUNT)[0])
        self._age = age

    def answer(self, asked: Asked) -> Answer:
        subjects = self._everybody[asked.rows_B].under({"Age": self._age(asked.t_new_BT[:, 0])})
        return Answer(self._process.render(subjects).float() / 255)


class Lighten:
    """Adds light by age, to every pixel alike: a picture that leaves [0, 1] sooner or later."""

    name = "lighten"

    def answer(self, asked: Asked) -> Answer:
        return Answer(asked.y_BCHW + 0.02 * asked.t_new_BT[:, 0, None, None, None])


class Broken:
    """NaN from some age on, for every other subject."""

    name = "broken"

    def __init__(self, upwards_of: float) -> None:
        self._from, self._redraw = upwards_of, Redraw()

    def answer(self, asked: Asked) -> Answer:
        picture_BCHW = self._redraw.answer(asked).with_noise_BCHW
        lost_B = (asked.t_new_BT[:, 0] >= self._from) & (asked.rows_B % 2 == 0)
        return Answer(torch.where(lost_B[:, None, None, None], torch.nan, picture_BCHW))


class SeesLight:
    """A scorer of Age that goes by brightness alone."""

    attributes = (AGE_ATTRIBUTES[0],)

    def index(self, name: str) -> int:
        return [a.name for a in self.attributes].index(name)

    def read(self, y_BCHW: Tensor) -> Reading:
        light_B1 = y_BCHW.flatten(1).mean(1, keepdim=True)
        return Reading(light_B1, light_B1, standard_normal(len(y_BCHW), 1, like=y_BCHW))


def scores(method: Any, known: KnownDoses, data: PreparedData, scorer: Any = None) -> dict[str, Any]:
    return dose_scores(method, known, data, CPU, seed=0, yardstick=scorer)


def test_doses_are_found_ascending_and_alone(known: KnownDoses) -> None:
    assert known.doses == (20.0, 35.0, 50.0, 80.0, 100.0)
    assert known.treatment.high < 100
    assert known.inside == [0, 1, 2, 3]
    assert len(known.chosen) == 10
    low, high = known.treatment.low, known.treatment.high
    assert min(known.sweep) == pytest.approx(low - 0.5 * (high - low))
    assert max(known.sweep) == pytest.approx(high + 0.5 * (high - low))
    assert list(known.sweep) == sorted(known.sweep)


def test_a_treatment_with_one_dose_or_flips_only_has_no_response(faces: PreparedData) -> None:
    assert known_doses(faces, ROLES, labelled_rows(faces, ROLES, "test")) == []


def test_the_subjects_of_a_sweep_can_be_limited(aged: PreparedData, known: KnownDoses) -> None:
    roles = AttributeRoles.assign(aged.attributes, ["Male", "Age"], ["Smiling"])
    (few,) = known_doses(aged, roles, labelled_rows(aged, roles, "test"), limit=5)
    assert (few.place, few.treatment.name, len(few.chosen)) == (1, "Age", 5)
    for number, dose in enumerate(few.doses):
        redrawn = Redraw(lambda age_B, dose=dose: torch.full_like(age_B, dose))
        y_BCHW, x_BX, t_BT = few.chosen.read(aged, CPU)
        asked = Asked(few.chosen.rows_N, y_BCHW, x_BX, t_BT, t_BT, t_BT[:, 0])
        assert torch.equal(few.truths[number].images(slice(None)), redrawn.answer(asked).with_noise_BCHW)


def test_the_truth_responds_as_itself(aged: PreparedData, known: KnownDoses) -> None:
    found = scores(Redraw(), known, aged)
    assert found["n"] == 10
    for name in ("monotone", "monotone_beyond", "pixels_in_order", "reach"):
        assert found[name]["mean"] == pytest.approx(1.0, abs=1e-6), name
    assert found["response_error"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert found["finite"] == found["true_monotone"] == 1.0
    for dose in known.doses:
        point = found["curve"][f"{dose:g}"]
        assert point["response"]["mean"] == pytest.approx(point["true_response"]["mean"], abs=1e-6)
        assert point["in_range"] == (dose < 100)
        assert point["clipped"] == 0.0
    responses = [point["response"]["mean"] for point in found["curve"].values() if point["in_range"]]
    assert responses == sorted(responses)
    assert responses[-1] == pytest.approx(1.0)
    assert [p for p in found["curve"].values() if "true_response" not in p] != []


def test_doing_nothing_earns_nothing(aged: PreparedData, known: KnownDoses) -> None:
    found = scores(CopyInput(), known, aged)
    assert found["true_monotone"] == 1.0
    for name in ("pixels_in_order", "reach"):
        assert found[name] == {"mean": 0.0, "lo": 0.0, "hi": 0.0}, name
    for name in ("monotone", "monotone_beyond"):
        assert found[name]["mean"] == found[name]["lo"] == 0.0 < found[name]["hi"], name
    expected = [found["curve"][f"{dose:g}"]["true_response"]["mean"] for dose in known.doses[1:4]]
    assert found["response_error"]["mean"] == pytest.approx(sum(expected) / 3, rel=1e-6)


def test_turning_back_within_the_range_is_found(aged: PreparedData, known: KnownDoses) -> None:
    found = scores(Redraw(lambda age_B: torch.where(age_B == 50, 21.0, age_B)), known, aged)
    assert found["monotone"]["mean"] < 0.2
    assert found["monotone_beyond"]["mean"] <= found["monotone"]["mean"]
    assert found["pixels_in_order"]["mean"] < 0.9
    assert found["reach"]["mean"] == pytest.approx(1.0)


def test_turning_back_beyond_the_range_is_found_there_only(aged: PreparedData, known: KnownDoses) -> None:
    high = known.treatment.high
    found = scores(Redraw(lambda age_B: torch.where(age_B > high + 5, 30.0, age_B)), known, aged)
    assert found["monotone"]["mean"] == 1.0
    assert found["monotone_beyond"]["mean"] == 0.0


def test_going_the_wrong_way_is_not_monotone(aged: PreparedData, known: KnownDoses) -> None:
    found = scores(Redraw(lambda age_B: 100 - age_B), known, aged)
    assert found["monotone"]["mean"] == 0.0
    assert found["pixels_in_order"]["mean"] < 0.01
    assert found["reach"]["mean"] == pytest.approx(-1.0, abs=0.05)


def test_half_the_effect_is_monotone_and_reaches_half(aged: PreparedData, known: KnownDoses) -> None:
    class Half(Redraw):
        def answer(self, asked: Asked) -> Answer:
            return Answer(0.5 * asked.y_BCHW + 0.5 * super().answer(asked).with_noise_BCHW)

    found = scores(Half(), known, aged)
    assert found["monotone"]["mean"] == found["monotone_beyond"]["mean"] == 1.0
    assert found["reach"]["mean"] == pytest.approx(0.5)


def test_colours_that_leave_the_picture_are_counted_by_dose(aged: PreparedData, known: KnownDoses) -> None:
    curve = scores(Lighten(), known, aged)["curve"]
    clipped = [point["clipped"] for dose, point in curve.items() if float(dose) > 0]
    assert clipped == sorted(clipped)
    y_BCHW = known.chosen.read(aged, CPU)[0]
    assert curve["35"]["clipped"] == pytest.approx(float((y_BCHW + 0.7 > 1 + 0.5 / 255).float().mean()))


def test_what_is_not_finite_is_told_and_not_averaged(aged: PreparedData, known: KnownDoses) -> None:
    found = scores(Broken(upwards_of=81.0), known, aged)
    even = float((known.chosen.rows_N % 2 == 0).double().mean())
    assert found["finite"] == found["monotone"]["mean"] == found["monotone_beyond"]["mean"] == 1 - even
    assert found["reach"]["mean"] == pytest.approx(1.0)
    everything = scores(Broken(upwards_of=-1000.0), known, aged)
    assert everything["finite"] == 1 - even
    assert everything["response_error"]["mean"] == pytest.approx(0.0, abs=1e-6)


def test_a_scorer_reads_the_doses_in_years(aged: PreparedData, known: KnownDoses) -> None:
    found = scores(Lighten(), known, aged, SeesLight())
    age = AGE_ATTRIBUTES[0]
    y_BCHW = known.chosen.read(aged, CPU)[0]
    light = float((y_BCHW + 0.4).clamp(0, 1).mean())
    assert found["curve"]["20"]["seen"]["mean"] == pytest.approx(age.mean + age.std * light, rel=1e-5)
    assert found["seen_correlation"] > 0.5
    truth = scores(Redraw(), known, aged, SeesLight())["curve"]
    for dose in known.doses:
        point = truth[f"{dose:g}"]
        assert point["seen"]["mean"] == pytest.approx(point["seen_truth"]["mean"], rel=1e-6)
    assert "seen" not in scores(CopyInput(), known, aged)["curve"]["20"]
    assert "seen_correlation" not in scores(CopyInput(), known, aged)


def test_an_apple_gpu_scores_the_same(aged: PreparedData, known: KnownDoses) -> None:
    """It has no float64, in which the responses are computed."""
    expected = scores(Lighten(), known, aged, SeesLight())
    with PretendedAppleGPU():
        assert dose_scores(Lighten(), known, aged, MPS, seed=0, yardstick=SeesLight()) == expected
