"""What a studio keeps of photographs and how it scales effects, with an engine whose numbers are known."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.engine.base import Abducted, Array, Predicted
from civae_core.inference.pictures import Picture
from civae_core.model.calibrated import Calibration
from civae_core.serve.limits import Limits
from civae_core.serve.sittings import MOST_KEPT, Sitting, bytes_of

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from civae_core.serve.studio import Studio

SIZE = 16
IMAGE_BYTES = 4 * 3 * SIZE * SIZE
COVARIATES = ("A", "B", "C")
ALL = 2 ** len(COVARIATES)
"""Number of combinations of covariates that this engine considers possible."""


class Additive:
    """An engine whose treatments brighten every pixel, each by its own amount; images say nothing of covariates."""

    name, subjects, latent = "additive", (), 1
    calibration, familiarity = Calibration(), None

    def __init__(self, steps: Sequence[float]) -> None:
        self.preprocessing = {"size": SIZE, "channels": 3}
        self.steps_T = np.array(steps, dtype=np.float32)
        self.roles = AttributeRoles(
            tuple(Attribute(f"T{i}", "binary") for i in range(len(steps))),
            tuple(Attribute(name, "binary") for name in COVARIATES),
        )
        self.asked = 0

    def guess(self, y_BCHW: Array) -> Array:
        return np.zeros((len(y_BCHW), len(self.roles.inputs)), dtype=np.float32)

    def abduct(self, y_BCHW: Array, x_BX: Array, t_BT: Array) -> Abducted:
        return Abducted(0.9 * y_BCHW, {"t": t_BT, "y": y_BCHW, "residual": 0.1 * y_BCHW})

    def predict(self, abducted: Abducted, t_new_BT: Array, **_: float) -> Predicted:
        self.asked += 1
        step_B = (t_new_BT - abducted.state["t"]) @ self.steps_T
        effect_BCHW = np.broadcast_to(step_B.reshape(-1, 1, 1, 1), abducted.state["y"].shape)
        return Predicted(abducted.state["y"] + effect_BCHW, abducted.state["y"], effect_BCHW)

    def draw(self, *_: Array) -> Array:
        raise NotImplementedError


def studio_of(engine: Additive, **limits: Any) -> "Studio":
    from civae_core.serve.studio import ServedModel, Studio

    known = dict.fromkeys((a.name for a in engine.roles.treatments), 0.0)
    grey = Picture("grey", "grey", np.full((3, SIZE, SIZE), 64, dtype=np.uint8), known)
    return Studio([ServedModel("additive", engine)], [grey], Limits(**limits))


@pytest.fixture
def visit() -> Callable[..., "TestClient"]:
    """A visitor of a page on a studio."""
    from starlette.testclient import TestClient

    from civae_core.serve.app import make_app

    def make(studio: "Studio") -> TestClient:
        return TestClient(make_app(studio), base_url="http://127.0.0.1:8642")

    return make


def chosen(client: "TestClient") -> str:
    return f"/api/photos/{client.post('/api/examples/0').json()['photo']}/answer"


def test_what_was_found_out_counts_as_kept(visit: Callable[..., "TestClient"]) -> None:
    abduction = 2 * IMAGE_BYTES + ALL * 3 * IMAGE_BYTES
    client = visit(studio_of(Additive([0.2]), photo_bytes=round(2.8 * abduction)))
    first, second, third = (chosen(client) for _ in range(3))
    for photo in (first, second):
        assert client.post(photo, json={}).status_code == 200
    assert client.post(third, json={"attr": {"A": 3}}).status_code == 200, "four combinations fewer"
    assert client.post(first, json={}).status_code == 200, "as much as the limit takes"
    assert client.post(first, json={"attr": {"T0": 1}}).status_code == 200
    assert [client.post(photo, json={}).status_code for photo in (first, second, third)] == [200, 404, 200]


def test_the_photograph_that_is_asked_about_stays_however_large(visit: Callable[..., "TestClient"]) -> None:
    client = visit(studio_of(Additive([0.2]), photo_bytes=1))
    photo = chosen(client)
    assert [client.post(photo, json={"attr": {"A": value}}).status_code for value in (0, 1, 0)] == [200] * 3
    other = chosen(client)
    assert client.post(photo, json={}).status_code == 404 and client.post(other, json={}).status_code == 200


def test_only_the_abductions_asked_for_last_are_kept(visit: Callable[..., "TestClient"]) -> None:
    engine = Additive([0.2])
    client = visit(studio_of(engine))
    photo = chosen(client)

    def predictions(value: int) -> int:
        before = engine.asked
        assert client.post(photo, json={"attr": {"A": value}}).status_code == 200
        return engine.asked - before

    values = range(MOST_KEPT + 1)
    assert [predictions(value) for value in values] == [3] * len(values), (
        "two for the scale of each abduction"
    )
    assert [predictions(value) for value in values[1:]] == [1] * MOST_KEPT, "still known"
    assert predictions(values[0]) == 3, "abducted anew"


def test_all_that_engines_keep_is_counted(make_studio: Callable[..., "Studio"], photograph: bytes) -> None:
    from civae_core.serve.question import parse_question

    studio, sitting = make_studio(), Sitting(photograph)
    studio.sit(sitting)
    assert sitting.nbytes == len(photograph) + 3 * 32 * 32
    studio.answer(sitting, parse_question(b'{"attr": {"Young": 1, "Male": 1, "Skin_Tone": 0.5}}'))
    image = 4 * 3 * 32 * 32
    assert sitting.nbytes >= len(photograph) + 5 * image, (
        "y twice, its reconstruction twice, and the residual"
    )


def test_bytes_of_arrays_in_whatever_holds_them() -> None:
    numbers = np.zeros(5, dtype=np.float32)
    found = Abducted(numbers, {"some": [numbers, (numbers, None)], "name": "text"})
    assert bytes_of(found) == 3 * 20 and bytes_of([]) == bytes_of("text") == 0


@pytest.mark.parametrize("steps", [(0.2, 0.3), (0.2, -0.3), (0.1, 0.1, -0.2), (0.1,) * 4, (0.05,) * 9])
def test_the_scale_holds_for_treatments_together(
    visit: Callable[..., "TestClient"], steps: tuple[float, ...]
) -> None:
    engine = Additive(steps)
    client = visit(studio_of(engine))
    photo = chosen(client)
    for brighter in (True, False):
        treat = {f"T{i}": float((step > 0) == brighter) for i, step in enumerate(steps)}
        found = client.post(photo, json={"treat": treat}).json()
        joint = abs(sum(step for step in steps if (step > 0) == brighter))
        assert found["limit"] >= joint - 1e-6
    assert engine.asked <= 2 * len(steps) + 16 + 2, "what it takes does not grow as the combinations do"


def test_the_scale_of_one_treatment_takes_two_predictions(visit: Callable[..., "TestClient"]) -> None:
    engine = Additive([0.2])
    client = visit(studio_of(engine))
    assert client.post(chosen(client), json={}).json()["limit"] == pytest.approx(0.2)
    assert engine.asked == 2 + 1
